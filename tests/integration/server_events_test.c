/* Events as they are on the wire: what is published, and what Replay gives of it later. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <nng/nng.h>
#include <nng/protocol/pubsub0/sub.h>

#include "framing.h"
#include "proxytier/v1/events.pb-c.h"
#include "proxytier/v1/info.pb-c.h"
#include "support/server_box.h"

static void
subscribe(fixture *f, nng_socket *socket)
{
    assert_int_equal(nng_sub0_open(socket), 0);
    assert_int_equal(
        nng_socket_set(*socket, NNG_OPT_SUB_SUBSCRIBE, PTIER_TOPIC_CHANGES, PTIER_TOPIC_BYTES), 0);
    assert_int_equal(nng_socket_set_ms(*socket, NNG_OPT_RECVTIMEO, 10000), 0);
    assert_int_equal(nng_dial(*socket, f->daemon.events_url, NULL, 0), 0);
}

/* The next batch; to be freed. Every one is searched for `secret`. */
static Proxytier__V1__EventBatch *
next_batch(nng_socket socket, const char *secret)
{
    nng_msg *message;
    assert_int_equal(nng_recvmsg(socket, &message, 0), 0);
    size_t length = nng_msg_len(message);
    const uint8_t *bytes = nng_msg_body(message);
    assert_true(length > PTIER_TOPIC_BYTES);
    assert_null(memmem(bytes, length, secret, strlen(secret)));
    Proxytier__V1__EventBatch *batch = proxytier__v1__event_batch__unpack(
        NULL, length - PTIER_TOPIC_BYTES, bytes + PTIER_TOPIC_BYTES);
    nng_msg_free(message);
    assert_non_null(batch);
    assert_non_null(batch->heartbeat);
    assert_int_equal(batch->heartbeat->n_streams, 2);
    return batch;
}

static void
changes_are_published_in_order_without_credentials(void **state)
{
    fixture *f = *state;
    nng_socket socket;
    char key[300];
    subscribe(f, &socket);
    proxytier__v1__event_batch__free_unpacked(next_batch(socket, "event-secret"),
                                              NULL); /* it follows now */
    put_one(f, "http://10.0.0.9:9", "event-user", "event-secret", 300, key);

    Proxytier__V1__EventType expected[] = {PROXYTIER__V1__EVENT_TYPE__EVENT_TYPE_CREATED,
                                           PROXYTIER__V1__EVENT_TYPE__EVENT_TYPE_REMOVED};
    uint64_t sequence = 0, revision = 0;
    for (size_t seen = 0; seen < 2;) {
        Proxytier__V1__EventBatch *batch = next_batch(socket, "event-secret");
        for (size_t i = 0; i < batch->n_events; i++, seen++) {
            const Proxytier__V1__Event *event = batch->events[i];
            assert_true(seen < 2);
            assert_int_equal(event->sequence, ++sequence);
            assert_int_equal(event->type, expected[seen]);
            assert_string_equal(event->key, key);
            assert_true(event->revision > revision);
            revision = event->revision;
            assert_string_equal(event->proxy->url, "http://10.0.0.9:9");
            assert_string_equal(event->proxy->username, "");
        }
        if (batch->n_events) {
            assert_int_equal(batch->heartbeat->streams[0]->last_sequence, sequence);
            assert_int_equal(batch->heartbeat->streams[0]->oldest_sequence, 1);
        }
        if (seen == 2)
            assert_int_equal(batch->events[batch->n_events - 1]->reason,
                             PROXYTIER__V1__REMOVAL_REASON__REMOVAL_REASON_TTL);
        proxytier__v1__event_batch__free_unpacked(batch, NULL);
    }
    (void)nng_close(socket); /* fails only for a bad handle */
}

/* Up to a heartbeat that tells of `changes`. */
static void
follow_behind(nng_socket socket, uint64_t changes)
{
    for (bool there = false; !there;) {
        Proxytier__V1__EventBatch *batch = next_batch(socket, "event-secret");
        uint64_t last = batch->heartbeat->streams[0]->last_sequence;
        assert_true(last <= changes);
        there = last == changes;
        if (there)
            assert_true(batch->heartbeat->revision >= changes);
        proxytier__v1__event_batch__free_unpacked(batch, NULL);
    }
}

