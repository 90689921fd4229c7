/*
 * Each eviction policy of L1 against a plain reference that works as its paper says, evicting
 * before it inserts and searching from one end to the other: over random traces both name the same
 * victims.
 */
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

enum { KEYS = 40, STEPS = 20000, USES_COUNTED = 63 };

static ptier_error error;

/* ---- the reference ---- */

typedef struct model {
    ptier_eviction policy;
    int order[KEYS]; /* keys, the first to go at the left; for SIEVE and FIFO as they arrived */
    int count;
    uint64_t revisions[KEYS];                 /* 0: not there */
    uint64_t uses[KEYS], priority[KEYS], age; /* LFU */
    bool used[KEYS];                          /* SIEVE */
    int hand; /* where in `order`; count: past the newest, which is before the oldest */
} model;

static int
place_of(const model *m, int key)
{
    int at = 0;
    while (m->order[at] != key)
        at++;
    return at;
}

static void
take_out(model *m, int key)
{
    int at = place_of(m, key);
    m->count--;
    memmove(&m->order[at], &m->order[at + 1], sizeof *m->order * (size_t)(m->count - at));
}

static void
append(model *m, int key)
{
    m->order[m->count++] = key;
    m->priority[key] = m->age + m->uses[key];
}

static void
model_insert(model *m, int key)
{
    bool round_is_over = m->hand == m->count;
    m->uses[key] = 1;
    m->used[key] = false;
    append(m, key);
    if (round_is_over)
        m->hand = m->count;
}

static void
model_use(model *m, int key)
{
    m->used[key] = true;
    if (m->uses[key] < USES_COUNTED)
        m->uses[key]++;
    if (m->policy == PTIER_EVICTION_LRU || m->policy == PTIER_EVICTION_LFU) {
        take_out(m, key);
        append(m, key);
    }
}

static void
model_remove(model *m, int key)
{
    int at = place_of(m, key);
    take_out(m, key);
    m->revisions[key] = 0;
    m->hand -= m->hand > at;
}

static int
sieve_victim(model *m)
{
    for (;; m->hand++) {
        if (m->hand >= m->count)
            m->hand = 0;
        int key = m->order[m->hand];
        if (!m->used[key])
            return key;
        m->used[key] = false;
    }
}

static int
lfu_victim(model *m)
{
    int victim = m->order[0];
    for (int i = 1; i < m->count; i++)
        if (m->priority[m->order[i]] < m->priority[victim])
            victim = m->order[i];
    m->age = m->priority[victim];
    return victim;
}

static int
model_victim(model *m)
{
    return m->policy == PTIER_EVICTION_LFU     ? lfu_victim(m)
           : m->policy == PTIER_EVICTION_SIEVE ? sieve_victim(m)
                                               : m->order[0];
}

/* ---- the tier ---- */

static uint64_t
hash_of(int key)
{
    const uint64_t hash = (uint64_t)(key % 3); /* collisions everywhere */
    return hash << 48 | hash;                  /* in what were different shards */
}

static void
apply(ptier_tier *l1, ptier_op_kind kind, int key, uint64_t entry_revision, uint64_t revision)
{
    char text[16];
    (void)snprintf(text, sizeof text, "k%d", key);
    ptier_entry *entry = ptier_test_entry(text, hash_of(key), entry_revision);
    const ptier_op op = {.kind = kind, .revision = revision, .entry = entry};
    assert_int_equal(l1->ops->apply(l1, &op, 1, false, &error), PTIER_OK);
    ptier_entry_release(entry);
}

static void
expect_victim(ptier_tier *l1, int key, uint64_t of_revision)
{
    for (int again = 0; again < 2; again++) {
        uint64_t hash, revision;
        assert_int_equal(l1->ops->victim(l1, &hash, &revision), PTIER_OK);
        assert_int_equal(revision, of_revision);
        assert_int_equal(hash, hash_of(key));
    }
}

static void
put(ptier_tier *l1, model *m, int capacity, int key, uint64_t revision)
{
    uint64_t hash, victim_revision;
    apply(l1, PTIER_OP_PUT, key, revision, revision);
    if (m->revisions[key]) {
        model_use(m, key);
    } else {
        if (m->count == capacity) {
            int victim = model_victim(m);
            expect_victim(l1, victim, m->revisions[victim]);
            l1->ops->drop(l1, hash_of(victim), m->revisions[victim]);
            model_remove(m, victim);
        }
        model_insert(m, key);
    }
    m->revisions[key] = revision;
    assert_int_equal(l1->ops->victim(l1, &hash, &victim_revision), PTIER_NOT_FOUND);
    assert_int_equal(l1->ops->count(l1), m->count);
}

static void
read_or_touch(ptier_tier *l1, model *m, int key, bool read, bool quiet)
{
    char text[16];
    ptier_entry *entry;
    (void)snprintf(text, sizeof text, "k%d", key);
    const ptier_ref ref = {.hash = hash_of(key), .key = text, .quiet = quiet};
    if (!read) {
        l1->ops->touch(l1, &ref);
    } else if (l1->ops->get(l1, &ref, &entry) == PTIER_OK) {
        assert_int_equal(entry->revision, m->revisions[key]);
        ptier_entry_release(entry);
    } else {
        assert_int_equal(m->revisions[key], 0);
    }
    if (m->revisions[key] && !(read && quiet))
        model_use(m, key);
}

