/* Tokens that end while they are in use: what was given by them, or would come without asking,
 * ends too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <poll.h>
#include <time.h>

#include <cmocka.h>

#include <proxytier/client.h>

#include "support/monotonic.h"
#include "support/security_box.h"

#define PATIENCE_MS 20000
#define LOOK_MS     5
#define KEY         "kept"
#define NAME        "worker"

#define WAIT_FOR(condition)                                                                        \
    do {                                                                                           \
        int64_t deadline = ptier_test_now() + PATIENCE_MS;                                         \
        while (!(condition)) {                                                                     \
            assert_true(ptier_test_now() < deadline);                                              \
            (void)poll(NULL, 0, LOOK_MS);                                                          \
        }                                                                                          \
    } while (0)

/* ---- the worker's token ---- */

static ptier_token_entry
make_token(char token[PTIER_TOKEN_TEXT + 1])
{
    ptier_token_entry entry = {.role = PTIER_ROLE_ROTATOR, .name = NAME};
    assert_int_equal(ptier_token_make(token, NULL), PTIER_OK);
    assert_true(ptier_token_hash(token, entry.hash));
    return entry;
}

static void
add(const security_box *box, const ptier_token_entry *entry)
{
    assert_int_equal(ptier_token_file_add(box->token_path, entry, NULL), PTIER_OK);
}

static void
take_away(const security_box *box)
{
    assert_int_equal(ptier_token_file_remove(box->token_path, NAME, NULL), PTIER_OK);
}

/* ---- clients ---- */

/* near: a cache that knows everything for as long as its daemon is heard of. */
static ptier_client *
open_client(const security_box *box, const char *url, const char *token, bool near)
{
    ptier_near_cache_options cache;
    ptier_client_options options;
    ptier_client *client;
    ptier_near_cache_options_init(&cache);
    cache.on_stale = PTIER_ON_STALE_SERVE;
    ptier_client_options_init(&options);
    options.url = url;
    options.token = token;
    options.near_cache = near ? &cache : NULL;
    options.tls_ca_file = security_box_file(box, "ca.pem");
    options.tls_server_name = SECURITY_BOX_HOST;
    options.tls_cert_file = security_box_file(box, "client.pem");
    options.tls_key_file = security_box_file(box, "client.key");
    assert_int_equal(ptier_client_open(&options, &client, NULL), PTIER_OK);
    return client;
}

static void
put(ptier_client *client, const char *key)
{
    ptier_record record;
    ptier_record_init(&record);
    record.key = key;
    record.url = "http://10.0.0.1:80";
    record.username = "user";
    record.password = "secret";
    assert_int_equal(ptier_put(client, &record, NULL, NULL, NULL), PTIER_OK);
}

/* `near`: from the near cache, with credentials. */
static ptier_status
read_key(ptier_client *client, bool *near, bool *credentials)
{
    ptier_records found;
    ptier_status status = ptier_get(client, KEY, &found, NULL);
    *near = status == PTIER_OK && found.near_count == 1;
    *credentials = status == PTIER_OK && found.records[0].password && *found.records[0].password;
    if (status == PTIER_OK)
        ptier_records_free(&found);
    return status;
}

static bool
near_has_it(ptier_client *client)
{
    bool near, credentials;
    return read_key(client, &near, &credentials) == PTIER_OK && near && credentials;
}

static bool
is_refused(ptier_client *client)
{
    bool near, credentials;
    return read_key(client, &near, &credentials) != PTIER_OK;
}

/* ---- near cache ---- */

/* Once refused it is so for good, whatever was kept. */
static void
expect_refusal(ptier_client *client)
{
    WAIT_FOR(is_refused(client));
    for (int i = 0; i < 100; i++)
        assert_true(is_refused(client));
}

static void
what_the_near_cache_keeps_ends_with_its_token(const security_box *box, const char *url)
{
    char token[PTIER_TOKEN_TEXT + 1];
    const ptier_token_entry entry = make_token(token);
    add(box, &entry);
    ptier_client *other = open_client(box, url, box->tokens[PTIER_ROLE_ROTATOR], true);
    ptier_client *client = open_client(box, url, token, true);
    WAIT_FOR(ptier_get_info(client, &(ptier_server_info){0}, NULL) == PTIER_OK);
    put(client, KEY);
    WAIT_FOR(near_has_it(client));
    WAIT_FOR(near_has_it(other));
    take_away(box);
    expect_refusal(client);
    WAIT_FOR(near_has_it(other));
    ptier_client_close(client);
    ptier_client_close(other);
}

