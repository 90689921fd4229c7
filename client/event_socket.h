/*
 * The connection of an event link: SP's subscriber side, spoken over a byte stream of nng. Not an
 * nng socket, because nng 1.5 never ends one that is closed while a message has come in part, and
 * then no other of the process either; see docs/ARCHITECTURE.md. Used by one thread, except
 * ptier_event_socket_cancel. For event_link.c.
 */
#ifndef PTIER_EVENT_SOCKET_H
#define PTIER_EVENT_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <nng/nng.h>
#include <nng/supplemental/tls/tls.h>

#include "owner.h"

typedef struct ptier_event_socket {
    bool tiers; /* messages of TIERS are wanted, too; may change at any time */

    nng_aio *aio; /* others may only cancel it */
    nng_stream *stream;
    bool ipc;
    uint8_t *buffer; /* what was read and not yet handed out is in [start, end) */
    size_t room, start, end;
} ptier_event_socket;

/* False: out of memory, and nothing to release. */
bool ptier_event_socket_init(ptier_event_socket *s);
void ptier_event_socket_fini(ptier_event_socket *s);

/*
 * Connects, within three seconds. Borrowed during the call: `owner`, and `tls`, what an address
 * with TLS is dialled with, NULL: such an address is refused. 0 or an nng error, and then it is
 * closed; NNG_EPEERAUTH: a certificate, or a user who is not trusted.
 */
int ptier_event_socket_open(ptier_event_socket *s, const char *url, nng_tls_config *tls,
                            const ptier_owner *owner);
void ptier_event_socket_close(ptier_event_socket *s);

/*
 * The next message, borrowed until the next call, or NULL with *rv: NNG_ETIMEDOUT at `until`
 * (ptier_monotonic_ms), NNG_ECANCELED, or why the connection is of no use any more.
 */
const uint8_t *ptier_event_socket_receive(ptier_event_socket *s, int64_t until, size_t *length,
                                          int *rv);

/* Ends what is under way. No effect on what is just about to begin. Any thread. */
void ptier_event_socket_cancel(ptier_event_socket *s);

#endif
