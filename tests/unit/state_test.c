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
#include <xxhash.h>

#include "cache/progress.h"
#include "cache/state.h"
#include "support/temp_dir.h"

typedef struct fixture {
    char directory[PTIER_TEST_PATH], path[PTIER_TEST_PATH + 16];
    ptier_keyring *keyring;
    ptier_state state;
    ptier_error error;
} fixture;

#define KEY       "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="
#define OTHER_KEY "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

static void
use_keys(fixture *f, const char *first, const char *second)
{
    const char *keys[] = {first, second};
    ptier_keyring_destroy(f->keyring);
    assert_int_equal(ptier_keyring_create(keys, second ? 2 : 1, &f->keyring, &f->error), PTIER_OK);
}

static int
set_up(void **state)
{
    static fixture f;
    memset(&f, 0, sizeof f);
    ptier_test_dir_make(f.directory);
    use_keys(&f, KEY, NULL);
    (void)snprintf(f.path, sizeof f.path, "%s/state", f.directory);
    *state = &f;
    return 0;
}

static int
tear_down(void **state)
{
    fixture *f = *state;
    ptier_test_dir_remove(f->directory);
    ptier_keyring_destroy(f->keyring);
    return 0;
}

static ptier_state_condition
load(fixture *f, ptier_state *state)
{
    ptier_state_condition condition;
    assert_int_equal(ptier_state_load(f->directory, state, &condition, &f->error), PTIER_OK);
    return condition;
}

static void
save(fixture *f)
{
    assert_int_equal(ptier_state_save(f->directory, &f->state, &f->error), PTIER_OK);
}

/* A state with every field set. */
static void
save_a_sample(fixture *f)
{
    bool changed;
    assert_int_equal(load(f, &f->state), PTIER_STATE_MISSING);
    assert_int_equal(ptier_state_add_key(&f->state, f->keyring, &changed, &f->error), PTIER_OK);
    f->state.reserved = UINT64_MAX - 1;
    f->state.tiers = 12;
    f->state.boot_tag = UINT64_C(0xfedcba9876543210);
    f->state.clean = true;
    save(f);
}

static void
state_of_a_new_directory_is_that_of_a_new_store(void **state)
{
    fixture *f = *state;
    ptier_state another;
    assert_int_equal(load(f, &f->state), PTIER_STATE_MISSING);
    assert_int_equal(load(f, &another), PTIER_STATE_MISSING);
    assert_int_equal(f->state.reserved, 1);
    assert_int_equal(f->state.tiers, 0);
    assert_int_equal(f->state.key_count, 0);
    assert_memory_not_equal(f->state.store_id, another.store_id, PTIER_ID_BYTES);
}

