/*
 * Threads for calls that may touch the disk, so that no nng callback ever blocks: one lane for
 * reading and one for writing, so that a slow disk does not keep cached entries from being read;
 * and two for what may look at all entries (picks, and walks), behind which single reads would wait
 * for seconds. Queues are bounded. Thread-safe.
 */
#ifndef PTIER_WORKERS_H
#define PTIER_WORKERS_H

#include <stdbool.h>
#include <stddef.h>

#include <proxytier/status.h>

#include "call.h"

typedef struct ptier_workers ptier_workers;

/* The caller's storage, untouched by it from submit until run is called. */
typedef struct ptier_job {
    struct ptier_job *next;
    void (*run)(struct ptier_job *job);
} ptier_job;

PTIER_MUST_CHECK ptier_status ptier_workers_start(const size_t limits[PTIER_LANE_COUNT],
                                                  ptier_workers **workers, ptier_error *error);

/* False at once when `limits[lane]` jobs are waiting. Never blocks. */
PTIER_MUST_CHECK bool ptier_workers_submit(ptier_workers *workers, ptier_lane lane, ptier_job *job);

/* Runs what waits, then ends the threads. NULL is fine. */
void ptier_workers_stop(ptier_workers *workers);

#endif
