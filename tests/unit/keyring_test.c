#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "crypto/base64url.h"
#include "crypto/keyring.h"

/* From the specification's own test vectors (github.com/fernet/spec). */
#define SPEC_KEY "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="
#define SPEC_TOKEN                                                                                 \
    "gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_"                                    \
    "5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4I"                                                        \
    "wqDA=="
#define OTHER_KEY "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

static ptier_keyring *
keyring_of(const char *first, const char *second)
{
    const char *keys[] = {first, second};
    ptier_keyring *keyring;
    ptier_error error;
    assert_int_equal(ptier_keyring_create(keys, second ? 2 : 1, &keyring, &error), PTIER_OK);
    return keyring;
}

static ptier_status
open_text(ptier_keyring *keyring, const char *token, char plain[1024])
{
    size_t length;
    ptier_status status = ptier_keyring_open(keyring, token, strlen(token), plain, 1023, &length);
    plain[status == PTIER_OK ? length : 0] = '\0';
    return status;
}

static void
keyring_opens_what_it_seals_at_every_length(void **state)
{
    (void)state;
    ptier_keyring *keyring = keyring_of(SPEC_KEY, NULL);
    char plain[600], token[PTIER_TOKEN_LENGTH(sizeof plain) + 1], opened[1024];
    memset(plain, 'x', sizeof plain);
    for (size_t length = 0; length <= sizeof plain; length += length < 70 ? 1 : 53) {
        size_t got;
        assert_int_equal(ptier_keyring_seal(keyring, plain, length, token), PTIER_OK);
        assert_int_equal(strlen(token), PTIER_TOKEN_LENGTH(length));
        assert_int_equal(
            ptier_keyring_open(keyring, token, strlen(token), opened, sizeof opened, &got),
            PTIER_OK);
        assert_int_equal(got, length);
        assert_memory_equal(opened, plain, length);
    }
    ptier_keyring_destroy(keyring);
}

static void
keyring_opens_the_token_of_the_specification(void **state)
{
    (void)state;
    ptier_keyring *keyring = keyring_of(SPEC_KEY, NULL);
    char plain[1024];
    assert_int_equal(open_text(keyring, SPEC_TOKEN, plain), PTIER_OK);
    assert_string_equal(plain, "hello");
    ptier_keyring_destroy(keyring);
}

static void
keyring_refuses_a_token_with_any_character_changed(void **state)
{
    (void)state;
    ptier_keyring *keyring = keyring_of(SPEC_KEY, NULL);
    char plain[1024], token[] = SPEC_TOKEN;
    for (size_t i = 0; i < sizeof SPEC_TOKEN - 1; i++) {
        for (const char *other = "AB-_=+/ \x80"; *other; other++) {
            if (SPEC_TOKEN[i] == *other)
                continue;
            token[i] = *other;
            assert_int_equal(open_text(keyring, token, plain), PTIER_DATA_LOSS);
        }
        token[i] = SPEC_TOKEN[i];
    }
    ptier_keyring_destroy(keyring);
}

static void
keyring_refuses_a_token_that_was_cut(void **state)
{
    (void)state;
    ptier_keyring *keyring = keyring_of(SPEC_KEY, NULL);
    char plain[1024];
    for (size_t length = 0; length < sizeof SPEC_TOKEN - 1; length++) {
        size_t got = 99;
        assert_int_equal(ptier_keyring_open(keyring, SPEC_TOKEN, length, plain, sizeof plain, &got),
                         PTIER_DATA_LOSS);
        assert_int_equal(got, 0);
    }
    ptier_keyring_destroy(keyring);
}

static void
keyring_seals_with_the_first_key_and_opens_with_all(void **state)
{
    (void)state;
    ptier_keyring *old = keyring_of(OTHER_KEY, NULL), *both = keyring_of(SPEC_KEY, OTHER_KEY);
    ptier_keyring *new = keyring_of(SPEC_KEY, NULL);
    char token[PTIER_TOKEN_LENGTH(6) + 1], plain[1024];
    uint8_t check[PTIER_CHECK_BYTES];
    assert_int_equal(ptier_keyring_seal(old, "secret", 6, token), PTIER_OK);
    assert_int_equal(open_text(both, token, plain), PTIER_OK);
    assert_string_equal(plain, "secret");
    assert_int_equal(open_text(new, token, plain), PTIER_DATA_LOSS);
    assert_int_equal(ptier_keyring_seal(both, "secret", 6, token), PTIER_OK);
    assert_int_equal(open_text(new, token, plain), PTIER_OK);
    assert_int_equal(open_text(old, token, plain), PTIER_DATA_LOSS);

    assert_int_equal(ptier_keyring_check(old, "data", 4, check), PTIER_OK);
    assert_true(ptier_keyring_verify(both, "data", 4, check));
    assert_false(ptier_keyring_verify(new, "data", 4, check));
    ptier_keyring_destroy(old);
    ptier_keyring_destroy(both);
    ptier_keyring_destroy(new);
}

