/*
 * What the self-probe needs to come in over tls like anybody else: where clients must have a
 * certificate, one that is made at each start, trusted by itself alone, and never written anywhere.
 */
#ifndef PTIER_SELF_PROBE_TLS_H
#define PTIER_SELF_PROBE_TLS_H

#include <stdbool.h>

#include <nng/nng.h>
#include <nng/supplemental/tls/tls.h>

#include <proxytier/status.h>

/* A configuration for dialling our own addresses, owned. mutual: `server` is made to trust it;
 * before anything listens with that. */
PTIER_MUST_CHECK ptier_status ptier_self_probe_tls(nng_tls_config *server, bool mutual,
                                                   nng_tls_config **made, ptier_error *error);

#endif
