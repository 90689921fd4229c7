/*
 * Tiers that cannot do their work: how one is switched off, probed, and brought up to date when it
 * works again. What is on its way to a tier that went down stays in the lists of changes
 * (cache_internal.h), or in L2's log for L3, until it is back.
 */
#include <stdlib.h>
#include <time.h>

#include "cache/cache_internal.h"
#include "cache/reserve.h"

enum {
    NO_MEMORY_PAUSE_MS = 10,
    COMEBACK_BYTES = 2 << 20, /* with less room than this a tier would be down again at once */
};

static const char *const down_events[] = {
    [PTIER_TIER_L2] = "l2_degraded", [PTIER_TIER_L3] = "l3_degraded"};
static const char *const up_events[] = {
    [PTIER_TIER_L2] = "l2_recovered", [PTIER_TIER_L3] = "l3_recovered"};

/* ---- counting ---- */

void
ptier_tier_failed(ptier_cache *cache, ptier_tier_id tier)
{
    ptier_count(&cache->count.errors[tier], 1);
    atomic_fetch_add_explicit(&cache->health[tier].failures, 1, memory_order_relaxed);
}

void
ptier_tier_worked(ptier_cache *cache, ptier_tier_id tier)
{
    atomic_store_explicit(&cache->health[tier].failures, 0, memory_order_relaxed);
    atomic_store_explicit(&cache->health[tier].last_success_boot_ms,
                          ptier_clock_boot(&cache->clock), memory_order_relaxed);
}

static bool
failed_too_often(const ptier_cache *cache, ptier_tier_id tier)
{
    return atomic_load_explicit(&cache->health[tier].failures, memory_order_relaxed) >=
           FAILURES_IN_A_ROW;
}

/* ---- going down ---- */

static void
schedule_probe_locked(ptier_cache *cache, ptier_tier_id tier, int64_t ms)
{
    int64_t period = cache->probe_period_ms;
    cache->health[tier].next_probe_ms = ptier_monotonic_ms() + (ms < period ? ms : period);
}

static bool
is_memory_only(ptier_cache *cache)
{
    pthread_mutex_lock(&cache->lock);
    bool memory_only = !ptier_any_disk_tier(cache) || cache->l3_prefix < cache->memory_until;
    pthread_mutex_unlock(&cache->lock);
    return memory_only;
}

/* Another tier may go down or come back meanwhile: whoever has written last looks once more. */
void
ptier_note_memory_only(ptier_cache *cache)
{
    bool memory_only;
    do {
        memory_only = is_memory_only(cache);
        ptier_progress_begin(&cache->progress_file)->memory_only = memory_only;
        ptier_progress_end(&cache->progress_file);
    } while (memory_only != is_memory_only(cache));
}

/* A tier that was in trouble has been doubted: see prepare_to_go_down. */
void
ptier_note_rows_known_locked(ptier_cache *cache)
{
    ptier_tier *l3 = cache->tiers[PTIER_TIER_L3];
    if (l3 && ptier_l3_condition_of(l3) == PTIER_L3_SOUND && !cache->rows_doubted)
        ptier_l3_rows_known(l3, cache->assigned);
}

void
ptier_doubt_rows_locked(ptier_cache *cache)
{
    cache->rows_doubted = true;
    if (cache->tiers[PTIER_TIER_L3])
        ptier_l3_rows_known(cache->tiers[PTIER_TIER_L3], UINT64_MAX);
}

/* Before the last disk tier is down, since changes may be acknowledged from that instant on. */
static void
prepare_to_go_down(ptier_cache *cache, ptier_tier_id tier)
{
    bool last = true;
    pthread_mutex_lock(&cache->lock);
    cache->health[tier].failing = true;
    ptier_doubt_rows_locked(cache); /* removals may be passed over whose key is then put anew */
    for (int id = PTIER_TIER_L2; id <= PTIER_TIER_L3; id++)
        last &= !ptier_tier_active(cache, (ptier_tier_id)id) || cache->health[id].failing;
    pthread_mutex_unlock(&cache->lock);
    if (!last)
        return;
    ptier_progress_begin(&cache->progress_file)->memory_only = true;
    ptier_progress_end(&cache->progress_file);
}

