/*
 * Opening, closing, and exchanges, which any number of threads make at once, each on a context of
 * its own from a pool. One lock guards everything mutable; under it no blocking nng call is made.
 * The connection is the supervisor's.
 */
#include "transport.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nng/protocol/reqrep0/req.h>

#include "monotonic.h"
#include "nng_workaround_stream.h"
#include "transport_internal.h"

#define PATIENCE_MS     150  /* a caller waits this long for a daemon that went down a moment ago */
#define FRESHLY_DOWN_MS 1000 /* "a moment ago" */
#define DIAL_BOUND_MS   3000 /* an attempt that takes longer is given up */
#define MUTE_BOUND_MS   2000 /* nothing answered for so long: the connection is given up */
#define CANCEL_AGAIN_MS 5

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

static int
open_socket(ptier_transport *t)
{
    sigset_t all, before;
    ptier_nng_workaround_stream();
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* nng starts its threads here */
    int rv = nng_req0_open(&t->socket);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rv != 0)
        return rv;
    if ((rv = nng_socket_set_ms(t->socket, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE)) != 0 ||
        (rv = nng_pipe_notify(t->socket, NNG_PIPE_EV_ADD_POST, ptier_transport_pipe_added, t)) !=
            0 ||
        (rv = nng_pipe_notify(t->socket, NNG_PIPE_EV_REM_POST, ptier_transport_pipe_removed, t)) !=
            0)
        (void)nng_close(t->socket); /* nothing was done with it */
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
ptier_transport_open(const char *url, const ptier_tls *tls, ptier_transport **transport,
                     ptier_error *error)
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
    t->down_since = ptier_monotonic_ms();
    int rv = open_socket(t);
    if (rv != 0) {
        free_transport(t);
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "cannot open a socket: %s",
                          nng_strerror(rv));
    }
    rv = ptier_thread_start(&t->supervisor, ptier_transport_supervise, t);
    if (rv != 0) {
        (void)nng_close(t->socket); /* nothing was done with it */
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

/* Cancelling an operation that is just about to begin has no effect, hence the repetition. */
static void
cancel_exchanges_locked(ptier_transport *t)
{
    for (;;) {
        size_t busy = 0;
        for (size_t i = 0; i < t->slot_count; i++) {
            if (t->slots[i].phase == PTIER_SLOT_IDLE)
                continue;
            busy++;
            nng_aio_cancel(t->slots[i].aio);
        }
        if (busy == 0)
            return;
        ptier_monotonic_wait(&t->slot_idle, &t->lock, ptier_monotonic_ms() + CANCEL_AGAIN_MS);
    }
}

void
ptier_transport_cancel(ptier_transport *t)
{
    pthread_mutex_lock(&t->lock);
    t->closing = true;
    nng_dialer dialer = t->dialer;
    bool dialing = t->dial_started != 0;
    pthread_cond_broadcast(&t->changed);
    pthread_cond_broadcast(&t->slot_idle);
    cancel_exchanges_locked(t);
    pthread_mutex_unlock(&t->lock);
    if (dialing)
        (void)nng_dialer_close(dialer); /* ends the attempt; may have ended by itself */
}

/* The socket goes last: nng 1.5 does not stand a context or dialer that is closed beside its
 * socket. */
void
ptier_transport_close(ptier_transport *t)
{
    if (!t)
        return;
    ptier_transport_cancel(t);
    pthread_join(t->supervisor, NULL);
    for (size_t i = 0; i < t->slot_count; i++) {
        if (t->slots[i].open)
            (void)nng_ctx_close(t->slots[i].ctx); /* nobody uses it any more */
        nng_aio_free(t->slots[i].aio);
    }
    (void)nng_close(t->socket); /* nothing is under way on it */
    free_transport(t);
}

/* ---- exchanges ---- */

/* Whether the socket belongs to somebody else, whose daemon closes our connections unanswered. */
static bool
is_foreign(const ptier_transport *t)
{
    static const char ipc[] = "ipc://";
    struct stat about;

    if (strncmp(t->url, ipc, sizeof ipc - 1) != 0 || geteuid() == 0)
        return false;
    return stat(t->url + sizeof ipc - 1, &about) == 0 && about.st_uid != geteuid();
}

static ptier_status
fail_not_allowed(const ptier_transport *t, ptier_error *error)
{
    return ptier_fail(error, PTIER_PERMISSION_DENIED,
                      "not allowed to connect to %s: the daemon lets in its own user, root and "
                      "whom its configuration names",
                      t->url);
}

static ptier_status
fail_unreachable_for(const ptier_transport *t, int rv, ptier_error *error)
{
    return ptier_fail(error, PTIER_UNAVAILABLE, "cannot connect to %s: %s", t->url,
                      nng_strerror(rv));
}

static ptier_status
fail_unreachable(const ptier_transport *t, int rv, ptier_error *error)
{
    switch (rv) {
    case NNG_ECONNREFUSED:
    case NNG_ENOENT:
        return ptier_fail(error, PTIER_UNAVAILABLE,
                          "nothing listens at %s: start proxytierd there, or set PROXYTIER_URL to "
                          "where it listens",
                          t->url);
    case NNG_EPERM:
        return fail_not_allowed(t, error);
    case NNG_EPEERAUTH: /* which of these it was nng seldom knows */
    case NNG_ECRYPTO:
        return ptier_fail(error, PTIER_UNAUTHENTICATED,
                          "no agreement on TLS with %s: its certificate is not of our CA "
                          "(tls_ca_file), not for this name (tls_server_name) or out of date; or "
                          "ours (tls_cert_file) is not of its CA",
                          t->url);
    case NNG_ECONNSHUT: /* nng's word for a server that misses the client's certificate */
        if (t->tls->config && !t->tls->has_cert)
            return ptier_fail(error, PTIER_UNAUTHENTICATED,
                              "%s breaks TLS off: it wants a client certificate (tls_cert_file)",
                              t->url);
        return fail_unreachable_for(t, rv, error);
    case 0: /* no attempt failed, none came to an end: somebody is there and hangs */
        return ptier_fail(error, PTIER_DEADLINE_EXCEEDED,
                          "no connection to %s in time: is proxytierd well there?", t->url);
    default:
        return fail_unreachable_for(t, rv, error);
    }
}

static bool
should_give_up_locked(const ptier_transport *t, int64_t start, uint64_t failures, int64_t now)
{
    if (t->failures == failures)
        return false; /* no attempt has ended since the call began */
    int64_t patience = start - t->down_since < FRESHLY_DOWN_MS ? PATIENCE_MS : 0;
    return now - start >= patience;
}

/* Abandons an attempt that hangs, so that the supervisor can make another. Drops the lock
 * meanwhile. */
static void
abandon_dial_locked(ptier_transport *t)
{
    nng_dialer dialer = t->dialer;
    t->dial_started = 0;
    t->abandoned = true;
    pthread_mutex_unlock(&t->lock);
    (void)nng_dialer_close(dialer); /* may have ended by itself */
    pthread_mutex_lock(&t->lock);
}

static ptier_status
wait_connected_locked(ptier_transport *t, int64_t deadline, ptier_error *error)
{
    int64_t start = ptier_monotonic_ms();
    uint64_t failures = t->failures;
    while (!t->connected) {
        int64_t now = ptier_monotonic_ms();
        if (t->closing)
            return ptier_fail(error, PTIER_CANCELLED, "the client was closed");
        if (t->dropped && !t->answered && is_foreign(t))
            return fail_not_allowed(t, error);
        if (now >= deadline || should_give_up_locked(t, start, failures, now))
            return fail_unreachable(t, t->failures != failures ? t->last_error : 0, error);
        if (t->dial_started != 0 && now - t->dial_started >= DIAL_BOUND_MS) {
            abandon_dial_locked(t);
            continue;
        }
        int64_t until = t->failures == failures ? deadline : start + PATIENCE_MS;
        if (t->dial_started != 0 && t->dial_started + DIAL_BOUND_MS < until)
            until = t->dial_started + DIAL_BOUND_MS;
        if (!t->wanted && t->dial_started == 0) {
            t->wanted = true;
            pthread_cond_broadcast(&t->changed);
        }
        ptier_monotonic_wait(&t->changed, &t->lock, until < deadline ? until : deadline);
    }
    return PTIER_OK;
}

static ptier_status
find_slot_locked(ptier_transport *t, int64_t deadline, ptier_slot **result, ptier_error *error)
{
    while (!t->closing) {
        ptier_slot *s = t->idle;
        if (s) {
            t->idle = s->next_idle;
        } else if (t->slot_count < PTIER_SLOTS_MAX) {
            s = &t->slots[t->slot_count];
            if (nng_aio_alloc(&s->aio, NULL, NULL) != 0)
                return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
            t->slot_count++;
        } else if (ptier_monotonic_ms() >= deadline) {
            return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED,
                              "all %d calls that one client can have under way are busy",
                              PTIER_SLOTS_MAX);
        } else {
            ptier_monotonic_wait(&t->slot_idle, &t->lock, deadline);
            continue;
        }
        s->phase = PTIER_SLOT_SENDING;
        *result = s;
        return PTIER_OK;
    }
    return ptier_fail(error, PTIER_CANCELLED, "the client was closed");
}

