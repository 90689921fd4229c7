/* Delete, health reports, clear: read what is there, then change it in one short critical section,
 * or look again. */
#include <stdlib.h>
#include <string.h>

#include "cache/cache_internal.h"

enum { ATTEMPTS = 1000 };

/* ---- delete ---- */

static ptier_status
remove_key(ptier_cache *cache, const char *key, ptier_reason reason, bool *removed,
           ptier_error *error)
{
    uint64_t hash = cache->hash_key(key);
    *removed = false;
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        ptier_entry *old;
        ptier_status status = ptier_load_current(cache, key, hash, &old, NULL);
        if (status == PTIER_NOT_FOUND)
            return PTIER_OK;
        if (status) { /* what a disk hides can be deleted all the same */
            old = ptier_blind_current(cache, key, hash);
            if (!old)
                return ptier_fail(error, status, "cannot read the entry from any tier");
        }
        pthread_mutex_lock(&cache->lock);
        bool current = ptier_is_current_locked(cache, old);
        if (current) {
            bool expired = ptier_entry_expired(old, ptier_clock_boot(&cache->clock));
            status = ptier_change_room_locked(cache, 1, true, error);
            current = ptier_is_current_locked(cache, old); /* waiting for room gave the lock up */
            if (!status && current)
                status =
                    ptier_change_remove_locked(cache, old, expired ? PTIER_REASON_TTL : reason);
            *removed = !status && current && !expired;
        }
        pthread_mutex_unlock(&cache->lock);
        ptier_entry_release(old);
        if (status || current)
            return status;
    }
    return ptier_fail(error, PTIER_ABORTED, "the same key changes too quickly; try again");
}

ptier_status
ptier_cache_delete(ptier_cache *cache, const char *const *keys, size_t count,
                   ptier_durability durability, size_t *deleted, ptier_written *written,
                   ptier_error *error)
{
    ptier_status status = PTIER_OK;
    size_t gone = 0;
    for (size_t i = 0; !status && i < count; i++) {
        bool removed;
        status = remove_key(cache, keys[i], PTIER_REASON_DELETED, &removed, error);
        gone += removed;
    }
    ptier_count(&cache->count.deletes, gone);
    if (deleted)
        *deleted = gone;
    ptier_commit(cache, ptier_cache_revision(cache), true, durability, written);
    return status;
}

/* ---- health ---- */

typedef enum verdict {
    STATISTIC, /* only latency and counts move */
    CHANGE,
    REMOVAL,
} verdict;

typedef struct assessment {
    verdict verdict;
    uint32_t failure_count;
    ptier_health health;
    bool needs_revalidation;
} assessment;

static assessment
assess(const ptier_cache *cache, const ptier_entry *entry, const ptier_report *report)
{
    assessment a = {
        .failure_count = entry->failure_count,
        .health = (ptier_health)entry->health,
        .needs_revalidation = entry->needs_revalidation,
    };
    uint32_t threshold = cache->options.failure_threshold;
    if (report->outcome == PTIER_REPORT_OK) {
        a.failure_count = 0;
        a.health = PTIER_HEALTH_HEALTHY;
        a.needs_revalidation = false;
    } else if (report->outcome == PTIER_REPORT_FAILED) {
        a.failure_count += a.failure_count < UINT32_MAX - 1;
        a.needs_revalidation = true;
        if (threshold && a.failure_count >= threshold) {
            a.verdict = REMOVAL;
            a.health = PTIER_HEALTH_DEAD;
            return a;
        }
        a.health = PTIER_HEALTH_DEGRADED;
    }
    if (a.failure_count != entry->failure_count || a.health != (ptier_health)entry->health ||
        a.needs_revalidation != (bool)entry->needs_revalidation)
        a.verdict = CHANGE;
    return a;
}

/* Latency as a moving average, and the counts behind the success rate. */
static void
count_report(ptier_entry *entry, const ptier_report *report)
{
    uint32_t sample = ptier_latency_us(report->latency_ms);
    if (sample) {
        uint32_t old = atomic_load_explicit(&entry->latency_us, memory_order_relaxed);
        uint32_t average = old ? (uint32_t)(((uint64_t)old * 4 + sample) / 5) : sample;
        atomic_store_explicit(&entry->latency_us, average, memory_order_relaxed);
    }
    if (report->outcome != PTIER_REPORT_UNKNOWN) {
        atomic_fetch_add_explicit(&entry->report_count, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&entry->success_count, report->outcome == PTIER_REPORT_OK,
                                  memory_order_relaxed);
    }
    atomic_store_explicit(&entry->usage_dirty, 1, memory_order_relaxed);
}

