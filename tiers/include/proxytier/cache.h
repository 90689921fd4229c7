/*
 * The cache: one API over three tiers (L1 memory, L2 JSON-lines files, L3 SQLite). Embeddable
 * without the daemon.
 *
 * Threads: every function may be called from any thread at any time between open and close; close
 * only when no other call is running. Calls may block on the disk unless their comment says
 * otherwise. Callbacks never run under a lock that would keep readers out of the cache for long;
 * what each may do is said where it is declared. Ownership: input records and strings are borrowed
 * for the call. Entries handed out are owned references (ptier_entry_release).
 */
#ifndef PROXYTIER_CACHE_H
#define PROXYTIER_CACHE_H

#include <proxytier/entry.h>
#include <proxytier/statistics.h>
#include <proxytier/status.h>
#include <proxytier/types.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ptier_cache ptier_cache;

#define PTIER_ID_BYTES 16 /* store_id, boot_id */

/* ---- options ---- */

typedef enum ptier_log_level {
    PTIER_LOG_ERROR = 0, /* the health of a tier */
    PTIER_LOG_WARN = 1,  /* one request or record */
    PTIER_LOG_INFO = 2,  /* life cycle */
    PTIER_LOG_DEBUG = 3,
} ptier_log_level;

/*
 * One log record: a stable event name ("l3_open") and one line of text without credentials. May be
 * called from any thread, never under a lock of the cache. Borrowed strings.
 */
typedef void (*ptier_log_fn)(void *context, ptier_log_level level, const char *event,
                             const char *text);

/*
 * One change of the cache's contents. CREATED, UPDATED, HEALTH: `entry` is the new state; REMOVED:
 * the last state, with `reason`; CLEARED: entry is NULL and everything up to `revision` is gone.
 */
typedef struct ptier_change {
    ptier_event_type type;
    ptier_reason reason;
    uint64_t revision;
    ptier_entry *entry; /* borrowed: retain it to keep it */
} ptier_change;

/*
 * The change feed. Called in revision order, inside the critical section that makes the change
 * visible: it must not block, call back into the cache, or take longer than appending to a queue.
 */
typedef void (*ptier_change_fn)(void *context, const ptier_change *change);

/* Movement between tiers, and their health. `entry` (borrowed) is NULL for DEGRADED and RECOVERED.
 * Same rules; no order. */
typedef struct ptier_tier_event {
    ptier_event_type type;
    ptier_tier_id tier;
    ptier_entry *entry;
} ptier_tier_event;
typedef void (*ptier_tier_event_fn)(void *context, const ptier_tier_event *event);

/* What leaves a full L1 first. */
typedef enum ptier_eviction {
    PTIER_EVICTION_LRU = 0,   /* what was not used for the longest time */
    PTIER_EVICTION_LFU = 1,   /* what is used least often, with aging */
    PTIER_EVICTION_FIFO = 2,  /* what came first */
    PTIER_EVICTION_SIEVE = 3, /* what came first, of what nobody has used lately */
} ptier_eviction;

typedef struct ptier_source_ttl {
    const char *source;
    int64_t ttl_ms; /* 0 never expires */
} ptier_source_ttl;

