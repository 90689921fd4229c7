/*
 * The plain reference that a cache is compared with: an array of keys, and the rules of DESIGN for
 * puts, reports, time and removal, written down once more without tiers, indexes or threads. Knows
 * nothing of the cache. Lives in memory that processes share, so it holds no pointers.
 */
#ifndef PTIER_PROPERTY_MODEL_H
#define PTIER_PROPERTY_MODEL_H

#include <proxytier/types.h>

enum {
    PTIER_MODEL_KEYS = 160, /* every fourth has its key derived from its address */
    PTIER_MODEL_SOURCES = 3,
    PTIER_MODEL_FAST_SOURCE = 1, /* has a time to live of its own */
    PTIER_MODEL_DEFAULT_TTL_MS = 300000,
    PTIER_MODEL_FAST_TTL_MS = 30000,
    PTIER_MODEL_THRESHOLD = 3,
    PTIER_MODEL_QUARANTINE_MS = 600000,
};

typedef struct ptier_model_time {
    int64_t wall_ms, boot_ms;
} ptier_model_time;

/* Texts are numbers here; 0 is none. See ptier_model_texts. */
typedef struct ptier_model_entry {
    bool exists; /* has not been removed: it may have expired */
    uint64_t revision;
    uint32_t address, user, password, source;
    uint32_t labels[2];
    int64_t fetch_time_ms, ttl_ms, expires_wall_ms, expires_boot_ms;
    ptier_health health;
    uint32_t failures;
    bool needs_revalidation;
    /* Usage figures may lag behind these (a lost race, a kill), and never run ahead. */
    uint64_t accesses, successes, reports;
    int64_t last_access_ms;

    int64_t quarantined_until_boot_ms;
    uint64_t removed_at; /* revision */
    bool may_return;     /* its removal was not acknowledged when the cache was killed */
    bool quarantine_unsure;
    bool quarantine_lifted; /* by a put of which the disk may not have heard */
} ptier_model_entry;

typedef struct ptier_model {
    ptier_model_entry entries[PTIER_MODEL_KEYS];
} ptier_model;

/* What a put states. */
typedef struct ptier_model_put {
    ptier_put_mode mode;
    bool restore, invalid, inline_credentials;
    uint32_t address, user, password, source;
    uint32_t labels[2];
    int64_t fetch_time_ms; /* 0: not stated */
    int64_t ttl_ms;
    ptier_health health;
    uint32_t failures;
    /* restore */
    int64_t expires_at_ms, last_access_ms;
    uint64_t accesses, successes, reports;
    bool needs_revalidation;
} ptier_model_put;

/* ---- texts ---- */

typedef struct ptier_model_texts {
    char key[72], url[128], user[24], password[24], source[24];
    ptier_label labels[2];
    char label_values[2][16];
    size_t label_count;
} ptier_model_texts;

bool ptier_model_derives_key(int key);
void ptier_model_key_text(int key, char text[72]);
/* -1: none of ours. */
int ptier_model_find_key(const char *text);

/* A record that says what the put says; its strings are in *texts. */
void ptier_model_record(int key, const ptier_model_put *put, ptier_model_texts *texts,
                        ptier_record *record);

const char *ptier_model_source_text(uint32_t source);
const char *ptier_model_country(uint32_t label);
const char *ptier_model_scheme(int key, uint32_t address);

/* ---- rules ---- */

bool ptier_model_expired(const ptier_model_entry *entry, ptier_model_time now);
static inline bool
ptier_model_live(const ptier_model_entry *entry, ptier_model_time now)
{
    return entry->exists && !ptier_model_expired(entry, now);
}

/* What a put does; the entry has not expired. *after is the new state if it is CREATED or UPDATED.
 */
ptier_put_outcome ptier_model_predict_put(const ptier_model_entry *entry,
                                          const ptier_model_put *put, ptier_model_time now,
                                          ptier_model_entry *after);

typedef enum ptier_model_verdict {
    PTIER_MODEL_NOTHING, /* only figures move: *after has them */
    PTIER_MODEL_CHANGE,
    PTIER_MODEL_REMOVAL,
} ptier_model_verdict;

/* What a report does to an entry that is live. */
ptier_model_verdict ptier_model_predict_report(const ptier_model_entry *entry,
                                               ptier_outcome outcome, ptier_model_entry *after);

/* The machine was restarted: expiry is counted anew from the wall clock. */
void ptier_model_reboot(ptier_model *model, ptier_model_time now);

/* The name of a field, usage figures apart, in which a record differs from the entry; NULL: none
 * does. Static storage. */
const char *ptier_model_difference(const ptier_model_entry *entry, int key,
                                   const ptier_record *record, ptier_model_time now);

/* Whether the record's usage figures are more than was done. (They move: look at what was read.) */
bool ptier_model_usage_ahead(const ptier_model_entry *entry, const ptier_record *record);

#endif
