#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "clock.h"
#include "index.h"
#include "support/sample_entry.h"

enum { ITEMS = 700, TICK_MS = 64 };

typedef struct item {
    uint64_t hash, revision; /* revision 0: not in the index */
    int64_t expires;
    bool late; /* had expired already when it was scheduled: at the end of the due list */
} item;

typedef struct model {
    ptier_index *index;
    item items[ITEMS];
    int64_t now;
    uint64_t revision, seed, count;
} model;

static ptier_index_facts
facts_of(const item *it)
{
    return (ptier_index_facts){.revision = it->revision,
                               .expires_boot_ms = it->expires,
                               .url = "socks5://10.0.0.1:1080",
                               .source = it->revision % 2 ? "odd" : "even",
                               .health = PTIER_HEALTH_HEALTHY};
}

/* From milliseconds to decades, now and then never or over already. */
static int64_t
random_expiry(model *m)
{
    uint64_t what = ptier_test_random(&m->seed, 20);
    if (what == 0)
        return PTIER_NEVER;
    if (what == 1)
        return m->now - (int64_t)ptier_test_random(&m->seed, 100000);
    return m->now +
           (int64_t)ptier_test_random(&m->seed, UINT64_C(1) << ptier_test_random(&m->seed, 41));
}

static void
set_item(model *m, item *it)
{
    uint32_t slot =
        it->revision ? ptier_index_find(m->index, it->hash, it->revision) : PTIER_SLOT_NONE;
    bool is_new = it->revision == 0;
    it->revision = ++m->revision;
    it->expires = random_expiry(m);
    it->late = it->expires / TICK_MS < m->now / TICK_MS;
    const ptier_index_facts facts = facts_of(it);
    if (is_new) {
        assert_int_equal(ptier_index_insert(m->index, it->hash, &facts), PTIER_OK);
        m->count++;
    } else {
        assert_int_not_equal(slot, PTIER_SLOT_NONE);
        ptier_index_update(m->index, slot, &facts);
    }
}

static void
remove_item(model *m, item *it)
{
    uint32_t slot = ptier_index_find(m->index, it->hash, it->revision);
    assert_int_not_equal(slot, PTIER_SLOT_NONE);
    ptier_index_remove(m->index, slot);
    assert_int_equal(ptier_index_find(m->index, it->hash, it->revision), PTIER_SLOT_NONE);
    it->revision = 0;
    m->count--;
}

static item *
item_of(model *m, uint32_t slot)
{
    const ptier_slot *s = ptier_index_slot(m->index, slot);
    for (size_t i = 0; i < ITEMS; i++)
        if (m->items[i].revision && m->items[i].revision == s->revision)
            return &m->items[i];
    fail_msg("slot %u with revision %llu is nobody's", slot, (unsigned long long)s->revision);
    return NULL;
}

static void
check_due(model *m)
{
    static uint32_t slots[ITEMS];
    bool due[ITEMS] = {false};
    int64_t tick = INT64_MIN;
    size_t count = ptier_index_due(m->index, 0, slots, ITEMS);
    assert_int_equal(count, ptier_index_due_count(m->index));
    for (size_t i = 0; i < count; i++) {
        item *it = item_of(m, slots[i]);
        assert_false(due[it - m->items]);
        due[it - m->items] = true;
        assert_true(it->expires <= m->now); /* never early */
        if (!it->late) {
            assert_true(it->expires / TICK_MS >= tick); /* in the order of expiry */
            tick = it->expires / TICK_MS;
        }
    }
    for (size_t i = 0; i < ITEMS; i++)
        if (m->items[i].revision && !due[i] && m->items[i].expires != PTIER_NEVER)
            assert_true(m->items[i].expires + TICK_MS > m->now); /* never late */
}

