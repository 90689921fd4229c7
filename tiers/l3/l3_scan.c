/*
 * Scans, and what they prove. A scan goes through the table in order of id, then through the index
 * on the hash, and compares: rows and sum of the table with the totals, entries of the index with
 * the rows of the table.
 *
 * A scan in pieces runs between the writer's transactions: audit_mutex is held for a piece, and
 * from the begin of a transaction to its end. So the following holds whenever nobody has the mutex:
 * `rows` and `sum` of the audit are those of all committed rows with an id up to `row`. It holds at
 * the start, when no row is that low. A piece moves `row` up and adds the rows that it passes, as
 * they are committed at that time. A transaction that commits adds and subtracts what it does to
 * rows up to `row`, wherever it got their ids from, and nothing for those above. At the end all
 * rows are up to `row`, and their count and sum have to be the totals, which the same transactions
 * have kept. The same goes for `pairs`, and for the index in the order of its entries.
 */
#include "l3/l3_internal.h"

#include <inttypes.h>

/* ---- the writer's side ---- */

static bool
entry_counted(const ptier_l3_audit *audit, int64_t key64, int64_t id)
{
    return audit->all_index || key64 < audit->index_key ||
           (key64 == audit->index_key && id <= audit->index_id);
}

static void
count_row(ptier_l3 *l3, int64_t id, uint64_t hash, uint64_t revision, bool added)
{
    uint64_t one = added ? 1 : UINT64_MAX; /* wraps: minus one */
    uint64_t sum = one * ptier_hash_pair(hash, revision);
    ptier_l3_audit *audit = &l3->next_audit;
    l3->next.rows += one;
    l3->next.sum += sum;
    if (!audit->active)
        return;
    uint64_t pair = one * ptier_hash_pair(hash, (uint64_t)id);
    if (audit->all_rows || id <= audit->row) {
        audit->rows += one;
        audit->sum += sum;
        audit->pairs += pair;
    }
    if (entry_counted(audit, (int64_t)hash, id)) {
        audit->index_rows += one;
        audit->index_pairs += pair;
    }
}

void
ptier_l3_row_added(ptier_l3 *l3, int64_t id, uint64_t hash, uint64_t revision)
{
    count_row(l3, id, hash, revision, true);
}

void
ptier_l3_row_removed(ptier_l3 *l3, int64_t id, uint64_t hash, uint64_t revision)
{
    count_row(l3, id, hash, revision, false);
}

void
ptier_l3_all_removed(ptier_l3 *l3)
{
    ptier_l3_audit *audit = &l3->next_audit;
    l3->next.rows = l3->next.sum = 0;
    audit->rows = audit->sum = audit->pairs = 0;
    audit->index_rows = audit->index_pairs = 0;
}

/* ---- the reader's side ---- */

typedef struct piece {
    ptier_l3 *l3;
    ptier_l3_conn *reader;
    ptier_l3_audit *audit;
    ptier_scan_fn fn;
    void *context;
    size_t left;      /* rows and entries that may still be looked at */
    uint64_t skipped; /* rows that make no sense, places that could not be read */
    bool stopped;     /* by fn */
} piece;

static void
start(ptier_l3_audit *audit)
{
    *audit = (ptier_l3_audit){
        .active = true, .row = INT64_MIN, .index_key = INT64_MIN, .index_id = INT64_MIN};
}

static void
show(piece *p, sqlite3_stmt *scan)
{
    ptier_scan_item item;
    if (!ptier_l3_row_item(p->l3, p->reader, scan, &item)) {
        ptier_l3_found_damage(p->l3, "a row that makes no sense");
        p->skipped++;
    } else if (!p->fn(p->context, &item))
        p->stopped = true;
}

