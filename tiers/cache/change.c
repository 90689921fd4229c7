/*
 * Changes of the contents: the critical section that assigns a revision and makes it visible to
 * readers, to the change feed and to the queues below, all at once. Every function here needs the
 * change lock; none does I/O.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cache_internal.h"

/* ---- helpers ---- */

ptier_index_facts
ptier_facts_of(const ptier_entry *entry)
{
    return (ptier_index_facts){
        .revision = entry->revision,
        .expires_boot_ms = entry->expires_boot_ms,
        .url = ptier_entry_url(entry),
        .source = ptier_entry_source(entry),
        .health = entry->health,
    };
}

bool
ptier_is_current_locked(const ptier_cache *cache, const ptier_entry *entry)
{
    return ptier_index_find(cache->index, entry->hash, entry->revision) != PTIER_SLOT_NONE;
}

static void
tell_change(ptier_cache *cache, ptier_event_type type, ptier_reason reason, uint64_t revision,
            ptier_entry *entry)
{
    if (!cache->options.on_change)
        return;
    const ptier_change change = {
        .type = type, .reason = reason, .revision = revision, .entry = entry};
    cache->options.on_change(cache->options.change_context, &change);
}

void
ptier_tell_tier_event(ptier_cache *cache, ptier_event_type type, ptier_tier_id tier,
                      ptier_entry *entry)
{
    if (!cache->options.on_tier_event)
        return;
    const ptier_tier_event event = {.type = type, .tier = tier, .entry = entry};
    cache->options.on_tier_event(cache->options.tier_event_context, &event);
}

static void
forget_pending_locked(ptier_cache *cache, uint64_t hash, uint64_t revision)
{
    ptier_entry *entry = ptier_entry_in(&cache->pending, hash, revision);
    if (entry)
        ptier_map_remove(&cache->pending, hash, entry); /* the queue owns the reference */
    entry = ptier_entry_in(&cache->writeback, hash, revision);
    if (entry) {
        ptier_map_remove(&cache->writeback, hash, entry);
        ptier_entry_release(entry);
    }
}

static uint64_t
next_revision_locked(ptier_cache *cache)
{
    uint64_t revision = ++cache->assigned;
    assert(revision < cache->state.reserved || !cache->data_dir);
    if (cache->data_dir && !cache->reserving &&
        cache->state.reserved - revision < REVISION_BLOCK / 2) {
        cache->reserving = true;
        pthread_cond_signal(&cache->maintenance_work);
    }
    return revision;
}

/* What was assigned is visible everywhere: readers may be told so. */
static void
publish_revision_locked(ptier_cache *cache)
{
    atomic_store_explicit(&cache->revision, cache->assigned, memory_order_release);
}

/* ---- L1 ---- */

void
ptier_writeback_locked(ptier_cache *cache, ptier_entry *entry)
{
    if (!ptier_any_disk_tier(cache) || cache->writeback.count >= WRITEBACK_MAX ||
        ptier_entry_in(&cache->writeback, entry->hash, entry->revision))
        return;
    if (ptier_map_insert(&cache->writeback, entry->hash, entry))
        ptier_entry_retain(entry);
}

/* L1 has given the entry up. */
static void
evicted_from_l1_locked(ptier_cache *cache, ptier_entry *victim)
{
    if (!ptier_is_current_locked(cache, victim))
        return;
    ptier_count(&cache->count.evictions[PTIER_TIER_L1], 1);
    ptier_tell_tier_event(cache, PTIER_EVENT_TIER_EVICTED, PTIER_TIER_L1, victim);
    bool demote = ptier_tier_active(cache, PTIER_TIER_L2) &&
                  !ptier_l2_resident(cache->tiers[PTIER_TIER_L2], victim->hash, victim->revision);
    if (demote || atomic_load_explicit(&victim->usage_dirty, memory_order_relaxed))
        ptier_writeback_locked(cache, victim);
}

/* Nothing is below: what L1 cannot hold leaves the cache. */
static void
shrink_lowest_l1_locked(ptier_cache *cache)
{
    ptier_tier *l1 = cache->tiers[PTIER_TIER_L1];
    ptier_ref ref = {.quiet = true};
    while (l1->ops->victim(l1, &ref.hash, &ref.revision) == PTIER_OK) {
        ptier_entry *victim;
        if (l1->ops->get(l1, &ref, &victim)) /* dropped by somebody else: look again */
            continue;
        /* Cannot fail: without disk tiers nothing is queued. */
        PTIER_IGNORE(ptier_change_remove_locked(cache, victim, PTIER_REASON_CAPACITY));
        ptier_entry_release(victim);
    }
}

static void
shrink_l1_locked(ptier_cache *cache)
{
    ptier_entry *victim;
    if (cache->lowest == PTIER_TIER_L1) {
        shrink_lowest_l1_locked(cache);
        return;
    }
    while ((victim = ptier_l1_evict(cache->tiers[PTIER_TIER_L1]))) {
        evicted_from_l1_locked(cache, victim);
        ptier_entry_release(victim);
    }
}