static void
check_slots(model *m)
{
    uint64_t count = 0;
    for (uint32_t id = 0; id < ptier_index_limit(m->index); id++)
        count += ptier_index_slot(m->index, id)->revision != 0;
    assert_int_equal(count, m->count);
    assert_int_equal(ptier_index_count(m->index), m->count);
    for (size_t i = 0; i < ITEMS; i++) {
        const item *it = &m->items[i];
        if (!it->revision)
            continue;
        uint32_t id = ptier_index_find(m->index, it->hash, it->revision);
        assert_int_not_equal(id, PTIER_SLOT_NONE);
        const ptier_slot *slot = ptier_index_slot(m->index, id);
        assert_int_equal(slot->expires_boot_ms, it->expires);
        assert_int_equal(slot->source,
                         ptier_index_source(m->index, it->revision % 2 ? "odd" : "even"));
        assert_int_equal(slot->scheme, ptier_scheme_id("socks5"));
    }
}

/* Entries that expire until then, counted one by one. */
static uint64_t
expiring(const model *m, int64_t until)
{
    uint64_t count = 0;
    for (size_t i = 0; i < ITEMS; i++)
        count += m->items[i].revision && m->items[i].expires != PTIER_NEVER &&
                 m->items[i].expires <= until;
    return count;
}

static void
check_expiring(const model *m)
{
    assert_int_equal(ptier_index_expiring(m->index, PTIER_NEVER), expiring(m, PTIER_NEVER));
    for (int64_t distance = 1000; distance < INT64_C(100000000); distance *= 10)
        assert_true(ptier_index_expiring(m->index, m->now + distance) >=
                    expiring(m, m->now + distance));
}

static void
advance(model *m)
{
    uint64_t bits = ptier_test_random(&m->seed, 20);
    int64_t step = (int64_t)ptier_test_random(&m->seed, UINT64_C(1) << bits);
    if (ptier_test_random(&m->seed, 500) == 0)
        step = (int64_t)ptier_test_random(&m->seed, UINT64_C(3) * 86400 * 1000);
    m->now += step;
    ptier_index_advance(m->index, m->now);
}

static void
drain_some(model *m)
{
    uint32_t slots[50];
    size_t count = ptier_index_due(m->index, 0, slots, 50);
    for (size_t i = 0; i < count; i++) {
        item *it = item_of(m, slots[i]);
        if (ptier_test_random(&m->seed, 4))
            remove_item(m, it);
        else
            set_item(m, it); /* renewed while it was due */
    }
}

static void
run_model(int64_t start, uint64_t seed, int steps)
{
    static model m;
    memset(&m, 0, sizeof m);
    m.seed = seed;
    m.now = start;
    assert_int_equal(ptier_index_create(start, &m.index), PTIER_OK);
    for (size_t i = 0; i < ITEMS; i++)
        m.items[i].hash =
            ptier_test_random(&m.seed, 3) ? ptier_test_random(&m.seed, UINT64_MAX) : i % 4;
    for (int step = 0; step < steps; step++) {
        item *it = &m.items[ptier_test_random(&m.seed, ITEMS)];
        if (it->revision && ptier_test_random(&m.seed, 3) == 0)
            remove_item(&m, it);
        else
            set_item(&m, it);
        if (step % 8 == 0) {
            advance(&m);
            check_due(&m);
            check_expiring(&m);
        }
        if (step % 64 == 0)
            drain_some(&m);
        if (step % 1024 == 0)
            check_slots(&m);
    }
    check_slots(&m);
    ptier_index_destroy(m.index);
}

static void
index_agrees_with_an_array_and_expires_in_time(void **state)
{
    (void)state;
    run_model(0, 11, 20000);
    run_model(123456789, 12, 20000);
}

/* Where digits of the tick roll over, lists of all levels come down at once. */
static void
index_expires_in_time_across_every_level_of_the_wheel(void **state)
{
    (void)state;
    for (unsigned level = 1; level <= 5; level++)
        run_model((INT64_C(64) << (6 * level)) - 3000, 20 + level, 6000);
}

static void
index_expires_after_weeks_to_the_tick(void **state)
{
    (void)state;
    ptier_index *index;
    uint32_t slots[4];
    const int64_t start = 1000, ttl = INT64_C(40) * 86400 * 1000 + 17;
    const ptier_index_facts facts = {
        .revision = 1, .expires_boot_ms = start + ttl, .url = "http://h:1", .source = ""};
    assert_int_equal(ptier_index_create(start, &index), PTIER_OK);
    assert_int_equal(ptier_index_insert(index, 5, &facts), PTIER_OK);
    ptier_index_advance(index, start + ttl - 1);
    assert_int_equal(ptier_index_due(index, 0, slots, 4), 0);
    ptier_index_advance(index, start + ttl + TICK_MS);
    assert_int_equal(ptier_index_due(index, 0, slots, 4), 1);
    ptier_index_destroy(index);
}

