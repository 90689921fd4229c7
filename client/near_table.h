/*
 * Near records by key, within a bound of entries and one of bytes. Eviction is CLOCK: a hand goes
 * round the slots, in which records stay where they came in; what was used since it last came by
 * stays, and a hit sets one flag. A look-up goes from a cell straight to the record: each step that
 * has to wait for the one before may be a miss of the processor's cache. Not thread-safe; owns the
 * references of what it holds.
 */
#ifndef PTIER_NEAR_TABLE_H
#define PTIER_NEAR_TABLE_H

#include <stddef.h>

#include "near_record.h"

#define PTIER_NEAR_NONE UINT32_MAX

typedef struct ptier_near_cell {
    ptier_near_record *record; /* NULL: free */
    uint32_t mark;             /* of its hash: others need not be looked at */
    uint32_t slot;
} ptier_near_cell;

typedef struct ptier_near_slot {
    ptier_near_record *record; /* NULL: free */
    uint32_t next;             /* free */
} ptier_near_slot;

typedef struct ptier_near_table {
    ptier_near_cell *cells;          /* open addressing, linear probing; twice as many as slots */
    ptier_near_slot *slots;          /* a power of two */
    uint32_t room, high, free, hand; /* of slots */
    size_t count, bytes;
    size_t capacity, bytes_max;
} ptier_near_table;

/* Tells records that nobody will be served any more: they go first. */
typedef struct ptier_near_validity {
    uint64_t generation, watermark;
    int64_t now;
} ptier_near_validity;

static inline bool
ptier_near_valid(const ptier_near_record *record, const ptier_near_validity *v)
{
    return record->generation == v->generation && record->as_of >= v->watermark &&
           record->expires > v->now;
}

void ptier_near_table_init(ptier_near_table *table, size_t capacity, size_t bytes_max);
void ptier_near_table_fini(ptier_near_table *table);

/* Its cell, until the table changes. PTIER_NEAR_NONE: not there. */
uint32_t ptier_near_table_find(const ptier_near_table *table, uint64_t hash, const char *key);

/*
 * Takes a record (moved on success) whose key is not there, and evicts what is over the bounds;
 * *evicted grows by what could still have been served. False: it is larger than the bound, or out
 * of memory.
 */
PTIER_MUST_CHECK bool ptier_near_table_add(ptier_near_table *table, ptier_near_record *record,
                                           const ptier_near_validity *v, uint64_t *evicted);

/* The record of a cell gives way to another of the same key (moved). */
void ptier_near_table_replace(ptier_near_table *table, uint32_t at, ptier_near_record *record);

void ptier_near_table_remove(ptier_near_table *table, uint32_t at);

#endif
