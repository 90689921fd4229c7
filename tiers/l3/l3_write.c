/* Writing L3: the writer thread only. */
#include "l3/l3_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define FNV_BASIS UINT32_C(2166136261)
#define FNV_PRIME UINT32_C(16777619)

int
ptier_l3_run(sqlite3_stmt *statement)
{
    int code = sqlite3_step(statement);
    while (code == SQLITE_ROW)
        code = sqlite3_step(statement);
    (void)sqlite3_reset(statement); /* repeats code */
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

static int
run_with(ptier_l3 *l3, ptier_l3_statement which, int64_t argument)
{
    sqlite3_stmt *statement = l3->writer.statements[which];
    (void)sqlite3_bind_int64(statement, 1, argument); /* a failed bind shows in the run */
    return ptier_l3_run(statement);
}

/* ---- transactions ---- */

static int
begin(ptier_l3 *l3)
{
    l3->count_change = 0;
    return ptier_l3_run(l3->writer.statements[L3_BEGIN]);
}

static void
roll_back(ptier_l3 *l3)
{
    /* A full disk makes SQLite roll back by itself. */
    if (!sqlite3_get_autocommit(l3->writer.db))
        (void)ptier_l3_run(l3->writer.statements[L3_ROLLBACK]); /* the first error is reported */
    memset(l3->writer.sources, 0, sizeof l3->writer.sources);   /* may name what is undone */
}

static int
commit(ptier_l3 *l3)
{
    int code = ptier_l3_run(l3->writer.statements[L3_COMMIT]);
    if (code != SQLITE_OK)
        return code;
    atomic_fetch_add(&l3->count, (uint64_t)l3->count_change);
    ptier_l3_measure(l3);
    return SQLITE_OK;
}

static int
set_synchronous(ptier_l3 *l3, bool full)
{
    return sqlite3_exec(l3->writer.db,
                        full ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL", NULL, NULL,
                        NULL);
}

/* ---- one change ---- */

typedef struct found {
    int64_t id; /* 0: none */
    uint64_t revision;
} found;

/* The row of a key (NULL: of a revision) among those that share its hash. */
static int
find(ptier_l3 *l3, uint64_t hash, const char *key, uint64_t revision, found *row)
{
    sqlite3_stmt *query = l3->writer.statements[L3_FIND];
    *row = (found){0};
    (void)sqlite3_bind_int64(query, 1, (int64_t)hash); /* cannot fail */
    int code;
    while ((code = sqlite3_step(query)) == SQLITE_ROW) {
        uint64_t its_revision = (uint64_t)sqlite3_column_int64(query, 1);
        const char *its_key = (const char *)sqlite3_column_text(query, 2);
        if (key ? its_key && strcmp(key, its_key) == 0 : its_revision == revision) {
            *row = (found){sqlite3_column_int64(query, 0), its_revision};
            break;
        }
    }
    (void)sqlite3_reset(query); /* repeats code */
    return code == SQLITE_ROW || code == SQLITE_DONE ? SQLITE_OK : code;
}

static ptier_l3_source *
source_slot(ptier_l3 *l3, const char *name)
{
    uint32_t hash = FNV_BASIS;
    for (const char *c = name; *c; c++)
        hash = (hash ^ (unsigned char)*c) * FNV_PRIME;
    return &l3->writer.sources[hash % PTIER_L3_SOURCES];
}

/* The small integer of a source, made if it is new. */
static int
source_id(ptier_l3 *l3, const char *name, int64_t *id)
{
    ptier_l3_source *slot = source_slot(l3, name);
    if (slot->id && strcmp(slot->name, name) == 0) {
        *id = slot->id;
        return SQLITE_OK;
    }
    if (strlen(name) > PTIER_SOURCE_MAX)
        return SQLITE_TOOBIG;
    sqlite3_stmt *query = l3->writer.statements[L3_SOURCE_ID];
    (void)sqlite3_bind_text(query, 1, name, -1, SQLITE_STATIC); /* shows in the step */
    int code = sqlite3_step(query);
    if (code == SQLITE_ROW)
        *id = sqlite3_column_int64(query, 0);
    (void)sqlite3_reset(query); /* repeats code */
    if (code == SQLITE_DONE) {
        sqlite3_stmt *add = l3->writer.statements[L3_ADD_SOURCE];
        (void)sqlite3_bind_text(add, 1, name, -1, SQLITE_STATIC);
        code = ptier_l3_run(add);
        *id = sqlite3_last_insert_rowid(l3->writer.db);
    }
    if (code != SQLITE_ROW && code != SQLITE_OK)
        return code;
    slot->id = *id;
    strcpy(slot->name, name);
    return SQLITE_OK;
}

static ptier_status
fail(ptier_l3 *l3, int code, ptier_error *error)
{
    return code == SQLITE_OK ? PTIER_OK : ptier_l3_fail(l3, &l3->writer, code, "write", error);
}

static ptier_status
put_usage(ptier_l3 *l3, int64_t id, const ptier_usage *usage, ptier_error *error)
{
    sqlite3_stmt *put = l3->writer.statements[L3_PUT_USAGE];
    ptier_status status = ptier_l3_usage_bind(l3, put, id, usage);
    if (status != PTIER_OK)
        return ptier_fail(error, status, "cannot prepare usage figures for %s", l3->path);
    return fail(l3, ptier_l3_run(put), error);
}

/* The entry is the truth: figures of a former life of the row go. */
static ptier_status
put_entry_usage(ptier_l3 *l3, int64_t id, bool existed, ptier_entry *entry, ptier_error *error)
{
    ptier_usage usage = {
        .last_access_ms = atomic_load_explicit(&entry->last_access_ms, memory_order_relaxed),
        .access_count = atomic_load_explicit(&entry->access_count, memory_order_relaxed),
        .latency_us = atomic_load_explicit(&entry->latency_us, memory_order_relaxed),
        .success_count = atomic_load_explicit(&entry->success_count, memory_order_relaxed),
        .report_count = atomic_load_explicit(&entry->report_count, memory_order_relaxed),
    };
    if (usage.last_access_ms || usage.access_count || usage.report_count)
        return put_usage(l3, id, &usage, error);
    return existed ? fail(l3, run_with(l3, L3_DELETE_USAGE, id), error) : PTIER_OK;
}

static ptier_status
put_entry(ptier_l3 *l3, const ptier_op *op, const found *row, ptier_error *error)
{
    const char *key = ptier_entry_key(op->entry);
    sqlite3_stmt *put = l3->writer.statements[row->id ? L3_UPDATE : L3_INSERT];
    int64_t source = 0;
    int code = source_id(l3, ptier_entry_source(op->entry), &source);
    if (code != SQLITE_OK)
        return fail(l3, code, error);
    ptier_status status = ptier_l3_row_bind(l3, put, op, source);
    if (status != PTIER_OK)
        return ptier_fail(error, status, "cannot prepare record %s for %s", key, l3->path);
    if (row->id) {
        (void)sqlite3_bind_int64(put, 16, row->id); /* cannot fail */
    } else {
        (void)sqlite3_bind_int64(put, 16, (int64_t)op->entry->hash);
        (void)sqlite3_bind_text(put, 17, key, -1, SQLITE_STATIC); /* shows in the run */
    }
    code = ptier_l3_run(put);
    if (code != SQLITE_OK)
        return fail(l3, code, error);
    l3->count_change += row->id == 0;
    int64_t id = row->id ? row->id : sqlite3_last_insert_rowid(l3->writer.db);
    return put_entry_usage(l3, id, row->id != 0, op->entry, error);
}

static int
delete_row(ptier_l3 *l3, int64_t id)
{
    int code = run_with(l3, L3_DELETE_USAGE, id);
    if (code == SQLITE_OK)
        code = run_with(l3, L3_DELETE, id);
    l3->count_change -= code == SQLITE_OK;
    return code;
}

static ptier_status
apply_change(ptier_l3 *l3, const ptier_op *op, ptier_error *error)
{
    found row;
    int code = find(l3, op->entry->hash, ptier_entry_key(op->entry), 0, &row);
    if (code != SQLITE_OK)
        return fail(l3, code, error);
    if (row.id && row.revision >= op->revision)
        return PTIER_OK; /* applied before, or overtaken */
    if (op->kind == PTIER_OP_PUT)
        return put_entry(l3, op, &row, error);
    return row.id ? fail(l3, delete_row(l3, row.id), error) : PTIER_OK;
}

static ptier_status
apply_clear(ptier_l3 *l3, uint64_t revision, ptier_error *error)
{
    /* No row is newer than the prefix: usually all rows go, which costs no look at any of them. */
    bool all = atomic_load(&l3->prefix) < revision;
    int code = run_with(l3, all ? L3_DELETE_ALL_USAGE : L3_DELETE_USAGE_BELOW, (int64_t)revision);
    if (code == SQLITE_OK)
        code = run_with(l3, all ? L3_DELETE_ALL : L3_DELETE_BELOW, (int64_t)revision);
    if (code == SQLITE_OK)
        l3->count_change -= sqlite3_changes64(l3->writer.db);
    return fail(l3, code, error);
}

/* ---- a batch ---- */

static int
by_key_then_revision(const void *left, const void *right)
{
    const ptier_op *a = *(const ptier_op *const *)left, *b = *(const ptier_op *const *)right;
    if (a->entry->hash != b->entry->hash)
        return a->entry->hash < b->entry->hash ? -1 : 1;
    int keys = strcmp(ptier_entry_key(a->entry), ptier_entry_key(b->entry));
    if (keys != 0)
        return keys;
    return a->revision < b->revision ? -1 : a->revision > b->revision;
}

static bool
same_key(const ptier_op *a, const ptier_op *b)
{
    return a->entry->hash == b->entry->hash &&
           strcmp(ptier_entry_key(a->entry), ptier_entry_key(b->entry)) == 0;
}

/* Sorted by key, because neighbours share pages of the index; of each key only the last change
 * counts. */
static ptier_status
apply_sorted(ptier_l3 *l3, const ptier_op *ops, size_t count, ptier_error *error)
{
    if (count == 0)
        return PTIER_OK;
    const ptier_op **sorted = malloc(count * sizeof(const ptier_op *));
    if (!sorted)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    for (size_t i = 0; i < count; i++)
        sorted[i] = &ops[i];
    qsort(sorted, count, sizeof *sorted, by_key_then_revision);
    ptier_status status = PTIER_OK;
    for (size_t i = 0; status == PTIER_OK && i < count; i++)
        if (i + 1 == count || !same_key(sorted[i], sorted[i + 1]))
            status = apply_change(l3, sorted[i], error);
    free(sorted);
    return status;
}

static ptier_status
apply_in_transaction(ptier_l3 *l3, const ptier_op *ops, size_t count, uint64_t prefix,
                     ptier_error *error)
{
    ptier_status status = PTIER_OK;
    for (size_t i = count; i-- > 0;) { /* what came before a clear is gone with it */
        if (ops[i].kind != PTIER_OP_CLEAR)
            continue;
        status = apply_clear(l3, ops[i].revision, error);
        ops += i + 1;
        count -= i + 1;
        break;
    }
    if (status == PTIER_OK)
        status = apply_sorted(l3, ops, count, error);
    if (status != PTIER_OK)
        return status;
    sqlite3_stmt *set = l3->writer.statements[L3_SET_META];
    (void)sqlite3_bind_text(set, 1, "prefix", -1, SQLITE_STATIC); /* shows in the run */
    (void)sqlite3_bind_int64(set, 2, (int64_t)prefix);
    return fail(l3, ptier_l3_run(set), error);
}

static ptier_status
apply_batch(ptier_l3 *l3, const ptier_op *ops, size_t count, uint64_t prefix, ptier_error *error)
{
    int code = begin(l3);
    if (code != SQLITE_OK)
        return fail(l3, code, error);
    ptier_status status = apply_in_transaction(l3, ops, count, prefix, error);
    if (status == PTIER_OK)
        status = fail(l3, commit(l3), error);
    if (status != PTIER_OK)
        roll_back(l3);
    else
        atomic_store(&l3->prefix, prefix);
    return status;
}

ptier_status
ptier_l3_apply(ptier_tier *tier, const ptier_op *ops, size_t count, bool sync, ptier_error *error)
{
    ptier_l3 *l3 = ptier_l3_of(tier);
    uint64_t prefix = atomic_load(&l3->prefix);
    if (count == 0 && (!sync || atomic_load(&l3->synced_prefix) == prefix))
        return PTIER_OK;
    if (count && ops[count - 1].revision > prefix)
        prefix = ops[count - 1].revision;
    if (sync) {
        int code = set_synchronous(l3, true);
        if (code != SQLITE_OK)
            return fail(l3, code, error);
    }
    ptier_status status = apply_batch(l3, ops, count, prefix, error);
    if (sync) {
        /* Should this fail, commits are slower, not less safe. */
        (void)set_synchronous(l3, false);
        if (status == PTIER_OK)
            atomic_store(&l3->synced_prefix, prefix); /* that fsync covered all frames before */
    }
    return status;
}

/* ---- usage and eviction ---- */

ptier_status
ptier_l3_write_usage(ptier_tier *tier, const ptier_usage *usage, size_t count, ptier_error *error)
{
    ptier_l3 *l3 = ptier_l3_of(tier);
    if (count == 0)
        return PTIER_OK;
    int code = begin(l3);
    if (code != SQLITE_OK)
        return fail(l3, code, error);
    ptier_status status = PTIER_OK;
    for (size_t i = 0; status == PTIER_OK && i < count; i++) {
        found row;
        status = fail(l3, find(l3, usage[i].hash, usage[i].key, 0, &row), error);
        if (status == PTIER_OK && row.id)
            status = put_usage(l3, row.id, &usage[i], error);
    }
    if (status == PTIER_OK)
        status = fail(l3, commit(l3), error);
    if (status != PTIER_OK)
        roll_back(l3);
    return status;
}

void
ptier_l3_drop(ptier_tier *tier, uint64_t hash, uint64_t revision)
{
    ptier_l3 *l3 = ptier_l3_of(tier);
    uint64_t victim = hash;
    (void)atomic_compare_exchange_strong(&l3->victim_hash, &victim, 0); /* was it the victim? */
    found row = {0};
    int code = begin(l3);
    if (code == SQLITE_OK)
        code = find(l3, hash, NULL, revision, &row);
    if (code == SQLITE_OK && row.id)
        code = delete_row(l3, row.id);
    if (code == SQLITE_OK)
        code = commit(l3);
    if (code == SQLITE_OK)
        return;
    ptier_error error;
    (void)fail(l3, code, &error); /* for its text */
    roll_back(l3);
    ptier_l3_log(l3, PTIER_LOG_WARN, "l3_drop_failed", "record %016" PRIx64 ": %s", hash,
                 error.message);
}
