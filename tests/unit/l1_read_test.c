/* Reads of the cache in L1: what they find, and what they count. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "l1/l1_memory.h"
#include "support/sample_entry.h"

static const ptier_look now = {.wall_ms = 5000, .live_after_ms = 1000};

static ptier_tier *
open_l1(uint64_t capacity)
{
    const ptier_l1_options options = {.capacity = capacity};
    ptier_tier *l1;
    assert_int_equal(ptier_l1_open(&options, &l1, NULL), PTIER_OK);
    return l1;
}

static void
put_entry(ptier_tier *l1, ptier_entry *entry)
{
    const ptier_op op = {.kind = PTIER_OP_PUT, .revision = entry->revision, .entry = entry};
    assert_int_equal(l1->ops->apply(l1, &op, 1, false, NULL), PTIER_OK);
}

static void
put(ptier_tier *l1, const char *key, uint64_t hash, uint64_t revision)
{
    ptier_entry *entry = ptier_test_entry(key, hash, revision);
    put_entry(l1, entry);
    ptier_entry_release(entry);
}

static ptier_l1_key
key_of(const char *text, uint64_t hash)
{
    return (ptier_l1_key){.hash = hash, .text = text, .length = strlen(text)};
}

/* Its revision; 0: not there. */
static uint64_t
read_one(ptier_tier *l1, const char *text, uint64_t hash)
{
    const ptier_l1_key key = key_of(text, hash);
    ptier_l1_found found = ptier_l1_read(l1, now, &key);
    uint64_t revision = found.entry ? found.entry->revision : 0;
    assert_int_equal(found.hit, revision != 0);
    ptier_entry_release(found.entry);
    return revision;
}

/* ---- what they find ---- */

/* Of every length; all under one hash, and each different from the next in one byte or in length.
 */
static void
a_read_finds_the_whole_key(void **state)
{
    (void)state;
    enum { LENGTHS = 40 };
    ptier_tier *l1 = open_l1(100000);
    char key[LENGTHS + 2];
    uint64_t revision = 0;
    for (size_t length = 1; length <= LENGTHS; length++)
        for (size_t at = 0; at < length; at++) {
            (void)snprintf(key, sizeof key, "%.*s", (int)length,
                           "0123456789abcdef0123456789abcdef0123456789abcdef");
            key[at] = 'x';
            put(l1, key, 7, ++revision);
        }
    revision = 0;
    for (size_t length = 1; length <= LENGTHS; length++)
        for (size_t at = 0; at < length; at++) {
            (void)snprintf(key, sizeof key, "%.*s", (int)length,
                           "0123456789abcdef0123456789abcdef0123456789abcdef");
            key[at] = 'x';
            assert_int_equal(read_one(l1, key, 7), ++revision);
            key[at] = 'y';
            assert_int_equal(read_one(l1, key, 7), 0);
        }
    assert_int_equal(read_one(l1, "", 7), 0);
    l1->ops->close(l1);
}

/* Keys that are there and not, twice, and under one hash; in one shard and in many. */
static void
a_read_of_many_finds_what_reads_of_one_find(void **state)
{
    (void)state;
    enum { ENTRIES = 600, SHARDS = 16 };
    static char texts[2 * ENTRIES][16];
    for (uint64_t capacity = 1000; capacity <= 100000; capacity *= 100) {
        ptier_tier *l1 = open_l1(capacity);
        uint64_t hits = 0;
        for (uint64_t i = 0; i < 2 * ENTRIES; i++) {
            (void)snprintf(texts[i], sizeof texts[i], "k%d", (int)i);
            if (i < ENTRIES)
                put(l1, texts[i], (i % SHARDS) << 48 | i / SHARDS % 20, i + 1);
        }
        for (size_t count = 0; count <= PTIER_L1_BATCH; count += count < 4 ? 1 : 31) {
            ptier_l1_key keys[PTIER_L1_BATCH];
            ptier_l1_found found[PTIER_L1_BATCH];
            for (size_t i = 0; i < count; i++) {
                uint64_t number = (i * 37 + count) % (2 * ENTRIES) / (1 + i % 2);
                keys[i] = key_of(texts[number], (number % SHARDS) << 48 | number / SHARDS % 20);
            }
            ptier_l1_read_many(l1, now, keys, count, found);
            for (size_t i = 0; i < count; i++) {
                uint64_t revision = read_one(l1, keys[i].text, keys[i].hash);
                assert_int_equal(found[i].entry ? found[i].entry->revision : 0, revision);
                assert_int_equal(found[i].hit, revision != 0);
                hits += revision ? 2 : 0;
                ptier_entry_release(found[i].entry);
            }
        }
        assert_int_equal(ptier_l1_hits(l1), hits);
        l1->ops->close(l1);
    }
}

/* ---- what they count ---- */

static void
a_hit_is_counted_and_a_miss_is_not(void **state)
{
    (void)state;
    ptier_tier *l1 = open_l1(10);
    ptier_entry *entry = ptier_test_entry("a", 1, 5);
    entry->expires_boot_ms = now.live_after_ms + 1;
    put_entry(l1, entry);
    assert_int_equal(read_one(l1, "b", 1), 0);
    assert_int_equal(ptier_l1_hits(l1), 0);
    assert_int_equal(read_one(l1, "a", 1), 5);
    assert_int_equal(read_one(l1, "a", 1), 5);
    assert_int_equal(ptier_l1_hits(l1), 2);
    assert_int_equal(atomic_load(&entry->access_count), 2);
    assert_int_equal(atomic_load(&entry->last_access_ms), now.wall_ms);
    assert_int_equal(atomic_load(&entry->usage_dirty), 1);
    ptier_entry_release(entry);
    l1->ops->close(l1);
}

