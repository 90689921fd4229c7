/* L3's life cycle and its place in the tier contract. */
#include "l3/l3_sqlite.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "l3/l3_internal.h"

#define BUSY_TIMEOUT_MS 5000 /* other programs that look into the file */

static uint64_t
l3_count(ptier_tier *tier)
{
    return atomic_load(&ptier_l3_of(tier)->count);
}

static uint64_t
l3_bytes(ptier_tier *tier)
{
    return atomic_load(&ptier_l3_of(tier)->bytes);
}

static void
l3_close(ptier_tier *tier)
{
    ptier_l3 *l3 = ptier_l3_of(tier);
    ptier_error error;
    if (ptier_l3_writable(l3, NULL) == PTIER_OK &&
        ptier_l3_checkpoint(tier, true, &error) != PTIER_OK)
        ptier_l3_log(l3, PTIER_LOG_WARN, "l3_close", "%s", error.message);
    ptier_l3_free(l3);
}

static const ptier_tier_ops l3_ops = {
    .name = "L3",
    .get = ptier_l3_get,
    .apply = ptier_l3_apply,
    .write_usage = ptier_l3_write_usage,
    .touch = ptier_l3_touch,
    .victim = ptier_l3_victim,
    .drop = ptier_l3_drop,
    .scan = ptier_l3_scan,
    .probe = ptier_l3_probe,
    .count = l3_count,
    .bytes = l3_bytes,
    .close = l3_close,
};

ptier_l3 *
ptier_l3_allocate(const char *path, const ptier_l3_options *options)
{
    ptier_l3 *l3 = calloc(1, sizeof *l3);
    if (!l3)
        return NULL;
    for (int i = 0; i < PTIER_L3_READERS; i++)
        pthread_mutex_init(&l3->readers[i].mutex, NULL);
    pthread_mutex_init(&l3->audit_mutex, NULL);
    pthread_mutex_init(&l3->places_mutex, NULL);
    l3->tier.ops = &l3_ops;
    l3->capacity = options->capacity;
    l3->busy_timeout_ms = options->busy_timeout_ms ? options->busy_timeout_ms : BUSY_TIMEOUT_MS;
    l3->keyring = options->keyring;
    l3->clock = options->clock;
    l3->hash_key = options->hash_key ? options->hash_key : ptier_hash_key;
    l3->on_log = options->on_log;
    l3->log_context = options->log_context;
    l3->random = ((uint64_t)ptier_clock_boot(l3->clock) << 20 ^ (uint64_t)(uintptr_t)l3) | 1;
    size_t length = strlen(path);
    l3->path = strdup(path);
    l3->wal_path = malloc(length + sizeof "-wal");
    if (!l3->path || !l3->wal_path) {
        ptier_l3_free(l3);
        return NULL;
    }
    memcpy(l3->wal_path, path, length);
    memcpy(l3->wal_path + length, "-wal", sizeof "-wal");
    return l3;
}

void
ptier_l3_free(ptier_l3 *l3)
{
    ptier_l3_disconnect(l3);
    for (int i = 0; i < PTIER_L3_READERS; i++)
        pthread_mutex_destroy(&l3->readers[i].mutex);
    pthread_mutex_destroy(&l3->audit_mutex);
    pthread_mutex_destroy(&l3->places_mutex);
    free(l3->path);
    free(l3->wal_path);
    free(l3);
}

ptier_status
ptier_l3_open(const ptier_l3_options *options, ptier_tier **tier, ptier_error *error)
{
    ptier_l3 *l3 = ptier_l3_allocate(options->path, options);
    if (!l3)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    ptier_status status = ptier_l3_connect(l3, error);
    if (status != PTIER_OK) {
        ptier_l3_free(l3);
        return status;
    }
    *tier = &l3->tier;
    return PTIER_OK;
}

ptier_status
ptier_l3_reopen(ptier_tier *tier, ptier_error *error)
{
    ptier_l3 *l3 = ptier_l3_of(tier);
    /* One more connection: what is open is given up only if that opens. And it stays until the
     * others are back, so that they find the files beside the database, and need not make them. */
    ptier_l3_conn *first = calloc(1, sizeof *first);
    if (!first)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory to open L3 anew");
    int code = ptier_l3_open_connection(l3, first, "BEGIN IMMEDIATE;ROLLBACK;");
    /* Where it may not write, SQLite opens for reading: what is open does so as well. */
    if (code == SQLITE_OK && sqlite3_db_readonly(first->db, "main") == 1)
        code = SQLITE_READONLY;
    ptier_status status = PTIER_OK;
    if (code != SQLITE_OK && !ptier_l3_is_damage(code)) {
        status = ptier_l3_fail(l3, first, code, "open", error);
    } else {
        pthread_mutex_lock(&l3->audit_mutex);
        ptier_l3_readers_lock(l3);
        ptier_l3_disconnect(l3);
        status = ptier_l3_connect(l3, error);
        ptier_l3_readers_unlock(l3);
        pthread_mutex_unlock(&l3->audit_mutex);
    }
    ptier_l3_close_connection(first, true);
    free(first);
    return status;
}

/* ---- what is known of it ---- */

ptier_l3_condition
ptier_l3_condition_of(const ptier_tier *tier)
{
    return (ptier_l3_condition)atomic_load(&((const ptier_l3 *)tier)->condition);
}

ptier_l3_condition
ptier_l3_check_file(ptier_tier *tier)
{
    ptier_l3_measure(ptier_l3_of(tier));
    return ptier_l3_condition_of(tier);
}

uint64_t
ptier_l3_prefix(const ptier_tier *tier)
{
    return atomic_load(&((const ptier_l3 *)tier)->prefix);
}

uint64_t
ptier_l3_synced_prefix(const ptier_tier *tier)
{
    const ptier_l3 *l3 = (const ptier_l3 *)tier;
    /* What is in a damaged file, or in one without a name, is not safe. */
    return atomic_load(&l3->condition) == PTIER_L3_SOUND ? atomic_load(&l3->synced_prefix) : 0;
}

void
ptier_l3_rows_known(ptier_tier *tier, uint64_t revision)
{
    atomic_store(&ptier_l3_of(tier)->rows_known, revision);
}

uint64_t
ptier_l3_damaged(const ptier_tier *tier)
{
    return atomic_load(&((const ptier_l3 *)tier)->damaged);
}
