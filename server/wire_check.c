/* See wire_check.h. A walk over the wire format beside the schema. */
#include "wire_check.h"

#include <stdbool.h>

#define DEPTH_MAX 8 /* our deepest message has 4 levels; there are no recursive ones */

typedef struct span {
    const uint8_t *at;
    const uint8_t *end;
} span;

static bool
read_varint(span *in, uint64_t *value)
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

static bool
skip(span *in, uint64_t length)
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

static ptier_status
check_string(const ProtobufCFieldDescriptor *field, span string, ptier_error *error)
{
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

static ptier_status
check_enum(const ProtobufCFieldDescriptor *field, uint64_t value, ptier_error *error)
{
    const ProtobufCEnumDescriptor *words = field->descriptor;
    if (value > INT32_MAX || !protobuf_c_enum_descriptor_get_value(words, (int)value))
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "field %s has a value that %s does not know", field->name, words->name);
    return PTIER_OK;
}

static ptier_status
malformed(const ProtobufCMessageDescriptor *schema, ptier_error *error)
{
    return ptier_fail(error, PTIER_INVALID_ARGUMENT, "the bytes are not a %s message",
                      schema->name);
}

static ptier_status check_message(const ProtobufCMessageDescriptor *schema, span in, unsigned depth,
                                  ptier_error *error);

static ptier_status
check_delimited(const ProtobufCMessageDescriptor *schema, const ProtobufCFieldDescriptor *field,
                span part, unsigned depth, ptier_error *error)
{
    if (field->type == PROTOBUF_C_TYPE_STRING)
        return check_string(field, part, error);
    if (field->type == PROTOBUF_C_TYPE_MESSAGE)
        return check_message(field->descriptor, part, depth + 1, error);
    if (field->type != PROTOBUF_C_TYPE_ENUM)
        return PTIER_OK;
    while (part.at < part.end) { /* a packed list */
        uint64_t value;
        if (!read_varint(&part, &value))
            return malformed(schema, error);
        ptier_status status = check_enum(field, value, error);
        if (status != PTIER_OK)
            return status;
    }
    return PTIER_OK;
}

static ptier_status
check_field(const ProtobufCMessageDescriptor *schema, span *in, unsigned depth, ptier_error *error)
{
    uint64_t tag, value;
    if (!read_varint(in, &tag) || tag >> 3 == 0 || tag > UINT32_MAX)
        return malformed(schema, error);
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field(schema, (unsigned)(tag >> 3));
    switch (tag & 7) {
    case 0:
        if (!read_varint(in, &value))
            return malformed(schema, error);
        if (field && field->type == PROTOBUF_C_TYPE_ENUM)
            return check_enum(field, value, error);
        return PTIER_OK;
    case 1:
        return skip(in, 8) ? PTIER_OK : malformed(schema, error);
    case 2: {
        span part = *in;
        if (!read_varint(in, &value))
            return malformed(schema, error);
        part.at = in->at;
        if (!skip(in, value))
            return malformed(schema, error);
        part.end = in->at;
        return field ? check_delimited(schema, field, part, depth, error) : PTIER_OK;
    }
    case 5:
        return skip(in, 4) ? PTIER_OK : malformed(schema, error);
    default: /* groups and what is not defined */
        return malformed(schema, error);
    }
}

static ptier_status
check_message(const ProtobufCMessageDescriptor *schema, span in, unsigned depth, ptier_error *error)
{
    if (depth > DEPTH_MAX)
        return malformed(schema, error);
    while (in.at < in.end) {
        ptier_status status = check_field(schema, &in, depth, error);
        if (status != PTIER_OK)
            return status;
    }
    return PTIER_OK;
}

ptier_status
ptier_wire_check(const ProtobufCMessageDescriptor *schema, const uint8_t *data, size_t length,
                 ptier_error *error)
{
    return check_message(schema, (span){data, data + length}, 0, error);
}
