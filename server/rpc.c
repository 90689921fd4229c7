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

#include "listen.h"
#include "workers.h"

/*
 * A full server must have contexts left that can say so. (Very many contexts cost nng 1.5 quadratic
 * time in its timers, but only for sends that wait; a peer with many of those is cut off, see
 * send_patience.)
 */
#define CONTEXTS        80
#define READ_LIMIT      64 /* calls waiting in the read lane */
#define WRITE_LIMIT     48 /* calls waiting in the write lane: never all contexts */
#define IN_FLIGHT_LIMIT 72

#define SEND_PATIENCE_MS         500
#define SEND_PATIENCE_CROWDED_MS 50
#define CROWDED                  (CONTEXTS / 2) /* contexts whose replies one peer leaves unread */

#define LINGER_MS 100 /* between the last reply and the end of all connections */

typedef enum context_state {
    CONTEXT_RECEIVING = 0,
    CONTEXT_WORKING = 1,
    CONTEXT_SENDING = 2,
    CONTEXT_ENDED = 3,
} context_state;

typedef struct rpc_context {
    ptier_job job; /* first: the worker hands this back */
    ptier_rpc *rpc;
    nng_ctx ctx;
    nng_aio *aio;
    _Atomic context_state state;
    _Atomic uint32_t pipe; /* whose request it has */
    nng_msg *request;
    ptier_call call;
    ptier_bytes frame;
} rpc_context;

struct ptier_rpc {
    ptier_service *service;
    nng_socket socket;
    ptier_workers *workers;
    atomic_uint in_flight; /* with a worker, or waiting for one */
    atomic_uint busy;      /* contexts that are not receiving */
    _Atomic int64_t last_sent_ms;
    pthread_mutex_t idle_lock;
    pthread_cond_t idle;
    bool drained; /* under idle_lock */
    size_t context_count;
    rpc_context contexts[CONTEXTS];
};

static void
receive(rpc_context *context)
{
    atomic_store(&context->state, CONTEXT_RECEIVING);
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
    if (!context->request)
        return;
    explicit_bzero(nng_msg_body(context->request), nng_msg_len(context->request));
    nng_msg_free(context->request);
    context->request = NULL;
}

/* How long a reply may wait to be taken: less for a peer that already keeps many contexts waiting.
 */
static nng_duration
send_patience(const rpc_context *context)
{
    const ptier_rpc *rpc = context->rpc;
    uint32_t pipe = atomic_load(&context->pipe);
    unsigned waiting = 0;
    for (size_t i = 0; i < rpc->context_count; i++)
        if (atomic_load(&rpc->contexts[i].state) == CONTEXT_SENDING &&
            atomic_load(&rpc->contexts[i].pipe) == pipe)
            waiting++;
    return waiting > CROWDED ? SEND_PATIENCE_CROWDED_MS : SEND_PATIENCE_MS;
}

static void
send_reply(rpc_context *context)
{
    nng_msg *reply = NULL;
    ptier_status status = ptier_call_finish(&context->call, &context->frame);
    drop_request(context);
    if (status == PTIER_OK && nng_msg_alloc(&reply, context->frame.length) == 0)
        memcpy(nng_msg_body(reply), context->frame.data, context->frame.length);
    ptier_bytes_reset(&context->frame, (size_t)64 * 1024);
    if (!reply) { /* no memory even for an error: the client's deadline tells it */
        leave_busy(context->rpc);
        receive(context);
        return;
    }
    atomic_store(&context->state, CONTEXT_SENDING);
    nng_aio_set_timeout(context->aio, send_patience(context));
    nng_aio_set_msg(context->aio, reply);
    nng_ctx_send(context->ctx, context->aio);
}

static void
run_job(ptier_job *job)
{
    rpc_context *context = (rpc_context *)job;
    ptier_call_run(&context->call);
    atomic_fetch_sub(&context->rpc->in_flight, 1);
    send_reply(context);
}

static void
submit(rpc_context *context)
{
    ptier_rpc *rpc = context->rpc;
    context->job.run = run_job;
    if (atomic_fetch_add(&rpc->in_flight, 1) < IN_FLIGHT_LIMIT &&
        ptier_workers_submit(rpc->workers, context->call.method->lane, &context->job))
        return;
    atomic_fetch_sub(&rpc->in_flight, 1);
    ptier_call_fail(&context->call, PTIER_RESOURCE_EXHAUSTED,
                    "the daemon has more calls waiting than it takes: try again in a moment");
    send_reply(context);
}

