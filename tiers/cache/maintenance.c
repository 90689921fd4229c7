/*
 * The maintenance thread: removes what has expired, writes back what left L1, reserves revisions,
 * compacts L2 in small steps.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cache/cache_internal.h"

enum {
    EXPIRY_BATCH = 128, /* changed in one hold of the change lock */
    WRITEBACK_BATCH = 256,
    EXPIRY_ROUNDS = 64,   /* batches before other work gets its turn */
    WRITEBACK_ROUNDS = 8, /* in a period: 20,000 entries a second */
    STATE_RETRY_MS = 1000,
    STATE_PATIENCE_MS = 5000, /* of those who wait for it */
    STATE_WAIT_MS = 200,
    COMPACT_STEPS = 4, /* in one round, each as leader of the log group for itself */
};

typedef struct due_item {
    uint64_t hash, revision;
} due_item;

/* ---- expiry ---- */

static size_t
collect_due_locked(ptier_cache *cache, size_t skip, due_item items[EXPIRY_BATCH])
{
    uint32_t slots[EXPIRY_BATCH];
    ptier_index_advance(cache->index, ptier_clock_boot(&cache->clock));
    size_t count = ptier_index_due(cache->index, skip, slots, EXPIRY_BATCH);
    for (size_t i = 0; i < count; i++) {
        const ptier_slot *slot = ptier_index_slot(cache->index, slots[i]);
        items[i] = (due_item){slot->hash, slot->revision};
    }
    return count;
}

/* Returns how many have left the index. */
static size_t
expire_batch(ptier_cache *cache, const due_item *items, size_t count)
{
    ptier_entry *entries[EXPIRY_BATCH];
    size_t gone = 0;
    for (size_t i = 0; i < count; i++) {
        ptier_status status = ptier_settle_hash(cache, items[i].hash);
        if (!status)
            status =
                ptier_load_revision(cache, items[i].hash, items[i].revision, &entries[i], NULL);
        if (status)
            entries[i] = NULL;
        if (status == PTIER_DATA_LOSS)
            ptier_lose_record(cache, items[i].hash, items[i].revision, NULL);
        gone += status == PTIER_DATA_LOSS || status == PTIER_NOT_FOUND;
    }
    pthread_mutex_lock(&cache->lock);
    /* Without waiting: this thread is one of those that make room. What stays is due again. */
    ptier_status status = ptier_room_now_locked(cache, count) ? PTIER_OK : PTIER_RESOURCE_EXHAUSTED;
    for (size_t i = 0; !status && i < count; i++) {
        if (!entries[i] || !ptier_is_current_locked(cache, entries[i]))
            continue;
        status = ptier_change_remove_locked(cache, entries[i], PTIER_REASON_TTL);
        gone += !status;
    }
    pthread_mutex_unlock(&cache->lock);
    for (size_t i = 0; i < count; i++)
        ptier_entry_release(entries[i]);
    return gone;
}

size_t
ptier_expire(ptier_cache *cache)
{
    due_item items[EXPIRY_BATCH];
    size_t gone = 0, count, passed = 0;
    do { /* past those that cannot be read now */
        pthread_mutex_lock(&cache->lock);
        count = cache->stopping ? 0 : collect_due_locked(cache, passed, items);
        pthread_mutex_unlock(&cache->lock);
        if (count)
            gone = expire_batch(cache, items, count);
        passed += count;
    } while (count && gone == 0);
    return gone;
}

/* ---- write-back ---- */

/*
 * Takes owned references over from the map. Until they are written they can be found as pending:
 * the tiers below still have older figures. What is used from now on is dirty again: it may come
 * too late for one of the tiers.
 */
