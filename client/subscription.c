/*
 * Follows a daemon's events on one thread: asks where they are, listens, fills gaps by Replay, and
 * listens anew when it has heard nothing for four heartbeats. Only `lock`'s fields are shared with
 * other threads.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <nng/nng.h>
#include <nng/protocol/pubsub0/sub.h>
#include <nng/supplemental/util/platform.h>

#include "call.h"
#include "convert.h"
#include "feed.h"
#include "framing.h"
#include "info_call.h"
#include "monotonic.h"
#include "unpack.h"

#define HEARTBEAT_DEFAULT_MS 250
#define HEARTBEATS_LOST      4
#define CALL_TIMEOUT_MS      1000 /* of GetInfo and Replay: closing waits for one at most */
#define BACKOFF_MIN_MS       10
#define BACKOFF_MAX_MS       1000
#define MESSAGES_BUFFERED    1024
#define MESSAGE_MAX          ((size_t)4 << 20)
#define REDIAL_MIN_MS        50 /* nng's own, while nothing listens there */
#define REDIAL_MAX_MS        250
#define CANCEL_AGAIN_MS      5
#define REPLAY_TRIES         3

struct ptier_subscription {
    ptier_client *client; /* borrowed */
    ptier_subscription_options options;
    pid_t pid;
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stopping, ended;
    bool listening; /* the socket is open and wanted */
    bool dropped;   /* its connection was lost */
    nng_dialer dialer;

    nng_aio *aio; /* others may only cancel it */

    /* The thread's own. */
    nng_socket socket;
    ptier_feed feed;
    ptier_arena *arena;             /* of the batch being told */
    ptier_subscription_state state; /* CONNECTED or LOST, 0 neither yet */
    int64_t last_heard, silence_ms;
};

/* What the thread does after a step. */
typedef enum next_step { GO_ON, LISTEN_ANEW } next_step;

/* ---- telling the application ---- */

static bool
is_stopping(ptier_subscription *sub)
{
    pthread_mutex_lock(&sub->lock);
    bool stopping = sub->stopping;
    pthread_mutex_unlock(&sub->lock);
    return stopping;
}

static void
tell_state(ptier_subscription *sub, ptier_subscription_state state)
{
    if (state != PTIER_SUBSCRIPTION_RESYNC) {
        if (sub->state == state)
            return;
        sub->state = state;
    }
    if (sub->options.on_state && !is_stopping(sub))
        sub->options.on_state(sub->options.context, state);
}

static void
tell_if_lost(ptier_subscription *sub)
{
    if (ptier_monotonic_ms() - sub->last_heard >= sub->silence_ms)
        tell_state(sub, PTIER_SUBSCRIPTION_LOST);
}

static void
tell_event(ptier_subscription *sub, const Proxytier__V1__Event *wire)
{
    ptier_label labels[PTIER_LABELS_MAX];
    ptier_event event = {
        .type = (ptier_event_type)wire->type,
        .reason = (ptier_reason)wire->reason,
        .sequence = wire->sequence,
        .revision = wire->revision,
        .tier = (ptier_tier_id)wire->tier,
        .count = wire->count ? wire->count : 1,
    };
    /* A record that we cannot read must not hide the event: its key says what changed. */
    if (!wire->proxy ||
        ptier_record_from_proxy(&event.record, labels, wire->proxy, NULL) != PTIER_OK)
        ptier_record_init(&event.record);
    if (!event.record.key)
        event.record.key = wire->key;
    event.record.username = event.record.password = NULL;
    event.record.username_token = event.record.password_token = NULL;
    sub->options.on_event(sub->options.context, &event);
}

static bool
is_known_type(int type)
{
    return (type >= PTIER_EVENT_CREATED && type <= PTIER_EVENT_CLEARED) ||
           (type >= PTIER_EVENT_PROMOTED && type <= PTIER_EVENT_TIER_RECOVERED);
}

