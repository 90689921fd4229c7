/*
 * One thread: asks where the events are, listens, fills gaps by Replay, and listens anew when it
 * has heard nothing for four heartbeats. Locks: `life` (joining and leaving, one at a time), then
 * `lock`, under which listeners are called.
 */
#include "event_link.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include <nng/nng.h>

#include "convert.h"
#include "event_socket.h"
#include "framing.h"
#include "info_call.h"
#include "monotonic.h"
#include "pause.h"
#include "replay_call.h"

#define HEARTBEAT_DEFAULT_MS 250
#define HEARTBEATS_LOST      4
#define BACKOFF_MIN_MS       10
#define BACKOFF_MAX_MS       1000
#define BACKOFF_REFUSED_MS   5000 /* who is refused only fills the daemon's log by asking */
#define CANCEL_AGAIN_MS      5
#define REPLAY_TRIES         3

struct ptier_event_link {
    ptier_client *client; /* borrowed */
    pthread_mutex_t life; /* guards running and thread */
    bool running;
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    ptier_listener *listeners;
    bool stopping, ended;

    /* The thread's own. */
    ptier_event_socket socket;
    ptier_feed feed;
    ptier_arena *arena; /* of the batch being told */
    uint64_t revision;  /* the highest one heard of */
    uint64_t access;    /* under which of the daemon's rights we may listen; 0: not known */
    bool refused;       /* when asked last */
    int64_t last_heard, silence_ms;
};

/* What the thread does after a step. */
typedef enum next_step { GO_ON, LISTEN_ANEW } next_step;

/* ---- telling the listeners ---- */

static bool
is_stopping(ptier_event_link *link)
{
    pthread_mutex_lock(&link->lock);
    bool stopping = link->stopping;
    pthread_mutex_unlock(&link->lock);
    return stopping;
}

static bool
wants(const ptier_listener *listener, int stream)
{
    return stream == PROXYTIER__V1__STREAM__STREAM_CHANGES || listener->tiers;
}

static ptier_link_view
view_of(const ptier_event_link *link)
{
    ptier_link_view view = {
        .boot_id = link->feed.boot_id, .store_id = link->feed.store_id, .revision = link->revision};
    for (int s = 1; s < PTIER_FEED_STREAMS; s++)
        view.position[s] = link->feed.streams[s].position;
    return view;
}

/* stream 0: of all. */
static void
tell_resync(ptier_event_link *link, int stream)
{
    const ptier_link_view view = view_of(link);
    pthread_mutex_lock(&link->lock);
    for (ptier_listener *l = link->listeners; l && !link->stopping; l = l->next)
        if (l->following && l->on_resync && (stream == 0 || wants(l, stream)))
            l->on_resync(l->context, &view);
    pthread_mutex_unlock(&link->lock);
}

static void
tell_rights_changed(ptier_event_link *link)
{
    pthread_mutex_lock(&link->lock);
    for (ptier_listener *l = link->listeners; l && !link->stopping; l = l->next)
        if (l->on_rights)
            l->on_rights(l->context);
    pthread_mutex_unlock(&link->lock);
}

static void
tell_following(ptier_event_link *link)
{
    const ptier_link_view view = view_of(link);
    const ptier_feed_stream *tiers = &link->feed.streams[PROXYTIER__V1__STREAM__STREAM_TIERS];
    pthread_mutex_lock(&link->lock);
    for (ptier_listener *l = link->listeners; l && !link->stopping; l = l->next) {
        if (l->connected || (l->tiers && (!tiers->wanted || tiers->fresh)))
            continue;
        l->connected = l->following = true;
        l->lost = false;
        if (l->on_following)
            l->on_following(l->context, &view);
    }
    pthread_mutex_unlock(&link->lock);
}

