/*
 * nng (1.5 and 1.10) never closes a connection that stalls in its TLS hello, and tells of none
 * before its handshake is done: whoever connects and says nothing keeps a descriptor for ever. So
 * accept() tells of each connection, and handshakes.c ends those that stall.
 */
#include "nng_workaround.h"

#include <pthread.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Of the process, as the function that is replaced. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void (*watcher)(void *context, int fd);
static void *watcher_context;

void
ptier_nng_workaround_watch_accepts(void (*watch)(void *context, int fd), void *context)
{
    pthread_mutex_lock(&lock);
    watcher = watch;
    watcher_context = context;
    pthread_mutex_unlock(&lock);
}

__attribute__((visibility("default"))) int
accept4(int fd, struct sockaddr *restrict addr, socklen_t *restrict addr_len, int flags)
{
    int accepted = (int)syscall(SYS_accept4, fd, addr, addr_len, flags);
    if (accepted < 0)
        return accepted;
    pthread_mutex_lock(&lock);
    if (watcher)
        watcher(watcher_context, accepted);
    pthread_mutex_unlock(&lock);
    return accepted;
}

__attribute__((visibility("default"))) int
accept(int fd, struct sockaddr *restrict addr, socklen_t *restrict addr_len)
{
    return accept4(fd, addr, addr_len, 0);
}
