/*
 * A cache inside the benchmark's own process: with all three tiers and
 * default options, unless others are given. What fails
 * ends the program (bench_fail). Not thread-safe.
 */
#ifndef PTIER_BENCH_LIBRARY_H
#define PTIER_BENCH_LIBRARY_H

#include <proxytier/cache.h>

#include "harness.h"

/* Each time in a new directory below the run's. */
ptier_cache *bench_library_open(const bench_run *bench);

/* The same with these options; puts the directory into them and into `directory`. */
#define BENCH_PATH 4096
ptier_cache *bench_library_open_with(const bench_run *bench, ptier_cache_options *options,
                                     char directory[BENCH_PATH]);

/* The first `count` records of bench_records. */
void bench_library_fill(ptier_cache *cache, size_t count);

/* In batches of `batch`; all must be new, and reach the durability that the options ask for. */
void bench_library_put(ptier_cache *cache, const ptier_record *records, size_t count, size_t batch,
                       const ptier_put_options *options);

/* Until L3 has committed every change. */
void bench_library_await_l3(ptier_cache *cache);

/* It must have `entries`. */
void bench_library_close(ptier_cache *cache, size_t entries);

#endif
