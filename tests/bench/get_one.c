/*
 * Get of one record, typed and with its credentials, over a unix socket: one caller that waits for
 * each (get_sync), and 64 in flight from one client, one by one (get_inflight64) and as the SDK
 * joins them (get_inflight64_coalesced). Beside a bare nng echo of the same sizes with as many in
 * flight, and beside Redis as its own benchmark drives it: redis-benchmark with 50 connections and
 * one GET in flight on each.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <proxytier/async.h>

#include "echo.h"
#include "pool.h"
#include "result.h"

#define ENTRIES   100000
#define IN_FLIGHT 64
#define ROUNDS    9
/* Of a Get and its reply, framing and header included: what the wire shows for these records. */
#define REQUEST_BYTES 74
#define REPLY_BYTES   191

typedef struct fixture {
    bench_process daemon, redis, echo;
    ptier_client *client, *separate, *flying; /* flying: one of them */
    bench_echo_client *echo_one, *echo_many;
    size_t calls; /* a round */
    uint64_t seed;
    char (*keys)[17];
    pthread_mutex_t lock;
    pthread_cond_t ended;
    size_t to_start, unanswered, in_flight;
} fixture;

static const char *
choose(fixture *f)
{
    return f->keys[bench_random(&f->seed) % ENTRIES];
}

/* ---- one caller ---- */

static double
sync_ours(void *context)
{
    fixture *f = context;
    double begun = bench_seconds();
    for (size_t i = 0; i < f->calls; i++) {
        ptier_records records;
        ptier_error error;
        if (ptier_get(f->client, choose(f), &records, &error))
            bench_fail("get: %s", error.message);
        ptier_records_free(&records);
    }
    return (double)f->calls / (bench_seconds() - begun);
}

static double
sync_echo(void *context)
{
    fixture *f = context;
    double begun = bench_seconds();
    bench_echo_client_run(f->echo_one, f->calls);
    return (double)f->calls / (bench_seconds() - begun);
}

/* ---- 64 in flight ---- */

static void start_more(fixture *f);

static void
on_result(void *context, ptier_async_result *result)
{
    fixture *f = context;
    if (result->status)
        bench_fail("get: %s", result->error.message);
    pthread_mutex_lock(&f->lock);
    f->in_flight--;
    if (--f->unanswered == 0)
        pthread_cond_signal(&f->ended);
    start_more(f);
    pthread_mutex_unlock(&f->lock);
}

/* With the lock held. */
static void
start_more(fixture *f)
{
    while (f->to_start && f->in_flight < IN_FLIGHT) {
        ptier_error error;
        f->to_start--;
        f->in_flight++;
        if (ptier_async_get(f->flying, choose(f), on_result, f, NULL, &error))
            bench_fail("get: %s", error.message);
    }
}

static double
inflight_ours(void *context)
{
    fixture *f = context;
    double begun = bench_seconds();
    pthread_mutex_lock(&f->lock);
    f->to_start = f->unanswered = f->calls;
    start_more(f);
    while (f->unanswered)
        pthread_cond_wait(&f->ended, &f->lock);
    pthread_mutex_unlock(&f->lock);
    return (double)f->calls / (bench_seconds() - begun);
}

static double
inflight_echo(void *context)
{
    fixture *f = context;
    double begun = bench_seconds();
    bench_echo_client_run(f->echo_many, f->calls);
    return (double)f->calls / (bench_seconds() - begun);
}

/* Its own measure of itself: the third field of "GET","210000.00",... */
static double
inflight_redis(void *context)
{
    fixture *f = context;
    char command[400], line[200];
    double rate = 0;
    (void)snprintf(command, sizeof command,
                   "redis-benchmark -s %s -t get -d %d -c 50 -P 1 -n %zu --csv -r %d",
                   f->redis.socket, REPLY_BYTES, f->calls, ENTRIES); /* fits: process.h */
    FILE *out = popen(command, "r"); /* NOLINT(cert-env33-c): its arguments are ours */
    while (out && fgets(line, sizeof line, out))
        if (strncmp(line, "\"GET\",\"", 7) == 0)
            rate = strtod(line + 7, NULL);
    if (!out || pclose(out) != 0 || rate <= 0)
        bench_fail("redis-benchmark did not work");
    return rate;
}

