/* The connection of sp_link.h, and the events that end waiting. */
#include "sp_link.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "monotonic.h"
#include "sp_wire.h"

/* Until the next try, where more want to connect than the listener lets wait. */
#define CROWDED_MS     5 /* doubles */
#define CROWDED_MAX_MS 80
#define GUARD_MS       100 /* nobody has read for so long */
#define LEAVE_MS       20  /* who waits for others to leave the socket looks again so often */

void
ptier_link_ring(int event)
{
    const uint64_t one = 1;
    ssize_t rv = write(event, &one, sizeof one);
    (void)rv; /* fails only when it rings already */
}

void
ptier_link_hush(int event)
{
    uint64_t rings;
    ssize_t rv = read(event, &rings, sizeof rings);
    (void)rv; /* fails only when it does not ring */
}

/* ---- open and close ---- */

static void
free_link(struct ptier_link *l, size_t conditions)
{
    for (size_t i = 0; i < conditions; i++)
        pthread_cond_destroy(&l->slots[i].told);
    if (l->poke >= 0)
        close(l->poke);
    if (l->rouse >= 0)
        close(l->rouse);
    free(l);
}

int
ptier_link_open(ptier_transport *t)
{
    size_t conditions = 0;
    struct ptier_link *l = calloc(1, sizeof *l);
    if (!l)
        return NNG_ENOMEM;
    l->fd = -1;
    l->poke = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    l->rouse = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    ptier_sp_replies_init(&l->reader, PTIER_REPLY_MAX);
    while (conditions < PTIER_SLOTS_MAX &&
           ptier_monotonic_cond_init(&l->slots[conditions].told) == 0)
        conditions++;
    if (l->poke < 0 || l->rouse < 0 || conditions < PTIER_SLOTS_MAX) {
        free_link(l, conditions);
        return NNG_ENOMEM;
    }
    t->link = l;
    return 0;
}

void
ptier_link_close(ptier_transport *t)
{
    free_link(t->link, PTIER_SLOTS_MAX);
}

/* ---- connecting ---- */

static int
nng_error(int problem)
{
    switch (problem) {
    case ENOENT:
        return NNG_ENOENT;
    case ECONNREFUSED:
        return NNG_ECONNREFUSED;
    case EACCES:
    case EPERM:
        return NNG_EPERM;
    case ENOMEM:
    case ENOBUFS:
        return NNG_ENOMEM;
    case EMFILE:
    case ENFILE:
        return NNG_ENOFILES;
    case EPIPE:
    case ECONNRESET:
        return NNG_ECONNSHUT;
    default:
        return NNG_ESYSERR + problem;
    }
}

static bool
is_abandoned(ptier_transport *t)
{
    pthread_mutex_lock(&t->lock);
    bool abandoned = t->abandoned;
    pthread_mutex_unlock(&t->lock);
    return abandoned;
}

/* Until something can be read from fd (-1: nothing can). 0 or an error. */
static int
wait_readable(ptier_transport *t, int fd, int64_t until)
{
    struct pollfd fds[2] = {{.fd = fd, .events = POLLIN}, {.fd = t->link->poke, .events = POLLIN}};
    while (!is_abandoned(t)) {
        int64_t left = until == INT64_MAX ? -1 : until - ptier_monotonic_ms();
        if (until != INT64_MAX && left <= 0)
            return NNG_ETIMEDOUT;
        int ready = poll(fds, 2, (int)left);
        if (ready > 0 && fds[1].revents)
            ptier_link_hush(t->link->poke);
        if (ready > 0 && fds[0].revents)
            return 0;
    }
    return NNG_ECANCELED;
}

static int
wait_for_place(ptier_transport *t, int64_t *pause)
{
    int rv = wait_readable(t, -1, ptier_monotonic_ms() + *pause);
    *pause = *pause * 2 < CROWDED_MAX_MS ? *pause * 2 : CROWDED_MAX_MS;
    return rv == NNG_ETIMEDOUT ? 0 : rv;
}

static int
connect_to(ptier_transport *t, int fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int64_t pause = CROWDED_MS;
    int rv = 0;
    /* The address was checked: it fits. */
    memcpy(address.sun_path, t->url + strlen("ipc://"), strlen(t->url + strlen("ipc://")));
    while (rv == 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) != 0)
        rv = errno == EAGAIN ? wait_for_place(t, &pause) : errno == EINTR ? 0 : nng_error(errno);
    return rv;
}

/* Who began to listen there. */
static uint64_t
peer_of(int fd)
{
    struct ucred who;
    socklen_t size = sizeof who;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 ? who.uid
                                                                     : PTIER_OWNER_UNKNOWN;
}

/* A stranger gets our greeting and nothing else. */
static bool
is_stranger(ptier_transport *t, int fd)
{
    uint64_t uid = peer_of(fd);
    if (ptier_owner_is_trusted(t->owner, uid))
        return false;
    pthread_mutex_lock(&t->lock);
    t->strange = true;
    t->stranger = uid;
    pthread_mutex_unlock(&t->lock);
    return true;
}

