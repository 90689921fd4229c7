#include "scripted_peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <nng/protocol/pubsub0/pub.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/supplemental/util/platform.h>

#include "framing.h"
#include "proxytier/v1/info.pb-c.h"

void
test_pause(void)
{
    nng_msleep(5);
}

void
peer_init(scripted_peer *p)
{
    static int serial;
    memset(p, 0, sizeof *p);
    serial++;
    snprintf(p->rpc_url, sizeof p->rpc_url, "ipc:///tmp/ptier-sdk-%d-%d-rpc.sock", (int)getpid(),
             serial);
    snprintf(p->event_url, sizeof p->event_url, "ipc:///tmp/ptier-sdk-%d-%d-ev.sock", (int)getpid(),
             serial);
    p->heartbeat_ms = 50;
    p->replay_page = 3;
    memset(p->boot_id, PEER_BOOT, PEER_ID_BYTES);
    memset(p->store_id, PEER_STORE, PEER_ID_BYTES);
    for (int s = 0; s < PEER_STREAMS; s++)
        p->oldest[s] = 1;
    pthread_mutex_init(&p->lock, NULL);
}

void
peer_fini(scripted_peer *p)
{
    peer_stop(p);
    unlink(p->rpc_url + strlen("ipc://"));
    unlink(p->event_url + strlen("ipc://"));
    pthread_mutex_destroy(&p->lock);
}

void
peer_answer_with(peer_answer *answer, const ProtobufCMessage *message)
{
    answer->body_length = protobuf_c_message_get_packed_size(message);
    answer->body = malloc(answer->body_length + 1);
    assert_non_null(answer->body);
    protobuf_c_message_pack(message, answer->body);
}

unsigned
peer_count(scripted_peer *p, const unsigned *counter)
{
    pthread_mutex_lock(&p->lock);
    unsigned value = *counter;
    pthread_mutex_unlock(&p->lock);
    return value;
}

/* ---- heartbeats and events ---- */

typedef struct heartbeat_message {
    Proxytier__V1__Heartbeat heartbeat;
    Proxytier__V1__StreamState states[PEER_STREAMS];
    Proxytier__V1__StreamState *list[PEER_STREAMS];
} heartbeat_message;

static void
make_heartbeat_locked(scripted_peer *p, heartbeat_message *m)
{
    proxytier__v1__heartbeat__init(&m->heartbeat);
    m->heartbeat.boot_id = (ProtobufCBinaryData){PEER_ID_BYTES, p->boot_id};
    m->heartbeat.store_id = (ProtobufCBinaryData){PEER_ID_BYTES, p->store_id};
    for (int s = 1; s < PEER_STREAMS; s++) {
        proxytier__v1__stream_state__init(&m->states[s]);
        m->states[s].stream = (Proxytier__V1__Stream)s;
        m->states[s].last_sequence = p->last[s];
        m->states[s].oldest_sequence = p->oldest[s];
        m->list[s - 1] = &m->states[s];
    }
    m->heartbeat.streams = m->list;
    m->heartbeat.n_streams = PEER_STREAMS - 1;
    m->heartbeat.boottime_ms = p->tells_time ? ptier_test_now() : 0;
}

typedef struct event_messages {
    Proxytier__V1__Event *list[64], events[64];
    Proxytier__V1__Proxy proxies[64];
    char keys[64][32];
} event_messages;

static size_t
make_events(event_messages *m, int stream, uint64_t first, uint64_t last, uint64_t nameless)
{
    size_t count = 0;
    for (uint64_t s = first; s <= last && count < 64; s++, count++) {
        Proxytier__V1__Event *event = &m->events[count];
        Proxytier__V1__Proxy *proxy = &m->proxies[count];
        proxytier__v1__event__init(event);
        proxytier__v1__proxy__init(proxy);
        snprintf(m->keys[count], sizeof m->keys[count], "key-%d-%llu", stream,
                 (unsigned long long)s);
        event->sequence = s;
        event->revision = s * 10;
        event->type = stream == 1 ? PROXYTIER__V1__EVENT_TYPE__EVENT_TYPE_CREATED
                                  : PROXYTIER__V1__EVENT_TYPE__EVENT_TYPE_PROMOTED;
        event->key = m->keys[count];
        proxy->key = m->keys[count];
        proxy->url = PEER_TEXT("http://10.0.0.1:8080");
        proxy->username = PEER_TEXT(
            "must-not-be-told"); /* a daemon never does this; the SDK drops it all the same */
        event->proxy = proxy;
        if (stream == 1 && s == nameless) {
            event->type = PROXYTIER__V1__EVENT_TYPE__EVENT_TYPE_REMOVED;
            event->reason = PROXYTIER__V1__REMOVAL_REASON__REMOVAL_REASON_CORRUPTION;
            m->keys[count][0] = 0;
        }
        m->list[count] = event;
    }
    return count;
}

