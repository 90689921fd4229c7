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
    int busy_timeout_ms;      /* how long another program's lock is waited for; 0: 5,000 */
    ptier_keyring *keyring;   /* borrowed until close */
    const ptier_clock *clock; /* borrowed until close */
    uint64_t (*hash_key)(const char *key); /* as the cache hashes keys; NULL: ptier_hash_key */
    ptier_log_fn on_log;                   /* may be NULL */
    void *log_context;
} ptier_l3_options;

/*
 * Opens the file, or makes it. A damaged one is opened as well, as far as it can be read: see
 * ptier_l3_condition. FAILED_PRECONDITION: another program's file, a newer version, another key (it
 * needs every key that wrote to it since all of it was last encrypted anew); PERMISSION_DENIED,
 * UNAVAILABLE (another program's lock, too), RESOURCE_EXHAUSTED: the file system.
 */
PTIER_MUST_CHECK ptier_status ptier_l3_open(const ptier_l3_options *options, ptier_tier **tier,
                                            ptier_error *error);

typedef enum ptier_l3_condition {
    PTIER_L3_SOUND,   /* as far as is known */
    PTIER_L3_DAMAGED, /* SQLite or our own checks found damage in its structure: it may be read, as
                         far as that goes, and is not written to any more (DATA_LOSS): rebuild it.
                         Reads do without the index on the hash, and remember the place of each row
                         (16 bytes) */
    PTIER_L3_MOVED,   /* the file under the path, or its log, is not the one we have open: it was
                         deleted or replaced. Ours can still be read, and is not written to any
                         more (UNAVAILABLE); rebuild it */
} ptier_l3_condition;

/* What is known so far; reads, writes and scans may find damage at any time. Any thread. */
ptier_l3_condition ptier_l3_condition_of(const ptier_tier *tier);

/* Looks whether the path still leads to the file that is open (two stat calls; each write does
 * too). Any thread. */
ptier_l3_condition ptier_l3_check_file(ptier_tier *tier);

/*
 * Closes all connections and opens them anew, after failures that may have been the system's. What
 * it found is in condition, prefix and count. When the file cannot be opened the old ones stay;
 * when that fails half-way, the tier answers UNAVAILABLE. Writer only; readers may go on meanwhile
 * and are never handed a closed connection.
 */
PTIER_MUST_CHECK ptier_status ptier_l3_reopen(ptier_tier *tier, ptier_error *error);

/*
 * The database knows its own sum: how many rows it has, and a sum over (hash, revision) of all of
 * them, changed in the same transactions as they are, under a keyed check together with the prefix.
 * So rows that vanished, came back or are older than they should be show in a scan.
 *
 * ptier_tier_ops.scan goes through all rows, past what cannot be read, and compares. Where it
 * differs the condition becomes DAMAGED. This is the same in pieces, while the writer may go on: at
 * most `limit` rows a call, and no transaction stays open between calls; done is set when all rows
 * were seen. What the writer changes between the calls is accounted for, so that the sum can be
 * compared at the end all the same. The caller knows those changes: rows that are
 * written behind the scan are not shown. Any one thread; fn must not call the tier. ABORTED:
 * another scan was begun, or the file opened anew: begin again.
 */
typedef struct ptier_l3_scan_state {
    uint64_t number; /* of the scan; zero the struct to begin one, which ends any other */
    int64_t last_row;
    uint64_t rows, skipped, sum;
    bool done;
} ptier_l3_scan_state;
PTIER_MUST_CHECK ptier_status ptier_l3_scan_some(ptier_tier *tier, ptier_l3_scan_state *scan,
                                                 size_t limit, ptier_scan_fn fn, void *context,
                                                 ptier_error *error);

/* All rows under a hash, by the index on it: usually none or one; not verified, as in a scan. Any
 * thread; blocks on the disk. */
PTIER_MUST_CHECK ptier_status ptier_l3_find_hash(ptier_tier *tier, uint64_t hash, ptier_scan_fn fn,
                                                 void *context);

/* The key of a record that get gave up with DATA_LOSS, if its text is still legible and its hash is
 * the right one. Any thread; blocks on the disk. */
