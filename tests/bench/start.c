/*
 * start_1m: from starting the daemon on the directory that a proper end has left, with 1,000,000
 * entries in L3 (--quick: 200,000) and 5,000 of them in L2, until the reply to a Get of one of
 * them.
 */
#include <stdlib.h>
#include <string.h>

#include <proxytier/client.h>

#include "library.h"
#include "process.h"
#include "result.h"

#define ROUNDS 5
#define GOAL_S 1

static void
get_one(const bench_process *daemon, size_t number)
{
    char key[17];
    ptier_client_options options;
    ptier_client *client;
    ptier_records records;
    ptier_error error;
    ptier_client_options_init(&options);
    options.url = daemon->url;
    bench_key(number, key);
    if (ptier_client_open(&options, &client, &error) || ptier_get(client, key, &records, &error))
        bench_fail("start: get: %s", error.message);
    ptier_records_free(&records);
    ptier_client_close(client);
}

static double
start_seconds(const bench_run *bench, const char *name, size_t number)
{
    bench_process daemon;
    double begun = bench_seconds();
    bench_daemon_start(&daemon, bench, name, NULL);
    get_one(&daemon, number);
    double seconds = bench_seconds() - begun;
    bench_process_stop(&daemon);
    return seconds;
}

int
main(int argc, char **argv)
{
    bench_run bench;
    double rounds[ROUNDS];
    char directory[BENCH_PATH];
    ptier_cache_options options;
    uint64_t seed = 1;
    if (!bench_init(&bench, argc, argv))
        return 2;
    size_t entries = bench_size(&bench, 1000000, 200000);
    ptier_cache_options_init(&options);
    ptier_cache *cache = bench_library_open_with(&bench, &options, directory);
    bench_library_fill(cache, entries);
    bench_library_await_l3(cache);
    bench_library_close(cache, entries);
    for (size_t i = 0; i < ROUNDS; i++)
        rounds[i] = start_seconds(&bench, directory + strlen(bench.work) + 1,
                                  bench_random(&seed) % entries);
    bench_print(&(bench_row){.name = "start_1m",
                             .unit = "s",
                             .note = bench.quick ? "with 200,000 entries" : NULL,
                             .goal = BENCH_VALUE_AT_MOST,
                             .bound = GOAL_S},
                rounds, ROUNDS, NULL);
    return EXIT_SUCCESS;
}
