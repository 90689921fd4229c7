/* See sp_reader.h. */
#include "sp_reader.h"

#include <stdlib.h>

int
ptier_sp_reader_places(const ptier_sp_reader *reader, void *scratch, size_t room,
                       struct iovec places[2])
{
    int count = 0;
    if (reader->frame)
        places[count++] = (struct iovec){.iov_base = reader->frame + reader->frame_length,
                                         .iov_len = reader->frame_size - reader->frame_length};
    places[count++] = (struct iovec){.iov_base = scratch, .iov_len = room};
    return count;
}

static void
drop_frame(ptier_sp_reader *reader)
{
    if (reader->frame)
        explicit_bzero(reader->frame, reader->frame_length);
    free(reader->frame);
    reader->frame = NULL;
    reader->head_length = reader->frame_length = reader->frame_size = 0;
}

void
ptier_sp_reader_fini(ptier_sp_reader *reader)
{
    drop_frame(reader);
}

/* Moves up to `wanted` bytes. Returns how many. */
static size_t
move_bytes(uint8_t *to, size_t wanted, const uint8_t **from, size_t *left)
{
    size_t count = wanted < *left ? wanted : *left;
    memcpy(to, *from, count);
    *from += count;
    *left -= count;
    return count;
}

/* A frame whose head is known and which is not all there. Its memory is only touched as it comes,
 * so that a length alone takes none. */
static ptier_status
begin_frame(ptier_sp_reader *reader, size_t size, const uint8_t **bytes, size_t *left)
{
    reader->frame = malloc(size);
    if (!reader->frame)
        return PTIER_RESOURCE_EXHAUSTED;
    reader->frame_size = size;
    reader->frame_length = move_bytes(reader->frame, size, bytes, left);
    return PTIER_OK;
}

ptier_status
ptier_sp_reader_take(ptier_sp_reader *reader, const uint8_t *scratch, size_t count,
                     ptier_sp_frame_fn on_frame, void *context)
{
    if (reader->frame) {
        size_t missing = reader->frame_size - reader->frame_length;
        size_t got = count < missing ? count : missing;
        reader->frame_length += got;
        count -= got;
        if (reader->frame_length < reader->frame_size)
            return PTIER_OK;
        on_frame(context, reader->frame, reader->frame_size, count > 0);
        drop_frame(reader);
    }
    while (count > 0) {
        uint64_t size;
        reader->head_length +=
            move_bytes(reader->head + reader->head_length,
                       sizeof reader->head - reader->head_length, &scratch, &count);
        if (reader->head_length < sizeof reader->head)
            return PTIER_OK;
        if (!ptier_sp_get_head(reader->head, &size) || size < PTIER_SP_ID_BYTES ||
            size > reader->frame_max)
            return PTIER_INVALID_ARGUMENT;
        if (size > count)
            return begin_frame(reader, size, &scratch, &count);
        on_frame(context, scratch, size, size < count);
        reader->head_length = 0;
        scratch += size;
        count -= size;
    }
    return PTIER_OK;
}
