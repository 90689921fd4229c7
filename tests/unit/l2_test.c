#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "hash.h"
#include "l2/l2_jsonl.h"
#include "sealed.h"
#include "support/sample_entry.h"
#include "support/temp_dir.h"
#include "support/virtual_clock.h"

#define KEY       "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="
#define OTHER_KEY "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

typedef struct fixture {
    char directory[PTIER_TEST_PATH];
    ptier_test_clock clock;
    ptier_keyring *keyring;
    ptier_l2_options options;
    ptier_tier *l2;
    ptier_error error;
    unsigned warnings;
} fixture;

static void
note_warning(void *context, ptier_log_level level, const char *event, const char *text)
{
    (void)event;
    (void)text;
    ((fixture *)context)->warnings += level <= PTIER_LOG_WARN;
}

static void
use_key(fixture *f, const char *key)
{
    ptier_keyring_destroy(f->keyring);
    assert_int_equal(ptier_keyring_create(&key, 1, &f->keyring, &f->error), PTIER_OK);
    f->options.keyring = f->keyring;
}

static void
open_l2(fixture *f)
{
    if (ptier_l2_open(&f->options, &f->l2, &f->error))
        fail_msg("%s", f->error.message);
}

static void
close_l2(fixture *f)
{
    if (f->l2)
        f->l2->ops->close(f->l2);
    f->l2 = NULL;
}

static bool
ignore_op(void *context, const ptier_op *op)
{
    (void)context;
    (void)op;
    return true;
}

/* Start-up as the cache does it without L3. */
static void
reopen(fixture *f)
{
    close_l2(f);
    open_l2(f);
    assert_int_equal(ptier_l2_replay(f->l2, UINT64_MAX, ignore_op, NULL, &f->error), PTIER_OK);
}

static int
set_up(void **state)
{
    static fixture f;
    memset(&f, 0, sizeof f);
    ptier_test_dir_make(f.directory);
    ptier_test_clock_init(&f.clock);
    f.options = (ptier_l2_options){
        .directory = f.directory,
        .shard_bytes = 1 << 20,
        .clock = &f.clock.clock,
        .on_log = note_warning,
        .log_context = &f,
    };
    use_key(&f, KEY);
    reopen(&f);
    *state = &f;
    return 0;
}

static int
tear_down(void **state)
{
    fixture *f = *state;
    close_l2(f);
    ptier_keyring_destroy(f->keyring);
    ptier_test_dir_remove(f->directory);
    return 0;
}

static uint64_t
hash_of(const fixture *f, const char *key)
{
    return f->options.hash_key ? f->options.hash_key(key) : ptier_hash_key(key);
}

static void
apply(fixture *f, ptier_op_kind kind, const char *key, uint64_t revision, uint64_t replaces)
{
    ptier_op op = {.kind = kind, .revision = revision, .replaces = replaces};
    if (kind != PTIER_OP_CLEAR)
        op.entry =
            ptier_test_entry_with(key, hash_of(f, key), kind == PTIER_OP_PUT ? revision : replaces,
                                  "user-plain", "secret-plain");
    if (kind == PTIER_OP_PUT)
        assert_int_equal(ptier_sealed_create(f->keyring, op.entry, &op.sealed), PTIER_OK);
    assert_int_equal(f->l2->ops->apply(f->l2, &op, 1, false, &f->error), PTIER_OK);
    ptier_entry_release(op.entry);
    ptier_sealed_release(op.sealed);
}

static void
put(fixture *f, const char *key, uint64_t revision, uint64_t replaces)
{
    apply(f, PTIER_OP_PUT, key, revision, replaces);
}

static ptier_status
get(fixture *f, const char *key, uint64_t revision)
{
    const ptier_ref ref = {.hash = hash_of(f, key), .revision = revision, .key = key};
    ptier_entry *entry = NULL;
    ptier_status status = f->l2->ops->get(f->l2, &ref, &entry);
    if (status)
        return status;
    assert_string_equal(ptier_entry_key(entry), key);
    assert_int_equal(entry->revision, revision);
    assert_string_equal(ptier_entry_username(entry), "user-plain");
    assert_string_equal(ptier_entry_password(entry), "secret-plain");
    assert_string_equal(ptier_entry_source(entry), "sample");
    ptier_record record;
    ptier_label labels[PTIER_LABELS_MAX];
    ptier_entry_view(entry, 0, &record, labels);
    assert_int_equal(record.label_count, 2);
    assert_string_equal(labels[1].value, "a \"quoted\" \\ value");
    assert_true(entry->expires_boot_ms == PTIER_NEVER);
    ptier_entry_release(entry);
    return PTIER_OK;
}

