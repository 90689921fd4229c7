/*
 * Put: records are prepared without a lock (parsed, merged with what is cached, encrypted), then
 * made visible in one short critical section. A record whose key changed in between is prepared
 * again.
 */
#include <stdlib.h>

#include "cache/put_item.h"

enum {
    CHUNK = 16,
    ATTEMPTS = 1000, /* of one chunk: each makes at least one record visible */
};

/* ---- making visible ---- */

static bool
skipped_locked(ptier_cache *cache, ptier_put_item *item, const ptier_put_options *options)
{
    if (options->mode != PTIER_PUT_MODE_WARM) {
        ptier_quarantine_lift_locked(cache, item->key, item->hash);
        return false;
    }
    if (item->old && item->record->fetch_time_ms != 0 &&
        item->record->fetch_time_ms < item->old->fetch_time_ms)
        ptier_put_item_finish(item, PTIER_PUT_SKIPPED_OLDER, "");
    else if (ptier_quarantined_locked(cache, item->key, item->hash))
        ptier_put_item_finish(item, PTIER_PUT_SKIPPED_QUARANTINED, "");
    return item->done;
}

/* Whether what the item was merged with is still so. */
static bool
still_so_locked(ptier_cache *cache, const ptier_put_item *item)
{
    const ptier_entry *before = item->old ? item->old : item->hidden;
    if (before)
        return ptier_is_current_locked(cache, before);
    for (uint32_t id = ptier_index_first(cache->index, item->hash); id != PTIER_SLOT_NONE;
         id = ptier_index_next(cache->index, id)) {
        const ptier_slot *slot = ptier_index_slot(cache->index, id);
        if (slot->revision > item->seen)
            return false;
    }
    return true;
}

/* False: prepare it again. */
static bool
publish_locked(ptier_cache *cache, ptier_put_item *item, const ptier_put_options *options)
{
    if (!still_so_locked(cache, item))
        return false;
    ptier_entry *old = item->old;
    if (old && ptier_entry_expired(old, ptier_clock_boot(&cache->clock))) {
        /* Its time had ended before this put came: that is an end and a beginning. */
        if (ptier_change_remove_locked(cache, old, PTIER_REASON_TTL)) {
            ptier_put_item_finish(item, PTIER_PUT_REJECTED, "out of memory");
            return true;
        }
        ptier_entry_release(old);
        item->old = NULL;
        return false; /* without what it inherited */
    }
    if (skipped_locked(cache, item, options))
        return true;
    ptier_entry *before = old ? old : item->hidden;
    ptier_status status =
        ptier_change_put_locked(cache, item->entry, item->sealed, before,
                                before ? PTIER_EVENT_UPDATED : PTIER_EVENT_CREATED);
    if (status) {
        ptier_put_item_finish(item, PTIER_PUT_REJECTED, "out of memory");
        return true;
    }
    ptier_count(before ? &cache->count.updates : &cache->count.created, 1);
    ptier_put_item_finish(item, before ? PTIER_PUT_UPDATED : PTIER_PUT_CREATED, "");
    item->result.revision = item->entry->revision;
    return true;
}

/* An earlier record of the same key has to be prepared again: this one must not overtake it. */
static bool
postponed_before(const ptier_put_item *items, size_t at)
{
    for (size_t i = 0; i < at; i++)
        if (!items[i].done && items[i].hash == items[at].hash)
            return true;
    return false;
}

static ptier_status
publish(ptier_cache *cache, ptier_put_item *items, size_t count, const ptier_put_options *options,
        size_t *left, uint64_t *last, ptier_error *error)
{
    pthread_mutex_lock(&cache->lock);
    ptier_status status = ptier_change_room_locked(cache, 2 * count, false, error);
    *left = 0;
    for (size_t i = 0; !status && i < count; i++) {
        if (items[i].done)
            continue;
        if ((*left == 0 || !postponed_before(items, i)) &&
            publish_locked(cache, &items[i], options)) {
            if (items[i].result.revision > *last && items[i].result.outcome <= PTIER_PUT_UPDATED)
                *last = items[i].result.revision;
        } else {
            ++*left;
        }
    }
    pthread_mutex_unlock(&cache->lock);
    return status;
}

