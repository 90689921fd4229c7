/* Whose file it is, which version and key: what L3 finds when it opens one. And whether it works.
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

#include "unit/l3_box.h"

/* ---- keys ---- */

static void
l3_refuses_a_key_that_is_not_the_files(void **state)
{
    l3_box *f = *state;
    box_apply_one(f, box_put_op(f, "a", 1, 1));
    box_close(f);
    box_use_keys(f, BOX_OTHER_KEY, NULL);
    assert_int_equal(box_try_open(f), PTIER_FAILED_PRECONDITION);
    assert_non_null(strstr(f->error.message, "key"));
    box_use_keys(f, BOX_OTHER_KEY, BOX_KEY);
    box_open(f);
    assert_int_equal(box_stored(f, "a", 1), 1);
}

static void
l3_wants_every_key_until_everything_is_encrypted_anew(void **state)
{
    l3_box *f = *state;
    box_apply_one(f, box_put_op(f, "a", 1, 1));
    box_close(f);
    box_use_keys(f, BOX_OTHER_KEY, BOX_KEY);
    box_open(f);
    box_apply_one(f, box_put_op(f, "b", 2, 2)); /* totals and this row are of the new key now */
    box_close(f);
    box_use_keys(f, BOX_OTHER_KEY, NULL);
    assert_int_equal(box_try_open(f), PTIER_FAILED_PRECONDITION);
    box_use_keys(f, BOX_KEY, NULL); /* and the newer one, for what is new */
    assert_int_equal(box_try_open(f), PTIER_FAILED_PRECONDITION);
    box_use_keys(f, BOX_KEY, BOX_OTHER_KEY);
    box_open(f);
    assert_int_equal(box_condition(f), PTIER_L3_SOUND);
    assert_int_equal(box_stored(f, "a", 1), 1);
    assert_int_equal(box_stored(f, "b", 2), 2);
}

static void
l3_damaged_key_row_is_not_taken_for_a_wrong_key(void **state)
{
    l3_box *f = *state;
    static const char *const damages[] = {
        "UPDATE meta SET value = x'0102030405060708' WHERE name = 'key'",
        "UPDATE meta SET value = x'00' WHERE name = 'key'",
        "DELETE FROM meta WHERE name = 'key'",
        "UPDATE meta SET value = x'0102030405060708' WHERE name = 'key';"
        "DELETE FROM meta WHERE name = 'totals'",
    };
    for (unsigned i = 0; i < sizeof damages / sizeof *damages; i++) {
        box_apply_one(f, box_put_op(f, "a", 1, i + 1));
        box_close(f);
        box_meddle(f, damages[i]);
        box_open(f);
        assert_int_equal(box_condition(f), PTIER_L3_DAMAGED);
        assert_int_equal(box_stored(f, "a", 1), i + 1);
        box_close(f);
        box_use_keys(f, BOX_OTHER_KEY, NULL); /* a wrong key is one all the same, if that shows */
        assert_int_equal(box_try_open(f), i == 1 || i == 2 ? PTIER_OK : PTIER_FAILED_PRECONDITION);
        box_close(f);
        box_use_keys(f, BOX_KEY, NULL);
        assert_int_equal(unlink(f->path), 0);
        ptier_l3_remove_companions(f->path);
        box_open(f);
        assert_int_equal(box_condition(f), PTIER_L3_SOUND);
    }
}

/* ---- totals ---- */

