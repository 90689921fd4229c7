/*
 * What warming shows while it runs, on stderr: a bar on a terminal, a line a second elsewhere; and
 * the first skipped records. Thread-safe: the importing and the sending thread both tell it things.
 */
#ifndef PTIER_CLI_WARM_PROGRESS_H
#define PTIER_CLI_WARM_PROGRESS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "warm_batch.h"

#define PTIER_WARM_SHOWN      20 /* skipped records that are shown one by one */
#define PTIER_WARM_REASONS    16 /* reasons that are counted apart; the rest is "other reasons" */
#define PTIER_WARM_REASON_MAX 96

typedef struct ptier_warm_reason {
    char text[PTIER_WARM_REASON_MAX];
    uint64_t count;
} ptier_warm_reason;

/* What became of the records. What is missing to `read` at the end the daemon did not acknowledge.
 */
typedef struct ptier_warm_tally {
    uint64_t read;
    uint64_t created, updated;
    uint64_t skipped;  /* by the reader or by the daemon's rules: see reasons */
    uint64_t rejected; /* the daemon found them malformed */
    ptier_warm_reason reasons[PTIER_WARM_REASONS];
    uint64_t reason_count;
    uint64_t shown;
} ptier_warm_tally;

typedef struct ptier_warm_progress {
    pthread_mutex_t lock; /* of all that follows */
    ptier_warm_tally tally;
    const char *file;
    uint64_t bytes_read, bytes_total;
    int64_t started_ms, drawn_ms;
    bool terminal;
    bool drawn; /* a bar stands on the current line */
} ptier_warm_progress;

void ptier_warm_progress_init(ptier_warm_progress *progress);
void ptier_warm_progress_fini(ptier_warm_progress *progress);

/* A new input; resets the bar, not the tally. */
void ptier_warm_progress_file(ptier_warm_progress *progress, const char *file);
void ptier_warm_progress_bytes(ptier_warm_progress *progress, uint64_t read, uint64_t total);
void ptier_warm_progress_read(ptier_warm_progress *progress);
void ptier_warm_progress_stored(ptier_warm_progress *progress, uint64_t created, uint64_t updated);

/* A record that is not stored, and why; `rejected` when the daemon refused it. */
void ptier_warm_progress_skip(ptier_warm_progress *progress, const char *file,
                              ptier_warm_place place, const char *reason, bool rejected);

/* Takes the bar off the line, so that something else can be written. */
void ptier_warm_progress_erase(ptier_warm_progress *progress);

/* Since init, in ms, at least 1. */
int64_t ptier_warm_progress_elapsed(const ptier_warm_progress *progress);

#endif
