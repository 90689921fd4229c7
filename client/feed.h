/*
 * Where a subscriber stands in the event streams: which event is next, which were lost, when the
 * run of the daemon changed. Plain arithmetic on sequence numbers: no sockets, no threads, time is
 * passed in. Not thread-safe.
 */
#ifndef PTIER_FEED_H
#define PTIER_FEED_H

#include <stdbool.h>
#include <stdint.h>

#include "proxytier/v1/events.pb-c.h"

#define PTIER_FEED_ID_BYTES 16
#define PTIER_FEED_STREAMS  3  /* indexed by Proxytier__V1__Stream; [0] is unused */
#define PTIER_FEED_GRACE_MS 60 /* a heartbeat may overtake the events it counts */

typedef struct ptier_feed_stream {
    bool wanted;
    bool fresh;        /* wanted since the last batch: its position is taken from the next one */
    uint64_t position; /* sequence of the last event told, or skipped for good */
    uint64_t owed;     /* a heartbeat said that there are events up to here; 0: none owed */
    int64_t owed_by;   /* when they should have come by themselves */
} ptier_feed_stream;

typedef struct ptier_feed {
    bool started;
    uint8_t boot_id[PTIER_FEED_ID_BYTES];
    uint8_t store_id[PTIER_FEED_ID_BYTES];
    ptier_feed_stream streams[PTIER_FEED_STREAMS];
} ptier_feed;

typedef enum ptier_feed_verdict {
    PTIER_FEED_BAD,       /* no heartbeat, or ids of a wrong size: not from a proxytierd */
    PTIER_FEED_SAME,      /* the run and the store we know */
    PTIER_FEED_STARTED,   /* the first one: positions were taken from it */
    PTIER_FEED_RESTARTED, /* another run or store: events were missed for good; positions were taken
                             anew */
} ptier_feed_verdict;

void ptier_feed_init(ptier_feed *feed, bool changes, bool tiers);

/* Follows a stream, from the next batch on, or no more. */
void ptier_feed_want(ptier_feed *feed, int stream, bool wanted);

/* Looks at a batch before its events are told. */
ptier_feed_verdict ptier_feed_meet(ptier_feed *feed, const Proxytier__V1__EventBatch *batch,
                                   int64_t now);

/* Whether events before `sequence` were lost. */
bool ptier_feed_lost_before(const ptier_feed *feed, int stream, uint64_t sequence);

/* Whether the event is the next one, which it then was. False: told before, or not the next. */
bool ptier_feed_take(ptier_feed *feed, int stream, uint64_t sequence);

/* A stream with events overdue, 0 none. `owed` of it says up to where. */
int ptier_feed_overdue(const ptier_feed *feed, int64_t now);

/* When to ask ptier_feed_overdue next; INT64_MAX: nothing is owed. */
int64_t ptier_feed_next_check(const ptier_feed *feed);

/* Gives up what was lost: goes on behind `position`, if that is ahead. */
void ptier_feed_skip_to(ptier_feed *feed, int stream, uint64_t position);

/* The daemon's last sequence of a stream as a heartbeat says; 0 when it does not. */
uint64_t ptier_feed_last(const Proxytier__V1__Heartbeat *heartbeat, int stream);

/* Whether the heartbeat is from the run and store that we follow. */
bool ptier_feed_same_run(const ptier_feed *feed, const Proxytier__V1__Heartbeat *heartbeat);

#endif
