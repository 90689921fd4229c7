/* L1's bounds and eviction policies as options of the cache. */
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

/* The number of the only one that has been removed since `removed` were; -1: none or several. */
static int
removed_since(size_t removed)
{
    int number = -1;
    size_t count = 0;
    pthread_mutex_lock(&box.lock);
    for (size_t i = 0; i < box.change_count; i++)
        if (box.changes[i].type == PTIER_EVENT_REMOVED && count++ == removed)
            number = box.changes[i].key[1] - '0';
    pthread_mutex_unlock(&box.lock);
    return count == removed + 1 ? number : -1;
}

/* Three entries, differently used, and two that want room. */
static void
each_policy_lets_go_of_another_entry_first(void **state)
{
    (void)state;
    static const struct {
        ptier_eviction policy;
        int first, second;
    } expected[] = {{PTIER_EVICTION_LRU, 1, 0},
                    {PTIER_EVICTION_LFU, 2, 0}, /* 0 has aged to where new ones begin */
                    {PTIER_EVICTION_FIFO, 0, 1},
                    {PTIER_EVICTION_SIEVE, 0, 2}};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        if (i)
            ptier_test_box_fini(&box);
        ptier_test_box_init(&box, BOX_L1);
        box.options.l1_entries = 3;
        box.options.l1_eviction = expected[i].policy;
        ptier_test_box_open(&box);
        for (int number = 0; number < 3; number++)
            ptier_test_box_put(&box, number);
        static const int uses[] = {1, 1, 0, 0, 2};
        for (size_t use = 0; use < sizeof uses / sizeof *uses; use++)
            assert_true(ptier_test_box_has(&box, uses[use]));
        ptier_test_box_put(&box, 3);
        assert_int_equal(removed_since(0), expected[i].first);
        (void)ptier_test_box_has(&box, 1);
        ptier_test_box_put(&box, 4);
        assert_int_equal(removed_since(1), expected[i].second);
    }
}

static void
a_bound_in_bytes_moves_what_is_too_much_down(void **state)
{
    (void)state;
    enum { PUTS = 6000 };
    static const int subsets[] = {BOX_ALL, BOX_L1 | BOX_L2, BOX_L1 | BOX_L3};
    for (size_t n = 0; n < sizeof subsets / sizeof *subsets; n++) {
        if (n)
            ptier_test_box_fini(&box);
        ptier_test_box_init(&box, subsets[n]);
        box.options.l1_entries = 0;
        box.options.l1_bytes = 1 << 20;
        box.options.l1_eviction = PTIER_EVICTION_SIEVE;
        box.options.l2_entries = 0;
        ptier_test_box_open(&box);
        for (int number = 0; number < PUTS; number++)
            ptier_test_box_put(&box, number);
        ptier_statistics s = ptier_test_box_statistics(&box);
        assert_in_range(s.tiers[PTIER_TIER_L1].bytes, 1 << 19, 1 << 20);
        assert_in_range(s.tiers[PTIER_TIER_L1].entries, PUTS / 8, PUTS - 1);
        assert_int_equal(s.tiers[PTIER_TIER_L1].capacity, 0);
        assert_int_equal(s.tiers[PTIER_TIER_L1].evictions, PUTS - s.tiers[PTIER_TIER_L1].entries);
        assert_int_equal(s.entries, PUTS);
        for (int number = 0; number < PUTS; number++)
            assert_true(ptier_test_box_has(&box, number));
    }
}

static void
a_bound_in_bytes_removes_for_capacity_where_l1_is_all(void **state)
{
    (void)state;
    enum { PUTS = 6000 };
    ptier_test_box_init(&box, BOX_L1);
    box.options.l1_bytes = 1 << 20;
    box.options.l1_entries = PUTS;
    ptier_test_box_open(&box);
    for (int number = 0; number < PUTS; number++) {
        ptier_test_box_put(&box, number);
        assert_true(ptier_test_box_has(&box, number));
    }
    ptier_statistics s = ptier_test_box_statistics(&box);
    assert_in_range(s.tiers[PTIER_TIER_L1].bytes, 1 << 19, 1 << 20);
    assert_in_range(s.entries, PUTS / 8, PUTS - 1);
    assert_int_equal(s.removals[PTIER_REASON_CAPACITY], PUTS - s.entries);
}

static void
refuse(const char *message)
{
    ptier_cache *cache;
    assert_int_equal(ptier_cache_open(&box.options, &cache, &box.error), PTIER_INVALID_ARGUMENT);
    if (!strstr(box.error.message, message))
        fail_msg("'%s' does not mention '%s'", box.error.message, message);
}

static void
bounds_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    ptier_test_box_init(&box, BOX_ALL);
    box.options.l1_entries = 0;
    refuse("L1 needs a bound");
    box.options.l1_bytes = 1 << 20;
    refuse("l1_entries <= l2_entries"); /* any number of entries over 5,000 */
    box.options.l1_entries = 1000;
    box.options.l1_bytes = 1 << 10;
    refuse("at least 1 MiB");
    box.options.l1_bytes = 0;
    box.options.l1_eviction = (ptier_eviction)9;
    refuse("unknown eviction policy");
    box.options.l1_enabled = false; /* then it does not matter */
    ptier_test_box_open(&box);
}

#define TEST(name) cmocka_unit_test_teardown(name, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(each_policy_lets_go_of_another_entry_first),
        TEST(a_bound_in_bytes_moves_what_is_too_much_down),
        TEST(a_bound_in_bytes_removes_for_capacity_where_l1_is_all),
        TEST(bounds_that_make_no_sense_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
