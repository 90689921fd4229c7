/* Asynchronous calls against a real proxytierd: each ends once, whatever happens to it. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <proxytier/async.h>

#include "support/daemon.h"

#define PATIENCE_MS 30000

typedef struct outcomes {
    atomic_uint ended;
    atomic_uint by_status[17];
} outcomes;

/* One call: its callback must come once. */
typedef struct told {
    outcomes *all;
    atomic_uint times;
} told;

static void
on_done(void *context, ptier_async_result *result)
{
    told *t = context;
    atomic_fetch_add(&t->times, 1);
    atomic_fetch_add(&t->all->by_status[result->status], 1);
    atomic_fetch_add(&t->all->ended, 1);
}

static void
wait_for(atomic_uint *number, unsigned goal)
{
    const struct timespec pause = {.tv_nsec = 2000000};
    for (unsigned i = 0; atomic_load(number) < goal && i < PATIENCE_MS / 2; i++)
        nanosleep(&pause, NULL);
    assert_int_equal(atomic_load(number), goal);
}

static void
assert_once_each(told *calls, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(atomic_load(&calls[i].times), 1);
}

/* Stops the daemon; it answers nothing any more when this returns. SIGCONT lets it go on. */
static void
freeze(const test_daemon *daemon)
{
    int end;
    assert_int_equal(kill(daemon->pid, SIGSTOP), 0);
    assert_int_equal(waitpid(daemon->pid, &end, WUNTRACED), daemon->pid);
    assert_true(WIFSTOPPED(end));
}

static ptier_client *
open_client(const char *url, uint32_t timeout_ms, uint32_t limit)
{
    ptier_client_options options;
    ptier_client *client;
    ptier_client_options_init(&options);
    options.url = url;
    options.timeout_ms = timeout_ms;
    options.async_calls = limit;
    assert_int_equal(ptier_client_open(&options, &client, NULL), PTIER_OK);
    return client;
}

static void
make_record(ptier_record *record, char url[64], unsigned i)
{
    (void)snprintf(url, 64, "http://10.%u.%u.%u:8080", i >> 16 & 255, i >> 8 & 255, i & 255);
    ptier_record_init(record);
    record->url = url;
    record->source = "test";
}

/* Waits, takes, frees the handle. */
static ptier_status
finish(ptier_async *call, ptier_async_result *result)
{
    assert_true(ptier_async_wait(call, PATIENCE_MS));
    assert_true(ptier_async_poll(call));
    ptier_status status = ptier_async_take(call, result);
    ptier_async_free(call);
    return status;
}

static void
start_gets(ptier_client *client, told *calls, outcomes *all, unsigned count, ptier_async **handles)
{
    for (unsigned i = 0; i < count; i++) {
        calls[i].all = all;
        assert_int_equal(ptier_async_get(client, "0123456789abcdef", on_done, &calls[i],
                                         handles ? &handles[i] : NULL, NULL),
                         PTIER_OK);
    }
}

/* ---- cases ---- */