static void
compact_fully(fixture *f)
{
    bool worked = true;
    for (int i = 0; worked && i < 100000; i++)
        assert_int_equal(ptier_l2_compact(f->l2, &worked, &f->error), PTIER_OK);
    assert_false(worked);
}

static void
shard_path(const fixture *f, unsigned number, char path[PTIER_TEST_PATH + 32])
{
    (void)snprintf(path, PTIER_TEST_PATH + 32, "%s/shard_%08u.jsonl", f->directory, number);
}

/* ---- the contract ---- */

static void
l2_gives_back_what_was_put(void **state)
{
    fixture *f = *state;
    put(f, "a", 5, 0);
    assert_int_equal(get(f, "a", 5), PTIER_OK);
    assert_int_equal(get(f, "a", 4), PTIER_NOT_FOUND);
    assert_int_equal(get(f, "b", 5), PTIER_NOT_FOUND);
    assert_int_equal(f->l2->ops->count(f->l2), 1);
    assert_int_equal(ptier_l2_last_revision(f->l2), 5);
}

static void
l2_put_replaces_the_state_before(void **state)
{
    fixture *f = *state;
    put(f, "a", 5, 0);
    put(f, "a", 7, 5);
    assert_int_equal(get(f, "a", 5), PTIER_NOT_FOUND);
    assert_int_equal(get(f, "a", 7), PTIER_OK);
    assert_int_equal(f->l2->ops->count(f->l2), 1);
    reopen(f);
    assert_int_equal(get(f, "a", 5), PTIER_NOT_FOUND);
    assert_int_equal(get(f, "a", 7), PTIER_OK);
}

static void
l2_remove_and_clear_last_over_a_restart(void **state)
{
    fixture *f = *state;
    put(f, "a", 5, 0);
    put(f, "b", 6, 0);
    apply(f, PTIER_OP_REMOVE, "a", 7, 5);
    assert_int_equal(get(f, "a", 5), PTIER_NOT_FOUND);
    reopen(f);
    assert_int_equal(get(f, "a", 5), PTIER_NOT_FOUND);
    assert_int_equal(get(f, "b", 6), PTIER_OK);
    apply(f, PTIER_OP_CLEAR, NULL, 8, 0);
    put(f, "c", 9, 0);
    assert_int_equal(f->l2->ops->count(f->l2), 1);
    reopen(f);
    assert_int_equal(get(f, "b", 6), PTIER_NOT_FOUND);
    assert_int_equal(get(f, "c", 9), PTIER_OK);
    assert_int_equal(f->l2->ops->count(f->l2), 1);
}

static void
l2_applying_the_same_again_changes_nothing(void **state)
{
    fixture *f = *state;
    for (int i = 0; i < 3; i++)
        put(f, "a", 5, 0);
    for (int i = 0; i < 3; i++)
        put(f, "a", 6, 5);
    for (int i = 0; i < 3; i++)
        apply(f, PTIER_OP_REMOVE, "b", 7, 0);
    assert_int_equal(f->l2->ops->count(f->l2), 1);
    assert_int_equal(get(f, "a", 6), PTIER_OK);
    reopen(f);
    assert_int_equal(f->l2->ops->count(f->l2), 1);
    assert_int_equal(get(f, "a", 6), PTIER_OK);
}

