/* l3/l3_wal.c: transactions of all kinds through our VFS, and what another connection, over the
 * system's own VFS, sees of them after each. PTIER_SEED=N is another run, PTIER_RUNS=N a longer
 * one. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "l3/l3_internal.h"
#include "support/settings.h"
#include "support/temp_dir.h"

#define ROWS 300

typedef struct fixture {
    char directory[PTIER_TEST_PATH], path[PTIER_TEST_PATH + 16];
    sqlite3 *db;             /* over our VFS */
    int64_t expected[ROWS];  /* number of each row; 0: there is none */
    int64_t attempted[ROWS]; /* the same, with what is not committed yet */
} fixture;

static uint64_t state_of_random = 1;

static uint32_t
draw(uint32_t limit)
{
    state_of_random = state_of_random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state_of_random >> 33) % limit;
}

static void
run(sqlite3 *db, const char *format, ...)
{
    va_list arguments;
    char sql[300], *wrong = NULL;
    va_start(arguments, format);
    (void)vsnprintf(sql, sizeof sql, format, arguments); /* they fit */
    va_end(arguments);
    if (sqlite3_exec(db, sql, NULL, NULL, &wrong) != SQLITE_OK)
        fail_msg("%s: %s", sql, wrong);
}

static sqlite3 *
open_database(const fixture *f, const char *vfs)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open_v2(f->path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, vfs),
                     SQLITE_OK);
    return db;
}

static int
setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    ptier_test_dir_make(f->directory);
    (void)snprintf(f->path, sizeof f->path, "%s/db", f->directory); /* fits */
    state_of_random = ptier_test_setting("PTIER_SEED", 1);
    f->db = open_database(f, ptier_l3_vfs());
    run(f->db, "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=10;"
               "CREATE TABLE t(id INTEGER PRIMARY KEY, number INTEGER, text BLOB);"
               "CREATE INDEX numbers ON t(number)");
    *state = f;
    return 0;
}

static int
teardown(void **state)
{
    fixture *f = *state;
    assert_int_equal(sqlite3_close(f->db), SQLITE_OK);
    ptier_test_dir_remove(f->directory);
    free(f);
    return 0;
}

/* The content is what was committed, and sound, to whoever opens the file now. */
static void
check(const fixture *f)
{
    sqlite3 *db = open_database(f, "unix");
    sqlite3_stmt *rows;
    size_t at = 0;
    assert_int_equal(
        sqlite3_prepare_v2(db, "SELECT id, number FROM t ORDER BY id", -1, &rows, NULL), SQLITE_OK);
    while (sqlite3_step(rows) == SQLITE_ROW) {
        for (; (int64_t)at < sqlite3_column_int64(rows, 0); at++)
            assert_int_equal(f->expected[at], 0);
        assert_int_equal(f->expected[at++], sqlite3_column_int64(rows, 1));
    }
    for (; at < ROWS; at++)
        assert_int_equal(f->expected[at], 0);
    assert_int_equal(sqlite3_finalize(rows), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &rows, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(rows), SQLITE_ROW);
    assert_string_equal((const char *)sqlite3_column_text(rows, 0), "ok");
    assert_int_equal(sqlite3_finalize(rows), SQLITE_OK);
    /* The writer's file stays as it is: no checkpoint by somebody else. */
    (void)sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void
change_some(fixture *f, uint32_t count)
{
    for (; count > 0; count--) {
        uint32_t row = draw(ROWS);
        if (draw(5) == 0) {
            run(f->db, "DELETE FROM t WHERE id=%u", row);
            f->attempted[row] = 0;
        } else {
            f->attempted[row] = 1 + draw(1000000);
            run(f->db, "INSERT OR REPLACE INTO t VALUES(%u, %lld, randomblob(%u))", row,
                (long long)f->attempted[row], draw(9000));
        }
    }
}

/* A cache of ten pages: larger ones write frames, read them again, and write over them, before they
 * commit. */
static void
transact(fixture *f)
{
    run(f->db, "PRAGMA synchronous=%s", draw(4) ? "NORMAL" : "FULL");
    memcpy(f->attempted, f->expected, sizeof f->attempted);
    run(f->db, "BEGIN IMMEDIATE");
    change_some(f, draw(4) ? 1 + draw(5) : 1 + draw(100));
    if (draw(4) == 0) {
        run(f->db, "ROLLBACK");
        return;
    }
    run(f->db, "COMMIT");
    memcpy(f->expected, f->attempted, sizeof f->expected);
}

static void
whatever_is_committed_is_seen_at_once(void **state)
{
    fixture *f = *state;
    for (uint64_t runs = ptier_test_setting("PTIER_RUNS", 150); runs > 0; runs--) {
        transact(f);
        check(f);
        if (draw(10) == 0)
            run(f->db, "PRAGMA wal_checkpoint(%s)", draw(2) ? "PASSIVE" : "TRUNCATE");
        if (draw(20) == 0) { /* a WAL that is there already */
            (void)sqlite3_db_config(f->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
            assert_int_equal(sqlite3_close(f->db), SQLITE_OK);
            f->db = open_database(f, ptier_l3_vfs());
            run(f->db, "PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=10");
        }
    }
    check(f);
}

static void
limit_files(rlim_t bytes)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* At whatever frame the disk is full: the transaction fails, and the next one works. */
static void
what_cannot_be_written_is_rolled_back(void **state)
{
    fixture *f = *state;
    (void)signal(SIGXFSZ, SIG_IGN);
    transact(f);
    for (int i = 0; i < 40; i++) {
        run(f->db, "PRAGMA wal_checkpoint(TRUNCATE)"); /* it begins anew */
        limit_files(draw(1000000));
        int code = sqlite3_exec(f->db,
                                "BEGIN IMMEDIATE; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL"
                                " SELECT i + 1 FROM n WHERE i < 299)"
                                " INSERT OR REPLACE INTO t SELECT i, 7, randomblob(4000) FROM n;"
                                " COMMIT",
                                NULL, NULL, NULL);
        limit_files(RLIM_INFINITY);
        assert_int_not_equal(code, SQLITE_OK);
        if (!sqlite3_get_autocommit(f->db))
            run(f->db, "ROLLBACK");
        check(f);
        for (int next = 0; next < 3; next++) {
            transact(f);
            check(f);
        }
    }
}

/* 0: the kernel does not count. */
static unsigned long
count_writes(void)
{
    char text[1000];
    FILE *file = fopen("/proc/self/io", "r");
    if (!file)
        return 0;
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    assert_int_equal(fclose(file), 0);
    const char *at = strstr(text, "syscw: ");
    assert_non_null(at);
    return strtoul(at + 7, NULL, 10);
}

static void
frames_are_written_many_at_a_time(void **state)
{
    fixture *f = *state;
    run(f->db, "PRAGMA cache_size=1000; PRAGMA synchronous=NORMAL");
    change_some(f, 1); /* the header of the WAL is there now */
    unsigned long before = count_writes();
    if (before == 0)
        skip();
    run(f->db, "BEGIN IMMEDIATE");
    change_some(f, 300);
    run(f->db, "COMMIT");
    unsigned long writes = count_writes() - before;
    int frames, done;
    assert_int_equal(
        sqlite3_wal_checkpoint_v2(f->db, NULL, SQLITE_CHECKPOINT_PASSIVE, &frames, &done),
        SQLITE_OK);
    assert_true(frames > 100);
    assert_true(writes > 0 && writes < (unsigned long)frames / 10);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(whatever_is_committed_is_seen_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_written_is_rolled_back, setup, teardown),
        cmocka_unit_test_setup_teardown(frames_are_written_many_at_a_time, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
