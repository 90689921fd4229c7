/* Scans in pieces while the writer goes on, and look-ups by hash. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "unit/l3_box.h"

static ptier_status
scan_some(l3_box *f, ptier_l3_scan_state *scan, size_t limit, box_seen *seen)
{
    return ptier_l3_scan_some(f->tier, scan, limit, box_on_item, seen, &f->error);
}

static void
finish_scan(l3_box *f, ptier_l3_scan_state *scan, size_t limit, box_seen *seen)
{
    for (int calls = 0; !scan->done; calls++) {
        assert_true(calls < 100000);
        assert_int_equal(scan_some(f, scan, limit, seen), PTIER_OK);
    }
}

static void
l3_scan_in_pieces_shows_every_record_once(void **state)
{
    l3_box *f = *state;
    box_fill(f, 100, 1);
    for (size_t limit = 0; limit < 300; limit = 2 * limit + 1) {
        ptier_l3_scan_state scan = {0};
        box_seen seen = {0};
        assert_int_equal(scan_some(f, &scan, limit, &seen), PTIER_OK);
        assert_true(seen.rows <= (limit ? limit : 1));
        finish_scan(f, &scan, limit, &seen);
        assert_int_equal(seen.rows, 100);
        assert_int_equal(seen.revisions, 5050);
        assert_int_equal(scan.rows, 100);
        assert_int_equal(scan.skipped, 0);
        assert_int_equal(scan_some(f, &scan, limit, &seen), PTIER_OK); /* done: no more */
        assert_int_equal(seen.rows, 100);
    }
    assert_int_equal(box_condition(f), PTIER_L3_SOUND);
}

static void
l3_scan_in_pieces_goes_on_where_it_was_stopped(void **state)
{
    l3_box *f = *state;
    box_fill(f, 100, 1);
    ptier_l3_scan_state scan = {0};
    box_seen seen = {.stop_after = 30};
    assert_int_equal(scan_some(f, &scan, 1000, &seen), PTIER_OK);
    assert_int_equal(seen.rows, 30);
    assert_false(scan.done);
    finish_scan(f, &scan, 1000, &seen);
    assert_int_equal(seen.rows, 100);
    assert_int_equal(box_condition(f), PTIER_L3_SOUND);
}

/* ---- with a writer ---- */

typedef struct writing {
    l3_box *f;
    uint64_t seed, revision;
    unsigned keys;
    _Atomic bool stop;
} writing;

/* One change, or a failed one, or an eviction, as the dice fall. */
static void
write_something(writing *w)
{
    l3_box *f = w->f;
    char key[24];
    unsigned number = 1 + (unsigned)box_random(&w->seed, w->keys);
    uint64_t hash = number % 10 ? box_hash(number) : 77; /* some share one */
    ptier_op ops[2];
    (void)snprintf(key, sizeof key, "key-%u", number);
    uint64_t dice = box_random(&w->seed, 100);
    if (dice < 2) {
        ops[0] = box_clear_op(w->revision + 1 - (dice ? box_random(&w->seed, w->revision) : 0));
        ops[1] = box_put_op(f, key, hash, ++w->revision + 1);
        w->revision++;
        box_apply(f, ops, 2);
    } else if (dice < 12) {
        uint64_t revision = box_stored(f, key, hash);
        if (revision)
            f->tier->ops->drop(f->tier, hash, revision);
    } else if (dice < 20) { /* undone half-way */
        ops[0] = box_remove_op(f, "key-1", box_hash(1), w->revision + 1);
        ops[1] = box_too_long_op(f, key, UINT64_MAX, w->revision + 2);
        assert_int_equal(box_try_apply(f, ops, 2, false), PTIER_OUT_OF_RANGE);
    } else {
        w->revision++;
        box_apply_one(f, dice < 45 ? box_remove_op(f, key, hash, w->revision)
                                   : box_put_op(f, key, hash, w->revision));
    }
}

