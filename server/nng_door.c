/*
 * See nng_door.h. Each of the contexts below is a small state machine: RECEIVING -> WORKING ->
 * SENDING -> RECEIVING, moved by its aio's callback and by the worker that has its job; one of them
 * at a time, so its fields need no lock.
 */
#include "nng_door.h"

#include <stdlib.h>
#include <string.h>

#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>

#include "self_probe.h"

/*
 * A full server must have contexts left that can say so: more than the dispatch takes. (Very many
 * contexts cost nng 1.5 quadratic time in its timers, but only for sends that wait; a peer with
 * many of those is cut off, see send_patience.)
 */
#define CONTEXTS 128

#define SEND_PATIENCE_CROWDED_MS 50
#define CROWDED                  40 /* contexts whose replies one peer leaves unread */

typedef enum context_state {
    CONTEXT_RECEIVING = 0,
    CONTEXT_WORKING = 1,
    CONTEXT_SENDING = 2,
    CONTEXT_ENDED = 3,
} context_state;

typedef struct nng_door_context {
    ptier_request request; /* first: its answer finds the context by it */
    ptier_nng_door *door;
    ptier_front *front;      /* the door's */
    _Atomic uint64_t *place; /* state and pipe, in door->places */
    nng_ctx ctx;
    nng_aio *aio;
    nng_msg *message;
    ptier_bytes frame;
    int peer_pipe; /* whose facts are below; they never change, and cost system calls */
    ptier_peer peer;
} nng_door_context;

struct ptier_nng_door {
    ptier_front *front;
    nng_socket socket;
    size_t context_count;
    _Atomic uint64_t places[CONTEXTS]; /* close together: they are looked through often */
    nng_door_context contexts[CONTEXTS];
};

static uint64_t
place(context_state state, uint32_t pipe)
{
    return (uint64_t)state << 32 | pipe;
}

static context_state
state_of(const nng_door_context *context)
{
    return (context_state)(atomic_load(context->place) >> 32);
}

static uint32_t
pipe_of(const nng_door_context *context)
{
    return (uint32_t)atomic_load(context->place);
}

/* How many contexts one peer has in a state. */
static unsigned
count_places(const ptier_nng_door *door, uint64_t wanted)
{
    unsigned count = 0;
    for (size_t i = 0; i < door->context_count; i++)
        count += atomic_load_explicit(&door->places[i], memory_order_relaxed) == wanted;
    return count;
}

static void
receive(nng_door_context *context)
{
    atomic_store(context->place, place(CONTEXT_RECEIVING, 0));
    nng_aio_set_timeout(context->aio, NNG_DURATION_INFINITE);
    nng_ctx_recv(context->ctx, context->aio);
}

/* Requests hold credentials: wiped before nng gets the memory back. */
static void
drop_request(nng_door_context *context)
{
    if (!context->message)
        return;
    explicit_bzero(nng_msg_body(context->message), nng_msg_len(context->message));
    nng_msg_free(context->message);
    context->message = NULL;
}

/* How long a reply may wait to be taken: less for a peer that already keeps many contexts waiting.
 */
static nng_duration
send_patience(const nng_door_context *context)
{
    unsigned waiting = count_places(context->door, place(CONTEXT_SENDING, pipe_of(context)));
    return waiting > CROWDED ? SEND_PATIENCE_CROWDED_MS : PTIER_SEND_PATIENCE_MS;
}

static void
send_reply(ptier_request *request)
{
    nng_door_context *context = (nng_door_context *)request;
    nng_msg *reply = NULL;
    ptier_status status = ptier_call_finish(&request->call, &context->frame);
    drop_request(context);
    if (status == PTIER_OK && nng_msg_alloc(&reply, context->frame.length) == 0)
        memcpy(nng_msg_body(reply), context->frame.data, context->frame.length);
    ptier_bytes_reset(&context->frame, (size_t)64 * 1024);
    if (!reply) { /* no memory even for an error: the client's deadline tells it */
        ptier_front_leave(context->front);
        receive(context);
        return;
    }
    atomic_store(context->place, place(CONTEXT_SENDING, pipe_of(context)));
    nng_aio_set_timeout(context->aio, send_patience(context));
    nng_aio_set_msg(context->aio, reply);
    nng_ctx_send(context->ctx, context->aio);
}

static bool
is_crowded(const nng_door_context *context)
{
    unsigned own = count_places(context->door, place(CONTEXT_WORKING, pipe_of(context)));
    return ptier_front_is_crowded(context->front, own);
}

