/* The carrier of network addresses: a REQ socket of nng, each exchange on a context of its own. */
#include <signal.h>
#include <stdlib.h>

#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>

#include "monotonic.h"
#include "nng_workaround_stream.h"
#include "tls.h"
#include "transport_internal.h"

#define GONE_KEPT 8

typedef enum slot_phase { SLOT_IDLE, SLOT_SENDING, SLOT_WAITING } slot_phase;

typedef struct nng_slot {
    nng_ctx ctx;
    nng_aio *aio; /* in use: one of */
    nng_aio *waited;
    nng_aio *called; /* has a callback */
    bool open;       /* ctx is */
    slot_phase phase;
    ptier_slot *slot;
} nng_slot;

struct ptier_nng {
    nng_socket socket;
    nng_dialer dialer;
    int pipe;            /* id of the pipe in use */
    int gone[GONE_KEPT]; /* ids of the last pipes that ended while they were not in use */
    unsigned gone_count;
    nng_slot slots[PTIER_SLOTS_MAX];
};

/* ---- the connection ---- */

static void
on_pipe_added(nng_pipe pipe, nng_pipe_ev event, void *context)
{
    ptier_transport *t = context;
    struct ptier_nng *nng = t->nng;
    (void)event;
    bool gone = false;
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < GONE_KEPT; i++)
        gone = gone || nng->gone[i] == nng_pipe_id(pipe);
    if (gone) {
        t->dropped = true;
    } else {
        nng->pipe = nng_pipe_id(pipe);
        t->connected = true;
        t->mute = false;
        t->unanswered_since = 0;
    }
    ptier_transport_tell_locked(t);
    pthread_mutex_unlock(&t->lock);
}

/*
 * Closes the dialer here, before nng takes the pipe from it: later it would already be dialing
 * again, and our closing would cut that connection off in its handshake, which ends the listener of
 * a peer with nng 1.5.
 */
static void
on_pipe_removed(nng_pipe pipe, nng_pipe_ev event, void *context)
{
    ptier_transport *t = context;
    struct ptier_nng *nng = t->nng;
    (void)event;
    pthread_mutex_lock(&t->lock);
    bool ours = t->connected && nng->pipe == nng_pipe_id(pipe);
    nng_dialer dialer = nng->dialer;
    if (ours) {
        t->dropped = true;
        t->connected = false;
        t->down_since = ptier_monotonic_ms();
        ptier_transport_tell_locked(t);
    } else { /* nng may tell the end of a short connection before its beginning */
        nng->gone[nng->gone_count++ % GONE_KEPT] = nng_pipe_id(pipe);
    }
    pthread_mutex_unlock(&t->lock);
    if (ours)
        (void)nng_dialer_close(dialer); /* the supervisor may have been faster */
}

static int
open_socket(ptier_transport *t, nng_socket *socket)
{
    sigset_t all, before;
    ptier_nng_workaround_stream();
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* nng starts its threads here */
    int rv = nng_req0_open(socket);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rv != 0)
        return rv;
    if ((rv = nng_socket_set_ms(*socket, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE)) != 0 ||
        (rv = nng_pipe_notify(*socket, NNG_PIPE_EV_ADD_POST, on_pipe_added, t)) != 0 ||
        (rv = nng_pipe_notify(*socket, NNG_PIPE_EV_REM_POST, on_pipe_removed, t)) != 0)
        (void)nng_close(*socket); /* nothing was done with it */
    return rv;
}

static int
open_nng(ptier_transport *t)
{
    t->nng = calloc(1, sizeof *t->nng);
    if (!t->nng)
        return NNG_ENOMEM;
    int rv = open_socket(t, &t->nng->socket);
    if (rv != 0)
        free(t->nng);
    return rv;
}

/* The socket goes last: nng 1.5 does not stand a context or dialer that is closed beside its
 * socket. */
static void
close_nng(ptier_transport *t)
{
    for (size_t i = 0; i < PTIER_SLOTS_MAX; i++) {
        nng_slot *n = &t->nng->slots[i];
        if (n->open)
            (void)nng_ctx_close(n->ctx); /* nobody uses it any more */
        nng_aio_free(n->waited);
        nng_aio_free(n->called);
    }
    (void)nng_close(t->nng->socket); /* nothing is under way on it */
    free(t->nng);
}

static int
dial(ptier_transport *t)
{
    nng_dialer dialer;
    int rv = nng_dialer_create(&dialer, t->nng->socket, t->url);
    if (rv != 0)
        return rv;
    if ((rv = nng_dialer_set_size(dialer, NNG_OPT_RECVMAXSZ, PTIER_REPLY_MAX)) != 0 ||
        (rv = ptier_tls_dialer(dialer, t->url, t->tls)) != 0) {
        (void)nng_dialer_close(dialer); /* was never started */
        return rv;
    }
    pthread_mutex_lock(&t->lock);
    t->nng->dialer = dialer;
    bool wanted = ptier_transport_dials_locked(t);
    pthread_mutex_unlock(&t->lock);
    rv = wanted ? nng_dialer_start(dialer, 0) : NNG_ECANCELED;
    if (rv != 0)
        (void)nng_dialer_close(dialer); /* closed already when a caller gave it up */
    return rv;
}

static void
abandon_locked(ptier_transport *t)
{
    nng_dialer dialer = t->nng->dialer;
    pthread_mutex_unlock(&t->lock);
    (void)nng_dialer_close(dialer); /* may have ended by itself */
    pthread_mutex_lock(&t->lock);
}

static void
attend(ptier_transport *t)
{
    pthread_mutex_lock(&t->lock);
    while (!t->closing && t->connected && !t->mute)
        pthread_cond_wait(&t->changed, &t->lock);
    pthread_mutex_unlock(&t->lock);
}

