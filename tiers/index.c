/*
 * Slots live in chunks (no copying when it grows), buckets chain them by number, and a hierarchical
 * timing wheel threads through them: 64 ms a tick, 64 buckets a level, so that live entries are
 * never scanned for expiry.
 */
#include "index.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "clock.h"

enum {
    CHUNK_SHIFT = 12,
    CHUNK_SLOTS = 1 << CHUNK_SHIFT,
    FIRST_BUCKETS = 1024,
    TICK_SHIFT = 6, /* 64 ms */
    LEVEL_SHIFT = 6,
    LEVEL_BUCKETS = 1 << LEVEL_SHIFT,
    LEVELS = 6, /* 64 ms << 36: 139 years */
    DUE_LIST = LEVELS * LEVEL_BUCKETS,
    LISTS = DUE_LIST + 1,
    MAX_SOURCES = 65535,
};

/* wheel_prev of the first slot in a list: the list's number with this bit. */
#define LIST_BIT  UINT32_C(0x80000000)
#define UNLINKED  UINT32_C(0xffffffff)
#define MAX_SLOTS UINT32_C(0x7fffffff)

struct ptier_index {
    ptier_slot **chunks;
    size_t chunk_count, chunk_room;
    uint32_t *buckets;
    uint32_t bucket_mask;
    uint32_t limit; /* slots ever used */
    uint32_t free_slot;
    uint32_t count;
    uint32_t due_count;
    uint64_t tick; /* everything before it has been moved to the due list */
    uint32_t heads[LISTS];
    uint32_t counts[DUE_LIST];               /* slots in each list but the due one */
    uint32_t parts[DUE_LIST][LEVEL_BUCKETS]; /* ... by the next lower digit of their tick */
    uint32_t level_counts[LEVELS];           /* ... in all lists of a level */
    uint32_t due_tail;
    char **sources;
    uint16_t source_count;
};

uint8_t
ptier_scheme_id(const char *text)
{
    static const char *const schemes[] = {"http",    "https",  "socks4",
                                          "socks4a", "socks5", "socks5h"};
    size_t length = strcspn(text, ":");
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
        if (strlen(schemes[i]) == length && strncasecmp(schemes[i], text, length) == 0)
            return (uint8_t)(i + 1);
    return 0;
}

static inline ptier_slot *
slot_at(const ptier_index *index, uint32_t slot)
{
    return &index->chunks[slot >> CHUNK_SHIFT][slot & (CHUNK_SLOTS - 1)];
}

ptier_status
ptier_index_create(int64_t boot_ms, ptier_index **out)
{
    ptier_index *index = calloc(1, sizeof *index);
    uint32_t *buckets = malloc(FIRST_BUCKETS * sizeof *buckets);
    if (!index || !buckets) {
        free(index);
        free(buckets);
        return PTIER_RESOURCE_EXHAUSTED;
    }
    memset(buckets, 0xff, FIRST_BUCKETS * sizeof *buckets);
    memset(index->heads, 0xff, sizeof index->heads);
    index->buckets = buckets;
    index->bucket_mask = FIRST_BUCKETS - 1;
    index->free_slot = PTIER_SLOT_NONE;
    index->due_tail = PTIER_SLOT_NONE;
    index->tick = (uint64_t)boot_ms >> TICK_SHIFT;
    *out = index;
    return PTIER_OK;
}

void
ptier_index_destroy(ptier_index *index)
{
    if (!index)
        return;
    for (size_t i = 0; i < index->chunk_count; i++)
        free(index->chunks[i]);
    for (size_t i = 0; i < index->source_count; i++)
        free(index->sources[i]);
    free(index->sources);
    free(index->chunks);
    free(index->buckets);
    free(index);
}

/* ---- sources ---- */

uint16_t
ptier_index_source(const ptier_index *index, const char *source)
{
    for (uint16_t i = 0; i < index->source_count; i++)
        if (strcmp(index->sources[i], source) == 0)
            return i;
    return PTIER_SOURCE_OTHER;
}

static uint16_t
intern_source(ptier_index *index, const char *source)
{
    uint16_t id = ptier_index_source(index, source);
    if (id != PTIER_SOURCE_OTHER || index->source_count == MAX_SOURCES)
        return id;
    char **grown = realloc(index->sources, (index->source_count + 1u) * sizeof *grown);
    if (!grown)
        return PTIER_SOURCE_OTHER;
    index->sources = grown;
    grown[index->source_count] = strdup(source);
    return grown[index->source_count] ? index->source_count++ : PTIER_SOURCE_OTHER;
}

/* ---- the expiry wheel ---- */

