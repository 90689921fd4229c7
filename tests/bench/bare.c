#include "bare.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "entry_internal.h"
#include "harness.h"
#include "map.h"

enum {
    TEXT_BYTES = 150, /* of a record of bench_records: key, URL, credentials, source, labels */
    ROW_BYTES = 310,  /* of one in L3: with Fernet tokens and its check */
};

void
bench_name(size_t number, char name[BENCH_NAME_BYTES])
{
    name[0] = 'k';
    for (int i = 8; i > 0; i--, number /= 10)
        name[i] = (char)('0' + number % 10);
    name[9] = '\0';
}

static uint64_t
hash_of(const char *name)
{
    return XXH3_64bits(name, BENCH_NAME_BYTES - 1);
}

/* ---- in memory ---- */

typedef struct item {
    struct item *newer, *older;
    uint64_t uses;
    char name[BENCH_NAME_BYTES];
    char rest[sizeof(ptier_entry) + TEXT_BYTES]; /* as much as an entry of ours has */
} item;

struct bench_table {
    ptier_map map;
    item ends; /* newer: the oldest; older: the newest */
};

static bool
is_named(const void *value, const void *key)
{
    return memcmp(((const item *)value)->name, key, BENCH_NAME_BYTES) == 0;
}

static void
push(bench_table *table, item *i)
{
    i->newer = &table->ends;
    i->older = table->ends.older;
    i->older->newer = i;
    table->ends.older = i;
}

static void
unlink_item(item *i)
{
    i->newer->older = i->older;
    i->older->newer = i->newer;
}

static item *
find(bench_table *table, size_t number, uint64_t *hash)
{
    char name[BENCH_NAME_BYTES];
    bench_name(number, name);
    *hash = hash_of(name);
    item *found = ptier_map_find(&table->map, *hash, is_named, name);
    if (!found)
        bench_fail("a bare table has no %s", name);
    return found;
}

bench_table *
bench_table_create(size_t count)
{
    bench_table *table = calloc(1, sizeof *table);
    if (!table)
        bench_fail("out of memory");
    ptier_map_init(&table->map);
    table->ends.newer = table->ends.older = &table->ends;
    for (size_t i = 0; i < count; i++)
        bench_table_put(table, i);
    return table;
}

void
bench_table_destroy(bench_table *table)
{
    for (item *i = table->ends.newer, *newer; i != &table->ends; i = newer) {
        newer = i->newer;
        free(i);
    }
    ptier_map_fini(&table->map);
    free(table);
}

void
bench_table_put(bench_table *table, size_t number)
{
    item *i = calloc(1, sizeof *i);
    if (!i)
        bench_fail("out of memory");
    bench_name(number, i->name);
    memset(i->rest, 1, sizeof i->rest);
    if (!ptier_map_insert(&table->map, hash_of(i->name), i))
        bench_fail("out of memory");
    push(table, i);
}

void
bench_table_get(bench_table *table, size_t number)
{
    uint64_t hash;
    item *i = find(table, number, &hash);
    unlink_item(i);
    push(table, i);
    i->uses++;
}

void
bench_table_remove(bench_table *table, size_t number)
{
    uint64_t hash;
    item *i = find(table, number, &hash);
    (void)ptier_map_remove(&table->map, hash, i); /* it was found there */
    unlink_item(i);
    free(i);
}

/* ---- in a file ---- */

struct bench_rows {
    sqlite3 *writer, *reader;
    sqlite3_stmt *put, *get, *remove;
    char path[4096];
};

static sqlite3 *
open_file(const char *path, const char *pragmas)
{
    sqlite3 *db;
    if (sqlite3_open(path, &db) != SQLITE_OK ||
        sqlite3_exec(db, pragmas, NULL, NULL, NULL) != SQLITE_OK)
        bench_fail("bare SQLite: %s", sqlite3_errmsg(db));
    return db;
}

static void
execute(bench_rows *rows, const char *sql)
{
    if (sqlite3_exec(rows->writer, sql, NULL, NULL, NULL) != SQLITE_OK)
        bench_fail("bare SQLite: %s", sqlite3_errmsg(rows->writer));
}

