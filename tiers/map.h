/*
 * A hash table from 64-bit hashes to pointers that allows several values under one hash. Not
 * thread-safe. Open addressing with linear probing; removal shifts back, so that there are no
 * tombstones to clean.
 */
#ifndef PTIER_MAP_H
#define PTIER_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <proxytier/status.h>

typedef struct ptier_map_cell {
    uint64_t hash;
    void *value; /* NULL: free */
} ptier_map_cell;

typedef struct ptier_map {
    ptier_map_cell *cells;
    size_t mask; /* cells - 1; 0 before the first insert */
    size_t count;
} ptier_map;

static inline void
ptier_map_init(ptier_map *map)
{
    map->cells = NULL;
    map->mask = 0;
    map->count = 0;
}

/* Frees the table, not the values. */
void ptier_map_fini(ptier_map *map);

/* False: out of memory, nothing changed. `value` is not NULL. */
PTIER_MUST_CHECK bool ptier_map_insert(ptier_map *map, uint64_t hash, void *value);

/* Room for `count` more inserts that then cannot fail. */
PTIER_MUST_CHECK bool ptier_map_reserve(ptier_map *map, size_t count);

/* Takes this very value out. False: it was not there. */
bool ptier_map_remove(ptier_map *map, uint64_t hash, const void *value);

/* Replaces this very value in place. False: it was not there. */
bool ptier_map_replace(ptier_map *map, uint64_t hash, const void *old_value, void *new_value);

/* The first value under `hash` for which match(value, key) holds; match NULL takes any. NULL: none.
 */
static inline void *
ptier_map_find(const ptier_map *map, uint64_t hash,
               bool (*match)(const void *value, const void *key), const void *key)
{
    if (map->count == 0) /* also one that was large once, and whose cells are far away */
        return NULL;
    for (size_t i = hash & map->mask; map->cells[i].value; i = (i + 1) & map->mask)
        if (map->cells[i].hash == hash && (!match || match(map->cells[i].value, key)))
            return map->cells[i].value;
    return NULL;
}

/* Says that `hash` will be looked for soon: its cell comes nearer meanwhile. */
static inline void
ptier_map_prefetch(const ptier_map *map, uint64_t hash)
{
    if (map->cells)
        __builtin_prefetch(&map->cells[hash & map->mask]);
}

/* Memory of the table. */
static inline size_t
ptier_map_bytes(const ptier_map *map)
{
    return map->cells ? (map->mask + 1) * sizeof *map->cells : 0;
}

#endif
