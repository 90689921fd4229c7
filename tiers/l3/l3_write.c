/* Writing L3: the writer thread only. */
#include "l3/l3_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define AHEAD        8 /* changes */
#define FAR_AHEAD    16
#define CACHE_LINE   64
#define ENTRY_LINES  4 /* of a usual entry, */
#define SEALED_LINES 4 /* ... and of its tokens */

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

static ptier_status
fail(ptier_l3 *l3, int code, ptier_error *error)
{
    if ((code & 0xff) == SQLITE_IOERR)
        l3->wal_distrusted = true;
    return code == SQLITE_OK ? PTIER_OK : ptier_l3_fail(l3, &l3->writer, code, "write", error);
}

/* ---- transactions ---- */

ptier_status
ptier_l3_begin(ptier_l3 *l3, ptier_error *error)
{
    ptier_status status = ptier_l3_writable(l3, error);
    if (status != PTIER_OK)
        return status;
    pthread_mutex_lock(&l3->audit_mutex);
    l3->next = l3->totals;
    l3->next_audit = l3->audit;
    status = fail(l3, ptier_l3_run(l3->writer.statements[L3_BEGIN]), error);
    if (status != PTIER_OK)
        pthread_mutex_unlock(&l3->audit_mutex);
    return status;
}

void
ptier_l3_roll_back(ptier_l3 *l3)
{
    /* A full disk makes SQLite roll back by itself. */
    if (!sqlite3_get_autocommit(l3->writer.db))
        (void)ptier_l3_run(l3->writer.statements[L3_ROLLBACK]); /* the first error is reported */
    memset(l3->writer.sources, 0, sizeof l3->writer.sources);   /* may name what is undone */
    atomic_store(&l3->rows_known, UINT64_MAX);                  /* or was it written after all? */
    pthread_mutex_unlock(&l3->audit_mutex);
}

static bool
same_totals(const ptier_l3_totals *a, const ptier_l3_totals *b)
{
    return a->prefix == b->prefix && a->rows == b->rows && a->sum == b->sum;
}

ptier_status
ptier_l3_commit(ptier_l3 *l3, ptier_error *error)
{
    ptier_status status = PTIER_OK;
    if (!same_totals(&l3->next, &l3->totals))
        status = ptier_l3_write_totals(l3, &l3->next, error);
    if (status == PTIER_OK)
        status = fail(l3, ptier_l3_run(l3->writer.statements[L3_COMMIT]), error);
    if (status != PTIER_OK)
        return status;
    l3->totals = l3->next;
    l3->audit = l3->next_audit;
    atomic_store(&l3->count, l3->totals.rows);
    atomic_store(&l3->prefix, l3->totals.prefix);
    pthread_mutex_unlock(&l3->audit_mutex);
    ptier_l3_measure(l3);
    return PTIER_OK;
}

ptier_status
ptier_l3_end(ptier_l3 *l3, ptier_status status, ptier_error *error)
{
    if (status == PTIER_OK)
        status = ptier_l3_commit(l3, error);
    if (status != PTIER_OK) {
        ptier_l3_roll_back(l3);
        return status;
    }
    return ptier_l3_writable(l3, error); /* written, but to a file that nobody will find? */
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
        return SQLITE_MISUSE; /* no entry has one */
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
    if (usage.last_access_ms || usage.access_count || usage.report_count || usage.latency_us)
        return put_usage(l3, id, &usage, error);
    return existed ? fail(l3, run_with(l3, L3_DELETE_USAGE, id), error) : PTIER_OK;
}

/* What L3_UPDATE has in common with the n-th row of an insert. */
static ptier_status
bind_entry(ptier_l3 *l3, sqlite3_stmt *put, int row_number, const ptier_op *op, ptier_error *error)
{
    int64_t source = 0;
    int code = source_id(l3, ptier_entry_source(op->entry), &source);
    if (code != SQLITE_OK)
        return fail(l3, code, error);
    ptier_status status = ptier_l3_row_bind(l3, put, row_number, op, source);
    if (status != PTIER_OK)
        return ptier_fail(error, status, "cannot prepare record %s for %s",
                          ptier_entry_key(op->entry), l3->path);
    return PTIER_OK;
}