static void
l2_gives_up_the_least_recently_used(void **state)
{
    fixture *f = *state;
    uint64_t hash, revision;
    f->options.capacity = 2;
    reopen(f);
    put(f, "a", 1, 0);
    put(f, "b", 2, 0);
    assert_int_equal(f->l2->ops->victim(f->l2, &hash, &revision), PTIER_NOT_FOUND);
    put(f, "c", 3, 0);
    const ptier_ref a = {.hash = hash_of(f, "a"), .revision = 1};
    f->l2->ops->touch(f->l2, &a);
    assert_int_equal(f->l2->ops->victim(f->l2, &hash, &revision), PTIER_OK);
    assert_int_equal(revision, 2);
    f->l2->ops->drop(f->l2, hash, revision);
    assert_int_equal(get(f, "b", 2), PTIER_NOT_FOUND);
    assert_false(ptier_l2_resident(f->l2, hash, 2));
    assert_true(ptier_l2_resident(f->l2, a.hash, 1));
    assert_int_equal(f->l2->ops->victim(f->l2, &hash, &revision), PTIER_NOT_FOUND);
}

static bool
count_scan(void *context, const ptier_scan_item *item)
{
    assert_string_equal(item->source, "sample");
    assert_string_equal(item->url, "http://10.0.0.1:8080");
    ++*(size_t *)context;
    return true;
}

static void
l2_scan_sees_each_resident_once(void **state)
{
    fixture *f = *state;
    size_t seen = 0;
    for (uint64_t i = 1; i <= 100; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "k%d", (int)i);
        put(f, key, i, 0);
    }
    apply(f, PTIER_OP_REMOVE, "k7", 101, 7);
    assert_int_equal(f->l2->ops->scan(f->l2, count_scan, &seen, &f->error), PTIER_OK);
    assert_int_equal(seen, 99);
}

static uint64_t
one_hash(const char *key)
{
    (void)key;
    return 77;
}

static void
l2_keeps_keys_with_the_same_hash_apart(void **state)
{
    fixture *f = *state;
    f->options.hash_key = one_hash;
    reopen(f);
    put(f, "a", 1, 0);
    put(f, "b", 2, 0);
    put(f, "c", 3, 0);
    put(f, "b", 4, 2);
    apply(f, PTIER_OP_REMOVE, "a", 5, 1);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(get(f, "a", 1), PTIER_NOT_FOUND);
        assert_int_equal(get(f, "b", 2), PTIER_NOT_FOUND);
        assert_int_equal(get(f, "b", 4), PTIER_OK);
        assert_int_equal(get(f, "c", 3), PTIER_OK);
        assert_int_equal(f->l2->ops->count(f->l2), 2);
        reopen(f);
    }
}

/* ---- damage ---- */

static void
l2_recovery_drops_a_torn_last_line_and_goes_on(void **state)
{
    fixture *f = *state;
    char path[PTIER_TEST_PATH + 32];
    size_t length, rest;
    shard_path(f, 1, path);
    put(f, "a", 1, 0);
    put(f, "b", 2, 0);
    close_l2(f);
    char *whole = ptier_test_file_read(path, &length);
    size_t first = (size_t)((char *)memchr(whole, '\n', length) - whole) + 1;
    for (size_t cut = first + 1; cut < length; cut += 37) {
        ptier_test_file_write(path, whole, cut);
        reopen(f);
        assert_int_equal(get(f, "a", 1), PTIER_OK);
        assert_int_equal(get(f, "b", 2), PTIER_NOT_FOUND);
        put(f, "c", 3, 0); /* is not glued to the torn line */
        reopen(f);
        assert_int_equal(get(f, "a", 1), PTIER_OK);
        assert_int_equal(get(f, "c", 3), PTIER_OK);
        close_l2(f);
        free(ptier_test_file_read(path, &rest));
        assert_true(rest < first + length);
    }
    free(whole);
}

static void
l2_flipped_bits_cost_only_their_own_record(void **state)
{
    fixture *f = *state;
    char path[PTIER_TEST_PATH + 32];
    size_t length;
    shard_path(f, 1, path);
    put(f, "a", 1, 0);
    put(f, "b", 2, 0);
    put(f, "c", 3, 0);
    close_l2(f);
    char *data = ptier_test_file_read(path, &length);
    char *second = (char *)memchr(data, '\n', length) + 1;
    size_t second_length = (size_t)((char *)memchr(second, '\n', length) - second);
    for (size_t bit = 0; bit < 8 * second_length; bit += 5) {
        f->warnings = 0;
        second[bit / 8] = (char)(second[bit / 8] ^ 1 << bit % 8);
        ptier_test_file_write(path, data, length);
        reopen(f);
        assert_int_equal(get(f, "a", 1), PTIER_OK);
        assert_int_equal(get(f, "b", 2), PTIER_NOT_FOUND);
        assert_int_equal(get(f, "c", 3), PTIER_OK);
        assert_int_equal(f->l2->ops->count(f->l2), 2);
        assert_true(f->warnings > 0);
        close_l2(f);
        second[bit / 8] = (char)(second[bit / 8] ^ 1 << bit % 8);
    }
    free(data);
}

