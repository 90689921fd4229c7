/* server/config*.c, listen.c: which addresses the configuration may open to whom. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "config_internal.h"
#include "support/temp_dir.h"

#define IPC       "ipc:///tmp/x/rpc.sock"
#define TLS       "tls+tcp://0.0.0.0:7443"
#define WITH_CERT "--tls-cert", "/c.pem", "--tls-key", "/k.pem", "--token-file", "/t"

static ptier_status
load(const char *const *arguments, ptier_config **config, ptier_error *error)
{
    const char *argv[20] = {"proxytierd"};
    int argc = 1;
    bool done;
    clearenv();
    for (; *arguments; arguments++)
        argv[argc++] = *arguments;
    return ptier_config_load(argc, argv, config, &done, error);
}

static ptier_config *
accept_config(const char *const *arguments)
{
    ptier_config *config = NULL;
    ptier_error error = {0};
    if (load(arguments, &config, &error) != PTIER_OK)
        fail_msg("%s", error.message);
    return config;
}
#define ACCEPT(...) ptier_config_destroy(accept_config((const char *[]){__VA_ARGS__, NULL}))

static void
refuse(const char *part, const char *const *arguments)
{
    ptier_config *config = NULL;
    ptier_error error = {0};
    assert_int_equal(load(arguments, &config, &error), PTIER_INVALID_ARGUMENT);
    if (!strstr(error.message, part))
        fail_msg("'%s' does not mention '%s'", error.message, part);
}
#define REFUSE(part, ...) refuse(part, (const char *[]){__VA_ARGS__, NULL})

static void
plain_tcp_is_for_loopback_unless_said_in_so_many_words(void **state)
{
    (void)state;
    ACCEPT("--listen", "tcp://127.0.0.1:1", "--token-file", "/t");
    ACCEPT("--listen", "tcp://[::1]:65535", "--token-file", "/t");
    REFUSE("insecure-tcp", "--listen", "tcp://0.0.0.0:7411", "--token-file", "/t");
    REFUSE("insecure-tcp", "--listen", "tcp://*:7411", "--token-file", "/t");
    REFUSE("insecure-tcp", "--listen", "tcp://127.evil.example:7411", "--token-file", "/t");
    ACCEPT("--listen", "tcp://0.0.0.0:7411", "--token-file", "/t", "--insecure-tcp", "yes");
    REFUSE("port", "--listen", "tcp://127.0.0.1", "--token-file", "/t");
    REFUSE("port", "--listen", "tcp://127.0.0.1:0", "--token-file", "/t");
    REFUSE("port", "--listen", "tcp://[::1]", "--token-file", "/t", "--insecure-tcp=on");
}

static void
what_needs_tokens_says_so(void **state)
{
    (void)state;
    REFUSE("--token-file", "--listen", "tcp://127.0.0.1:1");
    REFUSE("--token-file", "--listen", TLS, "--tls-cert", "/c", "--tls-key", "/k");
    ACCEPT("--listen", TLS, WITH_CERT);
}

static void
tls_needs_certificate_and_key(void **state)
{
    (void)state;
    REFUSE("tls-init", "--listen", TLS, "--token-file", "/t");
    REFUSE("without the other", "--tls-cert", "/c.pem");
    REFUSE("without the other", "--tls-key", "/k.pem");
    REFUSE("--tls-ca needs", "--tls-ca", "/ca.pem");
}

static void
events_go_over_ipc_and_mutual_tls(void **state)
{
    (void)state;
    REFUSE("set tls-ca", "--listen", IPC, "--events", TLS, WITH_CERT);
    REFUSE("events go over", "--listen", IPC, "--events", "tcp://127.0.0.1:1", WITH_CERT);
    ACCEPT("--listen", IPC, "--events", TLS, "--events", IPC ".e", WITH_CERT, "--tls-ca", "/ca");
    REFUSE("of this kind", "--listen", IPC, "--events", IPC ".e", "--events", IPC ".f");
}

static void
socket_modes_are_three(void **state)
{
    (void)state;
    ACCEPT("--socket-mode", "0666");
    ACCEPT("--socket-mode", "600");
    REFUSE("--socket-mode", "--socket-mode", "777");
    REFUSE("--socket-mode", "--socket-mode", "0");
}

static void
file_takes_names_with_underscores(void **state)
{
    (void)state;
    static const char text[] = "insecure_tcp = yes\ntoken_file = /t\nrotator_users = 7\n"
                               "rotator-users = me\nlisten = tcp://10.1.2.3:9\n";
    char directory[PTIER_TEST_PATH], path[PTIER_TEST_PATH + 8];
    ptier_test_dir_make(directory);
    (void)snprintf(path, sizeof path, "%s/conf", directory);
    ptier_test_file_write(path, text, sizeof text - 1);
    ptier_config *config = accept_config((const char *[]){"--config", path, NULL});
    assert_true(config->insecure_tcp);
    assert_int_equal(config->rotator_users.count, 2);
    assert_string_equal(config->token_file, "/t");
    ptier_config_destroy(config);
    ptier_test_dir_remove(directory);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_tcp_is_for_loopback_unless_said_in_so_many_words),
        cmocka_unit_test(what_needs_tokens_says_so),
        cmocka_unit_test(tls_needs_certificate_and_key),
        cmocka_unit_test(events_go_over_ipc_and_mutual_tls),
        cmocka_unit_test(socket_modes_are_three),
        cmocka_unit_test(file_takes_names_with_underscores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
