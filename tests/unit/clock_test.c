#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "clock.h"

/* A machine, and how often somebody asked it for the exact boot time. */
typedef struct machine {
    int64_t wall_ms, boot_ms, monotonic_ms;
    int64_t lag_ms; /* of a tick */
    int exact;
    ptier_clock clock;
    ptier_clock_glance glance;
} machine;

static int64_t
wall(void *context)
{
    return ((machine *)context)->wall_ms;
}

static int64_t
boot(void *context)
{
    machine *m = context;
    m->exact++;
    return m->boot_ms;
}

static void
tick(void *context, int64_t *wall_ms, int64_t *monotonic_ms)
{
    const machine *m = context;
    *wall_ms = m->wall_ms - m->lag_ms;
    *monotonic_ms = m->monotonic_ms - m->lag_ms;
}

enum { HOUR_MS = 3600000 };

static machine
started(void)
{
    return (machine){
        .wall_ms = INT64_C(1700000000000), .boot_ms = 5 * HOUR_MS, .monotonic_ms = 2 * HOUR_MS};
}

static void
begin(machine *m)
{
    m->clock = (ptier_clock){.wall_ms = wall, .boot_ms = boot, .tick = tick, .context = m};
    ptier_clock_glance_renew(&m->glance, &m->clock);
    m->exact = 0;
}

static void
go_on(machine *m, int64_t ms)
{
    m->wall_ms += ms;
    m->boot_ms += ms;
    m->monotonic_ms += ms;
}

static void
suspend(machine *m, int64_t ms)
{
    m->wall_ms += ms;
    m->boot_ms += ms;
}

static bool
past(machine *m, int64_t expires_boot_ms)
{
    const ptier_look look = ptier_clock_look(&m->glance, &m->clock);
    assert_in_range(m->wall_ms - look.wall_ms, 0, m->lag_ms);
    return ptier_clock_past(&m->clock, &look, expires_boot_ms);
}

static void
a_distant_expiry_asks_for_no_exact_time(void **state)
{
    (void)state;
    machine m = started();
    begin(&m);
    int64_t expires = m.boot_ms + HOUR_MS;
    for (int minute = 0; minute < 59; minute++, go_on(&m, 60000))
        assert_false(past(&m, expires));
    assert_false(past(&m, PTIER_NEVER));
    assert_int_equal(m.exact, 0);
}

static void
expiry_is_exact_to_the_millisecond(void **state)
{
    (void)state;
    machine m = started();
    for (m.lag_ms = 0; m.lag_ms <= 2000; m.lag_ms += 100) {
        begin(&m);
        int64_t expires = m.boot_ms + 10000;
        for (int i = 0; i < 12000; i++, go_on(&m, 1))
            assert_int_equal(past(&m, expires), m.boot_ms >= expires);
    }
}

static void
a_suspend_counts_at_once(void **state)
{
    (void)state;
    for (int64_t ms = 1; ms < 3 * HOUR_MS; ms = ms * 3 / 2 + 1) {
        machine m = started();
        m.lag_ms = 10;
        begin(&m);
        int64_t expires = m.boot_ms + HOUR_MS;
        suspend(&m, ms);
        assert_int_equal(past(&m, expires), ms >= HOUR_MS);
        assert_int_equal(past(&m, m.boot_ms), true);
        assert_int_equal(past(&m, m.boot_ms + 1), false);
    }
}

static void
many_short_suspends_count(void **state)
{
    (void)state;
    machine m = started();
    begin(&m);
    int64_t expires = m.boot_ms + 60000;
    for (int i = 0; i < 120; i++, suspend(&m, 900))
        assert_int_equal(past(&m, expires), m.boot_ms >= expires);
}

static void
a_step_of_the_wall_clock_changes_no_expiry(void **state)
{
    (void)state;
    static const int64_t steps[] = {-24 * HOUR_MS, -5000, -1, 1, 5000, 24 * HOUR_MS};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        machine m = started();
        begin(&m);
        int64_t expires = m.boot_ms + HOUR_MS;
        m.wall_ms += steps[i];
        assert_false(past(&m, expires));
        go_on(&m, HOUR_MS - 1);
        assert_false(past(&m, expires));
        go_on(&m, 1);
        assert_true(past(&m, expires));
    }
}

static void
after_a_renewal_looks_are_cheap_again(void **state)
{
    (void)state;
    machine m = started();
    begin(&m);
    suspend(&m, HOUR_MS);
    assert_false(past(&m, m.boot_ms + HOUR_MS));
    assert_int_equal(m.exact, 1);
    begin(&m);
    assert_false(past(&m, m.boot_ms + HOUR_MS));
    assert_int_equal(m.exact, 0);
}

static void
without_a_tick_every_look_is_exact(void **state)
{
    (void)state;
    machine m = started();
    begin(&m);
    m.clock.tick = NULL;
    assert_false(past(&m, m.boot_ms + 1));
    assert_true(past(&m, m.boot_ms));
    assert_false(past(&m, PTIER_NEVER));
    assert_int_equal(m.exact, 2);
}

static void
the_machine_has_ticks(void **state)
{
    (void)state;
    ptier_clock clock;
    ptier_clock_glance glance = {0};
    ptier_clock_system(&clock);
    ptier_clock_glance_renew(&glance, &clock);
    int64_t before_ms = ptier_clock_wall(&clock), boot_ms = ptier_clock_boot(&clock);
    const ptier_look look = ptier_clock_look(&glance, &clock);
    assert_true(ptier_clock_past(&clock, &look, boot_ms));
    assert_false(ptier_clock_past(&clock, &look, boot_ms + 10 * HOUR_MS));
    assert_true(look.live_after_ms < boot_ms + HOUR_MS);
    assert_true(look.wall_ms > before_ms - HOUR_MS);
}

/* Whatever the clocks say, also right after a suspend. */
static void
what_never_expires_is_live_for_certain(void **state)
{
    (void)state;
    machine m = started();
    begin(&m);
    assert_true(ptier_clock_look(&m.glance, &m.clock).live_after_ms < m.boot_ms + HOUR_MS);
    suspend(&m, HOUR_MS);
    assert_true(ptier_clock_look(&m.glance, &m.clock).live_after_ms < PTIER_NEVER);
    m.clock.tick = NULL;
    assert_true(ptier_clock_look(&m.glance, &m.clock).live_after_ms < PTIER_NEVER);
    assert_int_equal(m.exact, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_distant_expiry_asks_for_no_exact_time),
        cmocka_unit_test(expiry_is_exact_to_the_millisecond),
        cmocka_unit_test(a_suspend_counts_at_once),
        cmocka_unit_test(many_short_suspends_count),
        cmocka_unit_test(a_step_of_the_wall_clock_changes_no_expiry),
        cmocka_unit_test(after_a_renewal_looks_are_cheap_again),
        cmocka_unit_test(without_a_tick_every_look_is_exact),
        cmocka_unit_test(the_machine_has_ticks),
        cmocka_unit_test(what_never_expires_is_live_for_certain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