/* A tier that fails again soon after it came back, as on a disk with a little room left, is probed
 * ever more seldom. */
static int64_t
first_pause_locked(ptier_cache *cache, ptier_tier_id tier)
{
    ptier_tier_health *h = &cache->health[tier];
    int64_t period = cache->probe_period_ms;
    bool again = h->up_again_ms && ptier_monotonic_ms() - h->up_again_ms < period;
    int64_t pause = again ? 2 * h->first_pause_ms : FIRST_PROBE_MS;
    h->first_pause_ms = pause < period ? pause : period;
    return h->first_pause_ms;
}

/* False: it was down already. */
static bool
go_down_locked(ptier_cache *cache, ptier_tier_id tier)
{
    cache->health[tier].failing = false;
    if (cache->health[tier].down)
        return false;
    cache->health[tier].down = true;
    schedule_probe_locked(cache, tier, first_pause_locked(cache, tier));
    ptier_tell_tier_event(cache, PTIER_EVENT_TIER_DEGRADED, tier, NULL);
    pthread_cond_broadcast(&cache->progress);
    return true;
}

static void
say_down(ptier_cache *cache, ptier_tier_id tier, const ptier_error *error)
{
    ptier_note_memory_only(cache);
    ptier_cache_log(cache, PTIER_LOG_ERROR, down_events[tier], "%s is switched off: %s",
                    ptier_tier_name(tier), error->message);
}

/* Nothing may be dropped here: for want of memory it is tried again. */
static void
prepend_locked(ptier_cache *cache, ptier_op_list *list, ptier_op_list *before)
{
    while (!ptier_op_list_prepend(list, before)) {
        pthread_mutex_unlock(&cache->lock);
        nanosleep(&(struct timespec){.tv_nsec = NO_MEMORY_PAUSE_MS * 1000000L}, NULL);
        pthread_mutex_lock(&cache->lock);
    }
}

/* A removal for the room that a full L2 keeps. Those after one that finds no memory may not go
 * ahead of it: whoever waits for it would take it for logged. */
void
ptier_remove_ahead_locked(ptier_cache *cache, const ptier_op *op)
{
    bool *full = &cache->health[PTIER_TIER_L2].full;
    if (*full && (op->kind == PTIER_OP_REMOVE || op->kind == PTIER_OP_CLEAR))
        *full = ptier_op_list_push(&cache->removal_queue, op);
}

void
ptier_l2_down(ptier_cache *cache, ptier_op_list *list, ptier_status status,
              const ptier_error *error)
{
    prepare_to_go_down(cache, PTIER_TIER_L2);
    pthread_mutex_lock(&cache->lock);
    bool news = go_down_locked(cache, PTIER_TIER_L2);
    cache->health[PTIER_TIER_L2].full = status == PTIER_RESOURCE_EXHAUSTED;
    /* What waited for the log goes on to L3, in order: what L3 has queued is older. */
    prepend_locked(cache, &cache->log_queue, list);
    for (size_t i = 0; i < cache->log_queue.count; i++) {
        ptier_note_missed_locked(cache, &cache->log_queue.ops[i]);
        ptier_remove_ahead_locked(cache, &cache->log_queue.ops[i]);
    }
    prepend_locked(cache, &cache->log_queue, &cache->l3_queue);
    cache->l3_queue = cache->log_queue;
    cache->log_queue = (ptier_op_list){0};
    pthread_cond_signal(&cache->l3_work);
    pthread_mutex_unlock(&cache->lock);
    if (cache->tiers[PTIER_TIER_L3]) { /* else nobody has what it misses */
        ptier_progress_begin(&cache->progress_file)->stale_below =
            UINT32_MAX; /* until it is back */
        ptier_progress_end(&cache->progress_file);
    }
    if (news)
        say_down(cache, PTIER_TIER_L2, error);
}

