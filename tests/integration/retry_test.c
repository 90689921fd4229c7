/*
 * Calls that change something, over connections that are cut at random and over daemons that are
 * killed: each is done once, or the caller is told that nobody knows. PTIER_CALLS=N: so many.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cmocka.h>

#include <proxytier/client.h>

#include "support/cut_proxy.h"
#include "support/daemon.h"

#define CLIENTS            8
#define THREADS_PER_CLIENT 2
#define CALLS              10000
#define MEAN_BYTES         400 /* a few calls */
#define KILLS              12

#define WITH(...) ((const char *[]){__VA_ARGS__, NULL})

typedef struct worker {
    ptier_client *client;
    char url[64], key[PTIER_KEY_MAX + 1];
    unsigned calls; /* to make */
    const atomic_bool *stop;
    /* What came of it. */
    uint32_t failures;               /* that the daemon must have counted */
    unsigned puts, reports, aborted; /* done; unknown */
    unsigned turned_away;            /* UNAVAILABLE, and made again */
    char wrong[200];                 /* what must not be; "" */
    pthread_t thread;
} worker;

static ptier_client *
open_client(const char *url)
{
    ptier_client_options options;
    ptier_client *client;
    ptier_client_options_init(&options);
    options.url = url;
    options.timeout_ms = 40000;
    options.retries = 60;
    assert_int_equal(ptier_client_open(&options, &client, NULL), PTIER_OK);
    return client;
}

static ptier_status
put(worker *w, ptier_error *error)
{
    ptier_record record;
    ptier_put_results results;
    ptier_record_init(&record);
    record.url = w->url;
    ptier_status status = ptier_put(w->client, &record, NULL, &results, error);
    if (status == PTIER_OK) {
        (void)snprintf(w->key, sizeof w->key, "%s", results.items[0].key);
        w->puts++;
        ptier_put_results_free(&results);
    }
    return status;
}

static ptier_status
report(worker *w, ptier_error *error)
{
    ptier_report failed = {.key = w->key, .outcome = PTIER_REPORT_FAILED};
    ptier_report_results results;
    ptier_status status = ptier_report_health(w->client, &failed, 1, NULL, &results, error);
    if (status != PTIER_OK)
        return status;
    w->reports++;
    w->failures++;
    const ptier_report_result *result = results.items;
    if (!result->found || result->failure_count != w->failures)
        (void)snprintf(w->wrong, sizeof w->wrong, "%u failures where there should be %u",
                       result->failure_count, w->failures);
    ptier_report_results_free(&results);
    return PTIER_OK;
}

/* Of an unknown outcome both are right, and nothing else. */
static void
look_what_became_of_it(worker *w)
{
    ptier_records records;
    ptier_status status;
    do
        status = ptier_get(w->client, w->key, &records, NULL);
    while (status == PTIER_UNAVAILABLE && usleep(10000) == 0);
    w->aborted++;
    if (status != PTIER_OK || records.records[0].failure_count - w->failures > 1)
        (void)snprintf(w->wrong, sizeof w->wrong, "after ABORTED, with %u: status %d", w->failures,
                       (int)status);
    else
        w->failures = records.records[0].failure_count;
    ptier_records_free(&records);
}

static void *
work(void *argument)
{
    worker *w = argument;
    for (unsigned i = 0; i < w->calls && !w->wrong[0] && !(w->stop && atomic_load(w->stop)); i++) {
        ptier_error error = {.message = ""};
        ptier_status status = i % 4 == 0 ? put(w, &error) : report(w, &error);
        if (status == PTIER_UNAVAILABLE) { /* certainly not done */
            w->turned_away++;
            i--;
            (void)usleep(5000); /* a pause, as an application would */
        } else if (status == PTIER_ABORTED && w->stop) {
            look_what_became_of_it(w);
        } else if (status != PTIER_OK) {
            (void)snprintf(w->wrong, sizeof w->wrong, "status %d: %.150s", (int)status,
                           error.message);
        }
    }
    return NULL;
}

