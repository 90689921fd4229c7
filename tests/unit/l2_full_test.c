/* L2 on a full disk: puts are refused in time, removals have room. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/faults.h"
#include "support/l2_box.h"

enum { RESERVE = 64 << 10 };

static int
set_up(void **state)
{
    ptier_test_fault = (ptier_test_faults){0};
    return ptier_box_set_up(state);
}

static int
tear_down(void **state)
{
    ptier_test_fault = (ptier_test_faults){0};
    return ptier_box_tear_down(state);
}

static void
reopen_with_reserve(ptier_test_l2 *f, uint64_t shard_bytes)
{
    f->options.removal_reserve = RESERVE;
    f->options.shard_bytes = shard_bytes;
    ptier_box_reopen(f);
}

static uint64_t
allocated(const ptier_test_l2 *f, unsigned number)
{
    char path[PTIER_TEST_SHARD_PATH];
    struct stat info;
    ptier_box_shard_path(f, number, path);
    assert_int_equal(stat(path, &info), 0);
    return (uint64_t)info.st_blocks * 512;
}

static void
l2_put_without_room_is_refused_before_anything_is_written(void **state)
{
    ptier_test_l2 *f = *state;
    reopen_with_reserve(f, 1 << 20);
    ptier_box_expect_put(f, 1, false, PTIER_OK, "");
    for (uint64_t i = 2; i < 2000; i++) /* up to the end of what is allocated */
        ptier_box_expect_put(f, i, false, PTIER_OK, "");
    off_t before = ptier_box_shard_size(f, ptier_box_last_shard(f));
    static const int reasons[] = {ENOSPC, EDQUOT};
    for (size_t i = 0; i < 2; i++) {
        uint64_t revision = 2000;
        ptier_status status = PTIER_OK;
        atomic_store(&ptier_test_fault.fallocate, reasons[i]);
        for (; !status && revision < 9000; revision++) {
            before = ptier_box_shard_size(f, ptier_box_last_shard(f));
            status = ptier_box_try(f, PTIER_OP_PUT, "more", revision, revision - 1, false);
        }
        assert_int_equal(status, PTIER_RESOURCE_EXHAUSTED);
        assert_int_equal(ptier_box_shard_size(f, ptier_box_last_shard(f)), before);
        assert_int_equal(ptier_box_get(f, "more", revision - 1), PTIER_NOT_FOUND);
        assert_int_equal(ptier_box_get(f, "more", revision - 2), PTIER_OK);
        atomic_store(&ptier_test_fault.fallocate, 0);
        assert_int_equal(ptier_box_try(f, PTIER_OP_PUT, "more", revision - 1, revision - 2, false),
                         PTIER_OK);
        (void)ptier_box_try(f, PTIER_OP_REMOVE, "more", revision, revision - 1, false);
    }
    ptier_box_reopen(f);
    assert_int_equal(f->found.damaged, 0);
}

static void
l2_removals_are_written_to_a_full_disk_without_a_new_shard(void **state)
{
    ptier_test_l2 *f = *state;
    reopen_with_reserve(f, 16384);
    ptier_box_put_many(f, 1, 300);
    uint32_t last = ptier_box_last_shard(f);
    size_t files = ptier_box_shard_files(f);
    atomic_store(&ptier_test_fault.fallocate, ENOSPC);
    for (uint64_t i = 1; i <= 300; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "k%d", (int)i);
        ptier_box_apply(f, PTIER_OP_REMOVE, key, 1000 + i, i);
    }
    ptier_box_apply(f, PTIER_OP_CLEAR, NULL, 2000, 0);
    assert_int_equal(ptier_box_shard_files(f), files);
    assert_int_equal(ptier_box_last_shard(f), last);
    assert_true(ptier_box_shard_size(f, last) > 16384);
    atomic_store(&ptier_test_fault.fallocate, 0);
    ptier_box_put_many(f, 3000, 3200);
    assert_true(ptier_box_last_shard(f) > last);
    ptier_box_reopen(f);
    assert_int_equal(f->found.damaged, 0);
    assert_int_equal(ptier_box_get_many(f, 1, 300), 0);
}

/* Else a full disk could never be freed of what is dead. */
static void
l2_compaction_uses_the_reserve_for_shards_that_are_nearly_dead(void **state)
{
    ptier_test_l2 *f = *state;
    reopen_with_reserve(f, 16384);
    ptier_box_put_many(f, 1, 300);
    for (uint64_t i = 1; i <= 300; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "k%d", (int)i);
        if (i % 10)
            ptier_box_apply(f, PTIER_OP_REMOVE, key, 1000 + i, i);
    }
    size_t files = ptier_box_shard_files(f);
    atomic_store(&ptier_test_fault.fallocate, ENOSPC);
    ptier_box_compact(f);
    assert_true(ptier_box_shard_files(f) < files / 2);
    assert_int_equal(ptier_box_get_many(f, 1, 300), 30);
    atomic_store(&ptier_test_fault.fallocate, 0);
}

static void
l2_unused_room_is_given_back(void **state)
{
    ptier_test_l2 *f = *state;
    reopen_with_reserve(f, 16384);
    ptier_box_put_many(f, 1, 10);
    assert_true(allocated(f, 1) >= RESERVE);
    ptier_box_put_many(f, 11, 60);
    uint32_t last = ptier_box_last_shard(f);
    assert_true(last > 2);
    for (unsigned number = 1; number < last; number++)
        assert_true(allocated(f, number) <= 16384 + 4096);
    assert_true(allocated(f, last) >= RESERVE);
    ptier_box_close(f);
    assert_true(allocated(f, last) <= 16384 + 4096);
}

