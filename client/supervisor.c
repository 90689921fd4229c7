/*
 * Keeps a transport connected: dials, notices a lost or mute connection, dials anew after a
 * jittered pause. Runs on a thread of its own and in nng's pipe callbacks; the transport's lock
 * guards everything shared.
 */
#include <nng/nng.h>
#include <nng/supplemental/util/platform.h>

#include "monotonic.h"
#include "nng_workaround_stream.h"
#include "tls.h"
#include "transport_internal.h"

#define REPLY_MAX      ((size_t)64 << 20)
#define BACKOFF_MIN_MS 20
#define BACKOFF_MAX_MS 2000
#define ATTEMPT_GAP_MS 20   /* between attempts that callers ask for */
#define STABLE_MS      1000 /* a connection that held so long resets the back-off */

/*
 * Before nng uses the connection, for what waits to be sent, too: a stranger gets SP's greeting and
 * nothing else.
 */
void
ptier_transport_pipe_offered(nng_pipe pipe, nng_pipe_ev event, void *context)
{
    ptier_transport *t = context;
    (void)event;
    uint64_t uid;
    if (!ptier_owner_matters(t->url))
        return;
    if (nng_pipe_get_uint64(pipe, NNG_OPT_IPC_PEER_UID, &uid) != 0)
        uid = PTIER_OWNER_UNKNOWN;
    if (ptier_owner_is_trusted(t->owner, uid))
        return;
    pthread_mutex_lock(&t->lock);
    t->strange = true;
    t->stranger = uid;
    t->strange_pipe = nng_pipe_id(pipe);
    pthread_mutex_unlock(&t->lock);
    (void)nng_pipe_close(pipe); /* fails only when it is closed */
}

void
ptier_transport_pipe_added(nng_pipe pipe, nng_pipe_ev event, void *context)
{
    ptier_transport *t = context;
    (void)event;
    bool gone = false;
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < PTIER_GONE_KEPT; i++)
        gone = gone || t->gone[i] == nng_pipe_id(pipe);
    if (gone) {
        t->dropped = true;
    } else {
        t->pipe = nng_pipe_id(pipe);
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
void
ptier_transport_pipe_removed(nng_pipe pipe, nng_pipe_ev event, void *context)
{
    ptier_transport *t = context;
    (void)event;
    pthread_mutex_lock(&t->lock);
    bool ours = t->connected && t->pipe == nng_pipe_id(pipe);
    bool strange = t->strange_pipe == nng_pipe_id(pipe);
    nng_dialer dialer = strange ? nng_pipe_dialer(pipe) : t->dialer;
    if (!ours) /* nng may tell the end of a short connection before its beginning */
        t->gone[t->gone_count++ % PTIER_GONE_KEPT] = nng_pipe_id(pipe);
    if (ours) {
        t->dropped = true;
        t->connected = false;
        t->down_since = ptier_monotonic_ms();
        ptier_transport_tell_locked(t);
    }
    pthread_mutex_unlock(&t->lock);
    if (ours || strange)
        (void)nng_dialer_close(dialer); /* the supervisor may have been faster */
}

/* One attempt to connect. 0 or an nng error. */
static int
dial(ptier_transport *t)
{
    nng_dialer dialer;
    int rv = nng_dialer_create(&dialer, t->socket, t->url);
    if (rv != 0)
        return rv;
    if ((rv = nng_dialer_set_size(dialer, NNG_OPT_RECVMAXSZ, REPLY_MAX)) != 0 ||
        (rv = ptier_tls_dialer(dialer, t->url, t->tls)) != 0) {
        (void)nng_dialer_close(dialer); /* was never started */
        return rv;
    }
    pthread_mutex_lock(&t->lock);
    bool closing = t->closing;
    t->dialer = dialer;
    t->dial_started = ptier_monotonic_ms();
    atomic_store(&t->dial_begun, false);
    t->wanted = false;
    t->abandoned = false;
    t->strange = false;
    pthread_mutex_unlock(&t->lock);
    rv = closing ? NNG_ECANCELED : nng_dialer_start(dialer, 0);
    pthread_mutex_lock(&t->lock);
    t->dial_started = 0;
    if (t->strange)
        rv = NNG_EPEERAUTH;
    pthread_mutex_unlock(&t->lock);
    if (rv != 0)
        (void)nng_dialer_close(dialer); /* closed already when a caller gave it up */
    return rv;
}

static void
note_failure_locked(ptier_transport *t, int rv)
{
    if (!t->abandoned) { /* one that hung says nothing of those to come */
        t->failures++;
        t->last_error = rv;
    }
    /* What was queued for a connection that has gone must not wait for the next one. */
    for (size_t i = 0; i < t->slot_count; i++)
        if (t->slots[i].phase == PTIER_SLOT_SENDING)
            nng_aio_cancel(t->slots[i].aio);
    ptier_transport_tell_locked(t);
}

/* Stays while the connection is good. Returns how long it held. */
static int64_t
watch_connection(ptier_transport *t)
{
    int64_t since = ptier_monotonic_ms();
    pthread_mutex_lock(&t->lock);
    while (!t->closing && t->connected && !t->mute)
        pthread_cond_wait(&t->changed, &t->lock);
    t->connected = false;
    t->mute = false;
    t->down_since = ptier_monotonic_ms();
    nng_dialer dialer = t->dialer;
    pthread_mutex_unlock(&t->lock);
    (void)nng_dialer_close(dialer); /* closes its pipe too */
    return ptier_monotonic_ms() - since;
}

static void
back_off_locked(ptier_transport *t, int64_t pause)
{
    int64_t now = ptier_monotonic_ms();
    int64_t soonest = now + ATTEMPT_GAP_MS;
    int64_t latest = now + pause / 2 + (int64_t)(nng_random() % (uint32_t)(pause / 2 + 1));
    while (!t->closing) {
        int64_t until = t->wanted && soonest < latest ? soonest : latest;
        if (ptier_monotonic_ms() >= until)
            return;
        ptier_monotonic_wait(&t->changed, &t->lock, until);
    }
}

void *
ptier_transport_supervise(void *argument)
{
    ptier_transport *t = argument;
    int64_t pause = BACKOFF_MIN_MS;
    ptier_nng_workaround_stream_mark_dials(&t->dial_begun);
    pthread_mutex_lock(&t->lock);
    while (!t->closing) {
        pthread_mutex_unlock(&t->lock);
        int rv = dial(t);
        if (rv == 0 && watch_connection(t) >= STABLE_MS)
            pause = BACKOFF_MIN_MS;
        pthread_mutex_lock(&t->lock);
        if (rv != 0)
            note_failure_locked(t, rv);
        back_off_locked(t, pause);
        pause = pause * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : pause * 2;
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}
