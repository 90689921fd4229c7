#include "near_table.h"

#include <stdlib.h>
#include <string.h>

#define ROOM_FIRST 16

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
    free(table->slots);
    free(table->buckets);
    ptier_near_table_init(table, 0, 0);
}

/* What a record takes, its share of the table included. */
static size_t
weight(const ptier_near_record *record)
{
    return record->bytes + sizeof(ptier_near_slot) + sizeof(uint32_t);
}

/* The upper half of the hash: the lower chooses shards and stripes. */
static uint32_t *
bucket_of(const ptier_near_table *table, uint64_t hash)
{
    return &table->buckets[(uint32_t)(hash >> 32) & (table->room - 1)];
}

static uint16_t
mark_of(uint64_t hash)
{
    return (uint16_t)(hash >> 16); /* neither a bucket's bits nor a shard's */
}

uint32_t
ptier_near_table_find(const ptier_near_table *table, uint64_t hash, const char *key)
{
    if (table->count == 0)
        return PTIER_NEAR_NONE;
    uint32_t at = *bucket_of(table, hash);
    while (at != PTIER_NEAR_NONE) {
        const ptier_near_slot *slot = &table->slots[at];
        if (slot->mark == mark_of(hash) && slot->record->hash == hash &&
            strcmp(slot->record->record.key, key) == 0)
            break;
        at = slot->next;
    }
    return at;
}

static void
link_slot(ptier_near_table *table, uint32_t at)
{
    uint32_t *bucket = bucket_of(table, table->slots[at].record->hash);
    table->slots[at].next = *bucket;
    *bucket = at;
}

static bool
grow(ptier_near_table *table)
{
    uint32_t room = table->room ? table->room * 2 : ROOM_FIRST;
    ptier_near_slot *slots = realloc(table->slots, room * sizeof *slots);
    if (!slots)
        return false;
    table->slots = slots;
    uint32_t *buckets = realloc(table->buckets, room * sizeof *buckets);
    if (!buckets)
        return false;
    table->buckets = buckets;
    table->room = room;
    memset(buckets, 0xff, room * sizeof *buckets);
    for (uint32_t i = 0; i < table->high; i++) /* all are taken: else it would not grow */
        link_slot(table, i);
    return true;
}

/* A free slot, or PTIER_NEAR_NONE. */
static uint32_t
take_slot(ptier_near_table *table)
{
    uint32_t at = table->free;
    if (at != PTIER_NEAR_NONE) {
        table->free = table->slots[at].next;
        return at;
    }
    if (table->high == table->room && !grow(table))
        return PTIER_NEAR_NONE;
    return table->high++;
}

void
ptier_near_table_remove(ptier_near_table *table, uint32_t at)
{
    ptier_near_slot *slot = &table->slots[at];
    uint32_t *link = bucket_of(table, slot->record->hash);
    while (*link != at)
        link = &table->slots[*link].next;
    *link = slot->next;
    table->count--;
    table->bytes -= weight(slot->record);
    ptier_near_record_release(slot->record);
    *slot = (ptier_near_slot){.next = table->free};
    table->free = at;
}

static void
evict_one(ptier_near_table *table, const ptier_near_validity *v, uint64_t *evicted)
{
    for (;;) {
        uint32_t at = table->hand < table->high ? table->hand : 0;
        ptier_near_slot *slot = &table->slots[at];
        table->hand = at + 1;
        if (!slot->record)
            continue;
        bool valid = ptier_near_valid(slot->record, v);
        if (valid && slot->used) {
            slot->used = false;
            continue;
        }
        *evicted += valid;
        ptier_near_table_remove(table, at);
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
    uint32_t at = take_slot(table);
    if (at == PTIER_NEAR_NONE)
        return false;
    table->slots[at] = (ptier_near_slot){.record = record, .mark = mark_of(record->hash)};
    link_slot(table, at);
    table->count++;
    table->bytes += weight(record);
    return true;
}

void
ptier_near_table_replace(ptier_near_table *table, uint32_t at, ptier_near_record *record)
{
    ptier_near_slot *slot = &table->slots[at];
    table->bytes = table->bytes - weight(slot->record) + weight(record);
    ptier_near_record_release(slot->record);
    slot->record = record;
}
