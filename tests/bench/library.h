/*
 * A cache inside the benchmark's own process: with all three tiers and default options. What fails
 * ends the program (bench_fail). Not thread-safe.
 */
#ifndef PTIER_BENCH_LIBRARY_H
#define PTIER_BENCH_LIBRARY_H

#include <proxytier/cache.h>

#include "harness.h"

/* Each time in a new directory below the run's. */
ptier_cache *bench_library_open(const bench_run *bench);

/* In batches of `batch`; all must be new, and reach the durability that the options ask for. */
void bench_library_put(ptier_cache *cache, const ptier_record *records, size_t count, size_t batch,
                       const ptier_put_options *options);

/* Until L3 has committed every change. */
void bench_library_await_l3(ptier_cache *cache);

/* It must have `entries`. */
void bench_library_close(ptier_cache *cache, size_t entries);

#endif
