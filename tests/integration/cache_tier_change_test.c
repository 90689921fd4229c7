/* Another set of tiers than in the run before, also where that run was killed: nothing that was
 * acknowledged is missed in silence, nothing that was deleted comes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "support/cache_box.h"

enum { ENTRIES = 40, SHARD_BYTES = 4096 };

static ptier_test_box box;
static sqlite3 *locker;
static char path[PTIER_TEST_PATH + 64];

static int
tear_down(void **state)
{
    (void)state;
    sqlite3_close(locker);
    locker = NULL;
    ptier_test_box_fini(&box);
    return 0;
}

static const char *
path_of(const char *name)
{
    (void)snprintf(path, sizeof path, "%s/%s", box.directory, name);
    return path;
}

static void
use_tiers(int tiers)
{
    box.options.l1_enabled = tiers & BOX_L1;
    box.options.l2_enabled = tiers & BOX_L2;
    box.options.l3_enabled = tiers & BOX_L3;
}

/* Ends the run as kill -9 would, and begins one with other tiers. */
static void
kill_and_open(int tiers)
{
    char copy[PTIER_TEST_PATH];
    ptier_test_dir_make(copy);
    ptier_test_dir_copy(box.directory, copy);
    sqlite3_close(locker);
    locker = NULL;
    ptier_test_box_close(&box);
    ptier_test_dir_remove(box.directory);
    (void)snprintf(box.directory, sizeof box.directory, "%s", copy);
    use_tiers(tiers);
    ptier_test_box_open(&box);
}

static ptier_start_report
report(void)
{
    ptier_start_report found;
    ptier_cache_start_report(box.cache, &found);
    return found;
}

/* From now on L3's thread does not get anywhere. */
static void
lock_l3(void)
{
    ptier_tier *l3 = box.cache->tiers[PTIER_TIER_L3];
    BOX_AWAIT(ptier_test_box_statistics(&box).pending_writes == 0);
    BOX_AWAIT(ptier_l3_synced_prefix(l3) == ptier_l3_prefix(l3));
    assert_int_equal(sqlite3_open(path_of("l3.sqlite"), &locker), SQLITE_OK);
    assert_int_equal(sqlite3_busy_timeout(locker, 10000), SQLITE_OK);
    assert_int_equal(sqlite3_exec(locker, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
}

/* No rebuild can succeed. */
static void
forbid_rebuilds(bool forbid)
{
    if (forbid)
        assert_int_equal(mkdir(path_of("l3.sqlite.new"), 0700), 0);
    else
        assert_int_equal(rmdir(path_of("l3.sqlite.new")), 0);
}

typedef struct shards {
    uint32_t first, last;
} shards;

static void
look_at_shards(ptier_cache *cache, void *context)
{
    shards *s = context;
    uint64_t bytes;
    ptier_l2_position(cache->tiers[PTIER_TIER_L2], &s->first, &s->last, &bytes);
}

/* No line that is there now is still in L2's files, unless something needs it. */
static void
await_compaction(void)
{
    shards before, now;
    ptier_lead_log(box.cache, look_at_shards, &before);
    BOX_AWAIT((ptier_test_box_put(&box, 1), ptier_lead_log(box.cache, look_at_shards, &now),
               now.first > before.last));
}

static void
a_log_that_l3_is_behind_is_missed_when_l2_is_switched_off(void **state)
{
    (void)state;
    ptier_test_box_init(&box, BOX_ALL);
    ptier_test_box_open(&box);
    for (int i = 0; i < ENTRIES; i++)
        ptier_test_box_put(&box, i);
    lock_l3();
    ptier_test_box_put(&box, ENTRIES);
    assert_true(ptier_test_box_delete(&box, 0));
    kill_and_open(BOX_L1 | BOX_L3);
    bool missed = !ptier_test_box_has(&box, ENTRIES) || ptier_test_box_has(&box, 0);
    assert_true(missed); /* else this tests nothing */
    assert_true(report().changes_lost);
    assert_true(report().new_store);
}

static void
l3_that_was_off_stays_out_of_date_until_it_is_made_anew(void **state)
{
    (void)state;
    ptier_test_box_init(&box, BOX_ALL);
    box.hooks.l2_shard_bytes = SHARD_BYTES;
    ptier_test_box_open(&box);
    for (int i = 0; i < ENTRIES; i++)
        ptier_test_box_put(&box, i);
    ptier_test_box_close(&box);
    use_tiers(BOX_L1 | BOX_L2);
    ptier_test_box_open(&box);
    for (int i = 0; i < ENTRIES; i += 2)
        assert_true(ptier_test_box_delete(&box, i));
    await_compaction();
    ptier_test_box_close(&box);
    use_tiers(BOX_ALL);
    forbid_rebuilds(true);
    ptier_test_box_open(&box);
    ptier_test_box_put(&box, ENTRIES);
    for (int run = 0; run < 2; run++) {
        ptier_test_box_close(&box);
        if (run)
            forbid_rebuilds(false);
        ptier_test_box_open(&box);
        for (int i = 0; i <= ENTRIES; i++)
            assert_int_equal(ptier_test_box_has(&box, i), i % 2 || i == ENTRIES);
        assert_int_equal(ptier_test_box_entries(&box), ENTRIES / 2 + 1);
    }
}

static void
clear_of_l2_waits_for_l3_that_is_to_be_made_anew(void **state)
{
    (void)state;
    uint64_t cleared, revision;
    ptier_test_box_init(&box, BOX_L2);
    ptier_test_box_open(&box);
    for (int i = 0; i < ENTRIES; i++)
        ptier_test_box_put(&box, i);
    ptier_test_box_close(&box);
    use_tiers(BOX_ALL);
    forbid_rebuilds(true);
    ptier_test_box_open(&box);
    ptier_status status = ptier_cache_clear(box.cache, PTIER_TIER_L2, PTIER_DURABILITY_DEFAULT,
                                            &cleared, &revision, NULL, &box.error);
    for (int i = 0; i < ENTRIES; i++)
        assert_true(ptier_test_box_has(&box, i));
    assert_int_equal(status, PTIER_UNAVAILABLE);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_log_that_l3_is_behind_is_missed_when_l2_is_switched_off,
                                  tear_down),
        cmocka_unit_test_teardown(l3_that_was_off_stays_out_of_date_until_it_is_made_anew,
                                  tear_down),
        cmocka_unit_test_teardown(clear_of_l2_waits_for_l3_that_is_to_be_made_anew, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
