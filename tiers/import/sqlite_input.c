/*
 * Going through a database row by row, past what is damaged. Rows are taken in the order of their
 * rowid, so that the scan can be taken up again behind a damaged row or page.
 */
#include "import/sqlite_input.h"

#include <stdlib.h>
#include <string.h>

#define VALUE_MAX       (1 << 20) /* of one column: a damaged length allocates no more than this */
#define BUSY_TIMEOUT_MS 5000
#define SMALLEST_ROW    16 /* bytes: an address alone is as long */
#define PROGRESS_ROWS   1000

/* ---- opening ---- */

static ptier_status
fail(const ptier_sqlite_input *input, int code)
{
    const ptier_importer *importer = input->importer;
    switch (code & 0xff) {
    case SQLITE_NOMEM:
        return PTIER_RESOURCE_EXHAUSTED;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return ptier_fail(importer->error, PTIER_UNAVAILABLE,
                          "%s: another program is writing to the database: try again",
                          importer->name);
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
        return ptier_fail(importer->error, PTIER_UNAVAILABLE,
                          "%s: the database was left open and cannot be read where it is: copy it, "
                          "with the -wal or -journal beside it, to a directory of your own",
                          importer->name);
    case SQLITE_ERROR:
        return ptier_fail(importer->error, PTIER_INVALID_ARGUMENT,
                          "%s: a database, but neither a backup of proxytier nor a cache of "
                          "ProxyWhirl (table cache_entries or l2_cache)",
                          importer->name);
    default:
        return ptier_fail(importer->error, PTIER_INVALID_ARGUMENT,
                          "%s: the database is damaged: %s", importer->name, sqlite3_errstr(code));
    }
}

static int
query_number(sqlite3 *db, const char *sql, int64_t *value)
{
    sqlite3_stmt *statement;
    int code = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);
    if (code != SQLITE_OK)
        return code;
    code = sqlite3_step(statement);
    if (code == SQLITE_ROW)
        *value = sqlite3_column_int64(statement, 0);
    (void)sqlite3_finalize(statement); /* repeats code */
    return code == SQLITE_ROW ? SQLITE_OK : code;
}

static int
open_database(ptier_sqlite_input *input, const char *path)
{
    /* A relative name must not be taken for a URI, which could carry options. */
    char *name = sqlite3_mprintf("%s%s", path[0] == '/' ? "" : "./", path);
    if (!name)
        return SQLITE_NOMEM;
    int code = sqlite3_open_v2(name, &input->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL);
    sqlite3_free(name);
    if (code != SQLITE_OK)
        return code;
    (void)sqlite3_busy_timeout(input->db,
                               BUSY_TIMEOUT_MS); /* these cannot fail on an open handle */
    (void)sqlite3_limit(input->db, SQLITE_LIMIT_LENGTH, VALUE_MAX);
    (void)sqlite3_db_config(input->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    (void)sqlite3_db_config(input->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    return sqlite3_exec(input->db, "PRAGMA query_only=ON; PRAGMA cell_size_check=ON;", NULL, NULL,
                        NULL);
}

/* How far the rows go, for progress and as a bound for a tree that damage has bent into a loop. */
static void
measure(ptier_sqlite_input *input)
{
    int64_t pages = 0, page_size = 0;
    bool known = query_number(input->db, "PRAGMA page_count", &pages) == SQLITE_OK &&
                 query_number(input->db, "PRAGMA page_size", &page_size) == SQLITE_OK;
    uint64_t bytes = known ? (uint64_t)pages * (uint64_t)page_size : 0;
    input->row_limit = (bytes > input->size ? bytes : input->size) / SMALLEST_ROW;
    char *sql = sqlite3_mprintf("SELECT max(rowid) FROM \"%w\"", input->table);
    input->last_row = INT64_MAX;
    if (sql)
        (void)query_number(input->db, sql, &input->last_row); /* damaged: the scan will tell */
    sqlite3_free(sql);
}

static void
close_database(ptier_sqlite_input *input)
{
    sqlite3_stmt *const statements[] = {input->rows, input->next, input->source, input->usage};
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++)
        (void)sqlite3_finalize(statements[i]); /* repeats an error that was dealt with */
    for (size_t i = 0; i < input->column_count; i++)
        sqlite3_free(input->names[i]);
    (void)sqlite3_close(input->db); /* no statement is left that could keep it open */
    ptier_draft_fini(&input->draft);
}

/* ---- going through ---- */

static bool
is_damage(int code)
{
    switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_IOERR:
    case SQLITE_TOOBIG:
    case SQLITE_FORMAT:
        return true;
    default:
        return false;
    }
}

static void
tell_progress(ptier_sqlite_input *input, int64_t row)
{
    const ptier_import_options *options = input->importer->options;
    double whole = (double)input->last_row - (double)input->first_row;
    double part = whole > 0 ? ((double)row - (double)input->first_row) / whole : 0;
    uint64_t bytes = part < 1 ? (uint64_t)(part * (double)input->size) : input->size;
    if (!options->on_progress || bytes <= input->told)
        return;
    input->told = bytes;
    options->on_progress(options->context, bytes, input->size);
}