static sqlite3_stmt *
prepare(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK)
        bench_fail("bare SQLite: %s", sqlite3_errmsg(db));
    return statement;
}

/* Writes and caches as L3 does, with its sizes of caches. */
bench_rows *
bench_rows_create(const char *path, size_t count)
{
    bench_rows *rows = calloc(1, sizeof *rows);
    if (!rows || snprintf(rows->path, sizeof rows->path, "%s", path) >= (int)sizeof rows->path)
        bench_fail("bare SQLite: out of memory, or too long a path");
    rows->writer = open_file(path, "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
                                   "PRAGMA cache_size=-32768;"
                                   "CREATE TABLE bare(id INTEGER PRIMARY KEY, key64 INTEGER NOT "
                                   "NULL, record BLOB NOT NULL);"
                                   "CREATE INDEX bare_key64 ON bare(key64);");
    rows->reader = open_file(path, "PRAGMA query_only=ON; PRAGMA cache_size=-4096;");
    rows->put = prepare(rows->writer, "INSERT INTO bare(key64, record) VALUES(?1, ?2)");
    rows->remove = prepare(rows->writer, "DELETE FROM bare WHERE key64 = ?1");
    rows->get = prepare(rows->reader, "SELECT record FROM bare WHERE key64 = ?1");
    for (size_t i = 0; i < count; i += 10000)
        bench_rows_put(rows, i, count - i < 10000 ? count - i : 10000);
    return rows;
}

void
bench_rows_destroy(bench_rows *rows)
{
    (void)sqlite3_finalize(rows->put); /* these repeat what steps have said */
    (void)sqlite3_finalize(rows->get);
    (void)sqlite3_finalize(rows->remove);
    (void)sqlite3_close(rows->reader);
    (void)sqlite3_close(rows->writer); /* the file goes with the run */
    free(rows);
}

static void
bind_key(sqlite3_stmt *statement, size_t number)
{
    char name[BENCH_NAME_BYTES];
    bench_name(number, name);
    if (sqlite3_bind_int64(statement, 1, (sqlite3_int64)hash_of(name)) != SQLITE_OK)
        bench_fail("bare SQLite: cannot bind");
}

static void
step(sqlite3_stmt *statement, int expected)
{
    if (sqlite3_step(statement) != expected)
        bench_fail("bare SQLite: %s", sqlite3_errmsg(sqlite3_db_handle(statement)));
}

void
bench_rows_put(bench_rows *rows, size_t first, size_t count)
{
    static const char record[ROW_BYTES];
    execute(rows, "BEGIN");
    for (size_t i = first; i < first + count; i++) {
        bind_key(rows->put, i);
        if (sqlite3_bind_blob(rows->put, 2, record, sizeof record, SQLITE_STATIC) != SQLITE_OK)
            bench_fail("bare SQLite: cannot bind");
        step(rows->put, SQLITE_DONE);
        (void)sqlite3_reset(rows->put); /* repeats what the step said */
    }
    execute(rows, "COMMIT");
}

void
bench_rows_remove(bench_rows *rows, size_t first, size_t count)
{
    execute(rows, "BEGIN");
    for (size_t i = first; i < first + count; i++) {
        bind_key(rows->remove, i);
        step(rows->remove, SQLITE_DONE);
        (void)sqlite3_reset(rows->remove); /* repeats what the step said */
    }
    execute(rows, "COMMIT");
}

void
bench_rows_get(bench_rows *rows, size_t number)
{
    char record[ROW_BYTES];
    bind_key(rows->get, number);
    step(rows->get, SQLITE_ROW);
    memcpy(record, sqlite3_column_blob(rows->get, 0), sizeof record);
    __asm__ volatile("" : : "r"(record) : "memory"); /* the copy is made */
    (void)sqlite3_reset(rows->get);                  /* repeats what the step said */
}

double
bench_rows_bytes(const bench_rows *rows)
{
    struct stat status;
    if (sqlite3_exec(rows->writer, "PRAGMA wal_checkpoint(TRUNCATE)", NULL, NULL, NULL) !=
            SQLITE_OK ||
        stat(rows->path, &status) != 0)
        bench_fail("bare SQLite: %s", sqlite3_errmsg(rows->writer));
    return (double)status.st_size;
}
