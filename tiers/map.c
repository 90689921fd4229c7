#include "map.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_CELLS = 64, CACHE_LINE = 64 };

void
ptier_map_fini(ptier_map *map)
{
    free(map->cells);
    ptier_map_init(map);
}

static void
place(ptier_map_cell *cells, size_t mask, uint64_t hash, void *value)
{
    size_t i = hash & mask;
    while (cells[i].value)
        i = (i + 1) & mask;
    cells[i] = (ptier_map_cell){hash, value};
}

/*
 * Empty cells. Not calloc's: of new pages that are looked at before they are written the kernel
 * makes its page of zeros first, and then the page itself, for which it interrupts each processor
 * that the process runs on.
 */
static ptier_map_cell *
make_cells(size_t count)
{
    ptier_map_cell *cells = aligned_alloc(CACHE_LINE, count * sizeof *cells);
    return cells ? memset(cells, 0, count * sizeof *cells) : NULL;
}

bool
ptier_map_reserve(ptier_map *map, size_t count)
{
    size_t cells = map->cells ? map->mask + 1 : 0;
    size_t wanted = cells ? cells : FIRST_CELLS;
    while ((map->count + count) * 10 > wanted * 7)
        wanted *= 2;
    if (wanted == cells)
        return true;
    ptier_map_cell *grown = make_cells(wanted);
    if (!grown)
        return false;
    for (size_t i = 0; i < cells; i++)
        if (map->cells[i].value)
            place(grown, wanted - 1, map->cells[i].hash, map->cells[i].value);
    free(map->cells);
    map->cells = grown;
    map->mask = wanted - 1;
    return true;
}

bool
ptier_map_insert(ptier_map *map, uint64_t hash, void *value)
{
    if (!ptier_map_reserve(map, 1))
        return false;
    place(map->cells, map->mask, hash, value);
    map->count++;
    return true;
}

static bool
find_cell(const ptier_map *map, uint64_t hash, const void *value, size_t *at)
{
    if (!map->cells)
        return false;
    for (size_t i = hash & map->mask; map->cells[i].value; i = (i + 1) & map->mask) {
        if (map->cells[i].value == value) {
            *at = i;
            return true;
        }
    }
    return false;
}

bool
ptier_map_replace(ptier_map *map, uint64_t hash, const void *old_value, void *new_value)
{
    size_t at;
    if (!find_cell(map, hash, old_value, &at))
        return false;
    map->cells[at].value = new_value;
    return true;
}

bool
ptier_map_remove(ptier_map *map, uint64_t hash, const void *value)
{
    size_t hole;
    if (!find_cell(map, hash, value, &hole))
        return false;
    /* Shift back whatever may not stay behind the hole: its probe would stop there. */
    for (size_t i = (hole + 1) & map->mask; map->cells[i].value; i = (i + 1) & map->mask) {
        size_t home = map->cells[i].hash & map->mask;
        if (((i - home) & map->mask) >= ((i - hole) & map->mask)) {
            map->cells[hole] = map->cells[i];
            hole = i;
        }
    }
    map->cells[hole].value = NULL;
    map->count--;
    return true;
}
