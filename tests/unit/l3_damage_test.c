/* Damage in L3's file: it is opened all the same, read as far as that goes, noticed, not written
 * to; and no value is ever wrong. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "unit/l3_box.h"

#define PAGE 4096

/* ---- one whole file and its damaged copies ---- */

typedef struct image {
    char *bytes;
    size_t length;
} image;

/* The file as it is when L3 has closed it. */
static image
take_image(l3_box *f)
{
    image whole;
    box_close(f);
    whole.bytes = ptier_test_file_read(f->path, &whole.length);
    return whole;
}

static void
put_image(l3_box *f, const char *bytes, size_t length)
{
    box_close(f);
    ptier_l3_remove_companions(f->path);
    ptier_test_file_write(f->path, bytes, length);
}

static void
overwrite(l3_box *f, size_t at, const void *bytes, size_t length)
{
    FILE *file = fopen(f->path, "r+e");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)at, SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

/* The page that has this text. */
static size_t
page_with(const image *whole, const char *text)
{
    const char *at = memmem(whole->bytes, whole->length, text, strlen(text));
    assert_non_null(at);
    return (size_t)(at - whole->bytes) / PAGE;
}

static void
spoil_page(l3_box *f, size_t page)
{
    char garbage[PAGE];
    memset(garbage, 0xa5, sizeof garbage);
    overwrite(f, page * PAGE, garbage, sizeof garbage);
}

typedef struct outcome {
    unsigned good, missing, lost; /* lost: DATA_LOSS */
} outcome;

/* Asks for key-1 to key-<count> by revision; what comes is right. */
static outcome
get_all(l3_box *f, unsigned count)
{
    outcome o = {0};
    for (unsigned i = 1; i <= count; i++) {
        char key[24];
        (void)snprintf(key, sizeof key, "key-%u", i);
        ptier_ref ref = {.hash = box_hash(i), .revision = i, .key = key};
        ptier_entry *entry;
        ptier_status status = f->tier->ops->get(f->tier, &ref, &entry);
        if (status == PTIER_OK) {
            box_assert_as_put(f, entry, i);
            assert_string_equal(ptier_entry_key(entry), key);
        }
        o.good += status == PTIER_OK;
        o.missing += status == PTIER_NOT_FOUND;
        o.lost += status == PTIER_DATA_LOSS;
        ptier_entry_release(entry);
    }
    assert_int_equal(o.good + o.missing + o.lost, count);
    return o;
}

/* ---- whatever happens to the file ---- */

enum { RECORDS = 60 };

typedef struct tally {
    unsigned opened, refused, damaged, records_lost;
} tally;

static void
assert_left_alone(l3_box *f)
{
    size_t before_length, after_length;
    char *before = ptier_test_file_read(f->path, &before_length);
    ptier_op op = box_put_op(f, "new", 1, 1000);
    ptier_usage usage = {.hash = 1, .revision = 1000, .access_count = 1};
    assert_int_equal(box_try_apply(f, &op, 1, true), PTIER_DATA_LOSS);
    assert_int_equal(f->tier->ops->write_usage(f->tier, &usage, 1, &f->error), PTIER_DATA_LOSS);
    assert_int_equal(f->tier->ops->probe(f->tier, &f->error), PTIER_DATA_LOSS);
    assert_int_equal(ptier_l3_checkpoint(f->tier, true, &f->error), PTIER_DATA_LOSS);
    f->tier->ops->drop(f->tier, box_hash(1), 1);
    box_close(f);
    char *after = ptier_test_file_read(f->path, &after_length);
    assert_int_equal(before_length, after_length);
    assert_memory_equal(before, after, after_length);
    free(before);
    free(after);
}

static void
examine(l3_box *f, tally *t)
{
    ptier_status status = box_try_open(f);
    if (status != PTIER_OK) {
        assert_int_equal(status, PTIER_FAILED_PRECONDITION);
        t->refused++;
        return;
    }
    t->opened++;
    uint64_t prefix = ptier_l3_prefix(f->tier);
    assert_true(prefix == RECORDS || (prefix == 0 && box_condition(f) == PTIER_L3_DAMAGED));
    assert_int_equal(box_scan(f).status, PTIER_OK);
    bool sound = box_condition(f) == PTIER_L3_SOUND;
    outcome o = get_all(f, RECORDS);
    if (sound)
        assert_int_equal(o.missing, 0); /* what is gone was noticed */
    t->records_lost += o.missing + o.lost;
    t->damaged += !sound;
    if (box_condition(f) == PTIER_L3_DAMAGED) {
        assert_left_alone(f);
        return;
    }
    ptier_op op = box_put_op(f, "new", 1, 1000);
    status = box_try_apply(f, &op, 1, false); /* may meet the damage only now */
    assert_true(status == PTIER_OK || status == PTIER_DATA_LOSS);
    assert_int_equal(status == PTIER_OK, box_condition(f) == PTIER_L3_SOUND);
    box_close(f);
}

