/* The near cache of a client at a real daemon: what is served without a call, what is not, and what
 * the daemon learns of it. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <proxytier/client.h>

#include "support/daemon.h"
#include "support/monotonic.h"

#define PATIENCE_MS 20000
#define KEY         "near-key"
#define URL         "http://user:secret@192.0.2.7:3128"

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        ptier_error error = {.message = ""};                                                       \
        ptier_status status_ = (call);                                                             \
        if (status_ != PTIER_OK)                                                                   \
            fail_msg("%s: %s: %s", #call, ptier_status_text(status_), error.message);              \
    } while (0)

static void
short_pause(void)
{
    const struct timespec pause = {.tv_nsec = 2000000};
    nanosleep(&pause, NULL);
}

static ptier_client *
open_client(const test_daemon *daemon, const ptier_near_cache_options *near)
{
    ptier_client_options options;
    ptier_client *client;
    ptier_client_options_init(&options);
    options.url = daemon->url;
    options.timeout_ms = 10000;
    options.near_cache = near;
    assert_int_equal(ptier_client_open(&options, &client, NULL), PTIER_OK);
    return client;
}

static ptier_near_statistics
statistics_of(ptier_client *client)
{
    ptier_near_statistics statistics;
    assert_ok(ptier_get_near_statistics(client, &statistics, &error));
    return statistics;
}

static void
wait_fresh(ptier_client *client)
{
    int64_t until = ptier_test_now() + PATIENCE_MS;
    ptier_near_statistics s = statistics_of(client);
    while (!s.following || s.age_ms < 0 || s.age_ms > 500) {
        assert_true(ptier_test_now() < until);
        short_pause();
        s = statistics_of(client);
    }
}

static ptier_client *
open_near(const test_daemon *daemon, ptier_on_stale on_stale)
{
    ptier_near_cache_options near;
    ptier_near_cache_options_init(&near);
    near.on_stale = on_stale;
    ptier_client *client = open_client(daemon, &near);
    wait_fresh(client);
    return client;
}

static void
put(ptier_client *client, const char *key, const char *source)
{
    ptier_record record;
    ptier_record_init(&record);
    record.key = key;
    record.url = URL;
    record.source = source;
    assert_ok(ptier_put(client, &record, NULL, NULL, &error));
}

static void
assert_source(ptier_client *client, const char *key, const char *source, size_t near_count)
{
    ptier_records found;
    assert_ok(ptier_get(client, key, &found, &error));
    assert_int_equal(found.count, 1);
    assert_string_equal(found.records[0].key, key);
    assert_string_equal(found.records[0].source, source);
    assert_string_equal(found.records[0].username, "user");
    assert_string_equal(found.records[0].password, "secret");
    assert_int_equal(found.near_count, near_count);
    assert_true(found.records[0].remaining_ttl_ms > 0 || found.records[0].remaining_ttl_ms == -1);
    assert_false(found.stale);
    ptier_records_free(&found);
}

/* Until a read gives this source. */
static void
wait_for_source(ptier_client *client, const char *key, const char *source)
{
    int64_t until = ptier_test_now() + PATIENCE_MS;
    for (bool seen = false; !seen; short_pause()) {
        ptier_records found;
        assert_true(ptier_test_now() < until);
        assert_ok(ptier_get(client, key, &found, &error));
        seen = strcmp(found.records[0].source, source) == 0;
        ptier_records_free(&found);
    }
}

static void
second_read_needs_no_call(void **state)
{
    ptier_client *writer = open_client(*state, NULL), *client;
    put(writer, KEY, "first");
    client = open_near(*state, PTIER_ON_STALE_ASK);
    assert_source(client, KEY, "first", 0);
    assert_source(client, KEY, "first", 1);
    const char *keys[] = {"none", KEY, "other", KEY};
    ptier_records found;
    put(writer, "other", "other");
    for (size_t round = 0; round < 2; round++) {
        assert_ok(ptier_get_many(client, keys, 4, &found, &error));
        assert_int_equal(found.count, 3);
        assert_string_equal(found.records[0].key, KEY);
        assert_string_equal(found.records[1].key, "other");
        assert_string_equal(found.records[1].source, "other");
        assert_string_equal(found.records[2].key, KEY);
        assert_int_equal(found.near_count, round == 0 ? 2 : 3);
        assert_true(found.as_of > 0);
        ptier_records_free(&found);
    }
    ptier_near_statistics s = statistics_of(client);
    assert_int_equal(s.entries, 2);
    assert_int_equal(s.absent_entries, 1);
    assert_int_equal(s.absent_hits, 1);
    assert_true(s.bytes > 0);
    ptier_client_close(client);
    ptier_client_close(writer);
}

