/*
 * The table in order of id, past what cannot be read; and, made by that, where the rows of a hash
 * are when the index on it is not to be trusted.
 */
#include "l3/l3_internal.h"

#include <stdlib.h>

/* Of one walk. A damaged page costs some hundred probes; a file in shreds ends the walk early. */
#define PROBES_MAX   (1u << 20)
#define GAPS_MAX     (1u << 20)
#define DISORDER_MAX 1000 /* rows out of order, one after the other */

/* ---- the walk ---- */

/* Ids as unsigned numbers in the same order: steps then cannot overflow unseen. */
static uint64_t
place_of(int64_t id)
{
    return (uint64_t)id ^ UINT64_C(1) << 63;
}

static int64_t
id_of(uint64_t place)
{
    return (int64_t)(place ^ UINT64_C(1) << 63);
}

/* Whether the first row from this place on can be read; that there is none is an answer too. */
static bool
legible(ptier_l3_walk *walk, uint64_t place, int *code)
{
    sqlite3_stmt *scan = walk->conn->statements[L3_SCAN];
    walk->probes++;
    (void)sqlite3_reset(scan);                       /* repeats an error that was seen */
    (void)sqlite3_bind_int64(scan, 1, id_of(place)); /* cannot fail */
    *code = sqlite3_step(scan);
    return *code == SQLITE_ROW || *code == SQLITE_DONE;
}

/*
 * Finds where the table can be read again, after `bad`: with growing steps, then halving the last
 * one. Stops at an edge of the damage, not needlessly far behind it. SQLITE_OK, SQLITE_DONE: not
 * any more, or an error that is no damage.
 */
static int
find_legible(ptier_l3_walk *walk, uint64_t bad, uint64_t *place)
{
    uint64_t good = bad, step = 1;
    int code = SQLITE_CORRUPT;
    while (good == bad) {
        if (bad > UINT64_MAX - step || walk->probes > PROBES_MAX)
            return SQLITE_DONE;
        if (legible(walk, bad + step, &code))
            good = bad + step;
        else if (!ptier_l3_is_damage(code))
            return code;
        else {
            bad += step;
            good = bad;
        }
        step += step / 8 + 1;
    }
    while (good - bad > 1) {
        uint64_t middle = bad + (good - bad) / 2;
        if (legible(walk, middle, &code))
            good = middle;
        else if (!ptier_l3_is_damage(code))
            return code;
        else
            bad = middle;
    }
    *place = good;
    return SQLITE_OK;
}

/* Where the rows cannot be read: on behind that. SQLITE_OK or as find_legible. */
static int
jump(ptier_l3_walk *walk)
{
    sqlite3_stmt *scan = walk->conn->statements[L3_SCAN];
    uint64_t place = 0;
    walk->gaps++;
    walk->disorder = 0;
    if (walk->last == INT64_MAX)
        return SQLITE_DONE;
    int64_t last = walk->last < 0 ? 0 : walk->last; /* our ids begin at 1 */
    int code = find_legible(walk, place_of(last) + 1, &place);
    (void)sqlite3_reset(scan); /* repeats code */
    if (code == SQLITE_OK)
        (void)sqlite3_bind_int64(scan, 1, id_of(place)); /* cannot fail */
    return code;
}

/* Ids ascend. One that does not was damaged, or the one before it was, or pages follow each other
 * in a circle. */
static bool
take(ptier_l3_walk *walk, int64_t id)
{
    bool ascends = walk->last == INT64_MIN || id > walk->last;
    walk->gaps += !ascends;
    if (!ascends && id <= walk->before) {
        walk->disorder++;
        return false;
    }
    walk->disorder = 0;
    if (ascends)
        walk->before = walk->last;
    walk->last = id;
    return true;
}

