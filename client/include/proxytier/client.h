/*
 * proxytier client SDK: typed calls to a proxytierd, and subscriptions to its events.
 *
 * Threads: a client may be used by any number of threads at once; it has two connections, one for
 * calls and one, while there are subscriptions, for events. A subscription calls back on a thread
 * of its own. Calls that do not wait: proxytier/async.h. Open clients after fork(): a child that
 * uses an inherited one, or opens another, gets FAILED_PRECONDITION, once the parent has opened
 * any. The library is silent: it never writes to stdout or stderr and installs no signal handlers.
 * Deadlines: every call ends within its timeout, whatever the daemon does. Status codes are gRPC's;
 * UNAVAILABLE means that no daemon answered (the library reconnects by itself: just call again),
 * DEADLINE_EXCEEDED that one may have. A call whose connection is lost is sent again under the same
 * id, and a daemon that has done it already only repeats its reply: no call is done twice. ABORTED
 * is what is left where nobody can know: a call that must not be done twice (report_health, clear,
 * reset_statistics, backup, shutdown, a restoring put) was sent, and its daemon was restarted, or
 * not reached again within 45 s and the call's timeout and retries: it was done once, or not. Where
 * nothing listens UNAVAILABLE comes at once, not after the timeout. PERMISSION_DENIED: this user or
 * role may not, or a user who is not trusted listens at an ipc address (nothing was sent there).
 * UNAUTHENTICATED: a wrong, expired or missing token, or a certificate (the daemon's, or ours) that
 * the other side does not take. Ownership: input strings and records are borrowed for the call.
 * Results are owned by the caller and freed by the function named at their type; strings inside a
 * result live as long as the result.
 */
#ifndef PROXYTIER_CLIENT_H
#define PROXYTIER_CLIENT_H

#include <proxytier/statistics.h>
#include <proxytier/status.h>
#include <proxytier/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- client ---- */

typedef struct ptier_client ptier_client;

/* What a read does with a record of the near cache while contact with the daemon is not fresh. */
typedef enum ptier_on_stale {
    PTIER_ON_STALE_ASK = 0,   /* asks the daemon, as if there were no near cache */
    PTIER_ON_STALE_SERVE = 1, /* serves it, flagged `stale` */
    PTIER_ON_STALE_FAIL = 2,  /* UNAVAILABLE, at once */
} ptier_on_stale;

/*
 * The near cache: records kept in this process, so that ptier_get and ptier_get_many need no call.
 *
 * The bound: what such a read returns (a record, or NOT_FOUND) was the daemon's answer at some
 * instant at most max_staleness_ms before the read began, whatever the network does; later than
 * that contact is not fresh, and on_stale says what happens. Whoever reads after a change of its
 * own (any call on the same client that returned PTIER_OK) sees that change or a later one. A
 * record whose time to live has ended is not served, stale or not. When tokens are removed, expire
 * or change at the daemon (which looks twice a second), what is kept is dropped within the same
 * bound, stale or not, and asked for anew: whose token is no longer good is told so, as without a
 * near cache. It is kept up to date by the
 * daemon's events; while events are lost or delayed it only serves less. Usage figures of a record
 * (last_access_ms, access_count, latency_ms, success_count, report_count) are those of when it was
 * fetched; `health`, failure_count and needs_revalidation are kept current.
 *
 * ptier_get and ptier_get_many use it; ptier_pick and ptier_list ask the daemon. What
 * ptier_call_raw changes is seen as late as what others change.
 *
 * Start from ptier_near_cache_options_init. It needs the daemon's events: where they are not
 * offered every read is a call. Hits are told to the daemon about once a second, so that it keeps
 * what is used.
 */
