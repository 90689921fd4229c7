/* Get: L1 first, then whatever the index says, with promotion. */
#include <sched.h>
#include <string.h>

#include "cache/cache_internal.h"
#include "hash.h"

enum { L1_SAMPLE = 64 };

/* Of a look into L1. */
typedef enum l1_outcome {
    IN_L1,
    NOT_IN_L1,
    EXPIRED_IN_L1, /* which is not cached */
} l1_outcome;

static inline ptier_look
look_at_clock(const ptier_cache *cache)
{
    return ptier_clock_look(&cache->glance, &cache->clock);
}

/* ---- counting ---- */

/* Uses that L1 has not counted. */
static void
count_uses(ptier_cache *cache, ptier_entry *entry, uint32_t count, int64_t last_ms)
{
    ptier_tier *l1 = cache->tiers[PTIER_TIER_L1];
    if (l1) {
        ptier_l1_count_uses(l1, entry, count, last_ms);
        return;
    }
    atomic_fetch_add_explicit(&entry->access_count, count, memory_order_relaxed);
    atomic_store_explicit(&entry->last_access_ms, last_ms, memory_order_relaxed);
    atomic_store_explicit(&entry->usage_dirty, 1, memory_order_relaxed);
}

/* Where a read ended. L1 counts what it is sure of itself. `start` 0: it is not timed. */
static void
count_read(ptier_cache *cache, ptier_tier_id found, uint64_t start)
{
    static const ptier_operation operations[PTIER_TIER_COUNT] = {
        PTIER_OPERATION_GET_MISS, PTIER_OPERATION_GET_L1, PTIER_OPERATION_GET_L2,
        PTIER_OPERATION_GET_L3};
    ptier_count(&cache->count.reads[(unsigned)sched_getcpu() % PTIER_STRIPES].found[found], 1);
    if (start)
        ptier_count_latency(&cache->count, operations[found], start);
}

/* Hits of this thread, in any cache. The model spares a call; there is room for a word also where
 * the library is loaded later. */
static _Thread_local unsigned hits_in_l1 __attribute__((tls_model("initial-exec")));

/* Reading the clock twice would be most of the cost of a hit in L1: one in so many is timed. */
static inline bool
times_next_hit(void)
{
    return hits_in_l1 % L1_SAMPLE == 0;
}

static void __attribute__((noinline)) /* seldom called from where each instruction counts */
time_hit(ptier_cache *cache, uint64_t start)
{
    ptier_count_latency(&cache->count, PTIER_OPERATION_GET_L1, start);
}

/* ---- one ---- */

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

/* What L1 has found and is not sure of: time for a closer look. */
static l1_outcome
look_closer(ptier_cache *cache, ptier_look look, ptier_entry **entry)
{
    if (!*entry)
        return NOT_IN_L1;
    if (ptier_clock_past(&cache->clock, &look, (*entry)->expires_boot_ms)) {
        ptier_entry_release(*entry);
        *entry = NULL;
        return EXPIRED_IN_L1;
    }
    count_uses(cache, *entry, 1, look.wall_ms);
    count_read(cache, PTIER_TIER_L1, 0);
    return IN_L1;
}

/* What follows a look into L1. */
static inline l1_outcome
outcome_of(ptier_cache *cache, ptier_look look, ptier_l1_found found, uint64_t start,
           ptier_entry **entry)
{
    *entry = found.entry;
    if (!found.hit) {
        l1_outcome outcome = look_closer(cache, look, entry);
        if (outcome != IN_L1)
            return outcome;
    }
    hits_in_l1++;
    if (start)
        time_hit(cache, start);
    return IN_L1;
}

static inline ptier_l1_key
key_of(const ptier_cache *cache, const char *text)
{
    size_t length = strlen(text);
    return (ptier_l1_key){.hash = cache->hash_key == ptier_hash_key ? ptier_hash_bytes(text, length)
                                                                    : cache->hash_key(text),
                          .text = text,
                          .length = length};
}

static inline l1_outcome
look_into_l1(ptier_cache *cache, const ptier_l1_key *key, uint64_t start, ptier_entry **entry)
{
    ptier_tier *l1 = cache->tiers[PTIER_TIER_L1];
    if (!l1) {
        *entry = NULL;
        return NOT_IN_L1;
    }
    const ptier_look look = look_at_clock(cache);
    return outcome_of(cache, look, ptier_l1_read(l1, look, key), start, entry);
}

/* Whether this entry counts as found, now. */
static bool
use_below(ptier_cache *cache, ptier_entry *entry, ptier_tier_id tier)
{
    const ptier_look look = look_at_clock(cache);
    if (ptier_clock_past(&cache->clock, &look, entry->expires_boot_ms))
        return false;
    count_uses(cache, entry, 1, look.wall_ms);
    if (tier != PTIER_TIER_L1)
        bring_up(cache, entry, tier);
    return true;
}

