/*
 * Power loss: a load is recorded with all that it writes and syncs, then cut at random points. What
 * may be left of it at a cut (io_shim.h) is opened as after a reboot: everything that had been
 * acknowledged as SYNCED is there, and nothing that was never written. Some recordings go on from
 * what a cut before left, so that recovery is cut, too.
 *
 * PTIER_CUTS: how many cuts in all (90; the long form is 1,000). PTIER_SEED: another run.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fault.h"
#include "load.h"
#include "start_report.h"
#include "support/io_shim.h"
#include "support/sample_entry.h"

enum {
    CUTS = 90,
    COMBINATIONS = 3,
    CUTS_PER_RECORDING = 30,
    CHAIN = 3,
    PHASES = 3,
    CALLS = 150,
    CHECK_WORK_EVERY = 4
};

static ptier_test_box box;   /* the one that is recorded */
static ptier_test_box image; /* on what a cut left of it */
static ptier_load load;
static uint64_t seed;
static struct {
    size_t opened, closing; /* positions */
    uint8_t store_id[PTIER_ID_BYTES];
    bool had_data; /* it began with the remains of another */
    size_t cut;    /* ... which ended here */
} recording;

static void
set_options(ptier_test_box *b, int tiers)
{
    b->options.l1_entries = 20;
    b->options.l2_entries = tiers & BOX_L3 ? 40 : 0;
    b->options.failure_threshold = 2;
    b->hooks.l2_shard_bytes = 16384;
}

/* ---- recording ---- */

/* L3's idle checkpoint comes: what it has is synced, and the log can go. No matter if it does not.
 */
static void
settle(void)
{
    ptier_tier *l3 = box.cache->tiers[PTIER_TIER_L3];
    int64_t deadline = ptier_test_now() + 3000;
    while (l3 && ptier_l3_synced_prefix(l3) < ptier_cache_revision(box.cache) &&
           ptier_test_now() < deadline)
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
}

static void
record_load(void)
{
    ptier_io_watch(box.directory);
    ptier_io_record();
    ptier_test_box_open(&box);
    ptier_load_rebase(&load, box.cache, recording.cut);
    recording.opened = ptier_io_position();
    ptier_cache_store_id(box.cache, recording.store_id);
    for (int i = 0; i < PHASES; i++) {
        ptier_load_run(&load, LOAD_THREADS, CALLS, ptier_test_random(&seed, UINT64_MAX));
        if (i < PHASES - 1)
            settle();
    }
    recording.closing = ptier_io_position();
    ptier_test_box_close(&box);
    assert_true(ptier_io_faithful());
}

/* ---- a cut ---- */

/* A box on the image: the machine has been rebooted. */
static void
open_image(size_t cut, uint64_t image_seed)
{
    image = box;
    (void)snprintf(image.directory, sizeof image.directory, "%.200s-cut", box.directory);
    ptier_io_image(cut, image_seed, image.directory);
    image.options.data_dir = image.directory;
    image.options.on_change = NULL;
    image.hooks.clock = &image.clock.clock;
    image.clock.clock.context = &image.clock;
    ptier_test_clock_reboot(&image.clock, 1000);
    if (ptier_cache_open_with(&image.options, &image.hooks, &image.cache, &image.error))
        fail_msg("cut at %zu, image %" PRIu64 ": it cannot be opened: %s", cut, image_seed,
                 image.error.message);
}

static void
close_image(void)
{
    ptier_test_box_close(&image);
    ptier_test_dir_remove(image.directory);
    image.directory[0] = '\0';
}

static void
check_report(size_t cut)
{
    ptier_test_report report = {0};
    uint8_t store_id[PTIER_ID_BYTES];
    if (!ptier_test_start_report(image.cache, START_PATIENCE_MS, &report) ||
        cut > recording.closing)
        return; /* in order, perhaps */
    ptier_cache_store_id(image.cache, store_id);
    if (!recording.had_data && !ptier_load_any(&load, PTIER_DURABILITY_SYNCED, cut))
        return;
    if (!report.machine_went_down || !report.new_store || !report.text[0])
        fail_msg("%s: start-up does not say that the machine went down: '%s'", ptier_fault_doing(),
                 report.text);
    if (cut >= recording.opened && memcmp(store_id, recording.store_id, sizeof store_id) == 0)
        fail_msg("%s: the store_id is the old one", ptier_fault_doing());
}

/* It works, and ends in order: the next start has the same. (Damage that still lies about may be
 * reported again.) */
