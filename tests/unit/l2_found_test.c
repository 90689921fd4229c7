/* What ptier_l2_found_at_open says of damaged, missing and exchanged shards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/l2_box.h"
#include "support/sample_entry.h"

static void
l2_undamaged_shards_are_found_so(void **state)
{
    ptier_test_l2 *f = *state;
    uint64_t last_in[BOX_SHARDS + 1], last = ptier_box_fill_shards(f, last_in);
    uint32_t first, number;
    uint64_t bytes;
    ptier_box_reopen(f);
    assert_int_equal(f->found.first_shard, 1);
    assert_int_equal(f->found.last_shard, BOX_SHARDS);
    assert_int_equal(f->found.last_revision, last);
    assert_int_equal(f->found.damaged, 0);
    assert_int_equal(f->found.damaged_to, 0);
    assert_false(f->found.unverified);
    ptier_l2_position(f->l2, &first, &number, &bytes);
    assert_int_equal(first, 1);
    assert_int_equal(number, BOX_SHARDS);
    assert_int_equal(bytes, f->found.last_shard_bytes);
    assert_int_equal(ptier_box_get_many(f, 1, last), last);
}

static void
l2_empty_directory_is_found_so(void **state)
{
    ptier_test_l2 *f = *state;
    assert_int_equal(f->found.first_shard, 0);
    assert_int_equal(f->found.last_shard, 0);
    assert_int_equal(f->found.last_shard_bytes, 0);
    assert_int_equal(f->found.damaged, 0);
    assert_false(f->found.unverified);
}

static void
l2_missing_shard_in_the_middle_is_found(void **state)
{
    ptier_test_l2 *f = *state;
    uint64_t last_in[BOX_SHARDS + 1], last = ptier_box_fill_shards(f, last_in);
    ptier_box_remove_shard(f, 3);
    ptier_box_reopen(f);
    assert_int_equal(f->found.damaged, 1);
    assert_int_equal(f->found.damaged_to, last_in[3]);
    assert_int_equal(ptier_box_get_many(f, 1, last), last - (last_in[3] - last_in[2]));
}

static void
l2_missing_first_shards_are_found(void **state)
{
    ptier_test_l2 *f = *state;
    uint64_t last_in[BOX_SHARDS + 1];
    (void)ptier_box_fill_shards(f, last_in);
    ptier_box_remove_shard(f, 1);
    ptier_box_remove_shard(f, 2);
    ptier_box_reopen(f);
    assert_int_equal(f->found.damaged, 2);
    assert_int_equal(f->found.damaged_to, last_in[2]);
}

static void
l2_shards_that_were_compacted_away_are_not_missed(void **state)
{
    ptier_test_l2 *f = *state;
    uint64_t last_in[BOX_SHARDS + 1], last = ptier_box_fill_shards(f, last_in);
    uint32_t first, number;
    uint64_t bytes;
    ptier_box_reopen(f);
    for (uint64_t i = last_in[4] + 1; i < last + 40; i++)
        ptier_box_put(f, "churn", i + 100, i == last_in[4] + 1 ? 0 : i + 99);
    bool worked = true;
    for (int i = 0; worked && i < 1000; i++) {
        assert_int_equal(ptier_l2_compact(f->l2, &worked, &f->error), PTIER_OK);
        ptier_l2_position(f->l2, &first, &number, &bytes);
        ptier_box_reopen(f); /* at any moment */
        assert_int_equal(f->found.first_shard, first);
        assert_int_equal(f->found.damaged, 0);
        assert_int_equal(f->found.last_shard_bytes, bytes);
    }
    assert_true(first > 1);
}

static void
l2_shortened_shard_is_found(void **state)
{
    ptier_test_l2 *f = *state;
    uint64_t last_in[BOX_SHARDS + 1], last = ptier_box_fill_shards(f, last_in);
    size_t start, line;
    ptier_box_line(f, 2, 3, &start, &line);
    ptier_box_truncate(f, 2, start); /* between two lines */
    ptier_box_reopen(f);
    assert_int_equal(f->found.damaged, 1);
    assert_int_equal(f->found.damaged_to, last_in[2]);
    assert_int_equal(ptier_box_get_many(f, 1, last), last - (last_in[2] - last_in[1] - 2));
}

