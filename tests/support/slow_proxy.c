#include "slow_proxy.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/monotonic.h"

enum { LINKS = 64, CHUNK = 65536 };

typedef struct chunk {
    struct chunk *next;
    int64_t due_ms;
    size_t length, sent;
    char bytes[];
} chunk;

typedef struct direction {
    chunk *first, **last;
    bool closed; /* the reading end has ended */
} direction;

typedef struct link {
    int fds[2];              /* client, daemon; -1: free */
    direction directions[2]; /* from fds[i] to the other */
} link_pair;

struct slow_proxy {
    pthread_t thread;
    int listener;
    char target[108];
    _Atomic int delay_ms;
    _Atomic unsigned cuts;
    _Atomic bool stopping;
    unsigned cuts_done; /* the thread's own, and what follows */
    link_pair links[LINKS];
};

static void
set_address(struct sockaddr_un *address, const char *url)
{
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    strncpy(address->sun_path, url + strlen("ipc://"), sizeof address->sun_path - 1);
}

static void
close_link(link_pair *l)
{
    for (int i = 0; i < 2; i++) {
        if (l->fds[i] >= 0)
            close(l->fds[i]);
        l->fds[i] = -1;
        while (l->directions[i].first) {
            chunk *c = l->directions[i].first;
            l->directions[i].first = c->next;
            free(c);
        }
        l->directions[i] = (direction){.closed = false};
        l->directions[i].last = &l->directions[i].first;
    }
}

static void
accept_one(slow_proxy *p)
{
    int client = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
    struct sockaddr_un address;
    if (client < 0)
        return;
    set_address(&address, p->target);
    int daemon = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int i = 0;
    while (i < LINKS && p->links[i].fds[0] >= 0)
        i++;
    if (i == LINKS || daemon < 0 ||
        connect(daemon, (const struct sockaddr *)&address, sizeof address) != 0) {
        close(client);
        if (daemon >= 0)
            close(daemon);
        return;
    }
    p->links[i].fds[0] = client;
    p->links[i].fds[1] = daemon;
}

/* Takes in what came. */
static void
receive(const slow_proxy *p, link_pair *l, int side)
{
    chunk *c = malloc(sizeof *c + CHUNK);
    ssize_t got = c ? recv(l->fds[side], c->bytes, CHUNK, MSG_DONTWAIT) : -1;
    if (got <= 0) {
        free(c);
        l->directions[side].closed = got == 0;
        return;
    }
    *c = (chunk){.due_ms = ptier_test_now() + atomic_load(&p->delay_ms), .length = (size_t)got};
    *l->directions[side].last = c;
    l->directions[side].last = &c->next;
}

/* Passes on what is due. False: the connection is at its end. */
static bool
pass_on(link_pair *l, int side)
{
    direction *d = &l->directions[side];
    while (d->first && d->first->due_ms <= ptier_test_now()) {
        chunk *c = d->first;
        ssize_t sent = send(l->fds[!side], c->bytes + c->sent, c->length - c->sent,
                            MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0)
            return true; /* full, or gone: then the other direction ends */
        c->sent += (size_t)sent;
        if (c->sent < c->length)
            return true;
        d->first = c->next;
        if (!d->first)
            d->last = &d->first;
        free(c);
    }
    return !d->closed || d->first;
}

static void
serve(slow_proxy *p, const struct pollfd *polls, const int *owners, size_t count)
{
    for (size_t i = 1; i < count; i++)
        if (polls[i].revents)
            receive(p, &p->links[owners[i] / 2], owners[i] % 2);
    for (int i = 0; i < LINKS; i++)
        if (p->links[i].fds[0] >= 0 && (!pass_on(&p->links[i], 0) || !pass_on(&p->links[i], 1)))
            close_link(&p->links[i]);
    if (polls[0].revents)
        accept_one(p);
}

static void *
run(void *argument)
{
    slow_proxy *p = argument;
    while (!atomic_load(&p->stopping)) {
        struct pollfd polls[1 + 2 * LINKS] = {{.fd = p->listener, .events = POLLIN}};
        int owners[1 + 2 * LINKS];
        size_t count = 1;
        unsigned cuts = atomic_load(&p->cuts);
        for (int i = 0; i < 2 * LINKS; i++) {
            if (cuts != p->cuts_done)
                close_link(&p->links[i / 2]);
            if (p->links[i / 2].fds[0] < 0 || p->links[i / 2].directions[i % 2].closed)
                continue;
            polls[count] = (struct pollfd){.fd = p->links[i / 2].fds[i % 2], .events = POLLIN};
            owners[count++] = i;
        }
        p->cuts_done = cuts;
        (void)poll(polls, count, 1); /* what it says is in revents */
        serve(p, polls, owners, count);
    }
    return NULL;
}

slow_proxy *
slow_proxy_start(const char *path, const char *target)
{
    struct sockaddr_un address;
    slow_proxy *p = calloc(1, sizeof *p);
    assert_non_null(p);
    for (int i = 0; i < LINKS; i++) {
        p->links[i].fds[0] = p->links[i].fds[1] = -1;
        close_link(&p->links[i]);
    }
    snprintf(p->target, sizeof p->target, "%s", target);
    set_address(&address, path);
    p->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(p->listener >= 0);
    assert_int_equal(bind(p->listener, (const struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(p->listener, 64), 0);
    assert_int_equal(pthread_create(&p->thread, NULL, run, p), 0);
    return p;
}

void
slow_proxy_delay(slow_proxy *p, int ms)
{
    atomic_store(&p->delay_ms, ms);
}

void
slow_proxy_cut(slow_proxy *p)
{
    atomic_fetch_add(&p->cuts, 1);
}

void
slow_proxy_stop(slow_proxy *p)
{
    if (!p)
        return;
    atomic_store(&p->stopping, true);
    pthread_join(p->thread, NULL);
    for (int i = 0; i < LINKS; i++)
        close_link(&p->links[i]);
    close(p->listener);
    free(p);
}
