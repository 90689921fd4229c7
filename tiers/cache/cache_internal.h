/*
 * For tiers/cache/ only (and tests that bring their own clock): the inside of the cache.
 *
 * Locks: `lock` (the change lock) guards everything that is not marked otherwise; the tiers' own
 * locks are taken inside it, never the other way round. No disk I/O, no log, no sleep under it;
 * callbacks of the change feed run under it by contract.
 *
 * A change goes: change lock (revision, index, L1, pending, feed, log queue) → leader of the log
 * group writes L2 → L3's thread applies → gone from pending. See docs/ARCHITECTURE.md.
 */
#ifndef PTIER_CACHE_INTERNAL_H
#define PTIER_CACHE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include <proxytier/cache.h>

#include "cache/state.h"
#include "clock.h"
#include "crypto/keyring.h"
#include "index.h"
#include "l1/l1_memory.h"
#include "l2/l2_jsonl.h"
#include "l3/l3_sqlite.h"
#include "map.h"
#include "sealed.h"
#include "tier.h"

enum {
    PENDING_MAX = 262144,    /* changes that L3 does not have yet; beyond it writers wait */
    PENDING_RESERVE = 65536, /* on top, for what the cache itself has to remove: it cannot wait */
    WRITEBACK_MAX = 8192, /* entries on their way down from L1; beyond it they are let go (they are
                             below already) */
    REVISION_BLOCK = 1 << 20,    /* reserved in the state file at a time */
    MAINTENANCE_PERIOD_MS = 100, /* of expiry */
    QUARANTINE_MAX = 65536,
};

typedef struct ptier_op_list {
    ptier_op *ops;
    size_t count, room;
} ptier_op_list;

typedef struct ptier_counters { /* relaxed atomics: any thread */
    _Atomic uint64_t hits, misses;
    _Atomic uint64_t tier_hits[PTIER_TIER_COUNT], tier_misses[PTIER_TIER_COUNT];
    _Atomic uint64_t promotions[PTIER_TIER_COUNT], evictions[PTIER_TIER_COUNT];
    _Atomic uint64_t errors[PTIER_TIER_COUNT];
    _Atomic uint64_t puts, updates, deletes, reports;
    _Atomic uint64_t removals[PTIER_REASON_COUNT];
} ptier_counters;

typedef struct ptier_quarantined {
    uint64_t hash;
    int64_t until_boot_ms;
    char key[];
} ptier_quarantined;

struct ptier_cache {
    /* Constant after open. */
    ptier_cache_options options;
    char *data_dir; /* NULL: memory only */
    ptier_source_ttl *source_ttls;
    ptier_clock clock;
    uint64_t (*hash_key)(const char *key);
    ptier_keyring *keyring;              /* NULL without a disk tier and without a key */
    ptier_tier *tiers[PTIER_TIER_COUNT]; /* NULL: off */
    ptier_tier_id lowest;
    int lock_fd;
    uint8_t boot_id[PTIER_ID_BYTES];
    int64_t opened_boot_ms;

    pthread_mutex_t lock;
    ptier_state state;
    ptier_index *index;
    uint64_t assigned; /* the latest revision given to a change */
    _Atomic uint64_t
        revision; /* the latest that is visible everywhere; written under the lock, read anywhere */
    ptier_map pending;       /* entries not yet in the tiers that will keep them; the queues own the
                                references */
    ptier_map writeback;     /* owned entries that left L1 with news for the tiers below */
    ptier_map quarantine;    /* ptier_quarantined */
    ptier_op_list log_queue; /* revision order; to be written to L2 by the next leader */
    ptier_op_list l3_queue;  /* revision order; to be applied by L3's thread */
    ptier_op_list usage_queue; /* entries whose usage figures L3's thread is to write */
    uint64_t pending_count;    /* in the queues and in flight between them */
    uint64_t logged;           /* L2 has everything up to this revision */
    uint64_t log_synced;       /* ... on stable storage */
    uint64_t l3_prefix, l3_synced;
    uint64_t opened_revision; /* revisions up to it are of earlier runs: what is left of them was
                                 found on disk, */
    uint64_t opened_l3;       /* ... and is in L3 once its prefix is this far */
    unsigned lead_waiting;    /* threads that want to lead for other work than a group of changes */
    bool log_busy;            /* somebody leads the log group */
    bool sync_wanted;         /* a SYNCED caller waits for the next group */
    bool reserving;           /* the maintenance thread is asked for a block of revisions */
    bool stopping;
    bool degraded[PTIER_TIER_COUNT];
    unsigned l3_failures; /* in a row */

    pthread_cond_t
        progress; /* logged, l3_prefix, reserved, log_busy, room: whoever waits looks again */
    pthread_cond_t l3_work;
    pthread_cond_t maintenance_work;
    pthread_t l3_thread, maintenance_thread;
    bool l3_started, maintenance_started;

    ptier_counters count;
};

/* What tests may replace. Zero fields take the real thing. */
typedef struct ptier_cache_hooks {
    const ptier_clock *clock;
    uint64_t (*hash_key)(const char *key);
    uint64_t l2_shard_bytes;
    int64_t probe_period_ms; /* of a tier that is down or idle; 20,000 */
} ptier_cache_hooks;
PTIER_MUST_CHECK ptier_status ptier_cache_open_with(const ptier_cache_options *options,
                                                    const ptier_cache_hooks *hooks,
                                                    ptier_cache **cache, ptier_error *error);

static inline void
ptier_count(_Atomic uint64_t *counter, uint64_t by)
{
    atomic_fetch_add_explicit(counter, by, memory_order_relaxed);
}