static size_t
take_writeback_locked(ptier_cache *cache, ptier_entry *entries[WRITEBACK_BATCH],
                      bool dirty[WRITEBACK_BATCH])
{
    size_t count = 0;
    for (size_t i = 0;
         cache->writeback.cells && i <= cache->writeback.mask && count < WRITEBACK_BATCH;) {
        ptier_entry *entry = cache->writeback.cells[i].value;
        if (entry) {
            ptier_map_remove(&cache->writeback, entry->hash, entry); /* look at this cell again */
            PTIER_IGNORE(ptier_map_insert(&cache->pending, entry->hash, entry)); /* no memory */
            dirty[count] = atomic_exchange(&entry->usage_dirty, 0);
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
    ptier_tier *l2 = cache->tiers[PTIER_TIER_L2];
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
        bool refresh = ptier_l2_resident(l2, entry->hash, entry->revision);
        if (ptier_l2_admit(l2, &op, &error))
            ptier_count(&cache->count.errors[PTIER_TIER_L2], 1); /* it is below, too */
        else if (!refresh && cache->tiers[PTIER_TIER_L1])
            ptier_count(&cache->count.demotions[PTIER_TIER_L1], 1);
        else if (!refresh) /* without L1, what comes is what L3 had to give */
            ptier_count(&cache->count.promotions[PTIER_TIER_L2], 1);
        ptier_sealed_release(sealed);
    }
}

/* L3's thread writes the figures, as it writes everything there. */
static void
pass_usage_on(ptier_cache *cache, ptier_entry **entries, const bool *dirty, size_t count)
{
    pthread_mutex_lock(&cache->lock);
    bool wanted =
        ptier_tier_active(cache, PTIER_TIER_L3) && cache->usage_queue.count < WRITEBACK_MAX;
    for (size_t i = 0; i < count; i++) {
        const ptier_op op = {
            .kind = PTIER_OP_PUT, .revision = entries[i]->revision, .entry = entries[i]};
        /* No memory: figures are lost, no data. */
        bool queued = dirty[i] && wanted && ptier_op_list_push(&cache->usage_queue, &op);
        if (!queued)
            ptier_map_remove(&cache->pending, entries[i]->hash, entries[i]);
        ptier_entry_release(entries[i]);
    }
    if (wanted)
        pthread_cond_signal(&cache->l3_work);
    pthread_mutex_unlock(&cache->lock);
}

bool
ptier_write_back(ptier_cache *cache)
{
    ptier_entry *entries[WRITEBACK_BATCH];
    bool dirty[WRITEBACK_BATCH];
    for (int round = 0; round < WRITEBACK_ROUNDS; round++) {
        pthread_mutex_lock(&cache->lock);
        size_t count = take_writeback_locked(cache, entries, dirty);
        pthread_mutex_unlock(&cache->lock);
        if (count == 0)
            return false;
        admission a = {.entries = entries, .count = count};
        if (cache->tiers[PTIER_TIER_L2])
            ptier_lead_log(cache, admit_to_l2, &a);
        pass_usage_on(cache, entries, dirty, count);
        ptier_enforce_bound(cache, PTIER_TIER_L2);
    }
    return true;
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
        c->refs[c->count++] =
            (ptier_ref){.hash = item->hash, .revision = item->revision, .quiet = true};
    return true;
}

static bool
is_dirty(ptier_cache *cache, const ptier_entry *entry)
{
    (void)cache;
    return atomic_load_explicit(&entry->usage_dirty, memory_order_relaxed);
}

static bool
is_not_in_l2(ptier_cache *cache, const ptier_entry *entry)
{
    return !ptier_l2_resident(cache->tiers[PTIER_TIER_L2], entry->hash, entry->revision);
}

/* What is in L1, and wanted, goes to the tiers below as if L1 had given it up. */
static void
write_back_l1(ptier_cache *cache, bool (*wanted)(ptier_cache *cache, const ptier_entry *entry))
{
    ptier_tier *l1 = cache->tiers[PTIER_TIER_L1];
    ptier_error error;
    size_t room = l1->ops->count(l1) + 64;
    l1_content c = {.refs = malloc(room * sizeof *c.refs), .room = room};
    if (!c.refs)
        return; /* usage figures of this run are lost: no reason to fail */
    PTIER_IGNORE(l1->ops->scan(l1, note_ref, &c, &error)); /* memory: cannot fail */
    for (size_t i = 0; i < c.count; i++) {
        ptier_entry *entry;
        if (l1->ops->get(l1, &c.refs[i], &entry))
            continue;
        bool full = false;
        if (wanted(cache, entry)) {
            pthread_mutex_lock(&cache->lock);
            ptier_writeback_locked(cache, entry);
            full = cache->writeback.count >= WRITEBACK_MAX;
            pthread_mutex_unlock(&cache->lock);
        }
        while (full && ptier_write_back(cache))
            continue;
        ptier_entry_release(entry);
    }
    free(c.refs);
    while (ptier_write_back(cache))
        continue;
}

void
ptier_write_back_all(ptier_cache *cache)
{
    if (cache->tiers[PTIER_TIER_L1])
        write_back_l1(cache, is_dirty);
    while (ptier_write_back(cache))
        continue;
}

void
ptier_admit_l1(ptier_cache *cache)
{
    if (cache->tiers[PTIER_TIER_L1])
        write_back_l1(cache, is_not_in_l2);
}

/* ---- the thread ---- */

bool
ptier_await_state_locked(ptier_cache *cache, const bool *wanted)
{
    int64_t deadline = ptier_monotonic_ms() + STATE_PATIENCE_MS;
    while (*wanted && !cache->stopping && ptier_monotonic_ms() < deadline) {
        pthread_cond_signal(&cache->maintenance_work);
        ptier_wait_locked(cache, &cache->progress, STATE_WAIT_MS);
    }
    return !*wanted;
}

/* The state file, where it is wanted anew: a further block of revisions, a new store_id. */
static void
save_state(ptier_cache *cache)
{
    ptier_error error;
    pthread_mutex_lock(&cache->lock);
    bool reserve =
        cache->data_dir && cache->state.reserved - ptier_cache_revision(cache) < REVISION_BLOCK / 2;
    bool new_store = cache->new_store_wanted, rotated = cache->keys_rotated;
    bool joins = cache->l3_joins;
    ptier_state next = cache->state;
    pthread_mutex_unlock(&cache->lock);
    bool wanted = reserve || new_store || rotated || joins;
    if (!wanted || ptier_monotonic_ms() < cache->state_retry_ms)
        return;
    next.reserved += reserve ? REVISION_BLOCK : 0;
    next.tiers |= joins ? 1U << PTIER_TIER_L3 : 0;
    ptier_status status = new_store ? ptier_random_id(next.store_id, &error) : PTIER_OK;
    if (rotated && !status)
        status = ptier_quarantine_renew(cache, &error);
    if (rotated) {
        bool changed;
        next.key_count = 0;
        status = status ? status : ptier_state_add_key(&next, cache->keyring, &changed, &error);
    }
    if (!status)
        status = ptier_state_save(cache->data_dir, &next, &error);
    if (status) {
        ptier_cache_log(cache, PTIER_LOG_ERROR, "state", "cannot save the state file: %s",
                        error.message);
        cache->state_retry_ms = ptier_monotonic_ms() + STATE_RETRY_MS;
    }
    pthread_mutex_lock(&cache->lock);
    if (!status) {
        cache->state = next;
        cache->new_store_wanted &= !new_store; /* else it was asked for meanwhile */
        cache->keys_rotated &= !rotated;
        cache->l3_joins &= !joins;
    }
    cache->reserving = false;
    pthread_cond_broadcast(&cache->progress);
    pthread_mutex_unlock(&cache->lock);
}

static void
compact_step(ptier_cache *cache, void *context)
{
    bool *worked = context;
    ptier_error error;
    pthread_mutex_lock(&cache->lock);
    *worked = ptier_tier_active(cache, PTIER_TIER_L2);
    pthread_mutex_unlock(&cache->lock);
    if (!*worked)
        return;
    ptier_note_log(cache, 0); /* L3 may have come further since the last group */
    if (ptier_l2_compact(cache->tiers[PTIER_TIER_L2], worked, &error)) {
        *worked = false;
        ptier_tier_failed(cache, PTIER_TIER_L2);
        ptier_cache_log(cache, PTIER_LOG_WARN, "l2_compact", "compaction failed: %s",
                        error.message);
    }
}

/* True: there is more to do. */
static bool
compact(ptier_cache *cache)
{
    bool worked = cache->tiers[PTIER_TIER_L2] != NULL;
    for (int i = 0; worked && i < COMPACT_STEPS; i++)
        ptier_lead_log(cache, compact_step, &worked);
    return worked;
}

/* A few in a period: it is not urgent, and makes work for the log, compaction and L3. */
static void
write_back_in_turn(ptier_cache *cache)
{
    int64_t now_ms = ptier_monotonic_ms();
    if (now_ms < cache->writeback_ms)
        return;
    cache->writeback_ms = now_ms + MAINTENANCE_PERIOD_MS;
    PTIER_IGNORE(ptier_write_back(cache)); /* the rest in the next period */
}

/* Expiry first and fully, so that other work delays it by little. True: there is more to do. */
static bool
do_round(ptier_cache *cache)
{
    size_t expired = 1;
    ptier_clock_glance_renew(&cache->glance, &cache->clock);
    save_state(cache);
    for (int i = 0; expired && i < EXPIRY_ROUNDS; i++)
        expired = ptier_expire(cache);
    ptier_flush_log(cache); /* also changes that nobody waits for */
    ptier_quarantine_flush(cache);
    bool more = expired != 0;
    write_back_in_turn(cache);
    ptier_heal_l2(cache);
    more |= compact(cache);
    ptier_enforce_bound(cache, PTIER_TIER_L2);
    if (!more && cache->tiers[PTIER_TIER_L1])
        ptier_l1_gather(cache->tiers[PTIER_TIER_L1]);
    return more;
}

void *
ptier_maintenance_thread(void *context)
{
    ptier_cache *cache = context;
    pthread_mutex_lock(&cache->lock);
    while (!cache->stopping) {
        pthread_mutex_unlock(&cache->lock);
        bool more = do_round(cache);
        pthread_mutex_lock(&cache->lock);
        if (cache->stopping || more)
            continue;
        ptier_wait_locked(cache, &cache->maintenance_work, MAINTENANCE_PERIOD_MS);
    }
    pthread_mutex_unlock(&cache->lock);
    return NULL;
}
