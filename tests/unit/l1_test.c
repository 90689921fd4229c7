#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "hash.h"
#include "l1/l1_memory.h"
#include "support/sample_entry.h"

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
l1_counts_the_latest_use_before_it_names_a_victim(void **state)
{
    (void)state;
    ptier_tier *l1 = open_l1(2);
    uint64_t hash, revision;
    put(l1, "a", 1, 5);
    put(l1, "b", 2, 6);
    put(l1, "c", 3, 7);
    assert_int_equal(get(l1, "a", 1), 5);
    assert_int_equal(l1->ops->victim(l1, &hash, &revision), PTIER_OK);
    assert_int_equal(revision, 6);
    l1->ops->close(l1);
}

static void
l1_evicts_what_is_next_and_gives_its_reference_away(void **state)
{
    (void)state;
    ptier_tier *l1 = open_l1(2);
    put(l1, "a", 1, 5);
    put(l1, "b", 2, 6);
    assert_null(ptier_l1_evict(l1));
    put(l1, "c", 3, 7);
    assert_int_equal(get(l1, "a", 1), 5);
    ptier_entry *evicted = ptier_l1_evict(l1);
    assert_non_null(evicted);
    assert_string_equal(ptier_entry_key(evicted), "b");
    assert_int_equal(atomic_load(&evicted->refs), 1);
    ptier_entry_release(evicted);
    assert_int_equal(l1->ops->count(l1), 2);
    assert_int_equal(get(l1, "b", 2), 0);
    assert_null(ptier_l1_evict(l1));
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

/* ---- bounds ---- */

static uint64_t
hash_in(uint64_t shard, uint64_t number)
{
    return shard << 48 | number;
}

/* Its revision says when it came. */
static void
put_number(ptier_tier *l1, uint64_t shard, uint64_t number, const char *password)
{
    char key[24];
    (void)snprintf(key, sizeof key, "k%llu", (unsigned long long)number);
    ptier_entry *entry =
        ptier_test_entry_with(key, hash_in(shard, number), number, "user", password);
    apply(l1, PTIER_OP_PUT, number, entry);
    ptier_entry_release(entry);
}

static bool
has_number(ptier_tier *l1, uint64_t shard, uint64_t number)
{
    char key[24];
    (void)snprintf(key, sizeof key, "k%llu", (unsigned long long)number);
    return get(l1, key, hash_in(shard, number)) != 0;
}

static uint64_t
most(const uint64_t figures[16])
{
    uint64_t highest = 0;
    for (int i = 0; i < 16; i++)
        highest = figures[i] > highest ? figures[i] : highest;
    return highest;
}

static void
l1_fills_its_bound_however_uneven_its_shards_are(void **state)
{
    (void)state;
    enum { CAPACITY = 100000, MORE = 60000 };
    ptier_tier *l1 = open_l1(CAPACITY);
    uint64_t in_shard[16] = {0}, last_victim[16] = {0}, hash, revision;
    for (uint64_t i = 1; i <= CAPACITY; i++) {
        uint64_t shard = i % 4 ? 5 : i / 4 % 16; /* three of four in one shard */
        put_number(l1, shard, i, NULL);
        in_shard[shard]++;
        assert_int_equal(l1->ops->victim(l1, &hash, &revision), PTIER_NOT_FOUND);
    }
    for (uint64_t i = CAPACITY + 1; i <= CAPACITY + MORE; i++) {
        put_number(l1, i % 16, i, NULL);
        in_shard[i % 16]++;
        assert_int_equal(l1->ops->victim(l1, &hash, &revision), PTIER_OK);
        uint64_t from = hash >> 48;
        assert_int_equal(in_shard[from], most(in_shard));
        assert_true(revision > last_victim[from]); /* each shard keeps its order */
        last_victim[from] = revision;
        l1->ops->drop(l1, hash, revision);
        in_shard[from]--;
        assert_int_equal(l1->ops->count(l1), CAPACITY);
        assert_int_equal(l1->ops->victim(l1, &hash, &revision), PTIER_NOT_FOUND);
    }
    assert_in_range(in_shard[5], CAPACITY / 16, CAPACITY / 2); /* the full one has given up most */
    l1->ops->close(l1);
}

static const ptier_eviction evictions[] = {PTIER_EVICTION_LRU, PTIER_EVICTION_LFU,
                                           PTIER_EVICTION_FIFO, PTIER_EVICTION_SIEVE};
enum { EVICTIONS = 4 };

static ptier_tier *
open_bounded(uint64_t capacity, uint64_t bytes, ptier_eviction eviction)
{
    const ptier_l1_options options = {.capacity = capacity, .bytes = bytes, .eviction = eviction};
    ptier_tier *l1;
    assert_int_equal(ptier_l1_open(&options, &l1, &error), PTIER_OK);
    return l1;
}

typedef struct sizes {
    uint64_t entries, bytes;
} sizes;

static bool
add_size(void *context, const ptier_scan_item *item)
{
    sizes *sum = context;
    sum->entries++;
    /* A node is at least this, and its cell in the table. */
    sum->bytes += strlen(item->url) + sizeof(ptier_entry) + 3 * sizeof(void *) + 16;
    return true;
}

/* In bytes alone, in one shard (1 MiB) and in several (8 MiB). */
static void
l1_keeps_to_a_bound_in_bytes_and_never_gives_up_what_came_last(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 2 * EVICTIONS; i++) {
        const uint64_t bound = UINT64_C(1) << (i % 2 ? 20 : 23);
        ptier_tier *l1 = open_bounded(0, bound, evictions[i / 2]);
        const uint64_t empty = l1->ops->bytes(l1), puts = bound / 128;
        uint64_t seed = 3 + i, hash, revision, evicted = 0;
        for (uint64_t number = 1; number <= puts; number++) {
            char password[201] = {0};
            memset(password, 'x', 1 + ptier_test_random(&seed, 200));
            put_number(l1, number % 16, number, password);
            uint64_t over = l1->ops->bytes(l1);
            while (l1->ops->victim(l1, &hash, &revision) == PTIER_OK) {
                assert_true(over > bound);
                l1->ops->drop(l1, hash, revision);
                assert_true(l1->ops->bytes(l1) < over);
                over = l1->ops->bytes(l1);
                evicted++;
            }
            assert_true(over <= bound);
            assert_true(has_number(l1, number % 16, number));
        }
        sizes sum = {0};
        assert_true(evicted > puts / 4);
        assert_int_equal(l1->ops->scan(l1, add_size, &sum, &error), PTIER_OK);
        assert_int_equal(sum.entries, puts - evicted);
        assert_in_range(l1->ops->bytes(l1), sum.bytes, bound);
        apply(l1, PTIER_OP_CLEAR, UINT64_MAX, NULL);
        assert_int_equal(l1->ops->bytes(l1), empty); /* all that was counted is counted back */
        l1->ops->close(l1);
    }
}

