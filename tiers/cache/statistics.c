/* Statistics, and the small questions that need no lock. */
#include <stdarg.h>
#include <string.h>

#include "cache/cache_internal.h"
#include "export_line.h"

static uint64_t
load(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static void
tier_statistics(ptier_cache *cache, ptier_tier_id id, ptier_tier_statistics *s)
{
    ptier_tier *tier = cache->tiers[id];
    const uint64_t capacities[PTIER_TIER_COUNT] = {
        0, cache->options.l1_entries, cache->options.l2_entries, cache->options.l3_entries};
    s->enabled = tier != NULL;
    if (!tier)
        return;
    s->entries = tier->ops->count(tier);
    s->bytes = tier->ops->bytes(tier);
    s->capacity = capacities[id];
    s->hits = load(&cache->count.tier_hits[id]);
    s->misses = load(&cache->count.tier_misses[id]);
    s->promotions = load(&cache->count.promotions[id]);
    s->evictions = load(&cache->count.evictions[id]);
    s->errors = load(&cache->count.errors[id]);
}

void
ptier_cache_statistics(ptier_cache *cache, ptier_statistics *s)
{
    const ptier_counters *c = &cache->count;
    memset(s, 0, sizeof *s);
    for (int id = PTIER_TIER_L1; id <= PTIER_TIER_L3; id++)
        tier_statistics(cache, (ptier_tier_id)id, &s->tiers[id]);
    s->hits = load(&c->hits);
    s->misses = load(&c->misses);
    s->puts = load(&c->puts);
    s->updates = load(&c->updates);
    s->deletes = load(&c->deletes);
    s->reports = load(&c->reports);
    for (int reason = 0; reason < PTIER_REASON_COUNT; reason++)
        s->removals[reason] = load(&c->removals[reason]);
    s->revision = ptier_cache_revision(cache);
    s->uptime_ms = (uint64_t)(ptier_clock_boot(&cache->clock) - cache->opened_boot_ms);
    s->log_bytes = s->tiers[PTIER_TIER_L2].bytes;
    pthread_mutex_lock(&cache->lock);
    s->entries = ptier_index_count(cache->index);
    s->index_bytes = ptier_index_bytes(cache->index);
    s->expired_undrained = ptier_index_due_count(cache->index);
    s->l3_prefix = cache->l3_prefix;
    s->pending_writes = cache->pending_count;
    for (int id = PTIER_TIER_L1; id <= PTIER_TIER_L3; id++)
        s->tiers[id].degraded = cache->degraded[id];
    pthread_mutex_unlock(&cache->lock);
}

void
ptier_cache_store_id(const ptier_cache *cache, uint8_t id[PTIER_ID_BYTES])
{
    memcpy(id, cache->state.store_id, PTIER_ID_BYTES);
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
