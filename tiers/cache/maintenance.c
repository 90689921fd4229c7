/*
 * The maintenance thread: removes what has expired, writes back what left L1, reserves revisions,
 * compacts L2 in small steps. Also the bounds of L2 and L3, which whoever wrote to them enforces.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cache/cache_internal.h"

enum {
    EXPIRY_BATCH = 512,
    WRITEBACK_BATCH = 256,
    COMPACT_STEPS = 64, /* in one round, each as leader of the log group for itself */
};

typedef struct due_item {
    uint64_t hash, revision;
} due_item;

/* ---- expiry ---- */

static size_t
collect_due_locked(ptier_cache *cache, due_item items[EXPIRY_BATCH])
{
    uint32_t slots[EXPIRY_BATCH];
    ptier_index_advance(cache->index, ptier_clock_boot(&cache->clock));
    size_t count = ptier_index_due(cache->index, slots, EXPIRY_BATCH);
    for (size_t i = 0; i < count; i++) {
        const ptier_slot *slot = ptier_index_slot(cache->index, slots[i]);
        items[i] = (due_item){slot->hash, slot->revision};
    }
    return count;
}

static void
expire_batch(ptier_cache *cache, const due_item *items, size_t count)
{
    ptier_entry *entries[EXPIRY_BATCH];
    ptier_error error;
    for (size_t i = 0; i < count; i++)
        if (ptier_load_revision(cache, items[i].hash, items[i].revision, &entries[i], NULL))
            entries[i] = NULL;
    pthread_mutex_lock(&cache->lock);
    ptier_status status = ptier_change_room_locked(cache, count, &error);
    for (size_t i = 0; !status && i < count; i++) {
        if (!entries[i])
            (void)ptier_drop_lost_locked(cache, items[i].hash,
                                         items[i].revision); /* gone either way */
        else if (ptier_is_current_locked(cache, entries[i]))
            status = ptier_change_remove_locked(cache, entries[i], PTIER_REASON_TTL);
    }
    pthread_mutex_unlock(&cache->lock);
    for (size_t i = 0; i < count; i++)
        ptier_entry_release(entries[i]);
}

size_t
ptier_expire(ptier_cache *cache)
{
    due_item items[EXPIRY_BATCH];
    pthread_mutex_lock(&cache->lock);
    size_t count = cache->stopping ? 0 : collect_due_locked(cache, items);
    pthread_mutex_unlock(&cache->lock);
    if (count) {
        expire_batch(cache, items, count);
        ptier_flush_log(cache);
    }
    return count;
}

/* ---- write-back ---- */

/* Takes owned references over from the map. */
static size_t
take_writeback_locked(ptier_cache *cache, ptier_entry *entries[WRITEBACK_BATCH])
{
    size_t count = 0;
    for (size_t i = 0;
         cache->writeback.cells && i <= cache->writeback.mask && count < WRITEBACK_BATCH;) {
        ptier_entry *entry = cache->writeback.cells[i].value;
        if (entry) {
            ptier_map_remove(&cache->writeback, entry->hash, entry); /* look at this cell again */
            entries[count++] = entry;
        } else {
            i++;
        }
    }
    return count;
}

typedef struct admission {
    ptier_entry **entries;
    size_t count;
} admission;

/* As leader of the log: nothing can be logged for these keys meanwhile, so a current entry's line
 * stays behind none newer. */
static void
admit_to_l2(ptier_cache *cache, void *context)
{
    const admission *a = context;
    for (size_t i = 0; i < a->count; i++) {
        ptier_entry *entry = a->entries[i];
        ptier_error error;
        ptier_sealed *sealed = NULL;
        pthread_mutex_lock(&cache->lock);
        /* What is still queued for the log gets its line from there, and with it its place in the
         * chain of revisions. */
        bool current = ptier_is_current_locked(cache, entry) && entry->revision <= cache->logged &&
                       ptier_tier_active(cache, PTIER_TIER_L2);
        pthread_mutex_unlock(&cache->lock);
        if (!current || ptier_sealed_create(cache->keyring, entry, &sealed))
            continue;
        const ptier_op op = {
            .kind = PTIER_OP_PUT, .revision = entry->revision, .entry = entry, .sealed = sealed};
        if (ptier_l2_admit(cache->tiers[PTIER_TIER_L2], &op, &error))
            ptier_count(&cache->count.errors[PTIER_TIER_L2], 1); /* it is below, too */
        ptier_sealed_release(sealed);
    }
}

