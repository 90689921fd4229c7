#include "near_table.h"

#include <stdlib.h>
#include <string.h>

enum { ROOM_FIRST = 16, CELLS_PER_SLOT = 2, CACHE_LINE = 64 };

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
        ptier_near_record_release(table->slots[i].record);
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

/* The upper half of the hash: the lower chooses shards and stripes. */
static uint32_t
mark_of(uint64_t hash)
{
    return (uint32_t)(hash >> 32);
}

static uint32_t
mask_of(const ptier_near_table *table)
{
    return CELLS_PER_SLOT * table->room - 1;
}

uint32_t
ptier_near_table_find(const ptier_near_table *table, uint64_t hash, const char *key)
{
    if (table->count == 0)
        return PTIER_NEAR_NONE;
    const uint32_t mask = mask_of(table), mark = mark_of(hash);
    for (uint32_t at = mark & mask; table->cells[at].record; at = (at + 1) & mask) {
        const ptier_near_record *record = table->cells[at].record;
        if (table->cells[at].mark != mark)
            continue;
        /* All that a hit reads of it, side by side. */
        for (size_t ahead = 0; ahead < sizeof *record; ahead += CACHE_LINE)
            __builtin_prefetch((const char *)record + ahead);
        if (strcmp(ptier_near_record_key(record), key) == 0)
            return at;
    }
    return PTIER_NEAR_NONE;
}

static void
place(ptier_near_table *table, ptier_near_cell cell)
{
    const uint32_t mask = mask_of(table);
    uint32_t at = cell.mark & mask;
    while (table->cells[at].record)
        at = (at + 1) & mask;
    table->cells[at] = cell;
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
        if (old[i].record)
            place(table, old[i]);
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
    for (uint32_t at = (hole + 1) & mask; table->cells[at].record; at = (at + 1) & mask) {
        uint32_t home = table->cells[at].mark & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            table->cells[hole] = table->cells[at];
            hole = at;
        }
    }
    table->cells[hole] = (ptier_near_cell){.record = NULL};
}

void
ptier_near_table_remove(ptier_near_table *table, uint32_t at)
{
    ptier_near_record *record = table->cells[at].record;
    uint32_t slot = table->cells[at].slot;
    empty_cell(table, at);
    table->slots[slot] = (ptier_near_slot){.next = table->free};
    table->free = slot;
    table->count--;
    table->bytes -= weight(record);
    ptier_near_record_release(record);
}

/* The cell of a slot that is taken. */
static uint32_t
cell_of(const ptier_near_table *table, uint32_t slot)
{
    uint32_t at = mark_of(table->slots[slot].record->hash) & mask_of(table);
    while (table->cells[at].slot != slot || !table->cells[at].record)
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
        ptier_near_table_remove(table, cell_of(table, slot));
        return;
    }
}

bool
ptier_near_table_add(ptier_near_table *table, ptier_near_record *record,
                     const ptier_near_validity *v, uint64_t *evicted)
{
    if (table->capacity == 0 || weight(record) > table->bytes_max)
        return false;
    while (table->count >= table->capacity || table->bytes + weight(record) > table->bytes_max)
        evict_one(table, v, evicted);
    uint32_t slot = take_slot(table);
    if (slot == PTIER_NEAR_NONE)
        return false;
    record->used = false;
    table->slots[slot] = (ptier_near_slot){.record = record};
    place(table, (ptier_near_cell){record, mark_of(record->hash), slot});
    table->count++;
    table->bytes += weight(record);
    return true;
}

void
ptier_near_table_replace(ptier_near_table *table, uint32_t at, ptier_near_record *record)
{
    ptier_near_record *old = table->cells[at].record;
    table->bytes = table->bytes - weight(old) + weight(record);
    record->used = old->used;
    table->slots[table->cells[at].slot].record = record;
    table->cells[at].record = record;
    ptier_near_record_release(old);
}