typedef struct ptier_near_cache_options {
    size_t size;
    size_t entries;            /* at most; 10,000 */
    size_t bytes;              /* of memory, at most; 64 MiB */
    size_t negative_entries;   /* keys known not to be cached, at most; 10,000; 0: none */
    uint32_t negative_ttl_ms;  /* how long that is believed at most; 5,000 */
    uint32_t max_staleness_ms; /* 1,000; longer than the daemon's heartbeat (250 ms), or it never
                                  serves */
    ptier_on_stale on_stale;   /* ASK */
} ptier_near_cache_options;

/* Fills in the defaults above. Cannot fail; any thread. */
PTIER_API void ptier_near_cache_options_init(ptier_near_cache_options *options);

/* Start from ptier_client_options_init. Strings are borrowed during open only. */
typedef struct ptier_client_options {
    size_t size;
    const char *url;     /* ipc:///path, tls+tcp://host:port or tcp://127.0.0.1:port; NULL:
                            PROXYTIER_URL, then the per-user socket */
    const char *token;   /* NULL: PROXYTIER_TOKEN, then none (over ipc the peer's uid decides). One
                            that is given always counts, also when it is wrong */
    uint32_t timeout_ms; /* of a call; 5,000 */
    uint32_t retries;    /* of a call whose connection was lost, within the timeout; 3 */

    /* For tls+tcp addresses, PEM files. NULL: PROXYTIER_TLS_CA_FILE and so on, then none. */
    const char *tls_ca_file;   /* who signed the daemon's certificate: must be there */
    const char *tls_cert_file; /* our own certificate, and its key, where the daemon wants one */
    const char *tls_key_file;
    const char *tls_server_name; /* that the daemon's certificate must have; then: the url's host */
    const ptier_near_cache_options *near_cache; /* borrowed during open; NULL: none */
    uint32_t async_calls;                       /* under way at most (proxytier/async.h); 4,096 */
    const char *daemon_user; /* name or number: whose daemon an ipc address may lead to, besides
                                this user's and root's. NULL: PROXYTIER_DAEMON_USER, then nobody's
                              */
    bool separate_gets;      /* asynchronous Gets that wait for others do not go together */
} ptier_client_options;

/* Fills in the defaults above. Cannot fail; any thread. */
PTIER_API void ptier_client_options_init(ptier_client_options *options);

/*
 * The address used when none is given: PROXYTIER_URL, else
 * ipc://$XDG_RUNTIME_DIR/proxytier/rpc.sock, else ipc:///tmp/proxytier-UID/rpc.sock. Returns the
 * length it takes; writes at most room bytes, NUL-terminated.
 */
PTIER_API size_t ptier_default_url(char *url, size_t room);

/* Makes a client. Does not wait for the daemon: the first call does. INVALID_ARGUMENT: url, or what
 * TLS lacks, or daemon_user; NOT_FOUND, PERMISSION_DENIED, FAILED_PRECONDITION: a TLS file.
 * `options` NULL: defaults.
 */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_client_open(const ptier_client_options *options,
                                                          ptier_client **client,
                                                          ptier_error *error);

/*
 * nng 1.5 (Debian 12) has a fault: when the daemon goes away while requests are being sent, it may
 * never again end or replace a connection of the process. The library brings functions that stand
 * before nng's own (nng_stream_send, nng_stream_recv, nng_stream_dialer_dial) and cure that, for
 * the whole process.
 * They act where the library comes before libnng in the program's link order: always so in a
 * program that does not name libnng itself; one that does names libproxytier first. They do not act
 * in a program that has nng linked in statically. True: they act here, or others that were put in
 * their place. Later versions of nng need no cure. Any time, any thread.
 */
PTIER_API bool ptier_nng_is_cured(void);

/*
 * Calls still running in other threads end with CANCELLED, asynchronous ones too, whose callbacks
 * come before this returns. Subscriptions are to be closed first. Not from a callback. In a child
 * of a fork() it does nothing: the client is the parent's. NULL is fine.
 */
PTIER_API void ptier_client_close(ptier_client *client);

/*
 * A set of records, and the reply's other fields. Free with ptier_records_free. An empty set is {
 * .count = 0 }.
 */
