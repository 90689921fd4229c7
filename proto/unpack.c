/* See unpack.h. */
#include "unpack.h"

#include "wire_check.h"

ProtobufCMessage *
ptier_unpack_reply(const ProtobufCMessageDescriptor *schema, ptier_arena *arena,
                   const uint8_t *data, size_t length, ptier_error *error)
{
    if (ptier_wire_check_reply(schema, data, length, error) != PTIER_OK)
        return NULL;
    ProtobufCMessage *message = protobuf_c_message_unpack(schema, &arena->allocator, length, data);
    if (!message && arena->exhausted)
        (void)ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "a %s message takes too much memory",
                         schema->name);
    else if (!message)
        (void)ptier_fail(error, PTIER_INVALID_ARGUMENT, "the bytes are not a %s message",
                         schema->name);
    return message; /* the results above say the same as NULL */
}
