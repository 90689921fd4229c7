/*
 * One thread and the lists that its calls go through: started → (strange) → waiting → flying →
 * ended, with (paused) before another try. Gets go through gathered → flying, or riding in a batch
 * (async_batch.h). Others only put calls into the two inboxes, under the
 * lock, which is a leaf: the transport's may be held. Callbacks run here, with no lock held.
 */
#include "async_engine.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "async_batch.h"
#include "async_internal.h"
#include "client_internal.h"
#include "monotonic.h"
#include "proxytier/v1/info.pb-c.h"

#define CANCEL_AGAIN_MS 5
#define FOREVER_MS      1000 /* what nobody waits for is looked at so often */

/*
 * While so many requests for single records are with the daemon, further ones wait for each other:
 * two, so that it has work while we look at a reply. But not for long: those may be slow.
 */
#define GETS_FLYING 2
#define GATHER_MS   2

typedef struct call_list {
    ptier_async *first, *last;
} call_list;

struct ptier_async_engine {
    ptier_client *client;
    size_t limit;

    pthread_mutex_t lock; /* guards this part */
    pthread_cond_t wake;
    bool running, stopping, woken, cancel;
    bool dozing;                /* in ptier_transport_doze: to be roused */
    size_t count;               /* calls under way */
    call_list started, arrived; /* the inboxes: from callers, from the transport */
    ptier_async_batch *landed;  /* from the transport */
    pthread_t thread;

    /* The thread's own. */
    call_list lists[PTIER_ASYNC_ENDED]; /* by state; WAITING: by deadline */
    ptier_async *question;              /* GetInfo on behalf of the strangers; NULL */
    ptier_async_batch *batches;         /* with nng */
    size_t gets_flying;                 /* batches, and Gets that go alone */
};

/* ---- lists ---- */

static void
take(call_list *list, ptier_async *call)
{
    *(call->previous ? &call->previous->next : &list->first) = call->next;
    *(call->next ? &call->next->previous : &list->last) = call->previous;
    call->next = call->previous = NULL;
}

/* Puts it behind `after` (NULL: first). */
static void
insert(call_list *list, ptier_async *after, ptier_async *call)
{
    call->previous = after;
    call->next = after ? after->next : list->first;
    *(after ? &after->next : &list->first) = call;
    *(call->next ? &call->next->previous : &list->last) = call;
}

/* The one function that changes the state of a call that the thread has. */
static void
move(ptier_async_engine *e, ptier_async *call, ptier_async_state state)
{
    bool sorted = state == PTIER_ASYNC_WAITING || state == PTIER_ASYNC_GATHERED;
    if (call->state != PTIER_ASYNC_STARTED)
        take(&e->lists[call->state], call);
    if (call->social && (call->state == PTIER_ASYNC_FLYING || state == PTIER_ASYNC_FLYING))
        e->gets_flying += state == PTIER_ASYNC_FLYING ? 1 : -(size_t)1;
    call->state = state;
    if (state == PTIER_ASYNC_ENDED)
        return;
    ptier_async *after = e->lists[state].last;
    while (sorted && after && after->attempt.deadline > call->attempt.deadline)
        after = after->previous; /* only one that was tried before is older than the last */
    insert(&e->lists[state], after, call);
}

static bool
may_gather(const ptier_async *call)
{
    return call->social && !call->alone && ptier_async_batch_takes(call->attempt.body_length);
}

/* It is its turn to be sent. */
static void
queue(ptier_async_engine *e, ptier_async *call)
{
    bool gather = may_gather(call);
    if (gather)
        call->gathered = ptier_monotonic_ms();
    move(e, call, gather ? PTIER_ASYNC_GATHERED : PTIER_ASYNC_WAITING);
}

static void
add_batch(ptier_async_engine *e, ptier_async_batch *batch)
{
    batch->next = e->batches;
    if (batch->next)
        batch->next->previous = batch;
    e->batches = batch;
    e->gets_flying++;
}

static void
remove_batch(ptier_async_engine *e, ptier_async_batch *batch)
{
    *(batch->previous ? &batch->previous->next : &e->batches) = batch->next;
    if (batch->next)
        batch->next->previous = batch->previous;
    e->gets_flying--;
}

