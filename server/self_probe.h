/*
 * The daemon calls itself: regularly a whole call over each of its addresses, and on those for
 * events it listens for a heartbeat. nng 1.5 can lose a listener so that clients still connect and
 * nobody answers, which only that shows. An address that fails three times in a row is told in the
 * log (ERROR) and by Health.Check, and opened anew. One thread of its own; the functions belong to
 * the one that starts the daemon.
 */
#ifndef PTIER_SELF_PROBE_H
#define PTIER_SELF_PROBE_H

#include "call.h"
#include "listen.h"

typedef struct ptier_self_probe ptier_self_probe;

typedef struct ptier_self_probe_options {
    int64_t interval_ms;                /* 0: never */
    const ptier_listen_options *listen; /* borrowed for the call, what is in it until destroy */
    nng_tls_config *tls; /* borrowed until destroy; NULL: there are no tls addresses */
} ptier_self_probe_options;

PTIER_MUST_CHECK ptier_status ptier_self_probe_create(ptier_service *service,
                                                      const ptier_self_probe_options *options,
                                                      ptier_self_probe **made, ptier_error *error);

/* An address that is open, by nng or by the unix door. */
typedef struct ptier_probed {
    const char *url; /* borrowed until stop */
    bool events;
    struct ptier_unix_door *unix_door; /* borrowed until stop; NULL: nng's are: */
    nng_socket socket;
    nng_listener listener;
} ptier_probed;

/* Before start. NULL probe: nothing. */
PTIER_MUST_CHECK ptier_status ptier_self_probe_add(ptier_self_probe *probe,
                                                   const ptier_probed *probed, ptier_error *error);

PTIER_MUST_CHECK ptier_status ptier_self_probe_start(ptier_self_probe *probe, ptier_error *error);

/* Before the sockets are closed. Ends a try that is under way. NULL is fine, also if never
 * started. */
void ptier_self_probe_stop(ptier_self_probe *probe);
void ptier_self_probe_destroy(ptier_self_probe *probe);

#endif
