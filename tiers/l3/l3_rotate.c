/* Rotation of keys: rows of an older key are sealed and checked anew with the first one, in place;
 * then the file is copied, to be rid of what the pages have beside the rows. */
#include "l3/l3_internal.h"

#include <unistd.h>

#include <openssl/crypto.h>

#include "file.h"

#define TOKEN_ROOM (PTIER_TOKEN_LENGTH(PTIER_CREDENTIAL_MAX) + 1)
#define PLAIN_ROOM (TOKEN_ROOM / 4 * 3)

typedef struct resealed {
    ptier_l3_row row;
    char username[TOKEN_ROOM], password[TOKEN_ROOM];
    bool changed;
} resealed;

/*
 * A token of an older key is made anew in `room`. DATA_LOSS: it cannot be opened; the record is
 * lost already, and get says so.
 */
static ptier_status
reseal(ptier_l3 *l3, ptier_l3_text *token, char room[TOKEN_ROOM], bool *changed)
{
    char plain[PLAIN_ROOM];
    size_t length = 0;
    int which = -1;
    if (!token->at)
        return PTIER_OK;
    if (token->length >= TOKEN_ROOM)
        return PTIER_DATA_LOSS;
    ptier_status status = ptier_keyring_open_which(l3->keyring, token->at, token->length, plain,
                                                   sizeof plain, &length, &which);
    if (status == PTIER_OK && length > PTIER_CREDENTIAL_MAX)
        status = PTIER_DATA_LOSS;
    if (status == PTIER_OK && which > 0) {
        status = ptier_keyring_seal(l3->keyring, plain, length, room);
        *token = (ptier_l3_text){room, PTIER_TOKEN_LENGTH(length)};
        *changed = true;
    }
    OPENSSL_cleanse(plain, sizeof plain);
    return status;
}

static ptier_status
store(ptier_l3 *l3, int64_t id, const resealed *made, ptier_error *error)
{
    uint8_t check[PTIER_CHECK_BYTES];
    ptier_status status = ptier_l3_row_check(l3, &made->row, l3->writer.canon, check);
    if (status != PTIER_OK)
        return ptier_fail(error, status, "cannot prepare a record for %s", l3->path);
    sqlite3_stmt *update = l3->writer.statements[L3_RESEAL];
    const ptier_l3_text *tokens[] = {&made->row.username, &made->row.password};
    (void)sqlite3_bind_blob(update, 1, check, sizeof check, SQLITE_TRANSIENT); /* all: as the run */
    for (int i = 0; i < 2; i++)
        (void)sqlite3_bind_text(update, 2 + i, tokens[i]->at, (int)tokens[i]->length,
                                SQLITE_TRANSIENT);
    (void)sqlite3_bind_int64(update, 4, id);
    int code = ptier_l3_run(update);
    return code == SQLITE_OK ? PTIER_OK : ptier_l3_fail(l3, &l3->writer, code, "write", error);
}

static ptier_status
rotate_usage(ptier_l3 *l3, sqlite3_stmt *rows, ptier_error *error)
{
    ptier_usage usage;
    int which;
    if (!ptier_l3_usage_read(l3, rows, &usage, &which) || which == 0)
        return PTIER_OK;
    sqlite3_stmt *put = l3->writer.statements[L3_PUT_USAGE];
    ptier_status status = ptier_l3_usage_bind(l3, put, sqlite3_column_int64(rows, L3_ID), &usage);
    if (status != PTIER_OK)
        return ptier_fail(error, status, "cannot prepare usage figures for %s", l3->path);
    int code = ptier_l3_run(put);
    return code == SQLITE_OK ? PTIER_OK : ptier_l3_fail(l3, &l3->writer, code, "write", error);
}

