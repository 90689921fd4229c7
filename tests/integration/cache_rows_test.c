/*
 * L3 looks for no row of a new key while the index knows all rows. Here it does not, though nothing
 * looks wrong: L3 has one row of each key all the same.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "l3/l3_internal.h"
#include "support/cache_box.h"
#include "support/io_shim.h"
#include "support/sample_entry.h"

enum { ENTRIES = 20 };

static ptier_test_box box;
static sqlite3 *l3_lock;
static char path[PTIER_TEST_PATH + 32];

static int
set_up(void **state)
{
    (void)state;
    ptier_test_box_init(&box, BOX_L1 | BOX_L3);
    ptier_io_watch(box.directory);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    ptier_io_heal();
    sqlite3_close(l3_lock);
    l3_lock = NULL;
    ptier_test_box_close(&box);
    ptier_io_unwatch();
    ptier_test_box_fini(&box);
    return 0;
}

static const char *
below(const char *name)
{
    (void)snprintf(path, sizeof path, "%s/%s", box.directory, name);
    return path;
}

static void
assert_rows(uint64_t count)
{
    BOX_AWAIT(ptier_test_box_statistics(&box).l3_lag == 0);
    assert_int_equal(ptier_test_box_entries(&box), count);
    assert_int_equal(ptier_test_box_statistics(&box).tiers[PTIER_TIER_L3].entries, count);
}

/* ---- rows beyond the prefix ---- */

/* As after a kill: the row was put into a database made anew, which its prefix does not say. */
static void
make_l3_with_a_row_beyond_its_prefix(const char *key, uint64_t revision)
{
    char adopted[sizeof path];
    const ptier_l3_options options = {
        .keyring = box.cache->keyring, .clock = &box.cache->clock, .path = below("l3.sqlite.new")};
    ptier_l3_builder *builder = NULL;
    ptier_entry *entry = ptier_test_entry(key, box.cache->hash_key(key), revision);
    const ptier_op op = {.kind = PTIER_OP_PUT, .revision = revision, .entry = entry};
    assert_int_equal(ptier_l3_builder_create(path, &options, &builder, &box.error), PTIER_OK);
    assert_int_equal(ptier_l3_builder_add(builder, &op, 1, &box.error), PTIER_OK);
    assert_int_equal(ptier_l3_builder_finish(builder, 1, &box.error), PTIER_OK);
    ptier_entry_release(entry);
    (void)snprintf(adopted, sizeof adopted, "%s/l3.sqlite.adopt", box.directory);
    assert_int_equal(rename(path, adopted), 0);
}

static void
a_row_beyond_the_prefix_is_there_at_once_and_not_only_later(void **state)
{
    (void)state;
    ptier_test_box_open(&box);
    make_l3_with_a_row_beyond_its_prefix("p1", ptier_test_box_put(&box, 1));
    ptier_test_box_reopen(&box);
    assert_true(ptier_test_box_has(&box, 1));
    (void)ptier_test_box_put(&box, 2);
    assert_true(ptier_test_box_delete(&box, 1));
    ptier_test_box_reopen(&box);
    assert_false(ptier_test_box_has(&box, 1));
    assert_rows(1);
}

/* No revision has been that high. */
static void
a_row_that_the_start_left_out_is_found_by_its_put(void **state)
{
    (void)state;
    ptier_test_box_open(&box);
    make_l3_with_a_row_beyond_its_prefix("p1", 2 * REVISION_BLOCK);
    ptier_test_box_reopen(&box);
    assert_false(ptier_test_box_has(&box, 1));
    (void)ptier_test_box_put(&box, 1);
    assert_rows(1);
}

/* ---- a row that is lost while the index is read ---- */

/* Nothing can be changed meanwhile: not even by what removes a lost record. */
static void
lose_without_room(int number)
{
    pthread_mutex_lock(&box.cache->lock);
    uint64_t reserved = box.cache->state.reserved;
    box.cache->state.reserved = box.cache->assigned + 1;
    pthread_mutex_unlock(&box.cache->lock);
    assert_false(ptier_test_box_has(&box, number));
    pthread_mutex_lock(&box.cache->lock);
    box.cache->state.reserved = reserved;
    assert_true(box.cache->indexing);
    pthread_mutex_unlock(&box.cache->lock);
}