static void
l3_scan_in_pieces_accounts_for_what_is_written_meanwhile(void **state)
{
    l3_box *f = *state;
    writing w = {.f = f, .seed = 7, .revision = 200, .keys = 120};
    for (int round = 0; round < 60; round++) {
        ptier_l3_scan_state scan = {0};
        box_seen seen = {0};
        for (int calls = 0; !scan.done; calls++) {
            assert_true(calls < 10000);
            assert_int_equal(scan_some(f, &scan, 1 + box_random(&w.seed, 20), &seen), PTIER_OK);
            assert_int_equal(box_condition(f), PTIER_L3_SOUND);
            for (uint64_t n = box_random(&w.seed, 6); n > 0; n--)
                write_something(&w);
        }
        assert_int_equal(box_condition(f), PTIER_L3_SOUND);
    }
    assert_int_equal(box_scan(f).rows, box_count(f));
    assert_int_equal(box_condition(f), PTIER_L3_SOUND);
}

static void *
keep_writing(void *context)
{
    writing *w = context;
    while (!atomic_load(&w->stop))
        write_something(w);
    return NULL;
}

static void
l3_scan_in_pieces_on_another_thread_than_the_writer_is_right(void **state)
{
    l3_box *f = *state;
    writing w = {.f = f, .seed = 8, .revision = 2000, .keys = 1000};
    box_fill(f, 1000, 1);
    pthread_t writer;
    assert_int_equal(pthread_create(&writer, NULL, keep_writing, &w), 0);
    ptier_error error;
    for (int round = 0; round < 10; round++) {
        ptier_l3_scan_state scan = {0};
        box_seen seen = {0};
        for (int calls = 0; !scan.done && calls < 10000; calls++)
            if (ptier_l3_scan_some(f->tier, &scan, 50, box_on_item, &seen, &error))
                break;
        if (!scan.done)
            break;
    }
    atomic_store(&w.stop, true);
    assert_int_equal(pthread_join(writer, NULL), 0);
    assert_int_equal(box_condition(f), PTIER_L3_SOUND);
    ptier_l3_scan_state last = {0};
    finish_scan(f, &last, 1000, &(box_seen){0});
    assert_int_equal(last.rows, box_count(f));
    assert_int_equal(box_condition(f), PTIER_L3_SOUND);
}

static void
l3_scan_in_pieces_notices_rows_that_vanish_meanwhile(void **state)
{
    l3_box *f = *state;
    static const char *const damages[] = {"DELETE FROM entries WHERE id = 90",
                                          "UPDATE entries SET revision = 1 WHERE id = 90"};
    for (int i = 0; i < 2; i++) {
        ptier_l3_scan_state scan = {0};
        box_seen seen = {0};
        box_fill(f, 100, 1 + 1000 * (unsigned)i);
        assert_int_equal(scan_some(f, &scan, 50, &seen), PTIER_OK);
        box_meddle(f, damages[i]);
        box_apply_one(f, box_put_op(f, "new", 1, 500 + 1000 * (unsigned)i));
        finish_scan(f, &scan, 50, &seen);
        assert_int_equal(box_condition(f), PTIER_L3_DAMAGED);
        box_close(f);
        ptier_l3_remove_companions(f->path);
        assert_int_equal(remove(f->path), 0);
        box_open(f);
    }
}

static void
l3_scan_that_is_overtaken_ends_and_says_so(void **state)
{
    l3_box *f = *state;
    box_fill(f, 100, 1);
    ptier_l3_scan_state first = {0}, second = {0};
    box_seen seen = {0};
    assert_int_equal(scan_some(f, &first, 10, &seen), PTIER_OK);
    assert_int_equal(scan_some(f, &second, 10, &seen), PTIER_OK);
    assert_int_equal(scan_some(f, &first, 10, &seen), PTIER_ABORTED);
    assert_int_equal(scan_some(f, &second, 10, &seen), PTIER_OK);
    assert_int_equal(ptier_l3_reopen(f->tier, &f->error), PTIER_OK);
    assert_int_equal(scan_some(f, &second, 10, &seen), PTIER_ABORTED);
    ptier_l3_scan_state third = {0};
    finish_scan(f, &third, 10, &seen);
    assert_int_equal(third.rows, 100);
}

