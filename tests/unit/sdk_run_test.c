/* client/run.c: what the daemon's clock says at least. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "run.h"

static const uint8_t one[PTIER_BOOT_ID_BYTES] = {1}, two[PTIER_BOOT_ID_BYTES] = {2};

static void
daemon_clock_is_never_overestimated(void **state)
{
    (void)state;
    ptier_run run = {0};
    ptier_run_learn(&run, one, sizeof one, 5000, 100);
    assert_true(run.known);
    assert_int_equal(ptier_run_clock(&run, 100), 4999);
    /* Our clock may be faster by 1,000 ppm: after a day of ours, the daemon's has gone 86.4 s less.
     */
    int64_t day = 86400000;
    assert_true(ptier_run_clock(&run, 100 + day) <= 5000 + day - 86400);
    assert_true(ptier_run_clock(&run, 100 + day) > 5000 + day - 86500);
}

static void
last_answer_counts_and_strange_ids_do_not(void **state)
{
    (void)state;
    ptier_run run = {0};
    ptier_run_learn(&run, one, 15, 5000, 100);
    assert_false(run.known);
    ptier_run_learn(&run, one, sizeof one, 5000, 100);
    ptier_run_learn(&run, two, sizeof two, 70, 200);
    ptier_run_learn(&run, one, 0, 9000, 300);
    assert_memory_equal(run.boot_id, two, sizeof two);
    assert_int_equal(ptier_run_clock(&run, 210), 79);
}

/* A clock that overflowed would be behaviour that C does not define. */
static void
clock_that_no_machine_has_tells_nothing(void **state)
{
    (void)state;
    static const int64_t strange[] = {INT64_MAX, INT64_MAX - 1000, INT64_MIN, -1};
    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++) {
        ptier_run run = {0};
        ptier_run_learn(&run, one, sizeof one, strange[i], 100);
        assert_true(run.known);
        assert_in_range(ptier_run_clock(&run, 100 + 100000), 0, 100000);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(daemon_clock_is_never_overestimated),
        cmocka_unit_test(last_answer_counts_and_strange_ids_do_not),
        cmocka_unit_test(clock_that_no_machine_has_tells_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
