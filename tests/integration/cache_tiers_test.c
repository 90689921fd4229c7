/* Every subset of tiers: the same cache; bounds: what moves down and what leaves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "support/cache_box.h"
#include "support/sample_entry.h"

static ptier_test_box box;

static int
tear_down(void **state)
{
    (void)state;
    ptier_test_box_fini(&box);
    return 0;
}

/* ---- a model over every subset ---- */

enum { KEYS = 80, STEPS = 1500 };

typedef struct model {
    bool in[KEYS];
    int64_t expires[KEYS];
    uint64_t revision[KEYS];
} model;

static void
check_model(const model *m)
{
    int64_t now = atomic_load(&box.clock.boot_ms);
    for (int i = 0; i < KEYS; i++) {
        char key[16];
        ptier_entry *entry;
        (void)snprintf(key, sizeof key, "p%d", i);
        ptier_status status = ptier_cache_get(box.cache, key, &entry, NULL);
        if (!m->in[i] || m->expires[i] <= now) {
            assert_int_equal(status, PTIER_NOT_FOUND);
            continue;
        }
        assert_int_equal(status, PTIER_OK);
        assert_int_equal(entry->revision, m->revision[i]);
        assert_int_equal(entry->expires_boot_ms, m->expires[i]);
        ptier_entry_release(entry);
    }
}

static void
put_step(model *m, int i, uint64_t *seed)
{
    ptier_record record;
    char key[16], url[40];
    ptier_test_box_record(&record, i, key, url);
    record.ttl_ms = 1 + (int64_t)ptier_test_random(seed, 100000);
    bool live = m->in[i] && m->expires[i] > atomic_load(&box.clock.boot_ms);
    ptier_put_result result = ptier_test_box_put_record(&box, &record, NULL);
    assert_int_equal(result.outcome, live ? PTIER_PUT_UPDATED : PTIER_PUT_CREATED);
    m->in[i] = true;
    m->expires[i] = atomic_load(&box.clock.boot_ms) + record.ttl_ms;
    m->revision[i] = result.revision;
}

static void
model_step(model *m, bool persistent, uint64_t *seed)
{
    int i = (int)ptier_test_random(seed, KEYS);
    uint64_t what = ptier_test_random(seed, 1000), cleared;
    bool live = m->in[i] && m->expires[i] > atomic_load(&box.clock.boot_ms);
    if (what < 550) {
        put_step(m, i, seed);
    } else if (what < 700) {
        assert_int_equal(ptier_test_box_delete(&box, i), live);
        m->in[i] = false;
    } else if (what < 900) {
        assert_int_equal(ptier_test_box_has(&box, i), live);
    } else if (what < 970) {
        ptier_test_box_advance(&box, (int64_t)ptier_test_random(seed, 3000));
    } else if (what < 975) {
        assert_int_equal(ptier_cache_clear(box.cache, PTIER_TIER_NONE, PTIER_DURABILITY_DEFAULT,
                                           &cleared, NULL, NULL, NULL),
                         PTIER_OK);
        memset(m, 0, sizeof *m);
    } else if (what < 982) {
        PTIER_IGNORE(ptier_cache_clear(box.cache, (ptier_tier_id)(1 + ptier_test_random(seed, 3)),
                                       PTIER_DURABILITY_DEFAULT, &cleared, NULL, NULL,
                                       NULL)); /* refused for some */
    } else if (persistent && what < 992) {
        ptier_test_box_reopen(&box);
    } else {
        check_model(m);
    }
}

static uint64_t
few_hashes(const char *key)
{
    return (uint64_t)(atoi(key + 1) % 5);
}

static void
run_model(int tiers, uint64_t seed, bool collide)
{
    model m = {0};
    ptier_test_box_init(&box, tiers);
    box.options.l1_entries = tiers == BOX_L1 ? 1000 : 7;
    box.options.l2_entries = tiers & BOX_L3 ? 25 : 0;
    box.hooks.l2_shard_bytes = 16384;
    if (collide)
        box.hooks.hash_key = few_hashes;
    ptier_test_box_open(&box);
    for (int step = 0; step < STEPS; step++)
        model_step(&m, tiers != BOX_L1, &seed);
    check_model(&m);
    if (tiers != BOX_L1) {
        ptier_test_box_reopen(&box);
        check_model(&m);
    }
    assert_int_equal(ptier_test_box_changes(&box, PTIER_EVENT_REMOVED, PTIER_REASON_CAPACITY, NULL),
                     0);
}

