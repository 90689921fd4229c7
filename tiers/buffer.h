/* A growing byte buffer. Not thread-safe. */
#ifndef PTIER_BUFFER_H
#define PTIER_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

typedef struct ptier_buffer {
    char *data;
    size_t length;
    size_t room;
} ptier_buffer;

/* Room for `more` bytes behind the present ones. False: out of memory, nothing changed. */
static inline bool
ptier_buffer_reserve(ptier_buffer *buffer, size_t more)
{
    if (buffer->room - buffer->length >= more)
        return true;
    size_t room = buffer->room ? buffer->room : 4096;
    while (room - buffer->length < more)
        room *= 2;
    char *grown = realloc(buffer->data, room);
    if (!grown)
        return false;
    buffer->data = grown;
    buffer->room = room;
    return true;
}

static inline void
ptier_buffer_fini(ptier_buffer *buffer)
{
    free(buffer->data);
    *buffer = (ptier_buffer){0};
}

#endif
