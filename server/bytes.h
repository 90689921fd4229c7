/*
 * A growable run of bytes for building replies and event batches. Not thread-safe. Contents may
 * hold credentials: they are wiped before memory goes back to the heap.
 */
#ifndef PTIER_BYTES_H
#define PTIER_BYTES_H

#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include <proxytier/status.h>
#include <proxytier/types.h>

typedef struct ptier_bytes {
    uint8_t *data;
    size_t length;
    size_t room;
} ptier_bytes; /* start from zero bytes */

/* Makes room for `more` bytes behind the end; NULL: out of memory. The caller fills them and adds
 * to length. */
PTIER_MUST_CHECK uint8_t *ptier_bytes_reserve(ptier_bytes *bytes, size_t more);

/* Appends the packed message. */
PTIER_MUST_CHECK ptier_status ptier_bytes_append_message(ptier_bytes *bytes,
                                                         const ProtobufCMessage *message);

/*
 * Appends the packed message as field `number` (1 to 15) of the message that the buffer is to
 * become: packed fields may come one after the other, so a long list never exists as structs.
 */
PTIER_MUST_CHECK ptier_status ptier_bytes_append_field(ptier_bytes *bytes, unsigned number,
                                                       const ProtobufCMessage *message);

/* The same of a record. `credentials` false leaves them out. */
PTIER_MUST_CHECK ptier_status ptier_bytes_append_record(ptier_bytes *bytes, unsigned number,
                                                        const ptier_record *record,
                                                        bool credentials);

/* Empties it, keeping up to `keep` bytes of room. */
void ptier_bytes_reset(ptier_bytes *bytes, size_t keep);
void ptier_bytes_fini(ptier_bytes *bytes);

#endif
