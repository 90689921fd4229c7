#include "property/model_ops_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "support/sample_entry.h"

enum { DAY_MS = 86400000, SETTLE_MS = 10000 };

uint64_t
ptier_model_below(ptier_model_run *run, uint64_t limit)
{
    return ptier_test_random(&run->random, limit);
}

static ptier_durability
any_durability(ptier_model_run *run)
{
    switch (ptier_model_below(run, 40)) {
    case 0:
        return PTIER_DURABILITY_SYNCED;
    case 1:
    case 2:
    case 3:
        return PTIER_DURABILITY_MEMORY;
    default:
        return PTIER_DURABILITY_DEFAULT;
    }
}

static void
check_written(const ptier_model_run *run, ptier_durability asked, const ptier_written *written)
{
    ptier_durability expected = asked ? asked : PTIER_DURABILITY_LOGGED;
    if (run->tiers == 1)
        expected = PTIER_DURABILITY_MEMORY;
    PTIER_MODEL_CHECK(run, written->durability >= expected, "%s was asked for, %s reached",
                      ptier_durability_name(asked), ptier_durability_name(written->durability));
}

/* ---- puts ---- */

static void
make_restore(ptier_model_run *run, ptier_model_put *put)
{
    ptier_model_time now = ptier_model_now(run);
    put->restore = true;
    put->health = 1 + (ptier_health)ptier_model_below(run, 5);
    put->failures = (uint32_t)ptier_model_below(run, PTIER_MODEL_THRESHOLD);
    put->needs_revalidation = ptier_model_one_in(run, 2);
    put->accesses = 1 + ptier_model_below(run, 50);
    put->reports = ptier_model_below(run, 30);
    put->successes = put->reports / 2;
    put->last_access_ms = now.wall_ms + 10000 - (int64_t)ptier_model_below(run, 100000);
    put->ttl_ms = ptier_model_one_in(run, 4) ? 0 : 60000;
    put->expires_at_ms = put->ttl_ms && !ptier_model_one_in(run, 4)
                             ? now.wall_ms - 20000 + (int64_t)ptier_model_below(run, 120000)
                             : 0;
}

static ptier_model_put
any_put(ptier_model_run *run, int key)
{
    static const int64_t ttls[] = {0, 1, 1000, 60000, 240000};
    ptier_model_time now = ptier_model_now(run);
    ptier_model_put put = {
        .address = 1 + (uint32_t)ptier_model_below(run, 4000),
        .user = ptier_model_one_in(run, 2) ? 1 + (uint32_t)ptier_model_below(run, 3) : 0,
        .password = ptier_model_one_in(run, 2) ? 1 + (uint32_t)ptier_model_below(run, 100000) : 0,
        .source = (uint32_t)ptier_model_below(run, PTIER_MODEL_SOURCES + 1),
        .ttl_ms = ptier_model_one_in(run, 3) ? ttls[ptier_model_below(run, 5)] : PTIER_TTL_DEFAULT,
        .failures = ptier_model_one_in(run, 10) ? (uint32_t)ptier_model_below(run, 3)
                                                : PTIER_FAILURES_UNSTATED,
        .health = ptier_model_one_in(run, 8) ? 1 + (ptier_health)ptier_model_below(run, 5) : 0,
        .mode = ptier_model_one_in(run, 5) ? PTIER_PUT_MODE_WARM : PTIER_PUT_MODE_PUT,
        .invalid = ptier_model_one_in(run, 60),
        .inline_credentials = ptier_model_one_in(run, 5),
    };
    if (ptier_model_one_in(run, 3) && run->model.entries[key].address) /* the same proxy again */
        put.address = run->model.entries[key].address;
    for (int i = 0; i < 2; i++)
        put.labels[i] = ptier_model_one_in(run, 2) ? 1 + (uint32_t)ptier_model_below(run, 3) : 0;
    if (ptier_model_one_in(run, 3))
        put.fetch_time_ms = now.wall_ms - 50000 + (int64_t)ptier_model_below(run, 100000);
    if (ptier_model_derives_key(key))
        put.address = put.user = 0;
    return put;
}

/* All of one call: the mode is the call's. */
static void
put_keys(ptier_model_run *run, const int *keys, size_t count, ptier_durability durability,
         bool plain)
{
    ptier_model_intent *intents[PTIER_MODEL_BATCH];
    ptier_model_texts texts[PTIER_MODEL_BATCH];
    ptier_record records[PTIER_MODEL_BATCH];
    ptier_put_result results[PTIER_MODEL_BATCH];
    ptier_written written;
    ptier_error error = {0};
    bool restore = !plain && ptier_model_one_in(run, 10);
    ptier_put_options options = {.durability = durability, .restore = restore};
    ptier_model_begin(run, "put of %zu, the first is key %d", count, keys[0]);
    for (size_t i = 0; i < count; i++) {
        ptier_model_put put = any_put(run, keys[i]);
        if (i == 0 && !plain)
            options.mode = put.mode;
        put.mode = options.mode;
        put.invalid &= !plain;
        if (restore)
            make_restore(run, &put);
        intents[i] = ptier_model_intend(run, PTIER_MODEL_PUT, keys[i]);
        intents[i]->put = put;
        ptier_model_record(keys[i], &intents[i]->put, &texts[i], &records[i]);
    }
    ptier_status status =
        ptier_cache_put(run->cache, records, count, &options, results, &written, &error);
    ptier_model_check_ok(run, status, &error);
    check_written(run, durability, &written);
    for (size_t i = 0; i < count; i++)
        intents[i]->put_result = results[i];
    ptier_model_finish(run);
}