/* Tells the event if it is the next one. A removal that names no key may be of any. */
static void
take_event(ptier_subscription *sub, int stream, const Proxytier__V1__Event *event)
{
    if (!ptier_feed_take(&sub->feed, stream, event->sequence) || !is_known_type(event->type) ||
        is_stopping(sub))
        return;
    if (event->type == PROXYTIER__V1__EVENT_TYPE__EVENT_TYPE_REMOVED && !*event->key)
        tell_state(sub, PTIER_SUBSCRIPTION_RESYNC);
    else
        tell_event(sub, event);
}

/* ---- filling gaps ---- */

/* Events up to `upto` are gone for good: go on behind them. */
static void
give_up_lost(ptier_subscription *sub, int stream, uint64_t upto)
{
    ptier_feed_skip_to(&sub->feed, stream, upto);
    tell_state(sub, PTIER_SUBSCRIPTION_RESYNC);
}

/* One page. *more: ask again. */
static next_step
replay_page(ptier_subscription *sub, int stream, uint64_t upto,
            const Proxytier__V1__ReplayResponse *reply, bool *more)
{
    uint64_t before = sub->feed.streams[stream].position;
    *more = false;
    if (reply->heartbeat && !ptier_feed_same_run(&sub->feed, reply->heartbeat))
        return LISTEN_ANEW; /* what is queued here is of the old run; the new one will say so itself
                             */
    if (reply->truncated) {
        uint64_t last = reply->heartbeat ? ptier_feed_last(reply->heartbeat, stream) : 0;
        give_up_lost(sub, stream, last > upto ? last : upto);
        return GO_ON;
    }
    for (size_t i = 0; i < reply->n_events; i++)
        take_event(sub, stream, reply->events[i]);
    uint64_t after = sub->feed.streams[stream].position;
    if (after >= upto)
        return GO_ON;
    if (reply->more && after > before)
        *more = true;
    else
        give_up_lost(sub, stream,
                     upto); /* the journal says that it has no more, the stream said otherwise */
    return GO_ON;
}

static ptier_status
ask_replay(ptier_subscription *sub, int stream, ptier_arena **arena,
           Proxytier__V1__ReplayResponse **reply)
{
    Proxytier__V1__ReplayRequest request = PROXYTIER__V1__REPLAY_REQUEST__INIT;
    request.boot_id = (ProtobufCBinaryData){PTIER_FEED_ID_BYTES, sub->feed.boot_id};
    request.stream = (Proxytier__V1__Stream)stream;
    request.after_sequence = sub->feed.streams[stream].position;
    ptier_call call = {.method = PTIER_METHOD_REPLAY,
                       .request = &request.base,
                       .reply_type = &proxytier__v1__replay_response__descriptor,
                       .timeout_ms = CALL_TIMEOUT_MS};
    return ptier_call_perform(sub->client, &call, arena, reply, NULL);
}

/* Gets what was lost up to and including `upto`. LISTEN_ANEW: the daemon cannot be asked; the
 * position stays. */
static next_step
fill_gap(ptier_subscription *sub, int stream, uint64_t upto)
{
    bool more = true;
    for (int failures = 0; more && !is_stopping(sub);) {
        Proxytier__V1__ReplayResponse *reply;
        ptier_arena *arena;
        if (ask_replay(sub, stream, &arena, &reply) != PTIER_OK) {
            if (++failures >= REPLAY_TRIES)
                return LISTEN_ANEW;
            continue;
        }
        next_step next = replay_page(sub, stream, upto, reply, &more);
        ptier_arena_destroy(arena);
        if (next != GO_ON)
            return next;
    }
    return GO_ON;
}

/* ---- what was received ---- */

static next_step
take_batch(ptier_subscription *sub, int stream, const Proxytier__V1__EventBatch *batch)
{
    for (size_t i = 0; i < batch->n_events && !is_stopping(sub); i++) {
        uint64_t sequence = batch->events[i]->sequence;
        if (ptier_feed_lost_before(&sub->feed, stream, sequence)) {
            next_step next = fill_gap(sub, stream, sequence - 1);
            if (next != GO_ON)
                return next;
        }
        take_event(sub, stream, batch->events[i]);
    }
    return GO_ON;
}

