/*
 * Opening and closing. One lock guards everything mutable; under it no blocking nng call is made.
 * The connection is the supervisor's, exchanges are in exchange.c.
 */
#include "transport.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monotonic.h"
#include "transport_internal.h"

#define CANCEL_AGAIN_MS 5
#define DIAL_BEGIN_MS   2000 /* by then an attempt has begun, if that cannot be seen */

/* ---- open and close ---- */

int
ptier_thread_start(pthread_t *thread, void *(*run)(void *), void *argument)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rv = pthread_create(thread, NULL, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rv;
}

static void
free_transport(ptier_transport *t)
{
    pthread_cond_destroy(&t->slot_idle);
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->lock);
    free(t->url);
    free(t);
}

ptier_status
ptier_transport_open(const char *url, const ptier_tls *tls, const ptier_owner *owner,
                     ptier_transport **transport, ptier_error *error)
{
    ptier_transport *t = calloc(1, sizeof *t);
    *transport = NULL;
    if (!t || !(t->url = strdup(url))) {
        free(t);
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    }
    if (pthread_mutex_init(&t->lock, NULL) != 0 || ptier_monotonic_cond_init(&t->changed) != 0 ||
        ptier_monotonic_cond_init(&t->slot_idle) != 0) {
        free(t->url);
        free(t);
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "cannot make a lock");
    }
    t->tls = tls;
    t->owner = owner;
    t->down_since = ptier_monotonic_ms();
    t->carrier = ptier_owner_matters(url) ? &ptier_link_carrier : &ptier_nng_carrier;
    int rv = t->carrier->open(t);
    if (rv != 0) {
        free_transport(t);
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "cannot open a socket: %s",
                          nng_strerror(rv));
    }
    rv = ptier_thread_start(&t->supervisor, ptier_transport_supervise, t);
    if (rv != 0) {
        t->carrier->close(t);
        free_transport(t);
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "cannot start a thread: %s",
                          strerror(rv));
    }
    *transport = t;
    return PTIER_OK;
}

const char *
ptier_transport_url(const ptier_transport *t)
{
    return t->url;
}

/* nng does not notice that an operation is cancelled that is just about to begin, hence the
 * repetition. */
static void
cancel_exchanges_locked(ptier_transport *t)
{
    for (;;) {
        size_t busy = 0;
        t->carrier->cancel_all_locked(t, false);
        for (size_t i = 0; i < t->slot_count; i++)
            busy += t->slots[i].busy;
        if (busy == 0)
            return;
        ptier_monotonic_wait(&t->slot_idle, &t->lock, ptier_monotonic_ms() + CANCEL_AGAIN_MS);
    }
}

/*
 * Until the attempt to connect that is under way may be ended from outside; false: it has ended.
 * Mostly it does so by itself in a moment: nng 1.5 leaks a connection whose attempt is ended just
 * when it succeeds.
 */
static bool
wait_dialing_locked(ptier_transport *t)
{
    int64_t now = ptier_monotonic_ms(), grace = now + PTIER_DIAL_GRACE_MS;
    for (; t->dial_started; now = ptier_monotonic_ms()) {
        bool begun = atomic_load(&t->dial_begun) || now - t->dial_started >= DIAL_BEGIN_MS;
        if (begun && now >= grace)
            return true;
        ptier_monotonic_wait(&t->changed, &t->lock, now + CANCEL_AGAIN_MS);
    }
    return false;
}

void
ptier_transport_cancel(ptier_transport *t)
{
    pthread_mutex_lock(&t->lock);
    t->closing = true;
    ptier_transport_tell_locked(t);
    pthread_cond_broadcast(&t->slot_idle);
    cancel_exchanges_locked(t);
    if (wait_dialing_locked(t))
        t->carrier->abandon_locked(t);
    pthread_mutex_unlock(&t->lock);
}

void
ptier_transport_close(ptier_transport *t)
{
    if (!t)
        return;
    ptier_transport_cancel(t);
    pthread_join(t->supervisor, NULL);
    t->carrier->close(t);
    free_transport(t);
}
