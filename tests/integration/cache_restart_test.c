/* Restarts: content, identity, keys, locks, damage. */
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

#include "support/cache_box.h"

#define KEY       "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="
#define OTHER_KEY "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

static ptier_test_box box;

static int
tear_down(void **state)
{
    (void)state;
    ptier_test_box_fini(&box);
    return 0;
}

static void
put_secret(int number)
{
    ptier_record record;
    char key[16], url[40], password[40];
    ptier_test_box_record(&record, number, key, url);
    (void)snprintf(password, sizeof password, "secret-of-%d", number);
    record.username = "user-plain";
    record.password = password;
    assert_true(ptier_test_box_put_record(&box, &record, NULL).outcome <= PTIER_PUT_UPDATED);
}

static ptier_status
get_secret(int number)
{
    char key[16], password[40];
    ptier_entry *entry;
    ptier_record record;
    (void)snprintf(key, sizeof key, "p%d", number);
    (void)snprintf(password, sizeof password, "secret-of-%d", number);
    ptier_status status = ptier_cache_get(box.cache, key, &entry, NULL);
    if (status)
        return status;
    ptier_cache_read(box.cache, entry, &record, NULL);
    bool right = record.password && strcmp(record.password, password) == 0;
    ptier_entry_release(entry);
    assert_true(right); /* a wrong value is worse than none */
    return PTIER_OK;
}

/* A copy of the files of a running cache is what kill -9 leaves behind. */
static void
copied_while_running_it_has_everything_that_was_acknowledged(void **state)
{
    (void)state;
    ptier_test_box_init(&box, BOX_ALL);
    ptier_test_box_open(&box);
    char copy[PTIER_TEST_PATH];
    ptier_test_dir_make(copy);
    for (int i = 0; i < 300; i++)
        put_secret(i);
    for (int i = 0; i < 300; i += 3)
        ptier_test_box_delete(&box, i);
    ptier_test_dir_copy(box.directory, copy);
    ptier_test_box_close(&box);
    box.options.data_dir = copy;
    ptier_test_box_open(&box);
    for (int i = 0; i < 300; i++)
        assert_int_equal(get_secret(i), i % 3 ? PTIER_OK : PTIER_NOT_FOUND);
    ptier_test_box_close(&box);
    ptier_test_dir_remove(copy);
}

static void
second_opener_of_a_directory_is_refused(void **state)
{
    (void)state;
    ptier_test_box_init(&box, BOX_ALL);
    ptier_test_box_open(&box);
    ptier_cache *second = NULL;
    assert_int_equal(ptier_cache_open(&box.options, &second, &box.error),
                     PTIER_FAILED_PRECONDITION);
    assert_null(second);
    assert_non_null(strstr(box.error.message, "in use by another process"));
    assert_non_null(strstr(box.error.message, box.directory));
    char lock[PTIER_TEST_PATH + 8];
    (void)snprintf(lock, sizeof lock, "%s/lock", box.directory);
    assert_int_equal(unlink(lock), 0); /* by one who took it for stale */
    assert_int_equal(ptier_cache_open(&box.options, &second, &box.error),
                     PTIER_FAILED_PRECONDITION);
    assert_null(second);
    ptier_test_box_put(&box, 1); /* the first one is unharmed */
    ptier_test_box_reopen(&box);
    assert_true(ptier_test_box_has(&box, 1));
}

static void
directory_is_private_and_the_key_file_too(void **state)
{
    (void)state;
    char path[PTIER_TEST_PATH + 40];
    struct stat info;
    ptier_test_box_init(&box, BOX_ALL);
    (void)snprintf(path, sizeof path, "%s/a/b", box.directory);
    box.options.data_dir = path;
    ptier_test_box_open(&box);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    static const char *const names[] = {"key", "state", "lock", "l3.sqlite",
                                        "l2/shard_00000001.jsonl"};
    for (size_t i = 0; i < 5; i++) {
        (void)snprintf(path, sizeof path, "%s/a/b/%s", box.directory, names[i]);
        assert_int_equal(stat(path, &info), 0);
        assert_int_equal(info.st_mode & 077, 0);
    }
}

static void
wrong_key_is_refused_and_destroys_nothing(void **state)
{
    (void)state;
    for (int tiers = BOX_L2; tiers <= BOX_ALL; tiers++) {
        ptier_test_box_init(&box, tiers);
        box.options.encryption_key = KEY;
        ptier_test_box_open(&box);
        for (int i = 0; i < 50; i++)
            put_secret(i);
        ptier_test_box_close(&box);
        box.options.encryption_key = OTHER_KEY;
        assert_int_equal(ptier_cache_open_with(&box.options, &box.hooks, &box.cache, &box.error),
                         PTIER_FAILED_PRECONDITION);
        assert_null(box.cache);
        box.options.encryption_key = KEY;
        ptier_test_box_open(&box);
        for (int i = 0; i < 50; i++)
            assert_int_equal(get_secret(i), PTIER_OK);
        if (tiers != BOX_ALL)
            ptier_test_box_fini(&box);
    }
}

static void
previous_keys_still_decrypt(void **state)
{
    (void)state;
    static const char *const previous[] = {KEY};
    ptier_test_box_init(&box, BOX_ALL);
    box.options.encryption_key = KEY;
    ptier_test_box_open(&box);
    put_secret(1);
    ptier_test_box_close(&box);
    box.options.encryption_key = OTHER_KEY;
    box.options.previous_keys = previous;
    box.options.previous_key_count = 1;
    ptier_test_box_open(&box);
    put_secret(2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(get_secret(1), PTIER_OK);
        assert_int_equal(get_secret(2), PTIER_OK);
        ptier_test_box_reopen(&box);
    }
}