/* What ended before this boot has an expiry below zero: it is as due as can be. */
static uint64_t
tick_of(int64_t boot_ms)
{
    return boot_ms < 0 ? 0 : (uint64_t)boot_ms >> TICK_SHIFT;
}

/* Where a slot that is not due belongs, seen from the current tick: also where it is, since lists
 * come down whenever a digit of the tick changes. */
static uint32_t
list_of(const ptier_index *index, const ptier_slot *slot)
{
    uint64_t tick = tick_of(slot->expires_boot_ms);
    uint64_t ahead = tick ^ index->tick; /* the highest differing digit names the level */
    unsigned level = ahead ? (63u - (unsigned)__builtin_clzll(ahead)) / LEVEL_SHIFT : 0;
    if (level >= LEVELS)
        level = LEVELS - 1;
    uint32_t bucket = (uint32_t)(tick >> (level * LEVEL_SHIFT)) & (LEVEL_BUCKETS - 1);
    return level * LEVEL_BUCKETS + bucket;
}

/* Keeps the counts of the list that a slot enters (by 1) or leaves (by -1). */
static void
count_slot(ptier_index *index, uint32_t list, const ptier_slot *slot, int by)
{
    unsigned level = list / LEVEL_BUCKETS;
    uint64_t tick = tick_of(slot->expires_boot_ms);
    uint64_t part = level ? tick >> ((level - 1) * LEVEL_SHIFT) & (LEVEL_BUCKETS - 1) : 0;
    index->counts[list] += (uint32_t)by;
    index->level_counts[level] += (uint32_t)by;
    index->parts[list][part] += (uint32_t)by;
}

static void
link_slot(ptier_index *index, uint32_t list, uint32_t id)
{
    ptier_slot *slot = slot_at(index, id);
    slot->wheel_next = index->heads[list];
    slot->wheel_prev = list | LIST_BIT;
    if (slot->wheel_next != PTIER_SLOT_NONE)
        slot_at(index, slot->wheel_next)->wheel_prev = id;
    index->heads[list] = id;
    count_slot(index, list, slot, 1);
}

/* The due list grows at its tail: it is served in the order in which things expired. */
static void
link_due(ptier_index *index, uint32_t id)
{
    ptier_slot *slot = slot_at(index, id);
    slot->wheel_next = PTIER_SLOT_NONE;
    if (index->due_tail == PTIER_SLOT_NONE) {
        slot->wheel_prev = DUE_LIST | LIST_BIT;
        index->heads[DUE_LIST] = id;
    } else {
        slot->wheel_prev = index->due_tail;
        slot_at(index, index->due_tail)->wheel_next = id;
    }
    index->due_tail = id;
    index->due_count++;
}

static bool
is_due(const ptier_index *index, const ptier_slot *slot)
{
    return tick_of(slot->expires_boot_ms) < index->tick;
}

static void
unlink_slot(ptier_index *index, uint32_t id)
{
    ptier_slot *slot = slot_at(index, id);
    if (slot->wheel_prev == UNLINKED)
        return;
    if (is_due(index, slot)) {
        index->due_count--;
        if (index->due_tail == id)
            index->due_tail = slot->wheel_prev & LIST_BIT ? PTIER_SLOT_NONE : slot->wheel_prev;
    } else {
        count_slot(index, list_of(index, slot), slot, -1);
    }
    if (slot->wheel_prev & LIST_BIT)
        index->heads[slot->wheel_prev & ~LIST_BIT] = slot->wheel_next;
    else
        slot_at(index, slot->wheel_prev)->wheel_next = slot->wheel_next;
    if (slot->wheel_next != PTIER_SLOT_NONE)
        slot_at(index, slot->wheel_next)->wheel_prev = slot->wheel_prev;
    slot->wheel_prev = UNLINKED;
}

/* Puts a slot where its expiry belongs, seen from the current tick. */
static void
schedule(ptier_index *index, uint32_t id)
{
    ptier_slot *slot = slot_at(index, id);
    slot->wheel_prev = UNLINKED;
    if (slot->expires_boot_ms == PTIER_NEVER)
        return;
    if (is_due(index, slot))
        link_due(index, id);
    else
        link_slot(index, list_of(index, slot), id);
}

static void
empty_list(ptier_index *index, uint32_t list)
{
    uint32_t id = index->heads[list];
    index->heads[list] = PTIER_SLOT_NONE;
    index->level_counts[list / LEVEL_BUCKETS] -= index->counts[list];
    index->counts[list] = 0;
    memset(index->parts[list], 0, sizeof index->parts[list]);
    while (id != PTIER_SLOT_NONE) {
        uint32_t next = slot_at(index, id)->wheel_next;
        schedule(index, id);
        id = next;
    }
}

