/* Clients that vanish or never read: the daemon outlives them and leaks nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "framing.h"
#include "proxytier/v1/info.pb-c.h"
#include "support/monotonic.h"
#include "support/security_box.h"
#include "support/server_box.h"
#include "support/storm.h"

static void
three_thousand_connect_and_close_leave_the_service_up(void **state)
{
    fixture *f = *state;
    for (int i = 0; i < 3000; i++)
        close(storm_connect(f->daemon.url));
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

/* Where rude clients come in, and what lets them have a list. */
typedef struct door {
    const char *url;
    const char *token; /* NULL: the user does */
} door;

static size_t
put_text(uint8_t *out, unsigned field, const char *text)
{
    size_t length = strlen(text);
    out[0] = (uint8_t)(field << 3 | 2);
    out[1] = (uint8_t)length;
    memcpy(out + 2, text, length);
    return 2 + length;
}

/* An SP frame with a List call. */
static size_t
make_list_frame(const door *d, uint8_t *out, uint8_t id)
{
    const uint8_t request_id[] = {0x80, 0, 0, id};
    const uint8_t body[] = {0x10, 0xe8, 0x07}; /* page_size 1000 */
    uint8_t header[200];
    size_t header_length = put_text(header, 1, "/proxytier.v1.ProxyCache/List");
    if (d->token)
        header_length += put_text(header + header_length, 4, d->token);
    uint8_t *at = out;
    if (strncmp(d->url, "ipc", 3) == 0)
        *at++ = 1;
    memset(at, 0, 8);
    at[7] = (uint8_t)(sizeof request_id + PTIER_FRAME_PREFIX + header_length + sizeof body);
    at += 8;
    memcpy(at, request_id, sizeof request_id);
    at += sizeof request_id;
    ptier_frame_prefix(at, header_length);
    at += PTIER_FRAME_PREFIX;
    memcpy(at, header, header_length);
    at += header_length;
    memcpy(at, body, sizeof body);
    return (size_t)(at + sizeof body - out);
}

/* Connects and pipelines requests whose replies are far larger than the socket's buffer, with a
 * pause after every so many, 0 none. */
static int
ask_for_lists(const door *d, int requests, int at_once)
{
    static const uint8_t req_hello[] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
    uint8_t hello[8], frame[256];
    int fd = storm_connect(d->url);
    assert_int_equal(write(fd, req_hello, sizeof req_hello), sizeof req_hello);
    assert_int_equal(recv(fd, hello, sizeof hello, MSG_WAITALL), sizeof hello);
    for (int i = 0; i < requests; i++) {
        size_t length = make_list_frame(d, frame, (uint8_t)(i + 1));
        if (send(fd, frame, length, MSG_NOSIGNAL) != (ssize_t)length)
            break; /* cut off already: fine */
        if (at_once && (i + 1) % at_once == 0)
            (void)poll(NULL, 0, 20);
    }
    return fd;
}

static void
vanish_often(fixture *f, const door *d)
{
    put_many(f, 1000);
    size_t before = descriptors_of(&f->daemon);
    for (int i = 0; i < 400; i++)
        close(ask_for_lists(d, 30, 0));
    /* Closing is done by a thread of the daemon's: wait for it, bounded. */
    int64_t deadline = ptier_test_now() + 20000;
    while (descriptors_of(&f->daemon) > before + 2 && ptier_test_now() < deadline)
        (void)poll(NULL, 0, 10);
    assert_true(descriptors_of(&f->daemon) <= before + 2);
    put_one(f, "http://10.0.0.6:6", "", "", -1, NULL);
}

static void
rude_clients_leak_no_descriptors(void **state)
{
    fixture *f = *state;
    restart(f, (const char *[]){"--core-dumps", "on", NULL}); /* else /proc/PID is root's */
    vanish_often(f, &(door){.url = f->daemon.url});
    assert_int_equal(test_daemon_end(&f->daemon, SIGTERM), 0);
}

/* One client that stays and never reads must not take the others' calls for long. */
static void
never_read(fixture *f, const door *d)
{
    put_many(f, 1000);
    int fd = ask_for_lists(d, 240, 10); /* more than are refused, and than tcp buffers hold */
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

static void
client_that_never_reads_is_cut_off(void **state)
{
    fixture *f = *state;
    never_read(f, &(door){.url = f->daemon.url});
}

/* The same by nng's door. Without the stream replacements the reap thread hangs there, and every
 * later connection leaks. */
static void
by_tcp(security_box *box, void (*be_rude)(fixture *f, const door *d))
{
    security_box_start(box, false, (const char *[]){"--core-dumps", "on", NULL});
    fixture f = {.daemon = box->daemon};
    raw_client_open(&f.client, f.daemon.url);
    be_rude(&f, &(door){.url = box->tcp_url, .token = box->tokens[PTIER_ROLE_ROTATOR]});
    raw_client_close(&f.client);
    assert_int_equal(test_daemon_end(&box->daemon, SIGTERM), 0);
}

static void
rude_clients_by_tcp_leak_no_descriptors(void **state)
{
    by_tcp(*state, vanish_often);
}

static void
client_by_tcp_that_never_reads_is_cut_off(void **state)
{
    by_tcp(*state, never_read);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_DAEMON(three_thousand_connect_and_close_leave_the_service_up),
        WITH_DAEMON(rude_clients_leak_no_descriptors),
        WITH_DAEMON(client_that_never_reads_is_cut_off),
        cmocka_unit_test_setup_teardown(rude_clients_by_tcp_leak_no_descriptors,
                                        security_box_set_up, security_box_tear_down),
        cmocka_unit_test_setup_teardown(client_by_tcp_that_never_reads_is_cut_off,
                                        security_box_set_up, security_box_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