static void
l2_works_where_room_cannot_be_reserved(void **state)
{
    ptier_test_l2 *f = *state;
    static const int reasons[] = {EOPNOTSUPP, ENOSYS};
    for (size_t i = 0; i < 2; i++) {
        atomic_store(&ptier_test_fault.fallocate, reasons[i]);
        reopen_with_reserve(f, 16384);
        ptier_box_put_many(f, 1 + 100 * i, 100 + 100 * i);
        assert_true(ptier_box_last_shard(f) > 2);
    }
    ptier_box_reopen(f);
    assert_int_equal(ptier_box_get_many(f, 1, 200), 200);
}

static void
l2_partial_write_is_cut_off_again(void **state)
{
    ptier_test_l2 *f = *state;
    ptier_box_put_many(f, 1, 3);
    off_t before = ptier_box_shard_size(f, 1);
    for (long bytes = 0; bytes < 400; bytes += 57) {
        atomic_store(&ptier_test_fault.write_after, bytes);
        atomic_store(&ptier_test_fault.write, ENOSPC);
        ptier_box_expect_put(f, 4, false, PTIER_RESOURCE_EXHAUSTED, "cannot write");
        atomic_store(&ptier_test_fault.write, 0);
        assert_int_equal(ptier_box_shard_size(f, 1), before);
        assert_int_equal(ptier_box_get(f, "k4", 4), PTIER_NOT_FOUND);
    }
    ptier_box_expect_put(f, 4, true, PTIER_OK, "");
    ptier_box_reopen(f);
    assert_int_equal(f->found.damaged, 0);
    assert_int_equal(ptier_box_get_many(f, 1, 4), 4);
}

static void
l2_opens_on_a_full_disk(void **state)
{
    ptier_test_l2 *f = *state;
    reopen_with_reserve(f, 1 << 20);
    ptier_box_put_many(f, 1, 3);
    ptier_box_close(f);
    atomic_store(&ptier_test_fault.fallocate, ENOSPC);
    ptier_box_reopen(f);
    assert_int_equal(ptier_box_get_many(f, 1, 3), 3);
    ptier_box_apply(f, PTIER_OP_REMOVE, "k1", 4, 1);
    ptier_box_close(f);
    ptier_box_truncate(f, 1, 0); /* the header cannot be written either */
    ptier_box_reopen(f);
    ptier_box_expect_put(f, 5, false, PTIER_RESOURCE_EXHAUSTED, "room");
    atomic_store(&ptier_test_fault.fallocate, 0);
    ptier_box_expect_put(f, 5, false, PTIER_OK, "");
    ptier_box_reopen(f);
    assert_int_equal(ptier_box_get(f, "k5", 5), PTIER_OK);
}

/* A real one: a small file system in memory. */
static void
l2_on_a_disk_that_is_really_full_loses_nothing_and_removes_all(void **state)
{
    ptier_test_l2 *f = *state;
    ptier_box_close(f);
    if (mount("none", f->directory, "tmpfs", 0, "size=8m"))
        skip();
    f->options.removal_reserve = 2 << 20;
    f->options.shard_bytes = 256 << 10;
    ptier_box_reopen(f);
    uint64_t put = 0;
    char key[32];
    ptier_status status = PTIER_OK;
    while (!status && put < 20000) {
        (void)snprintf(key, sizeof key, "k%d", (int)++put);
        status = ptier_box_try(f, PTIER_OP_PUT, key, put, 0, false);
    }
    put--;
    bool exhausted = status == PTIER_RESOURCE_EXHAUSTED;
    bool all = ptier_box_get_many(f, 1, put) == put;
    status = PTIER_OK;
    for (uint64_t i = 1; !status && i <= put; i++) {
        (void)snprintf(key, sizeof key, "k%d", (int)i);
        status = ptier_box_try(f, PTIER_OP_REMOVE, key, 20000 + i, i, i % 100 == 0);
    }
    ptier_box_reopen(f);
    uint64_t left = ptier_box_get_many(f, 1, put), damaged = f->found.damaged;
    ptier_box_compact(f); /* the dead make room again */
    ptier_status again = ptier_box_try(f, PTIER_OP_PUT, "k1", 90000, 0, true);
    ptier_box_close(f);
    assert_int_equal(umount(f->directory), 0);
    assert_true(exhausted);
    assert_true(put > 1000);
    assert_true(all);
    assert_int_equal(status, PTIER_OK);
    assert_int_equal(left, 0);
    assert_int_equal(damaged, 0);
    assert_int_equal(again, PTIER_OK);
}

#define WITH_FAULTS(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FAULTS(l2_put_without_room_is_refused_before_anything_is_written),
        WITH_FAULTS(l2_removals_are_written_to_a_full_disk_without_a_new_shard),
        WITH_FAULTS(l2_compaction_uses_the_reserve_for_shards_that_are_nearly_dead),
        WITH_FAULTS(l2_unused_room_is_given_back),
        WITH_FAULTS(l2_works_where_room_cannot_be_reserved),
        WITH_FAULTS(l2_partial_write_is_cut_off_again),
        WITH_FAULTS(l2_opens_on_a_full_disk),
        WITH_FAULTS(l2_on_a_disk_that_is_really_full_loses_nothing_and_removes_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