static image
image_of_records(l3_box *f)
{
    box_fill(f, RECORDS, 1);
    ptier_usage usage = {.hash = box_hash(1), .revision = 1};
    assert_int_equal(f->tier->ops->write_usage(f->tier, &usage, 1, &f->error), PTIER_OK);
    return take_image(f);
}

static void
l3_flipped_bits_never_give_a_wrong_value_nor_go_unnoticed(void **state)
{
    l3_box *f = *state;
    tally t = {0};
    uint64_t seed = 42;
    image whole = image_of_records(f);
    for (int round = 0; round < 500; round++) {
        put_image(f, whole.bytes, whole.length);
        box_flip(f->path, (long)box_random(&seed, whole.length), (int)box_random(&seed, 8));
        examine(f, &t);
    }
    assert_int_equal(t.refused, 0);
    assert_true(t.damaged > 20 && t.records_lost > 20); /* it did hit something */
    free(whole.bytes);
}

/* Nobody can name such a row, so it must not be passed over in silence. */
static void
l3_row_that_makes_no_sense_is_damage(void **state)
{
    l3_box *f = *state;
    box_fill(f, RECORDS, 1);
    box_meddle(f, "UPDATE entries SET health = 99 WHERE id = 7");
    box_reopen(f);
    assert_int_equal(box_scan(f).status, PTIER_OK);
    assert_int_not_equal(box_condition(f), PTIER_L3_SOUND);
}

static void
l3_flipped_header_bits_never_keep_it_from_opening(void **state)
{
    l3_box *f = *state;
    tally t = {0};
    image whole = image_of_records(f);
    for (int bit = 0; bit < 108 * 8; bit++) {
        put_image(f, whole.bytes, whole.length);
        box_flip(f->path, bit / 8, bit % 8);
        examine(f, &t);
    }
    assert_int_equal(t.refused, 0);
    free(whole.bytes);
}

static void
l3_garbage_never_gives_a_wrong_value_nor_goes_unnoticed(void **state)
{
    l3_box *f = *state;
    tally t = {0};
    uint64_t seed = 43;
    image whole = image_of_records(f);
    for (int round = 0; round < 200; round++) {
        char garbage[600] = {0};
        size_t length = 1 + box_random(&seed, sizeof garbage);
        for (size_t i = 0; i < length; i++)
            garbage[i] = (char)box_random(&seed, 256);
        put_image(f, whole.bytes, whole.length);
        overwrite(f, box_random(&seed, whole.length - length), garbage, length);
        examine(f, &t);
    }
    assert_true(t.damaged > 70);
    free(whole.bytes);
}

static void
l3_short_files_are_read_as_far_as_they_go(void **state)
{
    l3_box *f = *state;
    tally t = {0};
    uint64_t seed = 44;
    image whole = image_of_records(f);
    for (int round = 0; round < 100; round++) {
        put_image(f, whole.bytes, 1 + box_random(&seed, whole.length - 1));
        examine(f, &t);
    }
    assert_int_equal(t.refused, 0);
    assert_true(t.damaged > 90); /* the last page's end may be of no use */
    put_image(f, whole.bytes, whole.length - PAGE);
    box_open(f);
    assert_int_equal(box_condition(f), PTIER_L3_DAMAGED);
    assert_true(get_all(f, RECORDS).good > RECORDS / 2);
    free(whole.bytes);
}

/* ---- files that are none ---- */

static void
l3_what_is_no_database_is_damaged_and_has_nothing(void **state)
{
    l3_box *f = *state;
    char text[50000];
    memset(text, 'x', sizeof text);
    put_image(f, text, sizeof text);
    box_open(f);
    assert_int_equal(box_condition(f), PTIER_L3_DAMAGED);
    assert_int_equal(ptier_l3_prefix(f->tier), 0);
    assert_int_equal(box_count(f), 0);
    assert_int_equal(box_scan(f).rows, 0);
    assert_int_equal(box_get_status(f, "a", 1, 1), PTIER_DATA_LOSS);
    assert_int_equal(ptier_l3_find_hash(f->tier, 1, box_on_item, &(box_seen){0}), PTIER_DATA_LOSS);
    char key[PTIER_KEY_MAX + 1];
    assert_false(ptier_l3_peek_key(f->tier, 1, 1, key));
    uint64_t hash, revision;
    assert_int_not_equal(f->tier->ops->victim(f->tier, &hash, &revision), PTIER_OK);
    ptier_l3_scan_state scan = {0};
    box_seen seen = {0};
    assert_int_equal(ptier_l3_scan_some(f->tier, &scan, 10, box_on_item, &seen, &f->error),
                     PTIER_OK);
    assert_true(scan.done);
    assert_left_alone(f);
}