void
ptier_l3_down(ptier_cache *cache, const ptier_error *error)
{
    ptier_tier *l3 = cache->tiers[PTIER_TIER_L3];
    prepare_to_go_down(cache, PTIER_TIER_L3);
    pthread_mutex_lock(&cache->lock);
    bool news = go_down_locked(cache, PTIER_TIER_L3);
    if (ptier_l3_condition_of(l3) != PTIER_L3_SOUND)
        cache->health[PTIER_TIER_L3].rebuild = true;
    if (cache->health[PTIER_TIER_L3].rebuild)
        schedule_probe_locked(cache, PTIER_TIER_L3, 0);
    prepend_locked(cache, &cache->l3_queue, &cache->l3_batch);
    if (ptier_tier_active(cache, PTIER_TIER_L2))
        ptier_l3_fall_behind_locked(cache);
    pthread_mutex_unlock(&cache->lock);
    if (news)
        say_down(cache, PTIER_TIER_L3, error);
}

static void
switch_off_l2(ptier_cache *cache, void *context)
{
    ptier_op_list none = {0};
    ptier_l2_down(cache, &none, PTIER_UNAVAILABLE, context);
}

void
ptier_tier_read_failed(ptier_cache *cache, ptier_tier_id tier)
{
    ptier_error error;
    ptier_tier_failed(cache, tier);
    if (!failed_too_often(cache, tier))
        return;
    (void)ptier_fail(&error, PTIER_UNAVAILABLE, "reading from it failed %d times in a row",
                     FAILURES_IN_A_ROW);
    pthread_mutex_lock(&cache->lock);
    bool down = cache->health[tier].down;
    pthread_mutex_unlock(&cache->lock);
    if (!down && tier == PTIER_TIER_L2)
        ptier_lead_log(cache, switch_off_l2, &error);
    /* L3's own thread looks at the count, too. */
}

/* ---- coming back ---- */

static void
go_up_locked(ptier_cache *cache, ptier_tier_id tier)
{
    cache->health[tier].down = cache->health[tier].full = cache->health[tier].rebuild = false;
    cache->health[tier].up_again_ms = ptier_monotonic_ms();
    ptier_map_fini(&cache->removals_waiting);
    schedule_probe_locked(cache, tier, cache->probe_period_ms);
    ptier_tell_tier_event(cache, PTIER_EVENT_TIER_RECOVERED, tier, NULL);
    pthread_cond_broadcast(&cache->progress);
}

static void
say_up(ptier_cache *cache, ptier_tier_id tier, const char *how)
{
    ptier_tier_worked(cache, tier);
    ptier_cache_log(cache, PTIER_LOG_INFO, up_events[tier], "%s works again%s",
                    ptier_tier_name(tier), how);
    ptier_tell_missing_key(cache); /* what took the files may have taken more */
    ptier_note_memory_only(cache);
}

static bool
probe_is_due(ptier_cache *cache, ptier_tier_id tier, bool *down)
{
    pthread_mutex_lock(&cache->lock);
    bool due = !cache->stopping && ptier_monotonic_ms() >= cache->health[tier].next_probe_ms;
    *down = cache->health[tier].down;
    if (due)
        schedule_probe_locked(cache, tier, cache->probe_period_ms);
    pthread_mutex_unlock(&cache->lock);
    return due;
}

/* Whatever it was that the tier failed of. The reserve of the next start comes first. */
static ptier_status
look_for_room(ptier_cache *cache, ptier_error *error)
{
    const uint64_t all = PTIER_RESERVE_BYTES + COMEBACK_BYTES;
    ptier_status status = ptier_reserve_grow(cache->data_dir, all, error);
    if (status == PTIER_OK)
        ptier_reserve_shrink(cache->data_dir, PTIER_RESERVE_BYTES);
    return status;
}

/* ---- L2 ---- */

