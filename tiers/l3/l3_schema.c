/*
 * Whose file it is, and of which version: what is found when it is opened. A stranger's file is not
 * touched; a damaged one is not either.
 */
#include "l3/l3_internal.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#define SCHEMA_VERSION 2
#define APPLICATION_ID 1347703122 /* "PTIR" */
#define SAMPLE_ROWS    64

int
ptier_l3_query(sqlite3 *db, const char *sql, int64_t *value, char *text, size_t room)
{
    sqlite3_stmt *statement;
    int code = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);
    if (code != SQLITE_OK)
        return code == SQLITE_ERROR ? SQLITE_CORRUPT : code; /* a file format that is unknown */
    code = sqlite3_step(statement);
    if (code == SQLITE_ROW && value)
        *value = sqlite3_column_int64(statement, 0);
    if (code == SQLITE_ROW && text) {
        const char *found = (const char *)sqlite3_column_text(statement, 0);
        (void)snprintf(text, room, "%s", found ? found : "");
    }
    (void)sqlite3_finalize(statement); /* repeats code */
    return code == SQLITE_ROW ? SQLITE_OK : code;
}

static ptier_status
fail(ptier_l3 *l3, int code, ptier_error *error)
{
    return code == SQLITE_OK ? PTIER_OK : ptier_l3_fail(l3, &l3->writer, code, "open", error);
}

static bool
is_damaged(const ptier_l3 *l3)
{
    return atomic_load(&l3->condition) == PTIER_L3_DAMAGED;
}

/* ---- a new file ---- */

int
ptier_l3_create_tables(ptier_l3 *l3)
{
    sqlite3 *db = l3->writer.db;
    char *sql = sqlite3_mprintf("PRAGMA application_id=%d;PRAGMA user_version=%d;", APPLICATION_ID,
                                SCHEMA_VERSION);
    if (!sql)
        return SQLITE_NOMEM;
    int code = sqlite3_exec(db, ptier_l3_schema_sql, NULL, NULL, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_exec(db, sql, NULL, NULL, NULL);
    sqlite3_free(sql);
    return code;
}

static ptier_status
write_ahead(ptier_l3 *l3, ptier_error *error)
{
    char mode[16] = "";
    int code = ptier_l3_query(l3->writer.db, "PRAGMA journal_mode=WAL", NULL, mode, sizeof mode);
    if (code != SQLITE_OK)
        return fail(l3, code, error);
    if (strcmp(mode, "wal") != 0)
        return ptier_fail(error, PTIER_UNAVAILABLE,
                          "the file system of %s cannot hold a write-ahead log (is it a network "
                          "share?): put the data directory on a local disk",
                          l3->path);
    return PTIER_OK;
}

static ptier_status
create(ptier_l3 *l3, ptier_error *error)
{
    sqlite3 *db = l3->writer.db;
    /* auto_vacuum can only be chosen before the first table. */
    ptier_status status =
        fail(l3, sqlite3_exec(db, "PRAGMA auto_vacuum=INCREMENTAL", NULL, NULL, NULL), error);
    if (status == PTIER_OK)
        status = write_ahead(l3, error);
    if (status == PTIER_OK)
        status = fail(l3, sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), error);
    if (status == PTIER_OK)
        status = fail(l3, ptier_l3_create_tables(l3), error);
    if (status == PTIER_OK)
        status = fail(l3, sqlite3_exec(db, ptier_l3_index_sql, NULL, NULL, NULL), error);
    if (status == PTIER_OK)
        status = fail(l3, ptier_l3_prepare(&l3->writer, L3_STATEMENTS), error);
    if (status == PTIER_OK)
        status = ptier_l3_write_key(l3, true, error);
    if (status == PTIER_OK)
        status = ptier_l3_write_totals(l3, &(ptier_l3_totals){0}, error);
    return status == PTIER_OK ? fail(l3, sqlite3_exec(db, "COMMIT", NULL, NULL, NULL), error)
                              : status; /* closing undoes it */
}

/* ---- whose it is ---- */

typedef struct stock {
    int64_t application, version, tables;
    ptier_l3_found totals_found, keys_found;
    ptier_l3_totals totals;
    ptier_l3_keys keys, keys_copy; /* the copy is beside the totals */
} stock;

static ptier_status
read_header(ptier_l3 *l3, stock *found, ptier_error *error)
{
    static const char *const sql[] = {"PRAGMA application_id", "PRAGMA user_version",
                                      "SELECT count(*) FROM sqlite_schema"};
    int64_t *values[] = {&found->application, &found->version, &found->tables};
    for (int i = 0; i < 3; i++) {
        int code = ptier_l3_query(l3->writer.db, sql[i], values[i], NULL, 0);
        if (ptier_l3_is_damage(code) && !l3->writer.lenient) {
            ptier_l3_note(l3, code);
            ptier_l3_make_lenient(&l3->writer);
            code = ptier_l3_query(l3->writer.db, sql[i], values[i], NULL, 0);
        }
        if (code != SQLITE_OK && !ptier_l3_is_damage(code))
            return fail(l3, code, error);
    }
    /* The byte that says so is damaged, or we may not write. */
    if (!is_damaged(l3) && sqlite3_db_readonly(l3->writer.db, "main") == 1) {
        if (access(l3->path, W_OK))
            return ptier_fail(error, PTIER_PERMISSION_DENIED,
                              "database %s cannot be written to: check its owner and mode",
                              l3->path);
        ptier_l3_found_damage(l3, "its header says that it cannot be written to");
    }
    return PTIER_OK;
}

