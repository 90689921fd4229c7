/*
 * See rpc.h. Each of the contexts below is a small state machine: RECEIVING -> WORKING -> SENDING
 * -> RECEIVING, moved by its aio's callback and by the worker that has its job; one of them at a
 * time, so its fields need no lock.
 */
#include "rpc.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/supplemental/util/platform.h>

#include "dispatch.h"
#include "listen.h"
#include "self_probe.h"

/*
 * A full server must have contexts left that can say so. (Very many contexts cost nng 1.5 quadratic
 * time in its timers, but only for sends that wait; a peer with many of those is cut off, see
 * send_patience.)
 */
#define CONTEXTS        128
#define READ_LIMIT      96 /* calls waiting in the read lane */
#define WRITE_LIMIT     80 /* calls waiting in the write lane: never all contexts */
#define PICK_LIMIT      64 /* calls waiting in the pick lane */
#define SCAN_LIMIT      16 /* calls waiting in the scan lane: each may take seconds */
#define IN_FLIGHT_LIMIT 112

/* Of one connection; less when many calls are under way, so that one leaves room for the others. */
#define CONNECTION_LIMIT         64 /* what one client of the SDK has at most */
#define CONNECTION_LIMIT_CROWDED 16
#define BUSY_CROWDED             80

#define DEDUP_WINDOW_MS     60000
#define DEDUP_IDS           ((size_t)64 * 1024)
#define DEDUP_OUTCOME_BYTES ((size_t)16 * 1024 * 1024)
#define TICK_MS             200

#define SEND_PATIENCE_MS         500
#define SEND_PATIENCE_CROWDED_MS 50
#define CROWDED                  40 /* contexts whose replies one peer leaves unread */

#define LINGER_MS 100 /* between the last reply and the end of all connections */

typedef enum context_state {
    CONTEXT_RECEIVING = 0,
    CONTEXT_WORKING = 1,
    CONTEXT_SENDING = 2,
    CONTEXT_ENDED = 3,
} context_state;

typedef struct rpc_context {
    ptier_request request; /* first: its answer finds the context by it */
    ptier_rpc *rpc;
    _Atomic uint64_t *place; /* state and pipe, in rpc->places */
    nng_ctx ctx;
    nng_aio *aio;
    nng_msg *message;
    ptier_bytes frame;
    int peer_pipe; /* whose facts are below; they never change, and cost system calls */
    ptier_peer peer;
} rpc_context;

struct ptier_rpc {
    ptier_service *service;
    nng_socket socket;
    ptier_dispatch *dispatch;
    nng_aio *tick;
    atomic_uint busy; /* contexts that are not receiving */
    _Atomic int64_t last_sent_ms;
    pthread_mutex_t idle_lock;
    pthread_cond_t idle;
    bool drained; /* under idle_lock */
    size_t context_count;
    _Atomic uint64_t places[CONTEXTS]; /* close together: they are looked through often */
    rpc_context contexts[CONTEXTS];
};

static uint64_t
place(context_state state, uint32_t pipe)
{
    return (uint64_t)state << 32 | pipe;
}

static context_state
state_of(const rpc_context *context)
{
    return (context_state)(atomic_load(context->place) >> 32);
}

static uint32_t
pipe_of(const rpc_context *context)
{
    return (uint32_t)atomic_load(context->place);
}

/* How many contexts one peer has in a state. */
static unsigned
count_places(const ptier_rpc *rpc, uint64_t wanted)
{
    unsigned count = 0;
    for (size_t i = 0; i < rpc->context_count; i++)
        count += atomic_load_explicit(&rpc->places[i], memory_order_relaxed) == wanted;
    return count;
}

static void
receive(rpc_context *context)
{
    atomic_store(context->place, place(CONTEXT_RECEIVING, 0));
    nng_aio_set_timeout(context->aio, NNG_DURATION_INFINITE);
    nng_ctx_recv(context->ctx, context->aio);
}

static void
leave_busy(ptier_rpc *rpc)
{
    if (atomic_fetch_sub(&rpc->busy, 1) != 1 || !atomic_load(&rpc->service->stopping))
        return;
    pthread_mutex_lock(&rpc->idle_lock);
    rpc->drained = true; /* whatever comes now is refused: no need to see a quiet moment again */
    pthread_cond_signal(&rpc->idle);
    pthread_mutex_unlock(&rpc->idle_lock);
}

/* Requests hold credentials: wiped before nng gets the memory back. */
static void
drop_request(rpc_context *context)
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
send_patience(const rpc_context *context)
{
    unsigned waiting = count_places(context->rpc, place(CONTEXT_SENDING, pipe_of(context)));
    return waiting > CROWDED ? SEND_PATIENCE_CROWDED_MS : SEND_PATIENCE_MS;
}