static void
l2_damaged_line_is_bounded_by_the_next_header(void **state)
{
    ptier_test_l2 *f = *state;
    uint64_t last_in[BOX_SHARDS + 1];
    size_t start, line;
    (void)ptier_box_fill_shards(f, last_in);
    ptier_box_line(f, 4, 2, &start, &line);
    ptier_box_flip(f, 4, start + 40);
    ptier_box_reopen(f);
    assert_int_equal(f->found.damaged, 1);
    assert_int_equal(f->found.damaged_to, last_in[4]);
}

static void
l2_damaged_header_leaves_it_to_the_one_after_it(void **state)
{
    ptier_test_l2 *f = *state;
    uint64_t last_in[BOX_SHARDS + 1], last = ptier_box_fill_shards(f, last_in);
    ptier_box_flip(f, 3, 10);
    ptier_box_reopen(f);
    assert_int_equal(f->found.damaged, 1);
    assert_int_equal(f->found.damaged_to, last_in[3]);
    assert_int_equal(ptier_box_get_many(f, 1, last), last);
}

static void
l2_shards_in_each_others_place_are_found(void **state)
{
    ptier_test_l2 *f = *state;
    uint64_t last_in[BOX_SHARDS + 1], last = ptier_box_fill_shards(f, last_in);
    ptier_box_copy_shard(f, 2, 90);
    ptier_box_copy_shard(f, 4, 2);
    ptier_box_copy_shard(f, 90, 4);
    ptier_box_remove_shard(f, 90);
    ptier_box_reopen(f);
    assert_true(f->found.damaged >= 2);
    assert_true(f->found.damaged_to >= last_in[4]);
    assert_int_equal(ptier_box_get_many(f, 1, last), last); /* the lines are sound */
}

static void
l2_line_older_than_a_clear_is_dead_wherever_it_is(void **state)
{
    ptier_test_l2 *f = *state;
    char path[PTIER_TEST_SHARD_PATH];
    size_t length;
    ptier_box_put(f, "a", 1, 0);
    ptier_box_shard_path(f, 1, path);
    char *data = ptier_test_file_read(path, &length);
    ptier_box_apply(f, PTIER_OP_CLEAR, NULL, 2, 0);
    ptier_box_close(f);
    ptier_box_shard_path(f, 2, path);
    ptier_test_file_write(path, data, length);
    free(data);
    ptier_box_reopen(f);
    assert_true(f->found.damaged > 0);
    assert_int_equal(ptier_box_get(f, "a", 1), PTIER_NOT_FOUND);
    assert_int_equal(f->l2->ops->count(f->l2), 0);
}

static void
l2_damage_is_reported_until_the_files_are_written_anew(void **state)
{
    ptier_test_l2 *f = *state;
    uint64_t last_in[BOX_SHARDS + 1], last = ptier_box_fill_shards(f, last_in);
    ptier_box_remove_shard(f, 3);
    ptier_box_flip(f, BOX_SHARDS, 300);
    ptier_box_reopen(f);
    ptier_box_reopen(f);
    assert_int_equal(f->found.damaged, 2);
    uint64_t there = ptier_box_get_many(f, 1, last);
    ptier_box_compact(f);
    assert_int_equal(ptier_l2_damaged(f->l2), 0); /* nothing that open did not say */
    ptier_box_reopen(f);
    assert_int_equal(f->found.damaged, 0);
    assert_true(f->found.first_shard > BOX_SHARDS);
    assert_int_equal(ptier_box_get_many(f, 1, last), there);
}

/* The damaged line may have had a higher revision than any that was seen. */
static void
l2_bound_is_unknown_until_something_newer_was_written(void **state)
{
    ptier_test_l2 *f = *state;
    size_t start, line;
    ptier_box_put_many(f, 1, 5);
    ptier_box_line(f, 1, 5, &start, &line);
    ptier_box_close(f);
    ptier_box_flip(f, 1, start + 30);
    ptier_box_reopen(f);
    assert_true(f->found.damaged_to == UINT64_MAX);
    assert_int_equal(ptier_l2_resume(f->l2, &f->error), PTIER_OK); /* a new shard at once */
    ptier_box_reopen(f);
    assert_true(f->found.damaged_to == UINT64_MAX);
    ptier_box_put_many(f, 9, 9);
    assert_int_equal(ptier_l2_resume(f->l2, &f->error), PTIER_OK);
    ptier_box_reopen(f);
    assert_int_equal(f->found.damaged_to, 9);
}

