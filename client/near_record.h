/*
 * A record as the near cache keeps it, or the knowledge that a key is not cached: one allocation,
 * immutable but for the usage figures, counted by reference, wiped when freed (it holds
 * credentials). Thread-safe; what each usage figure is guarded by is said there.
 */
#ifndef PTIER_NEAR_RECORD_H
#define PTIER_NEAR_RECORD_H

#include <stdatomic.h>
#include <stdbool.h>

#include <proxytier/status.h>
#include <proxytier/types.h>

#define PTIER_NEAR_FOREVER INT64_MAX /* never expires */

typedef struct ptier_near_record {
    _Atomic uint32_t refs;
    uint32_t bytes; /* of memory, all included */
    uint64_t hash;  /* of the key */
    uint64_t as_of; /* every change of the daemon's up to this revision is in it */
    int64_t expires;
    uint64_t generation; /* of the near cache, when it came in; set before it is published */
    bool absent;         /* the key is not cached: of `record` only the key is set */

    /* Under the lock of the shard that has it. */
    bool touched; /* in the shard's list of what was used */
    bool used;    /* since the hand of its table last came by */
    uint32_t hits;
    int64_t last_hit;

    ptier_record record; /* strings and labels are in this allocation */
    char room[];         /* the key first */
} ptier_near_record;

static inline const char *
ptier_near_record_key(const ptier_near_record *record)
{
    return record->room;
}

/*
 * A copy of `record` with one reference. `absent`: only its key counts. `expires`: on the near
 * cache's clock. NULL: out of memory.
 */
ptier_near_record *ptier_near_record_create(const ptier_record *record, bool absent, uint64_t as_of,
                                            int64_t expires);

static inline ptier_near_record *
ptier_near_record_retain(ptier_near_record *record)
{
    atomic_fetch_add_explicit(&record->refs, 1, memory_order_relaxed);
    return record;
}

void ptier_near_record_destroy(ptier_near_record *record); /* by the last release */

static inline void
ptier_near_record_release(ptier_near_record *record) /* NULL is fine */
{
    if (record && atomic_fetch_sub_explicit(&record->refs, 1, memory_order_acq_rel) == 1)
        ptier_near_record_destroy(record);
}

/* The record as of `now`; strings are borrowed while the caller keeps its reference. */
void ptier_near_record_view(const ptier_near_record *near, int64_t now, ptier_record *record);

/* Local time at which what has `remaining_ms` (-1: never) left is over, when that was said in reply
 * to a call sent at `sent`: at the latest then, whatever clocks drift. */
int64_t ptier_near_expiry(int64_t sent, int64_t remaining_ms);

/* 64 bits of a key, good ones in all places. */
uint64_t ptier_near_hash(const char *key);

#endif
