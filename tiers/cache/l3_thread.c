/*
 * L3's thread: applies changes in large transactions of one contiguous range of revisions, from its
 * queue, or from L2's log where it is behind. It is the only one that writes to L3.
 */
#include <inttypes.h>
#include <time.h>

#include "cache/cache_internal.h"
#include "hold.h"

enum {
    L3_BATCH = 100000,
    LOG_BATCH = 20000, /* read from the log at a time: these are in memory */
    FORGET_STEP = 512,
    AHEAD = 8, /* changes that are taken out while the map's memory comes for a later one */
    RETRY_PAUSE_MS = 50,
    LOG_PATIENCE = 1200, /* times that the log cannot be read, a minute in all */
    USAGE_BATCH = 256,
    IDLE_MS = 1000,      /* a checkpoint is looked at this often, and the file */
    GATHER_LEAST = 2048, /* changes for one transaction while more are coming: */
    GATHER_MOST = 32768, /* ... between these, */
    GATHER_PART = 16,    /* ... this part of the rows there are, */
    GATHER_MS = 100,     /* ... or less, when the first has waited so long, */
    QUIET_MS = 5,        /* ... or nothing has come for this long */
};

static void
forget_some_locked(ptier_cache *cache, const ptier_op *ops, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (i + AHEAD < count && ops[i + AHEAD].kind == PTIER_OP_PUT)
            ptier_map_prefetch(&cache->pending, ops[i + AHEAD].entry->hash);
        if (ops[i].kind == PTIER_OP_PUT)
            ptier_map_remove(&cache->pending, ops[i].entry->hash, ops[i].entry);
    }
}

/* What is in the queues' PUTs is not waited for in memory any longer. */
static void
forget_pending_locked(ptier_cache *cache, const ptier_op_list *list)
{
    forget_some_locked(cache, list->ops, list->count);
}

/* The same, a few at a time: a large batch would keep everybody from the lock for milliseconds. */
static void
forget_pending(ptier_cache *cache, const ptier_op_list *list)
{
    for (size_t at = 0; at < list->count; at += FORGET_STEP) {
        size_t left = list->count - at;
        pthread_mutex_lock(&cache->lock);
        forget_some_locked(cache, list->ops + at, left < FORGET_STEP ? left : FORGET_STEP);
        pthread_mutex_unlock(&cache->lock);
    }
}

void
ptier_l3_fall_behind_locked(ptier_cache *cache)
{
    cache->l3_behind = true;
    if (cache->l3_given_up.count == 0) { /* there may be many, and everybody waits for the lock */
        ptier_op_list empty = cache->l3_given_up;
        cache->l3_given_up = cache->l3_queue;
        cache->l3_queue = empty;
        return;
    }
    forget_pending_locked(cache, &cache->l3_queue);
    ptier_op_list_release(&cache->l3_queue);
}

/* The same as forget_pending_locked, and the list goes, for a list that is ours alone. */
static void
forget_list(ptier_cache *cache, ptier_op_list *list)
{
    for (size_t at = 0; at < list->count; at += PTIER_HOLD_MAX) {
        const ptier_op_list part = {.ops = list->ops + at,
                                    .count = list->count - at < PTIER_HOLD_MAX ? list->count - at
                                                                               : PTIER_HOLD_MAX};
        if (at)
            ptier_let_others_in();
        pthread_mutex_lock(&cache->lock);
        forget_pending_locked(cache, &part);
        pthread_mutex_unlock(&cache->lock);
    }
    ptier_op_list_fini(list);
}

/* ---- applying ---- */

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

/* OK: it is committed, and as safe as asked. The tier is given up after three failures in a row,
 * or after one of a full disk or a damaged file. */