static void
every_subset_of_tiers_is_the_same_cache(void **state)
{
    (void)state;
    for (int tiers = 1; tiers <= BOX_ALL; tiers++) {
        run_model(tiers, (uint64_t)tiers * 17, false);
        ptier_test_box_fini(&box);
        run_model(tiers, (uint64_t)tiers * 23, true);
        if (tiers != BOX_ALL)
            ptier_test_box_fini(&box);
    }
}

static void
no_tier_at_all_is_refused(void **state)
{
    (void)state;
    ptier_test_box_init(&box, 0);
    assert_int_equal(ptier_cache_open(&box.options, &box.cache, &box.error),
                     PTIER_INVALID_ARGUMENT);
    box.options.l2_enabled = box.options.l3_enabled = true;
    box.options.data_dir = NULL; /* the disk tiers are off then */
    assert_int_equal(ptier_cache_open(&box.options, &box.cache, &box.error),
                     PTIER_INVALID_ARGUMENT);
}

/* ---- bounds ---- */

static void
l1_demotes_and_a_hit_below_promotes(void **state)
{
    (void)state;
    ptier_test_box_init(&box, BOX_ALL);
    box.options.l1_entries = 10;
    ptier_test_box_open(&box);
    for (int i = 0; i < 100; i++)
        ptier_test_box_put(&box, i);
    ptier_statistics s = ptier_test_box_statistics(&box);
    assert_int_equal(s.tiers[PTIER_TIER_L1].entries, 10);
    assert_int_equal(s.tiers[PTIER_TIER_L1].evictions, 90);
    assert_int_equal(s.entries, 100);
    assert_int_equal(ptier_test_box_where(&box, 99), PTIER_TIER_L1);
    assert_int_equal(ptier_test_box_where(&box, 5), PTIER_TIER_L2);
    assert_int_equal(ptier_test_box_where(&box, 5), PTIER_TIER_L1);
    s = ptier_test_box_statistics(&box);
    assert_int_equal(s.tiers[PTIER_TIER_L1].promotions, 1);
    assert_int_equal(s.removals[PTIER_REASON_CAPACITY], 0);
}

static void
l2_demotes_to_l3(void **state)
{
    (void)state;
    ptier_test_box_init(&box, BOX_L2 | BOX_L3);
    box.options.l2_entries = 20;
    ptier_test_box_open(&box);
    for (int i = 0; i < 200; i++)
        ptier_test_box_put(&box, i);
    BOX_AWAIT(ptier_test_box_statistics(&box).pending_writes == 0);
    ptier_statistics s = ptier_test_box_statistics(&box);
    assert_int_equal(s.tiers[PTIER_TIER_L2].entries, 20);
    assert_int_equal(s.tiers[PTIER_TIER_L3].entries, 200);
    assert_int_equal(s.entries, 200);
    /* From L3, or from its log for as long as L3 is not synced. */
    assert_int_not_equal(ptier_test_box_where(&box, 0), PTIER_TIER_NONE);
    assert_int_equal(ptier_test_box_where(&box, 199), PTIER_TIER_L2);
    assert_int_equal(s.removals[PTIER_REASON_CAPACITY], 0);
    assert_int_equal(ptier_test_box_changes(&box, PTIER_EVENT_REMOVED, 0, NULL), 0);
}