/* L3's thread writes the figures, as it writes everything there. */
static void
pass_usage_on(ptier_cache *cache, ptier_entry **entries, size_t count)
{
    pthread_mutex_lock(&cache->lock);
    bool wanted =
        ptier_tier_active(cache, PTIER_TIER_L3) && cache->usage_queue.count < WRITEBACK_MAX;
    for (size_t i = 0; i < count; i++) {
        const ptier_op op = {
            .kind = PTIER_OP_PUT, .revision = entries[i]->revision, .entry = entries[i]};
        bool dirty = atomic_exchange_explicit(&entries[i]->usage_dirty, 0, memory_order_relaxed);
        if (dirty && wanted && !ptier_op_list_push(&cache->usage_queue, &op))
            wanted = false; /* no memory: figures are lost, no data */
        ptier_entry_release(entries[i]);
    }
    if (wanted)
        pthread_cond_signal(&cache->l3_work);
    pthread_mutex_unlock(&cache->lock);
}

void
ptier_write_back(ptier_cache *cache)
{
    ptier_entry *entries[WRITEBACK_BATCH];
    for (;;) {
        pthread_mutex_lock(&cache->lock);
        size_t count = take_writeback_locked(cache, entries);
        pthread_mutex_unlock(&cache->lock);
        if (count == 0)
            return;
        admission a = {.entries = entries, .count = count};
        if (cache->tiers[PTIER_TIER_L2])
            ptier_lead_log(cache, admit_to_l2, &a);
        pass_usage_on(cache, entries, count);
        ptier_enforce_bound(cache, PTIER_TIER_L2);
        if (count < WRITEBACK_BATCH)
            return; /* what came meanwhile can wait for the next round */
    }
}

typedef struct l1_content {
    ptier_ref *refs;
    size_t count, room;
} l1_content;

static bool
note_ref(void *context, const ptier_scan_item *item)
{
    l1_content *c = context;
    if (c->count < c->room)
        c->refs[c->count++] = (ptier_ref){.hash = item->hash, .revision = item->revision};
    return true;
}

void
ptier_l1_write_back_all(ptier_cache *cache)
{
    ptier_tier *l1 = cache->tiers[PTIER_TIER_L1];
    ptier_error error;
    if (!l1)
        return;
    size_t room = l1->ops->count(l1) + 64;
    l1_content c = {.refs = malloc(room * sizeof *c.refs), .room = room};
    if (!c.refs)
        return; /* usage figures of this run are lost: no reason to fail */
    PTIER_IGNORE(l1->ops->scan(l1, note_ref, &c, &error)); /* memory: cannot fail */
    for (size_t i = 0; i < c.count; i++) {
        ptier_entry *entry;
        if (l1->ops->get(l1, &c.refs[i], &entry))
            continue;
        if (atomic_load_explicit(&entry->usage_dirty, memory_order_relaxed)) {
            pthread_mutex_lock(&cache->lock);
            ptier_writeback_locked(cache, entry);
            bool full = cache->writeback.count >= WRITEBACK_MAX;
            pthread_mutex_unlock(&cache->lock);
            if (full)
                ptier_write_back(cache);
        }
        ptier_entry_release(entry);
    }
    free(c.refs);
    ptier_write_back(cache);
}

/* ---- bounds ---- */

static bool
in_l1(ptier_cache *cache, const ptier_ref *ref)
{
    ptier_tier *l1 = cache->tiers[PTIER_TIER_L1];
    ptier_entry *entry;
    if (!l1 || l1->ops->get(l1, ref, &entry))
        return false;
    ptier_entry_release(entry);
    return true;
}