static void
what_may_have_expired_is_given_but_not_counted(void **state)
{
    (void)state;
    ptier_tier *l1 = open_l1(10);
    ptier_entry *entry = ptier_test_entry("a", 1, 5);
    const ptier_l1_key key = key_of("a", 1);
    ptier_l1_found many;
    entry->expires_boot_ms = now.live_after_ms;
    put_entry(l1, entry);
    ptier_l1_found found = ptier_l1_read(l1, now, &key);
    assert_ptr_equal(found.entry, entry);
    assert_false(found.hit);
    ptier_l1_read_many(l1, now, &key, 1, &many);
    assert_ptr_equal(many.entry, entry);
    assert_false(many.hit);
    assert_int_equal(ptier_l1_hits(l1), 0);
    assert_int_equal(atomic_load(&entry->access_count), 0);
    assert_int_equal(atomic_load(&entry->last_access_ms), 0);
    assert_int_equal(atomic_load(&entry->usage_dirty), 0);
    ptier_l1_count_uses(l1, entry, 3, 77); /* whoever asked has looked at the clock */
    assert_int_equal(atomic_load(&entry->access_count), 3);
    assert_int_equal(atomic_load(&entry->last_access_ms), 77);
    assert_int_equal(atomic_load(&entry->usage_dirty), 1);
    assert_int_equal(ptier_l1_hits(l1), 0);
    for (int i = 0; i < 3; i++)
        ptier_entry_release(entry);
    l1->ops->close(l1);
}

static void
reads_are_uses_in_their_order(void **state)
{
    (void)state;
    static const char *const texts[] = {"a", "b", "c", "d"};
    ptier_tier *l1 = open_l1(4);
    ptier_l1_key keys[2];
    ptier_l1_found found[2];
    uint64_t hash, revision;
    for (uint64_t i = 0; i < 4; i++)
        put(l1, texts[i], i, i + 1);
    keys[0] = key_of("c", 2);
    keys[1] = key_of("a", 0);
    ptier_l1_read_many(l1, now, keys, 2, found);
    for (size_t i = 0; i < 2; i++)
        ptier_entry_release(found[i].entry);
    assert_int_equal(read_one(l1, "b", 1), 2);
    static const uint64_t order[] = {4, 3, 1};
    for (uint64_t i = 0; i < 3; i++) {
        put(l1, "new", 9, 9 + i); /* over the bound */
        assert_int_equal(l1->ops->victim(l1, &hash, &revision), PTIER_OK);
        assert_int_equal(revision, order[i]);
        l1->ops->drop(l1, hash, revision);
        l1->ops->drop(l1, 9, 0);
        put(l1, "filler", 10 + i, 20 + i);
    }
    l1->ops->close(l1);
}

/* ---- by many threads ---- */

enum { THREADS = 8, ROUNDS = 30000, MANY = 3 };

typedef struct crowd {
    ptier_tier *l1;
    ptier_entry *entry;
    ptier_l1_key key;
    _Atomic bool done;
} crowd;

static void *
use_again_and_again(void *context)
{
    crowd *c = context;
    const ptier_l1_key keys[MANY] = {c->key, c->key, c->key};
    for (int i = 0; i < ROUNDS; i++) {
        ptier_l1_found found[MANY];
        found[0] = ptier_l1_read(c->l1, now, &c->key);
        ptier_entry_release(found[0].entry);
        ptier_l1_read_many(c->l1, now, keys, MANY, found);
        for (int k = 0; k < MANY; k++)
            ptier_entry_release(found[k].entry);
        ptier_l1_count_uses(c->l1, c->entry, 2, 1);
    }
    return NULL;
}

static void *
watch_hits(void *context)
{
    crowd *c = context;
    uint64_t before = 0;
    while (!atomic_load(&c->done)) {
        uint64_t hits = ptier_l1_hits(c->l1);
        assert_true(hits >= before);
        before = hits;
    }
    return NULL;
}

static void
no_hit_and_no_use_is_lost_among_threads(void **state)
{
    (void)state;
    pthread_t threads[THREADS], watcher;
    crowd c = {.l1 = open_l1(100000), .entry = ptier_test_entry("a", 1, 5), .key = key_of("a", 1)};
    put_entry(c.l1, c.entry);
    assert_int_equal(pthread_create(&watcher, NULL, watch_hits, &c), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, use_again_and_again, &c), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&c.done, true);
    pthread_join(watcher, NULL);
    assert_int_equal(ptier_l1_hits(c.l1), THREADS * ROUNDS * (1 + MANY));
    assert_int_equal(atomic_load(&c.entry->access_count), THREADS * ROUNDS * (1 + MANY + 2));
    ptier_entry_release(c.entry);
    c.l1->ops->close(c.l1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_read_finds_the_whole_key),
        cmocka_unit_test(a_read_of_many_finds_what_reads_of_one_find),
        cmocka_unit_test(a_hit_is_counted_and_a_miss_is_not),
        cmocka_unit_test(what_may_have_expired_is_given_but_not_counted),
        cmocka_unit_test(reads_are_uses_in_their_order),
        cmocka_unit_test(no_hit_and_no_use_is_lost_among_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
