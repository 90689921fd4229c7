/* Tokens, from the command that makes one to the daemon that reads them: live changes, failed
 * logins, and what nobody may read anywhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <nng/nng.h>

#include <nng/protocol/reqrep0/req.h>

#include "proxytier/v1/rpc.pb-c.h"
#include "support/program.h"
#include "support/raw_client.h"
#include "support/security_box.h"
#include "support/monotonic.h"

#define PROXYTIER   PTIER_BIN_DIR "/proxytier"
#define PATIENCE_MS 20000

typedef struct fixture {
    security_box box;
    ptier_test_program last;
} fixture;

static int
run(fixture *f, const char *const *argv)
{
    ptier_test_program_free(&f->last);
    ptier_test_program_start(&f->last, NULL, argv);
    return ptier_test_program_wait(&f->last);
}
#define TOKEN(f, ...)                                                                              \
    run(f, (const char *[]){PROXYTIER, "token", "--file", (f)->box.token_path, __VA_ARGS__, NULL})
#define OUT(f) ((f)->last.texts[PTIER_TEST_OUT])
#define ERR(f) ((f)->last.texts[PTIER_TEST_ERR])

/* `message` has room for PTIER_ERROR_MESSAGE_MAX bytes, or is NULL. */
static ptier_status
call_and_read(raw_client *client, const char *method, const char *token, char *message)
{
    Proxytier__V1__RequestHeader header = PROXYTIER__V1__REQUEST_HEADER__INIT;
    header.method = (char *)(uintptr_t)method;
    header.token = (char *)(uintptr_t)token;
    raw_reply reply = raw_client_call_bytes(client, &header, NULL, 0, NULL);
    ptier_status status = raw_status(&reply);
    if (message && reply.header)
        (void)snprintf(message, PTIER_ERROR_MESSAGE_MAX, "%s", reply.header->message);
    raw_reply_free(&reply);
    return status;
}

static ptier_status
call(raw_client *client, const char *method, const char *token)
{
    return call_and_read(client, method, token, NULL);
}

static const char get_many[] = "/proxytier.v1.ProxyCache/GetMany";
static const char clear[] = "/proxytier.v1.Admin/Clear";

static void
wait_for(raw_client *client, const char *method, const char *token, ptier_status status)
{
    int64_t deadline = ptier_test_now() + PATIENCE_MS;
    while (call(client, method, token) != status) {
        assert_true(ptier_test_now() < deadline);
        (void)poll(NULL, 0, 10); /* between two looks */
    }
}

/* The line break goes. */
static void
take_token(const fixture *f, char token[PTIER_TOKEN_TEXT + 1])
{
    assert_int_equal(strlen(OUT(f)), PTIER_TOKEN_TEXT + 1);
    memcpy(token, OUT(f), PTIER_TOKEN_TEXT);
    token[PTIER_TOKEN_TEXT] = '\0';
}

static void
connected_callers_have_new_rights_at_their_next_call(void **state)
{
    fixture *f = *state;
    raw_client client;
    char token[PTIER_TOKEN_TEXT + 1];
    security_box_start(&f->box, false, (const char *[]){"--failed-logins", "100000", NULL});
    raw_client_open(&client, f->box.tcp_url);
    assert_int_equal(TOKEN(f, "add", "--role", "reader", "--name", "live"), 0);
    take_token(f, token);
    wait_for(&client, get_many, token, PTIER_OK);
    assert_int_equal(call(&client, clear, token), PTIER_PERMISSION_DENIED);

    /* The same token with another role, as somebody who edits the file would do it. */
    char command[400];
    (void)snprintf(command, sizeof command, "sed -i 's/^reader live/admin live/' %s",
                   f->box.token_path);
    assert_int_equal(system(command), 0);
    wait_for(&client, clear, token, PTIER_OK);
    assert_int_equal(TOKEN(f, "remove", "--name", "live"), 0);
    wait_for(&client, get_many, token, PTIER_UNAUTHENTICATED);
    assert_int_equal(call(&client, get_many, f->box.tokens[PTIER_ROLE_READER]), PTIER_OK);
    raw_client_close(&client);
}

static void
hangup_reads_the_file_and_ends_nothing(void **state)
{
    fixture *f = *state;
    security_box_start(&f->box, false, NULL);
    assert_int_equal(kill(f->box.daemon.pid, SIGHUP), 0);
    test_daemon_await_log(&f->box.daemon, "tokens_loaded", 1);
    assert_int_equal(test_daemon_end(&f->box.daemon, SIGTERM), 0);
}