/* The first is one that may not be done twice: the client must get to know the daemon before. */
static void
every_call_does_what_its_synchronous_form_does(void **state)
{
    const test_daemon *daemon = *state;
    ptier_client *client = open_client(daemon->url, 10000, 0);
    ptier_async_result result;
    ptier_async *call;
    ptier_record records[3];
    char urls[3][64], key[PTIER_KEY_MAX + 1];

    ptier_report report = {.key = "0123456789abcdef", .outcome = PTIER_REPORT_FAILED};
    assert_int_equal(ptier_async_report_health(client, &report, 1, NULL, NULL, NULL, &call, NULL),
                     PTIER_OK);
    assert_int_equal(finish(call, &result), PTIER_OK);
    assert_int_equal(result.reports.count, 1);
    assert_false(result.reports.items[0].found);
    ptier_async_result_free(&result);

    for (unsigned i = 0; i < 3; i++)
        make_record(&records[i], urls[i], i);
    assert_int_equal(ptier_async_put_many(client, records, 3, NULL, NULL, NULL, &call, NULL),
                     PTIER_OK);
    assert_int_equal(finish(call, &result), PTIER_OK);
    assert_int_equal(result.puts.count, 3);
    (void)snprintf(key, sizeof key, "%s", result.puts.items[0].key);
    ptier_async_result_free(&result);
    assert_int_equal(ptier_async_put(client, &records[0], NULL, NULL, NULL, &call, NULL), PTIER_OK);
    assert_int_equal(finish(call, &result), PTIER_OK);
    assert_int_equal(result.puts.items[0].outcome, PTIER_PUT_UPDATED);
    ptier_async_result_free(&result);
    records[0].url = "no such thing";
    assert_int_equal(ptier_async_put(client, &records[0], NULL, NULL, NULL, &call, NULL), PTIER_OK);
    assert_int_equal(finish(call, &result), PTIER_INVALID_ARGUMENT);
    assert_true(result.error.message[0] != '\0');
    ptier_async_result_free(&result);

    assert_int_equal(ptier_async_get(client, key, NULL, NULL, &call, NULL), PTIER_OK);
    assert_int_equal(finish(call, &result), PTIER_OK);
    assert_string_equal(result.records.records[0].url, urls[0]);
    ptier_async_result_free(&result);
    const char *keys[] = {key, "0123456789abcdef"};
    assert_int_equal(ptier_async_get_many(client, keys, 2, NULL, NULL, &call, NULL), PTIER_OK);
    assert_int_equal(finish(call, &result), PTIER_OK);
    assert_int_equal(result.records.count, 1);
    ptier_async_result_free(&result);
    ptier_pick_options pick = {.count = 3};
    assert_int_equal(ptier_async_pick(client, &pick, NULL, NULL, &call, NULL), PTIER_OK);
    assert_int_equal(finish(call, &result), PTIER_OK);
    assert_int_equal(result.records.count, 3);
    ptier_async_result_free(&result);
    assert_int_equal(ptier_async_delete(client, keys, 2, NULL, NULL, NULL, &call, NULL), PTIER_OK);
    assert_int_equal(finish(call, &result), PTIER_OK);
    assert_int_equal(result.deletion.deleted, 1);
    assert_int_equal(ptier_async_get(client, key, NULL, NULL, &call, NULL), PTIER_OK);
    assert_int_equal(finish(call, &result), PTIER_NOT_FOUND);
    ptier_client_close(client);
}

typedef struct starter {
    ptier_client *client;
    outcomes *all;
    told *calls;
    unsigned first, count;
    pthread_t thread;
} starter;

static void *
start_puts(void *argument)
{
    starter *s = argument;
    for (unsigned i = 0; i < s->count; i++) {
        ptier_record record;
        char url[64];
        make_record(&record, url, s->first + i);
        s->calls[i].all = s->all;
        if (ptier_async_put(s->client, &record, NULL, on_done, &s->calls[i], NULL, NULL) !=
            PTIER_OK)
            return argument;
    }
    return NULL;
}

