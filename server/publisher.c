/* See publisher.h. */
#include "publisher.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <nng/nng.h>
#include <nng/protocol/pubsub0/pub.h>

#include "event_pack.h"
#include "framing.h"
#include "listen.h"
#include "self_probe.h"

#define GATHER_MS    2                   /* how long a first event waits for more */
#define BATCH_BYTES  ((size_t)32 * 1024) /* a batch ends before it grows past this */
#define BEAT_BYTES   ((size_t)192) /* at most, of the stream and the heartbeat behind the events */
#define SEND_BUFFER  1024 /* messages a slow subscriber may lag behind before it loses some */
#define EVENTS_FIELD 3    /* EventBatch.events */

struct ptier_publisher {
    ptier_service *service;
    nng_socket socket;
    pthread_t thread;
    atomic_bool stopping;
    uint64_t published[PTIER_STREAM_COUNT]; /* last sequence sent */
    uint64_t published_revision;            /* of the last change that was */
    /* When everything up to then had been sent: what heartbeats promise. */
    int64_t complete_boottime_ms;
    uint64_t complete_revision;
    ptier_bytes batch;
    ptier_bytes event;
    ptier_journal_item items[PTIER_JOURNAL_READ_MAX];
};

static void
send_batch(ptier_publisher *publisher)
{
    nng_msg *message;
    if (nng_msg_alloc(&message, publisher->batch.length) != 0)
        return; /* subscribers see the gap */
    memcpy(nng_msg_body(message), publisher->batch.data, publisher->batch.length);
    if (nng_sendmsg(publisher->socket, message, NNG_FLAG_NONBLOCK) != 0)
        nng_msg_free(message);
}

static void
begin_batch(ptier_publisher *publisher, ptier_stream stream)
{
    ptier_bytes_reset(&publisher->batch, BATCH_BYTES * 2);
    uint8_t *topic = ptier_bytes_reserve(&publisher->batch, PTIER_TOPIC_BYTES);
    if (!topic)
        return; /* end_batch fails as well */
    memcpy(topic, stream == PTIER_STREAM_CHANGES ? PTIER_TOPIC_CHANGES : PTIER_TOPIC_TIERS,
           PTIER_TOPIC_BYTES);
    publisher->batch.length = PTIER_TOPIC_BYTES;
}

/* The heartbeat goes last, because it says where the events before it end; fields may come in any
 * order. */
static void
end_batch(ptier_publisher *publisher, ptier_stream stream)
{
    Proxytier__V1__EventBatch batch = PROXYTIER__V1__EVENT_BATCH__INIT;
    ptier_heartbeat heartbeat;
    ptier_journal_bounds bounds[PTIER_STREAM_COUNT];
    for (int i = PTIER_STREAM_CHANGES; i < PTIER_STREAM_COUNT; i++) {
        bounds[i] = ptier_journal_get_bounds(publisher->service->journal, (ptier_stream)i);
        if (bounds[i].oldest > publisher->published[i] + 1)
            bounds[i].oldest = publisher->published[i] + 1;
        bounds[i].last = publisher->published[i];
    }
    /* Never less than what was sent: whoever begins to follow here will not be told of it. */
    uint64_t revision = publisher->complete_revision > publisher->published_revision
                            ? publisher->complete_revision
                            : publisher->published_revision;
    ptier_heartbeat_fill(&heartbeat, publisher->service->cache, publisher->complete_boottime_ms,
                         revision, bounds);
    heartbeat.message.access = ptier_auth_version(publisher->service->auth);
    batch.heartbeat = &heartbeat.message;
    batch.stream = (Proxytier__V1__Stream)stream;
    if (publisher->batch.length >= PTIER_TOPIC_BYTES &&
        ptier_bytes_append_message(&publisher->batch, &batch.base) == PTIER_OK)
        send_batch(publisher);
}

/* Packs items from `from` on until the batch is full. Returns the first one left over. */
static size_t
pack_items(ptier_publisher *publisher, size_t from, size_t count)
{
    size_t i = from;
    for (; i < count; i++) {
        ptier_bytes_reset(&publisher->event, BATCH_BYTES);
        if (ptier_event_append(&publisher->event, EVENTS_FIELD, publisher->service->cache,
                               &publisher->items[i]) != PTIER_OK)
            continue; /* no memory: a gap, which subscribers see */
        if (i > from &&
            publisher->batch.length + publisher->event.length + BEAT_BYTES > BATCH_BYTES)
            break;
        uint8_t *at = ptier_bytes_reserve(&publisher->batch, publisher->event.length);
        if (!at)
            continue;
        memcpy(at, publisher->event.data, publisher->event.length);
        publisher->batch.length += publisher->event.length;
    }
    return i;
}

/* Sends what the journal had at one instant, and only then moves the promise of the heartbeats to
 * that instant. */
