/* Upkeep of L3, on the writer: checkpoints, probes, giving space back. */
#include "l3/l3_internal.h"

#include <unistd.h>

/* 64 MiB: more is faster over all, and stalls a commit for longer. */
#define CHECKPOINT_PAGES    16384
#define CHECKPOINT_TRIES    2000
#define CHECKPOINT_PAUSE_US 1000
#define TRUNCATE_TIMEOUT_MS 100

/* Worth shrinking: this many free pages, and this part of the file. */
#define SHRINK_PAGES 1000
#define SHRINK_PART  8
#define SHRINK_STEP  "500"

/* ---- checkpoints ---- */

/* One pass that waits for nobody. */
static int
checkpoint_once(ptier_l3 *l3, bool *complete)
{
    int pages = -1, done = -1;
    int code =
        sqlite3_wal_checkpoint_v2(l3->writer.db, NULL, SQLITE_CHECKPOINT_PASSIVE, &pages, &done);
    *complete = code == SQLITE_OK && pages >= 0 && pages == done;
    if ((code & 0xff) == SQLITE_IOERR)
        l3->wal_distrusted = true;
    else if (*complete)
        l3->wal_distrusted = false;
    return code;
}

/*
 * Not by the blocking modes: those wait for one reader slot, which busy readers hand to each other
 * for as long as they like, while each new pass finds them moved on.
 */
int
ptier_l3_checkpoint_all(ptier_l3 *l3)
{
    bool complete = false;
    for (int i = 0; i < CHECKPOINT_TRIES; i++) {
        int code = checkpoint_once(l3, &complete);
        if (code != SQLITE_OK || complete)
            return code;
        (void)usleep(CHECKPOINT_PAUSE_US); /* shorter is fine */
    }
    return SQLITE_BUSY;
}

ptier_status
ptier_l3_checkpoint(ptier_tier *tier, bool force, ptier_error *error)
{
    ptier_l3 *l3 = ptier_l3_of(tier);
    ptier_status status = ptier_l3_writable(l3, error);
    if (status != PTIER_OK || (!force && l3->wal_pages < CHECKPOINT_PAGES))
        return status;
    bool complete = force;
    int code = force ? ptier_l3_checkpoint_all(l3) : checkpoint_once(l3, &complete);
    if (code != SQLITE_OK)
        return ptier_l3_fail(l3, &l3->writer, code, "checkpoint", error);
    if (complete) {
        atomic_store(&l3->synced_prefix, l3->totals.prefix); /* SQLite has fsynced the file */
        l3->wal_pages = 0; /* the next commit says how many there are */
    }
    if (force) {
        (void)sqlite3_busy_timeout(l3->writer.db, TRUNCATE_TIMEOUT_MS);
        /* Only gives space back: a busy reader may prevent it. */
        (void)sqlite3_wal_checkpoint_v2(l3->writer.db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL,
                                        NULL);
        (void)sqlite3_busy_timeout(l3->writer.db, l3->busy_timeout_ms);
    }
    ptier_l3_measure(l3);
    return ptier_l3_writable(l3, error);
}

/* ---- probes ---- */

static ptier_status
write_probe(ptier_l3 *l3, int64_t value, ptier_error *error)
{
    ptier_status status = ptier_l3_begin(l3, error);
    if (status != PTIER_OK)
        return status;
    sqlite3_stmt *set = l3->writer.statements[L3_SET_META];
    (void)sqlite3_bind_text(set, 1, "probe", -1, SQLITE_STATIC); /* a failed bind fails the run */
    (void)sqlite3_bind_int64(set, 2, value);
    int code = ptier_l3_run(set);
    if (code != SQLITE_OK)
        status = ptier_l3_fail(l3, &l3->writer, code, "write", error);
    return ptier_l3_end(l3, status, error);
}

/* By another connection than the one that wrote, which would only ask its own memory. */
static ptier_status
read_probe(ptier_l3 *l3, int64_t value, ptier_error *error)
{
    ptier_l3_conn *reader = ptier_l3_reader_take(l3);
    sqlite3_stmt *query = reader->statements[L3_GET_META];
    ptier_status status;
    int64_t found = 0;
    if (!query) {
        status = ptier_l3_closed(l3, error);
    } else {
        (void)sqlite3_bind_text(query, 1, "probe", -1, SQLITE_STATIC); /* shows in the step */
        int code = sqlite3_step(query);
        if (code == SQLITE_ROW)
            found = sqlite3_column_int64(query, 0);
        status = code == SQLITE_ROW || code == SQLITE_DONE
                     ? PTIER_OK
                     : ptier_l3_fail(l3, reader, code, "read", error);
        (void)sqlite3_reset(query); /* repeats code */
    }
    ptier_l3_reader_give(reader);
    if (status == PTIER_OK && found != value)
        status = ptier_fail(error, PTIER_UNAVAILABLE,
                            "database %s does not give back what was written to it", l3->path);
    return status;
}

ptier_status
ptier_l3_probe(ptier_tier *tier, ptier_error *error)
{
    ptier_l3 *l3 = ptier_l3_of(tier);
    ptier_l3_measure(l3); /* a file that was moved away works, and is of no use */
    int64_t value = (int64_t)(++l3->probes << 32 ^ (l3->random >> 32));
    ptier_status status = write_probe(l3, value, error);
    return status == PTIER_OK ? read_probe(l3, value, error) : status;
}

/* ---- space ---- */

static int
free_pages(ptier_l3 *l3, bool *many)
{
    int64_t pages = 0, unused = 0;
    int code = ptier_l3_query(l3->writer.db, "PRAGMA freelist_count", &unused, NULL, 0);
    if (code == SQLITE_OK)
        code = ptier_l3_query(l3->writer.db, "PRAGMA page_count", &pages, NULL, 0);
    *many = unused > SHRINK_PAGES && unused > pages / SHRINK_PART;
    return code;
}

ptier_status
ptier_l3_shrink(ptier_tier *tier, bool *more, ptier_error *error)
{
    ptier_l3 *l3 = ptier_l3_of(tier);
    *more = false;
    ptier_status status = ptier_l3_writable(l3, error);
    if (status != PTIER_OK)
        return status;
    bool many;
    int code = free_pages(l3, &many);
    if (code != SQLITE_OK)
        return ptier_l3_fail(l3, &l3->writer, code, "shrink", error);
    if (!many)
        return PTIER_OK;
    status = ptier_l3_begin(l3, error);
    if (status != PTIER_OK)
        return status;
    code =
        sqlite3_exec(l3->writer.db, "PRAGMA incremental_vacuum(" SHRINK_STEP ")", NULL, NULL, NULL);
    if (code != SQLITE_OK)
        status = ptier_l3_fail(l3, &l3->writer, code, "shrink", error);
    status = ptier_l3_end(l3, status, error);
    if (status == PTIER_OK && free_pages(l3, more) != SQLITE_OK)
        *more = false; /* the next call says why */
    return status == PTIER_OK ? ptier_l3_checkpoint(tier, false, error) : status;
}
