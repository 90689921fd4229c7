#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "l1/l1_memory.h"
#include "support/sample_entry.h"

enum { KEYS = 40, CAPACITY = 12 };

static ptier_error error;

static ptier_tier *
open_l1(uint64_t capacity)
{
    const ptier_l1_options options = {.capacity = capacity};
    ptier_tier *l1;
    assert_int_equal(ptier_l1_open(&options, &l1, &error), PTIER_OK);
    return l1;
}

static void
apply(ptier_tier *l1, ptier_op_kind kind, uint64_t revision, ptier_entry *entry)
{
    const ptier_op op = {.kind = kind, .revision = revision, .entry = entry};
    assert_int_equal(l1->ops->apply(l1, &op, 1, false, &error), PTIER_OK);
}

static void
put(ptier_tier *l1, const char *key, uint64_t hash, uint64_t revision)
{
    ptier_entry *entry = ptier_test_entry(key, hash, revision);
    apply(l1, PTIER_OP_PUT, revision, entry);
    ptier_entry_release(entry);
}

/* Its revision; 0: not there. */
static uint64_t
get(ptier_tier *l1, const char *key, uint64_t hash)
{
    const ptier_ref ref = {.hash = hash, .key = key};
    ptier_entry *entry;
    if (l1->ops->get(l1, &ref, &entry))
        return 0;
    assert_string_equal(ptier_entry_key(entry), key);
    uint64_t revision = entry->revision;
    ptier_entry_release(entry);
    return revision;
}

/* ---- exactly LRU ---- */

typedef struct model {
    int order[KEYS]; /* newest first */
    uint64_t revisions[KEYS];
    int count;
} model;

static void
model_remove(model *m, int key)
{
    int at = 0;
    while (at < m->count && m->order[at] != key)
        at++;
    if (at == m->count)
        return;
    memmove(&m->order[at], &m->order[at + 1], sizeof *m->order * (size_t)(m->count - at - 1));
    m->count--;
    m->revisions[key] = 0;
}

static void
model_use(model *m, int key, uint64_t revision)
{
    model_remove(m, key);
    memmove(&m->order[1], &m->order[0], sizeof *m->order * (size_t)m->count);
    m->order[0] = key;
    m->revisions[key] = revision;
    m->count++;
}

static uint64_t
hash_of(int key)
{
    return (uint64_t)(key % 3); /* collisions everywhere */
}

static void
shrink(ptier_tier *l1, model *m)
{
    uint64_t hash, revision;
    while (l1->ops->victim(l1, &hash, &revision) == PTIER_OK) {
        int oldest = m->order[m->count - 1];
        assert_true(m->count > CAPACITY);
        assert_int_equal(revision, m->revisions[oldest]);
        assert_int_equal(hash, hash_of(oldest));
        l1->ops->drop(l1, hash, revision);
        model_remove(m, oldest);
    }
    assert_true(m->count <= CAPACITY);
    assert_int_equal(l1->ops->count(l1), m->count);
}

static void
l1_is_exactly_lru_when_small(void **state)
{
    (void)state;
    ptier_tier *l1 = open_l1(CAPACITY);
    model m = {0};
    uint64_t seed = 5;
    for (uint64_t revision = 1; revision <= 30000; revision++) {
        int key = (int)ptier_test_random(&seed, KEYS);
        char text[16];
        (void)snprintf(text, sizeof text, "k%d", key);
        uint64_t what = ptier_test_random(&seed, 10);
        if (what < 4) {
            put(l1, text, hash_of(key), revision);
            model_use(&m, key, revision);
        } else if (what == 4 && m.revisions[key]) {
            ptier_entry *old = ptier_test_entry(text, hash_of(key), m.revisions[key]);
            apply(l1, PTIER_OP_REMOVE, revision, old);
            ptier_entry_release(old);
            model_remove(&m, key);
        } else if (what == 5) {
            const ptier_ref ref = {.hash = hash_of(key), .key = text};
            l1->ops->touch(l1, &ref);
            if (m.revisions[key])
                model_use(&m, key, m.revisions[key]);
        } else {
            assert_int_equal(get(l1, text, hash_of(key)), m.revisions[key]);
            if (m.revisions[key])
                model_use(&m, key, m.revisions[key]);
        }
        shrink(l1, &m);
    }
    l1->ops->close(l1);
}

