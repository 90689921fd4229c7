/* L3's life cycle and its place in the tier contract. */
#include "l3/l3_sqlite.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "l3/l3_internal.h"

/* 64 MiB: more is faster over all, and stalls a commit for longer. */
#define CHECKPOINT_PAGES    16384
#define CHECKPOINT_TRIES    2000
#define CHECKPOINT_PAUSE_US 1000
#define TRUNCATE_TIMEOUT_MS 100

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
l3_free(ptier_l3 *l3)
{
    ptier_l3_disconnect(l3);
    for (int i = 0; i < PTIER_L3_READERS; i++)
        pthread_mutex_destroy(&l3->readers[i].mutex);
    free(l3->path);
    free(l3->wal_path);
    free(l3);
}

static void
l3_close(ptier_tier *tier)
{
    ptier_l3 *l3 = ptier_l3_of(tier);
    ptier_error error;
    if (ptier_l3_checkpoint(tier, true, &error) != PTIER_OK)
        ptier_l3_log(l3, PTIER_LOG_WARN, "l3_close", "%s", error.message);
    l3_free(l3);
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
    .count = l3_count,
    .bytes = l3_bytes,
    .close = l3_close,
};

void
ptier_l3_measure(ptier_l3 *l3)
{
    struct stat info;
    uint64_t bytes = 0;
    if (stat(l3->path, &info) == 0)
        bytes += (uint64_t)info.st_size;
    if (stat(l3->wal_path, &info) == 0)
        bytes += (uint64_t)info.st_size;
    atomic_store(&l3->bytes, bytes);
}

static ptier_l3 *
l3_allocate(const ptier_l3_options *options)
{
    ptier_l3 *l3 = calloc(1, sizeof *l3);
    if (!l3)
        return NULL;
    for (int i = 0; i < PTIER_L3_READERS; i++)
        pthread_mutex_init(&l3->readers[i].mutex, NULL);
    l3->tier.ops = &l3_ops;
    l3->capacity = options->capacity;
    l3->keyring = options->keyring;
    l3->clock = options->clock;
    l3->on_log = options->on_log;
    l3->log_context = options->log_context;
    l3->random = ((uint64_t)ptier_clock_boot(l3->clock) << 20 ^ (uint64_t)(uintptr_t)l3) | 1;
    size_t length = strlen(options->path);
    l3->path = strdup(options->path);
    l3->wal_path = malloc(length + sizeof "-wal");
    if (!l3->path || !l3->wal_path) {
        l3_free(l3);
        return NULL;
    }
    memcpy(l3->wal_path, l3->path, length);
    memcpy(l3->wal_path + length, "-wal", sizeof "-wal");
    return l3;
}

ptier_status
ptier_l3_open(const ptier_l3_options *options, ptier_tier **tier, ptier_error *error)
{
    ptier_l3 *l3 = l3_allocate(options);
    if (!l3)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    ptier_status status = ptier_l3_connect(l3, error);
    if (status != PTIER_OK) {
        l3_free(l3);
        return status;
    }
    ptier_l3_measure(l3);
    *tier = &l3->tier;
    return PTIER_OK;
}

uint64_t
ptier_l3_prefix(const ptier_tier *tier)
{
    return atomic_load(&((const ptier_l3 *)tier)->prefix);
}

uint64_t
ptier_l3_synced_prefix(const ptier_tier *tier)
{
    return atomic_load(&((const ptier_l3 *)tier)->synced_prefix);
}

uint64_t
ptier_l3_damaged(const ptier_tier *tier)
{
    return atomic_load(&((const ptier_l3 *)tier)->damaged);
}

/* One pass that waits for nobody. */
static int
checkpoint_once(ptier_l3 *l3, bool *complete)
{
    int pages = -1, done = -1;
    int code =
        sqlite3_wal_checkpoint_v2(l3->writer.db, NULL, SQLITE_CHECKPOINT_PASSIVE, &pages, &done);
    *complete = code == SQLITE_OK && pages >= 0 && pages == done;
    return code;
}

/*
 * Not by the blocking modes: those wait for one reader slot, which busy readers hand to each other
 * for as long as they like, while each new pass finds them moved on.
 */
static int
checkpoint_all(ptier_l3 *l3)
{
    bool complete = false;
    for (int i = 0; i < CHECKPOINT_TRIES; i++) {
        int code = checkpoint_once(l3, &complete);
        if (code != SQLITE_OK || complete)
            return code;
        (void)usleep(CHECKPOINT_PAUSE_US); /* shorter is fine */
    }
    return SQLITE_BUSY;
}

ptier_status
ptier_l3_checkpoint(ptier_tier *tier, bool force, ptier_error *error)
{
    ptier_l3 *l3 = ptier_l3_of(tier);
    if (!force && l3->wal_pages < CHECKPOINT_PAGES)
        return PTIER_OK;
    uint64_t prefix = atomic_load(&l3->prefix);
    bool complete = force;
    int code = force ? checkpoint_all(l3) : checkpoint_once(l3, &complete);
    if (code != SQLITE_OK)
        return ptier_l3_fail(l3, &l3->writer, code, "checkpoint", error);
    if (complete) {
        atomic_store(&l3->synced_prefix, prefix); /* SQLite has fsynced the file */
        l3->wal_pages = 0;                        /* the next commit says how many there are */
    }
    if (force) {
        (void)sqlite3_busy_timeout(l3->writer.db, TRUNCATE_TIMEOUT_MS);
        /* Only gives space back: a busy reader may prevent it. */
        (void)sqlite3_wal_checkpoint_v2(l3->writer.db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL,
                                        NULL);
        (void)sqlite3_busy_timeout(l3->writer.db, PTIER_L3_BUSY_TIMEOUT_MS);
    }
    ptier_l3_measure(l3);
    return PTIER_OK;
}
