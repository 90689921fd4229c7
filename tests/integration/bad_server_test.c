/*
 * Clients whose server behaves badly: calls end within their deadlines and say so, nothing grows,
 * and the client works as soon as a good server is there. PTIER_ROUNDS=N: calls to each (200).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <proxytier/client.h>

#include "support/bad_server.h"
#include "support/process_use.h"
#include "support/security_box.h"
#include "support/settings.h"
#include "support/monotonic.h"

#define TIMEOUT_MS  15
#define LATE_MS     5000 /* what a loaded machine may add: "hangs" is longer */
#define PATIENCE_MS 20000
#define SLACK_KB    8192
#define SLACK_FDS   4 /* a connection that is just being made */

static ptier_client *
open_client(const security_box *box, const char *url)
{
    ptier_client_options options;
    ptier_client *client;
    ptier_client_options_init(&options);
    options.url = url;
    options.timeout_ms = TIMEOUT_MS;
    options.token = box->tokens[PTIER_ROLE_ROTATOR];
    options.tls_ca_file = security_box_file(box, "ca.pem");
    options.tls_cert_file = security_box_file(box, "client.pem");
    options.tls_key_file = security_box_file(box, "client.key");
    options.tls_server_name = SECURITY_BOX_HOST;
    assert_int_equal(ptier_client_open(&options, &client, NULL), PTIER_OK);
    return client;
}

static ptier_status
get(ptier_client *client, ptier_error *error)
{
    ptier_records records = {0};
    ptier_status status = ptier_get(client, "no-such-key", &records, error);
    ptier_records_free(&records);
    return status;
}

static void
call_in_vain(ptier_client *client, bad_manner manner, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++) {
        ptier_error error;
        int64_t begun = ptier_test_now();
        ptier_status status = get(client, &error);
        if (ptier_test_now() - begun > TIMEOUT_MS + LATE_MS)
            fail_msg("%s: a call took %d ms", bad_manner_name(manner),
                     (int)(ptier_test_now() - begun));
        if (status != PTIER_UNAVAILABLE && status != PTIER_DEADLINE_EXCEEDED &&
            status != PTIER_UNAUTHENTICATED)
            fail_msg("%s: status %d: %s", bad_manner_name(manner), (int)status, error.message);
    }
}

static void
expect_nothing_grown(const process_use *before, const char *what)
{
    const struct timespec pause = {.tv_nsec = 20000000};
    process_use now = {0};
    for (int64_t deadline = ptier_test_now() + PATIENCE_MS; ptier_test_now() < deadline;
         nanosleep(&pause, NULL)) {
        now = process_use_of(getpid());
        if (now.descriptors <= before->descriptors + SLACK_FDS &&
            (PTIER_TEST_SANITIZED || now.rss_kb <= before->rss_kb + SLACK_KB))
            return;
    }
    fail_msg("%s: descriptors %zu -> %zu, memory %zu -> %zu KiB", what, before->descriptors,
             now.descriptors, before->rss_kb, now.rss_kb);
}

/* The same client, at the same address: the daemon is there now. */
static void
expect_service(security_box *box, ptier_client *client)
{
    security_box_start(box, true, NULL);
    int64_t deadline = ptier_test_now() + PATIENCE_MS;
    ptier_error error;
    while (get(client, &error) != PTIER_NOT_FOUND)
        if (ptier_test_now() > deadline)
            fail_msg("no service: %s", error.message);
    assert_int_equal(test_daemon_end(&box->daemon, SIGTERM), 0);
}

static void
try_all_manners(security_box *box, const char *url)
{
    unsigned rounds = (unsigned)ptier_test_setting("PTIER_ROUNDS", 200);
    bad_server server;
    ptier_client *client = open_client(box, url);
    bad_server_start(&server, url, false);
    for (int pass = 0; pass < 2; pass++) { /* the first one is for what is allocated once */
        process_use before = process_use_of(getpid());
        for (bad_manner manner = 0; manner < BAD_MANNERS; manner++) {
            unsigned accepted = atomic_load(&server.accepted);
            atomic_store(&server.manner, manner);
            call_in_vain(client, manner, pass == 0 ? rounds / 4 : rounds);
            /* It may have been pausing between two attempts to connect. */
            for (int64_t deadline = ptier_test_now() + PATIENCE_MS;
                 atomic_load(&server.accepted) == accepted && ptier_test_now() < deadline;)
                call_in_vain(client, manner, 1);
            assert_true(atomic_load(&server.accepted) > accepted);
        }
        if (pass == 1)
            expect_nothing_grown(&before, url);
    }
    bad_server_stop(&server);
    expect_service(box, client);
    ptier_client_close(client);
}

