/* Connections over tcp and tls that never finish their handshake: they go, and nobody else notices.
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
#include <pthread.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "proxytier/v1/info.pb-c.h"
#include "support/raw_client.h"
#include "support/security_box.h"
#include "support/monotonic.h"

#define PATIENCE_MS 20000
#define WITH(...)   ((const char *[]){__VA_ARGS__, NULL})

/* Connects, says this, and nothing more. */
static int
stall(const char *url, const void *bytes, size_t length)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                  .sin_port = htons((uint16_t)atoi(strrchr(url, ':') + 1))};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    if (length)
        assert_int_equal(send(fd, bytes, length, MSG_NOSIGNAL), length);
    return fd;
}

/* Reads until nothing more is there: whether that is the end. */
static bool
is_cut(int fd)
{
    char bytes[256];
    ssize_t got;
    do
        got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
    while (got > 0);
    return got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
}

static void
wait_until_cut(const int *fds, size_t count)
{
    int64_t deadline = ptier_test_now() + PATIENCE_MS;
    for (size_t i = 0; i < count; i++)
        while (!is_cut(fds[i])) {
            assert_true(ptier_test_now() < deadline);
            (void)poll(NULL, 0, 10); /* between two looks */
        }
}

static size_t
count_descriptors(const test_daemon *daemon)
{
    char path[64];
    size_t count = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/fd", (int)daemon->pid);
    DIR *directory = opendir(path);
    if (!directory)
        return 0; /* not root: the daemon is not dumpable */
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

static ptier_status
check(raw_client *client)
{
    Proxytier__V1__CheckRequest request = PROXYTIER__V1__CHECK_REQUEST__INIT;
    raw_reply reply = raw_client_call(client, "/proxytier.v1.Health/Check", &request.base,
                                      &proxytier__v1__check_response__descriptor);
    ptier_status status = raw_status(&reply);
    raw_reply_free(&reply);
    return status;
}

static void
open_tls(const security_box *box, raw_client *client)
{
    nng_tls_config *tls = security_box_tls(box, "ca", NULL, SECURITY_BOX_HOST);
    raw_client_open_tls(client, box->tls_url, tls);
    nng_tls_config_free(tls);
}

static const uint8_t hello[] = {0x16, 3, 1, 0, 0xa5, 1, 0, 0, 0xa1, 3, 3};

static void
stalled_handshakes_are_cut_and_leave_nothing(void **state)
{
    security_box *box = *state;
    int fds[80];
    raw_client client;
    security_box_start(box, false, WITH("--handshake-timeout", "400ms"));
    open_tls(box, &client);
    assert_int_equal(check(&client), PTIER_OK);
    size_t before = count_descriptors(&box->daemon);
    for (size_t i = 0; i < 80; i++)
        fds[i] = i % 4 == 0   ? stall(box->tls_url, NULL, 0)
                 : i % 4 == 1 ? stall(box->tls_url, hello, sizeof hello)
                 : i % 4 == 2 ? stall(box->tcp_url, NULL, 0)
                              : stall(box->tcp_url, "\0SP", 3);
    wait_until_cut(fds, 80);
    for (size_t i = 0; i < 80; i++)
        close(fds[i]);
    int64_t deadline = ptier_test_now() + PATIENCE_MS;
    while (count_descriptors(&box->daemon) > before) {
        assert_true(ptier_test_now() < deadline);
        (void)poll(NULL, 0, 10); /* between two looks */
    }
    assert_int_equal(check(&client), PTIER_OK);
    test_daemon_await_log(&box->daemon, "handshakes_cut", 1);
    raw_client_close(&client);
}

static atomic_uint lost;

static void
on_lost(nng_pipe pipe, nng_pipe_ev event, void *context)
{
    (void)pipe;
    (void)event;
    (void)context;
    atomic_fetch_add(&lost, 1);
}

/* Longer than handshakes may take, over both doors: the connections stay the same. */
static void
finished_handshakes_are_left_alone(void **state)
{
    security_box *box = *state;
    raw_client clients[2];
    security_box_start(box, false, WITH("--handshake-timeout", "100ms"));
    open_tls(box, &clients[0]);
    raw_client_open(&clients[1], box->tcp_url);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(check(&clients[i]), PTIER_OK);
        assert_int_equal(nng_pipe_notify(clients[i].socket, NNG_PIPE_EV_REM_POST, on_lost, NULL),
                         0);
    }
    int stalled = stall(box->tls_url, NULL, 0); /* when it is cut, so would they have been */
    wait_until_cut(&stalled, 1);
    close(stalled);
    assert_int_equal(atomic_load(&lost), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(check(&clients[i]), PTIER_OK);
        raw_client_close(&clients[i]);
    }
}