static void
l2_bit_flipped_while_open_is_a_loss_and_then_a_miss(void **state)
{
    fixture *f = *state;
    char path[PTIER_TEST_PATH + 32];
    size_t length;
    shard_path(f, 1, path);
    put(f, "a", 1, 0);
    put(f, "b", 2, 0);
    char *data = ptier_test_file_read(path, &length);
    data[20] ^= 4;
    FILE *file = fopen(path, "r+e");
    assert_int_equal(fwrite(data, 1, 40, file), 40);
    assert_int_equal(fclose(file), 0);
    free(data);
    assert_int_equal(get(f, "a", 1), PTIER_DATA_LOSS);
    assert_int_equal(get(f, "a", 1), PTIER_NOT_FOUND);
    assert_int_equal(get(f, "b", 2), PTIER_OK);
    assert_int_equal(f->l2->ops->count(f->l2), 1);
}

static void
l2_survives_a_shard_of_garbage(void **state)
{
    fixture *f = *state;
    char path[PTIER_TEST_PATH + 32];
    static char garbage[300000];
    uint64_t seed = 9;
    for (int kind = 0; kind < 3; kind++) {
        for (size_t i = 0; i < sizeof garbage; i++) {
            garbage[i] = (char)ptier_test_random(&seed, 256);
            if (kind == 1 && garbage[i] == '\n') /* one endless line */
                garbage[i] = ' ';
            if (kind == 2)
                garbage[i] = '\n';
        }
        put(f, "a", 1, 0);
        close_l2(f);
        shard_path(f, 5, path);
        ptier_test_file_write(path, garbage, sizeof garbage);
        reopen(f);
        assert_int_equal(get(f, "a", 1), PTIER_OK);
        put(f, "b", 2, 0);
        reopen(f);
        assert_int_equal(get(f, "a", 1), PTIER_OK);
        assert_int_equal(get(f, "b", 2), PTIER_OK);
    }
}

static void
l2_ignores_files_that_are_no_shards(void **state)
{
    fixture *f = *state;
    static const char *const names[] = {
        "shard_7.jsonl", "shard_00000001.jsonl.bak", "shard_+0000003.jsonl", "shard_ 0000004.jsonl",
        "notes.txt",     "shard_00000000.jsonl"};
    put(f, "a", 1, 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[PTIER_TEST_PATH + 32];
        (void)snprintf(path, sizeof path, "%s/%s", f->directory, names[i]);
        ptier_test_file_write(path, "rubbish\n", 8);
    }
    reopen(f);
    assert_int_equal(get(f, "a", 1), PTIER_OK);
    put(f, "b", 2, 0);
}

static void
l2_lines_of_another_key_are_not_served(void **state)
{
    fixture *f = *state;
    put(f, "a", 1, 0);
    close_l2(f);
    use_key(f, OTHER_KEY);
    reopen(f);
    assert_int_equal(get(f, "a", 1), PTIER_NOT_FOUND);
    close_l2(f);
    use_key(f, KEY);
    reopen(f);
    assert_int_equal(get(f, "a", 1), PTIER_OK);
}

static void
l2_files_are_private_and_hold_no_plain_credentials(void **state)
{
    fixture *f = *state;
    char path[PTIER_TEST_PATH + 32];
    struct stat info;
    put(f, "a", 1, 0);
    put(f, "a", 2, 1);
    compact_fully(f);
    close_l2(f);
    shard_path(f, 1, path);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_true(ptier_test_dir_contains(f->directory, "http://10.0.0.1:8080"));
    assert_false(ptier_test_dir_contains(f->directory, "user-plain"));
    assert_false(ptier_test_dir_contains(f->directory, "secret-plain"));
}

