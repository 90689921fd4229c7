/* The daemon's calls to itself: they come in by each address, notice one that is dead, and mend it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "proxytier/v1/info.pb-c.h"
#include "support/raw_client.h"
#include "support/security_box.h"
#include "support/monotonic.h"

#define PATIENCE_MS 40000
#define WITH(...)   ((const char *[]){__VA_ARGS__, NULL})
#define SERVING     PROXYTIER__V1__SERVING_STATUS__SERVING_STATUS_SERVING
#define DEGRADED    PROXYTIER__V1__SERVING_STATUS__SERVING_STATUS_DEGRADED

static Proxytier__V1__ServingStatus
health_of(raw_client *client, const char *component)
{
    Proxytier__V1__CheckRequest request = PROXYTIER__V1__CHECK_REQUEST__INIT;
    request.component = (char *)(uintptr_t)component;
    raw_reply reply = raw_client_call(client, "/proxytier.v1.Health/Check", &request.base,
                                      &proxytier__v1__check_response__descriptor);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    Proxytier__V1__ServingStatus status =
        ((const Proxytier__V1__CheckResponse *)reply.body)->status;
    raw_reply_free(&reply);
    return status;
}

static void
wait_for_health(raw_client *client, const char *component, Proxytier__V1__ServingStatus wanted)
{
    int64_t deadline = ptier_test_now() + PATIENCE_MS;
    while (health_of(client, component) != wanted) {
        assert_true(ptier_test_now() < deadline);
        (void)poll(NULL, 0, 10); /* between two looks */
    }
}

static void
expect_answer(const char *url, nng_tls_config *tls)
{
    raw_client client;
    raw_client_open_tls(&client, url, tls);
    (void)health_of(&client, "");
    raw_client_close(&client);
}

static void
all_addresses_are_called_and_well(void **state)
{
    security_box *box = *state;
    security_box_start(box, true, WITH("--self-probe", "100ms", "--log-level", "debug"));
    test_daemon_await_log(&box->daemon, "DEBUG call  Health.Check: ok",
                          3 * 4); /* calls over ipc, tcp and tls */
    assert_int_equal(test_daemon_log_count(&box->daemon, "self_probe"),
                     0); /* nor did one of the events fail */
    assert_int_equal(test_daemon_log_count(&box->daemon, "WARN"), 0);
    assert_int_equal(test_daemon_log_count(&box->daemon, "endpoint_"), 0);
}

/* There nobody is let in, and the daemon knows it. */
static void
addresses_without_any_token_are_well(void **state)
{
    security_box *box = *state;
    FILE *file = fopen(box->token_path, "w");
    assert_non_null(file);
    assert_int_equal(fclose(file), 0);
    security_box_start(box, true, WITH("--self-probe", "100ms", "--log-level", "debug"));
    test_daemon_await_log(&box->daemon, "DEBUG call  Health.Check: ok", 8);
    assert_int_equal(test_daemon_log_count(&box->daemon, "endpoint_"), 0);
}

static void
take_path(const char *url, int *fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, url + strlen("ipc://"));
    assert_int_equal(unlink(address.sun_path), 0);
    *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(*fd >= 0);
    assert_int_equal(bind(*fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(*fd, 64), 0);
}

/* Somebody else's socket is there: it is told, and left alone until it is gone. */
static void
taken_sockets_are_told_by_health_and_come_back(void **state)
{
    security_box *box = *state;
    const struct {
        const char *url, *component;
    } cases[] = {{box->daemon.url, "calls"}, {box->daemon.events_url, "events"}};
    raw_client client;
    security_box_start(box, true, WITH("--self-probe", "100ms"));
    raw_client_open(&client, box->tcp_url);
    for (size_t i = 0; i < 2; i++) {
        int fd;
        struct stat theirs, now;
        const char *path = cases[i].url + strlen("ipc://");
        assert_int_equal(health_of(&client, cases[i].component), SERVING);
        take_path(cases[i].url, &fd);
        assert_int_equal(stat(path, &theirs), 0);
        wait_for_health(&client, cases[i].component, DEGRADED);
        assert_int_equal(health_of(&client, ""), DEGRADED);
        assert_int_equal(health_of(&client, cases[1 - i].component), SERVING);
        test_daemon_await_log(&box->daemon, "another process listens there now", i + 1);
        assert_int_equal(stat(path, &now), 0);
        assert_int_equal(now.st_ino, theirs.st_ino);
        close(fd);
        wait_for_health(&client, cases[i].component, SERVING);
        assert_int_equal(health_of(&client, ""), SERVING);
        assert_true(test_daemon_log_count(&box->daemon, "ERROR endpoint_dead") >= i + 1);
        assert_int_equal(test_daemon_log_count(&box->daemon, "endpoint_reopened"), i + 1);
        assert_int_equal(test_daemon_log_count(&box->daemon, "endpoint_recovered"), i + 1);
    }
    raw_client_close(&client);
    expect_answer(box->daemon.url, NULL);
}

static void
deleted_sockets_are_made_anew(void **state)
{
    security_box *box = *state;
    security_box_start(box, false, WITH("--self-probe", "100ms"));
    assert_int_equal(unlink(box->daemon.url + strlen("ipc://")), 0);
    assert_int_equal(unlink(box->daemon.events_url + strlen("ipc://")), 0);
    test_daemon_await_log(&box->daemon, "endpoint_recovered", 2);
    expect_answer(box->daemon.url, NULL);
    assert_int_equal(access(box->daemon.events_url + strlen("ipc://"), R_OK | W_OK), 0);
}