/* SQLITE_OK, or an error that is no damage. */
static int
scan_rows(piece *p)
{
    ptier_l3_audit *audit = p->audit;
    sqlite3_stmt *scan = p->reader->statements[L3_SCAN];
    ptier_l3_walk walk = {.conn = p->reader, .last = audit->row};
    int code = SQLITE_OK;
    while (p->left && !p->stopped && (code = ptier_l3_walk_next(&walk)) == SQLITE_ROW) {
        uint64_t hash = (uint64_t)sqlite3_column_int64(scan, L3_KEY64);
        audit->row = walk.last;
        audit->rows++;
        audit->sum += ptier_hash_pair(hash, (uint64_t)sqlite3_column_int64(scan, L3_REVISION));
        audit->pairs += ptier_hash_pair(hash, (uint64_t)walk.last);
        p->left--;
        show(p, scan);
    }
    audit->all_rows = code == SQLITE_DONE;
    ptier_l3_walk_end(&walk);
    if (walk.gaps)
        ptier_l3_found_damage(p->l3, "rows that cannot be read, or not in order");
    p->skipped += walk.gaps;
    return code == SQLITE_ROW || code == SQLITE_DONE ? SQLITE_OK : code;
}

static void
look_for_twins(piece *p, int64_t key64)
{
    sqlite3_stmt *loser = p->reader->statements[L3_LOSER];
    (void)sqlite3_bind_int64(loser, 1, key64); /* cannot fail */
    int code = sqlite3_step(loser);
    (void)sqlite3_reset(loser); /* repeats code */
    ptier_l3_note(p->l3, code);
    if (code == SQLITE_ROW)
        ptier_l3_found_damage(p->l3, "two rows have one key");
}

/* SQLITE_OK, or an error that is no damage. What cannot be read here is not looked for: the rows
 * are found without the index. */
static int
scan_index(piece *p)
{
    ptier_l3_audit *audit = p->audit;
    sqlite3_stmt *index = p->reader->statements[L3_INDEX];
    if (!index || !p->reader->statements[L3_LOSER]) {
        audit->all_index = true;
        return SQLITE_OK;
    }
    (void)sqlite3_bind_int64(index, 1, audit->index_key); /* cannot fail */
    (void)sqlite3_bind_int64(index, 2, audit->index_id);
    int code = SQLITE_OK;
    while (p->left && (code = sqlite3_step(index)) == SQLITE_ROW) {
        int64_t key64 = sqlite3_column_int64(index, 0), id = sqlite3_column_int64(index, 1);
        if (entry_counted(audit, key64, id)) {
            code = SQLITE_CORRUPT_INDEX; /* not in order */
            break;
        }
        if (key64 == audit->index_key)
            look_for_twins(p, key64);
        audit->index_key = key64;
        audit->index_id = id;
        audit->index_rows++;
        audit->index_pairs += ptier_hash_pair((uint64_t)key64, (uint64_t)id);
        p->left--;
    }
    (void)sqlite3_reset(index); /* repeats code */
    ptier_l3_note(p->l3, code);
    audit->all_index = code == SQLITE_DONE || ptier_l3_is_damage(code);
    return code == SQLITE_ROW || audit->all_index ? SQLITE_OK : code;
}

static void
compare(ptier_l3 *l3, const ptier_l3_audit *audit, const ptier_l3_totals *totals)
{
    if (totals && (audit->rows != totals->rows || audit->sum != totals->sum))
        ptier_l3_found_damage(l3, "%" PRIu64 " rows where it should have %" PRIu64 "%s",
                              audit->rows, totals->rows,
                              audit->rows == totals->rows ? ", but not these" : "");
    if (audit->index_rows != audit->rows || audit->index_pairs != audit->pairs)
        ptier_l3_found_damage(l3, "the index on the keys differs from the rows");
}

