/* Clear and delete: one event, nothing left, nothing lost that should stay. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

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
open_with(int tiers)
{
    ptier_test_box_init(&box, tiers);
    ptier_test_box_open(&box);
}

static uint64_t
clear(ptier_tier_id tier)
{
    uint64_t cleared = 0, revision;
    if (ptier_cache_clear(box.cache, tier, PTIER_DURABILITY_DEFAULT, &cleared, &revision, NULL,
                          &box.error))
        fail_msg("%s", box.error.message);
    return cleared;
}

/* Nothing is to be made durable: it must not wait for anything either. */
static void
delete_of_a_missing_key_returns_in_a_new_cache(void **state)
{
    (void)state;
    for (int tiers = 1; tiers <= BOX_ALL; tiers++) {
        open_with(tiers);
        assert_false(ptier_test_box_delete(&box, 1));
        assert_false(ptier_test_box_report(&box, "p1", PTIER_REPORT_OK, 1).found);
        ptier_test_box_reopen(&box);
        const char *key = "p2";
        size_t deleted;
        ptier_written written;
        assert_int_equal(ptier_cache_delete(box.cache, &key, 1, PTIER_DURABILITY_SYNCED, &deleted,
                                            &written, NULL),
                         PTIER_OK);
        if (tiers != BOX_ALL)
            ptier_test_box_fini(&box);
    }
}

static void
clear_is_one_event_and_empties_every_tier(void **state)
{
    (void)state;
    open_with(BOX_ALL);
    box.options.l1_entries = 10;
    ptier_test_box_reopen(&box);
    for (int i = 0; i < 100; i++)
        ptier_test_box_put(&box, i);
    size_t before = ptier_test_box_changes(&box, 0, PTIER_REASON_NONE, NULL);
    assert_int_equal(clear(PTIER_TIER_NONE), 100);
    assert_int_equal(ptier_test_box_changes(&box, 0, PTIER_REASON_NONE, NULL), before + 1);
    assert_int_equal(ptier_test_box_changes(&box, PTIER_EVENT_CLEARED, PTIER_REASON_CLEARED, ""),
                     1);
    assert_int_equal(ptier_test_box_entries(&box), 0);
    for (int i = 0; i < 100; i++)
        assert_false(ptier_test_box_has(&box, i));
    BOX_AWAIT(ptier_test_box_statistics(&box).pending_writes == 0);
    ptier_statistics s = ptier_test_box_statistics(&box);
    for (int tier = PTIER_TIER_L1; tier <= PTIER_TIER_L3; tier++)
        assert_int_equal(s.tiers[tier].entries, 0);
    assert_int_equal(s.removals[PTIER_REASON_CLEARED], 100);
    ptier_test_box_put(&box, 7);
    ptier_test_box_reopen(&box);
    assert_int_equal(ptier_test_box_entries(&box), 1);
    assert_true(ptier_test_box_has(&box, 7));
    assert_false(ptier_test_box_has(&box, 8));
}

static void
clear_of_an_upper_tier_loses_nothing(void **state)
{
    (void)state;
    open_with(BOX_ALL);
    for (int i = 0; i < 300; i++)
        ptier_test_box_put(&box, i);
    size_t before = ptier_test_box_changes(&box, 0, PTIER_REASON_NONE, NULL);
    assert_int_equal(clear(PTIER_TIER_L2), 300); /* before L3 has them all */
    assert_int_equal(clear(PTIER_TIER_L1), 300);
    ptier_statistics s = ptier_test_box_statistics(&box);
    assert_int_equal(s.tiers[PTIER_TIER_L1].entries, 0);
    assert_int_equal(s.tiers[PTIER_TIER_L2].entries, 0);
    assert_int_equal(ptier_test_box_changes(&box, 0, PTIER_REASON_NONE, NULL), before);
    for (int i = 0; i < 300; i++)
        assert_true(ptier_test_box_has(&box, i));
    ptier_test_box_reopen(&box);
    for (int i = 0; i < 300; i++)
        assert_true(ptier_test_box_has(&box, i));
}

static void
clear_of_the_lowest_tier_alone_is_refused(void **state)
{
    (void)state;
    for (int tiers = 1; tiers <= BOX_ALL; tiers++) {
        ptier_tier_id lowest = tiers & BOX_L3   ? PTIER_TIER_L3
                               : tiers & BOX_L2 ? PTIER_TIER_L2
                                                : PTIER_TIER_L1;
        uint64_t cleared, revision;
        open_with(tiers);
        ptier_test_box_put(&box, 1);
        for (int tier = PTIER_TIER_L1; tier <= PTIER_TIER_L3; tier++) {
            ptier_status status =
                ptier_cache_clear(box.cache, (ptier_tier_id)tier, PTIER_DURABILITY_DEFAULT,
                                  &cleared, &revision, NULL, &box.error);
            bool enabled = tiers >> (tier - 1) & 1;
            assert_int_equal(status,
                             enabled && tier != (int)lowest ? PTIER_OK : PTIER_FAILED_PRECONDITION);
        }
        assert_true(ptier_test_box_has(&box, 1));
        if (tiers != BOX_ALL)
            ptier_test_box_fini(&box);
    }
}

