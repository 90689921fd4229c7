/* access/: tokens, and the file that says what they are good for. */
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

#include "support/temp_dir.h"
#include "token_file.h"

#define ZEROS "0000000000000000000000000000000000000000000000000000000000000000"
#define ONES  "1111111111111111111111111111111111111111111111111111111111111111"

static char directory[PTIER_TEST_PATH];
static char path[PTIER_TEST_PATH + 16];

static int
set_up(void **state)
{
    (void)state;
    ptier_test_dir_make(directory);
    (void)snprintf(path, sizeof path, "%s/tokens", directory);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    ptier_test_dir_remove(directory);
    return 0;
}

static void
write_tokens(const char *text)
{
    ptier_test_file_write(path, text, strlen(text));
    assert_int_equal(chmod(path, 0600), 0);
}

static void
expect_text(const char *expected)
{
    size_t length;
    char *text = ptier_test_file_read(path, &length);
    assert_string_equal(text, expected);
    free(text);
}

static void
refuse(const char *text, ptier_status status, const char *part)
{
    ptier_token_list list;
    ptier_error error = {0};
    write_tokens(text);
    assert_int_equal(ptier_token_file_read(path, &list, &error), status);
    if (!strstr(error.message, part))
        fail_msg("'%s' does not mention '%s'", error.message, part);
    assert_null(strstr(error.message, "hush"));
    assert_null(list.entries);
}

static void
tokens_differ_and_only_their_form_is_hashed(void **state)
{
    (void)state;
    char one[PTIER_TOKEN_TEXT + 1], two[PTIER_TOKEN_TEXT + 1];
    uint8_t hash[PTIER_TOKEN_HASH], again[PTIER_TOKEN_HASH];
    assert_int_equal(ptier_token_make(one, NULL), PTIER_OK);
    assert_int_equal(ptier_token_make(two, NULL), PTIER_OK);
    assert_int_equal(strlen(one), PTIER_TOKEN_TEXT);
    assert_string_not_equal(one, two);
    assert_true(ptier_token_hash(one, hash));
    assert_true(ptier_token_hash(two, again));
    assert_memory_not_equal(hash, again, sizeof hash);
    assert_true(ptier_token_hash(one, again));
    assert_memory_equal(hash, again, sizeof hash);
    assert_false(ptier_token_hash("", hash));
    assert_false(ptier_token_hash("password", hash));
    one[10] = '!';
    assert_false(ptier_token_hash(one, hash));
}

/* sha256sum says so too. */
static void
hash_is_the_sha256_of_the_text(void **state)
{
    (void)state;
    static const uint8_t expected[] = {0x91, 0xb4, 0x20, 0x05};
    uint8_t hash[PTIER_TOKEN_HASH];
    assert_true(ptier_token_hash("ptk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", hash));
    assert_memory_equal(hash, expected, sizeof expected);
}

static void
file_with_comments_and_expiries_is_read(void **state)
{
    (void)state;
    ptier_token_list list;
    write_tokens("# head\n\n reader\tr1 " ZEROS " 2027-01-31 # until then\nadmin a.b-c_D " ONES
                 " 2030-12-31T23:59:59Z\r\nrotator last " ONES);
    assert_int_equal(ptier_token_file_read(path, &list, NULL), PTIER_OK);
    assert_int_equal(list.count, 3);
    assert_int_equal(list.entries[0].role, PTIER_ROLE_READER);
    assert_int_equal(list.entries[0].expires_s, 1801353600);
    assert_string_equal(list.entries[1].name, "a.b-c_D");
    assert_int_equal(list.entries[1].expires_s, 1924991999);
    assert_int_equal(list.entries[1].hash[31], 0x11);
    assert_int_equal(list.entries[2].role, PTIER_ROLE_ROTATOR);
    assert_int_equal(list.entries[2].expires_s, 0);
    ptier_token_list_fini(&list);
    write_tokens("");
    assert_int_equal(ptier_token_file_read(path, &list, NULL), PTIER_OK);
    assert_int_equal(list.count, 0);
    ptier_token_list_fini(&list);
}

static void
wrong_lines_are_named_without_what_they_hold(void **state)
{
    (void)state;
    refuse("boss b " ZEROS "\n", PTIER_INVALID_ARGUMENT, "tokens:1: roles are");
    refuse("# x\nreader hush\n", PTIER_INVALID_ARGUMENT, "tokens:2: a line has");
    refuse("reader hush/hush " ZEROS "\n", PTIER_INVALID_ARGUMENT, "tokens:1: a name");
    refuse("reader h hush\n", PTIER_INVALID_ARGUMENT, "tokens:1: the hash");
    refuse("reader h " ZEROS "00\n", PTIER_INVALID_ARGUMENT, "tokens:1: the hash");
    refuse("reader h " ZEROS " 2027-02-31\n", PTIER_INVALID_ARGUMENT, "tokens:1: an expiry");
    refuse("reader h " ZEROS " hush\n", PTIER_INVALID_ARGUMENT, "tokens:1: an expiry");
    refuse("reader h " ZEROS " 2027-01-01 more\n", PTIER_INVALID_ARGUMENT, "a line has");
    refuse("reader h " ZEROS "\nadmin h " ONES "\n", PTIER_INVALID_ARGUMENT, "tokens:2: this name");
}

