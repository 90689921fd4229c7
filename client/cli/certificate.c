/* See certificate.h. */
#include "certificate.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#define DAY_S        (24L * 3600)
#define CA_DAYS      3650
#define LEAF_DAYS    825
#define EARLIER_S    3600L /* clocks differ */
#define SERIAL_BYTES 16
#define NAMES_MAX    (PTIER_CERTIFICATE_HOSTS_MAX * 260)

void
ptier_certificate_fini(ptier_certificate *certificate)
{
    EVP_PKEY_free(certificate->key);
    X509_free(certificate->cert);
    *certificate = (ptier_certificate){0};
}

bool
ptier_certificate_host_valid(const char *host)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-.";
    struct in_addr number;
    if (strncmp(host, "*.", 2) == 0)
        host += 2;
    size_t length = strlen(host);
    return length > 0 && length <= 253 && strspn(host, letters) == length && host[0] != '.' &&
           host[0] != '-' && !strstr(host, "..") && inet_pton(AF_INET, host, &number) != 1;
}

/* ---- making ---- */

static bool
set_serial(X509 *cert)
{
    unsigned char bytes[SERIAL_BYTES];
    if (RAND_bytes(bytes, sizeof bytes) != 1)
        return false;
    bytes[0] = (unsigned char)((bytes[0] & 0x7f) | 0x40); /* positive, and all of it counts */
    BIGNUM *number = BN_bin2bn(bytes, sizeof bytes, NULL);
    bool ok = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert));
    BN_free(number);
    return ok;
}

static bool
set_subject(X509 *cert, const char *name)
{
    X509_NAME *subject = X509_get_subject_name(cert);
    return X509_NAME_add_entry_by_txt(subject, "O", MBSTRING_ASC,
                                      (const unsigned char *)"proxytier", -1, -1, 0) == 1 &&
           X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1,
                                      -1, 0) == 1;
}

static bool
add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    bool ok = extension && X509_add_ext(cert, extension, -1) == 1;
    X509_EXTENSION_free(extension);
    return ok;
}

static bool
add_hosts(X509 *cert, X509 *issuer, const char *const *hosts, size_t count)
{
    char names[NAMES_MAX] = "";
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        int n = snprintf(names + used, sizeof names - used, "%sDNS:%s", i ? "," : "", hosts[i]);
        if (n < 0 || (size_t)n >= sizeof names - used)
            return false;
        used += (size_t)n;
    }
    return add_extension(cert, issuer, NID_subject_alt_name, names);
}

static bool
add_extensions(X509 *cert, X509 *issuer, ptier_certificate_use use, const char *const *hosts,
               size_t count)
{
    bool ca = use == PTIER_CERTIFICATE_CA, server = use == PTIER_CERTIFICATE_SERVER;
    return add_extension(cert, issuer, NID_basic_constraints,
                         ca ? "critical,CA:TRUE,pathlen:0" : "critical,CA:FALSE") &&
           add_extension(cert, issuer, NID_key_usage,
                         ca ? "critical,keyCertSign,cRLSign" : "critical,digitalSignature") &&
           (ca ||
            add_extension(cert, issuer, NID_ext_key_usage, server ? "serverAuth" : "clientAuth")) &&
           add_extension(cert, issuer, NID_subject_key_identifier, "hash") &&
           (ca || add_extension(cert, issuer, NID_authority_key_identifier, "keyid:always")) &&
           (!server || add_hosts(cert, issuer, hosts, count));
}

static const char *
name_of(ptier_certificate_use use, const char *const *hosts, size_t count)
{
    switch (use) {
    case PTIER_CERTIFICATE_CA:
        return "proxytier CA";
    case PTIER_CERTIFICATE_SERVER:
        return count && strlen(hosts[0]) <= 64 ? hosts[0] : "proxytier server";
    case PTIER_CERTIFICATE_CLIENT:
        break;
    }
    return "proxytier client";
}

