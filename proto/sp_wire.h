/*
 * The bytes that nng's REQ and REP exchange over a unix socket (SP over ipc), for those of our ends
 * that read and write them without nng's threads: each side greets with 8 bytes, then come frames,
 * which are a 9-byte head (the byte 1, the length as u64, big-endian) and so many bytes: first the
 * 4-byte id of the request, whose highest bit is set and which the reply repeats, then the message.
 */
#ifndef PTIER_SP_WIRE_H
#define PTIER_SP_WIRE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define PTIER_SP_GREETING_BYTES 8
#define PTIER_SP_HEAD_BYTES     9
#define PTIER_SP_ID_BYTES       4

/* Protocol numbers of SP. */
#define PTIER_SP_REQ 0x30
#define PTIER_SP_REP 0x31

static inline void
ptier_sp_greeting(uint8_t out[PTIER_SP_GREETING_BYTES], uint8_t protocol)
{
    const uint8_t greeting[PTIER_SP_GREETING_BYTES] = {0, 'S', 'P', 0, 0, protocol, 0, 0};
    memcpy(out, greeting, sizeof greeting);
}

/* Whether it greets as one that speaks `protocol`. */
static inline bool
ptier_sp_greets(const uint8_t in[PTIER_SP_GREETING_BYTES], uint8_t protocol)
{
    uint8_t wanted[PTIER_SP_GREETING_BYTES];
    ptier_sp_greeting(wanted, protocol);
    return memcmp(in, wanted, sizeof wanted) == 0;
}

/* `length` counts the id, too. */
static inline void
ptier_sp_put_head(uint8_t out[PTIER_SP_HEAD_BYTES], uint64_t length)
{
    out[0] = 1;
    for (int i = 0; i < 8; i++)
        out[1 + i] = (uint8_t)(length >> (56 - 8 * i));
}

/* False: no head of a frame. *length may be anything. */
static inline bool
ptier_sp_get_head(const uint8_t in[PTIER_SP_HEAD_BYTES], uint64_t *length)
{
    *length = 0;
    for (int i = 0; i < 8; i++)
        *length = *length << 8 | in[1 + i];
    return in[0] == 1;
}

#endif