static ptier_status
apply(ptier_cache *cache, const ptier_op_list *batch, bool sync, ptier_error *error)
{
    ptier_tier *l3 = cache->tiers[PTIER_TIER_L3];
    ptier_status status = PTIER_OK;
    for (int attempt = 0; attempt < FAILURES_IN_A_ROW; attempt++) {
        uint64_t start = ptier_now_ns();
        status = l3->ops->apply(l3, batch->ops, batch->count, sync, error);
        if (!status) {
            ptier_count_latency(&cache->count, PTIER_OPERATION_L3_TRANSACTION, start);
            status = checkpoint(cache, false, error);
        }
        if (!status) {
            ptier_tier_worked(cache, PTIER_TIER_L3);
            return PTIER_OK;
        }
        ptier_tier_failed(cache, PTIER_TIER_L3);
        if (status == PTIER_RESOURCE_EXHAUSTED || status == PTIER_DATA_LOSS)
            break; /* a full disk, or damage: once more helps nothing */
        ptier_cache_log(cache, PTIER_LOG_WARN, "l3_failed", "attempt %d of %d: %s", attempt + 1,
                        FAILURES_IN_A_ROW, error->message);
        nanosleep(&(struct timespec){.tv_nsec = RETRY_PAUSE_MS * 1000000L}, NULL);
    }
    return status;
}

static void
note_prefix(ptier_cache *cache)
{
    ptier_tier *l3 = cache->tiers[PTIER_TIER_L3];
    ptier_progress_begin(&cache->progress_file)->l3_prefix = ptier_l3_prefix(l3);
    ptier_progress_end(&cache->progress_file);
    pthread_mutex_lock(&cache->lock);
    cache->l3_prefix = ptier_l3_prefix(l3);
    cache->l3_synced = ptier_l3_synced_prefix(l3);
    bool caught_up = cache->memory_until && cache->l3_prefix >= cache->memory_until;
    if (caught_up)
        cache->memory_until = 0;
    pthread_cond_broadcast(&cache->progress);
    pthread_mutex_unlock(&cache->lock);
    if (caught_up)
        ptier_note_memory_only(cache);
}

/* ---- from the queue ---- */

/* After a rebuild, or from the log, L3 may have more than the queue knows. */
static void
drop_applied_locked(ptier_cache *cache)
{
    ptier_op_list rest, *queue = &cache->l3_queue;
    size_t applied = 0;
    ptier_op_list_squeeze(queue);
    while (applied < queue->count && queue->ops[applied].revision <= cache->l3_prefix)
        applied++;
    if (applied == 0 || !ptier_op_list_cut(queue, applied, &rest))
        return;
    forget_pending_locked(cache, queue);
    ptier_op_list_fini(queue);
    *queue = rest;
}

/* At most one batch from the front of the queue becomes l3_batch. */
static void
take_batch_locked(ptier_cache *cache)
{
    ptier_op_list rest;
    drop_applied_locked(cache);
    if (cache->l3_queue.count == 0)
        return; /* its room stays where it is */
    if (!ptier_op_list_cut(&cache->l3_queue, L3_BATCH, &rest))
        rest = (ptier_op_list){0}; /* no memory to split: one large batch then */
    cache->l3_batch = cache->l3_queue;
    cache->l3_queue = rest;
}

static void
apply_queue(ptier_cache *cache, bool sync)
{
    ptier_error error = {0};
    if (apply(cache, &cache->l3_batch, sync, &error)) {
        ptier_l3_down(cache, &error);
        return;
    }
    note_prefix(cache);
    forget_pending(cache, &cache->l3_batch);
    pthread_mutex_lock(&cache->lock);
    ptier_op_list done = cache->l3_batch;
    cache->l3_batch = (ptier_op_list){0};
    pthread_cond_broadcast(&cache->progress);
    pthread_mutex_unlock(&cache->lock);
    ptier_op_list_fini(&done);
}

/* ---- from the log ---- */

typedef struct collection {
    ptier_op_list list;
    uint64_t
        limit;     /* what is beyond it in the log are removals that went ahead of what is queued */
    bool complete; /* there is nothing more up to the limit */
} collection;

