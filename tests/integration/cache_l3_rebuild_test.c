/*
 * L3 has to be made anew while the cache runs: the upper tiers keep what may be the only copy, and
 * who follows the change feed ends with what the cache has.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/outage.h"
#include "support/sample_entry.h"

enum { KEYS = 2000, L2_ENTRIES = 60, MORE = 300, ROUNDS = 6, PAGE_BYTES = 4096, CHANGES = 200 };

static ptier_outage o;
static uint64_t told[OUTAGE_KEYS], listed[OUTAGE_KEYS];

static int
set_up(void **state)
{
    (void)state;
    ptier_outage_set_up(&o, BOX_ALL);
    o.box.options.l2_entries = L2_ENTRIES;
    ptier_test_box_open(&o.box);
    for (int i = 0; i < KEYS; i++)
        (void)ptier_outage_put(&o, i, PTIER_DURABILITY_DEFAULT);
    ptier_outage_await_up(&o);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    ptier_outage_tear_down(&o);
    return 0;
}

/* ---- damage ---- */

static int
open_l3(const char *suffix)
{
    char path[PTIER_TEST_PATH + 32];
    (void)snprintf(path, sizeof path, "%s/l3.sqlite%s", o.box.directory, suffix);
    return (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC); /* past the shim */
}

/* All pages from `first` on, each `step`-th. */
static void
overwrite(int fd, off_t first, off_t step)
{
    char garbage[PAGE_BYTES];
    struct stat info;
    memset(garbage, 0xa5, sizeof garbage);
    assert_int_equal(fstat(fd, &info), 0);
    for (off_t page = first; (page + 1) * PAGE_BYTES <= info.st_size; page += step)
        assert_int_equal(pwrite(fd, garbage, sizeof garbage, page * PAGE_BYTES), PAGE_BYTES);
}

/* The database has all, its WAL nothing, and the cache no page of it in memory (it has been opened
 * anew). */
static void
empty_wal(void)
{
    ptier_test_box_reopen(&o.box);
    ptier_outage_await_up(&o);
}

/* The file goes, and nothing of it can be read any more. */
static void
take_l3_away(void)
{
    char path[PTIER_TEST_PATH + 32];
    int fd = open_l3("");
    assert_true(fd >= 0);
    (void)snprintf(path, sizeof path, "%s/l3.sqlite", o.box.directory);
    assert_int_equal(syscall(SYS_unlink, path), 0);
    overwrite(fd, 0, 1);
    (void)close(fd);
}

static bool
awaits_rebuild(void)
{
    pthread_mutex_lock(&o.box.cache->lock);
    bool rebuild = o.box.cache->health[PTIER_TIER_L3].rebuild;
    pthread_mutex_unlock(&o.box.cache->lock);
    return rebuild;
}

/* ---- the only copies ---- */

static bool
is_resident(int number)
{
    char key[16];
    (void)snprintf(key, sizeof key, "p%d", number);
    return ptier_l2_resident(o.box.cache->tiers[PTIER_TIER_L2], o.box.cache->hash_key(key),
                             o.expected[number]);
}

/* What is resident in L2 now. */
static size_t
note_residents(bool resident[OUTAGE_KEYS])
{
    size_t count = 0;
    for (int i = 0; i < KEYS; i++) {
        resident[i] = is_resident(i);
        count += resident[i];
    }
    return count;
}

/* More is put than L2 may hold, and L2 and L1 are asked to give up what they have. */
static void
press_upper_tiers(const bool resident[OUTAGE_KEYS])
{
    for (int i = KEYS; i < KEYS + MORE; i++)
        (void)ptier_outage_put(&o, i, PTIER_DURABILITY_DEFAULT);
    for (ptier_tier_id tier = PTIER_TIER_L1; tier <= PTIER_TIER_L2; tier++)
        assert_int_equal(ptier_cache_clear(o.box.cache, tier, PTIER_DURABILITY_DEFAULT, NULL, NULL,
                                           NULL, &o.box.error),
                         PTIER_UNAVAILABLE);
    ptier_enforce_bound(o.box.cache, PTIER_TIER_L2);
    for (int i = 0; i < KEYS; i++)
        assert_true(is_resident(i) || !resident[i]);
}

