/*
 * Near records by key, within a bound of entries and one of bytes. Eviction is CLOCK: a hand goes
 * round the slots, in which records stay where they came in; what was used since it last came by
 * stays, and a hit sets one flag. A look-up goes from a cell straight to the record: each step that
 * has to wait for the one before may be a miss of the processor's cache. Not thread-safe; keeps
 * what it holds (ptier_near_record_keep).
 */
#ifndef PTIER_NEAR_TABLE_H
#define PTIER_NEAR_TABLE_H

#include <stddef.h>

#include "near_record.h"

#define PTIER_NEAR_NONE UINT32_MAX

/* A record's address, and above it 16 bits of its hash: others need not be looked at. 0: free.
 * Eight bytes, so that the cells of many records stay in the processor's cache. */
typedef uint64_t ptier_near_cell;

enum { PTIER_NEAR_ADDRESS_BITS = 48 }; /* records that are above are not taken in */

static inline ptier_near_record *
ptier_near_cell_record(ptier_near_cell cell)
{
    return (ptier_near_record *)(uintptr_t)(cell & ((UINT64_C(1) << PTIER_NEAR_ADDRESS_BITS) - 1));
}

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
    uint64_t untold; /* hits of records that went before anybody knew of them */
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

/* Of a cell. */
static inline ptier_near_record *
ptier_near_table_record(const ptier_near_table *table, uint32_t at)
{
    return ptier_near_cell_record(table->cells[at]);
}

/* The cell where a key should be, NONE when it is nowhere; has the processor fetch from memory what
 * looking there, and who reads what is found, will touch. Waits for the cell at most. */
uint32_t ptier_near_table_seek(const ptier_near_table *table, const ptier_near_key *key);

/* When the record sought is of another key. */
uint32_t ptier_near_table_find_behind(const ptier_near_table *table, uint32_t at,
                                      const ptier_near_key *key);

/* Its cell, until the table changes, from where it was sought. PTIER_NEAR_NONE: not there. */
static inline uint32_t
ptier_near_table_find_from(const ptier_near_table *table, uint32_t at, const ptier_near_key *key)
{
    if (at == PTIER_NEAR_NONE || ptier_near_record_is_of(ptier_near_table_record(table, at), key))
        return at;
    return ptier_near_table_find_behind(table, at, key);
}

static inline uint32_t
ptier_near_table_find(const ptier_near_table *table, const ptier_near_key *key)
{
    return ptier_near_table_find_from(table, ptier_near_table_seek(table, key), key);
}

/*
 * Keeps a record whose key is not there, and evicts what is over the bounds; *evicted grows by what
 * could still have been served. False: it is larger than the bound, or out of memory.
 */
PTIER_MUST_CHECK bool ptier_near_table_add(ptier_near_table *table, ptier_near_record *record,
                                           const ptier_near_validity *v, uint64_t *evicted);

/* The record of a cell gives way to another of the same key, and leaves it its hits. False: nothing
 * changed, out of memory (of the kind that cells can name). */
PTIER_MUST_CHECK bool ptier_near_table_replace(ptier_near_table *table, uint32_t at,
                                               ptier_near_record *record);

void ptier_near_table_remove(ptier_near_table *table, uint32_t at);

#endif