static void
hang_up(ptier_transport *t)
{
    (void)nng_dialer_close(t->nng->dialer); /* closes its pipe too */
}

/* ---- exchanges ---- */

static void step(void *argument);

/* The context stays open: what goes wrong with a request resets it, and a late reply finds nobody.
 */
static int
make_ready(ptier_transport *t, ptier_slot *s)
{
    nng_slot *n = &t->nng->slots[s->index];
    nng_aio **aio = s->exchange ? &n->called : &n->waited;
    int rv = 0;
    n->slot = s;
    if (!*aio)
        rv = s->exchange ? nng_aio_alloc(aio, step, n) : nng_aio_alloc(aio, NULL, NULL);
    if (rv == 0 && !n->open) {
        rv = nng_ctx_open(&n->ctx, t->nng->socket);
        n->open = rv == 0;
    }
    if (rv != 0)
        return rv;
    pthread_mutex_lock(&t->lock);
    n->aio = *aio;
    n->phase = SLOT_SENDING;
    pthread_mutex_unlock(&t->lock);
    return 0;
}

static nng_duration
time_left(int64_t deadline)
{
    int64_t left = deadline - ptier_monotonic_ms();
    return left < 1 ? 1 : left > INT32_MAX ? INT32_MAX : (nng_duration)left;
}

static void
begin_send(nng_slot *n, nng_msg *request, int64_t deadline)
{
    nng_aio_set_timeout(n->aio, time_left(deadline));
    nng_aio_set_msg(n->aio, request);
    nng_ctx_send(n->ctx, n->aio);
}

static void
begin_receive(nng_slot *n, int64_t deadline)
{
    nng_aio_set_timeout(n->aio, time_left(deadline));
    nng_ctx_recv(n->ctx, n->aio);
}

/* After a send ended with `rv`. */
static void
note_sent(ptier_transport *t, nng_slot *n, int rv)
{
    nng_msg *back = rv != 0 ? nng_aio_get_msg(n->aio) : NULL; /* nng's own when it was sent */
    nng_aio_set_msg(n->aio, NULL);
    if (back)
        ptier_message_discard(back);
    if (rv != 0)
        return;
    pthread_mutex_lock(&t->lock);
    n->phase = SLOT_WAITING;
    ptier_transport_sent_locked(t);
    pthread_mutex_unlock(&t->lock);
}

static void
note_received(ptier_transport *t, nng_slot *n, int rv, nng_msg **reply)
{
    if (rv == 0) {
        *reply = nng_aio_get_msg(n->aio);
        nng_aio_set_msg(n->aio, NULL);
    }
    pthread_mutex_lock(&t->lock);
    if (rv == 0) {
        ptier_transport_answered_locked(t);
    } else if (rv == NNG_ETIMEDOUT && ptier_transport_is_mute_locked(t)) {
        /* No call may use it from here on: nng leaks what is sent while it closes. */
        t->mute = true;
        t->connected = false;
        t->down_since = ptier_monotonic_ms();
        ptier_transport_tell_locked(t);
    }
    pthread_mutex_unlock(&t->lock);
}

/* The slot is at rest: it can be cancelled no more. */
static void
settle(ptier_transport *t, nng_slot *n)
{
    pthread_mutex_lock(&t->lock);
    n->phase = SLOT_IDLE;
    pthread_mutex_unlock(&t->lock);
}

static int
exchange(ptier_transport *t, ptier_slot *s, nng_msg *request, int64_t deadline, nng_msg **reply,
         bool *sent)
{
    nng_slot *n = &t->nng->slots[s->index];
    begin_send(n, request, deadline);
    nng_aio_wait(n->aio);
    int rv = nng_aio_result(n->aio);
    note_sent(t, n, rv);
    *sent = rv == 0;
    if (rv == 0) {
        begin_receive(n, deadline);
        nng_aio_wait(n->aio);
        rv = nng_aio_result(n->aio);
        note_received(t, n, rv, reply);
    }
    settle(t, n);
    return rv;
}

/* nng's callback, after the send and after the receive. */
static void
step(void *argument)
{
    nng_slot *n = argument;
    ptier_exchange *x = n->slot->exchange;
    int rv = nng_aio_result(n->aio);
    if (!x->sent) {
        note_sent(x->transport, n, rv);
        x->sent = rv == 0;
        if (rv == 0 && !atomic_load(&x->cancelled)) {
            begin_receive(n, x->deadline);
            return;
        }
        x->rv = rv != 0 ? rv : NNG_ECANCELED;
    } else {
        note_received(x->transport, n, rv, &x->reply);
        x->rv = rv;
    }
    settle(x->transport, n);
    x->done(x);
}

static void
start(ptier_exchange *x, nng_msg *request)
{
    begin_send(&x->transport->nng->slots[x->slot->index], request, x->deadline);
}

static void
cancel(ptier_exchange *x)
{
    nng_aio_cancel(x->transport->nng->slots[x->slot->index].aio);
}

static void
cancel_all_locked(ptier_transport *t, bool unsent_only)
{
    for (size_t i = 0; i < t->slot_count; i++) {
        nng_slot *n = &t->nng->slots[i];
        if (n->phase == SLOT_SENDING || (n->phase == SLOT_WAITING && !unsent_only))
            nng_aio_cancel(n->aio);
    }
}

const ptier_carrier ptier_nng_carrier = {
    .open = open_nng,
    .close = close_nng,
    .dial = dial,
    .attend = attend,
    .hang_up = hang_up,
    .abandon_locked = abandon_locked,
    .make_ready = make_ready,
    .exchange = exchange,
    .start = start,
    .cancel = cancel,
    .cancel_all_locked = cancel_all_locked,
};
