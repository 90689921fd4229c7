/*
 * The event journal: for each of the two streams a bounded ring in memory with contiguous sequence
 * numbers, fed by the cache's callbacks, read by the publisher and by Replay. Thread-safe.
 * Appending never waits for a reader longer than a reader takes to copy 256 references; entries are
 * kept by reference.
 */
#ifndef PTIER_JOURNAL_H
#define PTIER_JOURNAL_H

#include <proxytier/cache.h>

typedef struct ptier_journal ptier_journal;

typedef enum ptier_stream {
    PTIER_STREAM_CHANGES = 1, /* as proxytier.v1.Stream */
    PTIER_STREAM_TIERS = 2,
} ptier_stream;
#define PTIER_STREAM_COUNT 3 /* arrays are indexed by ptier_stream; [0] is unused */

#define PTIER_JOURNAL_READ_MAX 256

typedef struct ptier_journal_item {
    uint64_t sequence;
    uint64_t revision;
    ptier_entry *entry; /* owned by whoever holds the item; may be NULL */
    uint32_t count;     /* tier events: how many like it */
    uint8_t type;       /* ptier_event_type */
    uint8_t reason;     /* ptier_reason */
    uint8_t tier;       /* ptier_tier_id */
} ptier_journal_item;

typedef struct ptier_journal_bounds {
    uint64_t last;     /* 0: nothing yet */
    uint64_t oldest;   /* last + 1 when none is kept */
    uint64_t revision; /* of the last one; 0: nothing yet, or the stream has no revisions */
} ptier_journal_bounds;

/*
 * `events`: kept per stream, at least 1. `tier_events_per_tick`: promotions and tier evictions
 * above this number between two ticks are counted and told as one event.
 */
PTIER_MUST_CHECK ptier_status ptier_journal_create(size_t events, uint32_t tier_events_per_tick,
                                                   ptier_journal **journal, ptier_error *error);
void ptier_journal_destroy(ptier_journal *journal);

/* For ptier_cache_options: the context is the journal. */
void ptier_journal_on_change(void *context, const ptier_change *change);
void ptier_journal_on_tier_event(void *context, const ptier_tier_event *event);

/*
 * Up to `limit` items after a position, in order; references in them are owned by the caller
 * (ptier_journal_release). Returns how many. *bounds are those of the same instant. Items older
 * than the ring are simply not there: compare.
 */
size_t ptier_journal_read(ptier_journal *journal, ptier_stream stream, uint64_t after,
                          ptier_journal_item *items, size_t limit, ptier_journal_bounds *bounds);
void ptier_journal_release(ptier_journal_item *items, size_t count);

ptier_journal_bounds ptier_journal_get_bounds(ptier_journal *journal, ptier_stream stream);

/* Tells what was held back, and grants the next tick's allowance. */
void ptier_journal_tick(ptier_journal *journal);

/*
 * Waits until something is appended after the given positions, ptier_journal_wake is called, or
 * wait_ms is over. Then waits up to gather_ms more for a full batch. One thread only.
 */
void ptier_journal_wait(ptier_journal *journal, const uint64_t after[PTIER_STREAM_COUNT],
                        int64_t wait_ms, int64_t gather_ms);
void ptier_journal_wake(ptier_journal *journal);

#endif
