/* Expiry: never served after it, told in time, counted on the right clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <proxytier/import.h>

#include "support/cache_box.h"

#define DAY INT64_C(86400000)

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
put_with_ttl(int number, int64_t ttl_ms, const char *source)
{
    ptier_record record;
    char key[16], url[40];
    ptier_test_box_record(&record, number, key, url);
    record.ttl_ms = ttl_ms;
    record.source = source;
    assert_true(ptier_test_box_put_record(&box, &record, NULL).outcome <= PTIER_PUT_UPDATED);
}

static int64_t
remaining(int number)
{
    char key[16];
    ptier_entry *entry;
    ptier_record record;
    (void)snprintf(key, sizeof key, "p%d", number);
    if (ptier_cache_get(box.cache, key, &entry, NULL))
        return -2;
    ptier_cache_read(box.cache, entry, &record, NULL);
    ptier_entry_release(entry);
    return record.remaining_ttl_ms;
}

static void
expired_is_not_served_from_the_instant_on(void **state)
{
    (void)state;
    for (int tiers = 1; tiers <= BOX_ALL; tiers++) {
        ptier_test_box_fini(&box);
        ptier_test_box_init(&box, tiers);
        ptier_test_box_open(&box);
        put_with_ttl(1, 1000, NULL);
        put_with_ttl(2, 0, NULL);
        ptier_test_clock_advance(&box.clock, 999);
        assert_int_equal(remaining(1), 1);
        ptier_test_clock_advance(&box.clock, 1);
        assert_int_equal(remaining(1), -2);
        assert_int_equal(remaining(2), -1);
        ptier_test_box_advance(&box, 128);
        assert_int_equal(ptier_test_box_changes(&box, PTIER_EVENT_REMOVED, PTIER_REASON_TTL, "p1"),
                         1);
        assert_int_equal(ptier_test_box_entries(&box), 1);
        assert_int_equal(ptier_test_box_statistics(&box).removals[PTIER_REASON_TTL], 1);
        ptier_test_box_advance(&box, INT64_C(20) * 86400 * 1000);
        assert_int_equal(remaining(2), -1);
    }
}

/* The cache's own thread, on its own. */
static void
expiry_comes_without_being_asked_for(void **state)
{
    (void)state;
    for (int i = 0; i < 3000; i++)
        put_with_ttl(i, 1000 + i, NULL);
    ptier_test_clock_advance(&box.clock, 5000);
    BOX_AWAIT(ptier_test_box_changes(&box, PTIER_EVENT_REMOVED, PTIER_REASON_TTL, NULL) == 3000);
    BOX_AWAIT(ptier_test_box_statistics(&box).pending_writes == 0);
    ptier_statistics s = ptier_test_box_statistics(&box);
    for (int tier = PTIER_TIER_L1; tier <= PTIER_TIER_L3; tier++)
        assert_int_equal(s.tiers[tier].entries, 0);
}

static void
expiry_is_told_in_order_of_expiry(void **state)
{
    (void)state;
    for (int i = 0; i < 2000; i++)
        put_with_ttl(i, 1000 + i * 997 % 2000 * 100, NULL);
    ptier_test_box_advance(&box, 300000);
    int last = 0;
    size_t seen = 0;
    for (size_t i = 0; i < box.change_count; i++) {
        if (box.changes[i].type != PTIER_EVENT_REMOVED)
            continue;
        int number;
        assert_int_equal(sscanf(box.changes[i].key, "p%d", &number), 1);
        int expiry = number * 997 % 2000 * 100;
        assert_true(expiry >= last - 64);
        last = expiry;
        seen++;
    }
    assert_int_equal(seen, 2000);
}