static ptier_status
update_entry(ptier_l3 *l3, const ptier_op *op, const found *row, ptier_error *error)
{
    sqlite3_stmt *update = l3->writer.statements[L3_UPDATE];
    ptier_status status = bind_entry(l3, update, 0, op, error);
    if (status != PTIER_OK)
        return status;
    (void)sqlite3_bind_int64(update, PTIER_L3_UPDATED + 1, row->id); /* cannot fail */
    status = fail(l3, ptier_l3_run(update), error);
    if (status != PTIER_OK)
        return status;
    ptier_l3_row_removed(l3, row->id, op->entry->hash, row->revision);
    ptier_l3_row_added(l3, row->id, op->entry->hash, op->revision);
    return put_entry_usage(l3, row->id, true, op->entry, error);
}

/* One, or PTIER_L3_ROWS at once: most of an insert's cost is that of the statement. */
static ptier_status
insert_entries(ptier_l3 *l3, const ptier_op *const *ops, int count, ptier_error *error)
{
    sqlite3_stmt *insert = l3->writer.statements[count == 1 ? L3_INSERT : L3_INSERT_ROWS];
    ptier_status status = PTIER_OK;
    for (int i = 0; status == PTIER_OK && i < count; i++) {
        const ptier_entry *entry = ops[i]->entry;
        int after = i * PTIER_L3_COLUMNS + PTIER_L3_UPDATED;
        status = bind_entry(l3, insert, i, ops[i], error);
        (void)sqlite3_bind_int64(insert, after + 1, (int64_t)entry->hash); /* cannot fail */
        (void)sqlite3_bind_text(insert, after + 2, ptier_entry_key(entry), -1,
                                SQLITE_STATIC); /* shows in the run */
    }
    if (status == PTIER_OK)
        status = fail(l3, ptier_l3_run(insert), error);
    /* Ids follow each other: nobody else writes, and the last one is the highest. */
    int64_t id = sqlite3_last_insert_rowid(l3->writer.db) - count + 1;
    for (int i = 0; status == PTIER_OK && i < count; i++, id++) {
        ptier_l3_row_added(l3, id, ops[i]->entry->hash, ops[i]->revision);
        status = put_entry_usage(l3, id, false, ops[i]->entry, error);
    }
    return status;
}

ptier_status
ptier_l3_insert(ptier_l3 *l3, const ptier_op *op, ptier_error *error)
{
    return insert_entries(l3, &op, 1, error);
}

int
ptier_l3_delete(ptier_l3 *l3, int64_t id, uint64_t hash, uint64_t revision)
{
    int code = run_with(l3, L3_DELETE_USAGE, id);
    if (code == SQLITE_OK)
        code = run_with(l3, L3_DELETE, id);
    if (code == SQLITE_OK)
        ptier_l3_row_removed(l3, id, hash, revision);
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
        return row.id ? update_entry(l3, op, &row, error) : ptier_l3_insert(l3, op, error);
    if (!row.id)
        return PTIER_OK;
    return fail(l3, ptier_l3_delete(l3, row.id, op->entry->hash, row.revision), error);
}

