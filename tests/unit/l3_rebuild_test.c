/* Files that were moved, opening anew, building a file and taking it into use. */
#include <pthread.h>
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

#include "unit/l3_box.h"

#define NAME_ROOM (PTIER_TEST_PATH + 128)

/* The database's path with something behind it. */
static const char *
beside(l3_box *f, const char *suffix, char name[NAME_ROOM])
{
    (void)snprintf(name, NAME_ROOM, "%s%s", f->path, suffix);
    return name;
}

static bool
exists(l3_box *f, const char *suffix)
{
    char name[NAME_ROOM];
    return access(beside(f, suffix, name), F_OK) == 0;
}

static void
rename_beside(l3_box *f, const char *from, const char *to)
{
    char a[NAME_ROOM], b[NAME_ROOM];
    assert_int_equal(rename(beside(f, from, a), beside(f, to, b)), 0);
}

/* ---- files that are not ours any more ---- */

static void
assert_moved(l3_box *f)
{
    assert_int_equal(ptier_l3_check_file(f->tier), PTIER_L3_MOVED);
    assert_int_equal(box_stored(f, "key-1", box_hash(1)), 1); /* can still be read */
    assert_int_equal(box_scan(f).rows, 10);
    ptier_op op = box_put_op(f, "new", 1, 100);
    assert_int_equal(box_try_apply(f, &op, 1, true), PTIER_UNAVAILABLE);
    assert_int_equal(ptier_l3_synced_prefix(f->tier), 0);
}

static void
l3_file_that_was_deleted_is_noticed(void **state)
{
    l3_box *f = *state;
    box_fill(f, 10, 1);
    assert_int_equal(ptier_l3_checkpoint(f->tier, true, &f->error), PTIER_OK);
    assert_int_equal(ptier_l3_check_file(f->tier), PTIER_L3_SOUND);
    assert_int_equal(ptier_l3_synced_prefix(f->tier), 10);
    assert_int_equal(unlink(f->path), 0);
    assert_moved(f);
}

static void
l3_file_that_was_replaced_is_noticed(void **state)
{
    l3_box *f = *state;
    char other[NAME_ROOM];
    box_fill(f, 10, 1);
    ptier_test_file_write(beside(f, ".other", other), "x", 1);
    assert_int_equal(rename(other, f->path), 0);
    assert_moved(f);
}

static void
l3_log_that_was_deleted_is_noticed(void **state)
{
    l3_box *f = *state;
    box_fill(f, 10, 1);
    assert_int_equal(unlink(ptier_l3_of(f->tier)->wal_path), 0);
    assert_moved(f);
}

static void
l3_change_that_went_into_a_deleted_file_is_not_acknowledged(void **state)
{
    l3_box *f = *state;
    assert_int_equal(unlink(f->path), 0);
    ptier_op op = box_put_op(f, "a", 1, 1);
    assert_int_equal(box_try_apply(f, &op, 1, false), PTIER_UNAVAILABLE);
    assert_int_equal(box_condition(f), PTIER_L3_MOVED);
}

static void
l3_file_that_came_back_is_used_again_when_opened_anew(void **state)
{
    l3_box *f = *state;
    box_fill(f, 10, 1);
    rename_beside(f, "", ".away");
    assert_moved(f);
    rename_beside(f, ".away", "");
    assert_int_equal(ptier_l3_reopen(f->tier, &f->error), PTIER_OK);
    assert_int_equal(ptier_l3_check_file(f->tier), PTIER_L3_SOUND);
    box_apply_one(f, box_put_op(f, "new", 1, 100));
    box_reopen(f);
    assert_int_equal(box_count(f), 11);
}

/* ---- opening anew ---- */