static void
put_some(ptier_model_run *run)
{
    int keys[PTIER_MODEL_BATCH];
    size_t count = ptier_model_one_in(run, 4) ? 1 + ptier_model_below(run, PTIER_MODEL_BATCH) : 1;
    for (size_t i = 0; i < count; i++)
        keys[i] = i && ptier_model_one_in(run, 4) ? keys[i - 1] : ptier_model_any_key(run);
    put_keys(run, keys, count, any_durability(run), false);
}

void
ptier_model_barrier(ptier_model_run *run)
{
    const int key = 0;
    put_keys(run, &key, 1, PTIER_DURABILITY_LOGGED, true);
    run->certain = run->model.entries[key].revision;
}

/* ---- deletes, reports, clears ---- */

static void
delete_some(ptier_model_run *run)
{
    char texts[PTIER_MODEL_BATCH][72];
    const char *keys[PTIER_MODEL_BATCH];
    size_t count = ptier_model_one_in(run, 3) ? 1 + ptier_model_below(run, PTIER_MODEL_BATCH) : 1,
           deleted, most;
    ptier_durability durability = any_durability(run);
    ptier_written written;
    ptier_error error = {0};
    ptier_model_begin(run, "delete of %zu", count);
    for (size_t i = 0; i < count; i++) {
        int key =
            i && ptier_model_one_in(run, 4) ? run->intents[i - 1].key : ptier_model_any_key(run);
        (void)ptier_model_intend(run, PTIER_MODEL_DELETE, key);
        ptier_model_key_text(key, texts[i]);
        keys[i] = texts[i];
    }
    ptier_status status =
        ptier_cache_delete(run->cache, keys, count, durability, &deleted, &written, &error);
    ptier_model_check_ok(run, status, &error);
    check_written(run, durability, &written);
    size_t expected = ptier_model_settle(run, &most);
    PTIER_MODEL_CHECK(run, deleted == expected, "%zu deleted, expected %zu", deleted, expected);
}

static void
report_some(ptier_model_run *run)
{
    char texts[PTIER_MODEL_BATCH][72];
    ptier_report reports[PTIER_MODEL_BATCH];
    ptier_report_result results[PTIER_MODEL_BATCH];
    size_t count = 1 + ptier_model_below(run, 4);
    ptier_durability durability = any_durability(run);
    ptier_written written;
    ptier_error error = {0};
    ptier_model_begin(run, "%zu reports", count);
    for (size_t i = 0; i < count; i++) {
        int key =
            i && ptier_model_one_in(run, 2) ? run->intents[i - 1].key : ptier_model_any_key(run);
        ptier_model_intent *in = ptier_model_intend(run, PTIER_MODEL_REPORT, key);
        in->outcome = ptier_model_one_in(run, 2) ? PTIER_REPORT_FAILED
                                                 : 1 + (ptier_outcome)ptier_model_below(run, 3);
        ptier_model_key_text(key, texts[i]);
        reports[i] = (ptier_report){.key = texts[i],
                                    .outcome = in->outcome,
                                    .latency_ms = (double)ptier_model_below(run, 1000)};
    }
    ptier_status status =
        ptier_cache_report(run->cache, reports, count, durability, results, &written, &error);
    ptier_model_check_ok(run, status, &error);
    check_written(run, durability, &written);
    for (size_t i = 0; i < count; i++)
        run->intents[i].report_result = results[i];
    ptier_model_finish(run);
}

void
ptier_model_clear(ptier_model_run *run)
{
    uint64_t least, most, cleared, revision;
    ptier_error error = {0};
    ptier_model_begin(run, "clear");
    ptier_model_count(run, &least, &most);
    uint64_t before = run->taken;
    run->clearing = true;
    ptier_model_check_ok(run,
                         ptier_cache_clear(run->cache, PTIER_TIER_NONE, any_durability(run),
                                           &cleared, &revision, NULL, &error),
                         &error);
    uint64_t removals = atomic_load(&run->told) - before - 1;
    ptier_model_finish(run);
    PTIER_MODEL_CHECK(run, cleared <= most && cleared + removals >= least, "%llu cleared of %llu",
                      (unsigned long long)cleared, (unsigned long long)least);
    PTIER_MODEL_CHECK(run, revision && revision <= run->revision, "revision %llu",
                      (unsigned long long)revision);
}

