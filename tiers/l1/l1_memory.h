/* L1: the hot entries, in memory. See tier.h for the contract; every function is thread-safe and
 * none blocks on I/O. */
#ifndef PTIER_L1_MEMORY_H
#define PTIER_L1_MEMORY_H

#include <proxytier/cache.h>

#include "tier.h"

#define PTIER_L1_BYTES_MIN (UINT64_C(1) << 20) /* the largest entry takes a 15th of it */

typedef struct ptier_l1_options {
    uint64_t capacity; /* entries; 0: as many as `bytes` allows */
    uint64_t bytes;    /* of memory, all included (what the tier's `bytes` says); 0: any */
    ptier_eviction eviction;
} ptier_l1_options;

/* INVALID_ARGUMENT: the message says which. */
PTIER_MUST_CHECK ptier_status ptier_l1_check(const ptier_l1_options *options, ptier_error *error);

PTIER_MUST_CHECK ptier_status ptier_l1_open(const ptier_l1_options *options, ptier_tier **tier,
                                            ptier_error *error);

typedef struct ptier_l1_key {
    uint64_t hash;
    const char *text;
    size_t length;
} ptier_l1_key;

typedef struct ptier_l1_found {
    ptier_entry *entry; /* owned; NULL: there is no such record */
    bool hit;           /* it has not expired; its use and the hit have been counted, in the entry
                           and in ptier_l1_hits. Else, where there is an entry, it may have expired,
                           and nothing has been counted yet */
} ptier_l1_found;

/* A read of the cache; `look`: of just now. */
ptier_l1_found ptier_l1_read(ptier_tier *tier, ptier_look look, const ptier_l1_key *key);

#define PTIER_L1_BATCH 128

/* The same for up to PTIER_L1_BATCH keys, in their order within each shard: each shard's lock is
 * taken once, and what they wait for in memory is fetched side by side. */
void ptier_l1_read_many(ptier_tier *tier, ptier_look look, const ptier_l1_key *keys, size_t count,
                        ptier_l1_found *found);

/* Uses of an entry that no such read has counted; whether it is here or not. */
void ptier_l1_count_uses(ptier_tier *tier, ptier_entry *entry, uint32_t count, int64_t last_ms);

/* Since open. */
uint64_t ptier_l1_hits(ptier_tier *tier);

/*
 * `victim` and `drop` in one: over a bound takes what is next in the order out, and gives its
 * reference to the caller. NULL: nothing has to go.
 */
ptier_entry *ptier_l1_evict(ptier_tier *tier);

/* From this size on its memory is moved to huge pages. */
#define PTIER_L1_HUGE_FROM (UINT64_C(32) << 20)

/*
 * A step of that, every now and then, by one thread: one block of 2 MiB at most, which takes some
 * ms of that thread; who reads an entry in the block waits meanwhile. Addresses stay.
 */
void ptier_l1_gather(ptier_tier *tier);

#endif
