/* The SDK and the command over TLS: who gets in, who is told what, and where events go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <nng/nng.h>
#include <nng/protocol/pubsub0/sub.h>

#include <proxytier/client.h>

#include "support/program.h"
#include "support/security_box.h"
#include "support/monotonic.h"

#define PROXYTIER   PTIER_BIN_DIR "/proxytier"
#define PATIENCE_MS 20000

/* A client of the box: its CA, the certificate `cert` (NULL: none), the admin's token. */
static ptier_client_options
options_for(const security_box *box, const char *cert)
{
    char pem[32], key[32];
    ptier_client_options options;
    ptier_client_options_init(&options);
    options.url = box->tls_url;
    options.token = box->tokens[PTIER_ROLE_ADMIN];
    options.tls_ca_file = security_box_file(box, "ca.pem");
    options.tls_server_name = SECURITY_BOX_HOST;
    if (cert) {
        (void)snprintf(pem, sizeof pem, "%s.pem", cert);
        (void)snprintf(key, sizeof key, "%s.key", cert);
        options.tls_cert_file = security_box_file(box, pem);
        options.tls_key_file = security_box_file(box, key);
    }
    return options;
}

static ptier_status
get_info(const ptier_client_options *options, ptier_server_info *info)
{
    ptier_client *client;
    ptier_error error = {0};
    ptier_status status = ptier_client_open(options, &client, &error);
    if (status != PTIER_OK)
        return status;
    status = ptier_get_info(client, info, &error);
    if (status != PTIER_OK)
        assert_true(error.message[0] != '\0');
    ptier_client_close(client);
    return status;
}

static void
expect(const ptier_client_options *options, ptier_status status)
{
    ptier_server_info info;
    ptier_status got = get_info(options, &info);
    if (got != status)
        fail_msg("%s instead of %s", ptier_status_text(got), ptier_status_text(status));
}

static void
certificates_that_are_not_taken_are_told_at_once(void **state)
{
    security_box *box = *state;
    security_box_start(box, true, NULL);
    ptier_client_options options = options_for(box, "client");
    expect(&options, PTIER_OK);
    options.tls_server_name = "localhost"; /* its other name */
    expect(&options, PTIER_OK);
    options.tls_server_name = "wrong.test";
    expect(&options, PTIER_UNAUTHENTICATED);
    options = options_for(box, "client");
    options.tls_ca_file = security_box_file(box, "other-ca.pem");
    expect(&options, PTIER_UNAUTHENTICATED);
    options = options_for(box, "stranger");
    expect(&options, PTIER_UNAUTHENTICATED);
    options = options_for(box, "expired");
    expect(&options, PTIER_UNAUTHENTICATED);
    options = options_for(box, NULL);
    expect(&options, PTIER_UNAUTHENTICATED);
    options = options_for(box, "client");
    options.token = "";
    expect(&options, PTIER_UNAUTHENTICATED);
    options.token = box->tokens[PTIER_ROLE_NONE];
    expect(&options, PTIER_UNAUTHENTICATED);
}

static void
options_that_cannot_work_are_refused_at_open(void **state)
{
    security_box *box = *state;
    ptier_client_options options = options_for(box, "client");
    options.tls_server_name = NULL; /* the address is a number */
    expect(&options, PTIER_INVALID_ARGUMENT);
    options = options_for(box, NULL);
    options.tls_ca_file = NULL;
    expect(&options, PTIER_INVALID_ARGUMENT);
    options = options_for(box, "client");
    options.tls_key_file = NULL;
    expect(&options, PTIER_INVALID_ARGUMENT);
    options.tls_key_file = security_box_file(box, "none.key");
    expect(&options, PTIER_NOT_FOUND);
    options.tls_key_file = box->token_path;
    expect(&options, PTIER_FAILED_PRECONDITION);
    options = options_for(box, "client");
    options.tls_key_file = security_box_file(box, "stranger.key");
    ptier_server_info info;
    assert_int_not_equal(get_info(&options, &info), PTIER_OK);
}

