/* server/journal.c: contiguous sequences, bounds, coalescing, waking. Entries are left out: CLEARED
 * has none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>
#include <pthread.h>

#include "journal.h"

static ptier_journal *
make(size_t events, uint32_t allowance)
{
    ptier_journal *journal;
    assert_int_equal(ptier_journal_create(events, allowance, &journal, NULL), PTIER_OK);
    return journal;
}

static void
change(ptier_journal *journal, uint64_t revision)
{
    const ptier_change cleared = {.type = PTIER_EVENT_CLEARED, .revision = revision};
    ptier_journal_on_change(journal, &cleared);
}

static void
tier_event(ptier_journal *journal, ptier_event_type type, ptier_tier_id tier)
{
    const ptier_tier_event event = {.type = type, .tier = tier};
    ptier_journal_on_tier_event(journal, &event);
}

static void
ring_keeps_the_newest_and_says_what_is_oldest(void **state)
{
    (void)state;
    ptier_journal *journal = make(10, 100);
    ptier_journal_item items[20];
    ptier_journal_bounds bounds = ptier_journal_get_bounds(journal, PTIER_STREAM_CHANGES);
    assert_int_equal(bounds.last, 0);
    assert_int_equal(bounds.oldest, 1);
    for (uint64_t i = 1; i <= 25; i++)
        change(journal, 100 + i);
    assert_int_equal(ptier_journal_read(journal, PTIER_STREAM_CHANGES, 0, items, 20, &bounds), 10);
    assert_int_equal(bounds.last, 25);
    assert_int_equal(bounds.oldest, 16);
    for (size_t i = 0; i < 10; i++) {
        assert_int_equal(items[i].sequence, 16 + i);
        assert_int_equal(items[i].revision, 116 + i);
    }
    assert_int_equal(ptier_journal_read(journal, PTIER_STREAM_CHANGES, 23, items, 20, &bounds), 2);
    assert_int_equal(items[0].sequence, 24);
    assert_int_equal(ptier_journal_read(journal, PTIER_STREAM_CHANGES, 25, items, 20, &bounds), 0);
    assert_int_equal(ptier_journal_read(journal, PTIER_STREAM_TIERS, 0, items, 20, &bounds), 0);
    ptier_journal_destroy(journal);
}

static void
many_tier_events_become_one_with_a_count(void **state)
{
    (void)state;
    ptier_journal *journal = make(100, 3);
    ptier_journal_item items[20];
    ptier_journal_bounds bounds;
    for (int i = 0; i < 10; i++)
        tier_event(journal, PTIER_EVENT_PROMOTED, PTIER_TIER_L1);
    for (int i = 0; i < 5; i++)
        tier_event(journal, PTIER_EVENT_TIER_EVICTED, PTIER_TIER_L2);
    tier_event(journal, PTIER_EVENT_TIER_DEGRADED, PTIER_TIER_L2); /* never held back */
    assert_int_equal(ptier_journal_read(journal, PTIER_STREAM_TIERS, 0, items, 20, &bounds), 4);
    ptier_journal_tick(journal);
    assert_int_equal(ptier_journal_read(journal, PTIER_STREAM_TIERS, 4, items, 20, &bounds), 2);
    assert_int_equal(items[0].type, PTIER_EVENT_PROMOTED);
    assert_int_equal(items[0].tier, PTIER_TIER_L1);
    assert_int_equal(items[0].count, 7);
    assert_int_equal(items[1].type, PTIER_EVENT_TIER_EVICTED);
    assert_int_equal(items[1].count, 5);
    ptier_journal_tick(journal);
    tier_event(journal, PTIER_EVENT_PROMOTED, PTIER_TIER_L1); /* a new allowance */
    assert_int_equal(ptier_journal_read(journal, PTIER_STREAM_TIERS, 6, items, 20, &bounds), 1);
    assert_int_equal(items[0].count, 1);
    ptier_journal_destroy(journal);
}

static void *
append_one(void *journal)
{
    change(journal, 1);
    return NULL;
}

static void *
wake(void *journal)
{
    ptier_journal_wake(journal);
    return NULL;
}

/* How long a wait of 30 s takes when `function` runs beside it. */
static double
wait_beside(ptier_journal *journal, void *(*function)(void *))
{
    const uint64_t after[PTIER_STREAM_COUNT] = {0};
    struct timespec start, end;
    pthread_t thread;
    clock_gettime(CLOCK_MONOTONIC, &start);
    assert_int_equal(pthread_create(&thread, NULL, function, journal), 0);
    ptier_journal_wait(journal, after, 30000, 0);
    pthread_join(thread, NULL);
    clock_gettime(CLOCK_MONOTONIC, &end);
    return (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9;
}

static void
waiter_hears_of_appends_and_of_wake(void **state)
{
    (void)state;
    for (int i = 0; i < 200; i++) { /* append and wait race: every order must work */
        ptier_journal *journal = make(10, 10);
        assert_true(wait_beside(journal, append_one) < 20);
        ptier_journal_destroy(journal);
        journal = make(10, 10);
        assert_true(wait_beside(journal, wake) < 20);
        ptier_journal_destroy(journal);
    }
}

#define WRITES 20000

static void *
append_many(void *journal)
{
    for (uint64_t i = 1; i <= WRITES; i++)
        change(journal, i);
    return NULL;
}

static void
reader_beside_a_writer_sees_every_sequence_in_order(void **state)
{
    (void)state;
    ptier_journal *journal = make(WRITES, 10);
    ptier_journal_item items[PTIER_JOURNAL_READ_MAX];
    ptier_journal_bounds bounds;
    uint64_t after[PTIER_STREAM_COUNT] = {0};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, append_many, journal), 0);
    uint64_t *seen = &after[PTIER_STREAM_CHANGES];
    while (*seen < WRITES) {
        ptier_journal_wait(journal, after, 10000, 1);
        size_t count = ptier_journal_read(journal, PTIER_STREAM_CHANGES, *seen, items,
                                          PTIER_JOURNAL_READ_MAX, &bounds);
        assert_true(count > 0);
        for (size_t i = 0; i < count; i++)
            assert_int_equal(items[i].sequence, ++*seen);
    }
    pthread_join(thread, NULL);
    ptier_journal_destroy(journal);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ring_keeps_the_newest_and_says_what_is_oldest),
        cmocka_unit_test(many_tier_events_become_one_with_a_count),
        cmocka_unit_test(waiter_hears_of_appends_and_of_wake),
        cmocka_unit_test(reader_beside_a_writer_sees_every_sequence_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
