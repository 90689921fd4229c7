/*
 * Keeps a transport connected: dials, notices a lost or mute connection, dials anew after a
 * jittered pause. Runs on a thread of its own; the transport's lock guards everything shared.
 */
#include "monotonic.h"
#include "nng_workaround_stream.h"
#include "pause.h"
#include "transport_internal.h"

#define BACKOFF_MIN_MS 20
#define BACKOFF_MAX_MS 2000
#define ATTEMPT_GAP_MS 20   /* between attempts that callers ask for */
#define STABLE_MS      1000 /* a connection that held so long resets the back-off */

bool
ptier_transport_dials_locked(ptier_transport *t)
{
    t->dial_started = ptier_monotonic_ms();
    t->wanted = false;
    t->abandoned = false;
    t->strange = false;
    return !t->closing;
}

/* One attempt to connect. 0 or an nng error. */
static int
dial(ptier_transport *t)
{
    atomic_store(&t->dial_begun, false);
    int rv = t->carrier->dial(t);
    pthread_mutex_lock(&t->lock);
    t->dial_started = 0;
    if (t->strange)
        rv = NNG_EPEERAUTH;
    pthread_mutex_unlock(&t->lock);
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
    t->carrier->cancel_all_locked(t, true);
    ptier_transport_tell_locked(t);
}

/* Stays while the connection is good. Returns how long it held. */
static int64_t
watch_connection(ptier_transport *t)
{
    int64_t since = ptier_monotonic_ms();
    t->carrier->attend(t);
    pthread_mutex_lock(&t->lock);
    t->connected = false;
    t->mute = false;
    t->down_since = ptier_monotonic_ms();
    pthread_mutex_unlock(&t->lock);
    t->carrier->hang_up(t);
    return ptier_monotonic_ms() - since;
}

static void
back_off_locked(ptier_transport *t, int64_t pause)
{
    int64_t now = ptier_monotonic_ms();
    int64_t soonest = now + ATTEMPT_GAP_MS;
    int64_t latest = now + ptier_pause_jittered(pause);
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