static void
ttl_is_that_of_the_record_then_the_source_then_the_cache(void **state)
{
    (void)state;
    static const ptier_source_ttl ttls[] = {{"fast", 10000}, {"eternal", 0}};
    box.options.source_ttls = ttls;
    box.options.source_ttl_count = 2;
    box.options.default_ttl_ms = 50000;
    ptier_test_box_reopen(&box);
    put_with_ttl(1, PTIER_TTL_DEFAULT, "fast");
    put_with_ttl(2, PTIER_TTL_DEFAULT, "eternal");
    put_with_ttl(3, PTIER_TTL_DEFAULT, "other");
    put_with_ttl(4, PTIER_TTL_DEFAULT, NULL);
    put_with_ttl(5, 7000, "fast");
    put_with_ttl(6, 0, "fast");
    put_with_ttl(7, PTIER_TTL_MAX_MS, NULL);
    assert_int_equal(remaining(1), 10000);
    assert_int_equal(remaining(2), -1);
    assert_int_equal(remaining(3), 50000);
    assert_int_equal(remaining(4), 50000);
    assert_int_equal(remaining(5), 7000);
    assert_int_equal(remaining(6), -1);
    assert_int_equal(remaining(7), PTIER_TTL_MAX_MS);
}

static void
changed_ttls_apply_to_what_is_cached_afterwards(void **state)
{
    (void)state;
    static const ptier_source_ttl before[] = {{"list", 20000}}, after[] = {{"list", 70000}};
    for (int tiers = BOX_L2; tiers <= BOX_ALL; tiers++) {
        ptier_test_box_fini(&box);
        ptier_test_box_init(&box, tiers);
        box.options.default_ttl_ms = 10000;
        box.options.source_ttls = before;
        box.options.source_ttl_count = 1;
        ptier_test_box_open(&box);
        put_with_ttl(1, PTIER_TTL_DEFAULT, NULL);
        put_with_ttl(2, PTIER_TTL_DEFAULT, "list");
        put_with_ttl(3, PTIER_TTL_DEFAULT, NULL);
        box.options.default_ttl_ms = 0;
        box.options.source_ttls = after;
        ptier_test_box_reopen(&box);
        assert_int_equal(remaining(1), 10000);
        assert_int_equal(remaining(2), 20000);
        put_with_ttl(3, PTIER_TTL_DEFAULT, NULL);
        put_with_ttl(4, PTIER_TTL_DEFAULT, "list");
        assert_int_equal(remaining(3), -1);
        assert_int_equal(remaining(4), 70000);
        ptier_test_box_advance(&box, 10000);
        assert_int_equal(remaining(1), -2);
        assert_int_equal(remaining(2), 10000);
    }
}

static bool
put_imported(void *context, const ptier_import_record *imported)
{
    (void)context;
    ptier_put_options options = {.mode = PTIER_PUT_MODE_WARM, .restore = imported->restore};
    return ptier_test_box_put_record(&box, &imported->record, &options).outcome <=
           PTIER_PUT_UPDATED;
}

static void
zero_never_expires_wherever_it_is_said(void **state)
{
    (void)state;
    static const ptier_source_ttl ttls[] = {{"eternal", 0}};
    static const char list[] = "{\"key\":\"p4\",\"url\":\"http://10.0.0.4:80\",\"ttl_ms\":0}\n";
    ptier_import_options import;
    ptier_import_summary summary;
    for (int tiers = BOX_L1; tiers <= BOX_ALL; tiers++) {
        ptier_test_box_fini(&box);
        ptier_test_box_init(&box, tiers);
        box.options.source_ttls = ttls;
        box.options.source_ttl_count = 1;
        box.options.default_ttl_ms = 0;
        box.options.ttl_jitter = 50;
        ptier_test_box_open(&box);
        put_with_ttl(1, 0, NULL);
        put_with_ttl(2, PTIER_TTL_DEFAULT, "eternal");
        ptier_import_options_init(&import);
        import.format = PTIER_IMPORT_JSONL;
        import.on_record = put_imported;
        assert_int_equal(
            ptier_import_memory(list, sizeof list - 1, NULL, &import, &summary, &box.error),
            PTIER_OK);
        put_with_ttl(3, PTIER_TTL_DEFAULT, NULL);
        ptier_test_box_advance(&box, 20 * DAY);
        for (int i = 1; i <= 4; i++)
            assert_int_equal(remaining(i), -1);
    }
}

