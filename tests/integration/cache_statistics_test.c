/* What the cache counts, and that it adds up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/cache_box.h"
#include "support/sample_entry.h"

enum { THREADS = 8, READS_EACH = 150000, KEYS = 300 };

static ptier_test_box box;

static int
tear_down(void **state)
{
    (void)state;
    ptier_test_box_fini(&box);
    return 0;
}

static void
open_with(int tiers)
{
    ptier_test_box_init(&box, tiers);
    ptier_test_box_open(&box);
}

static void
close_but_the_last(int tiers)
{
    if (tiers != BOX_ALL)
        ptier_test_box_fini(&box);
}

static uint64_t
clear(ptier_tier_id tier)
{
    uint64_t cleared = 0;
    if (ptier_cache_clear(box.cache, tier, PTIER_DURABILITY_DEFAULT, &cleared, NULL, NULL,
                          &box.error))
        fail_msg("%s", box.error.message);
    return cleared;
}

static ptier_statistics
reset(void)
{
    ptier_statistics last;
    ptier_cache_statistics_reset(box.cache, &last);
    return last;
}

static uint64_t
all_removals(const ptier_statistics *s)
{
    uint64_t sum = 0;
    for (int reason = 0; reason < PTIER_REASON_COUNT; reason++)
        sum += s->removals[reason];
    return sum;
}

/* ---- reads ---- */

/* What reads imply for each tier, as statistics.h says it. */
static void
assert_reads_add_up(const ptier_statistics *s, uint64_t reads)
{
    uint64_t came = reads, hits = 0;
    assert_int_equal(s->hits + s->misses, reads);
    for (int id = PTIER_TIER_L1; id <= PTIER_TIER_L3; id++) {
        const ptier_tier_statistics *t = &s->tiers[id];
        assert_int_equal(t->hits + t->misses, t->enabled ? came : 0);
        came -= t->hits;
        hits += t->hits;
    }
    assert_int_equal(came, s->misses);
    assert_int_equal(hits, s->hits);
}

static void
each_read_counts_once_in_every_tier_that_was_asked(void **state)
{
    (void)state;
    for (int tiers = 1; tiers <= BOX_ALL; tiers++) {
        open_with(tiers);
        for (int i = 0; i < 20; i++)
            ptier_test_box_put(&box, i);
        BOX_AWAIT(ptier_test_box_statistics(&box).pending_writes == 0);
        if (tiers & BOX_L2 && tiers & BOX_L3)
            (void)clear(PTIER_TIER_L2);
        if (tiers & BOX_L1 && tiers != BOX_L1)
            (void)clear(PTIER_TIER_L1);
        uint64_t found[PTIER_TIER_COUNT] = {0};
        for (int i = 0; i < 60; i++)
            found[ptier_test_box_where(&box, i % 30)]++;
        ptier_statistics s = ptier_test_box_statistics(&box);
        assert_reads_add_up(&s, 60);
        assert_int_equal(s.misses, 20);
        assert_int_equal(s.misses, found[PTIER_TIER_NONE]);
        for (int id = PTIER_TIER_L1; id <= PTIER_TIER_L3; id++)
            assert_int_equal(s.tiers[id].hits, found[id]);
        close_but_the_last(tiers);
    }
}

static void
a_read_of_an_expired_entry_is_a_miss_in_every_tier(void **state)
{
    (void)state;
    open_with(BOX_ALL);
    ptier_test_box_put(&box, 1);
    ptier_test_clock_advance(&box.clock, box.options.default_ttl_ms + 1);
    assert_false(ptier_test_box_has(&box, 1));
    ptier_statistics s = ptier_test_box_statistics(&box);
    assert_reads_add_up(&s, 1);
    assert_int_equal(s.misses, 1);
    assert_int_equal(s.tiers[PTIER_TIER_L1].misses, 1);
    assert_int_equal(s.tiers[PTIER_TIER_L3].misses, 1);
}

static _Atomic int reading; /* threads */

typedef struct reader {
    pthread_t thread;
    uint64_t seed;
} reader;