/* ---- from other threads ---- */

static void
wake_locked(ptier_async_engine *e)
{
    e->woken = true;
    if (!e->dozing)
        pthread_cond_signal(&e->wake);
    else if (!pthread_equal(pthread_self(), e->thread)) /* it reads replies itself */
        ptier_transport_rouse(e->client->transport);
    e->dozing = e->dozing && pthread_equal(pthread_self(), e->thread);
}

static void
push_locked(ptier_async_engine *e, call_list *inbox, ptier_async *call)
{
    call->next_in = NULL;
    *(inbox->last ? &inbox->last->next_in : &inbox->first) = call;
    inbox->last = call;
    wake_locked(e);
}

static void
on_exchanged(ptier_exchange *exchange)
{
    ptier_async *call = (ptier_async *)(void *)((char *)exchange - offsetof(ptier_async, exchange));
    ptier_async_engine *e = call->attempt.client->engine;
    pthread_mutex_lock(&e->lock);
    push_locked(e, &e->arrived, call);
    pthread_mutex_unlock(&e->lock);
}

static void
on_batch_exchanged(ptier_exchange *exchange)
{
    ptier_async_batch *batch =
        (ptier_async_batch *)(void *)((char *)exchange - offsetof(ptier_async_batch, exchange));
    ptier_async_engine *e = batch->engine;
    pthread_mutex_lock(&e->lock);
    batch->next_in = e->landed;
    e->landed = batch;
    wake_locked(e);
    pthread_mutex_unlock(&e->lock);
}

static void
on_transport(void *watch)
{
    ptier_async_engine *e = watch;
    pthread_mutex_lock(&e->lock);
    wake_locked(e);
    pthread_mutex_unlock(&e->lock);
}

void
ptier_async_engine_note_cancel(ptier_async_engine *e)
{
    pthread_mutex_lock(&e->lock);
    e->cancel = true;
    wake_locked(e);
    pthread_mutex_unlock(&e->lock);
}

/* ---- ends ---- */

static void settle_strangers(ptier_async_engine *e, ptier_status status, const ptier_error *error);

static void
end(ptier_async_engine *e, ptier_async *call, ptier_status status)
{
    move(e, call, PTIER_ASYNC_ENDED);
    call->result.status = status;
    if (call == e->question) {
        ptier_error error = call->result.error;
        e->question = NULL;
        ptier_async_deliver(call); /* to nobody */
        settle_strangers(e, status, &error);
        return;
    }
    pthread_mutex_lock(&e->lock);
    e->count--; /* before the callback, which may start another one */
    pthread_mutex_unlock(&e->lock);
    ptier_async_deliver(call);
}

/* Nothing is left to try; call->failure says why. */
static void
fail(ptier_async_engine *e, ptier_async *call, ptier_status status)
{
    ptier_error *error = &call->result.error;
    if (atomic_load(&call->cancelled))
        status = ptier_fail(error, PTIER_CANCELLED, "the call was cancelled");
    else if (status == PTIER_CANCELLED)
        *error = call->failure;
    else
        status = ptier_attempt_end(&call->attempt, status, &call->failure, error);
    (void)call->read(call, NULL, NULL, NULL); /* it only tidies up: there is no reply */
    end(e, call, status);
}

static void
fail_try(ptier_async_engine *e, ptier_async *call, ptier_status status)
{
    int64_t pause, now = ptier_monotonic_ms();
    bool again = ptier_attempt_again(&call->attempt, status, &pause);
    if (!again || atomic_load(&call->cancelled) || now + pause >= call->attempt.deadline) {
        fail(e, call, status);
        return;
    }
    call->resume = now + pause;
    call->exchange.waiting = false;
    move(e, call, PTIER_ASYNC_PAUSED);
}

