/* Statistics, and the small questions that need no lock. */
#include <stdarg.h>
#include <string.h>

#include "cache/cache_internal.h"
#include "export_line.h"

enum {
    HEALTHY_WITHIN_MS = 60000, /* of a success */
    MINUTE_MS = 60000,
    HOUR_MS = 60 * MINUTE_MS,
    DAY_MS = 24 * HOUR_MS,
};

/* ---- counters ---- */

static uint64_t
damaged_since_open(const ptier_cache *cache, ptier_tier_id id)
{
    return id == PTIER_TIER_L3   ? ptier_l3_damaged(cache->tiers[id])
           : id == PTIER_TIER_L2 ? ptier_l2_damaged(cache->tiers[id])
                                 : 0;
}

/* L1 counts from open on. */
static uint64_t
take_l1_hits(ptier_cache *cache, bool reset)
{
    ptier_tier *l1 = cache->tiers[PTIER_TIER_L1];
    uint64_t before = cache->count.l1_hits_before, hits = l1 ? ptier_l1_hits(l1) : 0;
    if (reset)
        cache->count.l1_hits_before = hits;
    return hits - before;
}

/* What each tier was asked follows from where reads ended: see statistics.h. */
static void
collect_reads(ptier_cache *cache, bool reset, ptier_statistics *s)
{
    uint64_t found[PTIER_TIER_COUNT] = {[PTIER_TIER_L1] = take_l1_hits(cache, reset)};
    for (int stripe = 0; stripe < PTIER_STRIPES; stripe++)
        for (int id = PTIER_TIER_NONE; id < PTIER_TIER_COUNT; id++)
            found[id] += ptier_take(&cache->count.reads[stripe].found[id], reset);
    s->misses = found[PTIER_TIER_NONE];
    for (int id = PTIER_TIER_L3; id >= PTIER_TIER_L1; id--) {
        ptier_tier_statistics *t = &s->tiers[id];
        if (cache->tiers[id]) {
            t->hits = found[id];
            t->misses = s->misses + s->hits; /* those that ended below */
            t->hit_rate = ptier_hit_rate(t->hits, t->misses);
        }
        s->hits += found[id];
    }
    s->hit_rate = ptier_hit_rate(s->hits, s->misses);
}

static void
collect_tier(ptier_cache *cache, bool reset, ptier_tier_id id, ptier_tier_statistics *t)
{
    ptier_counters *c = &cache->count;
    t->promotions = ptier_take(&c->promotions[id], reset);
    t->demotions = ptier_take(&c->demotions[id], reset);
    t->evictions = ptier_take(&c->evictions[id], reset);
    t->errors = ptier_take(&c->errors[id], reset);
    if (!cache->tiers[id])
        return;
    uint64_t damaged = damaged_since_open(cache, id);
    t->damaged = damaged - c->damaged_before[id];
    if (reset)
        c->damaged_before[id] = damaged;
}

static void
collect_latencies(ptier_counters *c, bool reset, ptier_statistics *s)
{
    for (int operation = 1; operation < PTIER_OPERATION_COUNT; operation++) {
        ptier_histogram_sum sum = {0};
        ptier_histogram_collect(&c->latency[operation], reset, &sum);
        s->latency[operation] = ptier_histogram_latency(&sum);
    }
}

static void
collect(ptier_cache *cache, bool reset, ptier_statistics *s)
{
    ptier_counters *c = &cache->count;
    pthread_mutex_lock(&c->collecting);
    int64_t now = ptier_clock_boot(&cache->clock);
    s->since_ms = (uint64_t)(now - c->since_boot_ms);
    if (reset)
        c->since_boot_ms = now;
    collect_reads(cache, reset, s);
    for (int id = PTIER_TIER_L1; id <= PTIER_TIER_L3; id++)
        collect_tier(cache, reset, (ptier_tier_id)id, &s->tiers[id]);
    s->created = ptier_take(&c->created, reset);
    s->updates = ptier_take(&c->updates, reset);
    s->puts = s->created + s->updates;
    s->deletes = ptier_take(&c->deletes, reset);
    s->reports = ptier_take(&c->reports, reset);
    for (int reason = 0; reason < PTIER_REASON_COUNT; reason++)
        s->removals[reason] = ptier_take(&c->removals[reason], reset);
    collect_latencies(c, reset, s);
    pthread_mutex_unlock(&c->collecting);
}

/* ---- gauges ---- */

static void
gauge_tier(ptier_cache *cache, ptier_tier_id id, ptier_tier_statistics *t)
{
    ptier_tier *tier = cache->tiers[id];
    const uint64_t capacities[PTIER_TIER_COUNT] = {
        0, cache->options.l1_entries, cache->options.l2_entries, cache->options.l3_entries};
    t->enabled = tier != NULL;
    if (!tier)
        return;
    t->entries = tier->ops->count(tier);
    t->bytes = tier->ops->bytes(tier);
    t->capacity = capacities[id];
}

static void
gauge_health_locked(const ptier_cache *cache, ptier_tier_id id, int64_t now,
                    ptier_tier_statistics *t)
{
    const ptier_tier_health *health = &cache->health[id];
    int64_t success = atomic_load_explicit(&health->last_success_boot_ms, memory_order_relaxed);
    if (id == PTIER_TIER_L1 && t->enabled)
        success = now; /* memory works whenever it is asked */
    t->degraded = health->down;
    t->failures_in_row = atomic_load_explicit(&health->failures, memory_order_relaxed);
    t->last_success_ms_ago = success ? now - success : -1;
    t->healthy = t->enabled && !t->degraded && t->failures_in_row < TIER_FAILURES &&
                 t->last_success_ms_ago >= 0 && t->last_success_ms_ago <= HEALTHY_WITHIN_MS;
}

