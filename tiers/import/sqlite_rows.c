/*
 * The two databases that are read: our own (a backup, or L3 itself; l3_schema.c makes it) and
 * ProxyWhirl's (L3, or L2 when that is a database). Columns are found by name: one that is missing
 * is not stated.
 */
#include "import/sqlite_input.h"

#include <string.h>

#include "import/text_util.h"

#define APPLICATION_ID 1347703122               /* "PTIR" */
#define TIME_MAX       INT64_C(253402300799999) /* the end of 9999 */

/* Columns of own rows, in the order of `own_columns`; 0 is the rowid. */
enum {
    OWN_KEY = 1,
    OWN_URL,
    OWN_USERNAME,
    OWN_PASSWORD,
    OWN_LABELS,
    OWN_SOURCE,
    OWN_FETCH_TIME,
    OWN_TTL,
    OWN_EXPIRES,
    OWN_HEALTH,
    OWN_FAILURES,
    OWN_REVALIDATE,
};

static const char *const own_columns[] = {
    "key",        "url", "username",     "password", "labels",   "source",
    "fetch_time", "ttl", "expires_wall", "health",   "failures", "revalidate",
};

enum { USAGE_LAST_ACCESS, USAGE_ACCESSES, USAGE_LATENCY, USAGE_SUCCESSES, USAGE_REPORTS };

static const char *const usage_columns[] = {
    "last_access", "accesses", "latency_us", "successes", "reports",
};

/* ---- what is there ---- */

/* A real table: a view or a virtual one could do anything. */
static int
has_table(sqlite3 *db, const char *table, bool *has)
{
    sqlite3_stmt *statement;
    int code = sqlite3_prepare_v2(
        db, "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 AND name = ?1", -1,
        &statement, NULL);
    if (code != SQLITE_OK)
        return code;
    (void)sqlite3_bind_text(statement, 1, table, -1, SQLITE_STATIC); /* one short text */
    code = sqlite3_step(statement);
    *has = code == SQLITE_ROW;
    (void)sqlite3_finalize(statement); /* repeats code */
    return code == SQLITE_ROW || code == SQLITE_DONE ? SQLITE_OK : code;
}

/* Its stored columns: computed ones are left out. The names are the caller's, also on failure. */
static int
list_columns(sqlite3 *db, const char *table, char *names[PTIER_SQLITE_COLUMNS], size_t *count)
{
    sqlite3_stmt *statement;
    *count = 0;
    int code =
        sqlite3_prepare_v2(db, "SELECT name FROM pragma_table_info(?1)", -1, &statement, NULL);
    if (code != SQLITE_OK)
        return code;
    (void)sqlite3_bind_text(statement, 1, table, -1, SQLITE_STATIC);
    while ((code = sqlite3_step(statement)) == SQLITE_ROW && *count < PTIER_SQLITE_COLUMNS) {
        names[*count] = sqlite3_mprintf("%s", sqlite3_column_text(statement, 0));
        if (!names[*count])
            break;
        ++*count;
    }
    (void)sqlite3_finalize(statement);
    if (code == SQLITE_ROW && *count < PTIER_SQLITE_COLUMNS)
        return SQLITE_NOMEM;
    return code == SQLITE_ROW || code == SQLITE_DONE ? SQLITE_OK : code;
}

static void
free_names(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        sqlite3_free(names[i]);
}

/* Prepares "SELECT rowid, <wanted> FROM <table> <rest>"; NULL for what the table does not have. */
static int
prepare(sqlite3 *db, const char *table, const char *const *wanted, size_t wanted_count,
        const char *rest, sqlite3_stmt **statement)
{
    char *has[PTIER_SQLITE_COLUMNS];
    size_t has_count;
    int code = list_columns(db, table, has, &has_count);
    sqlite3_str *sql = sqlite3_str_new(db);
    sqlite3_str_appendall(sql, "SELECT rowid");
    for (size_t i = 0; i < wanted_count; i++) {
        bool found = false;
        for (size_t j = 0; !found && j < has_count; j++)
            found = sqlite3_stricmp(wanted[i], has[j]) == 0;
        sqlite3_str_appendf(sql, found ? ", \"%w\"" : ", NULL", wanted[i]);
    }
    sqlite3_str_appendf(sql, " FROM \"%w\" NOT INDEXED %s", table, rest);
    free_names(has, has_count);
    char *text = sqlite3_str_finish(sql);
    if (code == SQLITE_OK)
        code = text ? sqlite3_prepare_v2(db, text, -1, statement, NULL) : SQLITE_NOMEM;
    sqlite3_free(text);
    return code;
}

