/*
 * HMAC is put together here of two digests that are copied, not made: OpenSSL's own costs as much
 * again as the digests, for contexts and parameters. SHA256_Init and its kin cannot fail.
 */
#define OPENSSL_API_COMPAT 0x10101000L
#include "fernet.h"

#include <string.h>

#include <openssl/crypto.h>

#include "base64url.h"
#include "keyring.h"

#define VERSION      0x80
#define BLOCK        16
#define SIGN_BYTES   16 /* of the key */
#define HEADER_BYTES (1 + 8 + PTIER_FERNET_IV_BYTES)
#define MAC_BYTES    SHA256_DIGEST_LENGTH
#define INNER_PAD    0x36
#define OUTER_PAD    0x5c

static void
take_padded(SHA256_CTX *digest, const uint8_t *key, uint8_t pad)
{
    uint8_t block[SHA256_CBLOCK];
    memset(block, pad, sizeof block);
    for (size_t i = 0; i < SIGN_BYTES; i++)
        block[i] ^= key[i];
    SHA256_Init(digest);
    SHA256_Update(digest, block, sizeof block);
    OPENSSL_cleanse(block, sizeof block);
}

bool
ptier_fernet_init(ptier_fernet *fernet, const ptier_fernet_algorithms *algorithms,
                  const uint8_t key[PTIER_FERNET_KEY_BYTES])
{
    fernet->encrypt = EVP_CIPHER_CTX_new();
    fernet->decrypt = EVP_CIPHER_CTX_new();
    if (!fernet->encrypt || !fernet->decrypt)
        return false;
    take_padded(&fernet->inner, key, INNER_PAD);
    take_padded(&fernet->outer, key, OUTER_PAD);
    const uint8_t *secret = key + SIGN_BYTES, first[BLOCK] = {0};
    memcpy(fernet->chain, first, sizeof fernet->chain);
    return EVP_EncryptInit_ex2(fernet->encrypt, algorithms->aes, secret, first, NULL) &&
           EVP_CIPHER_CTX_set_padding(fernet->encrypt, 0) &&
           EVP_DecryptInit_ex2(fernet->decrypt, algorithms->aes, secret, NULL, NULL);
}

void
ptier_fernet_fini(ptier_fernet *fernet)
{
    EVP_CIPHER_CTX_free(fernet->encrypt); /* these wipe their keys */
    EVP_CIPHER_CTX_free(fernet->decrypt);
    OPENSSL_cleanse(fernet, sizeof *fernet);
}

static void
sign(const ptier_fernet *fernet, const uint8_t *raw, size_t length, uint8_t mac[MAC_BYTES])
{
    SHA256_CTX digest = fernet->inner;
    SHA256_Update(&digest, raw, length);
    SHA256_Final(mac, &digest);
    digest = fernet->outer;
    SHA256_Update(&digest, mac, MAC_BYTES);
    SHA256_Final(mac, &digest);
    OPENSSL_cleanse(&digest, sizeof digest);
}

/*
 * CBC over whole blocks, in place. The context goes on behind the block that it encrypted last:
 * with that taken out of the first block, and the IV put in, the outcome is what a context that
 * begins with the IV gives, without the calls that set one.
 */
static bool
encrypt(ptier_fernet *fernet, const uint8_t iv[PTIER_FERNET_IV_BYTES], uint8_t *blocks,
        size_t length)
{
    static const uint8_t anew[BLOCK];
    int written;
    for (int i = 0; i < BLOCK; i++)
        blocks[i] ^= (uint8_t)(iv[i] ^ fernet->chain[i]);
    bool ok = EVP_EncryptUpdate(fernet->encrypt, blocks, &written, blocks, (int)length) &&
              (size_t)written == length;
    if (ok) {
        memcpy(fernet->chain, blocks + length - BLOCK, sizeof fernet->chain);
        return true;
    }
    OPENSSL_cleanse(blocks, length);
    memcpy(fernet->chain, anew, sizeof fernet->chain);
    (void)EVP_EncryptInit_ex2(fernet->encrypt, NULL, NULL, anew, NULL); /* or it fails again */
    return false;
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
    memcpy(cipher, plain, length);
    memset(cipher + length, (int)(cipher_bytes - length), cipher_bytes - length); /* PKCS #7 */
    if (!encrypt(fernet, iv, cipher, cipher_bytes)) {
        token[0] = '\0';
        return false;
    }
    sign(fernet, raw, HEADER_BYTES + cipher_bytes, cipher + cipher_bytes);
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
    sign(fernet, raw, body, mac);
    return CRYPTO_memcmp(mac, raw + body, MAC_BYTES) == 0;
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