static next_step
meet_batch(ptier_subscription *sub, const Proxytier__V1__EventBatch *batch)
{
    int stream = (int)batch->stream;
    switch (ptier_feed_meet(&sub->feed, batch, ptier_monotonic_ms())) {
    case PTIER_FEED_BAD:
        return GO_ON;
    case PTIER_FEED_RESTARTED:
        tell_state(sub, PTIER_SUBSCRIPTION_RESYNC);
        break;
    case PTIER_FEED_SAME:
    case PTIER_FEED_STARTED:
        break;
    }
    sub->last_heard = ptier_monotonic_ms();
    tell_state(sub, PTIER_SUBSCRIPTION_CONNECTED);
    if (stream <= 0 || stream >= PTIER_FEED_STREAMS || !sub->feed.streams[stream].wanted)
        return GO_ON;
    return take_batch(sub, stream, batch);
}

static next_step
take_message(ptier_subscription *sub, nng_msg *message)
{
    size_t length = nng_msg_len(message);
    if (length < PTIER_TOPIC_BYTES)
        return GO_ON;
    ptier_arena_reset(sub->arena, PTIER_REPLY_BUDGET(length));
    const Proxytier__V1__EventBatch *batch =
        (const void *)ptier_unpack_reply(&proxytier__v1__event_batch__descriptor, sub->arena,
                                         (const uint8_t *)nng_msg_body(message) + PTIER_TOPIC_BYTES,
                                         length - PTIER_TOPIC_BYTES, NULL);
    return batch ? meet_batch(sub, batch) : GO_ON; /* a damaged one shows as a gap */
}

/* ---- listening ---- */

static void
stop_listening(ptier_subscription *sub)
{
    pthread_mutex_lock(&sub->lock);
    sub->listening = false;
    pthread_mutex_unlock(&sub->lock);
    (void)nng_close(sub->socket); /* nothing is under way on it */
}

/* Why the dialer is closed here: see supervisor.c. */
static void
on_pipe_removed(nng_pipe pipe, nng_pipe_ev event, void *context)
{
    ptier_subscription *sub = context;
    (void)pipe;
    (void)event;
    pthread_mutex_lock(&sub->lock);
    bool ours = sub->listening; /* not our own closing */
    nng_dialer dialer = sub->dialer;
    if (ours) {
        sub->dropped = true;
        nng_aio_cancel(
            sub->aio); /* no effect between two receives: `dropped` is looked at before each */
    }
    pthread_mutex_unlock(&sub->lock);
    if (ours)
        (void)nng_dialer_close(dialer); /* nothing else closes it before the socket */
}

static int
dial_events(ptier_subscription *sub, const char *url)
{
    nng_dialer dialer;
    int rv = nng_dialer_create(&dialer, sub->socket, url);
    if (rv != 0)
        return rv;
    pthread_mutex_lock(&sub->lock);
    sub->listening = true;
    sub->dropped = false;
    sub->dialer = dialer;
    pthread_mutex_unlock(&sub->lock);
    if ((rv = nng_dialer_set_size(dialer, NNG_OPT_RECVMAXSZ, MESSAGE_MAX)) != 0 ||
        (rv = ptier_tls_dialer(dialer, url, &sub->client->tls)) != 0 ||
        (rv = nng_dialer_set_ms(dialer, NNG_OPT_RECONNMINT, REDIAL_MIN_MS)) != 0 ||
        (rv = nng_dialer_set_ms(dialer, NNG_OPT_RECONNMAXT, REDIAL_MAX_MS)) != 0)
        return rv;
    return nng_dialer_start(dialer, NNG_FLAG_NONBLOCK);
}

