/*
 * Exchanges, which any number of threads make at once, each on a context of its own from a pool:
 * those that wait. Those that call back are in exchange_async.c. See transport.c for locks.
 */
#include "transport.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "monotonic.h"
#include "transport_internal.h"

#define PATIENCE_MS     150  /* a caller waits this long for a daemon that went down a moment ago */
#define FRESHLY_DOWN_MS 1000 /* "a moment ago" */
#define DIAL_BOUND_MS   3000 /* an attempt that takes longer is given up */
#define MUTE_BOUND_MS   2000 /* nothing answered for so long: the connection is given up */

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

/* It listens, and has ended every connection so far before it answered anything. */
static bool
is_cut_off(const ptier_transport *t)
{
    return t->dropped && !t->answered;
}

static ptier_status
fail_cut_off(const ptier_transport *t, ptier_error *error)
{
    return ptier_fail(error, PTIER_UNAVAILABLE,
                      "%s ends our connection before it answers: it is stopping, or has as many as "
                      "it takes (its option max-connections): try again later, or raise that",
                      t->url);
}

static ptier_status
fail_stranger(const ptier_transport *t, ptier_error *error)
{
    char user[40] = "an unknown user";
    if (t->stranger != PTIER_OWNER_UNKNOWN)
        (void)snprintf(user, sizeof user, "user %" PRIu64, t->stranger); /* fits */
    return ptier_fail(error, PTIER_PERMISSION_DENIED,
                      "%s listens at %s, neither you nor root, and was sent nothing: if that is "
                      "right, name this user (daemon_user, PROXYTIER_DAEMON_USER)",
                      user, t->url);
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
    case NNG_EPEERAUTH:
    case NNG_ECRYPTO:
        if (ptier_owner_matters(t->url))
            return fail_stranger(t, error);
        /* which of these it was nng does not know */
        return ptier_fail(error, PTIER_UNAUTHENTICATED,
                          "no agreement on TLS with %s: its certificate is not of our CA "
                          "(tls_ca_file), not for the name %s (tls_server_name) or out of date%s",
                          t->url, t->tls->server_name,
                          t->tls->has_cert ? "; or ours (tls_cert_file) is not of its CA, or out "
                                             "of date"
                                           : "");
    case NNG_ECONNSHUT: /* nng's word for a server that misses the client's certificate */
        if (t->tls->config && !t->tls->has_cert)
            return ptier_fail(error, PTIER_UNAUTHENTICATED,
                              "%s breaks TLS off: it wants a client certificate (tls_cert_file)",
                              t->url);
        if (!t->tls->config && !ptier_owner_matters(t->url))
            return ptier_fail(error, PTIER_UNAVAILABLE,
                              "whoever listens at %s does not speak plain tcp: should the address "
                              "begin with tls+tcp://?",
                              t->url);
        return fail_unreachable_for(t, rv, error);
    case 0: /* no attempt failed, none came to an end: somebody is there and hangs */
        if (is_cut_off(t))
            return fail_cut_off(t, error);
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

void
ptier_transport_tell_locked(ptier_transport *t)
{
    pthread_cond_broadcast(&t->changed);
    if (t->wake)
        t->wake(t->watch);
}

ptier_status
ptier_transport_connected_locked(ptier_transport *t, int64_t start, uint64_t failures,
                                 int64_t deadline, bool *connected, int64_t *until,
                                 ptier_error *error)
{
    for (;;) {
        int64_t now = ptier_monotonic_ms();
        *connected = t->connected;
        *until = 0;
        if (t->connected)
            return PTIER_OK;
        if (t->closing)
            return ptier_fail(error, PTIER_CANCELLED, "the client was closed");
        if (is_cut_off(t) && is_foreign(t))
            return fail_not_allowed(t, error);
        if (now >= deadline || should_give_up_locked(t, start, failures, now))
            return fail_unreachable(t, t->failures != failures ? t->last_error : 0, error);
        if (t->dial_started != 0 && now - t->dial_started >= DIAL_BOUND_MS) {
            abandon_dial_locked(t);
            continue;
        }
        int64_t end = t->failures == failures ? deadline : start + PATIENCE_MS;
        if (t->dial_started != 0 && t->dial_started + DIAL_BOUND_MS < end)
            end = t->dial_started + DIAL_BOUND_MS;
        if (!t->wanted && t->dial_started == 0) {
            t->wanted = true;
            pthread_cond_broadcast(&t->changed); /* the supervisor's only */
        }
        *until = end < deadline ? end : deadline;
        return PTIER_OK;
    }
}

static ptier_status
wait_connected_locked(ptier_transport *t, int64_t deadline, ptier_error *error)
{
    int64_t start = ptier_monotonic_ms();
    uint64_t failures = t->failures;
    for (;;) {
        bool connected;
        int64_t until;
        ptier_status status = ptier_transport_connected_locked(t, start, failures, deadline,
                                                               &connected, &until, error);
        if (status != PTIER_OK || connected)
            return status;
        ptier_monotonic_wait(&t->changed, &t->lock, until);
    }
}

ptier_status
ptier_slot_take_locked(ptier_transport *t, ptier_slot **slot, ptier_error *error)
{
    ptier_slot *s = t->idle;
    *slot = NULL;
    if (s) {
        t->idle = s->next_idle;
    } else if (t->slot_count < PTIER_SLOTS_MAX) {
        s = &t->slots[t->slot_count];
        if (nng_aio_alloc(&s->waited, NULL, NULL) != 0)
            return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
        t->slot_count++;
    } else {
        return PTIER_OK;
    }
    s->aio = s->waited;
    s->phase = PTIER_SLOT_SENDING;
    *slot = s;
    return PTIER_OK;
}

static ptier_status
find_slot_locked(ptier_transport *t, int64_t deadline, ptier_slot **result, ptier_error *error)
{
    while (!t->closing) {
        ptier_status status = ptier_slot_take_locked(t, result, error);
        if (status != PTIER_OK || *result)
            return status;
        if (ptier_monotonic_ms() >= deadline)
            return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED,
                              "all %d calls that one client can have under way are busy",
                              PTIER_SLOTS_MAX);
        ptier_monotonic_wait(&t->slot_idle, &t->lock, deadline);
    }
    return ptier_fail(error, PTIER_CANCELLED, "the client was closed");
}

