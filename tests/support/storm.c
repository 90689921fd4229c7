/* See storm.h. */
#include "support/storm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define LIMIT_S     20
#define CROWD       200
#define HELLO_BYTES 8
#define FRAME_MAX   64

/* ECDHE with AES-GCM over P-256: what a server of ours answers. */
static const uint8_t tls_hello[] = {
    0x16, 3,  1,    0,    69,      /* record */
    1,    0,  0,    65,   3,    3, /* ClientHello, 1.2 */
    1,    2,  3,    4,    5,    6,    7,  8,  9,  10, 11, 12, 13, 14, 15, 16,
    17,   18, 19,   20,   21,   22,   23, 24, 25, 26, 27, 28, 29, 30, 31, 32, /* random */
    0,                                                                        /* session */
    0,    4,  0xc0, 0x2b, 0xc0, 0x2f,                                         /* ciphers */
    1,    0,                                                                  /* no compression */
    0,    20,                                                                 /* extensions */
    0,    10, 0,    4,    0,    2,    0,  23,                                 /* groups: P-256 */
    0,    13, 0,    8,    0,    6,    4,  3,  4,  1,  2,  3,                  /* signatures */
};

const char *
storm_name(storm_kind kind)
{
    static const char *const names[STORM_KINDS] = {"connect and close", "FIN and RST", "half hello",
                                                   "garbage",           "oversize",    "stalled",
                                                   "TLS aborted"};
    return names[kind];
}

int
storm_connect(const char *url)
{
    const struct timeval limit = {.tv_sec = LIMIT_S};
    const struct timespec pause = {.tv_nsec = 1000000};
    bool ipc = strncmp(url, "ipc://", 6) == 0;
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    struct sockaddr_in port = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (ipc)
        strcpy(path.sun_path, url + 6);
    else
        port.sin_port = htons((uint16_t)atoi(strrchr(url, ':') + 1));
    for (unsigned tries = 0;; tries++) {
        int fd = socket(ipc ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(fd >= 0);
        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit), 0);
        if (connect(fd, ipc ? (struct sockaddr *)&path : (struct sockaddr *)&port,
                    ipc ? sizeof path : sizeof port) == 0)
            return fd;
        close(fd);
        assert_true(tries < LIMIT_S * 1000); /* its queue may be full for a moment */
        nanosleep(&pause, NULL);
    }
}

static void
reset(int fd)
{
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once); /* tcp only */
    close(fd);
}

/* The peer may be faster and gone. */
static void
say(int fd, const void *bytes, size_t length)
{
    ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
    (void)sent;
}

static void
wait_until_cut(int fd)
{
    char bytes[256];
    ssize_t got;
    do
        got = recv(fd, bytes, sizeof bytes, 0);
    while (got > 0);
}

static void
fill_hello(uint8_t hello[HELLO_BYTES], bool events)
{
    memcpy(hello, "\0SP\0\0\0\0\0", HELLO_BYTES);
    hello[5] = events ? 0x21 : 0x30;
}

/* The beginning of a frame of so many bytes, 16 of them there. Returns how much that is. */
static size_t
fill_frame(uint8_t frame[FRAME_MAX], bool ipc, uint64_t length)
{
    size_t at = 0;
    if (ipc)
        frame[at++] = 1;
    for (int shift = 56; shift >= 0; shift -= 8)
        frame[at++] = (uint8_t)(length >> shift);
    memset(frame + at, 0x80, 16);
    return at + 16;
}

static void
fill_garbage(uint8_t *bytes, size_t length, unsigned round)
{
    uint32_t x = round * 2654435761u + 1;
    for (size_t i = 0; i < length; i++) {
        x = x * 1664525u + 1013904223u;
        bytes[i] = (uint8_t)(x >> 24);
    }
}

