/*
 * A rotator at work while its daemon is killed and started again: it goes on, blocks nowhere beyond
 * its deadlines, and its near cache and subscription are right again. PTIER_RESTARTS=N: how often
 * (8). A watchdog dumps all stacks, where gdb is there, when it hangs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pthread.h>
#include <poll.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <proxytier/client.h>

#include "support/mirrors.h"
#include "support/settings.h"
#include "support/monotonic.h"

#define THREADS     3
#define RECORDS     200
#define TIMEOUT_MS  500
#define LATE_MS     10000 /* what a loaded machine may add: "hangs" is longer */
#define PATIENCE_MS 40000
#define HANG_S      120

typedef struct rotator {
    ptier_client *client;
    atomic_uint served[THREADS], failed;
    _Atomic int64_t longest_ms;
    atomic_int wrong; /* a status that it must not get; 0: none */
    atomic_bool over;
    atomic_uint connected, resyncs;
} rotator;

typedef struct worker {
    rotator *rotator;
    unsigned number;
    pthread_t thread;
} worker;

static void
on_alarm(int signal)
{
    static const char text[] = "hangs; stacks follow\n";
    ssize_t written = write(STDERR_FILENO, text, sizeof text - 1);
    (void)written;
    (void)signal;
    abort(); /* gdb, a core file or the test's log tell where */
}

static void
on_state(void *context, ptier_subscription_state state)
{
    rotator *r = context;
    if (state == PTIER_SUBSCRIPTION_CONNECTED)
        atomic_fetch_add(&r->connected, 1);
    if (state == PTIER_SUBSCRIPTION_RESYNC)
        atomic_fetch_add(&r->resyncs, 1);
}

static void
on_event(void *context, const ptier_event *event)
{
    (void)context;
    (void)event;
}

/* One thing that a rotator does, in turn. */
static ptier_status
do_something(ptier_client *client, unsigned turn)
{
    char key[24];
    ptier_records records = {0};
    ptier_status status;
    test_key(turn % RECORDS, key);
    if (turn % 8 == 0) {
        char url[64];
        ptier_record record;
        ptier_record_init(&record);
        (void)snprintf(url, sizeof url, "http://10.200.0.%u:8080", turn / 8 % 250);
        record.url = url;
        return ptier_put(client, &record, NULL, NULL, NULL);
    }
    status = ptier_get(client, key, &records, NULL);
    ptier_records_free(&records);
    return status;
}

static bool
is_allowed(ptier_status status)
{
    return status == PTIER_OK || status == PTIER_UNAVAILABLE || status == PTIER_DEADLINE_EXCEEDED;
}

static void *
rotate(void *argument)
{
    worker *w = argument;
    rotator *r = w->rotator;
    const struct timespec pause = {.tv_nsec = 300000};
    for (unsigned turn = w->number; !atomic_load(&r->over); turn++) {
        int64_t begun = ptier_test_now();
        ptier_status status = do_something(r->client, turn);
        int64_t took = ptier_test_now() - begun, longest = atomic_load(&r->longest_ms);
        while (took > longest && !atomic_compare_exchange_weak(&r->longest_ms, &longest, took))
            ;
        if (status == PTIER_OK)
            atomic_fetch_add(&r->served[w->number], 1);
        else
            atomic_fetch_add(&r->failed, 1);
        if (!is_allowed(status))
            atomic_store(&r->wrong, (int)status);
        nanosleep(&pause, NULL);
    }
    return NULL;
}

static void
wait_for(const atomic_uint *counter, unsigned value, const char *what)
{
    const struct timespec pause = {.tv_nsec = 2000000};
    for (int64_t deadline = ptier_test_now() + PATIENCE_MS; atomic_load(counter) < value;
         nanosleep(&pause, NULL))
        if (ptier_test_now() > deadline)
            fail_msg("waited in vain: %s", what);
}

static ptier_client *
open_near(const test_daemon *daemon)
{
    ptier_client_options options;
    ptier_near_cache_options near;
    ptier_client *client;
    ptier_client_options_init(&options);
    ptier_near_cache_options_init(&near);
    options.url = daemon->url;
    options.timeout_ms = TIMEOUT_MS;
    options.near_cache = &near;
    assert_int_equal(ptier_client_open(&options, &client, NULL), PTIER_OK);
    return client;
}

