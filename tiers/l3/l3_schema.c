/*
 * L3's file: connections, schema, version.
 *
 * Keys are random, so that every structure led by the key costs a random page a row: rows are
 * appended under their own rowid, and only the 64-bit hash is indexed (not unique: two keys may
 * share a hash). Usage figures change far more often than records and are kept in a narrow table
 * aside. Sources are few and become small integers.
 */
#include "l3/l3_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SCHEMA_VERSION 1
#define APPLICATION_ID 1347703122 /* "PTIR" */
#define VALUE_MAX      (1 << 20)  /* of one column: a damaged length allocates no more than this */
#define KEY_CHECK_TEXT "proxytier database key"

static const char schema_sql[] =
    "CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;"
    "CREATE TABLE sources(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);"
    "CREATE TABLE entries("
    " id INTEGER PRIMARY KEY,"
    " key64 INTEGER NOT NULL," /* hash of the key */
    " revision INTEGER NOT NULL,"
    " expires_wall INTEGER NOT NULL," /* ms since the epoch; 0 never */
    " expires_boot INTEGER NOT NULL," /* ms of CLOCK_BOOTTIME in the run of the kernel that... */
    " boot_tag INTEGER NOT NULL,"     /* ...this names */
    " health INTEGER NOT NULL,"
    " revalidate INTEGER NOT NULL,"
    " failures INTEGER NOT NULL,"
    " source INTEGER NOT NULL,"
    " fetch_time INTEGER NOT NULL,"
    " ttl INTEGER NOT NULL,"
    " integrity BLOB NOT NULL," /* keyed check over all fields: l3_row.c */
    " key TEXT NOT NULL,"
    " url TEXT NOT NULL,"
    " username TEXT," /* Fernet tokens */
    " password TEXT,"
    " labels BLOB);" /* name NUL value NUL ... */
    "CREATE INDEX entries_key64 ON entries(key64);"
    "CREATE TABLE usage("
    " id INTEGER PRIMARY KEY," /* of the entry */
    " last_access INTEGER NOT NULL,"
    " accesses INTEGER NOT NULL,"
    " latency_us INTEGER NOT NULL,"
    " successes INTEGER NOT NULL,"
    " reports INTEGER NOT NULL,"
    " integrity BLOB NOT NULL);"
    "INSERT INTO meta VALUES('prefix', 0);";

static const char *const statement_sql[L3_STATEMENTS] = {
    [L3_GET] = "SELECT e.id, e.key64, e.revision, e.expires_wall, e.expires_boot, e.boot_tag,"
               " e.health, e.revalidate, e.failures, e.source, e.fetch_time, e.ttl, e.integrity,"
               " e.key, e.url, e.username, e.password, e.labels, u.last_access, u.accesses,"
               " u.latency_us, u.successes, u.reports, u.integrity"
               " FROM entries e LEFT JOIN usage u ON u.id = e.id WHERE e.key64 = ?1",
    [L3_SCAN] = "SELECT key64, revision, expires_wall, expires_boot, boot_tag, health, url, source"
                " FROM entries",
    [L3_SOURCE_NAME] = "SELECT name FROM sources WHERE id = ?1",
    /* Never deferred: that fails with BUSY_SNAPSHOT when it turns to writing, whatever the timeout.
     */
    [L3_BEGIN] = "BEGIN IMMEDIATE",
    [L3_COMMIT] = "COMMIT",
    [L3_ROLLBACK] = "ROLLBACK",
    [L3_FIND] = "SELECT id, revision, key FROM entries WHERE key64 = ?1",
    [L3_INSERT] = "INSERT INTO entries(revision, expires_wall, expires_boot, boot_tag, health,"
                  " revalidate, failures, source, fetch_time, ttl, integrity, url, username,"
                  " password, labels, key64, key)"
                  " VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17)",
    [L3_UPDATE] = "UPDATE entries SET revision=?1, expires_wall=?2, expires_boot=?3, boot_tag=?4,"
                  " health=?5, revalidate=?6, failures=?7, source=?8, fetch_time=?9, ttl=?10,"
                  " integrity=?11, url=?12, username=?13, password=?14, labels=?15 WHERE id=?16",
    [L3_DELETE] = "DELETE FROM entries WHERE id = ?1",
    [L3_DELETE_USAGE] = "DELETE FROM usage WHERE id = ?1",
    [L3_DELETE_ALL] = "DELETE FROM entries",
    [L3_DELETE_ALL_USAGE] = "DELETE FROM usage",
    [L3_DELETE_BELOW] = "DELETE FROM entries WHERE revision < ?1",
    [L3_DELETE_USAGE_BELOW] =
        "DELETE FROM usage WHERE id IN (SELECT id FROM entries WHERE revision < ?1)",
    [L3_PUT_USAGE] =
        "INSERT OR REPLACE INTO usage(id, last_access, accesses, latency_us, successes,"
        " reports, integrity) VALUES(?1,?2,?3,?4,?5,?6,?7)",
    [L3_SET_META] = "INSERT OR REPLACE INTO meta(name, value) VALUES(?1, ?2)",
    [L3_SOURCE_ID] = "SELECT id FROM sources WHERE name = ?1",
    [L3_ADD_SOURCE] = "INSERT INTO sources(name) VALUES(?1)",
    [L3_SAMPLE] = "SELECT e.key64, e.revision, u.last_access, e.expires_wall, e.ttl, e.fetch_time"
                  " FROM entries e LEFT JOIN usage u ON u.id = e.id"
                  " WHERE e.id >= ?1 ORDER BY e.id LIMIT 1",
    [L3_LAST_ROW] = "SELECT max(id) FROM entries",
};

