/*
 * L3 is behind: its queue has overflowed, and it reads from L2's log what it lacks. Its thread is
 * held back for that, by a job that lasts.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/outage.h"
#include "support/sample_entry.h"

enum { KEYS = 500, QUEUE_MAX = 100, ROUNDS = 8, CHANGES = 1000 };

static ptier_outage o;
static pthread_t holder;
static bool holding;
static atomic_bool held, release_it;

static int
set_up(void **state)
{
    (void)state;
    ptier_outage_set_up(&o, BOX_ALL);
    o.box.hooks.l3_queue_max = QUEUE_MAX;
    o.box.options.l2_entries = 20; /* most of it is read from the log, or from L3 */
    ptier_test_box_open(&o.box);
    for (int i = 0; i < KEYS; i++)
        (void)ptier_outage_put(&o, i, PTIER_DURABILITY_DEFAULT);
    ptier_outage_await_up(&o);
    return 0;
}

/* ---- holding L3's thread back ---- */

static void
hold(ptier_cache *cache, void *context)
{
    (void)cache;
    (void)context;
    atomic_store(&held, true);
    int64_t deadline = ptier_test_now() + 60000;
    while (!atomic_load(&release_it) && ptier_test_now() < deadline)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static void *
hold_l3(void *context)
{
    ptier_error error;
    (void)context;
    return ptier_on_l3_thread(o.box.cache, hold, NULL, &error) ? &o : NULL;
}

static void
begin_hold(void)
{
    atomic_store(&held, false);
    atomic_store(&release_it, false);
    assert_int_equal(pthread_create(&holder, NULL, hold_l3, NULL), 0);
    holding = true;
    BOX_AWAIT(atomic_load(&held));
}

static void
end_hold(void)
{
    void *failed = NULL;
    if (!holding)
        return;
    atomic_store(&release_it, true);
    assert_int_equal(pthread_join(holder, &failed), 0);
    holding = false;
    assert_null(failed);
}

static int
tear_down(void **state)
{
    (void)state;
    end_hold();
    ptier_outage_tear_down(&o);
    return 0;
}

/* Nothing of a queue that was given up stays in memory. */
static bool
let_go(void)
{
    pthread_mutex_lock(&o.box.cache->lock);
    bool gone = o.box.cache->l3_given_up.count == 0 && o.box.cache->pending.count == 0;
    pthread_mutex_unlock(&o.box.cache->lock);
    return gone;
}

static bool
is_behind(void)
{
    pthread_mutex_lock(&o.box.cache->lock);
    bool behind = o.box.cache->l3_behind;
    pthread_mutex_unlock(&o.box.cache->lock);
    return behind;
}

/* ---- cases ---- */

/* A change, and what a reader then sees; and another key, whoever has it by now. */
static void
change_and_read(void)
{
    int number = (int)ptier_test_random(&o.random, KEYS);
    if (ptier_test_random(&o.random, 3))
        (void)ptier_outage_put(&o, number, PTIER_DURABILITY_DEFAULT);
    else
        (void)ptier_outage_delete(&o, number, PTIER_DURABILITY_DEFAULT);
    assert_int_equal(ptier_test_box_has(&o.box, number), o.expected[number] != 0);
    number = (int)ptier_test_random(&o.random, KEYS);
    assert_int_equal(ptier_test_box_has(&o.box, number), o.expected[number] != 0);
}

static void
while_l3_is_behind_every_reader_sees_its_own_writes(void **state)
{
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        begin_hold();
        for (int i = 0; i < CHANGES; i++)
            change_and_read();
        assert_true(is_behind());
        assert_true(ptier_test_box_statistics(&o.box).l3_queue <= QUEUE_MAX);
        ptier_outage_check(&o, &o.box);
        if (round == 0)
            ptier_outage_check_copy(&o, BOX_ALL);
        end_hold();
        for (int i = 0; i < CHANGES; i++) /* while it reads from the log */
            change_and_read();
        ptier_outage_check(&o, &o.box);
    }
    ptier_outage_await_up(&o);
    BOX_AWAIT(!is_behind());
    BOX_AWAIT(let_go());
    ptier_outage_check(&o, &o.box);
    ptier_outage_check_copy(&o, BOX_L3);
    ptier_test_box_reopen(&o.box);
    ptier_outage_check(&o, &o.box);
}