/* Goes on as far as p->left allows, in one read transaction. SQLite's code. */
static int
go_on(piece *p)
{
    ptier_l3 *l3 = p->l3;
    sqlite3_stmt *begin = p->reader->statements[L3_BEGIN_READ];
    bool together = begin && ptier_l3_run(begin) == SQLITE_OK; /* damaged: without */
    int code = p->audit->all_rows ? SQLITE_OK : scan_rows(p);
    if (code == SQLITE_OK && p->audit->all_rows && !p->stopped)
        code = scan_index(p);
    if (code == SQLITE_OK && p->audit->all_index) {
        ptier_l3_totals totals;
        ptier_l3_keys keys;
        ptier_l3_found found;
        code = ptier_l3_read_totals(l3, p->reader, &totals, &keys, &found);
        if (code == SQLITE_OK && found != L3_FOUND_GOOD)
            ptier_l3_found_damage(l3, "what it says of itself");
        if (code == SQLITE_OK)
            compare(l3, p->audit, found == L3_FOUND_GOOD ? &totals : NULL);
        else
            p->audit->all_index = false; /* compared when it is asked for again */
    }
    if (together)
        (void)ptier_l3_run(p->reader->statements[L3_COMMIT]); /* of reads: nothing to lose */
    return code;
}

static ptier_status
end_piece(piece *p, int code, ptier_error *error)
{
    ptier_l3 *l3 = p->l3;
    ptier_status status = PTIER_OK;
    if (code != SQLITE_OK)
        status = ptier_l3_fail(l3, p->reader, code, "scan", error);
    ptier_l3_reader_give(p->reader);
    if (p->skipped) {
        atomic_fetch_add_explicit(&l3->damaged, p->skipped, memory_order_relaxed);
        ptier_l3_log(l3, PTIER_LOG_WARN, "l3_damaged",
                     "%" PRIu64 " damaged records or pages were skipped", p->skipped);
    }
    return status;
}

static ptier_status
closed(ptier_l3 *l3, ptier_l3_conn *reader, ptier_error *error)
{
    ptier_l3_reader_give(reader);
    return ptier_l3_closed(l3, error);
}

ptier_status
ptier_l3_scan(ptier_tier *tier, ptier_scan_fn fn, void *context, ptier_error *error)
{
    ptier_l3 *l3 = ptier_l3_of(tier);
    ptier_l3_conn *reader = ptier_l3_reader_take(l3);
    if (!reader->db)
        return closed(l3, reader, error);
    ptier_l3_audit audit;
    start(&audit);
    piece p = {l3, reader, &audit, fn, context, SIZE_MAX, 0, false};
    return end_piece(&p, go_on(&p), error);
}

static ptier_status
scan_some_locked(ptier_l3 *l3, ptier_l3_scan_state *scan, piece *p, ptier_error *error)
{
    ptier_l3_audit *audit = &l3->audit;
    if (scan->number == 0) {
        uint64_t number = l3->audit.number + 1;
        start(audit);
        audit->number = scan->number = number;
    }
    if (!audit->active || audit->number != scan->number)
        return ptier_fail(error, PTIER_ABORTED,
                          "database %s was opened anew, or another scan was begun, in the middle "
                          "of this one",
                          l3->path);
    p->reader = ptier_l3_reader_take(l3);
    if (!p->reader->db)
        return closed(l3, p->reader, error);
    ptier_status status = end_piece(p, go_on(p), error);
    scan->rows = audit->rows;
    scan->sum = audit->sum;
    scan->last_row = audit->row;
    scan->skipped += p->skipped;
    scan->done = audit->all_index;
    audit->active = !audit->all_index;
    return status;
}

ptier_status
ptier_l3_scan_some(ptier_tier *tier, ptier_l3_scan_state *scan, size_t limit, ptier_scan_fn fn,
                   void *context, ptier_error *error)
{
    ptier_l3 *l3 = ptier_l3_of(tier);
    if (scan->done)
        return PTIER_OK;
    piece p = {l3, NULL, &l3->audit, fn, context, limit ? limit : 1, 0, false};
    pthread_mutex_lock(&l3->audit_mutex);
    ptier_status status = scan_some_locked(l3, scan, &p, error);
    pthread_mutex_unlock(&l3->audit_mutex);
    return status;
}