/* ---- the call ---- */

/* Most puts of a list are of new keys: those need no look-up of their own. While the index is being
 * read it does not know what is new. */
static void
look_ahead(ptier_cache *cache, ptier_put_item *items, size_t count)
{
    uint64_t hashes[CHUNK];
    uint32_t first[CHUNK];
    size_t wanted = 0;
    for (size_t i = 0; i < count; i++)
        if (!items[i].done)
            hashes[wanted++] = items[i].hash;
    pthread_mutex_lock(&cache->lock);
    bool known = !cache->indexing;
    ptier_index_first_of(cache->index, hashes, wanted, first);
    for (size_t i = 0; i < wanted; i++)
        ptier_map_prefetch(&cache->pending, hashes[i]);
    pthread_mutex_unlock(&cache->lock);
    for (size_t i = 0, k = 0; i < count; i++)
        if (!items[i].done)
            items[i].absent = first[k++] == PTIER_SLOT_NONE && known;
}

static ptier_status
put_chunk(ptier_cache *cache, ptier_put_item *items, size_t count, const ptier_put_options *options,
          uint64_t *last, ptier_error *error)
{
    size_t left = count;
    ptier_status status = PTIER_OK;
    for (int attempt = 0; !status && left && attempt < ATTEMPTS; attempt++) {
        const ptier_put_time now = {ptier_clock_wall(&cache->clock),
                                    ptier_clock_boot(&cache->clock)};
        uint64_t seen = ptier_cache_revision(cache); /* before the look */
        look_ahead(cache, items, count);
        for (size_t i = 0; i < count; i++) {
            items[i].seen = seen;
            if (!items[i].done)
                ptier_put_item_prepare(cache, &items[i], options, &now);
        }
        status = publish(cache, items, count, options, &left, last, error);
    }
    if (!status && left)
        status = ptier_fail(error, PTIER_ABORTED, "the same keys change too quickly; try again");
    return status;
}

static ptier_operation
operation_of(const ptier_cache *cache, ptier_durability durability)
{
    if (durability == PTIER_DURABILITY_DEFAULT)
        durability = cache->options.durability;
    return durability == PTIER_DURABILITY_MEMORY   ? PTIER_OPERATION_PUT_MEMORY
           : durability == PTIER_DURABILITY_LOGGED ? PTIER_OPERATION_PUT_LOGGED
                                                   : PTIER_OPERATION_PUT_SYNCED;
}

ptier_status
ptier_cache_put(ptier_cache *cache, const ptier_record *records, size_t count,
                const ptier_put_options *options, ptier_put_result *results, ptier_written *written,
                ptier_error *error)
{
    static const ptier_put_options defaults = {0};
    if (!options)
        options = &defaults;
    uint64_t start = ptier_now_ns();
    /* Memory of their size would come anew, page by page, with each call. */
    ptier_put_item *items = atomic_exchange(&cache->put_items, NULL);
    if (!items)
        items = malloc(CHUNK * sizeof *items);
    if (!items)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for the put");
    uint64_t last = 0;
    ptier_status status = PTIER_OK;
    size_t done = 0;
    while (!status && done < count) {
        size_t chunk = count - done < CHUNK ? count - done : CHUNK;
        for (size_t i = 0; i < chunk; i++)
            ptier_put_item_take(cache, &items[i], &records[done + i]);
        status = put_chunk(cache, items, chunk, options, &last, error);
        for (size_t i = 0; i < chunk; i++) {
            if (results)
                results[done + i] = items[i].result;
            ptier_put_item_drop(&items[i]);
        }
        done += chunk;
    }
    for (size_t i = done; results && i < count; i++)
        results[i] = (ptier_put_result){.outcome = PTIER_PUT_REJECTED, .message = "not tried"};
    free(atomic_exchange(&cache->put_items, items)); /* wiped as they were dropped */
    ptier_commit(cache, last, false, options->durability, written);
    if (!status)
        ptier_count_latency(&cache->count, operation_of(cache, options->durability), start);
    return status;
}
