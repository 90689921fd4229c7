/*
 * No disk tier works: service goes on from memory, which is bounded by the keys that change;
 * replies say what was reached; what was changed meanwhile gets to the disk, or a start says that
 * it did not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "support/outage.h"

enum {
    KEYS = 200,
    CHANGES = 600,
    MANY = 100000,
    FEW_KEYS = 50,
    WAITING_MAX = FEW_KEYS + 2 * 1024 + 2, /* dead ones are taken out by the thousand */
};

static ptier_outage o;

static void
begin(int tiers)
{
    ptier_outage_set_up(&o, tiers);
    ptier_test_box_open(&o.box);
    for (int i = 0; i < KEYS; i++)
        (void)ptier_outage_put(&o, i, PTIER_DURABILITY_DEFAULT);
}

static int
tear_down(void **state)
{
    (void)state;
    ptier_outage_tear_down(&o);
    return 0;
}

static void
go_down(int tiers)
{
    ptier_outage_begin(OUTAGE_BOTH);
    ptier_outage_await_down(&o, tiers);
}

static size_t
waiting_list(void)
{
    pthread_mutex_lock(&o.box.cache->lock);
    size_t count = o.box.cache->l3_queue.count;
    pthread_mutex_unlock(&o.box.cache->lock);
    return count;
}

static size_t
waiting_entries(void)
{
    pthread_mutex_lock(&o.box.cache->lock);
    size_t count = o.box.cache->pending.count;
    pthread_mutex_unlock(&o.box.cache->lock);
    return count;
}

/* ---- service ---- */

static void
live_through_an_outage(int tiers)
{
    begin(tiers);
    go_down(tiers);
    for (int i = 0; i < CHANGES; i++)
        ptier_outage_change_any(&o, 2 * KEYS);
    ptier_outage_check(&o, &o.box);
    ptier_io_heal();
    ptier_outage_await_up(&o);
    ptier_outage_check(&o, &o.box);
    ptier_outage_check_copy(&o, tiers);
    if (tiers & BOX_L3)
        ptier_outage_check_copy(&o, BOX_L3);
    ptier_test_box_reopen(&o.box);
    ptier_outage_check(&o, &o.box);
    ptier_outage_tear_down(&o);
}

static void
what_is_changed_without_a_disk_is_served_and_gets_there_afterwards(void **state)
{
    (void)state;
    for (int tiers = BOX_L2; tiers <= BOX_ALL; tiers++)
        live_through_an_outage(tiers);
}

/* In either order, and with changes in between. */
static void
tiers_that_come_back_one_after_the_other_get_it_all(void **state)
{
    static const char *const still_down[] = {OUTAGE_L2, OUTAGE_L3};
    (void)state;
    for (int order = 0; order < 2; order++) {
        begin(BOX_ALL);
        go_down(BOX_ALL);
        for (int i = 0; i < CHANGES; i++)
            ptier_outage_change_any(&o, 2 * KEYS);
        ptier_tier_id first = order ? PTIER_TIER_L2 : PTIER_TIER_L3;
        ptier_outage_begin(still_down[order]);
        BOX_AWAIT(atomic_load(&o.up[first]) > 0);
        for (int i = 0; i < CHANGES; i++)
            ptier_outage_change_any(&o, 2 * KEYS);
        ptier_outage_check(&o, &o.box);
        ptier_outage_check_copy(&o, BOX_ALL);
        ptier_io_heal();
        ptier_outage_await_up(&o);
        ptier_outage_check_copy(&o, BOX_ALL);
        ptier_outage_check_copy(&o, BOX_L3);
        ptier_outage_tear_down(&o);
    }
}

