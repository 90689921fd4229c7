/* Finding an entry: which revision is current (index), and where that revision is (memory, L2, L3).
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cache_internal.h"

enum {
    CANDIDATES = 8, /* keys under one 64-bit hash; for more there is malloc */
    ATTEMPTS = 8,   /* an entry may move or change while we look */
};

static bool
has_revision(const void *value, const void *key)
{
    return ((const ptier_entry *)value)->revision == *(const uint64_t *)key;
}

ptier_entry *
ptier_entry_in(const ptier_map *map, uint64_t hash, uint64_t revision)
{
    return ptier_map_find(map, hash, has_revision, &revision);
}

ptier_entry *
ptier_find_in_memory_locked(ptier_cache *cache, uint64_t hash, uint64_t revision)
{
    ptier_entry *entry = ptier_entry_in(&cache->pending, hash, revision);
    if (!entry)
        entry = ptier_entry_in(&cache->writeback, hash, revision);
    return entry ? ptier_entry_retain(entry) : NULL;
}

/* The tier that an entry waiting in memory is on its way to. */
static ptier_tier_id
upper_disk_tier(const ptier_cache *cache)
{
    return cache->tiers[PTIER_TIER_L2] ? PTIER_TIER_L2 : PTIER_TIER_L3;
}

static ptier_status
read_disk_tiers(ptier_cache *cache, const ptier_ref *ref, ptier_entry **entry, ptier_tier_id *tier)
{
    ptier_status worst = PTIER_NOT_FOUND;
    for (int id = PTIER_TIER_L2; id <= PTIER_TIER_L3; id++) {
        ptier_tier *t = cache->tiers[id];
        if (!t)
            continue;
        ptier_status status = t->ops->get(t, ref, entry);
        if (!status) {
            /* What is only in the log is there for L3. */
            bool for_l3 = id == PTIER_TIER_L2 && cache->tiers[PTIER_TIER_L3] &&
                          !ptier_l2_resident(t, ref->hash, ref->revision);
            *tier = for_l3 ? PTIER_TIER_L3 : (ptier_tier_id)id;
            return PTIER_OK;
        }
        if (status == PTIER_NOT_FOUND)
            continue;
        if (status == PTIER_DATA_LOSS) /* the record's fault, not the tier's */
            ptier_count(&cache->count.errors[id], 1);
        else
            ptier_tier_read_failed(cache, (ptier_tier_id)id);
        if (worst == PTIER_NOT_FOUND || worst == PTIER_DATA_LOSS)
            worst = status; /* a tier that could not be read may have what another lost */
    }
    return worst;
}

/* `looked`: the index and memory were looked at just now, and L1 before: they need not be at first.
 */
static ptier_status
load_revision(ptier_cache *cache, uint64_t hash, uint64_t revision, bool looked,
              ptier_entry **entry, ptier_tier_id *tier)
{
    const ptier_ref ref = {.hash = hash, .revision = revision, .quiet = true};
    ptier_tier *l1 = cache->tiers[PTIER_TIER_L1];
    ptier_tier_id where = PTIER_TIER_L1;
    ptier_status status = l1 && !looked ? l1->ops->get(l1, &ref, entry) : PTIER_NOT_FOUND;
    for (int attempt = 0; status && attempt < ATTEMPTS; attempt++) {
        bool current = true;
        *entry = NULL;
        if (!looked || attempt > 0) {
            pthread_mutex_lock(&cache->lock);
            current = ptier_index_find(cache->index, hash, revision) != PTIER_SLOT_NONE;
            *entry = ptier_find_in_memory_locked(cache, hash, revision);
            pthread_mutex_unlock(&cache->lock);
        }
        if (*entry) {
            where = upper_disk_tier(cache);
            status = PTIER_OK;
            break;
        }
        if (!current) {
            status = PTIER_NOT_FOUND;
            break;
        }
        status = read_disk_tiers(cache, &ref, entry, &where);
        if (status && status != PTIER_NOT_FOUND)
            break; /* damaged everywhere, or a disk that fails: once more gives no more */
        if (status == PTIER_NOT_FOUND) /* on its way between two tiers? L1 may have got it back */
            status = attempt + 1 == ATTEMPTS ? PTIER_DATA_LOSS
                     : l1                    ? l1->ops->get(l1, &ref, entry)
                                             : PTIER_NOT_FOUND;
    }
    if (tier)
        *tier = where;
    return status;
}

ptier_status
ptier_load_revision(ptier_cache *cache, uint64_t hash, uint64_t revision, ptier_entry **entry,
                    ptier_tier_id *tier)
{
    return load_revision(cache, hash, revision, false, entry, tier);
}

