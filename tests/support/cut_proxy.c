/* See cut_proxy.h. */
#include "support/cut_proxy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define HANDSHAKE 8 /* not cut within: that is another test's */

static uint64_t
draw(cut_proxy *proxy)
{
    proxy->random = proxy->random * 6364136223846793005u + 1442695040888963407u;
    return proxy->random >> 33;
}

static struct sockaddr_un
address_of(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    assert_true(strlen(path) < sizeof address.sun_path);
    strcpy(address.sun_path, path);
    return address;
}

static void
close_link(cut_link *link)
{
    close(link->client);
    close(link->server);
    link->client = link->server = -1;
}

static void
accept_link(cut_proxy *proxy)
{
    struct sockaddr_un address = address_of(proxy->target);
    cut_link *link = proxy->links;
    int client = accept(proxy->listener, NULL, NULL);
    if (client < 0)
        return;
    while (link < proxy->links + CUT_LINKS_MAX && link->client >= 0)
        link++;
    int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (link == proxy->links + CUT_LINKS_MAX || server < 0 ||
        connect(server, (struct sockaddr *)&address, sizeof address) != 0) {
        if (server >= 0)
            close(server);
        close(client); /* the daemon is down: so is this */
        return;
    }
    *link = (cut_link){.client = client, .server = server, .left = {UINT64_MAX, UINT64_MAX}};
    if (proxy->mean)
        link->left[draw(proxy) % 2] = HANDSHAKE + draw(proxy) % (2 * proxy->mean);
}

/* False: the connection has ended. */
static bool
relay(cut_proxy *proxy, cut_link *link, int direction)
{
    char bytes[4096];
    int from = direction == 0 ? link->client : link->server;
    int to = direction == 0 ? link->server : link->client;
    size_t most = link->left[direction] < sizeof bytes ? link->left[direction] : sizeof bytes;
    ssize_t got = recv(from, bytes, most, MSG_DONTWAIT);
    if (got <= 0 || send(to, bytes, (size_t)got, MSG_NOSIGNAL) != got)
        return false;
    link->left[direction] -= (uint64_t)got;
    if (link->left[direction] > 0)
        return true;
    atomic_fetch_add(&proxy->cuts[direction], 1);
    return false;
}

static void *
run(void *argument)
{
    cut_proxy *proxy = argument;
    while (!atomic_load(&proxy->stopping)) {
        struct pollfd fds[1 + 2 * CUT_LINKS_MAX];
        fds[0] = (struct pollfd){.fd = proxy->listener, .events = POLLIN};
        for (size_t i = 0; i < CUT_LINKS_MAX; i++) {
            fds[1 + 2 * i] = (struct pollfd){.fd = proxy->links[i].client, .events = POLLIN};
            fds[2 + 2 * i] = (struct pollfd){.fd = proxy->links[i].server, .events = POLLIN};
        }
        if (poll(fds, 1 + 2 * CUT_LINKS_MAX, 50) <= 0)
            continue;
        for (size_t i = 0; i < CUT_LINKS_MAX; i++) {
            cut_link *link = &proxy->links[i];
            if (link->client >= 0 && ((fds[1 + 2 * i].revents && !relay(proxy, link, 0)) ||
                                      (fds[2 + 2 * i].revents && !relay(proxy, link, 1))))
                close_link(link);
        }
        if (fds[0].revents)
            accept_link(proxy);
    }
    return NULL;
}

void
cut_proxy_start(cut_proxy *proxy, const char *target_url, uint64_t mean, uint64_t seed)
{
    memset(proxy, 0, sizeof *proxy);
    (void)snprintf(proxy->target, sizeof proxy->target, "%s", target_url + strlen("ipc://"));
    (void)snprintf(proxy->url, sizeof proxy->url, "%s.cut", target_url);
    struct sockaddr_un address = address_of(proxy->url + strlen("ipc://"));
    proxy->mean = mean;
    proxy->random = seed;
    for (size_t i = 0; i < CUT_LINKS_MAX; i++)
        proxy->links[i].client = proxy->links[i].server = -1;
    proxy->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(proxy->listener >= 0);
    assert_int_equal(bind(proxy->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(proxy->listener, 64), 0);
    assert_int_equal(pthread_create(&proxy->thread, NULL, run, proxy), 0);
}

void
cut_proxy_stop(cut_proxy *proxy)
{
    atomic_store(&proxy->stopping, true);
    assert_int_equal(pthread_join(proxy->thread, NULL), 0);
    for (size_t i = 0; i < CUT_LINKS_MAX; i++)
        if (proxy->links[i].client >= 0)
            close_link(&proxy->links[i]);
    close(proxy->listener);
    (void)unlink(proxy->url + strlen("ipc://")); /* may be gone with its directory */
}
