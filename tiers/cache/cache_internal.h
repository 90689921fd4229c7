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
#include <time.h>

#include <proxytier/cache.h>

#include "buffer.h"
#include "cache/counters.h"
#include "cache/progress.h"
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
    PENDING_MAX = 262144,    /* changes in memory on their way to a disk; beyond it writers wait */
    PENDING_RESERVE = 65536, /* on top, for what the cache itself has to remove: it cannot wait */
    L3_QUEUE_MAX = 131072,   /* of them for L3; what is more it reads from L2's log */
    MISSED_MAX = 65536,      /* entries that L2 gets back after an outage; the latest */
    ROOM_TIMEOUT_MS = 10000, /* then writers are refused */
    FAILURES_IN_A_ROW = 3,   /* switch a tier off */
    PROBE_PERIOD_MS = 20000,
    FIRST_PROBE_MS = 1000,    /* after a tier went down */
    QUICK_START_ROWS = 50000, /* fewer are read before the start has ended */
    INDEXING_ROWS = 1000,     /* then in one read transaction */
    WRITEBACK_MAX = 8192, /* entries on their way down from L1; beyond it they are let go (they are
                             below already) */
    REVISION_BLOCK = 1 << 20,    /* reserved in the state file at a time */
    MAINTENANCE_PERIOD_MS = 100, /* of expiry */
    QUARANTINE_MAX = 65536,
    TIER_FAILURES = 3, /* in a row: then a tier is not healthy */
};

typedef struct ptier_op_list {
    ptier_op *ops;
    size_t count, room;
    size_t dead; /* of kind NONE: superseded by a later one */
} ptier_op_list;

/* How a tier fares. Atomics: any thread; the rest under the change lock. */
typedef struct ptier_tier_health {
    bool down;                 /* not written to until a probe succeeds */
    bool full;                 /* L2, while down: its disk is full, but removals still find room */
    bool failing;              /* about to be down */
    bool rebuild;              /* L3, while down: its file cannot be gone on with */
    int64_t next_probe_ms;     /* of CLOCK_MONOTONIC: real time also where a test moves the clock */
    int64_t up_again_ms;       /* when it came back last; 0: it never was down */
    int64_t first_pause_ms;    /* before the first probe of this outage, or the last one */
    _Atomic uint32_t failures; /* in a row */
    _Atomic int64_t last_success_boot_ms;
} ptier_tier_health;

/* Work that only L3's thread may do. */
typedef struct ptier_l3_job {
    void (*run)(ptier_cache *cache, void *context);
    void *context;
    bool running, done; /* under the change lock */
} ptier_l3_job;

typedef struct ptier_quarantined {
    uint64_t hash;
    int64_t until_boot_ms;
    char key[];
} ptier_quarantined;

typedef struct ptier_quarantine_log { /* how the quarantine gets into its file */
    ptier_buffer news;                /* under the lock: what the file does not have yet */
    /* The maintenance thread's: */
    size_t lines; /* in the file */
    bool torn;    /* an append failed: the file may end within a line */
    bool old_key; /* it has lines of a previous key, or may have */
    bool failing; /* said so in the log */
} ptier_quarantine_log;

struct ptier_cache {
    /* Constant after open. */
    ptier_cache_options options;
    char *data_dir; /* NULL: memory only */
    ptier_source_ttl *source_ttls;
    ptier_clock clock;
    ptier_clock_glance glance; /* the maintenance thread renews it */
    uint64_t (*hash_key)(const char *key);
    void (*derive_key)(const char *url, const char *username, bool full, char key[65]);
    ptier_keyring *keyring;              /* NULL without a disk tier and without a key */
    bool key_in_directory;               /* the first key is that of <data_dir>/key */
    ptier_tier *tiers[PTIER_TIER_COUNT]; /* NULL: off */
    ptier_tier_id lowest;
    int lock_fd, directory_fd;
    uint8_t boot_id[PTIER_ID_BYTES];
    int64_t opened_boot_ms;

    ptier_progress_file progress_file; /* has a lock of its own, a leaf */
    int64_t probe_period_ms;
    uint64_t quick_start_rows, indexing_rows;
    int64_t indexing_pause_us, room_timeout_ms;
    size_t l3_queue_max;
    bool quick_start_always;

    struct ptier_put_item *_Atomic put_items; /* room for a put's; NULL: in use, or none yet */

