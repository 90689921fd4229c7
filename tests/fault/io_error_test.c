/*
 * EIO and ENOSPC at the n-th write, fsync, read, open and rename, once and from then on, of all
 * files and of one tier's: service goes on, replies name what was reached, what they named holds
 * through a kill in the middle (and a power loss, when it is fsync that fails), and everything is
 * healed afterwards.
 *
 * PTIER_FAULTS: how many n of each fault are tried, spread over the calls there are (2); 0 tries
 * all. PTIER_SEED: another run.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "fault.h"
#include "stage.h"
#include "start_report.h"
#include "support/io_shim.h"
#include "support/sample_entry.h"

enum { FAULTS = 2, WARM_CALLS = 15, CALLS = 40, IMAGES = 4, OPEN_FAULTS = 12 };

static ptier_stage stage;

static int
tear_down(void **state)
{
    (void)state;
    ptier_stage_end(&stage);
    return 0;
}

/* Recording goes on. */
static void
check_after_power_loss(uint64_t seed)
{
    for (int i = 0; i < IMAGES; i++) {
        size_t cut = i ? ptier_test_random(&seed, ptier_io_position() + 1) : ptier_io_position();
        ptier_stage_prepare_copy(&stage);
        ptier_io_image(cut, seed, stage.copy.directory);
        stage.copy.hooks.clock = &stage.copy.clock.clock;
        stage.copy.clock.clock.context = &stage.copy.clock;
        ptier_test_clock_reboot(&stage.copy.clock, 1000);
        ptier_stage_check_copy(&stage, PTIER_DURABILITY_SYNCED, cut, "after a power loss");
    }
}

/* ---- one trial ---- */

/* What a fault may do to callers. */
typedef struct expectation {
    bool blind;   /* reads may fail */
    bool weak;    /* replies may name less than was asked for; calls may be refused */
    int degrades; /* these tiers (BOX_...) must become degraded */
} expectation;

static void
check_reads(const expectation *expected)
{
    for (int i = 0; i < LOAD_KEYS; i++) {
        ptier_status status;
        int version = ptier_load_read(stage.box.cache, i, &status);
        if (version == -1 && expected->blind)
            continue;
        if (version < 0 ||
            !ptier_load_allows(&stage.load, i, version, PTIER_DURABILITY_MEMORY, LOAD_NOW, NULL))
            fail_msg("%s: key %d is read as version %d (%s), should be %d", ptier_fault_doing(), i,
                     version, ptier_status_text(status), ptier_load_now(&stage.load, i)->version);
    }
}

/* Returns how many calls there were that could have failed. */
static uint64_t
try_fault(int tiers, const ptier_io_fault *fault, const expectation *expected, uint64_t seed)
{
    bool records = fault->kinds & PTIER_IO_SYNC;
    ptier_stage_begin(&stage, tiers);
    if (records)
        ptier_io_record();
    ptier_test_box_open(&stage.box);
    ptier_stage_run(&stage, WARM_CALLS, seed);
    ptier_io_fail(fault);
    stage.load.refused = stage.load.weak = expected->weak;
    stage.load.blind = expected->blind;
    ptier_stage_run(&stage, CALLS, seed + 1);
    uint64_t calls = ptier_io_calls();
    check_reads(expected);
    if (fault->lasting && ptier_io_failed())
        ptier_tier_await_degraded(&stage.watch, &stage.box, expected->degrades);
    ptier_stage_check_kill(&stage, PTIER_DURABILITY_LOGGED, "killed under the fault");
    ptier_io_heal();
    ptier_stage_run(&stage, WARM_CALLS, seed + 2);
    ptier_tier_await_healed(&stage.watch, &stage.box, &stage.load);
    if (records)
        check_after_power_loss(seed + 3);
    ptier_stage_check_healed(&stage);
    ptier_stage_end(&stage);
    return calls;
}

static void
name_trial(int tiers, const ptier_io_fault *fault)
{
    char trial[160];
    (void)snprintf(trial, sizeof trial, "tiers %d, kinds %#x of %s, errno %d, call %" PRIu64 "%s%s",
                   tiers, fault->kinds, fault->pattern, fault->error, fault->nth,
                   fault->lasting ? " and all after it" : "",
                   fault->torn ? ", half a write first" : "");
    ptier_fault_deadline(trial);
}

static uint64_t
base_seed(void)
{
    return (uint64_t)ptier_fault_number("PTIER_SEED", 4711);
}

/* How many calls there are that the fault is about, without it. */
static uint64_t
count_calls(int tiers, ptier_io_fault fault)
{
    fault.nth = 0;
    name_trial(tiers, &fault);
    return try_fault(tiers, &fault, &(expectation){0}, base_seed());
}

