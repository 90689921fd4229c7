/*
 * Bursts of changes with four subscribers, each a process of its own: one is stopped meanwhile, one
 * comes late. Whatever their way, by replay or by resync: in the end each holds what the daemon
 * holds, and was told in order, each event once. PTIER_BURST=200000 is the long form (changes; the
 * stop is then 10 s).
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/mirrors.h"
#include "support/monotonic.h"

#define SHORT_BURST 40000
#define MIRRORS     4
#define HEAVY                                                                                      \
    20000 /* records of 2 KiB: more than the 1,024 messages that are kept for a slow one */

static unsigned
burst_size(void)
{
    const char *text = getenv("PTIER_BURST");
    unsigned long size = text ? strtoul(text, NULL, 10) : 0;
    return size >= 1000 && size <= 10000000 ? (unsigned)size : SHORT_BURST;
}

/* Exactly `changes` changes: records made, written again, removed, and written anew. */
static void
make_changes(ptier_client *client, unsigned from, unsigned changes)
{
    for (unsigned done = 0; done < changes;) {
        unsigned left = changes - done, step = left < 4000 ? left / 4 : 1000;
        if (step == 0) {
            test_put_range(client, from, left, "rest");
            return;
        }
        test_put_range(client, from, step, "first");
        test_put_range(client, from, step, "again");
        assert_int_equal(test_delete_range(client, from, step), step);
        test_put_range(client, from, step, "anew");
        done += 4 * step;
        from += step / 2; /* half of them are met again */
    }
}

typedef struct burst_outcome {
    mirror_report reports[MIRRORS];
} burst_outcome;

static burst_outcome
run_burst(const char *journal_events, unsigned heavy)
{
    const char *const arguments[] = {"--journal-events", journal_events, "--default-ttl", "0",
                                     NULL};
    const unsigned size = burst_size();
    const int64_t stop_ms = size > SHORT_BURST ? 10000 : 1500;
    ptier_test_program mirrors[MIRRORS];
    burst_outcome outcome;
    test_daemon daemon;

    test_daemon_init(&daemon);
    test_daemon_start(&daemon, arguments);
    ptier_client *client = test_client_open(&daemon, 30000);
    test_put_range(client, 0, 1000, "before");
    for (int i = 0; i < MIRRORS - 1; i++)
        mirror_start(&mirrors[i], &daemon, 0);
    for (int i = 0; i < MIRRORS - 1; i++)
        mirror_wait_following(&mirrors[i]);

    make_changes(client, 0, size / 4);
    ptier_test_program_signal(&mirrors[0], SIGSTOP);
    const int64_t stopped = ptier_test_now();
    make_changes(client, size, size / 4);
    test_put_heavy(client, 0, heavy);
    mirror_start(&mirrors[MIRRORS - 1], &daemon, 0); /* comes in the middle */
    make_changes(client, size / 2, size / 2);
    while (ptier_test_now() - stopped < stop_ms) {
        const struct timespec pause = {.tv_nsec = 10000000};
        nanosleep(&pause, NULL);
    }
    ptier_test_program_signal(&mirrors[0], SIGCONT);
    mirror_put_sentinel(client);
    for (int i = 0; i < MIRRORS; i++)
        outcome.reports[i] = mirror_check(&mirrors[i], client);
    ptier_client_close(client);
    assert_int_equal(test_daemon_end(&daemon, SIGTERM), 0);
    test_daemon_fini(&daemon);
    return outcome;
}

static void
all_subscribers_hold_all_by_replay(void **state)
{
    (void)state;
    burst_outcome outcome = run_burst("1000000", 0);
    for (int i = 0; i < MIRRORS - 1; i++) { /* they were there from the start: every event */
        assert_int_equal(outcome.reports[i].resyncs, 0);
        assert_int_equal(outcome.reports[i].events, burst_size() + 1);
    }
    assert_int_equal(outcome.reports[MIRRORS - 1].resyncs, 0);
}

static void
all_subscribers_hold_all_by_resync(void **state)
{
    (void)state;
    burst_outcome outcome = run_burst("1000", HEAVY);
    assert_true(outcome.reports[0].resyncs > 0); /* it cannot have heard it all */
}

/* ---- subscribers that never read ---- */

static int
connect_and_never_read(const test_daemon *daemon)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const uint8_t hello[8] = {0, 'S', 'P', 0, 0, 0x21, 0, 0};
    uint8_t theirs[8];
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s",
                   daemon->events_url + strlen("ipc://"));
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(send(fd, hello, sizeof hello, MSG_NOSIGNAL), sizeof hello);
    assert_int_equal(recv(fd, theirs, sizeof theirs, MSG_WAITALL), sizeof theirs);
    return fd;
}

static long
resident_kib(const test_daemon *daemon)
{
    char path[64], line[256];
    long kib = -1;
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)daemon->pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "VmRSS: %ld", &kib) == 1)
            break;
    fclose(file);
    assert_true(kib > 0);
    return kib;
}

/* What 100,000 changes of the same 500 records add to the daemon, with so many that never read. */
static long
grown_kib(int count)
{
    const char *const arguments[] = {"--journal-events", "1000", "--default-ttl", "0", NULL};
    int fds[30];
    test_daemon daemon;
    assert_true(count <= 30);
    test_daemon_init(&daemon);
    test_daemon_start(&daemon, arguments);
    ptier_client *client = test_client_open(&daemon, 30000);
    for (int i = 0; i < count; i++)
        fds[i] = connect_and_never_read(&daemon);
    test_put_range(client, 0, 500, "before");
    long before = resident_kib(&daemon);
    for (int i = 0; i < 200; i++)
        test_put_range(client, 0, 500, "again");
    long after = resident_kib(&daemon);
    for (int i = 0; i < count; i++)
        close(fds[i]);
    ptier_client_close(client);
    assert_int_equal(test_daemon_end(&daemon, SIGTERM), 0);
    test_daemon_fini(&daemon);
    return after - before;
}

/* A copy for each would be 30 x 20 MiB. */
static void
subscribers_that_never_read_cost_bounded_memory(void **state)
{
    (void)state;
    long without = grown_kib(0), with = grown_kib(30);
    if (with - without > 64 * 1024)
        fail_msg("%ld KiB, where %ld KiB without them", with, without);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_subscribers_hold_all_by_replay),
        cmocka_unit_test(all_subscribers_hold_all_by_resync),
        cmocka_unit_test(subscribers_that_never_read_cost_bounded_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