/* Shards as they were before there were headers. */
static void
remove_header(ptier_test_l2 *f, unsigned number)
{
    char path[PTIER_TEST_SHARD_PATH];
    size_t length, start, header;
    ptier_box_line(f, number, 0, &start, &header);
    ptier_box_shard_path(f, number, path);
    char *data = ptier_test_file_read(path, &length);
    ptier_test_file_write(path, data + header, length - header);
    free(data);
}

static void
l2_shards_without_headers_are_read_and_followed(void **state)
{
    ptier_test_l2 *f = *state;
    uint64_t last_in[BOX_SHARDS + 1], last = ptier_box_fill_shards(f, last_in);
    for (unsigned number = 1; number <= BOX_SHARDS; number++)
        remove_header(f, number);
    ptier_box_reopen(f);
    assert_int_equal(f->found.damaged, 0);
    assert_int_equal(ptier_box_get_many(f, 1, last), last);
    ptier_box_put_many(f, last + 1, last + 20);
    ptier_box_reopen(f);
    assert_int_equal(f->found.damaged, 0);
    assert_int_equal(ptier_box_get_many(f, 1, last + 20), last + 20);
    ptier_box_close(f);
    ptier_box_flip(f, 2, 100); /* bounded by the first header that comes */
    ptier_box_reopen(f);
    assert_int_equal(f->found.damaged, 1);
    assert_true(f->found.damaged_to >= last && f->found.damaged_to < last + 20);
}

static void
l2_damage_in_shards_without_headers_has_no_bound(void **state)
{
    ptier_test_l2 *f = *state;
    uint64_t last_in[BOX_SHARDS + 1];
    (void)ptier_box_fill_shards(f, last_in);
    for (unsigned number = 1; number <= BOX_SHARDS; number++)
        remove_header(f, number);
    ptier_box_flip(f, 2, 100);
    ptier_box_reopen(f);
    assert_int_equal(f->found.damaged, 1);
    assert_true(f->found.damaged_to == UINT64_MAX);
}

static void
l2_line_break_turned_into_a_shard_line_elsewhere_is_harmless(void **state)
{
    ptier_test_l2 *f = *state;
    char path[PTIER_TEST_SHARD_PATH];
    size_t length, start, header;
    ptier_box_put_many(f, 1, 3);
    ptier_box_close(f);
    ptier_box_line(f, 1, 0, &start, &header);
    ptier_box_shard_path(f, 1, path);
    char *data = ptier_test_file_read(path, &length);
    char *twice = malloc(length + header);
    memcpy(twice, data, length);
    memcpy(twice + length, data, header); /* as compaction does it */
    ptier_test_file_write(path, twice, length + header);
    free(data);
    free(twice);
    ptier_box_reopen(f);
    assert_int_equal(f->found.damaged, 0);
    assert_int_equal(ptier_box_get_many(f, 1, 3), 3);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_L2(l2_undamaged_shards_are_found_so),
        WITH_L2(l2_empty_directory_is_found_so),
        WITH_L2(l2_missing_shard_in_the_middle_is_found),
        WITH_L2(l2_missing_first_shards_are_found),
        WITH_L2(l2_shards_that_were_compacted_away_are_not_missed),
        WITH_L2(l2_shortened_shard_is_found),
        WITH_L2(l2_damaged_line_is_bounded_by_the_next_header),
        WITH_L2(l2_damaged_header_leaves_it_to_the_one_after_it),
        WITH_L2(l2_shards_in_each_others_place_are_found),
        WITH_L2(l2_line_older_than_a_clear_is_dead_wherever_it_is),
        WITH_L2(l2_damage_is_reported_until_the_files_are_written_anew),
        WITH_L2(l2_bound_is_unknown_until_something_newer_was_written),
        WITH_L2(l2_shards_without_headers_are_read_and_followed),
        WITH_L2(l2_damage_in_shards_without_headers_has_no_bound),
        WITH_L2(l2_line_break_turned_into_a_shard_line_elsewhere_is_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