static void
send_reply(ptier_request *request)
{
    rpc_context *context = (rpc_context *)request;
    nng_msg *reply = NULL;
    ptier_status status = ptier_call_finish(&request->call, &context->frame);
    drop_request(context);
    if (status == PTIER_OK && nng_msg_alloc(&reply, context->frame.length) == 0)
        memcpy(nng_msg_body(reply), context->frame.data, context->frame.length);
    ptier_bytes_reset(&context->frame, (size_t)64 * 1024);
    if (!reply) { /* no memory even for an error: the client's deadline tells it */
        leave_busy(context->rpc);
        receive(context);
        return;
    }
    atomic_store(context->place, place(CONTEXT_SENDING, pipe_of(context)));
    nng_aio_set_timeout(context->aio, send_patience(context));
    nng_aio_set_msg(context->aio, reply);
    nng_ctx_send(context->ctx, context->aio);
}

static bool
is_crowded(const rpc_context *context)
{
    unsigned own = count_places(context->rpc, place(CONTEXT_WORKING, pipe_of(context)));
    return own > CONNECTION_LIMIT ||
           (own > CONNECTION_LIMIT_CROWDED && atomic_load(&context->rpc->busy) > BUSY_CROWDED);
}

static void
received(rpc_context *context)
{
    context->message = nng_aio_get_msg(context->aio);
    nng_aio_set_msg(context->aio, NULL);
    nng_pipe pipe = nng_msg_get_pipe(context->message);
    atomic_store(context->place, place(CONTEXT_WORKING, (uint32_t)nng_pipe_id(pipe)));
    atomic_fetch_add(&context->rpc->busy, 1);
    if (context->peer_pipe != nng_pipe_id(pipe)) {
        context->peer_pipe = nng_pipe_id(pipe);
        context->peer = ptier_auth_peer(context->rpc->service->auth, pipe);
    }
    ptier_call *call = &context->request.call;
    if (ptier_call_begin(call, &context->peer, ptier_monotonic_ms(), nng_msg_body(context->message),
                         nng_msg_len(context->message)) == PTIER_OK)
        ptier_dispatch_run(context->rpc->dispatch, &context->request,
                           call->method->lane != PTIER_LANE_INLINE && is_crowded(context));
    else
        send_reply(&context->request);
}

static void
sent(rpc_context *context, int result)
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
        ptier_log_write(context->rpc->service->log, PTIER_LOG_WARN, "peer_cut_off",
                        "a client did not read its replies");
    }
    atomic_store(&context->rpc->last_sent_ms, ptier_monotonic_ms());
    leave_busy(context->rpc);
    receive(context); /* on a closed socket this ends the context */
}