static void
arrive(ptier_async_engine *e, ptier_async *call)
{
    nng_msg *message = NULL;
    ptier_arena *arena = NULL;
    void *reply = NULL;
    ptier_attempt *a = &call->attempt;
    ptier_error *error = &call->result.error;
    ptier_status status =
        ptier_exchange_finish(&call->exchange, &message, &a->fate, &call->failure);
    if (status == PTIER_OK)
        status = ptier_attempt_read(a, message, &call->failure);
    bool replied = status == PTIER_OK;
    if (replied)
        status = ptier_attempt_unpack(a, call->reply_type, &arena, &reply, error);
    ptier_attempt_free_reply(a, message);
    if (!replied) {
        fail_try(e, call, status);
        return;
    }
    ptier_status read = call->read(call, arena, reply, status == PTIER_OK ? error : NULL);
    end(e, call, status == PTIER_OK ? read : status);
}

/* ---- the end of a batch: each of its calls goes its own way again ---- */

/* Asked for anew, alone: not a try that failed. */
static void
ask_alone(ptier_async_engine *e, ptier_async *call)
{
    call->alone = true;
    call->exchange.waiting = false;
    queue(e, call);
}

static void
fail_member(ptier_async_engine *e, const ptier_async_batch *batch, ptier_async *call,
            ptier_status status, const ptier_error *failure)
{
    bool answered = batch->attempt.answered;
    bool own = status != PTIER_DEADLINE_EXCEEDED || answered ||
               ptier_monotonic_ms() >= call->attempt.deadline;
    if (!own || (answered && status == PTIER_INVALID_ARGUMENT)) {
        ask_alone(e, call); /* it has time left, or another's key is to blame */
        return;
    }
    call->failure = *failure;
    call->attempt.answered = answered;
    call->attempt.fate = batch->attempt.fate;
    fail_try(e, call, status);
}

static void
settle_member(ptier_async_engine *e, ptier_async *call, ptier_async_outcome outcome)
{
    switch (outcome) {
    case PTIER_ASYNC_SERVED:
        end(e, call, PTIER_OK);
        break;
    case PTIER_ASYNC_ABSENT:
        call->attempt.answered = true;
        fail_try(e, call, ptier_fail(&call->failure, PTIER_NOT_FOUND, "no entry has this key"));
        break;
    case PTIER_ASYNC_UNSAID:
        ask_alone(e, call);
        break;
    }
}

static void
land(ptier_async_engine *e, ptier_async_batch *batch)
{
    nng_msg *message = NULL;
    ptier_error failure = {.status = PTIER_OK};
    ptier_attempt *a = &batch->attempt;
    remove_batch(e, batch);
    ptier_status status = ptier_exchange_finish(&batch->exchange, &message, &a->fate, &failure);
    if (status == PTIER_OK)
        status = ptier_attempt_read(a, message, &failure);
    if (status == PTIER_OK)
        ptier_async_batch_read(batch);
    ptier_attempt_free_reply(a, message);
    for (size_t i = 0; i < batch->count; i++) {
        ptier_async *call = batch->members[i];
        if (!call)
            continue;
        call->batch = NULL;
        if (status == PTIER_OK)
            settle_member(e, call, batch->outcomes[i]);
        else
            fail_member(e, batch, call, status, &failure);
    }
    free(batch);
}

/* ---- beginnings ---- */

static bool
knows_daemon(ptier_client *client)
{
    pthread_mutex_lock(&client->lock);
    bool known = client->run.known;
    pthread_mutex_unlock(&client->lock);
    return known;
}

static ptier_status
learn_info(ptier_async *call, ptier_arena *arena, const void *reply, ptier_error *error)
{
    const Proxytier__V1__GetInfoResponse *info = reply;
    (void)error;
    if (arena && info->limits)
        atomic_store(&call->attempt.client->message_limit, info->limits->message_bytes);
    ptier_arena_destroy(arena);
    return PTIER_OK;
}

/* Asks the daemon who it is, unless that was asked already. */
static ptier_status
ask(ptier_async_engine *e, ptier_error *error)
{
    Proxytier__V1__GetInfoRequest request = PROXYTIER__V1__GET_INFO_REQUEST__INIT;
    const ptier_async_start start = {.method = PTIER_METHOD_GET_INFO,
                                     .request = &request.base,
                                     .reply_type = &proxytier__v1__get_info_response__descriptor,
                                     .read = learn_info};
    if (e->question)
        return PTIER_OK;
    e->question = ptier_async_create(e->client, &start, 1, error);
    if (!e->question)
        return PTIER_RESOURCE_EXHAUSTED;
    move(e, e->question, PTIER_ASYNC_WAITING);
    return PTIER_OK;
}