/* Each n of the fault with each errno; or some n, and the errnos in turn. */
static void
try_each(int tiers, ptier_io_fault fault, uint64_t calls, const expectation *expected)
{
    static const int errors[] = {EIO, ENOSPC};
    uint64_t wanted = (uint64_t)ptier_fault_number("PTIER_FAULTS", FAULTS);
    uint64_t step = wanted && calls > wanted ? calls / wanted : 1;
    uint64_t trials = 0;
    for (fault.nth = 1; fault.nth <= calls; fault.nth += step, trials++) {
        for (uint64_t i = 0; i < 2; i++) {
            bool reads = fault.kinds == PTIER_IO_READ; /* and finds no disk full */
            if (reads ? i != 0 : wanted && i != trials % 2)
                continue;
            fault.error = errors[i];
            name_trial(tiers, &fault);
            (void)try_fault(tiers, &fault, expected, base_seed());
        }
    }
    ptier_fault_deadline(NULL);
}

/* ---- faults of everything on the disk ---- */

static void
try_kind(int tiers, unsigned kind)
{
    ptier_io_fault fault = {.kinds = kind, .pattern = "*"};
    expectation expected = {.blind = kind & (PTIER_IO_READ | PTIER_IO_OPEN), .weak = true};
    if (kind == PTIER_IO_WRITE && !(tiers & BOX_L2))
        expected.blind = true; /* SQLite has to write its -shm before it can read */
    uint64_t calls = count_calls(tiers, fault);
    try_each(tiers, fault, calls, &expected);
    expected.degrades = kind & (PTIER_IO_WRITE | PTIER_IO_SYNC) ? tiers : 0;
    fault.lasting = true;
    try_each(tiers, fault, calls, &expected);
    fault.torn = true;
    if (kind == PTIER_IO_WRITE)
        try_each(tiers, fault, calls, &expected);
}