typedef struct ptier_records {
    const ptier_record *records;
    size_t count;
    uint64_t as_of;           /* the daemon's revision, read before the look-up */
    char next_page_token[40]; /* list: "" after the last page */
    ptier_tier_id tier;       /* get: where it was found; NONE with a near cache */
    size_t near_count;        /* of the records: how many the near cache had */
    bool stale; /* get, get_many: what the near cache had may be older than max_staleness_ms */
    void *internal;
} ptier_records;

/* Frees what it holds and empties it, also one of all zeros, or that a failed call left. NULL is
 * fine. Any thread, but one at a time. It may outlive its client. */
PTIER_API void ptier_records_free(ptier_records *records);

/*
 * Figures of a client's near cache, since it was opened. Reads: hits + absent_hits + declined +
 * misses.
 */
typedef struct ptier_near_statistics {
    uint64_t hits;          /* records served from this process */
    uint64_t absent_hits;   /* NOT_FOUND said from this process */
    uint64_t misses;        /* nothing here */
    uint64_t declined;      /* here, but contact was not fresh: on_stale decided */
    uint64_t fills;         /* records (and keys without one) taken in */
    uint64_t refused_fills; /* ... and not, since they might have been out of date */
    uint64_t joined;        /* misses that waited for another thread's call instead of making one */
    uint64_t evictions;     /* for the bounds' sake */
    uint64_t patches;       /* health brought up to date by an event */
    uint64_t invalidations; /* taken out by an event or an own write */
    uint64_t unreported_hits;                /* that will never be told to the daemon */
    uint64_t entries, absent_entries, bytes; /* now */
    bool following;                          /* events arrive without a gap */
    int64_t age_ms;                          /* bound of how old what is known here is; -1: none */
} ptier_near_statistics;

/* FAILED_PRECONDITION: the client has no near cache. */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_get_near_statistics(ptier_client *client,
                                                                  ptier_near_statistics *statistics,
                                                                  ptier_error *error);

/* NOT_FOUND: not cached. OK: exactly one record. */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_get(ptier_client *client, const char *key,
                                                  ptier_records *result, ptier_error *error);

/* Those of the keys that are cached, in order. At most PTIER_BATCH_MAX keys. */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_get_many(ptier_client *client,
                                                       const char *const *keys, size_t count,
                                                       ptier_records *result, ptier_error *error);

typedef struct ptier_pick_options {
    size_t count;               /* 0 means 1 */
    const ptier_filter *filter; /* may be NULL */
    const char *const *exclude; /* keys not to pick */
    size_t exclude_count;
} ptier_pick_options;

/* Random, distinct, live, usable records. NOT_FOUND: none matches. */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_pick(ptier_client *client,
                                                   const ptier_pick_options *options,
                                                   ptier_records *result, ptier_error *error);

/* One page. page_token: "" or NULL for the first, then result->next_page_token. page_size 0: the
 * daemon's default. */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_list(ptier_client *client, const ptier_filter *filter,
                                                   uint32_t page_size, const char *page_token,
                                                   ptier_records *result, ptier_error *error);

typedef struct ptier_put_item_result {
    const char *key;
    uint64_t revision;
    ptier_put_outcome outcome;
    const char *message; /* why it was rejected; "" otherwise */
} ptier_put_item_result;

typedef struct ptier_put_results {
    const ptier_put_item_result *items; /* in the order of the records */
    size_t count;
    ptier_durability durability; /* reached */
    uint32_t tiers;              /* bit (1 << ptier_tier_id) each */
    void *internal;
} ptier_put_results;

/* As ptier_records_free. */
PTIER_API void ptier_put_results_free(ptier_put_results *results);

typedef struct ptier_put_call {
    ptier_durability durability; /* DEFAULT: the daemon's */
    ptier_put_mode mode;
    bool restore; /* role admin */
} ptier_put_call;

