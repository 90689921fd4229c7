/*
 * TLS for the library's dialers: files into nng's form, and the name that the daemon must prove.
 * One configuration a client, shared by its sockets. Thread-safe (nng counts references).
 */
#ifndef PTIER_CLIENT_TLS_H
#define PTIER_CLIENT_TLS_H

#include <stdbool.h>

#include <nng/nng.h>
#include <nng/supplemental/tls/tls.h>

#include <proxytier/client.h>

bool ptier_tls_is_url(const char *url);

#define PTIER_TLS_NAME_MAX 253

typedef struct ptier_tls {
    nng_tls_config *config;                   /* owned; NULL: the address has no TLS */
    bool has_cert;                            /* of our own */
    char server_name[PTIER_TLS_NAME_MAX + 1]; /* that the daemon's certificate must have */
} ptier_tls;

/*
 * For a url without TLS it is empty. Files that the options leave out are those of the
 * environment. INVALID_ARGUMENT: no CA, half a certificate, a host that is a number and no server
 * name; NOT_FOUND and PERMISSION_DENIED: a file; FAILED_PRECONDITION: what is in it.
 */
PTIER_MUST_CHECK ptier_status ptier_tls_init(ptier_tls *tls, const ptier_client_options *options,
                                             const char *url, ptier_error *error);
void ptier_tls_fini(ptier_tls *tls);

/* Before the dialer is started. 0 or an nng error. */
PTIER_MUST_CHECK int ptier_tls_dialer(nng_dialer dialer, const char *url, const ptier_tls *tls);

#endif