/* All revisions under a hash: in `few` when they fit, else malloc'ed. NULL: no memory for them. */
static uint64_t *
candidates_locked(ptier_cache *cache, uint64_t hash, uint64_t few[CANDIDATES], size_t *count)
{
    size_t room = CANDIDATES;
    uint64_t *revisions = few;
    *count = 0;
    for (uint32_t id = ptier_index_first(cache->index, hash); id != PTIER_SLOT_NONE;
         id = ptier_index_next(cache->index, id)) {
        if (*count == room) {
            uint64_t *grown =
                realloc(revisions == few ? NULL : revisions, 2 * room * sizeof *grown);
            if (!grown) {
                if (revisions != few)
                    free(revisions);
                return NULL;
            }
            if (revisions == few)
                memcpy(grown, few, CANDIDATES * sizeof *few);
            revisions = grown;
            room *= 2;
        }
        revisions[(*count)++] = ptier_index_slot(cache->index, id)->revision;
    }
    return revisions;
}

static int
newest_first(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* One look: OK, NOT_FOUND for sure, ABORTED when something moved, or an error. `below`: L1 has just
 * been found not to have it. */
static ptier_status
look_once(ptier_cache *cache, const char *key, uint64_t hash, bool below, ptier_entry **entry,
          ptier_tier_id *tier)
{
    uint64_t few[CANDIDATES];
    size_t count;
    ptier_status worst = PTIER_NOT_FOUND;
    *entry = NULL;
    pthread_mutex_lock(&cache->lock);
    if (cache->indexing) {
        pthread_mutex_unlock(&cache->lock);
        worst = ptier_settle_hash(cache, hash);
        if (!worst || worst == PTIER_DATA_LOSS)
            worst = PTIER_NOT_FOUND;
        pthread_mutex_lock(&cache->lock);
    }
    /* Three tables, none of which is in the processor's cache: side by side. */
    ptier_map_prefetch(&cache->pending, hash);
    ptier_map_prefetch(&cache->writeback, hash);
    uint64_t *revisions = candidates_locked(cache, hash, few, &count);
    if (!revisions) {
        pthread_mutex_unlock(&cache->lock);
        return PTIER_RESOURCE_EXHAUSTED;
    }
    below &= count == 1;
    ptier_entry *in_memory = below ? ptier_find_in_memory_locked(cache, hash, *revisions) : NULL;
    pthread_mutex_unlock(&cache->lock);
    if (count > 1)
        qsort(revisions, count, sizeof *revisions, newest_first);
    bool moved = false;
    for (size_t i = 0; i < count && !*entry; i++) {
        ptier_status status = PTIER_OK;
        if (in_memory) {
            *entry = in_memory; /* the only one */
            if (tier)
                *tier = upper_disk_tier(cache);
        } else {
            status = load_revision(cache, hash, revisions[i], below, entry, tier);
        }
        moved |= status == PTIER_NOT_FOUND;
        if (status == PTIER_DATA_LOSS)
            ptier_lose_record(cache, hash, revisions[i], count == 1 ? key : NULL);
        else if (status && status != PTIER_NOT_FOUND)
            worst = status;
        if (status) {
            *entry = NULL;
        } else if (strcmp(ptier_entry_key(*entry), key) != 0) {
            ptier_entry_release(*entry); /* another key with this hash */
            *entry = NULL;
        }
    }
    if (revisions != few)
        free(revisions);
    if (*entry)
        return PTIER_OK;
    return moved ? PTIER_ABORTED : worst;
}

static ptier_status
load_current(ptier_cache *cache, const char *key, uint64_t hash, bool below, ptier_entry **entry,
             ptier_tier_id *tier)
{
    ptier_status status = PTIER_ABORTED;
    for (int attempt = 0; status == PTIER_ABORTED && attempt < ATTEMPTS; attempt++)
        status = look_once(cache, key, hash, below && attempt == 0, entry, tier);
    return status == PTIER_ABORTED ? PTIER_NOT_FOUND : status;
}

ptier_status
ptier_load_current(ptier_cache *cache, const char *key, uint64_t hash, ptier_entry **entry,
                   ptier_tier_id *tier)
{
    return load_current(cache, key, hash, false, entry, tier);
}

ptier_status
ptier_load_below(ptier_cache *cache, const char *key, uint64_t hash, ptier_entry **entry,
                 ptier_tier_id *tier)
{
    return load_current(cache, key, hash, true, entry, tier);
}
