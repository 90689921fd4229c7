/* The daemon as a process: what it refuses to start on, whom it lets in, what its log says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "proxytier/v1/cache.pb-c.h"
#include "proxytier/v1/info.pb-c.h"
#include "support/daemon.h"
#include "support/raw_client.h"
#include "support/monotonic.h"

#define TEXT(constant) ((char *)(uintptr_t)(constant))
#define WITH(...)      ((const char *[]){__VA_ARGS__, NULL})

static void
expect_refusal(test_daemon *daemon, const char *const *extra, const char *message)
{
    char line[300];
    (void)unlink(daemon->log_path); /* may not exist */
    assert_int_equal(test_daemon_run(daemon, extra), 1);
    char *log = test_daemon_log(daemon);
    (void)snprintf(line, sizeof line, "proxytierd: %s\n", message);
    assert_string_equal(log, line);
    free(log);
}

/* ---- addresses ---- */

static void
files_are_never_taken_for_sockets(void **state)
{
    test_daemon *daemon = *state;
    char path[96], url[112], message[256], kept[16] = "";
    (void)snprintf(path, sizeof path, "%s/file", daemon->directory);
    (void)snprintf(url, sizeof url, "ipc://%s", path);
    (void)snprintf(message, sizeof message,
                   "%s: there is something that is not a socket: choose another address", url);
    FILE *file = fopen(path, "w+");
    assert_non_null(file);
    assert_true(fputs("precious", file) >= 0 && fflush(file) == 0);
    expect_refusal(daemon, WITH("--listen", url), message);
    (void)snprintf(daemon->events_url, sizeof daemon->events_url, "ipc://%s/file",
                   daemon->directory);
    expect_refusal(daemon, NULL, message);
    assert_int_equal(fclose(file), 0);
    file = fopen(path, "r");
    assert_non_null(file);
    assert_non_null(fgets(kept, sizeof kept, file));
    assert_string_equal(kept, "precious");
    assert_int_equal(fclose(file), 0);
    struct stat data;
    assert_int_not_equal(stat(daemon->data_dir, &data), 0); /* it was told before anything else */
}

static void
missing_directories_of_given_addresses_are_told(void **state)
{
    test_daemon *daemon = *state;
    char directory[96], url[112], message[256];
    struct stat there;
    (void)snprintf(directory, sizeof directory, "%s/none", daemon->directory);
    (void)snprintf(url, sizeof url, "ipc://%s/z.sock", directory);
    (void)snprintf(message, sizeof message, "%s: there is no directory %s: make it first", url,
                   directory);
    expect_refusal(daemon, WITH("--listen", url), message);
    assert_int_not_equal(stat(directory, &there), 0);
}

static void
address_in_use_is_the_one_for_calls(void **state)
{
    test_daemon *daemon = *state, other;
    char message[256];
    test_daemon_start(daemon, NULL);
    test_daemon_init(&other);
    strcpy(other.url, daemon->url);
    strcpy(other.events_url, daemon->events_url);
    (void)snprintf(message, sizeof message,
                   "%s is in use: stop the other daemon or choose another address", daemon->url);
    expect_refusal(&other, NULL, message);
    test_daemon_fini(&other);
}

static void
short_help_is_help(void **state)
{
    test_daemon *daemon = *state;
    assert_int_equal(test_daemon_run(daemon, WITH("-h")), 0);
    assert_int_equal(test_daemon_log_count(daemon, "Usage: proxytierd"), 1);
}

/* ---- connections ---- */

#define FLOOD 40
#define LIMIT 8

static int
connect_as_peer(const test_daemon *daemon)
{
    static const uint8_t hello[] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    uint8_t answer[8];
    strcpy(address.sun_path, daemon->url + strlen("ipc://"));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(write(fd, hello, sizeof hello), sizeof hello);
    assert_int_equal(recv(fd, answer, sizeof answer, MSG_WAITALL), sizeof answer);
    return fd;
}

static size_t
count_refused(const int *fds)
{
    size_t refused = 0;
    for (size_t i = 0; i < FLOOD; i++) {
        struct pollfd fd = {.fd = fds[i], .events = POLLIN};
        refused += poll(&fd, 1, 0) > 0; /* nothing is ever sent: it is the end */
    }
    return refused;
}

static bool
is_answered(const test_daemon *daemon)
{
    raw_client client;
    Proxytier__V1__CheckRequest check = PROXYTIER__V1__CHECK_REQUEST__INIT;
    raw_client_open(&client, daemon->url);
    client.timeout_ms = 500;
    raw_reply reply = raw_client_call(&client, "/proxytier.v1.Health/Check", &check.base,
                                      &proxytier__v1__check_response__descriptor);
    bool answered = reply.header != NULL;
    raw_reply_free(&reply);
    raw_client_close(&client);
    return answered;
}

static void
connections_have_a_bound_and_are_given_back(void **state)
{
    test_daemon *daemon = *state;
    int fds[FLOOD];
    test_daemon_start(daemon, WITH("--max-connections", "8"));
    int64_t start = ptier_test_now();
    for (size_t i = 0; i < FLOOD; i++)
        fds[i] = connect_as_peer(daemon);
    int64_t deadline = ptier_test_now() + 10000;
    while (count_refused(fds) < FLOOD - LIMIT && ptier_test_now() < deadline)
        (void)poll(NULL, 0, 5); /* between two looks */
    assert_in_range(count_refused(fds), FLOOD - LIMIT, FLOOD - 1);
    size_t lines = test_daemon_log_count(daemon, "max-connections is reached (8)");
    assert_in_range(lines, 1, 1 + (ptier_test_now() - start) / 1000);
    for (size_t i = 0; i < FLOOD; i++)
        close(fds[i]);
    deadline = ptier_test_now() + 10000;
    while (!is_answered(daemon))
        assert_true(ptier_test_now() < deadline);
}

