/*
 * The file `progress` of a data directory: how far the disk tiers are, as of now. It is written
 * over in place after every log group and every transaction of L3, one small pwrite that is not
 * synced: so it holds for as long as the kernel runs, through kill -9 too, and start-up sees when a
 * tier has less than it had. After a crash of the machine it counts for nothing (see recover.c).
 * Thread-safe.
 */
#ifndef PTIER_PROGRESS_H
#define PTIER_PROGRESS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <proxytier/status.h>

typedef struct ptier_progress {
    uint64_t logged;    /* L2 has every change up to it that is its to have */
    uint64_t log_from;  /* changes up to it may be gone from L2's log: L3 has them, synced, or
                           they are damaged, and L3 has to be made anew */
    uint64_t l3_prefix; /* L3 has committed everything up to it */
    uint32_t first_shard, last_shard; /* of L2 */
    uint64_t last_shard_bytes;
    uint32_t stale_below; /* shards with a lower number missed changes: without L3 they are no
                             truth; 0: none */
    bool memory_only;     /* there are changes that no tier has */
} ptier_progress;

typedef struct ptier_progress_file {
    pthread_mutex_t lock;
    int fd; /* -1: memory only, nothing is written */
    ptier_progress now;
} ptier_progress_file;

/* Storage without a file. */
void ptier_progress_init(ptier_progress_file *file);
void ptier_progress_fini(ptier_progress_file *file);

/*
 * Opens the file, or makes it. *found: what it says can be relied on, and is in file->now. Else it
 * was missing or is damaged, and now is all zero.
 */
PTIER_MUST_CHECK ptier_status ptier_progress_open(ptier_progress_file *file, const char *directory,
                                                  bool *found, ptier_error *error);

/* Between the two the caller changes what is said; end writes it. A failed write says less than
 * there is: a later start then checks less. */
ptier_progress *ptier_progress_begin(ptier_progress_file *file);
void ptier_progress_end(ptier_progress_file *file);

/* What the file says becomes safe from power loss. */
PTIER_MUST_CHECK ptier_status ptier_progress_sync(ptier_progress_file *file, ptier_error *error);

#endif
