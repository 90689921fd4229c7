/*
 * Events over the ends of things: of the journal, of a run of the daemon, of a store, and of all
 * entries at once. PTIER_CLEAR=1000000 is the long form of the last (entries).
 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "support/mirrors.h"

#define PATIENCE_MS 20000
#define JOURNAL     100 /* events */
#define ROOM        2000
#define SHORT_CLEAR 50000

typedef struct heard_event {
    uint64_t sequence, revision;
    ptier_event_type type;
    char key[24];
} heard_event;

typedef struct heard {
    pthread_mutex_t lock;
    heard_event events[ROOM];
    size_t count, connected, resyncs;
    size_t events_at_resync;
} heard;

static void
on_event(void *context, const ptier_event *event)
{
    heard *h = context;
    pthread_mutex_lock(&h->lock);
    if (h->count < ROOM) {
        heard_event *e = &h->events[h->count++];
        e->sequence = event->sequence;
        e->revision = event->revision;
        e->type = event->type;
        (void)snprintf(e->key, sizeof e->key, "%s", event->record.key);
    }
    pthread_mutex_unlock(&h->lock);
}

static void
on_state(void *context, ptier_subscription_state state)
{
    heard *h = context;
    pthread_mutex_lock(&h->lock);
    h->connected += state == PTIER_SUBSCRIPTION_CONNECTED;
    if (state == PTIER_SUBSCRIPTION_RESYNC) {
        h->resyncs++;
        h->events_at_resync = h->count;
    }
    pthread_mutex_unlock(&h->lock);
}

static heard *
make_heard(void)
{
    heard *h = calloc(1, sizeof *h);
    assert_non_null(h);
    pthread_mutex_init(&h->lock, NULL);
    return h;
}

static ptier_subscription *
subscribe(ptier_client *client, heard *h, const ptier_position *position)
{
    ptier_subscription_options options;
    ptier_subscription *subscription;
    ptier_subscription_options_init(&options);
    options.on_event = on_event;
    options.on_state = on_state;
    options.context = h;
    options.position = position;
    assert_int_equal(ptier_subscribe(client, &options, &subscription, NULL), PTIER_OK);
    return subscription;
}

static void
wait_for(heard *h, const size_t *counter, size_t value)
{
    size_t now = 0;
    for (int waited = 0; waited < PATIENCE_MS; waited += 5) {
        const struct timespec pause = {.tv_nsec = 5000000};
        pthread_mutex_lock(&h->lock);
        now = *counter;
        pthread_mutex_unlock(&h->lock);
        if (now >= value)
            return;
        nanosleep(&pause, NULL);
    }
    fail_msg("%zu of %zu came", now, value);
}

/* What a subscription that begins behind `position` is told of `all`, from sequence `first` on. */
static void
check_begun_at(event_box *b, const heard *all, const ptier_position *position)
{
    heard *h = make_heard();
    ptier_subscription *subscription = subscribe(b->client, h, position);
    size_t expected = 0, first = 0;
    while (first < all->count && all->events[first].sequence <= position->changes)
        first++;
    expected = all->count - first;
    wait_for(h, &h->count, expected);
    ptier_subscription_close(subscription);
    assert_int_equal(h->resyncs, 0);
    assert_int_equal(h->count, expected);
    for (size_t i = 0; i < expected; i++) {
        const heard_event *told = &h->events[i], *was = &all->events[first + i];
        assert_int_equal(told->sequence, was->sequence);
        assert_int_equal(told->revision, was->revision);
        assert_int_equal(told->type, was->type);
        assert_string_equal(told->key, was->key);
    }
    free(h);
}

static void
replay_at_the_oldest_entry_of_the_journal(void **state)
{
    (void)state;
    event_box b;
    ptier_position now, position;
    heard *all = make_heard(), *late = make_heard();
    event_box_open(&b, "100");
    ptier_subscription *subscription = subscribe(b.client, all, NULL);
    wait_for(all, &all->connected, 1);
    for (unsigned i = 0; i < 20; i++) { /* few enough at a time for the publisher */
        test_put_range(b.client, 10 * i, 15, "one");
        assert_int_equal(test_delete_range(b.client, 10 * i, 4), 4);
        wait_for(all, &all->count, 19 * (i + 1));
    }
    assert_true(ptier_subscription_position(subscription, &now));
    assert_int_equal(now.changes, all->events[all->count - 1].sequence);
    ptier_subscription_close(subscription);

    uint64_t oldest = now.changes - JOURNAL + 1;
    position = now;
    position.changes = oldest - 1; /* the oldest one is the next */
    check_begun_at(&b, all, &position);
    position.changes = oldest;
    check_begun_at(&b, all, &position);
    position.changes = now.changes - 1;
    check_begun_at(&b, all, &position);
    check_begun_at(&b, all, &now);

    position.changes = oldest - 2; /* one is missing */
    subscription = subscribe(b.client, late, &position);
    wait_for(late, &late->resyncs, 1);
    assert_int_equal(late->count, 0);
    test_put_range(b.client, 1000, 10, "new");
    wait_for(late, &late->count, 10);
    ptier_subscription_close(subscription);
    assert_int_equal(late->events[0].sequence, now.changes + 1);
    assert_int_equal(late->resyncs, 1);
    event_box_close(&b);
    free(all);
    free(late);
}

