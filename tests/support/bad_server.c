/* See bad_server.h. */
#include "support/bad_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define HELLO_BYTES 8

const char *
bad_manner_name(bad_manner manner)
{
    static const char *const names[BAD_MANNERS] = {
        "accept and close", "garbage",  "half hello", "stalled",
        "stalled and cut",  "oversize", "wrong ids",  "half TLS"};
    return names[manner];
}

static void
say(int fd, const void *bytes, size_t length)
{
    ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)sent; /* it may be gone */
}

static void
greet(const bad_server *server, int fd, size_t length)
{
    const uint8_t hello[HELLO_BYTES] = {0, 'S', 'P', 0, 0, server->events ? 0x20 : 0x31, 0, 0};
    if (!server->tls)
        say(fd, hello, length);
}

static void
say_frame(const bad_server *server, int fd, uint64_t length, size_t there)
{
    uint8_t frame[64] = {0};
    size_t at = 0;
    if (strncmp(server->url, "ipc:", 4) == 0)
        frame[at++] = 1;
    for (int shift = 56; shift >= 0; shift -= 8)
        frame[at++] = (uint8_t)(length >> shift);
    if (server->events)
        memcpy(frame + at, "PTC1", 4);
    else
        memcpy(frame + at, "\xff\xff\xff\xff\0\0\0\0", 8); /* an id, and an empty header */
    say(fd, frame, at + there);
}

static void
end(bad_connection *one)
{
    close(one->fd);
    one->fd = -1;
}

/* As soon as somebody is there. */
static void
begin(bad_server *server, bad_connection *one)
{
    static const uint8_t tls_answer[] = {0x16, 3, 3, 0, 80, 2, 0, 0, 76, 3, 3, 1, 2};
    uint8_t garbage[256];
    for (size_t i = 0; i < sizeof garbage; i++)
        garbage[i] = (uint8_t)(rand() >> 7); /* of one thread, with the same seed each time */
    bad_manner manner = atomic_load(&server->manner);
    switch (manner) {
    case BAD_ACCEPT_CLOSE:
        end(one);
        break;
    case BAD_GARBAGE:
        if (server->serial++ % 2)
            greet(server, one->fd, HELLO_BYTES);
        say(one->fd, garbage, sizeof garbage);
        break;
    case BAD_HALF_HELLO:
        greet(server, one->fd, HELLO_BYTES / 2);
        end(one);
        break;
    case BAD_HALF_TLS:
        say(one->fd, tls_answer, sizeof tls_answer);
        break;
    default:
        greet(server, one->fd, HELLO_BYTES);
    }
}

/* Something was heard beyond a greeting (which is all that a subscriber ever says). */
static void
answer(bad_server *server, bad_connection *one)
{
    switch (atomic_load(&server->manner)) {
    case BAD_STALLED:
        say_frame(server, one->fd, 100000, 20);
        break;
    case BAD_STALLED_RST:
        say_frame(server, one->fd, 100000, 20);
        (void)poll(NULL, 0, 1);
        end(one);
        break;
    case BAD_OVERSIZE:
        say_frame(server, one->fd, UINT64_MAX - 39, 20);
        break;
    case BAD_WRONG_IDS:
        say_frame(server, one->fd, 8, 8);
        break;
    case BAD_HALF_TLS:
        end(one);
        break;
    default:
        break;
    }
}

static void
hear(bad_server *server, bad_connection *one)
{
    uint8_t bytes[4096];
    ssize_t got = recv(one->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (got <= 0) {
        end(one);
        return;
    }
    one->heard += (size_t)got;
    if (server->tls || one->heard > HELLO_BYTES || (server->events && one->heard == HELLO_BYTES))
        answer(server, one);
}

static void
take(bad_server *server)
{
    int fd = accept(server->listener, NULL, NULL);
    if (fd < 0)
        return;
    atomic_fetch_add(&server->accepted, 1);
    for (size_t i = 0; i < BAD_CONNECTIONS; i++)
        if (server->connections[i].fd < 0) {
            server->connections[i] = (bad_connection){.fd = fd};
            begin(server, &server->connections[i]);
            return;
        }
    close(fd);
}

static void *
serve(void *argument)
{
    bad_server *server = argument;
    while (!atomic_load(&server->stopping)) {
        struct pollfd fds[1 + BAD_CONNECTIONS];
        fds[0] = (struct pollfd){.fd = server->listener, .events = POLLIN};
        for (size_t i = 0; i < BAD_CONNECTIONS; i++)
            fds[1 + i] = (struct pollfd){.fd = server->connections[i].fd, .events = POLLIN};
        if (poll(fds, 1 + BAD_CONNECTIONS, 20) <= 0)
            continue;
        for (size_t i = 0; i < BAD_CONNECTIONS; i++)
            if (fds[1 + i].fd >= 0 && fds[1 + i].revents)
                hear(server, &server->connections[i]);
        if (fds[0].revents)
            take(server);
    }
    return NULL;
}

void
bad_server_start(bad_server *server, const char *url, bool events)
{
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    struct sockaddr_in port = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int yes = 1;
    bool ipc = strncmp(url, "ipc://", 6) == 0;
    memset(server, 0, sizeof *server);
    strcpy(server->url, url);
    server->events = events;
    server->tls = strncmp(url, "tls", 3) == 0;
    for (size_t i = 0; i < BAD_CONNECTIONS; i++)
        server->connections[i].fd = -1;
    if (ipc)
        strcpy(path.sun_path, url + 6);
    else
        port.sin_port = htons((uint16_t)atoi(strrchr(url, ':') + 1));
    server->listener = socket(ipc ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(server->listener >= 0);
    if (ipc)
        (void)unlink(path.sun_path);
    else
        assert_int_equal(setsockopt(server->listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes),
                         0);
    assert_int_equal(bind(server->listener,
                          ipc ? (struct sockaddr *)&path : (struct sockaddr *)&port,
                          ipc ? sizeof path : sizeof port),
                     0);
    assert_int_equal(listen(server->listener, 128), 0);
    assert_int_equal(pthread_create(&server->thread, NULL, serve, server), 0);
}

void
bad_server_stop(bad_server *server)
{
    atomic_store(&server->stopping, true);
    pthread_join(server->thread, NULL);
    for (size_t i = 0; i < BAD_CONNECTIONS; i++)
        if (server->connections[i].fd >= 0)
            end(&server->connections[i]);
    close(server->listener);
    if (strncmp(server->url, "ipc://", 6) == 0)
        (void)unlink(server->url + 6); /* somebody else may have taken it */
}
