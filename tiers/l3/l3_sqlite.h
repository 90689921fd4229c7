/*
 * L3: the whole cache in one SQLite file. One connection writes and checkpoints; a few read. See
 * tier.h for the contract.
 */
#ifndef PTIER_L3_SQLITE_H
#define PTIER_L3_SQLITE_H

#include <proxytier/cache.h>

#include "clock.h"
#include "crypto/keyring.h"
#include "tier.h"

typedef struct ptier_l3_options {
    const char *path;         /* of the database file */
    uint64_t capacity;        /* records; 0 unlimited */
    ptier_keyring *keyring;   /* borrowed until close */
    const ptier_clock *clock; /* borrowed until close */
    ptier_log_fn on_log;      /* may be NULL */
    void *log_context;
} ptier_l3_options;

PTIER_MUST_CHECK ptier_status ptier_l3_open(const ptier_l3_options *options, ptier_tier **tier,
                                            ptier_error *error);

/*
 * The contiguous prefix: every change with a revision up to it is in the database (stored in the
 * same transaction as the changes). `synced`: the prefix that survives power loss too (set by
 * checkpoints and by apply with sync).
 */
uint64_t ptier_l3_prefix(const ptier_tier *tier);
uint64_t ptier_l3_synced_prefix(const ptier_tier *tier);

/* Records and usage figures that were found damaged since open. Any thread. */
uint64_t ptier_l3_damaged(const ptier_tier *tier);

/* Checkpoints the WAL when it is large (or `force`). Writer only. */
PTIER_MUST_CHECK ptier_status ptier_l3_checkpoint(ptier_tier *tier, bool force, ptier_error *error);

#endif