static void
l1_keeps_to_the_bound_that_is_met_first(void **state)
{
    (void)state;
    ptier_tier *l1 = open_bounded(100, 1 << 20, PTIER_EVICTION_LRU);
    uint64_t hash, revision;
    for (uint64_t i = 1; i <= 100; i++)
        put_number(l1, 0, i, NULL);
    assert_int_equal(l1->ops->victim(l1, &hash, &revision), PTIER_NOT_FOUND);
    put_number(l1, 0, 101, NULL);
    assert_int_equal(l1->ops->victim(l1, &hash, &revision), PTIER_OK);
    l1->ops->drop(l1, hash, revision);

    char *long_password = calloc(1, 20001);
    assert_non_null(long_password);
    memset(long_password, 'x', 20000);
    for (uint64_t i = 2; i <= 100 && l1->ops->bytes(l1) <= 1 << 20; i++) {
        assert_int_equal(l1->ops->victim(l1, &hash, &revision), PTIER_NOT_FOUND);
        put_number(l1, 0, i, long_password); /* the same again, and larger */
    }
    free(long_password);
    assert_int_equal(l1->ops->count(l1), 100);
    assert_int_equal(l1->ops->victim(l1, &hash, &revision), PTIER_OK);
    l1->ops->close(l1);
}

