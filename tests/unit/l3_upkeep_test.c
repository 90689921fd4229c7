/* Giving space back; encrypting anew. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "unit/l3_box.h"

/* ---- space ---- */

static uint64_t
file_bytes(const char *path)
{
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    return (uint64_t)info.st_size;
}

static void
remove_all_but_every(l3_box *f, unsigned nth, unsigned count)
{
    enum { batch = 1000 };
    ptier_op *ops = calloc(batch, sizeof *ops);
    size_t n = 0;
    for (unsigned i = 1; i <= count; i++) {
        char key[24];
        (void)snprintf(key, sizeof key, "key-%u", i);
        if (i % nth)
            ops[n++] = box_remove_op(f, key, box_hash(i), count + i);
        if (n == batch || i == count) {
            box_apply(f, ops, n);
            n = 0;
        }
    }
    free(ops);
}

static void
l3_file_shrinks_when_most_of_it_was_deleted(void **state)
{
    l3_box *f = *state;
    enum { count = 50000 };
    bool more = true;
    box_fill(f, count, 1);
    assert_int_equal(ptier_l3_checkpoint(f->tier, true, &f->error), PTIER_OK);
    uint64_t full = file_bytes(f->path);
    remove_all_but_every(f, 10, count);
    int steps = 0;
    for (; more && steps < 1000; steps++)
        assert_int_equal(ptier_l3_shrink(f->tier, &more, &f->error), PTIER_OK);
    assert_true(steps > 3 && steps < 1000);
    assert_int_equal(ptier_l3_checkpoint(f->tier, true, &f->error), PTIER_OK);
    /* What is left is spread over pages that are a third full. */
    assert_true(file_bytes(f->path) < full * 4 / 10);
    assert_true(f->tier->ops->bytes(f->tier) < full * 4 / 10);
    assert_int_equal(box_scan(f).rows, count / 10);
    assert_int_equal(box_condition(f), PTIER_L3_SOUND);
    box_reopen(f);
    assert_int_equal(box_scan(f).rows, count / 10);
    assert_int_equal(box_stored(f, "key-50000", box_hash(50000)), 50000);
}

static void
l3_file_with_little_to_give_is_left_alone(void **state)
{
    l3_box *f = *state;
    bool more = true;
    box_fill(f, 5000, 1);
    assert_int_equal(ptier_l3_checkpoint(f->tier, true, &f->error), PTIER_OK);
    remove_all_but_every(f, 10, 2000);
    assert_int_equal(ptier_l3_checkpoint(f->tier, true, &f->error), PTIER_OK);
    int64_t unused = 0;
    assert_int_equal(
        ptier_l3_query(ptier_l3_of(f->tier)->writer.db, "PRAGMA freelist_count", &unused, NULL, 0),
        SQLITE_OK);
    assert_true(unused > 50);
    uint64_t before = file_bytes(f->path);
    assert_int_equal(ptier_l3_shrink(f->tier, &more, &f->error), PTIER_OK);
    assert_false(more);
    assert_int_equal(ptier_l3_checkpoint(f->tier, true, &f->error), PTIER_OK);
    assert_int_equal(file_bytes(f->path), before);
}

/* ---- keys ---- */

static uint64_t
reencrypt_all(l3_box *f, size_t limit)
{
    uint64_t cursor = 0, rewritten, total = 0;
    int calls = 0;
    do {
        assert_int_equal(ptier_l3_reencrypt(f->tier, &cursor, limit, &rewritten, &f->error),
                         PTIER_OK);
        assert_true(rewritten <= limit && calls++ < 1000);
        total += rewritten;
    } while (cursor);
    return total;
}

static void
assert_records(l3_box *f, unsigned count)
{
    for (unsigned i = 1; i <= count; i++) {
        char key[24];
        (void)snprintf(key, sizeof key, "key-%u", i);
        ptier_ref ref = {.hash = box_hash(i), .revision = i, .key = key};
        ptier_entry *entry;
        assert_int_equal(f->tier->ops->get(f->tier, &ref, &entry), PTIER_OK);
        box_assert_as_put(f, entry, i);
        assert_int_equal(atomic_load(&entry->access_count), i == 7 ? 70 : 0);
        ptier_entry_release(entry);
    }
}

static void
fill_with_usage(l3_box *f, unsigned count)
{
    ptier_usage usage = {.hash = box_hash(7), .revision = 7, .access_count = 70};
    box_fill(f, count, 1);
    assert_int_equal(f->tier->ops->write_usage(f->tier, &usage, 1, &f->error), PTIER_OK);
    box_close(f);
}

