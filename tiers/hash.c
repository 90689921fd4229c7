#include "hash.h"

#include <string.h>
#include <xxhash.h>

uint64_t
ptier_hash_key(const char *key)
{
    return XXH3_64bits(key, strlen(key));
}