static void
near_reads_end_with_the_token(void **state)
{
    security_box *box = *state;
    security_box_start(box, true, (const char *[]){"--failed-logins", "100000", NULL});
    what_the_near_cache_keeps_ends_with_its_token(box, box->daemon.url);
    what_the_near_cache_keeps_ends_with_its_token(box, box->tls_url);
}

static void
near_reads_end_with_the_time_of_the_token(void **state)
{
    security_box *box = *state;
    char token[PTIER_TOKEN_TEXT + 1];
    ptier_token_entry entry = make_token(token);
    entry.expires_s = time(NULL) + 3;
    add(box, &entry);
    security_box_start(box, true, NULL);
    ptier_client *client = open_client(box, box->daemon.url, token, true);
    put(client, KEY);
    WAIT_FOR(near_has_it(client));
    expect_refusal(client);
    ptier_client_close(client);
}

static bool
sees_credentials(ptier_client *client)
{
    bool near, credentials = true;
    assert_int_equal(read_key(client, &near, &credentials), PTIER_OK);
    return credentials;
}

static void
near_reads_have_what_a_lesser_role_may_see(void **state)
{
    security_box *box = *state;
    char token[PTIER_TOKEN_TEXT + 1];
    ptier_token_entry entry = make_token(token);
    add(box, &entry);
    security_box_start(box, true, NULL);
    ptier_client *client = open_client(box, box->daemon.url, token, true);
    put(client, KEY);
    WAIT_FOR(near_has_it(client));
    char command[400];
    (void)snprintf(command, sizeof command, "sed -i 's/^rotator " NAME "/reader " NAME "/' %s",
                   box->token_path);
    assert_int_equal(system(command), 0);
    WAIT_FOR(!sees_credentials(client));
    for (int i = 0; i < 100; i++)
        assert_false(sees_credentials(client));
    ptier_client_close(client);
}

/* ---- events ---- */

typedef struct listener {
    _Atomic unsigned connected, lost, events;
} listener;

static void
on_event(void *context, const ptier_event *event)
{
    (void)event;
    atomic_fetch_add(&((listener *)context)->events, 1);
}

static void
on_state(void *context, ptier_subscription_state now)
{
    listener *l = context;
    atomic_fetch_add(&l->connected, now == PTIER_SUBSCRIPTION_CONNECTED);
    atomic_fetch_add(&l->lost, now == PTIER_SUBSCRIPTION_LOST);
}

static ptier_subscription *
subscribe(ptier_client *client, listener *l)
{
    ptier_subscription_options wanted;
    ptier_subscription *subscription;
    ptier_subscription_options_init(&wanted);
    wanted.on_event = on_event;
    wanted.on_state = on_state;
    wanted.context = l;
    assert_int_equal(ptier_subscribe(client, &wanted, &subscription, NULL), PTIER_OK);
    WAIT_FOR(atomic_load(&l->connected) == 1);
    return subscription;
}

static void
events_end_with_the_token_and_come_back_with_it(void **state)
{
    security_box *box = *state;
    char token[PTIER_TOKEN_TEXT + 1];
    const ptier_token_entry entry = make_token(token);
    listener worker = {0}, other = {0};
    add(box, &entry);
    security_box_start(box, true, NULL);
    ptier_client *clients[] = {
        open_client(box, box->tls_url, token, false),
        open_client(box, box->tls_url, box->tokens[PTIER_ROLE_ROTATOR], false)};
    ptier_subscription *subscriptions[] = {subscribe(clients[0], &worker),
                                           subscribe(clients[1], &other)};
    take_away(box);
    WAIT_FOR(atomic_load(&worker.lost) == 1);
    put(clients[1], "one");
    WAIT_FOR(atomic_load(&other.events) == 1);
    assert_int_equal(atomic_load(&worker.events), 0);
    add(box, &entry);
    WAIT_FOR(atomic_load(&worker.connected) == 2);
    put(clients[1], "two");
    WAIT_FOR(atomic_load(&worker.events) == 2); /* nothing was lost meanwhile */
    assert_int_equal(atomic_load(&other.lost), 0);
    for (int i = 0; i < 2; i++) {
        ptier_subscription_close(subscriptions[i]);
        ptier_client_close(clients[i]);
    }
}

#define TEST(name)                                                                                 \
    cmocka_unit_test_setup_teardown(name, security_box_set_up, security_box_tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(near_reads_end_with_the_token),
        TEST(near_reads_end_with_the_time_of_the_token),
        TEST(near_reads_have_what_a_lesser_role_may_see),
        TEST(events_end_with_the_token_and_come_back_with_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