static void
gauge_expiry_locked(const ptier_index *index, int64_t now, ptier_statistics *s)
{
    s->expired_undrained = ptier_index_due_count(index);
    s->with_ttl = ptier_index_expiring(index, PTIER_NEVER);
    s->without_ttl = ptier_index_count(index) - s->with_ttl;
    s->expiring_1m = ptier_index_expiring(index, now + MINUTE_MS);
    s->expiring_1h = ptier_index_expiring(index, now + HOUR_MS);
    s->expiring_1d = ptier_index_expiring(index, now + DAY_MS);
}

/* Revisions of earlier runs are in L3 once it has what was found of them. */
static uint64_t
l3_lag_locked(const ptier_cache *cache)
{
    uint64_t reached = cache->l3_prefix;
    if (!cache->tiers[PTIER_TIER_L3])
        return 0;
    if (reached >= cache->opened_l3 && reached < cache->opened_revision)
        reached = cache->opened_revision;
    return cache->queued > reached ? cache->queued - reached : 0;
}

static void
gauge_queues_locked(const ptier_cache *cache, ptier_statistics *s)
{
    ptier_tier *l2 = cache->tiers[PTIER_TIER_L2];
    s->revision = ptier_cache_revision(cache);
    s->l3_prefix = cache->l3_prefix;
    s->l3_lag = l3_lag_locked(cache);
    s->pending_writes = ptier_waiting_locked(cache);
    if (cache->l3_behind && cache->logged > cache->l3_prefix)
        s->pending_writes += cache->logged - cache->l3_prefix; /* in the log: at most so many */
    s->log_queue = cache->log_queue.count;
    s->l3_queue = cache->l3_queue.count;
    s->writeback_queue = cache->writeback.count;
    s->usage_queue = cache->usage_queue.count;
    s->log_bytes = l2 ? ptier_l2_log_bytes(l2) : 0;
    s->log_max_bytes = l2 ? cache->options.log_max_bytes : 0;
}

static void
gauge(ptier_cache *cache, ptier_statistics *s)
{
    for (int id = PTIER_TIER_L1; id <= PTIER_TIER_L3; id++)
        gauge_tier(cache, (ptier_tier_id)id, &s->tiers[id]);
    int64_t now = ptier_clock_boot(&cache->clock);
    s->uptime_ms = (uint64_t)(now - cache->opened_boot_ms);
    pthread_mutex_lock(&cache->lock);
    s->entries = ptier_index_count(cache->index);
    if (cache->indexing && s->tiers[PTIER_TIER_L3].entries > s->entries)
        s->entries = s->tiers[PTIER_TIER_L3].entries; /* not all of them have been read yet */
    s->index_bytes = ptier_index_bytes(cache->index);
    s->quarantined = cache->quarantine.count;
    gauge_expiry_locked(cache->index, now, s);
    gauge_queues_locked(cache, s);
    for (int id = PTIER_TIER_L1; id <= PTIER_TIER_L3; id++)
        gauge_health_locked(cache, (ptier_tier_id)id, now, &s->tiers[id]);
    pthread_mutex_unlock(&cache->lock);
}

/* ---- both ---- */

void
ptier_cache_statistics(ptier_cache *cache, ptier_statistics *s)
{
    memset(s, 0, sizeof *s);
    collect(cache, false, s);
    gauge(cache, s);
}

void
ptier_cache_statistics_reset(ptier_cache *cache, ptier_statistics *last)
{
    ptier_statistics s = {0};
    collect(cache, true, &s);
    if (!last)
        return;
    gauge(cache, &s);
    *last = s;
}

/* ---- small questions ---- */

void
ptier_cache_store_id(const ptier_cache *cache, uint8_t id[PTIER_ID_BYTES])
{
    pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&cache->lock;
    pthread_mutex_lock(lock);
    memcpy(id, cache->state.store_id, PTIER_ID_BYTES);
    pthread_mutex_unlock(lock);
}

void
ptier_cache_boot_id(const ptier_cache *cache, uint8_t id[PTIER_ID_BYTES])
{
    memcpy(id, cache->boot_id, PTIER_ID_BYTES);
}

size_t
ptier_cache_export_line(ptier_cache *cache, const ptier_entry *entry, bool plain_credentials,
                        char *line, size_t room)
{
    ptier_record record;
    ptier_label labels[PTIER_LABELS_MAX];
    ptier_sealed *sealed = NULL;
    ptier_cache_read(cache, entry, &record, labels);
    if (!plain_credentials) {
        bool sealable =
            cache->keyring && ptier_sealed_create(cache->keyring, entry, &sealed) == PTIER_OK;
        if (!sealable)
            sealed = NULL; /* never plain instead: the line then has no credentials */
        record.username = record.password = NULL;
    }
    size_t length = ptier_export_line(&record, ptier_sealed_username(sealed),
                                      ptier_sealed_password(sealed), line, room);
    ptier_sealed_release(sealed);
    return length;
}

void
ptier_cache_log(const ptier_cache *cache, ptier_log_level level, const char *event,
                const char *format, ...)
{
    if (!cache->options.on_log)
        return;
    char text[512];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args); /* cut is fine */
    va_end(args);
    cache->options.on_log(cache->options.log_context, level, event, text);
}