static int
greet(ptier_transport *t, int fd, int64_t until)
{
    uint8_t greeting[PTIER_SP_GREETING_BYTES];
    size_t got = 0;
    ptier_sp_greeting(greeting, PTIER_SP_REQ);
    if (send(fd, greeting, sizeof greeting, MSG_NOSIGNAL) != (ssize_t)sizeof greeting)
        return nng_error(errno);
    while (got < sizeof greeting) {
        int rv = wait_readable(t, fd, until);
        if (rv != 0)
            return rv;
        ssize_t more = recv(fd, greeting + got, sizeof greeting - got, MSG_DONTWAIT);
        if (more == 0)
            return NNG_ECONNSHUT;
        if (more < 0 && errno != EAGAIN && errno != EINTR)
            return nng_error(errno);
        got += more > 0 ? (size_t)more : 0;
    }
    return ptier_sp_greets(greeting, PTIER_SP_REP) ? 0 : NNG_EPROTO;
}

static void
connected(ptier_transport *t, int fd)
{
    struct ptier_link *l = t->link;
    ptier_sp_replies_init(&l->reader, PTIER_REPLY_MAX);
    pthread_mutex_lock(&t->lock);
    l->fd = fd;
    l->blocked = false;
    t->connected = true;
    t->unanswered_since = 0;
    if (t->closing) { /* all exchanges have been ended: nobody will tell us to leave */
        ptier_link_lost_locked(t, false);
    } else {
        ptier_transport_tell_locked(t);
        ptier_link_flush_locked(t);
        ptier_link_pass_on_locked(t);
    }
    pthread_mutex_unlock(&t->lock);
}

int
ptier_link_dial(ptier_transport *t)
{
    bool strange = false;
    pthread_mutex_lock(&t->lock);
    bool wanted = ptier_transport_dials_locked(t);
    atomic_store(&t->dial_begun, true);
    pthread_mutex_unlock(&t->lock);
    if (!wanted)
        return NNG_ECANCELED;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return nng_error(errno);
    int rv = connect_to(t, fd);
    if (rv == 0) {
        strange = is_stranger(t, fd);
        /* A bare listener of nng 1.5 does not outlive a connection that ends before. */
        rv = greet(t, fd, strange ? ptier_monotonic_ms() + PTIER_DIAL_GRACE_MS : INT64_MAX);
    }
    if (rv == 0 && !strange) {
        connected(t, fd);
        return 0;
    }
    close(fd);
    pthread_mutex_lock(&t->lock);
    if (rv == NNG_ECONNSHUT)
        t->dropped = true;
    pthread_mutex_unlock(&t->lock);
    return strange ? NNG_EPEERAUTH : rv;
}

void
ptier_link_abandon_locked(ptier_transport *t)
{
    t->abandoned = true;
    ptier_link_ring(t->link->poke);
}

/* ---- while it is good, and its end ---- */

void
ptier_link_lost_locked(ptier_transport *t, bool by_peer)
{
    struct ptier_link *l = t->link;
    t->connected = false;
    t->dropped = t->dropped || by_peer;
    t->down_since = ptier_monotonic_ms();
    (void)shutdown(l->fd, SHUT_RDWR); /* wakes who waits there; may have been cut off before */
    for (size_t i = 0; i < t->slot_count; i++)
        if (l->slots[i].id != 0 && l->slots[i].sent)
            ptier_link_end_locked(t, &t->slots[i], NNG_ECONNRESET, NULL);
    if (!l->writing)
        ptier_link_drop_begun_locked(t);
    t->wanted = t->wanted || l->out_count > 0;
    ptier_transport_tell_locked(t);
}

/* What is there. Others may have begun to wait meanwhile. */
static void
read_all_locked(ptier_transport *t)
{
    uint64_t before;
    do {
        before = t->link->reads;
        ptier_link_read_locked(t, 0, -1);
    } while (t->link->reads != before);
    ptier_link_pass_on_locked(t);
}

/*
 * Callers see the end of the connection when they send or read; here it is seen when nobody does.
 * What comes while nobody reads (a callback is slow, or a reply late) is read here, too: a daemon
 * that could not send it would end the connection. As long as others read, nothing that comes wakes
 * this thread.
 */
void
ptier_link_attend(ptier_transport *t)
{
    struct ptier_link *l = t->link;
    struct pollfd fd = {.fd = l->fd};
    bool quiet = true, ended = false;
    uint64_t seen = 0;
    pthread_mutex_lock(&t->lock);
    while (t->connected) {
        pthread_mutex_unlock(&t->lock);
        fd.events = (short)(POLLRDHUP | (quiet ? POLLIN : 0));
        int ready = poll(&fd, 1, quiet ? -1 : GUARD_MS);
        pthread_mutex_lock(&t->lock);
        ended = ready > 0 && fd.revents & ~POLLIN;
        if (t->connected && !l->reading && (ended || l->reads == seen))
            read_all_locked(t);
        quiet = l->reads == seen && !l->reading;
        seen = l->reads;
        if (t->connected && ended) /* the one who reads now will not find the end for us */
            ptier_monotonic_wait(&t->changed, &t->lock, ptier_monotonic_ms() + LEAVE_MS);
    }
    pthread_mutex_unlock(&t->lock);
}

void
ptier_link_hang_up(ptier_transport *t)
{
    struct ptier_link *l = t->link;
    pthread_mutex_lock(&t->lock);
    while (l->users > 0)
        ptier_monotonic_wait(&t->changed, &t->lock, ptier_monotonic_ms() + LEAVE_MS);
    int fd = l->fd;
    l->fd = -1;
    pthread_mutex_unlock(&t->lock);
    close(fd);
    ptier_sp_replies_fini(&l->reader);
}
