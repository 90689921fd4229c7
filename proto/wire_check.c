/* See wire_check.h. A walk over the wire format beside the schema. */
#include "wire_check.h"

#include <stdbool.h>
#include <string.h>

#include <proxytier/types.h>

#include "varint.h"

#define FIELDS_MAX 48 /* of one message; a static assertion cannot see it, a test does */

static bool
skip(ptier_span *in, uint64_t length)
{
    if (length > (uint64_t)(in->end - in->at))
        return false;
    in->at += length;
    return true;
}

/* Length of the UTF-8 sequence at `at`, by the table of the Unicode standard (no overlong forms, no
 * surrogates). 0: none. */
static size_t
utf8_sequence(const uint8_t *at, size_t left)
{
    uint8_t first = at[0], low = 0x80, high = 0xbf;
    size_t length;
    if (first < 0x80)
        return 1;
    if (first >= 0xc2 && first <= 0xdf)
        length = 2;
    else if (first >= 0xe0 && first <= 0xef)
        length = 3;
    else if (first >= 0xf0 && first <= 0xf4)
        length = 4;
    else
        return 0;
    if (first == 0xe0)
        low = 0xa0;
    else if (first == 0xed)
        high = 0x9f;
    else if (first == 0xf0)
        low = 0x90;
    else if (first == 0xf4)
        high = 0x8f;
    if (left < length || at[1] < low || at[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++)
        if (at[i] < 0x80 || at[i] > 0xbf)
            return 0;
    return length;
}

/* Whether all eight bytes are ASCII and none is NUL: what is not sets its highest bit, or has it
 * set by the borrow. */
static inline bool
plain(uint64_t word)
{
    return ((word | (word - UINT64_C(0x0101010101010101))) & UINT64_C(0x8080808080808080)) == 0;
}

static inline uint64_t
eight(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static inline uint64_t
four(const uint8_t *at)
{
    uint32_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

/* Most texts are: looked at in words that overlap at the end. */
static inline bool
plain_text(const uint8_t *text, size_t length)
{
    if (length >= 8) {
        const uint8_t *last = text + length - 8;
        for (; text < last; text += 8)
            if (!plain(eight(text)))
                return false;
        return plain(eight(last));
    }
    if (length >= 4)
        return plain(four(text) | four(text + length - 4) << 32);
    if (length == 0)
        return true;
    uint64_t bytes = text[0] | (uint64_t)text[length / 2] << 8 | (uint64_t)text[length - 1] << 16;
    return plain(bytes | UINT64_C(0x0101010101000000));
}

bool
ptier_wire_text_valid(const uint8_t *text, size_t length)
{
    if (plain_text(text, length))
        return true;
    for (const uint8_t *end = text + length; text < end;) {
        size_t sequence = *text ? utf8_sequence(text, (size_t)(end - text)) : 0;
        if (sequence == 0)
            return false;
        text += sequence;
    }
    return true;
}

/* Which of the two it is is only asked of what is wrong. */
static ptier_status
check_string(const ProtobufCFieldDescriptor *field, ptier_span string, ptier_error *error)
{
    if (ptier_wire_text_valid(string.at, (size_t)(string.end - string.at)))
        return PTIER_OK;
    while (string.at < string.end) {
        if (*string.at == 0)
            return ptier_fail(error, PTIER_INVALID_ARGUMENT, "field %s has a NUL inside",
                              field->name);
        size_t length = utf8_sequence(string.at, (size_t)(string.end - string.at));
        if (length == 0)
            return ptier_fail(error, PTIER_INVALID_ARGUMENT, "field %s is not valid UTF-8",
                              field->name);
        string.at += length;
    }
    return PTIER_OK;
}

/* One message on its way through the check. */
typedef struct walk {
    bool request;
    uint32_t unknown; /* fields that the schema does not know, so far */
    ptier_error *error;
} walk;

static ptier_status
malformed(const walk *w, const ProtobufCMessageDescriptor *schema)
{
    return ptier_fail(w->error, PTIER_INVALID_ARGUMENT, "the bytes are not a %s message",
                      schema->name);
}

static ptier_status
check_number(const walk *w, const ProtobufCFieldDescriptor *field, uint64_t value)
{
    if (field->type == PROTOBUF_C_TYPE_UINT32 && value > UINT32_MAX)
        return ptier_fail(w->error, PTIER_INVALID_ARGUMENT, "field %s is over 4294967295",
                          field->name);
    if (field->type != PROTOBUF_C_TYPE_ENUM || !w->request)
        return PTIER_OK;
    const ProtobufCEnumDescriptor *words = field->descriptor;
    if (value > INT32_MAX || !protobuf_c_enum_descriptor_get_value(words, (int)value))
        return ptier_fail(w->error, PTIER_INVALID_ARGUMENT,
                          "field %s has a value that %s does not know", field->name, words->name);
    return PTIER_OK;
}

/* Many tiny fields take up to fifty times their size when they are unpacked. */
static ptier_status
check_count(const walk *w, const ProtobufCFieldDescriptor *field, uint32_t count, unsigned depth)
{
    if (field->label != PROTOBUF_C_LABEL_REPEATED && count > PTIER_WIRE_AGAIN_MAX)
        return ptier_fail(w->error, PTIER_INVALID_ARGUMENT, "field %s is given more than %d times",
                          field->name, PTIER_WIRE_AGAIN_MAX);
    uint32_t limit = depth == 0 ? PTIER_BATCH_MAX : PTIER_WIRE_NESTED_MAX;
    if (field->label == PROTOBUF_C_LABEL_REPEATED && w->request && count > limit)
        return ptier_fail(w->error, PTIER_INVALID_ARGUMENT,
                          "more than %u %s in one call: send smaller batches", limit, field->name);
    return PTIER_OK;
}

static ptier_status check_message(walk *w, const ProtobufCMessageDescriptor *schema, ptier_span in,
                                  unsigned depth);

static ptier_status
check_delimited(walk *w, const ProtobufCMessageDescriptor *schema,
                const ProtobufCFieldDescriptor *field, ptier_span part, unsigned depth)
{
    if (field->type == PROTOBUF_C_TYPE_STRING)
        return check_string(field, part, w->error);
    if (field->type == PROTOBUF_C_TYPE_MESSAGE)
        return check_message(w, field->descriptor, part, depth + 1);
    if (field->type != PROTOBUF_C_TYPE_ENUM)
        return PTIER_OK;
    while (part.at < part.end) { /* a packed list */
        uint64_t value;
        if (!ptier_take_varint(&part, &value))
            return malformed(w, schema);
        ptier_status status = check_number(w, field, value);
        if (status != PTIER_OK)
            return status;
    }
    return PTIER_OK;
}

/* The value behind a tag; field NULL: one that the schema does not know. */
static ptier_status
check_value(walk *w, const ProtobufCMessageDescriptor *schema,
            const ProtobufCFieldDescriptor *field, unsigned wire_type, ptier_span *in,
            unsigned depth)
{
    uint64_t value;
    switch (wire_type) {
    case 0:
        if (!ptier_take_varint(in, &value))
            return malformed(w, schema);
        return field ? check_number(w, field, value) : PTIER_OK;
    case 1:
        return skip(in, 8) ? PTIER_OK : malformed(w, schema);
    case 2: {
        ptier_span part = *in;
        if (!ptier_take_varint(in, &value))
            return malformed(w, schema);
        part.at = in->at;
        if (!skip(in, value))
            return malformed(w, schema);
        part.end = in->at;
        return field ? check_delimited(w, schema, field, part, depth) : PTIER_OK;
    }
    case 5:
        return skip(in, 4) ? PTIER_OK : malformed(w, schema);
    default: /* groups and what is not defined */
        return malformed(w, schema);
    }
}

static ptier_status
check_message(walk *w, const ProtobufCMessageDescriptor *schema, ptier_span in, unsigned depth)
{
    uint32_t counts[FIELDS_MAX];
    if (depth > PTIER_WIRE_DEPTH_MAX || schema->n_fields > FIELDS_MAX)
        return malformed(w, schema);
    memset(counts, 0, schema->n_fields * sizeof *counts);
    while (in.at < in.end) {
        uint64_t tag;
        ptier_status status = PTIER_OK;
        if (!ptier_take_varint(&in, &tag) || tag >> 3 == 0 || tag > UINT32_MAX)
            return malformed(w, schema);
        const ProtobufCFieldDescriptor *field =
            protobuf_c_message_descriptor_get_field(schema, (unsigned)(tag >> 3));
        if (field)
            status = check_count(w, field, ++counts[field - schema->fields], depth);
        else if (++w->unknown > PTIER_WIRE_UNKNOWN_MAX && w->request)
            status = ptier_fail(w->error, PTIER_INVALID_ARGUMENT,
                                "more than %d fields that this daemon does not know",
                                PTIER_WIRE_UNKNOWN_MAX);
        if (status == PTIER_OK)
            status = check_value(w, schema, field, (unsigned)tag & 7, &in, depth);
        if (status != PTIER_OK)
            return status;
    }
    return PTIER_OK;
}

ptier_status
ptier_wire_check(const ProtobufCMessageDescriptor *schema, const uint8_t *data, size_t length,
                 ptier_error *error)
{
    walk w = {.request = true, .error = error};
    return check_message(&w, schema, (ptier_span){data, data + length}, 0);
}

ptier_status
ptier_wire_check_reply(const ProtobufCMessageDescriptor *schema, const uint8_t *data, size_t length,
                       ptier_error *error)
{
    walk w = {.request = false, .error = error};
    return check_message(&w, schema, (ptier_span){data, data + length}, 0);
}

uint64_t
ptier_wire_number(const uint8_t *data, size_t length, unsigned field)
{
    static const uint64_t fixed[8] = {[1] = 8, [5] = 4};
    ptier_span in = {data, data + length};
    uint64_t tag, value, found = 0;
    while (in.at < in.end) {
        if (!ptier_take_varint(&in, &tag))
            return 1;
        unsigned wire_type = (unsigned)tag & 7;
        if (wire_type == 0 || wire_type == 2) {
            if (!ptier_take_varint(&in, &value) || (wire_type == 2 && !skip(&in, value)))
                return 1;
            if (wire_type == 0 && tag >> 3 == field)
                found = value;
        } else if (fixed[wire_type] == 0 || !skip(&in, fixed[wire_type])) {
            return 1;
        }
    }
    return found;
}

bool
ptier_utf8_valid(const char *text)
{
    const uint8_t *at = (const uint8_t *)text;
    size_t left = strlen(text), length = 1;
    for (; left > 0 && length > 0; at += length, left -= length)
        length = utf8_sequence(at, left);
    return length > 0;
}

void
ptier_utf8_clean(char *text)
{
    uint8_t *at = (uint8_t *)text;
    size_t left = strlen(text);
    while (left > 0) {
        size_t length = utf8_sequence(at, left);
        if (length == 0) {
            *at = '?';
            length = 1;
        }
        at += length;
        left -= length;
    }
}
