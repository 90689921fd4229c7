/* See warm_batch.h. */
#include "warm_batch.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK ((size_t)256 << 10)

struct ptier_warm_chunk {
    struct ptier_warm_chunk *next;
    size_t used, room;
    alignas(max_align_t) char data[];
};

void
ptier_warm_batch_init(ptier_warm_batch *batch)
{
    batch->count = 0;
    batch->bytes = 0;
    batch->file = NULL;
    batch->restore = false;
    batch->chunks = NULL;
}

static void
free_chunk(struct ptier_warm_chunk *chunk)
{
    explicit_bzero(chunk->data, chunk->used);
    free(chunk);
}

void
ptier_warm_batch_fini(ptier_warm_batch *batch)
{
    while (batch->chunks) {
        struct ptier_warm_chunk *chunk = batch->chunks;
        batch->chunks = chunk->next;
        free_chunk(chunk);
    }
}

void
ptier_warm_batch_clear(ptier_warm_batch *batch)
{
    /* One chunk stays: it holds most batches whole. */
    while (batch->chunks && batch->chunks->next) {
        struct ptier_warm_chunk *chunk = batch->chunks;
        batch->chunks = chunk->next;
        free_chunk(chunk);
    }
    if (batch->chunks) {
        explicit_bzero(batch->chunks->data, batch->chunks->used);
        batch->chunks->used = 0;
    }
    batch->count = 0;
    batch->bytes = 0;
    batch->file = NULL;
}

bool
ptier_warm_batch_takes(const ptier_warm_batch *batch, const char *file, bool restore)
{
    if (batch->count == 0)
        return true;
    return batch->count < PTIER_WARM_BATCH && batch->bytes < PTIER_WARM_BATCH_BYTES &&
           batch->restore == restore && batch->file == file;
}

static void *
take(ptier_warm_batch *batch, size_t size)
{
    struct ptier_warm_chunk *chunk = batch->chunks;

    size = (size + alignof(max_align_t) - 1) / alignof(max_align_t) * alignof(max_align_t);
    if (!chunk || chunk->room - chunk->used < size) {
        size_t room = size > CHUNK ? size : CHUNK;
        chunk = malloc(sizeof *chunk + room);
        if (!chunk)
            return NULL;
        chunk->next = batch->chunks;
        chunk->used = 0;
        chunk->room = room;
        batch->chunks = chunk;
    }
    void *at = chunk->data + chunk->used;
    chunk->used += size;
    batch->bytes += size;
    return at;
}

static bool
copy_text(ptier_warm_batch *batch, const char **text)
{
    if (!*text)
        return true;
    size_t size = strlen(*text) + 1;
    char *copy = take(batch, size);
    if (!copy)
        return false;
    *text = memcpy(copy, *text, size);
    return true;
}

static bool
copy_labels(ptier_warm_batch *batch, ptier_record *record)
{
    if (record->label_count == 0)
        return true;
    ptier_label *labels = take(batch, record->label_count * sizeof *labels);
    if (!labels)
        return false;
    for (size_t i = 0; i < record->label_count; i++) {
        labels[i] = record->labels[i];
        if (!copy_text(batch, &labels[i].name) || !copy_text(batch, &labels[i].value))
            return false;
    }
    record->labels = labels;
    return true;
}

bool
ptier_warm_batch_add(ptier_warm_batch *batch, const char *file, const ptier_record *record,
                     bool restore, ptier_warm_place place)
{
    ptier_record *copy = &batch->records[batch->count];

    *copy = *record;
    if (!copy_text(batch, &copy->key) || !copy_text(batch, &copy->url) ||
        !copy_text(batch, &copy->username) || !copy_text(batch, &copy->password) ||
        !copy_text(batch, &copy->username_token) || !copy_text(batch, &copy->password_token) ||
        !copy_text(batch, &copy->source) || !copy_labels(batch, copy))
        return false;
    batch->places[batch->count] = place;
    batch->restore = restore;
    batch->file = file;
    batch->count++;
    return true;
}
