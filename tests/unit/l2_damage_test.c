/* L2 and damaged files: never a wrong value, and open says what was found. */
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

/* ---- single lines ---- */

static void
l2_recovery_drops_a_torn_last_line_and_goes_on(void **state)
{
    ptier_test_l2 *f = *state;
    char path[PTIER_TEST_SHARD_PATH];
    size_t length, rest, start, line;
    ptier_box_shard_path(f, 1, path);
    ptier_box_put(f, "a", 1, 0);
    ptier_box_put(f, "b", 2, 0);
    ptier_box_close(f);
    ptier_box_line(f, 1, 2, &start, &line);
    char *whole = ptier_test_file_read(path, &length);
    for (size_t cut = start + 1; cut < length; cut += 37) {
        ptier_test_file_write(path, whole, cut);
        ptier_box_reopen(f);
        assert_int_equal(f->found.damaged, 0); /* it was never acknowledged */
        assert_int_equal(f->found.damaged_to, 0);
        assert_int_equal(f->found.last_shard_bytes, start);
        assert_int_equal(f->found.last_revision, 1);
        assert_int_equal(ptier_box_get(f, "a", 1), PTIER_OK);
        assert_int_equal(ptier_box_get(f, "b", 2), PTIER_NOT_FOUND);
        ptier_box_put(f, "c", 3, 0); /* is not glued to the torn line */
        ptier_box_reopen(f);
        assert_int_equal(ptier_box_get(f, "a", 1), PTIER_OK);
        assert_int_equal(ptier_box_get(f, "c", 3), PTIER_OK);
        ptier_box_close(f);
        free(ptier_test_file_read(path, &rest));
        assert_true(rest < start + 2 * line);
    }
    free(whole);
}

static void
l2_torn_header_is_written_again(void **state)
{
    ptier_test_l2 *f = *state;
    size_t start, header;
    ptier_box_line(f, 1, 0, &start, &header);
    for (size_t cut = 0; cut < header; cut += 10) {
        ptier_box_close(f);
        ptier_box_truncate(f, 1, cut);
        ptier_box_reopen(f);
        assert_int_equal(f->found.damaged, 0);
        ptier_box_put(f, "a", 1, 0);
        ptier_box_reopen(f);
        assert_int_equal(f->found.damaged, 0);
        assert_int_equal(ptier_box_get(f, "a", 1), PTIER_OK);
    }
}

static void
l2_flipped_bits_cost_only_their_own_record(void **state)
{
    ptier_test_l2 *f = *state;
    char path[PTIER_TEST_SHARD_PATH];
    size_t length, start, line;
    ptier_box_shard_path(f, 1, path);
    ptier_box_put(f, "a", 1, 0);
    ptier_box_put(f, "b", 2, 0);
    ptier_box_put(f, "c", 3, 0);
    ptier_box_close(f);
    char *data = ptier_test_file_read(path, &length);
    ptier_box_line(f, 1, 2, &start, &line);
    char *second = data + start;
    for (size_t bit = 0; bit < 8 * (line - 1); bit += 5) {
        f->warnings = 0;
        second[bit / 8] = (char)(second[bit / 8] ^ 1 << bit % 8);
        ptier_test_file_write(path, data, length);
        ptier_box_reopen(f);
        assert_int_equal(ptier_box_get(f, "a", 1), PTIER_OK);
        assert_int_equal(ptier_box_get(f, "b", 2), PTIER_NOT_FOUND);
        assert_int_equal(ptier_box_get(f, "c", 3), PTIER_OK);
        assert_int_equal(f->l2->ops->count(f->l2), 2);
        assert_true(f->found.damaged == 1 || f->found.damaged == 2); /* a line break more */
        assert_true(f->found.damaged_to == UINT64_MAX); /* the last shard: nobody knows */
        assert_true(f->warnings > 0);
        ptier_box_close(f);
        second[bit / 8] = (char)(second[bit / 8] ^ 1 << bit % 8);
    }
    free(data);
}