static void
assert_unavailable(l3_box *f)
{
    ptier_op op = box_put_op(f, "a", 1, 100);
    ptier_usage usage = {.hash = 1, .revision = 100};
    ptier_l3_scan_state scan = {0};
    box_seen seen = {0};
    uint64_t hash, revision, cursor = 0, rewritten;
    bool more;
    char key[PTIER_KEY_MAX + 1];
    const ptier_tier_ops *ops = f->tier->ops;
    assert_int_equal(box_get_status(f, "key-1", box_hash(1), 1), PTIER_UNAVAILABLE);
    assert_int_equal(box_try_apply(f, &op, 1, true), PTIER_UNAVAILABLE);
    assert_int_equal(ops->apply(f->tier, NULL, 0, true, &f->error), PTIER_UNAVAILABLE);
    assert_int_equal(ops->write_usage(f->tier, &usage, 1, &f->error), PTIER_UNAVAILABLE);
    assert_int_equal(ops->victim(f->tier, &hash, &revision), PTIER_NOT_FOUND);
    ops->drop(f->tier, 1, 1);
    assert_int_equal(box_scan(f).status, PTIER_UNAVAILABLE);
    assert_int_equal(ops->probe(f->tier, &f->error), PTIER_UNAVAILABLE);
    assert_int_equal(ptier_l3_scan_some(f->tier, &scan, 5, box_on_item, &seen, &f->error),
                     PTIER_UNAVAILABLE);
    assert_int_equal(ptier_l3_find_hash(f->tier, 1, box_on_item, &seen), PTIER_UNAVAILABLE);
    assert_false(ptier_l3_peek_key(f->tier, 1, 1, key));
    assert_int_equal(ptier_l3_shrink(f->tier, &more, &f->error), PTIER_UNAVAILABLE);
    assert_int_equal(ptier_l3_reencrypt(f->tier, &cursor, 5, &rewritten, &f->error),
                     PTIER_UNAVAILABLE);
    assert_int_equal(ptier_l3_checkpoint(f->tier, true, &f->error), PTIER_UNAVAILABLE);
    (void)ptier_l3_check_file(f->tier); /* whatever it says */
}

static void
l3_that_cannot_be_opened_anew_goes_on_with_what_is_open(void **state)
{
    l3_box *f = *state;
    box_fill(f, 10, 1);
    rename_beside(f, "", ".away");
    assert_int_equal(mkdir(f->path, 0700), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_not_equal(ptier_l3_reopen(f->tier, &f->error), PTIER_OK);
        assert_int_equal(box_get_status(f, "key-1", box_hash(1), 1), PTIER_OK);
        assert_int_equal(box_scan(f).rows, 10);
        assert_int_equal(ptier_l3_prefix(f->tier), 10);
    }
    assert_moved(f); /* it is not written to */
    assert_int_equal(rmdir(f->path), 0);
    rename_beside(f, ".away", "");
    assert_int_equal(ptier_l3_reopen(f->tier, &f->error), PTIER_OK);
    assert_int_equal(box_scan(f).rows, 10);
    box_apply_one(f, box_put_op(f, "new", 1, 100));
    assert_int_equal(box_count(f), 11);
}

static void
make_foreign_database(const char *path)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(
        sqlite3_exec(db, "PRAGMA application_id=7; CREATE TABLE theirs(x)", NULL, NULL, NULL),
        SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* Another program's file does open: that it is not ours shows when ours is given up. */
static void
l3_that_is_opened_anew_half_way_is_unavailable_until_all_of_it_is(void **state)
{
    static const char *const files[] = {"", "-wal", "-shm"};
    static const char *const away[] = {".away", ".away-wal", ".away-shm"};
    l3_box *f = *state;
    box_fill(f, 10, 1);
    for (int i = 0; i < 3; i++)
        rename_beside(f, files[i], away[i]);
    make_foreign_database(f->path);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ptier_l3_reopen(f->tier, &f->error), PTIER_FAILED_PRECONDITION);
        assert_unavailable(f);
    }
    for (int i = 0; i < 3; i++)
        rename_beside(f, away[i], files[i]);
    assert_int_equal(ptier_l3_reopen(f->tier, &f->error), PTIER_OK);
    assert_int_equal(ptier_l3_prefix(f->tier), 10);
    assert_int_equal(box_scan(f).rows, 10);
    box_apply_one(f, box_put_op(f, "new", 1, 100));
    assert_int_equal(box_count(f), 11);
}

