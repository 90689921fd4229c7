/*
 * The file `state` of a data directory: who the store is, and how far revisions are reserved.
 * Revisions never repeat, because a block is durable here before any of it is used. Not
 * thread-safe; one owner.
 */
#ifndef PTIER_STATE_H
#define PTIER_STATE_H

#include <stdint.h>

#include <proxytier/cache.h>

#include "crypto/keyring.h"

typedef struct ptier_state {
    uint8_t store_id[PTIER_ID_BYTES];
    uint64_t reserved;                    /* revisions below this may have been used */
    uint8_t key_check[PTIER_CHECK_BYTES]; /* of the first key, over a fixed text: a wrong key is
                                             noticed before it does harm */
} ptier_state;

/*
 * Reads the file, or makes it with a new store_id. DATA_LOSS: it is damaged or of a newer version;
 * FAILED_PRECONDITION: none of the keys is one that the store was written with (the message says
 * what to do).
 */
PTIER_MUST_CHECK ptier_status ptier_state_load(const char *directory, ptier_keyring *keyring,
                                               ptier_state *state, ptier_error *error);

/* Whether there is a state file, of whatever kind: the directory has been used. */
bool ptier_state_exists(const char *directory);

/* Writes the file, durably. */
PTIER_MUST_CHECK ptier_status ptier_state_save(const char *directory, const ptier_state *state,
                                               ptier_error *error);

/* Random bytes for ids. */
PTIER_MUST_CHECK ptier_status ptier_random_id(uint8_t id[PTIER_ID_BYTES], ptier_error *error);

#endif