static void
received(nng_door_context *context)
{
    context->message = nng_aio_get_msg(context->aio);
    nng_aio_set_msg(context->aio, NULL);
    nng_pipe pipe = nng_msg_get_pipe(context->message);
    atomic_store(context->place, place(CONTEXT_WORKING, (uint32_t)nng_pipe_id(pipe)));
    ptier_front_enter(context->front);
    if (context->peer_pipe != nng_pipe_id(pipe)) {
        context->peer_pipe = nng_pipe_id(pipe);
        context->peer = ptier_auth_peer(context->front->service->auth, pipe);
    }
    ptier_call *call = &context->request.call;
    if (ptier_call_begin(call, &context->peer, ptier_monotonic_ms(), nng_msg_body(context->message),
                         nng_msg_len(context->message)) == PTIER_OK)
        ptier_dispatch_run(context->front->dispatch, &context->request,
                           call->method->lane != PTIER_LANE_INLINE && is_crowded(context));
    else
        send_reply(&context->request);
}

static void
sent(nng_door_context *context, int result)
{
    nng_msg *unsent = result != 0 ? nng_aio_get_msg(context->aio) : NULL;
    if (unsent) {
        nng_msg_free(unsent);
        nng_aio_set_msg(context->aio, NULL);
    }
    if (result == NNG_ETIMEDOUT) {
        /* It does not read its replies: without this it would park every context. */
        nng_pipe pipe = {.id = pipe_of(context)};
        (void)nng_pipe_close(pipe); /* it may be gone already */
        ptier_log_write(context->front->service->log, PTIER_LOG_WARN, "peer_cut_off",
                        "a client did not read its replies");
    }
    atomic_store(&context->front->last_sent_ms, ptier_monotonic_ms());
    ptier_front_leave(context->front);
    receive(context); /* on a closed socket this ends the context */
}

static void
on_aio(void *argument)
{
    nng_door_context *context = argument;
    int result = nng_aio_result(context->aio);
    switch (state_of(context)) {
    case CONTEXT_RECEIVING:
        if (result == 0)
            received(context);
        else if (result == NNG_ECLOSED || result == NNG_ECANCELED)
            atomic_store(context->place, place(CONTEXT_ENDED, 0));
        else
            receive(context);
        break;
    case CONTEXT_SENDING:
        sent(context, result);
        break;
    case CONTEXT_WORKING: /* no operation is pending in these states */
    case CONTEXT_ENDED:
        break;
    }
}

static ptier_status
open_contexts(ptier_nng_door *door, ptier_error *error)
{
    for (; door->context_count < CONTEXTS; door->context_count++) {
        nng_door_context *context = &door->contexts[door->context_count];
        context->door = door;
        context->front = door->front;
        context->place = &door->places[door->context_count];
        context->request.answer = send_reply;
        int rv = nng_aio_alloc(&context->aio, on_aio, context);
        if (rv == 0 && (rv = nng_ctx_open(&context->ctx, door->socket)) != 0)
            nng_aio_free(context->aio);
        if (rv != 0)
            return ptier_fail(error, ptier_status_from_nng(rv), "cannot open contexts: %s",
                              nng_strerror(rv));
        ptier_call_init(&context->request.call, door->front->service);
    }
    return PTIER_OK;
}

static void
free_contexts(ptier_nng_door *door)
{
    for (size_t i = 0; i < door->context_count; i++)
        nng_aio_stop(door->contexts[i].aio); /* waits for a running callback */
    for (size_t i = 0; i < door->context_count; i++) {
        nng_door_context *context = &door->contexts[i];
        nng_aio_free(context->aio);
        drop_request(context);
        ptier_call_fini(&context->request.call);
        ptier_bytes_fini(&context->frame);
    }
}

ptier_status
ptier_nng_door_open(ptier_front *front, ptier_nng_door **door, ptier_error *error)
{
    ptier_nng_door *made = calloc(1, sizeof *made);
    *door = NULL;
    if (!made)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    made->front = front;
    int rv = nng_rep0_open(&made->socket);
    if (rv != 0) {
        free(made);
        return ptier_fail(error, ptier_status_from_nng(rv), "cannot open a socket: %s",
                          nng_strerror(rv));
    }
    ptier_status status = open_contexts(made, error);
    if (status == PTIER_OK)
        status = ptier_gate_guard(front->service->gate, made->socket, false, error);
    if (status != PTIER_OK) {
        ptier_nng_door_close(made);
        return status;
    }
    *door = made;
    return PTIER_OK;
}

ptier_status
ptier_nng_door_listen(ptier_nng_door *door, const char *url, const ptier_listen_options *options,
                      ptier_error *error)
{
    nng_listener listener;
    ptier_status status = ptier_listen(door->socket, url, options, &listener, error);
    if (status == PTIER_OK)
        status = ptier_self_probe_add(
            door->front->service->self_probe,
            &(ptier_probed){.url = url, .socket = door->socket, .listener = listener}, error);
    return status;
}

void
ptier_nng_door_start(ptier_nng_door *door)
{
    for (size_t i = 0; i < door->context_count; i++)
        receive(&door->contexts[i]);
}

void
ptier_nng_door_close(ptier_nng_door *door)
{
    if (!door)
        return;
    (void)nng_close(door->socket); /* fails only for a bad handle */
    free_contexts(door);
    free(door);
}
