/*
 * The test vectors of the Fernet specification (github.com/fernet/spec: generate.json, verify.json,
 * invalid.json), all of version 0x80. All have the same key. Ours is a store and not a session: a
 * token's age does not matter, so that the two vectors that are invalid for their time alone open.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/evp.h>

#include "crypto/base64url.h"
#include "crypto/fernet.h"
#include "crypto/keyring.h"

#define SECRET "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="
#define GENERATED                                                                                  \
    "gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU" \
    "4IwqDA=="

static ptier_keyring *keyring;

static int
set_up(void **state)
{
    (void)state;
    const char *keys[] = {SECRET};
    ptier_error error;
    return ptier_keyring_create(keys, 1, &keyring, &error) ? -1 : 0;
}

static int
tear_down(void **state)
{
    (void)state;
    ptier_keyring_destroy(keyring);
    return 0;
}

static void
generate_json_hello_comes_out_to_the_character(void **state)
{
    (void)state;
    uint8_t key[PTIER_FERNET_KEY_BYTES + 1], iv[PTIER_FERNET_IV_BYTES];
    char token[PTIER_TOKEN_LENGTH(5) + 1];
    size_t length;
    ptier_fernet fernet = {0};
    ptier_fernet_algorithms algorithms = {
        .aes = EVP_CIPHER_fetch(NULL, "AES-128-CBC", NULL),
    };
    assert_true(ptier_base64_decode(SECRET, sizeof SECRET - 1, key, &length));
    assert_true(ptier_fernet_init(&fernet, &algorithms, key));
    for (size_t i = 0; i < sizeof iv; i++)
        iv[i] = (uint8_t)i;
    /* 1985-10-26T01:20:00-07:00 */
    assert_true(ptier_fernet_seal(&fernet, iv, 499162800, "hello", 5, token));
    assert_string_equal(token, GENERATED);
    ptier_fernet_fini(&fernet);
    EVP_CIPHER_free(algorithms.aes);
}

static void
expect_plain(const char *token, const char *expected)
{
    char plain[256];
    size_t length;
    assert_int_equal(
        ptier_keyring_open(keyring, token, strlen(token), plain, sizeof plain, &length), PTIER_OK);
    assert_int_equal(length, strlen(expected));
    assert_memory_equal(plain, expected, length);
}

static void
verify_json_hello_opens(void **state)
{
    (void)state;
    expect_plain(GENERATED, "hello");
}

static void
invalid_json_is_refused_for_all_but_its_age(void **state)
{
    (void)state;
    static const struct {
        const char *description, *token;
    } vectors[] = {
        {"incorrect mac", "gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-"
                          "fWPAl1-szkFVzXTuGb4hR8AKtwcaX1YdykQUFBQUFBQUFBQQ=="},
        {"too short", "gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPA=="},
        {"invalid base64", "%%%%%%%%%%%%%AECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-"
                           "fWPAl1-szkFVzXTuGb4hR8AKtwcaX1YdykRtfsH-p1YsUD2Q=="},
        {"payload size not multiple of block size",
         "gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-"
         "fWPOm73QeoCk9uGib28Xe5vz6oxq5nmxbx_v7mrfyudzUm"},
        {"payload padding error", "gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0ODz4LEpdELGQAad7aNEHbf-"
                                  "JkLPIpuiYRLQ3RtXatOYREu2FWke6CnJNYIbkuKNqOhw=="},
        {"incorrect IV (causes padding error)",
         "gAAAAAAdwJ6xBQECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-"
         "fWPAkLhFLHpGtDBRLRTZeUfWgHSv49TF2AUEZ1TIvcZjK1zQ=="},
        {"trailing characters after b64 padding", GENERATED "trailingdata"},
        {"invalid characters in b64",
         "*gAAAAAAdwJ6wAAECAwQFBgcI!CQoLDA0ODy021?cpGVWKZ_eEwC@GM4BLLF_"
         "5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA=="},
        {"invalid non-urlsafe characters in b64",
         "gAAAAAAdwJ6wAAEC/AwQFBgcICQoLDA0ODy+021cpGVWKZ_eEwCGM4BLLF_"
         "5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA=="},
    };
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        char plain[256];
        size_t length = 99;
        const char *token = vectors[i].token;
        if (ptier_keyring_open(keyring, token, strlen(token), plain, sizeof plain, &length) !=
                PTIER_DATA_LOSS ||
            length != 0)
            fail_msg("'%s' was not refused", vectors[i].description);
    }
}

