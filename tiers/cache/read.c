/* Get: L1 first, then whatever the index says, with promotion. */
#include "cache/cache_internal.h"

static void
count_read(ptier_cache *cache, ptier_tier_id found)
{
    for (int id = PTIER_TIER_L1; id <= PTIER_TIER_L3; id++) {
        if (!cache->tiers[id])
            continue;
        if (id == (int)found) {
            ptier_count(&cache->count.tier_hits[id], 1);
            break;
        }
        ptier_count(&cache->count.tier_misses[id], 1);
    }
    ptier_count(found ? &cache->count.hits : &cache->count.misses, 1);
}

static void
count_use(ptier_cache *cache, ptier_entry *entry)
{
    atomic_fetch_add_explicit(&entry->access_count, 1, memory_order_relaxed);
    atomic_store_explicit(&entry->last_access_ms, ptier_clock_wall(&cache->clock),
                          memory_order_relaxed);
    atomic_store_explicit(&entry->usage_dirty, 1, memory_order_relaxed);
}

static bool
expired(const ptier_cache *cache, const ptier_entry *entry)
{
    return entry->expires_boot_ms != PTIER_NEVER &&
           ptier_entry_expired(entry, ptier_clock_boot(&cache->clock));
}

ptier_status
ptier_cache_get(ptier_cache *cache, const char *key, ptier_entry **entry, ptier_tier_id *tier)
{
    const ptier_ref ref = {.hash = cache->hash_key(key), .key = key};
    ptier_tier *l1 = cache->tiers[PTIER_TIER_L1];
    ptier_tier_id where = PTIER_TIER_L1;
    bool in_l1 = l1 && l1->ops->get(l1, &ref, entry) == PTIER_OK;
    ptier_status status = PTIER_OK;
    if (!in_l1)
        status = ptier_load_current(cache, key, ref.hash, entry, &where);
    if (!status && expired(cache, *entry)) {
        ptier_entry_release(*entry);
        status = PTIER_NOT_FOUND;
    }
    count_read(cache, status ? PTIER_TIER_NONE : where);
    if (tier)
        *tier = status ? PTIER_TIER_NONE : where;
    if (status) {
        *entry = NULL;
        return status;
    }
    count_use(cache, *entry);
    if (where == PTIER_TIER_L2) {
        ptier_tier *l2 = cache->tiers[PTIER_TIER_L2];
        l2->ops->touch(l2, &(ptier_ref){.hash = ref.hash, .revision = (*entry)->revision});
    }
    if (!in_l1) {
        pthread_mutex_lock(&cache->lock);
        if (l1)
            ptier_promote_locked(cache, *entry);
        else
            ptier_writeback_locked(cache, *entry);
        pthread_mutex_unlock(&cache->lock);
    }
    return PTIER_OK;
}

size_t
ptier_cache_get_many(ptier_cache *cache, const char *const *keys, size_t count,
                     ptier_entry **entries)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++)
        found += ptier_cache_get(cache, keys[i], &entries[i], NULL) == PTIER_OK;
    return found;
}

void
ptier_cache_read(const ptier_cache *cache, const ptier_entry *entry, ptier_record *record,
                 ptier_label labels[PTIER_LABELS_MAX])
{
    ptier_entry_view(entry, ptier_clock_boot(&cache->clock), record, labels);
}

uint64_t
ptier_cache_revision(const ptier_cache *cache)
{
    return atomic_load_explicit(&cache->revision, memory_order_acquire);
}
