/*
 * A listener of the client's event link, a bounded queue, and a thread that calls back. The link
 * puts in; when the queue is full the subscription falls behind, takes nothing more from the link,
 * and its own thread, when the queue is empty, catches up by Replay until it is where the link is.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <nng/nng.h>

#include "event_filter.h"
#include "event_link.h"
#include "event_queue.h"
#include "monotonic.h"
#include "pause.h"
#include "replay_call.h"

#define QUEUE_DEFAULT  65536
#define QUEUE_MAX      (1u << 24)
#define BACKOFF_MIN_MS 10
#define BACKOFF_MAX_MS 1000

#define CHANGES PROXYTIER__V1__STREAM__STREAM_CHANGES
#define TIERS   PROXYTIER__V1__STREAM__STREAM_TIERS

typedef struct stream_state {
    bool wanted;
    bool behind;      /* `taken` is not where the link is: Replay */
    bool unproven;    /* `taken` is not from this run of ours, and may be ahead of the daemon */
    uint64_t taken;   /* last event that was queued, told, or filtered out */
    uint64_t offered; /* last one that the link has told us of */
} stream_state;

struct ptier_subscription {
    ptier_client *client;               /* borrowed */
    ptier_subscription_options options; /* with strings of our own; position is NULL */
    ptier_position start;
    bool has_start;
    pid_t pid;
    pthread_t thread;
    ptier_listener listener;

    pthread_mutex_t lock; /* guards the rest, up to the thread's own */
    pthread_cond_t changed;
    bool stopping;
    bool waiting;     /* the thread is, for `changed` */
    bool started;     /* boot_id and streams are those of a run */
    uint64_t resyncs; /* told by the link; a Replay that began before is of no use any more */
    uint8_t boot_id[PTIER_FEED_ID_BYTES];
    stream_state streams[PTIER_FEED_STREAMS];
    ptier_event_queue queue;
    ptier_position told;

    /* The thread's own. */
    ptier_arena *arena;             /* of the event being told */
    ptier_subscription_state state; /* CONNECTED or LOST, 0 neither yet */
    int64_t pause;                  /* before the next Replay, after one that failed */
};

/* ---- the link's thread puts in ---- */

static void
wake_locked(ptier_subscription *sub)
{
    if (sub->waiting)
        pthread_cond_broadcast(&sub->changed);
}

static ptier_position
taken_locked(const ptier_subscription *sub)
{
    ptier_position position = {.changes = sub->streams[CHANGES].taken,
                               .tiers = sub->streams[TIERS].taken};
    memcpy(position.boot_id, sub->boot_id, sizeof position.boot_id);
    return position;
}

static void
add_state_locked(ptier_subscription *sub, ptier_subscription_state state)
{
    const ptier_position position = taken_locked(sub);
    /* Without memory for so little, a RESYNC that cannot be told becomes one that Replay finds. */
    if (!ptier_event_queue_add_state(&sub->queue, state, &position) &&
        state == PTIER_SUBSCRIPTION_RESYNC)
        for (int s = 1; s < PTIER_FEED_STREAMS; s++) {
            sub->streams[s].taken = UINT64_MAX - 1;
            sub->streams[s].behind = sub->streams[s].unproven = sub->streams[s].wanted;
        }
    wake_locked(sub);
}

/* From where the application said, or from where the link is. */
static void
start_locked(ptier_subscription *sub, const ptier_link_view *view)
{
    bool same_run =
        sub->has_start && memcmp(sub->start.boot_id, view->boot_id, PTIER_FEED_ID_BYTES) == 0;
    sub->started = true;
    memcpy(sub->boot_id, view->boot_id, PTIER_FEED_ID_BYTES);
    for (int s = 1; s < PTIER_FEED_STREAMS; s++) {
        stream_state *stream = &sub->streams[s];
        stream->offered = stream->taken = view->position[s];
        if (same_run)
            stream->taken = s == CHANGES ? sub->start.changes : sub->start.tiers;
        stream->behind = stream->unproven = stream->wanted && stream->taken != stream->offered;
    }
    sub->told = taken_locked(sub);
    if (sub->has_start && !same_run)
        add_state_locked(sub, PTIER_SUBSCRIPTION_RESYNC);
}