static void
l1_refuses_bounds_and_policies_that_make_no_sense(void **state)
{
    (void)state;
    static const ptier_l1_options wrong[] = {
        {.capacity = 0},
        {.capacity = 10, .bytes = PTIER_L1_BYTES_MIN - 1},
        {.capacity = 10, .eviction = (ptier_eviction)(PTIER_EVICTION_SIEVE + 1)},
    };
    ptier_tier *l1;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(ptier_l1_open(&wrong[i], &l1, &error), PTIER_INVALID_ARGUMENT);
}

/* ---- threads ---- */

enum { CROWD_KEYS = 24000, CROWD_CAPACITY = 20000, CROWD_STEPS = 15000, CROWD_SCANS = 10 };

typedef struct crowd {
    ptier_tier *l1;
    pthread_mutex_t change_lock; /* writers come one at a time, as in the cache */
    uint64_t revision;
    _Atomic unsigned started, wrong;
} crowd;

static void
write_some(crowd *c, uint64_t number, bool remove)
{
    char key[24];
    uint64_t hash, revision;
    (void)snprintf(key, sizeof key, "k%llu", (unsigned long long)number);
    pthread_mutex_lock(&c->change_lock);
    ptier_entry *entry = ptier_test_entry(key, hash_in(number % 16, number), ++c->revision);
    const ptier_op op = {
        .kind = remove ? PTIER_OP_REMOVE : PTIER_OP_PUT, .revision = ++c->revision, .entry = entry};
    c->wrong += c->l1->ops->apply(c->l1, &op, 1, false, NULL) != PTIER_OK;
    for (ptier_entry *evicted; number % 2 && (evicted = ptier_l1_evict(c->l1));)
        ptier_entry_release(evicted);
    while (c->l1->ops->victim(c->l1, &hash, &revision) == PTIER_OK)
        c->l1->ops->drop(c->l1, hash, revision);
    c->wrong += c->l1->ops->count(c->l1) > CROWD_CAPACITY;
    pthread_mutex_unlock(&c->change_lock);
    ptier_entry_release(entry);
}

static void *
write_and_read(void *context)
{
    crowd *c = context;
    uint64_t seed = 7 + atomic_fetch_add(&c->started, 1);
    for (int i = 0; i < CROWD_STEPS; i++) {
        uint64_t number = ptier_test_random(&seed, CROWD_KEYS), what = ptier_test_random(&seed, 8);
        if (what < 3) {
            write_some(c, number, what == 0);
            continue;
        }
        char key[24];
        ptier_entry *entry;
        (void)snprintf(key, sizeof key, "k%llu", (unsigned long long)number);
        const uint64_t hash = hash_in(number % 16, number);
        const ptier_ref ref = {.hash = hash, .key = key, .quiet = what == 3};
        const ptier_l1_key read_key = {.hash = hash, .text = key, .length = strlen(key)};
        if (what >= 6)
            entry = ptier_l1_read(c->l1, (ptier_look){0}, &read_key).entry;
        else if (c->l1->ops->get(c->l1, &ref, &entry))
            entry = NULL;
        if (entry) {
            c->wrong += strcmp(ptier_entry_key(entry), key) != 0;
            ptier_entry_release(entry);
        }
    }
    return NULL;
}

static bool
mark(void *context, const ptier_scan_item *item)
{
    uint8_t *seen = context;
    seen[item->hash & UINT64_C(0xffffffffffff)]++;
    return true;
}

static void *
scan_again_and_again(void *context)
{
    crowd *c = context;
    uint8_t *seen = malloc(CROWD_KEYS);
    for (int i = 0; seen && i < CROWD_SCANS; i++) {
        memset(seen, 0, CROWD_KEYS);
        c->wrong += c->l1->ops->scan(c->l1, mark, seen, NULL) != PTIER_OK;
        for (size_t k = 0; k < CROWD_KEYS; k++)
            c->wrong += seen[k] > 1;
    }
    c->wrong += seen == NULL;
    free(seen);
    return NULL;
}

