/* The daemon's TLS: certificate, key and CA out of files into nng's form. Thread-safe (no state).
 */
#ifndef PTIER_TLS_H
#define PTIER_TLS_H

#include <nng/nng.h>
#include <nng/supplemental/tls/tls.h>

#include <proxytier/status.h>

/*
 * ca NULL: clients need no certificate; else one that this CA signed. *config is freed with
 * nng_tls_config_free. FAILED_PRECONDITION: a file is wrong, or others than its owner may read the
 * key; NOT_FOUND; UNIMPLEMENTED: this nng has no TLS.
 */
PTIER_MUST_CHECK ptier_status ptier_tls_server(const char *cert, const char *key, const char *ca,
                                               nng_tls_config **config, ptier_error *error);

#endif
