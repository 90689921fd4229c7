/* See keys_decode.h. */
#include "keys_decode.h"

#include <proxytier/types.h>

#include "proxytier/v1/cache.pb-c.h"
#include "wire_read.h"

enum { KEY = WIRE_TAG(1, DELIMITED) };

/* False: there is something else, or too much. */
static bool
count_keys(wire_span in, size_t *count)
{
    wire_span part;
    for (*count = 0; wire_next_is(&in, KEY); ++*count)
        if (!wire_delimited(&in, &part))
            return false;
    return in.at == in.end && *count <= PTIER_BATCH_MAX;
}

ProtobufCMessage *
ptier_keys_decode(ptier_arena *arena, const uint8_t *data, size_t length)
{
    wire_span in = {data, data + length};
    size_t count;
    if (!count_keys(in, &count))
        return NULL;
    wire_copy bytes = {data, ptier_arena_copy(arena, data, length)};
    Proxytier__V1__GetManyRequest *request = ptier_arena_alloc(arena, sizeof *request);
    const char **keys = ptier_arena_array(arena, count, sizeof *keys);
    if (!bytes.copy || !request || !keys)
        return NULL;
    for (size_t i = 0; i < count; i++)
        if (!wire_next_is(&in, KEY) || !wire_text(&in, &bytes, PTIER_KEY_MAX, &keys[i]))
            return NULL;
    proxytier__v1__get_many_request__init(request);
    request->n_keys = count;
    request->keys = (char **)keys;
    return &request->base;
}
