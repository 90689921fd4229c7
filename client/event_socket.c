#include "event_socket.h"

#include <string.h>

#include <nng/protocol/pubsub0/sub.h>

#include "framing.h"
#include "monotonic.h"

#define MESSAGES_BUFFERED 1024
#define MESSAGE_MAX       ((size_t)4 << 20)
#define REDIAL_MIN_MS     50 /* nng's own, while nothing listens there */
#define REDIAL_MAX_MS     250

bool
ptier_event_socket_init(ptier_event_socket *s)
{
    memset(s, 0, sizeof *s);
    if (pthread_mutex_init(&s->lock, NULL) != 0)
        return false;
    if (nng_aio_alloc(&s->aio, NULL, NULL) == 0)
        return true;
    pthread_mutex_destroy(&s->lock);
    return false;
}

void
ptier_event_socket_fini(ptier_event_socket *s)
{
    nng_aio_free(s->aio);
    pthread_mutex_destroy(&s->lock);
}

void
ptier_event_socket_close(ptier_event_socket *s)
{
    pthread_mutex_lock(&s->lock);
    s->listening = false;
    pthread_mutex_unlock(&s->lock);
    (void)nng_close(s->socket); /* nothing is under way on it */
}

/* Why the dialer is closed here: see supervisor.c. */
static void
on_pipe_removed(nng_pipe pipe, nng_pipe_ev event, void *context)
{
    ptier_event_socket *s = context;
    (void)pipe;
    (void)event;
    pthread_mutex_lock(&s->lock);
    bool ours = s->listening; /* not our own closing */
    nng_dialer dialer = s->dialer;
    if (ours) {
        s->dropped = true;
        /* No effect between two receives: `dropped` is looked at before each. */
        nng_aio_cancel(s->aio);
    }
    pthread_mutex_unlock(&s->lock);
    if (ours)
        (void)nng_dialer_close(dialer); /* nothing else closes it before the socket */
}

static int
dial(ptier_event_socket *s, const char *url)
{
    nng_dialer dialer;
    int rv = nng_dialer_create(&dialer, s->socket, url);
    if (rv != 0)
        return rv;
    pthread_mutex_lock(&s->lock);
    s->listening = true;
    s->dropped = false;
    s->dialer = dialer;
    pthread_mutex_unlock(&s->lock);
    if ((rv = nng_dialer_set_size(dialer, NNG_OPT_RECVMAXSZ, MESSAGE_MAX)) != 0 ||
        (rv = nng_dialer_set_ms(dialer, NNG_OPT_RECONNMINT, REDIAL_MIN_MS)) != 0 ||
        (rv = nng_dialer_set_ms(dialer, NNG_OPT_RECONNMAXT, REDIAL_MAX_MS)) != 0)
        return rv;
    return nng_dialer_start(dialer, NNG_FLAG_NONBLOCK);
}

int
ptier_event_socket_open(ptier_event_socket *s, const char *url)
{
    int rv = nng_sub0_open(&s->socket);
    if (rv != 0)
        return rv;
    rv = nng_socket_set_int(s->socket, NNG_OPT_RECVBUF, MESSAGES_BUFFERED);
    if (rv == 0)
        rv = nng_socket_set(s->socket, NNG_OPT_SUB_SUBSCRIBE, PTIER_TOPIC_CHANGES,
                            PTIER_TOPIC_BYTES);
    if (rv == 0)
        rv = nng_pipe_notify(s->socket, NNG_PIPE_EV_REM_POST, on_pipe_removed, s);
    if (rv == 0)
        rv = dial(s, url);
    if (rv != 0)
        ptier_event_socket_close(s);
    return rv;
}

int
ptier_event_socket_add_tiers(ptier_event_socket *s)
{
    return nng_socket_set(s->socket, NNG_OPT_SUB_SUBSCRIBE, PTIER_TOPIC_TIERS, PTIER_TOPIC_BYTES);
}

nng_msg *
ptier_event_socket_receive(ptier_event_socket *s, int64_t until, int *rv)
{
    nng_msg *message = NULL;
    pthread_mutex_lock(&s->lock);
    bool dropped = s->dropped;
    pthread_mutex_unlock(&s->lock);
    if (dropped) {
        *rv = nng_recvmsg(s->socket, &message, NNG_FLAG_NONBLOCK);
        if (*rv == NNG_EAGAIN)
            *rv = NNG_ECONNRESET;
        return *rv == 0 ? message : NULL;
    }
    int64_t left = until - ptier_monotonic_ms();
    nng_aio_set_timeout(s->aio, left < 1 ? 1 : (nng_duration)left);
    nng_recv_aio(s->socket, s->aio);
    nng_aio_wait(s->aio);
    *rv = nng_aio_result(s->aio);
    if (*rv != 0)
        return NULL;
    message = nng_aio_get_msg(s->aio);
    nng_aio_set_msg(s->aio, NULL);
    return message;
}

void
ptier_event_socket_cancel(ptier_event_socket *s)
{
    nng_aio_cancel(s->aio);
}
