/* The one event link of a client, against a scripted peer: who shares it, who joins late, and that
 * it ends whatever comes in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <proxytier/client.h>

#include "framing.h"
#include "support/scripted_peer.h"

#define CHANGES      PROXYTIER__V1__STREAM__STREAM_CHANGES
#define TIERS        PROXYTIER__V1__STREAM__STREAM_TIERS
#define PATIENCE_MS  15000
#define LENGTH_BYTES 9 /* before each message on ipc */

/* What one subscription was told. */
typedef struct told {
    atomic_uint changes, tiers, connected, lost, resyncs, disorder;
    _Atomic uint64_t last[PEER_STREAMS];
} told;

typedef struct fixture {
    scripted_peer peer;
    ptier_client *client;
    told told[3];
    ptier_subscription *subscriptions[3];
} fixture;

static void
on_event(void *context, const ptier_event *event)
{
    told *t = context;
    int stream = event->type >= PTIER_EVENT_PROMOTED ? TIERS : CHANGES;
    uint64_t last = t->last[stream];
    t->disorder += last != 0 && event->sequence != last + 1;
    t->last[stream] = event->sequence;
    if (stream == TIERS)
        t->tiers++;
    else
        t->changes++;
}

static void
on_state(void *context, ptier_subscription_state state)
{
    told *t = context;
    t->connected += state == PTIER_SUBSCRIPTION_CONNECTED;
    t->lost += state == PTIER_SUBSCRIPTION_LOST;
    t->resyncs += state == PTIER_SUBSCRIPTION_RESYNC;
    if (state == PTIER_SUBSCRIPTION_RESYNC)
        t->last[CHANGES] = t->last[TIERS] = 0;
}

static fixture *
make_fixture(void)
{
    fixture *f = calloc(1, sizeof *f);
    ptier_client_options options;
    assert_non_null(f);
    peer_init(&f->peer);
    f->peer.heartbeat_ms = 2000; /* so that a machine that stops for a second makes no difference */
    f->peer.replay_page = 60;    /* does not end where the link is */
    peer_start(&f->peer);
    ptier_client_options_init(&options);
    options.url = f->peer.rpc_url;
    assert_int_equal(ptier_client_open(&options, &f->client, NULL), PTIER_OK);
    return f;
}

static void
free_fixture(fixture *f)
{
    for (int i = 0; i < 3; i++) {
        ptier_subscription_close(f->subscriptions[i]);
        assert_int_equal(f->told[i].disorder, 0);
    }
    ptier_client_close(f->client);
    peer_fini(&f->peer);
    free(f);
}

static void
subscribe(fixture *f, int i, bool tiers, const ptier_position *position)
{
    ptier_subscription_options options;
    ptier_subscription_options_init(&options);
    options.tiers = tiers;
    options.on_event = on_event;
    options.on_state = on_state;
    options.context = &f->told[i];
    options.position = position;
    assert_int_equal(ptier_subscribe(f->client, &options, &f->subscriptions[i], NULL), PTIER_OK);
}

/* Heartbeats, until `counter` reaches `value`. */
static void
beat_until(fixture *f, atomic_uint *counter, unsigned value)
{
    int64_t until = ptier_test_now() + PATIENCE_MS;
    while (atomic_load(counter) < value && ptier_test_now() < until) {
        peer_heartbeat(&f->peer);
        test_pause();
    }
    if (atomic_load(counter) < value)
        fail_msg("%u of %u came", atomic_load(counter), value);
}

static void
subscriptions_share_one_connection(void **state)
{
    (void)state;
    fixture *f = make_fixture();
    for (int i = 0; i < 3; i++)
        subscribe(f, i, i == 2, NULL);
    for (int i = 0; i < 3; i++)
        beat_until(f, &f->told[i].connected, 1);
    for (int i = 0; i < 20; i++) {
        peer_emit(&f->peer, CHANGES, 10, i % 7 != 3);
        peer_emit(&f->peer, TIERS, 10, true);
    }
    for (int i = 0; i < 3; i++)
        beat_until(f, &f->told[i].changes, 200);
    beat_until(f, &f->told[2].tiers, 200);
    assert_int_equal(f->told[0].tiers + f->told[1].tiers, 0);
    assert_int_equal(peer_count(&f->peer, &f->peer.infos), 1);
    free_fixture(f);
}

