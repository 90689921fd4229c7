/*
 * Life cycle. Open: lock the directory, key, state, L3, L2; the index from L3, then what the log
 * has beyond L3's prefix; threads last. Close: refuse, write everything out, stop the threads,
 * close the tiers.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "cache/cache_internal.h"
#include "file.h"
#include "hash.h"

enum { SHARD_BYTES = 16 << 20 };

void
ptier_cache_options_init(ptier_cache_options *options)
{
    *options = (ptier_cache_options){
        .size = sizeof *options,
        .l1_enabled = true,
        .l2_enabled = true,
        .l3_enabled = true,
        .l1_entries = 1000,
        .l2_entries = 5000,
        .log_max_bytes = UINT64_C(1) << 30,
        .default_ttl_ms = 3600000,
        .failure_threshold = 3,
        .health_quarantine_ms = 900000,
        .durability = PTIER_DURABILITY_LOGGED,
    };
}

/* ---- options ---- */

static bool
bounds_grow_downwards(const ptier_cache_options *o)
{
    const struct {
        bool on;
        uint64_t entries;
    } tiers[] = {{o->l1_enabled, o->l1_entries},
                 {o->data_dir && o->l2_enabled, o->l2_entries},
                 {o->data_dir && o->l3_enabled, o->l3_entries}};
    uint64_t above = 0;
    for (int i = 0; i < 3; i++) {
        uint64_t bound = tiers[i].entries ? tiers[i].entries : UINT64_MAX;
        if (tiers[i].on && bound < above)
            return false;
        if (tiers[i].on)
            above = bound;
    }
    return true;
}

static ptier_status
check_options(const ptier_cache_options *o, ptier_error *error)
{
    if (o->size != sizeof *o)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "options were not made by ptier_cache_options_init");
    if (!o->l1_enabled && !(o->data_dir && (o->l2_enabled || o->l3_enabled)))
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "at least one tier must be enabled");
    if (o->l1_enabled && o->l1_entries == 0)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "L1 needs room for at least 1 entry");
    if (!bounds_grow_downwards(o))
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "a lower tier must have room for what the upper ones hold: l1_entries <= "
                          "l2_entries <= l3_entries (0: unlimited)");
    if (o->default_ttl_ms < 0 || o->default_ttl_ms > PTIER_TTL_MAX_MS)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "the default TTL must be 0 to 100 years");
    if ((unsigned)o->durability > PTIER_DURABILITY_SYNCED)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "unknown durability");
    return PTIER_OK;
}

/* Deep copies of what the caller only lends. */
static ptier_status
copy_options(ptier_cache *cache, const ptier_cache_options *o, ptier_error *error)
{
    cache->options = *o;
    if (cache->options.durability == PTIER_DURABILITY_DEFAULT)
        cache->options.durability = PTIER_DURABILITY_LOGGED;
    cache->options.encryption_key = NULL; /* not kept: the keyring has it */
    cache->options.previous_keys = NULL;
    cache->options.data_dir = NULL;
    cache->source_ttls = calloc(o->source_ttl_count + 1, sizeof *cache->source_ttls);
    if (!cache->source_ttls)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for the cache");
    for (size_t i = 0; i < o->source_ttl_count; i++) {
        cache->source_ttls[i].ttl_ms = o->source_ttls[i].ttl_ms;
        cache->source_ttls[i].source = strdup(o->source_ttls[i].source);
        if (!cache->source_ttls[i].source)
            return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for the cache");
    }
    if (o->data_dir && (o->l2_enabled || o->l3_enabled)) {
        cache->data_dir = strdup(o->data_dir);
        if (!cache->data_dir)
            return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for the cache");
    }
    return PTIER_OK;
}

/* ---- the directory ---- */

