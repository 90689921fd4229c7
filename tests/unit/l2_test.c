/* L2: the contract of a tier, and a seeded model of it over compactions and restarts. */
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

#include "support/l2_box.h"
#include "support/sample_entry.h"

/* ---- the contract ---- */

static void
l2_gives_back_what_was_put(void **state)
{
    ptier_test_l2 *f = *state;
    ptier_box_put(f, "a", 5, 0);
    assert_int_equal(ptier_box_get(f, "a", 5), PTIER_OK);
    assert_int_equal(ptier_box_get(f, "a", 4), PTIER_NOT_FOUND);
    assert_int_equal(ptier_box_get(f, "b", 5), PTIER_NOT_FOUND);
    assert_int_equal(f->l2->ops->count(f->l2), 1);
    assert_int_equal(ptier_l2_last_revision(f->l2), 5);
}

static void
l2_put_replaces_the_state_before(void **state)
{
    ptier_test_l2 *f = *state;
    ptier_box_put(f, "a", 5, 0);
    ptier_box_put(f, "a", 7, 5);
    assert_int_equal(ptier_box_get(f, "a", 5), PTIER_NOT_FOUND);
    assert_int_equal(ptier_box_get(f, "a", 7), PTIER_OK);
    assert_int_equal(f->l2->ops->count(f->l2), 1);
    ptier_box_reopen(f);
    assert_int_equal(ptier_box_get(f, "a", 5), PTIER_NOT_FOUND);
    assert_int_equal(ptier_box_get(f, "a", 7), PTIER_OK);
}

static void
l2_remove_and_clear_last_over_a_restart(void **state)
{
    ptier_test_l2 *f = *state;
    ptier_box_put(f, "a", 5, 0);
    ptier_box_put(f, "b", 6, 0);
    ptier_box_apply(f, PTIER_OP_REMOVE, "a", 7, 5);
    assert_int_equal(ptier_box_get(f, "a", 5), PTIER_NOT_FOUND);
    ptier_box_reopen(f);
    assert_int_equal(ptier_box_get(f, "a", 5), PTIER_NOT_FOUND);
    assert_int_equal(ptier_box_get(f, "b", 6), PTIER_OK);
    ptier_box_apply(f, PTIER_OP_CLEAR, NULL, 8, 0);
    ptier_box_put(f, "c", 9, 0);
    assert_int_equal(f->l2->ops->count(f->l2), 1);
    ptier_box_reopen(f);
    assert_int_equal(ptier_box_get(f, "b", 6), PTIER_NOT_FOUND);
    assert_int_equal(ptier_box_get(f, "c", 9), PTIER_OK);
    assert_int_equal(f->l2->ops->count(f->l2), 1);
}

static void
l2_applying_the_same_again_changes_nothing(void **state)
{
    ptier_test_l2 *f = *state;
    for (int i = 0; i < 3; i++)
        ptier_box_put(f, "a", 5, 0);
    for (int i = 0; i < 3; i++)
        ptier_box_put(f, "a", 6, 5);
    for (int i = 0; i < 3; i++)
        ptier_box_apply(f, PTIER_OP_REMOVE, "b", 7, 0);
    assert_int_equal(f->l2->ops->count(f->l2), 1);
    assert_int_equal(ptier_box_get(f, "a", 6), PTIER_OK);
    ptier_box_reopen(f);
    assert_int_equal(f->l2->ops->count(f->l2), 1);
    assert_int_equal(ptier_box_get(f, "a", 6), PTIER_OK);
}

