/* Get: L1 first, then whatever the index says, with promotion. */
#include <sched.h>

#include "cache/cache_internal.h"

enum { L1_SAMPLE = 64 };

static void
count_uses(ptier_entry *entry, uint32_t count, int64_t last_ms)
{
    atomic_fetch_add_explicit(&entry->access_count, count, memory_order_relaxed);
    if (atomic_load_explicit(&entry->last_access_ms, memory_order_relaxed) < last_ms)
        atomic_store_explicit(&entry->last_access_ms, last_ms, memory_order_relaxed);
    atomic_store_explicit(&entry->usage_dirty, 1, memory_order_relaxed);
}

static void
count_use(ptier_entry *entry, int64_t now_ms)
{
    atomic_fetch_add_explicit(&entry->access_count, 1, memory_order_relaxed);
    atomic_store_explicit(&entry->last_access_ms, now_ms, memory_order_relaxed);
    atomic_store_explicit(&entry->usage_dirty, 1, memory_order_relaxed);
}

static bool
expired(const ptier_cache *cache, const ptier_entry *entry, int64_t *now_ms)
{
    return ptier_clock_past(&cache->glance, &cache->clock, entry->expires_boot_ms, now_ms);
}

static ptier_read_stripe *
stripe_here(ptier_cache *cache)
{
    return &cache->count.reads[(unsigned)sched_getcpu() % PTIER_STRIPES];
}

/* Reading the clock twice would be most of the cost of a hit in L1: one in so many is timed. */
static bool
timed_also_in_l1(const ptier_read_stripe *stripe)
{
    uint64_t hits = atomic_load_explicit(&stripe->found[PTIER_TIER_L1], memory_order_relaxed);
    return hits % L1_SAMPLE == 0;
}

static void
count_read(ptier_cache *cache, ptier_read_stripe *stripe, ptier_tier_id found, uint64_t start)
{
    static const ptier_operation operations[PTIER_TIER_COUNT] = {
        PTIER_OPERATION_GET_MISS, PTIER_OPERATION_GET_L1, PTIER_OPERATION_GET_L2,
        PTIER_OPERATION_GET_L3};
    ptier_count(&stripe->found[found], 1);
    if (start)
        ptier_count_latency(&cache->count, operations[found], start);
}

/* An entry that was found, below L1. */
static void
bring_up(ptier_cache *cache, ptier_entry *entry, ptier_tier_id where)
{
    if (where == PTIER_TIER_L2) {
        ptier_tier *l2 = cache->tiers[PTIER_TIER_L2];
        l2->ops->touch(l2, &(ptier_ref){.hash = entry->hash, .revision = entry->revision});
    }
    pthread_mutex_lock(&cache->lock);
    if (cache->tiers[PTIER_TIER_L1])
        ptier_promote_locked(cache, entry);
    else
        ptier_writeback_locked(cache, entry);
    pthread_mutex_unlock(&cache->lock);
}

/* What follows a look into L1 that found something. False: it has expired, and is not cached. */
static inline bool
finish_hit(ptier_cache *cache, ptier_read_stripe *stripe, uint64_t start, ptier_entry **entry)
{
    int64_t now_ms;
    if (expired(cache, *entry, &now_ms)) {
        ptier_entry_release(*entry);
        *entry = NULL;
        return false;
    }
    count_use(*entry, now_ms);
    count_read(cache, stripe, PTIER_TIER_L1, start);
    return true;
}

/* What follows one that found nothing. */
static ptier_status
get_below(ptier_cache *cache, ptier_read_stripe *stripe, const ptier_ref *ref, uint64_t start,
          ptier_entry **entry, ptier_tier_id *tier)
{
    int64_t now_ms;
    ptier_status status = ptier_load_current(cache, ref->key, ref->hash, entry, tier);
    if (!status && expired(cache, *entry, &now_ms)) {
        ptier_entry_release(*entry);
        status = PTIER_NOT_FOUND;
    }
    if (status) {
        *tier = PTIER_TIER_NONE;
        *entry = NULL;
    } else {
        count_use(*entry, now_ms);
        if (*tier != PTIER_TIER_L1)
            bring_up(cache, *entry, *tier);
    }
    count_read(cache, stripe, *tier, status && status != PTIER_NOT_FOUND ? 0 : start);
    return status;
}

/* What follows a look into L1 that gave nothing; expired_in_l1: because that has expired. `start`:
 * 0 when a hit in L1 was not to be timed. */
static ptier_status
finish_get(ptier_cache *cache, ptier_read_stripe *stripe, const ptier_ref *ref, bool expired_in_l1,
           uint64_t start, ptier_entry **entry, ptier_tier_id *tier)
{
    if (!expired_in_l1)
        return get_below(cache, stripe, ref, start ? start : ptier_now_ns(), entry, tier);
    *tier = PTIER_TIER_NONE;
    count_read(cache, stripe, PTIER_TIER_NONE, start);
    return PTIER_NOT_FOUND;
}

bool
ptier_cache_try_get(ptier_cache *cache, const char *key, ptier_entry **entry)
{
    ptier_read_stripe *stripe = stripe_here(cache);
    uint64_t start = timed_also_in_l1(stripe) ? ptier_now_ns() : 0;
    const ptier_ref ref = {.hash = cache->hash_key(key), .key = key};
    ptier_tier *l1 = cache->tiers[PTIER_TIER_L1];
    *entry = NULL;
    return l1 && l1->ops->get(l1, &ref, entry) == PTIER_OK &&
           finish_hit(cache, stripe, start, entry);
}

