/*
 * For sp_link*.c only: the carrier of unix sockets, which speaks SP in the callers' own threads.
 * The transport's lock guards everything; it is dropped around system calls on the socket, whose
 * `users` keep it open. Of those who wait one is the reader; it gives replies to their owners, and
 * when it leaves wakes the next. Requests queue up in `out`; whoever puts one there, or waits,
 * sends what the kernel takes.
 */
#ifndef PTIER_SP_LINK_H
#define PTIER_SP_LINK_H

#include "sp_replies.h"
#include "transport_internal.h"

#define PTIER_LINK_FRAMES 128 /* slots, and those that are being sent for nobody any more */
#define PTIER_LINK_ID_BIT UINT32_C(0x80000000) /* of every request: proto/sp_wire.h */

typedef struct ptier_link_slot {
    pthread_cond_t told; /* it ended, or may read */
    uint32_t id, uses;   /* id: 0 when nothing is under way */
    bool waited;         /* a thread waits for it */
    bool sent;           /* the daemon may have seen it */
    bool turned_away;    /* a connection ended just when it was to be sent */
    bool ended;
    int rv;
    nng_msg *reply;
    int64_t deadline;
} ptier_link_slot;

typedef struct ptier_link_frame {
    nng_msg *message; /* its header is the frame's head */
    ptier_slot *slot; /* NULL: nobody waits for the reply */
} ptier_link_frame;

struct ptier_link {
    int fd;                         /* -1: none */
    int poke;                       /* eventfd, which ends the supervisor's waiting */
    int rouse;                      /* eventfd, which ends that of ptier_transport_doze */
    int users;                      /* threads in system calls on fd */
    bool reading;                   /* one has the reader */
    uint64_t reads;                 /* that brought something */
    bool writing;                   /* one sends the first `taken` frames */
    bool blocked;                   /* the kernel takes no more */
    bool dozing;                    /* without reading */
    size_t flying;                  /* exchanges under way that call back */
    int64_t flying_until;           /* not later than the first deadline of those */
    size_t out_count, taken, begun; /* begun: bytes sent of the first frame */
    ptier_link_frame out[PTIER_LINK_FRAMES];
    ptier_link_slot slots[PTIER_SLOTS_MAX];
    ptier_sp_replies reader;
};

static inline ptier_link_slot *
ptier_link_slot_of(const ptier_transport *t, const ptier_slot *s)
{
    return &t->link->slots[s->index];
}

/* ---- sp_link.c ---- */

/* As the carrier's. */
int ptier_link_open(ptier_transport *t);
void ptier_link_close(ptier_transport *t);
int ptier_link_dial(ptier_transport *t);
void ptier_link_attend(ptier_transport *t);
void ptier_link_hang_up(ptier_transport *t);
void ptier_link_abandon_locked(ptier_transport *t);

/* The connection is of no use any more: what was sent ends with NNG_ECONNRESET, what was not waits
 * for the next one. */
void ptier_link_lost_locked(ptier_transport *t, bool by_peer);

/* An eventfd. */
void ptier_link_ring(int event);
void ptier_link_hush(int event);

/* ---- sp_link_send.c ---- */

/* Queues the request (moved) of a slot that has an id. */
void ptier_link_queue_locked(ptier_transport *t, ptier_slot *s, nng_msg *request);

/* Nobody waits for the slot's reply any more: its request is not sent, unless that has begun. */
void ptier_link_unqueue_locked(ptier_transport *t, const ptier_slot *s);

/* The connection is gone, and nobody sends: what it had of a frame is worth nothing. */
void ptier_link_drop_begun_locked(ptier_transport *t);

/* Sends what the kernel takes at once. Drops the lock meanwhile. */
void ptier_link_flush_locked(ptier_transport *t);

/* The kernel takes more again. */
void ptier_link_unblock_locked(ptier_transport *t);

/* ---- sp_link_receive.c ---- */

/* Reads, when nobody else does and there is a connection, what comes until `until`; the first bytes
 * and `event` (an eventfd, -1: none) end that. Drops the lock meanwhile. */
void ptier_link_read_locked(ptier_transport *t, int64_t until, int event);

/* Wakes one who can read, if nobody does. */
void ptier_link_pass_on_locked(ptier_transport *t);

/* ---- sp_link_exchange.c ---- */

/* `reply` is moved. */
void ptier_link_end_locked(ptier_transport *t, ptier_slot *s, int rv, nng_msg *reply);

#endif