static void
expect_the_residents_kept(const bool resident[OUTAGE_KEYS])
{
    ptier_io_heal();
    BOX_AWAIT(!awaits_rebuild());
    ptier_outage_await_up(&o);
    for (int i = 0; i < KEYS + MORE; i++) {
        bool there = ptier_test_box_has(&o.box, i);
        assert_true(there || (i < KEYS && !resident[i])); /* L1 has some more */
        if (!there)
            o.expected[i] = 0;
    }
    BOX_AWAIT(ptier_test_box_statistics(&o.box).tiers[PTIER_TIER_L2].entries <= L2_ENTRIES);
    ptier_outage_check(&o, &o.box);
    ptier_outage_check_copy(&o, BOX_L3);
    assert_int_equal(ptier_cache_clear(o.box.cache, PTIER_TIER_L2, PTIER_DURABILITY_DEFAULT, NULL,
                                       NULL, NULL, &o.box.error),
                     PTIER_OK);
    ptier_outage_check(&o, &o.box);
}

static void
l2_gives_nothing_up_while_l3_awaits_a_rebuild(void **state)
{
    static bool resident[OUTAGE_KEYS];
    (void)state;
    empty_wal();
    assert_true(note_residents(resident) >= L2_ENTRIES / 2);
    ptier_outage_begin("l3.sqlite.new*");
    take_l3_away();
    BOX_AWAIT(awaits_rebuild());
    press_upper_tiers(resident);
    expect_the_residents_kept(resident);
}

/* It was down already, and only a probe finds that its file is gone. */
static void
l2_gives_nothing_up_either_when_the_rebuild_is_found_to_be_needed_later(void **state)
{
    static bool resident[OUTAGE_KEYS];
    (void)state;
    empty_wal();
    ptier_outage_begin(OUTAGE_L3);
    ptier_outage_await_down(&o, BOX_L3);
    assert_false(awaits_rebuild());
    assert_true(note_residents(resident) >= L2_ENTRIES / 2);
    take_l3_away();
    BOX_AWAIT(awaits_rebuild());
    press_upper_tiers(resident);
    expect_the_residents_kept(resident);
}

/* ---- the feed ---- */

/* Whose key nobody can name: the test knows it by its revision. */
static void
forget_revision(uint64_t revision)
{
    for (int i = 0; i < OUTAGE_KEYS; i++)
        if (told[i] == revision)
            told[i] = 0;
}

/* What a follower of all changes has. */
static void
replay_feed(void)
{
    memset(told, 0, sizeof told);
    pthread_mutex_lock(&o.box.lock);
    for (size_t i = 0; i < o.box.change_count; i++) {
        const ptier_test_change *c = &o.box.changes[i];
        bool removed = c->type == PTIER_EVENT_REMOVED;
        if (c->type == PTIER_EVENT_CLEARED)
            memset(told, 0, sizeof told);
        else if (c->key[0])
            told[strtol(c->key + 1, NULL, 10)] = removed ? 0 : c->revision;
        else if (removed && c->reason == PTIER_REASON_CORRUPTION)
            forget_revision(c->of);
    }
    pthread_mutex_unlock(&o.box.lock);
}

static void
check_feed(void)
{
    replay_feed();
    ptier_outage_list(&o.box, listed);
    for (int i = 0; i < OUTAGE_KEYS; i++)
        if (told[i] != listed[i])
            fail_msg("p%d: told %llu, listed %llu", i, (unsigned long long)told[i],
                     (unsigned long long)listed[i]);
}

static void
change_some(void)
{
    for (int i = 0; i < CHANGES; i++) {
        int number = (int)ptier_test_random(&o.random, KEYS);
        if (ptier_test_random(&o.random, 2))
            ptier_test_box_put(&o.box, number);
        else
            (void)ptier_test_box_delete(&o.box, number);
    }
}