static void
admit(ptier_async_engine *e, ptier_async *call)
{
    const ptier_attempt *a = &call->attempt;
    ptier_status status = PTIER_OK;
    bool strange = !a->twice && !knows_daemon(e->client);
    uint32_t limit = atomic_load(&e->client->message_limit);
    if (a->body_length > PTIER_UNASKED_BODY_MAX && limit == 0)
        strange = true;
    else
        status = ptier_call_check_size(a->body_length, limit, &call->failure);
    if (strange)
        status = ask(e, &call->failure);
    if (status != PTIER_OK)
        fail(e, call, status);
    else if (strange)
        move(e, call, PTIER_ASYNC_STRANGE);
    else
        queue(e, call);
}

/* The question was answered, or came to nothing. What the daemon said to it does not matter. */
static void
settle_strangers(ptier_async_engine *e, ptier_status status, const ptier_error *error)
{
    bool known = knows_daemon(e->client);
    call_list strangers = e->lists[PTIER_ASYNC_STRANGE];
    e->lists[PTIER_ASYNC_STRANGE] = (call_list){NULL, NULL};
    for (ptier_async *call = strangers.first, *next; call; call = next) {
        const ptier_attempt *a = &call->attempt;
        next = call->next;
        call->state = PTIER_ASYNC_STARTED; /* in no list */
        ptier_status found =
            known ? ptier_call_check_size(a->body_length, atomic_load(&e->client->message_limit),
                                          &call->failure)
                  : status;
        if (!known)
            call->failure = *error;
        if (found != PTIER_OK)
            fail(e, call, found);
        else
            move(e, call, PTIER_ASYNC_WAITING);
    }
    on_transport(e); /* they wait now */
}

/* ---- the thread ---- */

