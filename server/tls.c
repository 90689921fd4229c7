/* See tls.h. */
#include "tls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "file.h"
#include "listen.h"
#include "nng_tls.h"

#define PEM_MAX ((size_t)1024 * 1024)

/* The file's text, to be wiped and freed. secret: nobody but its owner may read it. */
static ptier_status
read_pem(const char *path, bool secret, char **text, ptier_error *error)
{
    struct stat about;
    ptier_status status = PTIER_OK;
    *text = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not hold us up */
    if (fd < 0)
        return ptier_fail_errno(error, errno, "cannot read %s", path);
    if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode) || (size_t)about.st_size > PEM_MAX)
        status = ptier_fail(error, PTIER_FAILED_PRECONDITION, "%s is not a PEM file", path);
    else if (secret && (about.st_mode & 077))
        status = ptier_fail(error, PTIER_FAILED_PRECONDITION,
                            "%s may be read by others than its owner: chmod 600 it", path);
    else if (!(*text = calloc(1, PEM_MAX + 1)))
        status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    if (status == PTIER_OK && ptier_read_all(fd, *text, PEM_MAX) < 0)
        status = ptier_fail_errno(error, errno, "cannot read %s", path);
    (void)close(fd); /* only read */
    if (status == PTIER_OK && !strstr(*text, "-----BEGIN "))
        status = ptier_fail(error, PTIER_FAILED_PRECONDITION, "%s is not a PEM file", path);
    if (status != PTIER_OK) {
        ptier_nng_tls_forget(*text);
        *text = NULL;
    }
    return status;
}

/* Whether the key is another one than the certificate's, which nng would only find out at each
 * handshake. What cannot be read at all is left to nng to tell; nobody is asked for a password. */
static bool
is_foreign_key(const char *cert_pem, const char *key_pem)
{
    static char no_password[] = "";
    BIO *cert_text = BIO_new_mem_buf(cert_pem, -1), *key_text = BIO_new_mem_buf(key_pem, -1);
    X509 *cert = cert_text ? PEM_read_bio_X509(cert_text, NULL, NULL, no_password) : NULL;
    EVP_PKEY *key = key_text ? PEM_read_bio_PrivateKey(key_text, NULL, NULL, no_password) : NULL;
    bool foreign = cert && key && X509_check_private_key(cert, key) != 1;
    EVP_PKEY_free(key);
    X509_free(cert);
    BIO_free(key_text);
    BIO_free(cert_text);
    ERR_clear_error();
    return foreign;
}

static ptier_status
set_certificate(nng_tls_config *config, const char *cert, const char *key, ptier_error *error)
{
    char *cert_pem = NULL, *key_pem = NULL;
    ptier_status status = read_pem(cert, false, &cert_pem, error);
    if (status == PTIER_OK)
        status = read_pem(key, true, &key_pem, error);
    if (status == PTIER_OK && is_foreign_key(cert_pem, key_pem))
        status = ptier_fail(error, PTIER_FAILED_PRECONDITION,
                            "%s is not the key of %s: name the one that was made with it (tls-key)",
                            key, cert);
    if (status == PTIER_OK) {
        int rv = nng_tls_config_own_cert(config, cert_pem, key_pem, NULL);
        if (rv != 0)
            status = ptier_nng_tls_fail(rv == NNG_ECRYPTO ? key : cert, rv, error);
    }
    ptier_nng_tls_forget(key_pem);
    ptier_nng_tls_forget(cert_pem);
    return status;
}

static ptier_status
set_ca(nng_tls_config *config, const char *ca, ptier_error *error)
{
    char *pem = NULL;
    ptier_status status = read_pem(ca, false, &pem, error);
    if (status == PTIER_OK)
        status = ptier_nng_tls_require(config, ca, pem, error);
    ptier_nng_tls_forget(pem);
    return status;
}

ptier_status
ptier_tls_server(const char *cert, const char *key, const char *ca, nng_tls_config **config,
                 ptier_error *error)
{
    nng_tls_config *made = NULL;
    int rv = nng_tls_config_alloc(&made, NNG_TLS_MODE_SERVER);
    if (rv != 0)
        return ptier_nng_tls_fail(cert, rv, error);
    rv = ptier_nng_tls_versions(made);
    ptier_status status =
        rv == 0 ? set_certificate(made, cert, key, error) : ptier_nng_tls_fail(cert, rv, error);
    if (status == PTIER_OK && ca)
        status = set_ca(made, ca, error);
    if (status != PTIER_OK) {
        nng_tls_config_free(made);
        return status;
    }
    *config = made;
    return PTIER_OK;
}
