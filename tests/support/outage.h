/*
 * Disk tiers of a cache box that fail on demand, and what the box's keys "p<number>" should be. The
 * shim (io_shim.h) must be linked. Failures fail the running cmocka test.
 */
#ifndef PTIER_TEST_OUTAGE_H
#define PTIER_TEST_OUTAGE_H

#include <stdatomic.h>

#include "support/cache_box.h"
#include "support/io_shim.h"

enum { OUTAGE_KEYS = 4096 };

/* Whose files cannot be changed: patterns for ptier_outage_begin. */
#define OUTAGE_L2   "l2*"
#define OUTAGE_L3   "l3*"
#define OUTAGE_BOTH "l[23]*"

typedef struct ptier_outage {
    ptier_test_box box, copy;       /* the copy's directory "": there is none */
    uint64_t expected[OUTAGE_KEYS]; /* revision of each key; 0: not there */
    atomic_int down[PTIER_TIER_COUNT], up[PTIER_TIER_COUNT]; /* events */
    uint64_t random;
} ptier_outage;

/* Not open yet: options and hooks may be changed. Probes come often, L1 is small. */
void ptier_outage_set_up(ptier_outage *o, int tiers);
void ptier_outage_tear_down(ptier_outage *o); /* also after a failure */

/* From now on the files of these tiers cannot be changed; until ptier_io_heal. */
void ptier_outage_begin(const char *pattern);

/* Puts key 0 until the tiers are down, or waits until they are up and nothing waits to be written.
 */
void ptier_outage_await_down(ptier_outage *o, int tiers);
void ptier_outage_await_up(ptier_outage *o);

/* Changes that are acknowledged, and expected from then on. */
ptier_written ptier_outage_put(ptier_outage *o, int number, ptier_durability durability);
ptier_written ptier_outage_delete(ptier_outage *o, int number, ptier_durability durability);
void ptier_outage_change_any(ptier_outage *o, int keys); /* a put or a delete, at random */

/* The cache has exactly what is expected: by Get, and by List. */
void ptier_outage_check(ptier_outage *o, ptier_test_box *box);

/* Opens a copy of the directory as a kill would leave it now, with these tiers. */
void ptier_outage_open_copy(ptier_outage *o, int tiers);
void ptier_outage_drop_copy(ptier_outage *o);

/* Checks such a copy. */
void ptier_outage_check_copy(ptier_outage *o, int tiers);

/* By ptier_cache_list: revisions of the keys. */
void ptier_outage_list(ptier_test_box *box, uint64_t revisions[OUTAGE_KEYS]);

#endif
