/*
 * The demo's target: a web server on a loopback port of its own choosing (or --port N) that answers
 * every request with 200 and counts. Prints "port N" when it listens and "served N" when SIGTERM or
 * SIGINT ends it. A few threads accept on one socket, so that one slow connection holds up nobody.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define THREADS 8

typedef struct server {
    int listener;
    atomic_ulong connections;
} server;

static void
answer(int fd, unsigned long count)
{
    char request[4096], body[64], reply[256];
    size_t length = 0;
    struct timeval limit = {.tv_sec = 2};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    while (length < sizeof request - 1) {
        ssize_t n = recv(fd, request + length, sizeof request - 1 - length, 0);
        if (n <= 0)
            return;
        length += (size_t)n;
        request[length] = '\0';
        if (strstr(request, "\r\n\r\n"))
            break;
    }
    int body_length = snprintf(body, sizeof body, "request %lu\n", count);
    int reply_length = snprintf(reply, sizeof reply,
                                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
                                "Content-Length: %d\r\nConnection: close\r\n\r\n%s",
                                body_length, body);
    (void)send(fd, reply, (size_t)reply_length,
               MSG_NOSIGNAL); /* the peer may have gone: its loss */
}

static void *
serve(void *context)
{
    server *s = context;
    for (;;) {
        int fd = accept(s->listener, NULL, NULL);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (fd < 0)
            return NULL; /* main has shut the listener down */
        answer(fd, atomic_fetch_add(&s->connections, 1) + 1);
        close(fd);
    }
}

static int
listen_on_loopback(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t length = sizeof address;
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 128) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) != 0) {
        perror("target_server: cannot listen on 127.0.0.1");
        return -1;
    }
    printf("port %u\n", ntohs(address.sin_port));
    return fd;
}

int
main(int argc, char **argv)
{
    server s = {.listener = -1};
    pthread_t threads[THREADS];
    int started = 0, signal;
    long port = 0;
    sigset_t ends;
    if (argc == 3 && strcmp(argv[1], "--port") == 0)
        port = strtol(argv[2], NULL, 10);
    if ((argc != 1 && argc != 3) || port < 0 || port > 65535) {
        fprintf(stderr, "usage: target_server [--port N]\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &ends, NULL); /* the threads inherit it: only sigwait sees them */
    s.listener = listen_on_loopback((uint16_t)port);
    if (s.listener < 0)
        return EXIT_FAILURE;
    while (started < THREADS && pthread_create(&threads[started], NULL, serve, &s) == 0)
        started++;
    (void)sigwait(&ends, &signal); /* cannot fail with a valid set */
    shutdown(s.listener, SHUT_RDWR);
    for (int i = 0; i < started; i++)
        (void)pthread_join(threads[i], NULL); /* joined once each */
    close(s.listener);
    printf("served %lu\n", atomic_load(&s.connections));
    return EXIT_SUCCESS;
}