    pthread_mutex_t lock;
    ptier_start_report start_report;
    ptier_state state;
    bool new_store_wanted;   /* the maintenance thread is asked for a new store_id */
    bool keys_rotated;       /* and to note that nothing needs the previous keys any more */
    bool l3_joins;           /* and that L3, off in an earlier run, has the whole cache */
    ptier_rotation rotation; /* how far this run's rotations of keys came */
    ptier_index *index;
    bool indexing;         /* the index is still being read from L3: see indexing.c */
    bool index_incomplete; /* and not all of it could be */
    bool rows_doubted;     /* see ptier_doubt_rows_locked */
    ptier_map settled;     /* meanwhile: hashes under which the index knows all there is */
    uint64_t assigned;     /* the latest revision given to a change */
    uint64_t queued;       /* ... that the tiers are told of: not of a loss that nobody can name */
    _Atomic uint64_t
        revision; /* the latest that is visible everywhere; written under the lock, read anywhere */
    ptier_map pending;    /* entries not yet in the tiers that will keep them, or with news on the
                             way there; the queues own the references */
    ptier_map writeback;  /* owned entries that left L1 with news for the tiers below */
    ptier_map quarantine; /* ptier_quarantined */
    ptier_quarantine_log quarantine_log;

    /*
     * Changes on their way down, each list in revision order. While L2 is up they go to log_queue,
     * and from there to l3_queue, so that whatever is in l3_queue or l3_batch is in L2's log, too.
     * While it is down they go to l3_queue at once, and stay there when L3 is down as well.
     */
    ptier_op_list log_queue;
    size_t logging; /* changes that the leader of the log group writes now */
    ptier_op_list l3_queue;
    ptier_op_list l3_batch;    /* what L3's thread applies now; changed by it alone */
    ptier_op_list l3_given_up; /* by a queue that had grown too long; L3's thread lets it go */
    bool l3_behind; /* before l3_queue L3 has to read from L2's log, from its prefix to logged */
    ptier_op_list removal_queue; /* while L2 is full: for the room that it keeps for them */
    ptier_map removals_waiting;  /* without any disk tier: revisions of the removals in l3_queue */
    uint64_t caught_up; /* L2 is coming back, and has been given what waits up to this revision */
    ptier_ref *missed;  /* what was put while L2 was down and L3 took it: a ring of MISSED_MAX */
    uint64_t missed_count;
    ptier_op_list usage_queue; /* entries whose usage figures L3's thread is to write */
    uint64_t logged;           /* L2 has everything up to this revision that it is to have */
    uint64_t log_synced;       /* ... on stable storage */
    uint64_t missed_to;        /* up to it L2 has missed changes that L3 took */
    uint64_t removals_logged;  /* while L2 is full: it has the removals up to this one */
    uint64_t l3_prefix, l3_synced;
    uint64_t memory_until;    /* L3 came back, L2 did not: up to here changes are in memory only */
    uint64_t opened_revision; /* revisions up to it are of earlier runs: what is left of them was
                                 found on disk, */
    uint64_t opened_l3;       /* ... and is in L3 once its prefix is this far */
    unsigned lead_waiting;    /* threads that want to lead for other work than a group of changes */
    bool log_busy;            /* somebody leads the log group */
    bool sync_wanted;         /* a SYNCED caller waits for the next group */
    bool reserving;           /* the maintenance thread is asked for a block of revisions */
    ptier_l3_job *l3_job;     /* for L3's thread; NULL: none */
    bool rewrite_wanted;      /* L3's thread is asked to write its file anew, without free space */
    uint64_t rewrites;        /* how often it was done, or tried */
    ptier_error rewrite_error; /* of the last time */
    int64_t state_retry_ms;    /* after a failure; maintenance thread only */
    int64_t writeback_ms;      /* the next write-back: not before; of the maintenance thread */
    bool reserve_missing;      /* reserve.h; at open and close only */
    unsigned log_tries, rebuild_tries; /* in vain, in a row; L3's thread only */
    bool l3_gathers;  /* L3's thread lets more come: it is to be woken for what is urgent only */
    bool l3_may_stop; /* once the others have stopped */
    bool stopping;
    ptier_tier_health health[PTIER_TIER_COUNT];

    pthread_cond_t
        progress; /* logged, l3_prefix, reserved, log_busy, room: whoever waits looks again */
    pthread_cond_t l3_work;
    pthread_cond_t maintenance_work;
    pthread_t l3_thread, maintenance_thread, indexing_thread;
    bool l3_started, maintenance_started, indexing_started;

