#include "fernet.h"

#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/params.h>

#include "base64url.h"
#include "keyring.h"

#define VERSION      0x80
#define BLOCK        16
#define SIGN_BYTES   16 /* of the key */
#define HEADER_BYTES (1 + 8 + PTIER_FERNET_IV_BYTES)
#define MAC_BYTES    32

bool
ptier_fernet_init(ptier_fernet *fernet, const ptier_fernet_algorithms *algorithms,
                  const uint8_t key[PTIER_FERNET_KEY_BYTES])
{
    fernet->encrypt = EVP_CIPHER_CTX_new();
    fernet->decrypt = EVP_CIPHER_CTX_new();
    fernet->hmac = EVP_MAC_CTX_new(algorithms->hmac);
    if (!fernet->encrypt || !fernet->decrypt || !fernet->hmac)
        return false;
    char digest[] = "SHA256";
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    const uint8_t *secret = key + SIGN_BYTES;
    return EVP_EncryptInit_ex2(fernet->encrypt, algorithms->aes, secret, NULL, NULL) &&
           EVP_DecryptInit_ex2(fernet->decrypt, algorithms->aes, secret, NULL, NULL) &&
           EVP_MAC_init(fernet->hmac, key, SIGN_BYTES, params);
}

void
ptier_fernet_fini(ptier_fernet *fernet)
{
    EVP_CIPHER_CTX_free(fernet->encrypt); /* these wipe their keys */
    EVP_CIPHER_CTX_free(fernet->decrypt);
    EVP_MAC_CTX_free(fernet->hmac);
    *fernet = (ptier_fernet){0};
}

static bool
sign(ptier_fernet *fernet, const uint8_t *raw, size_t length, uint8_t mac[MAC_BYTES])
{
    size_t written;
    return EVP_MAC_init(fernet->hmac, NULL, 0, NULL) && /* the same key again */
           EVP_MAC_update(fernet->hmac, raw, length) &&
           EVP_MAC_final(fernet->hmac, mac, &written, MAC_BYTES) && written == MAC_BYTES;
}

bool
ptier_fernet_seal(ptier_fernet *fernet, const uint8_t iv[PTIER_FERNET_IV_BYTES], uint64_t time_s,
                  const void *plain, size_t length, char *token)
{
    size_t cipher_bytes = (length / BLOCK + 1) * BLOCK;
    size_t raw_bytes = HEADER_BYTES + cipher_bytes + MAC_BYTES;
    size_t token_bytes = PTIER_BASE64_LENGTH(raw_bytes);
    uint8_t *raw = (uint8_t *)token + token_bytes - raw_bytes; /* see ptier_base64_encode */
    raw[0] = VERSION;
    for (int i = 0; i < 8; i++)
        raw[1 + i] = (uint8_t)(time_s >> (56 - 8 * i));
    memcpy(raw + 9, iv, PTIER_FERNET_IV_BYTES);
    uint8_t *cipher = raw + HEADER_BYTES;
    int first, last;
    if (!EVP_EncryptInit_ex2(fernet->encrypt, NULL, NULL, iv, NULL) ||
        !EVP_EncryptUpdate(fernet->encrypt, cipher, &first, plain, (int)length) ||
        !EVP_EncryptFinal_ex(fernet->encrypt, cipher + first, &last) ||
        (size_t)first + (size_t)last != cipher_bytes ||
        !sign(fernet, raw, HEADER_BYTES + cipher_bytes, cipher + cipher_bytes)) {
        token[0] = '\0';
        return false;
    }
    ptier_base64_encode(raw, raw_bytes, token);
    token[token_bytes] = '\0';
    return true;
}

bool
ptier_fernet_signed(ptier_fernet *fernet, const uint8_t *raw, size_t length)
{
    if (length < HEADER_BYTES + BLOCK + MAC_BYTES || raw[0] != VERSION)
        return false;
    uint8_t mac[MAC_BYTES];
    size_t body = length - MAC_BYTES;
    return sign(fernet, raw, body, mac) && CRYPTO_memcmp(mac, raw + body, MAC_BYTES) == 0;
}

bool
ptier_fernet_open(ptier_fernet *fernet, uint8_t *raw, size_t length, size_t *plain_length)
{
    uint8_t *cipher = raw + HEADER_BYTES;
    int first = 0, last = 0;
    bool ok = length >= HEADER_BYTES + BLOCK + MAC_BYTES &&
              EVP_DecryptInit_ex2(fernet->decrypt, NULL, NULL, raw + 9, NULL) &&
              EVP_DecryptUpdate(fernet->decrypt, cipher, &first, cipher,
                                (int)(length - HEADER_BYTES - MAC_BYTES)) &&
              EVP_DecryptFinal_ex(fernet->decrypt, cipher + first, &last);
    size_t plain = ok ? (size_t)first + (size_t)last : 0;
    memmove(raw, cipher, plain);
    OPENSSL_cleanse(raw + plain, length - plain);
    *plain_length = plain;
    return ok;
}