static void
l3_totals_follow_every_change(void **state)
{
    l3_box *f = *state;
    box_fill(f, 50, 1);
    ptier_op ops[] = {box_put_op(f, "key-1", box_hash(1), 51),
                      box_remove_op(f, "key-2", box_hash(2), 52), box_put_op(f, "new", 7, 53),
                      box_put_op(f, "other", 7, 54)};
    box_apply(f, ops, 4);
    assert_int_equal(box_scan(f).rows, 51);
    assert_int_equal(box_condition(f), PTIER_L3_SOUND);
    f->tier->ops->drop(f->tier, box_hash(3), 3);
    assert_int_equal(box_scan(f).rows, 50);
    box_apply_one(f, box_clear_op(40)); /* late: some are newer */
    assert_int_equal(box_scan(f).rows, 50 - 36);
    assert_int_equal(box_condition(f), PTIER_L3_SOUND);
    box_reopen(f);
    assert_int_equal(box_scan(f).rows, 14);
    assert_int_equal(box_count(f), 14);
    box_apply_one(f, box_clear_op(60)); /* all */
    box_apply_one(f, box_put_op(f, "a", 1, 61));
    assert_int_equal(box_scan(f).rows, 1);
    assert_int_equal(box_condition(f), PTIER_L3_SOUND);
    assert_int_equal(ptier_l3_prefix(f->tier), 61);
}

static void
l3_prefix_without_its_check_is_not_believed(void **state)
{
    l3_box *f = *state;
    static const char *const damages[] = {
        "UPDATE meta SET value = CAST(substr(value, 1, 1) || x'ff' || substr(value, 3) AS BLOB)"
        " WHERE name = 'totals'",
        "UPDATE meta SET value = 1000000 WHERE name = 'totals'",
        "DELETE FROM meta WHERE name = 'totals'",
    };
    for (unsigned i = 0; i < sizeof damages / sizeof *damages; i++) {
        box_apply_one(f, box_put_op(f, "a", 1, i + 5));
        box_reopen(f);
        assert_int_equal(ptier_l3_prefix(f->tier), i + 5);
        box_close(f);
        box_meddle(f, damages[i]);
        box_open(f);
        assert_int_equal(box_condition(f), PTIER_L3_DAMAGED);
        assert_int_equal(ptier_l3_prefix(f->tier), 0);
        assert_int_equal(ptier_l3_synced_prefix(f->tier), 0);
        assert_int_equal(box_count(f), 1);
        assert_int_equal(box_stored(f, "a", 1), i + 5);
        box_close(f);
        assert_int_equal(unlink(f->path), 0);
        ptier_l3_remove_companions(f->path);
        box_open(f);
    }
}

/* ---- versions and strangers ---- */

static void
make_version_1(l3_box *f)
{
    int64_t check = 0; /* one key, as a number */
    char sql[400];
    memcpy(&check, ptier_l3_of(f->tier)->keys.checks, sizeof check);
    box_close(f);
    (void)snprintf(sql, sizeof sql,
                   "BEGIN; DELETE FROM meta WHERE name = 'totals';"
                   "INSERT INTO meta VALUES('prefix', 20);"
                   "UPDATE meta SET value = %lld WHERE name = 'key';"
                   "PRAGMA user_version = 1; COMMIT;",
                   (long long)check);
    box_meddle(f, sql);
}

static void
l3_brings_a_file_of_version_1_up_to_date(void **state)
{
    l3_box *f = *state;
    box_fill(f, 20, 1);
    make_version_1(f);
    for (int round = 0; round < 2; round++) {
        box_reopen(f);
        assert_int_equal(box_condition(f), PTIER_L3_SOUND);
        assert_int_equal(ptier_l3_prefix(f->tier), 20);
        assert_int_equal(box_count(f), 20);
        assert_int_equal(box_scan(f).rows, 20);
        assert_int_equal(box_condition(f), PTIER_L3_SOUND);
    }
    box_apply_one(f, box_put_op(f, "key-1", box_hash(1), 21));
    box_reopen(f);
    assert_int_equal(ptier_l3_prefix(f->tier), 21);
}

static void
l3_version_1_of_another_key_is_refused_and_left_alone(void **state)
{
    l3_box *f = *state;
    box_fill(f, 20, 1);
    make_version_1(f);
    box_use_keys(f, BOX_OTHER_KEY, NULL);
    assert_int_equal(box_try_open(f), PTIER_FAILED_PRECONDITION);
    box_use_keys(f, BOX_KEY, NULL);
    box_open(f);
    assert_int_equal(ptier_l3_prefix(f->tier), 20);
    assert_int_equal(box_scan(f).rows, 20);
}