/* ---- whose it is ---- */

static int
prepare_scan(ptier_sqlite_input *input, const char *const *wanted, size_t count)
{
    int code = prepare(input->db, input->table, wanted, count, "WHERE rowid >= ?1 ORDER BY rowid",
                       &input->rows);
    if (code == SQLITE_OK)
        code = prepare(input->db, input->table, NULL, 0, "WHERE rowid >= ?1 ORDER BY rowid LIMIT 1",
                       &input->next);
    return code;
}

static int
prepare_own(ptier_sqlite_input *input)
{
    static const char *const name[] = {"name"};
    input->own = true;
    input->table = "entries";
    int code = prepare_scan(input, own_columns, sizeof own_columns / sizeof *own_columns);
    if (code == SQLITE_OK)
        code = prepare(input->db, "sources", name, 1, "WHERE rowid = ?1", &input->source);
    if (code == SQLITE_OK)
        code =
            prepare(input->db, "usage", usage_columns, sizeof usage_columns / sizeof *usage_columns,
                    "WHERE rowid = ?1", &input->usage);
    return code;
}

static int
prepare_proxywhirl(ptier_sqlite_input *input, const char *table)
{
    bool address = false;
    input->table = table;
    int code = list_columns(input->db, table, input->names, &input->column_count);
    for (size_t i = 0; i < input->column_count; i++) {
        input->fields[i] = ptier_field_find(input->names[i], strlen(input->names[i]));
        address = address || input->fields[i] == PTIER_FIELD_URL;
    }
    if (code == SQLITE_OK && !address)
        return SQLITE_ERROR;
    if (code == SQLITE_OK)
        code = prepare_scan(input, (const char *const *)input->names, input->column_count);
    return code;
}

int
ptier_sqlite_prepare(ptier_sqlite_input *input)
{
    static const char *const theirs[] = {"cache_entries", "l2_cache"};
    sqlite3_stmt *statement;
    bool found = false;
    int code = sqlite3_prepare_v2(input->db, "PRAGMA application_id", -1, &statement, NULL);
    if (code == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW)
        found = sqlite3_column_int(statement, 0) == APPLICATION_ID;
    if (code == SQLITE_OK)
        code = sqlite3_finalize(statement);
    if (code == SQLITE_OK && found) {
        code = has_table(input->db, "entries", &found);
        return code == SQLITE_OK && found ? prepare_own(input) : code ? code : SQLITE_ERROR;
    }
    for (size_t i = 0; code == SQLITE_OK && i < sizeof theirs / sizeof *theirs; i++) {
        code = has_table(input->db, theirs[i], &found);
        if (code == SQLITE_OK && found)
            return prepare_proxywhirl(input, theirs[i]);
    }
    return code == SQLITE_OK ? SQLITE_ERROR : code;
}

/* ---- own rows ---- */

/* Absent leaves *value as it is. */
static void
take_number(ptier_draft *draft, sqlite3_stmt *row, int column, int64_t max, int64_t *value)
{
    int type = sqlite3_column_type(row, column);
    int64_t number = sqlite3_column_int64(row, column);
    if (type == SQLITE_NULL)
        return;
    if (type != SQLITE_INTEGER || number < 0 || number > max)
        ptier_draft_spoil(draft, "a number in the row is out of range");
    else
        *value = number;
}

static void
take_text(ptier_draft *draft, sqlite3_stmt *row, int column, ptier_field field)
{
    const char *text = (const char *)sqlite3_column_text(row, column);
    if (text)
        ptier_draft_set(draft, field, "", 0, text, (size_t)sqlite3_column_bytes(row, column));
    else if (sqlite3_column_type(row, column) != SQLITE_NULL)
        ptier_draft_spoil(draft, "out of memory");
}

/* name NUL value NUL ... */
static void
take_labels(ptier_draft *draft, sqlite3_stmt *row)
{
    const char *at = sqlite3_column_blob(row, OWN_LABELS);
    const char *end = at ? at + sqlite3_column_bytes(row, OWN_LABELS) : NULL;
    while (at < end) {
        const char *value = memchr(at, '\0', (size_t)(end - at));
        const char *stop = value ? memchr(value + 1, '\0', (size_t)(end - value - 1)) : NULL;
        if (!stop) {
            ptier_draft_spoil(draft, "the labels are damaged");
            return;
        }
        ptier_draft_label(draft, at, (size_t)(value - at), value + 1, (size_t)(stop - value - 1));
        at = stop + 1;
    }
}