static void
a_row_that_was_lost_while_the_index_was_read_is_found_by_its_put(void **state)
{
    (void)state;
    ptier_test_box_open(&box);
    for (int i = 0; i < ENTRIES; i++)
        (void)ptier_test_box_put(&box, i);
    ptier_test_box_close(&box);
    ptier_test_box_damage(&box, "l3.sqlite", "http://10.0.0.2:");
    box.hooks.quick_start_rows = box.hooks.indexing_rows = 1;
    box.hooks.indexing_pause_us = 20000;
    ptier_test_box_open(&box);
    lose_without_room(2);
    assert_int_equal(ptier_cache_wait_started(box.cache, 20000), PTIER_OK);
    (void)ptier_test_box_put(&box, 2);
    assert_rows(ENTRIES);
}

/* ---- another key's entry that was taken for what is hidden ---- */

static uint64_t
one_hash(const char *key)
{
    (void)key;
    return UINT64_C(0xc0111de);
}

/* So that it has to be read from the disk. */
static void
forget_pages(void)
{
    ptier_l3 *l3 = ptier_l3_of(box.cache->tiers[PTIER_TIER_L3]);
    ptier_l3_readers_lock(l3);
    for (int i = 0; i < PTIER_L3_READERS; i++)
        (void)sqlite3_db_release_memory(l3->readers[i].db);
    ptier_l3_readers_unlock(l3);
}

static void
a_row_that_was_taken_for_another_keys_is_found_by_its_put(void **state)
{
    (void)state;
    const ptier_io_fault fault = {
        .kinds = PTIER_IO_READ, .pattern = "l3.sqlite*", .nth = 1, .lasting = true, .error = EIO};
    const ptier_put_options fast = {.durability = PTIER_DURABILITY_MEMORY};
    char key[16], url[40];
    ptier_record record;
    box.hooks.hash_key = one_hash;
    ptier_test_box_open(&box);
    (void)ptier_test_box_put(&box, 1);
    ptier_test_box_reopen(&box);
    assert_int_equal(sqlite3_open(below("l3.sqlite"), &l3_lock), SQLITE_OK);
    assert_int_equal(sqlite3_exec(l3_lock, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    forget_pages();
    ptier_io_fail(&fault);
    ptier_test_box_record(&record, 2, key, url);
    assert_int_equal(ptier_test_box_put_record(&box, &record, &fast).outcome, PTIER_PUT_UPDATED);
    ptier_io_heal();
    assert_int_equal(sqlite3_exec(l3_lock, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    (void)ptier_test_box_put(&box, 1);
    assert_rows(2);
}

static uint64_t
indexed(void)
{
    pthread_mutex_lock(&box.cache->lock);
    uint64_t count = ptier_index_count(box.cache->index);
    pthread_mutex_unlock(&box.cache->lock);
    return count;
}

/* Of three rows the first is known when the others, of the same hash, cannot be read for once. */
static void
rows_that_could_not_be_read_with_anothers_are_found_by_their_puts(void **state)
{
    (void)state;
    const ptier_io_fault fault = {
        .kinds = PTIER_IO_READ, .pattern = "l3.sqlite*", .nth = 1, .error = EIO};
    box.hooks.hash_key = one_hash;
    ptier_test_box_open(&box);
    for (int i = 1; i <= 3; i++)
        (void)ptier_test_box_put(&box, i);
    box.hooks.quick_start_rows = box.hooks.indexing_rows = 1;
    box.hooks.indexing_pause_us = 100000;
    ptier_test_box_reopen(&box);
    BOX_AWAIT(indexed() > 0);
    assert_int_equal(indexed(), 1);
    forget_pages();
    ptier_io_fail(&fault);
    (void)ptier_test_box_put(&box, 1);
    assert_int_equal(ptier_io_failed(), 1);
    ptier_io_heal();
    assert_int_equal(ptier_cache_wait_started(box.cache, 20000), PTIER_OK);
    for (int i = 1; i <= 3; i++)
        (void)ptier_test_box_put(&box, i);
    assert_rows(3);
}

#define FACT(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        FACT(a_row_beyond_the_prefix_is_there_at_once_and_not_only_later),
        FACT(a_row_that_the_start_left_out_is_found_by_its_put),
        FACT(a_row_that_was_lost_while_the_index_was_read_is_found_by_its_put),
        FACT(a_row_that_was_taken_for_another_keys_is_found_by_its_put),
        FACT(rows_that_could_not_be_read_with_anothers_are_found_by_their_puts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