typedef struct eager {
    const char *url;
    int fd;
} eager;

static void *
connect_as_soon_as_it_listens(void *context)
{
    eager *one = context;
    int64_t deadline = ptier_test_now() + PATIENCE_MS;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                  .sin_port = htons((uint16_t)atoi(strrchr(one->url, ':') + 1))};
    while (one->fd < 0 && ptier_test_now() < deadline) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
            one->fd = fd;
        else
            close(fd);
    }
    return NULL;
}

/* Also one that comes before the daemon has said that it serves. */
static void
the_very_first_connection_is_watched(void **state)
{
    security_box *box = *state;
    pthread_t thread;
    eager one = {.url = box->tls_events_url, .fd = -1}; /* events are offered before calls */
    assert_int_equal(pthread_create(&thread, NULL, connect_as_soon_as_it_listens, &one), 0);
    security_box_start(box, true, WITH("--handshake-timeout", "200ms"));
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(one.fd >= 0);
    wait_until_cut(&one.fd, 1);
    close(one.fd);
}

/* More than are watched at once: the oldest go at once, and an honest client gets in. */
static void
too_many_stalled_handshakes_lock_nobody_out(void **state)
{
    security_box *box = *state;
    int fds[400];
    raw_client client;
    security_box_start(box, false, WITH("--handshake-timeout", "1m"));
    for (size_t i = 0; i < 400; i++)
        fds[i] = stall(box->tls_url, hello, sizeof hello);
    wait_until_cut(fds, 400 - 256);
    assert_false(is_cut(fds[399]));
    open_tls(box, &client);
    assert_int_equal(check(&client), PTIER_OK);
    raw_client_close(&client);
    for (size_t i = 0; i < 400; i++)
        close(fds[i]);
}

/* Until then connections may be refused. */
static void
await_answer(raw_client *client)
{
    int64_t deadline = ptier_test_now() + PATIENCE_MS;
    for (bool answered = false; !answered;) {
        Proxytier__V1__CheckRequest request = PROXYTIER__V1__CHECK_REQUEST__INIT;
        raw_reply reply = raw_client_call(client, "/proxytier.v1.Health/Check", &request.base,
                                          &proxytier__v1__check_response__descriptor);
        answered = reply.header != NULL;
        raw_reply_free(&reply);
        assert_true(answered || ptier_test_now() < deadline);
    }
}

/* They have their handshakes, and stay: the administrator gets in all the same. */
static void
strangers_leave_room_for_the_administrator(void **state)
{
    security_box *box = *state;
    static const uint8_t greeting[] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
    int fds[40];
    size_t refused = 0;
    raw_client client;
    security_box_start(box, false, WITH("--max-connections", "16"));
    for (size_t i = 0; i < 40; i++)
        fds[i] = stall(box->tcp_url, greeting, sizeof greeting);
    int64_t deadline = ptier_test_now() + PATIENCE_MS;
    while (refused < 40 - 12) {
        assert_true(ptier_test_now() < deadline);
        (void)poll(NULL, 0, 10); /* between two looks */
        refused = 0;
        for (size_t i = 0; i < 40; i++)
            refused += is_cut(fds[i]);
    }
    assert_int_equal(refused, 40 - 12);
    raw_client_open(&client, box->daemon.url);
    assert_int_equal(check(&client), PTIER_OK);
    raw_client_close(&client);
    for (size_t i = 0; i < 40; i++)
        close(fds[i]);
    raw_client_open(&client, box->tcp_url);
    await_answer(&client); /* they were given back */
    raw_client_close(&client);
}

#define TEST(name)                                                                                 \
    cmocka_unit_test_setup_teardown(name, security_box_set_up, security_box_tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(stalled_handshakes_are_cut_and_leave_nothing),
        TEST(finished_handshakes_are_left_alone),
        TEST(the_very_first_connection_is_watched),
        TEST(too_many_stalled_handshakes_lock_nobody_out),
        TEST(strangers_leave_room_for_the_administrator),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
