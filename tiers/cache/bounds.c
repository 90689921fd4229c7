/*
 * Keeping L2 and L3 within their bounds, after changes: an upper tier just lets go, the lowest one
 * removes from the cache, and never what is hot above.
 */
#include "cache/cache_internal.h"

enum {
    EVICTIONS = 1024, /* in one go: the rows of L3 leave only when the removals are applied */
    HOT_TRIES = 256, /* victims that turn out to be hot above: sampling meets the same ones again */
};

typedef enum removal {
    REMOVED,
    GONE,    /* no longer current: only a stale record was left */
    HOT,     /* resident in L1 */
    NO_ROOM, /* for the change, now */
    FITS,    /* the cache is within the bound: what the tier has too much is on its way out */
} removal;

static bool
in_l1_locked(ptier_cache *cache, const ptier_ref *ref)
{
    ptier_tier *l1 = cache->tiers[PTIER_TIER_L1];
    ptier_entry *entry;
    if (!l1 || l1->ops->get(l1, ref, &entry))
        return false;
    ptier_entry_release(entry);
    return true;
}

/* The lowest tier is the whole cache, so the index knows exactly how much is too much. */
static removal
remove_locked(ptier_cache *cache, const ptier_ref *ref, ptier_entry *entry)
{
    const uint64_t bounds[PTIER_TIER_COUNT] = {
        [PTIER_TIER_L2] = cache->options.l2_entries, [PTIER_TIER_L3] = cache->options.l3_entries};
    if (!ptier_is_current_locked(cache, entry))
        return GONE;
    if (ptier_index_count(cache->index) <= bounds[cache->lowest])
        return FITS;
    if (in_l1_locked(cache, ref))
        return HOT;
    if (!ptier_room_now_locked(cache, 1) ||
        ptier_change_remove_locked(cache, entry, PTIER_REASON_CAPACITY))
        return NO_ROOM;
    return REMOVED;
}

static removal
remove_for_capacity(ptier_cache *cache, const ptier_ref *ref)
{
    ptier_entry *entry;
    pthread_mutex_lock(&cache->lock);
    bool hot = in_l1_locked(cache, ref);
    pthread_mutex_unlock(&cache->lock);
    if (hot)
        return HOT;
    ptier_status status = ptier_load_revision(cache, ref->hash, ref->revision, &entry, NULL);
    if (status)
        return status == PTIER_NOT_FOUND || status == PTIER_DATA_LOSS ? GONE : NO_ROOM;
    pthread_mutex_lock(&cache->lock);
    removal outcome = remove_locked(cache, ref, entry);
    pthread_mutex_unlock(&cache->lock);
    ptier_entry_release(entry);
    return outcome;
}

static void
shrink_lowest(ptier_cache *cache, ptier_tier *tier)
{
    uint64_t removed = 0, hot = 0;
    ptier_ref ref = {.quiet = true};
    while (removed < EVICTIONS && tier->ops->victim(tier, &ref.hash, &ref.revision) == PTIER_OK) {
        removal outcome = remove_for_capacity(cache, &ref);
        if (outcome == FITS || outcome == NO_ROOM ||
            (outcome == HOT && hot++ > HOT_TRIES + cache->options.l1_entries))
            break; /* the next round goes on */
        /* L3's row goes when the removal is applied; until then the next victim is another one. */
        if (outcome == HOT || (outcome == REMOVED && cache->lowest == PTIER_TIER_L3))
            tier->ops->touch(tier, &ref);
        else
            tier->ops->drop(tier, ref.hash, ref.revision);
        removed += outcome == REMOVED;
    }
    if (removed)
        ptier_flush_log(cache);
}

void
ptier_enforce_bound(ptier_cache *cache, ptier_tier_id id)
{
    ptier_tier *tier = cache->tiers[id];
    if (!tier)
        return;
    pthread_mutex_lock(&cache->lock);
    bool active = ptier_tier_active(cache, id) && !(cache->indexing && id == cache->lowest);
    if (id != cache->lowest && cache->health[cache->lowest].rebuild)
        active = false; /* it may have the only copy */
    pthread_mutex_unlock(&cache->lock);
    if (!active)
        return;              /* its bound is seen to later */
    if (id != cache->lowest) /* L2 above L3 */
        ptier_count(&cache->count.evictions[id], ptier_l2_shrink(tier));
    else
        shrink_lowest(cache, tier);
}
