/* For l3_*.c only: the inside of L3. */
#ifndef PTIER_L3_INTERNAL_H
#define PTIER_L3_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include <sqlite3.h>

#include "hash.h"
#include "l3/l3_sqlite.h"

#define PTIER_L3_READERS 4

/* Everything but the texts of the record; an entry's text, two tokens and the fixed fields fit. */
#define PTIER_L3_CANON_MAX (65536 + 8192)

/* Index into ptier_l3_conn.statements; the SQL is in l3_sql.c. Readers prepare those up to
 * L3_READER_STATEMENTS, the writer all. */
typedef enum ptier_l3_statement {
    L3_GET,       /* by hash */
    L3_ROW,       /* the same columns, by id */
    L3_ROW_PLAIN, /* the same without the usage figures, for when those cannot be read */
    L3_SCAN,      /* from an id on */
    L3_INDEX,     /* the index on the hash, from an entry on */
    L3_LOSER,     /* under a hash, a row whose key has a newer one */
    L3_SOURCE_NAME,
    L3_SOURCE_NAME_AGAIN, /* the copy of it that the index on names holds */
    L3_GET_META,
    L3_BEGIN_READ,
    L3_COMMIT,
    L3_READER_STATEMENTS,
    L3_BEGIN = L3_READER_STATEMENTS,
    L3_ROLLBACK,
    L3_FIND,
    L3_INSERT,
    L3_INSERT_ROWS, /* PTIER_L3_ROWS of them */
    L3_UPDATE,
    L3_DELETE,
    L3_DELETE_USAGE,
    L3_DELETE_ALL,
    L3_DELETE_ALL_USAGE,
    L3_BELOW,
    L3_DELETE_BELOW,
    L3_DELETE_USAGE_BELOW,
    L3_PUT_USAGE,
    L3_SET_META,
    L3_SOURCE_ID,
    L3_ADD_SOURCE,
    L3_SAMPLE,
    L3_LAST_ROW,
    L3_ROTATE,
    L3_RESEAL,
    L3_STATEMENTS,
} ptier_l3_statement;

/* Columns of L3_GET, L3_ROW, L3_ROW_PLAIN and L3_ROTATE; L3_SCAN has the first ones. */
enum {
    L3_ID,
    L3_KEY64,
    L3_REVISION,
    L3_EXPIRES_WALL,
    L3_EXPIRES_BOOT,
    L3_BOOT_TAG,
    L3_HEALTH,
    L3_SOURCE,
    L3_KEY,
    L3_URL,
    L3_REVALIDATE,
    L3_FAILURES,
    L3_FETCH_TIME,
    L3_TTL,
    L3_INTEGRITY,
    L3_USERNAME,
    L3_PASSWORD,
    L3_LABELS,
    L3_LAST_ACCESS,
    L3_ACCESSES,
    L3_LATENCY,
    L3_SUCCESSES,
    L3_REPORTS,
    L3_USAGE_INTEGRITY,
};

#define PTIER_L3_ROWS    8  /* that one statement inserts: more gain nothing */
#define PTIER_L3_COLUMNS 17 /* that each of them sets, */
#define PTIER_L3_UPDATED 15 /* ... and an update */

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
    sqlite3 *db;           /* NULL: closed */
    bool lenient;          /* reads what SQLite would refuse as damaged, and cannot write */
    sqlite3_stmt *statements[L3_STATEMENTS]; /* NULL: the damage does not let it be prepared */
    ptier_l3_source sources[PTIER_L3_SOURCES];
    uint8_t canon[PTIER_L3_CANON_MAX];
    uint8_t check[PTIER_L3_ROWS][PTIER_CHECK_BYTES]; /* of the rows that are being written */
} ptier_l3_conn;

/*
 * The keys that the file needs, each by its keyed check of a fixed text: those that wrote anything
 * in it since all of it was last encrypted anew.
 */
#define PTIER_L3_KEYS 16
typedef struct ptier_l3_keys {
    size_t count;
    uint8_t checks[PTIER_L3_KEYS][PTIER_CHECK_BYTES];
} ptier_l3_keys;

