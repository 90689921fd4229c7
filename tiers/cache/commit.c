/*
 * Durability: callers become the leader of the log group one after the other and write for
 * everybody who waits. What is logged goes on to L3 (l3_thread.c).
 */
#include <time.h>

#include "cache/cache_internal.h"

enum { RETRY_PAUSE_MS = 5 };

/* ---- the log group ---- */

/* Moves what was logged to L3's queue; what L3 is too far behind for it will read from the log. */
static void
pass_on_locked(ptier_cache *cache, ptier_op_list *list)
{
    bool queued = ptier_tier_active(cache, PTIER_TIER_L3) && !cache->l3_behind;
    if (queued && cache->l3_queue.count + list->count > cache->l3_queue_max) {
        ptier_l3_fall_behind_locked(cache);
        queued = false;
    }
    bool any = list->count != 0;
    if (queued && !ptier_op_list_append(&cache->l3_queue, list)) {
        ptier_l3_fall_behind_locked(cache); /* no memory to queue it: it is in the log */
        queued = false;
    }
    for (size_t i = 0; i < list->count; i++)
        if (list->ops[i].kind == PTIER_OP_PUT)
            ptier_map_remove(&cache->pending, list->ops[i].entry->hash, list->ops[i].entry);
    if (any && cache->tiers[PTIER_TIER_L3]) {
        cache->l3_behind |= !queued;
        ptier_l3_queued_locked(cache);
    }
}

void
ptier_note_log(ptier_cache *cache, uint64_t logged)
{
    ptier_tier *l2 = cache->tiers[PTIER_TIER_L2], *l3 = cache->tiers[PTIER_TIER_L3];
    uint64_t safe = l3 ? ptier_l3_synced_prefix(l3) : UINT64_MAX;
    uint64_t lost_to = ptier_l2_log_lost_to(l2);
    ptier_progress *p = ptier_progress_begin(&cache->progress_file);
    p->logged = logged > p->logged ? logged : p->logged;
    uint64_t complete_from = l3 && lost_to > safe ? lost_to : safe;
    if (l3 && complete_from > p->log_from)
        p->log_from = complete_from;
    ptier_l2_position(l2, &p->first_shard, &p->last_shard, &p->last_shard_bytes);
    if (p->stale_below <= p->first_shard)
        p->stale_below = 0;
    ptier_progress_end(&cache->progress_file);
    ptier_l2_release_log(l2, safe); /* only now: what is let go is known to be gone */
}

/* Three failures in a row, or a full disk, and the tier is given up. */
static ptier_status
write_lines(ptier_cache *cache, const ptier_op_list *list, bool sync, ptier_error *error)
{
    ptier_tier *l2 = cache->tiers[PTIER_TIER_L2];
    ptier_status status = PTIER_OK;
    for (int attempt = 0; attempt < FAILURES_IN_A_ROW; attempt++) {
        uint64_t start = ptier_now_ns();
        status = l2->ops->apply(l2, list->ops, list->count, sync, error);
        if (!status) {
            ptier_count_latency(&cache->count, PTIER_OPERATION_LOG_COMMIT, start);
            ptier_tier_worked(cache, PTIER_TIER_L2);
            return PTIER_OK;
        }
        ptier_tier_failed(cache, PTIER_TIER_L2);
        if (status == PTIER_RESOURCE_EXHAUSTED)
            break;
        nanosleep(&(struct timespec){.tv_nsec = RETRY_PAUSE_MS * 1000000L}, NULL);
    }
    return status;
}

/* Writes what is queued. Called with the lock and log_busy held; the lock is given up meanwhile. */
static void
write_group_locked(ptier_cache *cache)
{
    ptier_op_list list = cache->log_queue;
    uint64_t last = list.count ? list.ops[list.count - 1].revision : cache->logged;
    bool sync = cache->sync_wanted;
    ptier_error error = {0};
    cache->log_queue = (ptier_op_list){0};
    cache->logging = list.count;
    cache->sync_wanted = false;
    pthread_mutex_unlock(&cache->lock);

    ptier_status status = write_lines(cache, &list, sync, &error);
    if (status)
        ptier_l2_down(cache, &list, status, &error);
    else
        ptier_note_log(cache, last);

    pthread_mutex_lock(&cache->lock);
    cache->logging = 0;
    if (!status) {
        pass_on_locked(cache, &list);
        cache->logged = last;
        if (sync)
            cache->log_synced = last;
    }
    pthread_mutex_unlock(&cache->lock);
    ptier_op_list_fini(&list);
    pthread_mutex_lock(&cache->lock);
}

/* Removals into the room that a full L2 keeps for them. As write_group_locked. */
static void
write_removals_locked(ptier_cache *cache)
{
    ptier_tier *l2 = cache->tiers[PTIER_TIER_L2];
    ptier_op_list list = cache->removal_queue;
    uint64_t last = list.ops[list.count - 1].revision;
    ptier_error error = {0};
    cache->removal_queue = (ptier_op_list){0};
    pthread_mutex_unlock(&cache->lock);
    ptier_status status = l2->ops->apply(l2, list.ops, list.count, false, &error);
    if (status)
        ptier_cache_log(cache, PTIER_LOG_ERROR, "l2_degraded",
                        "there is no room for removals any more: %s", error.message);
    ptier_op_list_fini(&list);
    pthread_mutex_lock(&cache->lock);
    if (status)
        cache->health[PTIER_TIER_L2].full = false;
    else
        cache->removals_logged = last;
}

