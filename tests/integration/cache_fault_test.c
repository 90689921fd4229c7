/*
 * The log's file fails while callers wait for it: what they are told holds, and the order of
 * changes does too. write() is replaced in this program: it can hold the leader of a log group
 * back, and then fail.
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
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "support/cache_box.h"

enum { WAITING = 3 };

static atomic_bool hold, fail_writes, fail_reads;
static atomic_int reason = ENOSPC;
static atomic_int held;            /* writes that have been held back */
static _Atomic(const char *) only; /* writes with this text are concerned; NULL: all */

static bool
is_shard(int fd)
{
    char link[64], path[256];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length > 0 ? length : 0] = '\0';
    return strstr(path, "/shard_") != NULL;
}

static bool
is_concerned(int fd, const void *buf, size_t n)
{
    const char *text = atomic_load(&only);
    return is_shard(fd) && (!text || memmem(buf, n, text, strlen(text)));
}

ssize_t
write(int fd, const void *buf, size_t n)
{
    if ((atomic_load(&hold) || atomic_load(&fail_writes)) && is_concerned(fd, buf, n)) {
        int64_t deadline = ptier_test_now() + 10000;
        atomic_fetch_add(&held, 1);
        while (atomic_load(&hold) && ptier_test_now() < deadline)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        if (atomic_load(&fail_writes)) {
            errno = atomic_load(&reason);
            return -1;
        }
    }
    return syscall(SYS_write, fd, buf, n);
}

ssize_t
pread(int fd, void *buf, size_t nbytes, off_t offset)
{
    if (atomic_load(&fail_reads) && is_shard(fd)) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_pread64, fd, buf, nbytes, offset);
}

static atomic_bool fail_l3_reads;
static atomic_int failed_l3_reads;

static bool
is_l3(int fd)
{
    char link[64], path[256];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length > 0 ? length : 0] = '\0';
    return strstr(path, "/l3.sqlite") != NULL;
}

__attribute__((visibility("default"))) ssize_t
pread64(int fd, void *buf, size_t nbytes, off_t offset)
{
    if (atomic_load(&fail_l3_reads) && is_l3(fd)) {
        atomic_fetch_add(&failed_l3_reads, 1);
        errno = EIO;
        return -1;
    }
    return syscall(SYS_pread64, fd, buf, nbytes, offset);
}

static ptier_test_box box;
static sqlite3 *l3_lock; /* another connection in L3's way */

static int
set_up(void **state)
{
    (void)state;
    ptier_test_box_init(&box, BOX_ALL);
    ptier_test_box_open(&box);
    (void)ptier_test_box_put(&box, 1000);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    atomic_store(&hold, false);
    atomic_store(&fail_writes, false);
    atomic_store(&fail_reads, false);
    atomic_store(&fail_l3_reads, false);
    sqlite3_close(l3_lock);
    l3_lock = NULL;
    atomic_store(&only, NULL);
    atomic_store(&reason, ENOSPC);
    ptier_test_box_fini(&box);
    return 0;
}

static size_t
log_queue(void)
{
    pthread_mutex_lock(&box.cache->lock);
    size_t count = box.cache->log_queue.count;
    pthread_mutex_unlock(&box.cache->lock);
    return count;
}

static size_t
l3_batch(void)
{
    pthread_mutex_lock(&box.cache->lock);
    size_t count = box.cache->l3_batch.count;
    pthread_mutex_unlock(&box.cache->lock);
    return count;
}

static void *
put_one(void *number)
{
    char key[16], url[40];
    ptier_record record;
    ptier_written written = {0};
    ptier_error error;
    ptier_test_box_record(&record, (int)(intptr_t)number, key, url);
    if (ptier_cache_put(box.cache, &record, 1, NULL, NULL, &written, &error))
        return NULL;
    return (void *)(intptr_t)written.durability;
}

/* One put leads the log group and is held in write(); the others queue behind it; then write()
 * fails. */
static void
fail_under_waiting_puts(pthread_t threads[WAITING + 1])
{
    atomic_store(&held, 0);
    atomic_store(&hold, true);
    atomic_store(&fail_writes, true);
    for (intptr_t i = 0; i <= WAITING; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, put_one, (void *)i), 0);
        BOX_AWAIT(i == 0 ? atomic_load(&held) > 0 : log_queue() == (size_t)i);
    }
    atomic_store(&hold, false);
}