static void
file_that_others_may_write_is_refused(void **state)
{
    (void)state;
    ptier_token_list list;
    ptier_error error;
    write_tokens("reader r " ZEROS "\n");
    assert_int_equal(chmod(path, 0620), 0);
    assert_int_equal(ptier_token_file_read(path, &list, &error), PTIER_FAILED_PRECONDITION);
    assert_int_equal(chmod(path, 0602), 0);
    assert_int_equal(ptier_token_file_read(path, &list, &error), PTIER_FAILED_PRECONDITION);
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(ptier_token_file_read(path, &list, &error), PTIER_OK);
    ptier_token_list_fini(&list);
    assert_int_equal(ptier_token_file_read(directory, &list, &error), PTIER_FAILED_PRECONDITION);
    if (geteuid() != 0)
        return;
    assert_int_equal(chown(path, 12345, 12345), 0);
    assert_int_equal(ptier_token_file_read(path, &list, &error), PTIER_FAILED_PRECONDITION);
}

static ptier_token_entry
entry(ptier_role role, const char *name, int64_t expires_s)
{
    ptier_token_entry made = {.role = role, .expires_s = expires_s};
    strcpy(made.name, name);
    return made;
}

static void
added_and_removed_lines_leave_the_others_alone(void **state)
{
    (void)state;
    ptier_token_entry first = entry(PTIER_ROLE_READER, "first", 0);
    ptier_token_entry second = entry(PTIER_ROLE_ADMIN, "second", 1924991999);
    ptier_error error;
    struct stat about;
    assert_int_equal(ptier_token_file_remove(path, "first", &error), PTIER_NOT_FOUND);
    assert_int_not_equal(stat(path, &about), 0);
    assert_int_equal(ptier_token_file_add(path, &first, &error), PTIER_OK);
    assert_int_equal(stat(path, &about), 0);
    assert_int_equal(about.st_mode & 07777, 0600);
    write_tokens("# mine\nrotator other " ONES "  # keep\n\n# end");
    assert_int_equal(ptier_token_file_add(path, &first, &error), PTIER_OK);
    assert_int_equal(ptier_token_file_add(path, &second, &error), PTIER_OK);
    assert_int_equal(ptier_token_file_add(path, &first, &error), PTIER_ALREADY_EXISTS);
    expect_text("# mine\nrotator other " ONES "  # keep\n\n# end\nreader first " ZEROS
                "\nadmin second " ZEROS " 2030-12-31T23:59:59Z\n");
    assert_int_equal(ptier_token_file_remove(path, "first", &error), PTIER_OK);
    assert_int_equal(ptier_token_file_remove(path, "first", &error), PTIER_NOT_FOUND);
    expect_text("# mine\nrotator other " ONES "  # keep\n\n# end\nadmin second " ZEROS
                " 2030-12-31T23:59:59Z\n");
}

static void
wrong_file_is_not_written_over(void **state)
{
    (void)state;
    ptier_token_entry first = entry(PTIER_ROLE_READER, "first", 0);
    ptier_error error;
    write_tokens("precious\n");
    assert_int_equal(ptier_token_file_add(path, &first, &error), PTIER_INVALID_ARGUMENT);
    expect_text("precious\n");
}

static void
replaced_file_keeps_its_owner(void **state)
{
    (void)state;
    struct stat about;
    ptier_token_entry first = entry(PTIER_ROLE_READER, "first", 0);
    if (geteuid() != 0)
        skip();
    write_tokens("");
    assert_int_equal(chown(path, 12344, 12345), 0);
    assert_int_equal(ptier_token_file_add(path, &first, NULL), PTIER_OK);
    assert_int_equal(stat(path, &about), 0);
    assert_int_equal(about.st_uid, 12344);
    assert_int_equal(about.st_gid, 12345);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(tokens_differ_and_only_their_form_is_hashed),
        TEST(hash_is_the_sha256_of_the_text),
        TEST(file_with_comments_and_expiries_is_read),
        TEST(wrong_lines_are_named_without_what_they_hold),
        TEST(file_that_others_may_write_is_refused),
        TEST(added_and_removed_lines_leave_the_others_alone),
        TEST(wrong_file_is_not_written_over),
        TEST(replaced_file_keeps_its_owner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
