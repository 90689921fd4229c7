/*
 * Statistics of a cache: one row a metric. From the rows come the structs, the copying from and to
 * the wire (which fails to compile where the .proto has no field of that name), and what a program
 * needs to show them all: name, kind, unit, help. Plain data. Thread-safe.
 */
#ifndef PROXYTIER_STATISTICS_H
#define PROXYTIER_STATISTICS_H

#include <proxytier/types.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum ptier_metric_kind {
    PTIER_METRIC_COUNTER, /* grows from the last reset on */
    PTIER_METRIC_GAUGE,   /* what is so now: a reset leaves it alone */
    PTIER_METRIC_DERIVED, /* follows from counters */
} ptier_metric_kind;

typedef enum ptier_metric_unit {
    PTIER_UNIT_NUMBER,
    PTIER_UNIT_LIMIT, /* a number; 0: none */
    PTIER_UNIT_BYTES,
    PTIER_UNIT_MS, /* below 0: never */
    PTIER_UNIT_RATIO,
    PTIER_UNIT_FLAG,
} ptier_metric_unit;

/*
 * Of one tier. X(type, name, kind, unit, group, help)
 *
 * A read goes down the tiers until one has its entry: a hit there, a miss in each above. The index
 * of all keys answers for L2 and L3 when a key is not cached: such a read is a miss in every tier.
 * So hits + misses of the topmost tier are all reads, those of the next one its misses, and so on.
 */
#define PTIER_TIER_METRICS(X)                                                                      \
    X(bool, enabled, GAUGE, FLAG, "state", "switched on by configuration")                         \
    X(bool, degraded, GAUGE, FLAG, "state", "switched off (failures, full disk); probed")          \
    X(bool, healthy, GAUGE, FLAG, "state", "< 3 failures in a row, a success within 60 s")         \
    X(uint32_t, failures_in_row, GAUGE, NUMBER, "state", "3 switch it off, or a full disk")        \
    X(int64_t, last_success_ms_ago, GAUGE, MS, "state", "below 0: none so far")                    \
    X(uint64_t, entries, GAUGE, NUMBER, "contents", "resident now")                                \
    X(uint64_t, capacity, GAUGE, LIMIT, "contents", "entries")                                     \
    X(uint64_t, bytes, GAUGE, BYTES, "contents", "of memory (L1) or files")                        \
    X(uint64_t, hits, COUNTER, NUMBER, "reads", "found here")                                      \
    X(uint64_t, misses, COUNTER, NUMBER, "reads", "came by and went on")                           \
    X(double, hit_rate, DERIVED, RATIO, "reads", "of those that came by")                          \
    X(uint64_t, promotions, COUNTER, NUMBER, "movement", "brought up into it by a hit below")      \
    X(uint64_t, demotions, COUNTER, NUMBER, "movement", "written down to L2, which had them not")  \
    X(uint64_t, evictions, COUNTER, NUMBER, "movement", "gave up: it is below")                    \
    X(uint64_t, errors, COUNTER, NUMBER, "failures", "operations that failed")                     \
    X(uint64_t, damaged, COUNTER, NUMBER, "failures", "records found damaged")

/* Of the cache as a whole; the same columns. */
#define PTIER_CACHE_METRICS(X)                                                                     \
    X(uint64_t, entries, GAUGE, NUMBER, "contents", "in the whole cache")                          \
    X(uint64_t, index_bytes, GAUGE, BYTES, "contents", "memory of the index of all keys")          \
    X(uint64_t, quarantined, GAUGE, NUMBER, "contents", "keys that warming skips for a while")     \
    X(uint64_t, hits, COUNTER, NUMBER, "reads", "")                                                \
    X(uint64_t, misses, COUNTER, NUMBER, "reads", "not cached, expired, or not readable")          \
    X(double, hit_rate, DERIVED, RATIO, "reads", "")                                               \
    X(uint64_t, puts, COUNTER, NUMBER, "turnover", "records stored: created and updated")          \
    X(uint64_t, created, COUNTER, NUMBER, "turnover", "")                                          \
    X(uint64_t, updates, COUNTER, NUMBER, "turnover", "puts that met an existing entry")           \
    X(uint64_t, deletes, COUNTER, NUMBER, "turnover", "entries removed by Delete")                 \
    X(uint64_t, reports, COUNTER, NUMBER, "turnover", "of health")                                 \
    X(uint64_t, with_ttl, GAUGE, NUMBER, "time to live", "entries that expire some day")           \
    X(uint64_t, without_ttl, GAUGE, NUMBER, "time to live", "entries that never do")               \
    X(uint64_t, expired_undrained, GAUGE, NUMBER, "time to live", "expired, event still to come")  \
    X(uint64_t, expiring_1m, GAUGE, NUMBER, "time to live", "within a minute, or little later")    \
    X(uint64_t, expiring_1h, GAUGE, NUMBER, "time to live", "within an hour, or little later")     \
    X(uint64_t, expiring_1d, GAUGE, NUMBER, "time to live", "within a day, or little later")       \
    X(uint64_t, revision, GAUGE, NUMBER, "queues", "of the latest change")                         \
    X(uint64_t, l3_prefix, GAUGE, NUMBER, "queues", "L3 has every change up to this revision")     \
    X(uint64_t, l3_lag, GAUGE, NUMBER, "queues", "revisions that L3 is behind")                    \
    X(uint64_t, pending_writes, GAUGE, NUMBER, "queues", "changes that L3 does not have yet")      \
    X(uint64_t, log_queue, GAUGE, NUMBER, "queues", "changes waiting for the log")                 \
    X(uint64_t, l3_queue, GAUGE, NUMBER, "queues", "changes waiting for L3's next transaction")    \
    X(uint64_t, writeback_queue, GAUGE, NUMBER, "queues", "entries on their way down from L1")     \
    X(uint64_t, usage_queue, GAUGE, NUMBER, "queues", "access figures waiting for L3")             \
    X(uint64_t, log_bytes, GAUGE, BYTES, "queues", "of the log that L3 still needs")               \
    X(uint64_t, log_max_bytes, GAUGE, BYTES, "queues", "at which writers are refused")             \
    X(uint64_t, uptime_ms, GAUGE, MS, "time", "since the cache was opened")                        \
    X(uint64_t, since_ms, GAUGE, MS, "time", "that the counters cover: since open or reset")