static void
keyring_says_which_key_made_a_token_or_a_check(void **state)
{
    (void)state;
    ptier_keyring *old = keyring_of(OTHER_KEY, NULL), *new = keyring_of(SPEC_KEY, NULL);
    ptier_keyring *both = keyring_of(SPEC_KEY, OTHER_KEY);
    char tokens[2][PTIER_TOKEN_LENGTH(6) + 1], plain[sizeof tokens[0]];
    uint8_t checks[2][PTIER_CHECK_BYTES];
    size_t length;
    int which = 99;
    assert_int_equal(ptier_keyring_count(old), 1);
    assert_int_equal(ptier_keyring_count(both), 2);
    for (int i = 0; i < 2; i++) {
        ptier_keyring *maker = i ? old : new;
        assert_int_equal(ptier_keyring_seal(maker, "secret", 6, tokens[i]), PTIER_OK);
        assert_int_equal(ptier_keyring_check(maker, "data", 4, checks[i]), PTIER_OK);
        assert_int_equal(ptier_keyring_open_which(both, tokens[i], strlen(tokens[i]), plain,
                                                  sizeof plain, &length, &which),
                         PTIER_OK);
        assert_int_equal(which, i);
        assert_int_equal(ptier_keyring_verify_which(both, "data", 4, checks[i]), i);
    }
    assert_int_equal(ptier_keyring_open_which(new, tokens[1], strlen(tokens[1]), plain,
                                              sizeof plain, &length, &which),
                     PTIER_DATA_LOSS);
    assert_int_equal(which, -1);
    assert_int_equal(ptier_keyring_verify_which(new, "data", 4, checks[1]), -1);
    assert_int_equal(ptier_keyring_verify_which(both, "date", 4, checks[1]), -1);
    ptier_keyring_destroy(old);
    ptier_keyring_destroy(new);
    ptier_keyring_destroy(both);
}

static void
keyring_check_notices_every_flipped_bit(void **state)
{
    (void)state;
    ptier_keyring *keyring = keyring_of(SPEC_KEY, NULL);
    uint8_t data[40] = "a record", check[PTIER_CHECK_BYTES], again[PTIER_CHECK_BYTES];
    assert_int_equal(ptier_keyring_check(keyring, data, sizeof data, check), PTIER_OK);
    assert_int_equal(ptier_keyring_check(keyring, data, sizeof data, again), PTIER_OK);
    assert_memory_equal(check, again, sizeof check);
    assert_true(ptier_keyring_verify(keyring, data, sizeof data, check));
    for (size_t bit = 0; bit < 8 * sizeof data; bit++) {
        data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_false(ptier_keyring_verify(keyring, data, sizeof data, check));
        data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_false(ptier_keyring_verify(keyring, data, sizeof data - 1, check));
    ptier_keyring_destroy(keyring);
}

static void
keyring_names_a_bad_key_by_number_only(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "short",
        "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4",  /* no padding */
        "cw/0x689RpI+jtRR7oE8h/eQsKImvJapLeSbXpwF4e4=", /* not URL-safe */
        "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e5=", /* unused bits */
        "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e==", /* 31 bytes */
        SPEC_KEY "A",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *keys[] = {SPEC_KEY, bad[i]};
        ptier_keyring *keyring = NULL;
        ptier_error error;
        assert_int_equal(ptier_keyring_create(keys, 2, &keyring, &error), PTIER_INVALID_ARGUMENT);
        assert_null(keyring);
        assert_non_null(strstr(error.message, "previous key 1 "));
        assert_null(strstr(error.message, "RpI"));
    }
}

static void
keyring_child_shares_no_iv_with_its_parent(void **state)
{
    (void)state;
    ptier_keyring *keyring = keyring_of(SPEC_KEY, NULL);
    enum { count = 600 }; /* more than one lane may have in stock */
    char(*tokens)[PTIER_TOKEN_LENGTH(1) + 1] = calloc(2 * count, sizeof *tokens);
    assert_int_equal(ptier_keyring_seal(keyring, "x", 1, tokens[0]), PTIER_OK);
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        bool ok = true;
        for (int i = 0; ok && i < count; i++)
            ok = ptier_keyring_seal(keyring, "x", 1, tokens[0]) == PTIER_OK &&
                 write(ends[1], tokens[0], sizeof *tokens) == sizeof *tokens;
        _exit(!ok);
    }
    close(ends[1]);
    FILE *from = fdopen(ends[0], "r");
    assert_int_equal(fread(tokens[count], sizeof *tokens, count, from), count);
    fclose(from);
    int result;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_int_equal(result, 0);
    for (int i = 0; i < count; i++)
        assert_int_equal(ptier_keyring_seal(keyring, "x", 1, tokens[i]), PTIER_OK);
    for (int i = 0; i < 2 * count; i++)
        for (int j = 0; j < i; j++) /* characters 13 to 31: nothing but IV */
            assert_memory_not_equal(tokens[i] + 13, tokens[j] + 13, 18);
    free(tokens);
    ptier_keyring_destroy(keyring);
}

