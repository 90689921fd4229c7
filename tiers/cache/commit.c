/*
 * Durability: callers become the leader of the log group one after the other and write for
 * everybody who waits; one thread applies what is logged to L3 in large transactions.
 */
#include <stdlib.h>
#include <time.h>

#include "cache/cache_internal.h"

enum {
    L3_BATCH = 100000,
    L3_RETRIES = 3,
    USAGE_BATCH = 256,
    L3_IDLE_MS = 1000, /* a checkpoint is looked at this often */
};

/* ---- the log group ---- */

/* Gives what was logged to L3, or lets go of it when L2 is the lowest tier. */
static void
pass_on_locked(ptier_cache *cache, ptier_op_list *list)
{
    bool applies = ptier_tier_active(cache, PTIER_TIER_L3);
    for (size_t i = 0; i < list->count; i++) {
        const ptier_op *op = &list->ops[i];
        if (applies && ptier_op_list_push(&cache->l3_queue, op))
            continue;
        if (op->kind == PTIER_OP_PUT)
            ptier_map_remove(&cache->pending, op->entry->hash, op->entry);
        cache->pending_count--;
    }
    if (applies && list->count)
        pthread_cond_signal(&cache->l3_work);
}

/* Writes what is queued. Called with the lock and log_busy held; the lock is given up meanwhile. */
static void
write_group_locked(ptier_cache *cache)
{
    ptier_tier *l2 = cache->tiers[PTIER_TIER_L2];
    ptier_op_list list = cache->log_queue;
    uint64_t last = list.count ? list.ops[list.count - 1].revision : cache->logged;
    bool sync = cache->sync_wanted;
    ptier_error error = {0};
    ptier_status status = PTIER_OK;
    cache->log_queue = (ptier_op_list){0};
    cache->sync_wanted = false;
    bool active = ptier_tier_active(cache, PTIER_TIER_L2);
    uint64_t synced_prefix = cache->tiers[PTIER_TIER_L3] ? cache->l3_synced : UINT64_MAX;
    pthread_mutex_unlock(&cache->lock);

    if (active) {
        uint64_t start = ptier_now_ns();
        status = l2->ops->apply(l2, list.ops, list.count, sync, &error);
        if (!status)
            ptier_count_latency(&cache->count, PTIER_OPERATION_LOG_COMMIT, start);
        ptier_l2_release_log(l2, synced_prefix);
        if (status) {
            ptier_count(&cache->count.errors[PTIER_TIER_L2], 1);
            ptier_cache_log(cache, PTIER_LOG_ERROR, "l2_degraded", "L2 is switched off: %s",
                            error.message);
        }
    }

    pthread_mutex_lock(&cache->lock);
    pass_on_locked(cache, &list);
    if (status) {
        /* From now on changes go straight to L3's queue: what waited for the log goes before them.
         */
        ptier_degrade_locked(cache, PTIER_TIER_L2);
        pass_on_locked(cache, &cache->log_queue);
        ptier_op_list_release(&cache->log_queue);
    } else if (active) {
        cache->logged = last;
        if (sync)
            cache->log_synced = last;
    }
    pthread_mutex_unlock(&cache->lock);
    ptier_op_list_fini(&list);
    pthread_mutex_lock(&cache->lock);
}

static void
end_lead_locked(ptier_cache *cache)
{
    cache->log_busy = false;
    pthread_cond_broadcast(&cache->progress);
}

/* What `revision` has reached by now. */
static ptier_durability
reached_locked(const ptier_cache *cache, uint64_t revision)
{
    if (ptier_tier_active(cache, PTIER_TIER_L2)) {
        if (cache->log_synced >= revision)
            return PTIER_DURABILITY_SYNCED;
        if (cache->logged >= revision)
            return PTIER_DURABILITY_LOGGED;
    }
    uint64_t for_l3 = revision <= cache->opened_revision ? cache->opened_l3 : revision;
    if (cache->tiers[PTIER_TIER_L3] && cache->l3_synced >= for_l3)
        return PTIER_DURABILITY_SYNCED;
    if (cache->tiers[PTIER_TIER_L3] && cache->l3_prefix >= for_l3)
        return PTIER_DURABILITY_LOGGED;
    return PTIER_DURABILITY_MEMORY;
}

static bool
wait_possible_locked(const ptier_cache *cache)
{
    return ptier_tier_active(cache, PTIER_TIER_L2) || ptier_tier_active(cache, PTIER_TIER_L3);
}