static void
changes_of_others_arrive(void **state)
{
    ptier_client *writer = open_client(*state, NULL), *client;
    put(writer, KEY, "first");
    client = open_near(*state, PTIER_ON_STALE_ASK);
    assert_source(client, KEY, "first", 0);
    put(writer, KEY, "second");
    wait_for_source(client, KEY, "second");

    ptier_report report = {.key = KEY, .outcome = PTIER_REPORT_FAILED};
    ptier_report_results results;
    ptier_records found = {0};
    assert_ok(ptier_report_health(writer, &report, 1, NULL, &results, &error));
    int64_t until = ptier_test_now() + PATIENCE_MS;
    do { /* patched in place */
        short_pause();
        ptier_records_free(&found);
        assert_true(ptier_test_now() < until);
        assert_ok(ptier_get(client, KEY, &found, &error));
    } while (found.records[0].failure_count != 1);
    assert_int_equal(found.near_count, 1);
    assert_true(found.records[0].needs_revalidation);
    assert_int_equal(found.records[0].health, PTIER_HEALTH_DEGRADED);
    assert_int_equal(found.records[0].revision, results.items[0].revision);
    ptier_report_results_free(&results);
    assert_string_equal(found.records[0].password, "secret");
    assert_int_equal(statistics_of(client).patches, 1);
    ptier_records_free(&found);

    const char *keys[] = {KEY};
    assert_ok(ptier_delete(writer, keys, 1, NULL, NULL, &error));
    while (ptier_get(client, KEY, &found, NULL) == PTIER_OK) {
        ptier_records_free(&found);
        assert_true(ptier_test_now() < until);
        short_pause();
    }
    assert_int_equal(ptier_get(client, KEY, &found, NULL), PTIER_NOT_FOUND);
    put(writer, KEY, "third");
    while (ptier_get(client, KEY, &found, NULL) == PTIER_NOT_FOUND) {
        assert_true(ptier_test_now() < until);
        short_pause();
    }
    ptier_records_free(&found);
    assert_ok(ptier_clear(writer, PTIER_TIER_NONE, NULL, NULL, &error));
    while (ptier_get(client, KEY, &found, NULL) == PTIER_OK) {
        ptier_records_free(&found);
        assert_true(ptier_test_now() < until);
        short_pause();
    }
    ptier_client_close(client);
    ptier_client_close(writer);
}

static void
own_writes_are_seen_at_once(void **state)
{
    ptier_client *client = open_near(*state, PTIER_ON_STALE_ASK);
    const char *keys[] = {KEY};
    ptier_records found;
    for (int i = 0; i < 200; i++) {
        char source[16];
        snprintf(source, sizeof source, "s%d", i);
        put(client, KEY, source);
        assert_ok(ptier_get(client, KEY, &found, &error));
        assert_string_equal(found.records[0].source, source);
        uint64_t revision = found.records[0].revision;
        ptier_records_free(&found);
        if (i % 3 == 0) {
            ptier_report report = {.key = KEY, .outcome = PTIER_REPORT_FAILED};
            assert_ok(ptier_report_health(client, &report, 1, NULL, NULL, &error));
            assert_ok(ptier_get(client, KEY, &found, &error));
            assert_int_equal(found.records[0].failure_count, 1);
            assert_true(found.records[0].revision > revision);
            ptier_records_free(&found);
        }
        if (i % 4 == 0)
            assert_ok(ptier_delete(client, keys, 1, NULL, NULL, &error));
        else if (i % 4 == 1)
            assert_ok(ptier_clear(client, PTIER_TIER_NONE, NULL, NULL, &error));
        if (i % 4 < 2)
            assert_int_equal(ptier_get(client, KEY, &found, NULL), PTIER_NOT_FOUND);
    }
    put(client, KEY, "filled by the put");
    assert_source(client, KEY, "filled by the put", 1);
    ptier_client_close(client);
}

static void
daemon_learns_of_hits(void **state)
{
    ptier_client *client = open_near(*state, PTIER_ON_STALE_ASK);
    ptier_client *other = open_client(*state, NULL);
    ptier_records found = {0};
    put(client, KEY, "s");
    uint64_t hits = statistics_of(client).hits;
    while (statistics_of(client).hits < hits + 500) {
        ptier_records_free(&found);
        assert_ok(ptier_get(client, KEY, &found, &error));
    }
    int64_t until = ptier_test_now() + PATIENCE_MS;
    uint64_t looks = 0; /* these count, too */
    do {
        ptier_records_free(&found);
        assert_true(ptier_test_now() < until);
        short_pause();
        assert_ok(ptier_get(other, KEY, &found, &error));
    } while (found.records[0].access_count < 500 + ++looks);
    assert_true(found.records[0].last_access_ms > 0);
    ptier_records_free(&found);
    assert_int_equal(statistics_of(client).unreported_hits, 0);
    ptier_client_close(client);
    ptier_client_close(other);
}

