#include "replay_call.h"

#define PAGE_EVENTS 1000

ptier_status
ptier_replay(ptier_client *client, const uint8_t *boot_id, int stream, uint64_t after,
             ptier_arena **arena, Proxytier__V1__ReplayResponse **reply)
{
    Proxytier__V1__ReplayRequest request = PROXYTIER__V1__REPLAY_REQUEST__INIT;
    /* protobuf-c wants bytes that it only reads to be writable. */
    request.boot_id = (ProtobufCBinaryData){PTIER_BOOT_ID_BYTES, (uint8_t *)(uintptr_t)boot_id};
    request.stream = (Proxytier__V1__Stream)stream;
    request.after_sequence = after;
    request.page_size = PAGE_EVENTS;
    ptier_call call = {.method = PTIER_METHOD_REPLAY,
                       .request = &request.base,
                       .reply_type = &proxytier__v1__replay_response__descriptor,
                       .timeout_ms = PTIER_EVENT_CALL_MS};
    return ptier_call_perform(client, &call, arena, reply, NULL);
}
