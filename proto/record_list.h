/*
 * Replies that are lists of records (Get, GetMany, Pick, List), from the wire to plain records.
 * What our daemons send is decoded here in one pass (record_decode.h), which takes a tenth of the
 * time; all else takes the long way over protobuf-c, which alone refuses. Thread-safe (no state).
 */
#ifndef PTIER_RECORD_LIST_H
#define PTIER_RECORD_LIST_H

#include <proxytier/types.h>

#include "arena.h"

/* All of it is arena memory. What the reply's type does not have is 0, or "". */
typedef struct ptier_record_list {
    ptier_record *records; /* each has a key */
    size_t count;
    uint64_t as_of;
    uint32_t unreadable;
    ptier_tier_id tier;
    const char *next_page_token;
} ptier_record_list;

/* Whether replies of the type are such lists. */
bool ptier_record_list_type(const ProtobufCMessageDescriptor *type);

/*
 * A reply of such a type, in the arena (whose budget bounds it). NULL: *error says why:
 * INVALID_ARGUMENT (not such a message, or a record that we do not understand), or
 * RESOURCE_EXHAUSTED.
 */
PTIER_MUST_CHECK ptier_record_list *ptier_record_list_unpack(const ProtobufCMessageDescriptor *type,
                                                             ptier_arena *arena,
                                                             const uint8_t *data, size_t length,
                                                             ptier_error *error);

#endif