/* Where the advice stands in the error of the SDK. */
static void
expect_advice(const ptier_client_options *options, ptier_status status, const char *advice)
{
    ptier_client *client;
    ptier_server_info info;
    ptier_error error = {.message = ""};
    ptier_status got = ptier_client_open(options, &client, &error);
    if (got == PTIER_OK) {
        got = ptier_get_info(client, &info, &error);
        ptier_client_close(client);
    }
    if (got != status || !strstr(error.message, advice))
        fail_msg("%s: %s", ptier_status_text(got), error.message);
}

static void
errors_of_tls_name_what_is_to_be_looked_at(void **state)
{
    security_box *box = *state;
    char plain[48];
    security_box_start(box, true, NULL);
    ptier_client_options options = options_for(box, "client");
    options.tls_server_name = "wrong.test";
    expect_advice(&options, PTIER_UNAUTHENTICATED, "not for the name wrong.test");
    expect_advice(&options, PTIER_UNAUTHENTICATED, "; or ours (tls_cert_file)");
    (void)snprintf(plain, sizeof plain, "%s", strstr(box->tls_url, "tcp://"));
    options.url = plain;
    expect_advice(&options, PTIER_UNAVAILABLE, "begin with tls+tcp://?");
}

static int
run(ptier_test_program *program, const char *const *argv)
{
    ptier_test_program_free(program);
    ptier_test_program_start(program, NULL, argv);
    return ptier_test_program_wait(program);
}
#define RUN(program, ...) run(program, (const char *[]){PROXYTIER, __VA_ARGS__, NULL})

static void
set_environment(const char *name, const char *value)
{
    assert_int_equal(setenv(name, value, 1), 0);
}

static void
watch_says_how_events_are_offered_and_a_reader_what_is_hidden(void **state)
{
    static const char *const names[] = {"PROXYTIER_TOKEN", "PROXYTIER_TLS_CA_FILE",
                                        "PROXYTIER_TLS_SERVER_NAME"};
    security_box *box = *state;
    ptier_test_program program = {0};
    security_box_start(box, false, NULL);
    set_environment(names[0], box->tokens[PTIER_ROLE_READER]);
    set_environment(names[1], security_box_file(box, "ca.pem"));
    set_environment(names[2], SECURITY_BOX_HOST);
    assert_int_equal(RUN(&program, "watch", "--for", "1s", "--url", box->tls_url), 6);
    assert_non_null(strstr(program.texts[PTIER_TEST_ERR], "--events tls+tcp://HOST:PORT"));
    assert_int_equal(RUN(&program, "watch", "--for", "1s", "--url", box->tcp_url), 6);
    assert_non_null(strstr(program.texts[PTIER_TEST_ERR], "begins with ipc or tls+tcp"));
    assert_int_equal(RUN(&program, "list", "--show-credentials", "--url", box->tls_url), 0);
    assert_string_equal(program.texts[PTIER_TEST_ERR],
                        "proxytier list: your role, reader, sees no credentials\n");
    assert_int_equal(RUN(&program, "list", "--url", box->tls_url), 0);
    assert_string_equal(program.texts[PTIER_TEST_ERR], "");
    set_environment(names[0], box->tokens[PTIER_ROLE_ROTATOR]);
    assert_int_equal(RUN(&program, "list", "--show-credentials", "--url", box->tls_url), 0);
    assert_string_equal(program.texts[PTIER_TEST_ERR], "");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_int_equal(unsetenv(names[i]), 0);
    ptier_test_program_free(&program);
}

/* The library names its options; the command has others. */
static void
command_names_its_own_options(void **state)
{
    security_box *box = *state;
    ptier_test_program program = {0};
    assert_int_equal(RUN(&program, "info", "--url", "tls+tcp://127.0.0.1:7443", "--tls-ca", "x"),
                     2);
    assert_non_null(
        strstr(program.texts[PTIER_TEST_ERR], "(--tls-server-name, PROXYTIER_TLS_SERVER_NAME)"));
    assert_int_equal(
        RUN(&program, "info", "--url", box->tls_url, "--tls-ca", "x", "--tls-cert", "x"), 2);
    assert_non_null(strstr(program.texts[PTIER_TEST_ERR], "(--tls-cert, --tls-key)"));
    assert_int_equal(RUN(&program, "info", "--daemon-user", "no-such-user"), 2);
    assert_non_null(strstr(program.texts[PTIER_TEST_ERR], "(--daemon-user, "));
    ptier_test_program_free(&program);
}