static void
jitter_shortens_only_what_was_not_stated(void **state)
{
    (void)state;
    static const ptier_source_ttl ttls[] = {{"list", 1000}};
    int64_t least = INT64_MAX, most = 0;
    box.options.default_ttl_ms = 100000;
    box.options.source_ttls = ttls;
    box.options.source_ttl_count = 1;
    box.options.ttl_jitter = 20;
    ptier_test_box_reopen(&box);
    for (int i = 0; i < 500; i++) {
        put_with_ttl(i, PTIER_TTL_DEFAULT, NULL);
        int64_t left = remaining(i);
        least = left < least ? left : least;
        most = left > most ? left : most;
    }
    assert_true(least >= 80000 && least < 81000);
    assert_true(most <= 100000 && most > 99000);
    put_with_ttl(1, PTIER_TTL_DEFAULT, "list");
    assert_true(remaining(1) >= 800 && remaining(1) <= 1000);
    put_with_ttl(1, 100000, "list");
    assert_int_equal(remaining(1), 100000);
    int64_t first = remaining(2);
    ptier_test_clock_advance(&box.clock, 1);
    put_with_ttl(2, PTIER_TTL_DEFAULT, NULL); /* the same key is not always as unlucky */
    assert_int_not_equal(remaining(2), first);
}

static void
jitter_beyond_half_is_refused(void **state)
{
    (void)state;
    ptier_cache *cache;
    ptier_cache_options options;
    ptier_cache_options_init(&options);
    options.ttl_jitter = 51;
    assert_int_equal(ptier_cache_open(&options, &cache, &box.error), PTIER_INVALID_ARGUMENT);
    assert_non_null(strstr(box.error.message, "jitter"));
}

static void
put_after_expiry_is_an_end_and_a_beginning(void **state)
{
    (void)state;
    put_with_ttl(1, 1000, NULL);
    ptier_test_box_report(&box, "p1", PTIER_REPORT_FAILED, 0);
    ptier_test_clock_advance(&box.clock, 1000);
    put_with_ttl(1, 1000, NULL);
    assert_int_equal(ptier_test_box_changes(&box, PTIER_EVENT_CREATED, 0, "p1"), 2);
    assert_int_equal(ptier_test_box_changes(&box, PTIER_EVENT_REMOVED, PTIER_REASON_TTL, "p1"), 1);
    assert_int_equal(ptier_test_box_changes(&box, PTIER_EVENT_UPDATED, 0, "p1"), 0);
    assert_int_equal(ptier_test_box_report(&box, "p1", PTIER_REPORT_FAILED, 0).failure_count, 1);
}

static void
delete_and_report_of_the_expired_find_nothing(void **state)
{
    (void)state;
    put_with_ttl(1, 1000, NULL);
    put_with_ttl(2, 1000, NULL);
    ptier_test_clock_advance(&box.clock, 1000);
    assert_false(ptier_test_box_delete(&box, 1));
    assert_false(ptier_test_box_report(&box, "p2", PTIER_REPORT_OK, 1).found);
    assert_int_equal(ptier_test_box_changes(&box, PTIER_EVENT_REMOVED, PTIER_REASON_DELETED, NULL),
                     0);
}

/* ---- clocks ---- */

static void
start_over(int tiers)
{
    ptier_test_box_fini(&box);
    ptier_test_box_init(&box, tiers);
    ptier_test_box_open(&box);
}

/* Calls fn for every set of tiers that outlives a restart, and for both directions of a step. */
static void
in_all_disk_tiers_and_directions(void (*fn)(int64_t step))
{
    for (int tiers = BOX_L2; tiers <= BOX_ALL; tiers++)
        for (int direction = -1; direction <= 1; direction += 2) {
            start_over(tiers);
            fn(direction * DAY);
        }
}