static void
l3_refuses_a_newer_schema_and_leaves_it_alone(void **state)
{
    l3_box *f = *state;
    box_apply_one(f, box_put_op(f, "a", 1, 1));
    box_close(f);
    /* A newer version has another version in its totals, too. */
    box_meddle(f, "ALTER TABLE meta ADD COLUMN kept;"
                  "UPDATE meta SET kept = value, value = x'03' WHERE name = 'totals';"
                  "PRAGMA user_version = 3");
    assert_int_equal(box_try_open(f), PTIER_FAILED_PRECONDITION);
    assert_non_null(strstr(f->error.message, "newer"));
    box_meddle(f, "UPDATE meta SET value = kept WHERE name = 'totals';"
                  "PRAGMA user_version = 2");
    box_open(f);
    assert_int_equal(box_condition(f), PTIER_L3_SOUND);
    assert_int_equal(box_stored(f, "a", 1), 1);
}

static void
l3_refuses_another_programs_database_and_leaves_it_alone(void **state)
{
    l3_box *f = *state;
    static const char *const strangers[] = {
        "CREATE TABLE t(x)",
        "PRAGMA application_id = 77; CREATE TABLE meta(name, value); INSERT INTO meta "
        "VALUES('key', 1)",
    };
    for (int i = 0; i < 2; i++) {
        size_t before_length, after_length;
        box_close(f);
        assert_int_equal(unlink(f->path), 0);
        box_meddle(f, strangers[i]);
        char *before = ptier_test_file_read(f->path, &before_length);
        assert_int_equal(box_try_open(f), PTIER_FAILED_PRECONDITION);
        assert_non_null(strstr(f->error.message, f->path));
        char *after = ptier_test_file_read(f->path, &after_length);
        assert_int_equal(before_length, after_length);
        assert_memory_equal(before, after, after_length);
        free(before);
        free(after);
    }
}

static void
l3_damaged_header_is_not_taken_for_a_stranger_or_a_newer_version(void **state)
{
    l3_box *f = *state;
    static const char *const damages[] = {"PRAGMA application_id = 77", "PRAGMA user_version = 66",
                                          "PRAGMA user_version = 0", "PRAGMA user_version = 1"};
    box_fill(f, 20, 1);
    for (unsigned i = 0; i < sizeof damages / sizeof *damages; i++) {
        box_close(f);
        box_meddle(f, damages[i]);
        box_open(f);
        assert_int_equal(box_condition(f), PTIER_L3_DAMAGED);
        assert_int_equal(box_stored(f, "key-7", box_hash(7)), 7);
        assert_int_equal(box_scan(f).rows, 20);
        box_close(f);
        box_meddle(f, "PRAGMA application_id = 1347703122; PRAGMA user_version = 2");
        box_open(f);
        assert_int_equal(box_condition(f), PTIER_L3_SOUND);
    }
}

static void
l3_file_that_cannot_be_made_is_said_by_name(void **state)
{
    l3_box *f = *state;
    box_close(f);
    char path[sizeof f->path];
    strcpy(path, f->path);
    strcpy(f->path, "/nonexistent/cache.db");
    assert_int_equal(box_try_open(f), PTIER_UNAVAILABLE);
    assert_non_null(strstr(f->error.message, "/nonexistent"));
    strcpy(f->path, path);
}

/* ---- does it work? ---- */

