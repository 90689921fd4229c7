/* Subscriptions against a scripted peer: each event once and in order, or an explicit RESYNC,
 * whatever the stream loses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <proxytier/client.h>

#include "support/scripted_peer.h"

#define CHANGES     PROXYTIER__V1__STREAM__STREAM_CHANGES
#define TIERS       PROXYTIER__V1__STREAM__STREAM_TIERS
#define PATIENCE_MS 15000
#define EVENTS_ROOM 4096

/* What the application was told, in order. */
typedef struct told {
    pthread_mutex_t lock;
    uint64_t changes[EVENTS_ROOM], tiers[EVENTS_ROOM];
    unsigned change_count, tier_count;
    unsigned connected, lost, resyncs;
    uint64_t resync_after; /* last change told before the latest RESYNC */
    ptier_subscription_state state;
    bool wrong; /* an event was not as it should be */
} told;

static void
on_event(void *context, const ptier_event *event)
{
    told *t = context;
    char key[32];
    bool is_tier = event->type >= PTIER_EVENT_PROMOTED;
    snprintf(key, sizeof key, "key-%d-%llu", is_tier ? 2 : 1, (unsigned long long)event->sequence);
    pthread_mutex_lock(&t->lock);
    t->wrong = t->wrong || strcmp(event->record.key, key) != 0 ||
               event->revision != event->sequence * 10 || event->count != 1 ||
               event->record.username || event->record.password;
    if (is_tier && t->tier_count < EVENTS_ROOM)
        t->tiers[t->tier_count++] = event->sequence;
    if (!is_tier && t->change_count < EVENTS_ROOM)
        t->changes[t->change_count++] = event->sequence;
    pthread_mutex_unlock(&t->lock);
}

static void
on_state(void *context, ptier_subscription_state state)
{
    told *t = context;
    pthread_mutex_lock(&t->lock);
    t->connected += state == PTIER_SUBSCRIPTION_CONNECTED;
    t->lost += state == PTIER_SUBSCRIPTION_LOST;
    if (state == PTIER_SUBSCRIPTION_RESYNC) {
        t->resyncs++;
        t->resync_after = t->change_count ? t->changes[t->change_count - 1] : 0;
    } else {
        t->state = state;
    }
    pthread_mutex_unlock(&t->lock);
}

typedef struct fixture {
    scripted_peer peer;
    told told;
    ptier_client *client;
    ptier_subscription *subscription;
} fixture;

static unsigned
get(fixture *f, const unsigned *counter)
{
    pthread_mutex_lock(&f->told.lock);
    unsigned value = *counter;
    pthread_mutex_unlock(&f->told.lock);
    return value;
}

static ptier_subscription_state
get_state(fixture *f)
{
    pthread_mutex_lock(&f->told.lock);
    ptier_subscription_state state = f->told.state;
    pthread_mutex_unlock(&f->told.lock);
    return state;
}

/* Publishes heartbeats until `counter` reaches `value`. */
static void
beat_until(fixture *f, const unsigned *counter, unsigned value)
{
    int64_t until = ptier_test_now() + PATIENCE_MS;
    while (get(f, counter) < value && ptier_test_now() < until) {
        peer_heartbeat(&f->peer);
        test_pause();
    }
    if (get(f, counter) < value)
        fail_msg("%u of %u came", get(f, counter), value);
}

/* Waits without heartbeats. */
static void
wait_until(fixture *f, const unsigned *counter, unsigned value)
{
    int64_t until = ptier_test_now() + PATIENCE_MS;
    while (get(f, counter) < value && ptier_test_now() < until)
        test_pause();
    assert_true(get(f, counter) >= value);
}

static void
beat_until_connected(fixture *f)
{
    int64_t until = ptier_test_now() + PATIENCE_MS;
    while (get_state(f) != PTIER_SUBSCRIPTION_CONNECTED && ptier_test_now() < until) {
        peer_heartbeat(&f->peer);
        test_pause();
    }
    assert_int_equal(get_state(f), PTIER_SUBSCRIPTION_CONNECTED);
}

