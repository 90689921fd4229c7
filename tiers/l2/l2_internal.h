/* For tiers/l2/ only: the inside of L2. */
#ifndef PTIER_L2_INTERNAL_H
#define PTIER_L2_INTERNAL_H

#include <pthread.h>

#include "buffer.h"
#include "l2/l2_jsonl.h"
#include "l2/l2_line.h"
#include "map.h"

/* ---- shards: files that are only appended to, read, or deleted ---- */

/* Reference-counted, so that a reader keeps its descriptor while the compaction deletes the file.
 */
typedef struct l2_shard {
    _Atomic uint32_t refs;
    uint32_t number;
    int fd;
    dev_t device; /* with inode: which file it is, whatever has its name by now */
    ino_t inode;

    uint64_t live; /* bytes of lines that nodes point at; guarded by the tier's lock */

    /* Writer only. */
    uint64_t size;
    uint64_t allocated; /* the disk has room for it up to here; UINT64_MAX: no telling */
    uint64_t stretched; /* not to be followed before it is so long: there was no room */
    uint64_t after;     /* what its header says; 0: there is none */
    uint32_t start;     /* length of the header, line break included */
    bool unsynced;      /* written since the last fdatasync */
    bool closed;        /* takes nothing more: what comes goes to the next one */
    bool failed;        /* nothing can be written or synced before ptier_l2_resume */
} l2_shard;

/* Opens shard `number`, made (0600, durably) with `create`. */
PTIER_MUST_CHECK ptier_status l2_shard_open(const char *directory, uint32_t number, bool create,
                                            l2_shard **shard, ptier_error *error);
l2_shard *l2_shard_retain(l2_shard *shard);
void l2_shard_release(l2_shard *shard);

/* UNAVAILABLE, and the shard has failed: its file was deleted, or is not as long as we left it. */
PTIER_MUST_CHECK ptier_status l2_shard_check(l2_shard *shard, ptier_error *error);

/* Whether the file is still where it would be looked for. */
bool l2_shard_in_place(const char *directory, const l2_shard *shard);

/* Makes sure that the disk has room for so much more. RESOURCE_EXHAUSTED: it has not. */
PTIER_MUST_CHECK ptier_status l2_shard_reserve(l2_shard *shard, uint64_t room, ptier_error *error);

/* Gives back room that was not used. */
void l2_shard_trim(l2_shard *shard);

/* Appends all or nothing (a partial write is cut off again). */
PTIER_MUST_CHECK ptier_status l2_shard_append(l2_shard *shard, const void *data, size_t length,
                                              ptier_error *error);
PTIER_MUST_CHECK ptier_status l2_shard_sync(l2_shard *shard, ptier_error *error);

/* Reads exactly `length` bytes. DATA_LOSS: the file is shorter; UNAVAILABLE: the read failed. */
PTIER_MUST_CHECK ptier_status l2_shard_read(const l2_shard *shard, uint64_t offset, void *data,
                                            size_t length);

/* The same, with zeros for what cannot be read. False: there is such. */
bool l2_shard_read_sound(const l2_shard *shard, uint64_t offset, char *data, size_t length);

/* Deletes the file, durably, unless another one has its name by now. The descriptor stays until the
 * last reference goes. */
PTIER_MUST_CHECK ptier_status l2_shard_unlink(const char *directory, const l2_shard *shard,
                                              ptier_error *error);

/* Renames what has the name of shard `number` and is none of ours. */
PTIER_MUST_CHECK ptier_status l2_shard_set_aside(const char *directory, uint32_t number,
                                                 ptier_error *error);

/* Durably; fine if it is there. */
PTIER_MUST_CHECK ptier_status l2_make_directory(const char *directory, ptier_error *error);

/* Numbers of the shards in a directory, ascending; *numbers is malloc'ed. Makes the directory when
 * missing. */
PTIER_MUST_CHECK ptier_status l2_shard_list(const char *directory, uint32_t **numbers,
                                            size_t *count, ptier_error *error);

/* ---- nodes: where the newest line of each key is ---- */

/*
 * A node exists while its line is needed: as a resident record, or because L3 has not safely
 * applied its revision yet (`logged`). A line is alive if and only if a node points at it.
 */
typedef struct l2_node {
    uint64_t hash;
    uint64_t revision;
    l2_shard *shard; /* borrowed from the tier's list: a shard with a node is never deleted */
    uint32_t offset;
    uint32_t length; /* without the line break */
    uint8_t kind;    /* ptier_op_kind */
    bool resident;
    bool logged;
    struct l2_node *newer, *older;         /* residents, by use */
    struct l2_node *log_newer, *log_older; /* logged, by revision */
} l2_node;

/* A damaged line's key, for ptier_l2_peek_key. */
typedef struct l2_lost {
    uint64_t hash;
    uint64_t revision; /* 0: unused */
    char key[PTIER_KEY_MAX + 1];
} l2_lost;

#define L2_LOST 64

typedef struct l2_tier {
    ptier_tier tier;
    ptier_l2_options options; /* directory is our copy */
    ptier_l2_found found;

    pthread_mutex_t lock; /* guards everything below up to the blank line; never held across I/O */
    ptier_map map;
    l2_node *newest, *oldest;
    l2_node *log_newest, *log_oldest;
    l2_node *log_cursor; /* where ptier_l2_read_log is; NULL: at the beginning */
    uint64_t residents;
    uint64_t live_bytes;
    uint64_t log_bytes;
    uint64_t total_bytes;
    uint64_t floor;  /* revisions up to it are safe in L3 */
    bool recovering; /* until ptier_l2_replay: the floor is not known yet, every node stays */
    uint64_t damaged;
    uint64_t log_lost_to;  /* the latest change that was damaged while the log needed it; 0: none */
    l2_lost lost[L2_LOST]; /* the latest ones, in a ring */
    size_t lost_next;
    l2_shard **shards; /* oldest first; the last one is appended to */
    size_t shard_count, shard_room;

    /* Writer only. */
    ptier_buffer buffer;
    uint64_t last_revision;
    uint64_t bound;      /* no line has a higher revision; UINT64_MAX: not known */
    uint64_t compact_at; /* offset in the oldest shard up to which it has been copied */
    uint32_t unreadable; /* times in a row that a part could not be read for copying */
    uint32_t copy_to;    /* shards up to this one are copied and deleted, however little is dead */
    uint32_t reseal_to;  /* those up to this one with fresh tokens and checks */
} l2_tier;

