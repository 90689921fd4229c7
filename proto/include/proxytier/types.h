/*
 * The words that tiers, server, SDK and programs share: a proxy record and its enumerations. Plain
 * data, no functions with state; values equal those of the .proto enums. Thread-safe throughout.
 */
#ifndef PROXYTIER_TYPES_H
#define PROXYTIER_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <proxytier/status.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum ptier_health {
    PTIER_HEALTH_UNSPECIFIED = 0, /* on input: not stated */
    PTIER_HEALTH_HEALTHY = 1,
    PTIER_HEALTH_DEGRADED = 2,
    PTIER_HEALTH_UNHEALTHY = 3,
    PTIER_HEALTH_DEAD = 4,
    PTIER_HEALTH_UNKNOWN = 5,
} ptier_health;

typedef enum ptier_tier_id {
    PTIER_TIER_NONE = 0, /* on input: all of them */
    PTIER_TIER_L1 = 1,
    PTIER_TIER_L2 = 2,
    PTIER_TIER_L3 = 3,
} ptier_tier_id;
#define PTIER_TIER_COUNT 4 /* arrays are indexed by ptier_tier_id; [0] is unused */

typedef enum ptier_durability {
    PTIER_DURABILITY_DEFAULT = 0, /* on input: the cache's default */
    PTIER_DURABILITY_MEMORY = 1,  /* visible to readers */
    PTIER_DURABILITY_LOGGED = 2,  /* handed to the kernel: survives kill -9 */
    PTIER_DURABILITY_SYNCED = 3,  /* on stable storage: survives power loss */
} ptier_durability;

typedef enum ptier_reason {
    PTIER_REASON_NONE = 0,
    PTIER_REASON_CAPACITY = 1,
    PTIER_REASON_TTL = 2,
    PTIER_REASON_HEALTH = 3,
    PTIER_REASON_CORRUPTION = 4,
    PTIER_REASON_DELETED = 5,
    PTIER_REASON_CLEARED = 6,
} ptier_reason;
#define PTIER_REASON_COUNT 7

typedef enum ptier_event_type {
    PTIER_EVENT_CREATED = 1,
    PTIER_EVENT_UPDATED = 2,
    PTIER_EVENT_HEALTH = 3,
    PTIER_EVENT_REMOVED = 4,
    PTIER_EVENT_CLEARED = 5,
    PTIER_EVENT_PROMOTED = 16,
    PTIER_EVENT_TIER_EVICTED = 17,
    PTIER_EVENT_TIER_DEGRADED = 18,
    PTIER_EVENT_TIER_RECOVERED = 19,
} ptier_event_type;

typedef enum ptier_outcome {
    PTIER_REPORT_OK = 1,
    PTIER_REPORT_FAILED = 2,
    PTIER_REPORT_UNKNOWN = 3,
} ptier_outcome;

typedef enum ptier_put_outcome {
    PTIER_PUT_CREATED = 1,
    PTIER_PUT_UPDATED = 2,
    PTIER_PUT_SKIPPED_QUARANTINED = 3,
    PTIER_PUT_SKIPPED_OLDER = 4,
    PTIER_PUT_SKIPPED_EXPIRED = 5,
    PTIER_PUT_REJECTED = 6,
} ptier_put_outcome;

typedef enum ptier_put_mode {
    PTIER_PUT_MODE_PUT = 0,
    PTIER_PUT_MODE_WARM =
        1, /* skips the quarantined; an older fetch time never overwrites a newer one */
} ptier_put_mode;

/* Limits on one record, in bytes without the terminating NUL. */
#define PTIER_KEY_MAX         256
#define PTIER_URL_MAX         512
#define PTIER_CREDENTIAL_MAX  512
#define PTIER_SOURCE_MAX      128
#define PTIER_LABELS_MAX      32
#define PTIER_LABEL_NAME_MAX  64
#define PTIER_LABEL_VALUE_MAX 256
#define PTIER_BATCH_MAX       10000 /* records, keys or reports in one call */

