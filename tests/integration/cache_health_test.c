/* Reports: counting, the threshold, what is a change and what a statistic. */
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
set_up(void **state)
{
    (void)state;
    ptier_test_box_init(&box, BOX_ALL);
    ptier_test_box_open(&box);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    ptier_test_box_fini(&box);
    return 0;
}

static void
read_record(ptier_record *record)
{
    ptier_entry *entry;
    assert_int_equal(ptier_cache_get(box.cache, "p1", &entry, NULL), PTIER_OK);
    ptier_cache_read(box.cache, entry, record, NULL);
    ptier_entry_release(entry); /* only numbers are looked at */
}

static void
third_failure_removes_with_reason_health_in_every_set_of_tiers(void **state)
{
    (void)state;
    for (int tiers = 1; tiers <= BOX_ALL; tiers++) {
        ptier_test_box_fini(&box);
        ptier_test_box_init(&box, tiers);
        ptier_test_box_open(&box);
        ptier_test_box_put(&box, 1);
        ptier_test_box_put(&box, 2);
        for (uint32_t i = 1; i <= 3; i++) {
            ptier_report_result r = ptier_test_box_report(&box, "p1", PTIER_REPORT_FAILED, 0);
            assert_true(r.found);
            assert_int_equal(r.failure_count, i);
            assert_int_equal(r.removed, i == 3);
            assert_int_equal(r.health, i == 3 ? PTIER_HEALTH_DEAD : PTIER_HEALTH_DEGRADED);
        }
        assert_false(ptier_test_box_report(&box, "p1", PTIER_REPORT_FAILED, 0).found);
        assert_false(ptier_test_box_has(&box, 1));
        assert_true(ptier_test_box_has(&box, 2));
        assert_int_equal(
            ptier_test_box_changes(&box, PTIER_EVENT_REMOVED, PTIER_REASON_HEALTH, "p1"), 1);
        assert_int_equal(ptier_test_box_changes(&box, PTIER_EVENT_HEALTH, 0, "p1"), 2);
        assert_int_equal(ptier_test_box_statistics(&box).removals[PTIER_REASON_HEALTH], 1);
        if (tiers == BOX_L1)
            continue;
        ptier_test_box_reopen(&box);
        assert_false(ptier_test_box_has(&box, 1));
    }
}

static void
success_resets_the_count_and_unknown_changes_nothing(void **state)
{
    (void)state;
    ptier_record record;
    ptier_test_box_put(&box, 1);
    ptier_test_box_report(&box, "p1", PTIER_REPORT_FAILED, 0);
    ptier_test_box_report(&box, "p1", PTIER_REPORT_FAILED, 0);
    uint64_t before = ptier_cache_revision(box.cache);
    ptier_report_result r = ptier_test_box_report(&box, "p1", PTIER_REPORT_UNKNOWN, 0);
    assert_int_equal(r.failure_count, 2);
    assert_int_equal(ptier_cache_revision(box.cache), before);
    r = ptier_test_box_report(&box, "p1", PTIER_REPORT_OK, 10);
    assert_int_equal(r.failure_count, 0);
    assert_int_equal(r.health, PTIER_HEALTH_HEALTHY);
    r = ptier_test_box_report(&box, "p1", PTIER_REPORT_FAILED, 0);
    assert_int_equal(r.failure_count, 1);
    read_record(&record);
    assert_int_equal(record.report_count, 4);
    assert_int_equal(record.success_count, 1);
    assert_true(record.needs_revalidation);
    assert_int_equal(ptier_test_box_statistics(&box).reports, 5);
}

static void
success_that_moves_only_latency_is_no_change(void **state)
{
    (void)state;
    ptier_record record;
    ptier_test_box_put(&box, 1);
    ptier_test_box_report(&box, "p1", PTIER_REPORT_OK, 100);
    uint64_t before = ptier_cache_revision(box.cache);
    size_t changes = ptier_test_box_changes(&box, 0, 0, NULL);
    for (int i = 0; i < 200; i++)
        ptier_test_box_report(&box, "p1", PTIER_REPORT_OK, 50);
    assert_int_equal(ptier_cache_revision(box.cache), before);
    assert_int_equal(ptier_test_box_changes(&box, 0, 0, NULL), changes);
    read_record(&record);
    assert_int_equal(record.report_count, 201);
    assert_int_equal(record.success_count, 201);
    assert_true(record.latency_ms > 49 && record.latency_ms < 51); /* it has moved there */
    ptier_test_box_reopen(&box);
    read_record(&record);
    assert_int_equal(record.report_count, 201);
}

