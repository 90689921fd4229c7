/*
 * For tiers/import/sqlite_*.c and import.c only: SQLite databases as inputs. What a database is
 * (sqlite_rows.c) apart from how it is gone through (sqlite_input.c). One importer, one thread.
 * Nothing is written to the database; what stands in it is not trusted.
 */
#ifndef PTIER_SQLITE_INPUT_H
#define PTIER_SQLITE_INPUT_H

#include <sqlite3.h>

#include "import/draft.h"

#define PTIER_SQLITE_COLUMNS 64 /* of one table that are looked at */

typedef struct ptier_sqlite_input {
    ptier_importer *importer; /* borrowed */
    sqlite3 *db;
    bool own; /* made by proxytier: else ProxyWhirl's */
    const char *table;

    /* The row: its rowid, then these columns. */
    sqlite3_stmt *rows;
    sqlite3_stmt *next; /* rowid alone, which may be legible where the row is not */
    ptier_field fields[PTIER_SQLITE_COLUMNS];
    char *names[PTIER_SQLITE_COLUMNS]; /* owned by sqlite3_malloc; of ProxyWhirl's only */
    size_t column_count;
    sqlite3_stmt *source, *usage; /* of own rows, by id */

    uint64_t row_limit;        /* more than this do not fit into the file */
    uint64_t seen, size, told; /* rows; bytes of the file; of those told as progress */
    int64_t first_row, last_row;
    ptier_draft draft;
} ptier_sqlite_input;

/*
 * Reads the whole database: hands records out, skips what is unreadable with its rowid and reason.
 * Errors as ptier_import_reader's feed, with the message in importer->error. `bytes`: of the file.
 */
PTIER_MUST_CHECK ptier_status ptier_sqlite_import(ptier_importer *importer, const char *path,
                                                  uint64_t bytes);

/* Finds out whose database it is and prepares the statements. A code of SQLite; SQLITE_ERROR: not
 * one that we know. */
PTIER_MUST_CHECK int ptier_sqlite_prepare(ptier_sqlite_input *input);

/* The row that `rows` stands on, as a draft: complete, or spoilt. */
void ptier_sqlite_row(ptier_sqlite_input *input);

#endif