/* That it cannot call itself is no reason to give up a socket that it could not have again. */
static void
without_descriptors_the_socket_for_calls_stays(void **state)
{
    security_box *box = *state;
    const char *path = box->daemon.url + strlen("ipc://");
    struct stat before, now;
    struct rlimit usual, none;
    security_box_start(box, false, WITH("--self-probe", "100ms", "--core-dumps", "on"));
    assert_int_equal(stat(path, &before), 0);
    assert_int_equal(prlimit(box->daemon.pid, RLIMIT_NOFILE, NULL, &usual), 0);
    none = (struct rlimit){.rlim_cur = 3, .rlim_max = usual.rlim_max};
    assert_int_equal(prlimit(box->daemon.pid, RLIMIT_NOFILE, &none, NULL), 0);
    test_daemon_await_log(&box->daemon, "cannot be opened anew", 2); /* calls and events */
    assert_int_equal(stat(path, &now), 0);
    assert_int_equal(now.st_ino, before.st_ino);
    assert_int_equal(prlimit(box->daemon.pid, RLIMIT_NOFILE, &usual, NULL), 0);
    test_daemon_await_log(&box->daemon, "endpoint_recovered", 2);
    expect_answer(box->daemon.url, NULL);
}

/* The daemon's listening socket of a port, as a descriptor of ours; -1: the system does not let us.
 */
static int
borrow_listener(const security_box *box, const char *url)
{
    char path[64];
    int found = -1;
    in_port_t port = htons((uint16_t)atoi(strrchr(url, ':') + 1));
    int process = (int)syscall(SYS_pidfd_open, box->daemon.pid, 0);
    (void)snprintf(path, sizeof path, "/proc/%d/fd", (int)box->daemon.pid);
    DIR *directory = process < 0 ? NULL : opendir(path);
    for (struct dirent *entry; directory && found < 0 && (entry = readdir(directory));) {
        struct sockaddr_in address = {0};
        socklen_t length = sizeof address, flag_length = sizeof(int);
        int listening = 0;
        int fd = (int)syscall(SYS_pidfd_getfd, process, atoi(entry->d_name), 0);
        if (fd >= 0 && getsockname(fd, (struct sockaddr *)&address, &length) == 0 &&
            address.sin_family == AF_INET && address.sin_port == port &&
            getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &flag_length) == 0 && listening)
            found = fd;
        else if (fd >= 0)
            close(fd);
    }
    if (directory)
        closedir(directory);
    if (process >= 0)
        close(process);
    return found;
}

/* What nng believes to be listening is dead, over tcp and tls, calls and events. */
static void
dead_listeners_are_opened_anew(void **state)
{
    security_box *box = *state;
    const char *urls[] = {box->tcp_url, box->tls_url, box->tls_events_url};
    security_box_start(box, true, WITH("--self-probe", "100ms", "--core-dumps", "on"));
    for (size_t i = 0; i < 3; i++) {
        int fd = borrow_listener(box, urls[i]);
        if (fd < 0) {
            skip(); /* no right to look into other processes here */
            return;
        }
        assert_int_equal(shutdown(fd, SHUT_RDWR), 0);
        close(fd);
        test_daemon_await_log(&box->daemon, "endpoint_recovered", i + 1);
    }
    assert_int_equal(test_daemon_log_count(&box->daemon, "endpoint_reopened"), 3);
    nng_tls_config *tls = security_box_tls(box, "ca", "client", SECURITY_BOX_HOST);
    expect_answer(box->tls_url, tls);
    expect_answer(box->tcp_url, NULL);
    nng_tls_config_free(tls);
}

/* What lets the daemon in by its own certificate lets nobody else in. */
static void
certificates_of_others_are_refused_all_the_same(void **state)
{
    security_box *box = *state;
    raw_client client;
    security_box_start(box, true, WITH("--self-probe", "100ms"));
    const char *const wrong[] = {NULL, "stranger", "expired"};
    for (size_t i = 0; i < 3; i++) {
        Proxytier__V1__CheckRequest request = PROXYTIER__V1__CHECK_REQUEST__INIT;
        nng_tls_config *tls = security_box_tls(box, "ca", wrong[i], SECURITY_BOX_HOST);
        raw_client_open_tls(&client, box->tls_url, tls);
        client.timeout_ms = 500;
        raw_reply reply = raw_client_call(&client, "/proxytier.v1.Health/Check", &request.base,
                                          &proxytier__v1__check_response__descriptor);
        assert_null(reply.header);
        raw_reply_free(&reply);
        raw_client_close(&client);
        nng_tls_config_free(tls);
    }
}

#define TEST(name)                                                                                 \
    cmocka_unit_test_setup_teardown(name, security_box_set_up, security_box_tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(all_addresses_are_called_and_well),
        TEST(addresses_without_any_token_are_well),
        TEST(taken_sockets_are_told_by_health_and_come_back),
        TEST(deleted_sockets_are_made_anew),
        TEST(without_descriptors_the_socket_for_calls_stays),
        TEST(dead_listeners_are_opened_anew),
        TEST(certificates_of_others_are_refused_all_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