static int
open_socket(ptier_subscription *sub, const char *url)
{
    int rv = nng_sub0_open(&sub->socket);
    if (rv != 0)
        return rv;
    rv = nng_socket_set_int(sub->socket, NNG_OPT_RECVBUF, MESSAGES_BUFFERED);
    if (rv == 0)
        rv = nng_socket_set(sub->socket, NNG_OPT_SUB_SUBSCRIBE, PTIER_TOPIC_CHANGES,
                            PTIER_TOPIC_BYTES);
    if (rv == 0 && sub->options.tiers)
        rv = nng_socket_set(sub->socket, NNG_OPT_SUB_SUBSCRIBE, PTIER_TOPIC_TIERS,
                            PTIER_TOPIC_BYTES);
    if (rv == 0)
        rv = nng_pipe_notify(sub->socket, NNG_PIPE_EV_REM_POST, on_pipe_removed, sub);
    if (rv == 0)
        rv = dial_events(sub, url);
    if (rv != 0)
        stop_listening(sub);
    return rv;
}

/* Asks where the events are and dials there. False: not now. */
static bool
start_listening(ptier_subscription *sub)
{
    ptier_server_info info;
    if (ptier_get_info_within(sub->client, CALL_TIMEOUT_MS, &info, NULL) != PTIER_OK)
        return false;
    sub->silence_ms =
        (int64_t)(info.heartbeat_ms ? info.heartbeat_ms : HEARTBEAT_DEFAULT_MS) * HEARTBEATS_LOST;
    char address[PTIER_URL_MAX + 1];
    return info.event_url[0] != '\0' &&
           ptier_event_address(ptier_transport_url(sub->client->transport), info.event_url, address,
                               sizeof address) == PTIER_OK &&
           open_socket(sub, address) == 0;
}

/* The next message, NULL with *rv: NNG_ETIMEDOUT at `until`; NNG_ECONNRESET when the connection is
 * gone and all was read. */
static nng_msg *
receive(ptier_subscription *sub, int64_t until, int *rv)
{
    nng_msg *message = NULL;
    pthread_mutex_lock(&sub->lock);
    bool dropped = sub->dropped;
    pthread_mutex_unlock(&sub->lock);
    if (dropped) {
        *rv = nng_recvmsg(sub->socket, &message, NNG_FLAG_NONBLOCK);
        if (*rv == NNG_EAGAIN)
            *rv = NNG_ECONNRESET;
        return *rv == 0 ? message : NULL;
    }
    int64_t left = until - ptier_monotonic_ms();
    nng_aio_set_timeout(sub->aio, left < 1 ? 1 : (nng_duration)left);
    nng_recv_aio(sub->socket, sub->aio);
    nng_aio_wait(sub->aio);
    *rv = nng_aio_result(sub->aio);
    if (*rv != 0)
        return NULL;
    message = nng_aio_get_msg(sub->aio);
    nng_aio_set_msg(sub->aio, NULL);
    return message;
}

/* Listens until the connection is lost or mute. */
static void
follow(ptier_subscription *sub)
{
    int64_t quiet_since = ptier_monotonic_ms();
    next_step next = GO_ON;
    while (next == GO_ON && !is_stopping(sub)) {
        int rv, stream;
        int64_t patience = quiet_since + sub->silence_ms, check = ptier_feed_next_check(&sub->feed);
        nng_msg *message = receive(sub, check < patience ? check : patience, &rv);
        if (message) {
            next = take_message(sub, message);
            nng_msg_free(message);
            quiet_since = ptier_monotonic_ms();
        } else if (rv == NNG_ETIMEDOUT && ptier_monotonic_ms() >= patience) {
            next = LISTEN_ANEW;
        } else if (rv != NNG_ETIMEDOUT && rv != NNG_ECANCELED) {
            next = LISTEN_ANEW;
        }
        if (next == GO_ON && (stream = ptier_feed_overdue(&sub->feed, ptier_monotonic_ms())) != 0)
            next = fill_gap(sub, stream, sub->feed.streams[stream].owed);
    }
}

