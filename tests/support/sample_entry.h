/* Entries for tests of single tiers. */
#ifndef PTIER_TEST_SAMPLE_ENTRY_H
#define PTIER_TEST_SAMPLE_ENTRY_H

#include "entry_internal.h"

/* http://10.0.0.1:8080 of source "sample", without credentials, that never expires. Owned. */
ptier_entry *ptier_test_entry(const char *key, uint64_t hash, uint64_t revision);

/* The same with credentials; NULL: none. */
ptier_entry *ptier_test_entry_with(const char *key, uint64_t hash, uint64_t revision,
                                   const char *username, const char *password);

/* A seeded random number below `limit` (xorshift64*). */
uint64_t ptier_test_random(uint64_t *state, uint64_t limit);

#endif
