/*
 * Life cycle. Open: lock the directory, key, state, L3, L2; the index from L3, then what the log
 * has beyond L3's prefix; threads last. Close: refuse, write everything out, stop the threads,
 * close the tiers.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <proxytier/import.h>

#include "cache/inspect.h"
#include "cache/reserve.h"
#include "file.h"
#include "hash.h"

enum {
    TTL_JITTER_MAX = 50,
    MEND_MS = 2000, /* of a close that finishes what compaction has begun */
    SHARD_BYTES = 16 << 20,
    REMOVAL_RESERVE = 1 << 20, /* about 7,000 removals */
    START_ROOM_MB = 2,         /* that, the files of an empty database, and the reserve */
};

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

static ptier_l1_options
l1_options(const ptier_cache_options *o)
{
    return (ptier_l1_options){
        .capacity = o->l1_entries, .bytes = o->l1_bytes, .eviction = o->l1_eviction};
}

static ptier_status
check_options(const ptier_cache_options *o, ptier_error *error)
{
    if (o->size != sizeof *o)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "options were not made by ptier_cache_options_init");
    if (!o->l1_enabled && !(o->data_dir && (o->l2_enabled || o->l3_enabled)))
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "at least one tier must be enabled");
    const ptier_l1_options l1 = l1_options(o);
    ptier_status status = o->l1_enabled ? ptier_l1_check(&l1, error) : PTIER_OK;
    if (status)
        return status;
    if (!bounds_grow_downwards(o))
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "a lower tier must have room for what the upper ones hold: l1_entries <= "
                          "l2_entries <= l3_entries (0: unlimited)");
    if (o->default_ttl_ms < 0 || o->default_ttl_ms > PTIER_TTL_MAX_MS)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "the default TTL must be 0 to 100 years");
    if (o->ttl_jitter > TTL_JITTER_MAX)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "the TTL jitter must be 0 to %d percent",
                          TTL_JITTER_MAX);
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

