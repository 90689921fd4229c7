/* See json.h. */
#include "json.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <yajl/yajl_gen.h>

static void print_message(yajl_gen gen, const ProtobufCMessage *message, bool sparse);

static void
print_text(yajl_gen gen, const char *text)
{
    yajl_gen_string(gen, (const unsigned char *)text, strlen(text));
}

static void
print_unsigned(yajl_gen gen, uint64_t value)
{
    char text[24];
    int length = snprintf(text, sizeof text, "%" PRIu64, value);
    yajl_gen_number(gen, text, (size_t)length);
}

/* The shortest of the usual precisions that reads back as the same number. */
static void
print_double(yajl_gen gen, double value)
{
    char text[40];
    if (!isfinite(value)) {
        yajl_gen_null(gen);
        return;
    }
    int length = snprintf(text, sizeof text, "%.15g", value);
    if (strtod(text, NULL) != value)
        length = snprintf(text, sizeof text, "%.17g", value);
    yajl_gen_number(gen, text, (size_t)length);
}

static void
print_bytes(yajl_gen gen, const ProtobufCBinaryData *bytes)
{
    static const char digits[] = "0123456789abcdef";
    char *hex = malloc(2 * bytes->len + 1);
    if (!hex) {
        yajl_gen_null(gen);
        return;
    }
    for (size_t i = 0; i < bytes->len; i++) {
        hex[2 * i] = digits[bytes->data[i] >> 4];
        hex[2 * i + 1] = digits[bytes->data[i] & 15];
    }
    yajl_gen_string(gen, (const unsigned char *)hex, 2 * bytes->len);
    free(hex);
}

static void
print_enum(yajl_gen gen, const ProtobufCEnumDescriptor *type, int value)
{
    const ProtobufCEnumValue *known = protobuf_c_enum_descriptor_get_value(type, value);
    if (known)
        print_text(gen, known->name);
    else
        yajl_gen_integer(gen, value); /* of a newer daemon */
}

/* One value, at its place in the message or in a repeated field's array. */
static void
print_value(yajl_gen gen, const ProtobufCFieldDescriptor *field, const void *at, bool sparse)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        yajl_gen_integer(gen, *(const int32_t *)at);
        break;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        print_unsigned(gen, *(const uint32_t *)at);
        break;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        yajl_gen_integer(gen, *(const int64_t *)at);
        break;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        print_unsigned(gen, *(const uint64_t *)at);
        break;
    case PROTOBUF_C_TYPE_FLOAT:
        print_double(gen, (double)*(const float *)at);
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        print_double(gen, *(const double *)at);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        yajl_gen_bool(gen, *(const protobuf_c_boolean *)at);
        break;
    case PROTOBUF_C_TYPE_ENUM:
        print_enum(gen, field->descriptor, *(const int *)at);
        break;
    case PROTOBUF_C_TYPE_STRING: {
        const char *text = *(char *const *)at;
        print_text(gen, text ? text : "");
        break;
    }
    case PROTOBUF_C_TYPE_BYTES:
        print_bytes(gen, at);
        break;
    case PROTOBUF_C_TYPE_MESSAGE: {
        const ProtobufCMessage *message = *(ProtobufCMessage *const *)at;
        print_message(gen, message, sparse);
        break;
    }
    }
}

static size_t
value_size(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return 4;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_ENUM:
        return sizeof(int);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    }
    return 0;
}

/* Whether a singular field without presence holds what "not stated" looks like. */
static bool
is_default(const ProtobufCFieldDescriptor *field, const void *at, bool sparse)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING: {
        const char *text = *(char *const *)at;
        return !text || !*text;
    }
    case PROTOBUF_C_TYPE_BYTES:
        return ((const ProtobufCBinaryData *)at)->len == 0;
    case PROTOBUF_C_TYPE_MESSAGE:
        return *(void *const *)at == NULL;
    case PROTOBUF_C_TYPE_ENUM:
        return *(const int *)at == 0;
    default: {
        static const char zero[8] = {0};
        return sparse && memcmp(at, zero, value_size(field->type)) == 0;
    }
    }
}

static void
print_repeated(yajl_gen gen, const ProtobufCFieldDescriptor *field, const char *base, bool sparse)
{
    size_t count = *(const size_t *)(const void *)(base + field->quantifier_offset);
    const char *items = *(char *const *)(const void *)(base + field->offset);

    if (count == 0 && sparse)
        return;
    print_text(gen, field->name);
    yajl_gen_array_open(gen);
    for (size_t i = 0; i < count; i++)
        print_value(gen, field, items + i * value_size(field->type), sparse);
    yajl_gen_array_close(gen);
}

static void
print_field(yajl_gen gen, const ProtobufCFieldDescriptor *field, const char *base, bool sparse)
{
    const void *at = base + field->offset;

    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        print_repeated(gen, field, base, sparse);
        return;
    }
    if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
        uint32_t set = *(const uint32_t *)(const void *)(base + field->quantifier_offset);
        if (set != field->id)
            return;
    } else if (is_default(field, at, sparse)) {
        return;
    }
    print_text(gen, field->name);
    print_value(gen, field, at, sparse);
}

static void
print_message(yajl_gen gen, const ProtobufCMessage *message, bool sparse)
{
    const ProtobufCMessageDescriptor *type = message->descriptor;

    yajl_gen_map_open(gen);
    for (unsigned i = 0; i < type->n_fields; i++)
        print_field(gen, &type->fields[i], (const char *)message, sparse);
    yajl_gen_map_close(gen);
}

/* Frees `gen`. */
static bool
write_line(FILE *out, yajl_gen gen)
{
    const unsigned char *text;
    size_t length;
    bool ok = false;

    if (yajl_gen_get_buf(gen, &text, &length) == yajl_gen_status_ok)
        ok = fwrite(text, 1, length, out) == length && putc('\n', out) != EOF;
    yajl_gen_free(gen);
    return ok;
}

bool
ptier_json_line(FILE *out, const ProtobufCMessage *message, bool sparse)
{
    yajl_gen gen = yajl_gen_alloc(NULL);

    if (!gen)
        return false;
    print_message(gen, message, sparse);
    return write_line(out, gen);
}

bool
ptier_json_pair(FILE *out, const char *name, const char *text)
{
    yajl_gen gen = yajl_gen_alloc(NULL);

    if (!gen)
        return false;
    yajl_gen_map_open(gen);
    print_text(gen, name);
    print_text(gen, text);
    yajl_gen_map_close(gen);
    return write_line(out, gen);
}
