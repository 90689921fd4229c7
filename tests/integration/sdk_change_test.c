/* Changes other than puts, against a real proxytierd: they ask for a durability and tell what was
 * reached, each in both forms. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <proxytier/async.h>

#include "support/daemon.h"

#define PATIENCE_MS 30000
#define MEMORY_ONLY                                                                                \
    (const char *const[])                                                                          \
    {                                                                                              \
        "--l2", "off", "--l3", "off", NULL                                                         \
    }

static const ptier_change_call synced = {.durability = PTIER_DURABILITY_SYNCED};
static const char *const keys[] = {"k1", "k2"};

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        ptier_error error = {.message = ""};                                                       \
        ptier_status status_ = (call);                                                             \
        if (status_ != PTIER_OK)                                                                   \
            fail_msg("%s: %s: %s", #call, ptier_status_text(status_), error.message);              \
    } while (0)

static ptier_client *
start_and_open(test_daemon *daemon, const char *const *options)
{
    ptier_client_options client_options;
    ptier_client *client;
    test_daemon_start(daemon, options);
    ptier_client_options_init(&client_options);
    client_options.url = daemon->url;
    client_options.timeout_ms = 20000;
    assert_ok(ptier_client_open(&client_options, &client, &error));
    return client;
}

static void
put_k1(ptier_client *client)
{
    ptier_record record;
    ptier_record_init(&record);
    record.key = keys[0];
    record.url = "http://192.0.2.1:3128";
    assert_ok(ptier_put(client, &record, NULL, NULL, &error));
}

/* Waits, takes, frees the handle. */
static ptier_async_result
finish(ptier_async *call)
{
    ptier_async_result result;
    assert_true(ptier_async_wait(call, PATIENCE_MS));
    if (ptier_async_take(call, &result) != PTIER_OK)
        fail_msg("%s", result.error.message);
    ptier_async_free(call);
    return result;
}

/* ---- delete ---- */

static ptier_delete_result
delete_both(ptier_client *client, const ptier_change_call *call, bool waits)
{
    ptier_delete_result result;
    ptier_async *started;
    put_k1(client);
    if (waits) {
        assert_ok(ptier_delete(client, keys, 2, call, &result, &error));
        return result;
    }
    assert_ok(ptier_async_delete(client, keys, 2, call, NULL, NULL, &started, &error));
    ptier_async_result ended = finish(started);
    result = ended.deletion;
    ptier_async_result_free(&ended);
    return result;
}

static void
a_delete_reaches_what_it_asks_for(void **state)
{
    ptier_client *client = start_and_open(*state, NULL);
    ptier_records found;
    for (int waits = 0; waits < 2; waits++) {
        ptier_delete_result result = delete_both(client, &synced, waits);
        assert_int_equal(result.deleted, 1);
        assert_int_equal(result.durability, PTIER_DURABILITY_SYNCED);
        assert_true(result.revision > 0);
        assert_int_equal(ptier_get(client, keys[0], &found, NULL), PTIER_NOT_FOUND);
        result = delete_both(client, NULL, waits);
        assert_int_equal(result.deleted, 1);
        assert_true(result.durability >= PTIER_DURABILITY_LOGGED); /* the daemon's default */
    }
    /* What was not there before is as durably not there. */
    ptier_delete_result result;
    assert_ok(ptier_delete(client, keys, 2, &synced, &result, &error));
    assert_int_equal(result.deleted, 0);
    assert_int_equal(result.durability, PTIER_DURABILITY_SYNCED);
    assert_ok(ptier_delete(client, keys, 2, &synced, NULL, &error));
    ptier_client_close(client);
}

static void
a_delete_in_memory_tells_that_it_is(void **state)
{
    ptier_client *client = start_and_open(*state, MEMORY_ONLY);
    for (int waits = 0; waits < 2; waits++) {
        ptier_delete_result result = delete_both(client, &synced, waits);
        assert_int_equal(result.deleted, 1);
        assert_int_equal(result.durability, PTIER_DURABILITY_MEMORY);
    }
    ptier_client_close(client);
}

/* ---- report_health ---- */

/* Reports k1, which is there, and k2, which is not, as failed. Returns what was reached. */
static ptier_durability
report_both(ptier_client *client, const ptier_change_call *call, bool waits)
{
    const ptier_report reports[] = {{.key = keys[0], .outcome = PTIER_REPORT_FAILED},
                                    {.key = keys[1], .outcome = PTIER_REPORT_FAILED}};
    ptier_report_results results;
    ptier_async *started;
    ptier_async_result ended = {.status = PTIER_OK};
    put_k1(client);
    if (waits) {
        assert_ok(ptier_report_health(client, reports, 2, call, &results, &error));
    } else {
        assert_ok(
            ptier_async_report_health(client, reports, 2, call, NULL, NULL, &started, &error));
        ended = finish(started);
        results = ended.reports;
    }
    assert_int_equal(results.count, 2);
    assert_true(results.items[0].found);
    assert_int_equal(results.items[0].failure_count, 1);
    assert_int_equal(results.items[0].health, PTIER_HEALTH_DEGRADED);
    assert_true(results.items[0].revision > 0);
    assert_false(results.items[1].found);
    ptier_durability reached = results.durability;
    if (waits)
        ptier_report_results_free(&results);
    else
        ptier_async_result_free(&ended);
    assert_ok(ptier_delete(client, keys, 1, NULL, NULL, &error)); /* with its failures */
    return reached;
}