static void
l1_ignores_a_late_promotion(void **state)
{
    (void)state;
    ptier_tier *l1 = open_l1(10);
    put(l1, "k", 1, 9);
    put(l1, "k", 1, 5);
    assert_int_equal(get(l1, "k", 1), 9);
    assert_int_equal(l1->ops->count(l1), 1);
    l1->ops->close(l1);
}

static void
l1_get_by_revision_finds_only_that_revision(void **state)
{
    (void)state;
    ptier_tier *l1 = open_l1(10);
    ptier_entry *entry;
    put(l1, "a", 1, 5);
    put(l1, "b", 1, 6);
    const ptier_ref five = {.hash = 1, .revision = 5}, seven = {.hash = 1, .revision = 7};
    const ptier_ref wrong = {.hash = 1, .revision = 5, .key = "b"};
    assert_int_equal(l1->ops->get(l1, &five, &entry), PTIER_OK);
    assert_string_equal(ptier_entry_key(entry), "a");
    ptier_entry_release(entry);
    assert_int_equal(l1->ops->get(l1, &seven, &entry), PTIER_NOT_FOUND);
    assert_int_equal(l1->ops->get(l1, &wrong, &entry), PTIER_NOT_FOUND);
    l1->ops->close(l1);
}

static void
l1_clear_empties_it_and_an_entry_outlives_it(void **state)
{
    (void)state;
    ptier_tier *l1 = open_l1(100000); /* many shards */
    const ptier_ref ref = {.hash = UINT64_C(3) << 48, .key = "k3"};
    ptier_entry *entry;
    for (uint64_t i = 0; i < 64; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "k%d", (int)i);
        put(l1, key, i << 48, i + 1);
    }
    uint64_t empty = l1->ops->bytes(l1);
    assert_int_equal(l1->ops->count(l1), 64);
    assert_int_equal(l1->ops->get(l1, &ref, &entry), PTIER_OK);
    apply(l1, PTIER_OP_CLEAR, UINT64_MAX, NULL);
    assert_int_equal(l1->ops->count(l1), 0);
    assert_true(l1->ops->bytes(l1) < empty);
    l1->ops->close(l1);
    assert_string_equal(ptier_entry_url(entry), "http://10.0.0.1:8080");
    ptier_entry_release(entry);
}

static bool
add_up(void *sum, const ptier_scan_item *item)
{
    *(uint64_t *)sum += item->revision;
    return true;
}

static void
l1_scan_sees_each_entry_once(void **state)
{
    (void)state;
    ptier_tier *l1 = open_l1(50000);
    uint64_t sum = 0;
    for (uint64_t i = 1; i <= 1000; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "k%d", (int)i);
        put(l1, key, i << 48, i);
    }
    assert_int_equal(l1->ops->scan(l1, add_up, &sum, &error), PTIER_OK);
    assert_int_equal(sum, 1000 * 1001 / 2);
    l1->ops->close(l1);
}

static void
l1_without_room_is_refused(void **state)
{
    (void)state;
    const ptier_l1_options options = {.capacity = 0};
    ptier_tier *l1;
    assert_int_equal(ptier_l1_open(&options, &l1, &error), PTIER_INVALID_ARGUMENT);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(l1_is_exactly_lru_when_small),
        cmocka_unit_test(l1_ignores_a_late_promotion),
        cmocka_unit_test(l1_get_by_revision_finds_only_that_revision),
        cmocka_unit_test(l1_clear_empties_it_and_an_entry_outlives_it),
        cmocka_unit_test(l1_scan_sees_each_entry_once),
        cmocka_unit_test(l1_without_room_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