/* The first row from `from` on, by its rowid alone. SQLITE_ROW, SQLITE_DONE, or an error. */
static int
next_row(ptier_sqlite_input *input, int64_t from, int64_t *row)
{
    (void)sqlite3_bind_int64(input->next, 1, from); /* cannot fail */
    int code = sqlite3_step(input->next);
    if (code == SQLITE_ROW)
        *row = sqlite3_column_int64(input->next, 0);
    (void)sqlite3_reset(input->next); /* repeats code */
    return code == SQLITE_ROW && *row < from ? SQLITE_CORRUPT : code;
}

/*
 * The end of a stretch whose very rowids are illegible: the smallest one behind it that can be read
 * from. False: nothing more can.
 */
static bool
find_legible(ptier_sqlite_input *input, int64_t from, int64_t *found)
{
    int64_t bad = from, good, row, step = 1;
    for (;;) {
        if (__builtin_add_overflow(from, step, &good) || good > input->last_row)
            return false;
        int code = next_row(input, good, &row);
        if (code == SQLITE_ROW)
            break;
        if (code == SQLITE_DONE)
            return false;
        bad = good;
        if (__builtin_mul_overflow(step, (int64_t)2, &step))
            return false;
    }
    while (good - bad > 1) {
        int64_t middle = bad + (good - bad) / 2;
        if (next_row(input, middle, &row) == SQLITE_ROW)
            good = middle;
        else
            bad = middle;
    }
    *found = good;
    return true;
}

/* The scan stopped at `from` or just behind. False: there is nothing to go on with. */
static bool
step_over(ptier_sqlite_input *input, int code, int64_t *from)
{
    int64_t row;
    char reason[PTIER_REASON_ROOM];
    int next = next_row(input, *from, &row);
    if (next == SQLITE_ROW) {
        (void)snprintf(reason, sizeof reason, "the row cannot be read: %s", sqlite3_errstr(code));
        ptier_importer_skip(input->importer, (uint64_t)row, reason);
        *from = row + (row < INT64_MAX);
        return row < INT64_MAX;
    }
    if (next == SQLITE_DONE) /* what is damaged is behind the last row */
        return false;
    if (*from < 1)
        *from = 1; /* rowids are counted from there */
    bool found = find_legible(input, *from, &row);
    if (found)
        (void)snprintf(reason, sizeof reason,
                       "the database is damaged: what it had up to row %lld cannot be read",
                       (long long)row - 1);
    else
        (void)snprintf(reason, sizeof reason,
                       "the database is damaged: what it had from here on cannot be read");
    ptier_importer_skip(input->importer, (uint64_t)*from, reason);
    if (found)
        *from = row;
    return found;
}

static ptier_status
take_row(ptier_sqlite_input *input, int64_t row)
{
    if (input->seen++ == 0)
        input->first_row = row;
    if (input->seen > input->row_limit)
        return ptier_fail(input->importer->error, PTIER_INVALID_ARGUMENT,
                          "%s: the database is damaged: it gives more rows than fit into it",
                          input->importer->name);
    ptier_draft_reset(&input->draft);
    ptier_sqlite_row(input);
    if (!ptier_draft_emit(&input->draft, input->importer->scheme, (uint64_t)row))
        return PTIER_CANCELLED;
    if (input->seen % PROGRESS_ROWS == 0)
        tell_progress(input, row);
    return PTIER_OK;
}

/* From *from on, as far as it goes. OK: *code says why it ended, and *from where. */
static ptier_status
scan(ptier_sqlite_input *input, int64_t *from, int *code)
{
    ptier_status status = PTIER_OK;
    (void)sqlite3_bind_int64(input->rows, 1, *from); /* cannot fail */
    while (status == PTIER_OK && (*code = sqlite3_step(input->rows)) == SQLITE_ROW) {
        int64_t row = sqlite3_column_int64(input->rows, 0);
        if (row < *from) {
            *code = SQLITE_CORRUPT;
            break;
        }
        status = take_row(input, row);
        if (row == INT64_MAX) {
            *code = SQLITE_DONE;
            break;
        }
        *from = row + 1;
    }
    (void)sqlite3_reset(input->rows); /* repeats *code */
    return status;
}

static ptier_status
go_through(ptier_sqlite_input *input)
{
    int64_t from = INT64_MIN;
    for (;;) {
        int code = SQLITE_DONE;
        ptier_status status = scan(input, &from, &code);
        if (status != PTIER_OK)
            return status;
        if (code == SQLITE_DONE)
            break;
        if (!is_damage(code))
            return fail(input, code);
        if (!step_over(input, code, &from))
            break;
    }
    tell_progress(input, input->last_row);
    return PTIER_OK;
}

ptier_status
ptier_sqlite_import(ptier_importer *importer, const char *path, uint64_t bytes)
{
    ptier_sqlite_input *input = calloc(1, sizeof *input);
    if (!input)
        return PTIER_RESOURCE_EXHAUSTED;
    input->importer = importer;
    input->size = bytes;
    ptier_draft_init(&input->draft, importer);
    int code = open_database(input, path);
    if (code == SQLITE_OK)
        code = ptier_sqlite_prepare(input);
    ptier_status status = code == SQLITE_OK ? PTIER_OK : fail(input, code);
    if (status == PTIER_OK) {
        measure(input);
        status = go_through(input);
    }
    close_database(input);
    free(input);
    return status;
}
