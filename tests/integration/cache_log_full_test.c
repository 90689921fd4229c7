/*
 * L3 does not take what L2's log has for it, and the log has reached its bound: writers are slowed,
 * then refused, and nothing that was acknowledged is lost.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "support/outage.h"

enum {
    LOG_MAX = 128 << 10,
    LINE_MAX = 1024, /* of what is put here */
    TIMEOUT_MS = 200,
    OLD_KEYS = 40,
    SLOW_PUTS = 10,
    LEAST_SLOWNESS_MS =
        20, /* of so many puts; they are held back 20 ms each, if nobody wakes them */
    TTL_MS = 60000,
};

static ptier_outage o;

static uint64_t
log_bytes(void)
{
    return ptier_test_box_statistics(&o.box).log_bytes;
}

/* The keys below OLD_KEYS are in L3. */
static int
set_up(void **state)
{
    (void)state;
    ptier_outage_set_up(&o, BOX_ALL);
    o.box.options.log_max_bytes = LOG_MAX;
    o.box.options.failure_threshold = 1;
    o.box.hooks.room_timeout_ms = TIMEOUT_MS;
    ptier_test_box_open(&o.box);
    for (int i = 0; i < OLD_KEYS; i++)
        (void)ptier_outage_put(&o, i, PTIER_DURABILITY_DEFAULT);
    BOX_AWAIT(log_bytes() == 0);
    ptier_outage_begin(OUTAGE_L3);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    ptier_outage_tear_down(&o);
    return 0;
}

static ptier_status
try_put(int number, int64_t ttl_ms)
{
    ptier_record record;
    char key[16], url[40];
    ptier_put_result result = {0};
    ptier_test_box_record(&record, number, key, url);
    record.ttl_ms = ttl_ms;
    ptier_status status =
        ptier_cache_put(o.box.cache, &record, 1, NULL, &result, NULL, &o.box.error);
    if (!status)
        o.expected[number] = result.revision;
    return status;
}

/* Puts new keys from `number` on until that is refused; returns the first that was. */
static int
fill_log(int number, int64_t ttl_ms)
{
    ptier_status status = PTIER_OK;
    for (; !status && number < OUTAGE_KEYS; number++) {
        status = try_put(number, ttl_ms);
        assert_in_range(log_bytes(), 0, LOG_MAX + LINE_MAX);
    }
    assert_int_equal(status, PTIER_RESOURCE_EXHAUSTED);
    assert_in_range(log_bytes(), LOG_MAX, LOG_MAX + LINE_MAX);
    return number - 1;
}

static void
a_full_log_refuses_puts_and_says_why(void **state)
{
    (void)state;
    int refused = fill_log(OLD_KEYS, 0);
    assert_non_null(strstr(o.box.error.message, "log_max_bytes"));
    assert_true(refused > 100);
    for (int i = 0; i < 3; i++) /* new keys and old ones */
        assert_int_equal(try_put(i ? refused : 1, 0), PTIER_RESOURCE_EXHAUSTED);
    ptier_outage_check(&o, &o.box);
    ptier_outage_check_copy(&o, BOX_ALL);
    ptier_outage_check_copy(&o, BOX_L2 | BOX_L3);
}

static void
near_its_bound_the_log_slows_puts(void **state)
{
    (void)state;
    int number = OLD_KEYS;
    while (log_bytes() < LOG_MAX - LOG_MAX / 8)
        assert_int_equal(try_put(number++, 0), PTIER_OK);
    assert_true(log_bytes() + SLOW_PUTS * LINE_MAX < LOG_MAX);
    int64_t start = ptier_test_now();
    for (int i = 0; i < SLOW_PUTS; i++)
        assert_int_equal(try_put(number++, 0), PTIER_OK);
    assert_true(ptier_test_now() - start >= LEAST_SLOWNESS_MS);
}