    ptier_counters count;
};

/* What tests may replace. Zero fields take the real thing. */
typedef struct ptier_cache_hooks {
    const ptier_clock *clock;
    uint64_t (*hash_key)(const char *key);
    void (*derive_key)(const char *url, const char *username, bool full, char key[65]);
    uint64_t l2_shard_bytes;
    uint64_t l2_removal_reserve;
    int64_t probe_period_ms;
    uint64_t quick_start_rows; /* from so many in L3 on, the index is read in the background, */
    bool quick_start_always;   /* however much is in L2 */
    uint64_t indexing_rows;    /* ... so many at a time, */
    int64_t indexing_pause_us; /* ... with such a pause after each */
    size_t l3_queue_max;
    int64_t room_timeout_ms;
} ptier_cache_hooks;
PTIER_MUST_CHECK ptier_status ptier_cache_open_with(const ptier_cache_options *options,
                                                    const ptier_cache_hooks *hooks,
                                                    ptier_cache **cache, ptier_error *error);

static inline int64_t
ptier_monotonic_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static inline bool
ptier_tier_active(const ptier_cache *cache, ptier_tier_id tier)
{
    return cache->tiers[tier] && !cache->health[tier].down;
}

/* Whether L3 has to sync for callers who ask for that: L2 does not have all that they may mean. */
static inline bool
ptier_l3_syncs_locked(const ptier_cache *cache)
{
    return cache->sync_wanted &&
           (!ptier_tier_active(cache, PTIER_TIER_L2) || cache->l3_synced < cache->missed_to);
}

PTIER_PRINTF(4, 5)
void ptier_cache_log(const ptier_cache *cache, ptier_log_level level, const char *event,
                     const char *format, ...);

/* ---- open.c ---- */

/* An error in the log when the key file has vanished from under us: without it the data is lost. */
void ptier_tell_missing_key(const ptier_cache *cache);

/* ---- indexing.c: serving while the index is read from L3 ---- */

void *ptier_indexing_thread(void *context); /* the cache */

/* Sees to it that the index has all there is under a hash. Blocks on the disk while indexing; an
 * error says that L3 cannot be read. */
PTIER_MUST_CHECK ptier_status ptier_settle_hash(ptier_cache *cache, uint64_t hash);
void ptier_settle_hash_locked(ptier_cache *cache, uint64_t hash); /* what is in L3 is out of date */
void ptier_end_indexing_locked(ptier_cache *cache);

/* For what needs all of the index. */
void ptier_wait_indexed(ptier_cache *cache);

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

/*
 * The current state of a key, expired or not, without counting it as a read. OK: owned; NOT_FOUND:
 * no such key, also when it was lost to damage. UNAVAILABLE: a disk fails.
 */
PTIER_MUST_CHECK ptier_status ptier_load_current(ptier_cache *cache, const char *key, uint64_t hash,
                                                 ptier_entry **entry, ptier_tier_id *tier);

/* The same, where L1 has just been found not to have it. */
ptier_status ptier_load_below(ptier_cache *cache, const char *key, uint64_t hash,
                              ptier_entry **entry, ptier_tier_id *tier);

/* ---- lost.c: records that cannot be read ---- */

/*
 * No tier can give this revision any more: it leaves the cache with reason CORRUPTION. `hint` (may
 * be NULL): the key that was asked for. An event without a key says that one was lost which nobody
 * can name.
 */
void ptier_lose_record(ptier_cache *cache, uint64_t hash, uint64_t revision, const char *hint);

/*
 * Stands for the current state of a key whose record a failing disk hides: the newest one under its
 * hash. Owned; NULL: there is none, or no memory. That the hash of another key is the same cannot
 * be seen then; that one would be lost.
 */
ptier_entry *ptier_blind_current(ptier_cache *cache, const char *key, uint64_t hash);

/* An entry that has only a key ("": not known). Owned; NULL: no memory. */
ptier_entry *ptier_placeholder(const char *key, uint64_t hash, uint64_t revision);

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

/* Puts a current entry into L1 and deals with what L1 then gives up. */
void ptier_promote_locked(ptier_cache *cache, ptier_entry *entry);

/* Whether this very state is the current one. */
bool ptier_is_current_locked(const ptier_cache *cache, const ptier_entry *entry);

/* Keeps an entry that left L1 until its usage and its place in L2 have been written. */
void ptier_writeback_locked(ptier_cache *cache, ptier_entry *entry);

