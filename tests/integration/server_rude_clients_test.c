/* Clients that vanish or never read: the daemon outlives them and leaks nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "framing.h"
#include "proxytier/v1/info.pb-c.h"
#include "support/monotonic.h"
#include "support/server_box.h"

static int
connect_raw(const test_daemon *daemon)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, daemon->url + strlen("ipc://"));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    int rv;
    do
        rv = connect(fd, (struct sockaddr *)&address, sizeof address);
    while (rv != 0 && errno == EINTR);
    if (rv != 0)
        fail_msg("connect: %s", strerror(errno));
    return fd;
}

static void
three_thousand_connect_and_close_leave_the_service_up(void **state)
{
    fixture *f = *state;
    for (int i = 0; i < 3000; i++)
        close(connect_raw(&f->daemon));
    raw_client late;
    raw_client_open(&late, f->daemon.url);
    Proxytier__V1__CheckRequest check = PROXYTIER__V1__CHECK_REQUEST__INIT;
    raw_reply reply = raw_client_call(&late, "/proxytier.v1.Health/Check", &check.base,
                                      &proxytier__v1__check_response__descriptor);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    raw_reply_free(&reply);
    raw_client_close(&late);
}

static size_t
descriptors_of(const test_daemon *daemon)
{
    char path[64];
    size_t count = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/fd", (int)daemon->pid);
    DIR *directory = opendir(path);
    assert_non_null(directory);
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

/* An ipc SP frame with a List call. */
static size_t
make_list_frame(uint8_t *out, uint8_t id)
{
    static const char method[] = "/proxytier.v1.ProxyCache/List";
    const uint8_t body[] = {0x10, 0xe8, 0x07}; /* page_size 1000 */
    size_t header = 2 + sizeof method - 1;
    size_t length = 4 + PTIER_FRAME_PREFIX + header + sizeof body;
    uint8_t *at = out;
    *at++ = 1;
    memset(at, 0, 8);
    at[7] = (uint8_t)length;
    at += 8;
    const uint8_t request_id[] = {0x80, 0, 0, id};
    memcpy(at, request_id, 4);
    at += 4;
    ptier_frame_prefix(at, header);
    at += PTIER_FRAME_PREFIX;
    *at++ = 0x0a;
    *at++ = sizeof method - 1;
    memcpy(at, method, sizeof method - 1);
    at += sizeof method - 1;
    memcpy(at, body, sizeof body);
    return (size_t)(at + sizeof body - out);
}

static const uint8_t req_hello[] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};

/* Sends pipelined requests whose replies are far larger than the socket's buffer, and vanishes
 * without reading. */
static void
be_rude(const test_daemon *daemon, int requests)
{
    uint8_t hello[8], frame[128];
    int fd = connect_raw(daemon);
    assert_int_equal(write(fd, req_hello, sizeof req_hello), sizeof req_hello);
    assert_int_equal(recv(fd, hello, sizeof hello, MSG_WAITALL), sizeof hello);
    for (int i = 0; i < requests; i++) {
        size_t length = make_list_frame(frame, (uint8_t)(i + 1));
        if (send(fd, frame, length, MSG_NOSIGNAL) != (ssize_t)length)
            break; /* cut off already: fine */
    }
    close(fd);
}

static void
rude_clients_leak_no_descriptors(void **state)
{
    fixture *f = *state;
    restart(f, (const char *[]){"--core-dumps", "on", NULL}); /* else /proc/PID is root's */
    put_many(f, 1000);
    size_t before = descriptors_of(&f->daemon);
    for (int i = 0; i < 400; i++)
        be_rude(&f->daemon, 30);
    /* Closing is done by a thread of the daemon's: wait for it, bounded. */
    int64_t deadline = ptier_test_now() + 20000;
    while (descriptors_of(&f->daemon) > before + 2 && ptier_test_now() < deadline)
        (void)poll(NULL, 0, 10);
    assert_true(descriptors_of(&f->daemon) <= before + 2);
    put_one(f, "http://10.0.0.6:6", "", "", -1, NULL);
    assert_int_equal(test_daemon_end(&f->daemon, SIGTERM), 0);
}

/* One client that stays and never reads must not take the others' contexts for long. */
static void
client_that_never_reads_is_cut_off(void **state)
{
    fixture *f = *state;
    uint8_t hello[8], frame[128];
    put_many(f, 1000);
    int fd = connect_raw(&f->daemon);
    assert_int_equal(write(fd, req_hello, sizeof req_hello), sizeof req_hello);
    assert_int_equal(recv(fd, hello, sizeof hello, MSG_WAITALL), sizeof hello);
    for (int i = 0; i < 120; i++) {
        size_t length = make_list_frame(frame, (uint8_t)(i + 1));
        if (send(fd, frame, length, MSG_NOSIGNAL) != (ssize_t)length)
            break;
    }
    f->client.timeout_ms = 5000;
    put_one(f, "http://10.0.0.6:6", "", "", -1, NULL);
    /* The daemon closes it: reading ends after what the buffers held. */
    char sink[65536];
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    int64_t deadline = ptier_test_now() + 10000;
    ssize_t got = 1;
    (void)poll(NULL, 0, 1500); /* not reading is the point: longer than the daemon's patience */
    while (got > 0 && ptier_test_now() < deadline)
        if (poll(&readable, 1, 1000) > 0)
            got = recv(fd, sink, sizeof sink, 0);
    assert_true(got <= 0);
    close(fd);
    test_daemon_await_log(&f->daemon, "peer_cut_off", 1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_DAEMON(three_thousand_connect_and_close_leave_the_service_up),
        WITH_DAEMON(rude_clients_leak_no_descriptors),
        WITH_DAEMON(client_that_never_reads_is_cut_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