/* Both again and again: what waits is put together from several outages. */
static void
outages_in_a_row_lose_nothing(void **state)
{
    static const char *const patterns[] = {OUTAGE_BOTH, OUTAGE_L2, OUTAGE_L3, OUTAGE_BOTH};
    static const int tiers[] = {BOX_L2 | BOX_L3, BOX_L2, BOX_L3, BOX_L2 | BOX_L3};
    (void)state;
    begin(BOX_ALL);
    for (int round = 0; round < 12; round++) {
        ptier_outage_begin(patterns[round % 4]);
        ptier_outage_await_down(&o, tiers[round % 4]);
        for (int i = 0; i < CHANGES / 4; i++)
            ptier_outage_change_any(&o, KEYS);
        if (round % 3 == 2) {
            ptier_io_heal();
            ptier_outage_await_up(&o);
            ptier_outage_check_copy(&o, BOX_ALL);
        }
        ptier_outage_check(&o, &o.box);
    }
    ptier_outage_check_copy(&o, BOX_L3);
}

static void
a_clear_without_a_disk_gets_there_too(void **state)
{
    (void)state;
    begin(BOX_ALL);
    go_down(BOX_ALL);
    for (int i = 0; i < CHANGES; i++)
        ptier_outage_change_any(&o, KEYS);
    uint64_t cleared;
    ptier_written written;
    assert_int_equal(ptier_cache_clear(o.box.cache, PTIER_TIER_NONE, PTIER_DURABILITY_SYNCED,
                                       &cleared, NULL, &written, &o.box.error),
                     PTIER_OK);
    assert_int_equal(written.durability, PTIER_DURABILITY_MEMORY);
    memset(o.expected, 0, sizeof o.expected);
    for (int i = 0; i < KEYS; i++)
        ptier_outage_change_any(&o, KEYS);
    ptier_outage_check(&o, &o.box);
    ptier_io_heal();
    ptier_outage_await_up(&o);
    ptier_outage_check_copy(&o, BOX_ALL);
    ptier_outage_check_copy(&o, BOX_L3);
}

/* ---- memory ---- */

/* A put, a put again and a delete of the same key in turn. */
static void
change_few_keys(int i)
{
    int number = i % FEW_KEYS;
    if (i / FEW_KEYS % 3 == 2)
        (void)ptier_outage_delete(&o, number, PTIER_DURABILITY_DEFAULT);
    else
        (void)ptier_outage_put(&o, number, PTIER_DURABILITY_DEFAULT);
}

static void
waiting_for_a_disk_takes_memory_by_the_key_not_by_the_change(void **state)
{
    static const int sets[] = {BOX_L2, BOX_L3, BOX_ALL};
    (void)state;
    for (int s = 0; s < 3; s++) {
        begin(sets[s]);
        go_down(sets[s]);
        size_t before = waiting_list(), most = 0;
        for (int i = 0; i < (sets[s] == BOX_ALL ? MANY : MANY / 10); i++) {
            change_few_keys(i);
            size_t now = waiting_list();
            most = now > most ? now : most;
        }
        assert_in_range(most, 1, before + WAITING_MAX);
        assert_in_range(waiting_entries(), 1, KEYS);
        assert_in_range(ptier_test_box_statistics(&o.box).pending_writes, 1,
                        before + FEW_KEYS + KEYS);
        ptier_outage_check(&o, &o.box);
        ptier_io_heal();
        ptier_outage_await_up(&o);
        ptier_outage_check_copy(&o, sets[s]);
        ptier_outage_tear_down(&o);
    }
}

/* ---- what is said ---- */

