#include "near_table.h"

#include <stdlib.h>
#include <string.h>

enum { ROOM_FIRST = 16, CELLS_PER_SLOT = 2, HOME_SHIFT = 16, CACHE_LINE = 64 };

/* What a hit touches of a record, and of the texts behind it. */
#define FETCHED (sizeof(ptier_near_record) + 2 * CACHE_LINE)

void
ptier_near_table_init(ptier_near_table *table, size_t capacity, size_t bytes_max)
{
    *table =
        (ptier_near_table){.free = PTIER_NEAR_NONE, .capacity = capacity, .bytes_max = bytes_max};
}

void
ptier_near_table_fini(ptier_near_table *table)
{
    for (uint32_t i = 0; i < table->high; i++)
        if (table->slots[i].record)
            ptier_near_record_drop(table->slots[i].record);
    free(table->cells);
    free(table->slots);
    ptier_near_table_init(table, 0, 0);
}

/* What a record takes, its share of the table included. */
static size_t
weight(const ptier_near_record *record)
{
    return record->bytes + sizeof(ptier_near_slot) + CELLS_PER_SLOT * sizeof(ptier_near_cell);
}

/* A cell with the upper bits of a hash. */
static ptier_near_cell
mark_of(uint64_t hash)
{
    return hash & ~((UINT64_C(1) << PTIER_NEAR_ADDRESS_BITS) - 1);
}

/* No system hands out others unless asked to. */
static bool
fits_cell(const ptier_near_record *record)
{
    return (uintptr_t)record >> PTIER_NEAR_ADDRESS_BITS == 0;
}

static ptier_near_cell
cell_for(const ptier_near_record *record)
{
    return mark_of(record->hash) | (uintptr_t)record;
}

static bool
has_mark(ptier_near_cell cell, ptier_near_cell mark)
{
    return (cell ^ mark) >> PTIER_NEAR_ADDRESS_BITS == 0;
}

static uint32_t
mask_of(const ptier_near_table *table)
{
    return CELLS_PER_SLOT * table->room - 1;
}

/* Where a hash would be: by other bits than its mark and its shard. */
static uint32_t
home_of(const ptier_near_table *table, uint64_t hash)
{
    return (uint32_t)(hash >> HOME_SHIFT) & mask_of(table);
}

/* The first cell from `at` on that has this mark, or is free. */
static uint32_t
next_marked(const ptier_near_table *table, uint32_t at, ptier_near_cell mark)
{
    const uint32_t mask = mask_of(table);
    for (at &= mask; table->cells[at] && !has_mark(table->cells[at], mark);)
        at = (at + 1) & mask;
    return at;
}

uint32_t
ptier_near_table_seek(const ptier_near_table *table, const ptier_near_key *key)
{
    if (table->count == 0)
        return PTIER_NEAR_NONE;
    const uint32_t at = next_marked(table, home_of(table, key->hash), mark_of(key->hash));
    const char *record = (const char *)ptier_near_table_record(table, at);
    if (!record)
        return PTIER_NEAR_NONE;
#pragma GCC unroll 8
    for (size_t ahead = 0; ahead < FETCHED; ahead += CACHE_LINE)
        __builtin_prefetch(record + ahead);
    return at;
}

uint32_t
ptier_near_table_find_behind(const ptier_near_table *table, uint32_t at, const ptier_near_key *key)
{
    do
        at = next_marked(table, at + 1, mark_of(key->hash));
    while (table->cells[at] && !ptier_near_record_is_of(ptier_near_table_record(table, at), key));
    return table->cells[at] ? at : PTIER_NEAR_NONE;
}

static void
place(ptier_near_table *table, ptier_near_record *record)
{
    const uint32_t mask = mask_of(table);
    uint32_t at = home_of(table, record->hash);
    while (table->cells[at])
        at = (at + 1) & mask;
    table->cells[at] = cell_for(record);
}

