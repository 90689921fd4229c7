/*
 * warm_10k, warm_1m: new records with credentials, put in batches of 1,000 into an empty cache with
 * all three tiers, LOGGED. The clock stops when L3 has committed the last one, which is later than
 * its acknowledgement.
 */
#include <stdio.h>
#include <stdlib.h>

#include "library.h"
#include "result.h"

#define BATCH  1000
#define ROUNDS 7

static double
round_seconds(const bench_run *bench, const ptier_record *records, size_t count)
{
    const ptier_put_options options = {.durability = PTIER_DURABILITY_LOGGED,
                                       .mode = PTIER_PUT_MODE_WARM};
    ptier_cache *cache = bench_library_open(bench);
    double begun = bench_seconds();
    bench_library_put(cache, records, count, BATCH, &options);
    bench_library_await_l3(cache);
    double seconds = bench_seconds() - begun;
    bench_library_close(cache, count);
    return seconds;
}

static void
warm(const bench_run *bench, const bench_row *row, size_t count, size_t rounds)
{
    double seconds[ROUNDS];
    ptier_record *records = bench_records(0, count);
    for (size_t i = 0; i < rounds; i++)
        seconds[i] = round_seconds(bench, records, count);
    free(records);
    bench_print(row, seconds, rounds, NULL);
}

int
main(int argc, char **argv)
{
    bench_run bench;
    if (!bench_init(&bench, argc, argv))
        return 2;
    warm(&bench,
         &(bench_row){.name = "warm_10k", .unit = "s", .goal = BENCH_VALUE_AT_MOST, .bound = 0.08},
         10000, bench_size(&bench, ROUNDS, 5));
    warm(&bench,
         &(bench_row){.name = "warm_1m",
                      .unit = "s",
                      .note = bench.quick ? "quick: 100,000 records, a tenth of the goal" : NULL,
                      .goal = BENCH_VALUE_AT_MOST,
                      .bound = bench.quick ? 0.8 : 8},
         bench_size(&bench, 1000000, 100000), 3);
    return EXIT_SUCCESS;
}
