/*
 * warm_10k: 10,000 new records with credentials, put in batches of 1,000 into an empty cache with
 * all three tiers, LOGGED. The clock stops when the last batch is acknowledged.
 */
#include <proxytier/cache.h>

#include <stdio.h>
#include <stdlib.h>

#include "harness.h"
#include "result.h"

#define ENTRIES 10000
#define BATCH   1000
#define ROUNDS  7
#define GOAL_S  0.3

static bool
put_all(ptier_cache *cache, const ptier_record *records, ptier_error *error)
{
    ptier_put_options options = {.durability = PTIER_DURABILITY_LOGGED,
                                 .mode = PTIER_PUT_MODE_WARM};
    for (size_t i = 0; i < ENTRIES; i += BATCH) {
        ptier_written written = {.durability = PTIER_DURABILITY_DEFAULT};
        if (ptier_cache_put(cache, records + i, BATCH, &options, NULL, &written, error) != PTIER_OK)
            return false;
        if (written.durability < PTIER_DURABILITY_LOGGED) {
            (void)ptier_fail(error, PTIER_INTERNAL, "reached only %s",
                             ptier_durability_name(written.durability)); /* told by false */
            return false;
        }
    }
    return true;
}

static double
round_seconds(const char *data_dir, const ptier_record *records, ptier_error *error)
{
    ptier_cache_options options;
    ptier_statistics statistics;
    ptier_cache *cache;
    ptier_cache_options_init(&options);
    options.data_dir = data_dir;
    if (ptier_cache_open(&options, &cache, error) != PTIER_OK)
        return -1;
    double start = bench_seconds();
    bool ok = put_all(cache, records, error);
    double seconds = bench_seconds() - start;
    ptier_cache_statistics(cache, &statistics);
    ptier_cache_close(cache);
    if (ok && statistics.entries != ENTRIES) {
        (void)ptier_fail(error, PTIER_INTERNAL, "%llu entries instead of %d",
                         (unsigned long long)statistics.entries, ENTRIES); /* told by -1 */
        ok = false;
    }
    return ok ? seconds : -1;
}

int
main(int argc, char **argv)
{
    bench_run bench;
    double rounds[ROUNDS];
    ptier_error error = {.message = "out of memory"};
    if (!bench_init(&bench, argc, argv))
        return 2;
    size_t count = bench.quick ? 3 : ROUNDS, done = 0;
    ptier_record *records = bench_records(0, ENTRIES);
    while (records && done < count) {
        char data_dir[4096];
        if (snprintf(data_dir, sizeof data_dir, "%s/warm%zu", bench.work, done) >=
            (int)sizeof data_dir)
            break;
        rounds[done] = round_seconds(data_dir, records, &error);
        if (rounds[done] < 0)
            break;
        done++;
    }
    free(records);
    if (done < count) {
        fprintf(stderr, "warm_10k: %s\n", error.message);
        return EXIT_FAILURE;
    }
    bench_print(
        &(bench_row){.name = "warm_10k", .unit = "s", .goal = BENCH_VALUE_AT_MOST, .bound = GOAL_S},
        rounds, count, NULL);
    return EXIT_SUCCESS;
}