/* Facts of an entry for the index. */
ptier_index_facts ptier_facts_of(const ptier_entry *entry);

void ptier_tell_tier_event(ptier_cache *cache, ptier_event_type type, ptier_tier_id tier,
                           ptier_entry *entry);

/* ---- queue.c: changes on their way to the disk tiers ---- */

/* Takes references of its own. */
PTIER_MUST_CHECK bool ptier_op_list_push(ptier_op_list *list, const ptier_op *op);
void ptier_op_list_release(ptier_op_list *list); /* gives the references back, keeps the room */
void ptier_op_list_fini(ptier_op_list *list);
void ptier_op_list_squeeze(ptier_op_list *list); /* takes the dead ones out */

/* Moves all of `more` behind `list`; `more` has none then. False: out of memory, nothing changed.
 */
PTIER_MUST_CHECK bool ptier_op_list_append(ptier_op_list *list, ptier_op_list *more);

/* `list` becomes `before` and then what it was; `before` becomes empty. False: out of memory,
 * nothing changed. */
PTIER_MUST_CHECK bool ptier_op_list_prepend(ptier_op_list *list, ptier_op_list *before);

/* What is beyond the first `count` moves to *rest. False: out of memory, nothing changed. */
PTIER_MUST_CHECK bool ptier_op_list_cut(ptier_op_list *list, size_t count, ptier_op_list *rest);

/* Hands a change to the tiers below. False: out of memory, nothing changed. */
PTIER_MUST_CHECK bool ptier_queue_locked(ptier_cache *cache, const ptier_op *op);

/* L3 will have this change, and L2, which is down, will not: it is to be resident there again. */
void ptier_note_missed_locked(ptier_cache *cache, const ptier_op *op);

/* Waits for a condition of the cache's, at most `ms`. */
void ptier_wait_locked(ptier_cache *cache, pthread_cond_t *condition, int64_t ms);

/* Changes in memory that are not through with the disk tiers. */
uint64_t ptier_waiting_locked(const ptier_cache *cache);

bool ptier_any_disk_tier(const ptier_cache *cache); /* that is up; under the change lock */

/*
 * Waits until `count` more changes may be made: room in the queues and in the log, revisions
 * reserved. `removals`: they are nothing else; a full log takes them, since each takes an entry
 * away, and there are no more lines of them than there were entries.
 */
PTIER_MUST_CHECK ptier_status ptier_change_room_locked(ptier_cache *cache, size_t count,
                                                       bool removals, ptier_error *error);

/* Whether there is room now, reserve included: for the threads that make room themselves. */
bool ptier_room_now_locked(const ptier_cache *cache, size_t count);

/* ---- commit.c: the log group ---- */

/*
 * Waits until everything up to `revision` is as durable as asked, and says what was reached.
 * `removals`: nothing but removals is waited for (a full L2 has room for those).
 */
void ptier_commit(ptier_cache *cache, uint64_t revision, bool removals, ptier_durability durability,
                  ptier_written *written);

/* Becomes the log's only writer (waits for the present one), runs fn without the lock, ends it. */
void ptier_lead_log(ptier_cache *cache, void (*fn)(ptier_cache *cache, void *context),
                    void *context);

/* Writes what is queued now. */
void ptier_flush_log(ptier_cache *cache);

/* Says in `progress` how far L2 is (`logged`: the last change that was written now; 0: none), and
 * lets its log go as far as L3 has it. As leader. */
void ptier_note_log(ptier_cache *cache, uint64_t logged);

/* ---- l3_thread.c: applying the log to L3 ---- */

void *ptier_l3_thread(void *context); /* the cache */

/* Has L3's thread run this between two transactions, and waits. UNAVAILABLE: L3 is switched off, or
 * the cache is closing; it was not run. */
PTIER_MUST_CHECK ptier_status ptier_on_l3_thread(ptier_cache *cache,
                                                 void (*run)(ptier_cache *cache, void *context),
                                                 void *context, ptier_error *error);

/* L3 is to read what it lacks from L2's log, which has it all: nothing of it stays in memory. */
void ptier_l3_fall_behind_locked(ptier_cache *cache);

/* More is in L3's queue, and in the log. */
void ptier_l3_queued_locked(ptier_cache *cache);

/* ---- heal.c: tiers that fail, and come back ---- */