static ptier_status
rebuild(ptier_cache *cache, const ptier_entry *old, const assessment *a, ptier_entry **entry,
        ptier_sealed **sealed)
{
    ptier_record record;
    ptier_label labels[PTIER_LABELS_MAX];
    ptier_entry_view(old, 0, &record, labels);
    record.failure_count = a->failure_count;
    record.health = a->health;
    record.needs_revalidation = a->needs_revalidation;
    *entry = ptier_entry_create(&record, old->hash, old->expires_wall_ms, old->expires_boot_ms);
    if (!*entry)
        return PTIER_RESOURCE_EXHAUSTED;
    atomic_init(&(*entry)->usage_dirty, 1);
    return cache->data_dir ? ptier_sealed_create(cache->keyring, *entry, sealed) : PTIER_OK;
}

/* ABORTED: the entry changed meanwhile. */
static ptier_status
apply_assessment(ptier_cache *cache, ptier_entry *old, const ptier_report *report,
                 const assessment *a, uint64_t *revision, ptier_error *error)
{
    ptier_entry *entry = NULL;
    ptier_sealed *sealed = NULL;
    ptier_status status = PTIER_OK;
    if (a->verdict == CHANGE)
        status = rebuild(cache, old, a, &entry, &sealed);
    *revision = 0;
    if (status)
        return ptier_fail(error, status, "cannot record the report");
    if (entry)
        count_report(entry, report);
    pthread_mutex_lock(&cache->lock);
    if (a->verdict != STATISTIC)
        status = ptier_change_room_locked(cache, 1, a->verdict == REMOVAL, error);
    if (!status && !ptier_is_current_locked(cache, old))
        status = PTIER_ABORTED;
    if (!status && a->verdict == REMOVAL)
        status = ptier_change_remove_locked(cache, old, PTIER_REASON_HEALTH);
    else if (!status && a->verdict == CHANGE)
        status = ptier_change_put_locked(cache, entry, sealed, old, PTIER_EVENT_HEALTH);
    else if (!status) {
        count_report(old, report);
        ptier_writeback_locked(cache, old); /* if L1 has it too, that is one write more: cheap */
    }
    if (!status && a->verdict != STATISTIC)
        *revision = ptier_cache_revision(cache);
    pthread_mutex_unlock(&cache->lock);
    ptier_entry_release(entry);
    ptier_sealed_release(sealed);
    return status;
}

static ptier_status
report_one(ptier_cache *cache, const ptier_report *report, ptier_report_result *result,
           bool *changed, ptier_error *error)
{
    uint64_t hash = cache->hash_key(report->key);
    ptier_status status = PTIER_ABORTED;
    *result = (ptier_report_result){0};
    for (int attempt = 0; status == PTIER_ABORTED && attempt < ATTEMPTS; attempt++) {
        ptier_entry *old;
        status = ptier_load_current(cache, report->key, hash, &old, NULL);
        if (status == PTIER_NOT_FOUND)
            return PTIER_OK;
        if (status)
            return ptier_fail(error, status, "cannot read the entry from any tier");
        if (ptier_entry_expired(old, ptier_clock_boot(&cache->clock))) {
            ptier_entry_release(old);
            return PTIER_OK;
        }
        const assessment a = assess(cache, old, report);
        uint64_t revision;
        status = apply_assessment(cache, old, report, &a, &revision, error);
        *changed |= !status && a.verdict == CHANGE;
        ptier_entry_release(old);
        *result = (ptier_report_result){.found = true,
                                        .removed = a.verdict == REMOVAL,
                                        .failure_count = a.failure_count,
                                        .health = a.health,
                                        .revision = revision};
    }
    if (status == PTIER_ABORTED)
        return ptier_fail(error, status, "the same key changes too quickly; try again");
    return status;
}

