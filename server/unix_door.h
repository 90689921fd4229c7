/*
 * The front door for calls over unix sockets (ipc addresses). It speaks what nng's REP speaks
 * (sp_wire.h), so that any REQ of nng is a client, but on threads of its own: one loop for every
 * two cores, which reads whatever came in, runs what need not wait, and sends all replies to that
 * at once. nng takes four wake-ups of threads a call for the same. The functions belong to the one
 * that starts the daemon.
 */
#ifndef PTIER_UNIX_DOOR_H
#define PTIER_UNIX_DOOR_H

#include "front.h"
#include "listen.h"

typedef struct ptier_unix_door ptier_unix_door;

/* Listens nowhere yet. `front` is borrowed until close. */
PTIER_MUST_CHECK ptier_status ptier_unix_door_open(ptier_front *front, ptier_unix_door **door,
                                                   ptier_error *error);

/* `url` is borrowed until close, `options` for the call. Before start. */
PTIER_MUST_CHECK ptier_status ptier_unix_door_listen(ptier_unix_door *door, const char *url,
                                                     const ptier_listen_options *options,
                                                     ptier_error *error);

/* From here on calls come in. */
PTIER_MUST_CHECK ptier_status ptier_unix_door_start(ptier_unix_door *door, ptier_error *error);

/* Listens anew at an address that it has already, whose socket was removed or replaced; who is
 * connected stays. Any thread. */
PTIER_MUST_CHECK ptier_status ptier_unix_door_reopen(ptier_unix_door *door, const char *url,
                                                     const ptier_listen_options *options,
                                                     ptier_error *error);

/* When no worker has a call of it any more. NULL is fine. */
void ptier_unix_door_close(ptier_unix_door *door);

#endif
