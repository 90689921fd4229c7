#include "hash.h"

#include <string.h>

#define XXH_INLINE_ALL /* a key is short: calling would cost as much as hashing */
#include <xxhash.h>

uint64_t
ptier_hash_bytes(const char *key, size_t length)
{
    return XXH3_64bits(key, length);
}

uint64_t
ptier_hash_key(const char *key)
{
    return ptier_hash_bytes(key, strlen(key));
}

uint64_t
ptier_hash_pair(uint64_t first, uint64_t second)
{
    uint8_t bytes[16];
    for (int i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(first >> (8 * i));
        bytes[8 + i] = (uint8_t)(second >> (8 * i));
    }
    return XXH3_64bits(bytes, sizeof bytes);
}