static bool
grow(ptier_near_table *table)
{
    uint32_t room = table->room ? table->room * 2 : ROOM_FIRST;
    ptier_near_slot *slots = realloc(table->slots, room * sizeof *slots);
    if (!slots)
        return false;
    table->slots = slots;
    ptier_near_cell *old = table->cells;
    uint32_t old_cells = CELLS_PER_SLOT * table->room;
    ptier_near_cell *cells = calloc((size_t)CELLS_PER_SLOT * room, sizeof *cells);
    if (!cells)
        return false;
    table->cells = cells;
    table->room = room;
    for (uint32_t i = 0; i < old_cells; i++)
        if (old[i])
            place(table, ptier_near_cell_record(old[i]));
    free(old);
    return true;
}

/* A free slot, or PTIER_NEAR_NONE. */
static uint32_t
take_slot(ptier_near_table *table)
{
    uint32_t slot = table->free;
    if (slot != PTIER_NEAR_NONE) {
        table->free = table->slots[slot].next;
        return slot;
    }
    if (table->high == table->room && !grow(table))
        return PTIER_NEAR_NONE;
    return table->high++;
}

/* Shifts back whatever may not stay behind the hole: its search would end there. */
static void
empty_cell(ptier_near_table *table, uint32_t hole)
{
    const uint32_t mask = mask_of(table);
    for (uint32_t at = (hole + 1) & mask; table->cells[at]; at = (at + 1) & mask) {
        uint32_t home = home_of(table, ptier_near_table_record(table, at)->hash);
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            table->cells[hole] = table->cells[at];
            hole = at;
        }
    }
    table->cells[hole] = 0;
}

void
ptier_near_table_remove(ptier_near_table *table, uint32_t at)
{
    ptier_near_record *record = ptier_near_table_record(table, at);
    empty_cell(table, at);
    table->slots[record->slot] = (ptier_near_slot){.next = table->free};
    table->free = record->slot;
    table->count--;
    table->bytes -= weight(record);
    table->untold += record->touched ? 0 : record->hits;
    ptier_near_record_drop(record);
}

static uint32_t
cell_of(const ptier_near_table *table, const ptier_near_record *record)
{
    uint32_t at = home_of(table, record->hash);
    while (ptier_near_table_record(table, at) != record)
        at = (at + 1) & mask_of(table);
    return at;
}

static void
evict_one(ptier_near_table *table, const ptier_near_validity *v, uint64_t *evicted)
{
    for (;;) {
        uint32_t slot = table->hand < table->high ? table->hand : 0;
        ptier_near_record *record = table->slots[slot].record;
        table->hand = slot + 1;
        if (!record)
            continue;
        bool valid = ptier_near_valid(record, v);
        if (valid && record->used) {
            record->used = false;
            continue;
        }
        *evicted += valid;
        ptier_near_table_remove(table, cell_of(table, record));
        return;
    }
}

bool
ptier_near_table_add(ptier_near_table *table, ptier_near_record *record,
                     const ptier_near_validity *v, uint64_t *evicted)
{
    if (table->capacity == 0 || weight(record) > table->bytes_max || !fits_cell(record))
        return false;
    while (table->count >= table->capacity || table->bytes + weight(record) > table->bytes_max)
        evict_one(table, v, evicted);
    uint32_t slot = take_slot(table);
    if (slot == PTIER_NEAR_NONE)
        return false;
    ptier_near_record_keep(record);
    record->used = false;
    record->slot = slot;
    table->slots[slot] = (ptier_near_slot){.record = record};
    place(table, record);
    table->count++;
    table->bytes += weight(record);
    return true;
}

bool
ptier_near_table_replace(ptier_near_table *table, uint32_t at, ptier_near_record *record)
{
    ptier_near_record *old = ptier_near_table_record(table, at);
    if (!fits_cell(record))
        return false;
    table->bytes = table->bytes - weight(old) + weight(record);
    ptier_near_record_keep(record);
    record->slot = old->slot;
    record->used = old->used;
    if (!old->touched) {
        record->hits = old->hits;
        record->last_hit = old->last_hit;
    }
    table->slots[record->slot].record = record;
    table->cells[at] = cell_for(record);
    ptier_near_record_drop(old);
    return true;
}
