/*
 * Puts of 100 records in one call, one call at a time, over a unix socket, into an empty daemon
 * with all tiers, LOGGED, credentials encrypted. putmany100: new keys, until the last is
 * acknowledged. putmany100_sustained: half of each batch updates keys that are there, until L3 has
 * committed the last. Beside Redis with the same records as hashes: an HSET and an EXPIRE of each,
 * 100 records in a pipeline, with its append-only file synced each second.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pool.h"
#include "result.h"

#define BATCH  100
#define ROUNDS 7
#define TTL_S  3600
#define L3_S   900 /* at most */

typedef struct fixture {
    const bench_run *bench;
    bench_process redis; /* one for all rounds, and emptied before each */
    bool sustained;
    size_t count;          /* puts a round */
    ptier_record *records; /* of all keys that a round knows */
    char (*keys)[17];
    bench_details details;
} fixture;

/* Both sides get the same sequence of records. */
typedef struct sequence {
    uint64_t seed;
    size_t known; /* keys that were put */
} sequence;

static void
next_batch(const fixture *f, sequence *s, size_t numbers[BATCH])
{
    size_t before = s->known;
    for (size_t i = 0; i < BATCH; i++)
        numbers[i] = f->sustained && before && i % 2 ? bench_random(&s->seed) % before : s->known++;
}

static void
put_batch(ptier_client *client, const fixture *f, const size_t numbers[BATCH])
{
    const ptier_put_call call = {.durability = PTIER_DURABILITY_LOGGED};
    ptier_record records[BATCH];
    ptier_put_results results;
    ptier_error error;
    for (size_t i = 0; i < BATCH; i++)
        records[i] = f->records[numbers[i]];
    if (ptier_put_many(client, records, BATCH, &call, &results, &error))
        bench_fail("cannot put: %s", error.message);
    if (results.durability < PTIER_DURABILITY_LOGGED ||
        results.items[BATCH - 1].outcome > PTIER_PUT_UPDATED)
        bench_fail("a put was refused, or reached only %s",
                   ptier_durability_name(results.durability));
    ptier_put_results_free(&results);
}

static void
await_l3(ptier_client *client)
{
    double deadline = bench_seconds() + L3_S;
    ptier_statistics statistics;
    ptier_error error;
    for (;;) {
        if (ptier_get_statistics(client, &statistics, &error))
            bench_fail("no statistics: %s", error.message);
        if (statistics.l3_lag == 0)
            return;
        if (bench_seconds() > deadline)
            bench_fail("L3 is still behind after %d s", L3_S);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

static double
ours(void *context)
{
    static unsigned round;
    fixture *f = context;
    char name[32];
    bench_process daemon;
    sequence s = {0};
    (void)snprintf(name, sizeof name, "put%u", round++); /* fits */
    bench_daemon_start(&daemon, f->bench, name, NULL);
    ptier_client *client = bench_client(&daemon);
    double begun = bench_seconds();
    for (size_t i = 0; i < f->count; i += BATCH) {
        size_t numbers[BATCH];
        next_batch(f, &s, numbers);
        put_batch(client, f, numbers);
    }
    if (f->sustained)
        await_l3(client);
    double seconds = bench_seconds() - begun;
    if (!f->sustained)
        await_l3(client); /* not while Redis has its turn */
    f->details.server_cpu += bench_process_cpu(daemon.pid);
    f->details.server_peak_kb = bench_process_peak_kb(daemon.pid);
    ptier_client_close(client);
    bench_process_stop(&daemon);
    return (double)f->count / seconds;
}

static double
hashes(void *context)
{
    fixture *f = context;
    sequence s = {0};
    redisContext *connection = bench_redis(&f->redis);
    if (redisAppendCommand(connection, "FLUSHALL") != REDIS_OK)
        bench_fail("redis: %s", connection->errstr);
    bench_redis_drain(connection, 1);
    double cpu = bench_process_cpu(f->redis.pid), begun = bench_seconds();
    for (size_t i = 0; i < f->count; i += BATCH) {
        size_t numbers[BATCH];
        int replies = 0;
        next_batch(f, &s, numbers);
        for (size_t k = 0; k < BATCH; k++)
            replies += bench_redis_append_hash(connection, &f->records[numbers[k]],
                                               f->keys[numbers[k]], TTL_S);
        bench_redis_drain(connection, replies);
    }
    double seconds = bench_seconds() - begun;
    f->details.peer_cpu += bench_process_cpu(f->redis.pid) - cpu;
    f->details.peer_peak_kb = bench_process_peak_kb(f->redis.pid);
    redisFree(connection);
    return (double)f->count / seconds;
}

static void
prepare(fixture *f)
{
    size_t keys = f->sustained ? f->count / 2 + BATCH : f->count;
    f->records = bench_records(0, keys);
    f->keys = calloc(keys, sizeof *f->keys);
    if (!f->keys)
        bench_fail("out of memory");
    for (size_t i = 0; i < keys; i++) {
        f->records[i].ttl_ms = TTL_S * 1000;
        bench_key(i, f->keys[i]);
    }
}

static void
release(fixture *f)
{
    free(f->records);
    free(f->keys);
}

static void
acknowledged(const bench_run *bench, bench_process redis)
{
    double rounds[ROUNDS], peer_rounds[ROUNDS];
    size_t count = bench_size(bench, ROUNDS, 3);
    fixture f = {.bench = bench, .redis = redis, .count = bench_size(bench, 200000, 50000)};
    prepare(&f);
    bench_alternate(ours, &f, hashes, &f, count, rounds, peer_rounds);
    bench_print_pair(&(bench_row){.name = "putmany100",
                                  .unit = "records/s",
                                  .peer = "redis, HSET and EXPIRE of 100 in a pipeline, everysec",
                                  .note = "Redis keeps credentials in plain text",
                                  .goal = BENCH_RATIO_AT_LEAST,
                                  .bound = 2},
                     rounds, peer_rounds, count, &f.details);
    release(&f);
}

/* One pair, if it is of full size: it takes a minute. */
static void
sustained(const bench_run *bench, bench_process redis)
{
    double rounds[ROUNDS], peer_rounds[ROUNDS];
    size_t count = bench_size(bench, 1, 3);
    fixture f = {.bench = bench,
                 .redis = redis,
                 .sustained = true,
                 .count = bench_size(bench, 2000000, 100000)};
    prepare(&f);
    for (size_t i = 0; i < count; i++) {
        rounds[i] = ours(&f);
        peer_rounds[i] = hashes(&f);
    }
    bench_print_pair(&(bench_row){.name = "putmany100_sustained",
                                  .unit = "records/s",
                                  .peer = "redis, HSET and EXPIRE of 100 in a pipeline, everysec",
                                  .note = bench->quick
                                              ? "quick: 100,000 puts; Redis keeps plain text"
                                              : "Redis keeps credentials in plain text",
                                  .goal = BENCH_RATIO_AT_LEAST,
                                  .bound = 0.6},
                     rounds, peer_rounds, count, &f.details);
    release(&f);
}

int
main(int argc, char **argv)
{
    bench_run bench;
    bench_process process;
    if (!bench_init(&bench, argc, argv))
        return 2;
    bench_redis_start(&process, &bench, true);
    acknowledged(&bench, process);
    sustained(&bench, process);
    bench_process_stop(&process);
    return EXIT_SUCCESS;
}
