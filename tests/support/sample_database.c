/* See sample_database.h. */
#include "support/sample_database.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <sqlite3.h>

const char ptier_test_own_tables[] =
    "PRAGMA application_id=1347703122; PRAGMA user_version=1;"
    "CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;"
    "CREATE TABLE sources(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);"
    "CREATE TABLE entries(id INTEGER PRIMARY KEY, key64 INTEGER NOT NULL, revision INTEGER,"
    " expires_wall INTEGER, expires_boot INTEGER, boot_tag INTEGER, health INTEGER,"
    " revalidate INTEGER, failures INTEGER, source INTEGER, fetch_time INTEGER, ttl INTEGER,"
    " integrity BLOB, key TEXT, url TEXT, username TEXT, password TEXT, labels BLOB);"
    "CREATE INDEX entries_key64 ON entries(key64);"
    "CREATE TABLE usage(id INTEGER PRIMARY KEY, last_access INTEGER, accesses INTEGER,"
    " latency_us INTEGER, successes INTEGER, reports INTEGER, integrity BLOB);";

const char ptier_test_proxywhirl_tables[] =
    "CREATE TABLE cache_entries(key TEXT PRIMARY KEY, proxy_url TEXT, username_encrypted BLOB,"
    " password_encrypted BLOB, source TEXT, fetch_time REAL, last_accessed REAL,"
    " access_count INTEGER, ttl_seconds INTEGER, expires_at REAL, health_status TEXT,"
    " failure_count INTEGER, evicted_from_l1 INTEGER, note TEXT);"
    "CREATE TABLE health_history(id INTEGER PRIMARY KEY, proxy_key TEXT);";

#define NUMBERS "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %zu)"
#define URL_OF_I                                                                                   \
    "'http://10.' || (i / 65536) || '.' || (i / 256 %% 256) || '.' || (i %% 256) || ':80'"

void
ptier_test_database(const char *path, const char *sql)
{
    sqlite3 *db;
    char *message = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s: %s", path, message);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

void
ptier_test_own_database(const char *path, size_t count)
{
    char sql[2048];
    ptier_test_database(path, ptier_test_own_tables);
    if (count == 0)
        return;
    (void)snprintf(sql, sizeof sql,
                   "INSERT INTO sources VALUES(7, 'many');"
                   "INSERT INTO entries " NUMBERS
                   " SELECT i, i, i, 4000000000000, 0, 0, 1, 0, 0, 7, 1767323045678, 3600000,"
                   " x'0011223344556677', 'key' || i, " URL_OF_I ", 'gAAAAABmZm9v', NULL,"
                   " CAST('country' || char(0) || 'DE' || char(0) AS BLOB) FROM n;"
                   "INSERT INTO usage " NUMBERS
                   " SELECT i, 1767323050000 + i, i, 12500, 1, 1, x'00'"
                   " FROM n",
                   count, count);
    ptier_test_database(path, sql);
}

void
ptier_test_proxywhirl_database(const char *path, size_t count)
{
    char sql[2048];
    ptier_test_database(path, ptier_test_proxywhirl_tables);
    if (count == 0)
        return;
    (void)snprintf(sql, sizeof sql,
                   "INSERT INTO cache_entries " NUMBERS " SELECT 'key' || i, " URL_OF_I
                   ", CAST('gAAAAABmZm9v' AS BLOB), NULL, 'many', 1767323045.678, 1767323050.5, i,"
                   " 3600, 4000000000.25, 'degraded', 2, i %% 2, NULL FROM n",
                   count);
    ptier_test_database(path, sql);
}