static ptier_status
read_meta(ptier_l3 *l3, stock *found, ptier_error *error)
{
    int code = ptier_l3_read_keys(l3, &l3->writer, &found->keys, &found->keys_found);
    if (code == SQLITE_OK)
        code = ptier_l3_read_totals(l3, &l3->writer, &found->totals, &found->keys_copy,
                                    &found->totals_found);
    return fail(l3, code, error);
}

/* Whether a key of ours made the check of any of the first rows. */
static bool
rows_are_ours(ptier_l3 *l3)
{
    ptier_l3_walk walk = {.conn = &l3->writer, .last = INT64_MIN};
    sqlite3_stmt *query = l3->writer.statements[L3_ROW_PLAIN];
    bool ours = false;
    for (int i = 0; query && !ours && i < SAMPLE_ROWS && ptier_l3_walk_next(&walk) == SQLITE_ROW;
         i++) {
        ptier_l3_row row;
        int which;
        (void)sqlite3_bind_int64(query, 1, walk.last); /* cannot fail */
        ours = sqlite3_step(query) == SQLITE_ROW &&
               ptier_l3_row_verify(l3, &l3->writer, query, &row, &which) == PTIER_OK;
        (void)sqlite3_reset(query); /* a row that cannot be read says nothing */
    }
    ptier_l3_walk_end(&walk);
    return ours;
}

static ptier_status
wrong_key(const ptier_l3 *l3, ptier_error *error)
{
    return ptier_fail(error, PTIER_FAILED_PRECONDITION,
                      "the encryption key is not the one that %s was written with: give that one "
                      "(as the key, or as a previous key)",
                      l3->path);
}

/*
 * The key row and the totals each say which keys it needs, and the rows do, silently: one of them
 * that is damaged is not taken for another key, nor another key for damage.
 */
static ptier_status
judge_keys(ptier_l3 *l3, const stock *found, ptier_error *error)
{
    bool good = found->keys_found == L3_FOUND_GOOD;
    if (found->totals_found == L3_FOUND_GOOD) {
        if (ptier_l3_keys_known(l3, &found->keys_copy) < found->keys_copy.count)
            return wrong_key(l3, error); /* older records need one that we were not given */
        good = good && ptier_l3_keys_equal(&found->keys, &found->keys_copy);
    } else if (found->keys_found == L3_FOUND_FOREIGN) {
        if (ptier_l3_keys_known(l3, &found->keys) > 0 || !rows_are_ours(l3))
            return wrong_key(l3, error);
    }
    if (!good)
        ptier_l3_found_damage(l3, "which keys it needs");
    return PTIER_OK;
}

/* The application id and the version have no check of their own. One that is not ours is damage
 * when the totals or the key row prove that the file is. (A newer version puts another version
 * into its totals too.) */
static ptier_status
judge_owner(ptier_l3 *l3, const stock *found, ptier_error *error)
{
    bool totals = found->totals_found == L3_FOUND_GOOD;
    if (found->application != APPLICATION_ID) {
        if (!totals && found->keys_found != L3_FOUND_GOOD)
            return ptier_fail(error, PTIER_FAILED_PRECONDITION,
                              "%s is another program's database: move it away", l3->path);
        ptier_l3_found_damage(l3, "its application id");
    }
    if (found->version > SCHEMA_VERSION && !totals)
        return ptier_fail(error, PTIER_FAILED_PRECONDITION,
                          "database %s has schema %" PRId64 ", made by a newer proxytier; this "
                          "one knows %d: upgrade it, or move the file away",
                          l3->path, found->version, SCHEMA_VERSION);
    if (found->version < 1 || found->version > SCHEMA_VERSION ||
        (found->version < SCHEMA_VERSION && found->totals_found != L3_FOUND_NONE))
        ptier_l3_found_damage(l3, "its schema version");
    return PTIER_OK;
}

/* ---- version 1: a bare prefix, no totals ---- */

