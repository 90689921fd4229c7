/* Whose daemon the SDK talks to at an ipc address: this user's, root's or a named one's, and nobody
 * else's, who gets nothing. For root, who can be others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>
#include <proxytier/async.h>
#include <proxytier/client.h>

#include "support/peer_client.h"

#define STRANGER    "12345"
#define PATIENCE_MS 15000

typedef struct fixture {
    scripted_peer peer;
} fixture;

/* Of this thread only: the C library would change all of them. */
static void
become(long uid)
{
    assert_int_equal(syscall(SYS_setresuid, -1, uid, -1), 0);
}

/* The kernel notes who begins to listen. */
static void
start_as(scripted_peer *peer, long uid)
{
    become(uid);
    peer_start(peer);
    become(0);
}

static int
set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    peer_init(&f->peer);
    peer_start(&f->peer); /* nng starts its threads: not as a stranger */
    peer_stop(&f->peer);
    f->peer.handler = answer_well;
    *state = f;
    return 0;
}

static int
tear_down(void **state)
{
    fixture *f = *state;
    peer_fini(&f->peer);
    free(f);
    return 0;
}

static ptier_client *
open_for(const fixture *f, const char *daemon_user)
{
    ptier_client_options options;
    ptier_client *client;
    ptier_client_options_init(&options);
    options.url = f->peer.rpc_url;
    options.token = "secret";
    options.daemon_user = daemon_user;
    assert_int_equal(ptier_client_open(&options, &client, NULL), PTIER_OK);
    return client;
}

/* UNAVAILABLE: the call met the moment between two peers. */
static ptier_status
get(ptier_client *client, ptier_error *error)
{
    int64_t until = ptier_test_now() + PATIENCE_MS;
    ptier_records records = {.count = 0};
    ptier_status status;
    do {
        status = ptier_get(client, "k", &records, error);
        ptier_records_free(&records);
    } while (status == PTIER_UNAVAILABLE && ptier_test_now() < until);
    return status;
}

static void
expect_refused(ptier_client *client)
{
    ptier_error error = {.message = ""};
    ptier_status status = get(client, &error);
    if (status != PTIER_PERMISSION_DENIED)
        print_error("status %d: %s\n", (int)status, error.message);
    assert_int_equal(status, PTIER_PERMISSION_DENIED);
    assert_non_null(strstr(error.message, "user " STRANGER));
    assert_non_null(strstr(error.message, "PROXYTIER_DAEMON_USER"));
    assert_null(strchr(error.message, '\n'));
}

static void
expect_nothing_sent(fixture *f, unsigned before)
{
    assert_int_equal(peer_count(&f->peer, &f->peer.requests), before);
    assert_int_equal(peer_count(&f->peer, &f->peer.infos), 0);
}

static void
a_stranger_at_the_address_gets_nothing(void **state)
{
    fixture *f = *state;
    if (geteuid() != 0)
        skip();
    start_as(&f->peer, atol(STRANGER));
    ptier_client *client = open_for(f, NULL);
    for (int i = 0; i < 3; i++)
        expect_refused(client);
    ptier_async *call;
    ptier_async_result result;
    assert_int_equal(ptier_async_get(client, "k", NULL, NULL, &call, NULL), PTIER_OK);
    assert_true(ptier_async_wait(call, PATIENCE_MS));
    assert_int_equal(ptier_async_take(call, &result), PTIER_PERMISSION_DENIED);
    ptier_async_result_free(&result);
    ptier_async_free(call);
    ptier_client_close(client);
    expect_nothing_sent(f, 0);
}

