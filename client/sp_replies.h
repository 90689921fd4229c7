/*
 * Cuts the bytes that a REP sends over ipc (proto/sp_wire.h) into replies, however they come. Knows
 * no sockets: the caller puts bytes where it is told. Small replies, of which one read brings many,
 * pass through a buffer, which is wiped behind them; of large ones most goes where it stays.
 */
#ifndef PTIER_SP_REPLIES_H
#define PTIER_SP_REPLIES_H

#include <stdbool.h>
#include <stdint.h>

#include <sys/uio.h>

#include <nng/nng.h>

#define PTIER_SP_REPLIES_BYTES 65536

typedef struct ptier_sp_replies {
    size_t max; /* of a reply */
    size_t start, end;
    nng_msg *message; /* begun: the buffer is empty */
    uint32_t id;
    size_t filled;
    bool large; /* the last reply was */
    uint8_t buffer[PTIER_SP_REPLIES_BYTES];
} ptier_sp_replies;

void ptier_sp_replies_init(ptier_sp_replies *reader, size_t reply_max);
void ptier_sp_replies_fini(ptier_sp_replies *reader);

/* Where the next bytes go: one or two pieces, together never empty. */
int ptier_sp_replies_room(ptier_sp_replies *reader, struct iovec room[2]);

/* So many bytes came, from the beginning of the first piece on. */
void ptier_sp_replies_take(ptier_sp_replies *reader, size_t length);

/* 0: the next whole reply, owned by the caller; to be called until NNG_EAGAIN: more bytes are
 * needed. NNG_EPROTO, NNG_EMSGSIZE, NNG_ENOMEM: there is no going on. */
int ptier_sp_replies_next(ptier_sp_replies *reader, uint32_t *id, nng_msg **message);

#endif
