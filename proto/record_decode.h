/*
 * Records from the wire in one pass: of replies that are lists of them (for record_list.c and its
 * tests, beside the way over protobuf-c; both give the same) and of PutMany's requests. Thread-safe
 * (no state).
 */
#ifndef PTIER_RECORD_DECODE_H
#define PTIER_RECORD_DECODE_H

#include "record_list.h"

/* The fields of a reply, beside its records in field 1. 0: it has none. */
typedef struct ptier_list_layout {
    const ProtobufCMessageDescriptor *type;
    unsigned as_of, unreadable, tier, next_page_token;
    bool single; /* field 1 is no list */
} ptier_list_layout;

/* NULL: replies of the type are no lists of records. */
const ptier_list_layout *ptier_list_layout_of(const ProtobufCMessageDescriptor *type);

/*
 * In one pass, with one copy of the bytes. False: there is something that daemons do not send -
 * fields in another order, or twice, a value out of its range, anything that is wrong - or no
 * memory; the arena is to be emptied then. Fields that are newer than this library are skipped.
 */
PTIER_MUST_CHECK bool ptier_record_decode(const ptier_list_layout *layout, ptier_arena *arena,
                                          const uint8_t *data, size_t length,
                                          ptier_record_list *list);

/* Over protobuf-c. Errors as ptier_record_list_unpack. */
PTIER_MUST_CHECK ptier_status ptier_record_convert(const ptier_list_layout *layout,
                                                   ptier_arena *arena, const uint8_t *data,
                                                   size_t length, ptier_record_list *list,
                                                   ptier_error *error);

/*
 * A Proxytier__V1__PutManyRequest without its records, which are in *records instead. NULL: as
 * above, but that newer fields are not skipped; the bytes are then to be checked and unpacked as
 * those of any other message.
 */
PTIER_MUST_CHECK ProtobufCMessage *ptier_puts_decode(ptier_arena *arena, const uint8_t *data,
                                                     size_t length, ptier_record **records,
                                                     size_t *count);

#endif
