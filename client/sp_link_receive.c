/* The receiving side of sp_link.h. */
#include <errno.h>

#include <poll.h>
#include <sys/socket.h>

#include "monotonic.h"
#include "sp_link.h"

#define REPLIES_AT_ONCE 64

/* 0: bytes came. NNG_EAGAIN: none did. Else the connection is gone. */
static int
receive(struct ptier_link *l)
{
    struct iovec room[2];
    struct msghdr message = {.msg_iov = room};
    message.msg_iovlen = (size_t)ptier_sp_replies_room(&l->reader, room);
    ssize_t got = recvmsg(l->fd, &message, MSG_DONTWAIT);
    if (got > 0) {
        ptier_sp_replies_take(&l->reader, (size_t)got);
        return 0;
    }
    return got < 0 && (errno == EAGAIN || errno == EINTR) ? NNG_EAGAIN : NNG_ECONNSHUT;
}

/*
 * As `receive`, but waits. *writable: the kernel takes more again. With an event much may be under
 * way, and a look before waiting pays. Not by a receive that blocks: that is woken when the daemon
 * takes our request, too.
 */
static int
wait_and_receive(struct ptier_link *l, int64_t until, int event, bool blocked, bool *writable)
{
    struct pollfd fds[2] = {{.fd = l->fd, .events = (short)(POLLIN | (blocked ? POLLOUT : 0))},
                            {.fd = event, .events = POLLIN}};
    int rv = event < 0 ? NNG_EAGAIN : receive(l);
    int64_t left = until - ptier_monotonic_ms();
    if (rv != NNG_EAGAIN || (left <= 0 && event >= 0 && !blocked))
        return rv;
    if (poll(fds, event < 0 ? 1 : 2, left < 0 ? 0 : left > INT32_MAX ? INT32_MAX : (int)left) <= 0)
        return NNG_EAGAIN;
    if (fds[1].revents)
        ptier_link_hush(event);
    *writable = fds[0].revents & POLLOUT;
    return fds[0].revents & ~POLLOUT ? receive(l) : NNG_EAGAIN;
}

/* *message stays when nobody waits for it. */
static void
deliver_locked(ptier_transport *t, uint32_t id, nng_msg **message)
{
    ptier_slot *s = &t->slots[id % PTIER_SLOTS_MAX];
    if (!(id & PTIER_LINK_ID_BIT) || ptier_link_slot_of(t, s)->id != id)
        return; /* of nobody, or of one who waits no more */
    ptier_transport_answered_locked(t);
    ptier_link_end_locked(t, s, 0, *message);
    *message = NULL;
}

/* Gives whole replies to their owners. Called without the lock, returns with it. 0 or an error. */
static int
deliver_and_lock(ptier_transport *t)
{
    for (;;) {
        nng_msg *messages[REPLIES_AT_ONCE];
        uint32_t ids[REPLIES_AT_ONCE];
        size_t count = 0;
        int rv = 0;
        while (count < REPLIES_AT_ONCE &&
               (rv = ptier_sp_replies_next(&t->link->reader, &ids[count], &messages[count])) == 0)
            count++;
        pthread_mutex_lock(&t->lock);
        for (size_t i = 0; i < count; i++)
            deliver_locked(t, ids[i], &messages[i]);
        for (size_t i = 0; i < count; i++)
            if (messages[i])
                ptier_message_discard(messages[i]);
        if (rv != 0)
            return rv == NNG_EAGAIN ? 0 : rv;
        pthread_mutex_unlock(&t->lock);
    }
}

void
ptier_link_read_locked(ptier_transport *t, int64_t until, int event)
{
    struct ptier_link *l = t->link;
    bool blocked = l->blocked, writable = false;
    if (l->reading || !t->connected)
        return;
    l->reading = true;
    l->users++;
    pthread_mutex_unlock(&t->lock);
    int rv = wait_and_receive(l, until, event, blocked, &writable);
    if (rv == 0) {
        rv = deliver_and_lock(t);
        l->reads++;
    } else {
        pthread_mutex_lock(&t->lock);
    }
    l->reading = false;
    l->users--;
    if (!t->connected)
        pthread_cond_broadcast(&t->changed); /* that we have left the socket */
    else if (rv != 0 && rv != NNG_EAGAIN)
        ptier_link_lost_locked(t, true);
    else if (writable)
        ptier_link_unblock_locked(t);
}

void
ptier_link_pass_on_locked(ptier_transport *t)
{
    struct ptier_link *l = t->link;
    if (!t->connected)
        return;
    /* Who leaves does not look any more whether the kernel takes more. */
    bool reads = l->flying > 0 && l->dozing && !l->reading;
    if (reads || (l->flying > 0 && l->blocked))
        ptier_link_ring(l->rouse);
    if (reads || l->reading)
        return;
    for (size_t i = 0; i < t->slot_count; i++)
        if (l->slots[i].waited && !l->slots[i].ended) {
            pthread_cond_signal(&l->slots[i].told);
            return;
        }
}