static void
thousands_in_flight_end_once_each(void **state)
{
    enum { THREADS = 4, EACH = 1000 };
    const test_daemon *daemon = *state;
    ptier_client *client = open_client(daemon->url, 30000, THREADS * EACH);
    told *calls = calloc(THREADS * EACH, sizeof *calls);
    outcomes all = {0};
    starter starters[THREADS];
    ptier_statistics statistics;

    assert_non_null(calls);
    freeze(daemon); /* so that they are all under way at once */
    for (unsigned i = 0; i < THREADS; i++) {
        starters[i] = (starter){client, &all, calls + i * EACH, i * EACH, EACH, 0};
        assert_int_equal(pthread_create(&starters[i].thread, NULL, start_puts, &starters[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        void *failed;
        pthread_join(starters[i].thread, &failed);
        assert_null(failed);
    }
    assert_int_equal(ptier_async_get(client, "k", on_done, calls, NULL, NULL),
                     PTIER_RESOURCE_EXHAUSTED); /* one more than the client's bound */
    kill(daemon->pid, SIGCONT);
    wait_for(&all.ended, THREADS * EACH);
    assert_int_equal(atomic_load(&all.by_status[PTIER_OK]), THREADS * EACH);
    assert_once_each(calls, THREADS * EACH);
    assert_int_equal(ptier_get_statistics(client, &statistics, NULL), PTIER_OK);
    assert_int_equal(statistics.entries, THREADS * EACH);
    ptier_client_close(client);
    free(calls);
}

static void
cancelled_calls_end_soon_and_the_others_go_on(void **state)
{
    enum { COUNT = 600 };
    const test_daemon *daemon = *state;
    ptier_client *client = open_client(daemon->url, 60000, 0);
    told *calls = calloc(COUNT, sizeof *calls);
    static ptier_async *handles[COUNT];
    outcomes all = {0};

    ptier_records none;
    assert_non_null(calls);
    assert_int_equal(ptier_get(client, "0123456789abcdef", &none, NULL), PTIER_NOT_FOUND);
    freeze(daemon);
    start_gets(client, calls, &all, COUNT, handles);
    for (unsigned i = 0; i < COUNT; i++)
        if (i % 3 != 0)
            ptier_async_cancel(handles[i]);
    wait_for(&all.ended, COUNT / 3 * 2); /* while the daemon answers nothing */
    assert_int_equal(atomic_load(&all.by_status[PTIER_CANCELLED]), COUNT / 3 * 2);
    kill(daemon->pid, SIGCONT);
    wait_for(&all.ended, COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        ptier_async_result result;
        ptier_async_cancel(handles[i]); /* has ended: nothing happens */
        ptier_status status = finish(handles[i], &result);
        /* The daemon finds the requests of cancelled calls, too: together they may be too many. */
        if (i % 3 == 0 && status == PTIER_RESOURCE_EXHAUSTED)
            continue;
        assert_int_equal(status, i % 3 != 0 ? PTIER_CANCELLED : PTIER_NOT_FOUND);
    }
    assert_true(atomic_load(&all.by_status[PTIER_NOT_FOUND]) > 0);
    assert_once_each(calls, COUNT);
    ptier_client_close(client);
    free(calls);
}

static void
closing_ends_all_with_cancelled_once_each(void **state)
{
    enum { COUNT = 1000 };
    const test_daemon *daemon = *state;
    ptier_client *client = open_client(daemon->url, 60000, 0);
    told *calls = calloc(COUNT, sizeof *calls);
    static ptier_async *handles[COUNT];
    outcomes all = {0};

    ptier_records none;
    assert_non_null(calls);
    assert_int_equal(ptier_get(client, "0123456789abcdef", &none, NULL), PTIER_NOT_FOUND);
    freeze(daemon);
    start_gets(client, calls, &all, COUNT, handles);
    ptier_client_close(client);
    assert_int_equal(atomic_load(&all.by_status[PTIER_CANCELLED]), COUNT); /* already */
    assert_once_each(calls, COUNT);
    kill(daemon->pid, SIGCONT);
    for (unsigned i = 0; i < COUNT; i++) { /* handles outlive the client */
        ptier_async_result result;
        ptier_async_cancel(handles[i]);
        assert_int_equal(finish(handles[i], &result), PTIER_CANCELLED);
    }
    free(calls);
}

static void
daemon_killed_amid_flight_ends_each_call_once(void **state)
{
    enum { ROUNDS = 5, COUNT = 800 };
    test_daemon *daemon = *state;
    ptier_client *client = open_client(daemon->url, 3000, 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        told *calls = calloc(COUNT, sizeof *calls);
        outcomes all = {0};
        assert_non_null(calls);
        for (unsigned i = 0; i < COUNT; i++) {
            ptier_report report = {.key = "0123456789abcdef", .outcome = PTIER_REPORT_FAILED};
            calls[i].all = &all;
            if (i % 2 == 0)
                start_gets(client, &calls[i], &all, 1, NULL);
            else
                assert_int_equal(ptier_async_report_health(client, &report, 1, NULL, on_done,
                                                           &calls[i], NULL, NULL),
                                 PTIER_OK);
            if (i == COUNT / 2)
                (void)test_daemon_end(daemon, SIGKILL); /* 137 */
        }
        test_daemon_start(daemon, NULL);
        wait_for(&all.ended, COUNT);
        assert_once_each(calls, COUNT);
        unsigned known = all.by_status[PTIER_OK] + all.by_status[PTIER_NOT_FOUND] +
                         all.by_status[PTIER_UNAVAILABLE] + all.by_status[PTIER_ABORTED] +
                         all.by_status[PTIER_DEADLINE_EXCEEDED];
        assert_int_equal(known, COUNT);
        free(calls);
    }
    ptier_client_close(client);
}

static void
deadlines_hold_for_those_that_wait_for_their_turn(void **state)
{
    enum { COUNT = 300 };
    const test_daemon *daemon = *state;
    ptier_client *client = open_client(daemon->url, 400, 0);
    told *calls = calloc(COUNT, sizeof *calls);
    outcomes all = {0};

    ptier_records none;
    assert_non_null(calls);
    assert_int_equal(ptier_get(client, "0123456789abcdef", &none, NULL), PTIER_NOT_FOUND);
    freeze(daemon);
    start_gets(client, calls, &all, COUNT, NULL);
    wait_for(&all.ended, COUNT);
    assert_int_equal(atomic_load(&all.by_status[PTIER_DEADLINE_EXCEEDED]), COUNT);
    kill(daemon->pid, SIGCONT);
    ptier_client_close(client);
    free(calls);
}

static void
nobody_listening_is_unavailable_at_once(void **state)
{
    enum { COUNT = 100 };
    told *calls = calloc(COUNT, sizeof *calls);
    outcomes all = {0};
    ptier_client *client = open_client("ipc:///tmp/ptier-no-such-directory/rpc.sock", 600000, 0);
    (void)state;
    assert_non_null(calls);
    start_gets(client, calls, &all, COUNT, NULL);
    wait_for(&all.ended, COUNT); /* long before the timeout */
    assert_int_equal(atomic_load(&all.by_status[PTIER_UNAVAILABLE]), COUNT);
    ptier_report report = {.key = "0123456789abcdef", .outcome = PTIER_REPORT_FAILED};
    ptier_async_result result;
    ptier_async *call;
    assert_int_equal(ptier_async_report_health(client, &report, 1, NULL, NULL, NULL, &call, NULL),
                     PTIER_OK);
    assert_int_equal(finish(call, &result), PTIER_UNAVAILABLE); /* nobody to get to know */
    ptier_client_close(client);
    free(calls);
}

typedef struct chain {
    ptier_client *client;
    atomic_uint left, ended;
    atomic_bool wrong;
} chain;

static void
on_link(void *context, ptier_async_result *result)
{
    chain *c = context;
    if (result->status != PTIER_NOT_FOUND)
        atomic_store(&c->wrong, true);
    if (atomic_fetch_sub(&c->left, 1) == 1)
        atomic_store(&c->ended, 1);
    else if (ptier_async_get(c->client, "0123456789abcdef", on_link, c, NULL, NULL) != PTIER_OK) {
        atomic_store(&c->wrong, true);
        atomic_store(&c->ended, 1);
    }
}

static void
callbacks_can_start_the_next_call_within_the_bound(void **state)
{
    const test_daemon *daemon = *state;
    chain c = {.client = open_client(daemon->url, 10000, 1)};
    atomic_store(&c.left, 500);
    assert_int_equal(ptier_async_get(c.client, "0123456789abcdef", on_link, &c, NULL, NULL),
                     PTIER_OK);
    wait_for(&c.ended, 1);
    assert_false(atomic_load(&c.wrong));
    ptier_client_close(c.client);
}

static void
keep_records(void *context, ptier_async_result *result)
{
    ptier_records *kept = context;
    *kept = result->records;
    memset(&result->records, 0, sizeof result->records);
}

static void
what_a_callback_moves_out_stays(void **state)
{
    const test_daemon *daemon = *state;
    ptier_client *client = open_client(daemon->url, 10000, 0);
    ptier_records kept = {.count = 0};
    ptier_async_result result;
    ptier_record record;
    ptier_async *call;
    char url[64];
    make_record(&record, url, 1);
    assert_int_equal(ptier_put(client, &record, NULL, NULL, NULL), PTIER_OK);
    assert_int_equal(ptier_async_pick(client, NULL, keep_records, &kept, &call, NULL), PTIER_OK);
    assert_int_equal(finish(call, &result), PTIER_OK);
    assert_int_equal(result.records.count, 0);
    ptier_client_close(client);
    assert_string_equal(kept.records[0].url, url);
    ptier_records_free(&kept);
}

static void
near_cache_sees_asynchronous_changes(void **state)
{
    const test_daemon *daemon = *state;
    ptier_near_cache_options near;
    ptier_client_options options;
    ptier_client *client;
    ptier_async *call;
    ptier_async_result result;
    ptier_record record;
    ptier_put_results puts;
    char url[64];
    ptier_near_cache_options_init(&near);
    ptier_client_options_init(&options);
    options.url = daemon->url;
    options.near_cache = &near;
    assert_int_equal(ptier_client_open(&options, &client, NULL), PTIER_OK);
    for (unsigned i = 0; i < 200; i++) {
        ptier_records records;
        make_record(&record, url, i);
        assert_int_equal(ptier_put(client, &record, NULL, &puts, NULL), PTIER_OK);
        const char *key = puts.items[0].key;
        assert_int_equal(ptier_get(client, key, &records, NULL), PTIER_OK);
        ptier_records_free(&records);
        assert_int_equal(ptier_async_delete(client, &key, 1, NULL, NULL, NULL, &call, NULL),
                         PTIER_OK);
        assert_int_equal(finish(call, &result), PTIER_OK);
        assert_int_equal(ptier_get(client, key, &records, NULL), PTIER_NOT_FOUND);
        ptier_put_results_free(&puts);
    }
    ptier_client_close(client);
}

static void
forked_child_is_told_so(void **state)
{
    const test_daemon *daemon = *state;
    ptier_client *client = open_client(daemon->url, 10000, 0);
    ptier_async *call;
    int end;
    pid_t child = fork();
    if (child == 0) {
        ptier_error error = {.message = ""};
        ptier_status status = ptier_async_get(client, "k", NULL, NULL, &call, &error);
        _exit(status == PTIER_FAILED_PRECONDITION && !call && strstr(error.message, "fork") ? 0
                                                                                            : 1);
    }
    assert_int_equal(waitpid(child, &end, 0), child);
    assert_int_equal(end, 0);
    ptier_client_close(client);
}

static int
start_daemon(void **state)
{
    static test_daemon daemon;
    memset(&daemon, 0, sizeof daemon);
    test_daemon_init(&daemon);
    test_daemon_start(&daemon, NULL);
    *state = &daemon;
    return 0;
}

static int
stop_daemon(void **state)
{
    test_daemon_fini(*state);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start_daemon, stop_daemon)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_call_does_what_its_synchronous_form_does),
        TEST(thousands_in_flight_end_once_each),
        TEST(cancelled_calls_end_soon_and_the_others_go_on),
        TEST(closing_ends_all_with_cancelled_once_each),
        TEST(daemon_killed_amid_flight_ends_each_call_once),
        TEST(deadlines_hold_for_those_that_wait_for_their_turn),
        cmocka_unit_test(nobody_listening_is_unavailable_at_once),
        TEST(callbacks_can_start_the_next_call_within_the_bound),
        TEST(what_a_callback_moves_out_stays),
        TEST(near_cache_sees_asynchronous_changes),
        TEST(forked_child_is_told_so),
    };
    cmocka_set_test_filter(getenv("PTIER_CASE"));
    return cmocka_run_group_tests_name("async", tests, NULL, NULL);
}
