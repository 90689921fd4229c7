/*
 * Connections over tcp and tls whose handshake is not done yet. nng tells of a connection only when
 * it is, and never closes one that stalls in its TLS hello: so they are counted where they are
 * accepted (see nng_workaround_accept.c), and cut when they take too long or are too many. Of the
 * latter the oldest goes: an honest handshake is done long before its turn. Thread-safe.
 */
#ifndef PTIER_HANDSHAKES_H
#define PTIER_HANDSHAKES_H

#include <stdint.h>

#include <nng/nng.h>

#include <proxytier/status.h>

#define PTIER_HANDSHAKES_MAX 256

typedef struct ptier_handshakes ptier_handshakes;

PTIER_MUST_CHECK ptier_status ptier_handshakes_create(int64_t timeout_ms, ptier_handshakes **made,
                                                      ptier_error *error);
/* NULL is fine. Connections that are watched then go on unwatched. */
void ptier_handshakes_destroy(ptier_handshakes *handshakes);

/* An accepted socket, borrowed: a duplicate is kept, so that what is cut later is never another
 * one. Not of tcp: nothing happens. */
void ptier_handshakes_begin(ptier_handshakes *handshakes, int fd, int64_t now_ms);

/* nng has a pipe of it. NULL is fine. */
void ptier_handshakes_done(ptier_handshakes *handshakes, nng_pipe pipe);

/* Cuts those that are too old. Returns how many were cut since the last call, too many included. */
unsigned ptier_handshakes_reap(ptier_handshakes *handshakes, int64_t now_ms);

#endif