static void
l3_encrypted_anew_needs_the_older_key_no_more(void **state)
{
    l3_box *f = *state;
    fill_with_usage(f, 100);
    box_use_keys(f, BOX_OTHER_KEY, BOX_KEY);
    box_open(f);
    assert_int_equal(reencrypt_all(f, 7), 100);
    assert_int_equal(reencrypt_all(f, 7), 0);
    assert_int_equal(box_scan(f).rows, 100);
    assert_int_equal(box_condition(f), PTIER_L3_SOUND);
    box_close(f);
    box_use_keys(f, BOX_KEY, NULL);
    assert_int_equal(box_try_open(f), PTIER_FAILED_PRECONDITION);
    box_use_keys(f, BOX_OTHER_KEY, NULL);
    box_open(f);
    assert_int_equal(box_condition(f), PTIER_L3_SOUND);
    assert_int_equal(ptier_l3_prefix(f->tier), 100);
    assert_records(f, 100);
    assert_int_equal(box_scan(f).rows, 100);
    assert_int_equal(box_condition(f), PTIER_L3_SOUND);
    assert_int_equal(ptier_l3_damaged(f->tier), 0);
}

static void
l3_copied_has_everything_but_its_free_space(void **state)
{
    l3_box *f = *state;
    uint64_t before;
    fill_with_usage(f, 1000);
    box_open(f);
    before = file_bytes(f->path);
    for (unsigned i = 101; i <= 1000; i++) {
        char key[24];
        (void)snprintf(key, sizeof key, "key-%u", i);
        box_apply_one(f, box_remove_op(f, key, box_hash(i), 900 + i));
    }
    assert_int_equal(ptier_l3_rewrite(f->tier, &f->error), PTIER_OK);
    assert_true(file_bytes(f->path) < before / 4);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(box_condition(f), PTIER_L3_SOUND);
        assert_int_equal(ptier_l3_prefix(f->tier), 1900);
        assert_records(f, 100);
        assert_int_equal(box_scan(f).rows, 100);
        box_close(f);
        box_open(f);
    }
    box_apply_one(f, box_put_op(f, "key-1", box_hash(1), 1901)); /* it goes on */
    assert_int_equal(ptier_l3_prefix(f->tier), 1901);
}

static void
l3_encrypting_anew_can_be_cut_short_at_any_row(void **state)
{
    l3_box *f = *state;
    uint64_t cursor = 0, rewritten;
    fill_with_usage(f, 20);
    box_use_keys(f, BOX_OTHER_KEY, BOX_KEY);
    for (int i = 0; i < 19; i++) {
        box_open(f);
        assert_int_equal(ptier_l3_reencrypt(f->tier, &cursor, 1, &rewritten, &f->error), PTIER_OK);
        assert_int_equal(rewritten, 1);
        assert_int_not_equal(cursor, 0);
        assert_records(f, 20);
        box_close(f);
    }
    box_use_keys(f, BOX_OTHER_KEY, NULL);
    assert_int_equal(box_try_open(f), PTIER_FAILED_PRECONDITION);
    box_use_keys(f, BOX_OTHER_KEY, BOX_KEY);
    box_open(f);
    assert_int_equal(reencrypt_all(f, 1000), 1); /* from the start; the others need nothing */
    box_close(f);
    box_use_keys(f, BOX_OTHER_KEY, NULL);
    box_open(f);
    assert_records(f, 20);
}

static void
l3_encrypting_anew_leaves_damaged_rows_and_goes_on(void **state)
{
    l3_box *f = *state;
    fill_with_usage(f, 20);
    box_meddle(f, "UPDATE entries SET ttl = 1 WHERE key = 'key-5';"
                  "UPDATE entries SET username = 'x' WHERE key = 'key-6';"
                  "UPDATE usage SET accesses = 1");
    box_use_keys(f, BOX_OTHER_KEY, BOX_KEY);
    box_open(f);
    assert_int_equal(reencrypt_all(f, 3), 18);
    assert_int_equal(box_get_status(f, "key-5", box_hash(5), 5), PTIER_DATA_LOSS);
    assert_int_equal(box_get_status(f, "key-6", box_hash(6), 6), PTIER_DATA_LOSS);
    assert_int_equal(box_get_status(f, "key-7", box_hash(7), 7), PTIER_OK);
}

static void
l3_encrypting_anew_takes_tokens_of_an_older_key_under_a_new_check_too(void **state)
{
    l3_box *f = *state;
    box_close(f);
    ptier_op op = box_put_op(f, "key-1", box_hash(1), 1); /* sealed by the older key */
    box_use_keys(f, BOX_OTHER_KEY, BOX_KEY);
    box_open(f);
    box_apply_one(f, op); /* checked by the newer one */
    assert_int_equal(reencrypt_all(f, 10), 1);
    box_close(f);
    box_use_keys(f, BOX_OTHER_KEY, NULL);
    box_open(f);
    assert_records(f, 1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        BOX_FACT(l3_file_shrinks_when_most_of_it_was_deleted),
        BOX_FACT(l3_file_with_little_to_give_is_left_alone),
        BOX_FACT(l3_encrypted_anew_needs_the_older_key_no_more),
        BOX_FACT(l3_copied_has_everything_but_its_free_space),
        BOX_FACT(l3_encrypting_anew_can_be_cut_short_at_any_row),
        BOX_FACT(l3_encrypting_anew_leaves_damaged_rows_and_goes_on),
        BOX_FACT(l3_encrypting_anew_takes_tokens_of_an_older_key_under_a_new_check_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
