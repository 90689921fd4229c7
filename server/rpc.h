/*
 * Calls from outside: opens the front doors (unix_door.h for ipc addresses, nng_door.h for others)
 * on one dispatch, and stops them in order. The functions belong to the one that starts the daemon.
 */
#ifndef PTIER_RPC_H
#define PTIER_RPC_H

#include "call.h"
#include "listen.h"

typedef struct ptier_rpc ptier_rpc;

/* Listens on every URL. `service` and `urls` are borrowed until stop, `options` for the call. On
 * failure nothing is left behind. */
PTIER_MUST_CHECK ptier_status ptier_rpc_start(ptier_service *service, const char *const *urls,
                                              size_t url_count, const ptier_listen_options *options,
                                              ptier_rpc **rpc, ptier_error *error);

/*
 * Refuses new work (service->stopping), waits until what runs is answered, at most drain_ms; then
 * what still waits is refused, and listings end; waits for what runs, closes, frees. NULL is fine.
 */
void ptier_rpc_stop(ptier_rpc *rpc, int64_t drain_ms);

#endif
