/*
 * The beginning of a cache: lock the directory, key, state, L3, L2; the index from L3, then what
 * the log has beyond L3's prefix; threads last.
 */
#include <stdlib.h>

#include <proxytier/import.h>

#include "cache/inspect.h"
#include "cache/open_internal.h"
#include "cache/reserve.h"
#include "file.h"
#include "hash.h"

enum {
    SHARD_BYTES = 16 << 20,
    REMOVAL_RESERVE = 1 << 20, /* about 7,000 removals */
};

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
        const ptier_l1_options l1 = ptier_l1_options_of(o);
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
        ptier_reserve_give_up(cache, PTIER_RESERVE_STATE);
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
    ptier_reserve_give_up(cache, 0);
    return ptier_state_save(cache->data_dir, &cache->state, error);
}

static ptier_status
start_threads(ptier_cache *cache, ptier_error *error)
{
    const bool indexing = cache->indexing; /* the threads' from here on */
    if (!indexing)
        ptier_note_rows_known_locked(cache); /* nobody else is there yet */
    if (cache->tiers[PTIER_TIER_L3])
        cache->l3_started = pthread_create(&cache->l3_thread, NULL, ptier_l3_thread, cache) == 0;
    cache->maintenance_started =
        pthread_create(&cache->maintenance_thread, NULL, ptier_maintenance_thread, cache) == 0;
    if (indexing)
        cache->indexing_started =
            pthread_create(&cache->indexing_thread, NULL, ptier_indexing_thread, cache) == 0;
    if (!cache->maintenance_started || (cache->tiers[PTIER_TIER_L3] && !cache->l3_started) ||
        (indexing && !cache->indexing_started))
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

ptier_status
ptier_cache_open_with(const ptier_cache_options *options, const ptier_cache_hooks *hooks,
                      ptier_cache **out, ptier_error *error)
{
    ptier_status status = ptier_options_check(options, error);
    if (status)
        return status;
    ptier_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for the cache");
    cache->lock_fd = cache->directory_fd = -1;
    init_locks(cache);
    init_from_hooks(cache, hooks);
    status = ptier_options_copy(cache, options, error);
    if (!status)
        status = ptier_random_id(cache->boot_id, error);
    ptier_findings found = {0};
    if (!status)
        status = ptier_directory_open(cache, options, &found, error);
    if (!status && ptier_index_create(cache->opened_boot_ms, &cache->index))
        status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for the index");
    if (!status)
        status = open_tiers(cache, hooks, error);
    if (!status && cache->data_dir)
        status = ptier_confirm_key(cache, &found, error);
    if (!status && cache->data_dir)
        status = ptier_recover(cache, &found, error);
    if (!status)
        status = begin_run(cache, &found, error);
    if (!status)
        ptier_reserve_take(cache);
    if (!status)
        ptier_quarantine_load(cache);
    if (!status)
        status = start_threads(cache, error);
    if (status) {
        status = ptier_explain_full_disk(cache, status, error);
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