/* So that its GETs find something. */
static void
fill_redis(const fixture *f)
{
    char command[400];
    (void)snprintf(command, sizeof command,
                   "redis-benchmark -s %s -t set -d %d -n %d -P 64 -r %d -q >/dev/null",
                   f->redis.socket, REPLY_BYTES, ENTRIES * 3, ENTRIES);
    if (system(command) != 0) /* NOLINT(cert-env33-c): its arguments are ours */
        bench_fail("redis-benchmark did not work");
}

static void
compare(fixture *f, const bench_row *row, bench_round_fn ours, bench_round_fn peer)
{
    double rounds[ROUNDS], peer_rounds[ROUNDS];
    double server = bench_process_cpu(f->daemon.pid);
    bench_alternate(ours, f, peer, f, ROUNDS, rounds, peer_rounds);
    const bench_details details = {.server_cpu = bench_process_cpu(f->daemon.pid) - server,
                                   .server_peak_kb = bench_process_peak_kb(f->daemon.pid)};
    bench_print_pair(row, rounds, peer_rounds, ROUNDS, &details);
}

int
main(int argc, char **argv)
{
    bench_run bench;
    fixture f = {.seed = 1};
    if (!bench_init(&bench, argc, argv))
        return 2;
    f.keys = bench_keys(ENTRIES);
    pthread_mutex_init(&f.lock, NULL);
    pthread_cond_init(&f.ended, NULL);
    bench_echo_start(&f.echo, &bench, REPLY_BYTES);
    bench_daemon_start(&f.daemon, &bench, "get",
                       (const char *[]){"--l1-entries", "200000", "--l2-entries", "200000", NULL});
    bench_redis_start(&f.redis, &bench, false);
    fill_redis(&f);
    f.client = bench_client(&f.daemon);
    f.separate = bench_client_separate_gets(&f.daemon);
    bench_pool_load(f.client, 0, ENTRIES);
    f.echo_one = bench_echo_client_open(&f.echo, REQUEST_BYTES, 1);
    f.echo_many = bench_echo_client_open(&f.echo, REQUEST_BYTES, IN_FLIGHT);
    f.calls = bench_size(&bench, 20000, 5000);
    compare(&f,
            &(bench_row){.name = "get_sync",
                         .unit = "calls/s",
                         .peer = "nng echo",
                         .goal = BENCH_RATIO_AT_LEAST,
                         .bound = 0.9},
            sync_ours, sync_echo);
    f.calls = bench_size(&bench, 100000, 30000);
    f.flying = f.separate;
    compare(&f,
            &(bench_row){.name = "get_inflight64",
                         .unit = "calls/s",
                         .peer = "nng echo, 64 in flight",
                         .goal = BENCH_RATIO_AT_LEAST,
                         .bound = 0.85},
            inflight_ours, inflight_echo);
    compare(&f,
            &(bench_row){.name = "get_inflight64_redis",
                         .unit = "calls/s",
                         .peer = "redis-benchmark GET -c 50 -P 1",
                         .note = "Redis gives a string that nobody unpacks, in plain text",
                         .goal = BENCH_RATIO_AT_LEAST,
                         .bound = 0.8},
            inflight_ours, inflight_redis);
    f.flying = f.client;
    compare(&f,
            &(bench_row){.name = "get_inflight64_coalesced",
                         .unit = "calls/s",
                         .peer = "redis-benchmark GET -c 50 -P 1",
                         .note = "the SDK joins Gets that wait, redis-benchmark does not pipeline; "
                                 "Redis gives a string that nobody unpacks, in plain text",
                         .goal = BENCH_RATIO_AT_LEAST,
                         .bound = 1.5},
            inflight_ours, inflight_redis);
    bench_echo_client_close(f.echo_one);
    bench_echo_client_close(f.echo_many);
    ptier_client_close(f.client);
    ptier_client_close(f.separate);
    bench_process_stop(&f.daemon);
    bench_process_stop(&f.redis);
    bench_process_stop(&f.echo);
    free(f.keys);
    return EXIT_SUCCESS;
}
