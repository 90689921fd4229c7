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

#include "cache/state.h"
#include "support/temp_dir.h"

typedef struct fixture {
    char directory[PTIER_TEST_PATH], path[PTIER_TEST_PATH + 8];
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

static void
state_is_made_when_missing_and_private(void **state)
{
    fixture *f = *state;
    struct stat info;
    ptier_state again;
    assert_int_equal(ptier_state_load(f->directory, f->keyring, &f->state, &f->error), PTIER_OK);
    assert_int_equal(f->state.reserved, 1);
    assert_int_equal(stat(f->path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_int_equal(ptier_state_load(f->directory, f->keyring, &again, &f->error), PTIER_OK);
    assert_memory_equal(again.store_id, f->state.store_id, PTIER_ID_BYTES);
}

static void
state_reads_what_was_saved(void **state)
{
    fixture *f = *state;
    ptier_state again;
    assert_int_equal(ptier_state_load(f->directory, f->keyring, &f->state, &f->error), PTIER_OK);
    f->state.reserved = UINT64_MAX - 1;
    assert_int_equal(ptier_state_save(f->directory, &f->state, &f->error), PTIER_OK);
    assert_int_equal(ptier_state_load(f->directory, f->keyring, &again, &f->error), PTIER_OK);
    assert_true(again.reserved == UINT64_MAX - 1);
    assert_memory_equal(again.store_id, f->state.store_id, PTIER_ID_BYTES);
}

static void
state_refuses_every_flipped_bit(void **state)
{
    fixture *f = *state;
    size_t length;
    assert_int_equal(ptier_state_load(f->directory, f->keyring, &f->state, &f->error), PTIER_OK);
    char *text = ptier_test_file_read(f->path, &length);
    for (size_t bit = 0; bit < 8 * (length - 1); bit++) { /* the last line break may be anything */
        ptier_state damaged;
        text[bit / 8] = (char)(text[bit / 8] ^ 1 << bit % 8);
        ptier_test_file_write(f->path, text, length);
        ptier_status status = ptier_state_load(f->directory, f->keyring, &damaged, &f->error);
        if (status == PTIER_OK) { /* white space, or a digit in upper case: the same values */
            assert_int_equal(damaged.reserved, f->state.reserved);
            assert_memory_equal(damaged.store_id, f->state.store_id, PTIER_ID_BYTES);
        } else {
            assert_int_equal(status, PTIER_DATA_LOSS);
            assert_non_null(strstr(f->error.message, f->path));
        }
        text[bit / 8] = (char)(text[bit / 8] ^ 1 << bit % 8);
    }
    free(text);
}

static void
state_refuses_a_cut_file(void **state)
{
    fixture *f = *state;
    size_t length;
    assert_int_equal(ptier_state_load(f->directory, f->keyring, &f->state, &f->error), PTIER_OK);
    char *text = ptier_test_file_read(f->path, &length);
    for (size_t cut = 0; cut + 2 < length; cut++) {
        ptier_test_file_write(f->path, text, cut);
        assert_int_equal(ptier_state_load(f->directory, f->keyring, &f->state, &f->error),
                         PTIER_DATA_LOSS);
    }
    free(text);
}

static void
state_refuses_a_newer_version(void **state)
{
    fixture *f = *state;
    static const char newer[] = "proxytier-state 2\nstore_id 00\n";
    ptier_test_file_write(f->path, newer, sizeof newer - 1);
    assert_int_equal(ptier_state_load(f->directory, f->keyring, &f->state, &f->error),
                     PTIER_DATA_LOSS);
}

static void
state_survives_a_left_over_temporary_file(void **state)
{
    fixture *f = *state;
    char temporary[PTIER_TEST_PATH + 16];
    (void)snprintf(temporary, sizeof temporary, "%s.tmp", f->path);
    ptier_test_file_write(temporary, "rubbish", 7);
    assert_int_equal(ptier_state_load(f->directory, f->keyring, &f->state, &f->error), PTIER_OK);
    assert_int_equal(access(temporary, F_OK), -1);
}

static void
state_in_a_missing_directory_says_so(void **state)
{
    fixture *f = *state;
    assert_int_not_equal(
        ptier_state_load("/nonexistent/directory", f->keyring, &f->state, &f->error), PTIER_OK);
    assert_non_null(strstr(f->error.message, "/nonexistent/directory"));
}

static void
state_of_another_key_is_refused_and_of_a_previous_one_is_not(void **state)
{
    fixture *f = *state;
    assert_int_equal(ptier_state_load(f->directory, f->keyring, &f->state, &f->error), PTIER_OK);
    use_keys(f, OTHER_KEY, NULL);
    assert_int_equal(ptier_state_load(f->directory, f->keyring, &f->state, &f->error),
                     PTIER_FAILED_PRECONDITION);
    use_keys(f, OTHER_KEY, KEY);
    assert_int_equal(ptier_state_load(f->directory, f->keyring, &f->state, &f->error), PTIER_OK);
    assert_int_equal(ptier_state_save(f->directory, &f->state, &f->error), PTIER_OK);
    use_keys(f, OTHER_KEY, NULL); /* what the old one encrypted is still there */
    assert_int_equal(ptier_state_load(f->directory, f->keyring, &f->state, &f->error),
                     PTIER_FAILED_PRECONDITION);
}

#define WITH_DIRECTORY(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_DIRECTORY(state_is_made_when_missing_and_private),
        WITH_DIRECTORY(state_reads_what_was_saved),
        WITH_DIRECTORY(state_refuses_every_flipped_bit),
        WITH_DIRECTORY(state_refuses_a_cut_file),
        WITH_DIRECTORY(state_refuses_a_newer_version),
        WITH_DIRECTORY(state_survives_a_left_over_temporary_file),
        WITH_DIRECTORY(state_in_a_missing_directory_says_so),
        WITH_DIRECTORY(state_of_another_key_is_refused_and_of_a_previous_one_is_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
