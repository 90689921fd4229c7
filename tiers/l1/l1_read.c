/* Reads of the cache: the path of each hit, where instructions count, and locked ones most. */
#include "l1/l1_internal.h"

enum { FETCHED_BYTES = 256 }; /* of an entry: most are no larger */

/* As ptier_map_find does it, but all of it in line. */
static inline ptier_entry *
find_key_locked(const ptier_l1_shard *s, const ptier_l1_key *key)
{
    const ptier_map *map = &s->map;
    if (map->count == 0)
        return NULL;
    for (size_t i = key->hash & map->mask; map->cells[i].value; i = (i + 1) & map->mask) {
        ptier_entry *entry = map->cells[i].value;
        if (map->cells[i].hash != key->hash)
            continue;
        __builtin_prefetch(&entry->refs, 1); /* another line than the key's, mostly */
        if (ptier_entry_has_key(entry, key->text, key->length))
            return entry;
    }
    return NULL;
}

/* What is found is used, and so counts as that in L1's order, also where it may have expired. The
 * locked instruction comes last: what follows it waits for it. */
static inline __attribute__((always_inline)) ptier_l1_found
read_locked(const ptier_l1 *l1, ptier_l1_shard *s, ptier_look look, const ptier_l1_key *key)
{
    ptier_l1_found found = {.entry = find_key_locked(s, key)};
    if (!found.entry)
        return found;
    ptier_l1_use_locked(l1, s, found.entry);
    found.hit = found.entry->expires_boot_ms > look.live_after_ms;
    if (found.hit)
        ptier_entry_count_uses(found.entry, 1, look.wall_ms);
    (void)ptier_entry_share(found.entry);
    return found;
}

/* The lock keeps other writers away. */
static inline void
count_hits_locked(ptier_l1_shard *s, size_t hits)
{
    atomic_store_explicit(&s->hits, ptier_l1_figure(&s->hits) + hits, memory_order_relaxed);
}

ptier_l1_found
ptier_l1_read(ptier_tier *tier, ptier_look look, const ptier_l1_key *key)
{
    ptier_l1 *l1 = (ptier_l1 *)tier;
    ptier_l1_shard *s = ptier_l1_shard_at(l1, ptier_l1_number_of(l1, key->hash));
    pthread_mutex_lock(&s->lock);
    ptier_l1_found found = read_locked(l1, s, look, key);
    count_hits_locked(s, found.hit);
    pthread_mutex_unlock(&s->lock);
    return found;
}

/* Where the search for each key begins; then the entry there. */
static void
fetch_locked(const ptier_l1_shard *s, const ptier_l1_key *keys, const uint8_t *which, size_t count)
{
    const ptier_map *map = &s->map;
    for (size_t i = 0; i < count; i++)
        __builtin_prefetch(&map->cells[keys[which[i]].hash & map->mask]);
    for (size_t i = 0; i < count; i++) {
        const char *entry = map->cells[keys[which[i]].hash & map->mask].value;
        for (size_t at = 0; entry && at < FETCHED_BYTES; at += PTIER_L1_LINE)
            __builtin_prefetch(entry + at, 1);
    }
}

static void
read_group(ptier_l1 *l1, ptier_l1_shard *s, ptier_look look, const ptier_l1_key *keys,
           const uint8_t *which, size_t count, ptier_l1_found *found)
{
    size_t hits = 0;
    pthread_mutex_lock(&s->lock);
    if (s->map.count > 0 && count > 1)
        fetch_locked(s, keys, which, count);
    for (size_t i = 0; i < count; i++) {
        found[which[i]] = read_locked(l1, s, look, &keys[which[i]]);
        hits += found[which[i]].hit;
    }
    count_hits_locked(s, hits);
    pthread_mutex_unlock(&s->lock);
}

void
ptier_l1_read_many(ptier_tier *tier, ptier_look look, const ptier_l1_key *keys, size_t count,
                   ptier_l1_found *found)
{
    ptier_l1 *l1 = (ptier_l1 *)tier;
    uint8_t which[PTIER_L1_BATCH] = {0}; /* the keys, by shard */
    size_t ends[PTIER_L1_SHARDS_MAX + 1] = {0};
    for (size_t i = 0; i < count; i++)
        ends[ptier_l1_number_of(l1, keys[i].hash) + 1]++;
    for (size_t number = 1; number <= l1->shard_count; number++)
        ends[number] += ends[number - 1];
    for (size_t i = 0; i < count; i++)
        which[ends[ptier_l1_number_of(l1, keys[i].hash)]++] = (uint8_t)i;
    for (size_t number = 0, first = 0; number < l1->shard_count; first = ends[number++])
        if (ends[number] > first)
            read_group(l1, ptier_l1_shard_at(l1, number), look, keys, which + first,
                       ends[number] - first, found);
}

void
ptier_l1_count_uses(ptier_tier *tier, ptier_entry *entry, uint32_t count, int64_t last_ms)
{
    ptier_l1 *l1 = (ptier_l1 *)tier;
    ptier_l1_shard *s = ptier_l1_shard_at(l1, ptier_l1_number_of(l1, entry->hash));
    pthread_mutex_lock(&s->lock);
    ptier_entry_count_uses(entry, count, last_ms);
    pthread_mutex_unlock(&s->lock);
}

uint64_t
ptier_l1_hits(ptier_tier *tier)
{
    ptier_l1 *l1 = (ptier_l1 *)tier;
    uint64_t hits = 0;
    for (size_t i = 0; i < l1->shard_count; i++)
        hits += ptier_l1_figure(&ptier_l1_shard_at(l1, i)->hits);
    return hits;
}