static int
sum_rows(ptier_l3 *l3, ptier_l3_totals *totals)
{
    sqlite3_stmt *rows = l3->writer.statements[L3_BELOW];
    (void)sqlite3_bind_int64(rows, 1, INT64_MAX); /* cannot fail */
    int code;
    while ((code = sqlite3_step(rows)) == SQLITE_ROW) {
        totals->rows++;
        totals->sum += ptier_hash_pair((uint64_t)sqlite3_column_int64(rows, 1),
                                       (uint64_t)sqlite3_column_int64(rows, 2));
    }
    (void)sqlite3_reset(rows); /* repeats code */
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

static ptier_status
migrate_1(ptier_l3 *l3, stock *found, ptier_error *error)
{
    sqlite3 *db = l3->writer.db;
    int64_t prefix = -1;
    int code = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    if (code == SQLITE_OK)
        code = ptier_l3_query(db, "SELECT value FROM meta WHERE name = 'prefix'", &prefix, NULL, 0);
    if (code == SQLITE_DONE || (code == SQLITE_OK && prefix < 0))
        code = SQLITE_CORRUPT;
    found->totals = (ptier_l3_totals){.prefix = (uint64_t)prefix};
    if (code == SQLITE_OK)
        code = sum_rows(l3, &found->totals);
    ptier_status status = fail(l3, code, error);
    if (status == PTIER_OK && found->keys_found == L3_FOUND_NONE)
        status = ptier_l3_write_key(l3, true, error); /* it was made, and never used */
    if (status == PTIER_OK)
        status = ptier_l3_write_totals(l3, &found->totals, error);
    if (status == PTIER_OK)
        status = fail(l3,
                      sqlite3_exec(db,
                                   "DELETE FROM meta WHERE name = 'prefix';"
                                   "PRAGMA user_version=2; COMMIT;",
                                   NULL, NULL, NULL),
                      error);
    if (status != PTIER_OK && !sqlite3_get_autocommit(db))
        (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL); /* the first error is reported */
    if (status == PTIER_OK)
        found->totals_found = L3_FOUND_GOOD;
    return status;
}

static bool
unused_version_1(const stock *found)
{
    return found->version == 1 && found->keys_found == L3_FOUND_NONE &&
           found->totals_found == L3_FOUND_NONE;
}

/* A key that is new to the file is named in it before anything is written with it. */
static ptier_status
add_key(ptier_l3 *l3, const stock *found, ptier_error *error)
{
    sqlite3 *db = l3->writer.db;
    if (ptier_l3_needs_first_key(l3))
        return PTIER_OK;
    ptier_status status = fail(l3, sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), error);
    if (status == PTIER_OK)
        status = ptier_l3_write_key(l3, false, error);
    if (status == PTIER_OK)
        status = ptier_l3_write_totals(l3, &found->totals, error);
    return status == PTIER_OK ? fail(l3, sqlite3_exec(db, "COMMIT", NULL, NULL, NULL), error)
                              : status; /* closing undoes it */
}

/* ---- all of it ---- */

static void
take_totals(ptier_l3 *l3, const stock *found)
{
    int64_t rows = 0;
    if (found->totals_found == L3_FOUND_GOOD) {
        l3->totals = found->totals;
        rows = (int64_t)found->totals.rows;
    } else {
        ptier_l3_found_damage(l3, "what it says of itself");
        PTIER_IGNORE(ptier_l3_query(l3->writer.db, "SELECT count(*) FROM entries", &rows, NULL,
                                    0)); /* damaged: none */
    }
    atomic_store(&l3->prefix, l3->totals.prefix);
    atomic_store(&l3->count, (uint64_t)rows);
}

ptier_status
ptier_l3_take_stock(ptier_l3 *l3, ptier_error *error)
{
    stock found = {0};
    ptier_status status = read_header(l3, &found, error);
    if (status != PTIER_OK)
        return status;
    if (!is_damaged(l3) && found.tables == 0 && found.application == 0)
        return create(l3, error);
    int code = ptier_l3_prepare(&l3->writer, L3_STATEMENTS);
    if (code != SQLITE_OK && !ptier_l3_is_damage(code))
        return fail(l3, code, error);
    status = read_meta(l3, &found, error);
    if (status == PTIER_OK && (!is_damaged(l3) || found.application != 0))
        status = judge_owner(l3, &found, error);
    if (status != PTIER_OK)
        return status;
    l3->keys = found.keys_found == L3_FOUND_GOOD ? found.keys : found.keys_copy;
    ptier_l3_note(l3, code); /* now that it is ours, words that do not fit are damage */
    if (!unused_version_1(&found))
        status = judge_keys(l3, &found, error);
    if (status == PTIER_OK && !is_damaged(l3) && found.version < SCHEMA_VERSION)
        status = migrate_1(l3, &found, error);
    if (status == PTIER_OK && !is_damaged(l3))
        status = write_ahead(l3, error);
    if (status == PTIER_OK && !is_damaged(l3) && found.totals_found == L3_FOUND_GOOD)
        status = add_key(l3, &found, error);
    if (status == PTIER_DATA_LOSS)
        status = PTIER_OK; /* noted */
    if (status != PTIER_OK)
        return status;
    take_totals(l3, &found);
    if (is_damaged(l3) && !l3->writer.lenient)
        ptier_l3_make_lenient(&l3->writer);
    return PTIER_OK;
}