static void
step_while_running(int64_t step)
{
    put_with_ttl(1, 10000, NULL);
    put_with_ttl(2, 0, NULL);
    atomic_fetch_add(&box.clock.wall_ms, step);
    put_with_ttl(3, 10000, NULL); /* by a clock that may be wrong */
    for (int i = 1; i <= 3; i += 2)
        assert_int_equal(remaining(i), 10000);
    atomic_fetch_sub(&box.clock.wall_ms, step);
    for (int i = 1; i <= 3; i += 2)
        assert_int_equal(remaining(i), 10000);
    ptier_test_box_advance(&box, 9999);
    for (int i = 1; i <= 3; i += 2)
        assert_int_equal(remaining(i), 1);
    ptier_test_box_advance(&box, 1 + 128);
    for (int i = 1; i <= 3; i += 2)
        assert_int_equal(remaining(i), -2);
    assert_int_equal(remaining(2), -1);
    assert_int_equal(ptier_test_box_changes(&box, PTIER_EVENT_REMOVED, PTIER_REASON_TTL, NULL), 2);
}

static void
step_of_the_wall_clock_changes_nothing_while_running(void **state)
{
    (void)state;
    in_all_disk_tiers_and_directions(step_while_running);
    for (int direction = -1; direction <= 1; direction += 2) {
        start_over(BOX_L1);
        step_while_running(direction * DAY);
    }
}

static void
step_over_a_restart(int64_t step)
{
    put_with_ttl(1, 10000, NULL);
    put_with_ttl(2, 0, NULL);
    ptier_test_box_close(&box);
    atomic_fetch_add(&box.clock.wall_ms, step);
    ptier_test_clock_advance(&box.clock, 4000);
    ptier_test_box_open(&box);
    assert_int_equal(remaining(1), 6000);
    assert_int_equal(remaining(2), -1);
    ptier_test_box_reopen(&box); /* what it wrote meanwhile says the same */
    assert_int_equal(remaining(1), 6000);
    ptier_test_box_advance(&box, 6000);
    assert_int_equal(remaining(1), -2);
}

static void
step_of_the_wall_clock_changes_nothing_over_a_restart_in_the_same_boot(void **state)
{
    (void)state;
    in_all_disk_tiers_and_directions(step_over_a_restart);
}

/* Nobody knows how long the machine was off but the wall clock: also when it was set. */
static void
step_over_a_reboot(int64_t step)
{
    put_with_ttl(1, 10 * DAY, NULL);
    put_with_ttl(2, 0, NULL);
    put_with_ttl(3, DAY / 2, NULL);
    ptier_test_box_close(&box);
    ptier_test_clock_reboot(&box.clock, DAY / 4 + step);
    ptier_test_box_open(&box);
    assert_int_equal(remaining(1), 10 * DAY - DAY / 4 - step);
    assert_int_equal(remaining(2), -1);
    assert_int_equal(remaining(3), step > 0 ? -2 : DAY / 4 - step);
    atomic_fetch_add(&box.clock.wall_ms, step); /* and from here on boot time counts again */
    assert_int_equal(remaining(1), 10 * DAY - DAY / 4 - step);
    ptier_test_box_reopen(&box);
    assert_int_equal(remaining(2), -1);
}

static void
wall_clock_is_trusted_after_a_reboot_whatever_it_says(void **state)
{
    (void)state;
    in_all_disk_tiers_and_directions(step_over_a_reboot);
}