ptier_status
ptier_cache_report(ptier_cache *cache, const ptier_report *reports, size_t count,
                   ptier_durability durability, ptier_report_result *results,
                   ptier_written *written, ptier_error *error)
{
    ptier_status worst = PTIER_OK;
    bool changed = false;
    for (size_t i = 0; i < count; i++) { /* one that cannot be read keeps none of the others */
        ptier_report_result result;
        ptier_error why;
        ptier_status status = report_one(cache, &reports[i], &result, &changed, &why);
        if (status && !worst && error)
            *error = why;
        worst = worst ? worst : status;
        if (results)
            results[i] = result;
    }
    ptier_count(&cache->count.reports, count);
    ptier_commit(cache, ptier_cache_revision(cache), !changed, durability, written);
    return worst;
}

/* ---- clear ---- */

static ptier_status
clear_all(ptier_cache *cache, uint64_t *cleared, uint64_t *revision, ptier_error *error)
{
    ptier_index *fresh;
    ptier_status status = ptier_index_create(ptier_clock_boot(&cache->clock), &fresh);
    if (status)
        return ptier_fail(error, status, "no memory to clear the cache");
    ptier_wait_indexed(cache); /* what is cleared is counted */
    pthread_mutex_lock(&cache->lock);
    status = ptier_change_room_locked(cache, 1, true, error);
    ptier_index *old = cache->index; /* only now: waiting for room gives the lock up */
    if (!status) {
        *cleared = ptier_index_count(old);
        status = ptier_change_clear_locked(cache, fresh);
        *revision = atomic_load_explicit(&cache->revision, memory_order_relaxed);
    }
    pthread_mutex_unlock(&cache->lock);
    ptier_index_destroy(status ? fresh : old);
    return status;
}

static void
clear_l1(ptier_cache *cache, uint64_t *cleared)
{
    ptier_tier *l1 = cache->tiers[PTIER_TIER_L1];
    const ptier_op op = {.kind = PTIER_OP_CLEAR, .revision = UINT64_MAX};
    ptier_error error;
    ptier_write_back_all(cache);
    pthread_mutex_lock(&cache->lock);
    *cleared = l1->ops->count(l1);
    PTIER_IGNORE(l1->ops->apply(l1, &op, 1, false, &error)); /* memory: cannot fail */
    pthread_mutex_unlock(&cache->lock);
    ptier_count(&cache->count.evictions[PTIER_TIER_L1], *cleared);
}

/* What L2 gives up L3 has, or will have from the log. */
static void
clear_l2(ptier_cache *cache, uint64_t *cleared)
{
    *cleared = ptier_l2_evict_all(cache->tiers[PTIER_TIER_L2]);
    ptier_count(&cache->count.evictions[PTIER_TIER_L2], *cleared);
}

static ptier_status
check_clear(ptier_cache *cache, ptier_tier_id tier, ptier_error *error)
{
    pthread_mutex_lock(&cache->lock);
    bool rebuild = cache->health[cache->lowest].rebuild;
    pthread_mutex_unlock(&cache->lock);
    if ((unsigned)tier > PTIER_TIER_L3 || (tier && !cache->tiers[tier]))
        return ptier_fail(error, PTIER_FAILED_PRECONDITION, "tier %s is not enabled",
                          ptier_tier_name(tier));
    if (tier && tier == cache->lowest)
        return ptier_fail(error, PTIER_FAILED_PRECONDITION,
                          "%s is the lowest tier: it is the whole cache; clear all tiers instead",
                          ptier_tier_name(tier));
    if (tier && rebuild)
        return ptier_fail(error, PTIER_UNAVAILABLE,
                          "%s has to be made anew from what the other tiers hold: try again later",
                          ptier_tier_name(cache->lowest));
    return PTIER_OK;
}

ptier_status
ptier_cache_clear(ptier_cache *cache, ptier_tier_id tier, ptier_durability durability,
                  uint64_t *cleared, uint64_t *revision, ptier_written *written, ptier_error *error)
{
    uint64_t count = 0, at = 0;
    ptier_status status = check_clear(cache, tier, error);
    if (written)
        *written = (ptier_written){0};
    if (status)
        return status;
    if (tier == PTIER_TIER_NONE) {
        status = clear_all(cache, &count, &at, error);
        if (!status)
            ptier_commit(cache, at, true, durability, written);
    } else if (tier == PTIER_TIER_L1) {
        clear_l1(cache, &count);
    } else {
        clear_l2(cache, &count);
    }
    if (cleared)
        *cleared = count;
    if (revision)
        *revision = at;
    return status;
}