/* ---- connections ---- */

/* SQLite would make the file with the umask's mode; -wal and -shm then take the mode of the file.
 */
static ptier_status
prepare_file(const ptier_l3 *l3, ptier_error *error)
{
    int file = open(l3->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file >= 0) {
        (void)close(file); /* empty */
        return PTIER_OK;
    }
    int code = errno;
    if (code == EEXIST)
        return chmod(l3->path, 0600) == 0
                   ? PTIER_OK
                   : ptier_fail(error, PTIER_PERMISSION_DENIED,
                                "database %s is not ours: check its owner", l3->path);
    char text[96];
    ptier_status status = code == EACCES || code == EPERM || code == EROFS ? PTIER_PERMISSION_DENIED
                          : code == ENOSPC || code == EDQUOT ? PTIER_RESOURCE_EXHAUSTED
                                                             : PTIER_UNAVAILABLE;
    return ptier_fail(error, status, "cannot create database %s: %s", l3->path,
                      strerror_r(code, text, sizeof text));
}

static int
prepare_statements(ptier_l3_conn *conn, int count)
{
    for (int i = 0; i < count; i++) {
        int code = sqlite3_prepare_v3(conn->db, statement_sql[i], -1, SQLITE_PREPARE_PERSISTENT,
                                      &conn->statements[i], NULL);
        if (code != SQLITE_OK)
            return code;
    }
    return SQLITE_OK;
}

