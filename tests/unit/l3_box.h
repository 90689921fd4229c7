/*
 * One L3 in a directory of its own, and a clock that stands still. One thread. Failures fail the
 * running cmocka test.
 */
#ifndef PTIER_TEST_L3_BOX_H
#define PTIER_TEST_L3_BOX_H

#include "l3/l3_internal.h"
#include "support/temp_dir.h"

#define BOX_KEY       "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="
#define BOX_OTHER_KEY "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

typedef struct l3_box {
    char directory[PTIER_TEST_PATH], path[PTIER_TEST_PATH + 64];
    int64_t wall, boot;
    ptier_clock clock;
    ptier_keyring *keyring;
    uint64_t capacity;
    int busy_timeout_ms;
    uint64_t (*hash_key)(const char *key);
    ptier_tier *tier;
    ptier_error error;
} l3_box;

/* An open, empty database in *state. */
int box_setup(void **state);
int box_teardown(void **state);
#define BOX_FACT(name) cmocka_unit_test_setup_teardown(name, box_setup, box_teardown)

void box_use_keys(l3_box *f, const char *first, const char *second); /* second may be NULL */
ptier_l3_options box_options(l3_box *f);
ptier_status box_try_open(l3_box *f);
void box_open(l3_box *f);
void box_close(l3_box *f);
void box_reopen(l3_box *f);

/* Changes, owned until they are applied. */
ptier_op box_put_op(l3_box *f, const char *key, uint64_t hash, uint64_t revision);
ptier_op box_remove_op(l3_box *f, const char *key, uint64_t hash, uint64_t revision);
ptier_op box_too_long_op(l3_box *f, const char *key, uint64_t hash, uint64_t revision); /* fails */
ptier_op box_clear_op(uint64_t revision);
void box_release(ptier_op *ops, size_t count);

/* Apply and release. */
ptier_status box_try_apply(l3_box *f, ptier_op *ops, size_t count, bool sync);
void box_apply(l3_box *f, ptier_op *ops, size_t count);
void box_apply_one(l3_box *f, ptier_op op);

/* Puts key-1 ... key-<count>, the n-th with revision first + n - 1, in batches. */
void box_fill(l3_box *f, unsigned count, uint64_t first);
uint64_t box_hash(unsigned number); /* of the n-th of those */

/* The revision that is stored under the key; 0: none. */
uint64_t box_stored(l3_box *f, const char *key, uint64_t hash);
ptier_status box_get_status(l3_box *f, const char *key, uint64_t hash, uint64_t revision);
uint64_t box_count(l3_box *f);

/* The entry is what box_put_op made. */
void box_assert_as_put(l3_box *f, const ptier_entry *entry, uint64_t revision);

/* Scans. What was shown is in the result. */
typedef struct box_seen {
    uint64_t rows, hashes, revisions;
    uint64_t stop_after; /* 0: never */
    ptier_status status;
} box_seen;
box_seen box_scan(l3_box *f);
bool box_on_item(void *seen, const ptier_scan_item *item);

ptier_l3_condition box_condition(l3_box *f);

/* Changes the file behind L3's back. */
void box_meddle(l3_box *f, const char *sql);
void box_flip(const char *path, long at, int bit);
uint64_t box_random(uint64_t *seed, uint64_t bound);

#endif