static void
on_aio(void *argument)
{
    rpc_context *context = argument;
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
open_contexts(ptier_rpc *rpc, ptier_error *error)
{
    for (; rpc->context_count < CONTEXTS; rpc->context_count++) {
        rpc_context *context = &rpc->contexts[rpc->context_count];
        context->rpc = rpc;
        context->place = &rpc->places[rpc->context_count];
        context->request.answer = send_reply;
        int rv = nng_aio_alloc(&context->aio, on_aio, context);
        if (rv == 0 && (rv = nng_ctx_open(&context->ctx, rpc->socket)) != 0)
            nng_aio_free(context->aio);
        if (rv != 0)
            return ptier_fail(error, ptier_status_from_nng(rv), "cannot open contexts: %s",
                              nng_strerror(rv));
        ptier_call_init(&context->request.call, rpc->service);
    }
    return PTIER_OK;
}

static void
free_contexts(ptier_rpc *rpc)
{
    for (size_t i = 0; i < rpc->context_count; i++)
        nng_aio_stop(rpc->contexts[i].aio); /* waits for a running callback */
    for (size_t i = 0; i < rpc->context_count; i++) {
        rpc_context *context = &rpc->contexts[i];
        nng_aio_free(context->aio);
        drop_request(context);
        ptier_call_fini(&context->request.call);
        ptier_bytes_fini(&context->frame);
    }
}

/* ---- the tick of what waits for a double of its call ---- */

static void
on_tick(void *argument)
{
    ptier_rpc *rpc = argument;
    if (nng_aio_result(rpc->tick) != 0)
        return; /* being stopped */
    ptier_dispatch_tick(rpc->dispatch);
    nng_sleep_aio(TICK_MS, rpc->tick);
}

static void
destroy(ptier_rpc *rpc)
{
    if (rpc->tick)
        nng_aio_stop(rpc->tick); /* waits for a running callback, also of a stopped one */
    nng_aio_free(rpc->tick);
    ptier_dispatch_destroy(rpc->dispatch);
    pthread_cond_destroy(&rpc->idle);
    pthread_mutex_destroy(&rpc->idle_lock);
    free(rpc);
}

static ptier_rpc *
create(ptier_service *service)
{
    ptier_rpc *rpc = calloc(1, sizeof *rpc);
    if (!rpc)
        return NULL;
    rpc->service = service;
    pthread_mutex_init(&rpc->idle_lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&rpc->idle, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return rpc;
}

static ptier_status
start_dispatch(ptier_rpc *rpc, ptier_error *error)
{
    ptier_dispatch_limits limits = {.in_flight = IN_FLIGHT_LIMIT,
                                    .lane = {[PTIER_LANE_READ] = READ_LIMIT,
                                             [PTIER_LANE_WRITE] = WRITE_LIMIT,
                                             [PTIER_LANE_PICK] = PICK_LIMIT,
                                             [PTIER_LANE_SCAN] = SCAN_LIMIT},
                                    .dedup = {.entries = DEDUP_IDS,
                                              .outcome_bytes = DEDUP_OUTCOME_BYTES,
                                              .window_ms = DEDUP_WINDOW_MS}};
    memcpy(&limits.dedup.seed, rpc->service->boot_id, sizeof limits.dedup.seed);
    ptier_status status = ptier_dispatch_start(rpc->service, &limits, &rpc->dispatch, error);
    if (status == PTIER_OK && nng_aio_alloc(&rpc->tick, on_tick, rpc) != 0)
        status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    return status;
}

static ptier_status
listen_on(ptier_rpc *rpc, const char *const *urls, size_t url_count,
          const ptier_listen_options *options, ptier_error *error)
{
    ptier_status status = open_contexts(rpc, error);
    if (status == PTIER_OK)
        status = ptier_gate_guard(rpc->service->gate, rpc->socket, false, error);
    for (size_t i = 0; i < url_count && status == PTIER_OK; i++) {
        nng_listener listener;
        status = ptier_listen(rpc->socket, urls[i], options, &listener, error);
        if (status == PTIER_OK)
            status = ptier_self_probe_add(rpc->service->self_probe, rpc->socket, urls[i], false,
                                          listener, error);
    }
    return status;
}

ptier_status
ptier_rpc_start(ptier_service *service, const char *const *urls, size_t url_count,
                const ptier_listen_options *options, ptier_rpc **rpc, ptier_error *error)
{
    ptier_rpc *made = create(service);
    if (!made)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    ptier_status status = start_dispatch(made, error);
    int rv = status == PTIER_OK ? nng_rep0_open(&made->socket) : 0;
    if (rv != 0)
        status = ptier_fail(error, ptier_status_from_nng(rv), "cannot open a socket: %s",
                            nng_strerror(rv));
    if (status != PTIER_OK) {
        destroy(made);
        return status;
    }
    status = listen_on(made, urls, url_count, options, error);
    if (status != PTIER_OK) {
        (void)nng_close(made->socket); /* fails only for a bad handle */
        free_contexts(made);
        destroy(made);
        return status;
    }
    for (size_t i = 0; i < made->context_count; i++)
        receive(&made->contexts[i]);
    nng_sleep_aio(TICK_MS, made->tick);
    *rpc = made;
    return PTIER_OK;
}

static void
wait_until_idle(ptier_rpc *rpc, int64_t drain_ms)
{
    struct timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += drain_ms / 1000;
    deadline.tv_nsec += drain_ms % 1000 * 1000000;
    if (deadline.tv_nsec >= 1000000000) {
        deadline.tv_sec++;
        deadline.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&rpc->idle_lock);
    while (!rpc->drained && atomic_load(&rpc->busy) > 0)
        if (pthread_cond_timedwait(&rpc->idle, &rpc->idle_lock, &deadline) == ETIMEDOUT)
            break;
    pthread_mutex_unlock(&rpc->idle_lock);
}

/* nng's own clients drop a reply that they find together with the end of the connection: leave time
 * between the two. */
static void
linger(const ptier_rpc *rpc)
{
    int64_t left = atomic_load(&rpc->last_sent_ms) + LINGER_MS - ptier_monotonic_ms();
    if (left > 0)
        nng_msleep((nng_duration)left);
}

void
ptier_rpc_stop(ptier_rpc *rpc, int64_t drain_ms)
{
    if (!rpc)
        return;
    atomic_store(&rpc->service->stopping, true);
    wait_until_idle(rpc, drain_ms);
    atomic_store(&rpc->service->hurrying, true);
    nng_aio_stop(rpc->tick); /* waits for a running callback */
    /* Workers before contexts: a late job still sends through its own. */
    ptier_dispatch_drain(rpc->dispatch);
    linger(rpc);
    (void)nng_close(rpc->socket); /* fails only for a bad handle */
    free_contexts(rpc);
    destroy(rpc);
}
