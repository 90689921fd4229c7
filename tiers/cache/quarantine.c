/*
 * Keys that were removed for HEALTH a short while ago: public lists bring the dead back every hour.
 * In memory here, under the change lock; on disk by quarantine_file.c. Only the end of its time or
 * a put of a caller's own lifts it: a cleared cache does not make the dead alive.
 */
#include <stdlib.h>
#include <string.h>

#include "cache/cache_internal.h"

static bool
has_key(const void *value, const void *key)
{
    return strcmp(((const ptier_quarantined *)value)->key, key) == 0;
}

static void
forget(ptier_map *map, ptier_quarantined *item)
{
    ptier_map_remove(map, item->hash, item);
    free(item);
}

/* Full: whoever has served its time goes; if nobody has, the newcomer is not remembered. */
static bool
make_room(ptier_map *map, int64_t now)
{
    if (map->count < QUARANTINE_MAX)
        return true;
    for (size_t i = 0; i <= map->mask;) {
        ptier_quarantined *item = map->cells[i].value;
        if (item && item->until_boot_ms <= now)
            forget(map, item); /* may shift another one into this cell: look again */
        else
            i++;
    }
    return map->count < QUARANTINE_MAX;
}

bool
ptier_quarantine_set(ptier_cache *cache, ptier_map *map, const char *key, int64_t until_boot_ms)
{
    uint64_t hash = cache->hash_key(key);
    ptier_quarantined *item = ptier_map_find(map, hash, has_key, key);
    if (!item && make_room(map, ptier_clock_boot(&cache->clock))) {
        item = malloc(sizeof *item + strlen(key) + 1);
        if (!item)
            return false;
        item->hash = hash;
        strcpy(item->key, key);
        if (!ptier_map_insert(map, hash, item)) {
            free(item);
            return false;
        }
    }
    if (item)
        item->until_boot_ms = until_boot_ms;
    return item != NULL;
}

void
ptier_quarantine_unset(ptier_cache *cache, ptier_map *map, const char *key)
{
    ptier_quarantined *item = ptier_map_find(map, cache->hash_key(key), has_key, key);
    if (item)
        forget(map, item);
}

void
ptier_quarantine_add_locked(ptier_cache *cache, const ptier_entry *entry)
{
    int64_t until = ptier_clock_boot(&cache->clock) + cache->options.health_quarantine_ms;
    const char *key = ptier_entry_key(entry);
    if (cache->options.health_quarantine_ms > 0 &&
        ptier_quarantine_set(cache, &cache->quarantine, key, until))
        ptier_quarantine_note_locked(cache, key, until);
}

bool
ptier_quarantined_locked(ptier_cache *cache, const char *key, uint64_t hash)
{
    ptier_quarantined *item = ptier_map_find(&cache->quarantine, hash, has_key, key);
    if (!item)
        return false;
    if (item->until_boot_ms > ptier_clock_boot(&cache->clock))
        return true;
    forget(&cache->quarantine, item);
    return false;
}

void
ptier_quarantine_lift_locked(ptier_cache *cache, const char *key, uint64_t hash)
{
    ptier_quarantined *item = ptier_map_find(&cache->quarantine, hash, has_key, key);
    if (!item)
        return;
    ptier_quarantine_note_locked(cache, key, 0);
    forget(&cache->quarantine, item);
}

void
ptier_quarantine_empty(ptier_map *map)
{
    for (size_t i = 0; map->cells && i <= map->mask; i++)
        free(map->cells[i].value);
    ptier_map_fini(map);
}

void
ptier_quarantine_fini(ptier_cache *cache)
{
    ptier_quarantine_empty(&cache->quarantine);
    ptier_buffer_fini(&cache->quarantine_log.news);
}
