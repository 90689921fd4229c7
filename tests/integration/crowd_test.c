/* A thousand clients at once: all are served; idle and hostile ones spoil nothing for a good one.
 * How fast, `./dev bench crowd` says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <signal.h>
#include <time.h>

#include <cmocka.h>

#include <proxytier/client.h>

#include "support/crowd.h"
#include "support/mirrors.h"

#define CROWD   999
#define RATE    2000
#define CALLS   2000
#define RECORDS 100

typedef struct box {
    test_daemon daemon;
    ptier_client *client;
    char key[24];
} box;

static int
set_up(void **state)
{
    box *b = calloc(1, sizeof *b);
    assert_non_null(b);
    crowd_raise_limit();
    test_daemon_init(&b->daemon);
    test_daemon_start(&b->daemon, NULL);
    b->client = test_client_open(&b->daemon, 30000);
    test_put_range(b->client, 0, RECORDS, "one");
    test_key(3, b->key);
    *state = b;
    return 0;
}

static int
tear_down(void **state)
{
    box *b = *state;
    ptier_client_close(b->client);
    test_daemon_fini(&b->daemon);
    free(b);
    return 0;
}

static void
call_without_error(const box *b, unsigned calls)
{
    for (unsigned i = 0; i < calls; i++) {
        ptier_records records = {0};
        ptier_error error;
        if (ptier_get(b->client, b->key, &records, &error) != PTIER_OK)
            fail_msg("call %u: %s", i, error.message);
        ptier_records_free(&records);
    }
}

static void
a_thousand_clients_at_once_are_all_served(void **state)
{
    box *b = *state;
    crowd others;
    crowd_start(&others, b->daemon.url, CROWD_CALLS, CROWD, b->key, 0);
    call_without_error(b, CALLS); /* the thousandth, while they are there */
    assert_int_equal(crowd_stop(&others), CROWD);
}

static void
hostile_ones_cause_no_error(void **state)
{
    box *b = *state;
    crowd others;
    crowd_start(&others, b->daemon.url, CROWD_HOSTILE, CROWD, b->key, RATE);
    struct timespec begun, now;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    do { /* for three seconds: so many actions that each kind comes from each of them */
        call_without_error(b, 50);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec - begun.tv_sec < 3);
    assert_true(crowd_stop(&others) > 100);
    call_without_error(b, CALLS);
    assert_int_equal(test_daemon_end(&b->daemon, SIGTERM), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_thousand_clients_at_once_are_all_served),
        TEST(hostile_ones_cause_no_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