/* What the database knows of itself; one value of meta, under a keyed check. */
typedef struct ptier_l3_totals {
    uint64_t prefix;
    uint64_t rows;
    uint64_t sum; /* of ptier_hash_pair(hash, revision) over all rows, wrapping */
} ptier_l3_totals;

/* How far a scan has come, and what it has counted: see l3_scan.c. */
typedef struct ptier_l3_audit {
    uint64_t number; /* of the scan */
    bool active;
    int64_t row; /* rows up to this id are counted... */
    bool all_rows;
    uint64_t rows, sum;
    uint64_t pairs; /* ...here too: of ptier_hash_pair(hash, id), what the index should come to */
    int64_t index_key, index_id; /* index entries up to this one are counted */
    bool all_index;
    uint64_t index_rows, index_pairs;
} ptier_l3_audit;

/* Where the rows of a hash are: what the index would say, were it legible. */
typedef struct ptier_l3_place {
    int64_t key64, id;
} ptier_l3_place;

#define PTIER_L3_SPARED 16

/* Locks are taken in this order: audit_mutex, readers by number, places_mutex. SQLite is used under
 * each of them; none is held while another thread's answer is waited for. */
typedef struct ptier_l3 {
    ptier_tier tier; /* first */
    char *path;
    char *wal_path;
    uint64_t capacity;
    int busy_timeout_ms;
    ptier_keyring *keyring;
    const ptier_clock *clock;
    uint64_t (*hash_key)(const char *key);
    ptier_log_fn on_log;
    void *log_context;

    _Atomic int condition; /* ptier_l3_condition */
    _Atomic uint64_t file_device, file_number;
    _Atomic uint64_t wal_number; /* 0: not known */
    _Atomic uint64_t count;
    _Atomic uint64_t bytes;
    _Atomic uint64_t prefix;
    _Atomic uint64_t synced_prefix;
    _Atomic uint64_t rows_known; /* see ptier_l3_rows_known; UINT64_MAX: they are not */
    _Atomic uint64_t damaged;
    _Atomic uint64_t victim_hash;             /* 0: none chosen */
    _Atomic uint64_t spared[PTIER_L3_SPARED]; /* victims that were touched: not chosen again soon */
    _Atomic uint32_t spared_at;

    pthread_mutex_t audit_mutex; /* held from begin to commit, and for a piece of a scan */
    ptier_l3_audit audit;        /* of what is committed */

    pthread_mutex_t places_mutex;
    ptier_l3_place
        *places; /* ordered; made when the file is DAMAGED; freed with all readers held */
    size_t place_count;
    bool places_made;

    uint64_t victim_revision; /* writer only, as what follows */
    uint64_t random;
    uint64_t probes;
    ptier_l3_totals totals;    /* of what is committed */
    ptier_l3_totals next;      /* of the open transaction */
    ptier_l3_audit next_audit; /* of the open transaction */
    ptier_l3_keys keys;        /* as stored */
    int wal_pages;
    bool wal_distrusted; /* an fsync failed: the kernel may have dropped what it was for, and later
                            ones succeed all the same. Until a whole checkpoint has copied it. */
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

/* Whether the code says that the file is not what SQLite or we wrote. */
bool ptier_l3_is_damage(int code);

/* Notes what a result code says of the file: damage makes it DAMAGED. Any thread. */
void ptier_l3_note(ptier_l3 *l3, int code);

/* Makes the file DAMAGED; the text says what was found. Any thread. */
PTIER_PRINTF(2, 3)
void ptier_l3_found_damage(ptier_l3 *l3, const char *format, ...);

/* Fails with what SQLite last said on this connection; `what` is what we wanted ("write"). Notes
 * the code. */
ptier_status ptier_l3_fail(ptier_l3 *l3, const ptier_l3_conn *conn, int code, const char *what,
                           ptier_error *error);

/* OK: the writer may write. */
PTIER_MUST_CHECK ptier_status ptier_l3_writable(const ptier_l3 *l3, ptier_error *error);

PTIER_PRINTF(4, 5)
void ptier_l3_log(const ptier_l3 *l3, ptier_log_level level, const char *event, const char *format,
                  ...);

/* ---- l3_vfs.c ---- */

/* The name of the VFS that all connections use. */
const char *ptier_l3_vfs(void);

/* ---- l3_sql.c ---- */

extern const char ptier_l3_schema_sql[]; /* tables and the index that is not made last */
extern const char ptier_l3_index_sql[];
extern const char *const ptier_l3_statement_sql[L3_STATEMENTS];

/* ---- l3_connect.c ---- */

/*
 * Opens all connections, makes or checks the schema, reads what the database knows of itself. OK
 * too when the file is damaged. On failure all are closed again. With all readers held, or before
 * there are any.
 */
PTIER_MUST_CHECK ptier_status ptier_l3_connect(ptier_l3 *l3, ptier_error *error);
void ptier_l3_disconnect(ptier_l3 *l3);

/* The same, and the files stay as they are: quick. */
void ptier_l3_leave(ptier_l3 *l3);

/* One connection with nothing set but limits; SQLite's code. `pragmas` are run on it. */
int ptier_l3_open_connection(const ptier_l3 *l3, ptier_l3_conn *conn, const char *pragmas);

/* leave: without the checkpoint that the last one to close makes, so that the files stay as they
 * are. */
void ptier_l3_close_connection(ptier_l3_conn *conn, bool leave);

/* Prepares the first `count` statements that are not prepared yet. */
int ptier_l3_prepare(ptier_l3_conn *conn, int count);

/* Lets the connection read past damage, as far as that goes; it writes no more. */
void ptier_l3_make_lenient(ptier_l3_conn *conn);

/* A reader that is free, lenient when the file is damaged; its db may be NULL. Blocks until there
 * is one. */
ptier_l3_conn *ptier_l3_reader_take(ptier_l3 *l3);
void ptier_l3_reader_give(ptier_l3_conn *reader);
void ptier_l3_readers_lock(ptier_l3 *l3); /* all of them */
void ptier_l3_readers_unlock(ptier_l3 *l3);

/* What an operation answers that needs a connection or statement which is not there. */
ptier_status ptier_l3_closed(const ptier_l3 *l3, ptier_error *error);

/* ---- l3_upkeep.c ---- */

/* A checkpoint of all there is, passively. SQLITE_OK: done, and fsynced. */
int ptier_l3_checkpoint_all(ptier_l3 *l3);

/* ---- l3_schema.c ---- */

/*
 * Whose file is it, which version? Makes the schema, brings an older one up to date, reads totals
 * and key. OK too when the file is damaged (condition).
 */
PTIER_MUST_CHECK ptier_status ptier_l3_take_stock(ptier_l3 *l3, ptier_error *error);

/* Makes the schema on the writer connection (tables only), inside an open transaction. */
int ptier_l3_create_tables(ptier_l3 *l3);

/* One value of the first row; SQLITE_DONE: no row. Text comes back in `text` when that is not NULL.
 */
int ptier_l3_query(sqlite3 *db, const char *sql, int64_t *value, char *text, size_t room);

/* ---- l3_build.c ---- */

/* An empty file of mode 0600, which must not exist. */
PTIER_MUST_CHECK ptier_status ptier_l3_create_file(const char *path, ptier_error *error);
PTIER_MUST_CHECK ptier_status ptier_l3_make_durable(const char *path, ptier_error *error);

/* ---- l3_meta.c ---- */

typedef enum ptier_l3_found {
    L3_FOUND_NONE,
    L3_FOUND_GOOD,
    L3_FOUND_FOREIGN, /* well-formed, but no key of ours made its check */
    L3_FOUND_ILLEGIBLE,
} ptier_l3_found;

/* SQLITE_OK, also when it is illegible; codes that are no damage come back. The totals have a copy
 * of the keys beside them. */
int ptier_l3_read_totals(ptier_l3 *l3, ptier_l3_conn *conn, ptier_l3_totals *totals,
                         ptier_l3_keys *keys, ptier_l3_found *found);
/* GOOD: we have all of them. */
int ptier_l3_read_keys(ptier_l3 *l3, ptier_l3_conn *conn, ptier_l3_keys *keys,
                       ptier_l3_found *found);

/* How many of these keys are ours. */
size_t ptier_l3_keys_known(ptier_l3 *l3, const ptier_l3_keys *keys);

/* Whether these keys are the same, in the same order. */
bool ptier_l3_keys_equal(const ptier_l3_keys *a, const ptier_l3_keys *b);

/* What the file needs from now on: our first key alone, or that one too. Sets l3->keys. Inside a
 * transaction that writes the totals afterwards. */
PTIER_MUST_CHECK ptier_status ptier_l3_write_key(ptier_l3 *l3, bool alone, ptier_error *error);
bool ptier_l3_needs_first_key(ptier_l3 *l3); /* it is among them */
PTIER_MUST_CHECK ptier_status ptier_l3_write_totals(ptier_l3 *l3, const ptier_l3_totals *totals,
                                                    ptier_error *error);

/* ---- l3_row.c ---- */

typedef struct ptier_l3_text {
    const char *at; /* NULL: none */
    size_t length;
} ptier_l3_text;

/* A row's fields, borrowed from whoever has them. */
typedef struct ptier_l3_row {
    uint64_t hash, revision;
    int64_t expires_wall, expires_boot, boot_tag;
    int64_t fetch_time, ttl;
    uint32_t failures;
    uint32_t health, revalidate;
    ptier_l3_text key, url, source, username, password, labels;
} ptier_l3_row;

/* Binds the columns that L3_INSERT, L3_INSERT_ROWS (of the row with this number, from 0) and
 * L3_UPDATE have in common, check included. Returns a status that says why not. */
PTIER_MUST_CHECK ptier_status ptier_l3_row_bind(ptier_l3 *l3, sqlite3_stmt *statement,
                                                int row_number, const ptier_op *op, int64_t source);

/*
 * Takes the fields from the row that a statement with L3_GET's columns stands on, and verifies
 * their check. *which: the index of the key that made it. DATA_LOSS: no key did.
 */
PTIER_MUST_CHECK ptier_status ptier_l3_row_verify(ptier_l3 *l3, ptier_l3_conn *conn,
                                                  sqlite3_stmt *statement, ptier_l3_row *row,
                                                  int *which);

/* The check of fields, by the first key. */
PTIER_MUST_CHECK ptier_status ptier_l3_row_check(ptier_l3 *l3, const ptier_l3_row *row,
                                                 uint8_t canon[PTIER_L3_CANON_MAX],
                                                 uint8_t check[PTIER_CHECK_BYTES]);

/* Verifies and makes an entry. OK: *entry owned. DATA_LOSS: check or tokens do not fit. */
PTIER_MUST_CHECK ptier_status ptier_l3_row_read(ptier_l3 *l3, ptier_l3_conn *conn,
                                                sqlite3_stmt *statement, ptier_entry **entry);

/* What a scan says of the row that a statement stands on whose first columns are L3_SCAN's. false:
 * it makes no sense. */
bool ptier_l3_row_item(ptier_l3 *l3, ptier_l3_conn *conn, sqlite3_stmt *statement,
                       ptier_scan_item *item);

/* Usage figures with their own check: a row of the side table. */
PTIER_MUST_CHECK ptier_status ptier_l3_usage_bind(ptier_l3 *l3, sqlite3_stmt *statement, int64_t id,
                                                  const ptier_usage *usage);

/* The figures of the row that a statement stands on. false: there are none, or they are damaged,
 * which is counted. */
bool ptier_l3_usage_read(ptier_l3 *l3, sqlite3_stmt *statement, ptier_usage *usage, int *which);

/* Name of a source id, borrowed until the next call on this connection; NULL: there is none. */
const char *ptier_l3_source_name(ptier_l3 *l3, ptier_l3_conn *conn, int64_t id);

/* ---- l3_walk.c ---- */

/* The table in order of id, past what cannot be read. Zero it, set conn and last. */
typedef struct ptier_l3_walk {
    ptier_l3_conn *conn;
    int64_t last;   /* id of the row it stands on, or the one to begin after */
    int64_t before; /* the one before that */
    uint64_t gaps;  /* places where something is wrong: rows may be missing */
    uint32_t probes, disorder;
    bool running;
} ptier_l3_walk;

/* SQLITE_ROW: L3_SCAN stands on a row. SQLITE_DONE. Else an error that is no damage. */
int ptier_l3_walk_next(ptier_l3_walk *walk);
void ptier_l3_walk_end(ptier_l3_walk *walk);

/* Calls fn for the rows of a hash by l3->places, which are made if they are not there. */
typedef bool (*ptier_l3_row_fn)(void *context, sqlite3_stmt *row); /* false stops */
ptier_status ptier_l3_rows_by_table(ptier_l3 *l3, ptier_l3_conn *reader, uint64_t hash,
                                    ptier_l3_row_fn fn, void *context);

/* ---- l3_scan.c ---- */

/* The writer says what it changes, in its transaction: a row is there now (or no more). */
void ptier_l3_row_added(ptier_l3 *l3, int64_t id, uint64_t hash, uint64_t revision);
void ptier_l3_row_removed(ptier_l3 *l3, int64_t id, uint64_t hash, uint64_t revision);
void ptier_l3_all_removed(ptier_l3 *l3);

/* ---- l3_write.c ---- */

/* A transaction of the writer's, from begin to commit (OK: totals are written with it) or
 * roll_back.
 */
PTIER_MUST_CHECK ptier_status ptier_l3_begin(ptier_l3 *l3, ptier_error *error);
PTIER_MUST_CHECK ptier_status ptier_l3_commit(ptier_l3 *l3, ptier_error *error);
void ptier_l3_roll_back(ptier_l3 *l3);

/* status OK: commits; else, or when that fails, rolls back. */
PTIER_MUST_CHECK ptier_status ptier_l3_end(ptier_l3 *l3, ptier_status status, ptier_error *error);

/* Puts a row that is not there yet; deletes one. Inside a transaction. */
PTIER_MUST_CHECK ptier_status ptier_l3_insert(ptier_l3 *l3, const ptier_op *op, ptier_error *error);
int ptier_l3_delete(ptier_l3 *l3, int64_t id, uint64_t hash, uint64_t revision);

/* Steps a statement that gives no rows and resets it. SQLITE_OK or an error code. */
int ptier_l3_run(sqlite3_stmt *statement);

/* ---- l3_adopt.c ---- */

/* Ends an adoption that a crash or a failure cut short. OK too when there was none. No connection
 * is open. */
PTIER_MUST_CHECK ptier_status ptier_l3_finish_adoption(const ptier_l3 *l3, bool keep_old,
                                                       ptier_error *error);

/* Makes the name of a file last. */
PTIER_MUST_CHECK ptier_status ptier_l3_sync_directory_of(const char *path, ptier_error *error);

/* Deletes what SQLite may have left beside a database of this path. */
void ptier_l3_remove_companions(const char *path);

/* ---- l3_sqlite.c, l3_upkeep.c ---- */

ptier_l3 *ptier_l3_allocate(const char *path, const ptier_l3_options *options);
void ptier_l3_free(ptier_l3 *l3);

/* Sizes of the files, after a change of them; and whether they are still ours. Any thread. */
void ptier_l3_measure(ptier_l3 *l3);

/* ---- see tier.h ---- */

ptier_status ptier_l3_get(ptier_tier *tier, const ptier_ref *ref, ptier_entry **entry);
ptier_status ptier_l3_scan(ptier_tier *tier, ptier_scan_fn fn, void *context, ptier_error *error);
ptier_status ptier_l3_apply(ptier_tier *tier, const ptier_op *ops, size_t count, bool sync,
                            ptier_error *error);
ptier_status ptier_l3_write_usage(ptier_tier *tier, const ptier_usage *usage, size_t count,
                                  ptier_error *error);
void ptier_l3_drop(ptier_tier *tier, uint64_t hash, uint64_t revision);
void ptier_l3_touch(ptier_tier *tier, const ptier_ref *ref);
ptier_status ptier_l3_victim(ptier_tier *tier, uint64_t *hash, uint64_t *revision);
ptier_status ptier_l3_probe(ptier_tier *tier, ptier_error *error);

#endif