static void
expiry_trusts_the_wall_clock_after_a_reboot(void **state)
{
    (void)state;
    for (int tiers = BOX_L2; tiers <= BOX_ALL; tiers++) {
        ptier_test_box_fini(&box);
        ptier_test_box_init(&box, tiers);
        ptier_test_box_open(&box);
        put_with_ttl(1, 100000, NULL);
        put_with_ttl(2, INT64_C(100000000), NULL);
        put_with_ttl(3, 0, NULL);
        ptier_test_box_close(&box);
        ptier_test_clock_reboot(&box.clock,
                                INT64_C(50000000)); /* longer than the new boot has been up */
        ptier_test_box_open(&box);
        assert_int_equal(remaining(1), -2);
        assert_int_equal(remaining(2), 50000000);
        assert_int_equal(remaining(3), -1);
        ptier_test_box_advance(&box, 128);
        assert_int_equal(ptier_test_box_changes(&box, PTIER_EVENT_REMOVED, PTIER_REASON_TTL, "p1"),
                         1);
        assert_int_equal(ptier_test_box_entries(&box), 2);
        ptier_test_box_advance(&box, 50000000);
        assert_int_equal(remaining(2), -2);
        assert_int_equal(ptier_test_box_entries(&box), 1);
    }
}

/* Promotions, reports and restarts of tiers read such records again and again. */
static void
steps_after_a_reboot_leave_the_records_of_the_boot_before_alone(void **state)
{
    (void)state;
    for (int tiers = 2; tiers <= 7; tiers++) {
        ptier_test_box_fini(&box);
        ptier_test_box_init(&box, tiers);
        ptier_test_box_open(&box);
        put_with_ttl(1, 100000, NULL);
        put_with_ttl(2, 100000, NULL);
        ptier_test_box_close(&box);
        ptier_test_clock_reboot(&box.clock, 30000);
        ptier_test_box_open(&box);
        atomic_fetch_add(&box.clock.wall_ms, DAY);
        assert_int_equal(remaining(1), 70000);
        atomic_fetch_sub(&box.clock.wall_ms, 2 * DAY);
        assert_int_equal(remaining(2), 70000);
    }
}

static void
restart_keeps_the_remaining_ttl(void **state)
{
    (void)state;
    put_with_ttl(1, 10000, NULL);
    ptier_test_clock_advance(&box.clock, 4000);
    ptier_test_box_close(&box);
    ptier_test_clock_advance(&box.clock, 3000);
    ptier_test_box_open(&box);
    assert_int_equal(remaining(1), 3000);
    ptier_test_box_close(&box);
    ptier_test_clock_advance(&box.clock, 3000);
    ptier_test_box_open(&box);
    assert_int_equal(remaining(1), -2);
    ptier_test_box_advance(&box, 128);
    assert_int_equal(ptier_test_box_changes(&box, PTIER_EVENT_REMOVED, PTIER_REASON_TTL, "p1"), 1);
}

#define WITH_CACHE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_CACHE(expired_is_not_served_from_the_instant_on),
        WITH_CACHE(expiry_comes_without_being_asked_for),
        WITH_CACHE(expiry_is_told_in_order_of_expiry),
        WITH_CACHE(ttl_is_that_of_the_record_then_the_source_then_the_cache),
        WITH_CACHE(put_after_expiry_is_an_end_and_a_beginning),
        WITH_CACHE(delete_and_report_of_the_expired_find_nothing),
        WITH_CACHE(changed_ttls_apply_to_what_is_cached_afterwards),
        WITH_CACHE(zero_never_expires_wherever_it_is_said),
        WITH_CACHE(jitter_shortens_only_what_was_not_stated),
        WITH_CACHE(jitter_beyond_half_is_refused),
        WITH_CACHE(step_of_the_wall_clock_changes_nothing_while_running),
        WITH_CACHE(step_of_the_wall_clock_changes_nothing_over_a_restart_in_the_same_boot),
        WITH_CACHE(wall_clock_is_trusted_after_a_reboot_whatever_it_says),
        WITH_CACHE(expiry_trusts_the_wall_clock_after_a_reboot),
        WITH_CACHE(steps_after_a_reboot_leave_the_records_of_the_boot_before_alone),
        WITH_CACHE(restart_keeps_the_remaining_ttl),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
