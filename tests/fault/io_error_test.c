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
#include "load.h"
#include "support/io_shim.h"
#include "support/sample_entry.h"
#include "tier_watch.h"

enum { FAULTS = 2, WARM_CALLS = 15, CALLS = 40, IMAGES = 4, OPEN_FAULTS = 12 };

static ptier_test_box box;
static ptier_test_box copy; /* on a copy of its directory */
static ptier_load load;
static ptier_tier_watch watch;
static char trial[160];

/* ---- boxes ---- */

static void
begin(int tiers)
{
    ptier_test_box_init(&box, tiers);
    box.options.l1_entries = 8;
    box.options.l2_entries =
        tiers & BOX_L3 ? 1000 : 0; /* L2 holds all, too: each disk tier can serve alone */
    box.options.failure_threshold = 1;
    box.hooks.l2_shard_bytes = 8192;
    ptier_tier_watch_init(&watch, &box);
    ptier_load_init(&load, &box);
    ptier_io_watch(box.directory);
}

static void
close_copy(void)
{
    ptier_test_box_close(&copy);
    ptier_test_dir_remove(copy.directory);
    copy.directory[0] = '\0';
}

/* After a failure as well. */
static void
end(void)
{
    ptier_io_heal();
    if (copy.directory[0])
        close_copy();
    ptier_test_box_close(&box);
    ptier_io_unwatch();
    ptier_load_fini(&load);
    ptier_test_box_fini(&box);
    box.directory[0] = '\0';
}

static int
tear_down(void **state)
{
    (void)state;
    if (box.directory[0])
        end();
    return 0;
}

/* Names where the copy is to be made. */
static void
prepare_copy(void)
{
    copy = box;
    copy.cache = NULL;
    copy.options.on_change = NULL;
    copy.options.on_tier_event = NULL;
    (void)snprintf(copy.directory, sizeof copy.directory, "%.200s-copy", box.directory);
    copy.options.data_dir = copy.directory;
}

/* Opens it, and checks that what was acknowledged so before the position is there. */
static void
check_copy(ptier_durability durability, size_t cut, const char *when)
{
    char text[256];
    (void)snprintf(text, sizeof text, "%s, %s", trial, when);
    if (ptier_cache_open_with(&copy.options, &copy.hooks, &copy.cache, &copy.error))
        fail_msg("%s: it cannot be opened: %s", text, copy.error.message);
    ptier_load_check(&load, copy.cache, durability, cut, text);
    close_copy();
}

static void
check_after_kill(ptier_durability durability, const char *when)
{
    prepare_copy();
    ptier_io_copy(copy.directory);
    check_copy(durability, SIZE_MAX - 1, when);
}

/* Recording goes on. */
static void
check_after_power_loss(uint64_t seed)
{
    for (int i = 0; i < IMAGES; i++) {
        size_t cut = i ? ptier_test_random(&seed, ptier_io_position() + 1) : ptier_io_position();
        prepare_copy();
        ptier_io_image(cut, seed, copy.directory);
        copy.hooks.clock = &copy.clock.clock;
        copy.clock.clock.context = &copy.clock;
        ptier_test_clock_reboot(&copy.clock, 1000);
        check_copy(PTIER_DURABILITY_SYNCED, cut, "after a power loss");
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
        int version = ptier_load_read(box.cache, i, &status);
        if (version == -1 && expected->blind)
            continue;
        if (version < 0 ||
            !ptier_load_allows(&load, i, version, PTIER_DURABILITY_MEMORY, SIZE_MAX - 1, NULL))
            fail_msg("%s: key %d is read as version %d (%s), should be %d", trial, i, version,
                     ptier_status_text(status), ptier_load_now(&load, i)->version);
    }
}

static void
run_load(int calls, uint64_t seed)
{
    ptier_load_run(&load, 1, calls, seed);
}