static bool
collect(void *context, const ptier_op *op)
{
    collection *c = context;
    c->complete = op->revision > c->limit;
    return !c->complete && ptier_op_list_push(&c->list, op);
}

/* Reads one batch of what the log has beyond L3's prefix. UNAVAILABLE: L2's trouble, the log is
 * still there; DATA_LOSS: it is not enough to bring L3 up to date. */
static ptier_status
read_log(ptier_cache *cache, collection *c, ptier_error *error)
{
    ptier_tier *l2 = cache->tiers[PTIER_TIER_L2];
    bool more = false;
    uint64_t lost = 0, prefix = ptier_l3_prefix(cache->tiers[PTIER_TIER_L3]);
    ptier_status status = ptier_l2_read_log(l2, prefix, LOG_BATCH, collect, c, &more, &lost, error);
    c->complete |= !more;
    cache->log_tries = status ? cache->log_tries + 1 : 0;
    if (status && cache->log_tries < LOG_PATIENCE)
        return PTIER_UNAVAILABLE;
    if (status)
        return PTIER_DATA_LOSS;
    if (lost || ptier_l2_log_lost_to(l2) > prefix)
        return ptier_fail(error, PTIER_DATA_LOSS, "changes that it lacks are damaged in the log");
    return PTIER_OK;
}

static void
apply_log(ptier_cache *cache, uint64_t logged)
{
    collection c = {.limit = logged};
    ptier_error error = {0};
    ptier_status status = read_log(cache, &c, &error);
    if (status == PTIER_UNAVAILABLE) {
        ptier_op_list_fini(&c.list);
        ptier_tier_read_failed(cache, PTIER_TIER_L2);
        nanosleep(&(struct timespec){.tv_nsec = RETRY_PAUSE_MS * 1000000L}, NULL);
        return;
    }
    if (status) {
        pthread_mutex_lock(&cache->lock);
        cache->health[PTIER_TIER_L3].rebuild = true; /* from whatever can still be read */
        pthread_mutex_unlock(&cache->lock);
    } else if (c.list.count) {
        status = apply(cache, &c.list, false, &error);
    }
    if (status) {
        ptier_l3_down(cache, &error);
    } else {
        note_prefix(cache);
        pthread_mutex_lock(&cache->lock);
        if (c.complete && cache->logged == logged)
            cache->l3_behind = false;
        pthread_mutex_unlock(&cache->lock);
    }
    ptier_op_list_fini(&c.list);
}

/* ---- beside it ---- */

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
                .revision = e->revision,
                .last_access_ms = atomic_load_explicit(&e->last_access_ms, memory_order_relaxed),
                .access_count = atomic_load_explicit(&e->access_count, memory_order_relaxed),
                .latency_us = atomic_load_explicit(&e->latency_us, memory_order_relaxed),
                .success_count = atomic_load_explicit(&e->success_count, memory_order_relaxed),
                .report_count = atomic_load_explicit(&e->report_count, memory_order_relaxed),
            };
        }
        if (l3->ops->write_usage(l3, usage, count, &error)) {
            ptier_tier_failed(cache, PTIER_TIER_L3);
            ptier_cache_log(cache, PTIER_LOG_WARN, "l3_usage", "usage figures were not written: %s",
                            error.message);
        }
    }
}

/*
 * Nothing to do for a while: what was committed becomes safe from power loss, so that the log that
 * stood in for it can go, and free pages go back to the file system.
 */
static void
settle(ptier_cache *cache)
{
    ptier_tier *l3 = cache->tiers[PTIER_TIER_L3];
    ptier_error error;
    bool more;
    if (ptier_l3_shrink(l3, &more, &error))
        ptier_tier_failed(cache, PTIER_TIER_L3);
    if (ptier_l3_synced_prefix(l3) == ptier_l3_prefix(l3))
        return;
    PTIER_IGNORE(checkpoint(cache, true, &error)); /* a reader in the way: the next idle second */
    note_prefix(cache);
}

