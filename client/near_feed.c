/* Near cache: what the daemon says (heartbeats, events, replies), and own writes. */
#include "near_internal.h"

#include <string.h>

/* ---- one key ---- */

/* A copy with the health that the event tells. NULL: it tells none, or out of memory. */
static ptier_near_record *
patched(const ptier_near_record *old, const ptier_event *event)
{
    ptier_record record = old->record;
    if (event->record.health == PTIER_HEALTH_UNSPECIFIED ||
        event->record.failure_count == PTIER_FAILURES_UNSTATED)
        return NULL;
    record.health = event->record.health;
    record.failure_count = event->record.failure_count;
    record.needs_revalidation = event->record.needs_revalidation;
    record.revision = event->revision;
    ptier_near_record *fresh =
        ptier_near_record_create(&record, false, event->revision, old->expires);
    if (fresh)
        fresh->generation = old->generation;
    return fresh;
}

/* What is not valid any more may have missed events: a patch would make it look as new as this one.
 */
static bool
may_patch(ptier_near *near, const ptier_near_record *record)
{
    const ptier_near_validity v = ptier_near_validity_at(near, INT64_MIN);
    return atomic_load_explicit(&near->following, memory_order_acquire) &&
           ptier_near_valid(record, &v);
}

static void
touch_present_locked(ptier_near *near, ptier_near_shard *shard, uint32_t at,
                     const ptier_event *event)
{
    ptier_near_record *fresh = NULL, *old = ptier_near_table_record(&shard->present, at);
    if (event && event->type == PTIER_EVENT_HEALTH && may_patch(near, old))
        fresh = patched(old, event);
    const bool kept = fresh && ptier_near_table_replace(&shard->present, at, fresh);
    shard->count.patches += kept;
    shard->count.invalidations += !kept;
    if (!kept)
        ptier_near_table_remove(&shard->present, at);
    ptier_near_record_release(fresh);
}

void
ptier_near_touch(ptier_near *near, const char *key, uint64_t revision, const ptier_event *event)
{
    ptier_near_key touched;
    ptier_near_key_of(&touched, key);
    ptier_near_shard *shard = ptier_near_enter(near, touched.hash);
    uint64_t *stripe = ptier_near_stripe(near, shard, touched.hash);
    if (*stripe < revision)
        *stripe = revision;
    uint32_t at = ptier_near_table_find(&shard->present, &touched);
    if (at != PTIER_NEAR_NONE && ptier_near_table_record(&shard->present, at)->as_of < revision)
        touch_present_locked(near, shard, at, event);
    at = ptier_near_table_find(&shard->absent, &touched);
    if (at != PTIER_NEAR_NONE && ptier_near_table_record(&shard->absent, at)->as_of < revision &&
        !(event && event->type == PTIER_EVENT_REMOVED)) {
        shard->count.invalidations++;
        ptier_near_table_remove(&shard->absent, at);
    }
    ptier_near_lock_leave(&shard->lock);
}

/* ---- freshness ---- */

static void
publish_freshness_locked(ptier_near *near, int64_t now)
{
    int64_t until = PTIER_NEAR_NEVER;
    if (atomic_load_explicit(&near->following, memory_order_relaxed))
        until = ptier_near_clock_until(&near->clock, now, near->options.max_staleness);
    if (near->options.faults & PTIER_NEAR_AGE_BY_ARRIVAL) /* set where it arrives */
        return;
    atomic_store_explicit(&near->fresh_until, until, memory_order_release);
}

/* Nothing is served or filled until the next heartbeat that is contiguous. */
static void
stop_following_locked(ptier_near *near)
{
    atomic_store_explicit(&near->fresh_until, PTIER_NEAR_NEVER, memory_order_release);
    atomic_store_explicit(&near->following, false, memory_order_release);
    atomic_fetch_add_explicit(&near->generation, 1, memory_order_acq_rel);
    ptier_near_clock_lose(&near->clock);
}

static void
raise(_Atomic uint64_t *figure, uint64_t to)
{
    uint64_t from = atomic_load_explicit(figure, memory_order_relaxed);
    while (from < to && !atomic_compare_exchange_weak_explicit(
                            figure, &from, to, memory_order_acq_rel, memory_order_relaxed))
        ;
}

