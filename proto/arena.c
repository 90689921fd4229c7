/* See arena.h. */
#include "arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_MIN     ((size_t)2 * 1024)
#define BLOCK_MAX     ((size_t)1024 * 1024) /* blocks double up to it */
#define KEPT_MAX      ((size_t)16 * 1024)
#define ALIGNED(size) (((size) + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1))

struct ptier_arena_block {
    ptier_arena_block *next;
    size_t used;
    size_t room;
    alignas(max_align_t) unsigned char bytes[];
};

static void *
unpack_alloc(void *data, size_t size)
{
    return ptier_arena_alloc(data, size);
}

static void
unpack_free(void *data, void *pointer)
{
    (void)data; /* all at once, by reset */
    (void)pointer;
}

void
ptier_arena_init(ptier_arena *arena)
{
    memset(arena, 0, sizeof *arena);
    arena->step = BLOCK_MIN;
    arena->allocator.alloc = unpack_alloc;
    arena->allocator.free = unpack_free;
    arena->allocator.allocator_data = arena;
}

ptier_arena *
ptier_arena_create(size_t budget)
{
    ptier_arena *arena = malloc(sizeof *arena);
    if (!arena)
        return NULL;
    ptier_arena_init(arena);
    arena->budget = budget;
    return arena;
}

static ptier_arena_block *
add_block(ptier_arena *arena, size_t size)
{
    size_t room = size > arena->step ? size : arena->step;
    ptier_arena_block *block = malloc(sizeof *block + room);
    if (!block)
        return NULL;
    block->next = arena->first;
    block->used = 0;
    block->room = room;
    arena->first = block;
    if (arena->step < BLOCK_MAX)
        arena->step *= 2;
    return block;
}

/* Not zeroed. */
static void *
take(ptier_arena *arena, size_t size)
{
    if (size > arena->budget || arena->used > arena->budget - size) {
        arena->exhausted = true;
        return NULL;
    }
    size_t needed = ALIGNED(size ? size : 1);
    ptier_arena_block *block = arena->first;
    if (!block || block->room - block->used < needed)
        block = add_block(arena, needed);
    if (!block) {
        arena->exhausted = true;
        return NULL;
    }
    void *memory = block->bytes + block->used;
    block->used += needed;
    arena->used += needed;
    return memory;
}

void *
ptier_arena_alloc(ptier_arena *arena, size_t size)
{
    void *memory = take(arena, size);
    if (memory)
        memset(memory, 0, size);
    return memory;
}

uint8_t *
ptier_arena_copy(ptier_arena *arena, const uint8_t *data, size_t size)
{
    uint8_t *memory = size < SIZE_MAX ? take(arena, size + 1) : NULL;
    if (!memory)
        return NULL;
    if (size)
        memcpy(memory, data, size);
    memory[size] = 0;
    return memory;
}

void *
ptier_arena_array(ptier_arena *arena, size_t count, size_t size)
{
    size_t total;
    if (__builtin_mul_overflow(count, size, &total)) {
        arena->exhausted = true;
        return NULL;
    }
    return ptier_arena_alloc(arena, total);
}

void
ptier_arena_reset(ptier_arena *arena, size_t budget)
{
    ptier_arena_block *kept = NULL;
    for (ptier_arena_block *block = arena->first, *next; block; block = next) {
        next = block->next;
        explicit_bzero(block->bytes, block->used);
        block->used = 0;
        if (!kept && block->room <= KEPT_MAX)
            kept = block;
        else
            free(block);
    }
    if (kept)
        kept->next = NULL;
    arena->first = kept;
    arena->used = 0;
    arena->step = BLOCK_MIN;
    arena->budget = budget;
    arena->exhausted = false;
}

void
ptier_arena_fini(ptier_arena *arena)
{
    ptier_arena_reset(arena, 0);
    free(arena->first);
    arena->first = NULL;
}

void
ptier_arena_destroy(ptier_arena *arena)
{
    if (!arena)
        return;
    ptier_arena_fini(arena);
    free(arena);
}
