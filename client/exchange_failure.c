/* What callers are told of attempts to connect and of exchanges that failed. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <sys/stat.h>
#include <unistd.h>

#include "transport_internal.h"

/* Whether the socket belongs to somebody else, whose daemon closes our connections unanswered. */
bool
ptier_transport_is_foreign(const ptier_transport *t)
{
    static const char ipc[] = "ipc://";
    struct stat about;

    if (strncmp(t->url, ipc, sizeof ipc - 1) != 0 || geteuid() == 0)
        return false;
    return stat(t->url + sizeof ipc - 1, &about) == 0 && about.st_uid != geteuid();
}

ptier_status
ptier_transport_fail_not_allowed(const ptier_transport *t, ptier_error *error)
{
    return ptier_fail(error, PTIER_PERMISSION_DENIED,
                      "not allowed to connect to %s: the daemon lets in its own user, root and "
                      "whom its configuration names",
                      t->url);
}

/* It listens, and has ended every connection so far before it answered anything. */
bool
ptier_transport_is_cut_off(const ptier_transport *t)
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

ptier_status
ptier_transport_fail_unreachable(const ptier_transport *t, int rv, ptier_error *error)
{
    switch (rv) {
    case NNG_ECONNREFUSED:
    case NNG_ENOENT:
        return ptier_fail(error, PTIER_UNAVAILABLE,
                          "nothing listens at %s: start proxytierd there, or set PROXYTIER_URL to "
                          "where it listens",
                          t->url);
    case NNG_EPERM:
        return ptier_transport_fail_not_allowed(t, error);
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
        if (ptier_transport_is_cut_off(t))
            return fail_cut_off(t, error);
        return fail_unreachable_for(t, rv, error);
    case 0: /* no attempt failed, none came to an end: somebody is there and hangs */
        if (ptier_transport_is_cut_off(t))
            return fail_cut_off(t, error);
        return ptier_fail(error, PTIER_DEADLINE_EXCEEDED,
                          "no connection to %s in time: is proxytierd well there?", t->url);
    default:
        return fail_unreachable_for(t, rv, error);
    }
}

ptier_status
ptier_exchange_explain(ptier_transport *t, int rv, bool sent, ptier_fate *fate, ptier_error *error)
{
    *fate = sent ? PTIER_FATE_SILENT : PTIER_FATE_UNSENT;
    pthread_mutex_lock(&t->lock);
    bool closing = t->closing, answered = t->answered, cut_off = ptier_transport_is_cut_off(t);
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
        if (!answered && ptier_transport_is_foreign(t)) {
            *fate = PTIER_FATE_UNSENT; /* a daemon reads nothing of those that it refuses */
            return ptier_transport_fail_not_allowed(t, error);
        }
        *fate = sent ? PTIER_FATE_LOST : PTIER_FATE_UNSENT;
        if (!answered) /* nng may not have told yet that the connection is gone */
            return fail_cut_off(t, error);
        return ptier_fail(error, PTIER_UNAVAILABLE, "the connection to %s was lost", t->url);
    }
}
