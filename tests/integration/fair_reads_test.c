/* Calls that look at every entry do not keep others from reading single ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>
#include <proxytier/client.h>

#include "support/daemon.h"
#include "support/monotonic.h"

#define ENTRIES 20000
#define SCANS   8
#define BATCH   1000

static int
set_up(void **state)
{
    test_daemon_set_up(state);
    test_daemon_start(*state, NULL);
    return 0;
}

static ptier_client *
open_client(const test_daemon *daemon)
{
    ptier_client_options options;
    ptier_client *client;
    ptier_client_options_init(&options);
    options.url = daemon->url;
    options.timeout_ms = 60000;
    assert_int_equal(ptier_client_open(&options, &client, NULL), PTIER_OK);
    return client;
}

static void
put_batch(ptier_client *client, unsigned first)
{
    static ptier_record records[BATCH];
    static char keys[BATCH][16], urls[BATCH][40];
    for (unsigned i = 0; i < BATCH; i++) {
        unsigned number = first + i;
        (void)snprintf(keys[i], sizeof keys[i], "key-%u", number);
        (void)snprintf(urls[i], sizeof urls[i], "http://10.0.%u.%u:80", number / 256, number % 256);
        ptier_record_init(&records[i]);
        records[i].key = keys[i];
        records[i].url = urls[i];
    }
    assert_int_equal(ptier_put_many(client, records, BATCH, NULL, NULL, NULL), PTIER_OK);
}

typedef struct scan {
    ptier_client *client;
    bool pick;
    atomic_uint *begun, *ended;
    pthread_t thread;
} scan;

/* Looks at every entry, and finds none. */
static void *
look_for_none(void *argument)
{
    const scan *s = argument;
    const ptier_label label = {.name = "country", .value = "XX"};
    const ptier_filter filter = {.labels = &label, .label_count = 1};
    ptier_records found;
    atomic_fetch_add(s->begun, 1);
    const ptier_pick_options pick = {.filter = &filter};
    ptier_status status = s->pick ? ptier_pick(s->client, &pick, &found, NULL)
                                  : ptier_list(s->client, &filter, 1000, NULL, &found, NULL);
    atomic_fetch_add(s->ended, 1);
    ptier_records_free(&found);
    return status == (s->pick ? PTIER_NOT_FOUND : PTIER_OK) ? argument : NULL;
}

static void
read_among(const test_daemon *daemon, bool pick)
{
    ptier_client *client = open_client(daemon), *greedy = open_client(daemon);
    scan scans[SCANS];
    atomic_uint begun = 0, ended = 0;
    ptier_records found;
    for (unsigned i = 0; i < ENTRIES; i += BATCH)
        put_batch(client, i);
    for (unsigned i = 0; i < SCANS; i++) {
        scans[i] = (scan){.client = greedy, .pick = pick, .begun = &begun, .ended = &ended};
        assert_int_equal(pthread_create(&scans[i].thread, NULL, look_for_none, &scans[i]), 0);
    }
    for (int64_t until = ptier_test_now() + 20;
         atomic_load(&begun) < SCANS || ptier_test_now() < until;)
        ; /* they are about to reach the daemon */
    assert_int_equal(ptier_get(client, "key-7", &found, NULL), PTIER_OK);
    unsigned before = atomic_load(&ended);
    ptier_records_free(&found);
    for (unsigned i = 0; i < SCANS; i++) {
        void *ok;
        pthread_join(scans[i].thread, &ok);
        assert_non_null(ok);
    }
    assert_true(before < SCANS - 2); /* in one queue with them it is the last but those that run */
    ptier_client_close(greedy);
    ptier_client_close(client);
}

static void
read_does_not_wait_for_those_that_walk_over_all_entries(void **state)
{
    read_among(*state, false);
}

static void
read_does_not_wait_for_picks_that_find_none(void **state)
{
    read_among(*state, true);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, test_daemon_tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(read_does_not_wait_for_those_that_walk_over_all_entries),
        CASE(read_does_not_wait_for_picks_that_find_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
