#include "library.h"

#include <stdio.h>
#include <time.h>

#define L3_S 600 /* at most */

ptier_cache *
bench_library_open(const bench_run *bench)
{
    static unsigned number;
    char data_dir[4096];
    ptier_cache_options options;
    ptier_cache *cache;
    ptier_error error;
    if (snprintf(data_dir, sizeof data_dir, "%s/library%u", bench->work, number++) >=
        (int)sizeof data_dir)
        bench_fail("the directory's path is too long: %s", bench->work);
    ptier_cache_options_init(&options);
    options.data_dir = data_dir;
    if (ptier_cache_open(&options, &cache, &error))
        bench_fail("cannot open a cache: %s", error.message);
    return cache;
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
