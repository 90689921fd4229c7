/* Get: where things are found, what a read leaves behind, what a reference is good for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "support/cache_box.h"

static ptier_test_box box;

static int
tear_down(void **state)
{
    (void)state;
    ptier_test_box_fini(&box);
    return 0;
}

static void
open_with(int tiers, uint64_t l1_entries)
{
    ptier_test_box_init(&box, tiers);
    box.options.l1_entries = l1_entries;
    ptier_test_box_open(&box);
}

static uint64_t
accesses(const char *key)
{
    ptier_entry *entry;
    ptier_record record;
    assert_int_equal(ptier_cache_get(box.cache, key, &entry, NULL), PTIER_OK);
    ptier_cache_read(box.cache, entry, &record, NULL);
    assert_int_equal(record.last_access_ms, atomic_load(&box.clock.wall_ms));
    ptier_entry_release(entry);
    return record.access_count;
}

static void
miss_is_not_found_and_leaves_no_entry(void **state)
{
    (void)state;
    for (int tiers = 1; tiers <= BOX_ALL; tiers++) {
        open_with(tiers, 10);
        ptier_entry *entry = (ptier_entry *)&box;
        ptier_tier_id tier = PTIER_TIER_L3;
        assert_int_equal(ptier_cache_get(box.cache, "unknown", &entry, &tier), PTIER_NOT_FOUND);
        assert_null(entry);
        assert_int_equal(tier, PTIER_TIER_NONE);
        assert_int_equal(ptier_cache_get(box.cache, "", &entry, NULL), PTIER_NOT_FOUND);
        if (tiers != BOX_ALL)
            ptier_test_box_fini(&box);
    }
}

static void
get_many_gives_each_entry_in_its_place(void **state)
{
    (void)state;
    open_with(BOX_ALL, 3);
    for (int i = 0; i < 20; i++)
        ptier_test_box_put(&box, i);
    static const char *const keys[] = {"p3", "nobody", "p3", "p19", "p0"};
    ptier_entry *entries[5];
    assert_int_equal(ptier_cache_get_many(box.cache, keys, 5, entries, NULL), 4);
    assert_null(entries[1]);
    for (int i = 0; i < 5; i++) {
        if (i != 1)
            assert_string_equal(ptier_entry_key(entries[i]), keys[i]);
        ptier_entry_release(entries[i]);
    }
    assert_int_equal(ptier_cache_get_many(box.cache, keys, 0, entries, NULL), 0);
}

static void
reads_are_counted_through_evictions_and_restarts(void **state)
{
    (void)state;
    for (int tiers = 1; tiers <= BOX_ALL; tiers++) {
        open_with(tiers, tiers == BOX_L1 ? 100 : 2);
        for (int i = 0; i < 10; i++)
            ptier_test_box_put(&box, i);
        for (uint64_t i = 1; i <= 5; i++)
            assert_int_equal(accesses("p1"), i);
        for (int i = 2; i < 10; i++)
            assert_true(ptier_test_box_has(&box, i)); /* pushes it out of a small L1 */
        uint64_t next = 6;
        if (tiers != BOX_L1) {
            ptier_test_box_reopen(&box);
            assert_int_equal(accesses("p1"), next++);
            ptier_test_box_reopen(&box);
        }
        assert_int_equal(accesses("p1"), next);
        if (tiers != BOX_ALL)
            ptier_test_box_fini(&box);
    }
}

static void
reference_outlives_change_removal_and_clear(void **state)
{
    (void)state;
    open_with(BOX_ALL, 10);
    ptier_entry *entry;
    uint64_t revision = ptier_test_box_put(&box, 1), cleared;
    assert_int_equal(ptier_cache_get(box.cache, "p1", &entry, NULL), PTIER_OK);
    assert_true(ptier_test_box_put(&box, 1) > revision);
    assert_true(ptier_test_box_delete(&box, 1));
    assert_int_equal(ptier_cache_clear(box.cache, PTIER_TIER_NONE, 0, &cleared, NULL, NULL, NULL),
                     PTIER_OK);
    assert_string_equal(ptier_entry_key(entry), "p1");
    assert_int_equal(entry->revision, revision);
    assert_string_equal(ptier_entry_url(entry), "http://10.0.0.1:8080");
    ptier_entry_release(entry);
    assert_false(ptier_test_box_has(&box, 1));
}

static void
put_is_read_at_once_whatever_its_durability(void **state)
{
    (void)state;
    for (int tiers = 1; tiers <= BOX_ALL; tiers++) {
        open_with(tiers, tiers == BOX_L1 ? 1000 : 2);
        for (int i = 0; i < 300; i++) {
            ptier_record record;
            char key[16], url[40];
            const ptier_put_options options = {
                .durability = (ptier_durability)(i % 100 == 0 ? 3 : 1 + i % 2)};
            ptier_test_box_record(&record, i % 50, key, url);
            (void)snprintf(url, sizeof url, "http://10.0.0.1:%d", 1000 + i);
            ptier_test_box_put_record(&box, &record, &options);
            ptier_entry *entry;
            assert_int_equal(ptier_cache_get(box.cache, key, &entry, NULL), PTIER_OK);
            assert_string_equal(ptier_entry_url(entry), url);
            ptier_entry_release(entry);
            if (i >= 10) { /* one that has left L1 by now */
                (void)snprintf(key, sizeof key, "p%d", (i - 10) % 50);
                (void)snprintf(url, sizeof url, "http://10.0.0.1:%d", 1000 + i - 10);
                assert_int_equal(ptier_cache_get(box.cache, key, &entry, NULL), PTIER_OK);
                assert_string_equal(ptier_entry_url(entry), url);
                ptier_entry_release(entry);
            }
        }
        if (tiers != BOX_ALL)
            ptier_test_box_fini(&box);
    }
}

