/*
 * One connection to a daemon: exchanges messages within deadlines and reconnects by itself. Over
 * unix sockets in the callers' threads (sp_link.h), else by nng's REQ, whose own resending is off:
 * the caller decides. Knows nothing of headers and methods. Thread-safe, except open and close.
 */
#ifndef PTIER_TRANSPORT_H
#define PTIER_TRANSPORT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <nng/nng.h>
#include <proxytier/status.h>

#include "owner.h"
#include "tls.h"

typedef struct ptier_transport ptier_transport;

/* What became of a request whose exchange failed. */
typedef enum ptier_fate {
    PTIER_FATE_UNSENT, /* the daemon has certainly not seen it */
    PTIER_FATE_LOST,   /* sent; the connection was lost before the answer */
    PTIER_FATE_SILENT, /* sent; no answer within the deadline, or closed meanwhile */
} ptier_fate;

/* INVALID_ARGUMENT: no URL that this library can dial. */
PTIER_MUST_CHECK ptier_status ptier_transport_check_url(const char *url, ptier_error *error);

/* url is borrowed during the call, tls and owner until close. Does not wait for a connection. */
PTIER_MUST_CHECK ptier_status ptier_transport_open(const char *url, const ptier_tls *tls,
                                                   const ptier_owner *owner,
                                                   ptier_transport **transport, ptier_error *error);

/* Borrowed until close. */
const char *ptier_transport_url(const ptier_transport *transport);

/* First step of closing: every exchange, running or to come, ends with CANCELLED. */
void ptier_transport_cancel(ptier_transport *transport);

/* Second step: no exchange may be running any more. NULL is fine. */
void ptier_transport_close(ptier_transport *transport);

/*
 * Sends `request` (moved, also on failure) and waits for its reply until `deadline`
 * (ptier_monotonic_ms). OK: *reply is owned by the caller. UNAVAILABLE: nobody answered; CANCELLED:
 * closed; DEADLINE_EXCEEDED; PERMISSION_DENIED: the daemon does not let us in, or is one of a user
 * whom we do not trust; UNAUTHENTICATED: a certificate was not taken; *fate says more.
 */
PTIER_MUST_CHECK ptier_status ptier_transport_exchange(ptier_transport *transport, nng_msg *request,
                                                       int64_t deadline, nng_msg **reply,
                                                       ptier_fate *fate, ptier_error *error);

/*
 * An exchange that calls back instead of holding a thread. Reserve, start, and after `done` finish;
 * or reserve and release; between start and finish it may be cancelled. All by one thread. Zeroed,
 * but for `done`, before each use.
 */
typedef struct ptier_exchange {
    /* On any thread, under the transport's lock: it may only note it. */
    void (*done)(struct ptier_exchange *exchange);
    ptier_transport *transport;
    struct ptier_slot *slot;
    int64_t start, deadline; /* ptier_monotonic_ms */
    uint64_t failures;
    bool waiting, sent;
    atomic_bool cancelled;
    int rv;
    nng_msg *reply;
} ptier_exchange;

typedef enum ptier_reserved {
    PTIER_RESERVED = 1,
    PTIER_RESERVE_NO_CONNECTION = 2, /* yet: try again at *until, or when woken */
    PTIER_RESERVE_NO_ROOM = 3,       /* until another exchange is finished */
} ptier_reserved;

/* A step of waiting for connection and room; errors as those of ptier_transport_exchange. */
PTIER_MUST_CHECK ptier_status ptier_exchange_reserve(ptier_transport *transport, ptier_exchange *x,
                                                     int64_t deadline, ptier_reserved *reserved,
                                                     int64_t *until, ptier_error *error);
void ptier_exchange_release(ptier_exchange *x);

/* Makes what one has reserved another's, which is zeroed but for `done`. */
void ptier_exchange_hand_over(ptier_exchange *from, ptier_exchange *to);

/* `request` is moved. */
void ptier_exchange_start(ptier_exchange *x, nng_msg *request);

/* Has no effect in rare moments: to be repeated until it is done. */
void ptier_exchange_cancel(ptier_exchange *x);

/* As the end of ptier_transport_exchange. */
PTIER_MUST_CHECK ptier_status ptier_exchange_finish(ptier_exchange *x, nng_msg **reply,
                                                    ptier_fate *fate, ptier_error *error);

/* `wake` is called when the connection came or went, or room may have come: from any thread and
 * under a lock, so that it may only note it. NULL: no more. */
void ptier_transport_watch(ptier_transport *transport, void (*wake)(void *watch), void *watch);

/*
 * Whether exchanges that call back are made by the one thread that starts them, while it dozes:
 * it sends what was started, and receives, until `until`, something was received, or roused, by any
 * thread and under any lock. It may return for less.
 */
bool ptier_transport_can_doze(const ptier_transport *transport);
void ptier_transport_doze(ptier_transport *transport, int64_t until);
void ptier_transport_rouse(ptier_transport *transport);

/*
 * Where the events are that a daemon offers at `offered`: an address that stands for all of its own
 * (0.0.0.0) is where `url` reached it. INVALID_ARGUMENT: nowhere.
 */
PTIER_MUST_CHECK ptier_status ptier_event_address(const char *url, const char *offered,
                                                  char *address, size_t room);

/* Starts a thread that takes no signals: those are the program's. 0 or an errno value. */
PTIER_MUST_CHECK int ptier_thread_start(pthread_t *thread, void *(*run)(void *), void *argument);

#endif