static void
tell_if_lost(ptier_event_link *link)
{
    if (ptier_monotonic_ms() - link->last_heard < link->silence_ms)
        return;
    pthread_mutex_lock(&link->lock);
    for (ptier_listener *l = link->listeners; l && !link->stopping; l = l->next) {
        if (l->lost)
            continue;
        l->connected = false;
        l->lost = true;
        if (l->on_lost)
            l->on_lost(l->context);
    }
    pthread_mutex_unlock(&link->lock);
}

static void
tell_event(ptier_event_link *link, int stream, const Proxytier__V1__Event *event)
{
    pthread_mutex_lock(&link->lock);
    for (ptier_listener *l = link->listeners; l && !link->stopping; l = l->next)
        if (l->following && l->on_event && wants(l, stream))
            l->on_event(l->context, stream, event);
    pthread_mutex_unlock(&link->lock);
}

static void
tell_batch(ptier_event_link *link, const Proxytier__V1__Heartbeat *heartbeat, int64_t received_ns)
{
    const int changes = PROXYTIER__V1__STREAM__STREAM_CHANGES;
    bool contiguous = link->feed.streams[changes].position >= ptier_feed_last(heartbeat, changes);
    pthread_mutex_lock(&link->lock);
    for (ptier_listener *l = link->listeners; l && !link->stopping; l = l->next)
        if (l->connected && l->on_batch)
            l->on_batch(l->context, heartbeat, received_ns, contiguous);
    pthread_mutex_unlock(&link->lock);
}

/* Tells the event if it is the next one. A removal that names no key may be of any. */
static void
take_event(ptier_event_link *link, int stream, const Proxytier__V1__Event *event)
{
    if (!ptier_feed_take(&link->feed, stream, event->sequence))
        return;
    if (event->revision > link->revision)
        link->revision = event->revision;
    if (event->type == PROXYTIER__V1__EVENT_TYPE__EVENT_TYPE_REMOVED && !*event->key)
        tell_resync(link, stream);
    else
        tell_event(link, stream, event);
}

/* ---- filling gaps ---- */

static void
note_revision(ptier_event_link *link, const Proxytier__V1__Heartbeat *heartbeat)
{
    if (heartbeat && heartbeat->revision > link->revision)
        link->revision = heartbeat->revision;
}

/* Events up to `upto` are gone for good: go on behind them. */
static void
give_up_lost(ptier_event_link *link, int stream, uint64_t upto)
{
    ptier_feed_skip_to(&link->feed, stream, upto);
    tell_resync(link, stream);
}

/* One page. *more: ask again. */
static next_step
replay_page(ptier_event_link *link, int stream, uint64_t upto,
            const Proxytier__V1__ReplayResponse *reply, bool *more)
{
    uint64_t before = link->feed.streams[stream].position;
    *more = false;
    if (reply->heartbeat && !ptier_feed_same_run(&link->feed, reply->heartbeat))
        return LISTEN_ANEW; /* what is queued is of the old run; the new one says so itself */
    note_revision(link, reply->heartbeat);
    if (reply->truncated) {
        uint64_t last = reply->heartbeat ? ptier_feed_last(reply->heartbeat, stream) : 0;
        give_up_lost(link, stream, last > upto ? last : upto);
        return GO_ON;
    }
    for (size_t i = 0; i < reply->n_events; i++)
        take_event(link, stream, reply->events[i]);
    uint64_t after = link->feed.streams[stream].position;
    if (after >= upto)
        return GO_ON;
    if (reply->more && after > before)
        *more = true;
    else /* the journal says that it has no more, the stream said otherwise */
        give_up_lost(link, stream, upto);
    return GO_ON;
}

/* Gets what was lost up to and including `upto`. LISTEN_ANEW: the daemon cannot be asked; the
 * position stays. */