/* ---- the log of L3 ---- */

typedef struct replayed {
    uint64_t revisions[64];
    ptier_op_kind kinds[64];
    size_t count;
} replayed;

static bool
note_op(void *context, const ptier_op *op)
{
    replayed *r = context;
    r->revisions[r->count] = op->revision;
    r->kinds[r->count++] = op->kind;
    if (op->kind == PTIER_OP_PUT) {
        assert_string_equal(ptier_entry_password(op->entry), "secret-plain");
        assert_non_null(ptier_sealed_password(op->sealed));
    }
    return true;
}

static void
replay_above(fixture *f, uint64_t prefix, replayed *r)
{
    r->count = 0;
    close_l2(f);
    open_l2(f);
    assert_int_equal(ptier_l2_replay(f->l2, prefix, note_op, r, &f->error), PTIER_OK);
}

static void
l2_replays_exactly_what_is_above_the_prefix_in_order(void **state)
{
    fixture *f = *state;
    replayed r;
    replay_above(f, 0, &r); /* L3 is empty: everything is needed for it */
    put(f, "a", 1, 0);
    put(f, "b", 2, 0);
    apply(f, PTIER_OP_CLEAR, NULL, 3, 0);
    put(f, "c", 4, 0);
    put(f, "d", 5, 0);
    put(f, "e", 6, 0);
    apply(f, PTIER_OP_REMOVE, "d", 7, 5);
    put(f, "e", 8, 6);
    replay_above(f, 0, &r);
    static const uint64_t all[] = {3, 4, 7, 8};
    assert_int_equal(r.count, 4);
    assert_memory_equal(r.revisions, all, sizeof all);
    assert_int_equal(r.kinds[0], PTIER_OP_CLEAR);
    assert_int_equal(r.kinds[2], PTIER_OP_REMOVE);
    replay_above(f, 4, &r);
    assert_int_equal(r.count, 2);
    assert_memory_equal(r.revisions, all + 2, 2 * sizeof *all);
    replay_above(f, 8, &r);
    assert_int_equal(r.count, 0);
    assert_int_equal(get(f, "c", 4), PTIER_OK);
}

static void
l2_replay_has_what_was_evicted_before_l3_had_it(void **state)
{
    fixture *f = *state;
    replayed r;
    replay_above(f, 0, &r);
    put(f, "a", 1, 0);
    assert_int_equal(ptier_l2_evict_all(f->l2), 1);
    assert_int_equal(f->l2->ops->count(f->l2), 0);
    replay_above(f, 0, &r);
    assert_int_equal(r.count, 1);
}

static size_t
shard_files(const fixture *f)
{
    size_t count = 0;
    for (unsigned i = 1; i < 2000; i++) {
        char path[PTIER_TEST_PATH + 32];
        shard_path(f, i, path);
        count += access(path, F_OK) == 0;
    }
    return count;
}

/* Makes so much dead text that every old shard is compacted away. */
static uint64_t
churn(fixture *f, uint64_t revision)
{
    uint64_t before = 0;
    for (int i = 0; i < 200; i++) {
        put(f, "churn", revision, before);
        before = revision++;
        compact_fully(f);
    }
    return revision;
}

static void
l2_tombstone_survives_compaction_while_l3_is_behind(void **state)
{
    fixture *f = *state;
    replayed r;
    f->options.shard_bytes = 4096;
    replay_above(f, 0, &r);
    put(f, "a", 1, 0);
    put(f, "b", 2, 0);
    apply(f, PTIER_OP_REMOVE, "a", 3, 1);
    apply(f, PTIER_OP_CLEAR, NULL, 4, 0);
    put(f, "b", 5, 0);
    apply(f, PTIER_OP_REMOVE, "b", 6, 5);
    put(f, "b", 7, 6);
    apply(f, PTIER_OP_REMOVE, "c", 8, 2);
    uint64_t next = churn(f, 9);
    assert_true(shard_files(f) < 10);
    replay_above(f, 0, &r);
    static const uint64_t all[] = {4, 7, 8};
    assert_int_equal(r.count, 4); /* these and the last of the churn */
    assert_memory_equal(r.revisions, all, sizeof all);
    ptier_l2_release_log(f->l2, next); /* L3 is past it all: now they may go */
    (void)churn(f, next);
    replay_above(f, 0, &r);
    assert_int_equal(r.count, 2); /* "b" is a resident record, and the churn */
    assert_int_equal(r.revisions[0], 7);
}

