/* The daemon's end, asked for or not: what is there afterwards, and what must not be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <signal.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "proxytier/v1/admin.pb-c.h"
#include "proxytier/v1/cache.pb-c.h"
#include "support/server_box.h"

static void
entries_survive_kill_and_stale_sockets_are_replaced(void **state)
{
    fixture *f = *state;
    char key[300];
    put_one(f, "http://10.0.0.10:10", "kept-user", "kept-secret", -1, key);
    assert_int_equal(test_daemon_end(&f->daemon, SIGKILL), 128 + SIGKILL);
    struct stat left;
    assert_int_equal(stat(f->daemon.url + strlen("ipc://"), &left),
                     0); /* the dead daemon's socket is still there */
    start_again(f, NULL);
    raw_reply reply = get(f, key);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    assert_string_equal(((const Proxytier__V1__GetResponse *)reply.body)->proxy->password,
                        "kept-secret");
    raw_reply_free(&reply);
    assert_int_equal(stat(f->daemon.url + strlen("ipc://"), &left), 0);
    assert_int_equal(left.st_mode & 0777, 0660);
}

static void
term_and_int_end_with_zero_and_keep_everything(void **state)
{
    fixture *f = *state;
    char key[300];
    put_one(f, "http://10.0.0.11:11", "", "", -1, key);
    restart(f, NULL);
    assert_int_equal(get_status(f, key), PTIER_OK);
    assert_int_equal(test_daemon_end(&f->daemon, SIGINT), 0);
    start_again(f, NULL);
    assert_int_equal(get_status(f, key), PTIER_OK);
}

static void
shutdown_call_ends_the_daemon(void **state)
{
    fixture *f = *state;
    Proxytier__V1__ShutdownRequest request = PROXYTIER__V1__SHUTDOWN_REQUEST__INIT;
    raw_reply reply = CALL(f, "Admin", "Shutdown", &request, shutdown_response);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    raw_reply_free(&reply);
    assert_int_equal(test_daemon_end(&f->daemon, 0), 0); /* signal 0: only wait */
}

static void
credentials_are_neither_in_files_nor_in_the_log(void **state)
{
    fixture *f = *state;
    restart(f, (const char *[]){"--log-level", "debug", NULL});
    char key[300];
    put_one(f, "http://hidden-user:hidden-secret@10.0.0.12:12", "", "", -1, key);
    assert_int_equal(get_status(f, key), PTIER_OK);
    Proxytier__V1__PutRequest bad = PROXYTIER__V1__PUT_REQUEST__INIT;
    Proxytier__V1__Proxy proxy = PROXYTIER__V1__PROXY__INIT;
    proxy.url = TEXT("http://hidden-user:hidden-secret@");
    bad.proxy = &proxy;
    raw_reply reply = CALL(f, "ProxyCache", "Put", &bad, put_response);
    assert_int_equal(raw_status(&reply), PTIER_INVALID_ARGUMENT);
    assert_null(strstr(reply.header->message, "hidden"));
    raw_reply_free(&reply);
    restart(f, NULL);
    assert_false(test_directory_contains(f->daemon.directory, "hidden-secret"));
    assert_false(test_directory_contains(f->daemon.directory, "hidden-user"));
    assert_true(
        test_directory_contains(f->daemon.directory, "10.0.0.12")); /* it would have been found */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_DAEMON(entries_survive_kill_and_stale_sockets_are_replaced),
        WITH_DAEMON(term_and_int_end_with_zero_and_keep_everything),
        WITH_DAEMON(shutdown_call_ends_the_daemon),
        WITH_DAEMON(credentials_are_neither_in_files_nor_in_the_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