/* Now and then a key that is not there; and some are promoted and evicted all the time. */
static void *
read_many(void *context)
{
    reader *r = context;
    for (int i = 0; i < READS_EACH; i++) {
        char key[16];
        ptier_entry *entry;
        (void)snprintf(key, sizeof key, "p%d", (int)ptier_test_random(&r->seed, KEYS * 5 / 4));
        if (ptier_cache_get(box.cache, key, &entry, NULL) == PTIER_OK)
            ptier_entry_release(entry);
    }
    atomic_fetch_sub(&reading, 1);
    return NULL;
}

static void *
put_many(void *context)
{
    uint64_t *puts = context;
    while (atomic_load(&reading)) {
        ptier_test_box_put(&box, (int)(*puts % KEYS));
        ++*puts;
    }
    return NULL;
}

static void
add_reads(ptier_statistics *sum, const ptier_statistics *s)
{
    sum->hits += s->hits;
    sum->misses += s->misses;
    sum->puts += s->puts;
    for (int id = PTIER_TIER_L1; id <= PTIER_TIER_L3; id++) {
        sum->tiers[id].enabled = s->tiers[id].enabled;
        sum->tiers[id].hits += s->tiers[id].hits;
        sum->tiers[id].misses += s->tiers[id].misses;
        sum->tiers[id].promotions += s->tiers[id].promotions;
    }
    for (int i = 1; i < PTIER_OPERATION_COUNT; i++)
        sum->latency[i].count += s->latency[i].count;
}

/* While they read and one writes, the statistics are asked for and reset all the time. */
static void
eight_threads_reads_are_hits_and_misses_across_resets(void **state)
{
    (void)state;
    static reader readers[THREADS];
    static ptier_statistics sum;
    pthread_t writer;
    uint64_t puts = KEYS;
    open_with(BOX_ALL);
    box.options.l1_entries = KEYS / 4;
    box.options.l2_entries = KEYS / 2;
    ptier_test_box_reopen(&box);
    for (int i = 0; i < KEYS; i++)
        ptier_test_box_put(&box, i);
    atomic_store(&reading, THREADS);
    assert_int_equal(pthread_create(&writer, NULL, put_many, &puts), 0);
    for (int i = 0; i < THREADS; i++) {
        readers[i].seed = (uint64_t)i + 1;
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_many, &readers[i]), 0);
    }
    while (atomic_load(&reading)) { /* without a pause: a slip should have its chance */
        ptier_statistics s = ptier_test_box_statistics(&box);
        assert_reads_add_up(&s, s.hits + s.misses); /* sums agree at any moment */
        s = reset();
        assert_reads_add_up(&s, s.hits + s.misses);
        add_reads(&sum, &s);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(readers[i].thread, NULL);
    pthread_join(writer, NULL);
    ptier_statistics s = ptier_test_box_statistics(&box);
    add_reads(&sum, &s);
    assert_reads_add_up(&sum, THREADS * READS_EACH);
    assert_int_equal(sum.puts, puts);
    assert_int_equal(sum.latency[PTIER_OPERATION_PUT_LOGGED].count, puts);
    assert_int_equal(sum.latency[PTIER_OPERATION_GET_MISS].count, sum.misses);
    assert_int_equal(sum.latency[PTIER_OPERATION_GET_L2].count, sum.tiers[PTIER_TIER_L2].hits);
    assert_int_equal(sum.latency[PTIER_OPERATION_GET_L3].count, sum.tiers[PTIER_TIER_L3].hits);
    assert_true(sum.misses > 0 && sum.tiers[PTIER_TIER_L1].hits > 0);
    assert_true(sum.tiers[PTIER_TIER_L2].hits + sum.tiers[PTIER_TIER_L3].hits > 0);
}

/* ---- turnover ---- */

static void
puts_are_created_and_updated(void **state)
{
    (void)state;
    open_with(BOX_ALL);
    for (int i = 0; i < 10; i++)
        ptier_test_box_put(&box, i % 7);
    assert_true(ptier_test_box_delete(&box, 1));
    assert_false(ptier_test_box_delete(&box, 1));
    (void)ptier_test_box_report(&box, "p2", PTIER_REPORT_OK, 1);
    ptier_statistics s = ptier_test_box_statistics(&box);
    assert_int_equal(s.puts, 10);
    assert_int_equal(s.created, 7);
    assert_int_equal(s.updates, 3);
    assert_int_equal(s.deletes, 1);
    assert_int_equal(s.reports, 1);
    assert_int_equal(s.created - all_removals(&s), s.entries);
}

