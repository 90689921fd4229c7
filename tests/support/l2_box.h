/*
 * An L2 of its own in a directory of its own, on a virtual clock, with entries of
 * ptier_test_entry_with. One thread. Failures fail the running cmocka test.
 */
#ifndef PTIER_TEST_L2_BOX_H
#define PTIER_TEST_L2_BOX_H

#include <sys/types.h>

#include "l2/l2_jsonl.h"
#include "support/temp_dir.h"
#include "support/virtual_clock.h"

#define BOX_KEY       "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="
#define BOX_OTHER_KEY "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

typedef struct ptier_test_l2 {
    char directory[PTIER_TEST_PATH];
    ptier_test_clock clock;
    ptier_keyring *keyring;
    ptier_l2_options options;
    ptier_tier *l2; /* NULL: closed */
    ptier_l2_found found;
    ptier_error error;
    unsigned warnings;
} ptier_test_l2;

enum { PTIER_TEST_SHARD_PATH = PTIER_TEST_PATH + 40 };

/* cmocka's set-up and tear-down: opened in an empty directory. */
int ptier_box_set_up(void **state);
int ptier_box_tear_down(void **state);
#define WITH_L2(test) cmocka_unit_test_setup_teardown(test, ptier_box_set_up, ptier_box_tear_down)

/* The keyring's first key, and a second one or NULL. */
void ptier_box_use_keys(ptier_test_l2 *box, const char *first, const char *second);

/* As the cache does it without L3; box->found is what was found. */
void ptier_box_reopen(ptier_test_l2 *box);
/* With an L3 that has all up to `prefix`. */
void ptier_box_reopen_above(ptier_test_l2 *box, uint64_t prefix);
void ptier_box_open(ptier_test_l2 *box); /* without the replay */
void ptier_box_close(ptier_test_l2 *box);

uint64_t ptier_box_hash(const ptier_test_l2 *box, const char *key);

/* One change; its entry has credentials. */
ptier_status ptier_box_try(ptier_test_l2 *box, ptier_op_kind kind, const char *key,
                           uint64_t revision, uint64_t replaces, bool sync);
void ptier_box_apply(ptier_test_l2 *box, ptier_op_kind kind, const char *key, uint64_t revision,
                     uint64_t replaces);
void ptier_box_put(ptier_test_l2 *box, const char *key, uint64_t revision, uint64_t replaces);

/* Puts "k<revision>", expects this, and an error message that has `why` in it. */
void ptier_box_expect_put(ptier_test_l2 *box, uint64_t revision, bool sync, ptier_status expected,
                          const char *why);

/* New keys "k<revision>" for revisions from..to. */
void ptier_box_put_many(ptier_test_l2 *box, uint64_t from, uint64_t to);

/* Gets, and compares what comes with what was put. */
ptier_status ptier_box_get(ptier_test_l2 *box, const char *key, uint64_t revision);
/* How many of the keys of ptier_box_put_many are there, unharmed. */
uint64_t ptier_box_get_many(ptier_test_l2 *box, uint64_t from, uint64_t to);

void ptier_box_compact(ptier_test_l2 *box); /* until there is nothing to do */

/* ---- files ---- */

void ptier_box_shard_path(const ptier_test_l2 *box, unsigned number,
                          char path[PTIER_TEST_SHARD_PATH]);
uint32_t ptier_box_last_shard(const ptier_test_l2 *box);
off_t ptier_box_shard_size(const ptier_test_l2 *box, unsigned number);
bool ptier_box_has_shard(const ptier_test_l2 *box, unsigned number);
size_t ptier_box_shard_files(const ptier_test_l2 *box);

/* Where line number `line` (from 0, the header) of a shard is, line break included. */
void ptier_box_line(const ptier_test_l2 *box, unsigned number, unsigned line, size_t *offset,
                    size_t *length);

/* Writes over a byte of a shard's file, in place. */
void ptier_box_flip(const ptier_test_l2 *box, unsigned number, size_t offset);
void ptier_box_truncate(const ptier_test_l2 *box, unsigned number, size_t length);

void ptier_box_copy_shard(const ptier_test_l2 *box, unsigned from, unsigned to);
void ptier_box_remove_shard(const ptier_test_l2 *box, unsigned number);

enum { BOX_SHARDS = 6 };

/* Fills shards 1 to BOX_SHARDS with ptier_box_put_many, and closes. last_in[n] becomes the last
 * revision in shard n. Returns the last of all. */
uint64_t ptier_box_fill_shards(ptier_test_l2 *box, uint64_t last_in[BOX_SHARDS + 1]);

#endif
