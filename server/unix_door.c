/*
 * See unix_door.h. Each loop accepts for itself, and has its connections for itself; what loops
 * share is the listeners, under the door's lock.
 */
#include "unix_door.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "self_probe.h"
#include "unix_connection.h"

#define LISTENERS_MAX 16
#define LOOPS_MAX     8
#define EVENTS_MAX    64
#define SCRATCH_BYTES ((size_t)256 * 1024) /* read at a time */
#define TICK_MS       200                  /* while there are connections */
#define GREETING_MAX  256 /* connections of one loop that have not greeted: the oldest one goes */
#define ACCEPTS_MAX   16  /* in one round */

typedef struct listener {
    ptier_listen_socket socket;
    const char *url;
} listener;

typedef struct loop {
    ptier_unix_door *door;
    pthread_t thread;
    bool running;
    int epoll, wake;
    int64_t resting_since_ms; /* there were no descriptors left: nothing is accepted; 0: not so */
    int64_t ticked_ms;
    ptier_unix_requests requests;
    ptier_unix_connection *first, *last; /* by age */
    ptier_unix_connection *closing;      /* closed when all events were looked at */
    size_t count, greeting;
    uint8_t *scratch;
} loop;

struct ptier_unix_door {
    ptier_front *front;
    pthread_mutex_t lock; /* guards the sockets of the listeners */
    listener listeners[LISTENERS_MAX];
    size_t listener_count;
    atomic_bool stopping;
    atomic_uint last_id;
    loop loops[LOOPS_MAX];
    size_t loop_count;
};

/* ---- connections ---- */

static void
take_out(loop *l, ptier_unix_connection *c)
{
    *(c->previous ? &c->previous->next : &l->first) = c->next;
    *(c->next ? &c->next->previous : &l->last) = c->previous;
    c->previous = NULL;
    c->next = l->closing;
    l->closing = c;
    l->count--;
}

static void
close_those_closing(loop *l)
{
    while (l->closing) {
        ptier_unix_connection *c = l->closing;
        l->closing = c->next;
        ptier_unix_connection_close(c);
    }
}

/* An honest client greets long before its turn. */
static void
cut_oldest_greeting(loop *l)
{
    for (ptier_unix_connection *c = l->first; c; c = c->next)
        if (!c->admitted) {
            c->doomed = true;
            l->greeting--;
            take_out(l, c);
            return;
        }
}

static void
add_connection(loop *l, int fd)
{
    ptier_unix_door *door = l->door;
    /* nng's ids of pipes do not have the highest bit. */
    uint32_t id = (uint32_t)atomic_fetch_add(&door->last_id, 1) | UINT32_C(0x80000000);
    ptier_unix_connection *c =
        ptier_unix_connection_create(door->front, &l->requests, l->epoll, fd, id);
    if (!c)
        return;
    c->previous = l->last;
    *(l->last ? &l->last->next : &l->first) = c;
    l->last = c;
    l->count++;
    if (++l->greeting > GREETING_MAX)
        cut_oldest_greeting(l);
}

static void
serve(loop *l, ptier_unix_connection *c, uint32_t events)
{
    if (c->doomed)
        return; /* it is among those closing */
    bool greeting = !c->admitted;
    bool well = true;
    if (events & EPOLLOUT)
        well = ptier_unix_connection_write(c);
    if (well && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        well = ptier_unix_connection_read(c, l->scratch, SCRATCH_BYTES);
    if (greeting && (c->admitted || !well))
        l->greeting--;
    if (well)
        return;
    c->doomed = true;
    take_out(l, c);
}

static void
tick(loop *l)
{
    int64_t now = ptier_monotonic_ms();
    if (now - l->ticked_ms < TICK_MS)
        return;
    l->ticked_ms = now;
    for (ptier_unix_connection *c = l->first, *next; c; c = next) {
        next = c->next;
        if (!ptier_unix_connection_is_overdue(c, now))
            continue;
        if (!c->admitted)
            l->greeting--;
        c->doomed = true;
        take_out(l, c);
    }
}

/* ---- listeners ---- */

static void
watch_listener(const loop *l, const listener *one)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE};
    event.data.ptr = (void *)(uintptr_t)one;
    if (one->socket.fd >= 0)
        (void)epoll_ctl(l->epoll, EPOLL_CTL_ADD, one->socket.fd, &event); /* or again at a tick */
}

/* Without descriptors epoll would tell of the same connection again and again. */
static void
rest(loop *l)
{
    ptier_unix_door *door = l->door;
    pthread_mutex_lock(&door->lock);
    for (size_t i = 0; i < door->listener_count; i++)
        (void)epoll_ctl(l->epoll, EPOLL_CTL_DEL, door->listeners[i].socket.fd, NULL);
    pthread_mutex_unlock(&door->lock);
    l->resting_since_ms = ptier_monotonic_ms();
}

static void
wake_up(loop *l)
{
    ptier_unix_door *door = l->door;
    if (l->resting_since_ms == 0 || ptier_monotonic_ms() - l->resting_since_ms < TICK_MS)
        return;
    pthread_mutex_lock(&door->lock);
    for (size_t i = 0; i < door->listener_count; i++)
        watch_listener(l, &door->listeners[i]);
    pthread_mutex_unlock(&door->lock);
    l->resting_since_ms = 0;
}

