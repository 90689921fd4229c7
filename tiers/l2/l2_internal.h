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
    uint64_t size;
    bool unsynced; /* written since the last fdatasync; writer only */
} l2_shard;

/* Opens shard `number`, made (0600, durably) with `create`. */
PTIER_MUST_CHECK ptier_status l2_shard_open(const char *directory, uint32_t number, bool create,
                                            l2_shard **shard, ptier_error *error);
l2_shard *l2_shard_retain(l2_shard *shard);
void l2_shard_release(l2_shard *shard);

/* Appends all or nothing (a partial write is cut off again). */
PTIER_MUST_CHECK ptier_status l2_shard_append(l2_shard *shard, const void *data, size_t length,
                                              ptier_error *error);
PTIER_MUST_CHECK ptier_status l2_shard_sync(l2_shard *shard, ptier_error *error);

/* Reads exactly `length` bytes. DATA_LOSS: the file is shorter; UNAVAILABLE: the read failed. */
PTIER_MUST_CHECK ptier_status l2_shard_read(const l2_shard *shard, uint64_t offset, void *data,
                                            size_t length);

/* Deletes the file, durably. The descriptor stays until the last reference goes. */
PTIER_MUST_CHECK ptier_status l2_shard_unlink(const char *directory, const l2_shard *shard,
                                              ptier_error *error);

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

typedef struct l2_tier {
    ptier_tier tier;
    ptier_l2_options options; /* directory is our copy */

    pthread_mutex_t lock; /* guards everything below up to the blank line; never held across I/O */
    ptier_map map;
    l2_node *newest, *oldest;
    l2_node *log_newest, *log_oldest;
    uint64_t residents;
    uint64_t live_bytes;
    uint64_t total_bytes;
    uint64_t floor;  /* revisions up to it are safe in L3 */
    bool recovering; /* until ptier_l2_replay: the floor is not known yet, every node stays */
    uint64_t damaged;
    l2_shard **shards; /* oldest first; the last one is appended to */
    size_t shard_count, shard_room;

    /* Writer only. */
    ptier_buffer buffer;
    uint64_t last_revision;
    uint64_t compact_at; /* offset in the oldest shard up to which it has been copied */
} l2_tier;

/* All with the lock held. */
l2_node *l2_find_locked(l2_tier *l2, uint64_t hash,
                        uint64_t revision); /* exact revision; NULL: none */
PTIER_MUST_CHECK bool l2_install_locked(l2_tier *l2, const ptier_op *op, l2_shard *shard,
                                        uint64_t offset, size_t length);
void l2_evict_locked(l2_tier *l2, l2_node *node);  /* no longer resident */
void l2_forget_locked(l2_tier *l2, l2_node *node); /* no longer anything */
void l2_use_locked(l2_tier *l2, l2_node *node);    /* most recently used */
void l2_release_log_locked(l2_tier *l2, uint64_t floor);
PTIER_MUST_CHECK bool l2_end_recovery_locked(l2_tier *l2,
                                             uint64_t floor); /* false: out of memory */

static inline ptier_l2_reader
l2_reader(const l2_tier *l2, bool decrypt)
{
    return (ptier_l2_reader){l2->options.clock, l2->options.keyring, l2->options.hash_key, decrypt};
}

/* Reads and parses one line. Without the lock. */
PTIER_MUST_CHECK ptier_status l2_read_line(const l2_tier *l2, const l2_shard *shard,
                                           uint64_t offset, size_t length, bool decrypt,
                                           ptier_l2_line *line);

/* Makes the next shard when the present one is full. Writer only. */
PTIER_MUST_CHECK ptier_status l2_roll(l2_tier *l2, size_t more, bool force, ptier_error *error);

/* Reads all shards into the table. Before the tier is published. */
PTIER_MUST_CHECK ptier_status l2_recover(l2_tier *l2, ptier_error *error);

PTIER_PRINTF(4, 5)
void l2_log(const l2_tier *l2, ptier_log_level level, const char *event, const char *format, ...);

#endif