static int
open_connection(const ptier_l3 *l3, ptier_l3_conn *conn, const char *pragmas)
{
    /* NOMUTEX: a connection is never used by two threads at once. */
    int code =
        sqlite3_open_v2(l3->path, &conn->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    if (code != SQLITE_OK)
        return code;
    (void)sqlite3_extended_result_codes(conn->db, 1); /* cannot fail on an open handle */
    (void)sqlite3_busy_timeout(conn->db, PTIER_L3_BUSY_TIMEOUT_MS);
    (void)sqlite3_limit(conn->db, SQLITE_LIMIT_LENGTH, VALUE_MAX);
    (void)sqlite3_db_config(conn->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    (void)sqlite3_db_config(conn->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    return sqlite3_exec(conn->db, pragmas, NULL, NULL, NULL);
}

static void
close_connection(ptier_l3_conn *conn)
{
    for (int i = 0; i < L3_STATEMENTS; i++) {
        (void)sqlite3_finalize(conn->statements[i]); /* repeats an error that was reported */
        conn->statements[i] = NULL;
    }
    (void)sqlite3_close(conn->db); /* no statement is left that could keep it open */
    conn->db = NULL;
}

/* ---- schema ---- */

/* One value of the first row; SQLITE_DONE: no row. Text comes back in `text` when that is not NULL.
 */
static int
query_value(sqlite3 *db, const char *sql, int64_t *value, char *text, size_t room)
{
    sqlite3_stmt *statement;
    int code = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);
    if (code != SQLITE_OK)
        return code;
    code = sqlite3_step(statement);
    if (code == SQLITE_ROW && value)
        *value = sqlite3_column_int64(statement, 0);
    if (code == SQLITE_ROW && text) {
        const char *found = (const char *)sqlite3_column_text(statement, 0);
        (void)snprintf(text, room, "%s", found ? found : "");
    }
    (void)sqlite3_finalize(statement); /* repeats code */
    return code == SQLITE_ROW ? SQLITE_OK : code;
}

static int
create_schema(sqlite3 *db)
{
    char *sql = sqlite3_mprintf("BEGIN IMMEDIATE;%s"
                                "PRAGMA application_id=%d;PRAGMA user_version=%d;COMMIT;",
                                schema_sql, APPLICATION_ID, SCHEMA_VERSION);
    if (!sql)
        return SQLITE_NOMEM;
    int code = sqlite3_exec(db, sql, NULL, NULL, NULL);
    sqlite3_free(sql);
    return code;
}

static ptier_status
check_schema(ptier_l3 *l3, ptier_error *error)
{
    sqlite3 *db = l3->writer.db;
    int64_t application = 0, version = 0, tables = 0;
    int code = query_value(db, "PRAGMA application_id", &application, NULL, 0);
    if (code == SQLITE_OK)
        code = query_value(db, "PRAGMA user_version", &version, NULL, 0);
    if (code == SQLITE_OK)
        code = query_value(db, "SELECT count(*) FROM sqlite_schema", &tables, NULL, 0);
    if (code == SQLITE_OK && tables == 0 && application == 0) {
        code = create_schema(db);
        application = APPLICATION_ID;
        version = SCHEMA_VERSION;
    }
    if (code != SQLITE_OK)
        return ptier_l3_fail(l3, &l3->writer, code, "open", error);
    if (application != APPLICATION_ID)
        return ptier_fail(error, PTIER_FAILED_PRECONDITION,
                          "%s is another program's database: move it away", l3->path);
    if (version > SCHEMA_VERSION)
        return ptier_fail(error, PTIER_FAILED_PRECONDITION,
                          "database %s has schema %lld, made by a newer proxytier; this one knows "
                          "%d: upgrade it, or move the file away",
                          l3->path, (long long)version, SCHEMA_VERSION);
    if (version < 1)
        return ptier_fail(error, PTIER_DATA_LOSS, "database %s has no schema version: move it away",
                          l3->path);
    return PTIER_OK;
}

/*
 * A keyed check of a fixed text tells whether one of our keys belongs to this file, before any
 * record is found to be unreadable. It follows the first key when keys change.
 */
static ptier_status
check_key(ptier_l3 *l3, ptier_error *error)
{
    const size_t length = sizeof KEY_CHECK_TEXT - 1;
    uint8_t ours[PTIER_CHECK_BYTES], theirs[PTIER_CHECK_BYTES] = {0};
    if (ptier_keyring_check(l3->keyring, KEY_CHECK_TEXT, length, ours) != PTIER_OK)
        return ptier_fail(error, PTIER_INTERNAL, "the crypto library (OpenSSL) failed");
    int64_t stored = 0;
    int code =
        query_value(l3->writer.db, "SELECT value FROM meta WHERE name = 'key'", &stored, NULL, 0);
    if (code == SQLITE_OK) {
        memcpy(theirs, &stored, sizeof theirs);
        if (!ptier_keyring_verify(l3->keyring, KEY_CHECK_TEXT, length, theirs))
            return ptier_fail(error, PTIER_FAILED_PRECONDITION,
                              "the encryption key is not the one that %s was written with: give "
                              "that one (as the key, or as a previous key)",
                              l3->path);
    }
    if (code == SQLITE_DONE || (code == SQLITE_OK && memcmp(ours, theirs, sizeof ours) != 0)) {
        memcpy(&stored, ours, sizeof stored);
        sqlite3_stmt *set = l3->writer.statements[L3_SET_META];
        (void)sqlite3_bind_text(set, 1, "key", -1, SQLITE_STATIC); /* a failed bind fails the run */
        (void)sqlite3_bind_int64(set, 2, stored);
        code = ptier_l3_run(set);
    }
    return code == SQLITE_OK ? PTIER_OK : ptier_l3_fail(l3, &l3->writer, code, "open", error);
}

static ptier_status
read_state(ptier_l3 *l3, ptier_error *error)
{
    int64_t prefix = 0, count = 0;
    sqlite3 *db = l3->writer.db;
    int code = query_value(db, "SELECT value FROM meta WHERE name = 'prefix'", &prefix, NULL, 0);
    if (code == SQLITE_OK)
        code = query_value(db, "SELECT count(*) FROM entries", &count, NULL, 0);
    if (code == SQLITE_DONE || prefix < 0)
        code = SQLITE_CORRUPT;
    if (code != SQLITE_OK)
        return ptier_l3_fail(l3, &l3->writer, code, "read", error);
    atomic_store(&l3->prefix, (uint64_t)prefix);
    atomic_store(&l3->count, (uint64_t)count);
    return PTIER_OK;
}

static int
on_wal(void *context, sqlite3 *db, const char *name, int pages)
{
    (void)db;
    (void)name;
    ((ptier_l3 *)context)->wal_pages = pages;
    return SQLITE_OK;
}

static ptier_status
connect_writer(ptier_l3 *l3, ptier_error *error)
{
    /* auto_vacuum can only be chosen before the first table. */
    int code = open_connection(l3, &l3->writer,
                               "PRAGMA auto_vacuum=INCREMENTAL;"
                               "PRAGMA cell_size_check=ON;"
                               "PRAGMA wal_autocheckpoint=0;"
                               "PRAGMA synchronous=NORMAL;"
                               "PRAGMA secure_delete=OFF;" /* Debian's default writes zeros */
                               "PRAGMA temp_store=MEMORY;"
                               "PRAGMA cache_size=-32768;");
    char mode[16] = "";
    if (code == SQLITE_OK)
        code = query_value(l3->writer.db, "PRAGMA journal_mode=WAL", NULL, mode, sizeof mode);
    if (code != SQLITE_OK)
        return ptier_l3_fail(l3, &l3->writer, code, "open", error);
    if (strcmp(mode, "wal") != 0)
        return ptier_fail(error, PTIER_UNAVAILABLE,
                          "the file system of %s cannot hold a write-ahead log (is it a network "
                          "share?): put the data directory on a local disk",
                          l3->path);
    (void)sqlite3_wal_hook(l3->writer.db, on_wal, l3); /* gives the hook before: none */
    ptier_status status = check_schema(l3, error);
    if (status != PTIER_OK)
        return status;
    code = prepare_statements(&l3->writer, L3_STATEMENTS);
    return code == SQLITE_OK ? PTIER_OK : ptier_l3_fail(l3, &l3->writer, code, "open", error);
}

static ptier_status
connect_reader(ptier_l3 *l3, ptier_l3_conn *reader, ptier_error *error)
{
    int code = open_connection(l3, reader,
                               "PRAGMA query_only=ON;"
                               "PRAGMA cell_size_check=ON;"
                               "PRAGMA wal_autocheckpoint=0;"
                               "PRAGMA cache_size=-4096;");
    if (code == SQLITE_OK)
        code = prepare_statements(reader, L3_READER_STATEMENTS);
    return code == SQLITE_OK ? PTIER_OK : ptier_l3_fail(l3, reader, code, "open", error);
}

ptier_status
ptier_l3_connect(ptier_l3 *l3, ptier_error *error)
{
    ptier_status status = prepare_file(l3, error);
    if (status == PTIER_OK)
        status = connect_writer(l3, error);
    if (status == PTIER_OK)
        status = check_key(l3, error);
    if (status == PTIER_OK)
        status = read_state(l3, error);
    for (int i = 0; status == PTIER_OK && i < PTIER_L3_READERS; i++)
        status = connect_reader(l3, &l3->readers[i], error);
    return status;
}

void
ptier_l3_disconnect(ptier_l3 *l3)
{
    for (int i = 0; i < PTIER_L3_READERS; i++)
        close_connection(&l3->readers[i]);
    close_connection(&l3->writer); /* last: it checkpoints and removes the WAL */
}