/* Takes the rows out of the totals that are about to be deleted. */
static int
count_out_below(ptier_l3 *l3, uint64_t revision)
{
    sqlite3_stmt *below = l3->writer.statements[L3_BELOW];
    (void)sqlite3_bind_int64(below, 1, (int64_t)revision); /* cannot fail */
    int code;
    while ((code = sqlite3_step(below)) == SQLITE_ROW)
        ptier_l3_row_removed(l3, sqlite3_column_int64(below, 0),
                             (uint64_t)sqlite3_column_int64(below, 1),
                             (uint64_t)sqlite3_column_int64(below, 2));
    (void)sqlite3_reset(below); /* repeats code */
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

static ptier_status
apply_clear(ptier_l3 *l3, uint64_t revision, ptier_error *error)
{
    /* No row is newer than the prefix: usually all rows go, which costs no look at any of them. */
    bool all = l3->totals.prefix < revision;
    int code = all ? SQLITE_OK : count_out_below(l3, revision);
    if (code == SQLITE_OK)
        code = run_with(l3, all ? L3_DELETE_ALL_USAGE : L3_DELETE_USAGE_BELOW, (int64_t)revision);
    if (code == SQLITE_OK)
        code = run_with(l3, all ? L3_DELETE_ALL : L3_DELETE_BELOW, (int64_t)revision);
    if (code == SQLITE_OK && all)
        ptier_l3_all_removed(l3);
    return fail(l3, code, error);
}

/* ---- a batch ---- */

/* The hash is beside the pointer: most comparisons need not look at the entries, which are anywhere
 * in memory. */
typedef struct ranked {
    uint64_t hash;
    const ptier_op *op;
} ranked;

static int
compare_keys(const ranked *a, const ranked *b)
{
    if (a->hash != b->hash)
        return a->hash < b->hash ? -1 : 1;
    return strcmp(ptier_entry_key(a->op->entry), ptier_entry_key(b->op->entry));
}

static int
by_key_then_revision(const void *left, const void *right)
{
    const ranked *a = left, *b = right;
    int keys = compare_keys(a, b);
    if (keys != 0)
        return keys;
    return a->op->revision < b->op->revision ? -1 : a->op->revision > b->op->revision;
}

/* What is applied soon comes nearer meanwhile. */
static void
prefetch(const ranked *sorted, size_t at, size_t count)
{
    if (at + 2 * AHEAD < count)
        __builtin_prefetch(sorted[at + 2 * AHEAD].op);
    if (at + AHEAD >= count)
        return;
    const ptier_op *op = sorted[at + AHEAD].op;
    for (size_t line = 0; line < ENTRY_LINES; line++)
        __builtin_prefetch((const char *)op->entry + line * CACHE_LINE);
    for (size_t line = 0; op->sealed && line < SEALED_LINES; line++)
        __builtin_prefetch((const char *)op->sealed + line * CACHE_LINE);
}

/* See ptier_l3_rows_known. Alone: the batch has no other change of its key. Up to the prefix a
 * change may have been applied before: a batch whose commit went well is tried again if what
 * followed failed. */
static bool
has_no_row(const ptier_l3 *l3, const ptier_op *op, bool alone)
{
    return alone && op->kind == PTIER_OP_PUT && op->replaces == 0 &&
           op->revision > l3->totals.prefix && op->revision > atomic_load(&l3->rows_known);
}

/* What is to be inserted together. */
typedef struct rows {
    const ptier_op *ops[PTIER_L3_ROWS];
    int count;
} rows;

static ptier_status
insert_rows(ptier_l3 *l3, rows *r, const ptier_op *op, ptier_error *error)
{
    r->ops[r->count++] = op;
    if (r->count < PTIER_L3_ROWS)
        return PTIER_OK;
    r->count = 0;
    return insert_entries(l3, r->ops, PTIER_L3_ROWS, error);
}

static ptier_status
insert_rest(ptier_l3 *l3, const rows *r, ptier_error *error)
{
    ptier_status status = PTIER_OK;
    for (int i = 0; status == PTIER_OK && i < r->count; i++)
        status = insert_entries(l3, &r->ops[i], 1, error);
    return status;
}

/* Sorted by key, because neighbours share pages of the index; of each key only the last change
 * counts. */
static ptier_status
apply_sorted(ptier_l3 *l3, const ptier_op *ops, size_t count, ptier_error *error)
{
    if (count == 0)
        return PTIER_OK;
    ranked *sorted = malloc(count * sizeof *sorted);
    if (!sorted)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    for (size_t i = 0; i < count; i++) {
        if (i + FAR_AHEAD < count)
            __builtin_prefetch(&ops[i + FAR_AHEAD].entry->hash);
        sorted[i] = (ranked){.hash = ops[i].entry->hash, .op = &ops[i]};
    }
    qsort(sorted, count, sizeof *sorted, by_key_then_revision);
    ptier_status status = PTIER_OK;
    rows new_ones = {.count = 0};
    bool first = true; /* of its key */
    for (size_t i = 0; status == PTIER_OK && i < count; i++) {
        const ptier_op *op = sorted[i].op;
        prefetch(sorted, i, count);
        bool last = i + 1 == count || compare_keys(&sorted[i], &sorted[i + 1]) != 0;
        if (last)
            status = has_no_row(l3, op, first) ? insert_rows(l3, &new_ones, op, error)
                                               : apply_change(l3, op, error);
        first = last;
    }
    if (status == PTIER_OK)
        status = insert_rest(l3, &new_ones, error);
    free(sorted);
    return status;
}

static ptier_status
apply_in_transaction(ptier_l3 *l3, const ptier_op *ops, size_t count, ptier_error *error)
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
    return status == PTIER_OK ? apply_sorted(l3, ops, count, error) : status;
}

