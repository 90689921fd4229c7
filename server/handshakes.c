/* See handshakes.h. A ring in order of arrival; those that are done leave holes. */
#include "handshakes.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Both ends: unique among open connections. Ports in network order, IPv4 mapped into IPv6. */
typedef struct ends {
    uint8_t peer[16];
    uint16_t peer_port, our_port;
} ends;

typedef struct handshake {
    int fd; /* our duplicate; -1: done */
    ends ends;
    int64_t begun_ms;
} handshake;

struct ptier_handshakes {
    int64_t timeout_ms;
    pthread_mutex_t lock; /* guards the rest */
    uint64_t first, next; /* of the ring, modulo its size */
    handshake ring[PTIER_HANDSHAKES_MAX];
    unsigned cut;
};

ptier_status
ptier_handshakes_create(int64_t timeout_ms, ptier_handshakes **made, ptier_error *error)
{
    ptier_handshakes *h = calloc(1, sizeof *h);
    if (!h || pthread_mutex_init(&h->lock, NULL) != 0) {
        free(h);
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    }
    h->timeout_ms = timeout_ms;
    *made = h;
    return PTIER_OK;
}

static handshake *
at(ptier_handshakes *h, uint64_t position)
{
    return &h->ring[position % PTIER_HANDSHAKES_MAX];
}

static void
let_go(handshake *one)
{
    if (one->fd >= 0)
        (void)close(one->fd); /* nothing was written through it */
    one->fd = -1;
}

void
ptier_handshakes_destroy(ptier_handshakes *h)
{
    if (!h)
        return;
    for (; h->first != h->next; h->first++)
        let_go(at(h, h->first));
    pthread_mutex_destroy(&h->lock);
    free(h);
}

static bool
take_address(const struct sockaddr_storage *from, uint8_t address[16], uint16_t *port)
{
    if (from->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)from;
        memset(address, 0, 16);
        address[10] = address[11] = 0xff;
        memcpy(address + 12, &v4->sin_addr, 4);
        *port = v4->sin_port;
        return true;
    }
    if (from->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)from;
        memcpy(address, &v6->sin6_addr, 16);
        *port = v6->sin6_port;
        return true;
    }
    return false;
}

static bool
ends_of_socket(int fd, ends *both)
{
    struct sockaddr_storage peer = {0}, ours = {0};
    socklen_t peer_length = sizeof peer, our_length = sizeof ours;
    uint8_t unused[16];
    return getpeername(fd, (struct sockaddr *)&peer, &peer_length) == 0 &&
           getsockname(fd, (struct sockaddr *)&ours, &our_length) == 0 &&
           take_address(&peer, both->peer, &both->peer_port) &&
           take_address(&ours, unused, &both->our_port);
}

static bool
take_nng(const nng_sockaddr *from, uint8_t address[16], uint16_t *port)
{
    if (from->s_family == NNG_AF_INET) {
        memset(address, 0, 16);
        address[10] = address[11] = 0xff;
        memcpy(address + 12, &from->s_in.sa_addr, 4);
        *port = from->s_in.sa_port;
        return true;
    }
    if (from->s_family == NNG_AF_INET6) {
        memcpy(address, from->s_in6.sa_addr, 16);
        *port = from->s_in6.sa_port;
        return true;
    }
    return false;
}

static bool
ends_of_pipe(nng_pipe pipe, ends *both)
{
    nng_sockaddr peer, ours;
    uint8_t unused[16];
    return nng_pipe_get_addr(pipe, NNG_OPT_REMADDR, &peer) == 0 &&
           nng_pipe_get_addr(pipe, NNG_OPT_LOCADDR, &ours) == 0 &&
           take_nng(&peer, both->peer, &both->peer_port) &&
           take_nng(&ours, unused, &both->our_port);
}

static bool
is_same(const ends *a, const ends *b)
{
    return a->peer_port == b->peer_port && a->our_port == b->our_port &&
           memcmp(a->peer, b->peer, sizeof a->peer) == 0;
}

/* nng sees the end of the stream, and clears up by itself. */
static void
cut_first_locked(ptier_handshakes *h)
{
    handshake *first = at(h, h->first++);
    if (first->fd < 0)
        return;
    (void)shutdown(first->fd, SHUT_RDWR); /* fails when it is closed already */
    let_go(first);
    h->cut++;
}

static void
skip_done_locked(ptier_handshakes *h)
{
    while (h->first != h->next && at(h, h->first)->fd < 0)
        h->first++;
}

void
ptier_handshakes_begin(ptier_handshakes *h, int fd, int64_t now_ms)
{
    ends both;
    if (!ends_of_socket(fd, &both))
        return;
    int ours = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (ours < 0)
        return; /* no descriptors left: it goes on unwatched */
    pthread_mutex_lock(&h->lock);
    if (h->next - h->first == PTIER_HANDSHAKES_MAX)
        cut_first_locked(h);
    *at(h, h->next++) = (handshake){.fd = ours, .ends = both, .begun_ms = now_ms};
    pthread_mutex_unlock(&h->lock);
}

void
ptier_handshakes_done(ptier_handshakes *h, nng_pipe pipe)
{
    ends both;
    if (!h || !ends_of_pipe(pipe, &both))
        return;
    pthread_mutex_lock(&h->lock);
    /* The latest first: one that ended in its handshake may have had the same ends. */
    for (uint64_t position = h->next; position != h->first; position--) {
        handshake *one = at(h, position - 1);
        if (one->fd >= 0 && is_same(&one->ends, &both)) {
            let_go(one);
            break;
        }
    }
    skip_done_locked(h);
    pthread_mutex_unlock(&h->lock);
}

unsigned
ptier_handshakes_reap(ptier_handshakes *h, int64_t now_ms)
{
    pthread_mutex_lock(&h->lock);
    skip_done_locked(h);
    while (h->first != h->next && now_ms - at(h, h->first)->begun_ms >= h->timeout_ms) {
        cut_first_locked(h);
        skip_done_locked(h);
    }
    unsigned cut = h->cut;
    h->cut = 0;
    pthread_mutex_unlock(&h->lock);
    return cut;
}