static void
clear_while_the_index_is_read_counts_what_was_there(void **state)
{
    (void)state;
    enum { ENTRIES = 20000 };
    static ptier_record records[ENTRIES];
    static char keys[ENTRIES][16], urls[ENTRIES][40];
    open_with(BOX_L1 | BOX_L3);
    for (int i = 0; i < ENTRIES; i++)
        ptier_test_box_record(&records[i], i, keys[i], urls[i]);
    assert_int_equal(ptier_cache_put(box.cache, records, ENTRIES, NULL, NULL, NULL, &box.error),
                     PTIER_OK);
    box.hooks.quick_start_rows = 1;
    ptier_test_box_reopen(&box);
    assert_int_equal(clear(PTIER_TIER_NONE), ENTRIES);
    ptier_statistics s = ptier_test_box_statistics(&box);
    assert_int_equal(s.removals[PTIER_REASON_CLEARED], ENTRIES);
    assert_int_equal(s.entries, 0);
    ptier_test_box_put(&box, 1);
    ptier_test_box_reopen(&box);
    assert_int_equal(ptier_test_box_entries(&box), 1);
}

static void
delete_is_told_once_and_lasts(void **state)
{
    (void)state;
    open_with(BOX_ALL);
    ptier_test_box_put(&box, 1);
    ptier_test_box_put(&box, 2);
    assert_true(ptier_test_box_delete(&box, 1));
    assert_false(ptier_test_box_delete(&box, 1));
    assert_int_equal(ptier_test_box_changes(&box, PTIER_EVENT_REMOVED, PTIER_REASON_DELETED, "p1"),
                     1);
    assert_int_equal(ptier_test_box_statistics(&box).deletes, 1);
    ptier_test_box_reopen(&box);
    assert_false(ptier_test_box_has(&box, 1));
    assert_true(ptier_test_box_has(&box, 2));
}

static void
clear_says_how_durable_it_became(void **state)
{
    (void)state;
    ptier_written written;
    open_with(BOX_ALL);
    (void)ptier_test_box_put(&box, 1);
    for (int d = PTIER_DURABILITY_MEMORY; d <= PTIER_DURABILITY_SYNCED; d++) {
        assert_int_equal(ptier_cache_clear(box.cache, PTIER_TIER_NONE, (ptier_durability)d, NULL,
                                           NULL, &written, &box.error),
                         PTIER_OK);
        assert_true((int)written.durability >= d);
    }
    assert_int_equal(ptier_cache_clear(box.cache, PTIER_TIER_L1, PTIER_DURABILITY_SYNCED, NULL,
                                       NULL, &written, &box.error),
                     PTIER_OK);
    assert_int_equal(written.durability, PTIER_DURABILITY_DEFAULT);
}

static void
delete_says_how_durable_it_became(void **state)
{
    (void)state;
    static const ptier_durability asked[] = {PTIER_DURABILITY_MEMORY, PTIER_DURABILITY_LOGGED,
                                             PTIER_DURABILITY_SYNCED};
    for (int tiers = 1; tiers <= BOX_ALL; tiers++) {
        open_with(tiers);
        for (int i = 0; i < 3; i++) {
            const char *key = "p1";
            size_t deleted;
            ptier_written written;
            ptier_test_box_put(&box, 1);
            assert_int_equal(
                ptier_cache_delete(box.cache, &key, 1, asked[i], &deleted, &written, NULL),
                PTIER_OK);
            assert_int_equal(deleted, 1);
            if (tiers == BOX_L1)
                assert_int_equal(written.durability, PTIER_DURABILITY_MEMORY);
            else
                assert_true(written.durability >= asked[i]);
            assert_int_equal(written.tiers, tiers << 1);
        }
        if (tiers != BOX_ALL)
            ptier_test_box_fini(&box);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(delete_of_a_missing_key_returns_in_a_new_cache, tear_down),
        cmocka_unit_test_teardown(clear_is_one_event_and_empties_every_tier, tear_down),
        cmocka_unit_test_teardown(clear_of_an_upper_tier_loses_nothing, tear_down),
        cmocka_unit_test_teardown(clear_of_the_lowest_tier_alone_is_refused, tear_down),
        cmocka_unit_test_teardown(clear_while_the_index_is_read_counts_what_was_there, tear_down),
        cmocka_unit_test_teardown(delete_is_told_once_and_lasts, tear_down),
        cmocka_unit_test_teardown(clear_says_how_durable_it_became, tear_down),
        cmocka_unit_test_teardown(delete_says_how_durable_it_became, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
