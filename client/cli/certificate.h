/*
 * A small certificate authority: keys and certificates as PEM text, by OpenSSL. EC P-256 and
 * SHA-256 throughout, which every TLS library takes, mbedTLS 2.28 included. Not thread-safe.
 */
#ifndef PTIER_CLI_CERTIFICATE_H
#define PTIER_CLI_CERTIFICATE_H

#include <stdbool.h>
#include <stddef.h>

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <proxytier/status.h>

#define PTIER_CERTIFICATE_HOSTS_MAX 32

/* A certificate with its key; zeroed is none. */
typedef struct ptier_certificate {
    EVP_PKEY *key;
    X509 *cert;
} ptier_certificate;

void ptier_certificate_fini(ptier_certificate *certificate);

typedef enum ptier_certificate_use {
    PTIER_CERTIFICATE_CA,     /* signs, nothing else; 10 years */
    PTIER_CERTIFICATE_SERVER, /* 825 days, the most that some clients take */
    PTIER_CERTIFICATE_CLIENT, /* the same */
} ptier_certificate_use;

/*
 * Makes one, signed by `ca` (NULL: by itself). `hosts` are the DNS names of a server. INTERNAL: the
 * crypto library failed. On failure *made is empty.
 */
PTIER_MUST_CHECK ptier_status ptier_certificate_make(ptier_certificate_use use,
                                                     const ptier_certificate *ca,
                                                     const char *const *hosts, size_t host_count,
                                                     ptier_certificate *made, ptier_error *error);

/* Reads both files. FAILED_PRECONDITION: they are not PEM, or do not belong together. */
PTIER_MUST_CHECK ptier_status ptier_certificate_read(const char *cert_path, const char *key_path,
                                                     ptier_certificate *read, ptier_error *error);

/* Creates both files, the key 0600; ALREADY_EXISTS: nothing is written over. On failure neither is
 * left. */
PTIER_MUST_CHECK ptier_status ptier_certificate_write(const ptier_certificate *certificate,
                                                      const char *cert_path, const char *key_path,
                                                      ptier_error *error);

/* Letters, digits, '-' and '.', perhaps "*." in front; no number: mbedTLS never compares those. */
PTIER_MUST_CHECK bool ptier_certificate_host_valid(const char *host);

#endif
