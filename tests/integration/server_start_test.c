/* The daemon's start: what it refuses to start with, what it tells, what it loads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "proxytier/v1/cache.pb-c.h"
#include "support/monotonic.h"
#include "support/server_box.h"

static size_t
count_lines(const char *text)
{
    size_t lines = 0;
    for (; *text; text++)
        lines += *text == '\n';
    return lines;
}

/* Runs a daemon that must not come up and looks at the last line of its output. */
static void
expect_refusal(test_daemon *daemon, const char *const *extra, int code, const char *part)
{
    (void)unlink(daemon->log_path); /* may not exist */
    assert_int_equal(test_daemon_run(daemon, extra), code);
    char *log = test_daemon_log(daemon);
    char *line = strstr(log, "proxytierd: ");
    if (!line || !strstr(line, part) || count_lines(line) != 1)
        fail_msg("not one line with '%s': %s", part, log);
    free(log);
}

static void
second_daemon_is_refused(void **state)
{
    fixture *f = *state;
    test_daemon other;
    test_daemon_init(&other);
    strcpy(other.data_dir, f->daemon.data_dir);
    expect_refusal(&other, NULL, 1, "in use");
    test_daemon_fini(&other);
    test_daemon_init(&other);
    strcpy(other.url, f->daemon.url);
    expect_refusal(&other, NULL, 1, f->daemon.url);
    test_daemon_fini(&other);
    put_one(f, "http://10.0.0.6:6", "", "", -1, NULL); /* the first one is not disturbed */
}

