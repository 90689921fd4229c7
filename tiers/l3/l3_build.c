/*
 * A new database from entries, in one go: rows are appended without a journal, the index is made at
 * the end, and one fsync makes it last. A file that is not finished is deleted, whole.
 */
#include "l3/l3_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "file.h"

struct ptier_l3_builder {
    ptier_l3 *l3; /* a tier of which only the writer is open */
    bool failed;  /* without a journal nothing was undone: good for abort alone */
};

static ptier_status
fail(ptier_l3 *l3, int code, ptier_error *error)
{
    return code == SQLITE_OK ? PTIER_OK : ptier_l3_fail(l3, &l3->writer, code, "build", error);
}

static int
exec(ptier_l3 *l3, const char *sql)
{
    return sqlite3_exec(l3->writer.db, sql, NULL, NULL, NULL);
}

void
ptier_l3_builder_abort(ptier_l3_builder *builder)
{
    if (!builder)
        return;
    ptier_l3 *l3 = builder->l3;
    ptier_l3_close_connection(&l3->writer, true);
    (void)unlink(l3->path); /* best effort: nobody takes it for finished */
    ptier_l3_remove_companions(l3->path);
    ptier_l3_free(l3);
    free(builder);
}

ptier_status
ptier_l3_create_file(const char *path, ptier_error *error)
{
    int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file < 0)
        return ptier_fail_errno(error, errno, "cannot create database %s", path);
    (void)close(file); /* empty */
    ptier_l3_remove_companions(path);
    return PTIER_OK;
}

static ptier_status
start(ptier_l3 *l3, ptier_error *error)
{
    int code = ptier_l3_open_connection(l3, &l3->writer,
                                        "PRAGMA auto_vacuum=INCREMENTAL;"
                                        "PRAGMA journal_mode=OFF;"
                                        "PRAGMA synchronous=OFF;"
                                        "PRAGMA locking_mode=EXCLUSIVE;"
                                        "PRAGMA temp_store=MEMORY;"
                                        "PRAGMA cache_size=-32768;"
                                        "BEGIN IMMEDIATE;");
    if (code == SQLITE_OK)
        code = ptier_l3_create_tables(l3);
    if (code == SQLITE_OK)
        code = ptier_l3_prepare(&l3->writer, L3_STATEMENTS);
    return ptier_l3_is_damage(code) ? PTIER_OK : fail(l3, code, error); /* the index is to come */
}

ptier_status
ptier_l3_builder_create(const char *path, const ptier_l3_options *options,
                        ptier_l3_builder **builder, ptier_error *error)
{
    ptier_l3_builder *made = calloc(1, sizeof *made);
    if (made)
        made->l3 = ptier_l3_allocate(path, options);
    if (!made || !made->l3) {
        free(made);
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    }
    ptier_status status = ptier_l3_create_file(path, error);
    if (status != PTIER_OK) {
        ptier_l3_free(made->l3);
        free(made);
        return status;
    }
    status = start(made->l3, error);
    if (status != PTIER_OK)
        ptier_l3_builder_abort(made);
    else
        *builder = made;
    return status;
}

ptier_status
ptier_l3_builder_add(ptier_l3_builder *builder, const ptier_op *ops, size_t count,
                     ptier_error *error)
{
    ptier_status status = PTIER_OK;
    for (size_t i = 0; status == PTIER_OK && i < count; i++)
        status = ptier_l3_insert(builder->l3, &ops[i], error);
    builder->failed |= status != PTIER_OK;
    return status;
}

/* ---- the end ---- */

/* Deletes all rows of a hash but the newest of each key. */
static int
drop_losers(ptier_l3 *l3, int64_t key64)
{
    sqlite3_stmt *loser = l3->writer.statements[L3_LOSER];
    for (;;) {
        (void)sqlite3_bind_int64(loser, 1, key64); /* cannot fail */
        int code = sqlite3_step(loser);
        int64_t id = sqlite3_column_int64(loser, 0), revision = sqlite3_column_int64(loser, 1);
        (void)sqlite3_reset(loser); /* repeats code */
        if (code != SQLITE_ROW)
            return code == SQLITE_DONE ? SQLITE_OK : code;
        code = ptier_l3_delete(l3, id, (uint64_t)key64, (uint64_t)revision);
        if (code != SQLITE_OK)
            return code;
    }
}