static void
l1_evictions_become_resident_in_l2_again(void **state)
{
    (void)state;
    ptier_test_box_init(&box, BOX_ALL);
    box.options.l1_entries = 2;
    box.options.l2_entries = 10;
    ptier_test_box_open(&box);
    for (int i = 0; i < 50; i++)
        ptier_test_box_put(&box, i);
    BOX_AWAIT(ptier_test_box_statistics(&box).pending_writes == 0);
    assert_true(ptier_test_box_has(&box, 0)); /* up to L1 */
    assert_true(ptier_test_box_has(&box, 1));
    assert_true(ptier_test_box_has(&box, 2)); /* out of L1, down to L2 */
    char key[16] = "p0";
    uint64_t hash = box.cache->hash_key(key), revision = 0;
    pthread_mutex_lock(&box.cache->lock);
    revision =
        ptier_index_slot(box.cache->index, ptier_index_first(box.cache->index, hash))->revision;
    pthread_mutex_unlock(&box.cache->lock);
    BOX_AWAIT(ptier_l2_resident(box.cache->tiers[PTIER_TIER_L2], hash, revision));
    BOX_AWAIT(ptier_test_box_statistics(&box).tiers[PTIER_TIER_L2].entries <= 10);
}

/* The bound of the lowest tier removes, and never what is hot above. */
static void
lowest_bounded_tier_removes_for_capacity_but_nothing_from_l1(void **state)
{
    (void)state;
    static const int subsets[] = {BOX_L1,          BOX_L2,          BOX_L3, BOX_L1 | BOX_L2,
                                  BOX_L1 | BOX_L3, BOX_L2 | BOX_L3, BOX_ALL};
    for (size_t n = 0; n < sizeof subsets / sizeof *subsets; n++) {
        int tiers = subsets[n];
        ptier_tier_id lowest = tiers & BOX_L3   ? PTIER_TIER_L3
                               : tiers & BOX_L2 ? PTIER_TIER_L2
                                                : PTIER_TIER_L1;
        if (n)
            ptier_test_box_fini(&box);
        ptier_test_box_init(&box, tiers);
        box.options.l1_entries = lowest == PTIER_TIER_L1 ? 50 : 10;
        box.options.l2_entries = lowest == PTIER_TIER_L2 ? 50 : 20;
        box.options.l3_entries = 50;
        ptier_test_box_open(&box);
        for (int i = 0; i < 10; i++)
            ptier_test_box_put(&box, i);
        for (int i = 10; i < 300; i++) {
            ptier_test_box_put(&box, i);
            for (int hot = 0; tiers & BOX_L1 && hot < 5; hot++) /* stays in L1, so it stays */
                assert_true(ptier_test_box_has(&box, hot));
        }
        /* The tier's own count may lag behind the cache's. */
        BOX_AWAIT(ptier_test_box_statistics(&box).pending_writes == 0 &&
                  ptier_test_box_entries(&box) == 50 &&
                  ptier_test_box_statistics(&box).tiers[lowest].entries == 50);
        ptier_statistics s = ptier_test_box_statistics(&box);
        assert_int_equal(s.removals[PTIER_REASON_CAPACITY], 250);
        assert_int_equal(
            ptier_test_box_changes(&box, PTIER_EVENT_REMOVED, PTIER_REASON_CAPACITY, NULL), 250);
        assert_int_equal(ptier_test_box_changes(&box, PTIER_EVENT_REMOVED, 0, NULL), 250);
        size_t there = 0;
        for (int i = 0; i < 300; i++)
            there += ptier_test_box_has(&box, i);
        assert_int_equal(there, 50);
        if (tiers == BOX_L1)
            continue;
        ptier_test_box_reopen(&box);
        assert_int_equal(ptier_test_box_entries(&box), 50);
    }
}

static void
smaller_bound_holds_after_a_restart(void **state)
{
    (void)state;
    static const int subsets[] = {BOX_L1 | BOX_L2, BOX_L1 | BOX_L3, BOX_ALL};
    for (size_t n = 0; n < 3; n++) {
        if (n)
            ptier_test_box_fini(&box);
        ptier_test_box_init(&box, subsets[n]);
        box.options.l1_entries = 5;
        ptier_test_box_open(&box);
        for (int i = 0; i < 200; i++)
            ptier_test_box_put(&box, i);
        ptier_test_box_close(&box);
        box.options.l2_entries = 40;
        box.options.l3_entries = 40;
        ptier_test_box_open(&box);
        BOX_AWAIT(ptier_test_box_entries(&box) == 40);
        assert_int_equal(
            ptier_test_box_changes(&box, PTIER_EVENT_REMOVED, PTIER_REASON_CAPACITY, NULL), 160);
    }
}