int
ptier_l3_walk_next(ptier_l3_walk *walk)
{
    sqlite3_stmt *scan = walk->conn->statements[L3_SCAN];
    if (!scan) {
        walk->gaps++;
        return SQLITE_DONE;
    }
    if (!walk->running) {
        if (walk->last == INT64_MAX)
            return SQLITE_DONE;
        walk->before = walk->last;
        walk->running = true;
        (void)sqlite3_bind_int64(scan, 1, walk->last + (walk->last != INT64_MIN)); /* cannot fail */
    }
    while (walk->gaps < GAPS_MAX) {
        int code = sqlite3_step(scan);
        if (code == SQLITE_ROW && take(walk, sqlite3_column_int64(scan, L3_ID)))
            return SQLITE_ROW;
        if (code == SQLITE_ROW && walk->disorder < DISORDER_MAX)
            continue;
        if (code == SQLITE_ROW || ptier_l3_is_damage(code))
            code = jump(walk);
        if (code != SQLITE_OK)
            return code;
    }
    return SQLITE_DONE;
}

void
ptier_l3_walk_end(ptier_l3_walk *walk)
{
    (void)sqlite3_reset(walk->conn->statements[L3_SCAN]); /* NULL is fine; errors were seen */
    walk->running = false;
}

/* ---- places ---- */

static int
by_hash_then_id(const void *left, const void *right)
{
    const ptier_l3_place *a = left, *b = right;
    if (a->key64 != b->key64)
        return a->key64 < b->key64 ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

static ptier_status
collect_locked(ptier_l3 *l3, ptier_l3_conn *reader)
{
    size_t room = 0, count = 0;
    ptier_l3_place *places = NULL;
    ptier_l3_walk walk = {.conn = reader, .last = INT64_MIN};
    int code;
    while ((code = ptier_l3_walk_next(&walk)) == SQLITE_ROW) {
        if (count == room) {
            room = room ? 2 * room : 1024;
            ptier_l3_place *more = realloc(places, room * sizeof *places);
            if (!more) {
                code = SQLITE_NOMEM;
                break;
            }
            places = more;
        }
        places[count++] = (ptier_l3_place){
            sqlite3_column_int64(reader->statements[L3_SCAN], L3_KEY64), walk.last};
    }
    ptier_l3_walk_end(&walk);
    if (code != SQLITE_DONE) {
        free(places);
        return ptier_l3_status(code);
    }
    if (count)
        qsort(places, count, sizeof *places, by_hash_then_id);
    l3->places = places;
    l3->place_count = count;
    l3->places_made = true;
    return PTIER_OK;
}

/* The first place of a hash. */
static size_t
lower_bound(const ptier_l3 *l3, int64_t key64)
{
    size_t low = 0, high = l3->place_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (l3->places[middle].key64 < key64)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* SQLITE_ROW: *row stands on it; reset it. */
static int
stand_on(ptier_l3_conn *reader, int64_t id, sqlite3_stmt **row)
{
    int code = SQLITE_CORRUPT;
    const ptier_l3_statement either[] = {L3_ROW, L3_ROW_PLAIN};
    for (int i = 0; i < 2 && ptier_l3_is_damage(code); i++) {
        *row = reader->statements[either[i]];
        if (!*row)
            continue;
        (void)sqlite3_bind_int64(*row, 1, id); /* cannot fail */
        code = sqlite3_step(*row);
        if (code != SQLITE_ROW)
            (void)sqlite3_reset(*row); /* repeats code */
    }
    return code;
}

ptier_status
ptier_l3_rows_by_table(ptier_l3 *l3, ptier_l3_conn *reader, uint64_t hash, ptier_l3_row_fn fn,
                       void *context)
{
    pthread_mutex_lock(&l3->places_mutex);
    ptier_status status = l3->places_made ? PTIER_OK : collect_locked(l3, reader);
    pthread_mutex_unlock(&l3->places_mutex);
    if (status != PTIER_OK)
        return status;
    bool go_on = true;
    for (size_t i = lower_bound(l3, (int64_t)hash);
         go_on && i < l3->place_count && l3->places[i].key64 == (int64_t)hash; i++) {
        sqlite3_stmt *row = NULL;
        int code = stand_on(reader, l3->places[i].id, &row);
        if (code == SQLITE_ROW) {
            go_on = fn(context, row);
            (void)sqlite3_reset(row); /* cannot fail after a row */
        } else if (code != SQLITE_DONE && !ptier_l3_is_damage(code)) {
            return ptier_l3_status(code);
        }
    }
    return PTIER_OK;
}