/* A row that no key of ours fits stays as it is. */
static ptier_status
rotate_row(ptier_l3 *l3, sqlite3_stmt *rows, uint64_t *rewritten, ptier_error *error)
{
    resealed made = {0};
    int which;
    if (ptier_l3_row_verify(l3, &l3->writer, rows, &made.row, &which) == PTIER_OK) {
        made.changed = which > 0;
        ptier_status status = reseal(l3, &made.row.username, made.username, &made.changed);
        if (status == PTIER_OK)
            status = reseal(l3, &made.row.password, made.password, &made.changed);
        if (status == PTIER_INTERNAL)
            return ptier_fail(error, status, "the crypto library (OpenSSL) failed");
        if (status == PTIER_OK && made.changed) {
            status = store(l3, sqlite3_column_int64(rows, L3_ID), &made, error);
            if (status != PTIER_OK)
                return status;
            ++*rewritten;
        }
    }
    return rotate_usage(l3, rows, error);
}

/* *last: id of the last row that was looked at, 0: there are no more. */
static ptier_status
rotate_some(ptier_l3 *l3, int64_t after, size_t limit, int64_t *last, uint64_t *rewritten,
            ptier_error *error)
{
    sqlite3_stmt *rows = l3->writer.statements[L3_ROTATE];
    ptier_status status = PTIER_OK;
    size_t seen = 0;
    int code = SQLITE_DONE;
    (void)sqlite3_bind_int64(rows, 1, after); /* cannot fail */
    (void)sqlite3_bind_int64(rows, 2, limit < INT64_MAX ? (int64_t)limit : INT64_MAX);
    while (status == PTIER_OK && (code = sqlite3_step(rows)) == SQLITE_ROW) {
        *last = sqlite3_column_int64(rows, L3_ID);
        seen++;
        status = rotate_row(l3, rows, rewritten, error);
    }
    (void)sqlite3_reset(rows); /* repeats code */
    if (status == PTIER_OK && code != SQLITE_DONE)
        status = ptier_l3_fail(l3, &l3->writer, code, "read", error);
    if (seen < limit)
        *last = 0;
    return status;
}

ptier_status
ptier_l3_reencrypt(ptier_tier *tier, uint64_t *cursor, size_t limit, uint64_t *rewritten,
                   ptier_error *error)
{
    ptier_l3 *l3 = ptier_l3_of(tier);
    uint64_t rows = 0;
    int64_t last = 0;
    ptier_l3_keys before = l3->keys;
    *rewritten = 0;
    ptier_status status = ptier_l3_begin(l3, error);
    if (status != PTIER_OK)
        return status;
    status = rotate_some(l3, (int64_t)*cursor, limit ? limit : 1, &last, &rows, error);
    if (status == PTIER_OK && last == 0) { /* nothing needs an older key any more */
        status = ptier_l3_write_key(l3, true, error);
        if (status == PTIER_OK)
            status = ptier_l3_write_totals(l3, &l3->next, error);
    }
    status = ptier_l3_end(l3, status, error);
    if (status != PTIER_OK) {
        l3->keys = before;
        return status;
    }
    *cursor = (uint64_t)last;
    *rewritten = rows;
    return PTIER_OK;
}

/* ---- free space ---- */

static ptier_status
copy_into(ptier_l3 *l3, const char *path, ptier_error *error)
{
    char *sql = sqlite3_mprintf("VACUUM INTO %Q", path);
    if (!sql)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    ptier_status status = ptier_l3_create_file(path, error);
    int code = status == PTIER_OK ? sqlite3_exec(l3->writer.db, sql, NULL, NULL, NULL) : SQLITE_OK;
    sqlite3_free(sql);
    if (code != SQLITE_OK)
        status = ptier_l3_fail(l3, &l3->writer, code, "copy", error);
    return status == PTIER_OK ? ptier_l3_make_durable(path, error) : status;
}

ptier_status
ptier_l3_rewrite(ptier_tier *tier, ptier_error *error)
{
    ptier_l3 *l3 = ptier_l3_of(tier);
    char path[PTIER_PATH_MAX];
    ptier_status status = ptier_l3_writable(l3, error);
    if (status != PTIER_OK)
        return status;
    if ((size_t)snprintf(path, sizeof path, "%s.new", l3->path) >= sizeof path)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "path too long: %.200s", l3->path);
    (void)unlink(path); /* of a copy or a rebuild that was cut short */
    status = copy_into(l3, path, error);
    if (status != PTIER_OK) {
        (void)unlink(path); /* best effort: nobody takes it for finished */
        return status;
    }
    return ptier_l3_adopt(tier, path, false, error);
}
