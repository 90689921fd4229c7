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
latency_is_a_moving_average_of_what_was_measured(void **state)
{
    (void)state;
    ptier_record record;
    ptier_test_box_put(&box, 1);
    read_record(&record);
    assert_true(record.latency_ms == 0);
    ptier_test_box_report(&box, "p1", PTIER_REPORT_OK, 100);
    ptier_test_box_report(&box, "p1", PTIER_REPORT_OK, 0); /* not measured */
    read_record(&record);
    assert_true(record.latency_ms == 100);
    ptier_test_box_report(&box, "p1", PTIER_REPORT_OK, 50);
    read_record(&record);
    assert_true(record.latency_ms == 90);
    ptier_test_box_report(&box, "p1", PTIER_REPORT_FAILED, 140); /* a change takes it along */
    read_record(&record);
    assert_true(record.latency_ms == 100);
}

/* Also when the entry has left L1 in between, and in whatever is the lowest tier. */
static void
report_figures_survive_eviction_and_restart_and_leave_the_ttl_alone(void **state)
{
    (void)state;
    for (int tiers = BOX_L2; tiers <= BOX_ALL; tiers++) {
        ptier_record record;
        ptier_test_box_fini(&box);
        ptier_test_box_init(&box, tiers);
        box.options.l1_entries = 10;
        box.options.default_ttl_ms = 1000000;
        ptier_test_box_open(&box);
        ptier_test_box_put(&box, 1);
        ptier_test_clock_advance(&box.clock, 1000);
        for (int i = 0; i < 3; i++)
            ptier_test_box_report(&box, "p1", PTIER_REPORT_OK, 20);
        ptier_test_box_report(&box, "p1", PTIER_REPORT_FAILED, 20);
        ptier_test_box_report(&box, "p1", PTIER_REPORT_FAILED, 20);
        ptier_test_box_report(&box, "p1", PTIER_REPORT_OK, 20);
        ptier_test_box_report(&box, "p1", PTIER_REPORT_OK, 20); /* only a statistic */
        for (int i = 2; i < 200; i++)
            ptier_test_box_put(&box, i);
        for (int i = 0; i < 2; i++) {
            read_record(&record);
            assert_int_equal(record.report_count, 7);
            assert_int_equal(record.success_count, 5);
            assert_int_equal(record.failure_count, 0);
            assert_int_equal(record.health, PTIER_HEALTH_HEALTHY);
            assert_false(record.needs_revalidation);
            assert_true(record.latency_ms > 19.9 && record.latency_ms < 20.1);
            assert_int_equal(record.remaining_ttl_ms, 999000);
            ptier_test_box_reopen(&box);
        }
    }
}

static void
one_bulk_report_covers_a_thousand_entries(void **state)
{
    (void)state;
    enum { COUNT = 1000 };
    static ptier_report reports[3 * COUNT];
    static ptier_report_result results[3 * COUNT];
    static char keys[COUNT][16];
    for (int i = 0; i < COUNT; i++) {
        ptier_test_box_put(&box, i);
        (void)snprintf(keys[i], sizeof keys[i], "p%d", i);
    }
    for (int i = 0; i < 3 * COUNT; i++) /* every tenth is fine, the others reach the threshold */
        reports[i] = (ptier_report){.key = keys[i % COUNT],
                                    .latency_ms = 5,
                                    .outcome = i % 10 ? PTIER_REPORT_FAILED : PTIER_REPORT_OK};
    assert_int_equal(ptier_cache_report(box.cache, reports, 3 * COUNT, PTIER_DURABILITY_DEFAULT,
                                        results, NULL, &box.error),
                     PTIER_OK);
    for (int i = 0; i < 3 * COUNT; i++) {
        assert_true(results[i].found);
        assert_int_equal(results[i].removed, i >= 2 * COUNT && i % 10);
    }
    assert_int_equal(ptier_test_box_entries(&box), COUNT / 10);
    assert_int_equal(ptier_test_box_statistics(&box).removals[PTIER_REASON_HEALTH],
                     COUNT - COUNT / 10);
    assert_int_equal(ptier_test_box_statistics(&box).reports, 3 * COUNT);
    /* Two failures each before the end, and the first success of those that are fine. */
    assert_int_equal(ptier_test_box_changes(&box, PTIER_EVENT_HEALTH, 0, NULL),
                     2 * (COUNT - COUNT / 10) + COUNT / 10);
}

static void
put_keeps_the_mark_until_a_success_or_a_newer_statement(void **state)
{
    (void)state;
    ptier_record record, in;
    char key[16], url[40];
    ptier_test_box_put(&box, 1);
    ptier_test_box_report(&box, "p1", PTIER_REPORT_FAILED, 0);
    ptier_test_box_put(&box, 1);
    read_record(&record);
    assert_true(record.needs_revalidation);
    assert_int_equal(record.failure_count, 1);
    assert_int_equal(record.health, PTIER_HEALTH_DEGRADED);
    ptier_test_box_record(&in, 1, key, url);
    in.health = PTIER_HEALTH_HEALTHY;
    in.failure_count = 0;
    ptier_test_clock_advance(&box.clock, 1000);
    ptier_test_box_put_record(&box, &in, NULL);
    read_record(&record);
    assert_false(record.needs_revalidation);
    assert_int_equal(record.failure_count, 0);
    assert_int_equal(record.health, PTIER_HEALTH_HEALTHY);
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
        WITH_CACHE(latency_is_a_moving_average_of_what_was_measured),
        WITH_CACHE(report_figures_survive_eviction_and_restart_and_leave_the_ttl_alone),
        WITH_CACHE(one_bulk_report_covers_a_thousand_entries),
        WITH_CACHE(put_keeps_the_mark_until_a_success_or_a_newer_statement),
        WITH_CACHE(threshold_of_zero_never_removes),
        WITH_CACHE(reports_of_one_call_apply_in_order),
        WITH_CACHE(failures_survive_a_restart),
        WITH_CACHE(absurd_latencies_are_not_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