#define PTIER_TTL_DEFAULT INT64_C(-1) /* on input: the default of the source or the cache */
#define PTIER_TTL_MAX_MS                                                                           \
    (INT64_C(100) * 365 * 86400 * 1000)    /* 100 years; longer is refused: 0 never expires */
#define PTIER_FAILURES_UNSTATED UINT32_MAX /* on input: keep what is known */

typedef struct ptier_label {
    const char *name;
    const char *value;
} ptier_label;

/*
 * One proxy-server record as plain data. Strings are NUL-terminated UTF-8, borrowed from whoever
 * made the record (each function that hands one out says until when). Start input records from
 * ptier_record_init: one of all zeros is no default, but states that it never expires (ttl_ms) and
 * has not failed (failure_count).
 */
typedef struct ptier_record {
    const char *key;            /* input: NULL derives it from url and username */
    const char *url;            /* output: scheme://host:port; input may carry user:password@ */
    const char *username;       /* NULL: none */
    const char *password;       /* NULL: none */
    const char *username_token; /* input only, instead of the plain text: Fernet token of one of the
                                   cache's keys */
    const char *password_token;
    const char *source;     /* "" or NULL: not stated */
    int64_t fetch_time_ms;  /* Unix epoch; input: 0 = now */
    int64_t ttl_ms;         /* 0 never expires; input: PTIER_TTL_DEFAULT */
    ptier_health health;    /* input: PTIER_HEALTH_UNSPECIFIED keeps what is known */
    uint32_t failure_count; /* input: PTIER_FAILURES_UNSTATED keeps what is known */
    const ptier_label *labels;
    size_t label_count;

    /* Output; on input only when a put restores an export. */
    bool needs_revalidation;
    uint64_t revision;
    int64_t expires_at_ms;    /* wall clock; 0 never */
    int64_t remaining_ttl_ms; /* when the record was read; -1 never expires */
    int64_t last_access_ms;   /* 0 never */
    uint64_t access_count;
    double latency_ms; /* moving average; 0 none reported */
    uint64_t success_count;
    uint64_t report_count;
} ptier_record;

static inline void
ptier_record_init(ptier_record *record)
{
    memset(record, 0, sizeof *record);
    record->ttl_ms = PTIER_TTL_DEFAULT;
    record->failure_count = PTIER_FAILURES_UNSTATED;
}

/* One outcome of using a proxy. */
typedef struct ptier_report {
    const char *key;
    ptier_outcome outcome;
    double latency_ms; /* 0: not measured */
    const char *error; /* NULL or text for the log; no credentials */
} ptier_report;

typedef struct ptier_report_result {
    bool found;
    bool removed; /* this report reached the threshold */
    uint32_t failure_count;
    ptier_health health;
    uint64_t revision; /* of the change or removal it made; 0: it moved statistics at most */
} ptier_report_result;

/* All conditions must hold; NULL, 0 and empty match everything. */
typedef struct ptier_filter {
    const char *source;
    const char *scheme;
    const ptier_label *labels;
    size_t label_count;
    ptier_health health; /* UNSPECIFIED: any (pick: any but unhealthy and dead) */
} ptier_filter;

/* Words for enumerators: lower case, "unknown" for a value out of range. Static storage. */
PTIER_API const char *ptier_health_name(ptier_health health);
PTIER_API const char *ptier_tier_name(ptier_tier_id tier);       /* L1, L2, L3 */
PTIER_API const char *ptier_durability_name(ptier_durability d); /* memory, logged, synced */
PTIER_API const char *ptier_reason_name(
    ptier_reason reason); /* CAPACITY, TTL, ... upper case as in the .proto */
PTIER_API const char *ptier_event_type_name(ptier_event_type type); /* CREATED, ... upper case */
PTIER_API const char *ptier_put_outcome_name(ptier_put_outcome outcome);

/* Parses a health word, any case. False when it is none. */
PTIER_API bool ptier_health_parse(const char *word, ptier_health *health);

#ifdef __cplusplus
}
#endif
#endif