static void
describe_locked(const ptier_cache *cache, uint64_t revision, ptier_written *written)
{
    if (!written)
        return;
    written->durability = reached_locked(cache, revision);
    written->tiers = 0;
    for (int tier = PTIER_TIER_L1; tier <= PTIER_TIER_L3; tier++)
        if (ptier_tier_active(cache, (ptier_tier_id)tier))
            written->tiers |= 1U << tier;
}

void
ptier_commit(ptier_cache *cache, uint64_t revision, ptier_durability durability,
             ptier_written *written)
{
    if (durability == PTIER_DURABILITY_DEFAULT)
        durability = cache->options.durability;
    pthread_mutex_lock(&cache->lock);
    while (reached_locked(cache, revision) < durability && wait_possible_locked(cache)) {
        if (durability == PTIER_DURABILITY_SYNCED)
            cache->sync_wanted = true;
        if (!ptier_tier_active(cache, PTIER_TIER_L2)) {
            pthread_cond_signal(&cache->l3_work);
            pthread_cond_wait(&cache->progress, &cache->lock);
        } else if (cache->log_busy || cache->lead_waiting) {
            pthread_cond_wait(&cache->progress, &cache->lock);
        } else {
            cache->log_busy = true;
            write_group_locked(cache);
            end_lead_locked(cache);
        }
    }
    describe_locked(cache, revision, written);
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
    end_lead_locked(cache);
    pthread_mutex_unlock(&cache->lock);
}

void
ptier_flush_log(ptier_cache *cache)
{
    pthread_mutex_lock(&cache->lock);
    uint64_t target = cache->assigned; /* what comes later is for those who bring it */
    while (cache->log_queue.count && cache->log_queue.ops[0].revision <= target) {
        if (cache->log_busy) {
            pthread_cond_wait(&cache->progress, &cache->lock);
            continue;
        }
        cache->log_busy = true;
        write_group_locked(cache);
        end_lead_locked(cache);
    }
    pthread_mutex_unlock(&cache->lock);
}

/* ---- L3's thread ---- */

static void
wait_for_work_locked(ptier_cache *cache)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += L3_IDLE_MS / 1000;
    bool sync_here = cache->sync_wanted && !ptier_tier_active(cache, PTIER_TIER_L2);
    if (!cache->stopping && cache->l3_queue.count == 0 && cache->usage_queue.count == 0 &&
        !sync_here)
        (void)pthread_cond_timedwait(&cache->l3_work, &cache->lock,
                                     &until); /* time-out: idle work */
}

/* Takes at most one batch from the front of the queue. */
static ptier_op_list
take_batch_locked(ptier_cache *cache)
{
    ptier_op_list batch = cache->l3_queue;
    cache->l3_queue = (ptier_op_list){0};
    if (batch.count <= L3_BATCH)
        return batch;
    for (size_t i = L3_BATCH; i < batch.count; i++) {
        if (!ptier_op_list_push(&cache->l3_queue, &batch.ops[i])) {
            ptier_op_list_release(&cache->l3_queue); /* no memory to split: one large batch then */
            return batch;
        }
    }
    for (size_t i = L3_BATCH; i < batch.count; i++) {
        ptier_entry_release(batch.ops[i].entry);
        ptier_sealed_release(batch.ops[i].sealed);
    }
    batch.count = L3_BATCH;
    return batch;
}

/* Most calls find that there is little to do: only checkpoints that got something done are timed.
 */
static ptier_status
checkpoint(ptier_cache *cache, bool force, ptier_error *error)
{
    ptier_tier *l3 = cache->tiers[PTIER_TIER_L3];
    uint64_t start = ptier_now_ns(), synced = ptier_l3_synced_prefix(l3);
    ptier_status status = ptier_l3_checkpoint(l3, force, error);
    if (!status && ptier_l3_synced_prefix(l3) != synced)
        ptier_count_latency(&cache->count, PTIER_OPERATION_L3_CHECKPOINT, start);
    return status;
}

static ptier_status
apply_with_retries(ptier_cache *cache, const ptier_op_list *batch, bool sync)
{
    ptier_tier *l3 = cache->tiers[PTIER_TIER_L3];
    ptier_error error = {0};
    ptier_status status = PTIER_OK;
    for (int attempt = 0; attempt < L3_RETRIES; attempt++) {
        uint64_t start = ptier_now_ns();
        status = l3->ops->apply(l3, batch->ops, batch->count, sync, &error);
        if (!status) {
            ptier_count_latency(&cache->count, PTIER_OPERATION_L3_TRANSACTION, start);
            status = checkpoint(cache, false, &error);
        }
        if (!status)
            return PTIER_OK;
        ptier_count(&cache->count.errors[PTIER_TIER_L3], 1);
        ptier_cache_log(cache, PTIER_LOG_WARN, "l3_failed", "attempt %d of %d: %s", attempt + 1,
                        L3_RETRIES, error.message);
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    }
    ptier_cache_log(cache, PTIER_LOG_ERROR, "l3_degraded", "L3 is switched off: %s", error.message);
    return status;
}