static void
expect_next_event(fixture *f, nng_socket socket, const char *url, uint64_t sequence)
{
    char key[300];
    put_one(f, url, "event-user", "event-secret", 0, key);
    for (bool seen = false; !seen;) {
        Proxytier__V1__EventBatch *batch = next_batch(socket, "event-secret");
        seen = batch->n_events != 0;
        if (seen) {
            assert_int_equal(batch->n_events, 1);
            assert_int_equal(batch->events[0]->sequence, sequence);
            assert_string_equal(batch->events[0]->key, key);
            assert_int_equal(batch->heartbeat->streams[0]->last_sequence, sequence);
        }
        proxytier__v1__event_batch__free_unpacked(batch, NULL);
    }
}

/* Those are not packed: who comes, or comes again, goes on behind them. */
static void
changes_that_nobody_follows_are_passed_over(void **state)
{
    fixture *f = *state;
    nng_socket socket;
    char key[300];
    put_many(f, 700);
    subscribe(f, &socket);
    follow_behind(socket, 700);
    expect_next_event(f, socket, "http://10.0.0.9:9", 701);
    (void)nng_close(socket); /* fails only for a bad handle */
    put_one(f, "http://10.0.0.10:9", "event-user", "event-secret", 0, key);
    subscribe(f, &socket);
    follow_behind(socket, 702);
    expect_next_event(f, socket, "http://10.0.0.11:9", 703);
    (void)nng_close(socket); /* fails only for a bad handle */
}

static raw_reply
replay(fixture *f, ProtobufCBinaryData boot_id, uint64_t after, uint32_t page_size)
{
    Proxytier__V1__ReplayRequest request = PROXYTIER__V1__REPLAY_REQUEST__INIT;
    request.boot_id = boot_id;
    request.stream = PROXYTIER__V1__STREAM__STREAM_CHANGES;
    request.after_sequence = after;
    request.page_size = page_size;
    raw_reply reply = CALL(f, "Events", "Replay", &request, replay_response);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    return reply;
}

static void
replay_gives_what_was_missed_page_by_page(void **state)
{
    fixture *f = *state;
    put_many(f, 700);
    uint8_t other_run[16] = {1}, this_run[16];
    ProtobufCBinaryData id = {.len = 16, .data = other_run};
    raw_reply reply = replay(f, id, 0, 0);
    assert_true(((const Proxytier__V1__ReplayResponse *)reply.body)->truncated);
    memcpy(this_run, reply.header->boot_id.data, 16);
    raw_reply_free(&reply);

    id.data = this_run;
    uint64_t after = 100;
    for (bool more = true; more;) {
        reply = replay(f, id, after, 300);
        const Proxytier__V1__ReplayResponse *page =
            (const Proxytier__V1__ReplayResponse *)reply.body;
        assert_false(page->truncated);
        assert_true(page->n_events > 0 && page->n_events <= 300);
        for (size_t i = 0; i < page->n_events; i++)
            assert_int_equal(page->events[i]->sequence, ++after);
        assert_int_equal(page->heartbeat->streams[0]->last_sequence, 700);
        more = page->more;
        raw_reply_free(&reply);
    }
    assert_int_equal(after, 700);
    reply = replay(f, id, 701, 0); /* a position that was never reached */
    assert_true(((const Proxytier__V1__ReplayResponse *)reply.body)->truncated);
    raw_reply_free(&reply);
}

static void
replay_older_than_the_journal_is_truncated(void **state)
{
    fixture *f = *state;
    const char *small[] = {"--journal-events", "100", NULL};
    restart(f, small);
    put_many(f, 150);
    Proxytier__V1__CheckRequest check = PROXYTIER__V1__CHECK_REQUEST__INIT;
    raw_reply reply = CALL(f, "Health", "Check", &check, check_response);
    uint8_t run[16];
    assert_int_equal(raw_status(&reply), PTIER_OK);
    memcpy(run, reply.header->boot_id.data, 16);
    raw_reply_free(&reply);
    ProtobufCBinaryData id = {.len = 16, .data = run};
    reply = replay(f, id, 49, 0);
    assert_true(((const Proxytier__V1__ReplayResponse *)reply.body)->truncated);
    raw_reply_free(&reply);
    reply = replay(f, id, 50, 0);
    assert_false(((const Proxytier__V1__ReplayResponse *)reply.body)->truncated);
    assert_int_equal(((const Proxytier__V1__ReplayResponse *)reply.body)->n_events, 100);
    raw_reply_free(&reply);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_DAEMON(changes_are_published_in_order_without_credentials),
        WITH_DAEMON(changes_that_nobody_follows_are_passed_over),
        WITH_DAEMON(replay_gives_what_was_missed_page_by_page),
        WITH_DAEMON(replay_older_than_the_journal_is_truncated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