/* The lowest tier gives an entry up: it leaves the cache. NOT_FOUND: it had left already. */
static ptier_status
remove_for_capacity(ptier_cache *cache, const ptier_ref *ref)
{
    ptier_entry *entry;
    ptier_error error;
    ptier_status status = ptier_load_revision(cache, ref->hash, ref->revision, &entry, NULL);
    if (status)
        return status;
    pthread_mutex_lock(&cache->lock);
    status = ptier_change_room_locked(cache, 1, &error);
    if (!status && ptier_is_current_locked(cache, entry))
        status = ptier_change_remove_locked(cache, entry, PTIER_REASON_CAPACITY);
    pthread_mutex_unlock(&cache->lock);
    ptier_entry_release(entry);
    return status;
}

void
ptier_enforce_bound(ptier_cache *cache, ptier_tier_id id)
{
    ptier_tier *tier = cache->tiers[id];
    ptier_ref ref = {0};
    bool removed = false;
    size_t spared = 0;
    while (tier && tier->ops->victim(tier, &ref.hash, &ref.revision) == PTIER_OK) {
        if (id != cache->lowest) {
            tier->ops->drop(tier, ref.hash, ref.revision);
            ptier_count(&cache->count.evictions[id], 1);
        } else if (spared <= cache->options.l1_entries && in_l1(cache, &ref)) {
            tier->ops->touch(tier, &ref); /* hot above: not the one to go */
            spared++;
        } else {
            ptier_status status = remove_for_capacity(cache, &ref);
            if (status && status != PTIER_NOT_FOUND && status != PTIER_DATA_LOSS)
                break; /* no room for the change now, or closing: it stays until the next time */
            removed |= status == PTIER_OK;
            tier->ops->drop(tier, ref.hash, ref.revision);
        }
    }
    if (removed)
        ptier_flush_log(cache);
}

/* ---- the thread ---- */

static void
reserve_revisions(ptier_cache *cache)
{
    ptier_error error;
    pthread_mutex_lock(&cache->lock);
    bool wanted =
        cache->data_dir && cache->state.reserved - ptier_cache_revision(cache) < REVISION_BLOCK / 2;
    ptier_state next = cache->state;
    pthread_mutex_unlock(&cache->lock);
    if (!wanted)
        return;
    next.reserved += REVISION_BLOCK;
    ptier_status status = ptier_state_save(cache->data_dir, &next, &error);
    if (status)
        ptier_cache_log(cache, PTIER_LOG_ERROR, "state", "cannot reserve revisions: %s",
                        error.message);
    pthread_mutex_lock(&cache->lock);
    if (!status)
        cache->state.reserved = next.reserved; /* the store_id is read without the lock */
    cache->reserving = false;
    pthread_cond_broadcast(&cache->progress);
    pthread_mutex_unlock(&cache->lock);
}

static void
compact_step(ptier_cache *cache, void *context)
{
    bool *worked = context;
    ptier_error error;
    if (ptier_l2_compact(cache->tiers[PTIER_TIER_L2], worked, &error)) {
        *worked = false;
        ptier_count(&cache->count.errors[PTIER_TIER_L2], 1);
        ptier_cache_log(cache, PTIER_LOG_WARN, "l2_compact", "compaction failed: %s",
                        error.message);
    }
}

static void
compact(ptier_cache *cache)
{
    bool worked = cache->tiers[PTIER_TIER_L2] != NULL;
    for (int i = 0; worked && i < COMPACT_STEPS; i++)
        ptier_lead_log(cache, compact_step, &worked);
}

void *
ptier_maintenance_thread(void *context)
{
    ptier_cache *cache = context;
    pthread_mutex_lock(&cache->lock);
    while (!cache->stopping) {
        pthread_mutex_unlock(&cache->lock);
        reserve_revisions(cache);
        size_t expired = ptier_expire(cache);
        ptier_flush_log(cache); /* changes that nobody waits for */
        ptier_write_back(cache);
        compact(cache);
        pthread_mutex_lock(&cache->lock);
        if (cache->stopping || expired == EXPIRY_BATCH)
            continue; /* there is more */
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += MAINTENANCE_PERIOD_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        (void)pthread_cond_timedwait(&cache->maintenance_work, &cache->lock,
                                     &until); /* time-out: the next round */
    }
    pthread_mutex_unlock(&cache->lock);
    return NULL;
}