static void
other_run_and_other_store_are_told_as_resync(void **state)
{
    (void)state;
    event_box b;
    ptier_position kept;
    heard *live = make_heard();
    event_box_open(&b, "65536");
    ptier_subscription *subscription = subscribe(b.client, live, NULL);
    wait_for(live, &live->connected, 1);
    test_put_range(b.client, 0, 20, "one");
    wait_for(live, &live->count, 20);
    for (size_t round = 1; round <= 2; round++) {
        heard *late = make_heard();
        size_t before = live->count;
        assert_true(ptier_subscription_position(subscription, &kept));
        assert_int_equal(test_daemon_end(&b.daemon, SIGTERM), 0);
        if (round == 2) /* the next one makes a store of its own */
            (void)strcat(b.daemon.data_dir, "-other");
        test_daemon_start(&b.daemon, NULL);
        wait_for(live, &live->resyncs, round);
        ptier_subscription *from_kept = subscribe(b.client, late, &kept);
        wait_for(late, &late->resyncs, 1);
        wait_for(late, &late->connected, 1);
        test_put_range(b.client, 0, 10, "two");
        wait_for(live, &live->count, before + 10);
        wait_for(late, &late->count, 10);
        ptier_subscription_close(from_kept);
        assert_int_equal(live->resyncs, round);
        assert_int_equal(live->events_at_resync, before);
        assert_int_equal(late->resyncs, 1);
        free(late);
    }
    ptier_subscription_close(subscription);
    event_box_close(&b);
    free(live);
}

typedef struct writer {
    ptier_client *client;
    atomic_uint calls;
    atomic_bool over;
} writer;

static void *
write_until_over(void *argument)
{
    writer *w = argument;
    for (unsigned i = 0; !atomic_load(&w->over); i++) {
        char url[64];
        ptier_record record;
        ptier_record_init(&record);
        (void)snprintf(url, sizeof url, "http://10.9.%u.%u:80", i >> 8 & 3, i & 255);
        record.url = url;
        if (ptier_put(w->client, &record, NULL, NULL, NULL) == PTIER_OK)
            atomic_fetch_add(&w->calls, 1);
    }
    return NULL;
}

static void
daemon_killed_in_mid_batch_leaves_nobody_behind(void **state)
{
    (void)state;
    enum { MIRRORS = 3, WRITERS = 4, ROUNDS = 3 };
    const char *const arguments[] = {"--default-ttl", "0", NULL};
    ptier_test_program mirrors[MIRRORS];
    pthread_t threads[WRITERS];
    writer writers[WRITERS] = {0};
    event_box b;
    event_box_open(&b, "65536");
    for (int i = 0; i < MIRRORS; i++)
        mirror_start(&mirrors[i], &b.daemon, 0);
    for (int i = 0; i < MIRRORS; i++)
        mirror_wait_following(&mirrors[i]);
    for (int i = 0; i < WRITERS; i++) {
        writers[i].client = b.client;
        assert_int_equal(pthread_create(&threads[i], NULL, write_until_over, &writers[i]), 0);
    }
    for (int round = 0; round < ROUNDS; round++) {
        unsigned goal = atomic_load(&writers[0].calls) + 500;
        for (int waited = 0; atomic_load(&writers[0].calls) < goal; waited++) {
            const struct timespec pause = {.tv_nsec = 1000000};
            assert_true(waited < PATIENCE_MS);
            nanosleep(&pause, NULL);
        }
        assert_int_equal(test_daemon_end(&b.daemon, SIGKILL), 128 + SIGKILL);
        test_daemon_start(&b.daemon, arguments);
    }
    for (int i = 0; i < WRITERS; i++) {
        atomic_store(&writers[i].over, true);
        pthread_join(threads[i], NULL);
    }
    mirror_put_sentinel(b.client);
    for (int i = 0; i < MIRRORS; i++)
        assert_true(mirror_check(&mirrors[i], b.client).resyncs >= 1);
    event_box_close(&b);
}

static void
clear_reaches_every_subscriber_as_one_event(void **state)
{
    (void)state;
    enum { MIRRORS = 3 };
    const char *text = getenv("PTIER_CLEAR");
    unsigned long size = text ? strtoul(text, NULL, 10) : 0;
    unsigned entries = size >= 1000 && size <= 1000000 ? (unsigned)size : SHORT_CLEAR;
    ptier_test_program mirrors[MIRRORS];
    ptier_clear_result cleared;
    event_box b;
    event_box_open(&b, "65536");
    test_put_range(b.client, 0, entries, "one");
    for (int i = 0; i < MIRRORS; i++)
        mirror_start(&mirrors[i], &b.daemon, 0);
    for (int i = 0; i < MIRRORS; i++)
        mirror_wait_following(&mirrors[i]);
    assert_int_equal(ptier_clear(b.client, PTIER_TIER_NONE, NULL, &cleared, NULL), PTIER_OK);
    assert_int_equal(cleared.cleared, entries);
    test_put_range(b.client, 100, 50, "two");
    mirror_put_sentinel(b.client);
    for (int i = 0; i < MIRRORS; i++) {
        mirror_report report = mirror_check(&mirrors[i], b.client);
        assert_int_equal(report.clears, 1);
        assert_int_equal(report.events, 1 + 50 + 1);
        assert_int_equal(report.resyncs, 0);
    }
    event_box_close(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replay_at_the_oldest_entry_of_the_journal),
        cmocka_unit_test(other_run_and_other_store_are_told_as_resync),
        cmocka_unit_test(daemon_killed_in_mid_batch_leaves_nobody_behind),
        cmocka_unit_test(clear_reaches_every_subscriber_as_one_event),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