/* What follows a look into L1 that found nothing. */
static ptier_status
get_below(ptier_cache *cache, const ptier_l1_key *key, uint64_t start, ptier_entry **entry,
          ptier_tier_id *tier)
{
    ptier_status status = ptier_load_below(cache, key->text, key->hash, entry, tier);
    if (!status && !use_below(cache, *entry, *tier)) {
        ptier_entry_release(*entry);
        status = PTIER_NOT_FOUND;
    }
    if (status) {
        *tier = PTIER_TIER_NONE;
        *entry = NULL;
    }
    count_read(cache, *tier, status && status != PTIER_NOT_FOUND ? 0 : start);
    return status;
}

/* What follows one that is no hit. `start`: 0 when one in L1 was not to be timed. */
static ptier_status __attribute__((noinline)) /* a hit does not pay for its registers */
finish_get(ptier_cache *cache, const ptier_l1_key *key, l1_outcome outcome, uint64_t start,
           ptier_entry **entry, ptier_tier_id *tier)
{
    if (outcome == NOT_IN_L1)
        return get_below(cache, key, start ? start : ptier_now_ns(), entry, tier);
    *tier = PTIER_TIER_NONE;
    count_read(cache, PTIER_TIER_NONE, start);
    return PTIER_NOT_FOUND;
}

bool
ptier_cache_try_get(ptier_cache *cache, const char *key, ptier_entry **entry)
{
    uint64_t start = times_next_hit() ? ptier_now_ns() : 0;
    const ptier_l1_key wanted = key_of(cache, key);
    return look_into_l1(cache, &wanted, start, entry) == IN_L1;
}

ptier_status
ptier_cache_get(ptier_cache *cache, const char *key, ptier_entry **entry, ptier_tier_id *tier)
{
    uint64_t start = times_next_hit() ? ptier_now_ns() : 0;
    const ptier_l1_key wanted = key_of(cache, key);
    ptier_tier_id where = PTIER_TIER_L1;
    ptier_status status = PTIER_OK;
    l1_outcome outcome = look_into_l1(cache, &wanted, start, entry);
    if (outcome != IN_L1)
        status = finish_get(cache, &wanted, outcome, start, entry, &where);
    if (tier)
        *tier = where;
    return status;
}

/* ---- many ---- */

/* A batch of reads at once: at most PTIER_L1_BATCH. */
typedef struct read_batch {
    ptier_look look;
    uint64_t each_ns; /* what one of them took */
    ptier_l1_key keys[PTIER_L1_BATCH];
    ptier_l1_found found[PTIER_L1_BATCH];
} read_batch;

static void
look_for_batch(ptier_cache *cache, const char *const *keys, size_t count, read_batch *b)
{
    uint64_t start = ptier_now_ns();
    for (size_t i = 0; i < count; i++) {
        b->keys[i] = key_of(cache, keys[i]);
        b->found[i] = (ptier_l1_found){.entry = NULL};
    }
    b->look = look_at_clock(cache);
    if (cache->tiers[PTIER_TIER_L1])
        ptier_l1_read_many(cache->tiers[PTIER_TIER_L1], b->look, b->keys, count, b->found);
    b->each_ns = (ptier_now_ns() - start) / count;
}

/* What follows for one of them. *start: as finish_get wants it. */
static inline l1_outcome
outcome_in_batch(ptier_cache *cache, const read_batch *b, size_t i, uint64_t *start,
                 ptier_entry **entry)
{
    *start = b->found[i].entry && times_next_hit() ? ptier_now_ns() - b->each_ns : 0;
    return outcome_of(cache, b->look, b->found[i], *start, entry);
}

/* A batch of ptier_cache_get_many. */
static size_t
get_batch(ptier_cache *cache, const char *const *keys, size_t count, ptier_entry **entries,
          size_t *unreadable)
{
    read_batch b;
    size_t found = 0;
    look_for_batch(cache, keys, count, &b);
    for (size_t i = 0; i < count; i++) {
        uint64_t start;
        ptier_status status = PTIER_OK;
        ptier_tier_id where;
        l1_outcome outcome = outcome_in_batch(cache, &b, i, &start, &entries[i]);
        if (outcome != IN_L1)
            status = finish_get(cache, &b.keys[i], outcome, start, &entries[i], &where);
        found += status == PTIER_OK;
        *unreadable += status != PTIER_OK && status != PTIER_NOT_FOUND;
    }
    return found;
}

/* The same of ptier_cache_try_get_many. */
static size_t
try_batch(ptier_cache *cache, const char *const *keys, size_t count, ptier_entry **entries)
{
    read_batch b;
    size_t found = 0;
    look_for_batch(cache, keys, count, &b);
    for (size_t i = 0; i < count; i++) {
        uint64_t start;
        found += outcome_in_batch(cache, &b, i, &start, &entries[i]) == IN_L1;
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
    const ptier_look look = look_at_clock(cache);
    bool live = !ptier_clock_past(&cache->clock, &look, entry->expires_boot_ms);
    if (live) {
        int64_t before_ms = atomic_load_explicit(&entry->last_access_ms, memory_order_relaxed);
        int64_t last_ms = look.wall_ms - access->age_ms;
        count_uses(cache, entry, access->count, before_ms > last_ms ? before_ms : last_ms);
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