/* ---- log ---- */

static void
put(raw_client *client, const char *url, char key[300])
{
    Proxytier__V1__PutRequest request = PROXYTIER__V1__PUT_REQUEST__INIT;
    Proxytier__V1__Proxy proxy = PROXYTIER__V1__PROXY__INIT;
    proxy.url = TEXT(url);
    request.proxy = &proxy;
    raw_reply reply = raw_client_call(client, "/proxytier.v1.ProxyCache/Put", &request.base,
                                      &proxytier__v1__put_response__descriptor);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    (void)snprintf(key, 300, "%s", ((const Proxytier__V1__PutResponse *)reply.body)->result->key);
    raw_reply_free(&reply);
}

/* Three failed reports of two keys in one call: both are removed. */
static void
report_both(raw_client *client, char *first, char *second, const char *error)
{
    Proxytier__V1__HealthReport reports[6], *list[6];
    Proxytier__V1__ReportHealthRequest request = PROXYTIER__V1__REPORT_HEALTH_REQUEST__INIT;
    for (size_t i = 0; i < 6; i++) {
        proxytier__v1__health_report__init(&reports[i]);
        reports[i].key = i % 2 ? second : first;
        reports[i].outcome = PROXYTIER__V1__REPORT_OUTCOME__REPORT_OUTCOME_FAILED;
        reports[i].error = TEXT(error);
        list[i] = &reports[i];
    }
    request.reports = list;
    request.n_reports = 6;
    raw_reply reply =
        raw_client_call(client, "/proxytier.v1.ProxyCache/ReportHealth", &request.base,
                        &proxytier__v1__report_health_response__descriptor);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    raw_reply_free(&reply);
}

static void
run_reports(test_daemon *daemon, const char *level)
{
    raw_client client;
    char first[300], second[300];
    (void)unlink(daemon->log_path); /* may not exist */
    test_daemon_start(daemon, WITH("--log-level", level));
    raw_client_open(&client, daemon->url);
    put(&client, "http://hidden-user:hidden-secret@10.0.0.1:81", first);
    put(&client, "http://10.0.0.2:82", second);
    report_both(&client, first, second,
                "no way to http://hidden-user:hidden-secret@10.0.0.1:81\nFAKE \x1b[31m\xc2\x9b");
    raw_client_close(&client);
    assert_int_equal(test_daemon_end(daemon, SIGTERM), 0);
    char message[600];
    (void)snprintf(message, sizeof message,
                   "  %s, http://10.0.0.2:82: 3 failures in a row, the last error: no way to "
                   "http://***@10.0.0.1:81 FAKE  [31m  \n",
                   second);
    assert_int_equal(test_daemon_log_count(daemon, message), 1);
    assert_int_equal(test_daemon_log_count(daemon, ", http://10.0.0.1:81: 3 failures"), 1);
    assert_int_equal(test_daemon_log_count(daemon, "hidden"), 0);
    assert_int_equal(test_daemon_log_count(daemon, "\x1b"), 0);
}

static void
removals_by_health_are_logged_with_the_last_error(void **state)
{
    test_daemon *daemon = *state;
    run_reports(daemon, "info");
    assert_int_equal(test_daemon_log_count(daemon, "removed_by_health"), 2);
    assert_int_equal(test_daemon_log_count(daemon, "DEBUG"), 0);
}

static void
every_call_and_report_is_logged_at_debug(void **state)
{
    test_daemon *daemon = *state;
    run_reports(daemon, "debug");
    assert_int_equal(test_daemon_log_count(daemon, "removed_by_health"), 2);
    assert_int_equal(test_daemon_log_count(daemon, "DEBUG report"), 6);
    assert_int_equal(test_daemon_log_count(daemon, "DEBUG call  ProxyCache.Put: ok, 1 items, "), 2);
    assert_int_equal(
        test_daemon_log_count(daemon, "DEBUG call  ProxyCache.ReportHealth: ok, 6 items, "), 1);
    assert_true(test_daemon_log_count(daemon, " us, admin\n") >= 4); /* and Health.Check */
}

static void
warming_that_failed_is_not_done(void **state)
{
    test_daemon *daemon = *state;
    char path[96];
    (void)snprintf(path, sizeof path, "%s/none.txt", daemon->directory);
    test_daemon_start(daemon, WITH("--warm", path));
    int64_t deadline = ptier_test_now() + 10000;
    while (test_daemon_log_count(daemon, "warm_failed") == 0)
        assert_true(ptier_test_now() < deadline);
    assert_int_equal(test_daemon_log_count(daemon, "warm_done"), 0);
    assert_int_equal(test_daemon_log_count(daemon, "0 records"), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, test_daemon_set_up, test_daemon_tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(files_are_never_taken_for_sockets),
        TEST(missing_directories_of_given_addresses_are_told),
        TEST(address_in_use_is_the_one_for_calls),
        TEST(short_help_is_help),
        TEST(connections_have_a_bound_and_are_given_back),
        TEST(removals_by_health_are_logged_with_the_last_error),
        TEST(every_call_and_report_is_logged_at_debug),
        TEST(warming_that_failed_is_not_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