static void
finish_batch_locked(ptier_cache *cache, const ptier_op_list *batch, ptier_status status)
{
    ptier_tier *l3 = cache->tiers[PTIER_TIER_L3];
    if (status)
        ptier_degrade_locked(cache, PTIER_TIER_L3);
    cache->l3_prefix = ptier_l3_prefix(l3);
    cache->l3_synced = ptier_l3_synced_prefix(l3);
    for (size_t i = 0; i < batch->count; i++)
        if (batch->ops[i].kind == PTIER_OP_PUT)
            ptier_map_remove(&cache->pending, batch->ops[i].entry->hash, batch->ops[i].entry);
    cache->pending_count -= batch->count;
    pthread_cond_broadcast(&cache->progress);
}

static void
write_usage(ptier_cache *cache, const ptier_op_list *list)
{
    ptier_tier *l3 = cache->tiers[PTIER_TIER_L3];
    ptier_usage usage[USAGE_BATCH];
    ptier_error error;
    for (size_t at = 0; at < list->count; at += USAGE_BATCH) {
        size_t count = list->count - at < USAGE_BATCH ? list->count - at : USAGE_BATCH;
        for (size_t i = 0; i < count; i++) {
            const ptier_entry *e = list->ops[at + i].entry;
            usage[i] = (ptier_usage){
                .hash = e->hash,
                .key = ptier_entry_key(e),
                .last_access_ms = atomic_load_explicit(&e->last_access_ms, memory_order_relaxed),
                .access_count = atomic_load_explicit(&e->access_count, memory_order_relaxed),
                .latency_us = atomic_load_explicit(&e->latency_us, memory_order_relaxed),
                .success_count = atomic_load_explicit(&e->success_count, memory_order_relaxed),
                .report_count = atomic_load_explicit(&e->report_count, memory_order_relaxed),
            };
        }
        if (l3->ops->write_usage(l3, usage, count, &error)) {
            ptier_count(&cache->count.errors[PTIER_TIER_L3], 1);
            ptier_cache_log(cache, PTIER_LOG_WARN, "l3_usage", "usage figures were not written: %s",
                            error.message);
        }
    }
}

/* Nothing to do for a while: what was committed becomes safe from power loss, and the log that
 * stood in for it can go. */
static void
settle(ptier_cache *cache)
{
    ptier_tier *l3 = cache->tiers[PTIER_TIER_L3];
    ptier_error error;
    if (ptier_l3_synced_prefix(l3) != ptier_l3_prefix(l3))
        PTIER_IGNORE(
            checkpoint(cache, true, &error)); /* a reader in the way: the next idle second */
}

/* Applies what is queued, once around. The lock is given up meanwhile. */
static void
serve_l3_locked(ptier_cache *cache)
{
    bool degraded = cache->degraded[PTIER_TIER_L3];
    bool sync = cache->sync_wanted && !ptier_tier_active(cache, PTIER_TIER_L2);
    if (sync)
        cache->sync_wanted = false;
    ptier_op_list batch = take_batch_locked(cache);
    ptier_op_list usage = cache->usage_queue;
    cache->usage_queue = (ptier_op_list){0};
    pthread_mutex_unlock(&cache->lock);

    ptier_status status = degraded ? PTIER_UNAVAILABLE : PTIER_OK;
    if (!degraded && (batch.count || sync))
        status = apply_with_retries(cache, &batch, sync);
    if (!status)
        write_usage(cache, &usage);
    if (!status && batch.count == 0 && usage.count == 0)
        settle(cache);

    pthread_mutex_lock(&cache->lock);
    finish_batch_locked(cache, &batch, status);
    pthread_mutex_unlock(&cache->lock);
    ptier_op_list_fini(&batch);
    ptier_op_list_fini(&usage);
    if (!status)
        ptier_enforce_bound(cache, PTIER_TIER_L3);
    pthread_mutex_lock(&cache->lock);
}

void *
ptier_l3_thread(void *context)
{
    ptier_cache *cache = context;
    pthread_mutex_lock(&cache->lock);
    while (!cache->stopping || cache->l3_queue.count || cache->usage_queue.count) {
        wait_for_work_locked(cache);
        serve_l3_locked(cache);
    }
    pthread_mutex_unlock(&cache->lock);
    return NULL;
}