/* Compaction may put the line of a clear behind lines that are younger than the clear. */
static void
l2_clear_that_was_moved_spares_what_came_after_it(void **state)
{
    fixture *f = *state;
    replayed r;
    f->options.shard_bytes = 4096;
    replay_above(f, 0, &r);
    put(f, "gone", 1, 0);
    apply(f, PTIER_OP_CLEAR, NULL, 2, 0);
    put(f, "stays", 3, 0);
    for (uint64_t revision = 4; revision < 100; revision++)
        put(f, "churn", revision, revision == 4 ? 0 : revision - 1);
    compact_fully(f);
    assert_true(shard_files(f) < 10);
    replay_above(f, 0, &r);
    static const uint64_t all[] = {2, 3, 99};
    assert_int_equal(r.count, 3);
    assert_memory_equal(r.revisions, all, sizeof all);
    assert_int_equal(get(f, "stays", 3), PTIER_OK);
    assert_int_equal(get(f, "churn", 99), PTIER_OK);
    assert_int_equal(get(f, "gone", 1), PTIER_NOT_FOUND);
}

/* ---- model ---- */

enum { KEYS = 60 };

typedef struct model {
    uint64_t revisions[KEYS]; /* 0: not there */
    uint64_t floor;           /* what L3 is said to have */
    bool evicted[KEYS];       /* resident no more; L3 may still need the line */
} model;

static void
key_text(int key, char text[16])
{
    (void)snprintf(text, 16, "key-%d", key);
}

static void
check_model(fixture *f, const model *m)
{
    uint64_t residents = 0;
    for (int i = 0; i < KEYS; i++) {
        char key[16];
        key_text(i, key);
        residents += m->revisions[i] && !m->evicted[i];
        if (m->revisions[i] && (!m->evicted[i] || m->revisions[i] > m->floor))
            assert_int_equal(get(f, key, m->revisions[i]), PTIER_OK);
        if (m->revisions[i])
            assert_int_equal(ptier_l2_resident(f->l2, hash_of(f, key), m->revisions[i]),
                             !m->evicted[i]);
    }
    assert_int_equal(f->l2->ops->count(f->l2), residents);
}

typedef struct replay_check {
    const model *m;
    uint64_t last;
    size_t puts;
} replay_check;

static bool
check_op(void *context, const ptier_op *op)
{
    replay_check *c = context;
    assert_true(op->revision > c->last);
    c->last = op->revision;
    if (op->kind == PTIER_OP_PUT) {
        int key = atoi(ptier_entry_key(op->entry) + 4);
        assert_int_equal(op->revision, c->m->revisions[key]);
        c->puts++;
    }
    return true;
}

static bool
is_current(void *context, uint64_t hash, uint64_t revision)
{
    const model *m = context;
    (void)hash;
    for (int i = 0; i < KEYS; i++)
        if (m->revisions[i] == revision)
            return true;
    return false;
}

/* As the cache does with L3 at `floor`; what was evicted comes back with its line. */
static void
reopen_model(fixture *f, model *m)
{
    replay_check c = {.m = m, .last = m->floor};
    size_t expected = 0;
    close_l2(f);
    open_l2(f);
    assert_int_equal(ptier_l2_replay(f->l2, m->floor, check_op, &c, &f->error), PTIER_OK);
    ptier_l2_cull(f->l2, is_current, m);
    for (int i = 0; i < KEYS; i++) {
        char key[16];
        key_text(i, key);
        expected += m->revisions[i] > m->floor;
        if (m->revisions[i] && m->evicted[i])
            m->evicted[i] = !ptier_l2_resident(f->l2, hash_of(f, key), m->revisions[i]);
    }
    assert_int_equal(c.puts, expected);
}

