/*
 * Where the daemon can be reached: which addresses are allowed, and the one translator of nng's
 * errors. Thread-safe (no state).
 */
#ifndef PTIER_LISTEN_H
#define PTIER_LISTEN_H

#include <nng/nng.h>
#include <nng/supplemental/tls/tls.h>

#include <proxytier/status.h>

#include "call.h"

/* What the configuration says about addresses. All pointers are borrowed. */
typedef struct ptier_listen_rules {
    bool tls;          /* there is a certificate */
    bool mutual;       /* clients must have one of our CA */
    bool insecure_tcp; /* plain tcp beyond loopback, in so many words */
} ptier_listen_rules;

/*
 * Allows ipc:///absolute/path, tls+tcp://host:port, and tcp:// on a loopback address or where the
 * rules say so. For events: ipc, and tls with certificates of clients, since an event socket knows
 * no tokens. INVALID_ARGUMENT: anything else.
 */
PTIER_MUST_CHECK ptier_status ptier_listen_check(const char *url, const ptier_listen_rules *rules,
                                                 bool events, ptier_error *error);

/*
 * Looks whether a checked address can be had, before anything is opened. Of ipc addresses the
 * directory must be there (make_directory: its last component is made, 0750) and be ours or root's,
 * and what has the path must be a socket that nobody listens on: a file is never touched.
 * ALREADY_EXISTS: a live process has it; NOT_FOUND: no directory; FAILED_PRECONDITION: no socket.
 */
PTIER_MUST_CHECK ptier_status ptier_listen_prepare(const char *url, bool make_directory,
                                                   ptier_error *error);

typedef struct ptier_listen_options {
    nng_tls_config *tls;   /* borrowed (nng counts its own references); NULL: no tls */
    unsigned socket_mode;  /* of ipc sockets */
    uint32_t socket_group; /* UINT32_MAX: as it comes */
    bool directory_group;  /* of their directories too: we made them */
} ptier_listen_options;

/* Looks once more and starts listening. What a dead daemon left behind is replaced. */
PTIER_MUST_CHECK ptier_status ptier_listen(nng_socket socket, const char *url,
                                           const ptier_listen_options *options,
                                           nng_listener *listener, ptier_error *error);

/* A unix socket that listens. */
typedef struct ptier_listen_socket {
    int fd;                 /* -1: none */
    uint64_t device, inode; /* of its path, to be sure that it is ours when it is removed */
} ptier_listen_socket;

/* The same without nng, of an ipc address. fd is -1 on failure. */
PTIER_MUST_CHECK ptier_status ptier_listen_unix(const char *url,
                                                const ptier_listen_options *options,
                                                ptier_listen_socket *listening, ptier_error *error);
/* Closes it and removes its path. */
void ptier_listen_unix_close(ptier_listen_socket *listening, const char *url);

/* Whether another process listens at an ipc address. */
bool ptier_listen_is_taken(const char *url);

ptier_status ptier_status_from_nng(int code);

#endif