ptier_status
ptier_cache_get(ptier_cache *cache, const char *key, ptier_entry **entry, ptier_tier_id *tier)
{
    ptier_read_stripe *stripe = stripe_here(cache);
    uint64_t start = timed_also_in_l1(stripe) ? ptier_now_ns() : 0;
    const ptier_ref ref = {.hash = cache->hash_key(key), .key = key};
    ptier_tier *l1 = cache->tiers[PTIER_TIER_L1];
    ptier_tier_id where = PTIER_TIER_L1;
    bool in_l1 = l1 && l1->ops->get(l1, &ref, entry) == PTIER_OK;
    ptier_status status = PTIER_OK;
    if (!in_l1 || !finish_hit(cache, stripe, start, entry))
        status = finish_get(cache, stripe, &ref, in_l1, start, entry, &where);
    if (tier)
        *tier = where;
    return status;
}

/* One look into L1 for all; at most PTIER_L1_BATCH. Returns how long one of them took. */
static uint64_t
look_into_l1(ptier_cache *cache, const char *const *keys, size_t count, ptier_ref *refs,
             ptier_entry **entries)
{
    uint64_t start = ptier_now_ns();
    for (size_t i = 0; i < count; i++) {
        refs[i] = (ptier_ref){.hash = cache->hash_key(keys[i]), .key = keys[i]};
        entries[i] = NULL;
    }
    if (cache->tiers[PTIER_TIER_L1])
        ptier_l1_get_many(cache->tiers[PTIER_TIER_L1], refs, count, entries);
    return (ptier_now_ns() - start) / count;
}

/* A batch of ptier_cache_get_many. */
static size_t
get_batch(ptier_cache *cache, const char *const *keys, size_t count, ptier_entry **entries,
          size_t *unreadable)
{
    ptier_ref refs[PTIER_L1_BATCH];
    ptier_read_stripe *stripe = stripe_here(cache);
    size_t found = 0;
    uint64_t each = look_into_l1(cache, keys, count, refs, entries);
    for (size_t i = 0; i < count; i++) {
        bool in_l1 = entries[i] != NULL;
        uint64_t start = in_l1 && timed_also_in_l1(stripe) ? ptier_now_ns() - each : 0;
        ptier_status status = PTIER_OK;
        ptier_tier_id where;
        if (!in_l1 || !finish_hit(cache, stripe, start, &entries[i]))
            status = finish_get(cache, stripe, &refs[i], in_l1, start, &entries[i], &where);
        found += status == PTIER_OK;
        *unreadable += status != PTIER_OK && status != PTIER_NOT_FOUND;
    }
    return found;
}

/* The same of ptier_cache_try_get_many. */
static size_t
try_batch(ptier_cache *cache, const char *const *keys, size_t count, ptier_entry **entries)
{
    ptier_ref refs[PTIER_L1_BATCH];
    ptier_read_stripe *stripe = stripe_here(cache);
    size_t found = 0;
    uint64_t each = look_into_l1(cache, keys, count, refs, entries);
    for (size_t i = 0; i < count; i++)
        if (entries[i]) {
            uint64_t start = timed_also_in_l1(stripe) ? ptier_now_ns() - each : 0;
            found += finish_hit(cache, stripe, start, &entries[i]);
        }
    return found;
}

size_t
ptier_cache_try_get_many(ptier_cache *cache, const char *const *keys, size_t count,
                         ptier_entry **entries)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i += PTIER_L1_BATCH) {
        size_t batch = count - i < PTIER_L1_BATCH ? count - i : PTIER_L1_BATCH;
        found += try_batch(cache, keys + i, batch, entries + i);
    }
    return found;
}

size_t
ptier_cache_get_many(ptier_cache *cache, const char *const *keys, size_t count,
                     ptier_entry **entries, size_t *unreadable)
{
    size_t found = 0, not_given = 0;
    for (size_t i = 0; i < count; i += PTIER_L1_BATCH) {
        size_t batch = count - i < PTIER_L1_BATCH ? count - i : PTIER_L1_BATCH;
        found += get_batch(cache, keys + i, batch, entries + i, &not_given);
    }
    if (unreadable)
        *unreadable = not_given;
    return found;
}

/* False: not cached, or not readable now. */
static bool
touch(ptier_cache *cache, const ptier_access *access)
{
    const ptier_ref ref = {.hash = cache->hash_key(access->key), .key = access->key};
    ptier_tier *l1 = cache->tiers[PTIER_TIER_L1];
    ptier_tier_id where = PTIER_TIER_L1;
    ptier_entry *entry;
    if ((!l1 || l1->ops->get(l1, &ref, &entry)) &&
        ptier_load_current(cache, access->key, ref.hash, &entry, &where))
        return false;
    int64_t now_ms;
    bool live = !expired(cache, entry, &now_ms);
    if (live) {
        count_uses(entry, access->count, now_ms - access->age_ms);
        if (where != PTIER_TIER_L1)
            bring_up(cache, entry, where);
    }
    ptier_entry_release(entry);
    return live;
}

size_t
ptier_cache_touch(ptier_cache *cache, const ptier_access *accesses, size_t count)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++)
        found += touch(cache, &accesses[i]);
    return found;
}

void
ptier_cache_read(const ptier_cache *cache, const ptier_entry *entry, ptier_record *record,
                 ptier_label labels[PTIER_LABELS_MAX])
{
    ptier_entry_view(entry, ptier_clock_boot(&cache->clock), record, labels);
}

int64_t
ptier_cache_moment(const ptier_cache *cache)
{
    return ptier_clock_boot(&cache->clock);
}

void
ptier_cache_read_at(const ptier_entry *entry, int64_t moment, ptier_record *record,
                    ptier_label labels[PTIER_LABELS_MAX])
{
    ptier_entry_view(entry, moment, record, labels);
}

uint64_t
ptier_cache_revision(const ptier_cache *cache)
{
    return atomic_load_explicit(&cache->revision, memory_order_acquire);
}
