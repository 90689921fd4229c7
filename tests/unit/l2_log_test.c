/* L2 as the log of L3. */
#include <pthread.h>
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
#include "hold.h"
#include "sealed.h"
#include "support/l2_box.h"
#include "support/sample_entry.h"

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
replay_above(ptier_test_l2 *f, uint64_t prefix, replayed *r)
{
    r->count = 0;
    ptier_box_close(f);
    ptier_box_open(f);
    assert_int_equal(ptier_l2_replay(f->l2, prefix, note_op, r, &f->error), PTIER_OK);
}

static void
l2_replays_exactly_what_is_above_the_prefix_in_order(void **state)
{
    ptier_test_l2 *f = *state;
    replayed r;
    replay_above(f, 0, &r); /* L3 is empty: everything is needed for it */
    ptier_box_put(f, "a", 1, 0);
    ptier_box_put(f, "b", 2, 0);
    ptier_box_apply(f, PTIER_OP_CLEAR, NULL, 3, 0);
    ptier_box_put(f, "c", 4, 0);
    ptier_box_put(f, "d", 5, 0);
    ptier_box_put(f, "e", 6, 0);
    ptier_box_apply(f, PTIER_OP_REMOVE, "d", 7, 5);
    ptier_box_put(f, "e", 8, 6);
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
    assert_int_equal(ptier_box_get(f, "c", 4), PTIER_OK);
}

static void
l2_replay_has_what_was_evicted_before_l3_had_it(void **state)
{
    ptier_test_l2 *f = *state;
    replayed r;
    replay_above(f, 0, &r);
    ptier_box_put(f, "a", 1, 0);
    assert_int_equal(ptier_l2_evict_all(f->l2), 1);
    assert_int_equal(f->l2->ops->count(f->l2), 0);
    replay_above(f, 0, &r);
    assert_int_equal(r.count, 1);
}

/* Makes so much dead text that every old shard is compacted away. */
static uint64_t
churn(ptier_test_l2 *f, uint64_t revision)
{
    uint64_t before = 0;
    for (int i = 0; i < 200; i++) {
        ptier_box_put(f, "churn", revision, before);
        before = revision++;
        ptier_box_compact(f);
    }
    return revision;
}

static void
l2_tombstone_survives_compaction_while_l3_is_behind(void **state)
{
    ptier_test_l2 *f = *state;
    replayed r;
    f->options.shard_bytes = 4096;
    replay_above(f, 0, &r);
    ptier_box_put(f, "a", 1, 0);
    ptier_box_put(f, "b", 2, 0);
    ptier_box_apply(f, PTIER_OP_REMOVE, "a", 3, 1);
    ptier_box_apply(f, PTIER_OP_CLEAR, NULL, 4, 0);
    ptier_box_put(f, "b", 5, 0);
    ptier_box_apply(f, PTIER_OP_REMOVE, "b", 6, 5);
    ptier_box_put(f, "b", 7, 6);
    ptier_box_apply(f, PTIER_OP_REMOVE, "c", 8, 2);
    uint64_t next = churn(f, 9);
    assert_true(ptier_box_shard_files(f) < 10);
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
    ptier_test_l2 *f = *state;
    replayed r;
    f->options.shard_bytes = 4096;
    replay_above(f, 0, &r);
    ptier_box_put(f, "gone", 1, 0);
    ptier_box_apply(f, PTIER_OP_CLEAR, NULL, 2, 0);
    ptier_box_put(f, "stays", 3, 0);
    for (uint64_t revision = 4; revision < 100; revision++)
        ptier_box_put(f, "churn", revision, revision == 4 ? 0 : revision - 1);
    ptier_box_compact(f);
    assert_true(ptier_box_shard_files(f) < 10);
    replay_above(f, 0, &r);
    static const uint64_t all[] = {2, 3, 99};
    assert_int_equal(r.count, 3);
    assert_memory_equal(r.revisions, all, sizeof all);
    assert_int_equal(ptier_box_get(f, "stays", 3), PTIER_OK);
    assert_int_equal(ptier_box_get(f, "churn", 99), PTIER_OK);
    assert_int_equal(ptier_box_get(f, "gone", 1), PTIER_NOT_FOUND);
}

