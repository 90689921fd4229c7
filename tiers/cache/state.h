/*
 * The file `state` of a data directory: who the store is, which keys its records need, how far
 * revisions are reserved, and how the last run ended. Revisions never repeat, because a block is
 * durable here before any of it is used. Not thread-safe; one owner.
 */
#ifndef PTIER_STATE_H
#define PTIER_STATE_H

#include <stdint.h>

#include <proxytier/cache.h>

#include "crypto/keyring.h"

enum { PTIER_STATE_KEYS_MAX = 16 };

typedef struct ptier_state {
    uint8_t store_id[PTIER_ID_BYTES];
    uint64_t reserved; /* revisions below this may have been used */

    /* One check for each key that records at rest may have been written with, over a fixed text: a
     * missing or wrong key is noticed before it does harm. */
    uint8_t keys[PTIER_STATE_KEYS_MAX][PTIER_CHECK_BYTES];
    size_t key_count;

    /* Of the run that wrote the file. */
    uint32_t tiers;    /* bit (1 << ptier_tier_id) for each that was enabled; 0: there was no run */
    uint64_t boot_tag; /* of its kernel */
    bool clean;        /* it ended in order; false while it runs */
} ptier_state;

typedef enum ptier_state_condition {
    PTIER_STATE_SOUND,
    PTIER_STATE_MISSING,
    PTIER_STATE_DAMAGED,
} ptier_state_condition;

/*
 * Reads the file; where there is none that can be used, *condition says so and *state is that of a
 * new store without keys. FAILED_PRECONDITION: a newer version's. UNAVAILABLE, PERMISSION_DENIED:
 * the file system.
 */
PTIER_MUST_CHECK ptier_status ptier_state_load(const char *directory, ptier_state *state,
                                               ptier_state_condition *condition,
                                               ptier_error *error);

/* Writes the file, durably. */
PTIER_MUST_CHECK ptier_status ptier_state_save(const char *directory, const ptier_state *state,
                                               ptier_error *error);

/* FAILED_PRECONDITION: records may need a key that is not among ours (says what to do). */
PTIER_MUST_CHECK ptier_status ptier_state_check_keys(const ptier_state *state,
                                                     ptier_keyring *keyring, const char *directory,
                                                     ptier_error *error);

/* Adds the first key, which new records are written with; *changed: it was not there. */
PTIER_MUST_CHECK ptier_status ptier_state_add_key(ptier_state *state, ptier_keyring *keyring,
                                                  bool *changed, ptier_error *error);

/* Random bytes for ids. */
PTIER_MUST_CHECK ptier_status ptier_random_id(uint8_t id[PTIER_ID_BYTES], ptier_error *error);

#endif