/* One record. INVALID_ARGUMENT when it is rejected. `call` NULL: defaults; `result` NULL: not
 * wanted. */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_put(ptier_client *client, const ptier_record *record,
                                                  const ptier_put_call *call,
                                                  ptier_put_results *result, ptier_error *error);

/* Many. OK also when some were rejected: see the items. At most PTIER_BATCH_MAX records. */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_put_many(ptier_client *client,
                                                       const ptier_record *records, size_t count,
                                                       const ptier_put_call *call,
                                                       ptier_put_results *results,
                                                       ptier_error *error);

/* How a change other than a put is to be made. */
typedef struct ptier_change_call {
    ptier_durability durability; /* DEFAULT: the daemon's */
} ptier_change_call;

typedef struct ptier_delete_result {
    size_t deleted;              /* keys that were there */
    uint64_t revision;           /* every removal of this call has this or a lower one */
    ptier_durability durability; /* reached, also where nothing was there: that is as durable */
} ptier_delete_result;

/* Nothing of a result is to be freed. `call` NULL: defaults; `result` NULL: not wanted. At most
 * PTIER_BATCH_MAX keys. */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_delete(ptier_client *client, const char *const *keys,
                                                     size_t count, const ptier_change_call *call,
                                                     ptier_delete_result *result,
                                                     ptier_error *error);

typedef struct ptier_report_results {
    const ptier_report_result *items; /* in the order of the reports */
    size_t count;
    ptier_durability durability; /* reached */
    void *internal;
} ptier_report_results;

/* As ptier_records_free. */
PTIER_API void ptier_report_results_free(ptier_report_results *results);

/* Outcomes of using proxies. `call` NULL: defaults; `results` NULL: not wanted. At most
 * PTIER_BATCH_MAX reports. */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_report_health(
    ptier_client *client, const ptier_report *reports, size_t count, const ptier_change_call *call,
    ptier_report_results *results, ptier_error *error);

typedef struct ptier_clear_result {
    uint64_t cleared;            /* entries */
    uint64_t revision;           /* of the CLEARED event; 0 for a tier */
    ptier_durability durability; /* reached; DEFAULT for a tier, which loses nothing */
} ptier_clear_result;

/* tier NONE: everything. `call` NULL: defaults; it does not matter for a tier. `result` NULL: not
 * wanted; nothing of it is to be freed. Role admin. */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_clear(ptier_client *client, ptier_tier_id tier,
                                                    const ptier_change_call *call,
                                                    ptier_clear_result *result, ptier_error *error);

/*
 * All entries as JSON lines, handed to `write` page by page (borrowed for the call; return false to
 * stop: CANCELLED). Role admin.
 */
typedef bool (*ptier_export_fn)(void *context, const char *jsonl, size_t length, uint32_t entries);
PTIER_MUST_CHECK PTIER_API ptier_status ptier_export(ptier_client *client, ptier_tier_id tier,
                                                     bool plain_credentials, ptier_export_fn write,
                                                     void *context, ptier_error *error);

/*
 * Makes everything at rest anew with the daemon's first key. `progress` (may be NULL) is told how
 * far it is, several times a second; false stops: CANCELLED, what is done stays done, and another
 * call passes over it quickly. UNAVAILABLE: a tier does not work at present. Role admin.
 */
typedef bool (*ptier_rotate_fn)(void *context, uint64_t done, uint64_t total);
PTIER_MUST_CHECK PTIER_API ptier_status ptier_rotate_keys(ptier_client *client,
                                                          ptier_rotate_fn progress, void *context,
                                                          uint64_t *rewritten, ptier_error *error);

/*
 * Writes the whole cache to one SQLite file at an absolute path on the daemon's machine; restore it
 * with `proxytier restore`. ALREADY_EXISTS: nothing is overwritten. Large caches take longer than
 * usual calls: timeout_ms is for this one (0: 10 minutes, which is the most). Role admin.
 */