static void
calls_over_ipc_end_whatever_the_server_does(void **state)
{
    try_all_manners(*state, ((security_box *)*state)->daemon.url);
}

static void
calls_over_tcp_end_whatever_the_server_does(void **state)
{
    try_all_manners(*state, ((security_box *)*state)->tcp_url);
}

static void
calls_over_tls_end_whatever_the_server_does(void **state)
{
    try_all_manners(*state, ((security_box *)*state)->tls_url);
}

/* Clients that come and go meanwhile: closing never hangs on what such a server left half done. */
static void
clients_close_whatever_the_server_does(void **state)
{
    security_box *box = *state;
    bad_server server;
    unsigned rounds = (unsigned)ptier_test_setting("PTIER_ROUNDS", 200) / 10;
    bad_server_start(&server, box->daemon.url, false);
    process_use before = {0};
    for (int pass = 0; pass < 2; pass++) {
        before = process_use_of(getpid());
        for (bad_manner manner = 0; manner < BAD_MANNERS; manner++) {
            atomic_store(&server.manner, manner);
            for (unsigned i = 0; i < rounds; i++) {
                ptier_client *client = open_client(box, box->daemon.url);
                call_in_vain(client, manner, 1);
                ptier_client_close(client);
            }
        }
    }
    expect_nothing_grown(&before, "clients");
    bad_server_stop(&server);
}

static atomic_uint connected;

static void
on_state(void *context, ptier_subscription_state state)
{
    (void)context;
    if (state == PTIER_SUBSCRIPTION_CONNECTED)
        atomic_fetch_add(&connected, 1);
}

static void
on_event(void *context, const ptier_event *event)
{
    (void)context;
    (void)event;
}

static void
wait_for_at_least(const atomic_uint *counter, unsigned value, const char *what)
{
    const struct timespec pause = {.tv_nsec = 5000000};
    for (int64_t deadline = ptier_test_now() + PATIENCE_MS; atomic_load(counter) < value;
         nanosleep(&pause, NULL))
        if (ptier_test_now() > deadline)
            fail_msg("waited in vain: %s", what);
}

/* Calls are good, and the events' address is taken over by somebody else. */
static void
subscriptions_outlast_bad_event_servers(void **state)
{
    security_box *box = *state;
    ptier_subscription_options listening;
    ptier_subscription *subscription;
    bad_server server;
    atomic_store(&connected, 0);
    /* Such a socket would be taken back otherwise. */
    security_box_start(box, false, (const char *[]){"--self-probe", "0", NULL});
    ptier_client *client = open_client(box, box->daemon.url);
    bad_server_start(&server, box->daemon.events_url, true);
    ptier_subscription_options_init(&listening);
    listening.on_event = on_event;
    listening.on_state = on_state;
    assert_int_equal(ptier_subscribe(client, &listening, &subscription, NULL), PTIER_OK);
    for (bad_manner manner = 0; manner < BAD_MANNERS; manner++) {
        atomic_store(&server.manner, manner);
        wait_for_at_least(&server.accepted, atomic_load(&server.accepted) + 3,
                          bad_manner_name(manner));
    }
    assert_int_equal(atomic_load(&connected), 0);
    bad_server_stop(&server);
    assert_int_equal(test_daemon_end(&box->daemon, SIGTERM), 0);
    security_box_start(box, false, NULL);
    wait_for_at_least(&connected, 1, "following the good one");
    ptier_subscription_close(subscription);
    ptier_client_close(client);
}

#define TEST(name)                                                                                 \
    cmocka_unit_test_setup_teardown(name, security_box_set_up, security_box_tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(calls_over_ipc_end_whatever_the_server_does),
        TEST(calls_over_tcp_end_whatever_the_server_does),
        TEST(calls_over_tls_end_whatever_the_server_does),
        TEST(clients_close_whatever_the_server_does),
        TEST(subscriptions_outlast_bad_event_servers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