static void
a_clear_while_l3_is_behind_is_one_there_too(void **state)
{
    (void)state;
    uint64_t cleared;
    begin_hold();
    for (int i = 0; i < CHANGES; i++)
        change_and_read();
    assert_int_equal(ptier_cache_clear(o.box.cache, PTIER_TIER_NONE, PTIER_DURABILITY_LOGGED,
                                       &cleared, NULL, NULL, &o.box.error),
                     PTIER_OK);
    memset(o.expected, 0, sizeof o.expected);
    for (int i = 0; i < KEYS / 4; i++)
        change_and_read();
    ptier_outage_check(&o, &o.box);
    ptier_outage_check_copy(&o, BOX_ALL);
    end_hold();
    ptier_outage_await_up(&o);
    ptier_outage_check(&o, &o.box);
    ptier_outage_check_copy(&o, BOX_L3);
}

static void
closing_while_l3_is_behind_leaves_it_nothing_to_catch_up_with(void **state)
{
    (void)state;
    begin_hold();
    for (int i = 0; i < CHANGES; i++)
        change_and_read();
    end_hold();
    ptier_test_box_close(&o.box);
    ptier_outage_check_copy(&o, BOX_L3);
    ptier_test_box_open(&o.box);
    ptier_outage_check(&o, &o.box);
}

/* ---- damage to the log ---- */

/* Changes a byte of every line of L2's files from `from` on: they cannot be read any more. */
static void
damage_log(uint64_t first_shard)
{
    for (uint64_t number = first_shard; number < first_shard + 1000; number++) {
        char path[PTIER_TEST_PATH + 64], text[4096];
        (void)snprintf(path, sizeof path, "%s/l2/shard_%08u.jsonl", o.box.directory,
                       (unsigned)number);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0)
            break;
        off_t at = 0;
        for (ssize_t got; (got = pread(fd, text, sizeof text, at)) > 0; at += got) {
            for (ssize_t i = 0; i < got; i++)
                text[i] = text[i] == ':' ? ';' : text[i];
            assert_int_equal(pwrite(fd, text, (size_t)got, at), got);
        }
        (void)close(fd);
    }
}

/* What L3 has of a key whose newest change was lost is older than that, or was removed. */
static void
a_change_that_the_log_lost_is_not_undone_in_l3(void **state)
{
    (void)state;
    uint32_t first, last;
    uint64_t bytes;
    (void)ptier_outage_put(&o, 0, PTIER_DURABILITY_DEFAULT);
    ptier_outage_await_up(&o);
    begin_hold();
    ptier_l2_position(o.box.cache->tiers[PTIER_TIER_L2], &first, &last, &bytes);
    for (int i = 0; i < 2 * QUEUE_MAX; i++)
        (void)ptier_outage_delete(&o, i, PTIER_DURABILITY_LOGGED);
    for (int i = 2 * QUEUE_MAX; i < 3 * QUEUE_MAX; i++)
        (void)ptier_outage_put(&o, i, PTIER_DURABILITY_LOGGED);
    assert_true(is_behind());
    damage_log(last);
    end_hold();
    BOX_AWAIT(atomic_load(&o.up[PTIER_TIER_L3]) > 0);
    ptier_outage_await_up(&o);
    for (int i = 0; i < KEYS; i++) {
        bool was_lost = i >= 2 * QUEUE_MAX && i < 3 * QUEUE_MAX;
        bool there = ptier_test_box_has(&o.box, i);
        if (was_lost && !there)
            o.expected[i] = 0; /* L1 and what L2 holds may have saved some */
        assert_int_equal(there, o.expected[i] != 0);
    }
    ptier_outage_check(&o, &o.box);
    ptier_outage_check_copy(&o, BOX_L3);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(while_l3_is_behind_every_reader_sees_its_own_writes),
        CASE(a_clear_while_l3_is_behind_is_one_there_too),
        CASE(closing_while_l3_is_behind_leaves_it_nothing_to_catch_up_with),
        CASE(a_change_that_the_log_lost_is_not_undone_in_l3),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
