/*
 * Memory of one request, taken in large pieces, given back all at once, and bounded: unpacking a
 * hostile message takes up to 50 times its size, so each request has a budget beyond which
 * allocations fail. Not thread-safe. Wiped on reset.
 */
#ifndef PTIER_ARENA_H
#define PTIER_ARENA_H

#include <stdbool.h>
#include <stddef.h>

#include <protobuf-c/protobuf-c.h>

#include <proxytier/status.h>

typedef struct ptier_arena_block ptier_arena_block;

typedef struct ptier_arena {
    ptier_arena_block *first; /* the newest one */
    size_t used;              /* bytes handed out */
    size_t budget;
    bool exhausted; /* something was refused for the budget's sake (or by malloc) */
    ProtobufCAllocator allocator;
} ptier_arena;

void ptier_arena_init(ptier_arena *arena);

/* Zeroed memory, aligned for anything; NULL: over budget or out of memory. */
PTIER_MUST_CHECK void *ptier_arena_alloc(ptier_arena *arena, size_t size);

/* The same for `count` items of `size` bytes, overflow included. */
PTIER_MUST_CHECK void *ptier_arena_array(ptier_arena *arena, size_t count, size_t size);

/* Wipes and empties; one ordinary block is kept for the next request. */
void ptier_arena_reset(ptier_arena *arena, size_t budget);
void ptier_arena_fini(ptier_arena *arena);

#endif