static void
drain(ptier_publisher *publisher)
{
    ptier_journal *journal = publisher->service->journal;
    int64_t boottime_ms = ptier_boottime_ms();
    uint64_t revision = ptier_cache_revision(publisher->service->cache);
    uint64_t target[PTIER_STREAM_COUNT];
    for (int i = PTIER_STREAM_CHANGES; i < PTIER_STREAM_COUNT; i++)
        target[i] = ptier_journal_get_bounds(journal, (ptier_stream)i).last;
    for (int i = PTIER_STREAM_CHANGES; i < PTIER_STREAM_COUNT; i++) {
        ptier_stream stream = (ptier_stream)i;
        while (publisher->published[i] < target[i]) {
            ptier_journal_bounds bounds;
            size_t count = ptier_journal_read(journal, stream, publisher->published[i],
                                              publisher->items, PTIER_JOURNAL_READ_MAX, &bounds);
            for (size_t next = 0; next < count;) {
                begin_batch(publisher, stream);
                next = pack_items(publisher, next, count);
                publisher->published[i] = publisher->items[next - 1].sequence;
                if (stream == PTIER_STREAM_CHANGES)
                    publisher->published_revision = publisher->items[next - 1].revision;
                if (publisher->published[PTIER_STREAM_CHANGES] >= target[PTIER_STREAM_CHANGES] &&
                    publisher->published[PTIER_STREAM_TIERS] >= target[PTIER_STREAM_TIERS]) {
                    publisher->complete_boottime_ms = boottime_ms;
                    publisher->complete_revision = revision;
                }
                end_batch(publisher, stream);
            }
            ptier_journal_release(publisher->items, count);
        }
    }
    publisher->complete_boottime_ms = boottime_ms;
    publisher->complete_revision = revision;
}

static void
heartbeat(ptier_publisher *publisher)
{
    for (int i = PTIER_STREAM_CHANGES; i < PTIER_STREAM_COUNT; i++) {
        begin_batch(publisher, (ptier_stream)i);
        end_batch(publisher, (ptier_stream)i);
    }
}

static void *
publisher_main(void *argument)
{
    ptier_publisher *publisher = argument;
    ptier_journal *journal = publisher->service->journal;
    int64_t next = ptier_monotonic_ms();
    while (!atomic_load(&publisher->stopping)) {
        int64_t left = next - ptier_monotonic_ms();
        if (left > 0)
            ptier_journal_wait(journal, publisher->published, left, GATHER_MS);
        bool due = ptier_monotonic_ms() >= next;
        if (due)
            ptier_journal_tick(journal);
        drain(publisher);
        if (due) {
            heartbeat(publisher);
            next = ptier_monotonic_ms() + publisher->service->heartbeat_ms;
        }
    }
    ptier_journal_tick(journal);
    drain(publisher);
    heartbeat(publisher);
    return NULL;
}

static ptier_status
open_socket(ptier_publisher *publisher, const char *const *urls, size_t url_count,
            const ptier_listen_options *options, ptier_error *error)
{
    nng_listener listener;
    int rv = nng_pub0_open(&publisher->socket);
    if (rv != 0)
        return ptier_fail(error, ptier_status_from_nng(rv), "cannot open a socket: %s",
                          nng_strerror(rv));
    rv = nng_socket_set_int(publisher->socket, NNG_OPT_SENDBUF, SEND_BUFFER);
    ptier_status status = PTIER_OK;
    if (rv != 0)
        status = ptier_fail(error, ptier_status_from_nng(rv), "cannot set up the event socket: %s",
                            nng_strerror(rv));
    if (status == PTIER_OK)
        status = ptier_gate_guard(publisher->service->gate, publisher->socket, true, error);
    for (size_t i = 0; i < url_count && status == PTIER_OK; i++) {
        status = ptier_listen(publisher->socket, urls[i], options, &listener, error);
        if (status == PTIER_OK)
            status = ptier_self_probe_add(publisher->service->self_probe,
                                          &(ptier_probed){.url = urls[i],
                                                          .events = true,
                                                          .socket = publisher->socket,
                                                          .listener = listener},
                                          error);
    }
    if (status != PTIER_OK)
        (void)nng_close(publisher->socket); /* fails only for a bad handle */
    return status;
}

ptier_status
ptier_publisher_start(ptier_service *service, const char *const *urls, size_t url_count,
                      const ptier_listen_options *options, ptier_publisher **publisher,
                      ptier_error *error)
{
    ptier_publisher *made = calloc(1, sizeof *made);
    if (!made)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    made->service = service;
    ptier_status status = open_socket(made, urls, url_count, options, error);
    if (status == PTIER_OK && pthread_create(&made->thread, NULL, publisher_main, made) != 0) {
        (void)nng_close(made->socket); /* fails only for a bad handle */
        status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "cannot start the event thread");
    }
    if (status != PTIER_OK) {
        free(made);
        return status;
    }
    *publisher = made;
    return PTIER_OK;
}

void
ptier_publisher_stop(ptier_publisher *publisher)
{
    if (!publisher)
        return;
    atomic_store(&publisher->stopping, true);
    ptier_journal_wake(publisher->service->journal);
    pthread_join(publisher->thread, NULL);
    (void)nng_close(publisher->socket); /* fails only for a bad handle */
    ptier_bytes_fini(&publisher->batch);
    ptier_bytes_fini(&publisher->event);
    free(publisher);
}