static void
lead_group_locked(ptier_cache *cache)
{
    cache->log_busy = true;
    if (ptier_tier_active(cache, PTIER_TIER_L2))
        write_group_locked(cache);
    else
        write_removals_locked(cache);
    cache->log_busy = false;
    pthread_cond_broadcast(&cache->progress);
}

/* ---- waiting ---- */

/* L2 was off: it may not have the change, and L3 has not synced it yet. */
static bool
missed_locked(const ptier_cache *cache, uint64_t revision)
{
    return revision <= cache->missed_to && cache->l3_synced < cache->missed_to;
}

/* What `revision` has reached by now. */
static ptier_durability
reached_locked(const ptier_cache *cache, uint64_t revision, bool removals)
{
    if (ptier_tier_active(cache, PTIER_TIER_L2)) {
        if (cache->log_synced >= revision && !missed_locked(cache, revision))
            return PTIER_DURABILITY_SYNCED;
        if (cache->logged >= revision)
            return PTIER_DURABILITY_LOGGED;
    }
    uint64_t for_l3 = revision <= cache->opened_revision ? cache->opened_l3 : revision;
    if (cache->tiers[PTIER_TIER_L3] && cache->l3_synced >= for_l3)
        return PTIER_DURABILITY_SYNCED;
    if (cache->tiers[PTIER_TIER_L3] && cache->l3_prefix >= for_l3)
        return PTIER_DURABILITY_LOGGED;
    if (removals && cache->removals_logged >= revision)
        return PTIER_DURABILITY_LOGGED;
    return PTIER_DURABILITY_MEMORY;
}

static void
describe_locked(const ptier_cache *cache, uint64_t revision, bool removals, ptier_written *written)
{
    if (!written)
        return;
    written->durability = reached_locked(cache, revision, removals);
    written->tiers = 0;
    for (int tier = PTIER_TIER_L1; tier <= PTIER_TIER_L3; tier++)
        if (ptier_tier_active(cache, (ptier_tier_id)tier))
            written->tiers |= 1U << tier;
}

static bool
removals_wait_locked(const ptier_cache *cache)
{
    return cache->health[PTIER_TIER_L2].full && cache->removal_queue.count;
}

/* One step towards more durability: writes, or waits for who does. False: there is no way. */
static bool
step_locked(ptier_cache *cache, uint64_t revision, bool removals)
{
    bool missed = cache->logged >= revision && missed_locked(cache, revision);
    bool logs = ptier_tier_active(cache, PTIER_TIER_L2) && !missed;
    bool writes = logs || (removals && removals_wait_locked(cache));
    if (writes && !cache->log_busy && !cache->lead_waiting) {
        lead_group_locked(cache);
        return true;
    }
    if (!writes && !ptier_tier_active(cache, PTIER_TIER_L3))
        return false;
    if (!writes)
        pthread_cond_signal(&cache->l3_work);
    pthread_cond_wait(&cache->progress, &cache->lock);
    return true;
}

void
ptier_commit(ptier_cache *cache, uint64_t revision, bool removals, ptier_durability durability,
             ptier_written *written)
{
    if (durability == PTIER_DURABILITY_DEFAULT)
        durability = cache->options.durability;
    pthread_mutex_lock(&cache->lock);
    if (revision > cache->queued)
        revision = cache->queued; /* no tier will ever hear of what is between */
    while (reached_locked(cache, revision, removals) < durability) {
        if (durability == PTIER_DURABILITY_SYNCED)
            cache->sync_wanted = true;
        if (!step_locked(cache, revision, removals))
            break;
    }
    describe_locked(cache, revision, removals, written);
    pthread_mutex_unlock(&cache->lock);
    ptier_enforce_bound(cache, PTIER_TIER_L2);
}

void
ptier_lead_log(ptier_cache *cache, void (*fn)(ptier_cache *cache, void *context), void *context)
{
    pthread_mutex_lock(&cache->lock);
    cache->lead_waiting++; /* before those who come to commit: they would never leave a gap */
    while (cache->log_busy)
        pthread_cond_wait(&cache->progress, &cache->lock);
    cache->lead_waiting--;
    cache->log_busy = true;
    pthread_mutex_unlock(&cache->lock);
    fn(cache, context);
    pthread_mutex_lock(&cache->lock);
    cache->log_busy = false;
    pthread_cond_broadcast(&cache->progress);
    pthread_mutex_unlock(&cache->lock);
}

void
ptier_flush_log(ptier_cache *cache)
{
    pthread_mutex_lock(&cache->lock);
    uint64_t target = cache->assigned; /* what comes later is for those who bring it */
    while ((cache->log_queue.count && cache->log_queue.ops[0].revision <= target) ||
           removals_wait_locked(cache)) {
        if (cache->log_busy)
            pthread_cond_wait(&cache->progress, &cache->lock);
        else
            lead_group_locked(cache);
    }
    pthread_mutex_unlock(&cache->lock);
}