typedef struct ptier_backup_result {
    uint64_t entries, bytes;
    uint64_t as_of; /* every change with a revision up to this one is in it */
} ptier_backup_result;
PTIER_MUST_CHECK PTIER_API ptier_status ptier_backup(ptier_client *client, const char *path,
                                                     uint32_t timeout_ms,
                                                     ptier_backup_result *result,
                                                     ptier_error *error);

/* Asks the daemon to stop as on SIGTERM. Role admin. */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_shutdown(ptier_client *client, ptier_error *error);

/* The daemon's; what each figure means: proxytier/statistics.h. Nothing is to be freed. */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_get_statistics(ptier_client *client,
                                                             ptier_statistics *statistics,
                                                             ptier_error *error);

/*
 * Counters and latencies start again at zero. *last (may be NULL) gets them up to this moment.
 * ABORTED when it is unknown whether the daemon did it. Role admin.
 */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_reset_statistics(ptier_client *client,
                                                               ptier_statistics *last,
                                                               ptier_error *error);

/* What the daemon takes at most. */
typedef struct ptier_server_limits {
    uint32_t message_bytes; /* of one request or reply */
    uint32_t batch_items;   /* records, keys or reports in one call */
    uint32_t page_items;    /* largest page_size */
    uint32_t key_bytes, url_bytes, credential_bytes, source_bytes;
    uint32_t labels; /* of one record */
    uint32_t label_name_bytes, label_value_bytes;
} ptier_server_limits;

#define PTIER_FEATURES_MAX     64
#define PTIER_FEATURE_NAME_MAX 31 /* bytes, without the terminating NUL */

typedef struct ptier_server_info {
    char version[32];
    char protocol[32];
    char role[16];
    /* What it can do, "replay" for example: proto/PROTOCOL.md lists them. In the struct itself. */
    char features[PTIER_FEATURES_MAX][PTIER_FEATURE_NAME_MAX + 1];
    size_t feature_count;
    char event_url[PTIER_URL_MAX + 1]; /* "" when events are not offered to us this way */
    uint8_t boot_id[16], store_id[16];
    uint64_t revision;
    uint32_t heartbeat_ms, failure_threshold;
    int64_t default_ttl_ms;
    ptier_server_limits limits; /* all 0 when the daemon does not tell */
} ptier_server_info;

/* What the daemon says of itself, and of us: `role`. Fills *info; nothing is to be freed.
 * UNAUTHENTICATED: a caller without a role, who learns nothing. */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_get_info(ptier_client *client,
                                                       ptier_server_info *info, ptier_error *error);

/*
 * The last reply to a JSON-minded caller: performs `method`
 * ("/proxytier.v1.ProxyCache/GetStatistics") with a packed request and hands back the packed reply.
 * For tools that work from the .proto files; programs use the typed calls. *reply is freed with
 * free().
 */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_call_raw(ptier_client *client, const char *method,
                                                       const void *request, size_t request_length,
                                                       void **reply, size_t *reply_length,
                                                       ptier_error *error);

/* ---- events ---- */

/*
 * One event. Strings and the record are borrowed for the callback. The record has no credentials;
 * for REMOVED only key, url and source are set, for HEALTH only key, source, health, failure_count
 * and needs_revalidation.
 */
typedef struct ptier_event {
    ptier_event_type type;
    ptier_reason reason; /* REMOVED */
    uint64_t sequence;
    uint64_t revision;
    ptier_tier_id tier; /* tier events */
    uint64_t count;     /* tier events: how many like it this stands for */
    ptier_record record;
} ptier_event;

typedef enum ptier_subscription_state {
    PTIER_SUBSCRIPTION_CONNECTED = 1, /* following; every change from now on will be told */
    PTIER_SUBSCRIPTION_LOST = 2,      /* nothing heard for several heartbeats; still trying */
    /*
     * Events were missed for good (restart, too long away): read what you need anew. The stream is
     * being followed again when this is told, so that what is read now and the events to come are
     * complete; after LOST, CONNECTED follows.
     */
    PTIER_SUBSCRIPTION_RESYNC = 3,
} ptier_subscription_state;