static void
on_following(void *context, const ptier_link_view *view)
{
    ptier_subscription *sub = context;
    pthread_mutex_lock(&sub->lock);
    if (!sub->started)
        start_locked(sub, view);
    add_state_locked(sub, PTIER_SUBSCRIPTION_CONNECTED);
    pthread_mutex_unlock(&sub->lock);
}

static void
on_link_event(void *context, int stream, const Proxytier__V1__Event *event)
{
    ptier_subscription *sub = context;
    stream_state *s = &sub->streams[stream];
    if (!s->wanted)
        return;
    pthread_mutex_lock(&sub->lock);
    s->offered = event->sequence;
    if (!s->behind && event->sequence > s->taken) {
        uint64_t before = s->taken;
        s->taken = event->sequence;
        const ptier_position position = taken_locked(sub);
        if (ptier_event_wanted(&sub->options, event) &&
            !ptier_event_queue_add(&sub->queue, event, &position)) {
            s->taken = before;
            s->behind = true;
        }
        wake_locked(sub);
    }
    pthread_mutex_unlock(&sub->lock);
}

static void
on_resync(void *context, const ptier_link_view *view)
{
    ptier_subscription *sub = context;
    pthread_mutex_lock(&sub->lock);
    bool same_run = memcmp(sub->boot_id, view->boot_id, PTIER_FEED_ID_BYTES) == 0;
    memcpy(sub->boot_id, view->boot_id, PTIER_FEED_ID_BYTES);
    for (int s = 1; s < PTIER_FEED_STREAMS; s++) {
        stream_state *stream = &sub->streams[s];
        /* What Replay gave ahead of the link has been told. */
        if (!same_run || stream->taken < view->position[s] || stream->unproven)
            stream->taken = view->position[s];
        stream->offered = view->position[s];
        stream->behind = stream->unproven = false;
    }
    sub->resyncs++;
    add_state_locked(sub, PTIER_SUBSCRIPTION_RESYNC);
    pthread_mutex_unlock(&sub->lock);
}

static void
on_lost(void *context)
{
    ptier_subscription *sub = context;
    pthread_mutex_lock(&sub->lock);
    add_state_locked(sub, PTIER_SUBSCRIPTION_LOST);
    pthread_mutex_unlock(&sub->lock);
}

/* ---- the thread tells ---- */

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
    if (sub->options.on_state)
        sub->options.on_state(sub->options.context, state);
}

static void
tell_event(ptier_subscription *sub, const Proxytier__V1__Event *wire)
{
    ptier_label labels[PTIER_LABELS_MAX];
    ptier_event event;
    ptier_event_from_wire(&event, labels, wire);
    sub->options.on_event(sub->options.context, &event);
}

static void
tell_queued(ptier_subscription *sub, const ptier_queued *item)
{
    if (item->state != 0) {
        tell_state(sub, item->state);
        return;
    }
    ptier_arena_reset(sub->arena, PTIER_REPLY_BUDGET(item->length));
    Proxytier__V1__Event *event =
        proxytier__v1__event__unpack(&sub->arena->allocator, item->length, item->bytes);
    if (event)
        tell_event(sub, event);
    else /* out of memory */
        tell_state(sub, PTIER_SUBSCRIPTION_RESYNC);
}

/* ---- the thread catches up ---- */

/* Whether the event is next, and wanted; it is then the callback's. */
static bool
take_replayed(ptier_subscription *sub, int stream, uint64_t resyncs,
              const Proxytier__V1__Event *event)
{
    stream_state *s = &sub->streams[stream];
    pthread_mutex_lock(&sub->lock);
    bool next = !sub->stopping && sub->resyncs == resyncs && event->sequence == s->taken + 1;
    if (next) {
        s->taken = event->sequence;
        s->unproven = false;
        sub->told = taken_locked(sub);
    }
    pthread_mutex_unlock(&sub->lock);
    return next && ptier_event_wanted(&sub->options, event);
}

