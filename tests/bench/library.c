#include "library.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define FILL_BATCH 10000
#define L3_S       600 /* at most */

ptier_cache *
bench_library_open(const bench_run *bench)
{
    char directory[BENCH_PATH];
    ptier_cache_options options;
    ptier_cache_options_init(&options);
    return bench_library_open_with(bench, &options, directory);
}

ptier_cache *
bench_library_open_with(const bench_run *bench, ptier_cache_options *options,
                        char directory[BENCH_PATH])
{
    static unsigned number;
    ptier_cache *cache;
    ptier_error error;
    if (snprintf(directory, BENCH_PATH, "%s/library%u", bench->work, number++) >= BENCH_PATH)
        bench_fail("the directory's path is too long: %s", bench->work);
    options->data_dir = directory;
    if (ptier_cache_open(options, &cache, &error))
        bench_fail("cannot open a cache: %s", error.message);
    return cache;
}

void
bench_library_fill(ptier_cache *cache, size_t count)
{
    ptier_error error;
    for (size_t first = 0; first < count; first += FILL_BATCH) {
        size_t some = count - first < FILL_BATCH ? count - first : FILL_BATCH;
        ptier_record *records = bench_records(first, some);
        if (ptier_cache_put(cache, records, some, NULL, NULL, NULL, &error))
            bench_fail("cannot put: %s", error.message);
        free(records);
    }
}

void
bench_library_put(ptier_cache *cache, const ptier_record *records, size_t count, size_t batch,
                  const ptier_put_options *options)
{
    for (size_t i = 0; i < count; i += batch) {
        size_t some = count - i < batch ? count - i : batch;
        ptier_written written;
        ptier_error error;
        if (ptier_cache_put(cache, records + i, some, options, NULL, &written, &error))
            bench_fail("cannot put: %s", error.message);
        if (written.durability < options->durability)
            bench_fail("puts reached only %s", ptier_durability_name(written.durability));
    }
}

void
bench_library_await_l3(ptier_cache *cache)
{
    double deadline = bench_seconds() + L3_S;
    ptier_statistics statistics;
    for (;;) {
        ptier_cache_statistics(cache, &statistics);
        if (statistics.l3_lag == 0)
            return;
        if (bench_seconds() > deadline)
            bench_fail("L3 is still behind after %d s", L3_S);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

void
bench_library_close(ptier_cache *cache, size_t entries)
{
    ptier_statistics statistics;
    ptier_cache_statistics(cache, &statistics);
    ptier_cache_close(cache);
    if (statistics.entries != entries)
        bench_fail("%llu entries instead of %zu", (unsigned long long)statistics.entries, entries);
}