/* Reading what hot entries there are must not push them out. */
static void
l1_keeps_what_is_used_most_recently(void **state)
{
    (void)state;
    open_with(BOX_ALL, 10);
    for (int i = 0; i < 10; i++)
        ptier_test_box_put(&box, i);
    for (int i = 0; i < 5; i++)
        assert_int_equal(ptier_test_box_where(&box, i), PTIER_TIER_L1);
    for (int i = 10; i < 15; i++)
        ptier_test_box_put(&box, i);
    for (int i = 0; i < 5; i++)
        assert_int_equal(ptier_test_box_where(&box, i), PTIER_TIER_L1);
    assert_int_equal(ptier_test_box_where(&box, 5), PTIER_TIER_L2);
}

/* Uses of copies count as reads do, for what an entry says of itself and for where it is kept. */
static void
touch_counts_uses_and_keeps_entries_in_the_upper_tiers(void **state)
{
    (void)state;
    open_with(BOX_ALL, 2);
    for (int i = 1; i <= 2; i++)
        ptier_test_box_put(&box, i);
    ptier_statistics before = ptier_test_box_statistics(&box);
    const ptier_access uses[] = {{"p1", 7, 0}, {"none", 5, 0}, {"p1", 2, 60000}};
    assert_int_equal(ptier_cache_touch(box.cache, uses, 3), 2);
    ptier_statistics after = ptier_test_box_statistics(&box);
    assert_int_equal(after.hits, before.hits);
    assert_int_equal(after.misses, before.misses);
    ptier_test_box_put(&box, 3); /* L1 gives up p2, which was not used since */
    assert_int_equal(ptier_test_box_where(&box, 1), PTIER_TIER_L1);
    assert_int_equal(accesses("p1"), 7 + 2 + 2);
    const ptier_access low = {"p2", 1, 0};
    assert_int_equal(ptier_cache_touch(box.cache, &low, 1), 1); /* brings it up */
    assert_int_equal(ptier_test_box_where(&box, 2), PTIER_TIER_L1);
    ptier_test_box_advance(&box, 7200000);
    assert_int_equal(ptier_cache_touch(box.cache, uses, 1), 0); /* expired */
}

/* One at a time and in a batch: L1 cannot tell then, and leaves the counting to who can. */
static void
a_hit_shortly_before_expiry_counts_once(void **state)
{
    (void)state;
    const char *const key = "p1";
    ptier_entry *entry;
    ptier_record record;
    open_with(BOX_ALL, 10);
    ptier_test_box_put(&box, 1);
    ptier_test_clock_advance(&box.clock, box.options.default_ttl_ms - 500);
    assert_int_equal(ptier_cache_get(box.cache, key, &entry, NULL), PTIER_OK);
    ptier_entry_release(entry);
    assert_true(ptier_cache_try_get(box.cache, key, &entry));
    ptier_entry_release(entry);
    assert_int_equal(ptier_cache_get_many(box.cache, &key, 1, &entry, NULL), 1);
    ptier_cache_read(box.cache, entry, &record, NULL);
    assert_int_equal(record.access_count, 3);
    ptier_entry_release(entry);
    ptier_statistics s = ptier_test_box_statistics(&box);
    assert_int_equal(s.hits, 3);
    assert_int_equal(s.tiers[PTIER_TIER_L1].hits, 3);
    assert_int_equal(s.misses, 0);
    ptier_test_clock_advance(&box.clock, 500);
    assert_false(ptier_cache_try_get(box.cache, key, &entry)); /* which counts no miss */
    assert_null(entry);
    assert_int_equal(ptier_cache_get(box.cache, key, &entry, NULL), PTIER_NOT_FOUND);
    assert_int_equal(ptier_cache_get_many(box.cache, &key, 1, &entry, NULL), 0);
    assert_null(entry);
    s = ptier_test_box_statistics(&box);
    assert_int_equal(s.hits, 3);
    assert_int_equal(s.misses, 2);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(miss_is_not_found_and_leaves_no_entry, tear_down),
        cmocka_unit_test_teardown(get_many_gives_each_entry_in_its_place, tear_down),
        cmocka_unit_test_teardown(reads_are_counted_through_evictions_and_restarts, tear_down),
        cmocka_unit_test_teardown(reference_outlives_change_removal_and_clear, tear_down),
        cmocka_unit_test_teardown(put_is_read_at_once_whatever_its_durability, tear_down),
        cmocka_unit_test_teardown(l1_keeps_what_is_used_most_recently, tear_down),
        cmocka_unit_test_teardown(touch_counts_uses_and_keeps_entries_in_the_upper_tiers,
                                  tear_down),
        cmocka_unit_test_teardown(a_hit_shortly_before_expiry_counts_once, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