static inline bool
ptier_tier_active(const ptier_cache *cache, ptier_tier_id tier)
{
    return cache->tiers[tier] && !cache->degraded[tier];
}

PTIER_PRINTF(4, 5)
void ptier_cache_log(const ptier_cache *cache, ptier_log_level level, const char *event,
                     const char *format, ...);

/* ---- recover.c: what the disk tiers have, at start ---- */

PTIER_MUST_CHECK ptier_status ptier_recover(ptier_cache *cache, ptier_error *error);

/* ---- lookup.c: where an entry is ---- */

/* The entry of this revision in a map of entries; borrowed, NULL: none. */
ptier_entry *ptier_entry_in(const ptier_map *map, uint64_t hash, uint64_t revision);

/* In memory, but not in L1. Owned reference or NULL. */
ptier_entry *ptier_find_in_memory_locked(ptier_cache *cache, uint64_t hash, uint64_t revision);

/* Reads exactly this revision from wherever it is, without counting as a use; *tier (may be NULL)
 * says where. NOT_FOUND: it is gone or superseded. */
PTIER_MUST_CHECK ptier_status ptier_load_revision(ptier_cache *cache, uint64_t hash,
                                                  uint64_t revision, ptier_entry **entry,
                                                  ptier_tier_id *tier);

/* What no tier can give any more leaves the index; there is no key to tell anybody. False: it is
 * not current. */
bool ptier_drop_lost_locked(ptier_cache *cache, uint64_t hash, uint64_t revision);

/*
 * The current state of a key, expired or not, without counting it as a read. OK: owned; NOT_FOUND:
 * no such key, also when it was lost to damage. UNAVAILABLE: a disk fails.
 */
PTIER_MUST_CHECK ptier_status ptier_load_current(ptier_cache *cache, const char *key, uint64_t hash,
                                                 ptier_entry **entry, ptier_tier_id *tier);

/* ---- change.c: what happens under the change lock ---- */

/* The entry becomes the current state of its key (`old`: the one before, or NULL). Sets its
 * revision. */
PTIER_MUST_CHECK ptier_status ptier_change_put_locked(ptier_cache *cache, ptier_entry *entry,
                                                      ptier_sealed *sealed, ptier_entry *old,
                                                      ptier_event_type type);

/* `old` is the current state and leaves the cache. */
PTIER_MUST_CHECK ptier_status ptier_change_remove_locked(ptier_cache *cache, ptier_entry *old,
                                                         ptier_reason reason);

PTIER_MUST_CHECK ptier_status ptier_change_clear_locked(ptier_cache *cache, ptier_index *fresh);

/* Waits until `count` more changes may be made: room in the queues, revisions reserved. */
PTIER_MUST_CHECK ptier_status ptier_change_room_locked(ptier_cache *cache, size_t count,
                                                       ptier_error *error);

/* Whether there is room now, reserve included: for the threads that make room themselves. */
bool ptier_room_now_locked(const ptier_cache *cache, size_t count);

/* Puts a current entry into L1 and deals with what L1 then gives up. */
void ptier_promote_locked(ptier_cache *cache, ptier_entry *entry);

/* Whether this very state is the current one. */
bool ptier_is_current_locked(const ptier_cache *cache, const ptier_entry *entry);

/* Keeps an entry that left L1 until its usage and its place in L2 have been written. */
void ptier_writeback_locked(ptier_cache *cache, ptier_entry *entry);

/* Facts of an entry for the index. */
ptier_index_facts ptier_facts_of(const ptier_entry *entry);

PTIER_MUST_CHECK bool ptier_op_list_push(ptier_op_list *list,
                                         const ptier_op *op); /* takes its own references */
void ptier_op_list_release(ptier_op_list *list); /* gives the references back, keeps the room */
void ptier_op_list_fini(ptier_op_list *list);

/* ---- commit.c: log group and L3 ---- */

/* Waits until everything up to `revision` is as durable as asked, and says what was reached. */
void ptier_commit(ptier_cache *cache, uint64_t revision, ptier_durability durability,
                  ptier_written *written);

/* Becomes the log's only writer (waits for the present one), runs fn without the lock, ends it. */
void ptier_lead_log(ptier_cache *cache, void (*fn)(ptier_cache *cache, void *context),
                    void *context);

/* Writes what is queued now. */
void ptier_flush_log(ptier_cache *cache);

void *ptier_l3_thread(void *context); /* the cache */

/* A tier could not do its work: it is switched off and said so. */
void ptier_degrade_locked(ptier_cache *cache, ptier_tier_id tier);

/* ---- maintenance.c: expiry, write-back, compaction, reserving revisions ---- */

void *ptier_maintenance_thread(void *context); /* the cache */

/* Removes what has expired; returns how much. */
size_t ptier_expire(ptier_cache *cache);

/* Writes entries that left L1 to the tiers below. True: there are more. */
PTIER_MUST_CHECK bool ptier_write_back(ptier_cache *cache);

/* The same until nothing is left, entries still in L1 included. */
void ptier_write_back_all(ptier_cache *cache);

/* ---- bounds.c ---- */

/* Keeps L2 or L3 within its bound, after changes. */
void ptier_enforce_bound(ptier_cache *cache, ptier_tier_id id);

/* ---- quarantine.c ---- */

void ptier_quarantine_add_locked(ptier_cache *cache, const ptier_entry *entry);
bool ptier_quarantined_locked(ptier_cache *cache, const char *key, uint64_t hash);
void ptier_quarantine_lift_locked(ptier_cache *cache, const char *key, uint64_t hash);
void ptier_quarantine_fini(ptier_cache *cache);

#endif
