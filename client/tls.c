/* See tls.h. */
#include "tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nng_tls.h"

#define TLS     "tls+tcp://"
#define PEM_MAX ((size_t)1024 * 1024)

bool
ptier_tls_is_url(const char *url)
{
    return strncmp(url, TLS, strlen(TLS)) == 0;
}

static const char *
either(const char *option, const char *variable)
{
    const char *value = option && *option ? option : getenv(variable);
    return value && *value ? value : NULL;
}

/* The file's text, to be wiped and freed. By read(), so that no buffer of stdio keeps a key. */
static ptier_status
read_pem(const char *path, char **text, ptier_error *error)
{
    ptier_status status = PTIER_OK;
    size_t length = 0;
    *text = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not hold us up */
    if (fd < 0)
        return ptier_fail(error, errno == ENOENT ? PTIER_NOT_FOUND : PTIER_PERMISSION_DENIED,
                          "cannot read %s: %s", path, strerror(errno));
    if (!(*text = calloc(1, PEM_MAX + 1)))
        status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    while (status == PTIER_OK && length < PEM_MAX) {
        ssize_t got = read(fd, *text + length, PEM_MAX - length);
        if (got == 0)
            break;
        if (got > 0)
            length += (size_t)got;
        else if (errno != EINTR)
            status = ptier_fail(error, PTIER_PERMISSION_DENIED, "cannot read %s: %s", path,
                                strerror(errno));
    }
    (void)close(fd); /* only read */
    if (status == PTIER_OK && !strstr(*text, "-----BEGIN "))
        status = ptier_fail(error, PTIER_FAILED_PRECONDITION, "%s is not a PEM file", path);
    return status;
}

static ptier_status
set_ca(nng_tls_config *config, const char *path, ptier_error *error)
{
    char *pem;
    ptier_status status = read_pem(path, &pem, error);
    if (status == PTIER_OK)
        status = ptier_nng_tls_require(config, path, pem, error);
    ptier_nng_tls_forget(pem);
    return status;
}

static ptier_status
set_certificate(nng_tls_config *config, const char *cert, const char *key, ptier_error *error)
{
    char *cert_pem = NULL, *key_pem = NULL;
    ptier_status status = read_pem(cert, &cert_pem, error);
    if (status == PTIER_OK)
        status = read_pem(key, &key_pem, error);
    if (status == PTIER_OK) {
        int rv = nng_tls_config_own_cert(config, cert_pem, key_pem, NULL);
        if (rv != 0)
            status = ptier_nng_tls_fail(cert, rv, error);
    }
    ptier_nng_tls_forget(key_pem);
    ptier_nng_tls_forget(cert_pem);
    return status;
}

/* The host of the URL. A number is no name: mbedTLS never finds one in a certificate. */
static ptier_status
host_name(const char *url, char name[PTIER_TLS_NAME_MAX + 1], ptier_error *error)
{
    struct in6_addr number;
    const char *host = url + strlen(TLS);
    size_t length = strcspn(host, ":/");
    if (length == 0 || length > PTIER_TLS_NAME_MAX)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "address %s has no name of a host", url);
    memcpy(name, host, length);
    name[length] = '\0';
    if (*host == '[' || inet_pton(AF_INET, name, &number) == 1)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "address %s: a certificate names hosts, not numbers: set the name that "
                          "the daemon's has (tls_server_name, PROXYTIER_TLS_SERVER_NAME)",
                          url);
    return PTIER_OK;
}

static ptier_status
set_up(ptier_tls *tls, const ptier_client_options *options, const char *url, ptier_error *error)
{
    nng_tls_config *config = tls->config;
    const char *ca = either(options->tls_ca_file, "PROXYTIER_TLS_CA_FILE");
    const char *cert = either(options->tls_cert_file, "PROXYTIER_TLS_CERT_FILE");
    const char *key = either(options->tls_key_file, "PROXYTIER_TLS_KEY_FILE");
    const char *server = either(options->tls_server_name, "PROXYTIER_TLS_SERVER_NAME");
    ptier_status status = PTIER_OK;
    if (!ca)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "address %s: name the CA that signed the daemon's certificate "
                          "(tls_ca_file, PROXYTIER_TLS_CA_FILE)",
                          url);
    if (!cert != !key)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "a client certificate and its key are useless one without the other "
                          "(tls_cert_file, tls_key_file)");
    if (server && strlen(server) > PTIER_TLS_NAME_MAX)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "the name of a host has at most %d bytes (tls_server_name)",
                          PTIER_TLS_NAME_MAX);
    if (server)
        (void)snprintf(tls->server_name, sizeof tls->server_name, "%s", server); /* fits */
    else
        status = host_name(url, tls->server_name, error);
    if (status == PTIER_OK)
        status = set_ca(config, ca, error);
    if (status == PTIER_OK && cert)
        status = set_certificate(config, cert, key, error);
    tls->has_cert = cert != NULL;
    if (status != PTIER_OK)
        return status;
    /* Without one nng would not look at names at all. */
    int rv = nng_tls_config_server_name(config, tls->server_name);
    if (rv == 0)
        rv = ptier_nng_tls_versions(config);
    return rv == 0 ? PTIER_OK : ptier_nng_tls_fail(tls->server_name, rv, error);
}

ptier_status
ptier_tls_init(ptier_tls *tls, const ptier_client_options *options, const char *url,
               ptier_error *error)
{
    *tls = (ptier_tls){0};
    if (!ptier_tls_is_url(url))
        return PTIER_OK;
    int rv = nng_tls_config_alloc(&tls->config, NNG_TLS_MODE_CLIENT);
    if (rv != 0)
        return ptier_nng_tls_fail(url, rv, error);
    ptier_status status = set_up(tls, options, url, error);
    if (status != PTIER_OK)
        ptier_tls_fini(tls);
    return status;
}

void
ptier_tls_fini(ptier_tls *tls)
{
    if (tls->config)
        nng_tls_config_free(tls->config);
    *tls = (ptier_tls){0};
}

int
ptier_tls_dialer(nng_dialer dialer, const char *url, const ptier_tls *tls)
{
    if (!ptier_tls_is_url(url))
        return 0;
    return tls->config ? nng_dialer_set_ptr(dialer, NNG_OPT_TLS_CONFIG, tls->config)
                       : NNG_EPEERAUTH;
}