/* What the near cache had is of another run: it asks, and then serves from memory again. */
static void
expect_near_hits(rotator *r, ptier_client *other, unsigned round)
{
    char key[24];
    ptier_near_statistics before, now;
    ptier_record record;
    ptier_records records = {0};
    char source[24];
    assert_int_equal(ptier_get_near_statistics(r->client, &before, NULL), PTIER_OK);
    int64_t deadline = ptier_test_now() + PATIENCE_MS;
    do {
        assert_true(ptier_test_now() < deadline);
        assert_int_equal(ptier_get_near_statistics(r->client, &now, NULL), PTIER_OK);
        (void)poll(NULL, 0, 2);
    } while (now.hits < before.hits + 50);
    /* A change by somebody else, behind the restart, arrives. */
    test_key(7, key);
    ptier_record_init(&record);
    (void)snprintf(source, sizeof source, "round-%u", round);
    record.url = "http://10.0.0.7:8080";
    record.source = source;
    assert_int_equal(ptier_put(other, &record, NULL, NULL, NULL), PTIER_OK);
    for (bool seen = false; !seen; ptier_records_free(&records)) {
        assert_true(ptier_test_now() < deadline);
        seen = ptier_get(r->client, key, &records, NULL) == PTIER_OK &&
               strcmp(records.records[0].source, source) == 0;
    }
}

static void
rotator_goes_on_while_its_daemon_is_killed_and_restarted(void **state)
{
    (void)state;
    const char *const arguments[] = {"--default-ttl", "0", NULL};
    const unsigned restarts = (unsigned)ptier_test_setting("PTIER_RESTARTS", 8);
    ptier_subscription_options listening;
    ptier_subscription *subscription;
    worker workers[THREADS];
    rotator *r = calloc(1, sizeof *r);
    test_daemon daemon;
    assert_non_null(r);
    (void)signal(SIGALRM, on_alarm);
    test_daemon_init(&daemon);
    test_daemon_start(&daemon, arguments);
    ptier_client *other = test_client_open(&daemon, PATIENCE_MS);
    test_put_range(other, 0, RECORDS, "one");
    r->client = open_near(&daemon);
    ptier_subscription_options_init(&listening);
    listening.on_event = on_event;
    listening.on_state = on_state;
    listening.context = r;
    assert_int_equal(ptier_subscribe(r->client, &listening, &subscription, NULL), PTIER_OK);
    wait_for(&r->connected, 1, "the subscription");
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (worker){.rotator = r, .number = i};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, rotate, &workers[i]), 0);
    }
    for (unsigned round = 0; round < restarts; round++) {
        alarm(HANG_S);
        unsigned resyncs = atomic_load(&r->resyncs);
        for (unsigned i = 0; i < THREADS; i++)
            wait_for(&r->served[i], atomic_load(&r->served[i]) + 20, "every thread is served");
        assert_int_equal(test_daemon_end(&daemon, SIGKILL), 128 + SIGKILL);
        unsigned failed = atomic_load(&r->failed);
        if (round % 2 == 0) /* away for a while: it is told, and not waited for */
            wait_for(&r->failed, failed + 3, "calls that fail without a daemon");
        test_daemon_start(&daemon, arguments);
        wait_for(&r->resyncs, resyncs + 1, "the subscription is told of the other run");
        expect_near_hits(r, other, round);
    }
    atomic_store(&r->over, true);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(workers[i].thread, NULL);
    ptier_subscription_close(subscription);
    ptier_client_close(r->client);
    ptier_client_close(other);
    alarm(0);
    assert_int_equal(atomic_load(&r->wrong), 0);
    assert_in_range(atomic_load(&r->longest_ms), 0, TIMEOUT_MS + LATE_MS);
    print_message("%u restarts: %u calls failed, the longest took %d ms\n", restarts,
                  atomic_load(&r->failed), (int)atomic_load(&r->longest_ms));
    test_daemon_fini(&daemon);
    free(r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rotator_goes_on_while_its_daemon_is_killed_and_restarted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