static void
one_that_joins_late_gets_all_from_then_on(void **state)
{
    (void)state;
    fixture *f = make_fixture();
    subscribe(f, 0, false, NULL);
    beat_until(f, &f->told[0].connected, 1);
    peer_emit(&f->peer, TIERS, 7, true); /* nobody's business */
    peer_emit(&f->peer, CHANGES, 5, true);
    beat_until(f, &f->told[0].changes, 5);
    subscribe(f, 1, true, NULL);
    beat_until(f, &f->told[1].connected, 1);
    for (int i = 0; i < 5; i++) {
        peer_emit(&f->peer, TIERS, 4, i != 2); /* one batch is lost */
        peer_emit(&f->peer, CHANGES, 3, true);
    }
    beat_until(f, &f->told[1].tiers, 20);
    beat_until(f, &f->told[1].changes, 15);
    beat_until(f, &f->told[0].changes, 20);
    assert_int_equal(f->told[1].last[TIERS], 27);
    assert_int_equal(f->told[1].tiers, 20);
    assert_int_equal(f->told[1].changes, 15);
    ptier_subscription_close(f->subscriptions[0]);
    f->subscriptions[0] = NULL;
    peer_emit(&f->peer, CHANGES, 3, true); /* who stays is not disturbed */
    beat_until(f, &f->told[1].changes, 18);
    assert_int_equal(f->told[0].resyncs + f->told[1].resyncs, 0);
    assert_int_equal(f->told[0].lost + f->told[1].lost, 0);
    free_fixture(f);
}

static void
link_that_ended_begins_anew_with_the_next_listener(void **state)
{
    (void)state;
    fixture *f = make_fixture();
    for (unsigned round = 0; round < 3; round++) {
        subscribe(f, 0, round == 1, NULL);
        beat_until(f, &f->told[0].connected, round + 1);
        peer_emit(&f->peer, CHANGES, 5, true);
        beat_until(f, &f->told[0].changes, 5 * (round + 1));
        ptier_subscription_close(f->subscriptions[0]);
        f->subscriptions[0] = NULL;
    }
    assert_int_equal(f->told[0].resyncs, 0);
    free_fixture(f);
}

static void
kept_position_is_gone_on_from(void **state)
{
    (void)state;
    fixture *f = make_fixture();
    ptier_position kept, other;
    subscribe(f, 0, true, NULL);
    beat_until(f, &f->told[0].connected, 1);
    peer_emit(&f->peer, CHANGES, 30, true);
    peer_emit(&f->peer, TIERS, 10, true);
    beat_until(f, &f->told[0].changes, 30);
    beat_until(f, &f->told[0].tiers, 10);
    assert_true(ptier_subscription_position(f->subscriptions[0], &kept));
    assert_int_equal(kept.changes, 30);
    assert_int_equal(kept.tiers, 10);
    for (int i = 0; i < 5; i++) {
        peer_emit(&f->peer, CHANGES, 40, true);
        peer_emit(&f->peer, TIERS, 40, true);
    }
    beat_until(f, &f->told[0].changes, 230);
    peer_emit(&f->peer, CHANGES, 40, false); /* the link gets them when the other has replayed */
    subscribe(f, 1, true, &kept);
    beat_until(f, &f->told[1].changes, 240);
    beat_until(f, &f->told[0].changes, 270);
    beat_until(f, &f->told[1].tiers, 200);
    assert_int_equal(f->told[1].resyncs, 0);
    assert_int_equal(f->told[1].last[CHANGES], 270);
    peer_emit(&f->peer, CHANGES, 1, true);
    beat_until(f, &f->told[1].changes, 241);
    assert_int_equal(f->told[1].changes, 241);
    other = kept;
    other.boot_id[3]++;
    subscribe(f, 2, false, &other);
    beat_until(f, &f->told[2].resyncs, 1);
    peer_emit(&f->peer, CHANGES, 4, true);
    beat_until(f, &f->told[2].changes, 4);
    ptier_subscription_close(f->subscriptions[2]);
    kept.changes = 100000; /* ahead of all: refused, not waited for */
    memset(&f->told[2], 0, sizeof f->told[2]);
    subscribe(f, 2, false, &kept);
    beat_until(f, &f->told[2].resyncs, 1);
    peer_emit(&f->peer, CHANGES, 4, true);
    beat_until(f, &f->told[2].changes, 4);
    free_fixture(f);
}

/* ---- ending amid a flood ---- */

/* A publisher of bare bytes, so that only the SDK's own nng is at stake. */
typedef struct flood_state {
    int listener;
    uint8_t *message; /* with the length in front */
    size_t length;
    atomic_bool over;
} flood_state;