/* More than one hold of the lock, on the way in and out. */
static void
l2_lets_a_long_log_go_and_keeps_the_rest(void **state)
{
    enum { COUNT = 3 * PTIER_HOLD_MAX + 7, RELEASED = 2 * PTIER_HOLD_MAX + 3 };
    ptier_test_l2 *f = *state;
    ptier_box_reopen_above(f, 0);
    ptier_op *ops = calloc(COUNT, sizeof *ops);
    assert_non_null(ops);
    for (uint64_t i = 0; i < COUNT; i++) {
        char key[24];
        (void)snprintf(key, sizeof key, "k%llu", (unsigned long long)i + 1); /* fits */
        ops[i] = (ptier_op){.kind = PTIER_OP_PUT,
                            .revision = i + 1,
                            .entry = ptier_test_entry_with(key, ptier_box_hash(f, key), i + 1,
                                                           "user-plain", "secret-plain")};
        assert_int_equal(ptier_sealed_create(f->keyring, ops[i].entry, &ops[i].sealed), PTIER_OK);
    }
    assert_int_equal(f->l2->ops->apply(f->l2, ops, COUNT, false, &f->error), PTIER_OK);
    assert_int_equal(ptier_l2_evict_all(f->l2), COUNT); /* now only the log needs them */
    ptier_l2_release_log(f->l2, RELEASED);
    assert_int_equal(ptier_box_get_many(f, 1, RELEASED), 0);
    assert_int_equal(ptier_box_get_many(f, RELEASED + 1, COUNT), COUNT - RELEASED);
    ptier_l2_release_log(f->l2, COUNT);
    assert_int_equal(ptier_l2_log_bytes(f->l2), 0);
    for (size_t i = 0; i < COUNT; i++) {
        ptier_entry_release(ops[i].entry);
        ptier_sealed_release(ops[i].sealed);
    }
    free(ops);
}

/* ---- reading it while open ---- */

static void
l2_serves_what_is_only_logged(void **state)
{
    ptier_test_l2 *f = *state;
    ptier_box_reopen_above(f, 0);
    ptier_box_put(f, "a", 1, 0);
    ptier_box_put(f, "b", 2, 0);
    assert_int_equal(ptier_l2_evict_all(f->l2), 2);
    assert_false(ptier_l2_resident(f->l2, ptier_box_hash(f, "a"), 1));
    assert_int_equal(ptier_box_get(f, "a", 1), PTIER_OK);
    ptier_box_apply(f, PTIER_OP_REMOVE, "a", 3, 1);
    assert_int_equal(ptier_box_get(f, "a", 1), PTIER_NOT_FOUND);
    assert_int_equal(ptier_box_get(f, "a", 3), PTIER_NOT_FOUND); /* the removal itself */
    ptier_l2_release_log(f->l2, 3);
    assert_int_equal(ptier_box_get(f, "b", 2), PTIER_NOT_FOUND);
}

static void
read_above(ptier_test_l2 *f, uint64_t after, size_t limit, replayed *r, bool *more)
{
    uint64_t lost = 99;
    r->count = 0;
    assert_int_equal(ptier_l2_read_log(f->l2, after, limit, note_op, r, more, &lost, &f->error),
                     PTIER_OK);
    assert_int_equal(lost, 0);
}

static void
l2_log_has_the_newest_change_of_each_key_in_order(void **state)
{
    ptier_test_l2 *f = *state;
    replayed r;
    bool more;
    ptier_box_reopen_above(f, 0);
    ptier_box_put(f, "a", 1, 0);
    ptier_box_put(f, "b", 2, 0);
    ptier_box_apply(f, PTIER_OP_CLEAR, NULL, 3, 0);
    ptier_box_put(f, "c", 4, 0);
    ptier_box_put(f, "d", 5, 0);
    ptier_box_put(f, "e", 6, 0);
    ptier_box_apply(f, PTIER_OP_REMOVE, "d", 7, 5);
    ptier_box_put(f, "e", 8, 6);
    read_above(f, 0, 100, &r, &more);
    static const uint64_t all[] = {3, 4, 7, 8};
    static const ptier_op_kind kinds[] = {PTIER_OP_CLEAR, PTIER_OP_PUT, PTIER_OP_REMOVE,
                                          PTIER_OP_PUT};
    assert_int_equal(r.count, 4);
    assert_memory_equal(r.revisions, all, sizeof all);
    assert_memory_equal(r.kinds, kinds, sizeof kinds);
    assert_false(more);
    read_above(f, 3, 2, &r, &more);
    assert_int_equal(r.count, 2);
    assert_memory_equal(r.revisions, all + 1, 2 * sizeof *all);
    assert_true(more);
    read_above(f, 7, 2, &r, &more);
    assert_int_equal(r.count, 1);
    assert_false(more);
    read_above(f, 8, 2, &r, &more);
    assert_int_equal(r.count, 0);
    assert_false(more);
    read_above(f, 3, 100, &r, &more); /* back again */
    assert_int_equal(r.count, 3);
    ptier_l2_release_log(f->l2, 7);
    read_above(f, 0, 100, &r, &more);
    assert_int_equal(r.count, 1);
    assert_int_equal(r.revisions[0], 8);
}

