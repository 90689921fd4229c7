/*
 * Seeded random operations against a plain reference model, over all combinations of tiers, with
 * bounds and without, with hashes that collide, with restarts, kills and reboots. Each run of the
 * cache is a process of its own, which in the end closes it or kills itself. A failure names its
 * seed: PTIER_MODEL_SEED repeats it (the cache's threads run as they will). PTIER_MODEL_OPS: how
 * many operations in all.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "property/model_ops.h"
#include "property/model_run.h"
#include "support/settings.h"

enum {
    VARIANTS = 3, /* and as many with quick starts, where there is an L3 */
    COMBINATIONS = 7,
    ALARM_S = 120,
    EPOCH_OPERATIONS = 1500,
    QUICK_OPERATIONS = 80, /* of an epoch: it is its beginning that counts */
    AWAY_MAX_MS = 400000,
    SHORT = PTIER_TEST_SANITIZED ? 21000 : 150000,
};

static uint64_t seed;

/* ---- one run of the cache, in a process of its own ---- */

__attribute__((noreturn)) static void
run_epoch(ptier_model_run *run, uint64_t operations)
{
    (void)alarm(ALARM_S);
    ptier_model_open(run);
    if (run->quick && ptier_model_below(run, 20) == 0)
        ptier_model_clear(run);
    if (ptier_model_below(run, run->quick ? 15 : 3) == 0)
        ptier_model_read_all(run);
    for (uint64_t end = run->operations + operations; run->operations < end;)
        ptier_model_step(run);
    if (ptier_model_below(run, 4) == 0)
        ptier_model_await_bound(run);
    /* Of records that an earlier boot wrote, a restart trusts the wall clock: it must be right. */
    if (run->reboots) {
        atomic_fetch_sub(&run->clock.wall_ms, run->wall_step_ms);
        run->wall_step_ms = 0;
    }
    if (ptier_model_below(run, 3) == 0) {
        ptier_model_barrier(run);
        run->kills++;
        run->ending_by_kill = true;
        (void)raise(SIGKILL);
    }
    ptier_cache_close(run->cache);
    _exit(0);
}

/* While nothing runs. */
static void
between_epochs(ptier_model_run *run)
{
    bool reboots = ptier_model_below(run, 10) == 0;
    if (run->quick && ptier_model_below(run, 3) == 0) /* some expire meanwhile */
        ptier_test_clock_advance(&run->clock, (int64_t)ptier_model_below(run, AWAY_MAX_MS));
    if (ptier_model_below(run, 10) == 0 && (reboots || !run->reboots))
        atomic_fetch_add(&run->clock.wall_ms, ptier_model_below(run, 2) ? 86400000 : -86400000);
    if (reboots) {
        run->wall_step_ms = 0;
        ptier_test_clock_reboot(&run->clock, (int64_t)ptier_model_below(run, 100000));
        ptier_model_reboot(&run->model, ptier_model_now(run));
        run->reboots++;
        run->machine_crashed = run->ending_by_kill;
    }
}

static void
run_process(ptier_model_run *run, uint64_t operations)
{
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        run_epoch(run, operations);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && run->ending_by_kill;
    if (!killed && !(WIFEXITED(status) && WEXITSTATUS(status) == 0))
        fail_msg("tiers %d, seed %llu: process %u (%s) ended with status %x", run->tiers,
                 (unsigned long long)run->seed, run->epoch, run->doing, (unsigned)status);
}

/* ---- one configuration ---- */

/* Variant 0: the lowest tier is unlimited, so the model is exact. 1: it is bounded. 2: keys
 * collide. From 3 on the same with quick starts, which a large L2 rules out.
 */