static void
environment_says_what_options_leave_out(void **state)
{
    security_box *box = *state;
    ptier_client_options options;
    security_box_start(box, true, NULL);
    ptier_client_options_init(&options);
    setenv("PROXYTIER_URL", box->tls_url, 1);
    setenv("PROXYTIER_TOKEN", box->tokens[PTIER_ROLE_READER], 1);
    setenv("PROXYTIER_TLS_CA_FILE", security_box_file(box, "ca.pem"), 1);
    setenv("PROXYTIER_TLS_CERT_FILE", security_box_file(box, "client.pem"), 1);
    setenv("PROXYTIER_TLS_KEY_FILE", security_box_file(box, "client.key"), 1);
    setenv("PROXYTIER_TLS_SERVER_NAME", SECURITY_BOX_HOST, 1);
    ptier_server_info info = {0};
    ptier_status status = get_info(&options, &info);
    unsetenv("PROXYTIER_URL");
    unsetenv("PROXYTIER_TOKEN");
    unsetenv("PROXYTIER_TLS_CA_FILE");
    unsetenv("PROXYTIER_TLS_CERT_FILE");
    unsetenv("PROXYTIER_TLS_KEY_FILE");
    unsetenv("PROXYTIER_TLS_SERVER_NAME");
    assert_int_equal(status, PTIER_OK);
    assert_string_equal(info.role, "reader");
}

static void
event_address_is_that_of_the_door(void **state)
{
    security_box *box = *state;
    ptier_server_info info;
    ptier_client_options options;
    security_box_start(box, true, NULL);
    options = options_for(box, "client");
    assert_int_equal(get_info(&options, &info), PTIER_OK);
    assert_string_equal(info.event_url, box->tls_events_url);
    options.url = box->tcp_url;
    assert_int_equal(get_info(&options, &info), PTIER_OK);
    assert_string_equal(info.event_url, "");
    options.url = box->daemon.url;
    options.token = box->tokens[PTIER_ROLE_READER];
    assert_int_equal(get_info(&options, &info), PTIER_OK);
    assert_string_equal(info.event_url, box->daemon.events_url);
}

/* ---- events ---- */

static atomic_bool connected;
static atomic_uint events;

static void
on_event(void *context, const ptier_event *event)
{
    (void)context;
    (void)event;
    atomic_fetch_add(&events, 1);
}

static void
on_state(void *context, ptier_subscription_state now)
{
    (void)context;
    if (now == PTIER_SUBSCRIPTION_CONNECTED)
        atomic_store(&connected, true);
}

#define WAIT_FOR(condition)                                                                        \
    do {                                                                                           \
        int64_t deadline = ptier_test_now() + PATIENCE_MS;                                         \
        while (!(condition)) {                                                                     \
            assert_true(ptier_test_now() < deadline);                                              \
            (void)poll(NULL, 0, 5);                                                                \
        }                                                                                          \
    } while (0)

static void
events_come_over_mutual_tls(void **state)
{
    security_box *box = *state;
    ptier_client *client;
    ptier_subscription *subscription;
    ptier_subscription_options wanted;
    security_box_start(box, true, NULL);
    ptier_client_options options = options_for(box, "client");
    assert_int_equal(ptier_client_open(&options, &client, NULL), PTIER_OK);
    ptier_subscription_options_init(&wanted);
    wanted.on_event = on_event;
    wanted.on_state = on_state;
    assert_int_equal(ptier_subscribe(client, &wanted, &subscription, NULL), PTIER_OK);
    WAIT_FOR(atomic_load(&connected));
    ptier_record record;
    ptier_record_init(&record);
    record.url = "http://10.0.0.1:81";
    assert_int_equal(ptier_put(client, &record, NULL, NULL, NULL), PTIER_OK);
    WAIT_FOR(atomic_load(&events) == 1);
    ptier_subscription_close(subscription);
    ptier_client_close(client);
}