static void
a_full_log_takes_deletes_and_removals_by_health(void **state)
{
    (void)state;
    int refused = fill_log(OLD_KEYS, 0);
    for (int i = 0; i < OLD_KEYS / 2;
         i++) { /* their lines are on top: nothing else leaves the log */
        ptier_written written = ptier_outage_delete(&o, i, PTIER_DURABILITY_LOGGED);
        assert_int_equal(written.durability, PTIER_DURABILITY_LOGGED);
    }
    for (int i = OLD_KEYS / 2; i < OLD_KEYS; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "p%d", i);
        assert_true(ptier_test_box_report(&o.box, key, PTIER_REPORT_FAILED, 0).removed);
        o.expected[i] = 0;
    }
    assert_in_range(log_bytes(), LOG_MAX, LOG_MAX + LINE_MAX * (1 + OLD_KEYS));
    assert_int_equal(try_put(refused, 0), PTIER_RESOURCE_EXHAUSTED);
    ptier_outage_check(&o, &o.box);
    ptier_outage_check_copy(&o, BOX_ALL);
    for (int i = OLD_KEYS; i < refused; i++) /* those do leave it */
        (void)ptier_outage_delete(&o, i, PTIER_DURABILITY_LOGGED);
    assert_true(log_bytes() < LOG_MAX);
    assert_int_equal(try_put(refused, 0), PTIER_OK);
    ptier_outage_check_copy(&o, BOX_ALL);
}

static void
with_a_full_log_expiry_and_clear_go_on(void **state)
{
    (void)state;
    int refused = fill_log(OLD_KEYS, TTL_MS);
    ptier_test_box_advance(&o.box, TTL_MS + 1000);
    memset(o.expected + OLD_KEYS, 0, sizeof o.expected - OLD_KEYS * sizeof *o.expected);
    ptier_outage_check(&o, &o.box);
    (void)fill_log(refused, 0);
    uint64_t cleared, revision;
    assert_int_equal(ptier_cache_clear(o.box.cache, PTIER_TIER_NONE, PTIER_DURABILITY_LOGGED,
                                       &cleared, &revision, NULL, &o.box.error),
                     PTIER_OK);
    memset(o.expected, 0, sizeof o.expected);
    ptier_outage_check(&o, &o.box);
    assert_int_equal(try_put(1, 0), PTIER_OK);
    ptier_outage_check_copy(&o, BOX_ALL);
}

static void
what_is_no_change_is_not_refused(void **state)
{
    (void)state;
    const ptier_report report = {.key = "p1", .outcome = PTIER_REPORT_OK, .latency_ms = 5};
    ptier_io_heal();
    ptier_outage_await_up(&o);
    (void)ptier_test_box_report(&o.box, "p1", PTIER_REPORT_OK, 5); /* the first makes it healthy */
    BOX_AWAIT(log_bytes() == 0);
    ptier_outage_begin(OUTAGE_L3);
    (void)fill_log(OLD_KEYS, 0);
    ptier_report_result result;
    assert_int_equal(ptier_cache_report(o.box.cache, &report, 1, PTIER_DURABILITY_DEFAULT, &result,
                                        NULL, &o.box.error),
                     PTIER_OK);
    assert_true(result.found);
}

static void
writers_go_on_when_l3_is_back(void **state)
{
    (void)state;
    int next = fill_log(OLD_KEYS, 0);
    for (int round = 0; round < 3; round++) {
        ptier_io_heal();
        BOX_AWAIT(try_put(next, 0) == PTIER_OK);
        next++;
        ptier_outage_await_up(&o);
        ptier_outage_check_copy(&o, BOX_L3);
        BOX_AWAIT(log_bytes() < LOG_MAX / 2);
        ptier_outage_begin(OUTAGE_L3);
        next = fill_log(next, 0);
    }
    ptier_test_box_close(&o.box); /* full */
    ptier_io_heal();
    ptier_test_box_open(&o.box);
    ptier_outage_check(&o, &o.box);
    ptier_outage_await_up(&o);
    ptier_outage_check_copy(&o, BOX_L3);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_full_log_refuses_puts_and_says_why),
        CASE(near_its_bound_the_log_slows_puts),
        CASE(a_full_log_takes_deletes_and_removals_by_health),
        CASE(with_a_full_log_expiry_and_clear_go_on),
        CASE(what_is_no_change_is_not_refused),
        CASE(writers_go_on_when_l3_is_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