static void
subscribe(fixture *f, bool tiers)
{
    ptier_client_options client_options;
    ptier_subscription_options options;
    pthread_mutex_init(&f->told.lock, NULL);
    ptier_client_options_init(&client_options);
    client_options.url = f->peer.rpc_url;
    assert_int_equal(ptier_client_open(&client_options, &f->client, NULL), PTIER_OK);
    ptier_subscription_options_init(&options);
    options.tiers = tiers;
    options.on_event = on_event;
    options.on_state = on_state;
    options.context = &f->told;
    assert_int_equal(ptier_subscribe(f->client, &options, &f->subscription, NULL), PTIER_OK);
}

static fixture *
make_fixture(bool tiers)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    peer_init(&f->peer);
    /* Long, so that a machine that stops for a second makes no difference; the tests of silence set
     * their own. */
    f->peer.heartbeat_ms = 2000;
    peer_start(&f->peer);
    subscribe(f, tiers);
    return f;
}

static void
free_fixture(fixture *f)
{
    ptier_subscription_close(f->subscription);
    ptier_client_close(f->client);
    peer_fini(&f->peer);
    assert_false(f->told.wrong);
    pthread_mutex_destroy(&f->told.lock);
    free(f);
}

static void
assert_changes(fixture *f, uint64_t first, unsigned count)
{
    pthread_mutex_lock(&f->told.lock);
    assert_int_equal(f->told.change_count, count);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(f->told.changes[i], first + i);
    pthread_mutex_unlock(&f->told.lock);
}

static void
each_event_is_told_once_and_in_order(void **state)
{
    (void)state;
    fixture *f = make_fixture(false);
    peer_emit(&f->peer, CHANGES, 7, false); /* before the subscription: not its business */
    beat_until_connected(f);
    for (int i = 0; i < 50; i++)
        peer_emit(&f->peer, CHANGES, 20, true);
    beat_until(f, &f->told.change_count, 1000);
    assert_changes(f, 8, 1000);
    assert_int_equal(get(f, &f->told.resyncs), 0);
    assert_int_equal(get(f, &f->told.connected), 1);
    free_fixture(f);
}

static void
removal_that_names_no_key_means_resync(void **state)
{
    (void)state;
    fixture *f = make_fixture(false);
    beat_until_connected(f);
    f->peer.nameless = 3;
    peer_emit(&f->peer, CHANGES, 5, true);
    wait_until(f, &f->told.change_count, 4);
    assert_int_equal(get(f, &f->told.resyncs), 1);
    assert_int_equal(f->told.resync_after, 2); /* in its place among the others */
    free_fixture(f);
}

static void
lost_batch_is_filled_by_replay_page_by_page(void **state)
{
    (void)state;
    fixture *f = make_fixture(false);
    beat_until_connected(f);
    peer_emit(&f->peer, CHANGES, 5, true);
    wait_until(f, &f->told.change_count, 5);
    peer_emit(&f->peer, CHANGES, 10, false); /* lost on the way */
    peer_emit(&f->peer, CHANGES, 5, true);
    wait_until(f, &f->told.change_count, 20);
    assert_changes(f, 1, 20);
    assert_true(peer_count(&f->peer, &f->peer.replays) >= 4); /* pages of 3 */
    assert_int_equal(get(f, &f->told.resyncs), 0);
    free_fixture(f);
}

static void
heartbeat_ahead_brings_the_lost_tail(void **state)
{
    (void)state;
    fixture *f = make_fixture(false);
    beat_until_connected(f);
    peer_emit(&f->peer, CHANGES, 4, false);
    peer_heartbeat(&f->peer); /* one is enough */
    wait_until(f, &f->told.change_count, 4);
    assert_changes(f, 1, 4);
    assert_int_equal(get(f, &f->told.resyncs), 0);
    free_fixture(f);
}

static void
truncated_replay_is_told_as_resync_and_following_goes_on(void **state)
{
    (void)state;
    fixture *f = make_fixture(false);
    beat_until_connected(f);
    peer_emit(&f->peer, CHANGES, 3, true);
    wait_until(f, &f->told.change_count, 3);
    peer_emit(&f->peer, CHANGES, 30, false);
    peer_forget(&f->peer, CHANGES, 20);
    peer_heartbeat(&f->peer);
    wait_until(f, &f->told.resyncs, 1);
    peer_emit(&f->peer, CHANGES, 2, true);
    wait_until(f, &f->told.change_count, 5);
    pthread_mutex_lock(&f->told.lock);
    assert_int_equal(f->told.changes[3], 34);
    assert_int_equal(f->told.changes[4], 35);
    assert_int_equal(f->told.resync_after, 3);
    assert_int_equal(f->told.resyncs, 1);
    pthread_mutex_unlock(&f->told.lock);
    free_fixture(f);
}