/* How many ticks to the next one at which something can happen: where the lowest levels are empty,
 * that is when the next list of the level above them comes down. */
static uint64_t
quiet_ticks(const ptier_index *index)
{
    unsigned level = 0;
    while (level < LEVELS - 1 && index->level_counts[level] == 0)
        level++;
    uint64_t width = UINT64_C(1) << (level * LEVEL_SHIFT);
    return width - (index->tick & (width - 1));
}

void
ptier_index_advance(ptier_index *index, int64_t boot_ms)
{
    uint64_t now = (uint64_t)boot_ms >> TICK_SHIFT;
    if (index->count == 0 && now > index->tick)
        index->tick = now; /* nothing to walk past */
    while (index->tick < now) {
        uint32_t passed = (uint32_t)index->tick & (LEVEL_BUCKETS - 1);
        uint64_t step = quiet_ticks(index);
        index->tick += step < now - index->tick ? step : now - index->tick;
        empty_list(index, passed); /* its slots are now behind the tick: due */
        /* A digit rolled over: the lists of the level above that begin here come down. */
        for (unsigned level = 1; level < LEVELS; level++) {
            if (index->tick & ((UINT64_C(1) << (level * LEVEL_SHIFT)) - 1))
                break;
            uint32_t bucket =
                (uint32_t)(index->tick >> (level * LEVEL_SHIFT)) & (LEVEL_BUCKETS - 1);
            empty_list(index, level * LEVEL_BUCKETS + bucket);
        }
    }
}

size_t
ptier_index_due(const ptier_index *index, size_t skip, uint32_t *slots, size_t limit)
{
    size_t count = 0;
    for (uint32_t id = index->heads[DUE_LIST]; id != PTIER_SLOT_NONE && count < limit;
         id = slot_at(index, id)->wheel_next)
        if (skip)
            skip--;
        else
            slots[count++] = id;
    return count;
}

uint64_t
ptier_index_due_count(const ptier_index *index)
{
    return index->due_count;
}

/* Of the slots of one list, those in the parts that begin up to `until`. */
static uint64_t
expiring_in_list(const ptier_index *index, uint32_t list, uint64_t begin, uint64_t until)
{
    unsigned level = list / LEVEL_BUCKETS;
    uint64_t width = level ? UINT64_C(1) << ((level - 1) * LEVEL_SHIFT) : 1, sum = 0;
    for (int part = 0; part < LEVEL_BUCKETS && begin <= until; part++, begin += width)
        sum += index->parts[list][part];
    return sum;
}

static uint64_t
expiring_in_level(const ptier_index *index, unsigned level, uint64_t until)
{
    unsigned shift = level * LEVEL_SHIFT;
    uint64_t width = UINT64_C(1) << shift, sum = 0;
    uint64_t begin = index->tick >> (shift + LEVEL_SHIFT) << (shift + LEVEL_SHIFT);
    for (uint32_t i = 0; i < LEVEL_BUCKETS && begin <= until; i++, begin += width) {
        uint32_t list = level * LEVEL_BUCKETS + i;
        sum += until >= begin + width ? index->counts[list]
                                      : expiring_in_list(index, list, begin, until);
    }
    return sum;
}

uint64_t
ptier_index_expiring(const ptier_index *index, int64_t boot_ms)
{
    uint64_t sum = index->due_count, until = tick_of(boot_ms);
    for (unsigned level = 0; level < LEVELS; level++)
        sum += expiring_in_level(index, level, until);
    return sum;
}

/* ---- slots ---- */

uint32_t
ptier_index_first(const ptier_index *index, uint64_t hash)
{
    uint32_t id = index->buckets[hash & index->bucket_mask];
    while (id != PTIER_SLOT_NONE && slot_at(index, id)->hash != hash)
        id = slot_at(index, id)->next;
    return id;
}

void
ptier_index_first_of(const ptier_index *index, const uint64_t *hashes, size_t count,
                     uint32_t *first)
{
    for (size_t i = 0; i < count; i++)
        __builtin_prefetch(&index->buckets[hashes[i] & index->bucket_mask]);
    for (size_t i = 0; i < count; i++) {
        first[i] = index->buckets[hashes[i] & index->bucket_mask];
        if (first[i] != PTIER_SLOT_NONE)
            __builtin_prefetch(slot_at(index, first[i]));
    }
    for (size_t i = 0; i < count; i++)
        if (first[i] != PTIER_SLOT_NONE)
            first[i] = ptier_index_first(index, hashes[i]);
}

