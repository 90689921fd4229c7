/*
 * Takes the bytes of one connection apart into frames of SP over ipc (see sp_wire.h), wherever they
 * were split. Small frames are handed over where they were read; only what is cut off by the end of
 * a read is kept, in memory of its own, so that an idle connection keeps nothing. Knows no sockets.
 * Not thread-safe; one owner.
 */
#ifndef PTIER_SP_READER_H
#define PTIER_SP_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <proxytier/status.h>

#include "sp_wire.h"

typedef struct ptier_sp_reader {
    size_t frame_max; /* bytes behind the head */
    uint8_t head[PTIER_SP_HEAD_BYTES];
    size_t head_length;
    uint8_t *frame; /* begun; NULL: none */
    size_t frame_length, frame_size;
} ptier_sp_reader; /* start from zero bytes and frame_max */

/* One frame without its head, borrowed for the call; it may hold credentials. `more`: another one,
 * or a part of it, came with it. */
typedef void (*ptier_sp_frame_fn)(void *context, const uint8_t *frame, size_t length, bool more);

/* Where the next bytes go: what is missing of a frame that was begun, then `scratch`. Returns how
 * many places. */
int ptier_sp_reader_places(const ptier_sp_reader *reader, void *scratch, size_t room,
                           struct iovec places[2]);

/*
 * `count` bytes were read there. Hands over all whole frames. INVALID_ARGUMENT: these are no
 * frames, or one is too long; RESOURCE_EXHAUSTED: no memory. Then the connection has to end.
 */
PTIER_MUST_CHECK ptier_status ptier_sp_reader_take(ptier_sp_reader *reader, const uint8_t *scratch,
                                                   size_t count, ptier_sp_frame_fn on_frame,
                                                   void *context);

/* Whether the peer owes the rest of a frame. */
static inline bool
ptier_sp_reader_is_amid(const ptier_sp_reader *reader)
{
    return reader->head_length != 0;
}

/* Wipes. */
void ptier_sp_reader_fini(ptier_sp_reader *reader);

#endif