static void
restart_of_the_daemon_is_told_as_resync(void **state)
{
    (void)state;
    fixture *f = make_fixture(false);
    beat_until_connected(f);
    peer_emit(&f->peer, CHANGES, 3, true);
    wait_until(f, &f->told.change_count, 3);
    peer_stop(&f->peer);
    peer_become(&f->peer, PEER_BOOT + 1, PEER_STORE);
    peer_start(&f->peer);
    beat_until(f, &f->told.resyncs, 1);
    peer_emit(&f->peer, CHANGES, 2, true);
    wait_until(f, &f->told.change_count, 5);
    pthread_mutex_lock(&f->told.lock);
    assert_int_equal(f->told.changes[3], 1);
    assert_int_equal(f->told.changes[4], 2);
    assert_int_equal(f->told.resyncs, 1);
    pthread_mutex_unlock(&f->told.lock);
    free_fixture(f);
}

static void
another_store_is_told_as_resync(void **state)
{
    (void)state;
    fixture *f = make_fixture(false);
    beat_until_connected(f);
    peer_become(&f->peer, PEER_BOOT, PEER_STORE + 1);
    peer_heartbeat(&f->peer);
    wait_until(f, &f->told.resyncs, 1);
    peer_emit(&f->peer, CHANGES, 2, true);
    wait_until(f, &f->told.change_count, 2);
    assert_changes(f, 1, 2);
    assert_int_equal(get(f, &f->told.resyncs), 1);
    free_fixture(f);
}

static void
lost_connection_to_the_same_run_loses_no_event(void **state)
{
    (void)state;
    fixture *f = make_fixture(false);
    beat_until_connected(f);
    peer_emit(&f->peer, CHANGES, 3, true);
    wait_until(f, &f->told.change_count, 3);
    for (unsigned i = 0; i < 3; i++) {
        peer_stop(&f->peer);
        peer_emit(&f->peer, CHANGES, 8, false);
        peer_start(&f->peer);
        beat_until(f, &f->told.change_count, 3 + 8 * (i + 1));
    }
    assert_changes(f, 1, 27);
    assert_int_equal(get(f, &f->told.resyncs), 0);
    free_fixture(f);
}

static void
silence_is_told_as_lost_and_a_heartbeat_as_connected(void **state)
{
    (void)state;
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    peer_init(&f->peer);
    f->peer.heartbeat_ms = 100;
    peer_start(&f->peer);
    subscribe(f, false);
    beat_until_connected(f);
    int64_t start = ptier_test_now();
    wait_until(f, &f->told.lost, 1);
    assert_true(ptier_test_now() - start >= 300); /* not before several heartbeats are missing */
    while (peer_count(&f->peer, &f->peer.infos) < 2 && ptier_test_now() - start < PATIENCE_MS)
        test_pause();
    assert_true(peer_count(&f->peer, &f->peer.infos) >= 2); /* it asks anew where the events are */
    peer_emit(&f->peer, CHANGES, 2, false);
    beat_until(f, &f->told.connected, 2);
    beat_until(f, &f->told.change_count, 2);
    assert_changes(f, 1, 2);
    assert_int_equal(get(f, &f->told.resyncs), 0);
    free_fixture(f);
}

static void
messages_that_mean_nothing_do_not_hide_a_silence(void **state)
{
    (void)state;
    static const char bad[] = "PTC1\xff\xff\xff\xff";
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    peer_init(&f->peer);
    f->peer.heartbeat_ms = 100;
    peer_start(&f->peer);
    subscribe(f, false);
    beat_until_connected(f);
    int64_t until = ptier_test_now() + PATIENCE_MS;
    while (get(f, &f->told.lost) == 0) {
        assert_true(ptier_test_now() < until);
        assert_int_equal(nng_send(f->peer.events, PEER_TEXT(bad), sizeof bad - 1, 0), 0);
        test_pause();
    }
    free_fixture(f);
}