/* ---- rows that can be read among such that cannot ---- */

static void
l3_scan_goes_past_pages_that_cannot_be_read(void **state)
{
    l3_box *f = *state;
    enum { count = 3000 };
    box_fill(f, count, 1);
    image whole = take_image(f);
    static const char *const places[] = {"key-1\"", "key-500", "key-501", "key-1777", "key-3000"};
    for (unsigned places_hit = 1; places_hit < 32; places_hit++) {
        put_image(f, whole.bytes, whole.length);
        unsigned hit = 0;
        for (unsigned i = 0; i < 5; i++) {
            if (!(places_hit & 1u << i))
                continue;
            spoil_page(f, i ? page_with(&whole, places[i]) : page_with(&whole, "key-2"));
            hit++;
        }
        box_open(f);
        box_seen seen = box_scan(f);
        assert_int_equal(seen.status, PTIER_OK);
        assert_true(seen.rows < count && seen.rows + 16 * hit >= count);
        assert_int_equal(box_condition(f), PTIER_L3_DAMAGED);
        assert_int_equal(get_all(f, count).good, seen.rows);
    }
    free(whole.bytes);
}

static void
zero_root(l3_box *f, const char *name)
{
    char sql[100];
    int64_t page = 0;
    sqlite3 *db;
    box_close(f);
    (void)snprintf(sql, sizeof sql, "SELECT rootpage FROM sqlite_schema WHERE name = '%s'", name);
    assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
    assert_int_equal(ptier_l3_query(db, sql, &page, NULL, 0), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    spoil_page(f, (size_t)page - 1);
}

static void
l3_rows_are_found_without_the_index(void **state)
{
    l3_box *f = *state;
    enum { count = 2000 };
    box_fill(f, count, 1);
    zero_root(f, "entries_key64");
    box_open(f);
    outcome o = get_all(f, count);
    assert_int_equal(o.good, count);
    assert_int_equal(box_condition(f), PTIER_L3_DAMAGED);
    assert_int_equal(box_scan(f).rows, count);
    box_seen seen = {0};
    assert_int_equal(ptier_l3_find_hash(f->tier, box_hash(7), box_on_item, &seen), PTIER_OK);
    assert_int_equal(seen.rows, 1);
    assert_int_equal(seen.revisions, 7);
}

static void
l3_records_are_read_without_their_usage_figures(void **state)
{
    l3_box *f = *state;
    box_fill(f, 100, 1);
    zero_root(f, "usage");
    box_open(f);
    assert_int_equal(get_all(f, 100).good, 100);
    assert_int_equal(box_condition(f), PTIER_L3_DAMAGED);
}

static void
l3_damaged_name_of_a_source_takes_no_record_along(void **state)
{
    l3_box *f = *state;
    box_fill(f, 50, 1);
    image whole = take_image(f);
    for (size_t at = 0, hits = 0; at + 6 < whole.length; at++) {
        /* The name is nowhere but in the table of sources and in the index on it. */
        if (memcmp(whole.bytes + at, "list-a", 6) != 0)
            continue;
        put_image(f, whole.bytes, whole.length);
        box_flip(f->path, (long)at, 0);
        box_open(f);
        assert_int_equal(get_all(f, 50).good, 50);
        assert_true(++hits <= 2);
    }
    free(whole.bytes);
}

/* ---- rows that are gone, or back ---- */

static void
l3_scan_notices_rows_that_vanished(void **state)
{
    l3_box *f = *state;
    static const char *const damages[] = {
        "DELETE FROM entries WHERE id = 7",
        "DELETE FROM entries",
        "UPDATE entries SET revision = revision - 1 WHERE id = 7",
        "UPDATE entries SET key64 = key64 + 1 WHERE id = 7",
        "INSERT INTO entries SELECT id + 1000, key64, revision, expires_wall, expires_boot,"
        " boot_tag, health, revalidate, failures, source, fetch_time, ttl, integrity, key, url,"
        " username, password, labels FROM entries WHERE id = 7;" /* and one twice for it */
        "DELETE FROM entries WHERE id = 8",
    };
    box_fill(f, 50, 1);
    image whole = take_image(f);
    for (unsigned i = 0; i < sizeof damages / sizeof *damages; i++) {
        put_image(f, whole.bytes, whole.length);
        box_meddle(f, damages[i]);
        box_open(f);
        assert_int_equal(box_condition(f), PTIER_L3_SOUND); /* nothing looks wrong... */
        assert_int_equal(box_scan(f).status, PTIER_OK);
        assert_int_equal(box_condition(f), PTIER_L3_DAMAGED); /* ...until it is counted */
    }
    free(whole.bytes);
}

static void
l3_scan_notices_an_older_page(void **state)
{
    l3_box *f = *state;
    enum { count = 200 };
    box_fill(f, count, 1);
    image older = take_image(f);
    box_open(f);
    for (unsigned i = 1; i <= count; i += 3) {
        char key[24];
        (void)snprintf(key, sizeof key, "key-%u", i);
        box_apply_one(f, i % 2 ? box_put_op(f, key, box_hash(i), count + i)
                               : box_remove_op(f, key, box_hash(i), count + i));
    }
    image newer = take_image(f);
    unsigned noticed = 0;
    for (size_t page = 1; page < older.length / PAGE; page++) {
        if (memcmp(older.bytes + page * PAGE, newer.bytes + page * PAGE, PAGE) == 0)
            continue;
        put_image(f, newer.bytes, newer.length);
        overwrite(f, page * PAGE, older.bytes + page * PAGE, PAGE);
        box_open(f);
        assert_int_equal(box_scan(f).status, PTIER_OK);
        bool damaged = box_condition(f) == PTIER_L3_DAMAGED;
        /* Only of pages that hold neither rows nor what is known of them. */
        bool rows = memmem(older.bytes + page * PAGE, PAGE, "http://", 7) != NULL;
        assert_true(damaged || !rows);
        noticed += damaged;
    }
    assert_true(noticed > 5);
    free(older.bytes);
    free(newer.bytes);
}

static void
l3_scan_notices_an_index_that_lacks_an_entry(void **state)
{
    l3_box *f = *state;
    box_fill(f, 50, 1);
    box_close(f);
    box_meddle(f, "DROP INDEX entries_key64;"
                  "CREATE INDEX entries_key64 ON entries(key64) WHERE key <> 'key-7';"
                  "PRAGMA writable_schema = ON;"
                  "UPDATE sqlite_schema SET sql = 'CREATE INDEX entries_key64 ON entries(key64)'"
                  " WHERE name = 'entries_key64';");
    box_open(f);
    assert_int_equal(box_condition(f), PTIER_L3_SOUND);
    assert_int_equal(box_get_status(f, "key-7", box_hash(7), 7), PTIER_NOT_FOUND);
    assert_int_equal(box_scan(f).rows, 50);
    assert_int_equal(box_condition(f), PTIER_L3_DAMAGED);
    assert_int_equal(box_get_status(f, "key-7", box_hash(7), 7), PTIER_OK);
}

static void
l3_log_that_is_cut_under_it_is_damage(void **state)
{
    l3_box *f = *state;
    box_fill(f, 500, 1);
    assert_int_equal(truncate(ptier_l3_of(f->tier)->wal_path, 32), 0);
    unsigned good = get_all(f, 500).good;
    assert_true(good < 500);
    assert_int_equal(box_condition(f), PTIER_L3_DAMAGED);
    ptier_op op = box_put_op(f, "new", 1, 1000);
    assert_int_equal(box_try_apply(f, &op, 1, false), PTIER_DATA_LOSS);
    assert_int_equal(box_scan(f).status, PTIER_OK);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        BOX_FACT(l3_flipped_bits_never_give_a_wrong_value_nor_go_unnoticed),
        BOX_FACT(l3_row_that_makes_no_sense_is_damage),
        BOX_FACT(l3_flipped_header_bits_never_keep_it_from_opening),
        BOX_FACT(l3_garbage_never_gives_a_wrong_value_nor_goes_unnoticed),
        BOX_FACT(l3_short_files_are_read_as_far_as_they_go),
        BOX_FACT(l3_what_is_no_database_is_damaged_and_has_nothing),
        BOX_FACT(l3_scan_goes_past_pages_that_cannot_be_read),
        BOX_FACT(l3_rows_are_found_without_the_index),
        BOX_FACT(l3_records_are_read_without_their_usage_figures),
        BOX_FACT(l3_damaged_name_of_a_source_takes_no_record_along),
        BOX_FACT(l3_scan_notices_rows_that_vanished),
        BOX_FACT(l3_scan_notices_an_older_page),
        BOX_FACT(l3_scan_notices_an_index_that_lacks_an_entry),
        BOX_FACT(l3_log_that_is_cut_under_it_is_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
