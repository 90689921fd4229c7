/* The sending side of sp_link.h. */
#include <errno.h>
#include <string.h>

#include <sys/socket.h>

#include "sp_link.h"
#include "sp_wire.h"

#define FRAMES_AT_ONCE 32

void
ptier_link_queue_locked(ptier_transport *t, ptier_slot *s, nng_msg *request)
{
    struct ptier_link *l = t->link;
    uint8_t head[PTIER_SP_HEAD_BYTES];
    ptier_sp_put_head(head, nng_msg_len(request) + PTIER_SP_ID_BYTES);
    /* A message has room for this: none of it is allocated. */
    if (l->out_count == PTIER_LINK_FRAMES ||
        nng_msg_header_append(request, head, sizeof head) != 0 ||
        nng_msg_header_append_u32(request, ptier_link_slot_of(t, s)->id) != 0) {
        ptier_message_discard(request);
        ptier_link_end_locked(t, s, NNG_ENOMEM, NULL);
        return;
    }
    l->out[l->out_count++] = (ptier_link_frame){request, s};
}

static void
remove_locked(struct ptier_link *l, size_t first, size_t count)
{
    for (size_t i = first; i < first + count; i++)
        ptier_message_discard(l->out[i].message);
    l->out_count -= count;
    memmove(l->out + first, l->out + first + count, (l->out_count - first) * sizeof *l->out);
}

void
ptier_link_unqueue_locked(ptier_transport *t, const ptier_slot *s)
{
    struct ptier_link *l = t->link;
    for (size_t i = 0; i < l->out_count; i++) {
        if (l->out[i].slot != s)
            continue;
        if (i < l->taken || (i == 0 && l->begun > 0))
            l->out[i].slot = NULL; /* what has begun must be completed */
        else
            remove_locked(l, i, 1);
        return;
    }
}

/* The frames to be sent next, as pieces. They count as sent from now on. */
static int
take_frames_locked(ptier_transport *t, struct iovec pieces[2 * FRAMES_AT_ONCE])
{
    struct ptier_link *l = t->link;
    size_t skip = l->begun;
    int count = 0;
    l->taken = l->out_count < FRAMES_AT_ONCE ? l->out_count : FRAMES_AT_ONCE;
    for (size_t i = 0; i < l->taken; i++) {
        const ptier_link_frame *frame = &l->out[i];
        struct iovec parts[2] = {
            {nng_msg_header(frame->message), nng_msg_header_len(frame->message)},
            {nng_msg_body(frame->message), nng_msg_len(frame->message)}};
        if (frame->slot)
            ptier_link_slot_of(t, frame->slot)->sent = true;
        for (size_t p = 0; p < 2; p++) {
            size_t left_out = skip < parts[p].iov_len ? skip : parts[p].iov_len;
            skip -= left_out;
            if (left_out == parts[p].iov_len)
                continue;
            pieces[count++] = (struct iovec){(uint8_t *)parts[p].iov_base + left_out,
                                             parts[p].iov_len - left_out};
        }
    }
    return count;
}

/* So many bytes of them were sent. */
static void
account_locked(ptier_transport *t, size_t sent)
{
    struct ptier_link *l = t->link;
    size_t whole = 0, taken = l->taken;
    l->begun += sent;
    l->taken = 0;
    for (; whole < taken; whole++) {
        const nng_msg *message = l->out[whole].message;
        size_t length = nng_msg_header_len(message) + nng_msg_len(message);
        if (l->begun < length)
            break;
        l->begun -= length;
    }
    if (sent > 0)
        ptier_transport_sent_locked(t);
    /* From behind: those that are not sent after all, and of these those that nobody wants. */
    for (size_t i = taken; i-- > whole;) {
        if (i == whole && l->begun > 0)
            break;
        if (l->out[i].slot)
            ptier_link_slot_of(t, l->out[i].slot)->sent = false;
        else
            remove_locked(l, i, 1);
    }
    remove_locked(l, 0, whole);
}

void
ptier_link_drop_begun_locked(ptier_transport *t)
{
    if (t->link->begun > 0)
        remove_locked(t->link, 0, 1);
    t->link->begun = 0;
}

/* The connection ended before it took these: they go out over the next one, but not for ever. */
static void
turn_away_locked(ptier_transport *t)
{
    for (size_t i = t->link->out_count; i-- > 0;) {
        ptier_slot *s = t->link->out[i].slot;
        if (s && ptier_link_slot_of(t, s)->turned_away)
            ptier_link_end_locked(t, s, NNG_ECONNRESET, NULL);
        else if (s)
            ptier_link_slot_of(t, s)->turned_away = true;
    }
}

void
ptier_link_flush_locked(ptier_transport *t)
{
    struct ptier_link *l = t->link;
    while (l->out_count > 0 && t->connected && !l->writing && !l->blocked) {
        struct iovec pieces[2 * FRAMES_AT_ONCE];
        struct msghdr message = {.msg_iov = pieces};
        message.msg_iovlen = (size_t)take_frames_locked(t, pieces);
        int fd = l->fd;
        l->writing = true;
        l->users++;
        pthread_mutex_unlock(&t->lock);
        ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        int problem = sent < 0 ? errno : 0;
        pthread_mutex_lock(&t->lock);
        l->users--;
        l->writing = false;
        account_locked(t, sent > 0 ? (size_t)sent : 0);
        if (!t->connected) {
            ptier_link_drop_begun_locked(t);
            pthread_cond_broadcast(&t->changed); /* that we have left the socket */
        } else if (problem == EAGAIN) {
            l->blocked = true;
        } else if (problem != 0 && problem != EINTR) {
            ptier_link_lost_locked(t, true);
            turn_away_locked(t);
        }
    }
}

void
ptier_link_unblock_locked(ptier_transport *t)
{
    t->link->blocked = false;
    ptier_link_flush_locked(t);
}
