/* L2 when its disk fails, or its files are taken away. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/faults.h"
#include "support/l2_box.h"

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
resume(ptier_test_l2 *f)
{
    if (ptier_l2_resume(f->l2, &f->error))
        fail_msg("%s", f->error.message);
}

/* ---- probe ---- */

static bool
probe_file_is_there(const ptier_test_l2 *f)
{
    char path[PTIER_TEST_PATH + 16];
    (void)snprintf(path, sizeof path, "%s/probe", f->directory);
    return access(path, F_OK) == 0;
}

static void
l2_probe_writes_reads_and_leaves_nothing(void **state)
{
    ptier_test_l2 *f = *state;
    assert_int_equal(f->l2->ops->probe(f->l2, &f->error), PTIER_OK);
    assert_false(probe_file_is_there(f));
    static const struct {
        _Atomic int *fault;
        int reason;
        ptier_status status;
    } cases[] = {
        {&ptier_test_fault.fdatasync, EIO, PTIER_UNAVAILABLE},
        {&ptier_test_fault.write, ENOSPC, PTIER_RESOURCE_EXHAUSTED},
        {&ptier_test_fault.pread, EIO, PTIER_UNAVAILABLE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        atomic_store(cases[i].fault, cases[i].reason);
        assert_int_equal(f->l2->ops->probe(f->l2, &f->error), cases[i].status);
        assert_non_null(strstr(f->error.message, "/probe"));
        assert_non_null(strstr(f->error.message, strerror(cases[i].reason)));
        assert_false(probe_file_is_there(f));
        atomic_store(cases[i].fault, 0);
        assert_int_equal(f->l2->ops->probe(f->l2, &f->error), PTIER_OK);
    }
}

static void
l2_probe_notices_a_shard_that_is_gone_and_then_whether_a_resume_will_do(void **state)
{
    ptier_test_l2 *f = *state;
    ptier_box_put_many(f, 1, 3);
    ptier_box_remove_shard(f, 1);
    assert_int_equal(f->l2->ops->probe(f->l2, &f->error), PTIER_UNAVAILABLE);
    assert_non_null(strstr(f->error.message, "deleted"));
    atomic_store(&ptier_test_fault.fdatasync, EIO);
    assert_int_equal(f->l2->ops->probe(f->l2, &f->error), PTIER_UNAVAILABLE);
    atomic_store(&ptier_test_fault.fdatasync, 0);
    assert_int_equal(f->l2->ops->probe(f->l2, &f->error), PTIER_OK);
    ptier_box_expect_put(f, 4, false, PTIER_UNAVAILABLE, "failed before");
    resume(f);
    ptier_box_expect_put(f, 4, false, PTIER_OK, "");
    ptier_box_compact(f);
    ptier_box_reopen(f);
    assert_int_equal(ptier_box_get_many(f, 1, 4), 4);
}

/* ---- a sync that fails ---- */

static void
l2_failed_sync_is_not_forgotten_before_a_resume(void **state)
{
    ptier_test_l2 *f = *state;
    ptier_box_put_many(f, 1, 50);
    atomic_store(&ptier_test_fault.fdatasync, EIO);
    ptier_box_expect_put(f, 51, true, PTIER_UNAVAILABLE, "cannot sync");
    atomic_store(&ptier_test_fault.fdatasync, 0);
    assert_int_equal(f->l2->ops->apply(f->l2, NULL, 0, true, &f->error), PTIER_UNAVAILABLE);
    ptier_box_expect_put(f, 52, true, PTIER_UNAVAILABLE, "failed before");
    ptier_box_expect_put(f, 52, false, PTIER_UNAVAILABLE, "failed before");
    assert_int_equal(ptier_box_get_many(f, 1, 51), 51);
    resume(f);
    ptier_box_expect_put(f, 52, true, PTIER_OK, "");
    ptier_box_reopen(f);
    assert_int_equal(f->found.damaged, 0);
    assert_int_equal(ptier_box_get_many(f, 1, 52), 52);
}

/* What the kernel has dropped shows after a power loss only. */
static void
l2_resume_writes_again_what_was_not_synced(void **state)
{
    ptier_test_l2 *f = *state;
    ptier_box_put_many(f, 1, 1500); /* more than one step of copying */
    ptier_box_apply(f, PTIER_OP_REMOVE, "k7", 2000, 7);
    atomic_store(&ptier_test_fault.fdatasync, EIO);
    assert_int_equal(f->l2->ops->apply(f->l2, NULL, 0, true, &f->error), PTIER_UNAVAILABLE);
    atomic_store(&ptier_test_fault.fdatasync, 0);
    resume(f);
    assert_int_equal(f->l2->ops->apply(f->l2, NULL, 0, true, &f->error), PTIER_OK);
    ptier_box_close(f);
    ptier_box_truncate(f, 1, 0);
    ptier_box_reopen(f);
    assert_true(f->found.damaged > 0);
    assert_int_equal(ptier_box_get_many(f, 1, 1500), 1499);
}

static void
l2_resume_that_fails_is_repeated(void **state)
{
    ptier_test_l2 *f = *state;
    ptier_box_put_many(f, 1, 50);
    atomic_store(&ptier_test_fault.fdatasync, EIO);
    assert_int_equal(f->l2->ops->apply(f->l2, NULL, 0, true, &f->error), PTIER_UNAVAILABLE);
    atomic_store(&ptier_test_fault.fdatasync, 0);
    atomic_store(&ptier_test_fault.write, EIO);
    for (int i = 0; i < 5; i++) {
        atomic_store(&ptier_test_fault.write_after, 300); /* enough for a header */
        assert_int_equal(ptier_l2_resume(f->l2, &f->error), PTIER_UNAVAILABLE);
    }
    assert_int_equal(ptier_box_shard_files(f), 2);
    assert_int_equal(ptier_box_get_many(f, 1, 50), 50);
    atomic_store(&ptier_test_fault.write, 0);
    resume(f);
    ptier_box_compact(f);
    assert_false(ptier_box_has_shard(f, 1));
    ptier_box_reopen(f);
    assert_int_equal(f->found.damaged, 0);
    assert_int_equal(ptier_box_get_many(f, 1, 50), 50);
}

/* ---- files that are taken away ---- */

static void
check_all_is_well(ptier_test_l2 *f, uint64_t last)
{
    assert_int_equal(ptier_box_get_many(f, 1, last), last);
    ptier_box_compact(f);
    assert_int_equal(ptier_box_get_many(f, 1, last), last);
    ptier_box_reopen(f);
    assert_int_equal(f->found.damaged, 0);
    assert_int_equal(ptier_box_get_many(f, 1, last), last);
}

static void
l2_deleted_shards_are_noticed_and_their_records_saved(void **state)
{
    ptier_test_l2 *f = *state;
    f->options.shard_bytes = 16384;
    ptier_box_reopen(f);
    ptier_box_put_many(f, 1, 100);
    unsigned last = ptier_box_last_shard(f);
    assert_true(last > 2);
    for (unsigned number = 1; number <= last; number++)
        ptier_box_remove_shard(f, number);
    ptier_box_expect_put(f, 101, false, PTIER_UNAVAILABLE, "deleted");
    assert_int_equal(ptier_box_get_many(f, 1, 100), 100);
    resume(f);
    ptier_box_expect_put(f, 101, true, PTIER_OK, "");
    ptier_box_compact(f);
    check_all_is_well(f, 101);
    assert_true(f->found.first_shard > last);
}

static void
l2_deleted_directory_is_made_again(void **state)
{
    ptier_test_l2 *f = *state;
    ptier_box_put_many(f, 1, 100);
    ptier_test_dir_remove(f->directory);
    ptier_box_expect_put(f, 101, false, PTIER_UNAVAILABLE, "deleted");
    assert_int_equal(f->l2->ops->probe(f->l2, &f->error), PTIER_OK);
    resume(f);
    ptier_box_expect_put(f, 101, true, PTIER_OK, "");
    check_all_is_well(f, 101);
}

/* Crashed before all was copied: what is missing shows. */
static void
l2_records_of_deleted_shards_that_were_not_saved_are_missed(void **state)
{
    ptier_test_l2 *f = *state;
    f->options.shard_bytes = 16384;
    ptier_box_reopen(f);
    ptier_box_put_many(f, 1, 100);
    unsigned last = ptier_box_last_shard(f);
    ptier_test_dir_remove(f->directory);
    ptier_box_expect_put(f, 101, false, PTIER_UNAVAILABLE, "deleted");
    resume(f);
    ptier_box_reopen(f);
    assert_int_equal(f->found.damaged, last);
    assert_int_equal(f->found.damaged_to, 100);
}

static void
l2_directory_replaced_by_an_older_copy_is_noticed_and_set_aside(void **state)
{
    ptier_test_l2 *f = *state;
    char copy[PTIER_TEST_PATH], moved[PTIER_TEST_PATH + 8];
    char stranger[PTIER_TEST_SHARD_PATH];
    f->options.shard_bytes = 16384;
    ptier_box_reopen(f);
    ptier_test_dir_make(copy);
    ptier_box_put_many(f, 1, 60);
    ptier_test_dir_copy(f->directory, copy);
    ptier_box_put(f, "k7", 61, 7);
    ptier_box_put_many(f, 62, 100);
    (void)snprintf(moved, sizeof moved, "%s.moved", f->directory);
    assert_int_equal(rename(f->directory, moved), 0);
    ptier_test_dir_copy(copy, f->directory);
    ptier_box_expect_put(f, 101, true, PTIER_UNAVAILABLE, "no longer in");
    resume(f);
    ptier_box_expect_put(f, 102, true, PTIER_OK, "");
    ptier_box_compact(f);
    ptier_box_reopen(f);
    assert_int_equal(f->found.damaged, 0);
    assert_int_equal(ptier_box_get(f, "k7", 7), PTIER_NOT_FOUND);
    assert_int_equal(ptier_box_get(f, "k7", 61), PTIER_OK);
    assert_int_equal(ptier_box_get_many(f, 62, 102), 41);
    ptier_box_shard_path(f, 1, stranger);
    (void)strcat(stranger, ".aside");
    assert_int_equal(access(stranger, F_OK), 0); /* nobody's file is deleted */
    ptier_test_dir_remove(copy);
    ptier_test_dir_remove(moved);
}

static void
l2_shard_changed_by_others_takes_nothing_more(void **state)
{
    ptier_test_l2 *f = *state;
    size_t start, line;
    for (uint64_t shorter = 0; shorter < 2; shorter++) {
        uint64_t last = 10 + 11 * shorter;
        ptier_box_put_many(f, 1 + 11 * shorter, last);
        unsigned shard = ptier_box_last_shard(f);
        ptier_box_line(f, shard, 5, &start, &line);
        ptier_box_truncate(f, shard, shorter ? start : (size_t)ptier_box_shard_size(f, shard) + 10);
        ptier_box_expect_put(f, last + 1, false, PTIER_UNAVAILABLE, "changed by others");
        ptier_box_expect_put(f, last + 1, false, PTIER_UNAVAILABLE, "failed before");
        resume(f);
        ptier_box_expect_put(f, last + 1, false, PTIER_OK, "");
        ptier_box_compact(f);
        uint64_t lost = ptier_l2_damaged(f->l2);
        assert_true(shorter ? lost > 0 && lost < last : lost == 0);
        assert_int_equal(ptier_box_get_many(f, 1, last + 1), last + 1 - lost);
        ptier_box_reopen(f);
        assert_int_equal(f->found.damaged, 0);
        assert_int_equal(ptier_box_get_many(f, 1, last + 1), last + 1 - lost);
    }
}

static void
l2_compaction_does_not_delete_a_file_that_is_not_ours(void **state)
{
    ptier_test_l2 *f = *state;
    char path[PTIER_TEST_SHARD_PATH];
    size_t length;
    f->options.shard_bytes = 16384;
    ptier_box_reopen(f);
    ptier_box_put_many(f, 1, 100);
    ptier_box_remove_shard(f, 1);
    ptier_box_shard_path(f, 1, path);
    ptier_test_file_write(path, "precious\n", 9);
    for (uint64_t i = 101; i < 400; i++)
        ptier_box_put(f, "churn", i, i == 101 ? 0 : i - 1);
    ptier_box_compact(f);
    assert_false(ptier_box_has_shard(f, 2));
    char *text = ptier_test_file_read(path, &length);
    assert_string_equal(text, "precious\n");
    free(text);
    assert_int_equal(ptier_box_get_many(f, 1, 100), 100);
}

/* ---- what cannot be read ---- */

static void
l2_unreadable_shard_is_given_up_only_if_it_has_to_go_and_stays_so(void **state)
{
    ptier_test_l2 *f = *state;
    bool worked;
    ptier_box_put_many(f, 1, 10);
    for (uint64_t i = 11; i < 8000; i++)
        ptier_box_put(f, "churn", i, i == 11 ? 0 : i - 1);
    atomic_store(&ptier_test_fault.pread, EIO);
    assert_int_equal(ptier_box_get(f, "k1", 1), PTIER_UNAVAILABLE);
    ptier_status status = PTIER_OK;
    for (int i = 0; !status && i < 10; i++)
        status = ptier_l2_compact(f->l2, &worked, &f->error);
    assert_int_equal(status, PTIER_UNAVAILABLE);
    assert_int_equal(ptier_l2_damaged(f->l2), 0);
    assert_int_equal(ptier_l2_resume(f->l2, &f->error), PTIER_UNAVAILABLE); /* it may come back */
    assert_int_equal(ptier_l2_damaged(f->l2), 0);
    status = PTIER_UNAVAILABLE;
    for (int i = 0; status && i < 200; i++)
        status = ptier_l2_resume(f->l2, &f->error);
    assert_int_equal(status, PTIER_OK);
    for (int i = 0; i < 400 && f->l2->ops->count(f->l2); i++)
        PTIER_IGNORE(ptier_l2_compact(f->l2, &worked, &f->error)); /* fails until it has waited */
    atomic_store(&ptier_test_fault.pread, 0);
    assert_int_equal(ptier_l2_damaged(f->l2), 11);
    assert_int_equal(f->l2->ops->count(f->l2), 0);
    ptier_box_expect_put(f, 9000, true, PTIER_OK, "");
}

/* ---- restart ---- */

static void
l2_restart_forgets_all_and_goes_on(void **state)
{
    ptier_test_l2 *f = *state;
    f->options.shard_bytes = 16384;
    ptier_box_reopen_above(f, 0);
    ptier_box_put_many(f, 1, 100);
    assert_int_equal(ptier_l2_restart(f->l2, &f->error), PTIER_OK);
    assert_int_equal(f->l2->ops->count(f->l2), 0);
    assert_int_equal(ptier_l2_log_bytes(f->l2), 0);
    assert_int_equal(ptier_box_get_many(f, 1, 100), 0);
    assert_int_equal(ptier_box_shard_files(f), 1);
    assert_int_equal(f->l2->ops->bytes(f->l2),
                     (uint64_t)ptier_box_shard_size(f, ptier_box_last_shard(f)));
    ptier_box_expect_put(f, 101, true, PTIER_OK, "");
    ptier_box_reopen(f);
    assert_int_equal(f->found.damaged, 0);
    assert_int_equal(f->found.last_revision, 101);
    assert_int_equal(ptier_box_get_many(f, 1, 101), 1);
}

static void
l2_restart_heals_whatever_had_failed(void **state)
{
    ptier_test_l2 *f = *state;
    ptier_box_put_many(f, 1, 10);
    ptier_test_dir_remove(f->directory);
    ptier_box_expect_put(f, 11, false, PTIER_UNAVAILABLE, "deleted");
    assert_int_equal(ptier_l2_restart(f->l2, &f->error), PTIER_OK);
    ptier_box_expect_put(f, 11, true, PTIER_OK, "");
    atomic_store(&ptier_test_fault.fdatasync, EIO);
    ptier_box_expect_put(f, 12, true, PTIER_UNAVAILABLE, "cannot sync");
    atomic_store(&ptier_test_fault.fdatasync, 0);
    atomic_store(&ptier_test_fault.fallocate, ENOSPC);
    assert_int_equal(ptier_l2_restart(f->l2, &f->error), PTIER_RESOURCE_EXHAUSTED);
    ptier_box_expect_put(f, 13, true, PTIER_UNAVAILABLE, "failed before");
    atomic_store(&ptier_test_fault.fallocate, 0);
    assert_int_equal(ptier_l2_restart(f->l2, &f->error), PTIER_OK);
    ptier_box_expect_put(f, 13, true, PTIER_OK, "");
    ptier_box_reopen(f);
    assert_int_equal(f->found.damaged, 0);
    assert_int_equal(f->l2->ops->count(f->l2), 1);
}

#define WITH_FAULTS(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FAULTS(l2_probe_writes_reads_and_leaves_nothing),
        WITH_FAULTS(l2_probe_notices_a_shard_that_is_gone_and_then_whether_a_resume_will_do),
        WITH_FAULTS(l2_failed_sync_is_not_forgotten_before_a_resume),
        WITH_FAULTS(l2_resume_writes_again_what_was_not_synced),
        WITH_FAULTS(l2_resume_that_fails_is_repeated),
        WITH_FAULTS(l2_deleted_shards_are_noticed_and_their_records_saved),
        WITH_FAULTS(l2_deleted_directory_is_made_again),
        WITH_FAULTS(l2_records_of_deleted_shards_that_were_not_saved_are_missed),
        WITH_FAULTS(l2_directory_replaced_by_an_older_copy_is_noticed_and_set_aside),
        WITH_FAULTS(l2_shard_changed_by_others_takes_nothing_more),
        WITH_FAULTS(l2_compaction_does_not_delete_a_file_that_is_not_ours),
        WITH_FAULTS(l2_unreadable_shard_is_given_up_only_if_it_has_to_go_and_stays_so),
        WITH_FAULTS(l2_restart_forgets_all_and_goes_on),
        WITH_FAULTS(l2_restart_heals_whatever_had_failed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
