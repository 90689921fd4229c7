/* See bytes.h. */
#include "bytes.h"

#include <stdlib.h>
#include <string.h>

#include "record_encode.h"

#define RECORD_ROOM 1024 /* most take less */

uint8_t *
ptier_bytes_reserve(ptier_bytes *bytes, size_t more)
{
    if (more > SIZE_MAX / 4 || bytes->length > SIZE_MAX / 4)
        return NULL;
    if (bytes->room - bytes->length >= more && bytes->data)
        return bytes->data + bytes->length;
    size_t room = bytes->room ? bytes->room * 2 : 1024;
    while (room < bytes->length + more)
        room *= 2;
    uint8_t *data = malloc(room); /* not realloc: the old copy must be wiped */
    if (!data)
        return NULL;
    if (bytes->data) {
        memcpy(data, bytes->data, bytes->length);
        explicit_bzero(bytes->data, bytes->length);
        free(bytes->data);
    }
    bytes->data = data;
    bytes->room = room;
    return data + bytes->length;
}

ptier_status
ptier_bytes_append_message(ptier_bytes *bytes, const ProtobufCMessage *message)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    uint8_t *out = ptier_bytes_reserve(bytes, size);
    if (!out)
        return PTIER_RESOURCE_EXHAUSTED;
    bytes->length += protobuf_c_message_pack(message, out);
    return PTIER_OK;
}

ptier_status
ptier_bytes_append_field(ptier_bytes *bytes, unsigned number, const ProtobufCMessage *message)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    uint8_t *out = ptier_bytes_reserve(bytes, size + 11);
    if (!out)
        return PTIER_RESOURCE_EXHAUSTED;
    uint8_t *start = out;
    *out++ = (uint8_t)(number << 3 | 2); /* wire type 2: length-delimited */
    size_t rest = size;
    for (; rest >= 0x80; rest >>= 7)
        *out++ = (uint8_t)(rest | 0x80);
    *out++ = (uint8_t)rest;
    out += protobuf_c_message_pack(message, out);
    bytes->length += (size_t)(out - start);
    return PTIER_OK;
}

ptier_status
ptier_bytes_append_record(ptier_bytes *bytes, unsigned number, const ptier_record *record,
                          bool credentials)
{
    size_t written = 0;
    for (size_t room = RECORD_ROOM; written == 0; room *= 2) {
        uint8_t *out = ptier_bytes_reserve(bytes, room);
        if (!out)
            return PTIER_RESOURCE_EXHAUSTED;
        written =
            ptier_record_encode(record, credentials, number, out, bytes->room - bytes->length);
    }
    bytes->length += written;
    return PTIER_OK;
}

void
ptier_bytes_reset(ptier_bytes *bytes, size_t keep)
{
    if (bytes->data)
        explicit_bzero(bytes->data, bytes->length);
    bytes->length = 0;
    if (bytes->room > keep) {
        free(bytes->data);
        bytes->data = NULL;
        bytes->room = 0;
    }
}

void
ptier_bytes_fini(ptier_bytes *bytes)
{
    ptier_bytes_reset(bytes, 0);
}
