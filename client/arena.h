/*
 * Memory of one unpacked message: handed out piece by piece, freed as a whole, bounded by a budget,
 * because a hostile message can ask for fifty times its size. Not thread-safe; one owner.
 */
#ifndef PTIER_ARENA_H
#define PTIER_ARENA_H

#include <stdbool.h>
#include <stddef.h>

#include <protobuf-c/protobuf-c.h>

struct ptier_arena_chunk;

typedef struct ptier_arena {
    struct ptier_arena_chunk *chunks;
    size_t budget; /* bytes that may still be taken from malloc */
    size_t step;   /* size of the next chunk */
    bool secret;   /* wiped before it is freed */
    ProtobufCAllocator allocator;
} ptier_arena;

/*
 * An arena for the message_length packed bytes of one message. On the heap, because results keep
 * it; NULL: out of memory. `secret`: credentials may be in it.
 */
ptier_arena *ptier_arena_create(size_t message_length, bool secret);

/* NULL is fine. */
void ptier_arena_destroy(ptier_arena *arena);

/* Zeroed, aligned for any type; NULL: the budget or the memory is used up. */
void *ptier_arena_take(ptier_arena *arena, size_t count, size_t size);

/* Forgets (and wipes) everything that was taken, and sets the budget for a message of
 * message_length bytes. */
void ptier_arena_reset(ptier_arena *arena, size_t message_length);

#endif