static void
model_step(fixture *f, model *m, uint64_t revision, uint64_t *seed)
{
    int i = (int)ptier_test_random(seed, KEYS);
    char key[16];
    key_text(i, key);
    uint64_t what = ptier_test_random(seed, 1000);
    bool worked;
    if (what < 500) {
        put(f, key, revision, m->revisions[i]);
        m->revisions[i] = revision;
        m->evicted[i] = false;
    } else if (what < 700 && m->revisions[i]) {
        apply(f, PTIER_OP_REMOVE, key, revision, m->revisions[i]);
        m->revisions[i] = 0;
    } else if (what < 750 && m->revisions[i]) {
        f->l2->ops->drop(f->l2, hash_of(f, key), m->revisions[i]);
        m->evicted[i] = true;
    } else if (what < 800 && m->revisions[i] && m->evicted[i]) {
        put(f, key, m->revisions[i], 0); /* demoted to it again: the same revision */
        m->evicted[i] = false;
    } else if (what < 803) {
        apply(f, PTIER_OP_CLEAR, NULL, revision, 0);
        memset(m->revisions, 0, sizeof m->revisions);
    } else if (what < 850 && m->floor + 1 < revision) {
        m->floor += 1 + ptier_test_random(seed, revision - m->floor - 1);
        ptier_l2_release_log(f->l2, m->floor);
    } else if (what < 980) {
        assert_int_equal(ptier_l2_compact(f->l2, &worked, &f->error), PTIER_OK);
    } else {
        reopen_model(f, m);
    }
}

static void
run_model(fixture *f, uint64_t seed)
{
    model m = {0};
    f->options.shard_bytes = 8192;
    close_l2(f);
    open_l2(f);
    assert_int_equal(ptier_l2_replay(f->l2, 0, ignore_op, NULL, &f->error), PTIER_OK);
    for (uint64_t revision = 1; revision <= 6000; revision++) {
        model_step(f, &m, revision, &seed);
        if (revision % 100 == 0)
            check_model(f, &m);
    }
    compact_fully(f);
    check_model(f, &m);
    reopen_model(f, &m);
    check_model(f, &m);
    assert_true(f->l2->ops->bytes(f->l2) < 500000); /* dead lines do not pile up */
    assert_int_equal(f->warnings, 0);
}

static void
l2_agrees_with_a_model_over_compactions_and_restarts(void **state)
{
    run_model(*state, 41);
}

static void
l2_agrees_with_a_model_when_all_keys_have_one_hash(void **state)
{
    fixture *f = *state;
    f->options.hash_key = one_hash;
    run_model(f, 42);
}

#define WITH_L2(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_L2(l2_gives_back_what_was_put),
        WITH_L2(l2_put_replaces_the_state_before),
        WITH_L2(l2_remove_and_clear_last_over_a_restart),
        WITH_L2(l2_applying_the_same_again_changes_nothing),
        WITH_L2(l2_gives_up_the_least_recently_used),
        WITH_L2(l2_scan_sees_each_resident_once),
        WITH_L2(l2_keeps_keys_with_the_same_hash_apart),
        WITH_L2(l2_recovery_drops_a_torn_last_line_and_goes_on),
        WITH_L2(l2_flipped_bits_cost_only_their_own_record),
        WITH_L2(l2_bit_flipped_while_open_is_a_loss_and_then_a_miss),
        WITH_L2(l2_survives_a_shard_of_garbage),
        WITH_L2(l2_ignores_files_that_are_no_shards),
        WITH_L2(l2_lines_of_another_key_are_not_served),
        WITH_L2(l2_files_are_private_and_hold_no_plain_credentials),
        WITH_L2(l2_replays_exactly_what_is_above_the_prefix_in_order),
        WITH_L2(l2_replay_has_what_was_evicted_before_l3_had_it),
        WITH_L2(l2_tombstone_survives_compaction_while_l3_is_behind),
        WITH_L2(l2_clear_that_was_moved_spares_what_came_after_it),
        WITH_L2(l2_agrees_with_a_model_over_compactions_and_restarts),
        WITH_L2(l2_agrees_with_a_model_when_all_keys_have_one_hash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
