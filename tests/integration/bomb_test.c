/* A daemon that is sent small messages that would be large, or deep, when unpacked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <signal.h>

#include <cmocka.h>

#include "framing.h"
#include "proxytier/v1/info.pb-c.h"
#include "support/bombs.h"
#include "support/daemon.h"
#include "support/raw_client.h"

#define MESSAGE_MAX ((size_t)16 * 1024 * 1024)
#define BODY_MAX    (MESSAGE_MAX - PTIER_HEADER_MAX)
#define ROUNDS      3
/* The message as nng gets it, once more while it is received, and what the heap keeps of it. */
#define GROWTH_MAX_KB 81920

static int
set_up(void **state)
{
    test_daemon_set_up(state);
    test_daemon_start(*state, NULL);
    return 0;
}

/* Most memory that the daemon has had so far, in kB. */
static long
peak_of(const test_daemon *daemon)
{
    char path[64], line[200];
    long peak = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)daemon->pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file))
        if (strncmp(line, "VmHWM:", 6) == 0)
            peak = strtol(line + 6, NULL, 10);
    fclose(file);
    assert_true(peak > 0);
    return peak;
}

static void
bombs_are_answered_with_invalid_argument_in_bounded_memory(void **state)
{
    test_daemon *daemon = *state;
    raw_client client;
    raw_client_open(&client, daemon->url);
    uint8_t *body = malloc(BODY_MAX);
    assert_non_null(body);
    long before = peak_of(daemon);
    for (size_t i = 0; i < bomb_count * ROUNDS; i++) {
        const bomb *b = &bombs[i % bomb_count];
        size_t length = b->fill(body, BODY_MAX);
        Proxytier__V1__RequestHeader header = PROXYTIER__V1__REQUEST_HEADER__INIT;
        header.method = (char *)(uintptr_t)b->method;
        raw_reply reply = raw_client_call_bytes(&client, &header, body, length, NULL);
        assert_int_equal(raw_status(&reply), PTIER_INVALID_ARGUMENT);
        assert_non_null(strstr(reply.header->message, b->message));
        raw_reply_free(&reply);
    }
#if !defined(__SANITIZE_ADDRESS__) /* which keeps what was freed */
    assert_in_range(peak_of(daemon) - before, 0, GROWTH_MAX_KB);
#else
    (void)before;
#endif
    Proxytier__V1__CheckRequest check = PROXYTIER__V1__CHECK_REQUEST__INIT;
    raw_reply reply = raw_client_call(&client, "/proxytier.v1.Health/Check", &check.base,
                                      &proxytier__v1__check_response__descriptor);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    raw_reply_free(&reply);
    free(body);
    raw_client_close(&client);
    assert_int_equal(test_daemon_end(daemon, SIGTERM), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(bombs_are_answered_with_invalid_argument_in_bounded_memory,
                                        set_up, test_daemon_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
