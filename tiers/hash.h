/* The 64-bit hash of a key, as indexes use it. Not unique: the full key is always compared.
 * Thread-safe. */
#ifndef PTIER_HASH_H
#define PTIER_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t ptier_hash_key(const char *key);

/* The same of a key whose length is known. */
uint64_t ptier_hash_bytes(const char *key, size_t length);

/* Two numbers, in this order, mixed into one. Stable: it is stored. */
uint64_t ptier_hash_pair(uint64_t first, uint64_t second);

#endif
