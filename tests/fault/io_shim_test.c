/* The shim itself: what it records, what its images may lack and never lack, and that SQLite's
 * calls come by. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "support/io_shim.h"
#include "support/sample_entry.h"
#include "support/temp_dir.h"

enum { IMAGES = 200 };

typedef struct place {
    char directory[PTIER_TEST_PATH];
    char image[PTIER_TEST_PATH + 8];
    char path[PTIER_TEST_PATH + 32];
} place;

static place at;

static int
set_up(void **state)
{
    (void)state;
    ptier_test_dir_make(at.directory);
    (void)snprintf(at.image, sizeof at.image, "%s-image", at.directory);
    ptier_io_watch(at.directory);
    ptier_io_record();
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    ptier_io_unwatch();
    ptier_test_dir_remove(at.directory);
    return 0;
}

static const char *
path_of(const char *name)
{
    (void)snprintf(at.path, sizeof at.path, "%s/%s", at.directory, name);
    return at.path;
}

static int
make(const char *name, int flags)
{
    int fd = open(path_of(name), O_RDWR | O_CREAT | flags, 0600);
    assert_true(fd >= 0);
    return fd;
}

static void
put(int fd, const char *text)
{
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

static void
sync_directory(void)
{
    int fd = open(at.directory, O_RDONLY | O_DIRECTORY);
    assert_true(fd >= 0);
    assert_int_equal(fsync(fd), 0);
    close(fd);
}

/* The file in the image, NUL-terminated; NULL: it is not there. Owned. */
static char *
read_image(const char *name)
{
    char path[2 * PTIER_TEST_PATH];
    size_t length;
    (void)snprintf(path, sizeof path, "%s/%s", at.image, name);
    return access(path, F_OK) == 0 ? ptier_test_file_read(path, &length) : NULL;
}

/* In how many images of the present (of `count`) the file has this text. */
static int
images_with(const char *name, const char *text, int count)
{
    int found = 0;
    for (int i = 0; i < count; i++) {
        ptier_io_image(ptier_io_position(), (uint64_t)i, at.image);
        char *data = read_image(name);
        found += text ? data && strcmp(data, text) == 0 : data == NULL;
        free(data);
        ptier_test_dir_remove(at.image);
    }
    return found;
}

static void
what_was_written_without_fsync_is_lost_in_some_images(void **state)
{
    (void)state;
    int fd = make("a", 0);
    sync_directory();
    put(fd, "hello");
    int there = images_with("a", "hello", IMAGES);
    assert_true(there > 0 && there < IMAGES);
    assert_true(images_with("a", "", IMAGES) > 0); /* no length, or length without data */
    close(fd);
}

static void
what_was_synced_is_in_every_image(void **state)
{
    (void)state;
    int fd = make("a", O_APPEND);
    put(fd, "hello");
    put(fd, " world");
    assert_int_equal(fdatasync(fd), 0);
    sync_directory();
    assert_int_equal(images_with("a", "hello world", IMAGES), IMAGES);
    close(fd);
}

static void
a_cut_before_the_fsync_does_not_profit_from_it(void **state)
{
    (void)state;
    int fd = make("a", 0), found = 0;
    sync_directory();
    put(fd, "hello");
    size_t before = ptier_io_position();
    assert_int_equal(fsync(fd), 0);
    for (int i = 0; i < IMAGES; i++) {
        ptier_io_image(before, (uint64_t)i, at.image);
        char *data = read_image("a");
        found += data && strcmp(data, "hello") == 0;
        free(data);
        ptier_test_dir_remove(at.image);
    }
    assert_true(found > 0 && found < IMAGES);
    close(fd);
}

static void
sectors_are_old_or_new_one_by_one(void **state)
{
    (void)state;
    char block[4096 + 1] = {0};
    int fd = make("a", 0), torn = 0;
    memset(block, 'a', 4096);
    put(fd, block);
    assert_int_equal(fsync(fd), 0);
    sync_directory();
    memset(block, 'b', 4096);
    assert_int_equal(pwrite(fd, block, 4096, 0), 4096);
    for (int i = 0; i < IMAGES; i++) {
        ptier_io_image(ptier_io_position(), (uint64_t)i, at.image);
        char *data = read_image("a");
        assert_int_equal(strlen(data), 4096);
        torn += strchr(data, 'a') && strchr(data, 'b');
        for (int at_byte = 0; at_byte < 4096; at_byte++)
            assert_int_equal(data[at_byte], data[at_byte / 512 * 512]);
        free(data);
        ptier_test_dir_remove(at.image);
    }
    assert_true(torn > 0);
    close(fd);
}