static void
removals_and_tier_evictions_are_counted_apart(void **state)
{
    (void)state;
    open_with(BOX_ALL);
    box.options.l1_entries = 10;
    box.options.l2_entries = 20;
    box.options.l3_entries = 40;
    ptier_test_box_reopen(&box);
    for (int i = 0; i < 30; i++)
        ptier_test_box_put(&box, i);
    BOX_AWAIT(ptier_test_box_statistics(&box).pending_writes == 0);
    ptier_statistics s = ptier_test_box_statistics(&box);
    assert_int_equal(all_removals(&s), 0);
    assert_int_equal(s.tiers[PTIER_TIER_L1].evictions, 20);
    assert_int_equal(s.tiers[PTIER_TIER_L2].evictions, 10);
    assert_int_equal(s.tiers[PTIER_TIER_L3].evictions, 0);

    (void)reset();
    for (int i = 0; i < 3; i++)
        (void)ptier_test_box_report(&box, "p1", PTIER_REPORT_FAILED, 0);
    assert_true(ptier_test_box_delete(&box, 2));
    for (int i = 30; i < 50; i++)
        ptier_test_box_put(&box, i); /* 48: 8 too many */
    BOX_AWAIT(ptier_test_box_entries(&box) == 40);
    ptier_test_box_advance(&box, box.options.default_ttl_ms + 1000);
    ptier_test_box_put(&box, 60);
    assert_int_equal(clear(PTIER_TIER_NONE), 1);
    s = ptier_test_box_statistics(&box);
    assert_int_equal(s.removals[PTIER_REASON_HEALTH], 1);
    assert_int_equal(s.removals[PTIER_REASON_DELETED], 1);
    assert_int_equal(s.removals[PTIER_REASON_CAPACITY], 8);
    assert_int_equal(s.removals[PTIER_REASON_TTL], 40);
    assert_int_equal(s.removals[PTIER_REASON_CLEARED], 1);
    assert_int_equal(s.removals[PTIER_REASON_CORRUPTION], 0);
    assert_int_equal(s.tiers[PTIER_TIER_L3].evictions, 0);
    assert_int_equal(s.quarantined, 1);
}

static void
what_l1_gives_up_is_a_demotion_when_l2_has_it_not(void **state)
{
    (void)state;
    open_with(BOX_ALL);
    box.options.l1_entries = 10;
    ptier_test_box_reopen(&box);
    for (int i = 0; i < 10; i++)
        ptier_test_box_put(&box, i);
    assert_int_equal(clear(PTIER_TIER_L2), 10);
    for (int i = 10; i < 14; i++) /* 0 to 3 leave L1, and are in L3 only */
        ptier_test_box_put(&box, i);
    BOX_AWAIT(ptier_test_box_statistics(&box).tiers[PTIER_TIER_L1].demotions == 4);
    BOX_AWAIT(ptier_test_box_statistics(&box).writeback_queue == 0);
    for (int i = 14; i < 17; i++) /* 4 to 6: two of them were used, which alone is no demotion */
        ptier_test_box_put(&box, i);
    BOX_AWAIT(ptier_test_box_statistics(&box).tiers[PTIER_TIER_L1].demotions == 7);
    assert_int_equal(ptier_test_box_where(&box, 16), PTIER_TIER_L1);
    assert_int_equal(ptier_test_box_where(&box, 4), PTIER_TIER_L2);
    ptier_test_box_close(&box); /* writes back the usage of 16 and 4, which L2 has */
    ptier_test_box_open(&box);
    ptier_statistics s = ptier_test_box_statistics(&box);
    assert_int_equal(s.tiers[PTIER_TIER_L1].demotions, 0);
    assert_int_equal(s.tiers[PTIER_TIER_L2].demotions, 0);
}