uint32_t
ptier_index_next(const ptier_index *index, uint32_t slot)
{
    uint64_t hash = slot_at(index, slot)->hash;
    uint32_t id = slot_at(index, slot)->next;
    while (id != PTIER_SLOT_NONE && slot_at(index, id)->hash != hash)
        id = slot_at(index, id)->next;
    return id;
}

uint32_t
ptier_index_find(const ptier_index *index, uint64_t hash, uint64_t revision)
{
    uint32_t id = ptier_index_first(index, hash);
    while (id != PTIER_SLOT_NONE && slot_at(index, id)->revision != revision)
        id = ptier_index_next(index, id);
    return id;
}

const ptier_slot *
ptier_index_slot(const ptier_index *index, uint32_t slot)
{
    return slot_at(index, slot);
}

static bool
grow_buckets(ptier_index *index)
{
    uint32_t count = (index->bucket_mask + 1) * 2;
    uint32_t *grown = malloc(count * sizeof *grown);
    if (!grown)
        return false;
    memset(grown, 0xff, count * sizeof *grown);
    for (uint32_t id = 0; id < index->limit; id++) {
        ptier_slot *slot = slot_at(index, id);
        if (slot->revision == 0)
            continue;
        slot->next = grown[slot->hash & (count - 1)];
        grown[slot->hash & (count - 1)] = id;
    }
    free(index->buckets);
    index->buckets = grown;
    index->bucket_mask = count - 1;
    return true;
}

static bool
add_chunk(ptier_index *index)
{
    if (index->chunk_count == index->chunk_room) {
        size_t room = index->chunk_room ? index->chunk_room * 2 : 64;
        ptier_slot **grown = realloc(index->chunks, room * sizeof *grown);
        if (!grown)
            return false;
        index->chunks = grown;
        index->chunk_room = room;
    }
    ptier_slot *chunk = calloc(CHUNK_SLOTS, sizeof *chunk);
    if (!chunk)
        return false;
    index->chunks[index->chunk_count++] = chunk;
    return true;
}

static uint32_t
take_slot(ptier_index *index)
{
    uint32_t id = index->free_slot;
    if (id != PTIER_SLOT_NONE) {
        index->free_slot = slot_at(index, id)->next;
        return id;
    }
    if (index->limit == MAX_SLOTS)
        return PTIER_SLOT_NONE;
    if (index->limit >> CHUNK_SHIFT == index->chunk_count && !add_chunk(index))
        return PTIER_SLOT_NONE;
    return index->limit++;
}

static void
set_facts(ptier_index *index, ptier_slot *slot, const ptier_index_facts *facts)
{
    slot->revision = facts->revision;
    slot->expires_boot_ms = facts->expires_boot_ms;
    slot->source = intern_source(index, facts->source);
    slot->scheme = ptier_scheme_id(facts->url);
    slot->health = facts->health;
}

ptier_status
ptier_index_insert(ptier_index *index, uint64_t hash, const ptier_index_facts *facts)
{
    assert(facts->revision != 0);
    if (index->count > index->bucket_mask && !grow_buckets(index))
        return PTIER_RESOURCE_EXHAUSTED;
    uint32_t id = take_slot(index);
    if (id == PTIER_SLOT_NONE)
        return PTIER_RESOURCE_EXHAUSTED;
    ptier_slot *slot = slot_at(index, id);
    slot->hash = hash;
    slot->next = index->buckets[hash & index->bucket_mask];
    index->buckets[hash & index->bucket_mask] = id;
    set_facts(index, slot, facts);
    schedule(index, id);
    index->count++;
    return PTIER_OK;
}

void
ptier_index_update(ptier_index *index, uint32_t id, const ptier_index_facts *facts)
{
    unlink_slot(index, id);
    set_facts(index, slot_at(index, id), facts);
    schedule(index, id);
}

void
ptier_index_remove(ptier_index *index, uint32_t id)
{
    ptier_slot *slot = slot_at(index, id);
    unlink_slot(index, id);
    uint32_t *link = &index->buckets[slot->hash & index->bucket_mask];
    while (*link != id)
        link = &slot_at(index, *link)->next;
    *link = slot->next;
    slot->revision = 0;
    slot->next = index->free_slot;
    index->free_slot = id;
    index->count--;
}

uint64_t
ptier_index_count(const ptier_index *index)
{
    return index->count;
}

uint32_t
ptier_index_limit(const ptier_index *index)
{
    return index->limit;
}

size_t
ptier_index_bytes(const ptier_index *index)
{
    return sizeof *index + index->chunk_count * CHUNK_SLOTS * sizeof(ptier_slot) +
           ((size_t)index->bucket_mask + 1) * sizeof *index->buckets;
}
