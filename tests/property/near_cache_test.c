/*
 * The promise of the near cache under a link that delays, reorders and drops, and a daemon that is
 * restarted: nothing older than the bound, no own write missed. PTIER_NEAR_READS (10000000 is the
 * long form) and PTIER_SEED choose another run.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "near_sim.h"

#define READS_SHORT 1000000

static uint64_t
number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

static sim_verdict
run(uint32_t faults)
{
    sim_verdict v;
    uint64_t reads = number("PTIER_NEAR_READS", READS_SHORT);
    sim_plan plan = {
        .seed = number("PTIER_SEED", 1), .reads = reads, .changes = reads / 45, .faults = faults};
    sim_run(&plan, &v);
    print_message("%lu reads, %lu served, %lu changes, %lu replays, %lu resyncs, %lu restarts\n",
                  v.reads, v.served, v.changes, v.replays, v.resyncs, v.restarts);
    print_message("hits %lu, absent %lu, misses %lu, declined %lu, fills %lu, refused %lu, "
                  "evictions %lu, patches %lu, invalidations %lu\n",
                  v.near.hits, v.near.absent_hits, v.near.misses, v.near.declined, v.near.fills,
                  v.near.refused_fills, v.near.evictions, v.near.patches, v.near.invalidations);
    print_message("stale %lu, own writes missed %lu, wrong %lu\n", v.stale, v.own_missed, v.wrong);
    return v;
}

static void
nothing_is_older_than_the_bound_and_no_own_write_is_missed(void **state)
{
    (void)state;
    sim_verdict v = run(0);
    assert_int_equal(v.stale, 0);
    assert_int_equal(v.own_missed, 0);
    assert_int_equal(v.wrong, 0);
    /* It was no idle run. */
    assert_true(v.served > v.reads / 10);
    assert_int_equal(v.near.hits + v.near.absent_hits, v.served);
    assert_int_equal(v.served + v.near.misses + v.near.declined, v.reads);
    assert_true(v.near.absent_hits > v.reads / 200);
    assert_true(v.near.refused_fills > 0 && v.near.declined > 0 && v.near.evictions > 0);
    assert_true(v.near.patches > 0 && v.resyncs > 0 && v.replays > 0 && v.restarts > 0);
}

static void
without_the_fill_check_old_states_are_served(void **state)
{
    (void)state;
    sim_verdict v = run(PTIER_NEAR_NO_FILL_CHECK);
    assert_true(v.stale > 0);
    assert_true(v.own_missed > 0);
}

static void
heartbeats_aged_by_their_arrival_let_old_states_through(void **state)
{
    (void)state;
    sim_verdict v = run(PTIER_NEAR_AGE_BY_ARRIVAL);
    assert_true(v.stale > 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_older_than_the_bound_and_no_own_write_is_missed),
        cmocka_unit_test(without_the_fill_check_old_states_are_served),
        cmocka_unit_test(heartbeats_aged_by_their_arrival_let_old_states_through),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
