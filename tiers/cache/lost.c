/*
 * Records that cannot be read: those that damage took leave the cache, with an event; those that a
 * failing disk only hides can still be overwritten and deleted.
 */
#include <inttypes.h>
#include <string.h>

#include "cache/cache_internal.h"

ptier_entry *
ptier_placeholder(const char *key, uint64_t hash, uint64_t revision)
{
    const ptier_record record = {
        .key = key, .url = "", .source = "", .health = PTIER_HEALTH_UNKNOWN, .revision = revision};
    ptier_entry *entry = ptier_entry_create(&record, hash, 0, PTIER_NEVER);
    if (entry)
        entry->url_at = entry->source_at; /* "" */
    return entry;
}

/* The key of a damaged record. False: what is left of it does not say. */
static bool
find_key(ptier_cache *cache, uint64_t hash, uint64_t revision, const char *hint,
         char key[PTIER_KEY_MAX + 1])
{
    ptier_tier *l2 = cache->tiers[PTIER_TIER_L2], *l3 = cache->tiers[PTIER_TIER_L3];
    if ((l3 && ptier_l3_peek_key(l3, hash, revision, key)) ||
        (l2 && ptier_l2_peek_key(l2, hash, revision, key)))
        return cache->hash_key(key) == hash;
    if (!hint)
        return false;
    (void)snprintf(key, PTIER_KEY_MAX + 1, "%s", hint); /* who asked for this hash knows its key */
    return true;
}

/* The revision up to which what is newer under the hash is of other keys than this one. */
static uint64_t
others_up_to(ptier_cache *cache, const char *key, uint64_t hash, uint64_t revision)
{
    for (;;) {
        uint64_t next = UINT64_MAX;
        ptier_entry *entry;
        pthread_mutex_lock(&cache->lock);
        for (uint32_t id = ptier_index_first(cache->index, hash); id != PTIER_SLOT_NONE;
             id = ptier_index_next(cache->index, id)) {
            uint64_t at = ptier_index_slot(cache->index, id)->revision;
            next = at > revision && at < next ? at : next;
        }
        pthread_mutex_unlock(&cache->lock);
        if (next == UINT64_MAX || ptier_load_revision(cache, hash, next, &entry, NULL))
            return revision;
        bool same = strcmp(ptier_entry_key(entry), key) == 0;
        ptier_entry_release(entry);
        if (same)
            return revision;
        revision = next;
    }
}

static bool
has_newer_locked(const ptier_cache *cache, uint64_t hash, uint64_t revision)
{
    for (uint32_t id = ptier_index_first(cache->index, hash); id != PTIER_SLOT_NONE;
         id = ptier_index_next(cache->index, id))
        if (ptier_index_slot(cache->index, id)->revision > revision)
            return true;
    return false;
}

void
ptier_lose_record(ptier_cache *cache, uint64_t hash, uint64_t revision, const char *hint)
{
    char key[PTIER_KEY_MAX + 1] = "";
    bool known = find_key(cache, hash, revision, hint, key);
    ptier_entry *gone = ptier_placeholder(known ? key : "", hash, revision);
    PTIER_IGNORE(
        ptier_settle_hash(cache, hash)); /* others under it may be readable; if not, they go too */
    uint64_t others = known ? others_up_to(cache, key, hash, revision) : revision;
    pthread_mutex_lock(&cache->lock);
    uint32_t slot = ptier_index_find(cache->index, hash, revision);
    bool lost = slot != PTIER_SLOT_NONE;
    if (lost)
        ptier_doubt_rows_locked(cache); /* without a key its row stays */
    if (lost && has_newer_locked(cache, hash, others)) {
        ptier_index_remove(cache->index, slot); /* only a stale state of the key */
        lost = false;
    } else if (lost && (!gone || !ptier_room_now_locked(cache, 1) ||
                        ptier_change_remove_locked(cache, gone, PTIER_REASON_CORRUPTION))) {
        ptier_index_remove(cache->index, slot); /* it is gone either way */
        ptier_count(&cache->count.removals[PTIER_REASON_CORRUPTION], 1);
    }
    pthread_mutex_unlock(&cache->lock);
    if (lost)
        ptier_cache_log(cache, PTIER_LOG_WARN, "record_lost",
                        "entry '%s', revision %" PRIu64
                        ", cannot be read from any tier: it is dropped",
                        known ? key : "?", revision);
    ptier_entry_release(gone);
}

ptier_entry *
ptier_blind_current(ptier_cache *cache, const char *key, uint64_t hash)
{
    uint64_t newest = 0;
    pthread_mutex_lock(&cache->lock);
    for (uint32_t id = ptier_index_first(cache->index, hash); id != PTIER_SLOT_NONE;
         id = ptier_index_next(cache->index, id)) {
        uint64_t revision = ptier_index_slot(cache->index, id)->revision;
        newest = revision > newest ? revision : newest;
    }
    if (newest)
        ptier_doubt_rows_locked(cache); /* another key's row stays if it is taken for this one's */
    pthread_mutex_unlock(&cache->lock);
    return newest ? ptier_placeholder(key, hash, newest) : NULL;
}