static void
publish(scripted_peer *p, Proxytier__V1__Stream stream, uint64_t first, uint64_t last)
{
    Proxytier__V1__EventBatch batch = PROXYTIER__V1__EVENT_BATCH__INIT;
    heartbeat_message heartbeat;
    event_messages *events = calloc(1, sizeof *events);
    assert_non_null(events);
    pthread_mutex_lock(&p->lock);
    make_heartbeat_locked(p, &heartbeat);
    batch.heartbeat = &heartbeat.heartbeat;
    batch.stream = stream;
    batch.n_events = make_events(events, (int)stream, first, last, p->nameless);
    batch.events = events->list;
    size_t length = proxytier__v1__event_batch__get_packed_size(&batch);
    uint8_t *message = malloc(PTIER_TOPIC_BYTES + length);
    assert_non_null(message);
    memcpy(message, stream == 1 ? PTIER_TOPIC_CHANGES : PTIER_TOPIC_TIERS, PTIER_TOPIC_BYTES);
    proxytier__v1__event_batch__pack(&batch, message + PTIER_TOPIC_BYTES);
    pthread_mutex_unlock(&p->lock);
    assert_int_equal(nng_send(p->events, message, PTIER_TOPIC_BYTES + length, 0), 0);
    free(message);
    free(events);
}

void
peer_emit(scripted_peer *p, Proxytier__V1__Stream stream, unsigned count, bool published)
{
    pthread_mutex_lock(&p->lock);
    uint64_t first = p->last[stream] + 1;
    p->last[stream] += count;
    uint64_t last = p->last[stream];
    pthread_mutex_unlock(&p->lock);
    if (published)
        publish(p, stream, first, last);
}

void
peer_heartbeat(scripted_peer *p)
{
    publish(p, PROXYTIER__V1__STREAM__STREAM_CHANGES, 1, 0);
}

void
peer_forget(scripted_peer *p, Proxytier__V1__Stream stream, uint64_t oldest)
{
    pthread_mutex_lock(&p->lock);
    p->oldest[stream] = oldest;
    pthread_mutex_unlock(&p->lock);
}

void
peer_become(scripted_peer *p, int boot, int store)
{
    pthread_mutex_lock(&p->lock);
    if (p->boot_id[0] != boot)
        p->last[1] = p->last[2] = 0;
    memset(p->boot_id, boot, PEER_ID_BYTES);
    memset(p->store_id, store, PEER_ID_BYTES);
    pthread_mutex_unlock(&p->lock);
}

/* ---- calls ---- */

static void
answer_info(scripted_peer *p, peer_answer *answer)
{
    Proxytier__V1__GetInfoResponse info = PROXYTIER__V1__GET_INFO_RESPONSE__INIT;
    char *urls[1] = {p->event_url};
    pthread_mutex_lock(&p->lock);
    p->infos++;
    answer->silent = p->mute_info;
    info.version = PEER_TEXT("0.1.0");
    info.protocol = PEER_TEXT("proxytier.v1");
    info.role = PEER_TEXT("admin");
    info.features = p->features;
    info.n_features = p->feature_count;
    info.event_urls = urls;
    info.n_event_urls = 1;
    info.heartbeat_ms = p->heartbeat_ms;
    info.boot_id = (ProtobufCBinaryData){PEER_ID_BYTES, p->boot_id};
    info.store_id = (ProtobufCBinaryData){PEER_ID_BYTES, p->store_id};
    peer_answer_with(answer, &info.base);
    pthread_mutex_unlock(&p->lock);
}