static void
l2_bit_flipped_while_open_is_a_loss_and_then_a_miss(void **state)
{
    ptier_test_l2 *f = *state;
    size_t start, line;
    ptier_box_put(f, "a", 1, 0);
    ptier_box_put(f, "b", 2, 0);
    ptier_box_line(f, 1, 1, &start, &line);
    ptier_box_flip(f, 1, start + 2);
    assert_int_equal(ptier_box_get(f, "a", 1), PTIER_DATA_LOSS);
    assert_int_equal(ptier_box_get(f, "a", 1), PTIER_NOT_FOUND);
    assert_int_equal(ptier_box_get(f, "b", 2), PTIER_OK);
    assert_int_equal(f->l2->ops->count(f->l2), 1);
    assert_int_equal(ptier_l2_damaged(f->l2), 1);
}

static void
l2_tells_the_key_of_a_lost_record_while_it_is_legible(void **state)
{
    ptier_test_l2 *f = *state;
    char key[PTIER_KEY_MAX + 1];
    size_t start, line;
    ptier_box_put(f, "a \"quoted\" key", 1, 0);
    ptier_box_put(f, "another key", 2, 0);
    ptier_box_put(f, "the third key", 3, 0);
    uint64_t first = ptier_box_hash(f, "a \"quoted\" key"),
             second = ptier_box_hash(f, "another key");
    ptier_box_line(f, 1, 1, &start, &line);
    ptier_box_flip(f, 1, start + line - 20); /* in the check */
    ptier_box_line(f, 1, 2, &start, &line);
    ptier_box_flip(f, 1, start + 36); /* in the key */
    assert_false(ptier_l2_peek_key(f->l2, first, 1, key));
    assert_int_equal(ptier_box_get(f, "a \"quoted\" key", 1), PTIER_DATA_LOSS);
    assert_int_equal(ptier_box_get(f, "another key", 2), PTIER_DATA_LOSS);
    assert_true(ptier_l2_peek_key(f->l2, first, 1, key));
    assert_string_equal(key, "a \"quoted\" key");
    assert_false(ptier_l2_peek_key(f->l2, first, 2, key));
    assert_false(ptier_l2_peek_key(f->l2, second, 2, key)); /* its hash does not fit */
    assert_int_equal(ptier_box_get(f, "the third key", 3), PTIER_OK);
}

static void
l2_compaction_drops_and_counts_what_it_cannot_copy(void **state)
{
    ptier_test_l2 *f = *state;
    char key[PTIER_KEY_MAX + 1];
    size_t start, line;
    f->options.shard_bytes = 4096;
    ptier_box_reopen(f);
    ptier_box_put_many(f, 1, 5);
    for (uint64_t i = 6; i <= 60; i++)
        ptier_box_put(f, "churn", i, i == 6 ? 0 : i - 1);
    ptier_box_line(f, 1, 2, &start, &line);
    ptier_box_flip(f, 1, start + line - 5);
    ptier_box_compact(f);
    assert_false(ptier_box_has_shard(f, 1));
    assert_int_equal(ptier_l2_damaged(f->l2), 1);
    assert_true(ptier_l2_peek_key(f->l2, ptier_box_hash(f, "k2"), 2, key));
    assert_string_equal(key, "k2");
    assert_int_equal(ptier_box_get(f, "k2", 2), PTIER_NOT_FOUND);
    assert_int_equal(ptier_box_get_many(f, 1, 5), 4);
    ptier_box_reopen(f);
    assert_int_equal(f->found.damaged, 0); /* it is in no file any more */
    assert_int_equal(ptier_box_get_many(f, 1, 5), 4);
}

/* ---- whole files ---- */

static void
l2_survives_a_shard_of_garbage(void **state)
{
    ptier_test_l2 *f = *state;
    char path[PTIER_TEST_SHARD_PATH];
    static char garbage[300000];
    uint64_t seed = 9;
    for (int kind = 0; kind < 3; kind++) {
        for (size_t i = 0; i < sizeof garbage; i++) {
            garbage[i] = (char)ptier_test_random(&seed, 256);
            if (kind == 1 && garbage[i] == '\n') /* one endless line */
                garbage[i] = ' ';
            if (kind == 2)
                garbage[i] = '\n';
        }
        ptier_box_put(f, "a", 1, 0);
        ptier_box_close(f);
        ptier_box_shard_path(f, 5, path);
        ptier_test_file_write(path, garbage, sizeof garbage);
        ptier_box_reopen(f);
        assert_int_equal(ptier_box_get(f, "a", 1), PTIER_OK);
        ptier_box_put(f, "b", 2, 0);
        ptier_box_reopen(f);
        assert_int_equal(ptier_box_get(f, "a", 1), PTIER_OK);
        assert_int_equal(ptier_box_get(f, "b", 2), PTIER_OK);
    }
}

