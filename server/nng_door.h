/*
 * The front door for calls over tcp and tls: nng's REP with contexts and callbacks. Receives, hands
 * calls to the dispatch, sends replies, and keeps one rude client from hurting the others. The
 * functions belong to the one that starts the daemon.
 */
#ifndef PTIER_NNG_DOOR_H
#define PTIER_NNG_DOOR_H

#include "front.h"
#include "listen.h"

typedef struct ptier_nng_door ptier_nng_door;

/* Listens nowhere yet. `front` is borrowed until close. */
PTIER_MUST_CHECK ptier_status ptier_nng_door_open(ptier_front *front, ptier_nng_door **door,
                                                  ptier_error *error);

/* `url` is borrowed until close, `options` for the call. */
PTIER_MUST_CHECK ptier_status ptier_nng_door_listen(ptier_nng_door *door, const char *url,
                                                    const ptier_listen_options *options,
                                                    ptier_error *error);

/* From here on calls come in. */
void ptier_nng_door_start(ptier_nng_door *door);

/* When no worker has a call of it any more. NULL is fine. */
void ptier_nng_door_close(ptier_nng_door *door);

#endif