/* Returns how many calls there were that could have failed. */
static uint64_t
try_fault(int tiers, const ptier_io_fault *fault, const expectation *expected, uint64_t seed)
{
    bool records = fault->kinds & PTIER_IO_SYNC;
    begin(tiers);
    if (records)
        ptier_io_record();
    ptier_test_box_open(&box);
    run_load(WARM_CALLS, seed);
    ptier_io_fail(fault);
    load.refused = load.weak = expected->weak;
    load.blind = expected->blind;
    run_load(CALLS, seed + 1);
    uint64_t calls = ptier_io_calls();
    check_reads(expected);
    if (fault->lasting && ptier_io_failed())
        ptier_tier_await_degraded(&watch, &box, expected->degrades);
    check_after_kill(PTIER_DURABILITY_LOGGED, "killed under the fault");
    ptier_io_heal();
    run_load(WARM_CALLS, seed + 2);
    ptier_tier_await_healed(&watch, &box, &load);
    if (records)
        check_after_power_loss(seed + 3);
    check_after_kill(PTIER_DURABILITY_MEMORY, "killed when all was healed");
    ptier_test_box_reopen(&box);
    ptier_load_check(&load, box.cache, PTIER_DURABILITY_MEMORY, SIZE_MAX - 1, trial);
    end();
    return calls;
}

static void
name_trial(int tiers, const ptier_io_fault *fault)
{
    (void)snprintf(trial, sizeof trial, "tiers %d, kinds %#x of %s, errno %d, call %" PRIu64 "%s%s",
                   tiers, fault->kinds, fault->pattern, fault->error, fault->nth,
                   fault->lasting ? " and all after it" : "",
                   fault->torn ? ", half a write first" : "");
    ptier_fault_deadline(trial);
}

/* Each n of the fault, or some of them. */
static void
try_each(int tiers, ptier_io_fault fault, const expectation *expected)
{
    uint64_t seed = (uint64_t)ptier_fault_number("PTIER_SEED", 4711);
    long wanted = ptier_fault_number("PTIER_FAULTS", FAULTS);
    uint64_t calls = 1;
    for (uint64_t i = 0, n = 1; n <= calls && (wanted == 0 || i < (uint64_t)wanted); i++) {
        fault.nth = n;
        name_trial(tiers, &fault);
        uint64_t there = try_fault(tiers, &fault, expected, seed);
        if (!fault.lasting || i == 0)
            calls = there; /* what fails for good is not called as often */
        n = wanted ? 1 + (i + 1) * calls / (uint64_t)wanted : n + 1;
    }
    ptier_fault_deadline(NULL);
}

/* ---- faults of everything on the disk ---- */

static void
try_kind(int tiers, unsigned kind, bool blind)
{
    static const int errors[] = {EIO, ENOSPC};
    bool writes = kind & (PTIER_IO_WRITE | PTIER_IO_SYNC);
    for (int e = 0; e < (kind == PTIER_IO_READ ? 1 : 2); e++) {
        ptier_io_fault fault = {.kinds = kind, .pattern = "*", .error = errors[e]};
        expectation expected = {.blind = blind, .weak = true};
        try_each(tiers, fault, &expected);
        expected.degrades = writes ? tiers : 0;
        fault.lasting = true;
        try_each(tiers, fault, &expected);
        fault.torn = true;
        if (kind == PTIER_IO_WRITE)
            try_each(tiers, fault, &expected);
    }
}

