/*
 * Files that are deleted, replaced, locked and damaged under the running cache: service goes on,
 * nothing that was acknowledged as LOGGED is lost while another tier has it, everything is healed
 * afterwards.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "fault.h"
#include "stage.h"
#include "start_report.h"

enum { CALLS = 40 };

static ptier_stage stage;

static int
tear_down(void **state)
{
    (void)state;
    ptier_stage_end(&stage);
    return 0;
}

static void
begin(int tiers, const char *what)
{
    ptier_fault_deadline(what);
    ptier_stage_begin(&stage, tiers);
}

/* ---- files taken away ---- */

static void
run_command(const char *format)
{
    char command[3 * PTIER_TEST_PATH];
    (void)snprintf(command, sizeof command, "cd %s && %s", stage.box.directory, format);
    assert_int_equal(system(command), 0);
}

static void
make_foreign_database(const char *path)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(
        sqlite3_exec(
            db, "PRAGMA application_id=7; CREATE TABLE theirs(x); INSERT INTO theirs VALUES(1)",
            NULL, NULL, NULL),
        SQLITE_OK);
    sqlite3_close(db);
}

/* Does something to the files under the running cache; after a while nothing is wrong any more,
 * without a restart. */
static void
survive(int tiers, const char *command)
{
    begin(tiers, command);
    ptier_test_box_open(&stage.box);
    ptier_stage_run(&stage, CALLS, 1);
    run_command("mkdir older; cp l3.sqlite* older/ 2>/dev/null; true");
    make_foreign_database(ptier_stage_path(&stage, "foreign.sqlite"));
    ptier_stage_run(&stage, CALLS, 2);
    ptier_tier_await_healed(&stage.watch, &stage.box, &stage.load);
    run_command(command);
    stage.load.weak = stage.load.refused = true;
    ptier_stage_run(&stage, CALLS, 3);
    ptier_stage_check_reads(&stage, "at once");
    ptier_stage_await_kill(&stage, PTIER_DURABILITY_LOGGED, "killed a while later");
    stage.load.weak = stage.load.refused = false;
    ptier_stage_run(&stage, CALLS, 4);
    ptier_stage_check_healed(&stage);
    ptier_stage_end(&stage);
}

#define DELETE_L3 "rm l3.sqlite l3.sqlite-wal l3.sqlite-shm"
#define OLDER_L3                                                                                   \
    "rm l3.sqlite-wal l3.sqlite-shm; mv older/l3.sqlite .; mv older/l3.sqlite-wal . 2>/dev/null "  \
    "|| true"
#define FOREIGN_L3 "rm l3.sqlite-wal l3.sqlite-shm; mv foreign.sqlite l3.sqlite"

static void
deleted_shards_are_made_up_for_with_all_tiers(void **state)
{
    (void)state;
    survive(BOX_ALL, "rm -f l2/*.jsonl");
}

static void
deleted_shards_are_made_up_for_without_l3(void **state)
{
    (void)state;
    survive(BOX_L1 | BOX_L2, "rm -f l2/*.jsonl");
}

static void
a_deleted_directory_is_made_up_for_with_all_tiers(void **state)
{
    (void)state;
    survive(BOX_ALL, "rm -rf l2");
}

static void
a_deleted_directory_is_made_up_for_without_l3(void **state)
{
    (void)state;
    survive(BOX_L1 | BOX_L2, "rm -rf l2");
}

static void
a_deleted_database_is_made_up_for_with_all_tiers(void **state)
{
    (void)state;
    survive(BOX_ALL, DELETE_L3);
}

static void
a_deleted_database_is_made_up_for_without_l2(void **state)
{
    (void)state;
    survive(BOX_L1 | BOX_L3, DELETE_L3);
}

static void
a_database_replaced_by_an_older_one_is_made_up_for_with_all_tiers(void **state)
{
    (void)state;
    survive(BOX_ALL, OLDER_L3);
}