static next_step
fill_gap(ptier_event_link *link, int stream, uint64_t upto)
{
    bool more = true;
    for (int failures = 0; more && !is_stopping(link);) {
        Proxytier__V1__ReplayResponse *reply;
        ptier_arena *arena;
        if (ptier_replay(link->client, link->feed.boot_id, stream,
                         link->feed.streams[stream].position, &arena, &reply) != PTIER_OK) {
            if (++failures >= REPLAY_TRIES)
                return LISTEN_ANEW;
            continue;
        }
        next_step next = replay_page(link, stream, upto, reply, &more);
        ptier_arena_destroy(arena);
        if (next != GO_ON)
            return next;
    }
    return GO_ON;
}

/* ---- what was received ---- */

/* Any answer will do. What is listened to knows no tokens, so we have to ask ourselves whether ours
 * is still good. */
static bool
ask_info(ptier_event_link *link, ptier_server_info *info)
{
    ptier_status status = ptier_get_info_within(link->client, PTIER_EVENT_CALL_MS, info, NULL);
    link->refused = status == PTIER_UNAUTHENTICATED || status == PTIER_PERMISSION_DENIED;
    return status == PTIER_OK;
}

/* Before anything of the batch is told. 0: the daemon has no tokens. */
static next_step
look_at_rights(ptier_event_link *link, uint64_t access)
{
    ptier_server_info info;
    if (access == 0 || access == link->access)
        return GO_ON;
    tell_rights_changed(link);
    if (!ask_info(link, &info))
        return LISTEN_ANEW;
    link->access = access;
    return GO_ON;
}

static next_step
take_events(ptier_event_link *link, int stream, const Proxytier__V1__EventBatch *batch)
{
    for (size_t i = 0; i < batch->n_events && !is_stopping(link); i++) {
        uint64_t sequence = batch->events[i]->sequence;
        if (ptier_feed_lost_before(&link->feed, stream, sequence)) {
            next_step next = fill_gap(link, stream, sequence - 1);
            if (next != GO_ON)
                return next;
        }
        take_event(link, stream, batch->events[i]);
    }
    return GO_ON;
}

static next_step
meet_batch(ptier_event_link *link, const Proxytier__V1__EventBatch *batch, int64_t received_ns)
{
    int stream = (int)batch->stream;
    if (!batch->heartbeat)
        return GO_ON; /* not from a proxytierd */
    if (look_at_rights(link, batch->heartbeat->access) != GO_ON)
        return LISTEN_ANEW;
    switch (ptier_feed_meet(&link->feed, batch, ptier_monotonic_ms())) {
    case PTIER_FEED_BAD:
        return GO_ON;
    case PTIER_FEED_RESTARTED:
        link->revision = batch->heartbeat->revision; /* a new store may begin lower */
        tell_resync(link, 0);
        break;
    case PTIER_FEED_SAME:
    case PTIER_FEED_STARTED:
        break;
    }
    link->last_heard = ptier_monotonic_ms();
    note_revision(link, batch->heartbeat);
    tell_following(link);
    if (stream > 0 && stream < PTIER_FEED_STREAMS && link->feed.streams[stream].wanted) {
        next_step next = take_events(link, stream, batch);
        if (next != GO_ON)
            return next;
    }
    tell_batch(link, batch->heartbeat, received_ns);
    return GO_ON;
}

static next_step
take_message(ptier_event_link *link, const uint8_t *message, size_t length)
{
    int64_t received_ns = ptier_monotonic_ns();
    ptier_arena_reset(link->arena, PTIER_REPLY_BUDGET(length));
    Proxytier__V1__EventBatch *batch = proxytier__v1__event_batch__unpack(
        &link->arena->allocator, length - PTIER_TOPIC_BYTES, message + PTIER_TOPIC_BYTES);
    return batch ? meet_batch(link, batch, received_ns) : GO_ON; /* a damaged one shows as a gap */
}

/* ---- listening ---- */