static void
threshold_of_zero_never_removes(void **state)
{
    (void)state;
    box.options.failure_threshold = 0;
    ptier_test_box_reopen(&box);
    ptier_test_box_put(&box, 1);
    for (uint32_t i = 1; i <= 50; i++)
        assert_int_equal(ptier_test_box_report(&box, "p1", PTIER_REPORT_FAILED, 0).failure_count,
                         i);
    assert_true(ptier_test_box_has(&box, 1));
}

static void
reports_of_one_call_apply_in_order(void **state)
{
    (void)state;
    const ptier_report reports[] = {{.key = "p1", .outcome = PTIER_REPORT_FAILED},
                                    {.key = "p1", .outcome = PTIER_REPORT_FAILED},
                                    {.key = "gone", .outcome = PTIER_REPORT_FAILED},
                                    {.key = "p1", .outcome = PTIER_REPORT_OK},
                                    {.key = "p1", .outcome = PTIER_REPORT_FAILED},
                                    {.key = "p1", .outcome = PTIER_REPORT_FAILED},
                                    {.key = "p1", .outcome = PTIER_REPORT_FAILED},
                                    {.key = "p1", .outcome = PTIER_REPORT_OK}};
    ptier_report_result r[8];
    ptier_test_box_put(&box, 1);
    assert_int_equal(
        ptier_cache_report(box.cache, reports, 8, PTIER_DURABILITY_SYNCED, r, NULL, &box.error),
        PTIER_OK);
    static const uint32_t counts[] = {1, 2, 0, 0, 1, 2, 3, 0};
    for (int i = 0; i < 8; i++) {
        assert_int_equal(r[i].failure_count, counts[i]);
        assert_int_equal(r[i].removed, i == 6);
        assert_int_equal(r[i].found, i != 2 && i != 7);
    }
}

static void
failures_survive_a_restart(void **state)
{
    (void)state;
    ptier_test_box_put(&box, 1);
    ptier_test_box_report(&box, "p1", PTIER_REPORT_FAILED, 0);
    ptier_test_box_reopen(&box);
    ptier_test_box_report(&box, "p1", PTIER_REPORT_FAILED, 0);
    ptier_test_box_reopen(&box);
    assert_true(ptier_test_box_report(&box, "p1", PTIER_REPORT_FAILED, 0).removed);
}

static void
absurd_latencies_are_not_taken(void **state)
{
    (void)state;
    ptier_record record;
    static const double absurd[] = {-1, 1e300, 0.0 / 0.0, 1.0 / 0.0};
    ptier_test_box_put(&box, 1);
    ptier_test_box_report(&box, "p1", PTIER_REPORT_OK, 20);
    for (size_t i = 0; i < 4; i++)
        ptier_test_box_report(&box, "p1", PTIER_REPORT_OK, absurd[i]);
    read_record(&record);
    assert_true(record.latency_ms > 19.9 && record.latency_ms < 20.1);
    ptier_test_box_reopen(&box);
    read_record(&record);
    assert_true(record.latency_ms > 19.9 && record.latency_ms < 20.1);
}

#define WITH_CACHE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_CACHE(third_failure_removes_with_reason_health_in_every_set_of_tiers),
        WITH_CACHE(success_resets_the_count_and_unknown_changes_nothing),
        WITH_CACHE(success_that_moves_only_latency_is_no_change),
        WITH_CACHE(threshold_of_zero_never_removes),
        WITH_CACHE(reports_of_one_call_apply_in_order),
        WITH_CACHE(failures_survive_a_restart),
        WITH_CACHE(absurd_latencies_are_not_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