static void
l2_ignores_files_that_are_no_shards(void **state)
{
    ptier_test_l2 *f = *state;
    static const char *const names[] = {"shard_7.jsonl",          "shard_00000001.jsonl.bak",
                                        "shard_4294967295.jsonl", "shard_+0000003.jsonl",
                                        "shard_ 0000004.jsonl",   "notes.txt",
                                        "shard_00000000.jsonl"};
    ptier_box_put(f, "a", 1, 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[PTIER_TEST_SHARD_PATH];
        (void)snprintf(path, sizeof path, "%s/%s", f->directory, names[i]);
        ptier_test_file_write(path, "rubbish\n", 8);
    }
    for (uint64_t revision = 2; revision < 4; revision++) {
        ptier_box_reopen(f);
        assert_int_equal(f->found.damaged, 0);
        assert_int_equal(ptier_box_get_many(f, 2, 3), revision - 2);
        ptier_box_put_many(f, revision, revision);
    }
    assert_int_equal(ptier_box_get(f, "a", 1), PTIER_OK);
}

static void
l2_lines_of_another_key_are_unverified_and_left_alone(void **state)
{
    ptier_test_l2 *f = *state;
    char path[PTIER_TEST_SHARD_PATH];
    size_t before, after;
    ptier_box_put(f, "a", 1, 0);
    ptier_box_put_many(f, 2, 20);
    ptier_box_close(f);
    f->options.shard_bytes = 4096;
    ptier_box_shard_path(f, 1, path);
    free(ptier_test_file_read(path, &before));
    ptier_box_truncate(f, 1, before -= 10); /* a torn end, too */
    ptier_box_use_keys(f, BOX_OTHER_KEY, NULL);
    ptier_box_reopen(f);
    assert_true(f->found.unverified);
    assert_int_equal(ptier_box_get(f, "a", 1), PTIER_NOT_FOUND);
    ptier_box_compact(f);
    ptier_box_close(f);
    free(ptier_test_file_read(path, &after));
    assert_int_equal(after, before);
    assert_int_equal(ptier_box_shard_files(f), 1);
    ptier_box_reopen(f);
    ptier_box_put(f, "c", 30, 0); /* all the same: not behind the torn line */
    ptier_box_compact(f);
    assert_int_equal(ptier_box_shard_files(f), 2);
    ptier_box_close(f);
    ptier_box_use_keys(f, BOX_KEY, BOX_OTHER_KEY);
    ptier_box_reopen(f);
    assert_false(f->found.unverified);
    assert_int_equal(ptier_box_get(f, "a", 1), PTIER_OK);
    assert_int_equal(ptier_box_get(f, "c", 30), PTIER_OK);
}

static void
l2_changes_do_not_go_behind_lines_of_another_key(void **state)
{
    ptier_test_l2 *f = *state;
    ptier_box_put(f, "a", 1, 0);
    ptier_box_close(f);
    ptier_box_use_keys(f, BOX_OTHER_KEY, NULL);
    ptier_box_reopen(f);
    off_t before = ptier_box_shard_size(f, 1);
    ptier_box_put(f, "b", 2, 0);
    assert_int_equal(ptier_box_shard_size(f, 1), before);
    assert_int_equal(ptier_box_last_shard(f), 2);
}

/* ---- anything ---- */

static void
write_garbage(ptier_test_l2 *f, unsigned number, size_t start, uint64_t *seed)
{
    char path[PTIER_TEST_SHARD_PATH];
    size_t length, count = ptier_test_random(seed, 2000);
    ptier_box_shard_path(f, number, path);
    char *data = ptier_test_file_read(path, &length);
    for (size_t i = start; i < length && i < start + count; i++)
        data[i] = (char)ptier_test_random(seed, 256);
    ptier_test_file_write(path, data, length);
    free(data);
}

