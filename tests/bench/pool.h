/*
 * The pool that benchmarks over the wire read: the first `count` records of bench_records, loaded
 * into our daemon and into Redis in the two forms in which its users keep them. What fails ends the
 * program (bench_fail).
 */
#ifndef PTIER_BENCH_POOL_H
#define PTIER_BENCH_POOL_H

#include <hiredis/hiredis.h>

#include <proxytier/client.h>

#include "process.h"

ptier_client *bench_client(const bench_process *daemon);
/* One whose asynchronous Gets go one by one. */
ptier_client *bench_client_separate_gets(const bench_process *daemon);
void bench_pool_load(ptier_client *client, size_t first, size_t count);

redisContext *bench_redis(const bench_process *redis);

/* As hashes "h:KEY" with a field for each of ours, in plain text. */
void bench_pool_load_hashes(redisContext *redis, size_t first, size_t count);

/* As strings "s:KEY", packed: protobuf, as our own wire has it. */
void bench_pool_load_packed(redisContext *redis, size_t first, size_t count);

/* One HSET of a record, and one EXPIRE where `ttl_s` is not 0, appended to the pipeline. Returns
 * how many replies will come. */
int bench_redis_append_hash(redisContext *redis, const ptier_record *record, const char *key,
                            int ttl_s);

/* One HGETALL of such a hash. */
void bench_redis_append_get(redisContext *redis, const char *key);

/* Reads `count` replies and drops them; an error ends the program. */
void bench_redis_drain(redisContext *redis, int count);

#endif
