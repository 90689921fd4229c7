/*
 * Where the daemon can be reached: which addresses are allowed, who may connect, and the one
 * translator of nng's errors. Thread-safe (no state).
 */
#ifndef PTIER_LISTEN_H
#define PTIER_LISTEN_H

#include <nng/nng.h>

#include <proxytier/status.h>

#include "call.h"

/*
 * Allows ipc:///absolute/path and, with allow_tcp, tcp:// on a loopback address. INVALID_ARGUMENT:
 * anything else.
 */
PTIER_MUST_CHECK ptier_status ptier_listen_check(const char *url, bool allow_tcp,
                                                 ptier_error *error);

/*
 * Looks whether a checked address can be had, before anything is opened. Of ipc addresses the
 * directory must be there (make_directory: its last component is made, 0750) and be ours or root's,
 * and what has the path must be a socket that nobody listens on: a file is never touched.
 * ALREADY_EXISTS: a live process has it; NOT_FOUND: no directory; FAILED_PRECONDITION: no socket.
 */
PTIER_MUST_CHECK ptier_status ptier_listen_prepare(const char *url, bool make_directory,
                                                   ptier_error *error);

/*
 * Looks once more and starts listening; an ipc socket is 0660. What a dead daemon left behind is
 * replaced.
 */
PTIER_MUST_CHECK ptier_status ptier_listen(nng_socket socket, const char *url,
                                           nng_listener *listener, ptier_error *error);

/* Role of a connected peer: over ipc by its uid (ours or root's: admin, else none); loopback tcp:
 * rotator. */
ptier_role ptier_peer_role(nng_pipe pipe);

/* The same with who it is: over ipc its uid, over tcp one for all. */
ptier_peer ptier_peer_of(nng_pipe pipe);

ptier_status ptier_status_from_nng(int code);

#endif