/* The context stays open: what goes wrong with a request resets it, and a late reply finds nobody.
 */
static void
release_slot(ptier_transport *t, ptier_slot *s)
{
    pthread_mutex_lock(&t->lock);
    s->phase = PTIER_SLOT_IDLE;
    s->next_idle = t->idle;
    t->idle = s;
    pthread_cond_signal(&t->slot_idle);
    pthread_mutex_unlock(&t->lock);
}

static ptier_status
take_slot(ptier_transport *t, int64_t deadline, ptier_slot **result, ptier_error *error)
{
    pthread_mutex_lock(&t->lock);
    ptier_status status = wait_connected_locked(t, deadline, error);
    if (status == PTIER_OK)
        status = find_slot_locked(t, deadline, result, error);
    pthread_mutex_unlock(&t->lock);
    if (status != PTIER_OK)
        return status;
    ptier_slot *s = *result;
    if (!s->open) {
        int rv = nng_ctx_open(&s->ctx, t->socket);
        s->open = rv == 0;
        if (rv != 0) {
            release_slot(t, s);
            return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "cannot make a call: %s",
                              nng_strerror(rv));
        }
    }
    return PTIER_OK;
}

static nng_duration
remaining(int64_t deadline)
{
    int64_t left = deadline - ptier_monotonic_ms();
    return left < 1 ? 1 : left > INT32_MAX ? INT32_MAX : (nng_duration)left;
}

