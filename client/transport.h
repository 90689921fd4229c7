/*
 * One connection to a daemon over nng REQ: exchanges messages within deadlines and reconnects by
 * itself. Knows nothing of headers and methods. Thread-safe, except open and close. nng's own
 * resending is off: the caller decides.
 */
#ifndef PTIER_TRANSPORT_H
#define PTIER_TRANSPORT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <nng/nng.h>
#include <proxytier/status.h>

typedef struct ptier_transport ptier_transport;

/* What became of a request whose exchange failed. */
typedef enum ptier_fate {
    PTIER_FATE_UNSENT, /* the daemon has certainly not seen it */
    PTIER_FATE_LOST,   /* sent; the connection was lost before the answer */
    PTIER_FATE_SILENT, /* sent; no answer within the deadline, or closed meanwhile */
} ptier_fate;

/* INVALID_ARGUMENT: no URL that this library can dial. */
PTIER_MUST_CHECK ptier_status ptier_transport_check_url(const char *url, ptier_error *error);

/* url is borrowed during the call. Does not wait for a connection. */
PTIER_MUST_CHECK ptier_status ptier_transport_open(const char *url, ptier_transport **transport,
                                                   ptier_error *error);

/* First step of closing: every exchange, running or to come, ends with CANCELLED. */
void ptier_transport_cancel(ptier_transport *transport);

/* Second step: no exchange may be running any more. NULL is fine. */
void ptier_transport_close(ptier_transport *transport);

/*
 * Sends `request` (moved, also on failure) and waits for its reply until `deadline`
 * (ptier_monotonic_ms). OK: *reply is owned by the caller. UNAVAILABLE: nobody answered; CANCELLED:
 * closed; DEADLINE_EXCEEDED; PERMISSION_DENIED: the socket is another user's; *fate says more.
 */
PTIER_MUST_CHECK ptier_status ptier_transport_exchange(ptier_transport *transport, nng_msg *request,
                                                       int64_t deadline, nng_msg **reply,
                                                       ptier_fate *fate, ptier_error *error);

/* Starts a thread that takes no signals: those are the program's. 0 or an errno value. */
PTIER_MUST_CHECK int ptier_thread_start(pthread_t *thread, void *(*run)(void *), void *argument);

#endif
