/* See self_probe_tls.h. */
#include "self_probe_tls.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#define DAY_S   86400L
#define VALID_S (3650 * DAY_S) /* as long as a daemon may run */
#define NAME    "proxytier self-probe"

/* Self-signed, and no CA: whoever trusts it trusts this certificate, and none that it signs. */
static X509 *
make_certificate(EVP_PKEY *key)
{
    X509 *cert = X509_new();
    uint64_t serial = 0;
    bool good = cert && RAND_bytes((unsigned char *)&serial, sizeof serial) == 1 &&
                X509_set_version(cert, X509_VERSION_3) == 1 &&
                ASN1_INTEGER_set_uint64(X509_get_serialNumber(cert), serial >> 1 | 1) == 1 &&
                X509_gmtime_adj(X509_getm_notBefore(cert), -DAY_S) &&
                X509_gmtime_adj(X509_getm_notAfter(cert), VALID_S) &&
                X509_set_pubkey(cert, key) == 1;
    X509_NAME *name = good ? X509_get_subject_name(cert) : NULL;
    X509_EXTENSION *no_ca =
        good ? X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, "critical,CA:FALSE") : NULL;
    good = no_ca &&
           X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)NAME, -1,
                                      -1, 0) == 1 &&
           X509_set_issuer_name(cert, name) == 1 && X509_add_ext(cert, no_ca, -1) == 1 &&
           X509_sign(cert, key, EVP_sha256()) > 0;
    X509_EXTENSION_free(no_ca);
    if (good)
        return cert;
    X509_free(cert);
    return NULL;
}

/* The text in a memory BIO, NUL-terminated and owned. NULL: out of memory. */
static char *
take_text(BIO *bio)
{
    char *data = NULL, *text = NULL;
    long length = BIO_get_mem_data(bio, &data);
    if (length > 0)
        text = strndup(data, (size_t)length);
    return text;
}

static int
use_certificate(nng_tls_config *server, nng_tls_config *client)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = key ? make_certificate(key) : NULL;
    BIO *cert_bio = BIO_new(BIO_s_mem()), *key_bio = BIO_new(BIO_s_secmem());
    char *cert_text = NULL, *key_text = NULL;
    int rv = NNG_ENOMEM;
    if (cert && cert_bio && key_bio && PEM_write_bio_X509(cert_bio, cert) == 1 &&
        PEM_write_bio_PrivateKey(key_bio, key, NULL, NULL, 0, NULL, NULL) == 1 &&
        (cert_text = take_text(cert_bio)) && (key_text = take_text(key_bio)))
        rv = nng_tls_config_own_cert(client, cert_text, key_text, NULL);
    if (rv == 0)
        rv = nng_tls_config_ca_chain(server, cert_text, NULL); /* beside the one that is there */
    if (key_text)
        explicit_bzero(key_text, strlen(key_text));
    free(key_text);
    free(cert_text);
    BIO_free(key_bio);
    BIO_free(cert_bio);
    X509_free(cert);
    EVP_PKEY_free(key);
    return rv;
}

ptier_status
ptier_self_probe_tls(nng_tls_config *server, bool mutual, nng_tls_config **made, ptier_error *error)
{
    nng_tls_config *client = NULL;
    int rv = nng_tls_config_alloc(&client, NNG_TLS_MODE_CLIENT);
    if (rv == 0) /* who answers is told by the answer: our boot_id */
        rv = nng_tls_config_auth_mode(client, NNG_TLS_AUTH_MODE_NONE);
    if (rv == 0 && mutual)
        rv = use_certificate(server, client);
    if (rv == 0) {
        *made = client;
        return PTIER_OK;
    }
    if (client)
        nng_tls_config_free(client);
    return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED,
                      "cannot make a certificate for self-probe: %s", nng_strerror(rv));
}