static void
used_entries_that_l2_has_are_written_down_without_a_demotion(void **state)
{
    (void)state;
    open_with(BOX_ALL);
    box.options.l1_entries = 4;
    ptier_test_box_reopen(&box);
    for (int i = 0; i < 4; i++)
        ptier_test_box_put(&box, i);
    for (int i = 0; i < 4; i++)
        assert_int_equal(ptier_test_box_where(&box, i), PTIER_TIER_L1);
    for (int i = 4; i < 8; i++)
        ptier_test_box_put(&box, i);
    ptier_cache_statistics_reset(box.cache, NULL);
    while (ptier_write_back(box.cache))
        continue;
    BOX_AWAIT(ptier_test_box_statistics(&box).writeback_queue == 0);
    ptier_statistics s = ptier_test_box_statistics(&box);
    assert_int_equal(s.tiers[PTIER_TIER_L1].demotions, 0);
}

static void
promotions_are_counted_where_the_entry_comes_to(void **state)
{
    (void)state;
    open_with(BOX_ALL);
    for (int i = 0; i < 5; i++)
        ptier_test_box_put(&box, i);
    BOX_AWAIT(ptier_test_box_statistics(&box).pending_writes == 0);
    (void)clear(PTIER_TIER_L1);
    (void)clear(PTIER_TIER_L2);
    for (int i = 0; i < 10; i++)
        assert_true(ptier_test_box_has(&box, i % 5));
    ptier_statistics s = ptier_test_box_statistics(&box);
    assert_int_equal(s.tiers[PTIER_TIER_L1].promotions, 5);
    assert_int_equal(s.tiers[PTIER_TIER_L2].promotions, 0);
    ptier_test_box_fini(&box);

    open_with(BOX_L2 | BOX_L3);
    for (int i = 0; i < 5; i++)
        ptier_test_box_put(&box, i);
    BOX_AWAIT(ptier_test_box_statistics(&box).pending_writes == 0);
    (void)clear(PTIER_TIER_L2);
    assert_true(ptier_test_box_has(&box, 3)); /* in L3, or in a line of L2 that L3 still needs */
    BOX_AWAIT(ptier_test_box_statistics(&box).tiers[PTIER_TIER_L2].promotions == 1);
    assert_int_equal(ptier_test_box_where(&box, 3), PTIER_TIER_L2);
    assert_int_equal(ptier_test_box_statistics(&box).tiers[PTIER_TIER_L1].demotions, 0);
}

/* ---- clear ---- */

/* Every subset of tiers, and each thing that can be asked to be cleared. */
static void
clear_of_one_tier_evicts_and_of_all_removes(void **state)
{
    (void)state;
    for (int tiers = 1; tiers <= BOX_ALL; tiers++) {
        ptier_tier_id lowest = tiers & BOX_L3   ? PTIER_TIER_L3
                               : tiers & BOX_L2 ? PTIER_TIER_L2
                                                : PTIER_TIER_L1;
        open_with(tiers);
        for (int i = 0; i < 25; i++)
            ptier_test_box_put(&box, i);
        for (int id = PTIER_TIER_L1; id < (int)lowest; id++) {
            if (!(tiers >> (id - 1) & 1))
                continue;
            assert_int_equal(clear((ptier_tier_id)id), 25);
            ptier_statistics s = ptier_test_box_statistics(&box);
            assert_int_equal(s.tiers[id].entries, 0);
            assert_int_equal(s.tiers[id].evictions, 25);
            assert_int_equal(s.entries, 25);
            assert_int_equal(all_removals(&s), 0);
        }
        assert_int_equal(ptier_cache_clear(box.cache, lowest, PTIER_DURABILITY_DEFAULT, NULL, NULL,
                                           NULL, &box.error),
                         PTIER_FAILED_PRECONDITION);
        ptier_statistics before = reset();
        assert_int_equal(all_removals(&before), 0);
        assert_int_equal(before.entries, 25);
        assert_int_equal(clear(PTIER_TIER_NONE), 25);
        ptier_statistics s = ptier_test_box_statistics(&box);
        assert_int_equal(s.entries, 0);
        assert_int_equal(s.removals[PTIER_REASON_CLEARED], 25);
        assert_int_equal(all_removals(&s), 25);
        for (int id = PTIER_TIER_L1; id <= PTIER_TIER_L3; id++)
            assert_int_equal(s.tiers[id].evictions, 0);
        close_but_the_last(tiers);
    }
}

