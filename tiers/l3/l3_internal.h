/* For l3_*.c only: the inside of L3. */
#ifndef PTIER_L3_INTERNAL_H
#define PTIER_L3_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include <sqlite3.h>

#include "l3/l3_sqlite.h"

#define PTIER_L3_READERS         4
#define PTIER_L3_BUSY_TIMEOUT_MS 5000 /* other programs that look into the file */

/* Everything but the texts of the record; an entry's text, two tokens and the fixed fields fit. */
#define PTIER_L3_CANON_MAX (65536 + 8192)

/* Index into ptier_l3_conn.statements; the SQL is in l3_schema.c. Readers prepare those up to
 * L3_READER_STATEMENTS. */
typedef enum ptier_l3_statement {
    L3_GET,
    L3_SCAN,
    L3_SOURCE_NAME,
    L3_READER_STATEMENTS,
    L3_BEGIN = L3_READER_STATEMENTS,
    L3_COMMIT,
    L3_ROLLBACK,
    L3_FIND,
    L3_INSERT,
    L3_UPDATE,
    L3_DELETE,
    L3_DELETE_USAGE,
    L3_DELETE_ALL,
    L3_DELETE_ALL_USAGE,
    L3_DELETE_BELOW,
    L3_DELETE_USAGE_BELOW,
    L3_PUT_USAGE,
    L3_SET_META,
    L3_SOURCE_ID,
    L3_ADD_SOURCE,
    L3_SAMPLE,
    L3_LAST_ROW,
    L3_STATEMENTS,
} ptier_l3_statement;

/*
 * Source names by id, and ids by name. Ids of committed rows never change their meaning, so that a
 * hit needs no look at the database.
 */
#define PTIER_L3_SOURCES 64
typedef struct ptier_l3_source {
    int64_t id; /* 0: empty slot */
    char name[PTIER_SOURCE_MAX + 1];
} ptier_l3_source;

/* One connection. Not thread-safe: the writer's belongs to the writer thread, a reader's to whoever
 * holds its mutex. */
typedef struct ptier_l3_conn {
    pthread_mutex_t mutex; /* readers only */
    sqlite3 *db;
    sqlite3_stmt *statements[L3_STATEMENTS];
    ptier_l3_source sources[PTIER_L3_SOURCES];
    uint8_t canon[PTIER_L3_CANON_MAX];
} ptier_l3_conn;

#define PTIER_L3_SPARED 16

typedef struct ptier_l3 {
    ptier_tier tier; /* first */
    char *path;
    char *wal_path;
    uint64_t capacity;
    ptier_keyring *keyring;
    const ptier_clock *clock;
    ptier_log_fn on_log;
    void *log_context;

    _Atomic uint64_t count;
    _Atomic uint64_t bytes;
    _Atomic uint64_t prefix;
    _Atomic uint64_t synced_prefix;
    _Atomic uint64_t damaged;
    _Atomic uint64_t victim_hash;             /* 0: none chosen */
    _Atomic uint64_t spared[PTIER_L3_SPARED]; /* victims that were touched: not chosen again soon */
    _Atomic uint32_t spared_at;

    uint64_t victim_revision; /* writer only, as what follows */
    uint64_t random;
    int64_t count_change; /* of the open transaction */
    int wal_pages;
    ptier_l3_conn writer;
    ptier_l3_conn readers[PTIER_L3_READERS];
} ptier_l3;

static inline ptier_l3 *
ptier_l3_of(ptier_tier *tier)
{
    return (ptier_l3 *)tier;
}

/* ---- l3_error.c ---- */

/* The one translator of SQLite's result codes. */
ptier_status ptier_l3_status(int code);

/* Fails with what SQLite last said on this connection; `what` is what we wanted ("write"). */
ptier_status ptier_l3_fail(const ptier_l3 *l3, const ptier_l3_conn *conn, int code,
                           const char *what, ptier_error *error);

PTIER_PRINTF(4, 5)
void ptier_l3_log(const ptier_l3 *l3, ptier_log_level level, const char *event, const char *format,
                  ...);

/* ---- l3_schema.c ---- */

/* Opens all connections, makes or checks the schema, reads prefix and count. On failure disconnect
 * cleans up. */
PTIER_MUST_CHECK ptier_status ptier_l3_connect(ptier_l3 *l3, ptier_error *error);
void ptier_l3_disconnect(ptier_l3 *l3);

/* ---- l3_row.c ---- */

/* Binds the columns of L3_INSERT and L3_UPDATE, check included. Returns a status that says why not.
 */
PTIER_MUST_CHECK ptier_status ptier_l3_row_bind(ptier_l3 *l3, sqlite3_stmt *statement,
                                                const ptier_op *op, int64_t source);

/*
 * Reads the row that L3_GET stands on. OK: *entry owned. DATA_LOSS: check or tokens do not fit.
 * entry NULL: only checks.
 */
PTIER_MUST_CHECK ptier_status ptier_l3_row_read(ptier_l3 *l3, ptier_l3_conn *reader,
                                                ptier_entry **entry);

/* Usage figures with their own check: a row of the side table. */
PTIER_MUST_CHECK ptier_status ptier_l3_usage_bind(ptier_l3 *l3, sqlite3_stmt *statement, int64_t id,
                                                  const ptier_usage *usage);

/* Name of a source id, borrowed until the next call on this connection; NULL: there is none. */
const char *ptier_l3_source_name(ptier_l3_conn *conn, int64_t id);

/* ---- l3_read.c, l3_write.c, l3_evict.c: see tier.h ---- */

ptier_status ptier_l3_get(ptier_tier *tier, const ptier_ref *ref, ptier_entry **entry);
ptier_status ptier_l3_scan(ptier_tier *tier, ptier_scan_fn fn, void *context, ptier_error *error);
ptier_status ptier_l3_apply(ptier_tier *tier, const ptier_op *ops, size_t count, bool sync,
                            ptier_error *error);
ptier_status ptier_l3_write_usage(ptier_tier *tier, const ptier_usage *usage, size_t count,
                                  ptier_error *error);
void ptier_l3_drop(ptier_tier *tier, uint64_t hash, uint64_t revision);
void ptier_l3_touch(ptier_tier *tier, const ptier_ref *ref);
ptier_status ptier_l3_victim(ptier_tier *tier, uint64_t *hash, uint64_t *revision);

/* Steps a statement that gives no rows and resets it. SQLITE_OK or an error code. */
int ptier_l3_run(sqlite3_stmt *statement);

/* Sizes of the files, after a change of them. */
void ptier_l3_measure(ptier_l3 *l3);

#endif