static void
daemon_that_is_not_there_is_told_as_lost_and_found_later(void **state)
{
    (void)state;
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    peer_init(&f->peer);
    subscribe(f, false);
    wait_until(f, &f->told.lost, 1);
    f->peer.heartbeat_ms = 2000;
    peer_start(&f->peer);
    beat_until_connected(f);
    free_fixture(f);
}

static void
tier_events_come_only_when_wanted(void **state)
{
    (void)state;
    for (int wanted = 0; wanted <= 1; wanted++) {
        fixture *f = make_fixture(wanted);
        beat_until_connected(f);
        for (int i = 0; i < 10; i++) {
            peer_emit(&f->peer, TIERS, 3, i != 4); /* one batch lost */
            peer_emit(&f->peer, CHANGES, 2, true);
        }
        beat_until(f, &f->told.change_count, 20);
        beat_until(f, &f->told.tier_count, wanted ? 30 : 0);
        assert_changes(f, 1, 20);
        assert_int_equal(get(f, &f->told.tier_count), wanted ? 30 : 0);
        for (unsigned i = 0; wanted && i < 30; i++)
            assert_int_equal(f->told.tiers[i], i + 1);
        free_fixture(f);
    }
}

static void
damaged_messages_are_survived(void **state)
{
    (void)state;
    fixture *f = make_fixture(false);
    beat_until_connected(f);
    const char *bad[] = {"PTC1", "PTC1\xff\xff\xff\xff", "PTC1\x0a\x05zzzzz", "PTC"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(nng_send(f->peer.events, PEER_TEXT(bad[i]), strlen(bad[i]), 0), 0);
    peer_emit(&f->peer, CHANGES, 2, true);
    wait_until(f, &f->told.change_count, 2);
    assert_changes(f, 1, 2);
    assert_int_equal(get(f, &f->told.resyncs), 0);
    free_fixture(f);
}

/* Its lock may be held in the child for ever, by a thread that only the parent has. */
static void
forked_child_is_told_no_position(void **state)
{
    (void)state;
    fixture *f = make_fixture(false);
    ptier_position position;
    int status;
    beat_until_connected(f);
    assert_true(ptier_subscription_position(f->subscription, &position));
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(ptier_subscription_position(f->subscription, &position) ? 1 : 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    free_fixture(f);
}

static void
closing_is_quick_whatever_goes_on(void **state)
{
    (void)state;
    fixture *f = make_fixture(false);
    beat_until_connected(f); /* now it waits for a message, up to eight seconds */
    int64_t start = ptier_test_now();
    ptier_subscription_close(f->subscription);
    f->subscription = NULL;
    assert_true(ptier_test_now() - start < 3000);
    free_fixture(f);

    f = calloc(1, sizeof *f);
    assert_non_null(f);
    peer_init(&f->peer);
    f->peer.mute_info = true;
    peer_start(&f->peer);
    subscribe(f, false);
    int64_t until = ptier_test_now() + PATIENCE_MS;
    while (peer_count(&f->peer, &f->peer.infos) == 0 && ptier_test_now() < until)
        test_pause();
    start = ptier_test_now(); /* a GetInfo is under way */
    ptier_subscription_close(f->subscription);
    f->subscription = NULL;
    assert_true(ptier_test_now() - start < 3000);
    free_fixture(f);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_event_is_told_once_and_in_order),
        cmocka_unit_test(removal_that_names_no_key_means_resync),
        cmocka_unit_test(lost_batch_is_filled_by_replay_page_by_page),
        cmocka_unit_test(heartbeat_ahead_brings_the_lost_tail),
        cmocka_unit_test(truncated_replay_is_told_as_resync_and_following_goes_on),
        cmocka_unit_test(restart_of_the_daemon_is_told_as_resync),
        cmocka_unit_test(another_store_is_told_as_resync),
        cmocka_unit_test(lost_connection_to_the_same_run_loses_no_event),
        cmocka_unit_test(silence_is_told_as_lost_and_a_heartbeat_as_connected),
        cmocka_unit_test(messages_that_mean_nothing_do_not_hide_a_silence),
        cmocka_unit_test(daemon_that_is_not_there_is_told_as_lost_and_found_later),
        cmocka_unit_test(tier_events_come_only_when_wanted),
        cmocka_unit_test(damaged_messages_are_survived),
        cmocka_unit_test(forked_child_is_told_no_position),
        cmocka_unit_test(closing_is_quick_whatever_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