static void
a_truncation_may_be_missing_but_not_below_a_later_length(void **state)
{
    (void)state;
    int fd = make("a", 0);
    put(fd, "old text that is long");
    assert_int_equal(fsync(fd), 0);
    sync_directory();
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_true(images_with("a", "old text that is long", IMAGES) > 0);
    assert_true(images_with("a", "", IMAGES) > 0);
    assert_int_equal(pwrite(fd, "n", 1, 30), 1);
    for (int i = 0; i < IMAGES; i++) {
        ptier_io_image(ptier_io_position(), (uint64_t)i, at.image);
        char *data = read_image("a"), path[2 * PTIER_TEST_PATH];
        struct stat info;
        (void)snprintf(path, sizeof path, "%s/a", at.image);
        assert_int_equal(stat(path, &info), 0);
        if (info.st_size == 31)
            assert_int_equal(data[0], 0);
        free(data);
        ptier_test_dir_remove(at.image);
    }
    close(fd);
}

static void
a_name_without_fsync_of_its_directory_may_be_missing(void **state)
{
    (void)state;
    int fd = make("a", 0);
    put(fd, "hello");
    assert_int_equal(fsync(fd), 0);
    int missing = images_with("a", NULL, IMAGES);
    assert_true(missing > 0 && missing < IMAGES);
    sync_directory();
    assert_int_equal(images_with("a", NULL, IMAGES), 0);
    close(fd);
}

static void
a_rename_without_fsync_of_the_directory_may_be_missing(void **state)
{
    (void)state;
    int old = make("a", 0), new = make("a.tmp", 0);
    put(old, "old");
    put(new, "new");
    assert_int_equal(fsync(old) | fsync(new), 0);
    sync_directory();
    char from[sizeof at.path];
    strcpy(from, path_of("a.tmp"));
    assert_int_equal(rename(from, path_of("a")), 0);
    int done = images_with("a", "new", IMAGES), undone = images_with("a", "old", IMAGES);
    assert_true(done > 0 && undone > 0);
    assert_int_equal(done + undone, IMAGES);
    sync_directory();
    assert_int_equal(images_with("a", "new", IMAGES), IMAGES);
    close(old);
    close(new);
}

static void
an_unlinked_file_may_be_back(void **state)
{
    (void)state;
    int fd = make("a", 0);
    put(fd, "hello");
    assert_int_equal(fsync(fd), 0);
    sync_directory();
    assert_int_equal(unlink(path_of("a")), 0);
    int back = images_with("a", "hello", IMAGES);
    assert_true(back > 0 && back < IMAGES);
    close(fd);
}

static void
what_was_dirty_when_an_fsync_failed_may_be_lost_for_good(void **state)
{
    (void)state;
    const ptier_io_fault fault = {.kinds = PTIER_IO_SYNC, .pattern = "a", .nth = 1, .error = EIO};
    int fd = make("a", 0);
    sync_directory();
    put(fd, "hello");
    ptier_io_fail(&fault);
    assert_int_equal(fsync(fd), -1);
    assert_int_equal(errno, EIO);
    assert_int_equal(fsync(fd), 0);
    int there = images_with("a", "hello", IMAGES);
    assert_true(there > 0 && there < IMAGES);
    close(fd);
}

static void
the_nth_call_fails_once_or_for_good(void **state)
{
    (void)state;
    ptier_io_fault fault = {.kinds = PTIER_IO_WRITE, .pattern = "a*", .nth = 2, .error = ENOSPC};
    int fd = make("ab", 0), other = make("b", 0);
    ptier_io_fail(&fault);
    put(fd, "1");
    put(other, "not counted");
    assert_int_equal(write(fd, "2", 1), -1);
    assert_int_equal(errno, ENOSPC);
    put(fd, "3");
    assert_int_equal(ptier_io_calls(), 3);
    assert_int_equal(ptier_io_failed(), 1);
    fault.lasting = fault.torn = true;
    ptier_io_fail(&fault);
    put(fd, "4");
    assert_int_equal(write(fd, "5678", 4), 2);
    assert_int_equal(write(fd, "78", 2), -1);
    put(other, "!");
    ptier_io_heal();
    put(fd, "78");
    size_t length;
    char *data = ptier_test_file_read(path_of("ab"), &length);
    assert_string_equal(data, "1345678");
    free(data);
    assert_true(ptier_io_faithful());
    close(fd);
    close(other);
}

static void
a_change_past_the_shim_is_noticed(void **state)
{
    (void)state;
    int fd = make("a", 0);
    put(fd, "hello");
    close(fd);
    assert_true(ptier_io_faithful());
    ptier_test_file_write(path_of("a"), "jello", 5); /* stdio */
    assert_false(ptier_io_faithful());
}

/* ---- SQLite ---- */