static void
l1_stays_right_with_readers_writers_and_scans_at_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < EVICTIONS; i++) {
        crowd c = {.l1 = open_bounded(CROWD_CAPACITY, 0, evictions[i])};
        const uint64_t empty = c.l1->ops->bytes(c.l1);
        pthread_t threads[5];
        pthread_mutex_init(&c.change_lock, NULL);
        for (uint64_t number = 0; number < CROWD_KEYS; number++)
            write_some(&c, number, false);
        for (int t = 0; t < 5; t++)
            assert_int_equal(
                pthread_create(&threads[t], NULL, t ? write_and_read : scan_again_and_again, &c),
                0);
        for (int t = 0; t < 5; t++)
            pthread_join(threads[t], NULL);
        assert_int_equal(c.wrong, 0);
        sizes sum = {0};
        assert_int_equal(c.l1->ops->scan(c.l1, add_size, &sum, &error), PTIER_OK);
        assert_int_equal(c.l1->ops->count(c.l1), sum.entries);
        assert_true(c.l1->ops->bytes(c.l1) > sum.bytes);
        apply(c.l1, PTIER_OP_CLEAR, UINT64_MAX, NULL);
        assert_int_equal(c.l1->ops->bytes(c.l1), empty);
        assert_int_equal(c.l1->ops->count(c.l1), 0);
        c.l1->ops->close(c.l1);
        pthread_mutex_destroy(&c.change_lock);
    }
}

/* In kB. */
static size_t
huge_memory(void)
{
    char line[200];
    size_t kb = 0;
    FILE *file = fopen("/proc/self/smaps_rollup", "re");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "AnonHugePages: %zu", &kb) == 1)
            break;
    if (file)
        (void)fclose(file); /* only read from */
    return kb;
}

static bool
kernel_gathers(void)
{
    const size_t block = (size_t)2 << 20;
    char setting[64] = "";
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "re");
    bool agreed = file && fgets(setting, sizeof setting, file) && !strstr(setting, "[never]");
    if (file)
        (void)fclose(file); /* only read from */
    void *memory = aligned_alloc(block, block);
    assert_non_null(memory);
    memset(memory, 1, block);
    agreed = agreed && madvise(memory, block, 25 /* MADV_COLLAPSE */) == 0;
    free(memory);
    return agreed;
}

static void
large_l1_moves_to_huge_pages(void **state)
{
    enum { STEPS = 1000 };
    const uint64_t count = PTIER_L1_HUGE_FROM / 100;
    (void)state;
    char key[32];
    if (!kernel_gathers())
        skip();
    ptier_tier *l1 = open_l1(count);
    for (uint64_t i = 1; i <= count; i++) {
        snprintf(key, sizeof key, "k%" PRIu64, i);
        put(l1, key, ptier_hash_key(key), i);
    }
    assert_true(l1->ops->bytes(l1) >= PTIER_L1_HUGE_FROM);
    size_t before = huge_memory();
    for (int i = 0; i < STEPS; i++)
        ptier_l1_gather(l1);
    assert_true(huge_memory() >= before + (PTIER_L1_HUGE_FROM >> 12)); /* a quarter of it */
    for (uint64_t i = 1; i <= count; i++) {
        snprintf(key, sizeof key, "k%" PRIu64, i);
        assert_int_equal(get(l1, key, ptier_hash_key(key)), i);
    }
    l1->ops->close(l1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(l1_ignores_a_late_promotion),
        cmocka_unit_test(l1_get_by_revision_finds_only_that_revision),
        cmocka_unit_test(l1_counts_the_latest_use_before_it_names_a_victim),
        cmocka_unit_test(l1_evicts_what_is_next_and_gives_its_reference_away),
        cmocka_unit_test(l1_clear_empties_it_and_an_entry_outlives_it),
        cmocka_unit_test(l1_scan_sees_each_entry_once),
        cmocka_unit_test(l1_fills_its_bound_however_uneven_its_shards_are),
        cmocka_unit_test(l1_keeps_to_a_bound_in_bytes_and_never_gives_up_what_came_last),
        cmocka_unit_test(l1_keeps_to_the_bound_that_is_met_first),
        cmocka_unit_test(l1_refuses_bounds_and_policies_that_make_no_sense),
        cmocka_unit_test(large_l1_moves_to_huge_pages),
        cmocka_unit_test(l1_stays_right_with_readers_writers_and_scans_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
