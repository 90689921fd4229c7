/* See security_box.h. */
#include "support/security_box.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "certificate.h"
#include "support/temp_dir.h"

#define OPTIONS_MAX 32

const char *
security_box_file(const security_box *box, const char *name)
{
    static char paths[8][160];
    static unsigned next;
    char *path = paths[next++ % 8];
    (void)snprintf(path, sizeof paths[0], "%s/%s", box->daemon.directory, name);
    return path;
}

/* Nobody else is told of it: another process may take it before the daemon does, which then says
 * so.
 */
static unsigned
free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    close(fd);
    return ntohs(address.sin_port);
}

static void
add_token(security_box *box, ptier_role role, const char *name, int64_t expires_s, char *token)
{
    ptier_token_entry entry = {.role = role, .expires_s = expires_s};
    strcpy(entry.name, name);
    assert_int_equal(ptier_token_make(token, NULL), PTIER_OK);
    assert_true(ptier_token_hash(token, entry.hash));
    assert_int_equal(ptier_token_file_add(box->token_path, &entry, NULL), PTIER_OK);
}

static void
write_pair(const security_box *box, const ptier_certificate *pair, const char *name)
{
    char cert[160], key[160];
    (void)snprintf(cert, sizeof cert, "%s/%s.pem", box->daemon.directory, name);
    (void)snprintf(key, sizeof key, "%s/%s.key", box->daemon.directory, name);
    assert_int_equal(ptier_certificate_write(pair, cert, key, NULL), PTIER_OK);
}

static void
make_client(const security_box *box, const ptier_certificate *ca, const char *name, bool expired)
{
    ptier_certificate made;
    assert_int_equal(ptier_certificate_make(PTIER_CERTIFICATE_CLIENT, ca, NULL, 0, &made, NULL),
                     PTIER_OK);
    if (expired) {
        assert_non_null(X509_gmtime_adj(X509_getm_notBefore(made.cert), -7200));
        assert_non_null(X509_gmtime_adj(X509_getm_notAfter(made.cert), -3600));
        assert_true(X509_sign(made.cert, ca->key, EVP_sha256()) > 0);
    }
    write_pair(box, &made, name);
    ptier_certificate_fini(&made);
}

static void
make_certificates(const security_box *box)
{
    static const char *const hosts[] = {SECURITY_BOX_HOST, "localhost"};
    ptier_certificate ca, other, server;
    assert_int_equal(ptier_certificate_make(PTIER_CERTIFICATE_CA, NULL, NULL, 0, &ca, NULL),
                     PTIER_OK);
    assert_int_equal(ptier_certificate_make(PTIER_CERTIFICATE_CA, NULL, NULL, 0, &other, NULL),
                     PTIER_OK);
    assert_int_equal(ptier_certificate_make(PTIER_CERTIFICATE_SERVER, &ca, hosts, 2, &server, NULL),
                     PTIER_OK);
    write_pair(box, &ca, "ca");
    write_pair(box, &other, "other-ca");
    write_pair(box, &server, "server");
    make_client(box, &ca, "client", false);
    make_client(box, &ca, "expired", true);
    make_client(box, &other, "stranger", false);
    ptier_certificate_fini(&server);
    ptier_certificate_fini(&other);
    ptier_certificate_fini(&ca);
}

void
security_box_init(security_box *box)
{
    memset(box, 0, sizeof *box);
    test_daemon_init(&box->daemon);
    assert_int_equal(chmod(box->daemon.directory, 0755), 0); /* other users connect too */
    (void)snprintf(box->token_path, sizeof box->token_path, "%s/tokens", box->daemon.directory);
    (void)snprintf(box->tcp_url, sizeof box->tcp_url, "tcp://127.0.0.1:%u", free_port());
    (void)snprintf(box->tls_url, sizeof box->tls_url, "tls+tcp://127.0.0.1:%u", free_port());
    (void)snprintf(box->tls_events_url, sizeof box->tls_events_url, "tls+tcp://127.0.0.1:%u",
                   free_port());
    for (ptier_role role = PTIER_ROLE_READER; role <= PTIER_ROLE_ADMIN; role++)
        add_token(box, role, ptier_role_name(role), 0, box->tokens[role]);
    add_token(box, PTIER_ROLE_ADMIN, "expired", 86400, box->tokens[PTIER_ROLE_NONE]);
    assert_int_equal(ptier_token_make(box->wrong, NULL), PTIER_OK);
    make_certificates(box);
}

void
security_box_fini(security_box *box)
{
    test_daemon_fini(&box->daemon);
}

int
security_box_set_up(void **state)
{
    security_box *box = calloc(1, sizeof *box);
    assert_non_null(box);
    security_box_init(box);
    *state = box;
    return 0;
}

int
security_box_tear_down(void **state)
{
    security_box_fini(*state);
    free(*state);
    return 0;
}

void
security_box_start(security_box *box, bool mutual, const char *const *extra)
{
    const char *options[OPTIONS_MAX] = {"--listen",        box->tcp_url,
                                        "--listen",        box->tls_url,
                                        "--token-file",    box->token_path,
                                        "--tls-cert",      security_box_file(box, "server.pem"),
                                        "--tls-key",       security_box_file(box, "server.key"),
                                        "--socket-mode",   "666",
                                        "--rotator-users", "12345"};
    size_t count = 14;
    if (mutual) {
        options[count++] = "--tls-ca";
        options[count++] = security_box_file(box, "ca.pem");
        options[count++] = "--events";
        options[count++] = box->tls_events_url;
    }
    for (; extra && *extra && count < OPTIONS_MAX - 1; extra++)
        options[count++] = *extra;
    test_daemon_start(&box->daemon, options);
}

static char *
read_file(const security_box *box, const char *name, const char *ending)
{
    char file[64];
    size_t length;
    (void)snprintf(file, sizeof file, "%s%s", name, ending);
    return ptier_test_file_read(security_box_file(box, file), &length);
}

nng_tls_config *
security_box_tls(const security_box *box, const char *ca, const char *cert, const char *host)
{
    nng_tls_config *tls;
    char *pem = read_file(box, ca, ".pem");
    assert_int_equal(nng_tls_config_alloc(&tls, NNG_TLS_MODE_CLIENT), 0);
    assert_int_equal(nng_tls_config_ca_chain(tls, pem, NULL), 0);
    assert_int_equal(nng_tls_config_server_name(tls, host), 0);
    assert_int_equal(nng_tls_config_auth_mode(tls, NNG_TLS_AUTH_MODE_REQUIRED), 0);
    free(pem);
    if (!cert)
        return tls;
    pem = read_file(box, cert, ".pem");
    char *key = read_file(box, cert, ".key");
    assert_int_equal(nng_tls_config_own_cert(tls, pem, key, NULL), 0);
    free(pem);
    free(key);
    return tls;
}

bool
security_box_become(unsigned uid)
{
    return getuid() == 0 && syscall(SYS_setresuid, -1, uid, -1) == 0;
}
