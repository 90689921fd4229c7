/*
 * L2: recent and demoted records in append-only JSON-lines shards, which at the same time are L3's
 * log. Shards follow each other in time (shard_00000001.jsonl, ...): one write and one fsync serve
 * a whole group of changes, and a shard is only ever appended to, read, or deleted once what lives
 * in it has been copied to the newest one.
 */
#ifndef PTIER_L2_JSONL_H
#define PTIER_L2_JSONL_H

#include <proxytier/cache.h>

#include "clock.h"
#include "crypto/keyring.h"
#include "tier.h"

typedef struct ptier_l2_options {
    const char *directory;
    uint64_t capacity;                     /* resident records; 0 unlimited */
    uint64_t shard_bytes;                  /* a shard that is this long is followed by a new one */
    ptier_keyring *keyring;                /* borrowed until close */
    uint64_t (*hash_key)(const char *key); /* as the cache hashes keys (lines do not store it);
                                              NULL: ptier_hash_key */
    const ptier_clock *clock;              /* borrowed until close */
    ptier_log_fn on_log;                   /* may be NULL */
    void *log_context;
} ptier_l2_options;

PTIER_MUST_CHECK ptier_status ptier_l2_open(const ptier_l2_options *options, ptier_tier **tier,
                                            ptier_error *error);

/*
 * Start-up, once, right after open (with prefix UINT64_MAX when there is no L3): hands out in
 * revision order the changes with a revision above `prefix` (each key's newest; entries and tokens
 * are borrowed for the callback), so that L3 and the index can catch up.
 */
typedef bool (*ptier_l2_replay_fn)(void *context, const ptier_op *op);
PTIER_MUST_CHECK ptier_status ptier_l2_replay(ptier_tier *tier, uint64_t prefix,
                                              ptier_l2_replay_fn fn, void *context,
                                              ptier_error *error);

/*
 * Start-up, after replay: forgets resident records whose revision is no longer the current one of
 * their key (they were overwritten or removed while their line stayed behind).
 */
typedef bool (*ptier_l2_current_fn)(void *context, uint64_t hash, uint64_t revision);
void ptier_l2_cull(ptier_tier *tier, ptier_l2_current_fn is_current, void *context);

/* Highest revision in any line. */
uint64_t ptier_l2_last_revision(const ptier_tier *tier);

/* Makes an entry resident again whose line is gone or was never there (demotion from L1). Writer
 * only. */
PTIER_MUST_CHECK ptier_status ptier_l2_admit(ptier_tier *tier, const ptier_op *op,
                                             ptier_error *error);

/*
 * Lines with a revision up to this one are no longer needed for L3 (UINT64_MAX: there is no L3, L2
 * is the lowest tier). 0 after open.
 */
void ptier_l2_release_log(ptier_tier *tier, uint64_t synced_prefix);

/* Gives up every resident record (L3 has them all, or will have from the log). Returns how many. */
uint64_t ptier_l2_evict_all(ptier_tier *tier);

/* Whether a record is resident (its line may be read). Never blocks. */
bool ptier_l2_resident(ptier_tier *tier, uint64_t hash, uint64_t revision);

/* Copies what lives in the oldest shard to the newest and deletes it, when enough of the files is
 * dead. Writer only. */
PTIER_MUST_CHECK ptier_status ptier_l2_compact(ptier_tier *tier, bool *worked, ptier_error *error);

#endif
