/* SHA256_Init and its kin are the only digest functions of OpenSSL that cannot fail and cost no
 * look-up of a provider. */
#define OPENSSL_API_COMPAT 0x10101000L
#include <proxytier/import.h>

#include <openssl/sha.h>

void
ptier_key_derive(const char *url, const char *username, bool full, char key[65])
{
    static const char digits[] = "0123456789abcdef";
    const char *host = strstr(url, "://");
    unsigned char digest[SHA256_DIGEST_LENGTH];
    SHA256_CTX sha;
    SHA256_Init(&sha);
    if (host && username && *username) {
        host += 3;
        SHA256_Update(&sha, url, (size_t)(host - url));
        SHA256_Update(&sha, username, strlen(username));
        SHA256_Update(&sha, "@", 1);
        SHA256_Update(&sha, host, strlen(host));
    } else {
        SHA256_Update(&sha, url, strlen(url));
    }
    SHA256_Final(digest, &sha);
    size_t bytes = full ? sizeof digest : 8;
    for (size_t i = 0; i < bytes; i++) {
        key[2 * i] = digits[digest[i] >> 4];
        key[2 * i + 1] = digits[digest[i] & 15];
    }
    key[2 * bytes] = '\0';
}
