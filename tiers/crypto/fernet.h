/*
 * Fernet tokens (github.com/fernet/spec, version 0x80): AES-128-CBC, HMAC-SHA256, URL-safe base64.
 * One ptier_fernet is one key with its OpenSSL contexts ready for use; it lies in guarded memory.
 * Not thread-safe: keyring.c gives each thread its own.
 */
#ifndef PTIER_FERNET_H
#define PTIER_FERNET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/evp.h>
#include <openssl/sha.h>

#include <proxytier/status.h>

#define PTIER_FERNET_KEY_BYTES 32 /* 16 to sign, 16 to encrypt */
#define PTIER_FERNET_IV_BYTES  16

/* Algorithms fetched once: fetching costs more than a whole token. */
typedef struct ptier_fernet_algorithms {
    EVP_CIPHER *aes;
} ptier_fernet_algorithms;

typedef struct ptier_fernet {
    EVP_CIPHER_CTX *encrypt;
    EVP_CIPHER_CTX *decrypt;
    uint8_t chain[PTIER_FERNET_IV_BYTES]; /* the block that `encrypt` gave last */
    SHA256_CTX inner, outer; /* HMAC's two digests, which have taken in the key: as secret as it */
} ptier_fernet;

/* False: the crypto library failed; fini is fine on what there is then, and on a zeroed struct. */
PTIER_MUST_CHECK bool ptier_fernet_init(ptier_fernet *fernet,
                                        const ptier_fernet_algorithms *algorithms,
                                        const uint8_t key[PTIER_FERNET_KEY_BYTES]);
void ptier_fernet_fini(ptier_fernet *fernet);

/*
 * Writes PTIER_TOKEN_LENGTH(length) characters and a NUL. The IV must be random and used once.
 * time_s: Unix time. False: the crypto library failed.
 */
PTIER_MUST_CHECK bool ptier_fernet_seal(ptier_fernet *fernet,
                                        const uint8_t iv[PTIER_FERNET_IV_BYTES], uint64_t time_s,
                                        const void *plain, size_t length, char *token);

/* Whether this key signed the raw (base64-decoded) token. */
PTIER_MUST_CHECK bool ptier_fernet_signed(ptier_fernet *fernet, const uint8_t *raw, size_t length);

/*
 * Decrypts a raw token, that ptier_fernet_signed has vouched for, in place: the plain text moves to
 * the front and the rest is wiped. False: not a token after all.
 */
PTIER_MUST_CHECK bool ptier_fernet_open(ptier_fernet *fernet, uint8_t *raw, size_t length,
                                        size_t *plain_length);

#endif
