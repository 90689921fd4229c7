/*
 * Stores to be damaged, and what is known of them: the last acknowledged state of every key, and
 * which key each version was put under. What was learnt is in memory that processes share: a store
 * is written by a process that closes it or kills itself.
 */
#ifndef PTIER_PROPERTY_DAMAGE_STORE_H
#define PTIER_PROPERTY_DAMAGE_STORE_H

#include <proxytier/cache.h>

#include "support/temp_dir.h"

enum { PTIER_DAMAGE_KEYS = 160, PTIER_DAMAGE_VERSIONS = 2000 };

typedef struct ptier_damage_key {
    bool exists;
    uint64_t revision; /* of the last change, removals included */
    uint32_t version, failures;
} ptier_damage_key;

typedef struct ptier_damage_store {
    int tiers; /* bits 1, 2, 4 */
    bool killed;
    char directory[PTIER_TEST_PATH], older[PTIER_TEST_PATH];
    ptier_damage_key keys[PTIER_DAMAGE_KEYS];
    int owners[PTIER_DAMAGE_VERSIONS]; /* key of each version */
    uint32_t versions;
    uint64_t highest; /* revision */
    uint8_t store_id[PTIER_ID_BYTES];
    uint64_t random;
} ptier_damage_store;

/* Makes it; `older` is how it was half-way, closed. False: the process that writes it failed. */
bool ptier_damage_store_make(ptier_damage_store *store, int tiers, bool killed, uint64_t seed);
void ptier_damage_store_remove(ptier_damage_store *store);

/* Opens a directory with the store's options, and the feed going nowhere. */
PTIER_MUST_CHECK ptier_status ptier_damage_open(const ptier_damage_store *store,
                                                const char *directory, ptier_cache **cache,
                                                ptier_error *error);

/* All that caches logged that were opened so by this process. */
const char *ptier_damage_log(void);

/* Whether L2 has been written anew since damage was found in it at open, and L3 since any was. */
bool ptier_damage_mended(ptier_cache *cache);

/* Puts a new version of a key. False: the put was not acknowledged. */
bool ptier_damage_put(ptier_damage_store *store, ptier_cache *cache, int key,
                      ptier_put_result *result, ptier_durability *reached);
void ptier_damage_key_text(int key, char text[16]);

typedef enum ptier_damage_verdict {
    PTIER_DAMAGE_CURRENT,
    PTIER_DAMAGE_MISSING, /* it should be there */
    PTIER_DAMAGE_OLDER,   /* a state before the last one, or a key that was removed */
    PTIER_DAMAGE_WRONG,   /* no state that this key ever had */
} ptier_damage_verdict;

/* Reads a key and judges. *status: of the read. */
ptier_damage_verdict ptier_damage_judge(const ptier_damage_store *store, ptier_cache *cache,
                                        int key, ptier_status *status);

/* What is served now is the state to be judged by from now on. */
void ptier_damage_adopt(ptier_damage_store *store, ptier_cache *cache, int key);

#endif