static bool
exists_in(const char *directory, const char *name)
{
    char path[PTIER_PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/%s", directory, name);
    return access(path, F_OK) == 0;
}

/* Whether there is anything of an earlier run. */
static bool
has_data(const char *directory)
{
    return exists_in(directory, "state") || exists_in(directory, "l2") ||
           exists_in(directory, "l3.sqlite");
}

/* The file tells people; the directory itself is locked as well, because a file that looks stale is
 * deleted sooner or later. Some file systems lock no directories. */
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
    cache->directory_fd = open(cache->data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (cache->directory_fd < 0)
        return ptier_fail_errno(error, errno, "cannot open %s", cache->data_dir);
    bool free = flock(cache->directory_fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
    if (free && flock(cache->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return PTIER_OK;
    if (errno != EWOULDBLOCK)
        return ptier_fail_errno(error, errno, "cannot lock %s", path);
    return ptier_fail(error, PTIER_FAILED_PRECONDITION,
                      "data directory %s is in use by another process: stop that one, or choose "
                      "another directory",
                      cache->data_dir);
}

static ptier_status
open_keyring(ptier_cache *cache, const ptier_cache_options *o, bool has_data, ptier_error *error)
{
    char path[PTIER_PATH_MAX], key[PTIER_KEY_TEXT + 1];
    const char *first = o->encryption_key;
    ptier_status status = PTIER_OK;
    if (!first && !cache->data_dir)
        return PTIER_OK; /* memory only: nothing to encrypt */
    if (!first) {
        (void)snprintf(path, sizeof path, "%s/key", cache->data_dir);
        bool missing = access(path, F_OK) != 0;
        status = ptier_key_file(path, !has_data, key, error);
        if (status == PTIER_NOT_FOUND)
            (void)ptier_fail(error, status,
                             "%s is missing, but the directory has data: put the key back, or give "
                             "it as it was given before",
                             path);
        cache->key_in_directory = !status;
        if (!status && missing)
            ptier_cache_log(cache, PTIER_LOG_INFO, "key_made",
                            "%s: back it up, apart from the data, which nobody can read without it",
                            path);
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

void
ptier_tell_missing_key(const ptier_cache *cache)
{
    if (cache->key_in_directory && !exists_in(cache->data_dir, "key"))
        ptier_cache_log(cache, PTIER_LOG_ERROR, "key_missing",
                        "%s/key is gone: put it back before the next start, which is refused "
                        "without it",
                        cache->data_dir);
}

/* ---- room on the disk ---- */

static void
give_up_reserve(ptier_cache *cache, uint64_t but)
{
    ptier_reserve_shrink(cache->data_dir, but);
    cache->reserve_missing = true;
}

static void
take_reserve(ptier_cache *cache)
{
    ptier_error ignored; /* of a full disk others will tell */
    if (cache->reserve_missing)
        cache->reserve_missing =
            ptier_reserve_grow(cache->data_dir, PTIER_RESERVE_BYTES, &ignored) != PTIER_OK;
}

/* Why it did not open, said as what can be done about it, where that is making room. */
static ptier_status
explain_full_disk(const ptier_cache *cache, ptier_status status, ptier_error *error)
{
    struct statvfs disk;
    ptier_error why;
    if ((status != PTIER_RESOURCE_EXHAUSTED && status != PTIER_UNAVAILABLE) || !error ||
        !cache->data_dir || statvfs(cache->data_dir, &disk))
        return status;
    uint64_t free_kb = (uint64_t)disk.f_bavail * disk.f_frsize >> 10;
    if (free_kb >= START_ROOM_MB << 10)
        return status;
    why = *error;
    return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED,
                      "the disk of %s has %" PRIu64 " KB free: make room for %d MB (%s)",
                      cache->data_dir, free_kb, START_ROOM_MB, why.message);
}

/* ---- the tiers ---- */

static ptier_status
open_tiers(ptier_cache *cache, const ptier_cache_hooks *hooks, ptier_error *error)
{
    const uint64_t shard_bytes = hooks->l2_shard_bytes ? hooks->l2_shard_bytes : SHARD_BYTES;
    const uint64_t reserve =
        hooks->l2_removal_reserve ? hooks->l2_removal_reserve : REMOVAL_RESERVE;
    const ptier_cache_options *o = &cache->options;
    char path[PTIER_PATH_MAX];
    ptier_status status = PTIER_OK;
    if (o->l1_enabled) {
        const ptier_l1_options l1 = l1_options(o);
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
            .removal_reserve = reserve,
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
            .hash_key = cache->hash_key,
            .on_log = o->on_log,
            .log_context = o->log_context,
        };
        give_up_reserve(cache, PTIER_RESERVE_STATE);
        status = ptier_l3_open(&l3, &cache->tiers[PTIER_TIER_L3], error);
        cache->lowest = PTIER_TIER_L3;
    }
    return status;
}

/* An L3 that is out of date is none until it has been made anew: see revive_l3. */
static uint32_t
tiers_that_count(const ptier_findings *f)
{
    uint32_t counted = f->l3_stale ? f->tiers & ~(1U << PTIER_TIER_L3) : f->tiers;
    return counted ? counted : f->last_tiers;
}

/*
 * Everything about this run that has to be on stable storage before it makes a change: its
 * revisions skip what may have been used before; a store that lost something is another one.
 */
static ptier_status
begin_run(ptier_cache *cache, const ptier_findings *f, ptier_error *error)
{
    ptier_start_report *report = &cache->start_report;
    cache->assigned = cache->queued = cache->state.reserved;
    atomic_store(&cache->revision, cache->assigned);
    cache->opened_revision = cache->state.reserved;
    cache->logged = cache->log_synced = cache->opened_revision; /* L2 was synced when it was read */
    report->new_store = !cache->data_dir || !f->state_known || report->changes_lost;
    if (report->new_store) {
        ptier_status status = ptier_random_id(cache->state.store_id, error);
        if (status || !cache->data_dir)
            return status;
    }
    cache->state.reserved += REVISION_BLOCK;
    cache->state.tiers = tiers_that_count(f);
    cache->state.boot_tag = cache->clock.boot_tag;
    cache->state.clean = false;
    give_up_reserve(cache, 0);
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
    if (cache->indexing)
        cache->indexing_started =
            pthread_create(&cache->indexing_thread, NULL, ptier_indexing_thread, cache) == 0;
    if (!cache->maintenance_started || (cache->tiers[PTIER_TIER_L3] && !cache->l3_started) ||
        (cache->indexing && !cache->indexing_started))
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
    ptier_progress_init(&cache->progress_file);
    pthread_mutex_init(&cache->count.collecting, NULL);
    pthread_cond_init(&cache->progress, &monotonic);
    pthread_cond_init(&cache->l3_work, &monotonic);
    pthread_cond_init(&cache->maintenance_work, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

static void
init_from_hooks(ptier_cache *cache, const ptier_cache_hooks *hooks)
{
    if (hooks->clock)
        cache->clock = *hooks->clock;
    else
        ptier_clock_system(&cache->clock);
    ptier_clock_anchor(&cache->clock);
    ptier_clock_glance_renew(&cache->glance, &cache->clock);
    cache->hash_key = hooks->hash_key ? hooks->hash_key : ptier_hash_key;
    cache->derive_key = hooks->derive_key ? hooks->derive_key : ptier_key_derive;
    cache->quick_start_rows = hooks->quick_start_rows ? hooks->quick_start_rows : QUICK_START_ROWS;
    cache->indexing_rows = hooks->indexing_rows ? hooks->indexing_rows : INDEXING_ROWS;
    cache->quick_start_always = hooks->quick_start_always;
    cache->indexing_pause_us = hooks->indexing_pause_us;
    cache->room_timeout_ms = hooks->room_timeout_ms ? hooks->room_timeout_ms : ROOM_TIMEOUT_MS;
    cache->l3_queue_max = hooks->l3_queue_max ? hooks->l3_queue_max : L3_QUEUE_MAX;
    cache->probe_period_ms = hooks->probe_period_ms ? hooks->probe_period_ms : PROBE_PERIOD_MS;
    cache->opened_boot_ms = cache->count.since_boot_ms = ptier_clock_boot(&cache->clock);
    cache->state.reserved = 1;
    for (int id = PTIER_TIER_L1; id <= PTIER_TIER_L3; id++) {
        cache->health[id].next_probe_ms = ptier_monotonic_ms() + cache->probe_period_ms;
        atomic_init(&cache->health[id].last_success_boot_ms, cache->opened_boot_ms);
    }
}

/* The lock, what is known of earlier runs, and the keys. */
static ptier_status
open_directory(ptier_cache *cache, const ptier_cache_options *o, ptier_findings *f,
               ptier_error *error)
{
    ptier_state_condition condition = PTIER_STATE_MISSING;
    if (!cache->data_dir)
        return open_keyring(cache, o, false, error);
    ptier_status status = lock_directory(cache, error);
    f->has_data = !status && has_data(cache->data_dir);
    if (!status)
        status = ptier_state_load(cache->data_dir, &cache->state, &condition, error);
    f->state_known = condition == PTIER_STATE_SOUND;
    if (!status)
        status = open_keyring(cache, o, f->has_data, error);
    if (!status)
        status = ptier_state_check_keys(&cache->state, cache->keyring, cache->data_dir, error);
    bool found = false, changed;
    if (!status)
        status = ptier_progress_open(&cache->progress_file, cache->data_dir, &found, error);
    f->progress_known = found && f->state_known && cache->state.tiers &&
                        (cache->state.clean || cache->state.boot_tag == cache->clock.boot_tag);
    if (!status)
        status = ptier_state_add_key(&cache->state, cache->keyring, &changed, error);
    /* Before anything is written with the key. In an empty directory, too: should the start fail,
     * or end in between, the next one knows that there was nothing to lose. */
    if (!status && changed && (f->state_known || !f->has_data))
        status = ptier_state_save(cache->data_dir, &cache->state, error);
    return status;
}

/* Without `state`, the records themselves have to tell whether the key is theirs. */
static ptier_status
confirm_key(ptier_cache *cache, const ptier_findings *f, ptier_error *error)
{
    ptier_l2_found found;
    if (f->state_known || !f->has_data || !cache->tiers[PTIER_TIER_L2])
        return PTIER_OK; /* L3 looks for itself */
    ptier_l2_found_at_open(cache->tiers[PTIER_TIER_L2], &found);
    if (!found.unverified)
        return PTIER_OK;
    return ptier_fail(error, PTIER_FAILED_PRECONDITION,
                      "%s has no state file, and not one line in it was written with this key: put "
                      "the state file or the key back, or use another directory",
                      cache->data_dir);
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
    cache->lock_fd = cache->directory_fd = -1;
    init_locks(cache);
    init_from_hooks(cache, hooks);
    status = copy_options(cache, options, error);
    if (!status)
        status = ptier_random_id(cache->boot_id, error);
    ptier_findings found = {0};
    if (!status)
        status = open_directory(cache, options, &found, error);
    if (!status && ptier_index_create(cache->opened_boot_ms, &cache->index))
        status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for the index");
    if (!status)
        status = open_tiers(cache, hooks, error);
    if (!status && cache->data_dir)
        status = confirm_key(cache, &found, error);
    if (!status && cache->data_dir)
        status = ptier_recover(cache, &found, error);
    if (!status)
        status = begin_run(cache, &found, error);
    if (!status)
        take_reserve(cache);
    if (!status)
        ptier_quarantine_load(cache);
    if (!status)
        status = start_threads(cache, error);
    if (status) {
        status = explain_full_disk(cache, status, error);
        (void)ptier_cache_close(cache); /* the first failure is the one to tell */
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
    if (cache->indexing_started)
        pthread_join(cache->indexing_thread, NULL);
    if (cache->maintenance_started)
        pthread_join(cache->maintenance_thread, NULL);
    ptier_flush_log(cache); /* what the maintenance thread did last */
    pthread_mutex_lock(&cache->lock);
    cache->l3_may_stop = true; /* nothing comes any more */
    pthread_cond_broadcast(&cache->l3_work);
    pthread_mutex_unlock(&cache->lock);
    if (cache->l3_started)
        pthread_join(cache->l3_thread, NULL);
}

static void
free_cache(ptier_cache *cache)
{
    for (int id = PTIER_TIER_L1; id <= PTIER_TIER_L3; id++)
        if (cache->tiers[id])
            cache->tiers[id]->ops->close(cache->tiers[id]);
    take_reserve(cache); /* L2 gave room back */
    for (size_t i = 0; cache->writeback.cells && i <= cache->writeback.mask; i++)
        ptier_entry_release(cache->writeback.cells[i].value);
    ptier_map_fini(&cache->writeback);
    ptier_map_fini(&cache->pending);
    ptier_map_fini(&cache->settled);
    ptier_map_fini(&cache->removals_waiting);
    free(cache->missed);
    free(atomic_load(&cache->put_items));
    ptier_quarantine_fini(cache);
    ptier_op_list_fini(&cache->log_queue);
    ptier_op_list_fini(&cache->l3_queue);
    ptier_op_list_fini(&cache->l3_batch);
    ptier_op_list_fini(&cache->l3_given_up);
    ptier_op_list_fini(&cache->removal_queue);
    ptier_op_list_fini(&cache->usage_queue);
    ptier_index_destroy(cache->index);
    ptier_keyring_destroy(cache->keyring);
    for (size_t i = 0; cache->source_ttls && cache->source_ttls[i].source; i++)
        free((char *)(uintptr_t)cache->source_ttls[i].source); /* our copy */
    free(cache->source_ttls);
    free(cache->data_dir);
    if (cache->lock_fd >= 0)
        close(cache->lock_fd);
    if (cache->directory_fd >= 0)
        close(cache->directory_fd);
    ptier_progress_fini(&cache->progress_file);
    pthread_cond_destroy(&cache->progress);
    pthread_cond_destroy(&cache->l3_work);
    pthread_cond_destroy(&cache->maintenance_work);
    pthread_mutex_destroy(&cache->count.collecting);
    pthread_mutex_destroy(&cache->lock);
    free(cache);
}

/* Damage that was reported is gone from the files before the next start looks at them, if that is
 * not too much work. */
static void
mend_l2(ptier_cache *cache)
{
    ptier_tier *l2 = cache->tiers[PTIER_TIER_L2];
    ptier_l2_found found;
    ptier_error error;
    int64_t deadline = ptier_monotonic_ms() + MEND_MS;
    ptier_l2_found_at_open(l2, &found);
    bool worked = found.damaged && !found.unverified;
    while (worked && ptier_monotonic_ms() < deadline)
        if (ptier_l2_compact(l2, &worked, &error))
            break;
}

/* What the tiers have becomes safe from power loss, and `state` and `progress` say that it is all
 * there. Single-threaded. */
static ptier_status
end_run(ptier_cache *cache)
{
    ptier_tier *l2 = cache->tiers[PTIER_TIER_L2], *l3 = cache->tiers[PTIER_TIER_L3];
    ptier_error error;
    ptier_status status = PTIER_OK;
    if (ptier_tier_active(cache, PTIER_TIER_L3)) {
        status = ptier_l3_checkpoint(l3, true, &error);
        if (status)
            ptier_cache_log(cache, PTIER_LOG_WARN, "l3_close", "the last checkpoint failed: %s",
                            error.message);
    }
    if (ptier_tier_active(cache, PTIER_TIER_L2)) {
        mend_l2(cache);
        status = l2->ops->apply(l2, NULL, 0, true, &error);
        ptier_note_log(cache, 0);
    }
    /* What L3 has not applied is in the log, where there is one. */
    uint64_t waiting = ptier_tier_active(cache, PTIER_TIER_L2) ? 0 : ptier_waiting_locked(cache);
    if (waiting)
        ptier_cache_log(cache, PTIER_LOG_ERROR, "changes_lost",
                        "%" PRIu64 " changes end with the process: no disk tier took them",
                        waiting);
    ptier_progress_begin(&cache->progress_file)->memory_only = waiting != 0;
    ptier_progress_end(&cache->progress_file);
    if (!status)
        status = ptier_progress_sync(&cache->progress_file, &error);
    cache->state.clean = true;
    cache->state.reserved = cache->assigned + 1;
    if (!status)
        status = ptier_state_save(cache->data_dir, &cache->state, &error);
    if (status)
        ptier_cache_log(cache, PTIER_LOG_ERROR, "cache_close", "%s", error.message);
    ptier_tell_missing_key(cache);
    return waiting ? PTIER_DATA_LOSS : status;
}

void
ptier_cache_start_report(const ptier_cache *cache, ptier_start_report *report)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&cache->lock;
    pthread_mutex_lock(lock);
    *report = cache->start_report;
    pthread_mutex_unlock(lock);
}

ptier_status
ptier_cache_wait_started(ptier_cache *cache, int64_t timeout_ms)
{
    int64_t deadline = ptier_monotonic_ms() + timeout_ms;
    for (;;) {
        pthread_mutex_lock(&cache->lock);
        bool busy = cache->health[PTIER_TIER_L3].rebuild || cache->indexing;
        pthread_mutex_unlock(&cache->lock);
        if (!busy)
            return PTIER_OK;
        if (ptier_monotonic_ms() >= deadline)
            return PTIER_DEADLINE_EXCEEDED;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

ptier_status
ptier_cache_close(ptier_cache *cache)
{
    if (!cache)
        return PTIER_OK;
    ptier_status status = PTIER_OK;
    bool opened = cache->maintenance_started;
    if (opened) {
        ptier_flush_log(cache);
        ptier_write_back_all(cache);
    }
    stop_threads(cache);
    if (opened)
        ptier_quarantine_flush(cache);
    if (opened && cache->data_dir)
        status = end_run(cache);
    free_cache(cache);
    return status;
}