static void
l2_log_goes_on_where_it_was_read_to_whatever_was_let_go(void **state)
{
    ptier_test_l2 *f = *state;
    replayed r;
    bool more;
    ptier_box_reopen_above(f, 0);
    for (uint64_t i = 1; i <= 4; i++)
        ptier_box_put(f, (char[]){(char)('a' + i), 0}, i, 0);
    read_above(f, 0, 2, &r, &more);
    assert_int_equal(r.count, 2);
    ptier_l2_release_log(f->l2, 3);
    read_above(f, 2, 100, &r, &more);
    assert_int_equal(r.count, 1);
    assert_int_equal(r.revisions[0], 4);
}

typedef struct follower {
    uint64_t last, count, stop_at;
    ptier_entry *kept;
} follower;

static bool
follow(void *context, const ptier_op *op)
{
    follower *to = context;
    assert_true(op->revision > to->last);
    to->last = op->revision;
    to->count++;
    if (op->kind == PTIER_OP_PUT && !to->kept)
        to->kept = ptier_entry_retain(op->entry);
    return op->revision != to->stop_at;
}

static void
l2_log_of_any_length_is_read_in_parts(void **state)
{
    ptier_test_l2 *f = *state;
    follower to = {.stop_at = 1800};
    uint64_t lost;
    bool more;
    f->options.shard_bytes = 65536;
    ptier_box_reopen_above(f, 0);
    ptier_box_put_many(f, 1, 2000);
    assert_int_equal(ptier_l2_read_log(f->l2, 0, 1500, follow, &to, &more, &lost, &f->error),
                     PTIER_OK);
    assert_int_equal(to.count, 1500);
    assert_int_equal(to.last, 1500);
    assert_true(more);
    assert_int_equal(ptier_l2_read_log(f->l2, 1500, 1500, follow, &to, &more, &lost, &f->error),
                     PTIER_OK);
    assert_int_equal(to.last, 1800); /* the callback had enough */
    assert_true(more);
    ptier_box_put(f, "k1801", 2001, 1801); /* moves to the end of the log */
    ptier_box_compact(f);
    assert_int_equal(ptier_l2_read_log(f->l2, 1800, 1500, follow, &to, &more, &lost, &f->error),
                     PTIER_OK);
    assert_int_equal(to.last, 2001);
    assert_int_equal(to.count, 2000);
    assert_false(more);
    assert_string_equal(ptier_entry_key(to.kept), "k1");
    ptier_entry_release(to.kept);
}

static void
l2_log_counts_what_cannot_be_read_and_goes_on(void **state)
{
    ptier_test_l2 *f = *state;
    follower to = {0};
    uint64_t lost = 0;
    bool more;
    size_t start, line;
    ptier_box_reopen_above(f, 0);
    ptier_box_put_many(f, 1, 5);
    ptier_box_line(f, 1, 2, &start, &line);
    ptier_box_flip(f, 1, start + 50);
    ptier_box_line(f, 1, 5, &start, &line);
    ptier_box_flip(f, 1, start + 50);
    assert_int_equal(ptier_l2_read_log(f->l2, 0, 100, follow, &to, &more, &lost, &f->error),
                     PTIER_OK);
    assert_int_equal(lost, 2);
    assert_int_equal(to.count, 3);
    assert_int_equal(ptier_l2_damaged(f->l2), 2);
    assert_int_equal(ptier_box_get(f, "k2", 2), PTIER_NOT_FOUND);
    to = (follower){.kept = to.kept};
    assert_int_equal(ptier_l2_read_log(f->l2, 0, 100, follow, &to, &more, &lost, &f->error),
                     PTIER_OK);
    assert_int_equal(lost, 0);
    assert_int_equal(to.count, 3);
    ptier_entry_release(to.kept);
}

