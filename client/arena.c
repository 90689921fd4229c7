#include "arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_MIN 1024
#define CHUNK_MAX (1u << 20)
/* Unpacked records take 3 to 12 times their packed size; short labels and empty records more. */
#define BUDGET_FACTOR 32
#define BUDGET_SLACK  (64u << 10)

typedef struct ptier_arena_chunk {
    struct ptier_arena_chunk *next;
    size_t size, used;
    alignas(max_align_t) unsigned char bytes[];
} ptier_arena_chunk;

static void *
message_alloc(void *context, size_t size)
{
    return ptier_arena_take(context, 1, size);
}

static void
message_free(void *context, void *memory)
{
    (void)context; /* everything goes at once */
    (void)memory;
}

static void
set_budget(ptier_arena *arena, size_t message_length)
{
    arena->budget = BUDGET_SLACK + message_length * BUDGET_FACTOR;
    arena->step = message_length * 4 < CHUNK_MIN ? CHUNK_MIN : message_length * 4;
    if (arena->step > CHUNK_MAX)
        arena->step = CHUNK_MAX;
}

ptier_arena *
ptier_arena_create(size_t message_length, bool secret)
{
    ptier_arena *arena = calloc(1, sizeof *arena);
    if (!arena)
        return NULL;
    arena->secret = secret;
    arena->allocator = (ProtobufCAllocator){message_alloc, message_free, arena};
    set_budget(arena, message_length);
    return arena;
}

static void
free_chunks(ptier_arena *arena)
{
    while (arena->chunks) {
        ptier_arena_chunk *chunk = arena->chunks;
        arena->chunks = chunk->next;
        if (arena->secret)
            explicit_bzero(chunk->bytes, chunk->used);
        free(chunk);
    }
}

void
ptier_arena_destroy(ptier_arena *arena)
{
    if (!arena)
        return;
    free_chunks(arena);
    free(arena);
}

void
ptier_arena_reset(ptier_arena *arena, size_t message_length)
{
    free_chunks(arena);
    set_budget(arena, message_length);
}

static ptier_arena_chunk *
add_chunk(ptier_arena *arena, size_t size)
{
    size_t room = size > arena->step ? size : arena->step;
    if (size > arena->budget)
        return NULL;
    if (room > arena->budget)
        room = arena->budget;
    ptier_arena_chunk *chunk = calloc(1, sizeof *chunk + room);
    if (!chunk)
        return NULL;
    chunk->size = room;
    chunk->next = arena->chunks;
    arena->chunks = chunk;
    arena->budget -= room;
    if (arena->step < CHUNK_MAX)
        arena->step *= 2;
    return chunk;
}

void *
ptier_arena_take(ptier_arena *arena, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 2)
        return NULL;
    bytes = (bytes + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
    if (bytes == 0)
        bytes = alignof(max_align_t);
    ptier_arena_chunk *chunk = arena->chunks;
    if (!chunk || bytes > chunk->size - chunk->used)
        chunk = add_chunk(arena, bytes);
    if (!chunk)
        return NULL;
    void *memory = chunk->bytes + chunk->used;
    chunk->used += bytes;
    return memory;
}