static void
replies_statistics_and_events_say_that_no_disk_works(void **state)
{
    (void)state;
    begin(BOX_ALL);
    ptier_written up = ptier_outage_put(&o, 1, PTIER_DURABILITY_SYNCED);
    assert_int_equal(up.durability, PTIER_DURABILITY_SYNCED);
    assert_int_equal(up.tiers, 1 << PTIER_TIER_L1 | 1 << PTIER_TIER_L2 | 1 << PTIER_TIER_L3);
    go_down(BOX_ALL);
    for (ptier_durability d = PTIER_DURABILITY_DEFAULT; d <= PTIER_DURABILITY_SYNCED; d++) {
        ptier_written put = ptier_outage_put(&o, 1, d);
        assert_int_equal(put.durability, PTIER_DURABILITY_MEMORY);
        assert_int_equal(put.tiers, 1 << PTIER_TIER_L1);
        ptier_written removal = ptier_outage_delete(&o, 1, d);
        assert_int_equal(removal.durability, PTIER_DURABILITY_MEMORY);
        assert_int_equal(removal.tiers, 1 << PTIER_TIER_L1);
    }
    for (int id = PTIER_TIER_L2; id <= PTIER_TIER_L3; id++) {
        ptier_statistics s = ptier_test_box_statistics(&o.box);
        assert_true(s.tiers[id].degraded);
        assert_false(s.tiers[id].healthy);
        assert_true(s.tiers[id].errors > 0);
        assert_int_equal(atomic_load(&o.down[id]), 1);
        assert_int_equal(atomic_load(&o.up[id]), 0);
    }
    ptier_io_heal();
    ptier_outage_await_up(&o);
    for (int id = PTIER_TIER_L2; id <= PTIER_TIER_L3; id++) {
        assert_int_equal(atomic_load(&o.down[id]), 1);
        assert_int_equal(atomic_load(&o.up[id]), 1);
        BOX_AWAIT(ptier_test_box_statistics(&o.box).tiers[id].healthy);
    }
    up = ptier_outage_put(&o, 1, PTIER_DURABILITY_SYNCED);
    assert_int_equal(up.durability, PTIER_DURABILITY_SYNCED);
    assert_int_equal(up.tiers, 1 << PTIER_TIER_L1 | 1 << PTIER_TIER_L2 | 1 << PTIER_TIER_L3);
}

/* ---- the next start ---- */

/* The id of the store before, and what the box that was opened now says. */
static void
check_report(ptier_test_box *box, const uint8_t before[PTIER_ID_BYTES], bool lost)
{
    ptier_start_report report;
    uint8_t now[PTIER_ID_BYTES];
    ptier_cache_start_report(box->cache, &report);
    ptier_cache_store_id(box->cache, now);
    if (report.changes_lost != lost || report.new_store != lost)
        fail_msg("changes lost %d, a new store %d: %s", report.changes_lost, report.new_store,
                 report.text);
    assert_int_equal(memcmp(before, now, sizeof now) != 0, lost);
    assert_int_equal(strstr(report.text, "no disk tier took") != NULL, lost);
}

static void
changes_that_end_with_the_process_are_reported_at_the_next_start(void **state)
{
    (void)state;
    for (int tiers = BOX_L2; tiers <= BOX_ALL; tiers++) {
        uint8_t before[PTIER_ID_BYTES];
        begin(tiers);
        ptier_cache_store_id(o.box.cache, before);
        go_down(tiers);
        for (int i = 0; i < CHANGES; i++)
            ptier_outage_change_any(&o, KEYS);
        ptier_outage_open_copy(&o, tiers); /* killed */
        check_report(&o.copy, before, true);
        ptier_cache_store_id(o.copy.cache, before);
        ptier_test_box_reopen(&o.copy); /* said once is enough */
        check_report(&o.copy, before, false);
        ptier_outage_drop_copy(&o);

        ptier_cache_store_id(o.box.cache, before);
        ptier_test_box_close(&o.box);
        ptier_io_heal();
        ptier_test_box_open(&o.box);
        check_report(&o.box, before, true);
        ptier_outage_tear_down(&o);
    }
}

static atomic_int said_memory_only; /* -1: not seen yet */

/* L3 fails again as soon as it is back, before it has applied anything. */
static void
fail_again(void *context, const ptier_tier_event *event)
{
    (void)context;
    if (event->type == PTIER_EVENT_TIER_RECOVERED)
        ptier_outage_begin(OUTAGE_BOTH);
    atomic_fetch_add(
        event->type == PTIER_EVENT_TIER_RECOVERED ? &o.up[event->tier] : &o.down[event->tier], 1);
}

