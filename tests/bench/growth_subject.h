/*
 * A cache of a given number of entries, and the operations whose cost must not grow with it. For
 * growth.c, which times them, and growth_count.c, which counts their instructions. Not thread-safe;
 * what fails ends the program (bench_fail).
 */
#ifndef PTIER_BENCH_GROWTH_SUBJECT_H
#define PTIER_BENCH_GROWTH_SUBJECT_H

#include "cache/cache_internal.h"
#include "support/virtual_clock.h"

typedef enum growth_tiers {
    GROWTH_MEMORY, /* all of it in L1, nothing on disk */
    GROWTH_ALL,    /* as by default: 1,000 in L1, 5,000 in L2, all in L3 */
    GROWTH_L3,     /* L3 alone */
} growth_tiers;

typedef struct growth_subject {
    ptier_cache *cache;
    ptier_test_clock clock;
    size_t entries; /* numbers 0 to `entries` - 1 live in it, for good */
    uint64_t seed;
} growth_subject;

/* `directory`: of the data, used again if it is there; not for GROWTH_MEMORY. The subject must not
 * move while it is open. Returns the seconds until it served. */
double growth_open(growth_subject *g, growth_tiers tiers, size_t entries, const char *directory);
void growth_close(growth_subject *g);

/* Puts `count` new entries, in batches of 1,000. `ttl_ms` 0: they stay until they are removed. */
void growth_put(growth_subject *g, size_t first, size_t count, int64_t ttl_ms);

/* Waits until L3 has everything. */
void growth_settle(growth_subject *g);

/* Until L3 has the figures of use of what was read. */
void growth_settle_uses(growth_subject *g);

/* Removes what is there beyond the first `entries`, up to `count`. */
void growth_remove(growth_subject *g, size_t count);

void growth_get(growth_subject *g, size_t count); /* random ones of `entries` */

#define GROWTH_TTL_MS 3600000

/* What was put with that TTL, beyond those that live for good, expires; returns when it is gone. */
void growth_expire(growth_subject *g);

/* Lists up to `count` entries, in pages of 1,000, from the beginning. */
void growth_list(growth_subject *g, size_t count);

#endif