static void
wait_until_stale(ptier_client *client)
{
    int64_t until = ptier_test_now() + PATIENCE_MS;
    ptier_near_statistics s = statistics_of(client);
    while (s.age_ms >= 0 && s.age_ms <= 1000) {
        assert_true(ptier_test_now() < until);
        short_pause();
        s = statistics_of(client);
    }
}

static void
without_contact_the_caller_chooses(void **state)
{
    test_daemon *daemon = *state;
    ptier_client *ask = open_near(daemon, PTIER_ON_STALE_ASK);
    ptier_client *serve = open_near(daemon, PTIER_ON_STALE_SERVE);
    ptier_client *fail = open_near(daemon, PTIER_ON_STALE_FAIL);
    const char *keys[] = {KEY};
    ptier_records found;
    put(ask, KEY, "s");
    wait_for_source(serve, KEY, "s");
    wait_for_source(fail, KEY, "s");
    assert_int_equal(test_daemon_end(daemon, SIGKILL), 128 + SIGKILL);
    wait_until_stale(ask);
    wait_until_stale(serve);
    wait_until_stale(fail);

    assert_int_equal(ptier_get(ask, KEY, &found, NULL), PTIER_UNAVAILABLE);
    assert_int_equal(ptier_get(fail, KEY, &found, NULL), PTIER_UNAVAILABLE);
    assert_int_equal(ptier_get_many(fail, keys, 1, &found, NULL), PTIER_UNAVAILABLE);
    assert_ok(ptier_get(serve, KEY, &found, &error));
    assert_true(found.stale);
    assert_int_equal(found.near_count, 1);
    ptier_records_free(&found);
    assert_ok(ptier_get_many(serve, keys, 1, &found, &error));
    assert_true(found.stale);
    ptier_records_free(&found);
    assert_true(statistics_of(fail).declined >= 2);

    test_daemon_start(daemon, NULL);
    wait_fresh(ask);
    wait_fresh(serve);
    assert_source(serve, KEY, "s", 0); /* what was known of the last run is dropped */
    assert_source(ask, KEY, "s", 0);
    assert_source(ask, KEY, "s", 1);
    ptier_client_close(ask);
    ptier_client_close(serve);
    ptier_client_close(fail);
}

typedef struct crowd {
    ptier_client *client;
    pthread_barrier_t start;
} crowd;

static void *
read_missing(void *context)
{
    crowd *c = context;
    ptier_records found;
    pthread_barrier_wait(&c->start);
    return ptier_get(c->client, "missing", &found, NULL) == PTIER_NOT_FOUND ? context : NULL;
}

static void
threads_that_miss_one_key_make_one_call(void **state)
{
    test_daemon *daemon = *state;
    enum { CROWD = 16 };
    pthread_t threads[CROWD];
    crowd c = {.client = open_near(daemon, PTIER_ON_STALE_ASK)};
    pthread_barrier_init(&c.start, NULL, CROWD);
    kill(daemon->pid, SIGSTOP); /* so that the first call is under way until all have missed */
    for (int i = 0; i < CROWD; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_missing, &c), 0);
    int64_t until = ptier_test_now() + PATIENCE_MS;
    while (statistics_of(c.client).misses < CROWD && ptier_test_now() < until)
        short_pause();
    kill(daemon->pid, SIGCONT);
    for (int i = 0; i < CROWD; i++) {
        void *right;
        pthread_join(threads[i], &right);
        assert_non_null(right);
    }
    /* One that was between its look and the call when the first answer came may make its own. */
    assert_true(statistics_of(c.client).joined >= CROWD / 2);
    pthread_barrier_destroy(&c.start);
    ptier_client_close(c.client);
}

static int
start(void **state)
{
    test_daemon *daemon = calloc(1, sizeof *daemon);
    assert_non_null(daemon);
    test_daemon_init(daemon);
    test_daemon_start(daemon, NULL);
    *state = daemon;
    return 0;
}

static int
stop(void **state)
{
    test_daemon_fini(*state);
    free(*state);
    return 0;
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, start, stop)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(second_read_needs_no_call),          CASE(changes_of_others_arrive),
        CASE(own_writes_are_seen_at_once),        CASE(daemon_learns_of_hits),
        CASE(without_contact_the_caller_chooses), CASE(threads_that_miss_one_key_make_one_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
