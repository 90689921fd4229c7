/*
 * The one thing that every reader of protobuf's wire format needs, for those that walk messages
 * without a schema, or beside it. Thread-safe (no state).
 */
#ifndef PTIER_VARINT_H
#define PTIER_VARINT_H

#include <stdbool.h>
#include <stdint.h>

/* Bytes that are left to read. */
typedef struct ptier_span {
    const uint8_t *at, *end;
} ptier_span;

/* Takes a number of at most ten bytes; bits beyond 64 are cut off. False: it has no end here. */
static inline bool
ptier_take_varint(ptier_span *in, uint64_t *value)
{
    uint64_t result = 0;
    for (unsigned shift = 0; shift < 64 && in->at < in->end; shift += 7) {
        uint8_t byte = *in->at++;
        result |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *value = result;
            return true;
        }
    }
    return false;
}

#endif