static void
received(rpc_context *context)
{
    context->request = nng_aio_get_msg(context->aio);
    nng_aio_set_msg(context->aio, NULL);
    nng_pipe pipe = nng_msg_get_pipe(context->request);
    atomic_store(&context->pipe, (uint32_t)nng_pipe_id(pipe));
    atomic_store(&context->state, CONTEXT_WORKING);
    atomic_fetch_add(&context->rpc->busy, 1);
    ptier_peer peer = ptier_auth_peer(context->rpc->service->auth, pipe);
    ptier_status status =
        ptier_call_begin(&context->call, &peer, ptier_monotonic_ms(),
                         nng_msg_body(context->request), nng_msg_len(context->request));
    if (status != PTIER_OK) {
        send_reply(context);
    } else if (context->call.method->lane == PTIER_LANE_INLINE) {
        ptier_call_run(&context->call);
        send_reply(context);
    } else {
        submit(context);
    }
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
        nng_pipe pipe = {.id = atomic_load(&context->pipe)};
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
    switch (atomic_load(&context->state)) {
    case CONTEXT_RECEIVING:
        if (result == 0)
            received(context);
        else if (result == NNG_ECLOSED || result == NNG_ECANCELED)
            atomic_store(&context->state, CONTEXT_ENDED);
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
        int rv = nng_aio_alloc(&context->aio, on_aio, context);
        if (rv == 0 && (rv = nng_ctx_open(&context->ctx, rpc->socket)) != 0)
            nng_aio_free(context->aio);
        if (rv != 0)
            return ptier_fail(error, ptier_status_from_nng(rv), "cannot open contexts: %s",
                              nng_strerror(rv));
        ptier_call_init(&context->call, rpc->service);
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
        ptier_call_fini(&context->call);
        ptier_bytes_fini(&context->frame);
    }
}

ptier_status
ptier_rpc_start(ptier_service *service, const char *const *urls, size_t url_count,
                const ptier_listen_options *options, ptier_rpc **rpc, ptier_error *error)
{
    static const size_t limits[PTIER_LANE_COUNT] = {
        [PTIER_LANE_READ] = READ_LIMIT, [PTIER_LANE_WRITE] = WRITE_LIMIT};
    ptier_rpc *made = calloc(1, sizeof *made);
    if (!made)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    made->service = service;
    pthread_mutex_init(&made->idle_lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&made->idle, &monotonic);
    pthread_condattr_destroy(&monotonic);
    ptier_status status = ptier_workers_start(limits, &made->workers, error);
    if (status != PTIER_OK)
        goto fail_workers;
    int rv = nng_rep0_open(&made->socket);
    if (rv != 0) {
        status = ptier_fail(error, ptier_status_from_nng(rv), "cannot open a socket: %s",
                            nng_strerror(rv));
        goto fail_socket;
    }
    status = open_contexts(made, error);
    if (status == PTIER_OK)
        status = ptier_gate_guard(service->gate, made->socket, false, error);
    for (size_t i = 0; i < url_count && status == PTIER_OK; i++) {
        nng_listener listener;
        status = ptier_listen(made->socket, urls[i], options, &listener, error);
    }
    if (status == PTIER_OK) {
        for (size_t i = 0; i < made->context_count; i++)
            receive(&made->contexts[i]);
        *rpc = made;
        return PTIER_OK;
    }
    (void)nng_close(made->socket); /* fails only for a bad handle */
    free_contexts(made);
fail_socket:
    ptier_workers_stop(made->workers);
fail_workers:
    pthread_cond_destroy(&made->idle);
    pthread_mutex_destroy(&made->idle_lock);
    free(made);
    return status;
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
    /* Workers before contexts: a late job still sends through its own. */
    ptier_workers_stop(rpc->workers);
    linger(rpc);
    (void)nng_close(rpc->socket); /* fails only for a bad handle */
    free_contexts(rpc);
    pthread_cond_destroy(&rpc->idle);
    pthread_mutex_destroy(&rpc->idle_lock);
    free(rpc);
}