static void
l2_log_bytes_are_those_of_the_lines_that_l3_needs(void **state)
{
    ptier_test_l2 *f = *state;
    size_t start, first, second, third;
    ptier_box_reopen_above(f, 0);
    assert_int_equal(ptier_l2_log_bytes(f->l2), 0);
    ptier_box_put(f, "a", 1, 0);
    ptier_box_put(f, "bbbbbb", 2, 0);
    ptier_box_line(f, 1, 1, &start, &first);
    ptier_box_line(f, 1, 2, &start, &second);
    assert_int_equal(ptier_l2_log_bytes(f->l2), first + second);
    ptier_box_put(f, "a", 1, 0); /* admitted again: instead of the line before */
    assert_int_equal(ptier_l2_log_bytes(f->l2), first + second);
    ptier_box_apply(f, PTIER_OP_REMOVE, "a", 3, 1);
    ptier_box_line(f, 1, 4, &start, &third);
    assert_int_equal(ptier_l2_log_bytes(f->l2), second + third);
    ptier_box_reopen_above(f, 0);
    assert_int_equal(ptier_l2_log_bytes(f->l2), second + third);
    ptier_l2_release_log(f->l2, 2);
    assert_int_equal(ptier_l2_log_bytes(f->l2), third);
    ptier_l2_release_log(f->l2, 3);
    assert_int_equal(ptier_l2_log_bytes(f->l2), 0);
    ptier_box_put(f, "c", 3, 0); /* below the floor */
    assert_int_equal(ptier_l2_log_bytes(f->l2), 0);
}

/* ---- another thread ---- */

typedef struct reading {
    ptier_test_l2 *f;
    _Atomic bool stop;
    uint64_t last;
} reading;

static bool
note_last(void *context, const ptier_op *op)
{
    reading *r = context;
    if (op->revision <= r->last)
        abort();
    r->last = op->revision;
    return true;
}

static void *
read_on(void *context)
{
    reading *r = context;
    ptier_error error;
    bool more = true;
    for (bool last = false; more || !last;) {
        uint64_t lost;
        last = atomic_load(&r->stop);
        if (ptier_l2_read_log(r->f->l2, r->last, 700, note_last, r, &more, &lost, &error) || lost)
            abort();
        ptier_l2_release_log(r->f->l2, r->last);
    }
    return NULL;
}

static void
l2_log_is_read_while_it_is_written_and_compacted(void **state)
{
    ptier_test_l2 *f = *state;
    reading r = {.f = f};
    pthread_t thread;
    f->options.shard_bytes = 16384;
    ptier_box_reopen_above(f, 0);
    assert_int_equal(pthread_create(&thread, NULL, read_on, &r), 0);
    for (uint64_t i = 1; i <= 4000; i++) {
        char key[16];
        bool worked;
        (void)snprintf(key, sizeof key, "k%d", (int)(i % 97));
        ptier_box_put(f, key, i, i > 97 ? i - 97 : 0);
        assert_int_equal(ptier_l2_compact(f->l2, &worked, &f->error), PTIER_OK);
    }
    atomic_store(&r.stop, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(r.last, 4000);
    assert_int_equal(ptier_l2_log_bytes(f->l2), 0);
    assert_int_equal(f->warnings, 0);
}

/* All in one run of the table's cells, which begins at its last one. */
static uint64_t
hash_to_the_end(const char *key)
{
    return ptier_hash_key(key) | UINT32_MAX;
}

/* A tombstone there that is forgotten lets those move up which were seen at the front before. */
static void
l2_replay_ends_when_a_tombstone_is_forgotten_at_the_end_of_the_table(void **state)
{
    ptier_test_l2 *f = *state;
    f->options.hash_key = hash_to_the_end;
    ptier_box_reopen_above(f, 0);
    ptier_box_put(f, "gone", 1, 0);
    ptier_box_apply(f, PTIER_OP_REMOVE, "gone", 2, 1);
    ptier_box_put_many(f, 3, 6);
    (void)alarm(20); /* it went round and round */
    ptier_box_reopen_above(f, 2);
    (void)alarm(0);
    assert_int_equal(ptier_box_get_many(f, 3, 6), 4);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_L2(l2_replays_exactly_what_is_above_the_prefix_in_order),
        WITH_L2(l2_replay_ends_when_a_tombstone_is_forgotten_at_the_end_of_the_table),
        WITH_L2(l2_replay_has_what_was_evicted_before_l3_had_it),
        WITH_L2(l2_tombstone_survives_compaction_while_l3_is_behind),
        WITH_L2(l2_lets_a_long_log_go_and_keeps_the_rest),
        WITH_L2(l2_clear_that_was_moved_spares_what_came_after_it),
        WITH_L2(l2_serves_what_is_only_logged),
        WITH_L2(l2_log_has_the_newest_change_of_each_key_in_order),
        WITH_L2(l2_log_goes_on_where_it_was_read_to_whatever_was_let_go),
        WITH_L2(l2_log_of_any_length_is_read_in_parts),
        WITH_L2(l2_log_counts_what_cannot_be_read_and_goes_on),
        WITH_L2(l2_log_bytes_are_those_of_the_lines_that_l3_needs),
        WITH_L2(l2_log_is_read_while_it_is_written_and_compacted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
