/* The lock of a near cache's shard: one at a time, nobody is forgotten, and who waits is counted.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "near_lock.h"

enum { THREADS = 4, TURNS = 50000, LONG_TURNS = 200 };

typedef struct stage {
    ptier_near_lock lock;
    uint64_t count; /* under the lock */
    int turns;
    long held_ns; /* 0: for a moment */
} stage;

static void
pause_ns(long ns)
{
    nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

static void *
take_turns(void *context)
{
    stage *s = context;
    for (int i = 0; i < s->turns; i++) {
        ptier_near_lock_enter(&s->lock);
        uint64_t count = s->count;
        if (s->held_ns)
            pause_ns(s->held_ns);
        s->count = count + 1;
        ptier_near_lock_leave(&s->lock);
    }
    return NULL;
}

static void
run(stage *s)
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_turns, s), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(s->count, (uint64_t)THREADS * (uint64_t)s->turns);
    assert_true(ptier_near_lock_idle(&s->lock));
}

static void
one_is_in_it_at_a_time(void **state)
{
    (void)state;
    stage s = {.turns = TURNS};
    run(&s);
}

/* Held for so long that the others sleep: each has to be woken. */
static void
sleepers_are_woken(void **state)
{
    (void)state;
    stage s = {.turns = LONG_TURNS, .held_ns = 50000};
    run(&s);
}

static void
who_waits_is_counted(void **state)
{
    (void)state;
    stage s = {.turns = 1};
    pthread_t threads[THREADS];
    const uint32_t all_here = PTIER_NEAR_LOCK_ONE_HERE * (THREADS + 1);
    assert_true(ptier_near_lock_idle(&s.lock));
    ptier_near_lock_enter(&s.lock);
    assert_false(ptier_near_lock_idle(&s.lock));
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_turns, &s), 0);
    while (atomic_load(&s.lock.word) / PTIER_NEAR_LOCK_ONE_HERE * PTIER_NEAR_LOCK_ONE_HERE <
           all_here)
        pause_ns(1000000);
    assert_int_equal(s.count, 0);
    ptier_near_lock_leave(&s.lock);
    while (!ptier_near_lock_idle(&s.lock))
        pause_ns(1000000);
    assert_int_equal(s.count, THREADS); /* without a join: idle is enough */
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_is_in_it_at_a_time),
        cmocka_unit_test(sleepers_are_woken),
        cmocka_unit_test(who_waits_is_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
