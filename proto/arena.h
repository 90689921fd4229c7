/*
 * Memory of one unpacked message, taken in pieces, given back all at once, and bounded: unpacking a
 * hostile message takes up to fifty times its size, so each has a budget beyond which allocations
 * fail. Wiped when it is emptied: messages hold credentials. Not thread-safe; one owner.
 */
#ifndef PTIER_ARENA_H
#define PTIER_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include <proxytier/status.h>

typedef struct ptier_arena_block ptier_arena_block;

typedef struct ptier_arena {
    ptier_arena_block *first; /* the newest one */
    size_t used;              /* bytes handed out */
    size_t budget;
    size_t step;    /* size of the next block */
    bool exhausted; /* something was refused for the budget's sake (or by malloc) */
    ProtobufCAllocator allocator;
} ptier_arena;

/* In the caller's storage. The budget is 0 until a reset gives one. */
void ptier_arena_init(ptier_arena *arena);
void ptier_arena_fini(ptier_arena *arena);

/* On the heap, for results that keep it. NULL: out of memory. destroy(NULL) is fine. */
ptier_arena *ptier_arena_create(size_t budget);
void ptier_arena_destroy(ptier_arena *arena);

/* Zeroed memory, aligned for anything; NULL: over budget or out of memory. */
PTIER_MUST_CHECK void *ptier_arena_alloc(ptier_arena *arena, size_t size);

/* A copy of `size` bytes, and a NUL behind it; NULL as above. */
PTIER_MUST_CHECK uint8_t *ptier_arena_copy(ptier_arena *arena, const uint8_t *data, size_t size);

/* Zeroed memory for `count` items of `size` bytes, overflow included. */
PTIER_MUST_CHECK void *ptier_arena_array(ptier_arena *arena, size_t count, size_t size);

/* Wipes and empties; one small block is kept for the next message. */
void ptier_arena_reset(ptier_arena *arena, size_t budget);

#endif