/* What L2 has missed beyond `after`: everything that L3 is not through with. */
static bool
collect_missed_locked(ptier_cache *cache, uint64_t after, ptier_op_list *missed)
{
    const ptier_op_list *const lists[] = {&cache->l3_batch, &cache->l3_queue};
    for (size_t l = 0; l < 2; l++)
        for (size_t i = 0; i < lists[l]->count; i++)
            if (lists[l]->ops[i].kind != PTIER_OP_NONE && lists[l]->ops[i].revision > after &&
                !ptier_op_list_push(missed, &lists[l]->ops[i]))
                return false;
    return true;
}

static void
l2_is_back_locked(ptier_cache *cache, uint64_t logged)
{
    cache->logged = logged;
    cache->missed_to = cache->tiers[PTIER_TIER_L3] ? cache->l3_prefix : 0;
    cache->memory_until = 0;
    ptier_op_list_release(&cache->removal_queue);
    go_up_locked(cache, PTIER_TIER_L2);
    if (!ptier_tier_active(cache, PTIER_TIER_L3) || cache->l3_behind)
        ptier_l3_fall_behind_locked(cache); /* the log has it all now */
    cache->l3_behind &= cache->tiers[PTIER_TIER_L3] != NULL;
}

/* Writes what was missed, round by round, until nothing new has come meanwhile. */
static ptier_status
catch_up_l2(ptier_cache *cache, ptier_error *error)
{
    ptier_tier *l2 = cache->tiers[PTIER_TIER_L2];
    uint64_t written = 0;
    for (;;) {
        ptier_op_list missed = {0};
        pthread_mutex_lock(&cache->lock);
        bool collected = collect_missed_locked(cache, written, &missed);
        if (missed.count)
            written = cache->caught_up = missed.ops[missed.count - 1].revision;
        if (collected && missed.count == 0) {
            l2_is_back_locked(cache, cache->assigned);
            pthread_mutex_unlock(&cache->lock);
            return PTIER_OK;
        }
        pthread_mutex_unlock(&cache->lock);
        ptier_status status = collected ? l2->ops->apply(l2, missed.ops, missed.count, false, error)
                                        : ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory");
        ptier_op_list_fini(&missed);
        if (status)
            return status;
    }
}

/* What was replaced or removed while L2 was down leaves it. */
static ptier_status
cull_l2(ptier_cache *cache, ptier_error *error)
{
    ptier_tier *l2 = cache->tiers[PTIER_TIER_L2];
    size_t count;
    ptier_ref *refs;
    ptier_status status = ptier_l2_residents(l2, &refs, &count, error);
    for (size_t i = 0; !status && i < count; i++) {
        pthread_mutex_lock(&cache->lock);
        bool current =
            ptier_index_find(cache->index, refs[i].hash, refs[i].revision) != PTIER_SLOT_NONE;
        pthread_mutex_unlock(&cache->lock);
        if (!current)
            l2->ops->drop(l2, refs[i].hash, refs[i].revision);
    }
    if (!status)
        free(refs);
    return status;
}

/* As leader of the log. */
static void
revive_l2(ptier_cache *cache, void *context)
{
    ptier_tier *l2 = cache->tiers[PTIER_TIER_L2];
    bool *revived = context;
    ptier_error error;
    ptier_status status = look_for_room(cache, &error);
    if (!status)
        status = l2->ops->probe(l2, &error);
    if (!status)
        status = ptier_l2_resume(l2, &error);
    uint32_t first, resumed_at;
    uint64_t bytes;
    ptier_l2_position(l2, &first, &resumed_at, &bytes);
    if (!status)
        status = cull_l2(cache, &error);
    if (!status)
        status = catch_up_l2(cache, &error);
    pthread_mutex_lock(&cache->lock);
    cache->caught_up = 0;
    pthread_mutex_unlock(&cache->lock);
    *revived = !status;
    if (status) {
        ptier_cache_log(cache, PTIER_LOG_WARN, "l2_probe", "L2 stays off: %s", error.message);
        return;
    }
    ptier_progress *p = ptier_progress_begin(&cache->progress_file);
    p->stale_below = cache->tiers[PTIER_TIER_L3] ? resumed_at : 0;
    if (cache->tiers[PTIER_TIER_L3]) {
        uint64_t has = ptier_l3_prefix(cache->tiers[PTIER_TIER_L3]);
        p->log_from = p->log_from > has ? p->log_from : has;
    }
    ptier_progress_end(&cache->progress_file);
    pthread_mutex_lock(&cache->lock);
    uint64_t logged = cache->logged;
    pthread_mutex_unlock(&cache->lock);
    ptier_note_log(cache, logged);
}