typedef struct reading {
    l3_box *f;
    _Atomic bool stop;
    _Atomic unsigned reads;
} reading;

static void *
keep_reading(void *context)
{
    reading *r = context;
    uintptr_t wrong = 0;
    while (!atomic_load(&r->stop)) {
        unsigned number = atomic_fetch_add(&r->reads, 1) % 10 + 1;
        ptier_ref ref = {.hash = box_hash(number)};
        ptier_entry *entry;
        ptier_status status = r->f->tier->ops->get(r->f->tier, &ref, &entry);
        wrong += status != PTIER_OK || entry->revision % 10 != number % 10;
        ptier_entry_release(entry);
    }
    return (void *)wrong;
}

static void
start_reading(reading *r, pthread_t threads[6])
{
    for (int i = 0; i < 6; i++) /* more than there are connections */
        assert_int_equal(pthread_create(&threads[i], NULL, keep_reading, r), 0);
}

static void
stop_reading(reading *r, pthread_t threads[6])
{
    atomic_store(&r->stop, true);
    for (int i = 0; i < 6; i++) {
        void *wrong;
        assert_int_equal(pthread_join(threads[i], &wrong), 0);
        assert_null(wrong);
    }
}

static void
l3_readers_are_not_disturbed_when_it_is_opened_anew(void **state)
{
    l3_box *f = *state;
    reading r = {.f = f};
    pthread_t threads[6];
    box_fill(f, 10, 1);
    start_reading(&r, threads);
    ptier_status status = PTIER_OK;
    for (int i = 0; status == PTIER_OK && i < 30; i++)
        status = ptier_l3_reopen(f->tier, &f->error);
    stop_reading(&r, threads);
    assert_int_equal(status, PTIER_OK);
}

/* ---- building ---- */

static ptier_l3_builder *
create_builder(l3_box *f, const char *path)
{
    ptier_l3_options options = box_options(f);
    ptier_l3_builder *builder = NULL;
    if (ptier_l3_builder_create(path, &options, &builder, &f->error) != PTIER_OK)
        fail_msg("%s", f->error.message);
    return builder;
}

static void
add(l3_box *f, ptier_l3_builder *builder, const char *key, uint64_t hash, uint64_t revision)
{
    ptier_op op = box_put_op(f, key, hash, revision);
    if (revision == 7)
        atomic_store(&op.entry->access_count, 70);
    assert_int_equal(ptier_l3_builder_add(builder, &op, 1, &f->error), PTIER_OK);
    box_release(&op, 1);
}

/* Builds key-1 to key-<count> of the revisions first + n - 1. */
static void
build(l3_box *f, const char *path, unsigned count, uint64_t first, uint64_t prefix)
{
    ptier_l3_builder *builder = create_builder(f, path);
    for (unsigned i = 1; i <= count; i++) {
        char key[24];
        (void)snprintf(key, sizeof key, "key-%u", i);
        add(f, builder, key, box_hash(i), first + i - 1);
    }
    assert_int_equal(ptier_l3_builder_finish(builder, prefix, &f->error), PTIER_OK);
}