static void
check_work(void)
{
    int versions[LOAD_KEYS];
    uint8_t before[PTIER_ID_BYTES], after[PTIER_ID_BYTES];
    ptier_status status;
    ptier_test_report report = {0};
    for (int i = 0; i < LOAD_KEYS; i++)
        versions[i] = ptier_load_read(image.cache, i, &status);
    assert_true(ptier_test_box_delete(&image, LOAD_KEYS));
    ptier_cache_store_id(image.cache, before);
    ptier_test_box_reopen(&image);
    ptier_cache_store_id(image.cache, after);
    for (int i = 0; i < LOAD_KEYS; i++)
        assert_int_equal(versions[i], ptier_load_read(image.cache, i, &status));
    assert_false(ptier_test_box_has(&image, LOAD_KEYS));
    if (ptier_test_start_report(image.cache, START_PATIENCE_MS, &report) &&
        (report.machine_went_down || report.changes_lost || report.new_store))
        fail_msg("%s: after a clean end start-up says: %s", ptier_fault_doing(), report.text);
    assert_memory_equal(before, after, sizeof before);
}

static void
cut_once(int number)
{
    char when[96];
    size_t end = ptier_io_position(), cut = ptier_test_random(&seed, end + 1);
    uint64_t image_seed = ptier_test_random(&seed, UINT64_MAX);
    (void)snprintf(when, sizeof when, "cut at %zu of %zu, image %" PRIu64, cut, end, image_seed);
    ptier_fault_deadline(when);
    open_image(cut, image_seed);
    ptier_load_check(&load, image.cache, PTIER_DURABILITY_SYNCED, cut, "opened");
    uint64_t seen = ptier_load_revision_at(&load, cut), put = ptier_test_box_put(&image, LOAD_KEYS);
    if (put <= seen)
        fail_msg("%s: revision %" PRIu64 " was given, after %" PRIu64 " had been seen", when, put,
                 seen);
    check_report(cut);
    if (number % CHECK_WORK_EVERY == 0)
        check_work();
    close_image();
    ptier_fault_deadline(NULL);
}

/* The next recording goes on from what this cut leaves. */
static void
move_to_image(void)
{
    char directory[PTIER_TEST_PATH];
    size_t cut = recording.cut = ptier_test_random(&seed, ptier_io_position() + 1);
    (void)snprintf(directory, sizeof directory, "%.200s-next", box.directory);
    ptier_io_image(cut, ptier_test_random(&seed, UINT64_MAX), directory);
    ptier_io_unwatch();
    ptier_test_dir_remove(box.directory);
    (void)rename(directory, box.directory); /* a failure shows when it is opened */
    recording.had_data = recording.had_data || ptier_load_any(&load, PTIER_DURABILITY_SYNCED, cut);
    ptier_test_clock_reboot(&box.clock, 1000);
}

static void
end_chain(void)
{
    ptier_load_fini(&load);
    ptier_test_box_fini(&box);
    box.directory[0] = '\0';
}

static void
cut_often(int tiers, int cuts)
{
    for (int done = 0, chain = 0; done < cuts; chain++) {
        if (chain % CHAIN == 0) {
            ptier_test_box_init(&box, tiers);
            set_options(&box, tiers);
            ptier_load_init(&load, &box);
            load.clears = true;
            recording.had_data = false;
        }
        record_load();
        for (int i = 0; i < CUTS_PER_RECORDING && done < cuts; i++)
            cut_once(done++);
        move_to_image();
        if (chain % CHAIN == CHAIN - 1 || done == cuts)
            end_chain();
    }
}

static int
set_up(void **state)
{
    (void)state;
    seed = (uint64_t)ptier_fault_number("PTIER_SEED", 4711) * UINT64_C(0x9e3779b97f4a7c15) + 1;
    return 0;
}

/* After a failure as well. */
static int
tear_down(void **state)
{
    (void)state;
    if (image.directory[0])
        close_image();
    if (box.directory[0]) {
        ptier_test_box_close(&box);
        ptier_io_unwatch();
        end_chain();
    }
    return 0;
}

static int
cuts(void)
{
    return (int)(ptier_fault_number("PTIER_CUTS", CUTS) + COMBINATIONS - 1) / COMBINATIONS;
}

static void
power_loss_takes_nothing_synced_from_all_tiers(void **state)
{
    (void)state;
    cut_often(BOX_ALL, cuts());
}

static void
power_loss_takes_nothing_synced_without_l3(void **state)
{
    (void)state;
    cut_often(BOX_L1 | BOX_L2, cuts());
}

static void
power_loss_takes_nothing_synced_without_l2(void **state)
{
    (void)state;
    cut_often(BOX_L1 | BOX_L3, cuts());
}

int
main(void)
{
    ptier_fault_begin();
    const struct CMUnitTest tests[COMBINATIONS] = {
        cmocka_unit_test_setup_teardown(power_loss_takes_nothing_synced_from_all_tiers, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(power_loss_takes_nothing_synced_without_l3, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(power_loss_takes_nothing_synced_without_l2, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