/* ---- reset ---- */

static void
reset_zeroes_counters_and_leaves_gauges(void **state)
{
    (void)state;
    open_with(BOX_ALL);
    box.options.l1_entries = 10;
    ptier_test_box_reopen(&box);
    for (int i = 0; i < 100; i++)
        ptier_test_box_put(&box, i % 40);
    for (int i = 0; i < 80; i++)
        (void)ptier_test_box_has(&box, i);
    assert_true(ptier_test_box_delete(&box, 1));
    BOX_AWAIT(ptier_test_box_statistics(&box).pending_writes == 0);
    BOX_AWAIT(ptier_test_box_statistics(&box).writeback_queue == 0);
    BOX_AWAIT(ptier_test_box_statistics(&box).usage_queue == 0);
    ptier_test_clock_advance(&box.clock, 5000);
    const ptier_statistics before = reset(), after = ptier_test_box_statistics(&box);
    assert_int_equal(before.puts, 100);
    assert_int_equal(before.since_ms, before.uptime_ms);
    assert_int_equal(after.since_ms, 0);
    for (const ptier_metric *m = ptier_cache_metrics; m->name; m++) {
        if (m->unit == PTIER_UNIT_MS || strcmp(m->name, "log_bytes") == 0)
            continue; /* time passes; the log is cleaned up */
        double expected = m->kind == PTIER_METRIC_GAUGE ? m->value(&before) : 0;
        if (m->value(&after) != expected)
            fail_msg("%s: %f instead of %f", m->name, m->value(&after), expected);
    }
    for (int id = PTIER_TIER_L1; id <= PTIER_TIER_L3; id++)
        for (const ptier_metric *m = ptier_tier_metrics; m->name; m++)
            if (m->kind != PTIER_METRIC_GAUGE && m->value(&after.tiers[id]) != 0)
                fail_msg("L%d %s: %f", id, m->name, m->value(&after.tiers[id]));
    assert_int_equal(after.tiers[PTIER_TIER_L1].entries, 10);
    assert_int_equal(all_removals(&after), 0);
    for (int i = 1; i < PTIER_OPERATION_COUNT; i++)
        assert_int_equal(after.latency[i].count, 0);
    ptier_test_clock_advance(&box.clock, 700);
    assert_int_equal(ptier_test_box_statistics(&box).since_ms, 700);
    assert_int_equal(ptier_test_box_statistics(&box).uptime_ms, before.uptime_ms + 700);
}

/* ---- gauges ---- */

static void
put_with_ttl(int number, int64_t ttl_ms)
{
    ptier_record record;
    char key[16], url[40];
    ptier_test_box_record(&record, number, key, url);
    record.ttl_ms = ttl_ms;
    (void)ptier_test_box_put_record(&box, &record, NULL);
}

static void
time_to_live_is_told_by_distance(void **state)
{
    (void)state;
    static const int64_t ttls[] = {0, 30000, 1800000, INT64_C(36000000), INT64_C(864000000)};
    open_with(BOX_ALL);
    for (int i = 0; i < 50; i++)
        put_with_ttl(i, ttls[i % 5]);
    ptier_statistics s = ptier_test_box_statistics(&box);
    assert_int_equal(s.without_ttl, 10);
    assert_int_equal(s.with_ttl, 40);
    assert_int_equal(s.expiring_1m, 10);
    assert_int_equal(s.expiring_1h, 20);
    assert_int_equal(s.expiring_1d, 30);
    assert_int_equal(s.expired_undrained, 0);
    ptier_test_box_advance(&box, 31000);
    s = ptier_test_box_statistics(&box);
    assert_int_equal(s.removals[PTIER_REASON_TTL], 10);
    assert_int_equal(s.with_ttl, 30);
    assert_int_equal(s.expiring_1m, 0);
}

