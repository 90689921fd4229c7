/* Keys that were removed for HEALTH a short while ago: public lists bring the dead back every hour.
 * Under the change lock. */
#include <stdlib.h>
#include <string.h>

#include "cache/cache_internal.h"

static bool
has_key(const void *value, const void *key)
{
    return strcmp(((const ptier_quarantined *)value)->key, key) == 0;
}

static void
lift(ptier_cache *cache, ptier_quarantined *item)
{
    ptier_map_remove(&cache->quarantine, item->hash, item);
    free(item);
}

/* Full: whoever has served its time goes; if nobody has, the newcomer is not remembered. */
static bool
make_room(ptier_cache *cache, int64_t now)
{
    if (cache->quarantine.count < QUARANTINE_MAX)
        return true;
    for (size_t i = 0; i <= cache->quarantine.mask;) {
        ptier_quarantined *item = cache->quarantine.cells[i].value;
        if (item && item->until_boot_ms <= now)
            lift(cache, item); /* may shift another one into this cell: look again */
        else
            i++;
    }
    return cache->quarantine.count < QUARANTINE_MAX;
}

void
ptier_quarantine_add_locked(ptier_cache *cache, const ptier_entry *entry)
{
    int64_t now = ptier_clock_boot(&cache->clock);
    const char *key = ptier_entry_key(entry);
    if (cache->options.health_quarantine_ms <= 0 || !make_room(cache, now))
        return;
    ptier_quarantine_lift_locked(cache, key, entry->hash);
    ptier_quarantined *item = malloc(sizeof *item + strlen(key) + 1);
    if (!item)
        return;
    item->hash = entry->hash;
    item->until_boot_ms = now + cache->options.health_quarantine_ms;
    strcpy(item->key, key);
    if (!ptier_map_insert(&cache->quarantine, item->hash, item))
        free(item);
}

bool
ptier_quarantined_locked(ptier_cache *cache, const char *key, uint64_t hash)
{
    ptier_quarantined *item = ptier_map_find(&cache->quarantine, hash, has_key, key);
    if (!item)
        return false;
    if (item->until_boot_ms > ptier_clock_boot(&cache->clock))
        return true;
    lift(cache, item);
    return false;
}

void
ptier_quarantine_lift_locked(ptier_cache *cache, const char *key, uint64_t hash)
{
    ptier_quarantined *item = ptier_map_find(&cache->quarantine, hash, has_key, key);
    if (item)
        lift(cache, item);
}

void
ptier_quarantine_fini(ptier_cache *cache)
{
    for (size_t i = 0; cache->quarantine.cells && i <= cache->quarantine.mask; i++)
        free(cache->quarantine.cells[i].value);
    ptier_map_fini(&cache->quarantine);
}