/* The row of another table that belongs to this one. False: none that can be read. */
static bool
find_row(sqlite3_stmt *statement, int64_t id)
{
    (void)sqlite3_reset(statement);             /* of the row before */
    (void)sqlite3_bind_int64(statement, 1, id); /* cannot fail */
    return sqlite3_step(statement) == SQLITE_ROW;
}

static void
take_source(ptier_sqlite_input *input)
{
    if (find_row(input->source, sqlite3_column_int64(input->rows, OWN_SOURCE)))
        take_text(&input->draft, input->source, 1, PTIER_FIELD_SOURCE);
    else
        ptier_draft_spoil(&input->draft, "the name of its source cannot be read");
    (void)sqlite3_reset(input->source); /* its text was copied */
}

/* What cannot be read of the figures counts as never used: they are no part of the record. */
static void
take_usage(ptier_sqlite_input *input)
{
    ptier_record *record = &input->draft.out.record;
    int64_t figures[sizeof usage_columns / sizeof *usage_columns] = {0};
    if (find_row(input->usage, sqlite3_column_int64(input->rows, 0)))
        for (int i = 0; i < (int)(sizeof figures / sizeof *figures); i++)
            if (sqlite3_column_int64(input->usage, i + 1) >= 0)
                figures[i] = sqlite3_column_int64(input->usage, i + 1);
    (void)sqlite3_reset(input->usage); /* its numbers were copied */
    if (figures[USAGE_LAST_ACCESS] <= TIME_MAX)
        record->last_access_ms = figures[USAGE_LAST_ACCESS];
    record->access_count = (uint64_t)figures[USAGE_ACCESSES];
    record->latency_ms = (double)figures[USAGE_LATENCY] / 1000;
    record->success_count = (uint64_t)figures[USAGE_SUCCESSES];
    record->report_count = (uint64_t)figures[USAGE_REPORTS];
}

static void
own_row(ptier_sqlite_input *input)
{
    ptier_draft *draft = &input->draft;
    ptier_record *record = &draft->out.record;
    sqlite3_stmt *row = input->rows;
    int64_t health = PTIER_HEALTH_UNKNOWN, failures = 0, revalidate = 0;
    draft->out.restore = true;
    take_text(draft, row, OWN_KEY, PTIER_FIELD_KEY);
    take_text(draft, row, OWN_URL, PTIER_FIELD_URL);
    take_text(draft, row, OWN_USERNAME, PTIER_FIELD_USERNAME_TOKEN);
    take_text(draft, row, OWN_PASSWORD, PTIER_FIELD_PASSWORD_TOKEN);
    take_labels(draft, row);
    take_source(input);
    take_number(draft, row, OWN_FETCH_TIME, TIME_MAX, &record->fetch_time_ms);
    take_number(draft, row, OWN_TTL, PTIER_TTL_MAX_MS, &record->ttl_ms);
    take_number(draft, row, OWN_EXPIRES, TIME_MAX, &record->expires_at_ms);
    take_number(draft, row, OWN_HEALTH, PTIER_HEALTH_UNKNOWN, &health);
    take_number(draft, row, OWN_FAILURES, PTIER_FAILURES_UNSTATED - 1, &failures);
    take_number(draft, row, OWN_REVALIDATE, 1, &revalidate);
    record->health = (ptier_health)health;
    record->failure_count = (uint32_t)failures;
    record->needs_revalidation = revalidate != 0;
    take_usage(input);
}

/* ---- ProxyWhirl's rows ---- */

static void
proxywhirl_row(ptier_sqlite_input *input)
{
    for (size_t i = 0; i < input->column_count; i++) {
        int column = (int)i + 1;
        char number[64];
        const char *text = (const char *)sqlite3_column_text(input->rows, column);
        size_t length = (size_t)sqlite3_column_bytes(input->rows, column);
        if (sqlite3_column_type(input->rows, column) == SQLITE_FLOAT) {
            /* Not with the 15 digits that SQLite shows: microseconds need 16. */
            (void)sqlite3_snprintf(sizeof number, number, "%.6f",
                                   sqlite3_column_double(input->rows, column));
            text = number;
            length = strlen(number);
        }
        if (text)
            ptier_draft_set(&input->draft, input->fields[i], input->names[i],
                            strlen(input->names[i]), text, length);
    }
    input->draft.cached = true;
}

void
ptier_sqlite_row(ptier_sqlite_input *input)
{
    if (input->own)
        own_row(input);
    else
        proxywhirl_row(input);
}