static void
a_tier_is_healthy_with_few_failures_and_a_recent_success(void **state)
{
    (void)state;
    static const struct {
        bool degraded;
        unsigned failures;
        int64_t ago; /* -1: never */
        bool healthy;
    } rows[] = {
        {false, 0, 0, true},      {false, 2, 60000, true}, {false, 3, 0, false},
        {false, 0, 60001, false}, {false, 0, -1, false},   {true, 0, 0, false},
    };
    open_with(BOX_L1 | BOX_L3);
    int64_t now = ptier_clock_boot(&box.clock.clock);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pthread_mutex_lock(&box.cache->lock);
        for (int id = PTIER_TIER_L1; id <= PTIER_TIER_L3; id++) {
            box.cache->health[id].down = rows[i].degraded;
            box.cache->health[id].failures = rows[i].failures;
            box.cache->health[id].last_success_boot_ms = rows[i].ago < 0 ? 0 : now - rows[i].ago;
        }
        pthread_mutex_unlock(&box.cache->lock);
        ptier_statistics s = ptier_test_box_statistics(&box);
        assert_int_equal(s.tiers[PTIER_TIER_L3].healthy, rows[i].healthy);
        assert_int_equal(s.tiers[PTIER_TIER_L3].degraded, rows[i].degraded);
        assert_int_equal(s.tiers[PTIER_TIER_L3].failures_in_row, rows[i].failures);
        assert_int_equal(s.tiers[PTIER_TIER_L3].last_success_ms_ago, rows[i].ago);
        assert_false(s.tiers[PTIER_TIER_L2].healthy);                    /* not enabled */
        assert_int_equal(s.tiers[PTIER_TIER_L1].last_success_ms_ago, 0); /* memory */
    }
}

static void
put_while_nobody_writes_the_log(ptier_cache *cache, void *context)
{
    const ptier_put_options options = {.durability = PTIER_DURABILITY_MEMORY};
    ptier_statistics *s = context;
    (void)cache;
    for (int i = 0; i < 12; i++) {
        ptier_record record;
        char key[16], url[40];
        ptier_test_box_record(&record, i, key, url);
        (void)ptier_test_box_put_record(&box, &record, &options);
    }
    *s = ptier_test_box_statistics(&box);
}

static void
queues_are_as_deep_as_what_waits(void **state)
{
    (void)state;
    ptier_statistics s;
    open_with(BOX_ALL);
    ptier_test_box_put(&box, 99);
    BOX_AWAIT(ptier_test_box_statistics(&box).l3_lag == 0);
    ptier_lead_log(box.cache, put_while_nobody_writes_the_log, &s);
    assert_int_equal(s.log_queue, 12);
    assert_int_equal(s.pending_writes, 12);
    assert_int_equal(s.l3_lag, 12);
    assert_int_equal(s.log_max_bytes, box.options.log_max_bytes);
    assert_int_equal(s.latency[PTIER_OPERATION_PUT_MEMORY].count, 12);
    ptier_flush_log(box.cache);
    BOX_AWAIT(ptier_test_box_statistics(&box).l3_lag == 0);
    s = ptier_test_box_statistics(&box);
    assert_int_equal(s.log_queue + s.l3_queue + s.pending_writes, 0);
    assert_true(s.log_bytes > 0);
    ptier_test_box_reopen(&box); /* skips revisions: L3 is not behind for that */
    BOX_AWAIT(ptier_test_box_statistics(&box).l3_lag == 0);
}

static void
damage_is_counted_with_the_tier_until_the_reset(void **state)
{
    (void)state;
    open_with(BOX_L3);
    ptier_test_box_put(&box, 0x010203);
    ptier_test_box_put(&box, 7);
    ptier_test_box_close(&box);
    ptier_test_box_damage(&box, "l3.sqlite", "http://10.1.2.3:8080");
    ptier_test_box_open(&box);
    assert_false(ptier_test_box_has(&box, 0x010203));
    assert_true(ptier_test_box_has(&box, 7));
    assert_true(reset().tiers[PTIER_TIER_L3].damaged > 0);
    assert_int_equal(ptier_test_box_statistics(&box).tiers[PTIER_TIER_L3].damaged, 0);
}

/* ---- latencies ---- */