/* Start from ptier_cache_options_init. Strings and arrays are borrowed during open only. */
typedef struct ptier_cache_options {
    size_t size;          /* sizeof(ptier_cache_options), set by init */
    const char *data_dir; /* made (0700) if missing; NULL: memory only, L2 and L3 are off */

    bool l1_enabled, l2_enabled, l3_enabled; /* all true by default */
    uint64_t l1_entries;                     /* 1,000; 0 unlimited, if l1_bytes is not */
    uint64_t l1_bytes;      /* of memory, all included; at least 1 MiB; 0 unlimited */
    uint64_t l2_entries;    /* 5,000; 0 unlimited */
    uint64_t l3_entries;    /* 0 unlimited */
    uint64_t log_max_bytes; /* 1 GiB: of changes that L3 does not have yet; near it writers are
                               slowed, beyond it refused (RESOURCE_EXHAUSTED); removals are not */
    ptier_eviction l1_eviction;

    int64_t default_ttl_ms; /* 3,600,000; 0 never expires */
    const ptier_source_ttl *source_ttls;
    size_t source_ttl_count;
    uint32_t ttl_jitter; /* 0 to 50: percent by which those two are shortened at most, at random, so
                            that what came together does not expire together */

    uint32_t failure_threshold;   /* 3; 0 switches removal by health off */
    int64_t health_quarantine_ms; /* 900,000: how long PUT_MODE_WARM skips what was removed for
                                     HEALTH, restarts included; 0 switches it off */
    ptier_durability durability;  /* what DEFAULT means: LOGGED */

    /*
     * Fernet keys, 44 characters of URL-safe base64 each: the first encrypts, all decrypt. NULL:
     * taken from
     * `<data_dir>/key`, which is made (0600) when missing.
     */
    const char *encryption_key;
    const char *const *previous_keys;
    size_t previous_key_count;

    ptier_log_fn on_log;
    void *log_context;
    ptier_change_fn on_change;
    void *change_context;
    ptier_tier_event_fn on_tier_event;
    void *tier_event_context;
} ptier_cache_options;

PTIER_API void ptier_cache_options_init(ptier_cache_options *options);

/* ---- life cycle ---- */

/*
 * Opens the cache and its data directory. FAILED_PRECONDITION: another process has it, or the key
 * does not fit the data; INVALID_ARGUMENT: options; PERMISSION_DENIED, UNAVAILABLE: the file
 * system. On failure nothing is left behind.
 */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_cache_open(const ptier_cache_options *options,
                                                         ptier_cache **cache, ptier_error *error);

/*
 * Writes everything out, stops the threads, frees, whatever comes of it. NULL is fine. DATA_LOSS:
 * changes ended with the process, because no disk tier took them; others: what the next start is to
 * know could not be written, and it may take longer and report less.
 */
PTIER_API ptier_status ptier_cache_close(ptier_cache *cache);

/* What start-up found of earlier runs. */
typedef struct ptier_start_report {
    bool new_store;            /* the store_id is new: there was no store, or changes were lost */
    bool unclean_machine_stop; /* power loss or a crash of the kernel, while the cache was open */
    bool changes_lost;         /* acknowledged changes are gone, or may be */
    uint64_t damaged;          /* lines, rows and files that are not as they were written */
    char text[512];            /* the same for people; "": there is nothing to say */
} ptier_start_report;
PTIER_API void ptier_cache_start_report(const ptier_cache *cache, ptier_start_report *report);

/* Waits until what start-up goes on with in the background is through: at most `timeout_ms`.
 * DEADLINE_EXCEEDED: it is not. */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_cache_wait_started(ptier_cache *cache,
                                                                 int64_t timeout_ms);

/* ---- reading ---- */

/*
 * One live entry by key. OK: *entry is an owned reference, *tier (may be NULL) says where it was
 * found. A miss is NOT_FOUND. Does not block on the disk when the entry is in L1 or the key is not
 * cached.
 */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_cache_get(ptier_cache *cache, const char *key,
                                                        ptier_entry **entry, ptier_tier_id *tier);

/*
 * The same without ever waiting for a disk. True: it is in L1, and live. False: who knows; nothing
 * was counted, *entry is NULL, and ptier_cache_get has the answer.
 */
PTIER_MUST_CHECK PTIER_API bool ptier_cache_try_get(ptier_cache *cache, const char *key,
                                                    ptier_entry **entry);

/* Uses of an entry that the cache did not see: of a copy that somebody keeps. */
typedef struct ptier_access {
    const char *key;
    uint32_t count;
    int64_t age_ms; /* since the last of them */
} ptier_access;

/* Counts them as if they had been reads, for the access statistics of the entries and for what is
 * kept in the upper tiers, but not among the cache's hits. Returns how many of the keys are cached.
 */
PTIER_API size_t ptier_cache_touch(ptier_cache *cache, const ptier_access *accesses, size_t count);