static void
back_off(ptier_subscription *sub, int64_t pause)
{
    int64_t until =
        ptier_monotonic_ms() + pause / 2 + (int64_t)(nng_random() % (uint32_t)(pause / 2 + 1));
    pthread_mutex_lock(&sub->lock);
    while (!sub->stopping && ptier_monotonic_ms() < until)
        ptier_monotonic_wait(&sub->changed, &sub->lock, until);
    pthread_mutex_unlock(&sub->lock);
}

static void *
run(void *argument)
{
    ptier_subscription *sub = argument;
    int64_t pause = BACKOFF_MIN_MS;
    while (!is_stopping(sub)) {
        int64_t heard = sub->last_heard;
        if (start_listening(sub)) {
            follow(sub);
            stop_listening(sub);
        }
        tell_if_lost(sub);
        pause = sub->last_heard != heard     ? BACKOFF_MIN_MS
                : pause * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS
                                             : pause * 2;
        back_off(sub, pause);
    }
    pthread_mutex_lock(&sub->lock);
    sub->ended = true;
    pthread_cond_broadcast(&sub->changed);
    pthread_mutex_unlock(&sub->lock);
    return NULL;
}

/* ---- open and close ---- */

void
ptier_subscription_options_init(ptier_subscription_options *options)
{
    *options = (ptier_subscription_options){.size = sizeof *options, .changes = true};
}

static void
free_subscription(ptier_subscription *sub)
{
    ptier_arena_destroy(sub->arena);
    if (sub->aio)
        nng_aio_free(sub->aio);
    pthread_cond_destroy(&sub->changed);
    pthread_mutex_destroy(&sub->lock);
    free(sub);
}

static ptier_status
start(ptier_subscription *sub, ptier_error *error)
{
    sub->arena = ptier_arena_create(0);
    if (!sub->arena || nng_aio_alloc(&sub->aio, NULL, NULL) != 0)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    int rv = ptier_thread_start(&sub->thread, run, sub);
    if (rv != 0)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "cannot start a thread: %s",
                          strerror(rv));
    return PTIER_OK;
}

ptier_status
ptier_subscribe(ptier_client *client, const ptier_subscription_options *options,
                ptier_subscription **subscription, ptier_error *error)
{
    *subscription = NULL;
    if (!options || options->size == 0 || !options->on_event)
        return ptier_fail(
            error, PTIER_INVALID_ARGUMENT,
            "start the options from ptier_subscription_options_init and set on_event");
    ptier_status status = ptier_client_enter(client, error);
    if (status != PTIER_OK)
        return status;
    ptier_subscription *sub = calloc(1, sizeof *sub);
    if (!sub || pthread_mutex_init(&sub->lock, NULL) != 0 ||
        ptier_monotonic_cond_init(&sub->changed) != 0) {
        free(sub);
        ptier_client_leave(client);
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    }
    ptier_subscription_options_init(&sub->options);
    memcpy(&sub->options, options,
           options->size < sizeof sub->options ? options->size : sizeof sub->options);
    sub->client = client;
    sub->pid = client->pid;
    sub->silence_ms = (int64_t)HEARTBEAT_DEFAULT_MS * HEARTBEATS_LOST;
    sub->last_heard = ptier_monotonic_ms();
    ptier_feed_init(&sub->feed, sub->options.changes, sub->options.tiers);
    status = start(sub, error);
    if (status == PTIER_OK)
        *subscription = sub;
    else
        free_subscription(sub);
    ptier_client_leave(client);
    return status;
}

void
ptier_subscription_close(ptier_subscription *sub)
{
    if (!sub || sub->pid != getpid())
        return; /* a forked child has the memory but not the thread: leave it */
    pthread_mutex_lock(&sub->lock);
    sub->stopping = true;
    pthread_cond_broadcast(&sub->changed);
    while (!sub->ended) {
        nng_aio_cancel(
            sub->aio); /* no effect on a receive that is just about to begin: hence again */
        ptier_monotonic_wait(&sub->changed, &sub->lock, ptier_monotonic_ms() + CANCEL_AGAIN_MS);
    }
    pthread_mutex_unlock(&sub->lock);
    pthread_join(sub->thread, NULL);
    free_subscription(sub);
}