static void
harm(ptier_test_l2 *f, uint64_t *seed)
{
    unsigned number = 1 + (unsigned)ptier_test_random(seed, BOX_SHARDS);
    unsigned other = 1 + (unsigned)ptier_test_random(seed, BOX_SHARDS);
    char path[PTIER_TEST_SHARD_PATH];
    struct stat info;
    ptier_box_shard_path(f, number, path);
    if (stat(path, &info) || info.st_size == 0)
        return;
    size_t offset = ptier_test_random(seed, (uint64_t)info.st_size);
    switch (ptier_test_random(seed, 6)) {
    case 0:
    case 1:
        ptier_box_flip(f, number, offset);
        break;
    case 2:
        ptier_box_truncate(f, number, offset);
        break;
    case 3:
        write_garbage(f, number, offset, seed);
        break;
    case 4:
        ptier_box_remove_shard(f, number);
        break;
    default:
        ptier_box_copy_shard(f, number, other);
    }
}

/* What was lost is no secret: open counts it, or the last shard ends earlier than it did. */
static void
check_what_was_found(ptier_test_l2 *f, uint64_t last, uint64_t bytes)
{
    const ptier_l2_found *found = &f->found;
    bool shorter = found->last_shard != BOX_SHARDS || found->last_shard_bytes != bytes;
    uint64_t there = ptier_box_get_many(f, 1, last); /* compares what it gets */
    assert_true(there == last || shorter || found->damaged);
    if (found->damaged && !shorter && found->damaged_to < last)
        assert_int_equal(ptier_box_get_many(f, found->damaged_to + 1, last),
                         last - found->damaged_to);
    ptier_box_put_many(f, last + 100, last + 110);
    ptier_box_compact(f);
    assert_int_equal(ptier_box_get_many(f, 1, last), there);
    ptier_box_reopen(f);
    assert_int_equal(f->found.damaged, 0);
    assert_int_equal(ptier_box_get_many(f, 1, last), there);
    assert_int_equal(ptier_box_get_many(f, last + 100, last + 110), 11);
}

static void
l2_random_damage_never_gives_a_wrong_value_and_shows(void **state)
{
    ptier_test_l2 *f = *state;
    uint64_t last_in[BOX_SHARDS + 1], seed = 77;
    const uint64_t last = ptier_box_fill_shards(f, last_in);
    char whole[PTIER_TEST_PATH];
    ptier_box_reopen(f);
    const uint64_t bytes = f->found.last_shard_bytes;
    ptier_box_close(f);
    ptier_test_dir_make(whole);
    ptier_test_dir_copy(f->directory, whole);
    for (int round = 0; round < 300; round++) {
        ptier_test_dir_remove(f->directory);
        ptier_test_dir_copy(whole, f->directory);
        for (uint64_t i = 1 + ptier_test_random(&seed, 3); i; i--)
            harm(f, &seed);
        ptier_box_reopen(f);
        check_what_was_found(f, last, bytes);
        ptier_box_close(f);
    }
    ptier_test_dir_remove(whole);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_L2(l2_recovery_drops_a_torn_last_line_and_goes_on),
        WITH_L2(l2_torn_header_is_written_again),
        WITH_L2(l2_flipped_bits_cost_only_their_own_record),
        WITH_L2(l2_bit_flipped_while_open_is_a_loss_and_then_a_miss),
        WITH_L2(l2_tells_the_key_of_a_lost_record_while_it_is_legible),
        WITH_L2(l2_compaction_drops_and_counts_what_it_cannot_copy),
        WITH_L2(l2_survives_a_shard_of_garbage),
        WITH_L2(l2_ignores_files_that_are_no_shards),
        WITH_L2(l2_lines_of_another_key_are_unverified_and_left_alone),
        WITH_L2(l2_changes_do_not_go_behind_lines_of_another_key),
        WITH_L2(l2_random_damage_never_gives_a_wrong_value_and_shows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
