/*
 * For *_decode.c only: the wire format read in one pass over bytes that were copied once. Strings
 * stay where they are in the copy, where the byte behind each becomes its NUL; so tags and numbers
 * are read from the original. False always: the bytes are not so, or not as short as they could be.
 */
#ifndef PTIER_WIRE_READ_H
#define PTIER_WIRE_READ_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "wire_check.h"

enum { NUMBER = 0, FIXED64 = 1, DELIMITED = 2, FIXED32 = 5 }; /* wire types */
#define WIRE_TAG(field, wire_type) ((field) << 3 | (wire_type))

typedef struct wire_span {
    const uint8_t *at, *end;
} wire_span;

/* The same bytes twice. */
typedef struct wire_copy {
    const uint8_t *original;
    uint8_t *copy;
} wire_copy;

/* Steps over the tag `key` if it is what comes next. */
static inline bool
wire_next_is(wire_span *in, unsigned key)
{
    if (key < 0x80) {
        if (in->at == in->end || *in->at != key)
            return false;
        in->at++;
        return true;
    }
    if (in->end - in->at < 2 || in->at[0] != (uint8_t)(key | 0x80) || in->at[1] != key >> 7)
        return false;
    in->at += 2;
    return true;
}

static inline bool
wire_number_by_bytes(wire_span *in, uint64_t *value)
{
    uint64_t result = 0;
    for (unsigned shift = 0; shift < 64 && in->at < in->end; shift += 7) {
        uint8_t byte = *in->at++;
        if (shift == 63 && byte > 1)
            return false; /* bits that would be cut off */
        result |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *value = result;
            return true;
        }
    }
    return false;
}

/* Up to eight bytes at once: the groups of seven bits are moved together in three steps. */
static inline bool
wire_number(wire_span *in, uint64_t *value)
{
    uint64_t word;
    if (in->at < in->end && *in->at < 0x80) {
        *value = *in->at++;
        return true;
    }
    if (in->end - in->at < 8)
        return wire_number_by_bytes(in, value);
    memcpy(&word, in->at, sizeof word);
    word = le64toh(word);
    uint64_t ends = ~word & UINT64_C(0x8080808080808080);
    if (!ends)
        return wire_number_by_bytes(in, value);
    in->at += (__builtin_ctzll(ends) >> 3) + 1;
    word &= (ends ^ (ends - 1)) & UINT64_C(0x7f7f7f7f7f7f7f7f);
    word = (word & UINT64_C(0x007f007f007f007f)) | (word & UINT64_C(0x7f007f007f007f00)) >> 1;
    word = (word & UINT64_C(0x00003fff00003fff)) | (word & UINT64_C(0x3fff00003fff0000)) >> 2;
    *value = (word & UINT64_C(0x000000000fffffff)) | (word & UINT64_C(0x0fffffff00000000)) >> 4;
    return true;
}

static inline bool
wire_delimited(wire_span *in, wire_span *part)
{
    uint64_t length;
    if (!wire_number(in, &length) || length > (uint64_t)(in->end - in->at))
        return false;
    part->at = in->at;
    part->end = in->at += length;
    return true;
}

/* A string of up to `limit` bytes. */
static inline bool
wire_text(wire_span *in, const wire_copy *copy, size_t limit, const char **string)
{
    wire_span part;
    if (!wire_delimited(in, &part))
        return false;
    size_t length = (size_t)(part.end - part.at);
    if (length > limit || !ptier_wire_text_valid(part.at, length))
        return false;
    uint8_t *text = copy->copy + (part.at - copy->original);
    text[length] = 0;
    *string = (const char *)text;
    return true;
}

#endif
