/*
 * A Get that the client's near cache answers, of a random one of the records that it keeps, typed
 * and with credentials. Beside the same record as a hash of Redis, one HGETALL and its reply by
 * hiredis over a unix socket. Both in nanoseconds a call; the keys of the next hits are drawn
 * before the clock runs, so that the benchmark's own array is no part of them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pool.h"
#include "result.h"

#define ENTRIES   10000
#define BOUND     (2 * ENTRIES) /* of the near cache: its shards are never quite even */
#define BATCH     256
#define ROUNDS    9
#define TRIES_MAX 2000 /* of 5 ms each, until all are kept */

typedef struct fixture {
    bench_process daemon, redis;
    ptier_client *client;
    redisContext *context;
    size_t hits, commands; /* a round */
    uint64_t seed;
    char (*keys)[17];
} fixture;

static const char *
choose(fixture *f)
{
    return f->keys[bench_random(&f->seed) % ENTRIES];
}

static void
get(fixture *f, const char *key)
{
    ptier_records records;
    ptier_error error;
    if (ptier_get(f->client, key, &records, &error))
        bench_fail("get: %s", error.message);
    if (!records.records[0].password[0])
        bench_fail("get: a record without its credentials");
    ptier_records_free(&records);
}

static ptier_near_statistics
near_statistics(const fixture *f)
{
    ptier_near_statistics statistics;
    ptier_error error;
    if (ptier_get_near_statistics(f->client, &statistics, &error))
        bench_fail("near cache: %s", error.message);
    return statistics;
}

/* Until the near cache has every record: it takes none before it follows the daemon's events. */
static void
warm(fixture *f)
{
    for (int tries = 0; near_statistics(f).entries < ENTRIES; tries++) {
        if (tries == TRIES_MAX)
            bench_fail("the near cache does not fill");
        if (near_statistics(f).following)
            for (size_t i = 0; i < ENTRIES; i++)
                get(f, f->keys[i]);
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
}

/* Seconds of a batch of hits. */
static double
batch(fixture *f)
{
    char keys[BATCH][sizeof *f->keys];
    for (size_t i = 0; i < BATCH; i++)
        memcpy(keys[i], choose(f), sizeof keys[i]);
    double begun = bench_seconds();
    for (size_t i = 0; i < BATCH; i++)
        get(f, keys[i]);
    return bench_seconds() - begun;
}

static double
ours(void *context)
{
    fixture *f = context;
    uint64_t hits = near_statistics(f).hits;
    double took = 0;
    for (size_t i = 0; i < f->hits; i += BATCH)
        took += batch(f);
    /* On a machine that is busy a heartbeat may be late: a few calls ask the daemon then. */
    if (near_statistics(f).hits - hits < f->hits - f->hits / 100)
        bench_fail("the near cache does not answer");
    return took / (double)f->hits * 1e9;
}

static double
hashes(void *context)
{
    fixture *f = context;
    double begun = bench_seconds();
    for (size_t i = 0; i < f->commands; i++) {
        redisReply *reply = redisCommand(f->context, "HGETALL h:%s", choose(f));
        if (!reply || reply->type != REDIS_REPLY_ARRAY || reply->elements == 0)
            bench_fail("redis: HGETALL failed");
        freeReplyObject(reply);
    }
    return (bench_seconds() - begun) / (double)f->commands * 1e9;
}

static ptier_client *
open_client(const bench_process *daemon)
{
    ptier_near_cache_options near;
    ptier_client_options options;
    ptier_client *client;
    ptier_error error;
    ptier_near_cache_options_init(&near);
    ptier_client_options_init(&options);
    near.entries = BOUND;
    options.url = daemon->url;
    options.near_cache = &near;
    if (ptier_client_open(&options, &client, &error))
        bench_fail("cannot open a client: %s", error.message);
    return client;
}

static void
compare(fixture *f)
{
    double rounds[ROUNDS], peer_rounds[ROUNDS];
    bench_alternate(ours, f, hashes, f, ROUNDS, rounds, peer_rounds);
    bench_print_pair(
        &(bench_row){.name = "near_cache_hit",
                     .unit = "ns",
                     .peer = "redis, HGETALL by hiredis over a unix socket",
                     .note =
                         "10,000 records; a hit makes no system call, Redis is in another process",
                     .goal = BENCH_RATIO_AT_LEAST,
                     .bound = 500,
                     .less_is_better = true},
        rounds, peer_rounds, ROUNDS, NULL);
}

int
main(int argc, char **argv)
{
    bench_run bench;
    fixture f = {.seed = 1};
    if (!bench_init(&bench, argc, argv))
        return 2;
    f.keys = bench_keys(ENTRIES);
    bench_daemon_start(&f.daemon, &bench, "near", NULL);
    bench_redis_start(&f.redis, &bench, false);
    f.client = open_client(&f.daemon);
    f.context = bench_redis(&f.redis);
    bench_pool_load(f.client, 0, ENTRIES);
    bench_pool_load_hashes(f.context, 0, ENTRIES);
    warm(&f);
    f.hits = bench_size(&bench, 8000 * BATCH, 2000 * BATCH);
    f.commands = bench_size(&bench, 10000, 3000);
    compare(&f);
    ptier_client_close(f.client);
    redisFree(f.context);
    bench_process_stop(&f.daemon);
    bench_process_stop(&f.redis);
    free(f.keys);
    return EXIT_SUCCESS;
}