/* ---- damage ---- */

static void
flip_all(const char *path, size_t every)
{
    size_t length;
    char *data = ptier_test_file_read(path, &length);
    for (size_t i = every; i < length; i += every)
        data[i] ^= 0x10;
    ptier_test_file_write(path, data, length);
    free(data);
}

static void
damaged_l2_is_served_from_l3(void **state)
{
    (void)state;
    char path[PTIER_TEST_PATH + 40];
    ptier_test_box_init(&box, BOX_ALL);
    ptier_test_box_open(&box);
    for (int i = 0; i < 100; i++)
        put_secret(i);
    ptier_test_box_close(&box);
    (void)snprintf(path, sizeof path, "%s/l2/shard_00000001.jsonl", box.directory);
    flip_all(path, 97);
    ptier_test_box_open(&box);
    for (int i = 0; i < 100; i++)
        assert_int_equal(get_secret(i), PTIER_OK);
}

/* What no tier can give any more is a loss, never a wrong value, and the key can be used again. */
static void
damaged_record_of_the_lowest_tier_can_be_put_and_deleted(void **state)
{
    (void)state;
    char path[PTIER_TEST_PATH + 40];
    ptier_test_box_init(&box, BOX_L2);
    ptier_test_box_open(&box);
    for (int i = 0; i < 10; i++)
        put_secret(i);
    (void)snprintf(path, sizeof path, "%s/l2/shard_00000001.jsonl", box.directory);
    size_t length;
    char *data = ptier_test_file_read(path, &length);
    for (size_t i = 0; i < length; i++)
        data[i] ^= 1;
    FILE *file = fopen(path, "r+e"); /* in place: the cache has it open */
    assert_int_equal(fwrite(data, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
    free(data);
    for (int i = 0; i < 10; i += 2)
        assert_int_not_equal(get_secret(i), PTIER_OK);
    for (int i = 0; i < 10; i++)
        put_secret(i);
    for (int i = 0; i < 10; i++)
        assert_int_equal(get_secret(i), PTIER_OK);
    assert_int_equal(ptier_test_box_entries(&box), 10);
    for (int i = 0; i < 10; i++)
        assert_true(ptier_test_box_delete(&box, i));
}

static void
damaged_state_file_makes_it_another_store_and_costs_nothing_else(void **state)
{
    (void)state;
    char path[PTIER_TEST_PATH + 40];
    uint8_t before[PTIER_ID_BYTES], after[PTIER_ID_BYTES];
    ptier_start_report report;
    ptier_test_box_init(&box, BOX_ALL);
    (void)snprintf(path, sizeof path, "%s/state", box.directory);
    for (int round = 0; round < 2; round++) {
        ptier_test_box_open(&box);
        ptier_test_box_put(&box, 1);
        uint64_t revision = ptier_test_box_put(&box, 2);
        ptier_cache_store_id(box.cache, before);
        ptier_test_box_close(&box);
        if (round)
            assert_int_equal(unlink(path), 0);
        else
            flip_all(path, 20);
        ptier_test_box_open(&box); /* revisions go on from what the tiers know */
        ptier_cache_start_report(box.cache, &report);
        assert_true(report.new_store && report.changes_lost && report.damaged);
        assert_non_null(strstr(report.text, "state file"));
        ptier_cache_store_id(box.cache, after);
        assert_memory_not_equal(before, after, PTIER_ID_BYTES);
        assert_true(ptier_test_box_has(&box, 1));
        assert_true(ptier_test_box_put(&box, 3) > revision);
        ptier_test_box_reopen(&box); /* said once */
        ptier_cache_start_report(box.cache, &report);
        assert_false(report.new_store || report.changes_lost);
        ptier_cache_store_id(box.cache, before);
        assert_memory_equal(before, after, PTIER_ID_BYTES);
        ptier_test_box_close(&box);
    }
}

static void
directory_without_l3_file_is_what_l2_has(void **state)
{
    (void)state;
    char path[PTIER_TEST_PATH + 40];
    static const char *const names[] = {"l3.sqlite", "l3.sqlite-wal", "l3.sqlite-shm"};
    ptier_test_box_init(&box, BOX_ALL);
    ptier_test_box_open(&box);
    for (int i = 0; i < 100; i++)
        put_secret(i);
    ptier_test_box_close(&box);
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", box.directory, names[i]);
        (void)unlink(path); /* not all exist */
    }
    for (int i = 0; i < 2; i++) {
        ptier_test_box_open(&box);
        for (int n = 0; n < 100; n++)
            assert_int_equal(get_secret(n), PTIER_OK);
        BOX_AWAIT(ptier_test_box_statistics(&box).pending_writes == 0);
        assert_int_equal(ptier_test_box_statistics(&box).tiers[PTIER_TIER_L3].entries, 100);
        ptier_test_box_close(&box);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(copied_while_running_it_has_everything_that_was_acknowledged,
                                  tear_down),
        cmocka_unit_test_teardown(second_opener_of_a_directory_is_refused, tear_down),
        cmocka_unit_test_teardown(directory_is_private_and_the_key_file_too, tear_down),
        cmocka_unit_test_teardown(wrong_key_is_refused_and_destroys_nothing, tear_down),
        cmocka_unit_test_teardown(previous_keys_still_decrypt, tear_down),
        cmocka_unit_test_teardown(damaged_l2_is_served_from_l3, tear_down),
        cmocka_unit_test_teardown(damaged_record_of_the_lowest_tier_can_be_put_and_deleted,
                                  tear_down),
        cmocka_unit_test_teardown(damaged_state_file_makes_it_another_store_and_costs_nothing_else,
                                  tear_down),
        cmocka_unit_test_teardown(directory_without_l3_file_is_what_l2_has, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