/* Invalid there because the reader says when it is and how old a token may be; we say neither. */
static void
invalid_json_expired_and_far_future_open_since_age_does_not_matter(void **state)
{
    (void)state;
    /* "expired TTL": 90 s old where 60 s were allowed */
    expect_plain("gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-"
                 "fWPAl1-szkFVzXTuGb4hR8AKtwcaX1YdykRtfsH-p1YsUD2Q==",
                 "");
    /* "far-future TS (unacceptable clock skew)": 10 h ahead */
    expect_plain("gAAAAAAdwStRAAECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-"
                 "fWPAnja1xKYyhd-Y6mSkTOyTGJmw2Xc2a6kBd-iX9b_qXQcw==",
                 "");
}

/* Of version 129 the files have only a placeholder: so one of our own, rightly signed. */
static void
token_of_another_version_is_refused(void **state)
{
    (void)state;
    uint8_t key[PTIER_FERNET_KEY_BYTES + 1], raw[PTIER_BASE64_LENGTH(100)];
    char token[sizeof GENERATED];
    size_t length, written;
    assert_true(ptier_base64_decode(SECRET, sizeof SECRET - 1, key, &length));
    assert_true(ptier_base64_decode(GENERATED, sizeof GENERATED - 1, raw, &length));
    for (int version = 0x80; version <= 0x81; version++) {
        char plain[256];
        size_t opened;
        raw[0] = (uint8_t)version;
        assert_non_null(EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, key, 16, raw, length - 32,
                                  raw + length - 32, 32, &written));
        ptier_base64_encode(raw, length, token);
        assert_int_equal(
            ptier_keyring_open(keyring, token, sizeof token - 1, plain, sizeof plain, &opened),
            version == 0x80 ? PTIER_OK : PTIER_DATA_LOSS);
    }
}

/* In its own buffer, as tokens are made; OpenSSL writes the other alphabet. */
static void
base64_of_any_length_is_what_openssl_writes(void **state)
{
    (void)state;
    for (size_t length = 0; length <= 200; length++) {
        uint8_t bytes[200], expected[PTIER_BASE64_LENGTH(sizeof bytes) + 1], back[sizeof expected];
        char text[PTIER_BASE64_LENGTH(sizeof bytes)];
        size_t written = PTIER_BASE64_LENGTH(length), decoded;
        for (size_t i = 0; i < length; i++)
            bytes[i] = (uint8_t)(i * 167 + length * 59 + (i >> 2) * 3);
        assert_int_equal(EVP_EncodeBlock(expected, bytes, (int)length), written);
        for (size_t i = 0; i < written; i++)
            expected[i] = expected[i] == '+' ? '-' : expected[i] == '/' ? '_' : expected[i];
        memcpy(text + written - length, bytes, length);
        ptier_base64_encode((uint8_t *)text + written - length, length, text);
        assert_memory_equal(text, expected, written);
        assert_true(ptier_base64_decode(text, written, back, &decoded));
        assert_int_equal(decoded, length);
        assert_memory_equal(back, bytes, length);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(generate_json_hello_comes_out_to_the_character),
        TEST(verify_json_hello_opens),
        TEST(invalid_json_is_refused_for_all_but_its_age),
        TEST(token_of_another_version_is_refused),
        cmocka_unit_test(base64_of_any_length_is_what_openssl_writes),
        TEST(invalid_json_expired_and_far_future_open_since_age_does_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