/* Whether a subscriber of its own hears anything: a heartbeat comes four times a second. */
static bool
hears_events(const char *url, nng_tls_config *tls)
{
    nng_socket socket;
    nng_dialer dialer;
    nng_msg *message = NULL;
    assert_int_equal(nng_sub0_open(&socket), 0);
    assert_int_equal(nng_socket_set(socket, NNG_OPT_SUB_SUBSCRIBE, "", 0), 0);
    assert_int_equal(nng_socket_set_ms(socket, NNG_OPT_RECVTIMEO, 2000), 0);
    assert_int_equal(nng_dialer_create(&dialer, socket, url), 0);
    assert_int_equal(nng_dialer_set_ptr(dialer, NNG_OPT_TLS_CONFIG, tls), 0);
    bool heard = nng_dialer_start(dialer, 0) == 0 && nng_recvmsg(socket, &message, 0) == 0;
    if (message)
        nng_msg_free(message);
    (void)nng_close(socket); /* fails only for a bad handle */
    nng_tls_config_free(tls);
    return heard;
}

/* The same over ipc, by hand: nng would dial again on a thread of its own, which is root's. */
static bool
user_hears_events(const char *url)
{
    static const uint8_t hello[] = {0, 'S', 'P', 0, 0, 0x21, 0, 0};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval patience = {.tv_sec = 5};
    uint8_t bytes[64];
    strcpy(address.sun_path, url + strlen("ipc://"));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(send(fd, hello, sizeof hello, MSG_NOSIGNAL), sizeof hello);
    bool heard = recv(fd, bytes, sizeof bytes, MSG_WAITALL) == sizeof bytes;
    close(fd);
    return heard;
}

static void
event_sockets_are_for_users_and_certificates(void **state)
{
    security_box *box = *state;
    const char *tls = box->tls_events_url, *ipc = box->daemon.events_url;
    security_box_start(box, true, NULL);
    assert_true(hears_events(tls, security_box_tls(box, "ca", "client", SECURITY_BOX_HOST)));
    assert_false(hears_events(tls, security_box_tls(box, "ca", NULL, SECURITY_BOX_HOST)));
    assert_false(hears_events(tls, security_box_tls(box, "ca", "stranger", SECURITY_BOX_HOST)));
    assert_false(hears_events(tls, security_box_tls(box, "ca", "expired", SECURITY_BOX_HOST)));
    assert_true(user_hears_events(ipc));
    if (!security_box_become(SECURITY_BOX_NOBODY))
        skip();
    bool nobody = user_hears_events(ipc);
    assert_true(security_box_become(0) && security_box_become(SECURITY_BOX_USER));
    bool rotator = user_hears_events(ipc);
    assert_true(security_box_become(0));
    assert_false(nobody);
    assert_true(rotator);
}

/* ---- tls-init ---- */

static void
expect_mode(const char *directory, const char *name, mode_t mode)
{
    char path[200];
    struct stat about;
    (void)snprintf(path, sizeof path, "%s/%s", directory, name);
    assert_int_equal(stat(path, &about), 0);
    assert_int_equal(about.st_mode & 07777, mode);
}