/*
 * Fills *record with a view of an entry: strings are borrowed from it until the caller's reference
 * is released. remaining_ttl_ms is counted now. `labels` is the caller's room; NULL leaves the
 * labels out. Never blocks.
 */
PTIER_API void ptier_cache_read(const ptier_cache *cache, const ptier_entry *entry,
                                ptier_record *record, ptier_label labels[PTIER_LABELS_MAX]);

/* The same for several entries, as of one moment. */
PTIER_API int64_t ptier_cache_moment(const ptier_cache *cache);
PTIER_API void ptier_cache_read_at(const ptier_entry *entry, int64_t moment, ptier_record *record,
                                   ptier_label labels[PTIER_LABELS_MAX]);

/* entries[i] becomes an owned reference or NULL. Returns the number found. *unreadable (may be
 * NULL): how many of the others may be cached, but a disk did not give them. */
PTIER_API size_t ptier_cache_get_many(ptier_cache *cache, const char *const *keys, size_t count,
                                      ptier_entry **entries, size_t *unreadable);

/* The same without ever waiting for a disk: of those that are not in L1, as of
 * ptier_cache_try_get, entries[i] is NULL and nothing was counted. */
PTIER_API size_t ptier_cache_try_get_many(ptier_cache *cache, const char *const *keys, size_t count,
                                          ptier_entry **entries);

/*
 * Up to `count` distinct, uniformly random, live entries that are neither unhealthy nor dead
 * (unless the filter names the health), match the filter and are not among `exclude`. Returns how
 * many were written to `entries` (owned).
 */
PTIER_API size_t ptier_cache_pick(ptier_cache *cache, size_t count, const ptier_filter *filter,
                                  const char *const *exclude, size_t exclude_count,
                                  ptier_entry **entries);

/*
 * One page of all live entries that match. *cursor: 0 starts, 0 afterwards means the end. Every
 * entry that lives through the whole listing appears; one changed meanwhile appears in its state
 * before or after. `tier` NONE: the whole cache, else only what is resident there. At most `limit`
 * owned references are written; *count says how many (may be 0 before the end). UNAVAILABLE: a disk
 * hides an entry now; nothing was written, and *cursor is where to try again.
 */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_cache_list(ptier_cache *cache, uint64_t *cursor,
                                                         const ptier_filter *filter,
                                                         ptier_tier_id tier, size_t limit,
                                                         ptier_entry **entries, size_t *count,
                                                         ptier_error *error);

/* The current revision: every change up to it is visible. Never blocks. */
PTIER_API uint64_t ptier_cache_revision(const ptier_cache *cache);
PTIER_API void ptier_cache_store_id(const ptier_cache *cache, uint8_t id[PTIER_ID_BYTES]);
PTIER_API void ptier_cache_boot_id(const ptier_cache *cache, uint8_t id[PTIER_ID_BYTES]);

/* ---- writing ---- */

typedef struct ptier_put_options {
    ptier_durability durability;
    ptier_put_mode mode;
    bool restore; /* take the record's output fields over: expiry, access statistics */
} ptier_put_options;

typedef struct ptier_put_result {
    char key[PTIER_KEY_MAX + 1];
    uint64_t revision;         /* 0 when nothing changed */
    ptier_put_outcome outcome; /* REJECTED: `message` says why */
    char message[120];
} ptier_put_result;

/* What a write reached. Guarantees hold to this, not to what was asked. */
typedef struct ptier_written {
    ptier_durability durability;
    uint32_t
        tiers; /* bit (1 << ptier_tier_id) for each that holds, or is bound to hold, the entries */
} ptier_written;

/*
 * Caches records. A repeated put updates in place: metadata that it states wins, what it does not
 * state (source, labels, credentials) stays; access statistics, failure count and health stay
 * unless stated with a newer fetch time; the TTL starts again. Each is accepted or rejected by
 * itself (results[i], caller's array; NULL: not wanted); the call fails only as a whole:
 * RESOURCE_EXHAUSTED when the log is full, UNAVAILABLE when closing. `options` NULL: defaults.
 */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_cache_put(ptier_cache *cache,
                                                        const ptier_record *records, size_t count,
                                                        const ptier_put_options *options,
                                                        ptier_put_result *results,
                                                        ptier_written *written, ptier_error *error);

