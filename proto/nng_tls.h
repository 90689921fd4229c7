/*
 * What client and daemon do alike with nng's TLS. Knows no files: texts are PEM, paths are for
 * errors. Compiled into both, as nng_workaround_stream.c is. Not thread-safe on one configuration.
 */
#ifndef PTIER_NNG_TLS_H
#define PTIER_NNG_TLS_H

#include <nng/nng.h>
#include <nng/supplemental/tls/tls.h>
#include <proxytier/status.h>

/* nng's refusal of what `path` holds. */
ptier_status ptier_nng_tls_fail(const char *path, int rv, ptier_error *error);

/* TLS 1.2, and 1.3 where nng has it. nng's code. */
int ptier_nng_tls_versions(nng_tls_config *config);

/* The other side has to show a certificate that this one signed. */
PTIER_MUST_CHECK ptier_status ptier_nng_tls_require(nng_tls_config *config, const char *path,
                                                    const char *pem, ptier_error *error);

/* Wipes and frees. NULL is fine. */
void ptier_nng_tls_forget(char *pem);

#endif
