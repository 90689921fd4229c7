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
    /* Kept allocated beyond the end of the newest shard, so that removals can be written to a full
     * disk: apply refuses groups with a put before they would touch it (RESOURCE_EXHAUSTED). Where
     * the file system cannot allocate in advance, nothing is kept. */
    uint64_t removal_reserve;
} ptier_l2_options;

PTIER_MUST_CHECK ptier_status ptier_l2_open(const ptier_l2_options *options, ptier_tier **tier,
                                            ptier_error *error);

/* ---- what the files said, at open ---- */

/*
 * Every shard begins with a line that names it: its number, the length its predecessor had when it
 * was followed by this one, the highest revision in any line before it, and which shard was the
 * oldest. So a shard that is missing, cut, exchanged or an older copy of itself shows; only what
 * the last shard ought to be nobody but the cache knows. Shards from before there were such lines
 * are read like others, and tell nothing.
 */
typedef struct ptier_l2_found {
    uint32_t first_shard, last_shard; /* 0: there was none */
    uint64_t last_shard_bytes;        /* of whole lines, before open cut a torn one off its end */
    uint64_t last_revision;           /* highest in any sound line, or before it as a shard's first
                                         line says */
    uint64_t damaged; /* lines that are not as they were written, shards that are missing or not
                         as long as their successor says or in the place of another; the torn
                         end of the last shard is none of them. The same at each open until
                         compaction has written all anew, which it does at once then. */
    /* No change with a higher revision was in what is damaged: the next sound shard's first line
     * says so. 0: nothing is damaged; UINT64_MAX: in the last shard, where only the cache can
     * know, or with none but old shards behind it. */
    uint64_t damaged_to;
    /* There are whole lines, and none of our keys made any of them: files and lines are left as
     * they are (never cut, never compacted) unless ptier_l2_restart is called; changes go to a new
     * shard. */
    bool unverified;
} ptier_l2_found;
void ptier_l2_found_at_open(const ptier_tier *tier, ptier_l2_found *found);

/* Where the newest shard ends now. Writer only. */
void ptier_l2_position(const ptier_tier *tier, uint32_t *first_shard, uint32_t *last_shard,
                       uint64_t *last_shard_bytes);

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

/* Highest revision in any line, or before it as a shard's first line says. */
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

/*
 * The log, for L3 when it is behind: each key's newest change with a revision above `after`, in
 * revision order, at most `limit` (entries and tokens borrowed for the callback, which may retain
 * them; `replaces` is 0, since the states between are left out). A change whose line cannot be read
 * is left out: *lost counts those (the tier forgets them; ptier_l2_peek_key may know the key). Any
 * thread; no lock is held across the reading. *more: there may be further ones above the last that
 * was handed out.
 */
PTIER_MUST_CHECK ptier_status ptier_l2_read_log(ptier_tier *tier, uint64_t after, size_t limit,
                                                ptier_l2_replay_fn fn, void *context, bool *more,
                                                uint64_t *lost, ptier_error *error);

/* Bytes of the lines that L3 still needs. Never blocks. */
uint64_t ptier_l2_log_bytes(ptier_tier *tier);

/*
 * After the tier could not do its work: makes the directory if it is gone, and goes on in a new
 * shard. What was readable before stays so; all that lives in the older shards is copied to the new
 * ones by and by (ptier_l2_compact), and the old files go. What could not be synced is copied here,
 * so that the next sync counts for it, too. Files in the place of shards that are not ours are
 * renamed (.aside). Writer only.
 *
 * Until then apply fails once the newest shard was deleted, moved, changed by others, or not
 * synced. The probe fails for the first three once, and from then on says whether a resume will do.
 */
PTIER_MUST_CHECK ptier_status ptier_l2_resume(ptier_tier *tier, ptier_error *error);

/* Forgets every record and deletes every shard: what is in them counts for nothing. Writer only. */
PTIER_MUST_CHECK ptier_status ptier_l2_restart(ptier_tier *tier, ptier_error *error);

/*
 * Rotation of keys, in small steps: lines that were made with another key than the first are
 * written anew with the first, until none is left in any file. *done: that is so. Start with
 * `begin`: what was sealed with an older key has to be applied before it. Begun again (after a
 * restart, say), it does all of it again. ptier_l2_compact does a part of the work as well. Writer
 * only.
 */
PTIER_MUST_CHECK ptier_status ptier_l2_reencrypt(ptier_tier *tier, bool begin, bool *done,
                                                 ptier_error *error);

/* Lines found damaged after open (those before are in ptier_l2_found). Any thread. */
uint64_t ptier_l2_damaged(ptier_tier *tier);

/* The latest change whose line was found damaged after open while L3 needed it, by whomever; 0:
 * none. From a prefix below it the log alone does not bring L3 up to date. Any thread. */
uint64_t ptier_l2_log_lost_to(ptier_tier *tier);

/* The key of a record whose line was found damaged after open (get said DATA_LOSS, read_log counted
 * it as lost, or compaction could not copy it), if its text is still legible: its hash says whether
 * it is the right one. The last 64 are kept. Any thread. */
bool ptier_l2_peek_key(ptier_tier *tier, uint64_t hash, uint64_t revision,
                       char key[PTIER_KEY_MAX + 1]);

/* Gives up every resident record (L3 has them all, or will have from the log). Returns how many. */
uint64_t ptier_l2_evict_all(ptier_tier *tier);

/* Gives up what is beyond the capacity, the least recently used first. Returns how many. */
uint64_t ptier_l2_shrink(ptier_tier *tier);

/* What is resident now; *refs is malloc'ed. Any thread. */
PTIER_MUST_CHECK ptier_status ptier_l2_residents(ptier_tier *tier, ptier_ref **refs, size_t *count,
                                                 ptier_error *error);

/* Whether a record is resident (its line may be read). Never blocks. */
bool ptier_l2_resident(ptier_tier *tier, uint64_t hash, uint64_t revision);

/* Copies what lives in the oldest shard to the newest and deletes it, in small steps, when enough
 * of the files is dead, and after a resume, a rotation of keys or damage. What cannot be copied
 * because it is damaged is dropped and counted. Writer only. */
PTIER_MUST_CHECK ptier_status ptier_l2_compact(ptier_tier *tier, bool *worked, ptier_error *error);

#endif