void
ptier_near_reply(ptier_near *near, const uint8_t boot_id[PTIER_NEAR_ID_BYTES], int64_t sent,
                 int64_t now, int64_t daemon_ms)
{
    pthread_mutex_lock(&near->lock);
    ptier_near_clock_reply(&near->clock, boot_id, sent, now, daemon_ms);
    publish_freshness_locked(near, now);
    pthread_mutex_unlock(&near->lock);
}

/* ---- the stream ---- */

/* Another run of the daemon, or another store: what is here is of no use. */
static void
begin_anew_locked(ptier_near *near, const ptier_near_beat *beat)
{
    stop_following_locked(near);
    atomic_store_explicit(&near->watermark, 0, memory_order_release);
    atomic_store_explicit(&near->revision, 0, memory_order_release);
    memcpy(near->boot_id, beat->boot_id, sizeof near->boot_id);
    memcpy(near->store_id, beat->store_id, sizeof near->store_id);
    near->known = true;
}

static bool
of_our_run_locked(const ptier_near *near, const ptier_near_beat *beat)
{
    return near->known && memcmp(near->boot_id, beat->boot_id, sizeof near->boot_id) == 0 &&
           memcmp(near->store_id, beat->store_id, sizeof near->store_id) == 0;
}

/* What happened before now will not be told: it has to be in whatever is kept. */
static void
follow_locked(ptier_near *near, uint64_t revision)
{
    atomic_fetch_add_explicit(&near->generation, 1, memory_order_acq_rel);
    raise(&near->watermark, revision);
    atomic_store_explicit(&near->following, true, memory_order_release);
}

void
ptier_near_heartbeat(ptier_near *near, const ptier_near_beat *beat, int64_t now)
{
    pthread_mutex_lock(&near->lock);
    if (!of_our_run_locked(near, beat))
        begin_anew_locked(near, beat);
    if (beat->contiguous) {
        if (!atomic_load_explicit(&near->following, memory_order_relaxed))
            follow_locked(near, beat->revision);
        raise(&near->revision, beat->revision);
        ptier_near_clock_beat(&near->clock, beat->boot_id, beat->daemon_ms);
        if (near->options.faults & PTIER_NEAR_AGE_BY_ARRIVAL)
            atomic_store(&near->fresh_until, now + near->options.max_staleness);
    }
    publish_freshness_locked(near, now);
    pthread_mutex_unlock(&near->lock);
}

void
ptier_near_event(ptier_near *near, const ptier_event *event)
{
    const char *key = event->record.key;
    if (event->type >= PTIER_EVENT_PROMOTED && event->type <= PTIER_EVENT_TIER_RECOVERED)
        return;
    if (event->type == PTIER_EVENT_CLEARED || !key || !*key)
        raise(&near->watermark, event->revision);
    else
        ptier_near_touch(near, key, event->revision, event);
}

void
ptier_near_resync(ptier_near *near, uint64_t revision)
{
    pthread_mutex_lock(&near->lock);
    stop_following_locked(near);
    raise(&near->watermark, revision);
    pthread_mutex_unlock(&near->lock);
}

int64_t
ptier_near_call_due(ptier_near *near)
{
    pthread_mutex_lock(&near->lock);
    int64_t due = ptier_near_clock_call_due(&near->clock);
    pthread_mutex_unlock(&near->lock);
    return due;
}

/* ---- own writes ---- */

void
ptier_near_wrote(ptier_near *near, const char *key, uint64_t revision)
{
    ptier_near_touch(near, key, revision, NULL);
}

void
ptier_near_forget(ptier_near *near, const char *key)
{
    ptier_near_key forgotten;
    ptier_near_key_of(&forgotten, key);
    ptier_near_shard *shard = ptier_near_enter(near, forgotten.hash);
    ptier_near_table *tables[] = {&shard->present, &shard->absent};
    for (size_t i = 0; i < 2; i++) {
        uint32_t at = ptier_near_table_find(tables[i], &forgotten);
        if (at != PTIER_NEAR_NONE)
            ptier_near_table_remove(tables[i], at);
    }
    ptier_near_lock_leave(&shard->lock);
}

void
ptier_near_cleared(ptier_near *near, uint64_t revision)
{
    if (revision)
        raise(&near->watermark, revision);
    else
        ptier_near_resync(near, 0);
}
