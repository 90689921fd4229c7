/*
 * crowd: what a good client feels of 999 others on one daemon. p99 of Get beside idle ones, as a
 * multiple of alone, in alternating rounds; and beside hostile ones that do 2,000 actions a second
 * together, at nice 19.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <proxytier/client.h>

#include <cmocka.h>

#include "harness.h"
#include "result.h"
#include "support/crowd.h"
#include "support/mirrors.h"

#define OTHERS    999
#define RATE      2000
#define CALLS_MAX 10000
#define ROUNDS    5
#define PAIRS     15 /* of short rounds, alone and beside: other work on the machine shows in each */

typedef struct figures {
    double p99_ms;
    unsigned failed;
} figures;

static int
compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static figures
measure(ptier_client *client, const char *key, size_t calls)
{
    static double took[CALLS_MAX];
    figures result = {0};
    for (size_t i = 0; i < calls; i++) {
        ptier_records records = {0};
        double begun = bench_seconds();
        result.failed += ptier_get(client, key, &records, NULL) != PTIER_OK;
        took[i] = bench_seconds() - begun;
        ptier_records_free(&records);
    }
    qsort(took, calls, sizeof *took, compare);
    result.p99_ms = took[calls * 99 / 100] * 1e3;
    return result;
}

int
main(int argc, char **argv)
{
    bench_run bench;
    test_daemon daemon;
    crowd others;
    char key[24];
    double ratio[PAIRS], hostile[ROUNDS], failed[ROUNDS], done[ROUNDS];
    if (!bench_init(&bench, argc, argv))
        return 2;
    size_t calls = bench.quick ? 3000 : CALLS_MAX;
    crowd_raise_limit();
    test_daemon_init(&daemon);
    test_daemon_start(&daemon, NULL);
    ptier_client *client = test_client_open(&daemon, 30000);
    test_put_range(client, 0, 100, "one");
    test_key(3, key);
    (void)measure(client, key, calls / 4); /* warms up */
    unsigned all_failed = 0;
    for (size_t i = 0; i < PAIRS; i++) {
        figures alone = measure(client, key, calls / 2);
        crowd_start(&others, daemon.url, CROWD_IDLE, OTHERS, key, 0);
        figures beside = measure(client, key, calls / 2);
        (void)crowd_stop(&others); /* they did nothing */
        ratio[i] = beside.p99_ms / alone.p99_ms;
        all_failed += alone.failed + beside.failed;
    }
    for (size_t i = 0; i < ROUNDS; i++) {
        crowd_start(&others, daemon.url, CROWD_HOSTILE, OTHERS, key, RATE);
        double begun = bench_seconds();
        figures among = measure(client, key, calls);
        double seconds = bench_seconds() - begun;
        done[i] = (double)crowd_stop(&others) / seconds;
        hostile[i] = among.p99_ms;
        failed[i] = among.failed + all_failed;
    }
    ptier_client_close(client);
    test_daemon_fini(&daemon);
    bench_print(
        &(bench_row){
            .name = "crowd_idle_p99_ratio", .unit = "x", .goal = BENCH_VALUE_AT_MOST, .bound = 3},
        ratio, PAIRS, NULL);
    bench_print(
        &(bench_row){
            .name = "crowd_hostile_p99", .unit = "ms", .goal = BENCH_VALUE_AT_MOST, .bound = 10},
        hostile, ROUNDS, NULL);
    bench_print(
        &(bench_row){
            .name = "crowd_failed_calls", .unit = "calls", .goal = BENCH_VALUE_AT_MOST, .bound = 0},
        failed, ROUNDS, NULL);
    bench_print(&(bench_row){.name = "crowd_hostile_rate",
                             .unit = "1/s",
                             .goal = BENCH_VALUE_AT_LEAST,
                             .bound = RATE * 0.9},
                done, ROUNDS, NULL);
    return EXIT_SUCCESS;
}