/* Its thread says that the first attempt failed: what would a start after a kill read now? */
static void
note_progress(void *context, ptier_log_level level, const char *event, const char *text)
{
    (void)context;
    (void)level;
    (void)text;
    if (strcmp(event, "l3_failed") != 0 || atomic_load(&o.up[PTIER_TIER_L3]) == 0)
        return;
    int said = ptier_progress_begin(&o.box.cache->progress_file)->memory_only;
    ptier_progress_end(&o.box.cache->progress_file);
    int unseen = -1;
    atomic_compare_exchange_strong(&said_memory_only, &unseen, said);
}

static void
changes_in_memory_count_as_such_until_l3_has_them(void **state)
{
    (void)state;
    atomic_store(&said_memory_only, -1);
    ptier_outage_set_up(&o, BOX_L1 | BOX_L3);
    o.box.options.on_tier_event = fail_again;
    o.box.options.on_log = note_progress;
    ptier_test_box_open(&o.box);
    go_down(BOX_L3);
    for (int i = 0; i < KEYS; i++)
        ptier_outage_change_any(&o, KEYS);
    ptier_io_heal();
    BOX_AWAIT(atomic_load(&said_memory_only) >= 0);
    assert_int_equal(atomic_load(&said_memory_only), 1);
    ptier_outage_check(&o, &o.box);
}

static void
an_outage_that_took_no_change_along_is_not_reported(void **state)
{
    (void)state;
    for (int tiers = BOX_L2; tiers <= BOX_ALL; tiers++) {
        uint8_t before[PTIER_ID_BYTES];
        begin(tiers);
        ptier_cache_store_id(o.box.cache, before);
        BOX_AWAIT(ptier_test_box_statistics(&o.box).pending_writes == 0);
        ptier_outage_begin(OUTAGE_BOTH); /* the probes notice */
        BOX_AWAIT(!(tiers & BOX_L2) || ptier_test_box_statistics(&o.box).tiers[2].degraded);
        BOX_AWAIT(!(tiers & BOX_L3) || ptier_test_box_statistics(&o.box).tiers[3].degraded);
        ptier_test_box_close(&o.box);
        ptier_io_heal();
        ptier_test_box_open(&o.box);
        check_report(&o.box, before, false);
        ptier_outage_check(&o, &o.box);
        ptier_outage_tear_down(&o);
    }
}

static bool
says_memory_only(void)
{
    bool says = ptier_progress_begin(&o.box.cache->progress_file)->memory_only;
    ptier_progress_end(&o.box.cache->progress_file);
    return says;
}

/* It is said until a moment after the tier is back: rather too long than too short. */
static void
an_outage_that_has_ended_is_not_reported(void **state)
{
    (void)state;
    for (int tiers = BOX_L2; tiers <= BOX_ALL; tiers++) {
        uint8_t before[PTIER_ID_BYTES];
        begin(tiers);
        ptier_cache_store_id(o.box.cache, before);
        go_down(tiers);
        for (int i = 0; i < CHANGES; i++)
            ptier_outage_change_any(&o, KEYS);
        ptier_io_heal();
        ptier_outage_await_up(&o);
        (void)ptier_outage_put(&o, 0, PTIER_DURABILITY_LOGGED);
        BOX_AWAIT(!says_memory_only());
        ptier_outage_open_copy(&o, tiers);
        check_report(&o.copy, before, false);
        ptier_outage_drop_copy(&o);
        ptier_test_box_reopen(&o.box);
        check_report(&o.box, before, false);
        ptier_outage_tear_down(&o);
    }
}

#define CASE(name) cmocka_unit_test_teardown(name, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(what_is_changed_without_a_disk_is_served_and_gets_there_afterwards),
        CASE(tiers_that_come_back_one_after_the_other_get_it_all),
        CASE(outages_in_a_row_lose_nothing),
        CASE(a_clear_without_a_disk_gets_there_too),
        CASE(waiting_for_a_disk_takes_memory_by_the_key_not_by_the_change),
        CASE(replies_statistics_and_events_say_that_no_disk_works),
        CASE(changes_that_end_with_the_process_are_reported_at_the_next_start),
        CASE(changes_in_memory_count_as_such_until_l3_has_them),
        CASE(an_outage_that_took_no_change_along_is_not_reported),
        CASE(an_outage_that_has_ended_is_not_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
