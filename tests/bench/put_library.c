/*
 * put_library: 200,000 new records with credentials, put in batches of 100 by one thread into an
 * empty cache with all three tiers in the same process, LOGGED. The clock stops when the last batch
 * is acknowledged; L3 follows on its own thread meanwhile.
 */
#include <stdio.h>
#include <stdlib.h>

#include "library.h"
#include "result.h"

#define BATCH   100
#define ROUNDS  7
#define PEER_US 2700.0 /* a put of ProxyWhirl's, which commits each to SQLite and a file */

int
main(int argc, char **argv)
{
    const ptier_put_options options = {.durability = PTIER_DURABILITY_LOGGED};
    bench_run bench;
    double us[ROUNDS];
    if (!bench_init(&bench, argc, argv))
        return 2;
    size_t count = bench_size(&bench, 200000, 50000), rounds = bench_size(&bench, ROUNDS, 5);
    ptier_record *records = bench_records(0, count);
    for (size_t i = 0; i < rounds; i++) {
        ptier_cache *cache = bench_library_open(&bench);
        double begun = bench_seconds();
        bench_library_put(cache, records, count, BATCH, &options);
        us[i] = (bench_seconds() - begun) / (double)count * 1e6;
        bench_library_await_l3(cache);
        bench_library_close(cache, count);
    }
    free(records);
    bench_print(&(bench_row){.name = "put_library",
                             .unit = "us/record",
                             .note = "the goal is 1/500 of ProxyWhirl's 2.7 ms a put",
                             .goal = BENCH_VALUE_AT_MOST,
                             .bound = PEER_US / 500},
                us, rounds, NULL);
    return EXIT_SUCCESS;
}