static void
put_into_l1_locked(ptier_cache *cache, ptier_entry *entry)
{
    ptier_tier *l1 = cache->tiers[PTIER_TIER_L1];
    const ptier_op op = {.kind = PTIER_OP_PUT, .revision = entry->revision, .entry = entry};
    ptier_error error;
    if (l1->ops->apply(l1, &op, 1, false, &error))
        return; /* out of memory: the tiers below have it */
    shrink_l1_locked(cache);
}

void
ptier_promote_locked(ptier_cache *cache, ptier_entry *entry)
{
    if (!cache->tiers[PTIER_TIER_L1] || !ptier_is_current_locked(cache, entry))
        return;
    put_into_l1_locked(cache, entry);
    ptier_count(&cache->count.promotions[PTIER_TIER_L1], 1);
    ptier_tell_tier_event(cache, PTIER_EVENT_PROMOTED, PTIER_TIER_L1, entry);
}

/* ---- the changes ---- */

ptier_status
ptier_change_put_locked(ptier_cache *cache, ptier_entry *entry, ptier_sealed *sealed,
                        ptier_entry *old, ptier_event_type type)
{
    uint32_t slot = PTIER_SLOT_NONE;
    if (old) {
        slot = ptier_index_find(cache->index, old->hash, old->revision);
        assert(slot != PTIER_SLOT_NONE);
    }
    ptier_settle_hash_locked(cache, entry->hash);
    entry->revision = next_revision_locked(cache);
    const ptier_index_facts facts = ptier_facts_of(entry);
    const ptier_op op = {.kind = PTIER_OP_PUT,
                         .revision = entry->revision,
                         .replaces = old ? old->revision : 0,
                         .entry = entry,
                         .sealed = sealed};
    if (!ptier_queue_locked(cache, &op))
        return PTIER_RESOURCE_EXHAUSTED;
    if (old) {
        ptier_index_update(cache->index, slot, &facts);
        forget_pending_locked(cache, old->hash, old->revision);
    } else {
        ptier_status status = ptier_index_insert(cache->index, entry->hash, &facts);
        if (status) { /* queued, but not visible: as if it had been removed at once */
            ptier_doubt_rows_locked(cache);
            return status;
        }
    }
    tell_change(cache, type, PTIER_REASON_NONE, entry->revision, entry);
    if (cache->tiers[PTIER_TIER_L1]) /* last: what it evicts may be a removal with the next revision
                                      */
        put_into_l1_locked(cache, entry);
    publish_revision_locked(cache);
    return PTIER_OK;
}

ptier_status
ptier_change_remove_locked(ptier_cache *cache, ptier_entry *old, ptier_reason reason)
{
    uint32_t slot = ptier_index_find(cache->index, old->hash, old->revision);
    assert(slot != PTIER_SLOT_NONE);
    ptier_settle_hash_locked(cache, old->hash); /* else its row would be found again */
    const ptier_op op = {.kind = PTIER_OP_REMOVE,
                         .revision = next_revision_locked(cache),
                         .replaces = old->revision,
                         .entry = old};
    /* Without its key (damage) there is nothing that the tiers could be told. */
    if (*ptier_entry_key(old) && !ptier_queue_locked(cache, &op))
        return PTIER_RESOURCE_EXHAUSTED;
    ptier_index_remove(cache->index, slot);
    forget_pending_locked(cache, old->hash, old->revision);
    if (cache->tiers[PTIER_TIER_L1] && *ptier_entry_key(old)) {
        ptier_error error;
        ptier_tier *l1 = cache->tiers[PTIER_TIER_L1];
        (void)l1->ops->apply(l1, &op, 1, false, &error); /* a removal from memory cannot fail */
    }
    if (reason == PTIER_REASON_HEALTH)
        ptier_quarantine_add_locked(cache, old);
    ptier_count(&cache->count.removals[reason], 1);
    tell_change(cache, PTIER_EVENT_REMOVED, reason, op.revision, old);
    publish_revision_locked(cache);
    return PTIER_OK;
}

ptier_status
ptier_change_clear_locked(ptier_cache *cache, ptier_index *fresh)
{
    const ptier_op op = {.kind = PTIER_OP_CLEAR, .revision = next_revision_locked(cache)};
    if (!ptier_queue_locked(cache, &op))
        return PTIER_RESOURCE_EXHAUSTED;
    ptier_count(&cache->count.removals[PTIER_REASON_CLEARED], ptier_index_count(cache->index));
    cache->index = fresh;
    ptier_end_indexing_locked(cache);
    ptier_map_fini(&cache->pending);
    for (size_t i = 0; cache->writeback.cells && i <= cache->writeback.mask; i++)
        ptier_entry_release(cache->writeback.cells[i].value);
    ptier_map_fini(&cache->writeback);
    if (cache->tiers[PTIER_TIER_L1]) {
        ptier_error error;
        ptier_tier *l1 = cache->tiers[PTIER_TIER_L1];
        (void)l1->ops->apply(l1, &op, 1, false, &error); /* cannot fail */
    }
    tell_change(cache, PTIER_EVENT_CLEARED, PTIER_REASON_CLEARED, op.revision, NULL);
    publish_revision_locked(cache);
    return PTIER_OK;
}
