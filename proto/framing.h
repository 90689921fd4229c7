/*
 * The framing both ends share: u32 big-endian header length | header | body. Knows no sockets.
 * Thread-safe (no state).
 */
#ifndef PTIER_FRAMING_H
#define PTIER_FRAMING_H

#include <stddef.h>
#include <stdint.h>

#include <proxytier/status.h>

#define PTIER_FRAME_PREFIX  4
#define PTIER_HEADER_MAX    8192
#define PTIER_TOPIC_BYTES   4
#define PTIER_TOPIC_CHANGES "PTC1"
#define PTIER_TOPIC_TIERS   "PTT1"

/* Borrowed parts of one message. */
typedef struct ptier_frame {
    const uint8_t *header;
    size_t header_length;
    const uint8_t *body;
    size_t body_length;
} ptier_frame;

/* Splits a message; parts are borrowed from it. INVALID_ARGUMENT: not a frame. */
PTIER_MUST_CHECK ptier_status ptier_frame_split(const void *message, size_t length,
                                                ptier_frame *frame, ptier_error *error);

/* Writes the length prefix. */
static inline void
ptier_frame_prefix(uint8_t out[PTIER_FRAME_PREFIX], size_t header_length)
{
    out[0] = (uint8_t)(header_length >> 24);
    out[1] = (uint8_t)(header_length >> 16);
    out[2] = (uint8_t)(header_length >> 8);
    out[3] = (uint8_t)header_length;
}

#endif