static void
state_reads_what_was_saved_and_is_private(void **state)
{
    fixture *f = *state;
    struct stat info;
    ptier_state again;
    save_a_sample(f);
    assert_int_equal(stat(f->path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_int_equal(load(f, &again), PTIER_STATE_SOUND);
    assert_true(again.reserved == UINT64_MAX - 1);
    assert_true(again.boot_tag == f->state.boot_tag);
    assert_int_equal(again.tiers, 12);
    assert_true(again.clean);
    assert_int_equal(again.key_count, 1);
    assert_memory_equal(again.keys, f->state.keys, PTIER_CHECK_BYTES);
    assert_memory_equal(again.store_id, f->state.store_id, PTIER_ID_BYTES);
}

static void
state_notices_every_flipped_bit(void **state)
{
    fixture *f = *state;
    size_t length;
    save_a_sample(f);
    char *text = ptier_test_file_read(f->path, &length);
    for (size_t bit = 0; bit < 8 * length; bit++) {
        ptier_state damaged;
        text[bit / 8] = (char)(text[bit / 8] ^ 1 << bit % 8);
        ptier_test_file_write(f->path, text, length);
        assert_int_equal(load(f, &damaged), PTIER_STATE_DAMAGED);
        assert_int_equal(damaged.reserved, 1); /* nothing of it is believed */
        text[bit / 8] = (char)(text[bit / 8] ^ 1 << bit % 8);
    }
    free(text);
}

static void
state_notices_a_cut_file(void **state)
{
    fixture *f = *state;
    size_t length;
    save_a_sample(f);
    char *text = ptier_test_file_read(f->path, &length);
    for (size_t cut = 0; cut < length; cut++) {
        ptier_test_file_write(f->path, text, cut);
        assert_int_equal(load(f, &f->state), PTIER_STATE_DAMAGED);
    }
    free(text);
}

static void
state_refuses_a_newer_version(void **state)
{
    fixture *f = *state;
    char text[128];
    int length = snprintf(text, sizeof text, "proxytier-state 3\nwho knows\n");
    length += snprintf(text + length, sizeof text - (size_t)length, "check %016llx\n",
                       (unsigned long long)XXH3_64bits(text, (size_t)length));
    ptier_state_condition condition;
    ptier_test_file_write(f->path, text, (size_t)length);
    assert_int_equal(ptier_state_load(f->directory, &f->state, &condition, &f->error),
                     PTIER_FAILED_PRECONDITION);
    assert_non_null(strstr(f->error.message, f->path));
}

static void
state_of_version_1_is_read(void **state)
{
    fixture *f = *state;
    char text[256];
    int length = snprintf(text, sizeof text,
                          "proxytier-state 1\nstore_id 000102030405060708090a0b0c0d0e0f\n"
                          "key 0011223344556677\nreserved 1048577\n");
    length += snprintf(text + length, sizeof text - (size_t)length, "check %016llx\n",
                       (unsigned long long)XXH3_64bits(text, (size_t)length));
    ptier_test_file_write(f->path, text, (size_t)length);
    assert_int_equal(load(f, &f->state), PTIER_STATE_SOUND);
    assert_int_equal(f->state.reserved, 1048577);
    assert_int_equal(f->state.store_id[15], 15);
    assert_int_equal(f->state.key_count, 1);
    assert_int_equal(f->state.tiers, 0); /* it knew nothing of runs */
}

static void
state_survives_a_left_over_temporary_file(void **state)
{
    fixture *f = *state;
    char temporary[PTIER_TEST_PATH + 32];
    (void)snprintf(temporary, sizeof temporary, "%s.tmp", f->path);
    ptier_test_file_write(temporary, "rubbish", 7);
    save_a_sample(f);
    assert_int_equal(load(f, &f->state), PTIER_STATE_SOUND);
    assert_int_equal(access(temporary, F_OK), -1);
}

static void
state_in_a_missing_directory_cannot_be_saved(void **state)
{
    fixture *f = *state;
    assert_int_not_equal(ptier_state_save("/nonexistent/directory", &f->state, &f->error),
                         PTIER_OK);
    assert_non_null(strstr(f->error.message, "/nonexistent/directory"));
}

static void
state_needs_every_key_that_records_were_written_with(void **state)
{
    fixture *f = *state;
    bool changed;
    save_a_sample(f);
    use_keys(f, OTHER_KEY, NULL);
    assert_int_equal(ptier_state_check_keys(&f->state, f->keyring, f->directory, &f->error),
                     PTIER_FAILED_PRECONDITION);
    use_keys(f, OTHER_KEY, KEY);
    assert_int_equal(ptier_state_check_keys(&f->state, f->keyring, f->directory, &f->error),
                     PTIER_OK);
    assert_int_equal(ptier_state_add_key(&f->state, f->keyring, &changed, &f->error), PTIER_OK);
    assert_true(changed);
    assert_int_equal(ptier_state_add_key(&f->state, f->keyring, &changed, &f->error), PTIER_OK);
    assert_false(changed);
    save(f);
    assert_int_equal(load(f, &f->state), PTIER_STATE_SOUND);
    assert_int_equal(f->state.key_count, 2);
    use_keys(f, OTHER_KEY, NULL); /* what the old one encrypted is still there */
    assert_int_equal(ptier_state_check_keys(&f->state, f->keyring, f->directory, &f->error),
                     PTIER_FAILED_PRECONDITION);
    use_keys(f, KEY, NULL); /* and what the new one encrypted */
    assert_int_equal(ptier_state_check_keys(&f->state, f->keyring, f->directory, &f->error),
                     PTIER_FAILED_PRECONDITION);
}

/* ---- the progress file ---- */

static bool
open_progress(fixture *f, ptier_progress_file *file)
{
    bool found;
    ptier_progress_init(file);
    assert_int_equal(ptier_progress_open(file, f->directory, &found, &f->error), PTIER_OK);
    return found;
}

static const ptier_progress sample = {.logged = 7,
                                      .log_from = 3,
                                      .l3_prefix = UINT64_MAX,
                                      .first_shard = 1,
                                      .last_shard = UINT32_MAX,
                                      .last_shard_bytes = 99,
                                      .stale_below = 4,
                                      .memory_only = true};

static void
save_progress(fixture *f)
{
    ptier_progress_file file;
    (void)open_progress(f, &file);
    *ptier_progress_begin(&file) = sample;
    ptier_progress_end(&file);
    ptier_progress_fini(&file);
    (void)snprintf(f->path, sizeof f->path, "%s/progress", f->directory);
}

static void
progress_reads_what_was_said_last(void **state)
{
    fixture *f = *state;
    ptier_progress_file file;
    assert_false(open_progress(f, &file));
    ptier_progress_fini(&file);
    save_progress(f);
    assert_true(open_progress(f, &file));
    assert_true(file.now.logged == 7 && file.now.log_from == 3 && file.now.first_shard == 1);
    assert_true(file.now.l3_prefix == UINT64_MAX && file.now.last_shard == UINT32_MAX);
    assert_true(file.now.last_shard_bytes == 99 && file.now.stale_below == 4);
    assert_true(file.now.memory_only);
    ptier_progress_fini(&file);
}

static void
progress_notices_every_flipped_bit_and_every_cut(void **state)
{
    fixture *f = *state;
    ptier_progress_file file;
    size_t length;
    save_progress(f);
    char *text = ptier_test_file_read(f->path, &length);
    for (size_t bit = 0; bit < 8 * length; bit++) {
        text[bit / 8] = (char)(text[bit / 8] ^ 1 << bit % 8);
        ptier_test_file_write(f->path, text, length);
        assert_false(open_progress(f, &file));
        assert_true(file.now.logged == 0 && !file.now.memory_only);
        ptier_progress_fini(&file);
        text[bit / 8] = (char)(text[bit / 8] ^ 1 << bit % 8);
    }
    for (size_t cut = 0; cut < length; cut++) {
        ptier_test_file_write(f->path, text, cut);
        assert_false(open_progress(f, &file));
        ptier_progress_fini(&file);
    }
    free(text);
}

#define WITH_DIRECTORY(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_DIRECTORY(state_of_a_new_directory_is_that_of_a_new_store),
        WITH_DIRECTORY(state_reads_what_was_saved_and_is_private),
        WITH_DIRECTORY(state_notices_every_flipped_bit),
        WITH_DIRECTORY(state_notices_a_cut_file),
        WITH_DIRECTORY(state_refuses_a_newer_version),
        WITH_DIRECTORY(state_of_version_1_is_read),
        WITH_DIRECTORY(state_survives_a_left_over_temporary_file),
        WITH_DIRECTORY(state_in_a_missing_directory_cannot_be_saved),
        WITH_DIRECTORY(state_needs_every_key_that_records_were_written_with),
        WITH_DIRECTORY(progress_reads_what_was_said_last),
        WITH_DIRECTORY(progress_notices_every_flipped_bit_and_every_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