static void
launch(ptier_async_engine *e, ptier_async *call)
{
    ptier_attempt *a = &call->attempt;
    nng_msg *request = NULL;
    ptier_status status = a->tries == 0 ? ptier_attempt_begin(a, &call->failure) : PTIER_OK;
    if (status == PTIER_OK && !(request = ptier_attempt_pack(a)))
        status = ptier_fail(&call->failure, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    if (status != PTIER_OK) {
        ptier_exchange_release(&call->exchange);
        fail(e, call, status);
        return;
    }
    move(e, call, PTIER_ASYNC_FLYING);
    ptier_exchange_start(&call->exchange, request);
}

/* The call, which has room, and those that wait with it: together, or one alone. */
static void
launch_gathered(ptier_async_engine *e, ptier_async *call)
{
    ptier_async_batch *batch =
        call->next ? ptier_async_batch_create(e, e->client) : NULL; /* without one: alone */
    if (!batch) {
        launch(e, call);
        return;
    }
    int64_t deadline = call->attempt.deadline; /* the earliest */
    batch->exchange.done = on_batch_exchanged;
    ptier_exchange_hand_over(&call->exchange, &batch->exchange);
    for (ptier_async *next; call && ptier_async_batch_add(batch, call); call = next) {
        next = call->next;
        move(e, call, PTIER_ASYNC_RIDING);
    }
    add_batch(e, batch);
    nng_msg *request = ptier_async_batch_pack(batch, deadline);
    if (request) {
        ptier_exchange_start(&batch->exchange, request);
    } else {
        batch->exchange.rv = NNG_ENOMEM;
        land(e, batch);
    }
}

/* Sends what can be sent of a list. Returns when to look again at the latest. */
static int64_t
pump(ptier_async_engine *e, ptier_async_state state, int64_t until)
{
    bool gathered = state == PTIER_ASYNC_GATHERED;
    int64_t now = gathered ? ptier_monotonic_ms() : 0;
    ptier_async *next;
    for (ptier_async *call = e->lists[state].first; call; call = next) {
        ptier_reserved reserved = PTIER_RESERVE_NO_ROOM;
        int64_t then = 0;
        next = call->next;
        if (gathered && e->gets_flying >= GETS_FLYING && now < call->gathered + GATHER_MS) {
            then = call->gathered + GATHER_MS;
            return then < until ? then : until;
        }
        if (!call->exchange.waiting) {
            memset(&call->exchange, 0, sizeof call->exchange);
            call->exchange.done = on_exchanged;
        }
        ptier_status status =
            ptier_exchange_reserve(e->client->transport, &call->exchange, call->attempt.deadline,
                                   &reserved, &then, &call->failure);
        if (status != PTIER_OK) {
            call->attempt.fate = PTIER_FATE_UNSENT;
            call->attempt.answered = false;
            fail_try(e, call, status);
            continue;
        }
        if (reserved == PTIER_RESERVED && gathered) {
            launch_gathered(e, call);
            next = e->lists[state].first;
            continue;
        }
        if (reserved == PTIER_RESERVED) {
            launch(e, call);
            continue;
        }
        if (then < until)
            until = then;
        if (reserved == PTIER_RESERVE_NO_ROOM)
            break; /* for nobody behind it either */
    }
    return until;
}

static int64_t
resume(ptier_async_engine *e, int64_t until)
{
    int64_t now = ptier_monotonic_ms();
    for (ptier_async *call = e->lists[PTIER_ASYNC_PAUSED].first, *next; call; call = next) {
        next = call->next;
        if (call->resume <= now)
            queue(e, call);
        else if (call->resume < until)
            until = call->resume;
    }
    return until;
}

/* Ends the calls of a list that were cancelled, or all of them. */
static void
sweep_list(ptier_async_engine *e, call_list *list, bool all)
{
    for (ptier_async *call = list->first, *next; call; call = next) {
        next = call->next;
        if (!all && !atomic_load(&call->cancelled))
            continue;
        if (call->batch)
            ptier_async_batch_leave(call->batch, call);
        fail(e, call, ptier_fail(&call->failure, PTIER_CANCELLED, "the client was closed"));
    }
}

/* Returns whether some are still to be cancelled, which nng may have overlooked. */
static bool
sweep(ptier_async_engine *e, bool all)
{
    bool left = false;
    sweep_list(e, &e->lists[PTIER_ASYNC_STRANGE], all);
    sweep_list(e, &e->lists[PTIER_ASYNC_PAUSED], all);
    sweep_list(e, &e->lists[PTIER_ASYNC_WAITING], all);
    sweep_list(e, &e->lists[PTIER_ASYNC_GATHERED], all);
    sweep_list(e, &e->lists[PTIER_ASYNC_RIDING], all);
    for (ptier_async *call = e->lists[PTIER_ASYNC_FLYING].first; call; call = call->next)
        if (all || atomic_load(&call->cancelled)) {
            ptier_exchange_cancel(&call->exchange);
            left = true;
        }
    for (ptier_async_batch *batch = e->batches; batch && all; batch = batch->next) {
        ptier_exchange_cancel(&batch->exchange);
        left = true;
    }
    return left;
}

static bool
is_idle(const ptier_async_engine *e)
{
    for (size_t i = 0; i < sizeof e->lists / sizeof *e->lists; i++)
        if (e->lists[i].first)
            return false;
    return !e->batches;
}

static void
wait_locked(ptier_async_engine *e, int64_t until)
{
    ptier_transport *t = e->client->transport;
    if (!ptier_transport_can_doze(t)) {
        while (!e->woken && ptier_monotonic_ms() < until)
            ptier_monotonic_wait(&e->wake, &e->lock, until);
        return;
    }
    do { /* once in any case: it sends, too */
        e->dozing = !e->woken;
        int64_t end = e->woken ? 0 : until;
        pthread_mutex_unlock(&e->lock);
        ptier_transport_doze(t, end);
        pthread_mutex_lock(&e->lock);
        e->dozing = false;
    } while (!e->woken && ptier_monotonic_ms() < until);
}

/* Waits until something is to be done, and takes the inbox of what came back. */
static bool
wait_for_work(ptier_async_engine *e, int64_t until, call_list *arrived, ptier_async_batch **landed,
              bool *cancel)
{
    pthread_mutex_lock(&e->lock);
    wait_locked(e, until);
    e->woken = false;
    *arrived = e->arrived;
    *landed = e->landed;
    e->landed = NULL;
    e->arrived = (call_list){NULL, NULL};
    *cancel = e->cancel;
    e->cancel = false;
    bool stopping = e->stopping;
    pthread_mutex_unlock(&e->lock);
    return stopping;
}

/* After the callbacks, which may have started others. */
static call_list
take_started(ptier_async_engine *e)
{
    pthread_mutex_lock(&e->lock);
    call_list started = e->started;
    e->started = (call_list){NULL, NULL};
    if (!e->stopping) /* what came so far is seen in this round */
        e->woken = e->arrived.first || e->landed || e->cancel;
    pthread_mutex_unlock(&e->lock);
    return started;
}

static void *
run(void *argument)
{
    ptier_async_engine *e = argument;
    int64_t until = 0;
    bool cancelling = false;
    for (;;) {
        call_list arrived;
        ptier_async_batch *landed;
        bool cancel;
        bool stopping = wait_for_work(e, until, &arrived, &landed, &cancel);
        for (ptier_async_batch *next; landed; landed = next) {
            next = landed->next_in;
            land(e, landed);
        }
        for (ptier_async *call = arrived.first, *next; call; call = next) {
            next = call->next_in;
            arrive(e, call);
        }
        call_list started = take_started(e);
        for (ptier_async *call = started.first, *next; call; call = next) {
            next = call->next_in;
            admit(e, call);
        }
        if (stopping || cancel || cancelling)
            cancelling = sweep(e, stopping);
        if (stopping && is_idle(e))
            return NULL;
        int64_t now = ptier_monotonic_ms();
        until = resume(e, now + (cancelling ? CANCEL_AGAIN_MS : FOREVER_MS));
        until = pump(e, PTIER_ASYNC_GATHERED, until);
        until = pump(e, PTIER_ASYNC_WAITING, until);
    }
}

/* ---- from the client ---- */

ptier_status
ptier_async_engine_create(ptier_client *client, size_t limit, ptier_async_engine **engine,
                          ptier_error *error)
{
    ptier_async_engine *e = calloc(1, sizeof *e);
    *engine = NULL;
    if (!e || pthread_mutex_init(&e->lock, NULL) != 0 || ptier_monotonic_cond_init(&e->wake) != 0) {
        free(e);
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    }
    e->client = client;
    e->limit = limit;
    ptier_transport_watch(client->transport, on_transport, e);
    *engine = e;
    return PTIER_OK;
}

ptier_status
ptier_async_submit(ptier_async_engine *e, ptier_async *call, ptier_error *error)
{
    ptier_status status = PTIER_OK;
    pthread_mutex_lock(&e->lock);
    if (e->count >= e->limit) {
        status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED,
                            "%zu asynchronous calls are under way, which is the most "
                            "(async_calls of the client's options)",
                            e->count);
    } else if (!e->running) {
        int rv = ptier_thread_start(&e->thread, run, e);
        if (rv != 0)
            status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "cannot start a thread: %s",
                                strerror(rv));
        e->running = rv == 0;
    }
    if (status == PTIER_OK) {
        e->count++;
        call->engine = e;
        push_locked(e, &e->started, call);
    }
    pthread_mutex_unlock(&e->lock);
    return status;
}

void
ptier_async_engine_destroy(ptier_async_engine *e)
{
    if (!e)
        return;
    pthread_mutex_lock(&e->lock);
    bool running = e->running;
    e->stopping = true;
    wake_locked(e);
    pthread_mutex_unlock(&e->lock);
    if (running)
        pthread_join(e->thread, NULL);
    ptier_transport_watch(e->client->transport, NULL, NULL);
    pthread_cond_destroy(&e->wake);
    pthread_mutex_destroy(&e->lock);
    free(e);
}