static void
puts_behind_a_failing_log_are_acknowledged_once_l3_has_them(void **state)
{
    (void)state;
    pthread_t threads[WAITING + 1];
    fail_under_waiting_puts(threads);
    for (int i = 0; i <= WAITING; i++) {
        void *durability;
        assert_int_equal(pthread_join(threads[i], &durability), 0);
        assert_true((intptr_t)durability >= PTIER_DURABILITY_LOGGED);
    }
    assert_int_equal(log_queue(), 0);
    assert_true(ptier_test_box_statistics(&box).tiers[PTIER_TIER_L2].degraded);
    atomic_store(&fail_writes, false);
    ptier_test_box_reopen(&box);
    for (int i = 0; i <= WAITING; i++)
        assert_true(ptier_test_box_has(&box, i));
}

static void
a_put_behind_a_failing_log_does_not_overtake_its_delete(void **state)
{
    (void)state;
    pthread_t threads[WAITING + 1];
    fail_under_waiting_puts(threads);
    BOX_AWAIT(ptier_test_box_statistics(&box).tiers[PTIER_TIER_L2].degraded);
    assert_true(ptier_test_box_delete(&box, WAITING));
    for (int i = 0; i <= WAITING; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    atomic_store(&fail_writes, false);
    ptier_test_box_reopen(&box);
    assert_false(ptier_test_box_has(&box, WAITING));
    assert_true(ptier_test_box_has(&box, 0));
}

static void *
delete_one(void *number)
{
    char key[16];
    const char *keys[] = {key};
    size_t deleted;
    ptier_written written = {0};
    (void)snprintf(key, sizeof key, "p%d", (int)(intptr_t)number);
    if (ptier_cache_delete(box.cache, keys, 1, PTIER_DURABILITY_DEFAULT, &deleted, &written, NULL))
        return NULL;
    return (void *)(intptr_t)written.durability;
}

/* With "BEGIN IMMEDIATE" it keeps L3's thread from writing, with a read from checkpoints. */
static void
lock_l3(const char *how)
{
    char path[PTIER_TEST_PATH + 16];
    (void)snprintf(path, sizeof path, "%s/l3.sqlite", box.directory);
    BOX_AWAIT(ptier_test_box_statistics(&box).pending_writes == 0);
    assert_int_equal(sqlite3_open(path, &l3_lock), SQLITE_OK);
    assert_int_equal(sqlite3_busy_timeout(l3_lock, 10000), SQLITE_OK);
    assert_int_equal(sqlite3_exec(l3_lock, how, NULL, NULL, NULL), SQLITE_OK);
}

/* What kill -9 would leave: whether it still has the entry. */
static bool
killed_it_has(int number, ptier_start_report *report)
{
    char copy[PTIER_TEST_PATH], key[16];
    ptier_cache_options options = box.options;
    ptier_cache *cache;
    ptier_entry *entry;
    ptier_test_dir_make(copy);
    ptier_test_dir_copy(box.directory, copy);
    options.data_dir = copy;
    options.on_change = NULL;
    assert_int_equal(ptier_cache_open_with(&options, &box.hooks, &cache, &box.error), PTIER_OK);
    (void)snprintf(key, sizeof key, "p%d", number);
    bool has = ptier_cache_get(cache, key, &entry, NULL) == PTIER_OK;
    if (has)
        ptier_entry_release(entry);
    ptier_cache_start_report(cache, report);
    ptier_cache_close(cache);
    ptier_test_dir_remove(copy);
    return has;
}

static void
a_delete_that_fails_with_its_group_is_not_acknowledged_by_a_later_one(void **state)
{
    (void)state;
    pthread_t writer, deleter;
    void *durability;
    ptier_start_report report;
    (void)ptier_test_box_put(&box, 1001);
    lock_l3("BEGIN IMMEDIATE");
    atomic_store(&held, 0);
    atomic_store(&hold, true);
    atomic_store(&fail_writes, true);
    assert_int_equal(pthread_create(&writer, NULL, put_one, (void *)(intptr_t)1), 0);
    BOX_AWAIT(atomic_load(&held) > 0);
    assert_int_equal(pthread_create(&deleter, NULL, delete_one, (void *)(intptr_t)1000), 0);
    BOX_AWAIT(log_queue() == 1);
    atomic_store(&hold, false);
    BOX_AWAIT(ptier_test_box_statistics(&box).tiers[PTIER_TIER_L2].degraded);
    atomic_store(&fail_writes, false); /* there is room for removals */
    assert_true(ptier_test_box_delete(&box, 1001));
    assert_int_equal(pthread_join(deleter, &durability), 0);
    if ((intptr_t)durability >= PTIER_DURABILITY_LOGGED)
        assert_false(killed_it_has(1000, &report));
    assert_int_equal((intptr_t)durability, PTIER_DURABILITY_LOGGED);
    assert_int_equal(sqlite3_exec(l3_lock, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(pthread_join(writer, NULL), 0);
}

static void
what_cannot_be_read_is_not_left_out_of_lists_and_backups(void **state)
{
    (void)state;
    char path[PTIER_TEST_PATH + 16];
    ptier_entry *entries[4];
    uint64_t cursor = 0, backed_up;
    size_t count;
    ptier_test_box_fini(&box);
    ptier_test_box_init(&box, BOX_L2);
    ptier_test_box_open(&box);
    (void)ptier_test_box_put(&box, 1);
    BOX_AWAIT(ptier_test_box_statistics(&box).pending_writes == 0);
    (void)snprintf(path, sizeof path, "%s/backup", box.directory);
    atomic_store(&fail_reads, true);
    assert_int_equal(ptier_cache_backup(box.cache, path, &backed_up, &box.error),
                     PTIER_UNAVAILABLE);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(
        ptier_cache_list(box.cache, &cursor, NULL, PTIER_TIER_NONE, 4, entries, &count, &box.error),
        PTIER_UNAVAILABLE);
    assert_int_equal(count, 0);
    atomic_store(&fail_reads, false);
    assert_int_equal(ptier_cache_backup(box.cache, path, &backed_up, &box.error), PTIER_OK);
    assert_int_equal(backed_up, 1);
}

/* Flips a bit in the last line of the log's only shard. */
static void
damage_last_line(void)
{
    char path[PTIER_TEST_PATH + 32];
    size_t length;
    (void)snprintf(path, sizeof path, "%s/l2/shard_00000001.jsonl", box.directory);
    char *text = ptier_test_file_read(path, &length);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0 && length > 10);
    text[length - 10] ^= 1;
    assert_int_equal(pwrite(fd, &text[length - 10], 1, (off_t)length - 10), 1);
    close(fd);
    free(text);
}

/* L3 needs the log, which has a removal of entry 1000 that is damaged. */
static void
damage_a_removal(void)
{
    lock_l3("BEGIN IMMEDIATE");
    (void)ptier_test_box_put(&box, 1); /* L3's thread waits with it */
    BOX_AWAIT(l3_batch() == 1);
    pthread_mutex_lock(&box.cache->lock);
    ptier_l3_fall_behind_locked(box.cache);
    pthread_mutex_unlock(&box.cache->lock);
    assert_true(ptier_test_box_delete(&box, 1000));
    damage_last_line();
    (void)ptier_test_box_put(&box, 2);
}

static void
a_removal_that_the_log_loses_is_known_all_the_same(void **state)
{
    (void)state;
    damage_a_removal();
    assert_int_equal(sqlite3_exec(l3_lock, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    BOX_AWAIT(ptier_l3_prefix(box.cache->tiers[PTIER_TIER_L3]) >= ptier_cache_revision(box.cache));
    assert_int_equal(ptier_cache_wait_started(box.cache, 10000), PTIER_OK);
    assert_false(ptier_test_box_has(&box, 1000));
    ptier_test_box_reopen(&box);
    assert_false(ptier_test_box_has(&box, 1000));
    assert_true(ptier_test_box_has(&box, 1));
    assert_true(ptier_test_box_has(&box, 2));
}

static void
write_log_anew(ptier_cache *cache, void *context)
{
    ptier_error error;
    bool done = false;
    (void)context;
    assert_int_equal(ptier_l2_reencrypt(cache->tiers[PTIER_TIER_L2], true, &done, &error),
                     PTIER_OK);
    while (!done)
        assert_int_equal(ptier_l2_reencrypt(cache->tiers[PTIER_TIER_L2], false, &done, &error),
                         PTIER_OK);
}

static void
a_removal_that_compaction_cannot_copy_is_missed_after_a_kill(void **state)
{
    (void)state;
    ptier_start_report report = {0};
    damage_a_removal();
    ptier_lead_log(box.cache, write_log_anew, NULL);
    (void)ptier_test_box_put(&box, 3);
    if (killed_it_has(1000, &report))
        assert_true(report.new_store && report.changes_lost);
    assert_int_equal(sqlite3_exec(l3_lock, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
}

/* The put's caller asks for the sync only when L3's thread has applied it, and L2 is back by then.
 */
static void
what_l2_missed_is_synced_when_l3_has_synced_it(void **state)
{
    (void)state;
    ptier_written written;
    ptier_test_box_close(&box);
    box.hooks.probe_period_ms = 20;
    ptier_test_box_open(&box);
    lock_l3("BEGIN; SELECT count(*) FROM sqlite_master"); /* nothing is synced by chance */
    atomic_store(&fail_writes, true);
    uint64_t revision = ptier_test_box_put(&box, 1);
    atomic_store(&fail_writes, false);
    assert_true(box.cache->health[PTIER_TIER_L2].down);
    BOX_AWAIT(!ptier_test_box_statistics(&box).tiers[PTIER_TIER_L2].degraded);
    ptier_commit(box.cache, revision, false, PTIER_DURABILITY_SYNCED, &written);
    assert_int_equal(written.durability, PTIER_DURABILITY_SYNCED);
    assert_true(ptier_l3_synced_prefix(box.cache->tiers[PTIER_TIER_L3]) >= revision);
}

static void
an_index_that_cannot_be_read_now_is_read_later(void **state)
{
    (void)state;
    enum { ENTRIES = 20000 };
    static ptier_record records[ENTRIES];
    static char keys[ENTRIES][16], urls[ENTRIES][40];
    ptier_start_report report;
    ptier_test_box_fini(&box);
    ptier_test_box_init(&box, BOX_L1 | BOX_L3);
    ptier_test_box_open(&box);
    for (int i = 0; i < ENTRIES; i++)
        ptier_test_box_record(&records[i], i, keys[i], urls[i]);
    assert_int_equal(ptier_cache_put(box.cache, records, ENTRIES, NULL, NULL, NULL, &box.error),
                     PTIER_OK);
    box.hooks.quick_start_rows = 1;
    ptier_test_box_reopen(&box);
    atomic_store(&fail_l3_reads, true);
    BOX_AWAIT(atomic_load(&failed_l3_reads) > 0);
    nanosleep(&(struct timespec){.tv_nsec = 50 * 1000000}, NULL);
    atomic_store(&fail_l3_reads, false);
    assert_int_equal(ptier_cache_wait_started(box.cache, 20000), PTIER_OK);
    for (int i = 0; i < ENTRIES; i++)
        assert_true(ptier_test_box_has(&box, i));
    ptier_cache_start_report(box.cache, &report);
    assert_false(report.new_store);
}

static bool
is_catching_up(void)
{
    pthread_mutex_lock(&box.cache->lock);
    bool catching_up = box.cache->caught_up > 0;
    pthread_mutex_unlock(&box.cache->lock);
    return catching_up;
}

/* What L2 has just been given is what the change replaces, not what was there before. */
static void
a_change_while_l2_catches_up_leaves_no_older_record_there(void **state)
{
    (void)state;
    ptier_test_box_fini(&box);
    ptier_test_box_init(&box, BOX_L1 | BOX_L2);
    box.hooks.probe_period_ms = 20;
    ptier_test_box_open(&box);
    atomic_store(&reason, EIO); /* a full disk would be asked for room for removals */
    atomic_store(&fail_writes, true);
    for (int i = 0; i < 4; i++)
        (void)ptier_test_box_put(&box, i);
    assert_true(ptier_test_box_statistics(&box).tiers[PTIER_TIER_L2].degraded);
    atomic_store(&only, "10.0.0.3");
    atomic_store(&hold, true);
    atomic_store(&fail_writes, false);
    BOX_AWAIT(is_catching_up());
    assert_true(ptier_test_box_delete(&box, 0));
    assert_true(ptier_test_box_delete(&box, 1));
    (void)ptier_test_box_put(&box, 1);
    (void)ptier_test_box_put(&box, 2);
    assert_true(ptier_test_box_statistics(&box).tiers[PTIER_TIER_L2].degraded);
    atomic_store(&hold, false);
    BOX_AWAIT(!ptier_test_box_statistics(&box).tiers[PTIER_TIER_L2].degraded);
    assert_int_equal(ptier_test_box_statistics(&box).tiers[PTIER_TIER_L2].entries, 3);
    assert_int_equal(ptier_test_box_entries(&box), 3);
    ptier_test_box_reopen(&box);
    for (int i = 0; i < 4; i++)
        assert_int_equal(ptier_test_box_has(&box, i), i > 0);
}

static void
a_tier_that_fails_again_soon_is_probed_less_often(void **state)
{
    (void)state;
    ptier_tier_health *health;
    ptier_test_box_fini(&box);
    ptier_test_box_init(&box, BOX_L1 | BOX_L2);
    box.hooks.probe_period_ms = 7000;
    ptier_test_box_open(&box);
    health = &box.cache->health[PTIER_TIER_L2];
    atomic_store(&reason, EIO);
    const int64_t pauses[] = {1000, 2000, 4000, 7000};
    for (int i = 0; i < 4; i++) {
        atomic_store(&fail_writes, true);
        (void)ptier_test_box_put(&box, i);
        assert_true(ptier_test_box_statistics(&box).tiers[PTIER_TIER_L2].degraded);
        atomic_store(&fail_writes, false);
        pthread_mutex_lock(&box.cache->lock);
        int64_t pause = health->next_probe_ms - ptier_monotonic_ms();
        health->next_probe_ms = 0;
        pthread_mutex_unlock(&box.cache->lock);
        assert_in_range(pause, pauses[i] / 2, pauses[i]);
        BOX_AWAIT(!ptier_test_box_statistics(&box).tiers[PTIER_TIER_L2].degraded);
    }
}

/* What the index does not have yet looks like a stale row, which a full tier would let go of. The
 * usage figure gives L3's thread something to do at the end. */
static void
closing_while_the_index_is_read_takes_nothing_from_a_full_l3(void **state)
{
    (void)state;
    enum { ENTRIES = 400, ROUNDS = 60 };
    ptier_test_box_fini(&box);
    ptier_test_box_init(&box, BOX_L1 | BOX_L3);
    box.options.l1_entries = 10;
    ptier_test_box_open(&box);
    for (int i = 0; i < ENTRIES; i++)
        (void)ptier_test_box_put(&box, i);
    ptier_test_box_close(&box);
    box.options.l3_entries = ENTRIES / 2;
    box.hooks.quick_start_rows = 1;
    box.hooks.indexing_rows = 1;
    box.hooks.indexing_pause_us = 100;
    for (int round = 0; round < ROUNDS; round++) {
        ptier_test_box_open(&box);
        lock_l3("BEGIN IMMEDIATE");
        assert_true(ptier_test_box_has(&box, round));
        ptier_write_back_all(box.cache);
        BOX_AWAIT(ptier_test_box_statistics(&box).usage_queue == 0); /* taken, not written */
        assert_true(ptier_test_box_has(&box, round));
        assert_int_equal(sqlite3_exec(l3_lock, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
        assert_int_equal(sqlite3_close(l3_lock), SQLITE_OK);
        l3_lock = NULL;
        ptier_test_box_close(&box);
    }
    size_t evicted = ptier_test_box_changes(&box, PTIER_EVENT_REMOVED, PTIER_REASON_CAPACITY, NULL);
    box.options.l3_entries = 0;
    box.hooks.quick_start_rows = 0;
    ptier_test_box_open(&box);
    assert_int_equal(ptier_test_box_entries(&box) + evicted, ENTRIES);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(puts_behind_a_failing_log_are_acknowledged_once_l3_has_them,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_put_behind_a_failing_log_does_not_overtake_its_delete,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            a_delete_that_fails_with_its_group_is_not_acknowledged_by_a_later_one, set_up,
            tear_down),
        cmocka_unit_test_setup_teardown(what_cannot_be_read_is_not_left_out_of_lists_and_backups,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_l2_missed_is_synced_when_l3_has_synced_it, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(an_index_that_cannot_be_read_now_is_read_later, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_removal_that_the_log_loses_is_known_all_the_same, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(
            a_removal_that_compaction_cannot_copy_is_missed_after_a_kill, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_change_while_l2_catches_up_leaves_no_older_record_there,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_tier_that_fails_again_soon_is_probed_less_often, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(
            closing_while_the_index_is_read_takes_nothing_from_a_full_l3, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