ptier_status
ptier_certificate_make(ptier_certificate_use use, const ptier_certificate *ca,
                       const char *const *hosts, size_t host_count, ptier_certificate *made,
                       ptier_error *error)
{
    long days = use == PTIER_CERTIFICATE_CA ? CA_DAYS : LEAF_DAYS;
    *made = (ptier_certificate){.key = EVP_EC_gen("P-256"), .cert = X509_new()};
    const ptier_certificate *issuer = ca ? ca : made;
    X509 *cert = made->cert;
    bool ok = made->key && cert && X509_set_version(cert, X509_VERSION_3) == 1 &&
              set_serial(cert) && set_subject(cert, name_of(use, hosts, host_count)) &&
              X509_gmtime_adj(X509_getm_notBefore(cert), -EARLIER_S) &&
              X509_gmtime_adj(X509_getm_notAfter(cert), days * DAY_S) &&
              X509_set_pubkey(cert, made->key) == 1 &&
              X509_set_issuer_name(cert, X509_get_subject_name(issuer->cert)) == 1 &&
              add_extensions(cert, issuer->cert, use, hosts, host_count) &&
              X509_sign(cert, issuer->key, EVP_sha256()) > 0;
    if (ok)
        return PTIER_OK;
    ptier_certificate_fini(made);
    return ptier_fail(error, PTIER_INTERNAL, "the crypto library makes no certificate");
}

/* ---- files ---- */

static FILE *
open_to_read(const char *path, ptier_error *error)
{
    FILE *file = fopen(path, "re");
    if (!file)
        (void)ptier_fail(error, PTIER_PERMISSION_DENIED, "cannot read %s: %s", path,
                         strerror(errno)); /* the caller fails */
    return file;
}

ptier_status
ptier_certificate_read(const char *cert_path, const char *key_path, ptier_certificate *read,
                       ptier_error *error)
{
    *read = (ptier_certificate){0};
    FILE *cert = open_to_read(cert_path, error);
    FILE *key = cert ? open_to_read(key_path, error) : NULL;
    ptier_status status = cert && key ? PTIER_OK : PTIER_PERMISSION_DENIED;
    if (status == PTIER_OK) {
        read->cert = PEM_read_X509(cert, NULL, NULL, NULL);
        read->key = PEM_read_PrivateKey(key, NULL, NULL, (void *)(uintptr_t) "");
        if (!read->cert || !read->key || X509_check_private_key(read->cert, read->key) != 1)
            status = ptier_fail(error, PTIER_FAILED_PRECONDITION,
                                "%s and %s are not a certificate and its key", cert_path, key_path);
    }
    if (cert)
        (void)fclose(cert); /* read only */
    if (key)
        (void)fclose(key);
    if (status != PTIER_OK)
        ptier_certificate_fini(read);
    return status;
}

/* Creates the file from what a PEM writer left in `bio`. */
static ptier_status
create(const char *path, BIO *bio, mode_t mode, ptier_error *error)
{
    char *text;
    long length = BIO_get_mem_data(bio, &text);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (fd < 0 && errno == EEXIST)
        return ptier_fail(error, PTIER_ALREADY_EXISTS, "%s exists and is never overwritten", path);
    if (fd < 0)
        return ptier_fail(error, PTIER_PERMISSION_DENIED, "cannot create %s: %s", path,
                          strerror(errno));
    bool ok = length > 0 && write(fd, text, (size_t)length) == length && fsync(fd) == 0;
    int problem = errno;
    if (close(fd) != 0 && ok) {
        ok = false;
        problem = errno;
    }
    if (ok)
        return PTIER_OK;
    (void)unlink(path); /* half a file is worse than none */
    return ptier_fail(error, PTIER_UNAVAILABLE, "cannot write %s: %s", path, strerror(problem));
}

ptier_status
ptier_certificate_write(const ptier_certificate *certificate, const char *cert_path,
                        const char *key_path, ptier_error *error)
{
    BIO *cert = BIO_new(BIO_s_mem()), *key = BIO_new(BIO_s_secmem());
    ptier_status status = PTIER_OK;
    if (!cert || !key || PEM_write_bio_X509(cert, certificate->cert) != 1 ||
        PEM_write_bio_PrivateKey(key, certificate->key, NULL, NULL, 0, NULL, NULL) != 1)
        status = ptier_fail(error, PTIER_INTERNAL, "the crypto library writes no PEM");
    if (status == PTIER_OK)
        status = create(key_path, key, 0600, error);
    if (status == PTIER_OK) {
        status = create(cert_path, cert, 0644, error);
        if (status != PTIER_OK)
            (void)unlink(key_path); /* one without the other is of no use */
    }
    BIO_free(key); /* wipes: secure memory */
    BIO_free(cert);
    return status;
}