static void
answer_replay(scripted_peer *p, const peer_request *request, peer_answer *answer)
{
    Proxytier__V1__ReplayResponse reply = PROXYTIER__V1__REPLAY_RESPONSE__INIT;
    Proxytier__V1__ReplayRequest *asked =
        proxytier__v1__replay_request__unpack(NULL, request->body_length, request->body);
    heartbeat_message heartbeat;
    event_messages *events = calloc(1, sizeof *events);
    assert_non_null(asked);
    assert_non_null(events);
    pthread_mutex_lock(&p->lock);
    p->replays++;
    make_heartbeat_locked(p, &heartbeat);
    uint64_t first = asked->after_sequence + 1, last = p->last[asked->stream];
    reply.heartbeat = &heartbeat.heartbeat;
    reply.truncated = first < p->oldest[asked->stream] || first > last + 1 ||
                      memcmp(asked->boot_id.data, p->boot_id, PEER_ID_BYTES) != 0;
    if (!reply.truncated) {
        uint64_t end = last - first >= p->replay_page ? first + p->replay_page - 1 : last;
        if (first <= last)
            reply.n_events = make_events(events, (int)asked->stream, first, end, p->nameless);
        reply.more = first <= last && end < last;
        reply.events = events->list;
    }
    peer_answer_with(answer, &reply.base);
    pthread_mutex_unlock(&p->lock);
    proxytier__v1__replay_request__free_unpacked(asked, NULL);
    free(events);
}

static void
send_answer(scripted_peer *p, peer_answer *answer)
{
    Proxytier__V1__ResponseHeader header = PROXYTIER__V1__RESPONSE_HEADER__INIT;
    uint8_t boot_id[PEER_ID_BYTES];
    uint8_t packed[1024], prefix[PTIER_FRAME_PREFIX];
    nng_msg *message;
    header.code = (Proxytier__V1__StatusCode)answer->code;
    header.message = answer->message;
    pthread_mutex_lock(&p->lock);
    memcpy(boot_id, p->boot_id, sizeof boot_id);
    pthread_mutex_unlock(&p->lock);
    header.boot_id = (ProtobufCBinaryData){PEER_ID_BYTES, boot_id};
    header.boottime_ms = p->tells_time ? ptier_test_now() : 0;
    assert_int_equal(nng_msg_alloc(&message, 0), 0);
    if (!answer->raw) {
        size_t length = proxytier__v1__response_header__pack(&header, packed);
        ptier_frame_prefix(prefix, length);
        assert_int_equal(nng_msg_append(message, prefix, sizeof prefix), 0);
        assert_int_equal(nng_msg_append(message, packed, length), 0);
    }
    assert_int_equal(nng_msg_append(message, answer->body, answer->body_length), 0);
    if (nng_sendmsg(p->rpc, message, 0) != 0)
        nng_msg_free(message);
}

static void
serve(scripted_peer *p, nng_msg *message)
{
    ptier_frame frame;
    peer_answer answer = {0};
    assert_int_equal(ptier_frame_split(nng_msg_body(message), nng_msg_len(message), &frame, NULL),
                     PTIER_OK);
    Proxytier__V1__RequestHeader *header =
        proxytier__v1__request_header__unpack(NULL, frame.header_length, frame.header);
    assert_non_null(header);
    peer_request request = {.method = strrchr(header->method, '/') + 1,
                            .header = header,
                            .body = frame.body,
                            .body_length = frame.body_length};
    if (strcmp(request.method, "GetInfo") == 0) {
        answer_info(p, &answer);
    } else if (strcmp(request.method, "Replay") == 0) {
        answer_replay(p, &request, &answer);
    } else {
        pthread_mutex_lock(&p->lock);
        p->requests++;
        pthread_mutex_unlock(&p->lock);
        if (p->handler)
            p->handler(p->context, &request, &answer);
    }
    if (!answer.silent)
        send_answer(p, &answer);
    free(answer.body);
    proxytier__v1__request_header__free_unpacked(header, NULL);
}

static void *
answer_requests(void *argument)
{
    scripted_peer *p = argument;
    nng_msg *message;
    while (nng_recvmsg(p->rpc, &message, 0) == 0) {
        serve(p, message);
        nng_msg_free(message);
    }
    return NULL;
}

void
peer_stop_events(scripted_peer *p)
{
    nng_close(p->events);
    unlink(p->event_url + strlen("ipc://")); /* another user could not */
}

void
peer_start_events(scripted_peer *p)
{
    assert_int_equal(nng_pub0_open(&p->events), 0);
    assert_int_equal(nng_listen(p->events, p->event_url, NULL, 0), 0);
}

void
peer_start(scripted_peer *p)
{
    assert_false(p->running);
    assert_int_equal(nng_rep0_open(&p->rpc), 0);
    assert_int_equal(nng_listen(p->rpc, p->rpc_url, NULL, 0), 0);
    peer_start_events(p);
    assert_int_equal(pthread_create(&p->thread, NULL, answer_requests, p), 0);
    p->running = true;
}

void
peer_stop(scripted_peer *p)
{
    if (!p->running)
        return;
    p->running = false;
    nng_close(p->rpc);
    nng_close(p->events);
    pthread_join(p->thread, NULL);
}