/* Follows TIERS if somebody wants it. */
static void
look_at_wishes(ptier_event_link *link)
{
    const int stream = PROXYTIER__V1__STREAM__STREAM_TIERS;
    bool wanted = false;
    pthread_mutex_lock(&link->lock);
    for (const ptier_listener *l = link->listeners; l; l = l->next)
        wanted = wanted || l->tiers;
    pthread_mutex_unlock(&link->lock);
    if (wanted != link->feed.streams[stream].wanted)
        ptier_feed_want(&link->feed, stream, wanted);
    link->socket.tiers = wanted;
}

/* Asks where the events are and dials there. False: not now. */
static bool
start_listening(ptier_event_link *link)
{
    ptier_server_info info;
    if (!ask_info(link, &info))
        return false;
    link->silence_ms =
        (int64_t)(info.heartbeat_ms ? info.heartbeat_ms : HEARTBEAT_DEFAULT_MS) * HEARTBEATS_LOST;
    char address[PTIER_URL_MAX + 1];
    return info.event_url[0] != '\0' &&
           ptier_event_address(ptier_transport_url(link->client->transport), info.event_url,
                               address, sizeof address) == PTIER_OK &&
           ptier_event_socket_open(&link->socket, address, link->client->tls.config,
                                   &link->client->owner) == 0;
}

/* When this process was stopped, the time is over although messages are there: they are looked at
 * first. */
static const uint8_t *
receive(ptier_event_link *link, int64_t until, int64_t patience, size_t *length, int *rv)
{
    const uint8_t *message = ptier_event_socket_receive(&link->socket, until, length, rv);
    if (!message && *rv == NNG_ETIMEDOUT && ptier_monotonic_ms() >= patience)
        message = ptier_event_socket_receive(&link->socket, 0, length, rv);
    return message;
}

/* Listens until the connection is lost or mute. */
static void
follow(ptier_event_link *link)
{
    int64_t quiet_since = ptier_monotonic_ms();
    next_step next = GO_ON;
    while (next == GO_ON && !is_stopping(link)) {
        int rv, stream;
        size_t length;
        look_at_wishes(link);
        int64_t patience = quiet_since + link->silence_ms;
        int64_t check = ptier_feed_next_check(&link->feed);
        const uint8_t *message =
            receive(link, check < patience ? check : patience, patience, &length, &rv);
        if (message) {
            next = take_message(link, message, length);
            if (link->last_heard > quiet_since) /* what means nothing is as good as silence */
                quiet_since = ptier_monotonic_ms();
        } else if (rv == NNG_ETIMEDOUT && ptier_monotonic_ms() >= patience) {
            next = LISTEN_ANEW;
        } else if (rv != NNG_ETIMEDOUT && rv != NNG_ECANCELED) {
            next = LISTEN_ANEW;
        }
        if (next == GO_ON && (stream = ptier_feed_overdue(&link->feed, ptier_monotonic_ms())) != 0)
            next = fill_gap(link, stream, link->feed.streams[stream].owed);
    }
}

static void
back_off(ptier_event_link *link, int64_t pause)
{
    int64_t until = ptier_monotonic_ms() + ptier_pause_jittered(pause);
    pthread_mutex_lock(&link->lock);
    while (!link->stopping && ptier_monotonic_ms() < until)
        ptier_monotonic_wait(&link->changed, &link->lock, until);
    pthread_mutex_unlock(&link->lock);
}

static void *
run(void *argument)
{
    ptier_event_link *link = argument;
    int64_t pause = BACKOFF_MIN_MS;
    while (!is_stopping(link)) {
        int64_t heard = link->last_heard;
        if (start_listening(link)) {
            follow(link);
            ptier_event_socket_close(&link->socket);
        }
        tell_if_lost(link);
        pause = link->refused                ? BACKOFF_REFUSED_MS
                : link->last_heard != heard  ? BACKOFF_MIN_MS
                : pause * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS
                                             : pause * 2;
        back_off(link, pause);
    }
    pthread_mutex_lock(&link->lock);
    link->ended = true;
    pthread_cond_broadcast(&link->changed);
    pthread_mutex_unlock(&link->lock);
    return NULL;
}