/* What one of a kind says. Returns its length; `bytes` has room for hello and frame. */
static size_t
fill_words(uint8_t bytes[HELLO_BYTES + FRAME_MAX], bool events, bool ipc, storm_kind kind,
           unsigned round)
{
    fill_hello(bytes, events);
    switch (kind) {
    case STORM_HALF_HELLO:
        return 1 + round % (HELLO_BYTES - 1);
    case STORM_GARBAGE:
        if (round % 2 == 0)
            fill_garbage(bytes, HELLO_BYTES + FRAME_MAX, round);
        else
            fill_garbage(bytes + HELLO_BYTES, FRAME_MAX, round);
        return HELLO_BYTES + FRAME_MAX;
    case STORM_OVERSIZE:
        return HELLO_BYTES +
               fill_frame(bytes + HELLO_BYTES, ipc, round % 2 ? UINT64_MAX - 39 : 1u << 30);
    case STORM_STALLED:
        return HELLO_BYTES + fill_frame(bytes + HELLO_BYTES, ipc, 100000);
    case STORM_TLS_ABORT:
        memcpy(bytes, tls_hello,
               sizeof tls_hello < HELLO_BYTES + FRAME_MAX ? sizeof tls_hello
                                                          : HELLO_BYTES + FRAME_MAX);
        return round % 2 ? 20 : HELLO_BYTES + FRAME_MAX;
    default:
        return 0;
    }
}

static void
leave(int fd, storm_kind kind, unsigned round)
{
    char byte;
    switch (kind) {
    case STORM_FIN_RST:
        (void)shutdown(fd, SHUT_WR);
        reset(fd);
        break;
    case STORM_TLS_ABORT:
        if (round % 16 == 0) { /* its answer has begun */
            say(fd, tls_hello, sizeof tls_hello);
            ssize_t got = recv(fd, &byte, 1, 0);
            (void)got;
        }
        if (round % 4 < 2)
            reset(fd);
        else
            close(fd);
        break;
    case STORM_OVERSIZE:
        wait_until_cut(fd); /* that it is refused, and not waited for */
        close(fd);
        break;
    default:
        if (round % 3 == 0)
            reset(fd);
        else
            close(fd);
    }
}

void
storm_run(const char *url, bool events, storm_kind kind, unsigned rounds)
{
    uint8_t bytes[HELLO_BYTES + FRAME_MAX];
    int crowd[CROWD];
    unsigned waiting = 0;
    bool ipc = strncmp(url, "ipc://", 6) == 0;
    for (unsigned round = 0; round < rounds; round++) {
        int fd = storm_connect(url);
        if (kind != STORM_TLS_ABORT || round % 16 != 0) /* those wait for an answer */
            say(fd, bytes, fill_words(bytes, events, ipc, kind, round));
        if (kind != STORM_STALLED) {
            leave(fd, kind, round);
            continue;
        }
        crowd[waiting++] = fd;
        if (waiting < CROWD && round + 1 < rounds)
            continue;
        for (unsigned i = 0; i < waiting; i++)
            leave(crowd[i], kind, i);
        waiting = 0;
    }
}

/* ---- inside TLS ---- */

static nng_stream *
connect_tls(const char *url, nng_tls_config *tls, nng_aio *aio)
{
    nng_stream_dialer *dialer;
    assert_int_equal(nng_stream_dialer_alloc(&dialer, url), 0);
    assert_int_equal(nng_stream_dialer_set_ptr(dialer, NNG_OPT_TLS_CONFIG, tls), 0);
    nng_stream_dialer_dial(dialer, aio);
    nng_aio_wait(aio);
    assert_int_equal(nng_aio_result(aio), 0);
    nng_stream *stream = nng_aio_get_output(aio, 0);
    nng_stream_dialer_close(dialer);
    nng_stream_dialer_free(dialer);
    return stream;
}

void
storm_run_inside_tls(const char *url, bool events, nng_tls_config *tls, storm_kind kind,
                     unsigned rounds)
{
    uint8_t bytes[HELLO_BYTES + FRAME_MAX];
    nng_aio *aio;
    assert_int_equal(nng_aio_alloc(&aio, NULL, NULL), 0);
    nng_aio_set_timeout(aio, LIMIT_S * 1000);
    for (unsigned round = 0; round < rounds; round++) {
        nng_stream *stream = connect_tls(url, tls, aio);
        nng_iov iov = {bytes, fill_words(bytes, events, false, kind, round)};
        if (iov.iov_len > 0) {
            assert_int_equal(nng_aio_set_iov(aio, 1, &iov), 0);
            nng_stream_send(stream, aio);
            nng_aio_wait(aio); /* the peer may be faster and gone */
        }
        nng_stream_close(stream);
        nng_stream_free(stream);
    }
    nng_aio_free(aio);
}