/* The hashes that more than one row has, as an owned array. */
static int
find_repeated(ptier_l3 *l3, int64_t **hashes, size_t *count)
{
    sqlite3_stmt *index = l3->writer.statements[L3_INDEX];
    size_t room = 0;
    int64_t last = 0;
    bool first = true;
    int code;
    (void)sqlite3_bind_int64(index, 1, INT64_MIN); /* cannot fail */
    (void)sqlite3_bind_int64(index, 2, INT64_MIN);
    while ((code = sqlite3_step(index)) == SQLITE_ROW) {
        int64_t key64 = sqlite3_column_int64(index, 0);
        bool repeated = !first && key64 == last;
        first = false;
        last = key64;
        if (!repeated || (*count && (*hashes)[*count - 1] == key64))
            continue;
        if (*count == room) {
            room = room ? 2 * room : 64;
            int64_t *more = realloc(*hashes, room * sizeof **hashes);
            if (!more) {
                code = SQLITE_NOMEM;
                break;
            }
            *hashes = more;
        }
        (*hashes)[(*count)++] = key64;
    }
    (void)sqlite3_reset(index); /* repeats code */
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

/* One row a key, and no pages of those that were dropped. */
static int
tidy(ptier_l3 *l3)
{
    int64_t *hashes = NULL;
    size_t count = 0;
    int code = find_repeated(l3, &hashes, &count);
    for (size_t i = 0; code == SQLITE_OK && i < count; i++)
        code = drop_losers(l3, hashes[i]);
    free(hashes);
    if (code == SQLITE_OK && count)
        code = exec(l3, "PRAGMA incremental_vacuum");
    return code;
}

static ptier_status
complete(ptier_l3 *l3, uint64_t prefix, ptier_error *error)
{
    int code = exec(l3, ptier_l3_index_sql);
    if (code == SQLITE_OK)
        code = ptier_l3_prepare(&l3->writer, L3_STATEMENTS);
    if (code == SQLITE_OK)
        code = tidy(l3);
    ptier_status status = fail(l3, code, error);
    if (status == PTIER_OK)
        status = ptier_l3_write_key(l3, true, error);
    l3->next.prefix = prefix;
    if (status == PTIER_OK)
        status = ptier_l3_write_totals(l3, &l3->next, error);
    if (status == PTIER_OK)
        status = fail(l3, exec(l3, "COMMIT"), error);
    ptier_l3_close_connection(&l3->writer, true);
    return status;
}

ptier_status
ptier_l3_make_durable(const char *path, ptier_error *error)
{
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0)
        return ptier_fail_errno(error, errno, "cannot open %s", path);
    ptier_status status = PTIER_OK;
    if (fsync(file))
        status = ptier_fail_errno(error, errno, "cannot sync %s", path);
    (void)close(file); /* synced */
    return status == PTIER_OK ? ptier_l3_sync_directory_of(path, error) : status;
}

ptier_status
ptier_l3_builder_finish(ptier_l3_builder *builder, uint64_t prefix, ptier_error *error)
{
    ptier_l3 *l3 = builder->l3;
    ptier_status status = PTIER_OK;
    if (builder->failed)
        status =
            ptier_fail(error, PTIER_FAILED_PRECONDITION, "building %s failed before", l3->path);
    if (status == PTIER_OK)
        status = complete(l3, prefix, error);
    if (status == PTIER_OK)
        status = ptier_l3_make_durable(l3->path, error);
    if (status != PTIER_OK) {
        ptier_l3_builder_abort(builder);
        return status;
    }
    ptier_l3_free(l3);
    free(builder);
    return PTIER_OK;
}