/* ---- the thread ---- */

ptier_status
ptier_on_l3_thread(ptier_cache *cache, void (*run)(ptier_cache *cache, void *context),
                   void *context, ptier_error *error)
{
    ptier_l3_job job = {.run = run, .context = context};
    pthread_mutex_lock(&cache->lock);
    while (cache->l3_job && !cache->stopping) /* somebody else's */
        pthread_cond_wait(&cache->progress, &cache->lock);
    bool possible = !cache->l3_job && !cache->stopping && ptier_tier_active(cache, PTIER_TIER_L3);
    if (possible) {
        // cppcheck-suppress autoVariables ; it is taken back before this returns
        cache->l3_job = &job;
        pthread_cond_signal(&cache->l3_work);
        while (cache->l3_job == &job && !cache->stopping && !cache->health[PTIER_TIER_L3].down)
            pthread_cond_wait(&cache->progress, &cache->lock);
        while (job.running) /* it has begun: its context is ours */
            pthread_cond_wait(&cache->progress, &cache->lock);
        if (cache->l3_job == &job)
            cache->l3_job = NULL;
    }
    pthread_cond_broadcast(&cache->progress);
    pthread_mutex_unlock(&cache->lock);
    if (job.done)
        return PTIER_OK;
    return ptier_fail(error, PTIER_UNAVAILABLE, "L3 does not work at present, or is closing");
}

static void
run_job_locked(ptier_cache *cache)
{
    ptier_l3_job *job = cache->l3_job;
    if (!job)
        return;
    cache->l3_job = NULL;
    job->running = true;
    pthread_mutex_unlock(&cache->lock);
    job->run(cache, job->context);
    pthread_mutex_lock(&cache->lock);
    job->done = true;
    job->running = false;
    pthread_cond_broadcast(&cache->progress);
}

/* Between two transactions, like a job; nobody waits for it with the lock. */
static void
rewrite_locked(ptier_cache *cache)
{
    ptier_error error = {0};
    if (!cache->rewrite_wanted || cache->stopping)
        return;
    pthread_mutex_unlock(&cache->lock);
    if (ptier_l3_rewrite(cache->tiers[PTIER_TIER_L3], &error))
        ptier_cache_log(cache, PTIER_LOG_WARN, "l3_rewrite", "%s", error.message);
    else
        note_prefix(cache);
    pthread_mutex_lock(&cache->lock);
    cache->rewrite_wanted = false;
    cache->rewrites++;
    cache->rewrite_error = error;
    pthread_cond_broadcast(&cache->progress);
}

static bool
has_work_locked(const ptier_cache *cache)
{
    return cache->l3_queue.count || cache->l3_behind || cache->usage_queue.count ||
           ptier_l3_syncs_locked(cache) ||
           ((cache->l3_job || cache->rewrite_wanted) && !cache->stopping);
}

static bool
enough_locked(const ptier_cache *cache)
{
    ptier_tier *l3 = cache->tiers[PTIER_TIER_L3];
    uint64_t wanted = l3->ops->count(l3) / GATHER_PART;
    if (wanted < GATHER_LEAST)
        wanted = GATHER_LEAST;
    if (wanted > GATHER_MOST)
        wanted = GATHER_MOST;
    if (wanted > cache->l3_queue_max / 2)
        wanted = cache->l3_queue_max / 2;
    return cache->l3_queue.count >= wanted;
}

/* Whether nobody waits for what is queued: it is in the log. */
static bool
may_gather_locked(const ptier_cache *cache)
{
    return cache->l3_queue.count && !enough_locked(cache) && !cache->l3_behind &&
           !cache->l3_may_stop && !cache->l3_job && !cache->rewrite_wanted &&
           ptier_tier_active(cache, PTIER_TIER_L2) && ptier_tier_active(cache, PTIER_TIER_L3) &&
           !ptier_l3_syncs_locked(cache);
}

