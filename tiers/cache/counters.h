/*
 * For tiers/cache/ only: what the cache counts. Any thread adds without a lock; statistics.c alone
 * reads and resets. Each thing that happens is one addition to one counter, and sums are made when
 * they are asked for: so sums agree at any moment, and a reset neither loses nor doubles anything.
 */
#ifndef PTIER_COUNTERS_H
#define PTIER_COUNTERS_H

#include <pthread.h>

#include "histogram.h"

enum {
    PTIER_STRIPES = 16,       /* more CPUs share them: still right */
    PTIER_STRIPE_BYTES = 128, /* two cache lines: they are fetched in pairs */
};

/* Reads by the tier that had the entry, but for hits that L1 counts; NONE: misses. Each CPU counts
 * on a stripe of its own. */
typedef union ptier_read_stripe {
    _Atomic uint64_t found[PTIER_TIER_COUNT];
    char room[PTIER_STRIPE_BYTES];
} ptier_read_stripe;

typedef struct ptier_counters {
    ptier_read_stripe reads[PTIER_STRIPES];
    _Atomic uint64_t promotions[PTIER_TIER_COUNT], demotions[PTIER_TIER_COUNT];
    _Atomic uint64_t evictions[PTIER_TIER_COUNT], errors[PTIER_TIER_COUNT];
    _Atomic uint64_t created, updates, deletes, reports;
    _Atomic uint64_t removals[PTIER_REASON_COUNT];
    ptier_histogram latency[PTIER_OPERATION_COUNT];

    pthread_mutex_t collecting; /* guards what follows; one reads or resets at a time. Nothing is
                                   taken under it */
    int64_t since_boot_ms;      /* open, or the last reset */
    uint64_t damaged_before[PTIER_TIER_COUNT]; /* that reset; tiers count from open on */
    uint64_t l1_hits_before;
} ptier_counters;

static inline void
ptier_count(_Atomic uint64_t *counter, uint64_t by)
{
    atomic_fetch_add_explicit(counter, by, memory_order_relaxed);
}

/* Since `start`, of ptier_now_ns. */
static inline void
ptier_count_latency(ptier_counters *count, ptier_operation operation, uint64_t start)
{
    ptier_histogram_add(&count->latency[operation], ptier_now_ns() - start);
}

#endif