/* Counts a failure or a success of a tier. Any thread, no lock. */
void ptier_tier_failed(ptier_cache *cache, ptier_tier_id tier);
void ptier_tier_worked(ptier_cache *cache, ptier_tier_id tier);

/* The index has every row of L3: unless that was doubted, L3 may rely on what later changes say
 * that they replace, until it is. */
void ptier_note_rows_known_locked(ptier_cache *cache);

/* L3 may have a row that the index does not have: it looks for rows from now on, in all of this
 * run. */
void ptier_doubt_rows_locked(ptier_cache *cache);

/* A read found a tier not working: three in a row switch it off. Without the lock. */
void ptier_tier_read_failed(ptier_cache *cache, ptier_tier_id tier);

/*
 * L2 could not write `list` (moved; it may be empty), which was the head of the log: from now on
 * changes go straight to L3. As leader, without the lock. `status`: RESOURCE_EXHAUSTED is a full
 * disk.
 */
void ptier_l2_down(ptier_cache *cache, ptier_op_list *list, ptier_status status,
                   const ptier_error *error);

/* While L2 is full: a removal goes into the room that it keeps for those. */
void ptier_remove_ahead_locked(ptier_cache *cache, const ptier_op *op);

/* L3 could not do its work; what it was applying stays queued. L3's thread, without the lock. */
void ptier_l3_down(ptier_cache *cache, const ptier_error *error);

/* Probes a tier that is down or has been idle, when it is time, and brings it back if it works. */
void ptier_heal_l2(ptier_cache *cache); /* maintenance thread */
void ptier_heal_l3(ptier_cache *cache); /* L3's thread */

/* Says in `progress` whether there are changes that are in memory only because no disk tier works,
 * or worked. Without the lock. */
void ptier_note_memory_only(ptier_cache *cache);

/* ---- rebuild.c ---- */

/* Writes L3's file anew from what the cache has. L3's thread. */
PTIER_MUST_CHECK ptier_status ptier_rebuild_l3(ptier_cache *cache, ptier_error *error);

/* ---- maintenance.c: expiry, write-back, compaction, reserving revisions ---- */

void *ptier_maintenance_thread(void *context); /* the cache */

/* Has the thread save the state file, which takes *wanted back, and waits for that. False: it
 * cannot be saved, or the cache is closing. The lock is given up meanwhile. */
PTIER_MUST_CHECK bool ptier_await_state_locked(ptier_cache *cache, const bool *wanted);

/* Removes what has expired; returns how much. */
size_t ptier_expire(ptier_cache *cache);

/* Gives L2 what is in L1 and not in it. */
void ptier_admit_l1(ptier_cache *cache);

/* Writes entries that left L1 to the tiers below. True: there are more. */
PTIER_MUST_CHECK bool ptier_write_back(ptier_cache *cache);

/* The same until nothing is left, entries still in L1 included. */
void ptier_write_back_all(ptier_cache *cache);

/* ---- bounds.c ---- */

/* Keeps L2 or L3 within its bound, after changes. */
void ptier_enforce_bound(ptier_cache *cache, ptier_tier_id id);

/* ---- quarantine.c, quarantine_file.c ---- */

void ptier_quarantine_add_locked(ptier_cache *cache, const ptier_entry *entry);
bool ptier_quarantined_locked(ptier_cache *cache, const char *key, uint64_t hash);
void ptier_quarantine_lift_locked(ptier_cache *cache, const char *key, uint64_t hash);
void ptier_quarantine_fini(ptier_cache *cache);

/* Puts a key into the map, or changes its end. False: full, or out of memory. */
bool ptier_quarantine_set(ptier_cache *cache, ptier_map *map, const char *key,
                          int64_t until_boot_ms);
void ptier_quarantine_unset(ptier_cache *cache, ptier_map *map, const char *key);
void ptier_quarantine_empty(ptier_map *map);

/* At start: what the file has. Never fatal: a file that cannot be read or written is told. */
void ptier_quarantine_load(ptier_cache *cache);

/* For the file, by the next flush. until_boot_ms 0: lifted. */
void ptier_quarantine_note_locked(ptier_cache *cache, const char *key, int64_t until_boot_ms);

/* Writes what was noted. The maintenance thread, or close when that has ended. */
void ptier_quarantine_flush(ptier_cache *cache);

/* Nothing in the file is of a previous key afterwards. The maintenance thread. */
PTIER_MUST_CHECK ptier_status ptier_quarantine_renew(ptier_cache *cache, ptier_error *error);

#endif