static void
a_report_reaches_what_it_asks_for(void **state)
{
    ptier_client *client = start_and_open(*state, NULL);
    for (int waits = 0; waits < 2; waits++) {
        assert_int_equal(report_both(client, &synced, waits), PTIER_DURABILITY_SYNCED);
        assert_true(report_both(client, NULL, waits) >= PTIER_DURABILITY_LOGGED);
    }
    ptier_client_close(client);
}

static void
a_report_in_memory_tells_that_it_is(void **state)
{
    ptier_client *client = start_and_open(*state, MEMORY_ONLY);
    for (int waits = 0; waits < 2; waits++)
        assert_int_equal(report_both(client, &synced, waits), PTIER_DURABILITY_MEMORY);
    ptier_client_close(client);
}

static void
results_of_reports_are_empty_after_a_failure_and_once_freed(void **state)
{
    ptier_client *client = start_and_open(*state, NULL);
    const ptier_report good = {.key = "k", .outcome = PTIER_REPORT_OK}, bad = {.key = NULL};
    ptier_report_results results;
    memset(&results, 0xff, sizeof results);
    assert_int_equal(ptier_report_health(client, &bad, 1, NULL, &results, NULL),
                     PTIER_INVALID_ARGUMENT);
    assert_null(results.items);
    assert_int_equal(results.count, 0);
    ptier_report_results_free(&results);
    assert_ok(ptier_report_health(client, &good, 1, NULL, &results, &error));
    assert_int_equal(results.count, 1);
    ptier_report_results_free(&results);
    assert_null(results.items);
    ptier_report_results_free(&results);
    ptier_report_results_free(NULL);
    assert_ok(ptier_report_health(client, &good, 1, NULL, NULL, &error));
    assert_ok(ptier_report_health(client, NULL, 0, NULL, &results, &error));
    assert_int_equal(results.count, 0);
    ptier_report_results_free(&results);
    ptier_client_close(client);
}

/* ---- clear ---- */

static void
a_clear_reaches_what_it_asks_for(void **state)
{
    ptier_client *client = start_and_open(*state, NULL);
    ptier_clear_result result;
    put_k1(client);
    assert_ok(ptier_clear(client, PTIER_TIER_L1, &synced, &result, &error));
    assert_int_equal(result.cleared, 1);
    assert_int_equal(result.revision, 0);
    assert_int_equal(result.durability, PTIER_DURABILITY_DEFAULT); /* nothing has changed */
    assert_ok(ptier_clear(client, PTIER_TIER_NONE, &synced, &result, &error));
    assert_int_equal(result.cleared, 1);
    assert_true(result.revision > 0);
    assert_int_equal(result.durability, PTIER_DURABILITY_SYNCED);
    put_k1(client);
    assert_ok(ptier_clear(client, PTIER_TIER_NONE, NULL, &result, &error));
    assert_int_equal(result.cleared, 1);
    assert_true(result.durability >= PTIER_DURABILITY_LOGGED);
    assert_ok(ptier_clear(client, PTIER_TIER_NONE, NULL, NULL, &error));
    memset(&result, 0xff, sizeof result);
    assert_int_equal(ptier_clear(client, PTIER_TIER_L3, NULL, &result, NULL),
                     PTIER_FAILED_PRECONDITION);
    assert_int_equal(result.cleared, 0);
    ptier_client_close(client);
}

static void
a_clear_in_memory_tells_that_it_is(void **state)
{
    ptier_client *client = start_and_open(*state, MEMORY_ONLY);
    ptier_clear_result result;
    put_k1(client);
    assert_ok(ptier_clear(client, PTIER_TIER_NONE, &synced, &result, &error));
    assert_int_equal(result.cleared, 1);
    assert_int_equal(result.durability, PTIER_DURABILITY_MEMORY);
    ptier_client_close(client);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, test_daemon_set_up, test_daemon_tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_delete_reaches_what_it_asks_for),
        CASE(a_delete_in_memory_tells_that_it_is),
        CASE(a_report_reaches_what_it_asks_for),
        CASE(a_report_in_memory_tells_that_it_is),
        CASE(results_of_reports_are_empty_after_a_failure_and_once_freed),
        CASE(a_clear_reaches_what_it_asks_for),
        CASE(a_clear_in_memory_tells_that_it_is),
    };
    return cmocka_run_group_tests_name("sdk_change", tests, NULL, NULL);
}