/* Moves the request. 0 or an nng error. */
static int
send_request(ptier_transport *t, ptier_slot *s, nng_msg *request, int64_t deadline)
{
    nng_aio_set_timeout(s->aio, remaining(deadline));
    nng_aio_set_msg(s->aio, request);
    nng_ctx_send(s->ctx, s->aio);
    nng_aio_wait(s->aio);
    int rv = nng_aio_result(s->aio);
    if (rv != 0) {
        nng_msg *back = nng_aio_get_msg(s->aio);
        nng_aio_set_msg(s->aio, NULL);
        if (back)
            nng_msg_free(back);
        return rv;
    }
    nng_aio_set_msg(s->aio, NULL);
    pthread_mutex_lock(&t->lock);
    s->phase = PTIER_SLOT_WAITING;
    if (t->unanswered_since == 0)
        t->unanswered_since = ptier_monotonic_ms();
    pthread_mutex_unlock(&t->lock);
    return 0;
}

static int
receive_reply(ptier_transport *t, ptier_slot *s, int64_t deadline, nng_msg **reply)
{
    nng_aio_set_timeout(s->aio, remaining(deadline));
    nng_ctx_recv(s->ctx, s->aio);
    nng_aio_wait(s->aio);
    int rv = nng_aio_result(s->aio);
    if (rv == 0) {
        *reply = nng_aio_get_msg(s->aio);
        nng_aio_set_msg(s->aio, NULL);
    }
    pthread_mutex_lock(&t->lock);
    if (rv == 0) {
        t->unanswered_since = 0;
        t->answered = true;
    } else if (rv == NNG_ETIMEDOUT && t->unanswered_since != 0 &&
               ptier_monotonic_ms() - t->unanswered_since >= MUTE_BOUND_MS) {
        /* It may look open and lead nowhere. No call may use it from here on: nng leaks what is
         * sent while it closes. */
        t->mute = true;
        t->connected = false;
        t->down_since = ptier_monotonic_ms();
        pthread_cond_broadcast(&t->changed);
    }
    pthread_mutex_unlock(&t->lock);
    return rv;
}

static ptier_status
explain(ptier_transport *t, int rv, bool sent, ptier_fate *fate, ptier_error *error)
{
    *fate = sent ? PTIER_FATE_SILENT : PTIER_FATE_UNSENT;
    pthread_mutex_lock(&t->lock);
    bool closing = t->closing, answered = t->answered;
    pthread_mutex_unlock(&t->lock);
    if (closing)
        return ptier_fail(error, PTIER_CANCELLED, "the client was closed");
    switch (rv) {
    case NNG_ETIMEDOUT:
        return ptier_fail(
            error, PTIER_DEADLINE_EXCEEDED,
            sent ? "no answer from %s in time" : "%s takes no requests: no answer in time", t->url);
    case NNG_ENOMEM:
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    default: /* ECONNRESET, ECANCELED by the supervisor, ESTATE: reset between sending and receiving
              */
        if (!answered && is_foreign(t)) {
            *fate = PTIER_FATE_UNSENT; /* a daemon reads nothing of those that it refuses */
            return fail_not_allowed(t, error);
        }
        *fate = sent ? PTIER_FATE_LOST : PTIER_FATE_UNSENT;
        return ptier_fail(error, PTIER_UNAVAILABLE, "the connection to %s was lost", t->url);
    }
}

ptier_status
ptier_transport_exchange(ptier_transport *t, nng_msg *request, int64_t deadline, nng_msg **reply,
                         ptier_fate *fate, ptier_error *error)
{
    ptier_slot *s = NULL;
    *fate = PTIER_FATE_UNSENT;
    ptier_status status = take_slot(t, deadline, &s, error);
    if (status != PTIER_OK) {
        nng_msg_free(request);
        return status;
    }
    bool sent = false;
    int rv = send_request(t, s, request, deadline);
    if (rv == 0) {
        sent = true;
        rv = receive_reply(t, s, deadline, reply);
    }
    if (rv != 0)
        status = explain(t, rv, sent, fate, error);
    release_slot(t, s);
    return status;
}