static void
l2_gives_up_the_least_recently_used(void **state)
{
    ptier_test_l2 *f = *state;
    uint64_t hash, revision;
    f->options.capacity = 2;
    ptier_box_reopen(f);
    ptier_box_put(f, "a", 1, 0);
    ptier_box_put(f, "b", 2, 0);
    assert_int_equal(f->l2->ops->victim(f->l2, &hash, &revision), PTIER_NOT_FOUND);
    ptier_box_put(f, "c", 3, 0);
    const ptier_ref a = {.hash = ptier_box_hash(f, "a"), .revision = 1};
    f->l2->ops->touch(f->l2, &a);
    assert_int_equal(f->l2->ops->victim(f->l2, &hash, &revision), PTIER_OK);
    assert_int_equal(revision, 2);
    f->l2->ops->drop(f->l2, hash, revision);
    assert_int_equal(ptier_box_get(f, "b", 2), PTIER_NOT_FOUND);
    assert_false(ptier_l2_resident(f->l2, hash, 2));
    assert_true(ptier_l2_resident(f->l2, a.hash, 1));
    assert_int_equal(f->l2->ops->victim(f->l2, &hash, &revision), PTIER_NOT_FOUND);
}

static void
l2_shrinks_to_its_capacity_by_the_least_recently_used(void **state)
{
    ptier_test_l2 *f = *state;
    f->options.capacity = 700;
    ptier_box_reopen(f);
    for (uint64_t i = 1; i <= 1300; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "k%d", (int)i);
        ptier_box_put(f, key, i, 0);
    }
    const ptier_ref oldest = {.hash = ptier_box_hash(f, "k1"), .revision = 1};
    f->l2->ops->touch(f->l2, &oldest);
    assert_int_equal(ptier_l2_shrink(f->l2), 600);
    assert_int_equal(ptier_l2_shrink(f->l2), 0);
    assert_int_equal(f->l2->ops->count(f->l2), 700);
    assert_true(ptier_l2_resident(f->l2, oldest.hash, 1));
    assert_false(ptier_l2_resident(f->l2, ptier_box_hash(f, "k601"), 601));
    assert_true(ptier_l2_resident(f->l2, ptier_box_hash(f, "k602"), 602));
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
    ptier_test_l2 *f = *state;
    size_t seen = 0;
    for (uint64_t i = 1; i <= 100; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "k%d", (int)i);
        ptier_box_put(f, key, i, 0);
    }
    ptier_box_apply(f, PTIER_OP_REMOVE, "k7", 101, 7);
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
    ptier_test_l2 *f = *state;
    f->options.hash_key = one_hash;
    ptier_box_reopen(f);
    ptier_box_put(f, "a", 1, 0);
    ptier_box_put(f, "b", 2, 0);
    ptier_box_put(f, "c", 3, 0);
    ptier_box_put(f, "b", 4, 2);
    ptier_box_apply(f, PTIER_OP_REMOVE, "a", 5, 1);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ptier_box_get(f, "a", 1), PTIER_NOT_FOUND);
        assert_int_equal(ptier_box_get(f, "b", 2), PTIER_NOT_FOUND);
        assert_int_equal(ptier_box_get(f, "b", 4), PTIER_OK);
        assert_int_equal(ptier_box_get(f, "c", 3), PTIER_OK);
        assert_int_equal(f->l2->ops->count(f->l2), 2);
        ptier_box_reopen(f);
    }
}

