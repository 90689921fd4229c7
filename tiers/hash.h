/* The 64-bit hash of a key, as indexes use it. Not unique: the full key is always compared.
 * Thread-safe. */
#ifndef PTIER_HASH_H
#define PTIER_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t ptier_hash_key(const char *key);

/* Two numbers, in this order, mixed into one. Stable: it is stored. */
uint64_t ptier_hash_pair(uint64_t first, uint64_t second);

#endif
