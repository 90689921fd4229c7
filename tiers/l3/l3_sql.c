/*
 * L3's schema and statements.
 *
 * Keys are random, so that every structure led by the key costs a random page a row: rows are
 * appended under their own rowid, and only the 64-bit hash is indexed (not unique: two keys may
 * share a hash). Usage figures change far more often than records and are kept in a narrow table
 * aside. Sources are few and become small integers.
 *
 * meta: 'totals' and 'key', see l3_meta.c; 'probe' is what the last probe wrote. Version 1 had a
 * bare 'prefix' and no totals.
 */
#include "l3/l3_internal.h"

const char ptier_l3_schema_sql[] =
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
    "CREATE TABLE usage("
    " id INTEGER PRIMARY KEY," /* of the entry */
    " last_access INTEGER NOT NULL,"
    " accesses INTEGER NOT NULL,"
    " latency_us INTEGER NOT NULL,"
    " successes INTEGER NOT NULL,"
    " reports INTEGER NOT NULL,"
    " integrity BLOB NOT NULL);";

const char ptier_l3_index_sql[] = "CREATE INDEX entries_key64 ON entries(key64);";

/* In the order of ptier_l3_row_bind. FAIL: a failure ends the transaction, so that SQLite need not
 * keep what the statement changes for taking only that back. */
#define INSERT_INTO_ENTRIES                                                                        \
    "INSERT OR FAIL INTO entries(revision, expires_wall, expires_boot, boot_tag, health, "         \
    "revalidate,"                                                                                  \
    " failures, source, fetch_time, ttl, integrity, url, username, password, labels, key64, key)"  \
    " VALUES"
#define ROW "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)" /* PTIER_L3_COLUMNS */

/* In the order of the L3_ID... columns. */
#define SCAN_COLUMNS                                                                               \
    "e.id, e.key64, e.revision, e.expires_wall, e.expires_boot, e.boot_tag, e.health, e.source,"   \
    " e.key, e.url"
#define ROW_COLUMNS                                                                                \
    SCAN_COLUMNS ", e.revalidate, e.failures, e.fetch_time, e.ttl, e.integrity, e.username,"       \
                 " e.password, e.labels"
#define GET_COLUMNS                                                                                \
    ROW_COLUMNS ", u.last_access, u.accesses, u.latency_us, u.successes, u.reports, u.integrity"
#define FROM_BOTH " FROM entries e LEFT JOIN usage u ON u.id = e.id "

const char *const ptier_l3_statement_sql[L3_STATEMENTS] = {
    [L3_GET] = "SELECT " GET_COLUMNS FROM_BOTH "WHERE e.key64 = ?1",
    [L3_ROW] = "SELECT " GET_COLUMNS FROM_BOTH "WHERE e.id = ?1",
    [L3_ROW_PLAIN] = "SELECT " ROW_COLUMNS ", NULL, NULL, NULL, NULL, NULL, NULL"
                     " FROM entries e WHERE e.id = ?1",
    [L3_SCAN] = "SELECT " SCAN_COLUMNS " FROM entries e WHERE e.id >= ?1 ORDER BY e.id",
    [L3_INDEX] = "SELECT key64, id FROM entries INDEXED BY entries_key64"
                 " WHERE (key64, id) > (?1, ?2) ORDER BY key64, id",
    [L3_LOSER] = "SELECT a.id, a.revision FROM entries a"
                 " JOIN entries b ON b.key64 = a.key64 AND b.key = a.key AND"
                 " (b.revision > a.revision OR (b.revision = a.revision AND b.id > a.id))"
                 " WHERE a.key64 = ?1 LIMIT 1",
    [L3_SOURCE_NAME] = "SELECT name FROM sources NOT INDEXED WHERE id = ?1",
    [L3_SOURCE_NAME_AGAIN] =
        "SELECT name FROM sources INDEXED BY sqlite_autoindex_sources_1 WHERE id = ?1",
    [L3_GET_META] = "SELECT value FROM meta WHERE name = ?1",
    [L3_BEGIN_READ] = "BEGIN",
    /* Never deferred: that fails with BUSY_SNAPSHOT when it turns to writing, whatever the timeout.
     */
    [L3_BEGIN] = "BEGIN IMMEDIATE",
    [L3_COMMIT] = "COMMIT",
    [L3_ROLLBACK] = "ROLLBACK",
    [L3_FIND] = "SELECT id, revision, key FROM entries WHERE key64 = ?1",
    [L3_INSERT] = INSERT_INTO_ENTRIES ROW,
    [L3_INSERT_ROWS] = INSERT_INTO_ENTRIES ROW "," ROW "," ROW "," ROW /* PTIER_L3_ROWS of them */
                                               "," ROW "," ROW "," ROW "," ROW,
    [L3_UPDATE] = "UPDATE entries SET revision=?1, expires_wall=?2, expires_boot=?3, boot_tag=?4,"
                  " health=?5, revalidate=?6, failures=?7, source=?8, fetch_time=?9, ttl=?10,"
                  " integrity=?11, url=?12, username=?13, password=?14, labels=?15 WHERE id=?16",
    [L3_DELETE] = "DELETE FROM entries WHERE id = ?1",
    [L3_DELETE_USAGE] = "DELETE FROM usage WHERE id = ?1",
    [L3_DELETE_ALL] = "DELETE FROM entries",
    [L3_DELETE_ALL_USAGE] = "DELETE FROM usage",
    [L3_BELOW] = "SELECT id, key64, revision FROM entries WHERE revision < ?1",
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
    [L3_ROTATE] = "SELECT " GET_COLUMNS FROM_BOTH "WHERE e.id > ?1 ORDER BY e.id LIMIT ?2",
    [L3_RESEAL] = "UPDATE entries SET integrity=?1, username=?2, password=?3 WHERE id=?4",
};