/* Entries that were put meanwhile become resident as if L1 had given them up. */
static void
admit_missed(ptier_cache *cache)
{
    pthread_mutex_lock(&cache->lock);
    ptier_ref *missed = cache->missed;
    size_t count = cache->missed_count < MISSED_MAX ? cache->missed_count : MISSED_MAX;
    cache->missed = NULL;
    cache->missed_count = 0;
    pthread_mutex_unlock(&cache->lock);
    for (size_t i = 0; i < count; i++) {
        ptier_entry *entry;
        if (ptier_load_revision(cache, missed[i].hash, missed[i].revision, &entry, NULL))
            continue; /* it is not current any more, or damaged */
        pthread_mutex_lock(&cache->lock);
        ptier_writeback_locked(cache, entry);
        bool full = cache->writeback.count >= WRITEBACK_MAX;
        pthread_mutex_unlock(&cache->lock);
        ptier_entry_release(entry);
        while (full && ptier_write_back(cache))
            continue;
    }
    free(missed);
}

static void
probe_l2(ptier_cache *cache, void *context)
{
    ptier_tier *l2 = cache->tiers[PTIER_TIER_L2];
    ptier_error error;
    (void)context;
    if (!l2->ops->probe(l2, &error)) {
        ptier_tier_worked(cache, PTIER_TIER_L2);
        return;
    }
    ptier_tier_failed(cache, PTIER_TIER_L2);
    if (failed_too_often(cache, PTIER_TIER_L2))
        switch_off_l2(cache, &error);
}

void
ptier_heal_l2(ptier_cache *cache)
{
    bool down, revived = false;
    if (!cache->tiers[PTIER_TIER_L2] || !probe_is_due(cache, PTIER_TIER_L2, &down))
        return;
    if (!down) {
        ptier_lead_log(cache, probe_l2, NULL);
        return;
    }
    ptier_lead_log(cache, revive_l2, &revived);
    if (!revived)
        return;
    say_up(cache, PTIER_TIER_L2, "");
    admit_missed(cache);
    ptier_admit_l1(cache);
}

/* ---- L3 ---- */

/* Whether the changes beyond its prefix are all at hand, so that it can go on from there. */
static bool
can_go_on_from(ptier_cache *cache, uint64_t prefix)
{
    uint64_t log_from = ptier_progress_begin(&cache->progress_file)->log_from;
    ptier_progress_end(&cache->progress_file);
    pthread_mutex_lock(&cache->lock);
    bool in_log = cache->tiers[PTIER_TIER_L2] && prefix >= log_from;
    bool in_queue = prefix >= cache->l3_prefix && !cache->health[PTIER_TIER_L3].rebuild;
    pthread_mutex_unlock(&cache->lock);
    return in_log || in_queue;
}

static void
l3_is_back(ptier_cache *cache, const char *how)
{
    ptier_tier *l3 = cache->tiers[PTIER_TIER_L3];
    ptier_progress_begin(&cache->progress_file)->l3_prefix = ptier_l3_prefix(l3);
    ptier_progress_end(&cache->progress_file);
    pthread_mutex_lock(&cache->lock);
    cache->l3_prefix = ptier_l3_prefix(l3);
    cache->l3_synced = ptier_l3_synced_prefix(l3);
    ptier_op_list *queue = &cache->l3_queue;
    ptier_op_list_squeeze(queue);
    if (queue->count && !ptier_tier_active(cache, PTIER_TIER_L2))
        cache->memory_until = queue->ops[queue->count - 1].revision;
    cache->l3_behind = cache->tiers[PTIER_TIER_L2] && cache->logged > cache->l3_prefix;
    go_up_locked(cache, PTIER_TIER_L3);
    pthread_mutex_unlock(&cache->lock);
    say_up(cache, PTIER_TIER_L3, how);
}

