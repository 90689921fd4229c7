/*
 * PutMany's replies as daemons send them, results first and those in one pass over one copy of
 * their bytes: a tenth of what protobuf-c takes. All else takes the long way. Thread-safe (no
 * state).
 */
#ifndef PTIER_RESULTS_DECODE_H
#define PTIER_RESULTS_DECODE_H

#include "arena.h"

/* A Proxytier__V1__PutManyResponse; otherwise as ptier_unpack_reply. */
PTIER_MUST_CHECK ProtobufCMessage *ptier_put_results_unpack(ptier_arena *arena, const uint8_t *data,
                                                            size_t length, ptier_error *error);

#endif
