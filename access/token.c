/* See token.h. */
#include "token.h"

#include <string.h>

#include <openssl/evp.h>
#include <openssl/rand.h>

#define PREFIX      "ptk_"
#define TOKEN_BYTES 32

ptier_status
ptier_token_make(char token[PTIER_TOKEN_TEXT + 1], ptier_error *error)
{
    unsigned char bytes[TOKEN_BYTES], encoded[PTIER_TOKEN_TEXT + 1];
    if (RAND_priv_bytes(bytes, sizeof bytes) != 1)
        return ptier_fail(error, PTIER_INTERNAL, "the system gives no random bytes");
    (void)EVP_EncodeBlock(encoded, bytes, sizeof bytes); /* 43 characters and one of padding */
    memcpy(token, PREFIX, strlen(PREFIX));
    for (size_t i = strlen(PREFIX); i < PTIER_TOKEN_TEXT; i++) {
        char c = (char)encoded[i - strlen(PREFIX)];
        token[i] = c == '+' ? '-' : c == '/' ? '_' : c;
    }
    token[PTIER_TOKEN_TEXT] = '\0';
    explicit_bzero(bytes, sizeof bytes);
    explicit_bzero(encoded, sizeof encoded);
    return PTIER_OK;
}

bool
ptier_token_hash(const char *token, uint8_t hash[PTIER_TOKEN_HASH])
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    unsigned length = 0;
    if (strlen(token) != PTIER_TOKEN_TEXT || strncmp(token, PREFIX, strlen(PREFIX)) != 0 ||
        strspn(token + strlen(PREFIX), digits) != PTIER_TOKEN_TEXT - strlen(PREFIX))
        return false;
    return EVP_Digest(token, PTIER_TOKEN_TEXT, hash, &length, EVP_sha256(), NULL) == 1 &&
           length == PTIER_TOKEN_HASH;
}