bool ptier_l3_peek_key(ptier_tier *tier, uint64_t hash, uint64_t revision,
                       char key[PTIER_KEY_MAX + 1]);

/* ---- building a file from entries: rebuilds and backups ---- */

typedef struct ptier_l3_builder ptier_l3_builder;

/* Starts a new database at `path` (which must not exist). options: keyring, clock and log are used.
 */
PTIER_MUST_CHECK ptier_status ptier_l3_builder_create(const char *path,
                                                      const ptier_l3_options *options,
                                                      ptier_l3_builder **builder,
                                                      ptier_error *error);
/* Adds PUTs, in any order; of one key the one with the highest revision stays. After a failure only
 * abort is left. */
PTIER_MUST_CHECK ptier_status ptier_l3_builder_add(ptier_l3_builder *builder, const ptier_op *ops,
                                                   size_t count, ptier_error *error);
/* Sets the prefix, makes indexes, leaves one file without a WAL, fsynced. Frees the builder, also
 * on failure (the file is deleted then). */
PTIER_MUST_CHECK ptier_status ptier_l3_builder_finish(ptier_l3_builder *builder, uint64_t prefix,
                                                      ptier_error *error);
void ptier_l3_builder_abort(ptier_l3_builder *builder); /* deletes the file; NULL is fine */

/*
 * Takes a finished file into use: what is under the tier's path (with its -wal) moves to
 * `<path>.damaged-<n>` (keep_old) or is deleted, the new file moves in, durably, and all
 * connections change over. Readers of the old file finish first. Once the new file has the name
 * `<path>.adopt`, which is the first step, a failure or a crash takes nothing back: the next reopen
 * or open ends it (and keeps the old file). Writer only.
 */
PTIER_MUST_CHECK ptier_status ptier_l3_adopt(ptier_tier *tier, const char *new_path, bool keep_old,
                                             ptier_error *error);

/* ---- upkeep ---- */

/* Gives free pages back to the file system in small steps, when there are many. *more: it is worth
 * another call. Writer only. */
PTIER_MUST_CHECK ptier_status ptier_l3_shrink(ptier_tier *tier, bool *more, ptier_error *error);

/* Rotation of keys: rows that were made with another key than the first are written anew, at most
 * `limit` looked at, from *cursor on (0 starts; 0 afterwards: done). Writer only. */
PTIER_MUST_CHECK ptier_status ptier_l3_reencrypt(ptier_tier *tier, uint64_t *cursor, size_t limit,
                                                 uint64_t *rewritten, ptier_error *error);

/*
 * Puts a copy without free space in the file's place, durably: SQLite leaves what was deleted or
 * written anew in the gaps of its pages, and the log has it too. Takes as long as copying all of it
 * does, and that much room on the disk; readers go on. On failure the file is what it was, unless
 * the adoption had begun (see there). Ends scans in pieces. Writer only.
 */
PTIER_MUST_CHECK ptier_status ptier_l3_rewrite(ptier_tier *tier, ptier_error *error);

/*
 * The contiguous prefix: every change with a revision up to it is in the database (stored in the
 * same transaction as the changes, under a check; 0 when that is damaged). `synced`: the prefix
 * that survives power loss too (set by checkpoints and by apply with sync; 0 unless the file is
 * SOUND).
 */
uint64_t ptier_l3_prefix(const ptier_tier *tier);
uint64_t ptier_l3_synced_prefix(const ptier_tier *tier);

/*
 * The caller knows the key of every row, and so will the changes beyond this revision say what they
 * replace: of a key that is new no row is looked for, unless the prefix says that the change was
 * applied before. Holds until a write fails or the file is opened anew. Any thread.
 */
void ptier_l3_rows_known(ptier_tier *tier, uint64_t revision);

/* Records and usage figures that were found damaged since open. Any thread. */
uint64_t ptier_l3_damaged(const ptier_tier *tier);

/* Checkpoints the WAL when it is large (or `force`). Writer only. */
PTIER_MUST_CHECK ptier_status ptier_l3_checkpoint(ptier_tier *tier, bool force, ptier_error *error);

#endif