/* All with the lock held. */
l2_node *l2_find_locked(l2_tier *l2, uint64_t hash,
                        uint64_t revision); /* exact revision; NULL: none */
PTIER_MUST_CHECK bool l2_install_locked(l2_tier *l2, const ptier_op *op, l2_shard *shard,
                                        uint64_t offset, size_t length);
void l2_move_locked(l2_tier *l2, l2_node *node, l2_shard *shard, uint64_t offset,
                    size_t length);                /* its line has been copied */
void l2_evict_locked(l2_tier *l2, l2_node *node);  /* no longer resident */
void l2_forget_locked(l2_tier *l2, l2_node *node); /* no longer anything */
void l2_use_locked(l2_tier *l2, l2_node *node);    /* most recently used */
bool l2_release_log_locked(l2_tier *l2, uint64_t floor, size_t limit); /* true: there is more */
l2_node *l2_log_above_locked(l2_tier *l2, uint64_t revision); /* the first logged one above */
PTIER_MUST_CHECK bool l2_end_recovery_locked(l2_tier *l2,
                                             uint64_t floor); /* false: out of memory */

static inline ptier_l2_reader
l2_reader(const l2_tier *l2, bool decrypt)
{
    return (ptier_l2_reader){l2->options.clock, l2->options.keyring, l2->options.hash_key, decrypt,
                             true};
}

static inline l2_shard *
l2_newest_shard(const l2_tier *l2)
{
    return l2->shards[l2->shard_count - 1];
}

/* ---- l2_read.c ---- */

/* Where a node's line is, for reading it without the lock. */
typedef struct l2_place {
    uint64_t hash, revision;
    l2_shard *shard;
    uint32_t offset, length;
} l2_place;

static inline l2_place
l2_place_of(const l2_node *n)
{
    return (l2_place){n->hash, n->revision, n->shard, n->offset, n->length};
}

/* Reads and parses one line. Without the lock. */
PTIER_MUST_CHECK ptier_status l2_read_line(const l2_place *place, const ptier_l2_reader *reader,
                                           ptier_l2_line *line);

/* Forgets the node of a damaged line, counts it, and keeps its key if that is legible. False: no
 * node points at it any more. Without the lock; reads the line. */
bool l2_drop_damaged(l2_tier *l2, const l2_place *place);

ptier_status l2_get(ptier_tier *tier, const ptier_ref *ref, ptier_entry **entry);
ptier_status l2_scan(ptier_tier *tier, ptier_scan_fn fn, void *context, ptier_error *error);

/* ---- l2_append.c: writer only ---- */

/* Makes the shard behind the newest one, with its header, and room for `more` bytes. `alone`: those
 * before it count for nothing. */
PTIER_MUST_CHECK ptier_status l2_follow(l2_tier *l2, bool alone, size_t more, ptier_error *error);

/* UNAVAILABLE, and it has failed: it is not as we left it, or not where it would be looked for. */
PTIER_MUST_CHECK ptier_status l2_check_newest(l2_tier *l2, ptier_error *error);

/* Syncs the newest shard and makes the one behind it. */
PTIER_MUST_CHECK ptier_status l2_roll(l2_tier *l2, size_t more, ptier_error *error);

/* At the end of open: there is a newest shard, and it has a header. */
PTIER_MUST_CHECK ptier_status l2_begin(l2_tier *l2, ptier_error *error);

/*
 * Writes lines to the newest shard, or to the next one when it is full; in *base, where they begin.
 * The room kept for removals is used only with `reserved`. Nothing was written on failure.
 */
PTIER_MUST_CHECK ptier_status l2_append(l2_tier *l2, const char *data, size_t length, bool reserved,
                                        uint64_t *base, ptier_error *error);

/* What the header of the newest shard says, or is to say. `first`: the oldest shard needed. */
PTIER_MUST_CHECK ptier_status l2_header_text(const l2_tier *l2, const l2_shard *shard,
                                             uint32_t first, char text[PTIER_L2_HEADER_MAX],
                                             size_t *length);

ptier_status l2_apply(ptier_tier *tier, const ptier_op *ops, size_t count, bool sync,
                      ptier_error *error);

/* ---- the others ---- */

/* Copies the living lines of the next part of an older shard, from *at on. Writer only. */
PTIER_MUST_CHECK ptier_status l2_copy_part(l2_tier *l2, l2_shard *shard, uint64_t *at,
                                           ptier_error *error);

/* Drops what still points into a shard whose lines have been copied: those were damaged. */
void l2_drop_rest(l2_tier *l2, const l2_shard *shard);

ptier_status l2_probe(ptier_tier *tier, ptier_error *error);

/* Reads all shards into the table. Before the tier is published. */
PTIER_MUST_CHECK ptier_status l2_recover(l2_tier *l2, ptier_error *error);

PTIER_PRINTF(4, 5)
void l2_log(const l2_tier *l2, ptier_log_level level, const char *event, const char *format, ...);

#endif