void
ptier_l3_queued_locked(ptier_cache *cache)
{
    if (!cache->l3_gathers || cache->l3_behind || enough_locked(cache))
        pthread_cond_signal(&cache->l3_work);
}

/* Neighbours in the index share pages, and a page is written once a transaction: many changes at a
 * time cost a fraction of as many small transactions. */
static void
gather_locked(ptier_cache *cache)
{
    int64_t deadline = ptier_monotonic_ms() + GATHER_MS;
    size_t before = 0;
    cache->l3_gathers = true;
    while (may_gather_locked(cache) && cache->l3_queue.count > before &&
           ptier_monotonic_ms() < deadline) {
        before = cache->l3_queue.count;
        ptier_wait_locked(cache, &cache->l3_work, QUIET_MS);
    }
    cache->l3_gathers = false;
}

static void
wait_for_work_locked(ptier_cache *cache)
{
    bool down = cache->health[PTIER_TIER_L3].down;
    int64_t ms = IDLE_MS, probe = cache->health[PTIER_TIER_L3].next_probe_ms - ptier_monotonic_ms();
    if (down && probe < ms)
        ms = probe > 0 ? probe : 1;
    if (!cache->l3_may_stop && (down || !has_work_locked(cache)))
        ptier_wait_locked(cache, &cache->l3_work, ms); /* after it: idle work */
    gather_locked(cache);
}

/* Once around. The lock is given up meanwhile. */
static void
serve_locked(ptier_cache *cache)
{
    bool behind = cache->l3_behind;
    bool sync = !behind && ptier_l3_syncs_locked(cache);
    uint64_t logged = cache->logged;
    if (sync)
        cache->sync_wanted = false;
    if (!behind)
        take_batch_locked(cache);
    ptier_op_list usage = cache->usage_queue;
    cache->usage_queue = (ptier_op_list){0};
    bool idle = !behind && !sync && cache->l3_batch.count == 0 && usage.count == 0;
    ptier_error error;
    pthread_mutex_unlock(&cache->lock);

    if (behind)
        apply_log(cache, logged);
    else if (cache->l3_batch.count || sync)
        apply_queue(cache, sync);
    if (usage.count)
        write_usage(cache, &usage);
    if (usage.count && checkpoint(cache, false, &error))
        ptier_tier_failed(cache, PTIER_TIER_L3); /* reads alone make the WAL grow, too */
    if (idle)
        settle(cache);
    ptier_enforce_bound(cache, PTIER_TIER_L3);
    forget_list(cache, &usage);
    pthread_mutex_lock(&cache->lock);
}

static void
forget_given_up_locked(ptier_cache *cache)
{
    ptier_op_list list = cache->l3_given_up;
    cache->l3_given_up = (ptier_op_list){0};
    pthread_mutex_unlock(&cache->lock);
    forget_list(cache, &list);
    pthread_mutex_lock(&cache->lock);
}

void *
ptier_l3_thread(void *context)
{
    ptier_cache *cache = context;
    pthread_mutex_lock(&cache->lock);
    for (;;) {
        wait_for_work_locked(cache);
        if (cache->l3_given_up.count)
            forget_given_up_locked(cache);
        bool down = cache->health[PTIER_TIER_L3].down;
        /* A log that cannot be read now is there at the next start. */
        if (cache->l3_may_stop && (down || cache->log_tries || !has_work_locked(cache)))
            break;
        if (!down) {
            run_job_locked(cache);
            rewrite_locked(cache);
            serve_locked(cache);
        }
        pthread_mutex_unlock(&cache->lock);
        ptier_heal_l3(cache);
        pthread_mutex_lock(&cache->lock);
    }
    pthread_mutex_unlock(&cache->lock);
    return NULL;
}