static void
operations_are_timed_by_what_they_are(void **state)
{
    (void)state;
    static const ptier_durability durabilities[] = {
        PTIER_DURABILITY_DEFAULT, PTIER_DURABILITY_LOGGED, PTIER_DURABILITY_SYNCED};
    open_with(BOX_ALL);
    for (int i = 0; i < 9; i++) {
        const ptier_put_options options = {.durability = durabilities[i % 3]};
        ptier_record record;
        char key[16], url[40];
        ptier_test_box_record(&record, i, key, url);
        (void)ptier_test_box_put_record(&box, &record, &options);
    }
    BOX_AWAIT(ptier_test_box_statistics(&box).pending_writes == 0);
    (void)clear(PTIER_TIER_L1);
    (void)clear(PTIER_TIER_L2);
    uint64_t found[PTIER_TIER_COUNT] = {0};
    for (int i = 0; i < 30; i++)
        found[ptier_test_box_where(&box, i)]++;
    assert_int_equal(found[PTIER_TIER_L2] + found[PTIER_TIER_L3], 9);
    for (int i = 0; i < 256; i++)
        assert_int_equal(ptier_test_box_where(&box, i % 9), PTIER_TIER_L1);
    ptier_statistics s = ptier_test_box_statistics(&box);
    assert_int_equal(s.latency[PTIER_OPERATION_PUT_MEMORY].count, 0);
    assert_int_equal(s.latency[PTIER_OPERATION_PUT_LOGGED].count, 6);
    assert_int_equal(s.latency[PTIER_OPERATION_PUT_SYNCED].count, 3);
    assert_int_equal(s.latency[PTIER_OPERATION_GET_L2].count, found[PTIER_TIER_L2]);
    assert_int_equal(s.latency[PTIER_OPERATION_GET_L3].count, found[PTIER_TIER_L3]);
    assert_int_equal(s.latency[PTIER_OPERATION_GET_MISS].count, 21);
    assert_int_equal(s.latency[PTIER_OPERATION_GET_L1].count, 256 / 64); /* of this thread */
    assert_in_range(s.latency[PTIER_OPERATION_LOG_COMMIT].count, 1, 9);
    assert_in_range(s.latency[PTIER_OPERATION_L3_TRANSACTION].count, 1, 9);
    BOX_AWAIT(ptier_test_box_statistics(&box).latency[PTIER_OPERATION_L3_CHECKPOINT].count > 0);
    for (int i = 1; i < PTIER_OPERATION_COUNT; i++) {
        const ptier_latency *l = &s.latency[i];
        assert_true(l->p50_ns <= l->p99_ns && l->p99_ns <= l->p999_ns);
        assert_true(l->p999_ns <= l->max_ns + l->max_ns / 16);
        assert_true(l->count == 0 || (l->total_ns >= l->max_ns && l->max_ns > 0));
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(each_read_counts_once_in_every_tier_that_was_asked, tear_down),
        cmocka_unit_test_teardown(a_read_of_an_expired_entry_is_a_miss_in_every_tier, tear_down),
        cmocka_unit_test_teardown(eight_threads_reads_are_hits_and_misses_across_resets, tear_down),
        cmocka_unit_test_teardown(puts_are_created_and_updated, tear_down),
        cmocka_unit_test_teardown(removals_and_tier_evictions_are_counted_apart, tear_down),
        cmocka_unit_test_teardown(what_l1_gives_up_is_a_demotion_when_l2_has_it_not, tear_down),
        cmocka_unit_test_teardown(used_entries_that_l2_has_are_written_down_without_a_demotion,
                                  tear_down),
        cmocka_unit_test_teardown(promotions_are_counted_where_the_entry_comes_to, tear_down),
        cmocka_unit_test_teardown(clear_of_one_tier_evicts_and_of_all_removes, tear_down),
        cmocka_unit_test_teardown(reset_zeroes_counters_and_leaves_gauges, tear_down),
        cmocka_unit_test_teardown(time_to_live_is_told_by_distance, tear_down),
        cmocka_unit_test_teardown(a_tier_is_healthy_with_few_failures_and_a_recent_success,
                                  tear_down),
        cmocka_unit_test_teardown(queues_are_as_deep_as_what_waits, tear_down),
        cmocka_unit_test_teardown(damage_is_counted_with_the_tier_until_the_reset, tear_down),
        cmocka_unit_test_teardown(operations_are_timed_by_what_they_are, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