/* Events are gone for good: on from where the link is. */
static void
give_up_locked(ptier_subscription *sub, int stream)
{
    sub->streams[stream].taken = sub->streams[stream].offered;
    sub->streams[stream].behind = sub->streams[stream].unproven = false;
    add_state_locked(sub, PTIER_SUBSCRIPTION_RESYNC);
}

static void
tell_page(ptier_subscription *sub, int stream, uint64_t resyncs,
          const Proxytier__V1__ReplayResponse *reply)
{
    for (size_t i = 0; i < reply->n_events; i++) {
        const Proxytier__V1__Event *event = reply->events[i];
        if (!take_replayed(sub, stream, resyncs, event))
            continue;
        if (event->type == PROXYTIER__V1__EVENT_TYPE__EVENT_TYPE_REMOVED && !*event->key)
            tell_state(sub, PTIER_SUBSCRIPTION_RESYNC);
        else
            tell_event(sub, event);
    }
}

static void
pause_locked(ptier_subscription *sub)
{
    uint64_t resyncs = sub->resyncs;
    sub->pause = sub->pause * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : sub->pause * 2;
    int64_t until = ptier_monotonic_ms() + ptier_pause_jittered(sub->pause);
    sub->waiting = true;
    while (!sub->stopping && sub->resyncs == resyncs && !sub->queue.first &&
           ptier_monotonic_ms() < until)
        ptier_monotonic_wait(&sub->changed, &sub->lock, until);
    sub->waiting = false;
}

/* Whether the reply is of the run that we follow. If not, the link will hear of that. */
static bool
is_of_run(const Proxytier__V1__ReplayResponse *reply, const uint8_t *boot_id)
{
    return reply->heartbeat && reply->heartbeat->boot_id.len == PTIER_FEED_ID_BYTES &&
           memcmp(reply->heartbeat->boot_id.data, boot_id, PTIER_FEED_ID_BYTES) == 0;
}

/* One page. */
static void
catch_up(ptier_subscription *sub, int stream)
{
    stream_state *s = &sub->streams[stream];
    uint8_t boot_id[PTIER_FEED_ID_BYTES];
    Proxytier__V1__ReplayResponse *reply = NULL;
    ptier_arena *arena = NULL;

    pthread_mutex_lock(&sub->lock);
    uint64_t resyncs = sub->resyncs, after = s->taken, target = s->offered;
    memcpy(boot_id, sub->boot_id, sizeof boot_id);
    pthread_mutex_unlock(&sub->lock);

    bool asked = ptier_replay(sub->client, boot_id, stream, after, &arena, &reply) == PTIER_OK &&
                 is_of_run(reply, boot_id);
    if (asked && !reply->truncated)
        tell_page(sub, stream, resyncs, reply);

    pthread_mutex_lock(&sub->lock);
    if (sub->resyncs != resyncs || sub->stopping) {
        /* Of no use any more. */
    } else if (!asked) {
        pause_locked(sub);
    } else {
        bool ended = !reply->more || s->taken == after;
        sub->pause = BACKOFF_MIN_MS;
        s->unproven = false;
        if (reply->truncated || (ended && s->taken < target))
            give_up_locked(sub, stream);
        else if (s->taken >= s->offered)
            s->behind = false;
    }
    pthread_mutex_unlock(&sub->lock);
    ptier_arena_destroy(arena);
}

/* The next thing to tell, owned; NULL with *stream: to catch up with, 0: the end. */
static ptier_queued *
next_step(ptier_subscription *sub, int *stream)
{
    ptier_queued *item = NULL;
    *stream = 0;
    pthread_mutex_lock(&sub->lock);
    while (!sub->stopping && *stream == 0 && !(item = ptier_event_queue_take(&sub->queue))) {
        if (sub->started)
            sub->told = taken_locked(sub);
        for (int s = 1; s < PTIER_FEED_STREAMS; s++)
            if (sub->streams[s].behind)
                *stream = s;
        if (*stream != 0)
            break;
        sub->waiting = true;
        pthread_cond_wait(&sub->changed, &sub->lock);
        sub->waiting = false;
    }
    if (item)
        sub->told = item->position;
    pthread_mutex_unlock(&sub->lock);
    return item;
}