static void
a_user_who_was_named_is_trusted(void **state)
{
    fixture *f = *state;
    if (geteuid() != 0)
        skip();
    start_as(&f->peer, atol(STRANGER));
    ptier_client *client = open_for(f, STRANGER);
    assert_answers(client);
    ptier_client_close(client);
    assert_int_equal(setenv("PROXYTIER_DAEMON_USER", STRANGER, 1), 0);
    client = open_for(f, NULL);
    assert_answers(client);
    ptier_client_close(client);
    client = open_for(f, "daemon"); /* the option counts, not the environment */
    expect_refused(client);
    ptier_client_close(client);
    assert_int_equal(unsetenv("PROXYTIER_DAEMON_USER"), 0);
}

static void
a_stranger_who_comes_between_gets_nothing(void **state)
{
    fixture *f = *state;
    if (geteuid() != 0)
        skip();
    peer_start(&f->peer);
    ptier_client *client = open_for(f, NULL);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(get(client, NULL), PTIER_OK);
        peer_stop(&f->peer);
        unsigned before = peer_count(&f->peer, &f->peer.requests);
        start_as(&f->peer, atol(STRANGER));
        expect_refused(client);
        assert_int_equal(peer_count(&f->peer, &f->peer.requests), before);
        peer_stop(&f->peer);
        peer_start(&f->peer);
    }
    assert_int_equal(get(client, NULL), PTIER_OK);
    ptier_client_close(client);
}

static void
on_state(void *context, ptier_subscription_state state)
{
    atomic_uint *connected = context;
    *connected += state == PTIER_SUBSCRIPTION_CONNECTED;
}

static void
on_event(void *context, const ptier_event *event)
{
    (void)context;
    (void)event;
}

/* Heartbeats until the counter has grown to `value`. */
static void
beat_until(fixture *f, const unsigned *asked, const atomic_uint *connected, unsigned value)
{
    int64_t until = ptier_test_now() + PATIENCE_MS;
    while ((asked ? peer_count(&f->peer, asked) : atomic_load(connected)) < value) {
        assert_true(ptier_test_now() < until);
        peer_heartbeat(&f->peer);
        test_pause();
    }
}

/* Nor does that do harm to the listener, whom others may trust. */
static void
events_of_a_stranger_are_not_listened_to(void **state)
{
    fixture *f = *state;
    ptier_subscription_options options;
    ptier_subscription *subscriptions[2];
    ptier_client *clients[2];
    atomic_uint connected[2] = {0};
    if (geteuid() != 0)
        skip();
    peer_start(&f->peer);
    peer_stop_events(&f->peer);
    become(atol(STRANGER));
    peer_start_events(&f->peer);
    become(0);
    ptier_subscription_options_init(&options);
    options.on_event = on_event;
    options.on_state = on_state;
    for (int named = 0; named < 2; named++) {
        clients[named] = open_for(f, named ? STRANGER : NULL);
        options.context = &connected[named];
        assert_int_equal(ptier_subscribe(clients[named], &options, &subscriptions[named], NULL),
                         PTIER_OK);
        if (named)
            beat_until(f, NULL, &connected[1], 1);
        else
            beat_until(f, &f->peer.infos, NULL, 4); /* it asks where events are each time */
    }
    assert_int_equal(connected[0], 0);
    for (int i = 0; i < 2; i++) {
        ptier_subscription_close(subscriptions[i]);
        ptier_client_close(clients[i]);
    }
}

static void
a_user_who_does_not_exist_is_refused_at_open(void **state)
{
    fixture *f = *state;
    ptier_client_options options;
    ptier_client *client;
    ptier_error error = {.message = ""};
    ptier_client_options_init(&options);
    options.url = f->peer.rpc_url;
    options.daemon_user = "no-such-user";
    assert_int_equal(ptier_client_open(&options, &client, &error), PTIER_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, "no user 'no-such-user'"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_stranger_at_the_address_gets_nothing),
        TEST(a_user_who_was_named_is_trusted),
        TEST(a_stranger_who_comes_between_gets_nothing),
        TEST(events_of_a_stranger_are_not_listened_to),
        TEST(a_user_who_does_not_exist_is_refused_at_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
