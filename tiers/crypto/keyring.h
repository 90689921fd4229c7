/*
 * The cache's keys: Fernet tokens for credentials, keyed checks for records at rest.
 * Interchangeable with other Fernet implementations. Thread-safe: any thread may seal, open and
 * check at once. Key material is wiped on destroy.
 */
#ifndef PTIER_KEYRING_H
#define PTIER_KEYRING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <proxytier/status.h>

typedef struct ptier_keyring ptier_keyring;

#define PTIER_KEY_TEXT    44 /* a Fernet key as text: URL-safe base64 of 32 bytes */
#define PTIER_CHECK_BYTES 8
#define PTIER_KEYS_MAX    16 /* of one keyring */

/* Length of the token for `plain` bytes, without a terminating NUL. */
#define PTIER_TOKEN_LENGTH(plain)                                                                  \
    ((((size_t)1 + 8 + 16 + ((plain) / 16 + 1) * 16 + 32) + 2) / 3 * 4)

/*
 * keys[0] encrypts, all decrypt. INVALID_ARGUMENT: a key that is not 44 characters of URL-safe
 * base64 of 32 bytes (the message says which one by number, never the key).
 */
PTIER_MUST_CHECK ptier_status ptier_keyring_create(const char *const *keys, size_t count,
                                                   ptier_keyring **keyring, ptier_error *error);
void ptier_keyring_destroy(ptier_keyring *keyring);

/* How many keys it was made of: more than one while data of an older key may be around. */
size_t ptier_keyring_count(const ptier_keyring *keyring);

/* Writes a NUL-terminated token of PTIER_TOKEN_LENGTH(length) characters. INTERNAL: the crypto
 * library failed. */
PTIER_MUST_CHECK ptier_status ptier_keyring_seal(ptier_keyring *keyring, const void *plain,
                                                 size_t length, char *token);

/*
 * Decrypts a token with whichever key made it. `plain` has `room` bytes, at least 3/4 of
 * token_length; *length is set; no terminating NUL is written. DATA_LOSS: no key of ours made it,
 * or it was altered. The token's age does not matter.
 */
PTIER_MUST_CHECK ptier_status ptier_keyring_open(ptier_keyring *keyring, const char *token,
                                                 size_t token_length, void *plain, size_t room,
                                                 size_t *length);

/* The same, and *which: the index of the key that made the token (0: the one that seals now), -1
 * unless OK. */
PTIER_MUST_CHECK ptier_status ptier_keyring_open_which(ptier_keyring *keyring, const char *token,
                                                       size_t token_length, void *plain,
                                                       size_t room, size_t *length, int *which);

/* A keyed check over bytes (a MAC, key derived from keys[0]). */
PTIER_MUST_CHECK ptier_status ptier_keyring_check(ptier_keyring *keyring, const void *data,
                                                  size_t length, uint8_t check[PTIER_CHECK_BYTES]);

/* Whether the check was made over these bytes with one of our keys. */
PTIER_MUST_CHECK bool ptier_keyring_verify(ptier_keyring *keyring, const void *data, size_t length,
                                           const uint8_t check[PTIER_CHECK_BYTES]);

/* Index of the key that made the check over these bytes (0: the present one); -1: none of ours. */
PTIER_MUST_CHECK int ptier_keyring_verify_which(ptier_keyring *keyring, const void *data,
                                                size_t length,
                                                const uint8_t check[PTIER_CHECK_BYTES]);

/* A new random key. */
PTIER_MUST_CHECK ptier_status ptier_key_generate(char key[PTIER_KEY_TEXT + 1]);

/*
 * Reads a key file (one line; mode must not let others read). With `create` a missing file is made,
 * 0600, durably. PERMISSION_DENIED, NOT_FOUND, INVALID_ARGUMENT: the message names the file and the
 * cure.
 */
PTIER_MUST_CHECK ptier_status ptier_key_file(const char *path, bool create,
                                             char key[PTIER_KEY_TEXT + 1], ptier_error *error);

/* Keys as text. Whoever fills one wipes it. */
typedef struct ptier_key_list {
    size_t count;
    char keys[PTIER_KEYS_MAX][PTIER_KEY_TEXT + 1];
} ptier_key_list;

/*
 * Reads a credential as systemd hands it over: keys one a line or separated by commas; the file
 * is root's or the user's own, and its group may read it. Same errors; on failure the list is
 * wiped.
 */
PTIER_MUST_CHECK ptier_status ptier_key_credential(const char *path, ptier_key_list *list,
                                                   ptier_error *error);

#endif
