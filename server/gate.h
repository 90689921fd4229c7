/*
 * Who may connect, and how many at a time: one gate for the sockets of calls and of events. A
 * quarter of the connections is kept for peers who have a role by themselves, so that strangers
 * from the network cannot lock the administrator out. Its callback runs on nng's threads;
 * thread-safe. Must outlive the sockets that use it.
 */
#ifndef PTIER_GATE_H
#define PTIER_GATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <nng/nng.h>

#include <proxytier/status.h>

#include "auth.h"
#include "handshakes.h"
#include "log.h"

/* What is behind a gate: an event socket looks at connections only, it knows no tokens. */
typedef struct ptier_gate_side {
    struct ptier_gate *gate;
    bool events;
} ptier_gate_side;

typedef struct ptier_gate {
    ptier_log *log;               /* borrowed */
    const ptier_auth *auth;       /* borrowed */
    ptier_handshakes *handshakes; /* borrowed */
    ptier_gate_side calls, events;
    uint64_t limit;
    _Atomic uint64_t count;    /* connections, those being refused included */
    _Atomic uint64_t unlogged; /* refused since the last line about it */
    _Atomic int64_t logged_ms; /* CLOCK_MONOTONIC; 0: never */

    pthread_mutex_t lock; /* guards the rest */
    uint32_t *strangers;  /* owned: ids of peers without a role of their own */
    size_t stranger_count, stranger_room;
} ptier_gate;

/* "fini" when the sockets that use it are closed. */
void ptier_gate_fini(ptier_gate *gate);
void ptier_gate_init(ptier_gate *gate, uint64_t limit, const ptier_auth *auth,
                     ptier_handshakes *handshakes, ptier_log *log);

/* Puts the gate in front of a socket that has no listener yet. */
PTIER_MUST_CHECK ptier_status ptier_gate_guard(ptier_gate *gate, nng_socket socket, bool events,
                                               ptier_error *error);

/*
 * The same for a connection for calls that is not nng's; `id` is unique among all, and no pipe's.
 * False: it is refused, and to be closed. Who is let in leaves once.
 */
PTIER_MUST_CHECK bool ptier_gate_enter(ptier_gate *gate, const ptier_peer *peer, uint32_t id);
void ptier_gate_leave(ptier_gate *gate, uint32_t id);

/* Whether a connection may be closed now because there are many. */
bool ptier_gate_is_crowded(const ptier_gate *gate);

#endif