/* The state file says that L3 has the whole cache, before anything relies on that: the next start
 * would take it for out of date. */
static ptier_status
count_l3_in(ptier_cache *cache, ptier_error *error)
{
    pthread_mutex_lock(&cache->lock);
    cache->l3_joins = !(cache->state.tiers & 1U << PTIER_TIER_L3);
    bool saved = ptier_await_state_locked(cache, &cache->l3_joins);
    cache->l3_joins = false;
    pthread_mutex_unlock(&cache->lock);
    return saved ? PTIER_OK
                 : ptier_fail(error, PTIER_UNAVAILABLE, "the state file cannot be written");
}

static void
revive_l3(ptier_cache *cache)
{
    ptier_tier *l3 = cache->tiers[PTIER_TIER_L3];
    ptier_error error = {0};
    ptier_wait_indexed(cache); /* what is made anew has to know all that there is */
    pthread_mutex_lock(&cache->lock);
    bool rebuild = cache->health[PTIER_TIER_L3].rebuild;
    pthread_mutex_unlock(&cache->lock);
    rebuild |= ptier_l3_check_file(l3) != PTIER_L3_SOUND;
    ptier_status status = look_for_room(cache, &error);
    if (!status && !rebuild && l3->ops->probe(l3, &error)) {
        status = ptier_l3_reopen(l3, &error);
        if (!status)
            status = l3->ops->probe(l3, &error);
    }
    if (!status && !rebuild && ptier_l3_condition_of(l3) == PTIER_L3_SOUND &&
        can_go_on_from(cache, ptier_l3_prefix(l3))) {
        l3_is_back(cache, "");
        return;
    }
    if (!status) {
        pthread_mutex_lock(&cache->lock);
        cache->health[PTIER_TIER_L3].rebuild = true; /* the upper tiers may have the only copies */
        pthread_mutex_unlock(&cache->lock);
        status = ptier_rebuild_l3(cache, &error);
    }
    if (!status)
        status = count_l3_in(cache, &error);
    if (status)
        ptier_cache_log(cache, PTIER_LOG_WARN, "l3_probe", "L3 stays off: %s", error.message);
    else
        l3_is_back(cache, ", in a file made anew");
}

/* A deleted file is noticed at once, other trouble of an idle tier by a probe. */
static bool
check_l3(ptier_cache *cache, bool probe, ptier_error *error)
{
    ptier_tier *l3 = cache->tiers[PTIER_TIER_L3];
    ptier_l3_condition condition = ptier_l3_check_file(l3);
    if (condition != PTIER_L3_SOUND) {
        (void)ptier_fail(error, PTIER_DATA_LOSS,
                         condition == PTIER_L3_MOVED ? "its file was deleted or replaced"
                                                     : "its file is damaged");
        return false;
    }
    if (probe && !l3->ops->probe(l3, error)) {
        ptier_tier_worked(cache, PTIER_TIER_L3);
        return true;
    }
    if (probe)
        ptier_tier_failed(cache, PTIER_TIER_L3);
    else
        (void)ptier_fail(error, PTIER_UNAVAILABLE, "it failed %d times in a row",
                         FAILURES_IN_A_ROW);
    return !failed_too_often(cache, PTIER_TIER_L3);
}

void
ptier_heal_l3(ptier_cache *cache)
{
    bool down;
    ptier_error error;
    bool due = probe_is_due(cache, PTIER_TIER_L3, &down);
    if (down && due)
        revive_l3(cache);
    else if (!down && !check_l3(cache, due, &error))
        ptier_l3_down(cache, &error);
}