static void *
run(void *argument)
{
    ptier_subscription *sub = argument;
    while (!is_stopping(sub)) {
        int stream;
        ptier_queued *item = next_step(sub, &stream);
        if (item)
            tell_queued(sub, item);
        else if (stream != 0)
            catch_up(sub, stream);
        free(item);
    }
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
    ptier_event_queue_clear(&sub->queue);
    ptier_arena_destroy(sub->arena);
    free((char *)(uintptr_t)sub->options.source); /* copies of ours */
    free((char *)(uintptr_t)sub->options.key_prefix);
    pthread_cond_destroy(&sub->changed);
    pthread_mutex_destroy(&sub->lock);
    free(sub);
}

static bool
copy_text(const char **text)
{
    if (!*text)
        return true;
    *text = strdup(*text);
    return *text != NULL;
}

static bool
take_options(ptier_subscription *sub, const ptier_subscription_options *given)
{
    ptier_subscription_options *options = &sub->options;
    ptier_subscription_options_init(options);
    memcpy(options, given, given->size < sizeof *options ? given->size : sizeof *options);
    if (options->queue_events == 0)
        options->queue_events = QUEUE_DEFAULT;
    if (options->queue_events > QUEUE_MAX)
        options->queue_events = QUEUE_MAX;
    if (options->position) {
        sub->start = *options->position;
        sub->has_start = true;
        options->position = NULL;
    }
    const char *prefix = options->key_prefix;
    options->key_prefix = NULL; /* until it is ours to free */
    if (!copy_text(&options->source))
        return false;
    options->key_prefix = prefix;
    return copy_text(&options->key_prefix);
}

static ptier_status
start(ptier_subscription *sub, ptier_error *error)
{
    sub->listener = (ptier_listener){.tiers = sub->options.tiers,
                                     .context = sub,
                                     .on_following = on_following,
                                     .on_event = on_link_event,
                                     .on_resync = on_resync,
                                     .on_lost = on_lost};
    sub->streams[CHANGES].wanted = sub->options.changes;
    sub->streams[TIERS].wanted = sub->options.tiers;
    sub->pause = BACKOFF_MIN_MS;
    ptier_event_queue_init(&sub->queue, sub->options.queue_events);
    sub->arena = ptier_arena_create(0);
    if (!sub->arena)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    int rv = ptier_thread_start(&sub->thread, run, sub);
    if (rv != 0)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "cannot start a thread: %s",
                          strerror(rv));
    ptier_status status = ptier_event_link_join(sub->client->link, &sub->listener, error);
    if (status == PTIER_OK)
        return PTIER_OK;
    pthread_mutex_lock(&sub->lock);
    sub->stopping = true;
    pthread_cond_broadcast(&sub->changed);
    pthread_mutex_unlock(&sub->lock);
    pthread_join(sub->thread, NULL);
    return status;
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
    sub->client = client;
    sub->pid = client->pid;
    if (take_options(sub, options))
        status = start(sub, error);
    else
        status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    if (status == PTIER_OK)
        *subscription = sub;
    else
        free_subscription(sub);
    ptier_client_leave(client);
    return status;
}

bool
ptier_subscription_position(ptier_subscription *sub, ptier_position *position)
{
    memset(position, 0, sizeof *position);
    if (sub->pid != getpid())
        return false; /* a forked child may have got the lock held, by a thread that it has not */
    pthread_mutex_lock(&sub->lock);
    bool started = sub->started;
    if (started)
        *position = sub->told;
    pthread_mutex_unlock(&sub->lock);
    return started;
}

void
ptier_subscription_close(ptier_subscription *sub)
{
    if (!sub || sub->pid != getpid())
        return; /* a forked child has the memory but not the thread: leave it */
    pthread_mutex_lock(&sub->lock);
    sub->stopping = true;
    pthread_cond_broadcast(&sub->changed);
    pthread_mutex_unlock(&sub->lock);
    ptier_event_link_leave(sub->client->link, &sub->listener);
    pthread_join(sub->thread, NULL);
    free_subscription(sub);
}
