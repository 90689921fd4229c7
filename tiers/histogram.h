/*
 * How long operations take: counts in buckets of fixed number, each 1/16 of a power of two wide, so
 * that percentiles are right to 1/16 from a nanosecond to 18 minutes (longer counts as that).
 * Thread-safe: any number of threads may add while others collect. Zeroed memory is an empty one.
 */
#ifndef PTIER_HISTOGRAM_H
#define PTIER_HISTOGRAM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include <proxytier/statistics.h>

enum {
    PTIER_HISTOGRAM_PART_BITS = 4, /* parts of a power of two */
    PTIER_HISTOGRAM_MAX_BITS = 40, /* of a value */
    PTIER_HISTOGRAM_BUCKETS = (PTIER_HISTOGRAM_MAX_BITS - PTIER_HISTOGRAM_PART_BITS + 1)
                              << PTIER_HISTOGRAM_PART_BITS,
};

typedef struct ptier_histogram {
    _Atomic uint64_t buckets[PTIER_HISTOGRAM_BUCKETS];
    _Atomic uint64_t total, max;
} ptier_histogram;

/* What was collected from one or more histograms. Start with zeroes. */
typedef struct ptier_histogram_sum {
    uint64_t buckets[PTIER_HISTOGRAM_BUCKETS];
    uint64_t count, total, max;
} ptier_histogram_sum;

/* What all latencies are measured with: nanoseconds that no step of a clock touches. */
static inline uint64_t
ptier_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* Reads a counter that others add to; `reset` takes what it returns out of it. */
static inline uint64_t
ptier_take(_Atomic uint64_t *counter, bool reset)
{
    uint64_t now = atomic_load_explicit(counter, memory_order_relaxed);
    return reset && now ? atomic_exchange_explicit(counter, 0, memory_order_relaxed) : now;
}

void ptier_histogram_add(ptier_histogram *histogram, uint64_t ns);

/*
 * Adds what is in the histogram to *sum; `reset` takes it out at the same time. Each value is in
 * exactly one of several collections with reset. One that is being added meanwhile may have its
 * share of `total` and `max` in the next collection.
 */
void ptier_histogram_collect(ptier_histogram *histogram, bool reset, ptier_histogram_sum *sum);

/* The value that `share` (0 to 1) of all values do not exceed; 0 when there are none. */
uint64_t ptier_histogram_percentile(const ptier_histogram_sum *sum, double share);

/* The figures that are told. */
ptier_latency ptier_histogram_latency(const ptier_histogram_sum *sum);

#endif