/* ---- statistics ---- */

static void
statistics_add_up(void **state)
{
    (void)state;
    for (int tiers = 1; tiers <= BOX_ALL; tiers++) {
        uint64_t gets = 0, found = 0;
        ptier_test_box_init(&box, tiers);
        box.options.l1_entries = tiers == BOX_L1 ? 1000 : 10;
        ptier_test_box_open(&box);
        for (int i = 0; i < 100; i++)
            ptier_test_box_put(&box, i);
        for (int i = 0; i < 400; i++, gets++)
            found += ptier_test_box_has(&box, i % 150);
        ptier_statistics s = ptier_test_box_statistics(&box);
        assert_int_equal(s.hits + s.misses, gets);
        assert_int_equal(s.hits, found);
        assert_int_equal(s.puts, 100);
        uint64_t tier_hits = 0, reaching = gets;
        for (int tier = PTIER_TIER_L1; tier <= PTIER_TIER_L3; tier++) {
            assert_int_equal(s.tiers[tier].enabled, tiers >> (tier - 1) & 1);
            tier_hits += s.tiers[tier].hits;
            if (!s.tiers[tier].enabled)
                continue;
            assert_int_equal(s.tiers[tier].hits + s.tiers[tier].misses, reaching);
            reaching = s.tiers[tier].misses;
        }
        assert_int_equal(tier_hits, s.hits);
        assert_int_equal(s.revision, ptier_cache_revision(box.cache));
        if (tiers != BOX_ALL)
            ptier_test_box_fini(&box);
    }
}

static uint64_t
access_count(int number)
{
    char key[16];
    ptier_entry *entry;
    (void)snprintf(key, sizeof key, "p%d", number);
    assert_int_equal(ptier_cache_get(box.cache, key, &entry, NULL), PTIER_OK);
    uint64_t count = atomic_load(&entry->access_count);
    ptier_entry_release(entry);
    return count;
}

/* While L3 cannot write, it still answers reads, with older figures: they must not be taken. */
static void
usage_on_its_way_down_is_not_read_in_an_older_form(void **state)
{
    (void)state;
    char path[sizeof box.directory + 16];
    sqlite3 *other;
    ptier_test_box_init(&box, BOX_L1 | BOX_L3);
    box.options.l1_entries = 1;
    ptier_test_box_open(&box);
    ptier_test_box_put(&box, 0);
    ptier_test_box_put(&box, 1);
    BOX_AWAIT(ptier_test_box_statistics(&box).pending_writes == 0);
    (void)snprintf(path, sizeof path, "%s/l3.sqlite", box.directory);
    assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    for (uint64_t read = 1; read <= 5; read++) {
        assert_int_equal(access_count(0), read);
        assert_int_equal(access_count(1), read); /* p0 leaves L1 */
        BOX_AWAIT(ptier_test_box_statistics(&box).writeback_queue == 0);
    }
    assert_int_equal(sqlite3_exec(other, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(other), SQLITE_OK);
    ptier_test_box_reopen(&box);
    assert_int_equal(access_count(0), 6);
    assert_int_equal(access_count(1), 6);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(every_subset_of_tiers_is_the_same_cache, tear_down),
        cmocka_unit_test_teardown(no_tier_at_all_is_refused, tear_down),
        cmocka_unit_test_teardown(l1_demotes_and_a_hit_below_promotes, tear_down),
        cmocka_unit_test_teardown(l2_demotes_to_l3, tear_down),
        cmocka_unit_test_teardown(l1_evictions_become_resident_in_l2_again, tear_down),
        cmocka_unit_test_teardown(lowest_bounded_tier_removes_for_capacity_but_nothing_from_l1,
                                  tear_down),
        cmocka_unit_test_teardown(smaller_bound_holds_after_a_restart, tear_down),
        cmocka_unit_test_teardown(statistics_add_up, tear_down),
        cmocka_unit_test_teardown(usage_on_its_way_down_is_not_read_in_an_older_form, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
