#include "pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convert.h"

#define BATCH 500

static ptier_client *
open_client(const bench_process *daemon, bool separate_gets)
{
    ptier_client_options options;
    ptier_client *client;
    ptier_error error;
    ptier_client_options_init(&options);
    options.url = daemon->url;
    options.timeout_ms = 60000;
    options.separate_gets = separate_gets;
    if (ptier_client_open(&options, &client, &error))
        bench_fail("cannot open a client: %s", error.message);
    return client;
}

ptier_client *
bench_client(const bench_process *daemon)
{
    return open_client(daemon, false);
}

ptier_client *
bench_client_separate_gets(const bench_process *daemon)
{
    return open_client(daemon, true);
}

void
bench_pool_load(ptier_client *client, size_t first, size_t count)
{
    ptier_record *records = bench_records(first, count);
    ptier_error error;
    for (size_t i = 0; i < count; i += BATCH)
        if (ptier_put_many(client, records + i, count - i < BATCH ? count - i : BATCH, NULL, NULL,
                           &error))
            bench_fail("cannot load: %s", error.message);
    free(records);
}

redisContext *
bench_redis(const bench_process *redis)
{
    redisContext *context = redisConnectUnix(redis->socket);
    if (!context || context->err)
        bench_fail("cannot connect to redis: %s", context ? context->errstr : "out of memory");
    return context;
}

void
bench_redis_drain(redisContext *redis, int count)
{
    for (int i = 0; i < count; i++) {
        redisReply *reply;
        if (redisGetReply(redis, (void **)&reply) != REDIS_OK || reply->type == REDIS_REPLY_ERROR)
            bench_fail("redis: %s", redis->err ? redis->errstr : reply->str);
        freeReplyObject(reply);
    }
}

/* By arguments: hiredis reads no format, which is its fast way. */
static void
append(redisContext *redis, int count, const char **arguments)
{
    if (redisAppendCommandArgv(redis, count, arguments, NULL) != REDIS_OK)
        bench_fail("redis: %s", redis->errstr);
}

/* "h:" and a key of the bench. */
static void
name_hash(char name[20], const char *key)
{
    memcpy(name, "h:", 2);
    memcpy(name + 2, key, 17);
}

int
bench_redis_append_hash(redisContext *redis, const ptier_record *r, const char *key, int ttl_s)
{
    char name[20], label[2][40], ttl[16];
    name_hash(name, key);
    for (size_t i = 0; i < 2; i++)
        (void)snprintf(label[i], sizeof label[i], "label:%s", r->labels[i].name); /* fits */
    const char *set[] = {"HSET",          name,
                         "url",           r->url,
                         "username",      r->username,
                         "password",      r->password,
                         "source",        r->source,
                         "health",        "1",
                         "ttl_ms",        "3600000",
                         "fetched_at_ms", "1",
                         "failure_count", "0",
                         "access_count",  "0",
                         label[0],        r->labels[0].value,
                         label[1],        r->labels[1].value};
    append(redis, sizeof set / sizeof *set, set);
    if (!ttl_s)
        return 1;
    (void)snprintf(ttl, sizeof ttl, "%d", ttl_s); /* fits */
    append(redis, 3, (const char *[]){"EXPIRE", name, ttl});
    return 2;
}

void
bench_redis_append_get(redisContext *redis, const char *key)
{
    char name[20];
    name_hash(name, key);
    append(redis, 2, (const char *[]){"HGETALL", name});
}

void
bench_pool_load_hashes(redisContext *redis, size_t first, size_t count)
{
    ptier_record *records = bench_records(first, count);
    for (size_t i = 0; i < count;) {
        int replies = 0;
        for (size_t end = i + BATCH; i < count && i < end; i++) {
            char key[17];
            bench_key(first + i, key);
            replies += bench_redis_append_hash(redis, &records[i], key, 0);
        }
        bench_redis_drain(redis, replies);
    }
    free(records);
}

void
bench_pool_load_packed(redisContext *redis, size_t first, size_t count)
{
    ptier_record *records = bench_records(first, count);
    for (size_t i = 0; i < count;) {
        int replies = 0;
        for (size_t end = i + BATCH; i < count && i < end; i++, replies++) {
            ptier_proxy_message message;
            uint8_t packed[1024];
            char key[17];
            bench_key(first + i, key);
            records[i].key = key;
            ptier_proxy_from_record(&message, &records[i], true);
            size_t length = proxytier__v1__proxy__get_packed_size(&message.proxy);
            if (length > sizeof packed)
                bench_fail("a packed record has %zu bytes", length);
            (void)proxytier__v1__proxy__pack(&message.proxy, packed); /* `length` again */
            if (redisAppendCommand(redis, "SET s:%s %b", key, packed, length) != REDIS_OK)
                bench_fail("redis: %s", redis->errstr);
        }
        bench_redis_drain(redis, replies);
    }
    free(records);
}