typedef struct ptier_subscription ptier_subscription;

/*
 * How far a subscription has told its events. It can be kept anywhere, as bytes, and serves any
 * subscription at the same daemon until that restarts: sequence numbers count within one boot_id.
 */
typedef struct ptier_position {
    uint8_t boot_id[16]; /* of the run of the daemon */
    uint64_t changes;    /* sequence of the last event of each stream */
    uint64_t tiers;
} ptier_position;

/*
 * Threads: the events of all subscriptions of one client come over one connection and one thread of
 * the library, which never waits for a callback. Each subscription has a bounded queue, and a
 * thread that takes from it and calls back, one callback at a time. A callback may block and may
 * make calls on a client; it must not close its subscription.
 *
 * A callback that is too slow for its queue loses nothing silently: what no longer fits is asked
 * for again (Replay) when the queue is empty; what the daemon's journal no longer has by then is
 * told as RESYNC. Other subscriptions are not disturbed.
 *
 * When the client's token is removed or expires its subscriptions end within 2 s: LOST is told, and
 * CONNECTED again once the daemon takes the token again.
 */
typedef struct ptier_subscription_options {
    size_t size;
    bool changes; /* CREATED, UPDATED, HEALTH, REMOVED, CLEARED; true by default */
    bool tiers;   /* promotions, tier evictions, tier health; false by default */
    void (*on_event)(void *context, const ptier_event *event);
    void (*on_state)(void *context, ptier_subscription_state state); /* may be NULL */
    void *context;

    /*
     * Filters: an event is told if it passes all of them. Those that fail take no room in the
     * queue. CLEARED always passes, and so does what does not say what a filter asks for: tier
     * events without a record, and removals by damage (CORRUPTION) of which only the key is known.
     */
    uint32_t types;         /* bit (1u << ptier_event_type) each; 0: all */
    uint32_t reasons;       /* REMOVED: bit (1u << ptier_reason) each; 0: all */
    const char *source;     /* exactly this one, after the change; NULL or "": any. Borrowed */
    const char *key_prefix; /* NULL or "": any key. Borrowed, as `source`, during the call */

    uint32_t queue_events; /* bound of the queue; 0: 65,536. In memory: 512 bytes each */
    const ptier_position
        *position; /* go on behind it; NULL: from now on. Borrowed during the call */
} ptier_subscription_options;

/* Fills in the defaults above. Cannot fail; any thread. */
PTIER_API void ptier_subscription_options_init(ptier_subscription_options *options);

/*
 * Subscribes at the daemon that `client` talks to (borrowed until close). Each event arrives once
 * and in order per stream; a gap is filled by Replay, or told as RESYNC, and so is a `position` of
 * another run of the daemon, or one that its journal no longer has. Returns at once; on_state says
 * when it follows. INVALID_ARGUMENT: options; RESOURCE_EXHAUSTED: no memory or no thread.
 */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_subscribe(ptier_client *client,
                                                        const ptier_subscription_options *options,
                                                        ptier_subscription **subscription,
                                                        ptier_error *error);

/*
 * How far it has told, the event whose callback is running included; after RESYNC, from where it
 * goes on. False: it has not followed yet, or this is a child of a fork(); *position is zeroed. Any
 * thread, callbacks too.
 */
PTIER_API bool ptier_subscription_position(ptier_subscription *subscription,
                                           ptier_position *position);

/* Ends it, within a second or so, but not before a callback that is running returns; none runs
 * after this returned. What is queued is not told. NULL is fine. Close it before its client. */
PTIER_API void ptier_subscription_close(ptier_subscription *subscription);

#ifdef __cplusplus
}
#endif
#endif