static void
remove_key(ptier_tier *l1, model *m, int key, uint64_t revision)
{
    apply(l1, PTIER_OP_REMOVE, key, revision - 1, revision);
    if (!m->revisions[key])
        return;
    bool under_the_hand = m->hand == place_of(m, key);
    model_remove(m, key);
    /* The paper removes nothing but victims. Here a hand that would come to rest on the newest
     * begins a new round. */
    if (under_the_hand && m->hand == m->count - 1)
        m->hand = m->count;
}

static void
clear(ptier_tier *l1, model *m, uint64_t revision)
{
    const ptier_op op = {.kind = PTIER_OP_CLEAR, .revision = revision};
    assert_int_equal(l1->ops->apply(l1, &op, 1, false, &error), PTIER_OK);
    *m = (model){.policy = m->policy};
}

/* Low numbers are popular. */
static int
some_key(uint64_t *seed)
{
    return (int)ptier_test_random(seed, 1 + ptier_test_random(seed, KEYS));
}

static void
follow_the_model(ptier_eviction policy, int capacity, bool removals, uint64_t seed)
{
    const ptier_l1_options options = {.capacity = (uint64_t)capacity, .eviction = policy};
    model m = {.policy = policy};
    ptier_tier *l1;
    assert_int_equal(ptier_l1_open(&options, &l1, &error), PTIER_OK);
    for (uint64_t revision = 2; revision < 2 + STEPS; revision++) {
        int key = some_key(&seed);
        uint64_t what = ptier_test_random(&seed, 20);
        if (ptier_test_random(&seed, STEPS / 10) == 0)
            clear(l1, &m, revision);
        else if (what < 8)
            put(l1, &m, capacity, key, revision);
        else if (what == 8 && removals)
            remove_key(l1, &m, key, revision);
        else
            read_or_touch(l1, &m, key, what < 18, what == 9);
    }
    l1->ops->close(l1);
}

static void
follow_the_model_in_all_sizes(ptier_eviction policy)
{
    static const int capacities[] = {1, 2, 3, 12, KEYS - 1};
    for (size_t i = 0; i < sizeof capacities / sizeof *capacities; i++)
        for (int removals = 0; removals <= 1; removals++)
            follow_the_model(policy, capacities[i], removals, 5 + i);
}

static void
lru_evicts_what_was_not_used_for_the_longest_time(void **state)
{
    (void)state;
    follow_the_model_in_all_sizes(PTIER_EVICTION_LRU);
}

static void
lfu_evicts_the_lowest_use_count_plus_age_and_among_equals_the_oldest(void **state)
{
    (void)state;
    follow_the_model_in_all_sizes(PTIER_EVICTION_LFU);
}

static void
fifo_evicts_in_order_of_arrival(void **state)
{
    (void)state;
    follow_the_model_in_all_sizes(PTIER_EVICTION_FIFO);
}

static void
sieve_evicts_the_first_unused_one_that_its_hand_meets(void **state)
{
    (void)state;
    follow_the_model_in_all_sizes(PTIER_EVICTION_SIEVE);
}

/* ---- what the policies are for ---- */

static void
lfu_lets_go_of_what_was_popular_once(void **state)
{
    (void)state;
    const ptier_l1_options options = {.capacity = 10, .eviction = PTIER_EVICTION_LFU};
    model m = {.policy = PTIER_EVICTION_LFU};
    uint64_t revision = 2;
    ptier_tier *l1;
    assert_int_equal(ptier_l1_open(&options, &l1, &error), PTIER_OK);
    put(l1, &m, 10, 0, revision++);
    for (int i = 0; i < 1000; i++)
        read_or_touch(l1, &m, 0, true, false);
    /* Ever new ones, none of which is used as often. */
    for (int i = 0; i < 1000; i++) {
        put(l1, &m, 10, 1 + i % (KEYS - 1), revision++);
        read_or_touch(l1, &m, 1 + i % (KEYS - 1), true, false);
    }
    assert_int_equal(m.revisions[0], 0);
    l1->ops->close(l1);
}

static void
a_long_scan_does_not_push_favourites_out_of_sieve(void **state)
{
    (void)state;
    const ptier_l1_options options = {.capacity = 20, .eviction = PTIER_EVICTION_SIEVE};
    model m = {.policy = PTIER_EVICTION_SIEVE};
    uint64_t revision = 2;
    ptier_tier *l1;
    assert_int_equal(ptier_l1_open(&options, &l1, &error), PTIER_OK);
    for (int key = 0; key < 20; key++)
        put(l1, &m, 20, key, revision++);
    for (int key = 0; key < 10; key++)
        read_or_touch(l1, &m, key, true, false);
    for (int i = 0; i < 200; i++) /* a key comes again only long after it has gone */
        put(l1, &m, 20, 20 + i % 20, revision++);
    for (int key = 0; key < 10; key++)
        assert_int_not_equal(m.revisions[key], 0);
    l1->ops->close(l1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lru_evicts_what_was_not_used_for_the_longest_time),
        cmocka_unit_test(lfu_evicts_the_lowest_use_count_plus_age_and_among_equals_the_oldest),
        cmocka_unit_test(fifo_evicts_in_order_of_arrival),
        cmocka_unit_test(sieve_evicts_the_first_unused_one_that_its_hand_meets),
        cmocka_unit_test(lfu_lets_go_of_what_was_popular_once),
        cmocka_unit_test(a_long_scan_does_not_push_favourites_out_of_sieve),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
