/*
 * The SUB socket of an event link: dials, receives, tells when its connection is gone. Used by one
 * thread, except ptier_event_socket_cancel. For event_link.c.
 */
#ifndef PTIER_EVENT_SOCKET_H
#define PTIER_EVENT_SOCKET_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <nng/nng.h>

typedef struct ptier_event_socket {
    pthread_mutex_t lock;
    bool listening; /* the socket is open and wanted */
    bool dropped;   /* its connection was lost */
    nng_dialer dialer;

    nng_aio *aio; /* others may only cancel it */
    nng_socket socket;
} ptier_event_socket;

/* False: out of memory, and nothing to release. */
bool ptier_event_socket_init(ptier_event_socket *s);
void ptier_event_socket_fini(ptier_event_socket *s);

/* Dials, without waiting, and listens to CHANGES. 0 or an nng error, and then it is closed. */
int ptier_event_socket_open(ptier_event_socket *s, const char *url);
void ptier_event_socket_close(ptier_event_socket *s);

/* Listens to TIERS as well. 0 or an nng error. */
int ptier_event_socket_add_tiers(ptier_event_socket *s);

/*
 * The next message, owned, or NULL with *rv: NNG_ETIMEDOUT at `until` (ptier_monotonic_ms),
 * NNG_ECANCELED, NNG_ECONNRESET when the connection is gone and all was read.
 */
nng_msg *ptier_event_socket_receive(ptier_event_socket *s, int64_t until, int *rv);

/* Ends a receive that is under way. No effect on one that is just about to begin. Any thread. */
void ptier_event_socket_cancel(ptier_event_socket *s);

#endif
