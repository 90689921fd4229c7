/*
 * The contract of a tier. l1_memory.c, l2_jsonl.c and l3_sqlite.c implement the same functions in
 * the same order; the cache (cache.c) alone knows the order of look-up, promotion, demotion and
 * what is current.
 *
 * Threads: get, touch, count and bytes may be called from any thread. All others are called by one
 * thread at a time (the tier's writer: for L1 whoever holds the change lock, for L2 the leader of
 * the log group, for L3 its writer thread). Ownership: entries passed in are borrowed; entries
 * handed out are owned references. Errors: DATA_LOSS means this one record is damaged; UNAVAILABLE,
 * RESOURCE_EXHAUSTED (disk full), PERMISSION_DENIED mean the tier as a whole could not do its work.
 */
#ifndef PTIER_TIER_H
#define PTIER_TIER_H

#include "entry_internal.h"

/*
 * Names one record. The hash always counts; revision 0 matches any, key NULL matches any. The cache
 * asks L2 and L3 by (hash, revision): a stale record is never found. L1, which is always current,
 * is asked by (hash, key).
 */
typedef struct ptier_ref {
    uint64_t hash;
    uint64_t revision;
    const char *key;
    bool quiet; /* get: not a use, as far as the eviction policy is concerned */
} ptier_ref;

static inline bool
ptier_ref_matches(const ptier_ref *ref, uint64_t hash, uint64_t revision, const char *key)
{
    return ref->hash == hash && (ref->revision == 0 || ref->revision == revision) &&
           (ref->key == NULL || __builtin_strcmp(ref->key, key) == 0);
}

/* Credentials of one entry as Fernet tokens, made once and written by every disk tier. Immutable,
 * reference-counted. */
typedef struct ptier_sealed {
    _Atomic uint32_t refs;
    uint32_t username_bytes; /* 0: none; text follows in `tokens`, each NUL-terminated */
    uint32_t password_bytes;
    char tokens[];
} ptier_sealed;

static inline const char *
ptier_sealed_username(const ptier_sealed *sealed)
{
    return sealed && sealed->username_bytes ? sealed->tokens : NULL;
}

static inline const char *
ptier_sealed_password(const ptier_sealed *sealed)
{
    if (!sealed || !sealed->password_bytes)
        return NULL;
    return sealed->tokens + (sealed->username_bytes ? sealed->username_bytes + 1 : 0);
}

typedef enum ptier_op_kind {
    PTIER_OP_NONE = 0, /* no change: tiers are never handed one */
    PTIER_OP_PUT = 1,  /* entry is the new state */
    PTIER_OP_REMOVE =
        2,              /* entry is the last state: it names the key; `revision` is the removal's */
    PTIER_OP_CLEAR = 3, /* everything with a revision below `revision` is gone; entry is NULL */
} ptier_op_kind;

#define PTIER_REPLACES_ANY UINT64_MAX

typedef struct ptier_op {
    ptier_op_kind kind;
    uint64_t revision; /* of the change: for PUT equal to entry->revision */
    uint64_t replaces; /* revision of the same key's state before this; 0: there was none;
                          PTIER_REPLACES_ANY: not known */
    ptier_entry *entry;
    ptier_sealed *sealed; /* PUT: NULL when the entry has no credentials */
} ptier_op;

/* Usage figures of an entry on their way back to a disk tier: absolute values, not differences. */
typedef struct ptier_usage {
    uint64_t hash;
    uint64_t revision; /* a key that was removed and put again has begun anew */
    int64_t last_access_ms;
    uint64_t access_count;
    uint32_t latency_us;
    uint32_t success_count;
    uint32_t report_count;
} ptier_usage;

/* What a scan says of one record at rest. A disk tier may not have verified it yet: get does. */
typedef struct ptier_scan_item {
    uint64_t hash;
    uint64_t revision;
    int64_t expires_boot_ms;
    uint8_t health;
    const char *key;    /* borrowed for the callback */
    const char *url;    /* borrowed for the callback */
    const char *source; /* borrowed for the callback */
} ptier_scan_item;
typedef bool (*ptier_scan_fn)(void *context,
                              const ptier_scan_item *item); /* false stops the scan */

typedef struct ptier_tier ptier_tier;

typedef struct ptier_tier_ops {
    const char *name; /* "L1" */

    /* OK: *entry owned. NOT_FOUND: no such record. Never under a lock of the caller's; blocks on
     * the disk (L1: never). */
    ptier_status (*get)(ptier_tier *tier, const ptier_ref *ref, ptier_entry **entry);

    /*
     * Applies changes in the order given, which is revision order; applying the same ones again
     * changes nothing. `sync`: OK means they are on stable storage, else that the kernel has them
     * (L1 ignores it). On failure none, some or all may have been applied; the caller tries them
     * again or gives the tier up.
     */
    ptier_status (*apply)(ptier_tier *tier, const ptier_op *ops, size_t count, bool sync,
                          ptier_error *error);

    /* Writes usage figures back; what the tier does not have is skipped. Not urgent: may be lost
     * with power. */
    ptier_status (*write_usage)(ptier_tier *tier, const ptier_usage *usage, size_t count,
                                ptier_error *error);

    /* The record was used, for the eviction policy. Never blocks. */
    void (*touch)(ptier_tier *tier, const ptier_ref *ref);

    /* Over a bound: OK and in *hash, *revision the next to go; asked again with nothing dropped,
     * touched or applied in between, the same. Else NOT_FOUND. */
    ptier_status (*victim)(ptier_tier *tier, uint64_t *hash, uint64_t *revision);

    /* Gives up one resident record that a lower tier has; changes nothing for readers of the cache.
     */
    void (*drop)(ptier_tier *tier, uint64_t hash, uint64_t revision);

    /* Every resident record, in no order. DATA_LOSS records are skipped and counted. Before start
     * or on the writer. fn must not call the tier. */
    ptier_status (*scan)(ptier_tier *tier, ptier_scan_fn fn, void *context, ptier_error *error);

    /* Does the tier work? The smallest real write to where it keeps its records, read back; without
     * a trace. Says why not. Blocks (L1: never). */
    ptier_status (*probe)(ptier_tier *tier, ptier_error *error);

    uint64_t (*count)(ptier_tier *tier); /* resident records; never blocks */
    uint64_t (*bytes)(ptier_tier *tier); /* memory or files; never blocks */

    /* Flushes and frees. */
    void (*close)(ptier_tier *tier);
} ptier_tier_ops;

/* Each tier's struct begins with this. */
struct ptier_tier {
    const ptier_tier_ops *ops;
};

#endif