static void
set_bounds(ptier_model_run *run, int variant)
{
    uint64_t lowest = variant % VARIANTS == 1 ? PTIER_MODEL_KEYS / 3 : 0;
    run->colliding = variant % VARIANTS == 2;
    run->quick = variant >= VARIANTS;
    run->bounds[PTIER_TIER_L1] = run->quick ? 4 : 12;
    run->bounds[PTIER_TIER_L2] = run->quick ? 8 : 40;
    run->bounds[ptier_model_lowest(run)] = lowest;
    if (run->tiers == 1 && variant != 1)
        run->bounds[PTIER_TIER_L1] = 16 * PTIER_MODEL_KEYS; /* L1 always has a bound */
}

static void
run_variant(int tiers, int variant, uint64_t operations)
{
    ptier_model_run *run =
        mmap(NULL, sizeof *run, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(run != MAP_FAILED);
    run->tiers = tiers;
    run->seed = seed;
    run->random = (seed + 1) * 1000003 + (uint64_t)(tiers * 2 * VARIANTS + variant);
    set_bounds(run, variant);
    ptier_test_clock_init(&run->clock);
    ptier_test_dir_make(run->directory);
    while (run->operations < operations) {
        run_process(run,
                    1 + ptier_model_below(run, run->quick ? QUICK_OPERATIONS : EPOCH_OPERATIONS));
        between_epochs(run);
    }
    print_message("model: tiers %d, variant %d: %llu operations, %u processes, %llu of them "
                  "killed, %llu reboots, %llu quick starts, revision %llu; removals: %llu "
                  "capacity, %llu TTL, %llu "
                  "health, %llu deleted\n",
                  tiers, variant, (unsigned long long)run->operations, run->epoch,
                  (unsigned long long)run->kills, (unsigned long long)run->reboots,
                  (unsigned long long)run->quick_starts, (unsigned long long)run->revision,
                  (unsigned long long)run->removals[PTIER_REASON_CAPACITY],
                  (unsigned long long)run->removals[PTIER_REASON_TTL],
                  (unsigned long long)run->removals[PTIER_REASON_HEALTH],
                  (unsigned long long)run->removals[PTIER_REASON_DELETED]);
    if (run->quick)
        assert_true(run->quick_starts > 0);
    ptier_test_dir_remove(run->directory);
    munmap(run, sizeof *run);
}

static void
run_tiers(int tiers)
{
    uint64_t operations = ptier_test_setting("PTIER_MODEL_OPS", SHORT);
    if (!seed)
        seed = ptier_test_setting("PTIER_MODEL_SEED", (uint64_t)time(NULL));
    print_message("model: seed %llu\n", (unsigned long long)seed);
    uint64_t only = ptier_test_setting("PTIER_MODEL_VARIANT", UINT64_MAX);
    for (int variant = 0; variant < (tiers & 4 ? 2 * VARIANTS : VARIANTS); variant++)
        if (only == UINT64_MAX || only == (uint64_t)variant)
            run_variant(tiers, variant, operations / COMBINATIONS / VARIANTS + 1);
}

static void
l1_agrees_with_the_model(void **state)
{
    (void)state;
    run_tiers(1);
}

static void
l2_agrees_with_the_model(void **state)
{
    (void)state;
    run_tiers(2);
}

static void
l1_and_l2_agree_with_the_model(void **state)
{
    (void)state;
    run_tiers(3);
}

static void
l3_agrees_with_the_model(void **state)
{
    (void)state;
    run_tiers(4);
}

static void
l1_and_l3_agree_with_the_model(void **state)
{
    (void)state;
    run_tiers(5);
}

static void
l2_and_l3_agree_with_the_model(void **state)
{
    (void)state;
    run_tiers(6);
}

static void
all_tiers_agree_with_the_model(void **state)
{
    (void)state;
    run_tiers(7);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(l1_agrees_with_the_model),
        cmocka_unit_test(l2_agrees_with_the_model),
        cmocka_unit_test(l1_and_l2_agree_with_the_model),
        cmocka_unit_test(l3_agrees_with_the_model),
        cmocka_unit_test(l1_and_l3_agree_with_the_model),
        cmocka_unit_test(l2_and_l3_agree_with_the_model),
        cmocka_unit_test(all_tiers_agree_with_the_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
