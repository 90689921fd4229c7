#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "map.h"
#include "support/sample_entry.h"

enum { ITEMS = 600, STEPS = 200000 };

typedef struct item {
    uint64_t hash;
    bool in;
} item;

static bool
is_item(const void *value, const void *key)
{
    return value == key;
}

static void
check_all(const ptier_map *map, item *items, size_t inside)
{
    assert_int_equal(map->count, inside);
    for (size_t i = 0; i < ITEMS; i++)
        assert_ptr_equal(ptier_map_find(map, items[i].hash, is_item, &items[i]),
                         items[i].in ? &items[i] : NULL);
}

/* The table must agree with a plain array, whatever the hashes. */
static void
run_model(uint64_t seed, uint64_t (*hash_of)(uint64_t *random))
{
    static item items[ITEMS];
    ptier_map map;
    size_t inside = 0;
    ptier_map_init(&map);
    for (size_t i = 0; i < ITEMS; i++)
        items[i] = (item){.hash = hash_of(&seed)};
    for (int step = 0; step < STEPS; step++) {
        item *it = &items[ptier_test_random(&seed, ITEMS)],
             *other = &items[ptier_test_random(&seed, ITEMS)];
        uint64_t what = ptier_test_random(&seed, 8);
        if (what == 0 && it->in && !other->in) {
            other->hash = it->hash;
            assert_true(ptier_map_replace(&map, it->hash, it, other));
            it->in = false;
            other->in = true;
        } else if (it->in) {
            assert_true(ptier_map_remove(&map, it->hash, it));
            it->in = false;
            inside--;
        } else {
            assert_false(ptier_map_remove(&map, it->hash, it));
            assert_false(ptier_map_replace(&map, it->hash, it, other));
            assert_true(ptier_map_insert(&map, it->hash, it));
            it->in = true;
            inside++;
        }
        if (step % 5000 == 0)
            check_all(&map, items, inside);
    }
    check_all(&map, items, inside);
    ptier_map_fini(&map);
    assert_null(ptier_map_find(&map, items[0].hash, NULL, NULL));
}

static uint64_t
one_hash(uint64_t *random)
{
    (void)random;
    return UINT64_MAX;
}

static uint64_t
few_hashes(uint64_t *random)
{
    return ptier_test_random(random, 5) * UINT64_C(0x100000001);
}

static uint64_t
same_home(uint64_t *random)
{
    return ptier_test_random(random, UINT32_MAX) << 32 | 63;
}

static uint64_t
spread(uint64_t *random)
{
    return ptier_test_random(random, UINT64_C(1) << 48) * UINT64_C(0x9e3779b97f4a7c15);
}

static void
map_agrees_with_an_array_under_any_hashes(void **state)
{
    (void)state;
    run_model(1, one_hash);
    run_model(2, few_hashes);
    run_model(3, same_home);
    run_model(4, spread);
}

static void
map_find_without_match_takes_any_value_of_the_hash(void **state)
{
    (void)state;
    ptier_map map;
    int a, b;
    ptier_map_init(&map);
    assert_true(ptier_map_insert(&map, 7, &a));
    assert_true(ptier_map_insert(&map, 8, &b));
    assert_ptr_equal(ptier_map_find(&map, 8, NULL, NULL), &b);
    assert_null(ptier_map_find(&map, 9, NULL, NULL));
    ptier_map_fini(&map);
}

static void
map_reserved_room_is_not_moved_by_inserts(void **state)
{
    (void)state;
    ptier_map map;
    static int values[1000];
    ptier_map_init(&map);
    assert_true(ptier_map_reserve(&map, 1000));
    const ptier_map_cell *cells = map.cells;
    for (uint64_t i = 0; i < 1000; i++)
        assert_true(ptier_map_insert(&map, i, &values[i]));
    assert_ptr_equal(map.cells, cells);
    ptier_map_fini(&map);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(map_agrees_with_an_array_under_any_hashes),
        cmocka_unit_test(map_find_without_match_takes_any_value_of_the_hash),
        cmocka_unit_test(map_reserved_room_is_not_moved_by_inserts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