#define FAILING(kind)                                                                              \
    static void failing_##kind##s_break_no_word_of_all_tiers(void **state)                         \
    {                                                                                              \
        (void)state;                                                                               \
        try_kind(BOX_ALL, PTIER_IO_##kind);                                                        \
    }                                                                                              \
    static void failing_##kind##s_break_no_word_without_l3(void **state)                           \
    {                                                                                              \
        (void)state;                                                                               \
        try_kind(BOX_L1 | BOX_L2, PTIER_IO_##kind);                                                \
    }                                                                                              \
    static void failing_##kind##s_break_no_word_without_l2(void **state)                           \
    {                                                                                              \
        (void)state;                                                                               \
        try_kind(BOX_L1 | BOX_L3, PTIER_IO_##kind);                                                \
    }

FAILING(WRITE)
FAILING(SYNC)
FAILING(READ)
FAILING(OPEN)
FAILING(RENAME)
FAILING(TRUNCATE)
FAILING(UNLINK)

/* ---- faults of one tier: the others serve ---- */

static void
try_tier(const char *pattern, int tier)
{
    static const unsigned kinds[] = {PTIER_IO_WRITE, PTIER_IO_SYNC, PTIER_IO_READ, PTIER_IO_OPEN};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        ptier_io_fault fault = {.kinds = kinds[i], .pattern = pattern};
        expectation expected = {0};
        uint64_t calls = count_calls(BOX_ALL, fault);
        try_each(BOX_ALL, fault, calls, &expected);
        fault.lasting = true;
        expected.degrades = kinds[i] == PTIER_IO_WRITE ? tier : 0;
        try_each(BOX_ALL, fault, calls, &expected);
    }
}

static void
a_failing_l2_costs_no_durability_and_no_read(void **state)
{
    (void)state;
    try_tier("l2*", BOX_L2);
}

static void
a_failing_l3_costs_no_durability_and_no_read(void **state)
{
    (void)state;
    try_tier("l3.sqlite*", BOX_L3);
}

/* What was committed is applied again when the checkpoint behind it fails. */
static void
a_failing_checkpoint_leaves_one_row_of_a_new_key(void **state)
{
    (void)state;
    const ptier_io_fault fault = {
        .kinds = PTIER_IO_WRITE, .pattern = "l3.sqlite", .nth = 1, .lasting = true, .error = EIO};
    const ptier_put_options synced = {.durability = PTIER_DURABILITY_SYNCED};
    char key[16], url[40];
    ptier_record record;
    ptier_fault_deadline("a failing checkpoint");
    ptier_stage_begin(&stage, BOX_L1 | BOX_L3);
    ptier_test_box_open(&stage.box);
    ptier_io_fail(&fault);
    (void)ptier_test_box_put(&stage.box, 1);
    BOX_AWAIT(ptier_io_failed() > 0); /* L3's thread has nothing else to do */
    ptier_test_box_record(&record, 2, key, url);
    assert_int_equal(ptier_test_box_put_record(&stage.box, &record, &synced).outcome,
                     PTIER_PUT_CREATED);
    ptier_io_heal();
    BOX_AWAIT(!ptier_test_box_statistics(&stage.box).tiers[PTIER_TIER_L3].degraded);
    (void)ptier_test_box_put(&stage.box, 3);
    BOX_AWAIT(ptier_test_box_statistics(&stage.box).l3_lag == 0);
    assert_int_equal(ptier_test_box_statistics(&stage.box).tiers[PTIER_TIER_L3].entries, 3);
    assert_true(ptier_test_box_delete(&stage.box, 2));
    ptier_test_box_reopen(&stage.box);
    assert_false(ptier_test_box_has(&stage.box, 2));
    ptier_stage_end(&stage);
    ptier_fault_deadline(NULL);
}

/* ---- opening ---- */

/* It opens, perhaps saying that it cannot find all, or says why not; and the next time everything
 * is there. Returns how many calls could have failed. */
static uint64_t
open_under(const ptier_io_fault *fault)
{
    ptier_status status;
    ptier_stage_prepare_copy(&stage);
    ptier_test_dir_copy(stage.box.directory, stage.copy.directory);
    ptier_io_watch(stage.copy.directory);
    ptier_io_fail(fault);
    stage.copy.error = (ptier_error){0};
    if (ptier_cache_open_with(&stage.copy.options, &stage.copy.hooks, &stage.copy.cache,
                              &stage.copy.error)) {
        stage.copy.cache = NULL;
        if (!ptier_load_is_reason(&stage.copy.error))
            fail_msg("%s: not opened, and says '%s'", ptier_fault_doing(),
                     stage.copy.error.message);
    }
    ptier_test_report report = {0};
    if (stage.copy.cache)
        (void)ptier_test_start_report(stage.copy.cache, 0, &report);
    for (int i = 0; stage.copy.cache && !report.changes_lost && i < LOAD_KEYS; i++) {
        int version = ptier_load_read(stage.copy.cache, i, &status);
        if (version != -1 &&
            !ptier_load_allows(&stage.load, i, version, PTIER_DURABILITY_LOGGED, LOAD_NOW, NULL))
            fail_msg("%s: key %d is read as version %d, should be %d", ptier_fault_doing(), i,
                     version, ptier_load_now(&stage.load, i)->version);
    }
    ptier_test_box_close(&stage.copy);
    uint64_t calls = ptier_io_calls();
    ptier_io_unwatch();
    ptier_stage_check_copy(&stage, PTIER_DURABILITY_LOGGED, LOAD_NOW, "opened again");
    return calls;
}

static void
try_opens(int tiers, unsigned kind, int error)
{
    ptier_io_fault fault = {.kinds = kind, .pattern = "*", .error = error};
    uint64_t wanted = ptier_fault_number("PTIER_FAULTS", FAULTS) ? OPEN_FAULTS : 0;
    name_trial(tiers, &fault);
    uint64_t calls = open_under(&fault), step = wanted && calls > wanted ? calls / wanted : 1;
    for (int lasting = 0; lasting < 2; lasting++) {
        fault.lasting = lasting;
        for (fault.nth = 1; fault.nth <= calls; fault.nth += step) {
            name_trial(tiers, &fault);
            (void)open_under(&fault);
        }
    }
    ptier_fault_deadline(NULL);
}

static void
a_start_under_faults_takes_nothing(void **state)
{
    static const unsigned kinds[] = {PTIER_IO_READ, PTIER_IO_WRITE,  PTIER_IO_SYNC,
                                     PTIER_IO_OPEN, PTIER_IO_RENAME, PTIER_IO_TRUNCATE};
    static const int combinations[] = {BOX_ALL, BOX_L1 | BOX_L2, BOX_L1 | BOX_L3};
    (void)state;
    for (size_t c = 0; c < sizeof combinations / sizeof *combinations; c++) {
        ptier_stage_begin(&stage, combinations[c]);
        ptier_test_box_open(&stage.box);
        ptier_stage_run(&stage, WARM_CALLS, 1);
        ptier_stage_prepare_copy(&stage); /* as a kill leaves it: there is something to recover */
        ptier_io_copy(stage.copy.directory);
        ptier_test_box_close(&stage.box);
        ptier_io_unwatch();
        ptier_test_dir_remove(stage.box.directory);
        assert_int_equal(rename(stage.copy.directory, stage.box.directory), 0);
        stage.copy.directory[0] = '\0';
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
            try_opens(combinations[c], kinds[k], k % 2 ? ENOSPC : EIO);
        ptier_stage_end(&stage);
    }
}

#define CASE(name) cmocka_unit_test_teardown(name, tear_down)
#define CASES(kind)                                                                                \
    CASE(failing_##kind##s_break_no_word_of_all_tiers),                                            \
        CASE(failing_##kind##s_break_no_word_without_l3),                                          \
        CASE(failing_##kind##s_break_no_word_without_l2)

int
main(void)
{
    ptier_fault_begin();
    const struct CMUnitTest tests[] = {
        CASES(WRITE),
        CASES(SYNC),
        CASES(READ),
        CASES(OPEN),
        CASES(RENAME),
        CASES(TRUNCATE),
        CASES(UNLINK),
        CASE(a_failing_l2_costs_no_durability_and_no_read),
        CASE(a_failing_l3_costs_no_durability_and_no_read),
        CASE(a_failing_checkpoint_leaves_one_row_of_a_new_key),
        CASE(a_start_under_faults_takes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