static ptier_status
lock_directory(ptier_cache *cache, ptier_error *error)
{
    char path[PTIER_PATH_MAX];
    ptier_status status = ptier_make_directories(cache->data_dir, error);
    if (status)
        return status;
    (void)snprintf(path, sizeof path, "%s/lock", cache->data_dir);
    cache->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (cache->lock_fd < 0)
        return ptier_fail_errno(error, errno, "cannot open %s", path);
    if (flock(cache->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return PTIER_OK;
    if (errno != EWOULDBLOCK)
        return ptier_fail_errno(error, errno, "cannot lock %s", path);
    return ptier_fail(error, PTIER_FAILED_PRECONDITION,
                      "data directory %s is in use by another process: stop that one, or choose "
                      "another directory",
                      cache->data_dir);
}

static ptier_status
open_keyring(ptier_cache *cache, const ptier_cache_options *o, ptier_error *error)
{
    char path[PTIER_PATH_MAX], key[PTIER_KEY_TEXT + 1];
    const char *first = o->encryption_key;
    ptier_status status = PTIER_OK;
    if (!first && !cache->data_dir)
        return PTIER_OK; /* memory only: nothing to encrypt */
    if (!first) {
        (void)snprintf(path, sizeof path, "%s/key", cache->data_dir);
        status = ptier_key_file(path, !ptier_state_exists(cache->data_dir), key, error);
        if (status == PTIER_NOT_FOUND)
            (void)ptier_fail(error, status,
                             "%s is missing, but the directory has data: put the key back", path);
        first = key;
    }
    const char **keys = calloc(o->previous_key_count + 1, sizeof *keys);
    if (!status && !keys)
        status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for the keys");
    if (!status) {
        keys[0] = first;
        for (size_t i = 0; i < o->previous_key_count; i++)
            keys[i + 1] = o->previous_keys[i];
        status = ptier_keyring_create(keys, o->previous_key_count + 1, &cache->keyring, error);
    }
    free(keys);
    explicit_bzero(key, sizeof key);
    return status;
}

/* ---- the tiers ---- */

static ptier_status
open_tiers(ptier_cache *cache, uint64_t shard_bytes, ptier_error *error)
{
    const ptier_cache_options *o = &cache->options;
    char path[PTIER_PATH_MAX];
    ptier_status status = PTIER_OK;
    if (o->l1_enabled) {
        const ptier_l1_options l1 = {.capacity = o->l1_entries};
        status = ptier_l1_open(&l1, &cache->tiers[PTIER_TIER_L1], error);
        cache->lowest = PTIER_TIER_L1;
    }
    if (!status && cache->data_dir && o->l2_enabled) {
        (void)snprintf(path, sizeof path, "%s/l2", cache->data_dir);
        const ptier_l2_options l2 = {
            .directory = path,
            .capacity = o->l2_entries,
            .shard_bytes = shard_bytes,
            .keyring = cache->keyring,
            .hash_key = cache->hash_key,
            .clock = &cache->clock,
            .on_log = o->on_log,
            .log_context = o->log_context,
        };
        status = ptier_l2_open(&l2, &cache->tiers[PTIER_TIER_L2], error);
        cache->lowest = PTIER_TIER_L2;
    }
    if (!status && cache->data_dir && o->l3_enabled) {
        (void)snprintf(path, sizeof path, "%s/l3.sqlite", cache->data_dir);
        const ptier_l3_options l3 = {
            .path = path,
            .capacity = o->l3_entries,
            .keyring = cache->keyring,
            .clock = &cache->clock,
            .on_log = o->on_log,
            .log_context = o->log_context,
        };
        status = ptier_l3_open(&l3, &cache->tiers[PTIER_TIER_L3], error);
        cache->lowest = PTIER_TIER_L3;
    }
    return status;
}

/* Skips what may have been used before and reserves the next block. */
static ptier_status
reserve_first_block(ptier_cache *cache, ptier_error *error)
{
    cache->assigned = cache->state.reserved;
    atomic_store(&cache->revision, cache->assigned);
    cache->opened_revision = cache->state.reserved;
    cache->logged = cache->log_synced = cache->opened_revision; /* L2 was synced when it was read */
    if (!cache->data_dir)
        return ptier_random_id(cache->state.store_id, error);
    cache->state.reserved += REVISION_BLOCK;
    return ptier_state_save(cache->data_dir, &cache->state, error);
}

/* ---- open and close ---- */

static ptier_status
start_threads(ptier_cache *cache, ptier_error *error)
{
    if (cache->tiers[PTIER_TIER_L3])
        cache->l3_started = pthread_create(&cache->l3_thread, NULL, ptier_l3_thread, cache) == 0;
    cache->maintenance_started =
        pthread_create(&cache->maintenance_thread, NULL, ptier_maintenance_thread, cache) == 0;
    if (!cache->maintenance_started || (cache->tiers[PTIER_TIER_L3] && !cache->l3_started))
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "cannot start the cache's threads");
    return PTIER_OK;
}

static void
init_locks(ptier_cache *cache)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&cache->lock, NULL);
    pthread_mutex_init(&cache->count.collecting, NULL);
    pthread_cond_init(&cache->progress, &monotonic);
    pthread_cond_init(&cache->l3_work, &monotonic);
    pthread_cond_init(&cache->maintenance_work, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

ptier_status
ptier_cache_open_with(const ptier_cache_options *options, const ptier_cache_hooks *hooks,
                      ptier_cache **out, ptier_error *error)
{
    ptier_status status = check_options(options, error);
    if (status)
        return status;
    ptier_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for the cache");
    cache->lock_fd = -1;
    init_locks(cache);
    if (hooks->clock)
        cache->clock = *hooks->clock;
    else
        ptier_clock_system(&cache->clock);
    cache->hash_key = hooks->hash_key ? hooks->hash_key : ptier_hash_key;
    cache->opened_boot_ms = cache->count.since_boot_ms = ptier_clock_boot(&cache->clock);
    cache->state.reserved = 1;
    status = copy_options(cache, options, error);
    if (!status)
        status = ptier_random_id(cache->boot_id, error);
    if (!status && cache->data_dir)
        status = lock_directory(cache, error);
    if (!status)
        status = open_keyring(cache, options, error);
    if (!status && cache->data_dir)
        status = ptier_state_load(cache->data_dir, cache->keyring, &cache->state, error);
    if (!status && ptier_index_create(cache->opened_boot_ms, &cache->index))
        status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for the index");
    if (!status)
        status =
            open_tiers(cache, hooks->l2_shard_bytes ? hooks->l2_shard_bytes : SHARD_BYTES, error);
    if (!status)
        status = ptier_recover(cache, error);
    if (!status)
        status = reserve_first_block(cache, error);
    if (!status)
        status = start_threads(cache, error);
    if (status) {
        ptier_cache_close(cache);
        return status;
    }
    ptier_enforce_bound(cache, PTIER_TIER_L2); /* it may have been made smaller */
    *out = cache;
    return PTIER_OK;
}

ptier_status
ptier_cache_open(const ptier_cache_options *options, ptier_cache **cache, ptier_error *error)
{
    static const ptier_cache_hooks none = {0};
    return ptier_cache_open_with(options, &none, cache, error);
}

static void
stop_threads(ptier_cache *cache)
{
    pthread_mutex_lock(&cache->lock);
    cache->stopping = true;
    pthread_cond_broadcast(&cache->l3_work);
    pthread_cond_broadcast(&cache->maintenance_work);
    pthread_cond_broadcast(&cache->progress);
    pthread_mutex_unlock(&cache->lock);
    if (cache->maintenance_started)
        pthread_join(cache->maintenance_thread, NULL);
    if (cache->l3_started)
        pthread_join(cache->l3_thread, NULL);
}

static void
free_cache(ptier_cache *cache)
{
    for (int id = PTIER_TIER_L1; id <= PTIER_TIER_L3; id++)
        if (cache->tiers[id])
            cache->tiers[id]->ops->close(cache->tiers[id]);
    for (size_t i = 0; cache->writeback.cells && i <= cache->writeback.mask; i++)
        ptier_entry_release(cache->writeback.cells[i].value);
    ptier_map_fini(&cache->writeback);
    ptier_map_fini(&cache->pending);
    ptier_quarantine_fini(cache);
    ptier_op_list_fini(&cache->log_queue);
    ptier_op_list_fini(&cache->l3_queue);
    ptier_op_list_fini(&cache->usage_queue);
    ptier_index_destroy(cache->index);
    ptier_keyring_destroy(cache->keyring);
    for (size_t i = 0; cache->source_ttls && cache->source_ttls[i].source; i++)
        free((char *)(uintptr_t)cache->source_ttls[i].source); /* our copy */
    free(cache->source_ttls);
    free(cache->data_dir);
    if (cache->lock_fd >= 0)
        close(cache->lock_fd);
    pthread_cond_destroy(&cache->progress);
    pthread_cond_destroy(&cache->l3_work);
    pthread_cond_destroy(&cache->maintenance_work);
    pthread_mutex_destroy(&cache->count.collecting);
    pthread_mutex_destroy(&cache->lock);
    free(cache);
}

void
ptier_cache_close(ptier_cache *cache)
{
    if (!cache)
        return;
    bool opened = cache->maintenance_started;
    if (opened) {
        ptier_flush_log(cache);
        ptier_write_back_all(cache);
    }
    stop_threads(cache);
    ptier_error error;
    ptier_tier *l3 = cache->tiers[PTIER_TIER_L3];
    if (opened && l3 && !cache->degraded[PTIER_TIER_L3] && ptier_l3_checkpoint(l3, true, &error))
        ptier_cache_log(cache, PTIER_LOG_WARN, "l3_close", "the last checkpoint failed: %s",
                        error.message);
    free_cache(cache);
}
