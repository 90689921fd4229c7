/* L1: the hot entries, in memory. See tier.h for the contract; every function is thread-safe and
 * none blocks on I/O. */
#ifndef PTIER_L1_MEMORY_H
#define PTIER_L1_MEMORY_H

#include "tier.h"

typedef struct ptier_l1_options {
    uint64_t capacity; /* entries; at least 1 */
} ptier_l1_options;

PTIER_MUST_CHECK ptier_status ptier_l1_open(const ptier_l1_options *options, ptier_tier **tier,
                                            ptier_error *error);

#endif