static void
tls_init_makes_what_daemon_and_client_need(void **state)
{
    security_box *box = *state;
    ptier_test_program program = {0};
    char tls[160], server[180], key[180], ca[180];
    (void)snprintf(tls, sizeof tls, "%s/tls", box->daemon.directory);
    (void)snprintf(server, sizeof server, "%s/server.pem", tls);
    (void)snprintf(key, sizeof key, "%s/server.key", tls);
    (void)snprintf(ca, sizeof ca, "%s/ca.pem", tls);
    assert_int_equal(RUN(&program, "tls-init", tls, "--host", "10.0.0.1"), 2);
    assert_int_equal(RUN(&program, "tls-init", tls, "--host", "a.test,localhost"), 0);
    assert_non_null(strstr(program.texts[PTIER_TEST_OUT], "tls-cert = "));
    assert_non_null(strstr(program.texts[PTIER_TEST_OUT], "# listen = ipc:///"));
    assert_non_null(strstr(program.texts[PTIER_TEST_OUT], "tls+tcp://a.test:7443"));
    expect_mode(tls, "", 0700);
    for (int i = 0; i < 3; i++)
        expect_mode(tls, (const char *[]){"ca.key", "server.key", "client.key"}[i], 0600);
    /* Nothing is written over; what was moved away is made again, by the same CA. */
    assert_int_equal(RUN(&program, "tls-init", tls), 1);
    assert_int_equal(unlink(server) | unlink(key), 0);
    assert_int_equal(RUN(&program, "tls-init", tls, "--host", "b.test"), 0);
    test_daemon_start(&box->daemon, (const char *[]){"--listen", box->tls_url, "--token-file",
                                                     box->token_path, "--tls-cert", server,
                                                     "--tls-key", key, "--tls-ca", ca, NULL});
    ptier_client_options options = options_for(box, NULL);
    char cert[180], client_key[180];
    (void)snprintf(cert, sizeof cert, "%s/client.pem", tls);
    (void)snprintf(client_key, sizeof client_key, "%s/client.key", tls);
    options.tls_ca_file = ca;
    options.tls_cert_file = cert;
    options.tls_key_file = client_key;
    options.tls_server_name = "b.test";
    expect(&options, PTIER_OK);
    options.tls_server_name = "a.test";
    expect(&options, PTIER_UNAUTHENTICATED);
    ptier_test_program_free(&program);
}

static void
the_log_has_all_addresses(void **state)
{
    security_box *box = *state;
    char expected[400];
    security_box_start(box, true, NULL);
    assert_int_equal(test_daemon_end(&box->daemon, SIGTERM), 0);
    char *log = test_daemon_log(&box->daemon);
    const char *line = strstr(log, "INFO  serving ");
    (void)snprintf(expected, sizeof expected, "%s %s", box->tcp_url, box->tls_url);
    assert_non_null(line);
    assert_non_null(strstr(line, expected));
    assert_non_null(strstr(line, box->daemon.events_url));
    assert_non_null(strstr(line, box->tls_events_url));
    free(log);
}

static void
daemon_refuses_keys_that_others_may_read(void **state)
{
    security_box *box = *state;
    assert_int_equal(chmod(security_box_file(box, "server.key"), 0640), 0);
    assert_int_equal(
        test_daemon_run(&box->daemon,
                        (const char *[]){"--tls-cert", security_box_file(box, "server.pem"),
                                         "--tls-key", security_box_file(box, "server.key"), NULL}),
        1);
    char *log = test_daemon_log(&box->daemon);
    assert_non_null(strstr(log, "chmod 600"));
    free(log);
}

static void
daemon_refuses_the_key_of_another_certificate(void **state)
{
    security_box *box = *state;
    assert_int_equal(
        test_daemon_run(&box->daemon,
                        (const char *[]){"--tls-cert", security_box_file(box, "server.pem"),
                                         "--tls-key", security_box_file(box, "client.key"), NULL}),
        1);
    char *log = test_daemon_log(&box->daemon);
    assert_non_null(strstr(log, "client.key is not the key of "));
    free(log);
}

#define TEST(name)                                                                                 \
    cmocka_unit_test_setup_teardown(name, security_box_set_up, security_box_tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(certificates_that_are_not_taken_are_told_at_once),
        TEST(options_that_cannot_work_are_refused_at_open),
        TEST(errors_of_tls_name_what_is_to_be_looked_at),
        TEST(watch_says_how_events_are_offered_and_a_reader_what_is_hidden),
        TEST(command_names_its_own_options),
        TEST(environment_says_what_options_leave_out),
        TEST(event_address_is_that_of_the_door),
        TEST(events_come_over_mutual_tls),
        TEST(event_sockets_are_for_users_and_certificates),
        TEST(tls_init_makes_what_daemon_and_client_need),
        TEST(the_log_has_all_addresses),
        TEST(daemon_refuses_keys_that_others_may_read),
        TEST(daemon_refuses_the_key_of_another_certificate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