static void
failed_logins_are_limited_and_logged_without_the_token(void **state)
{
    fixture *f = *state;
    raw_client client;
    size_t limited = 0, lines = 0;
    security_box_start(&f->box, false, NULL);
    raw_client_open(&client, f->box.tcp_url);
    for (int i = 0; i < 300; i++) {
        char message[PTIER_ERROR_MESSAGE_MAX] = "";
        assert_int_equal(call_and_read(&client, get_many, f->box.wrong, message),
                         PTIER_UNAUTHENTICATED);
        limited += strstr(message, "too many failed logins") != NULL;
    }
    assert_in_range(limited, 200, 290);
    /* A command that is limited ends as one with a wrong token does. */
    assert_int_equal(setenv("PROXYTIER_TOKEN", f->box.wrong, 1), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(run(f, (const char *[]){PROXYTIER, "list", "--url", f->box.tcp_url, NULL}),
                         6);
    assert_int_equal(unsetenv("PROXYTIER_TOKEN"), 0);
    /* Neither a right token from there, nor others suffer. */
    assert_int_equal(call(&client, get_many, f->box.tokens[PTIER_ROLE_READER]), PTIER_OK);
    raw_client_close(&client);
    raw_client_open(&client, f->box.daemon.url);
    assert_int_equal(call(&client, get_many, f->box.wrong), PTIER_UNAUTHENTICATED);
    assert_int_equal(call(&client, get_many, f->box.tokens[PTIER_ROLE_NONE]),
                     PTIER_UNAUTHENTICATED);
    raw_client_close(&client);
    char *log = test_daemon_log(&f->box.daemon);
    for (const char *at = log; (at = strstr(at, "login_failed")) != NULL; at++)
        lines++;
    assert_in_range(lines, 12, 112);
    assert_non_null(strstr(log, "login_failed  127.0.0.1 over tcp: a wrong token\n"));
    assert_non_null(strstr(log, ": the token expired has expired\n"));
    assert_null(strstr(log, "ptk_"));
    free(log);
    assert_false(test_directory_contains(f->box.daemon.data_dir, "ptk_"));
}

static void
without_tokens_strangers_are_disconnected(void **state)
{
    fixture *f = *state;
    raw_client client;
    if (!security_box_become(SECURITY_BOX_NOBODY))
        skip();
    assert_true(security_box_become(0));
    test_daemon_start(&f->box.daemon, (const char *[]){"--socket-mode", "666", NULL});
    /* Later attempts would be those of nng's threads, which are root's. nng draws the time of the
     * next between 0 and this, so only a vast one keeps them out of the second of the call. */
    const nng_duration never = 1000000000;
    client.timeout_ms = 1000;
    assert_int_equal(nng_req0_open(&client.socket), 0);
    assert_int_equal(nng_socket_set_ms(client.socket, NNG_OPT_RECONNMINT, never), 0);
    assert_int_equal(nng_socket_set_ms(client.socket, NNG_OPT_RECONNMAXT, never), 0);
    assert_true(security_box_become(SECURITY_BOX_NOBODY));
    assert_int_equal(nng_dial(client.socket, f->box.daemon.url, NULL, NNG_FLAG_NONBLOCK), 0);
    assert_true(security_box_become(0));
    Proxytier__V1__RequestHeader header = PROXYTIER__V1__REQUEST_HEADER__INIT;
    header.method = (char *)(uintptr_t) "/proxytier.v1.Health/Check";
    raw_reply reply = raw_client_call_bytes(&client, &header, NULL, 0, NULL);
    assert_null(reply.header);
    raw_reply_free(&reply);
    raw_client_close(&client);
    test_daemon_await_log(&f->box.daemon, "uid 12346 over ipc may not connect", 1);
}

static void
sockets_belong_to_the_group_of_rotators(void **state)
{
    fixture *f = *state;
    struct stat about;
    if (!security_box_become(0))
        skip();
    test_daemon_start(&f->box.daemon, (const char *[]){"--rotator-group", "12345", NULL});
    assert_int_equal(stat(f->box.daemon.url + strlen("ipc://"), &about), 0);
    assert_int_equal(about.st_gid, 12345);
    assert_int_equal(about.st_mode & 07777, 0660);
    assert_int_equal(stat(f->box.daemon.events_url + strlen("ipc://"), &about), 0);
    assert_int_equal(about.st_gid, 12345);
}

static bool
is_told_of_shutting_out(fixture *f, const char *const *options)
{
    test_daemon_start(&f->box.daemon, options);
    assert_int_equal(test_daemon_end(&f->box.daemon, SIGTERM), 0);
    char *log = test_daemon_log(&f->box.daemon);
    bool told = strstr(log, "WARN  rotator_shut_out  user 12345 may be rotator, but not open ");
    free(log);
    assert_int_equal(unlink(f->box.daemon.log_path), 0);
    return told;
}

static void
rotators_who_cannot_reach_the_socket_are_told_of(void **state)
{
    fixture *f = *state;
    if (!security_box_become(0))
        skip();
    assert_true(is_told_of_shutting_out(f, (const char *[]){"--rotator-users", "12345", NULL}));
    assert_false(is_told_of_shutting_out(
        f, (const char *[]){"--rotator-users", "12345", "--socket-mode", "666", NULL}));
    assert_int_equal(chmod(f->box.daemon.directory, 0750), 0);
    assert_true(is_told_of_shutting_out(
        f, (const char *[]){"--rotator-users", "12345", "--socket-mode", "666", NULL}));
    assert_false(is_told_of_shutting_out(f, (const char *[]){"--rotator-users", "0", NULL}));
}

static void
command_makes_lists_and_removes(void **state)
{
    fixture *f = *state;
    char token[PTIER_TOKEN_TEXT + 1];
    struct stat about;
    assert_int_equal(TOKEN(f, "add", "--role", "rotator", "--name", "c1", "--expires", "90d"), 0);
    take_token(f, token);
    assert_false(test_directory_contains(f->box.daemon.directory, token));
    assert_int_equal(stat(f->box.token_path, &about), 0);
    assert_int_equal(about.st_mode & 07777, 0600);
    assert_int_equal(TOKEN(f, "add", "--role", "admin", "--name", "c1"), 1);
    assert_non_null(strstr(ERR(f), "remove it first"));
    assert_int_equal(TOKEN(f, "list"), 0);
    assert_non_null(strstr(OUT(f), "rotator  c1                       20"));
    assert_non_null(strstr(OUT(f), "1970-01-02T00:00:00Z (expired)"));
    assert_int_equal(TOKEN(f, "list", "--json"), 0);
    assert_non_null(
        strstr(OUT(f), "{\"role\":\"reader\",\"name\":\"reader\",\"expires\":\"never\"}"));
    assert_int_equal(TOKEN(f, "remove", "--name", "c1"), 0);
    assert_int_equal(TOKEN(f, "remove", "--name", "c1"), 3);
    assert_int_equal(TOKEN(f, "add", "--role", "boss", "--name", "c2"), 2);
    assert_int_equal(TOKEN(f, "add", "--role", "admin", "--name", "c 2"), 2);
    assert_int_equal(TOKEN(f, "add", "--role", "admin", "--name", "c2", "--expires", "soon"), 2);
    assert_int_equal(TOKEN(f, "add", "--role", "admin", "--name", "c2", "--expires", "2020-01-01"),
                     2);
    assert_non_null(strstr(ERR(f), "2020-01-01 is over"));
    assert_int_equal(TOKEN(f, "add", "--role", "admin", "--name", "c2", "--expires", "0"), 2);
    assert_int_equal(TOKEN(f, "remove", "--name", "c2"), 3);
    assert_int_equal(TOKEN(f, "add", "--role", "admin"), 2);
    assert_int_equal(TOKEN(f, "burn"), 2);
}

static void
command_takes_no_token_from_a_file_that_others_may_read(void **state)
{
    fixture *f = *state;
    const char *path = security_box_file(&f->box, "client-token");
    const char *const argv[] = {PROXYTIER,      "list", "--url", f->box.daemon.url,
                                "--token-file", path,   NULL};
    security_box_start(&f->box, false, NULL);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fprintf(file, "%s\n", f->box.tokens[PTIER_ROLE_READER]) > 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(run(f, argv), 1);
    assert_non_null(strstr(ERR(f), "client-token: it may be read by others than its owner: chmod"));
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(run(f, argv), 1);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(run(f, argv), 0);
}

static int
set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    security_box_init(&f->box);
    *state = f;
    return 0;
}

static int
tear_down(void **state)
{
    fixture *f = *state;
    ptier_test_program_free(&f->last);
    security_box_fini(&f->box);
    free(f);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(connected_callers_have_new_rights_at_their_next_call),
        TEST(hangup_reads_the_file_and_ends_nothing),
        TEST(failed_logins_are_limited_and_logged_without_the_token),
        TEST(without_tokens_strangers_are_disconnected),
        TEST(sockets_belong_to_the_group_of_rotators),
        TEST(rotators_who_cannot_reach_the_socket_are_told_of),
        TEST(command_makes_lists_and_removes),
        TEST(command_takes_no_token_from_a_file_that_others_may_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