#define FAILING(kind, blind)                                                                       \
    static void failing_##kind##s_break_no_word_of_all_tiers(void **state)                         \
    {                                                                                              \
        (void)state;                                                                               \
        try_kind(BOX_ALL, PTIER_IO_##kind, blind);                                                 \
    }                                                                                              \
    static void failing_##kind##s_break_no_word_without_l3(void **state)                           \
    {                                                                                              \
        (void)state;                                                                               \
        try_kind(BOX_L1 | BOX_L2, PTIER_IO_##kind, blind);                                         \
    }                                                                                              \
    static void failing_##kind##s_break_no_word_without_l2(void **state)                           \
    {                                                                                              \
        (void)state;                                                                               \
        try_kind(BOX_L1 | BOX_L3, PTIER_IO_##kind, blind);                                         \
    }

FAILING(WRITE, false)
FAILING(SYNC, false)
FAILING(READ, true)
FAILING(OPEN, true)
FAILING(RENAME, false)
FAILING(TRUNCATE, false)
FAILING(UNLINK, false)

/* ---- faults of one tier: the others serve ---- */

static void
try_tier(const char *pattern, int tier)
{
    static const unsigned kinds[] = {PTIER_IO_WRITE, PTIER_IO_SYNC, PTIER_IO_READ, PTIER_IO_OPEN};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        ptier_io_fault fault = {.kinds = kinds[i], .pattern = pattern, .error = EIO};
        expectation expected = {0};
        try_each(BOX_ALL, fault, &expected);
        fault.lasting = true;
        expected.degrades = kinds[i] == PTIER_IO_WRITE ? tier : 0;
        try_each(BOX_ALL, fault, &expected);
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

/* ---- opening ---- */

/* It opens or says why not; and the next time everything is there. */
static void
open_under(const ptier_io_fault *fault)
{
    ptier_status status;
    prepare_copy();
    ptier_test_dir_copy(box.directory, copy.directory);
    ptier_io_watch(copy.directory);
    ptier_io_fail(fault);
    copy.error = (ptier_error){0};
    if (ptier_cache_open_with(&copy.options, &copy.hooks, &copy.cache, &copy.error)) {
        copy.cache = NULL;
        if (!ptier_load_is_reason(&copy.error))
            fail_msg("%s: not opened, and says '%s'", trial, copy.error.message);
    }
    for (int i = 0; copy.cache && i < LOAD_KEYS; i++) {
        int version = ptier_load_read(copy.cache, i, &status);
        if (version != -1 &&
            !ptier_load_allows(&load, i, version, PTIER_DURABILITY_LOGGED, SIZE_MAX - 1, NULL))
            fail_msg("%s: key %d is read as version %d, should be %d", trial, i, version,
                     ptier_load_now(&load, i)->version);
    }
    ptier_test_box_close(&copy);
    ptier_io_heal();
    check_copy(PTIER_DURABILITY_LOGGED, SIZE_MAX - 1, "opened again");
    ptier_io_unwatch();
}

static void
try_opens(int tiers, unsigned kind, int error)
{
    ptier_io_fault fault = {.kinds = kind, .pattern = "*", .error = error};
    long wanted = ptier_fault_number("PTIER_FAULTS", FAULTS) ? OPEN_FAULTS : 0;
    for (int lasting = 0; lasting < 2; lasting++) {
        uint64_t calls = 1;
        fault.lasting = lasting;
        for (uint64_t i = 0, n = 1; n <= calls && (wanted == 0 || i < (uint64_t)wanted); i++) {
            fault.nth = n;
            name_trial(tiers, &fault);
            open_under(&fault);
            calls = !lasting || i == 0 ? ptier_io_calls() : calls;
            n = wanted ? 1 + (i + 1) * calls / (uint64_t)wanted : n + 1;
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
        begin(combinations[c]);
        ptier_test_box_open(&box);
        run_load(WARM_CALLS, 1);
        prepare_copy(); /* as a kill leaves it: there is something to recover */
        ptier_io_copy(copy.directory);
        ptier_test_box_close(&box);
        ptier_io_unwatch();
        ptier_test_dir_remove(box.directory);
        assert_int_equal(rename(copy.directory, box.directory), 0);
        copy.directory[0] = '\0';
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
            try_opens(combinations[c], kinds[k], k % 2 ? ENOSPC : EIO);
        end();
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
        CASE(a_start_under_faults_takes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
