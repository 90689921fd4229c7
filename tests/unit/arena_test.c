/* proto/arena.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "arena.h"

static void
arena_hands_out_zeroed_aligned_memory_within_its_budget(void **state)
{
    (void)state;
    ptier_arena *arena = ptier_arena_create(68000);
    assert_non_null(arena);
    for (size_t size = 0; size < 300; size++) {
        unsigned char *memory = ptier_arena_array(arena, 1, size);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % 16, 0);
        for (size_t i = 0; i < size; i++)
            assert_int_equal(memory[i], 0);
        memset(memory, 0xff, size);
    }
    assert_null(ptier_arena_array(arena, SIZE_MAX, 2));
    assert_null(ptier_arena_array(arena, 1, SIZE_MAX - 4));
    assert_null(ptier_arena_array(arena, 1, 1 << 20));
    size_t taken = 0;
    while (ptier_arena_array(arena, 1, 1000))
        taken += 1000;
    assert_true(taken < 68000);
    ptier_arena_reset(arena, 1000);
    assert_non_null(ptier_arena_array(arena, 1, 1000));
    ptier_arena_destroy(arena);
    ptier_arena_destroy(NULL);
}

static void
arena_keeps_to_its_budget(void **state)
{
    (void)state;
    ptier_arena arena;
    ptier_arena_init(&arena);
    assert_null(ptier_arena_alloc(&arena, 1));
    ptier_arena_reset(&arena, 100000);
    char *first = ptier_arena_alloc(&arena, 60000);
    assert_non_null(first);
    memset(first, 1, 60000);
    assert_false(arena.exhausted);
    assert_null(ptier_arena_alloc(&arena, 60000));
    assert_true(arena.exhausted);
    assert_null(ptier_arena_array(&arena, SIZE_MAX / 2, 3));
    ptier_arena_reset(&arena, 100000);
    const char *again = ptier_arena_alloc(&arena, 60000);
    assert_non_null(again);
    for (size_t i = 0; i < 60000; i++)
        assert_int_equal(again[i], 0);
    ptier_arena_fini(&arena);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_hands_out_zeroed_aligned_memory_within_its_budget),
        cmocka_unit_test(arena_keeps_to_its_budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
