/* Reading L3: any thread, through whichever reader connection is free. */
#include "l3/l3_internal.h"

#include <inttypes.h>
#include <string.h>

static ptier_status
rows_by_index(ptier_l3 *l3, ptier_l3_conn *reader, uint64_t hash, ptier_l3_row_fn fn, void *context)
{
    sqlite3_stmt *get = reader->statements[L3_GET];
    if (!get)
        return ptier_l3_closed(l3, NULL);
    (void)sqlite3_bind_int64(get, 1, (int64_t)hash); /* cannot fail */
    int code;
    bool go_on = true;
    while (go_on && (code = sqlite3_step(get)) == SQLITE_ROW)
        go_on = fn(context, get);
    if (!go_on)
        code = SQLITE_OK;
    (void)sqlite3_reset(get); /* repeats code */
    ptier_l3_note(l3, code);
    return ptier_l3_status(code);
}

static bool
is_damaged(const ptier_l3 *l3)
{
    return atomic_load(&l3->condition) == PTIER_L3_DAMAGED;
}

/* ---- get ---- */

typedef struct look {
    ptier_l3 *l3;
    ptier_l3_conn *reader;
    const ptier_ref *ref;
    ptier_entry **entry;
    ptier_status status;
} look;

/*
 * Rows of the same hash that are not the one asked for are another key's, or stale: unless their
 * check fails, for then one of them may be the one asked for, with a damaged key or revision.
 */
static bool
match_row(void *context, sqlite3_stmt *get)
{
    look *l = context;
    const char *key = (const char *)sqlite3_column_text(get, L3_KEY);
    uint64_t revision = (uint64_t)sqlite3_column_int64(get, L3_REVISION);
    ptier_l3_row row;
    int which;
    if (key && ptier_ref_matches(l->ref, l->ref->hash, revision, key)) {
        l->status = ptier_l3_row_read(l->l3, l->reader, get, l->entry);
        return l->status != PTIER_OK;
    }
    if (ptier_l3_row_verify(l->l3, l->reader, get, &row, &which) != PTIER_OK)
        l->status = PTIER_DATA_LOSS;
    return true;
}

static ptier_status
look_up(ptier_l3 *l3, ptier_l3_conn *reader, const ptier_ref *ref, ptier_entry **entry)
{
    look l = {l3, reader, ref, entry, PTIER_NOT_FOUND};
    ptier_status status = rows_by_index(l3, reader, ref->hash, match_row, &l);
    if (status == PTIER_OK)
        status = l.status;
    if (status == PTIER_OK || !is_damaged(l3))
        return status;
    /* The index may be what is damaged. */
    l.status = status;
    ptier_status again = ptier_l3_rows_by_table(l3, reader, ref->hash, match_row, &l);
    return again == PTIER_OK ? l.status : again;
}

ptier_status
ptier_l3_get(ptier_tier *tier, const ptier_ref *ref, ptier_entry **entry)
{
    ptier_l3 *l3 = ptier_l3_of(tier);
    *entry = NULL;
    ptier_l3_conn *reader = ptier_l3_reader_take(l3);
    ptier_status status = reader->db ? look_up(l3, reader, ref, entry) : ptier_l3_closed(l3, NULL);
    ptier_l3_reader_give(reader);
    if (status == PTIER_DATA_LOSS) {
        atomic_fetch_add_explicit(&l3->damaged, 1, memory_order_relaxed);
        ptier_l3_log(l3, PTIER_LOG_WARN, "l3_damaged",
                     "record %016" PRIx64 " revision %" PRIu64
                     " is damaged or was encrypted with another key",
                     ref->hash, ref->revision);
    }
    return status;
}

/* ---- rows of a hash ---- */

typedef struct showing {
    ptier_l3 *l3;
    ptier_l3_conn *reader;
    ptier_scan_fn fn;
    void *context;
    uint64_t shown;
} showing;

static bool
show_row(void *context, sqlite3_stmt *row)
{
    showing *s = context;
    ptier_scan_item item;
    if (!ptier_l3_row_item(s->l3, s->reader, row, &item))
        return true;
    s->shown++;
    return s->fn(s->context, &item);
}

ptier_status
ptier_l3_find_hash(ptier_tier *tier, uint64_t hash, ptier_scan_fn fn, void *context)
{
    ptier_l3 *l3 = ptier_l3_of(tier);
    ptier_l3_conn *reader = ptier_l3_reader_take(l3);
    showing s = {l3, reader, fn, context, 0};
    ptier_status status =
        reader->db ? rows_by_index(l3, reader, hash, show_row, &s) : ptier_l3_closed(l3, NULL);
    if (reader->db && s.shown == 0 && is_damaged(l3)) {
        ptier_status again = ptier_l3_rows_by_table(l3, reader, hash, show_row, &s);
        if (s.shown || again != PTIER_OK)
            status = again;
    }
    ptier_l3_reader_give(reader);
    return status;
}

/* ---- the key of a damaged record ---- */

typedef struct peek {
    ptier_l3 *l3;
    ptier_l3_conn *reader;
    uint64_t hash, revision;
    bool found;
    char key[PTIER_KEY_MAX + 1];
} peek;

static bool
peek_row(void *context, sqlite3_stmt *get)
{
    peek *p = context;
    ptier_l3_row row;
    int which;
    ptier_status status = ptier_l3_row_verify(p->l3, p->reader, get, &row, &which);
    const char *key = row.key.at;
    if ((row.revision != p->revision && status == PTIER_OK) || !key ||
        row.key.length > PTIER_KEY_MAX || strlen(key) != row.key.length ||
        p->l3->hash_key(key) != p->hash)
        return true;
    memcpy(p->key, key, row.key.length + 1);
    p->found = true;
    return row.revision != p->revision; /* a row with the right one may still come */
}

bool
ptier_l3_peek_key(ptier_tier *tier, uint64_t hash, uint64_t revision, char key[PTIER_KEY_MAX + 1])
{
    ptier_l3 *l3 = ptier_l3_of(tier);
    ptier_l3_conn *reader = ptier_l3_reader_take(l3);
    peek p = {l3, reader, hash, revision, false, ""};
    if (reader->db) {
        (void)rows_by_index(l3, reader, hash, peek_row, &p); /* not found: no key */
        if (!p.found && is_damaged(l3))
            (void)ptier_l3_rows_by_table(l3, reader, hash, peek_row, &p);
    }
    ptier_l3_reader_give(reader);
    if (p.found)
        strcpy(key, p.key);
    return p.found;
}
