/* See results_decode.h. */
#include "results_decode.h"

#include <proxytier/types.h>

#include "proxytier/v1/cache.pb-c.h"
#include "unpack.h"
#include "wire_read.h"

enum {
    RESULT = WIRE_TAG(1, DELIMITED),
    KEY = WIRE_TAG(1, DELIMITED),
    REVISION = WIRE_TAG(2, NUMBER),
    OUTCOME = WIRE_TAG(3, NUMBER),
    MESSAGE = WIRE_TAG(4, DELIMITED),
};

static bool
decode_result(wire_span in, const wire_copy *bytes, Proxytier__V1__PutResult *result)
{
    const char *key = "", *message = "";
    uint64_t outcome = 0;
    proxytier__v1__put_result__init(result);
    if ((wire_next_is(&in, KEY) && !wire_text(&in, bytes, PTIER_KEY_MAX, &key)) ||
        (wire_next_is(&in, REVISION) && !wire_number(&in, &result->revision)) ||
        (wire_next_is(&in, OUTCOME) && (!wire_number(&in, &outcome) || outcome > INT32_MAX)) ||
        (wire_next_is(&in, MESSAGE) && !wire_text(&in, bytes, SIZE_MAX, &message)))
        return false;
    result->key = (char *)(uintptr_t)key; /* as protobuf-c has it; only read */
    result->message = (char *)(uintptr_t)message;
    result->outcome = (Proxytier__V1__PutOutcome)outcome;
    return in.at == in.end;
}

/* False: there is something else among the results. */
static bool
count_results(wire_span *in, size_t *count)
{
    wire_span part;
    for (*count = 0; wire_next_is(in, RESULT); ++*count)
        if (!wire_delimited(in, &part))
            return false;
    return true;
}

static ProtobufCMessage *
decode(ptier_arena *arena, const uint8_t *data, size_t length, ptier_error *error)
{
    wire_span in = {data, data + length}, part;
    size_t count;
    if (!count_results(&in, &count))
        return NULL;
    Proxytier__V1__PutManyResponse *reply =
        (void *)ptier_unpack_reply(&proxytier__v1__put_many_response__descriptor, arena, in.at,
                                   (size_t)(in.end - in.at), error);
    wire_copy bytes = {data, ptier_arena_copy(arena, data, (size_t)(in.at - data))};
    Proxytier__V1__PutResult *results = ptier_arena_array(arena, count, sizeof *results);
    Proxytier__V1__PutResult **list = ptier_arena_array(arena, count, sizeof(*list));
    if (!reply || reply->n_results || !bytes.copy || !results || !list)
        return NULL;
    in.at = data;
    for (size_t i = 0; i < count; i++) {
        if (!wire_next_is(&in, RESULT) || !wire_delimited(&in, &part) ||
            !decode_result(part, &bytes, &results[i]))
            return NULL;
        list[i] = &results[i];
    }
    reply->results = list;
    reply->n_results = count;
    return &reply->base;
}

ProtobufCMessage *
ptier_put_results_unpack(ptier_arena *arena, const uint8_t *data, size_t length, ptier_error *error)
{
    ProtobufCMessage *reply = decode(arena, data, length, error);
    if (reply)
        return reply;
    ptier_arena_reset(arena, arena->budget);
    return ptier_unpack_reply(&proxytier__v1__put_many_response__descriptor, arena, data, length,
                              error);
}
