/*
 * A cache and the model beside it: opening, the change feed, and the comparison of what an
 * operation did with what the model says it must do. Lives in memory shared between the process
 * that runs the cache (and may kill itself at any moment) and the next one, which goes on with it.
 * What is wrong ends the process with a message (ptier_model_die): cmocka runs in the parent.
 */
#ifndef PTIER_PROPERTY_MODEL_RUN_H
#define PTIER_PROPERTY_MODEL_RUN_H

#include <stdatomic.h>

#include "cache/cache_internal.h"
#include "property/model.h"
#include "support/temp_dir.h"
#include "support/virtual_clock.h"

enum { PTIER_MODEL_INTENTS = 24, PTIER_MODEL_FEED = 4096 };

typedef struct ptier_model_change {
    ptier_event_type type;
    ptier_reason reason;
    uint64_t revision;
    char key[72];
    ptier_entry *entry; /* owned; of the process that `epoch` names */
    unsigned epoch;
} ptier_model_change;

/* One thing that an operation asks for, and what the cache answered. */
typedef struct ptier_model_intent {
    enum { PTIER_MODEL_PUT, PTIER_MODEL_DELETE, PTIER_MODEL_REPORT } kind;
    int key;
    bool done;
    ptier_model_put put;
    ptier_put_result put_result;
    ptier_outcome outcome;
    ptier_report_result report_result;
} ptier_model_intent;

typedef struct ptier_model_run {
    /* What is run. */
    int tiers;                         /* bits 1, 2, 4 */
    uint64_t bounds[PTIER_TIER_COUNT]; /* 0: unlimited */
    bool colliding;                    /* few different hashes for all keys */
    bool quick; /* start-up reads the index in the background, more or less slowly */
    uint64_t seed;

    /* Where it is. */
    uint64_t random, operations;
    unsigned epoch;       /* counts processes */
    bool ending_by_kill;  /* the present process ends itself so */
    bool machine_crashed; /* it did, and then the machine was restarted */
    uint64_t kills, reboots, quick_starts, removals[PTIER_REASON_COUNT];
    char doing[160];
    char directory[PTIER_TEST_PATH];
    ptier_test_clock clock;
    int64_t wall_step_ms; /* how far the wall clock was set since the last reboot */
    ptier_model model;
    uint64_t revision;  /* of the latest change that was told */
    uint64_t certain;   /* acknowledged as LOGGED up to here */
    bool opened_before; /* then store_id is set */
    uint8_t store_id[PTIER_ID_BYTES];

    /* The feed: written by the cache's threads. */
    _Atomic uint64_t told;
    uint64_t taken;
    ptier_model_change feed[PTIER_MODEL_FEED];

    /* Of this process. */
    ptier_cache *cache;
    uint64_t reads;
    bool touched[PTIER_MODEL_KEYS]; /* evicted while the operation ran: what it saw is open */
    unsigned touched_count;
    ptier_model_intent intents[PTIER_MODEL_INTENTS];
    int intent_count;
    bool clearing;
} ptier_model_run;

PTIER_PRINTF(2, 3)
__attribute__((noreturn)) void ptier_model_die(const ptier_model_run *run, const char *format, ...);

#define PTIER_MODEL_CHECK(run, condition, ...)                                                     \
    do {                                                                                           \
        if (!(condition))                                                                          \
            ptier_model_die((run), __VA_ARGS__);                                                   \
    } while (0)

static inline ptier_model_time
ptier_model_now(const ptier_model_run *run)
{
    return (ptier_model_time){.wall_ms = atomic_load(&run->clock.wall_ms),
                              .boot_ms = atomic_load(&run->clock.boot_ms)};
}

ptier_tier_id ptier_model_lowest(const ptier_model_run *run);

/* Opens the cache and goes on with what the process before left behind. */
void ptier_model_open(ptier_model_run *run);

/* Starts an operation: what happened before it is taken in. */
void ptier_model_begin(ptier_model_run *run, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
ptier_model_intent *ptier_model_intend(ptier_model_run *run, int kind, int key);

/*
 * Ends it: every change that was told must be one that the operation asked for (or an expiry, or an
 * eviction that a bound calls for), as the model predicts it; what should change nothing did not.
 * Returns how many deletes found something, at least; *at_most may be more if evictions came
 * between.
 */
size_t ptier_model_settle(ptier_model_run *run, size_t *at_most);

/* A live entry as the cache gave it, against the model's. `before`: the model when the operation
 * began. */
void ptier_model_compare(const ptier_model_run *run, const ptier_model_entry *before, int key,
                         const ptier_entry *entry);

/* How many entries the cache may count: those that have not been removed. */
void ptier_model_count(const ptier_model_run *run, uint64_t *at_least, uint64_t *at_most);

#endif