/* After a reboot, what ended before it has an expiry below zero on the new boot clock. */
/* Tick by tick it would take minutes. */
static void
index_passes_decades_at_once(void **state)
{
    (void)state;
    enum { STEPS = 300 };
    const int64_t year = INT64_C(365) * 86400000;
    ptier_index *index;
    uint32_t due[4];
    int64_t now = 7777;
    assert_int_equal(ptier_index_create(now, &index), PTIER_OK);
    for (uint64_t i = 1; i <= STEPS; i++) {
        const int64_t ttl = year / 4 + (int64_t)i * 12345;
        const item soon = {.hash = i, .revision = 2 * i, .expires = now + ttl};
        const item late = {.hash = i, .revision = 2 * i + 1, .expires = now + year / 2};
        const ptier_index_facts facts[] = {facts_of(&soon), facts_of(&late)};
        assert_int_equal(ptier_index_insert(index, i, &facts[0]), PTIER_OK);
        assert_int_equal(ptier_index_insert(index, i, &facts[1]), PTIER_OK);
        ptier_index_advance(index, now + ttl - 1);
        assert_int_equal(ptier_index_due_count(index), 0);
        ptier_index_advance(index, now + ttl + TICK_MS);
        assert_int_equal(ptier_index_due(index, 0, due, 4), 1);
        assert_int_equal(ptier_index_slot(index, due[0])->revision, 2 * i);
        ptier_index_remove(index, due[0]);
        now += year / 2 + TICK_MS;
        ptier_index_advance(index, now);
        assert_int_equal(ptier_index_due(index, 0, due, 4), 1);
        assert_int_equal(ptier_index_slot(index, due[0])->revision, 2 * i + 1);
        ptier_index_remove(index, due[0]);
    }
    ptier_index_destroy(index);
}

static void
index_has_due_what_ended_before_the_boot(void **state)
{
    (void)state;
    ptier_index *index;
    uint32_t slots[4];
    const ptier_index_facts facts = {
        .revision = 1, .expires_boot_ms = -3600000, .url = "http://h:1", .source = ""};
    assert_int_equal(ptier_index_create(5000, &index), PTIER_OK);
    assert_int_equal(ptier_index_insert(index, 5, &facts), PTIER_OK);
    ptier_index_advance(index, 5000 + TICK_MS);
    assert_int_equal(ptier_index_due(index, 0, slots, 4), 1);
    ptier_index_remove(index, slots[0]);
    assert_int_equal(ptier_index_due_count(index), 0);
    ptier_index_destroy(index);
}

static void
index_finds_every_key_under_one_hash(void **state)
{
    (void)state;
    ptier_index *index;
    uint64_t seen = 0;
    assert_int_equal(ptier_index_create(0, &index), PTIER_OK);
    for (uint64_t i = 1; i <= 5000; i++) {
        const ptier_index_facts facts = {
            .revision = i, .expires_boot_ms = PTIER_NEVER, .url = "http://h:1", .source = ""};
        assert_int_equal(ptier_index_insert(index, i <= 20 ? 42 : i << 32 | 42, &facts), PTIER_OK);
    }
    for (uint32_t id = ptier_index_first(index, 42); id != PTIER_SLOT_NONE;
         id = ptier_index_next(index, id))
        seen += ptier_index_slot(index, id)->revision;
    assert_int_equal(seen, 20 * 21 / 2);
    ptier_index_destroy(index);
}