static void
l3_scan_notices_two_rows_of_one_key(void **state)
{
    l3_box *f = *state;
    ptier_op ops[] = {box_put_op(f, "a", 1, 1), box_put_op(f, "b", 1, 2)};
    box_apply(f, ops, 2);
    assert_int_equal(box_scan(f).rows, 2);
    assert_int_equal(box_condition(f), PTIER_L3_SOUND); /* one hash is no damage */
    box_meddle(f, "UPDATE entries SET key = 'a'");
    assert_int_equal(box_scan(f).rows, 2);
    assert_int_equal(box_condition(f), PTIER_L3_DAMAGED);
}

/* ---- look-ups by hash ---- */

static bool
note_key(void *context, const ptier_scan_item *item)
{
    char *keys = context;
    strcat(keys, item->key);
    return strlen(keys) < 4;
}

static void
l3_find_hash_shows_every_row_of_the_hash(void **state)
{
    l3_box *f = *state;
    ptier_op ops[] = {box_put_op(f, "a", 1, 1), box_put_op(f, "b", 1, 2), box_put_op(f, "c", 2, 3)};
    box_apply(f, ops, 3);
    char keys[16] = "";
    assert_int_equal(ptier_l3_find_hash(f->tier, 1, note_key, keys), PTIER_OK);
    assert_int_equal(strlen(keys), 2);
    assert_true(strchr(keys, 'a') && strchr(keys, 'b'));
    box_seen seen = {0};
    assert_int_equal(ptier_l3_find_hash(f->tier, 2, box_on_item, &seen), PTIER_OK);
    assert_int_equal(seen.rows, 1);
    assert_int_equal(seen.hashes, 2);
    assert_int_equal(seen.revisions, 3);
    assert_int_equal(ptier_l3_find_hash(f->tier, 3, box_on_item, &seen), PTIER_OK);
    assert_int_equal(seen.rows, 1);
    strcpy(keys, "123");
    assert_int_equal(ptier_l3_find_hash(f->tier, 1, note_key, keys), PTIER_OK); /* stops */
    assert_int_equal(strlen(keys), 4);
}

static uint64_t
hash_by_length(const char *key)
{
    return strlen(key);
}

static void
l3_peek_gives_the_key_of_a_damaged_record_if_that_is_whole(void **state)
{
    l3_box *f = *state;
    char key[PTIER_KEY_MAX + 1];
    box_close(f);
    f->hash_key = hash_by_length;
    box_open(f);
    ptier_op ops[] = {box_put_op(f, "abc", 3, 1), box_put_op(f, "xyz", 3, 2)};
    box_apply(f, ops, 2);
    box_meddle(f, "UPDATE entries SET url = 'http://10.0.0.1:9' WHERE revision = 2");
    assert_int_equal(box_get_status(f, NULL, 3, 2), PTIER_DATA_LOSS);
    assert_true(ptier_l3_peek_key(f->tier, 3, 2, key));
    assert_string_equal(key, "xyz");
    box_meddle(f, "UPDATE entries SET revision = 5 WHERE revision = 2"); /* that, too */
    assert_true(ptier_l3_peek_key(f->tier, 3, 2, key));
    assert_string_equal(key, "xyz");
    box_meddle(f, "UPDATE entries SET key = 'wxyz' WHERE revision = 5");
    assert_false(ptier_l3_peek_key(f->tier, 3, 2, key));
    assert_false(ptier_l3_peek_key(f->tier, 4, 2, key));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        BOX_FACT(l3_scan_in_pieces_shows_every_record_once),
        BOX_FACT(l3_scan_in_pieces_goes_on_where_it_was_stopped),
        BOX_FACT(l3_scan_in_pieces_accounts_for_what_is_written_meanwhile),
        BOX_FACT(l3_scan_in_pieces_on_another_thread_than_the_writer_is_right),
        BOX_FACT(l3_scan_in_pieces_notices_rows_that_vanish_meanwhile),
        BOX_FACT(l3_scan_that_is_overtaken_ends_and_says_so),
        BOX_FACT(l3_scan_notices_two_rows_of_one_key),
        BOX_FACT(l3_find_hash_shows_every_row_of_the_hash),
        BOX_FACT(l3_peek_gives_the_key_of_a_damaged_record_if_that_is_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
