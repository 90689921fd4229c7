#include "histogram.h"

enum { PARTS = 1 << PTIER_HISTOGRAM_PART_BITS };

/* Values below PARTS have a bucket each. Above, the highest bits of a value name it: which power of
 * two, and which part of that. */
static unsigned
bucket_of(uint64_t value)
{
    if (value < PARTS)
        return (unsigned)value;
    if (value >> PTIER_HISTOGRAM_MAX_BITS)
        return PTIER_HISTOGRAM_BUCKETS - 1;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - PTIER_HISTOGRAM_PART_BITS;
    return (shift + 1) * PARTS + ((unsigned)(value >> shift) & (PARTS - 1));
}

static uint64_t
lowest_in(unsigned bucket)
{
    if (bucket < PARTS)
        return bucket;
    return (uint64_t)(PARTS + bucket % PARTS) << (bucket / PARTS - 1);
}

void
ptier_histogram_add(ptier_histogram *h, uint64_t ns)
{
    atomic_fetch_add_explicit(&h->buckets[bucket_of(ns)], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->total, ns, memory_order_relaxed);
    uint64_t max = atomic_load_explicit(&h->max, memory_order_relaxed);
    while (max < ns && !atomic_compare_exchange_weak_explicit(
                           &h->max, &max, ns, memory_order_relaxed, memory_order_relaxed))
        continue;
}

void
ptier_histogram_collect(ptier_histogram *h, bool reset, ptier_histogram_sum *sum)
{
    for (unsigned i = 0; i < PTIER_HISTOGRAM_BUCKETS; i++) {
        uint64_t count = ptier_take(&h->buckets[i], reset);
        sum->buckets[i] += count;
        sum->count += count;
    }
    sum->total += ptier_take(&h->total, reset);
    uint64_t max = ptier_take(&h->max, reset);
    if (sum->max < max)
        sum->max = max;
}

uint64_t
ptier_histogram_percentile(const ptier_histogram_sum *sum, double share)
{
    double exact = share * (double)sum->count;
    uint64_t rank = (uint64_t)exact, seen = 0;
    rank += (double)rank < exact;
    for (unsigned i = 0; i < PTIER_HISTOGRAM_BUCKETS; i++) {
        seen += sum->buckets[i];
        if (!sum->buckets[i] || seen < rank)
            continue;
        /* The highest value that is counted here; the maximum is known better. */
        uint64_t highest = lowest_in(i + 1) - 1;
        bool has_max = sum->max >= lowest_in(i) && sum->max < highest;
        return has_max ? sum->max : highest;
    }
    return 0;
}

ptier_latency
ptier_histogram_latency(const ptier_histogram_sum *sum)
{
    return (ptier_latency){
        .count = sum->count,
        .total_ns = sum->total,
        .p50_ns = ptier_histogram_percentile(sum, 0.5),
        .p99_ns = ptier_histogram_percentile(sum, 0.99),
        .p999_ns = ptier_histogram_percentile(sum, 0.999),
        .max_ns = sum->max,
    };
}