static void
accept_some(loop *l, const listener *one)
{
    ptier_unix_door *door = l->door;
    for (int i = 0; i < ACCEPTS_MAX; i++) {
        pthread_mutex_lock(&door->lock);
        int fd = one->socket.fd < 0
                     ? -1
                     : accept4(one->socket.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        int code = one->socket.fd < 0 ? EAGAIN : errno;
        pthread_mutex_unlock(&door->lock);
        if (fd >= 0)
            add_connection(l, fd);
        else if (code == EMFILE || code == ENFILE || code == ENOBUFS || code == ENOMEM)
            rest(l);
        if (fd < 0 && code != ECONNABORTED && code != EINTR)
            return;
    }
}

/* ---- the thread ---- */

static const listener *
as_listener(const ptier_unix_door *door, const void *pointer)
{
    const char *at = pointer;
    const char *begin = (const char *)door->listeners;
    return at >= begin && at < begin + sizeof door->listeners ? pointer : NULL;
}

static void *
run(void *argument)
{
    loop *l = argument;
    struct epoll_event events[EVENTS_MAX];
    while (!atomic_load(&l->door->stopping)) {
        int patience = l->count || l->resting_since_ms ? TICK_MS : -1;
        int count = epoll_wait(l->epoll, events, EVENTS_MAX, patience);
        for (int i = 0; i < count; i++) {
            const listener *one = as_listener(l->door, events[i].data.ptr);
            if (one)
                accept_some(l, one);
            else if (events[i].data.ptr)
                serve(l, events[i].data.ptr, events[i].events);
        }
        tick(l);
        wake_up(l);
        close_those_closing(l);
    }
    while (l->first)
        take_out(l, l->first);
    close_those_closing(l);
    return NULL;
}

/* ---- life ---- */

static ptier_status
init_loop(ptier_unix_door *door, ptier_error *error)
{
    loop *l = &door->loops[door->loop_count++];
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    l->door = door;
    ptier_unix_requests_init(&l->requests);
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    l->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    l->scratch = malloc(SCRATCH_BYTES);
    if (l->epoll < 0 || l->wake < 0 || !l->scratch ||
        epoll_ctl(l->epoll, EPOLL_CTL_ADD, l->wake, &event) != 0)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "cannot make an event loop: %s",
                          strerror(errno));
    return PTIER_OK;
}

static size_t
loops_for_cores(void)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    size_t wanted = cores > 1 ? (size_t)cores / 2 : 1;
    return wanted < LOOPS_MAX ? wanted : LOOPS_MAX;
}

ptier_status
ptier_unix_door_open(ptier_front *front, ptier_unix_door **door, ptier_error *error)
{
    ptier_unix_door *made = calloc(1, sizeof *made);
    *door = NULL;
    if (!made)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    made->front = front;
    pthread_mutex_init(&made->lock, NULL);
    ptier_status status = PTIER_OK;
    for (size_t i = loops_for_cores(); i > 0 && status == PTIER_OK; i--)
        status = init_loop(made, error);
    if (status != PTIER_OK) {
        ptier_unix_door_close(made);
        return status;
    }
    *door = made;
    return PTIER_OK;
}

ptier_status
ptier_unix_door_listen(ptier_unix_door *door, const char *url, const ptier_listen_options *options,
                       ptier_error *error)
{
    if (door->listener_count == LISTENERS_MAX)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "%s: at most %d ipc addresses", url,
                          LISTENERS_MAX);
    listener *one = &door->listeners[door->listener_count];
    one->url = url;
    ptier_status status = ptier_listen_unix(url, options, &one->socket, error);
    if (status != PTIER_OK)
        return status;
    door->listener_count++;
    return ptier_self_probe_add(door->front->service->self_probe,
                                &(ptier_probed){.url = url, .unix_door = door}, error);
}

ptier_status
ptier_unix_door_start(ptier_unix_door *door, ptier_error *error)
{
    for (size_t i = 0; i < door->loop_count; i++) {
        loop *l = &door->loops[i];
        for (size_t j = 0; j < door->listener_count; j++)
            watch_listener(l, &door->listeners[j]);
        if (pthread_create(&l->thread, NULL, run, l) != 0)
            return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "cannot start a thread for calls");
        l->running = true;
    }
    return PTIER_OK;
}

ptier_status
ptier_unix_door_reopen(ptier_unix_door *door, const char *url, const ptier_listen_options *options,
                       ptier_error *error)
{
    ptier_status status = PTIER_NOT_FOUND;
    pthread_mutex_lock(&door->lock);
    for (size_t i = 0; i < door->listener_count; i++) {
        listener *one = &door->listeners[i];
        if (strcmp(one->url, url) != 0)
            continue;
        ptier_listen_unix_close(&one->socket, url);
        status = ptier_listen_unix(url, options, &one->socket, error);
        for (size_t j = 0; status == PTIER_OK && j < door->loop_count; j++)
            watch_listener(&door->loops[j], one);
    }
    pthread_mutex_unlock(&door->lock);
    return status;
}

static void
stop_loop(loop *l)
{
    uint64_t one = 1;
    if (l->running) {
        (void)!write(l->wake, &one, sizeof one); /* an eventfd takes it */
        pthread_join(l->thread, NULL);
    }
    if (l->epoll >= 0)
        (void)close(l->epoll);
    if (l->wake >= 0)
        (void)close(l->wake);
    ptier_unix_requests_fini(&l->requests);
    free(l->scratch);
}

void
ptier_unix_door_close(ptier_unix_door *door)
{
    if (!door)
        return;
    atomic_store(&door->stopping, true);
    pthread_mutex_lock(&door->lock);
    for (size_t i = 0; i < door->listener_count; i++)
        ptier_listen_unix_close(&door->listeners[i].socket, door->listeners[i].url);
    pthread_mutex_unlock(&door->lock);
    for (size_t i = 0; i < door->loop_count; i++)
        stop_loop(&door->loops[i]);
    pthread_mutex_destroy(&door->lock);
    free(door);
}