/* A heartbeat of 100 KB: the rest is a field that nobody knows. */
static void
make_flood(flood_state *flood, scripted_peer *peer)
{
    enum { PADDING = 100000 };
    Proxytier__V1__EventBatch batch = PROXYTIER__V1__EVENT_BATCH__INIT;
    Proxytier__V1__Heartbeat heartbeat = PROXYTIER__V1__HEARTBEAT__INIT;
    memset(flood, 0, sizeof *flood);
    heartbeat.boot_id = (ProtobufCBinaryData){PEER_ID_BYTES, peer->boot_id};
    heartbeat.store_id = (ProtobufCBinaryData){PEER_ID_BYTES, peer->store_id};
    batch.heartbeat = &heartbeat;
    batch.stream = CHANGES;
    flood->message = calloc(1, PADDING + 1000);
    assert_non_null(flood->message);
    size_t at = LENGTH_BYTES;
    memcpy(flood->message + at, PTIER_TOPIC_CHANGES, PTIER_TOPIC_BYTES);
    at += PTIER_TOPIC_BYTES;
    at += proxytier__v1__event_batch__pack(&batch, flood->message + at);
    const uint8_t field[] = {0xa2, 0x06, 0xa0, 0x8d, 0x06}; /* number 100, PADDING bytes */
    memcpy(flood->message + at, field, sizeof field);
    flood->length = at + sizeof field + PADDING;
    flood->message[0] = 0x01;
    for (size_t i = 0, left = flood->length - LENGTH_BYTES; i < 8; i++, left >>= 8)
        flood->message[LENGTH_BYTES - 1 - i] = left & 0xff;
}

static void
listen_at(flood_state *flood, const char *url)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    flood->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(flood->listener >= 0);
    strncpy(address.sun_path, url + strlen("ipc://"), sizeof address.sun_path - 1);
    assert_int_equal(bind(flood->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(flood->listener, 8), 0);
}

/* One connection at a time, until it breaks; `over` and a shut listener end it. */
static void *
pour(void *argument)
{
    flood_state *flood = argument;
    const uint8_t hello[8] = {0, 'S', 'P', 0, 0, 0x20, 0, 0};
    while (!atomic_load(&flood->over)) {
        uint8_t theirs[8];
        int fd = accept(flood->listener, NULL, NULL);
        if (fd < 0)
            continue;
        bool well = send(fd, hello, sizeof hello, MSG_NOSIGNAL) == sizeof hello &&
                    recv(fd, theirs, sizeof theirs, MSG_WAITALL) == sizeof theirs;
        for (size_t at = 0; well;) {
            ssize_t sent = send(fd, flood->message + at, flood->length - at, MSG_NOSIGNAL);
            well = sent > 0;
            at = (at + (size_t)(well ? sent : 0)) % flood->length;
        }
        close(fd);
    }
    return NULL;
}

/* nng 1.5 does not end a connection that is closed while a message has come in part. */
static void
closing_amid_a_flood_ends(void **state)
{
    (void)state;
    fixture *f = make_fixture();
    flood_state flood;
    pthread_t thread;
    make_flood(&flood, &f->peer);
    strcat(f->peer.event_url, ".bare"); /* what GetInfo answers from now on */
    listen_at(&flood, f->peer.event_url);
    assert_int_equal(pthread_create(&thread, NULL, pour, &flood), 0);
    int64_t until = ptier_test_now() + 3000;
    for (unsigned rounds = 0; rounds < 200 && ptier_test_now() < until; rounds++) {
        subscribe(f, 0, false, NULL);
        int64_t limit = ptier_test_now() + PATIENCE_MS;
        while (f->told[0].connected <= rounds && ptier_test_now() < limit)
            test_pause();
        assert_int_equal(f->told[0].connected, rounds + 1);
        ptier_subscription_close(f->subscriptions[0]);
        f->subscriptions[0] = NULL;
    }
    atomic_store(&flood.over, true);
    shutdown(flood.listener, SHUT_RDWR);
    pthread_join(thread, NULL);
    close(flood.listener);
    free(flood.message);
    free_fixture(f);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(subscriptions_share_one_connection),
        cmocka_unit_test(one_that_joins_late_gets_all_from_then_on),
        cmocka_unit_test(link_that_ended_begins_anew_with_the_next_listener),
        cmocka_unit_test(kept_position_is_gone_on_from),
        cmocka_unit_test(closing_amid_a_flood_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
