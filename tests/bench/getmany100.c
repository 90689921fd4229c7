/*
 * getmany100: 100 random records of 100,000 in one call, one call at a time, over a unix socket:
 * typed records with their credentials. Beside Redis with the same records as hashes, 100 HGETALL
 * in one pipeline (getmany100), and as packed strings, one MGET of 100 that nobody unpacks
 * (getmany100_mget).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool.h"
#include "result.h"

#define ENTRIES 100000
#define BATCH   100
#define ROUNDS  9

typedef struct fixture {
    bench_process daemon, redis;
    ptier_client *client;
    redisContext *context;
    size_t calls; /* a round */
    uint64_t seed;
    char (*keys)[17];
} fixture;

static void
choose(fixture *f, const char *keys[BATCH])
{
    for (size_t i = 0; i < BATCH; i++)
        keys[i] = f->keys[bench_random(&f->seed) % ENTRIES];
}

static double
ours(void *context)
{
    fixture *f = context;
    double begun = bench_seconds();
    for (size_t i = 0; i < f->calls; i++) {
        const char *keys[BATCH];
        ptier_records records;
        ptier_error error;
        choose(f, keys);
        if (ptier_get_many(f->client, keys, BATCH, &records, &error))
            bench_fail("getmany100: %s", error.message);
        if (records.count != BATCH || !records.records[BATCH - 1].password[0])
            bench_fail("getmany100: %zu records instead of %d", records.count, BATCH);
        ptier_records_free(&records);
    }
    return (double)(f->calls * BATCH) / (bench_seconds() - begun);
}

static double
hashes(void *context)
{
    fixture *f = context;
    double begun = bench_seconds();
    for (size_t i = 0; i < f->calls; i++) {
        const char *keys[BATCH];
        choose(f, keys);
        for (size_t k = 0; k < BATCH; k++)
            bench_redis_append_get(f->context, keys[k]);
        bench_redis_drain(f->context, BATCH);
    }
    return (double)(f->calls * BATCH) / (bench_seconds() - begun);
}

static double
packed(void *context)
{
    fixture *f = context;
    double begun = bench_seconds();
    for (size_t i = 0; i < f->calls; i++) {
        const char *keys[BATCH], *arguments[BATCH + 1] = {"MGET"};
        char names[BATCH][20];
        choose(f, keys);
        for (size_t k = 0; k < BATCH; k++) {
            (void)snprintf(names[k], sizeof names[k], "s:%s", keys[k]); /* fits */
            arguments[k + 1] = names[k];
        }
        redisReply *reply = redisCommandArgv(f->context, BATCH + 1, arguments, NULL);
        if (!reply || reply->elements != BATCH || !reply->element[BATCH - 1]->str)
            bench_fail("redis: MGET failed");
        freeReplyObject(reply);
    }
    return (double)(f->calls * BATCH) / (bench_seconds() - begun);
}

static void
compare(fixture *f, const bench_row *row, bench_round_fn peer)
{
    double rounds[ROUNDS], peer_rounds[ROUNDS];
    double server = bench_process_cpu(f->daemon.pid), redis = bench_process_cpu(f->redis.pid);
    bench_alternate(ours, f, peer, f, ROUNDS, rounds, peer_rounds);
    const bench_details details = {
        .server_cpu = bench_process_cpu(f->daemon.pid) - server,
        .peer_cpu = bench_process_cpu(f->redis.pid) - redis,
        .server_peak_kb = bench_process_peak_kb(f->daemon.pid),
        .peer_peak_kb = bench_process_peak_kb(f->redis.pid),
    };
    bench_print_pair(row, rounds, peer_rounds, ROUNDS, &details);
}

int
main(int argc, char **argv)
{
    bench_run bench;
    fixture f = {.seed = 1};
    if (!bench_init(&bench, argc, argv))
        return 2;
    f.calls = bench_size(&bench, 4000, 1000);
    f.keys = bench_keys(ENTRIES);
    bench_daemon_start(&f.daemon, &bench, "getmany100",
                       (const char *[]){"--l1-entries", "200000", "--l2-entries", "200000", NULL});
    bench_redis_start(&f.redis, &bench, false);
    f.client = bench_client(&f.daemon);
    f.context = bench_redis(&f.redis);
    bench_pool_load(f.client, 0, ENTRIES);
    bench_pool_load_hashes(f.context, 0, ENTRIES);
    bench_pool_load_packed(f.context, 0, ENTRIES);
    compare(&f,
            &(bench_row){.name = "getmany100",
                         .unit = "records/s",
                         .peer = "redis, 100 HGETALL in a pipeline",
                         .note = "Redis keeps credentials in plain text",
                         .goal = BENCH_RATIO_AT_LEAST,
                         .bound = 3},
            hashes);
    compare(
        &f,
        &(bench_row){.name = "getmany100_mget",
                     .unit = "records/s",
                     .peer = "redis, MGET of 100 packed strings",
                     .note = "Redis keeps credentials in plain text; its values are not unpacked",
                     .goal = BENCH_RATIO_AT_LEAST,
                     .bound = 1},
        packed);
    ptier_client_close(f.client);
    redisFree(f.context);
    bench_process_stop(&f.daemon);
    bench_process_stop(&f.redis);
    free(f.keys);
    return EXIT_SUCCESS;
}
