/*
 * The near cache: records kept in the caller's memory, and what makes it right to serve them. Knows
 * no sockets; time is passed in (nanoseconds of one clock that never goes back and goes on while
 * the machine sleeps). Thread-safe; heartbeats, events and resyncs come from one thread, in the
 * order of the event stream.
 *
 * Rules. A fill carries `as_of`, the daemon's revision read before the look-up. It is refused when
 * an event newer than that touched the key (or another key of its stripe), when it is below the
 * watermark, when the call was begun before the stream was followed (which begins anew with another
 * run or store of the daemon, and after a gap that cannot be filled), and while it is not. An event
 * takes what it is newer than: HEALTH patches in place, others remove (UPDATED too: events carry no
 * credentials, which may have changed). Beginning to follow, CLEARED and removals without a key
 * raise the watermark, which is compared with as_of at each look-up: nothing walks the table. Own
 * writes count as events with the revision they were given. What is found is served only while the
 * last heartbeat is fresh: near_clock.h.
 */
#ifndef PTIER_NEAR_CACHE_H
#define PTIER_NEAR_CACHE_H

#include <proxytier/client.h>

#include "near_clock.h"
#include "near_lock.h"
#include "near_record.h"

#define PTIER_NEAR_ENTRIES_MAX ((size_t)1 << 30) /* of each kind: slots have 32-bit numbers */

typedef struct ptier_near ptier_near;

/* Bugs that a test puts in, to see that it sees them. */
typedef enum ptier_near_fault {
    PTIER_NEAR_NO_FILL_CHECK = 1,  /* fills are not compared with events */
    PTIER_NEAR_AGE_BY_ARRIVAL = 2, /* a heartbeat is as old as it has been here */
} ptier_near_fault;

typedef struct ptier_near_options {
    size_t entries, bytes;
    size_t absent_entries; /* keys known not to be cached; 0: none */
    int64_t absent_ttl;    /* ns */
    int64_t max_staleness; /* ns */
    uint32_t faults;       /* of ptier_near_fault; 0 but in tests */
} ptier_near_options;

PTIER_MUST_CHECK ptier_status ptier_near_create(const ptier_near_options *options,
                                                ptier_near **near, ptier_error *error);
void ptier_near_destroy(ptier_near *near); /* NULL is fine */

/* ---- reading ---- */

typedef enum ptier_near_outcome {
    PTIER_NEAR_MISS,
    PTIER_NEAR_HIT,
    PTIER_NEAR_STALE, /* there, but nobody can say that it is at most max_staleness old */
} ptier_near_outcome;

/*
 * A look-up under way, from ptier_near_look_up to ptier_near_leave: it has its key's shard to
 * itself, so no call of this near cache but ptier_near_take is made meanwhile. In two steps, so
 * that the record comes from memory while the caller looks at the clock.
 */
typedef struct ptier_near_look {
    struct ptier_near_shard *shard;
    ptier_near_lock *lock; /* its */
    ptier_near_key key;    /* borrows the text */
    uint32_t at;           /* where the search for it begins */
    int64_t fresh_until;
    uint64_t revision; /* every change up to it is in what is served (but not before its as_of) */
    /* By ptier_near_take: */
    ptier_near_record *record; /* HIT, STALE: an owned reference (see its `absent`); else NULL */
    bool first;                /* a hit of a record of which none waited to be collected */
} ptier_near_look;

void ptier_near_look_up(ptier_near *near, const char *key, ptier_near_look *look);
/* `now`: read since the caller was called, the later the stricter. */
ptier_near_outcome ptier_near_take(ptier_near *near, ptier_near_look *look, int64_t now);

static inline void
ptier_near_leave(ptier_near_look *look)
{
    ptier_near_lock_leave(look->lock);
}

/* All of it at once. HIT and STALE: *result is an owned reference. */
ptier_near_outcome ptier_near_get(ptier_near *near, const char *key, int64_t now,
                                  ptier_near_record **result);

/* Every change up to this revision is in what is looked up from now on. */
uint64_t ptier_near_revision(const ptier_near *near);

/* Until each look-up that was under way has been left. Whoever begins one later sees what the
 * caller stored before (sequentially consistent). */
void ptier_near_wait_for_readers(ptier_near *near);

/* ---- filling ---- */

/* Taken before the call is sent. */
typedef struct ptier_near_ticket {
    uint64_t generation;
    uint64_t
        known; /* latest revision known here to have touched the key: a reply may not be older */
} ptier_near_ticket;
void ptier_near_begin(ptier_near *near, const char *key, ptier_near_ticket *ticket);

/* Takes a reference of its own when it keeps the record (record->as_of says of when it is); sets
 * record->generation: it must not have been handed out before. False: refused. */
bool ptier_near_fill(ptier_near *near, const ptier_near_ticket *ticket, ptier_near_record *record);

/* ---- own writes, before they are acknowledged to the caller ---- */

/* The key was changed, at the latest by this revision. */
void ptier_near_wrote(ptier_near *near, const char *key, uint64_t revision);
/* It may have been changed, nobody knows. */
void ptier_near_forget(ptier_near *near, const char *key);
/* Everything was: up to this revision. 0: not known up to which; waits for the next heartbeat. */
void ptier_near_cleared(ptier_near *near, uint64_t revision);

/* ---- what the daemon says ---- */

/* Any call that was answered: sent (its first try) and answered at these local times. */
void ptier_near_reply(ptier_near *near, const uint8_t boot_id[PTIER_NEAR_ID_BYTES], int64_t sent,
                      int64_t now, int64_t daemon_ms);

typedef struct ptier_near_beat {
    uint8_t boot_id[PTIER_NEAR_ID_BYTES], store_id[PTIER_NEAR_ID_BYTES];
    int64_t daemon_ms;
    uint64_t revision; /* of all changes that were published by then, at least */
    bool contiguous;   /* every event that it counts was told before it */
} ptier_near_beat;
void ptier_near_heartbeat(ptier_near *near, const ptier_near_beat *beat, int64_t now);

/* An event of the stream of changes; those of tiers are ignored. One of a type that is not known,
 * of a newer daemon, says that the key was changed. */
void ptier_near_event(ptier_near *near, const ptier_event *event);

/* Events up to this revision, if not further, were missed for good. */
void ptier_near_resync(ptier_near *near, uint64_t revision);

/* ---- upkeep ---- */

/* What was hit since it was last collected. */
typedef struct ptier_near_use {
    ptier_near_record *record; /* owned reference */
    uint32_t hits;
    int64_t last_hit;
} ptier_near_use;
/* In the order in which they came: what is hit all the time keeps nothing else waiting. One caller
 * at a time. */
size_t ptier_near_collect(ptier_near *near, ptier_near_use *uses, size_t room);
size_t ptier_near_uncollected(const ptier_near *near); /* about; cheap */

/* When the next call is due, so that the age of heartbeats can be told. */
int64_t ptier_near_call_due(ptier_near *near);

void ptier_near_read_statistics(ptier_near *near, int64_t now, ptier_near_statistics *statistics);

#endif