static void
start(worker *w, unsigned number, ptier_client *client, unsigned calls)
{
    *w = (worker){.client = client, .calls = calls};
    (void)snprintf(w->url, sizeof w->url, "http://10.0.%u.1:8080", number);
}

static unsigned
calls_wanted(void)
{
    const char *text = getenv("PTIER_CALLS");
    return text && *text ? (unsigned)strtoul(text, NULL, 10) : CALLS;
}

static void
calls_over_cut_connections_are_done_once_each(void **state)
{
    test_daemon *daemon = *state;
    static cut_proxy proxy;
    ptier_client *clients[CLIENTS], *direct;
    static worker workers[CLIENTS * THREADS_PER_CLIENT];
    const size_t count = CLIENTS * THREADS_PER_CLIENT;
    unsigned calls = calls_wanted() / (unsigned)count, puts = 0, reports = 0;
    test_daemon_start(daemon, WITH("--failure-threshold", "0"));
    cut_proxy_start(&proxy, daemon->url, MEAN_BYTES, 1);
    for (size_t i = 0; i < CLIENTS; i++)
        clients[i] = open_client(proxy.url);
    for (size_t i = 0; i < count; i++) {
        start(&workers[i], (unsigned)i, clients[i / THREADS_PER_CLIENT], calls);
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (size_t i = 0; i < count; i++)
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
    for (size_t i = 0; i < CLIENTS; i++)
        ptier_client_close(clients[i]);
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(workers[i].wrong, "");
        puts += workers[i].puts;
        reports += workers[i].reports;
    }
    cut_proxy_stop(&proxy);
    assert_int_equal(puts + reports, calls * count);

    ptier_statistics statistics;
    direct = open_client(daemon->url);
    assert_int_equal(ptier_get_statistics(direct, &statistics, NULL), PTIER_OK);
    assert_int_equal(statistics.puts, puts);
    assert_int_equal(statistics.reports, reports);
    ptier_client_close(direct);
    print_message("%u calls, %u cuts on the way there, %u on the way back\n", puts + reports,
                  atomic_load(&proxy.cuts[0]), atomic_load(&proxy.cuts[1]));
    assert_true(atomic_load(&proxy.cuts[0]) > calls / 20);
    assert_true(atomic_load(&proxy.cuts[1]) > calls / 20);
}

static void
no_call_is_done_twice_over_killed_daemons(void **state)
{
    test_daemon *daemon = *state;
    ptier_client *clients[CLIENTS];
    static worker workers[CLIENTS];
    atomic_bool stop = false;
    unsigned aborted = 0, done = 0;
    test_daemon_start(daemon, WITH("--failure-threshold", "0"));
    for (size_t i = 0; i < CLIENTS; i++) {
        clients[i] = open_client(daemon->url);
        start(&workers[i], (unsigned)i, clients[i], 1);
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (size_t i = 0; i < CLIENTS; i++) { /* the first call is the put */
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
        assert_int_equal(workers[i].puts, 1);
        workers[i].calls = UINT32_MAX;
        workers[i].stop = &stop;
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < KILLS; i++) {
        (void)usleep(60000 + 17000 * (i % 5)); /* some work between the kills */
        int signal = i % 3 == 2 ? SIGTERM : SIGKILL;
        assert_int_equal(test_daemon_end(daemon, signal), signal == SIGTERM ? 0 : 128 + signal);
        test_daemon_start(daemon, WITH("--failure-threshold", "0"));
    }
    atomic_store(&stop, true);
    for (size_t i = 0; i < CLIENTS; i++) {
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
        ptier_client_close(clients[i]);
    }
    for (size_t i = 0; i < CLIENTS; i++) {
        assert_string_equal(workers[i].wrong, "");
        aborted += workers[i].aborted;
        done += workers[i].reports + workers[i].puts;
    }
    print_message("%u calls over %d kills, %u of unknown outcome\n", done + aborted, KILLS,
                  aborted);
    assert_true(aborted > 0);
    assert_true(aborted <= CLIENTS * KILLS);
    assert_true(done > 100);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, test_daemon_set_up, test_daemon_tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(calls_over_cut_connections_are_done_once_each),
        TEST(no_call_is_done_twice_over_killed_daemons),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