/* ---- starting and stopping; `life` is held ---- */

/* The first time: nng starts its threads here, which shall not take the program's signals. */
static bool
have_socket(ptier_event_link *link)
{
    sigset_t all, before;
    if (link->socket.aio)
        return true;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool made = ptier_event_socket_init(&link->socket);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return made;
}

static ptier_status
start(ptier_event_link *link, ptier_error *error)
{
    if (link->running)
        return PTIER_OK;
    if (!have_socket(link))
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    link->stopping = link->ended = false;
    link->silence_ms = (int64_t)HEARTBEAT_DEFAULT_MS * HEARTBEATS_LOST;
    link->last_heard = ptier_monotonic_ms();
    link->revision = link->access = 0;
    ptier_feed_init(&link->feed, true, false);
    int rv = ptier_thread_start(&link->thread, run, link);
    if (rv != 0)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "cannot start a thread: %s",
                          strerror(rv));
    link->running = true;
    return PTIER_OK;
}

static void
stop(ptier_event_link *link)
{
    if (!link->running)
        return;
    pthread_mutex_lock(&link->lock);
    link->stopping = true;
    pthread_cond_broadcast(&link->changed);
    while (!link->ended) {
        /* No effect on a receive that is just about to begin: hence again. */
        ptier_event_socket_cancel(&link->socket);
        ptier_monotonic_wait(&link->changed, &link->lock, ptier_monotonic_ms() + CANCEL_AGAIN_MS);
    }
    pthread_mutex_unlock(&link->lock);
    pthread_join(link->thread, NULL);
    link->running = false;
}

ptier_status
ptier_event_link_join(ptier_event_link *link, ptier_listener *listener, ptier_error *error)
{
    listener->following = listener->connected = listener->lost = false;
    pthread_mutex_lock(&link->life);
    ptier_status status = start(link, error);
    if (status == PTIER_OK) {
        pthread_mutex_lock(&link->lock);
        listener->next = link->listeners;
        link->listeners = listener;
        pthread_mutex_unlock(&link->lock);
    }
    pthread_mutex_unlock(&link->life);
    return status;
}

void
ptier_event_link_leave(ptier_event_link *link, ptier_listener *listener)
{
    pthread_mutex_lock(&link->life);
    pthread_mutex_lock(&link->lock);
    ptier_listener **at = &link->listeners;
    while (*at && *at != listener)
        at = &(*at)->next;
    if (*at)
        *at = listener->next;
    bool last = !link->listeners;
    pthread_mutex_unlock(&link->lock);
    if (last)
        stop(link);
    pthread_mutex_unlock(&link->life);
}

/* ---- create and destroy ---- */

ptier_status
ptier_event_link_create(ptier_client *client, ptier_event_link **result, ptier_error *error)
{
    ptier_event_link *link = calloc(1, sizeof *link);
    *result = NULL;
    if (!link)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    link->client = client;
    if (pthread_mutex_init(&link->life, NULL) != 0 || pthread_mutex_init(&link->lock, NULL) != 0 ||
        ptier_monotonic_cond_init(&link->changed) != 0) {
        free(link);
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "cannot make a lock");
    }
    link->arena = ptier_arena_create(0);
    if (link->arena) {
        *result = link;
        return PTIER_OK;
    }
    pthread_cond_destroy(&link->changed);
    pthread_mutex_destroy(&link->lock);
    pthread_mutex_destroy(&link->life);
    free(link);
    return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
}

void
ptier_event_link_destroy(ptier_event_link *link)
{
    if (!link)
        return;
    pthread_mutex_lock(&link->life);
    stop(link);
    pthread_mutex_unlock(&link->life);
    ptier_event_socket_fini(&link->socket);
    ptier_arena_destroy(link->arena);
    pthread_cond_destroy(&link->changed);
    pthread_mutex_destroy(&link->lock);
    pthread_mutex_destroy(&link->life);
    free(link);
}