/* Removes entries with reason DELETED. *deleted counts those that were there. */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_cache_delete(ptier_cache *cache,
                                                           const char *const *keys, size_t count,
                                                           ptier_durability durability,
                                                           size_t *deleted, ptier_written *written,
                                                           ptier_error *error);

/* Applies reports in order. results[i] (caller's array; may be NULL) says what became of each. */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_cache_report(
    ptier_cache *cache, const ptier_report *reports, size_t count, ptier_durability durability,
    ptier_report_result *results, ptier_written *written, ptier_error *error);

/*
 * NONE: empties the cache (one CLEARED change; *revision is its revision). A tier: gives up what is
 * resident there; nothing that is only there is lost. FAILED_PRECONDITION for the lowest enabled
 * tier; UNAVAILABLE while that has to be made anew from the others. *cleared counts entries;
 * *written is of the change, all 0 without one.
 */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_cache_clear(ptier_cache *cache, ptier_tier_id tier,
                                                          ptier_durability durability,
                                                          uint64_t *cleared, uint64_t *revision,
                                                          ptier_written *written,
                                                          ptier_error *error);

/* ---- keys ---- */

/*
 * Rotation: everything at rest that was encrypted, or checked, with one of the previous keys is
 * made anew with the first. In steps, so that the caller can show how far it is, and stop: what is
 * done stays done, and a later rotation passes over it quickly. When it is finished the previous
 * keys are needed no more. Other calls go on meanwhile.
 */
typedef struct ptier_rotation {
    uint32_t phase; /* zero the struct to begin */
    uint64_t cursor;
    uint64_t done, total; /* records that were looked at, of about so many */
    uint64_t rewritten;   /* in L3 */
    bool finished;
} ptier_rotation;

/* One step: a fraction of a second. Call until finished. UNAVAILABLE: a tier does not work. */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_cache_rotate_step(ptier_cache *cache,
                                                                ptier_rotation *rotation,
                                                                ptier_error *error);

/* ---- export and backup ---- */

/*
 * Writes one entry as one JSON line (with the line break) for export: plain credentials, or Fernet
 * tokens of the cache's key. Returns the length it takes; nothing is written when that is over
 * `room`. Never blocks.
 */
PTIER_API size_t ptier_cache_export_line(ptier_cache *cache, const ptier_entry *entry,
                                         bool plain_credentials, char *line, size_t room);

/* Room that always suffices for one export line. */
#define PTIER_EXPORT_LINE_MAX 65536

/*
 * Writes the whole cache to one SQLite file (0600) at an absolute path, while it goes on working:
 * every change acknowledged before the call is in it, those made meanwhile may be. Credentials are
 * Fernet tokens of the cache's key; records have their keyed check. The file appears whole and
 * durable, or not at all. *entries counts them. ALREADY_EXISTS: the path; FAILED_PRECONDITION: a
 * cache in memory without a key; others: the file system.
 */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_cache_backup(ptier_cache *cache, const char *path,
                                                           uint64_t *entries, ptier_error *error);

/* ---- statistics ---- */

/* What each figure means: proxytier/statistics.h. Never blocks for long. */
PTIER_API void ptier_cache_statistics(ptier_cache *cache, ptier_statistics *statistics);

/*
 * Counters and latencies start again at zero; gauges stay. *last (may be NULL) gets the statistics
 * up to this moment: whatever is counted is in exactly one `last`, or in what
 * ptier_cache_statistics says after it, also while other threads work. Neither call sees another
 * one's reset half done.
 */
PTIER_API void ptier_cache_statistics_reset(ptier_cache *cache, ptier_statistics *last);

#ifdef __cplusplus
}
#endif
#endif