/* Pages of the tables and indexes change under the running cache, elsewhere in each round. */
static void
after_damage_the_feed_ends_with_what_the_cache_has(void **state)
{
    (void)state;
    size_t lost = 0;
    for (int round = 0; round < ROUNDS; round++) {
        empty_wal();
        int fd = open_l3("");
        assert_true(fd >= 0);
        overwrite(fd, 1 + round % 4, 2 + round);
        (void)close(fd);
        int up = atomic_load(&o.up[PTIER_TIER_L3]);
        for (int i = 0; i < KEYS; i++) /* somebody comes across it */
            (void)ptier_test_box_has(&o.box, i);
        change_some();
        BOX_AWAIT(atomic_load(&o.up[PTIER_TIER_L3]) > up);
        change_some();
        ptier_outage_await_up(&o);
        check_feed();
        lost += ptier_test_box_changes(&o.box, PTIER_EVENT_REMOVED, PTIER_REASON_CORRUPTION, NULL);
        ptier_outage_list(&o.box, o.expected);
        ptier_outage_check(&o, &o.box);
        ptier_outage_check_copy(&o, BOX_L3);
    }
    assert_true(lost > 0);
}

/* Most of what it has is gone: so are the keys. */
static void
after_a_file_is_taken_away_the_feed_ends_with_what_the_cache_has(void **state)
{
    (void)state;
    empty_wal();
    take_l3_away();
    change_some();
    BOX_AWAIT(atomic_load(&o.up[PTIER_TIER_L3]) > 0);
    change_some();
    ptier_outage_await_up(&o);
    check_feed();
    ptier_outage_list(&o.box, o.expected);
    ptier_outage_check(&o, &o.box);
    ptier_outage_check_copy(&o, BOX_L3);
}

/* Such a loss has a revision, but no tier hears of it: nobody may wait for that. */
static void
a_loss_that_nobody_can_name_holds_nobody_up(void **state)
{
    static const int sets[] = {BOX_L1 | BOX_L3, BOX_ALL};
    (void)state;
    for (int s = 0; s < 2; s++) {
        ptier_outage_tear_down(&o);
        ptier_outage_set_up(&o, sets[s]);
        ptier_test_box_open(&o.box);
        for (int i = 0; i < 3; i++)
            (void)ptier_outage_put(&o, i, PTIER_DURABILITY_DEFAULT);
        ptier_outage_await_up(&o);
        ptier_entry *nameless = ptier_placeholder("", o.box.cache->hash_key("p1"), o.expected[1]);
        assert_non_null(nameless);
        pthread_mutex_lock(&o.box.cache->lock);
        assert_int_equal(ptier_change_remove_locked(o.box.cache, nameless, PTIER_REASON_CORRUPTION),
                         PTIER_OK);
        pthread_mutex_unlock(&o.box.cache->lock);
        ptier_entry_release(nameless);
        o.expected[1] = 0;
        (void)ptier_outage_delete(&o, 1, PTIER_DURABILITY_SYNCED); /* finds nothing */
        ptier_written written = {0};
        const ptier_report report = {.key = "p2", .outcome = PTIER_REPORT_UNKNOWN};
        assert_int_equal(ptier_cache_report(o.box.cache, &report, 1, PTIER_DURABILITY_SYNCED, NULL,
                                            &written, &o.box.error),
                         PTIER_OK);
        assert_int_equal(written.durability, PTIER_DURABILITY_SYNCED);
        BOX_AWAIT(ptier_test_box_statistics(&o.box).l3_lag == 0);
    }
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(l2_gives_nothing_up_while_l3_awaits_a_rebuild),
        CASE(l2_gives_nothing_up_either_when_the_rebuild_is_found_to_be_needed_later),
        CASE(after_damage_the_feed_ends_with_what_the_cache_has),
        CASE(after_a_file_is_taken_away_the_feed_ends_with_what_the_cache_has),
        CASE(a_loss_that_nobody_can_name_holds_nobody_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