static void *
seal_and_open(void *context)
{
    ptier_keyring *keyring = context;
    uintptr_t failures = 0;
    for (int i = 0; i < 2000; i++) {
        char text[32], token[PTIER_TOKEN_LENGTH(32) + 1], plain[1024];
        uint8_t check[PTIER_CHECK_BYTES];
        int length = snprintf(text, sizeof text, "%p %d", (void *)token, i);
        failures += ptier_keyring_seal(keyring, text, (size_t)length, token) != PTIER_OK ||
                    open_text(keyring, token, plain) != PTIER_OK || strcmp(text, plain) != 0 ||
                    ptier_keyring_check(keyring, text, (size_t)length, check) != PTIER_OK ||
                    !ptier_keyring_verify(keyring, text, (size_t)length, check);
    }
    return (void *)failures;
}

static void
keyring_serves_many_threads_at_once(void **state)
{
    (void)state;
    ptier_keyring *keyring = keyring_of(SPEC_KEY, OTHER_KEY);
    pthread_t threads[12]; /* more than there are lanes */
    for (size_t i = 0; i < 12; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, seal_and_open, keyring), 0);
    for (size_t i = 0; i < 12; i++) {
        void *failures;
        assert_int_equal(pthread_join(threads[i], &failures), 0);
        assert_null(failures);
    }
    ptier_keyring_destroy(keyring);
}

/* ---- against Python's cryptography ---- */

/* Reads a plain text in hex and our token of it from each line; prints the token's content, which
 * it opens, and a token of its own of the same text. */
static const char peer[] =
    "import sys\n"
    "from cryptography.fernet import Fernet\n"
    "fernet = Fernet(\"" SPEC_KEY "\")\n"
    "for line in sys.stdin:\n"
    "    plain, token = (line.split(\" \") + [\"\"])[:2]\n"
    "    opened = fernet.decrypt(token.strip().encode(), ttl=600)\n"
    "    print(opened.hex(), fernet.encrypt(bytes.fromhex(plain)).decode())\n";

static char directory[64], path[96];

static void
to_hex(const uint8_t *bytes, size_t length, char *text)
{
    text[0] = '\0';
    for (size_t i = 0; i < length; i++)
        (void)sprintf(text + 2 * i, "%02x", bytes[i]);
}

enum { TEXTS = 40, TEXT_MAX = 512 };

/* Every length around the blocks, then up to the longest credential; all bytes but NUL. */
static size_t
make_text(size_t number, uint8_t text[TEXT_MAX])
{
    size_t length = number < 35 ? number : TEXT_MAX - 2 * (TEXTS - 1 - number);
    for (size_t i = 0; i < length; i++)
        text[i] = (uint8_t)(1 + (i * 7 + number * 31) % 255);
    return length;
}

static void
write_tokens(ptier_keyring *keyring)
{
    uint8_t text[TEXT_MAX];
    char hex[2 * TEXT_MAX + 1], token[PTIER_TOKEN_LENGTH(TEXT_MAX) + 1];
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    for (size_t i = 0; i < TEXTS; i++) {
        size_t length = make_text(i, text);
        to_hex(text, length, hex);
        assert_int_equal(ptier_keyring_seal(keyring, text, length, token), PTIER_OK);
        (void)fprintf(file, "%s %s\n", hex, token);
    }
    assert_int_equal(fclose(file), 0);
}

static void
keyring_and_python_open_each_others_tokens(void **state)
{
    (void)state;
    if (system("python3 -c 'import cryptography.fernet' 2>/dev/null") != 0)
        skip(); /* no Python, or without that package */
    ptier_keyring *keyring = keyring_of(SPEC_KEY, NULL);
    uint8_t text[TEXT_MAX];
    char command[2048], line[4096], hex[2 * TEXT_MAX + 1], plain[1024];
    write_tokens(keyring);
    (void)snprintf(command, sizeof command, "python3 -c '%s' <%s", peer, path);
    FILE *from = popen(command, "re");
    assert_non_null(from);
    for (size_t i = 0; i < TEXTS; i++) {
        size_t length = make_text(i, text), opened;
        assert_non_null(fgets(line, sizeof line, from));
        char *token = strchr(line, ' ');
        assert_non_null(token);
        *token++ = '\0';
        token[strcspn(token, "\n")] = '\0';
        to_hex(text, length, hex);
        assert_string_equal(line, hex);
        assert_int_equal(
            ptier_keyring_open(keyring, token, strlen(token), plain, sizeof plain, &opened),
            PTIER_OK);
        assert_int_equal(opened, length);
        assert_memory_equal(plain, text, length);
    }
    assert_int_equal(pclose(from), 0);
    ptier_keyring_destroy(keyring);
}