static void
index_looks_for_many_as_for_one(void **state)
{
    (void)state;
    enum { LOOKS = 3000 };
    static uint64_t hashes[LOOKS];
    static uint32_t first[LOOKS];
    ptier_index *index;
    uint64_t seed = 7;
    assert_int_equal(ptier_index_create(0, &index), PTIER_OK);
    ptier_index_first_of(index, (const uint64_t[]){42}, 1, first);
    assert_int_equal(first[0], PTIER_SLOT_NONE);
    for (uint64_t i = 1; i <= 2000; i++) { /* many in one bucket, and several under one hash */
        const ptier_index_facts facts = {
            .revision = i, .expires_boot_ms = PTIER_NEVER, .url = "http://h:1", .source = ""};
        uint64_t hash = i % 3 ? ptier_test_random(&seed, 1000) : i << 32 | 42;
        assert_int_equal(ptier_index_insert(index, hash, &facts), PTIER_OK);
    }
    for (size_t i = 0; i < LOOKS; i++)
        hashes[i] = i % 2 ? ptier_test_random(&seed, 1000) : (uint64_t)i << 32 | 42;
    ptier_index_first_of(index, hashes, LOOKS, first);
    for (size_t i = 0; i < LOOKS; i++)
        assert_int_equal(first[i], ptier_index_first(index, hashes[i]));
    ptier_index_destroy(index);
}

/* One entry a second; the distances are those of the statistics. */
static void
index_counts_what_expires_soon(void **state)
{
    (void)state;
    enum { SECONDS = 200000 };
    ptier_index *index;
    int64_t now = 600000;
    assert_int_equal(ptier_index_create(now, &index), PTIER_OK);
    for (uint64_t i = 1; i <= SECONDS; i++) {
        const ptier_index_facts facts = {.revision = i,
                                         .expires_boot_ms = now + (int64_t)i * 1000,
                                         .url = "http://h:1",
                                         .source = "s"};
        assert_int_equal(ptier_index_insert(index, i, &facts), PTIER_OK);
    }
    for (int64_t passed = 0; passed < 80000; passed += 977) {
        ptier_index_advance(index, now + passed * 1000);
        assert_int_equal(ptier_index_expiring(index, PTIER_NEVER), SECONDS);
        static const int64_t distances[] = {60, 3600, 86400};
        for (int d = 0; d < 3; d++) {
            int64_t until = passed + distances[d];
            uint64_t count = ptier_index_expiring(index, now + until * 1000);
            assert_in_range(count, (uint64_t)until, (uint64_t)(until + distances[d] / 13));
        }
    }
    ptier_index_destroy(index);
}

static void
index_takes_at_most_48_bytes_an_entry(void **state)
{
    (void)state;
    ptier_index *index;
    const uint64_t count = 100000;
    assert_int_equal(ptier_index_create(0, &index), PTIER_OK);
    for (uint64_t i = 1; i <= count; i++) {
        const ptier_index_facts facts = {
            .revision = i, .expires_boot_ms = (int64_t)i, .url = "http://h:1", .source = "s"};
        assert_int_equal(ptier_index_insert(index, i * UINT64_C(0x9e3779b97f4a7c15), &facts),
                         PTIER_OK);
    }
    assert_true(ptier_index_bytes(index) <= 48 * count);
    ptier_index_destroy(index);
}

static void
index_knows_the_schemes(void **state)
{
    (void)state;
    assert_int_equal(ptier_scheme_id("http://h:1"), ptier_scheme_id("HTTP"));
    assert_int_not_equal(ptier_scheme_id("http"), ptier_scheme_id("https"));
    assert_int_not_equal(ptier_scheme_id("socks5"), ptier_scheme_id("socks5h"));
    assert_int_equal(ptier_scheme_id("gopher://h:1"), 0);
    assert_int_equal(ptier_scheme_id(""), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(index_agrees_with_an_array_and_expires_in_time),
        cmocka_unit_test(index_expires_in_time_across_every_level_of_the_wheel),
        cmocka_unit_test(index_expires_after_weeks_to_the_tick),
        cmocka_unit_test(index_passes_decades_at_once),
        cmocka_unit_test(index_has_due_what_ended_before_the_boot),
        cmocka_unit_test(index_finds_every_key_under_one_hash),
        cmocka_unit_test(index_looks_for_many_as_for_one),
        cmocka_unit_test(index_counts_what_expires_soon),
        cmocka_unit_test(index_takes_at_most_48_bytes_an_entry),
        cmocka_unit_test(index_knows_the_schemes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