static void
l2_files_are_private_and_hold_no_plain_credentials(void **state)
{
    ptier_test_l2 *f = *state;
    char path[PTIER_TEST_SHARD_PATH];
    struct stat info;
    ptier_box_put(f, "a", 1, 0);
    ptier_box_put(f, "a", 2, 1);
    ptier_box_compact(f);
    ptier_box_close(f);
    ptier_box_shard_path(f, 1, path);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_true(ptier_test_dir_contains(f->directory, "http://10.0.0.1:8080"));
    assert_false(ptier_test_dir_contains(f->directory, "user-plain"));
    assert_false(ptier_test_dir_contains(f->directory, "secret-plain"));
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

/* What L3 would get now. */
static void
check_log(ptier_test_l2 *f, const model *m)
{
    replay_check c = {.m = m, .last = m->floor};
    size_t expected = 0;
    uint64_t lost;
    bool more;
    for (int i = 0; i < KEYS; i++)
        expected += m->revisions[i] > m->floor;
    assert_int_equal(
        ptier_l2_read_log(f->l2, m->floor, SIZE_MAX, check_op, &c, &more, &lost, &f->error),
        PTIER_OK);
    assert_int_equal(c.puts, expected);
    assert_int_equal(lost, 0);
    assert_false(more);
}

static void
check_model(ptier_test_l2 *f, const model *m)
{
    uint64_t residents = 0;
    for (int i = 0; i < KEYS; i++) {
        char key[16];
        key_text(i, key);
        residents += m->revisions[i] && !m->evicted[i];
        if (m->revisions[i] && (!m->evicted[i] || m->revisions[i] > m->floor))
            assert_int_equal(ptier_box_get(f, key, m->revisions[i]), PTIER_OK);
        if (m->revisions[i])
            assert_int_equal(ptier_l2_resident(f->l2, ptier_box_hash(f, key), m->revisions[i]),
                             !m->evicted[i]);
    }
    assert_int_equal(f->l2->ops->count(f->l2), residents);
    check_log(f, m);
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
reopen_model(ptier_test_l2 *f, model *m)
{
    replay_check c = {.m = m, .last = m->floor};
    size_t expected = 0;
    ptier_box_close(f);
    ptier_box_open(f);
    assert_int_equal(ptier_l2_replay(f->l2, m->floor, check_op, &c, &f->error), PTIER_OK);
    ptier_l2_cull(f->l2, is_current, m);
    for (int i = 0; i < KEYS; i++) {
        char key[16];
        key_text(i, key);
        expected += m->revisions[i] > m->floor;
        if (m->revisions[i] && m->evicted[i])
            m->evicted[i] = !ptier_l2_resident(f->l2, ptier_box_hash(f, key), m->revisions[i]);
    }
    assert_int_equal(c.puts, expected);
}

static void
model_step(ptier_test_l2 *f, model *m, uint64_t revision, uint64_t *seed)
{
    int i = (int)ptier_test_random(seed, KEYS);
    char key[16];
    key_text(i, key);
    uint64_t what = ptier_test_random(seed, 1000);
    bool worked;
    if (what < 500) {
        ptier_box_put(f, key, revision, m->revisions[i]);
        m->revisions[i] = revision;
        m->evicted[i] = false;
    } else if (what < 700 && m->revisions[i]) {
        ptier_box_apply(f, PTIER_OP_REMOVE, key, revision, m->revisions[i]);
        m->revisions[i] = 0;
    } else if (what < 750 && m->revisions[i]) {
        f->l2->ops->drop(f->l2, ptier_box_hash(f, key), m->revisions[i]);
        m->evicted[i] = true;
    } else if (what < 800 && m->revisions[i] && m->evicted[i]) {
        ptier_box_put(f, key, m->revisions[i], 0); /* demoted to it again: the same revision */
        m->evicted[i] = false;
    } else if (what < 803) {
        ptier_box_apply(f, PTIER_OP_CLEAR, NULL, revision, 0);
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
run_model(ptier_test_l2 *f, uint64_t seed)
{
    model m = {0};
    f->options.shard_bytes = 8192;
    ptier_box_reopen_above(f, 0);
    for (uint64_t revision = 1; revision <= 6000; revision++) {
        model_step(f, &m, revision, &seed);
        if (revision % 100 == 0)
            check_model(f, &m);
    }
    ptier_box_compact(f);
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
    ptier_test_l2 *f = *state;
    f->options.hash_key = one_hash;
    run_model(f, 42);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_L2(l2_gives_back_what_was_put),
        WITH_L2(l2_put_replaces_the_state_before),
        WITH_L2(l2_remove_and_clear_last_over_a_restart),
        WITH_L2(l2_applying_the_same_again_changes_nothing),
        WITH_L2(l2_gives_up_the_least_recently_used),
        WITH_L2(l2_shrinks_to_its_capacity_by_the_least_recently_used),
        WITH_L2(l2_scan_sees_each_resident_once),
        WITH_L2(l2_keeps_keys_with_the_same_hash_apart),
        WITH_L2(l2_files_are_private_and_hold_no_plain_credentials),
        WITH_L2(l2_agrees_with_a_model_over_compactions_and_restarts),
        WITH_L2(l2_agrees_with_a_model_when_all_keys_have_one_hash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