/* ---- key files ---- */

static int
make_directory(void **state)
{
    (void)state;
    strcpy(directory, "/tmp/ptier-keyring-XXXXXX");
    if (!mkdtemp(directory))
        return -1;
    (void)snprintf(path, sizeof path, "%s/key", directory);
    return 0;
}

static int
remove_directory(void **state)
{
    (void)state;
    (void)unlink(path);      /* may not exist */
    return rmdir(directory); /* fails when anything else was left behind */
}

static void
write_file(const char *text, mode_t mode)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static void
key_file_is_made_once_and_private(void **state)
{
    (void)state;
    char first[PTIER_KEY_TEXT + 1], second[PTIER_KEY_TEXT + 1];
    ptier_error error;
    assert_int_equal(ptier_key_file(path, true, first, &error), PTIER_OK);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 07777, 0600);
    assert_int_equal(ptier_key_file(path, true, second, &error), PTIER_OK);
    assert_string_equal(first, second);
    assert_int_equal(ptier_key_file(path, false, second, &error), PTIER_OK);
    assert_string_equal(first, second);
    ptier_keyring_destroy(keyring_of(first, NULL));
}

static void
key_file_missing_is_not_found_unless_asked_for(void **state)
{
    (void)state;
    char key[PTIER_KEY_TEXT + 1];
    ptier_error error;
    assert_int_equal(ptier_key_file(path, false, key, &error), PTIER_NOT_FOUND);
    assert_non_null(strstr(error.message, path));
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(ptier_key_file("/nonexistent/key", true, key, &error), PTIER_NOT_FOUND);
}

static void
key_file_that_others_may_read_is_refused(void **state)
{
    (void)state;
    char key[PTIER_KEY_TEXT + 1];
    ptier_error error;
    write_file(SPEC_KEY "\n", 0644);
    assert_int_equal(ptier_key_file(path, true, key, &error), PTIER_PERMISSION_DENIED);
    assert_non_null(strstr(error.message, "chmod 600"));
    write_file(SPEC_KEY "\n", 0400);
    assert_int_equal(ptier_key_file(path, true, key, &error), PTIER_OK);
    assert_string_equal(key, SPEC_KEY);
}

static void
key_file_with_anything_but_one_key_is_refused_and_kept(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "", "\n", "hunter2\n", SPEC_KEY "\n" OTHER_KEY "\n", " " SPEC_KEY, SPEC_KEY "x"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char key[PTIER_KEY_TEXT + 1];
        ptier_error error;
        write_file(bad[i], 0600);
        assert_int_equal(ptier_key_file(path, true, key, &error), PTIER_INVALID_ARGUMENT);
        assert_non_null(strstr(error.message, path));
        assert_null(strstr(error.message, "hunter2"));
        struct stat info;
        assert_int_equal(stat(path, &info), 0);
        assert_int_equal(info.st_size, strlen(bad[i]));
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(mkfifo(path, 0600), 0); /* must not hang */
    char key[PTIER_KEY_TEXT + 1];
    assert_int_equal(ptier_key_file(path, true, key, NULL), PTIER_INVALID_ARGUMENT);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keyring_opens_what_it_seals_at_every_length),
        cmocka_unit_test(keyring_opens_the_token_of_the_specification),
        cmocka_unit_test(keyring_refuses_a_token_with_any_character_changed),
        cmocka_unit_test(keyring_refuses_a_token_that_was_cut),
        cmocka_unit_test(keyring_seals_with_the_first_key_and_opens_with_all),
        cmocka_unit_test(keyring_says_which_key_made_a_token_or_a_check),
        cmocka_unit_test(keyring_check_notices_every_flipped_bit),
        cmocka_unit_test(keyring_names_a_bad_key_by_number_only),
        cmocka_unit_test(keyring_child_shares_no_iv_with_its_parent),
        cmocka_unit_test(keyring_serves_many_threads_at_once),
        cmocka_unit_test_setup_teardown(keyring_and_python_open_each_others_tokens, make_directory,
                                        remove_directory),
        cmocka_unit_test_setup_teardown(key_file_is_made_once_and_private, make_directory,
                                        remove_directory),
        cmocka_unit_test_setup_teardown(key_file_missing_is_not_found_unless_asked_for,
                                        make_directory, remove_directory),
        cmocka_unit_test_setup_teardown(key_file_that_others_may_read_is_refused, make_directory,
                                        remove_directory),
        cmocka_unit_test_setup_teardown(key_file_with_anything_but_one_key_is_refused_and_kept,
                                        make_directory, remove_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