static void
l3_built_file_is_one_whole_database(void **state)
{
    l3_box *f = *state;
    box_close(f);
    assert_int_equal(unlink(f->path), 0);
    mode_t before = umask(0);
    build(f, f->path, 3000, 1, 5000);
    umask(before);
    struct stat info;
    assert_int_equal(stat(f->path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_false(exists(f, "-wal") || exists(f, "-journal") || exists(f, "-shm"));
    box_open(f);
    assert_int_equal(ptier_l3_prefix(f->tier), 5000);
    assert_int_equal(box_count(f), 3000);
    assert_int_equal(box_scan(f).rows, 3000);
    assert_int_equal(box_condition(f), PTIER_L3_SOUND);
    for (unsigned i = 1; i <= 3000; i += 13) {
        ptier_ref ref = {.hash = box_hash(i), .revision = i};
        ptier_entry *entry;
        assert_int_equal(f->tier->ops->get(f->tier, &ref, &entry), PTIER_OK);
        box_assert_as_put(f, entry, i);
        ptier_entry_release(entry);
    }
    ptier_ref ref = {.hash = box_hash(7)};
    ptier_entry *entry;
    assert_int_equal(f->tier->ops->get(f->tier, &ref, &entry), PTIER_OK);
    assert_int_equal(atomic_load(&entry->access_count), 70);
    ptier_entry_release(entry);
    int64_t vacuum = 0; /* it can give pages back, as others can */
    assert_int_equal(
        ptier_l3_query(ptier_l3_of(f->tier)->writer.db, "PRAGMA auto_vacuum", &vacuum, NULL, 0),
        SQLITE_OK);
    assert_int_equal(vacuum, 2);
}

static void
l3_built_file_has_the_newest_of_each_key(void **state)
{
    l3_box *f = *state;
    box_close(f);
    assert_int_equal(unlink(f->path), 0);
    ptier_l3_builder *builder = create_builder(f, f->path);
    static const uint64_t revisions[] = {5, 9, 3, 9, 8, 1};
    for (unsigned i = 0; i < 6; i++) {
        for (unsigned n = 1; n <= 50; n++) {
            char key[24];
            (void)snprintf(key, sizeof key, "key-%u", n);
            add(f, builder, key, n % 5 ? box_hash(n) : 1, revisions[i] * 100 + n);
        }
    }
    assert_int_equal(ptier_l3_builder_finish(builder, 1000, &f->error), PTIER_OK);
    box_open(f);
    assert_int_equal(box_count(f), 50);
    assert_int_equal(box_scan(f).rows, 50);
    assert_int_equal(box_condition(f), PTIER_L3_SOUND);
    for (unsigned n = 1; n <= 50; n++) {
        char key[24];
        (void)snprintf(key, sizeof key, "key-%u", n);
        assert_int_equal(box_stored(f, key, n % 5 ? box_hash(n) : 1), 900 + n);
    }
}

static void
l3_builder_leaves_nothing_when_it_does_not_finish(void **state)
{
    l3_box *f = *state;
    char path[NAME_ROOM];
    ptier_l3_options options = box_options(f);
    ptier_l3_builder *builder = NULL;
    assert_int_equal(ptier_l3_builder_create(f->path, &options, &builder, &f->error),
                     PTIER_ALREADY_EXISTS);
    assert_int_equal(ptier_l3_builder_create("/nonexistent/x", &options, &builder, &f->error),
                     PTIER_NOT_FOUND);
    ptier_l3_builder_abort(NULL);
    builder = create_builder(f, beside(f, ".new", path));
    add(f, builder, "a", 1, 1);
    assert_true(exists(f, ".new"));
    ptier_l3_builder_abort(builder);
    assert_false(exists(f, ".new"));
    builder = create_builder(f, path);
    add(f, builder, "a", 1, 1);
    ptier_op op = box_too_long_op(f, "b", 2, 2);
    assert_int_not_equal(ptier_l3_builder_add(builder, &op, 1, &f->error), PTIER_OK);
    assert_int_not_equal(ptier_l3_builder_finish(builder, 5, &f->error), PTIER_OK);
    assert_false(exists(f, ".new"));
    box_release(&op, 1);
}

/* ---- taking a file into use ---- */

static void
adopt(l3_box *f, bool keep_old)
{
    char path[NAME_ROOM];
    if (ptier_l3_adopt(f->tier, beside(f, ".new", path), keep_old, &f->error) != PTIER_OK)
        fail_msg("%s", f->error.message);
    assert_false(exists(f, ".new") || exists(f, ".adopt"));
}

/* key-1 to key-<count> and nothing else, from `first` on. */
static void
assert_holds(l3_box *f, unsigned count, uint64_t first, uint64_t prefix)
{
    assert_int_equal(box_condition(f), PTIER_L3_SOUND);
    assert_int_equal(ptier_l3_check_file(f->tier), PTIER_L3_SOUND);
    assert_int_equal(ptier_l3_prefix(f->tier), prefix);
    assert_int_equal(box_count(f), count);
    assert_int_equal(box_scan(f).rows, count);
    assert_int_equal(box_stored(f, "key-1", box_hash(1)), first);
    assert_int_equal(box_condition(f), PTIER_L3_SOUND);
}

static void
build_new(l3_box *f, unsigned count, uint64_t first, uint64_t prefix)
{
    char path[NAME_ROOM];
    build(f, beside(f, ".new", path), count, first, prefix);
}

static void
l3_adopted_file_is_used_from_then_on(void **state)
{
    l3_box *f = *state;
    box_fill(f, 10, 1);
    for (unsigned round = 1; round <= 3; round++) {
        build_new(f, 20 * round, 100 * round, 1000 * round);
        adopt(f, false);
        assert_holds(f, 20 * round, 100 * round, 1000 * round);
        box_reopen(f); /* what the old connections left does not come back */
        assert_holds(f, 20 * round, 100 * round, 1000 * round);
        box_apply_one(f, box_put_op(f, "key-1", box_hash(1), 1000 * round + 1));
        assert_int_equal(box_stored(f, "key-1", box_hash(1)), 1000 * round + 1);
    }
    assert_false(exists(f, ".damaged-1"));
}

static void
l3_old_file_is_kept_under_the_first_free_name(void **state)
{
    l3_box *f = *state;
    char name[NAME_ROOM];
    for (unsigned round = 1; round <= 3; round++) {
        char suffix[32];
        box_fill(f, 10 * round, 10000 * round);
        /* A damaged file keeps its log: nothing is written into it any more. */
        ptier_l3_found_damage(ptier_l3_of(f->tier), "so says the test");
        build_new(f, 5, 10000 * round + 5000, 10000 * round + 6000);
        adopt(f, true);
        assert_holds(f, 5, 10000 * round + 5000, 10000 * round + 6000);
        (void)snprintf(suffix, sizeof suffix, ".damaged-%u", round);
        assert_true(exists(f, suffix));
        box_apply_one(f, box_clear_op(10000 * round + 7000));
    }
    assert_true(exists(f, ".damaged-1-wal"));
    box_close(f);
    char path[sizeof f->path];
    strcpy(path, f->path);
    strcpy(f->path, beside(f, ".damaged-1", name));
    box_open(f); /* and can be looked into */
    assert_int_equal(box_count(f), 10);
    box_close(f);
    strcpy(f->path, path);
}

static void
l3_adopts_in_place_of_a_file_that_is_gone_or_garbage(void **state)
{
    l3_box *f = *state;
    box_fill(f, 10, 1);
    build_new(f, 5, 100, 1000);
    assert_int_equal(unlink(f->path), 0);
    assert_int_equal(ptier_l3_check_file(f->tier), PTIER_L3_MOVED);
    adopt(f, true);
    assert_holds(f, 5, 100, 1000);
    box_close(f);
    ptier_test_file_write(f->path, "garbage that is no database at all", 34);
    box_open(f);
    assert_int_equal(box_condition(f), PTIER_L3_DAMAGED);
    build_new(f, 6, 200, 2000);
    adopt(f, true);
    assert_holds(f, 6, 200, 2000);
}

/* A database with its log beside it, as a killed process leaves them. */
static void
leave_as_killed(l3_box *f)
{
    char copy[NAME_ROOM], log_copy[NAME_ROOM], log[NAME_ROOM];
    size_t length, log_length;
    box_fill(f, 30, 1);
    char *bytes = ptier_test_file_read(f->path, &length);
    char *log_bytes = ptier_test_file_read(beside(f, "-wal", log), &log_length);
    assert_true(log_length > 0);
    box_close(f);
    ptier_test_file_write(beside(f, "", copy), bytes, length);
    ptier_test_file_write(beside(f, "-wal", log_copy), log_bytes, log_length);
    free(bytes);
    free(log_bytes);
}

static void
l3_adoption_cut_short_is_ended_by_the_next_open(void **state)
{
    l3_box *f = *state;
    for (int moved = 0; moved < 3; moved++) {
        leave_as_killed(f);
        build_new(f, 5, 100, 1000);
        rename_beside(f, ".new", ".adopt");
        if (moved > 0)
            rename_beside(f, "-wal", ".gone-wal");
        if (moved > 1)
            rename_beside(f, "", ".gone");
        box_open(f);
        assert_holds(f, 5, 100, 1000);
        assert_false(exists(f, ".adopt"));
        box_reopen(f);
        assert_holds(f, 5, 100, 1000);
        box_apply_one(f, box_clear_op(2000));
        box_close(f);
        assert_int_equal(unlink(f->path), 0);
        box_open(f);
    }
    assert_true(exists(f, ".damaged-1") && exists(f, ".damaged-2") && !exists(f, ".damaged-3"));
    assert_true(exists(f, ".damaged-1-wal"));
}

static void
l3_adoption_that_fails_is_ended_when_opened_anew(void **state)
{
    l3_box *f = *state;
    char path[NAME_ROOM];
    box_fill(f, 10, 1);
    build_new(f, 5, 100, 1000);
    /* In the way of the old log: a directory that is not empty. */
    assert_int_equal(unlink(ptier_l3_of(f->tier)->wal_path), 0);
    assert_int_equal(mkdir(ptier_l3_of(f->tier)->wal_path, 0700), 0);
    assert_int_not_equal(ptier_l3_adopt(f->tier, beside(f, ".new", path), false, &f->error),
                         PTIER_OK);
    assert_unavailable(f);
    assert_int_equal(rmdir(ptier_l3_of(f->tier)->wal_path), 0);
    assert_int_equal(ptier_l3_reopen(f->tier, &f->error), PTIER_OK);
    assert_holds(f, 5, 100, 1000);
}

static void
l3_readers_see_the_old_or_the_new_file_while_it_is_adopted(void **state)
{
    l3_box *f = *state;
    reading r = {.f = f};
    pthread_t threads[6];
    box_fill(f, 10, 1);
    start_reading(&r, threads);
    for (unsigned round = 1; round <= 10; round++) {
        build_new(f, 10, 100 * round + 1, 100 * round + 50);
        adopt(f, false);
        assert_int_equal(ptier_l3_prefix(f->tier), 100 * round + 50);
    }
    stop_reading(&r, threads);
    assert_holds(f, 10, 1001, 1050);
}

static void
l3_file_that_is_not_there_is_not_adopted_and_changes_nothing(void **state)
{
    l3_box *f = *state;
    char path[NAME_ROOM];
    box_fill(f, 10, 1);
    assert_int_equal(ptier_l3_adopt(f->tier, beside(f, ".new", path), true, &f->error),
                     PTIER_NOT_FOUND);
    assert_holds(f, 10, 1, 10);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        BOX_FACT(l3_file_that_was_deleted_is_noticed),
        BOX_FACT(l3_file_that_was_replaced_is_noticed),
        BOX_FACT(l3_log_that_was_deleted_is_noticed),
        BOX_FACT(l3_change_that_went_into_a_deleted_file_is_not_acknowledged),
        BOX_FACT(l3_file_that_came_back_is_used_again_when_opened_anew),
        BOX_FACT(l3_that_cannot_be_opened_anew_goes_on_with_what_is_open),
        BOX_FACT(l3_that_is_opened_anew_half_way_is_unavailable_until_all_of_it_is),
        BOX_FACT(l3_readers_are_not_disturbed_when_it_is_opened_anew),
        BOX_FACT(l3_built_file_is_one_whole_database),
        BOX_FACT(l3_built_file_has_the_newest_of_each_key),
        BOX_FACT(l3_builder_leaves_nothing_when_it_does_not_finish),
        BOX_FACT(l3_adopted_file_is_used_from_then_on),
        BOX_FACT(l3_old_file_is_kept_under_the_first_free_name),
        BOX_FACT(l3_adopts_in_place_of_a_file_that_is_gone_or_garbage),
        BOX_FACT(l3_adoption_cut_short_is_ended_by_the_next_open),
        BOX_FACT(l3_adoption_that_fails_is_ended_when_opened_anew),
        BOX_FACT(l3_readers_see_the_old_or_the_new_file_while_it_is_adopted),
        BOX_FACT(l3_file_that_is_not_there_is_not_adopted_and_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