/* What is timed. X(NAME, value, name, help) */
#define PTIER_OPERATIONS(X)                                                                        \
    X(GET_L1, 1, "get_l1", "a read that L1 answers; 1 in 64 is timed")                             \
    X(GET_L2, 2, "get_l2", "a read that L2 answers")                                               \
    X(GET_L3, 3, "get_l3", "a read that L3 answers")                                               \
    X(GET_MISS, 4, "get_miss", "a read that finds nothing")                                        \
    X(PUT_MEMORY, 5, "put_memory", "a put call (of any size), until it is seen")                   \
    X(PUT_LOGGED, 6, "put_logged", "a put call, until it is logged")                               \
    X(PUT_SYNCED, 7, "put_synced", "a put call, until it is on stable storage")                    \
    X(LOG_COMMIT, 8, "log_commit", "a group of changes into the log")                              \
    X(L3_TRANSACTION, 9, "l3_transaction", "a batch of changes into L3")                           \
    X(L3_CHECKPOINT, 10, "l3_checkpoint", "L3's write-ahead log into its file")

typedef enum ptier_operation {
#define PTIER_OPERATION_ENUM(NAME, value, name, help) PTIER_OPERATION_##NAME = (value),
    PTIER_OPERATIONS(PTIER_OPERATION_ENUM)
#undef PTIER_OPERATION_ENUM
} ptier_operation;
#define PTIER_OPERATION_COUNT 11 /* arrays are indexed by ptier_operation; [0] is unused */

/* Percentiles are exact to 1/16; of what succeeded. */
typedef struct ptier_latency {
    uint64_t count; /* timed */
    uint64_t total_ns;
    uint64_t p50_ns, p99_ns, p999_ns, max_ns;
} ptier_latency;

#define PTIER_METRIC_FIELD(type, name, kind, unit, group, help) type name;
typedef struct ptier_tier_statistics {
    PTIER_TIER_METRICS(PTIER_METRIC_FIELD)
} ptier_tier_statistics;

typedef struct ptier_statistics {
    PTIER_CACHE_METRICS(PTIER_METRIC_FIELD)
    uint64_t removals[PTIER_REASON_COUNT]; /* entries that left the cache (counters) */
    ptier_tier_statistics tiers[PTIER_TIER_COUNT];
    ptier_latency latency[PTIER_OPERATION_COUNT];
} ptier_statistics;
#undef PTIER_METRIC_FIELD

/* The rows as data, each list ended by a NULL name. */
typedef struct ptier_metric {
    const char *name;
    ptier_metric_kind kind;
    ptier_metric_unit unit;
    const char *group;
    const char *help;
    double (*value)(const void *statistics);
} ptier_metric;
extern const ptier_metric ptier_tier_metrics[];  /* value: of a ptier_tier_statistics */
extern const ptier_metric ptier_cache_metrics[]; /* value: of a ptier_statistics */

static inline double
ptier_hit_rate(uint64_t hits, uint64_t misses)
{
    return hits + misses ? (double)hits / (double)(hits + misses) : 0;
}

PTIER_API const char *ptier_operation_name(
    ptier_operation operation); /* "unknown" when out of range */
PTIER_API const char *ptier_operation_help(ptier_operation operation);

#ifdef __cplusplus
}
#endif
#endif
