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
#include "support/io_shim.h"

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
    run_command("mkdir older foreign; cp l3.sqlite* older/ 2>/dev/null; true");
    make_foreign_database(ptier_stage_path(&stage, "foreign/l3.sqlite"));
    run_command("touch foreign/l3.sqlite-shm foreign/l3.sqlite-wal");
    ptier_stage_run(&stage, CALLS, 2);
    ptier_tier_await_healed(&stage.watch, &stage.box, &stage.load);
    run_command(command);
    stage.load.weak = stage.load.refused = true;
    ptier_stage_run(&stage, CALLS, 3);
    ptier_stage_check_reads(&stage, "at once");
    ptier_stage_await_kill(&stage, PTIER_DURABILITY_LOGGED, "killed a while later");
    ptier_tier_await_healed(&stage.watch, &stage.box, &stage.load);
    stage.load.weak = stage.load.refused = false;
    ptier_stage_run(&stage, CALLS, 4);
    ptier_stage_check_healed(&stage);
    ptier_stage_end(&stage);
}

#define DELETE_L3 "rm l3.sqlite l3.sqlite-wal l3.sqlite-shm"
/* All of it at once: what is made anew in between would be replaced, too. */
#define OLDER_L3   "mv -f older/l3.sqlite* ."
#define FOREIGN_L3 "mv -f foreign/l3.sqlite* ."

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

/* Everything is in the file, and nothing in the WAL: a prefix that is synced may be in either. */
static void
await_checkpoint(void)
{
    sqlite3 *db;
    ptier_tier *l3 = stage.box.cache->tiers[PTIER_TIER_L3];
    BOX_AWAIT(ptier_l3_synced_prefix(l3) == ptier_l3_prefix(l3));
    assert_int_equal(sqlite3_open(ptier_stage_path(&stage, "l3.sqlite"), &db), SQLITE_OK);
    /* Without a read before, it does not know that there is a WAL. */
    assert_int_equal(sqlite3_exec(db, "SELECT count(*) FROM sqlite_master", NULL, NULL, NULL),
                     SQLITE_OK);
    BOX_AWAIT(sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL) ==
              SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
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

static size_t
count_told(const char *key)
{
    return ptier_test_box_changes(&stage.box, PTIER_EVENT_REMOVED, PTIER_REASON_CORRUPTION, key);
}

/* No wrong value; and of what is missing start-up says so, or the feed did while the cache was
 * open: by an event for each key, without the key where that is not legible. Returns how many are
 * missing. */
static size_t
check_losses(ptier_cache *cache)
{
    size_t lost = 0, unnamed = 0;
    ptier_test_report report = {0};
    (void)ptier_test_start_report(cache, START_PATIENCE_MS, &report); /* empty: told nothing */
    bool told = report.changes_lost && report.new_store && report.text[0];
    for (int i = 0; i < LOAD_KEYS; i++) {
        char key[16];
        ptier_status status;
        int version = ptier_load_read(cache, i, &status);
        if (version == ptier_load_now(&stage.load, i)->version)
            continue;
        if (version != 0 && status != PTIER_DATA_LOSS)
            fail_msg("key %d is read as version %d (%s)", i, version, ptier_status_text(status));
        (void)snprintf(key, sizeof key, "p%d", i);
        unnamed += count_told(key) == 0;
        lost++;
    }
    if (!told && unnamed > count_told(""))
        fail_msg("%zu of %zu losses are not told: '%s'", unnamed - count_told(""), lost,
                 report.text);
    return lost;
}

static size_t
check_losses_when_killed(void)
{
    ptier_test_box *copy = &stage.copy;
    ptier_stage_prepare_copy(&stage);
    ptier_io_copy(copy->directory);
    ptier_test_box_open(copy);
    size_t lost = check_losses(copy->cache);
    ptier_test_box_close(copy);
    ptier_test_dir_remove(copy->directory);
    copy->directory[0] = '\0';
    return lost;
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
    assert_int_not_equal(check_losses_when_killed(), 0);
    ptier_test_box_reopen(&stage.box);
    (void)check_losses(stage.box.cache); /* SQLite may have had it all in its cache */
    ptier_load_rebase(&stage.load, stage.box.cache, SIZE_MAX);
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
