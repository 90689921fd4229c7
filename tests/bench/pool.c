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

int
bench_redis_append_hash(redisContext *redis, const ptier_record *r, const char *key, int ttl_s)
{
    if (redisAppendCommand(redis,
                           "HSET h:%s url %s username %s password %s source %s health %d "
                           "ttl_ms %d fetched_at_ms %d failure_count %d access_count %d "
                           "label:%s %s label:%s %s",
                           key, r->url, r->username, r->password, r->source, (int)r->health,
                           3600000, 1, 0, 0, r->labels[0].name, r->labels[0].value,
                           r->labels[1].name, r->labels[1].value) != REDIS_OK)
        bench_fail("redis: %s", redis->errstr);
    if (!ttl_s)
        return 1;
    if (redisAppendCommand(redis, "EXPIRE h:%s %d", key, ttl_s) != REDIS_OK)
        bench_fail("redis: %s", redis->errstr);
    return 2;
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