static ptier_status
apply_batch(ptier_l3 *l3, const ptier_op *ops, size_t count, ptier_error *error)
{
    ptier_status status = ptier_l3_begin(l3, error);
    if (status != PTIER_OK)
        return status;
    if (count && ops[count - 1].revision > l3->next.prefix)
        l3->next.prefix = ops[count - 1].revision;
    return ptier_l3_end(l3, apply_in_transaction(l3, ops, count, error), error);
}

/* An empty transaction leaves no frame to be synced, so that one is written for its own sake. */
static ptier_status
sync_written(ptier_l3 *l3, ptier_error *error)
{
    ptier_status status = ptier_l3_begin(l3, error);
    if (status != PTIER_OK)
        return status;
    return ptier_l3_end(l3, ptier_l3_write_totals(l3, &l3->next, error), error);
}

ptier_status
ptier_l3_apply(ptier_tier *tier, const ptier_op *ops, size_t count, bool sync, ptier_error *error)
{
    ptier_l3 *l3 = ptier_l3_of(tier);
    ptier_status status = ptier_l3_writable(l3, error);
    if (status != PTIER_OK || !sync)
        return status == PTIER_OK && count ? apply_batch(l3, ops, count, error) : status;
    int code = set_synchronous(l3, true);
    if (code != SQLITE_OK)
        return fail(l3, code, error);
    ptier_l3_totals before = l3->totals;
    if (count)
        status = apply_batch(l3, ops, count, error);
    if (status == PTIER_OK && same_totals(&before, &l3->totals) &&
        atomic_load(&l3->synced_prefix) != l3->totals.prefix)
        status = sync_written(l3, error);
    /* Should this fail, commits are slower, not less safe. */
    (void)set_synchronous(l3, false);
    if (status == PTIER_OK && l3->wal_distrusted)
        status = fail(l3, ptier_l3_checkpoint_all(l3), error);
    if (status == PTIER_OK)
        atomic_store(&l3->synced_prefix, l3->totals.prefix); /* that fsync covered all before */
    return status;
}

/* ---- usage and eviction ---- */

ptier_status
ptier_l3_write_usage(ptier_tier *tier, const ptier_usage *usage, size_t count, ptier_error *error)
{
    ptier_l3 *l3 = ptier_l3_of(tier);
    if (count == 0)
        return PTIER_OK;
    ptier_status status = ptier_l3_begin(l3, error);
    if (status != PTIER_OK)
        return status;
    for (size_t i = 0; status == PTIER_OK && i < count; i++) {
        found row;
        status = fail(l3, find(l3, usage[i].hash, NULL, usage[i].revision, &row), error);
        if (status == PTIER_OK && row.id)
            status = put_usage(l3, row.id, &usage[i], error);
    }
    return ptier_l3_end(l3, status, error);
}

void
ptier_l3_drop(ptier_tier *tier, uint64_t hash, uint64_t revision)
{
    ptier_l3 *l3 = ptier_l3_of(tier);
    uint64_t victim = hash;
    (void)atomic_compare_exchange_strong(&l3->victim_hash, &victim, 0); /* was it the victim? */
    ptier_error error;
    ptier_status status = ptier_l3_begin(l3, &error);
    if (status == PTIER_OK) {
        found row;
        int code = find(l3, hash, NULL, revision, &row);
        if (code == SQLITE_OK && row.id)
            code = ptier_l3_delete(l3, row.id, hash, row.revision);
        status = ptier_l3_end(l3, fail(l3, code, &error), &error);
    }
    if (status != PTIER_OK)
        ptier_l3_log(l3, PTIER_LOG_WARN, "l3_drop_failed", "record %016" PRIx64 ": %s", hash,
                     error.message);
}