/* Upper tiers give up what they hold; nothing else happens. */
static void
clear_tier(ptier_model_run *run)
{
    ptier_tier_id tier = PTIER_TIER_L1 + (ptier_tier_id)ptier_model_below(run, 3);
    bool possible = run->tiers & 1 << (tier - 1) && tier != ptier_model_lowest(run);
    uint64_t cleared;
    ptier_error error = {0};
    ptier_model_begin(run, "clear of %s", ptier_tier_name(tier));
    ptier_status status =
        ptier_cache_clear(run->cache, tier, PTIER_DURABILITY_DEFAULT, &cleared, NULL, NULL, &error);
    PTIER_MODEL_CHECK(run, status == (possible ? PTIER_OK : PTIER_FAILED_PRECONDITION), "%s: %s",
                      ptier_status_text(status), error.message);
    ptier_model_finish(run);
}

/* ---- statistics and time ---- */

static bool
is_indexing(const ptier_model_run *run)
{
    pthread_mutex_lock(&run->cache->lock);
    bool indexing = run->cache->indexing;
    pthread_mutex_unlock(&run->cache->lock);
    return indexing;
}

static void
check_statistics(ptier_model_run *run)
{
    uint64_t least, most, least_after, most_after;
    ptier_statistics s;
    ptier_model_begin(run, "statistics");
    bool indexing = is_indexing(run); /* then the entries are an estimate */
    ptier_model_count(run, &least, &most);
    ptier_cache_statistics(run->cache, &s);
    ptier_model_finish(run);
    ptier_model_count(run, &least_after, &most_after);
    PTIER_MODEL_CHECK(run, indexing || (s.entries >= least_after && s.entries <= most),
                      "%llu entries, expected %llu to %llu", (unsigned long long)s.entries,
                      (unsigned long long)least_after, (unsigned long long)most);
    PTIER_MODEL_CHECK(run, s.hits + s.misses == run->reads, "%llu hits, %llu misses, %llu reads",
                      (unsigned long long)s.hits, (unsigned long long)s.misses,
                      (unsigned long long)run->reads);
    if (run->tiers == 1)
        PTIER_MODEL_CHECK(run, s.entries <= run->bounds[1], "L1 holds %llu",
                          (unsigned long long)s.entries);
}

/* As soon as L3 has followed it has one row an entry: not two of a key, none that is forgotten. */
static void
check_rows(ptier_model_run *run)
{
    ptier_statistics s;
    if (!(run->tiers & 4))
        return;
    ptier_model_begin(run, "wait for L3");
    for (int ms = 0;; ms++) {
        bool indexing = is_indexing(run);
        ptier_cache_statistics(run->cache, &s);
        if (!indexing && s.l3_lag == 0 && s.tiers[PTIER_TIER_L3].entries == s.entries)
            break;
        PTIER_MODEL_CHECK(run, ms < SETTLE_MS, "%llu entries, %llu rows, L3 is %llu behind",
                          (unsigned long long)s.entries,
                          (unsigned long long)s.tiers[PTIER_TIER_L3].entries,
                          (unsigned long long)s.l3_lag);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    ptier_model_finish(run);
}

void
ptier_model_await_bound(ptier_model_run *run)
{
    uint64_t bound = run->bounds[ptier_model_lowest(run)];
    ptier_statistics s;
    ptier_model_begin(run, "wait for the bound");
    for (int ms = 0; bound; ms++) {
        ptier_cache_statistics(run->cache, &s);
        if (s.entries <= bound)
            break;
        PTIER_MODEL_CHECK(run, ms < SETTLE_MS, "%llu entries stay, the bound is %llu",
                          (unsigned long long)s.entries, (unsigned long long)bound);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    ptier_model_finish(run);
}

static void
pass_time(ptier_model_run *run)
{
    int64_t ms = 1 + (int64_t)ptier_model_below(run, ptier_model_one_in(run, 10) ? 200000 : 3000);
    ptier_model_begin(run, "%lld ms pass", (long long)ms);
    ptier_test_clock_advance(&run->clock, ms);
    ptier_model_finish(run);
}

/* Somebody sets the wall clock: that is no reason for anything to expire, or to live longer. */
static void
step_wall_clock(ptier_model_run *run)
{
    int64_t ms = ptier_model_one_in(run, 2) ? DAY_MS : -DAY_MS;
    ptier_model_begin(run, "the wall clock steps by %lld ms", (long long)ms);
    atomic_fetch_add(&run->clock.wall_ms, ms);
    run->wall_step_ms += ms;
    ptier_model_finish(run);
}

/* ---- any ---- */

void
ptier_model_step(ptier_model_run *run)
{
    static const struct {
        unsigned weight;
        void (*step)(ptier_model_run *run);
    } steps[] = {
        {90, ptier_model_get_several},
        {250, put_some},
        {60, delete_some},
        {120, report_some},
        {50, ptier_model_pick},
        {30, ptier_model_list},
        {10, clear_tier},
        {1, ptier_model_clear},
        {30, pass_time},
        {3, step_wall_clock},
        {10, check_statistics},
        {3, check_rows},
    };
    uint64_t at = ptier_model_below(run, 1000);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        if (at < steps[i].weight) {
            steps[i].step(run);
            return;
        }
        at -= steps[i].weight;
    }
    ptier_model_get_one(run, ptier_model_any_key(run));
}
