/*
 * A record as the near cache keeps it, or the knowledge that a key is not cached: one allocation,
 * immutable but for what is said to be guarded, counted by reference, wiped when freed (it holds
 * credentials). Thread-safe; "the lock" is that of the shard that has it.
 */
#ifndef PTIER_NEAR_RECORD_H
#define PTIER_NEAR_RECORD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <proxytier/status.h>
#include <proxytier/types.h>

#define PTIER_NEAR_FOREVER INT64_MAX           /* never expires */
#define PTIER_NEAR_KEPT    (UINT64_C(1) << 62) /* references, while a table has it */

/* The first byte of what ptier_records.internal points to: whom the records belong to. */
enum {
    PTIER_OWNED_BY_ARENA = 1, /* see records.c for these two */
    PTIER_OWNED_BY_HEAP,
    PTIER_OWNED_BY_NEAR_RECORD,
};

/* What every hit reads or writes is in the first cache line, when malloc begins at one. */
typedef struct ptier_near_record {
    uint8_t owned_by;  /* NEAR_RECORD: `record` may be a result */
    bool absent;       /* the key is not cached: of `record` only the key is set */
    _Atomic bool lent; /* `record` is one: set under the lock, taken back without */
    bool touched : 1;  /* under the lock: in the shard's list of what was used */
    bool used : 1;     /* likewise: since the hand of its table last came by */
    uint32_t key_length;
    _Atomic uint64_t refs;
    uint64_t given;      /* under the lock: references that hits gave, not in `refs` as yet */
    uint64_t generation; /* of the near cache, when it came in; set before it is published */
    uint64_t as_of;      /* every change of the daemon's up to this revision is in it */
    int64_t expires;
    int64_t last_hit; /* under the lock */
    uint32_t hits;    /* under the lock: since they were last collected */
    uint32_t bytes;   /* of memory, all included */

    ptier_record record; /* strings and labels are in this allocation; remaining_ttl_ms is that of
                            whom it is lent to */
    uint64_t hash;       /* of the key */
    uint32_t slot;       /* under the lock: in its table */
    char room[];         /* the key first */
} ptier_near_record;

/* A key that is looked for. */
typedef struct ptier_near_key {
    const char *text;
    size_t length;
    uint64_t hash; /* 64 good bits */
} ptier_near_key;

void ptier_near_key_of(ptier_near_key *key, const char *text);

static inline ptier_near_key
ptier_near_record_key(const ptier_near_record *record)
{
    return (ptier_near_key){
        .text = record->room, .length = record->key_length, .hash = record->hash};
}

static inline bool
ptier_near_record_is_of(const ptier_near_record *record, const ptier_near_key *key)
{
    return record->key_length == key->length && memcmp(record->room, key->text, key->length) == 0;
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

/*
 * Under the lock, where it is in a table: a reference that is released like others. A plain
 * addition instead of an atomic one: it is counted when the table drops the record, and until then
 * the table's own references are more than can be given back.
 */
static inline void
ptier_near_record_give(ptier_near_record *record)
{
    record->given++;
}

/* A table takes it in, or drops it for good. Under the lock. */
void ptier_near_record_keep(ptier_near_record *record);
void ptier_near_record_drop(ptier_near_record *record);

/* How much of its time to live is left at `now`, ms; -1: it never ends. */
static inline int64_t
ptier_near_record_remaining(const ptier_near_record *near, int64_t now)
{
    if (near->expires == PTIER_NEAR_FOREVER)
        return -1;
    return near->expires > now ? (near->expires - now) / 1000000 : 0;
}

/* Under the lock: `record` itself becomes that of one result, as of `now`, until it is taken back
 * with the result's reference. False: it is another's. */
static inline bool
ptier_near_record_lend(ptier_near_record *near, int64_t now)
{
    /* Acquire: whoever had it last has read what is written here. */
    if (atomic_load_explicit(&near->lent, memory_order_acquire))
        return false;
    atomic_store_explicit(&near->lent, true, memory_order_relaxed); /* seen under the lock */
    near->record.remaining_ttl_ms = ptier_near_record_remaining(near, now);
    return true;
}

static inline void
ptier_near_record_take_back(ptier_near_record *near)
{
    atomic_store_explicit(&near->lent, false, memory_order_release);
    ptier_near_record_release(near);
}

/* A copy as of `now`, for who is not lent it; strings are borrowed while the caller keeps its
 * reference. */
void ptier_near_record_view(const ptier_near_record *near, int64_t now, ptier_record *record);

/* Local time at which what has `remaining_ms` (-1: never) left is over, when that was said in reply
 * to a call sent at `sent`: at the latest then, whatever clocks drift. */
int64_t ptier_near_expiry(int64_t sent, int64_t remaining_ms);

#endif
