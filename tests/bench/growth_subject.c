#include "growth_subject.h"

#include <stdlib.h>

#include "bare.h"
#include "cache/cache_internal.h"
#include "harness.h"

#define BATCH   1000
#define LIMIT_S 600

double
growth_open(growth_subject *g, growth_tiers tiers, size_t entries, const char *directory)
{
    const ptier_cache_hooks hooks = {.clock = &g->clock.clock};
    ptier_cache_options options;
    ptier_error error;
    ptier_test_clock_init(&g->clock);
    g->entries = entries;
    g->seed = 1;
    ptier_cache_options_init(&options);
    options.default_ttl_ms = 0;
    if (tiers == GROWTH_MEMORY)
        options.l1_entries = 2 * entries;
    else
        options.data_dir = directory;
    if (tiers == GROWTH_L3)
        options.l1_enabled = options.l2_enabled = false;
    double begun = bench_seconds();
    if (ptier_cache_open_with(&options, &hooks, &g->cache, &error) != PTIER_OK)
        bench_fail("growth: open: %s", error.message);
    double seconds = bench_seconds() - begun;
    if (ptier_cache_wait_started(g->cache, LIMIT_S * INT64_C(1000)) != PTIER_OK)
        bench_fail("growth: the start takes more than %d s", LIMIT_S);
    return seconds;
}

void
growth_close(growth_subject *g)
{
    (void)ptier_cache_close(g->cache); /* memory only, or the files go with the run */
}

void
growth_put(growth_subject *g, size_t first, size_t count, int64_t ttl_ms)
{
    for (size_t at = 0; at < count; at += BATCH) {
        char names[BATCH][BENCH_NAME_BYTES];
        size_t size = count - at < BATCH ? count - at : BATCH;
        ptier_record *records = bench_records(first + at, size);
        ptier_error error;
        for (size_t i = 0; i < size; i++) {
            bench_name(first + at + i, names[i]);
            records[i].key = names[i];
            records[i].ttl_ms = ttl_ms;
        }
        if (ptier_cache_put(g->cache, records, size, NULL, NULL, NULL, &error) != PTIER_OK)
            bench_fail("growth: put: %s", error.message);
        free(records);
    }
}

void
growth_settle(growth_subject *g)
{
    ptier_statistics now;
    double deadline = bench_seconds() + LIMIT_S;
    for (ptier_cache_statistics(g->cache, &now); now.pending_writes && bench_seconds() < deadline;
         ptier_cache_statistics(g->cache, &now))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    if (now.pending_writes)
        bench_fail("growth: L3 does not take %llu changes", (unsigned long long)now.pending_writes);
}

void
growth_settle_uses(growth_subject *g)
{
    double deadline = bench_seconds() + LIMIT_S;
    for (bool waiting = true; waiting; nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL)) {
        pthread_mutex_lock(&g->cache->lock);
        waiting =
            g->cache->writeback.count || g->cache->usage_queue.count || g->cache->pending.count;
        pthread_mutex_unlock(&g->cache->lock);
        if (waiting && bench_seconds() > deadline)
            bench_fail("growth: L3 does not take the figures of use");
    }
}

void
growth_remove(growth_subject *g, size_t count)
{
    for (size_t at = 0; at < count; at += BATCH) {
        char names[BATCH][BENCH_NAME_BYTES];
        const char *keys[BATCH];
        size_t size = count - at < BATCH ? count - at : BATCH, deleted;
        ptier_error error;
        for (size_t i = 0; i < size; i++) {
            bench_name(g->entries + at + i, names[i]);
            keys[i] = names[i];
        }
        if (ptier_cache_delete(g->cache, keys, size, PTIER_DURABILITY_DEFAULT, &deleted, NULL,
                               &error) != PTIER_OK)
            bench_fail("growth: delete: %s", error.message);
    }
}

void
growth_get(growth_subject *g, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char name[BENCH_NAME_BYTES];
        ptier_entry *entry;
        bench_name(bench_random(&g->seed) % g->entries, name);
        if (ptier_cache_get(g->cache, name, &entry, NULL) != PTIER_OK)
            bench_fail("growth: %s is missing", name);
        ptier_entry_release(entry);
    }
}

void
growth_expire(growth_subject *g)
{
    ptier_statistics now;
    double deadline = bench_seconds() + LIMIT_S;
    ptier_test_clock_advance(&g->clock, GROWTH_TTL_MS + 1000);
    do { /* the maintenance thread may be at it as well */
        while (ptier_expire(g->cache)) {
        }
        ptier_cache_statistics(g->cache, &now);
    } while (now.entries > g->entries && bench_seconds() < deadline);
    if (now.entries != g->entries)
        bench_fail("growth: %llu entries instead of %zu", (unsigned long long)now.entries,
                   g->entries);
}

void
growth_list(growth_subject *g, size_t count)
{
    ptier_entry *entries[BATCH];
    ptier_error error;
    size_t found;
    uint64_t cursor = 0;
    for (size_t listed = 0; listed < count; listed += found) {
        if (ptier_cache_list(g->cache, &cursor, NULL, PTIER_TIER_NONE, BATCH, entries, &found,
                             &error) != PTIER_OK)
            bench_fail("growth: list: %s", error.message);
        for (size_t i = 0; i < found; i++)
            ptier_entry_release(entries[i]);
        if (!cursor)
            return;
    }
}