static void
a_database_replaced_by_an_older_one_is_made_up_for_without_l2(void **state)
{
    (void)state;
    survive(BOX_L1 | BOX_L3, OLDER_L3);
}

static void
a_database_replaced_by_another_programs_is_made_up_for_with_all_tiers(void **state)
{
    (void)state;
    survive(BOX_ALL, FOREIGN_L3);
}

static void
a_database_replaced_by_another_programs_is_made_up_for_without_l2(void **state)
{
    (void)state;
    survive(BOX_L1 | BOX_L3, FOREIGN_L3);
}

/* ---- locked by another process ---- */

#define HOLD_LOCK "--hold-lock"

/* The other process: takes the write lock, says so on its standard output, keeps it until its
 * standard input ends. */
static int
hold_lock(const char *path)
{
    sqlite3 *db;
    char byte = 1;
    if (sqlite3_open(path, &db) || sqlite3_busy_timeout(db, 10000) ||
        sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL) ||
        write(STDOUT_FILENO, &byte, 1) != 1)
        return 1;
    while (read(STDIN_FILENO, &byte, 1) > 0)
        continue;
    return sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL) || sqlite3_close(db);
}

typedef struct holder {
    pid_t pid;
    int in;
} holder;

static holder
start_holder(void)
{
    int in[2], out[2];
    char byte;
    assert_int_equal(pipe2(in, O_CLOEXEC) | pipe2(out, O_CLOEXEC), 0);
    holder h = {.in = in[1]};
    h.pid = fork();
    if (h.pid == 0) {
        (void)dup2(in[0], STDIN_FILENO); /* a failure shows in the parent */
        (void)dup2(out[1], STDOUT_FILENO);
        (void)execl("/proc/self/exe", "holder", HOLD_LOCK, ptier_stage_path(&stage, "l3.sqlite"),
                    (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    assert_int_equal(read(out[0], &byte, 1), 1);
    close(out[0]);
    return h;
}

static void
end_holder(holder h)
{
    int status;
    close(h.in);
    assert_int_equal(waitpid(h.pid, &status, 0), h.pid);
    assert_int_equal(status, 0);
}

static void
outlast_a_lock(int tiers)
{
    begin(tiers, "locked database");
    stage.box.hooks.l2_shard_bytes = 1 << 20; /* the log grows meanwhile */
    ptier_test_box_open(&stage.box);
    ptier_stage_run(&stage, CALLS, 1);
    holder h = start_holder();
    stage.load.weak = stage.load.refused = !(tiers & BOX_L2);
    int64_t until = ptier_test_now() + 3000;
    for (uint64_t seed = 2; ptier_test_now() < until; seed++)
        ptier_stage_run(&stage, CALLS, seed);
    ptier_stage_check_reads(&stage, "locked");
    ptier_stage_check_kill(&stage, PTIER_DURABILITY_LOGGED, "killed while it was locked");
    end_holder(h);
    ptier_stage_check_healed(&stage);
    ptier_stage_end(&stage);
}

static void
a_lock_of_another_process_is_outlasted_with_all_tiers(void **state)
{
    (void)state;
    outlast_a_lock(BOX_ALL);
}

static void
a_lock_of_another_process_is_outlasted_without_l2(void **state)
{
    (void)state;
    outlast_a_lock(BOX_L1 | BOX_L3);
}

/* ---- damaged ---- */

/* Garbage over all of the database but its first page. */
static void
damage_database(void)
{
    struct stat info;
    char garbage[4096];
    memset(garbage, 0xa5, sizeof garbage);
    int fd = open(ptier_stage_path(&stage, "l3.sqlite"), O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &info), 0);
    assert_true(info.st_size > (off_t)sizeof garbage);
    for (off_t at = sizeof garbage; at < info.st_size; at += (off_t)sizeof garbage)
        assert_int_equal(pwrite(fd, garbage, sizeof garbage, at), (ssize_t)sizeof garbage);
    close(fd);
}

/* Everything is in the file, and nothing in the WAL. */
static void
await_checkpoint(void)
{
    ptier_tier *l3 = stage.box.cache->tiers[PTIER_TIER_L3];
    BOX_AWAIT(ptier_l3_synced_prefix(l3) == ptier_l3_prefix(l3));
}

static void
a_database_damaged_under_the_cache_is_rebuilt_with_all_tiers(void **state)
{
    (void)state;
    begin(BOX_ALL, "damaged database");
    ptier_test_box_open(&stage.box);
    ptier_stage_run(&stage, CALLS, 1);
    ptier_tier_await_healed(&stage.watch, &stage.box, &stage.load);
    await_checkpoint();
    damage_database();
    ptier_stage_run(&stage, CALLS, 2);
    ptier_stage_check_reads(&stage, "at once");
    ptier_stage_check_kill(&stage, PTIER_DURABILITY_LOGGED, "killed");
    ptier_test_box_reopen(&stage.box);
    ptier_stage_run(&stage, CALLS, 3);
    ptier_stage_check_healed(&stage);
    run_command("ls l3.sqlite.damaged-* >/dev/null");
    ptier_stage_end(&stage);
}

/* What only it had is lost, and said to be; nothing is made up. */
static void
a_database_damaged_under_the_cache_yields_no_wrong_value_without_l2(void **state)
{
    (void)state;
    begin(BOX_L1 | BOX_L3, "damaged database");
    ptier_test_box_open(&stage.box);
    ptier_stage_run(&stage, CALLS, 1);
    await_checkpoint();
    damage_database();
    ptier_test_box_reopen(&stage.box);
    for (int i = 0; i < LOAD_KEYS; i++) {
        ptier_status status;
        int version = ptier_load_read(stage.box.cache, i, &status);
        bool right = version == ptier_load_now(&stage.load, i)->version;
        if (!right && version != 0 && status != PTIER_DATA_LOSS)
            fail_msg("key %d is read as version %d (%s)", i, version, ptier_status_text(status));
    }
    ptier_test_report report = {0};
    if (ptier_test_start_report(stage.box.cache, START_PATIENCE_MS, &report) &&
        !(report.changes_lost && report.new_store && report.text[0]))
        fail_msg("start-up does not say that changes are lost: '%s'", report.text);
    ptier_load_rebase(&stage.load, stage.box.cache);
    ptier_stage_run(&stage, CALLS, 2);
    ptier_stage_check_healed(&stage);
    ptier_stage_end(&stage);
}

#define CASE(name) cmocka_unit_test_teardown(name, tear_down)

int
main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], HOLD_LOCK) == 0)
        return hold_lock(argv[2]);
    ptier_fault_begin();
    const struct CMUnitTest tests[] = {
        CASE(deleted_shards_are_made_up_for_with_all_tiers),
        CASE(deleted_shards_are_made_up_for_without_l3),
        CASE(a_deleted_directory_is_made_up_for_with_all_tiers),
        CASE(a_deleted_directory_is_made_up_for_without_l3),
        CASE(a_deleted_database_is_made_up_for_with_all_tiers),
        CASE(a_deleted_database_is_made_up_for_without_l2),
        CASE(a_database_replaced_by_an_older_one_is_made_up_for_with_all_tiers),
        CASE(a_database_replaced_by_an_older_one_is_made_up_for_without_l2),
        CASE(a_database_replaced_by_another_programs_is_made_up_for_with_all_tiers),
        CASE(a_database_replaced_by_another_programs_is_made_up_for_without_l2),
        CASE(a_lock_of_another_process_is_outlasted_with_all_tiers),
        CASE(a_lock_of_another_process_is_outlasted_without_l2),
        CASE(a_database_damaged_under_the_cache_is_rebuilt_with_all_tiers),
        CASE(a_database_damaged_under_the_cache_yields_no_wrong_value_without_l2),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
