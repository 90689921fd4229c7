/*
 * The log's file fails while callers wait for it: what they are told holds, and the order of
 * changes does too. write() is replaced in this program: it can hold the leader of a log group
 * back, and then fail.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/cache_box.h"

enum { WAITING = 3 };

static atomic_bool hold, fail_writes;
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

static ptier_test_box box;

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

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(puts_behind_a_failing_log_are_acknowledged_once_l3_has_them,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_put_behind_a_failing_log_does_not_overtake_its_delete,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_change_while_l2_catches_up_leaves_no_older_record_there,
                                        set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
