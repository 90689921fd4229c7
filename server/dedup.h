/*
 * Which calls were made already: so that one that is tried again over another connection is not
 * done again. Remembers, for a while, the ids of calls with their outcome. Knows neither clocks nor
 * calls. Not thread-safe.
 *
 * An id is forgotten `window_ms` after its call ended, and earlier when there are too many, or too
 * many bytes of outcomes: the oldest first. What was forgotten has a *horizon*: the latest begin of
 * a call whose outcome is not known any more. A retry says when its first try was sent; after the
 * horizon, and the first try never came. Otherwise nobody can say, and the caller decides.
 */
#ifndef PTIER_DEDUP_H
#define PTIER_DEDUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <proxytier/status.h>

#define PTIER_REQUEST_ID_BYTES 16

typedef struct ptier_dedup ptier_dedup;
typedef struct ptier_dedup_entry ptier_dedup_entry; /* of one call */

typedef struct ptier_dedup_limits {
    size_t entries;       /* ids remembered, those of running calls included */
    size_t outcome_bytes; /* in all; one outcome over a quarter of it is not kept */
    int64_t window_ms;
    uint64_t seed; /* of the hash, which callers should not be able to guess */
} ptier_dedup_limits;

typedef struct ptier_dedup_call {
    uint64_t identity; /* equal ids of different callers are different calls */
    uint8_t id[PTIER_REQUEST_ID_BYTES];
    uint64_t digest[2];    /* of method and body */
    bool retry;            /* tried before, as the caller says */
    int64_t first_sent_ms; /* retries: not later than that; 0: not said, and within the window */
} ptier_dedup_call;

/* In the storage of who waits, which the table keeps until it gives it back. */
typedef struct ptier_dedup_waiter {
    struct ptier_dedup_waiter *next, *previous;
    ptier_dedup_entry *entry;
    int64_t deadline_ms; /* set by who waits; on a clock of its own choice */
} ptier_dedup_waiter;

typedef enum ptier_dedup_verdict {
    PTIER_DEDUP_NEW = 0,     /* noted as running: run it, then ptier_dedup_finish */
    PTIER_DEDUP_UNSURE = 1,  /* the same, but it may have been done before */
    PTIER_DEDUP_RUNNING = 2, /* the waiter is taken; finish or overdue gives it back */
    PTIER_DEDUP_DONE = 3,    /* ptier_dedup_outcome has it */
    PTIER_DEDUP_OTHER = 4,   /* the id belongs to a call with another body */
    PTIER_DEDUP_FULL = 5,    /* no memory, or all ids are of running calls */
} ptier_dedup_verdict;

/* NULL: out of memory. destroy(NULL) is fine; no waiter may be left. */
ptier_dedup *ptier_dedup_create(const ptier_dedup_limits *limits);
void ptier_dedup_destroy(ptier_dedup *dedup);

/* *entry is for NEW, UNSURE and DONE; of a DONE one it is borrowed until the next call. */
PTIER_MUST_CHECK ptier_dedup_verdict ptier_dedup_begin(ptier_dedup *dedup,
                                                       const ptier_dedup_call *call, int64_t now_ms,
                                                       ptier_dedup_waiter *waiter,
                                                       ptier_dedup_entry **entry);

/* The outcome as finish got it; borrowed as the entry. */
const uint8_t *ptier_dedup_outcome(const ptier_dedup_entry *entry, size_t *length);

/*
 * Ends a running entry. executed: the outcome (copied) stays for the window; otherwise the id is
 * free again, as if it had never come. Returns those who waited for it, linked by `next`.
 */
PTIER_MUST_CHECK ptier_dedup_waiter *ptier_dedup_finish(ptier_dedup *dedup,
                                                        ptier_dedup_entry *entry, int64_t now_ms,
                                                        bool executed, const uint8_t *outcome,
                                                        size_t length);

/* Takes back those whose deadline is not after now_ms (on the waiters' clock). */
PTIER_MUST_CHECK ptier_dedup_waiter *ptier_dedup_overdue(ptier_dedup *dedup, int64_t now_ms);

/* Forgets what is older than the window. */
void ptier_dedup_expire(ptier_dedup *dedup, int64_t now_ms);

typedef struct ptier_dedup_figures {
    size_t entries, outcome_bytes, waiters;
    uint64_t early; /* outcomes forgotten before their window ended */
} ptier_dedup_figures;
ptier_dedup_figures ptier_dedup_figure(const ptier_dedup *dedup);

#endif