static sqlite3 *
open_database(const char *path, const char *synchronous)
{
    sqlite3 *db;
    char pragma[64];
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    (void)snprintf(pragma, sizeof pragma, "PRAGMA synchronous=%s", synchronous);
    assert_int_equal(sqlite3_exec(db, pragma, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA journal_mode=WAL", NULL, NULL, NULL), SQLITE_OK);
    return db;
}

static int
count_rows(const char *path)
{
    sqlite3 *db;
    sqlite3_stmt *statement;
    int rows = 0;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_prepare_v2(db, "SELECT count(*) FROM t", -1, &statement, NULL) == SQLITE_OK) {
        assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
        rows = sqlite3_column_int(statement, 0);
        sqlite3_finalize(statement);
    }
    sqlite3_close(db);
    return rows;
}

enum { ROWS = 60, CUTS = 150 };

/* In how many of the images a row is missing that had been committed before the cut. */
static int
images_that_lost_rows(const char *synchronous)
{
    size_t committed[ROWS + 1];
    char path[2 * PTIER_TEST_PATH];
    int lossy = 0;
    sqlite3 *db = open_database(path_of("t.sqlite"), synchronous);
    assert_int_equal(
        sqlite3_exec(db, "PRAGMA wal_autocheckpoint=20; CREATE TABLE t(x)", NULL, NULL, NULL),
        SQLITE_OK);
    sync_directory(); /* SQLite does it only with the first WAL that it syncs */
    for (int i = 1; i <= ROWS; i++) {
        assert_int_equal(
            sqlite3_exec(db, "INSERT INTO t VALUES(randomblob(700))", NULL, NULL, NULL), SQLITE_OK);
        committed[i] = ptier_io_position();
    }
    uint64_t random = 7;
    for (int i = 0; i < CUTS; i++) {
        int row = 1 + (int)ptier_test_random(&random, ROWS - 1);
        size_t cut =
            committed[row] + ptier_test_random(&random, committed[row + 1] - committed[row]);
        ptier_io_image(cut, (uint64_t)i, at.image);
        (void)snprintf(path, sizeof path, "%s/t.sqlite", at.image);
        lossy += count_rows(path) < row;
        ptier_test_dir_remove(at.image);
    }
    sqlite3_close(db);
    assert_true(ptier_io_faithful());
    return lossy;
}

static void
sqlite_loses_nothing_with_synchronous_full(void **state)
{
    (void)state;
    assert_int_equal(images_that_lost_rows("FULL"), 0);
}

static void
sqlite_may_lose_commits_with_synchronous_normal(void **state)
{
    (void)state;
    assert_true(images_that_lost_rows("NORMAL") > 0);
}

static void
sqlite_sees_faults(void **state)
{
    (void)state;
    const ptier_io_fault write = {.kinds = PTIER_IO_WRITE,
                                  .pattern = "t.sqlite-wal",
                                  .nth = 1,
                                  .lasting = true,
                                  .error = ENOSPC};
    const ptier_io_fault sync = {
        .kinds = PTIER_IO_SYNC, .pattern = "t.sqlite-wal", .nth = 1, .lasting = true, .error = EIO};
    sqlite3 *db = open_database(path_of("t.sqlite"), "FULL");
    assert_int_equal(sqlite3_exec(db, "CREATE TABLE t(x)", NULL, NULL, NULL), SQLITE_OK);
    ptier_io_fail(&write);
    assert_int_equal(sqlite3_exec(db, "INSERT INTO t VALUES(1)", NULL, NULL, NULL), SQLITE_FULL);
    ptier_io_fail(&sync);
    assert_int_equal(sqlite3_exec(db, "INSERT INTO t VALUES(1)", NULL, NULL, NULL), SQLITE_IOERR);
    ptier_io_heal();
    assert_int_equal(sqlite3_exec(db, "INSERT INTO t VALUES(1)", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(what_was_written_without_fsync_is_lost_in_some_images),
        CASE(what_was_synced_is_in_every_image),
        CASE(a_cut_before_the_fsync_does_not_profit_from_it),
        CASE(sectors_are_old_or_new_one_by_one),
        CASE(a_truncation_may_be_missing_but_not_below_a_later_length),
        CASE(a_name_without_fsync_of_its_directory_may_be_missing),
        CASE(a_rename_without_fsync_of_the_directory_may_be_missing),
        CASE(an_unlinked_file_may_be_back),
        CASE(what_was_dirty_when_an_fsync_failed_may_be_lost_for_good),
        CASE(the_nth_call_fails_once_or_for_good),
        CASE(a_change_past_the_shim_is_noticed),
        CASE(sqlite_loses_nothing_with_synchronous_full),
        CASE(sqlite_may_lose_commits_with_synchronous_normal),
        CASE(sqlite_sees_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