/* The context stays open: what goes wrong with a request resets it, and a late reply finds nobody.
 */
void
ptier_slot_release(ptier_transport *t, ptier_slot *s)
{
    pthread_mutex_lock(&t->lock);
    s->phase = PTIER_SLOT_IDLE;
    s->next_idle = t->idle;
    t->idle = s;
    pthread_cond_signal(&t->slot_idle);
    if (t->wake && t->room_wanted) {
        t->room_wanted = false;
        t->wake(t->watch);
    }
    pthread_mutex_unlock(&t->lock);
}

ptier_status
ptier_slot_open(ptier_transport *t, ptier_slot *s, ptier_error *error)
{
    if (s->open)
        return PTIER_OK;
    int rv = nng_ctx_open(&s->ctx, t->socket);
    s->open = rv == 0;
    if (rv == 0)
        return PTIER_OK;
    return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "cannot make a call: %s", nng_strerror(rv));
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
    status = ptier_slot_open(t, *result, error);
    if (status != PTIER_OK)
        ptier_slot_release(t, *result);
    return status;
}

nng_duration
ptier_slot_time(int64_t deadline)
{
    int64_t left = deadline - ptier_monotonic_ms();
    return left < 1 ? 1 : left > INT32_MAX ? INT32_MAX : (nng_duration)left;
}

void
ptier_slot_sent(ptier_transport *t, ptier_slot *s, int rv)
{
    nng_msg *back = rv != 0 ? nng_aio_get_msg(s->aio) : NULL; /* nng's own when it was sent */
    nng_aio_set_msg(s->aio, NULL);
    if (back)
        nng_msg_free(back);
    if (rv != 0)
        return;
    pthread_mutex_lock(&t->lock);
    s->phase = PTIER_SLOT_WAITING;
    if (t->unanswered_since == 0)
        t->unanswered_since = ptier_monotonic_ms();
    pthread_mutex_unlock(&t->lock);
}

void
ptier_slot_received(ptier_transport *t, ptier_slot *s, int rv, nng_msg **reply)
{
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
        ptier_transport_tell_locked(t);
    }
    pthread_mutex_unlock(&t->lock);
}

/* Moves the request. 0 or an nng error. */
static int
send_request(ptier_transport *t, ptier_slot *s, nng_msg *request, int64_t deadline)
{
    nng_aio_set_timeout(s->aio, ptier_slot_time(deadline));
    nng_aio_set_msg(s->aio, request);
    nng_ctx_send(s->ctx, s->aio);
    nng_aio_wait(s->aio);
    int rv = nng_aio_result(s->aio);
    ptier_slot_sent(t, s, rv);
    return rv;
}

static int
receive_reply(ptier_transport *t, ptier_slot *s, int64_t deadline, nng_msg **reply)
{
    nng_aio_set_timeout(s->aio, ptier_slot_time(deadline));
    nng_ctx_recv(s->ctx, s->aio);
    nng_aio_wait(s->aio);
    int rv = nng_aio_result(s->aio);
    ptier_slot_received(t, s, rv, reply);
    return rv;
}

ptier_status
ptier_exchange_explain(ptier_transport *t, int rv, bool sent, ptier_fate *fate, ptier_error *error)
{
    *fate = sent ? PTIER_FATE_SILENT : PTIER_FATE_UNSENT;
    pthread_mutex_lock(&t->lock);
    bool closing = t->closing, answered = t->answered, cut_off = is_cut_off(t);
    pthread_mutex_unlock(&t->lock);
    if (closing)
        return ptier_fail(error, PTIER_CANCELLED, "the client was closed");
    switch (rv) {
    case NNG_ETIMEDOUT:
        if (cut_off && !sent)
            return fail_cut_off(t, error);
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
        if (!answered) /* nng may not have told yet that the connection is gone */
            return fail_cut_off(t, error);
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
        status = ptier_exchange_explain(t, rv, sent, fate, error);
    ptier_slot_release(t, s);
    return status;
}