static void
l3_probe_writes_and_leaves_no_record(void **state)
{
    l3_box *f = *state;
    box_fill(f, 3, 1);
    for (int i = 0; i < 3; i++)
        assert_int_equal(f->tier->ops->probe(f->tier, &f->error), PTIER_OK);
    assert_int_equal(box_scan(f).rows, 3);
    assert_int_equal(box_count(f), 3);
    assert_int_equal(ptier_l3_prefix(f->tier), 3);
    box_reopen(f);
    assert_int_equal(box_scan(f).rows, 3);
    assert_int_equal(box_condition(f), PTIER_L3_SOUND);
}

static void
l3_probe_says_why_the_tier_does_not_work(void **state)
{
    l3_box *f = *state;
    sqlite3 *writer = ptier_l3_of(f->tier)->writer.db;
    assert_int_equal(sqlite3_exec(writer, "PRAGMA query_only=ON", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(f->tier->ops->probe(f->tier, &f->error), PTIER_PERMISSION_DENIED);
    assert_non_null(strstr(f->error.message, f->path));
    assert_int_equal(sqlite3_exec(writer, "PRAGMA query_only=OFF", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(f->tier->ops->probe(f->tier, &f->error), PTIER_OK);
    assert_int_equal(unlink(f->path), 0);
    assert_int_equal(f->tier->ops->probe(f->tier, &f->error), PTIER_UNAVAILABLE);
}

static void
l3_lock_of_another_process_is_unavailable_within_the_time_that_was_set(void **state)
{
    l3_box *f = *state;
    box_close(f);
    f->busy_timeout_ms = 50;
    box_open(f);
    box_apply_one(f, box_put_op(f, "a", 1, 1));
    int ready[2], done[2];
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    assert_int_equal(pipe2(done, O_CLOEXEC), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        sqlite3 *db;
        char byte = 'x';
        if (sqlite3_open(f->path, &db) || sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL))
            byte = 'e';
        (void)!write(ready[1], &byte, 1); /* the parent sees that nothing came */
        (void)!read(done[0], &byte, 1);
        _exit(0); /* the system closes: SQLite may not, of what the parent has */
    }
    char byte = 0;
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(byte, 'x');
    ptier_op op = box_put_op(f, "b", 2, 2);
    assert_int_equal(box_try_apply(f, &op, 1, false), PTIER_UNAVAILABLE);
    assert_int_equal(f->tier->ops->probe(f->tier, &f->error), PTIER_UNAVAILABLE);
    assert_int_equal(box_stored(f, "a", 1), 1); /* readers go on */
    assert_int_equal(box_condition(f), PTIER_L3_SOUND);
    assert_int_equal(write(done[1], &byte, 1), 1);
    assert_int_equal(waitpid(child, NULL, 0), child);
    box_apply_one(f, box_put_op(f, "b", 2, 2));
    assert_int_equal(box_stored(f, "b", 2), 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(close(ready[i]), 0);
        assert_int_equal(close(done[i]), 0);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        BOX_FACT(l3_refuses_a_key_that_is_not_the_files),
        BOX_FACT(l3_wants_every_key_until_everything_is_encrypted_anew),
        BOX_FACT(l3_damaged_key_row_is_not_taken_for_a_wrong_key),
        BOX_FACT(l3_totals_follow_every_change),
        BOX_FACT(l3_prefix_without_its_check_is_not_believed),
        BOX_FACT(l3_brings_a_file_of_version_1_up_to_date),
        BOX_FACT(l3_version_1_of_another_key_is_refused_and_left_alone),
        BOX_FACT(l3_refuses_a_newer_schema_and_leaves_it_alone),
        BOX_FACT(l3_refuses_another_programs_database_and_leaves_it_alone),
        BOX_FACT(l3_damaged_header_is_not_taken_for_a_stranger_or_a_newer_version),
        BOX_FACT(l3_file_that_cannot_be_made_is_said_by_name),
        BOX_FACT(l3_probe_writes_and_leaves_no_record),
        BOX_FACT(l3_probe_says_why_the_tier_does_not_work),
        BOX_FACT(l3_lock_of_another_process_is_unavailable_within_the_time_that_was_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
