/* Checks, then unpacks what a daemon sent. Thread-safe (no state). */
#ifndef PTIER_UNPACK_H
#define PTIER_UNPACK_H

#include "arena.h"

/*
 * A reply or an event batch, in the arena (whose budget bounds it). NULL: *error says why:
 * INVALID_ARGUMENT (not such a message), or RESOURCE_EXHAUSTED.
 */
PTIER_MUST_CHECK ProtobufCMessage *ptier_unpack_reply(const ProtobufCMessageDescriptor *schema,
                                                      ptier_arena *arena, const uint8_t *data,
                                                      size_t length, ptier_error *error);

#endif
