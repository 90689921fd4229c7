/* The bound of a heartbeat's age, against a daemon whose clock drifts and calls and heartbeats that
 * take their time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "near_clock.h"

#define MS INT64_C(1000000)
#define S  (1000 * MS)

static const uint8_t run_1[PTIER_NEAR_ID_BYTES] = {1}, run_2[PTIER_NEAR_ID_BYTES] = {2};

static void
age_counts_from_when_the_daemon_sent(void **state)
{
    (void)state;
    ptier_near_clock clock;
    ptier_near_clock_init(&clock);
    assert_int_equal(ptier_near_clock_age(&clock, 10 * S), INT64_MAX);
    assert_int_equal(ptier_near_clock_until(&clock, 10 * S, S), PTIER_NEAR_NEVER);
    ptier_near_clock_beat(&clock, run_1, 5000);
    assert_int_equal(ptier_near_clock_age(&clock, 10 * S), INT64_MAX); /* no call yet */
    ptier_near_clock_reply(&clock, run_1, 10 * S, 10 * S + 40 * MS, 5300);
    int64_t age = ptier_near_clock_age(&clock, 10 * S + 40 * MS); /* 340 ms, and 1 for rounding */
    assert_true(age >= 341 * MS && age < 342 * MS);
    int64_t until = ptier_near_clock_until(&clock, 10 * S + 40 * MS, S);
    assert_true(until > 10 * S + 698 * MS && until <= 10 * S + 699 * MS);
    ptier_near_clock_beat(&clock, run_1, 4000); /* an older one says less */
    assert_int_equal(ptier_near_clock_age(&clock, 10 * S + 40 * MS), age);
    ptier_near_clock_lose(&clock);
    assert_int_equal(ptier_near_clock_age(&clock, 10 * S + 40 * MS), INT64_MAX);
}

static void
runs_are_not_mixed(void **state)
{
    (void)state;
    ptier_near_clock clock;
    ptier_near_clock_init(&clock);
    ptier_near_clock_reply(&clock, run_1, 10 * S, 10 * S, 500000);
    ptier_near_clock_beat(&clock, run_2, 3000);
    assert_int_equal(ptier_near_clock_age(&clock, 10 * S), INT64_MAX);
    ptier_near_clock_reply(&clock, run_2, 10 * S, 10 * S, 3000);
    assert_true(ptier_near_clock_age(&clock, 10 * S) <= 2 * MS);
}

static void
call_says_nothing_after_a_minute(void **state)
{
    (void)state;
    ptier_near_clock clock;
    ptier_near_clock_init(&clock);
    ptier_near_clock_reply(&clock, run_1, 10 * S, 10 * S, 5000);
    ptier_near_clock_beat(&clock, run_1, 64000);
    assert_true(ptier_near_clock_call_due(&clock) <= 40 * S);
    assert_true(ptier_near_clock_age(&clock, 69 * S) < 200 * MS);
    assert_int_equal(ptier_near_clock_until(&clock, 69 * S, 10 * S), 70 * S);
    assert_int_equal(ptier_near_clock_age(&clock, 70 * S), INT64_MAX);
}

/* Calls every 25 s suffice, and the best of the last half minute counts. */
static void
bound_is_never_too_low_and_soon_tight(void **state)
{
    (void)state;
    for (int ppm = -190; ppm <= 190; ppm += 95) {
        ptier_near_clock clock;
        ptier_near_clock_init(&clock);
        srand((unsigned)(ppm + 1000));
        int64_t next_call = 0, beat = 0;
        for (int64_t now = 100 * S; now < 400 * S; now += 100 * MS) {
            int64_t offset = 777 * S + now / 1000000 * ppm; /* theirs minus ours */
            if (now >= next_call) {
                int64_t there = (rand() % 400) * MS, back = (rand() % 400) * MS;
                ptier_near_clock_reply(&clock, run_1, now - there - back, now,
                                       (now - back + offset) / MS);
                next_call = now + (rand() % 25 + 1) * S;
            }
            if (rand() % 3 == 0) {
                beat = now - (rand() % 300) * MS;
                ptier_near_clock_beat(&clock, run_1, (beat + offset) / MS);
            }
            if (beat == 0)
                continue;
            int64_t latest = clock.beat; /* the newest stamp, of the daemon's clock */
            int64_t truth = now + offset - latest, bound = ptier_near_clock_age(&clock, now);
            assert_true(bound >= truth);
            assert_true(bound <= truth + 450 * MS);
            int64_t until = ptier_near_clock_until(&clock, now, S);
            assert_int_equal(bound <= S, until >= now);
            if (until >= now)
                assert_true(until + 777 * S + until / 1000000 * ppm - latest <= S);
        }
    }
}

static void
nonsense_is_ignored(void **state)
{
    (void)state;
    ptier_near_clock clock;
    ptier_near_clock_init(&clock);
    ptier_near_clock_reply(&clock, run_1, 10 * S, 10 * S, INT64_MAX);
    ptier_near_clock_beat(&clock, run_1, INT64_MAX);
    ptier_near_clock_reply(&clock, run_1, 10 * S, 10 * S, -1);
    ptier_near_clock_beat(&clock, run_1, INT64_MIN);
    assert_int_equal(ptier_near_clock_age(&clock, 10 * S), INT64_MAX);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(age_counts_from_when_the_daemon_sent),
        cmocka_unit_test(runs_are_not_mixed),
        cmocka_unit_test(call_says_nothing_after_a_minute),
        cmocka_unit_test(bound_is_never_too_low_and_soon_tight),
        cmocka_unit_test(nonsense_is_ignored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