static void
write_file(const char *path, const char *text, mode_t mode)
{
    (void)unlink(path); /* may not exist */
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static void
bad_options_are_told_in_one_line(void **state)
{
    (void)state;
    test_daemon daemon;
    char path[96];
    test_daemon_init(&daemon);
    (void)snprintf(path, sizeof path, "%s/conf", daemon.directory);
    expect_refusal(&daemon, (const char *[]){"--no-such-option", NULL}, 2, "--no-such-option");
    expect_refusal(&daemon, (const char *[]){"--default-ttl", "5", NULL}, 2, "--default-ttl");
    expect_refusal(&daemon, (const char *[]){"--l1-entries=0", NULL}, 2, "--l1-entries");
    expect_refusal(&daemon, (const char *[]){"--l2-entries=10", NULL}, 2, "--l2-entries 10");
    expect_refusal(&daemon, (const char *[]){"--listen", "tcp://192.168.1.1:1", NULL}, 2,
                   "loopback");
    expect_refusal(&daemon, (const char *[]){"--l1", "off", "--l2=off", "--l3=off", NULL}, 2,
                   "at least one tier");
    expect_refusal(&daemon, (const char *[]){"--config", path, NULL}, 2, path);
    expect_refusal(&daemon, (const char *[]){"--rotator-users", "no-such-user", NULL}, 2,
                   "rotator-users: there is no user 'no-such-user'");
    expect_refusal(&daemon, (const char *[]){"--rotator-group", "no-such-group", NULL}, 2,
                   "rotator-group: there is no group 'no-such-group'");
    expect_refusal(&daemon, (const char *[]){"--token-file", path, NULL}, 2, "proxytier token add");
    expect_refusal(&daemon, (const char *[]){"--tls-cert", path, "--tls-key", path, NULL}, 2, path);
    write_file(path, "# fine\nl1-entries = 10\nno-such = 1\n", 0600);
    expect_refusal(&daemon, (const char *[]){"--config", path, NULL}, 2,
                   "conf:3: unknown option 'no-such'");
    write_file(path, "no secret in here", 0644);
    expect_refusal(&daemon, (const char *[]){"--key-file", path, NULL}, 1, path);
    expect_refusal(&daemon, (const char *[]){"--key-file", "/nonexistent/key", NULL}, 2,
                   "/nonexistent/key");
    test_daemon_fini(&daemon);
}

static void
a_key_file_that_vanished_is_told_before_it_is_missed(void **state)
{
    fixture *f = *state;
    char path[128];
    (void)snprintf(path, sizeof path, "%s/key", f->daemon.data_dir);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(test_daemon_end(&f->daemon, SIGTERM), 0);
    char *log = test_daemon_log(&f->daemon);
    const char *told = strstr(log, "ERROR key_missing");
    assert_non_null(told);
    assert_non_null(strstr(told, path));
    free(log);
    expect_refusal(&f->daemon, NULL, 1, "is missing, but the directory has data");
}

/* Those of the clients are in the environment of whoever runs both. */
static const char *const client_variables[] = {
    "PROXYTIER_URL",          "PROXYTIER_TLS_CA_FILE",     "PROXYTIER_TLS_CERT_FILE",
    "PROXYTIER_TLS_KEY_FILE", "PROXYTIER_TLS_SERVER_NAME", "PROXYTIER_TOKEN"};
enum { CLIENT_VARIABLES = sizeof client_variables / sizeof *client_variables };

static void
variables_that_are_no_options_are_told(void **state)
{
    (void)state;
    test_daemon daemon;
    test_daemon_init(&daemon);
    assert_int_equal(setenv("PROXYTIER_L1_ENTRYS", "hunter2", 1), 0);
    for (int i = 0; i < CLIENT_VARIABLES; i++)
        assert_int_equal(setenv(client_variables[i], "/nowhere", 1), 0);
    assert_int_equal(setenv("PROXYTIER_HEARTBEAT", "300ms", 1), 0);
    test_daemon_start(&daemon, NULL);
    unsetenv("PROXYTIER_L1_ENTRYS");
    for (int i = 0; i < CLIENT_VARIABLES; i++)
        unsetenv(client_variables[i]);
    unsetenv("PROXYTIER_HEARTBEAT");
    assert_int_equal(test_daemon_end(&daemon, SIGTERM), 0);
    char *log = test_daemon_log(&daemon);
    assert_non_null(strstr(log, "WARN  unknown_variable  PROXYTIER_L1_ENTRYS"));
    for (int i = 0; i < CLIENT_VARIABLES; i++)
        assert_null(strstr(log, client_variables[i]));
    assert_null(strstr(log, "PROXYTIER_HEARTBEAT"));
    assert_null(strstr(log, "hunter2"));
    free(log);
    test_daemon_fini(&daemon);
}

static void
files_of_the_command_line_are_loaded_at_start(void **state)
{
    fixture *f = *state;
    char path[96];
    (void)snprintf(path, sizeof path, "%s/list.txt", f->daemon.directory);
    write_file(path, "10.2.0.1:8080\n10.2.0.2:8080\nnot a proxy at all\n", 0600);
    assert_int_equal(test_daemon_end(&f->daemon, SIGTERM), 0);
    start_again(f, (const char *[]){"--warm", path, NULL});
    Proxytier__V1__GetStatisticsRequest request = PROXYTIER__V1__GET_STATISTICS_REQUEST__INIT;
    int64_t deadline = ptier_test_now() + 10000;
    uint64_t entries = 0;
    while (entries < 2 && ptier_test_now() < deadline) {
        raw_reply reply = CALL(f, "ProxyCache", "GetStatistics", &request, get_statistics_response);
        assert_int_equal(raw_status(&reply), PTIER_OK);
        entries = ((const Proxytier__V1__GetStatisticsResponse *)reply.body)->entries;
        raw_reply_free(&reply);
    }
    assert_int_equal(entries, 2);
    assert_int_equal(test_daemon_end(&f->daemon, SIGTERM), 0);
    char *log = test_daemon_log(&f->daemon);
    assert_non_null(strstr(log, "2 created"));
    assert_non_null(strstr(log, "list.txt:3"));
    const char *made = strstr(log, "key_made"); /* of two starts, the first one */
    assert_non_null(made);
    assert_null(strstr(made + 1, "key_made"));
    free(log);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_DAEMON(second_daemon_is_refused),
        cmocka_unit_test(variables_that_are_no_options_are_told),
        cmocka_unit_test(bad_options_are_told_in_one_line),
        WITH_DAEMON(a_key_file_that_vanished_is_told_before_it_is_missed),
        WITH_DAEMON(files_of_the_command_line_are_loaded_at_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
