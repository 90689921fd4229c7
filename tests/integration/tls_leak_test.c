/* Clients over tls that close before their reply: nng would keep the connection, its descriptor and
 * 44 KiB of each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <signal.h>
#include <time.h>

#include <cmocka.h>

#include "support/process_use.h"
#include "support/raw_client.h"
#include "support/security_box.h"

#include "framing.h"
#include "proxytier/v1/rpc.pb-c.h"

#define CLIENTS     60
#define TIMEOUT_MS  20000
#define PATIENCE_MS 20000

static void
move(nng_stream *stream, nng_aio *aio, void (*what)(nng_stream *, nng_aio *), void *bytes,
     size_t length)
{
    nng_iov iov = {bytes, length};
    assert_int_equal(nng_aio_set_iov(aio, 1, &iov), 0);
    what(stream, aio);
    nng_aio_wait(aio);
    assert_int_equal(nng_aio_result(aio), 0);
}

/* Greets, asks, and is gone. */
static void
ask_and_go(const security_box *box, nng_tls_config *tls, nng_aio *aio)
{
    Proxytier__V1__RequestHeader header = PROXYTIER__V1__REQUEST_HEADER__INIT;
    uint8_t hello[8] = {0, 'S', 'P', 0, 0, 0x30, 0, 0}, request[256] = {0};
    nng_stream_dialer *dialer;
    header.method =
        (char *)(uintptr_t) "/proxytier.v1.Reflection/GetDescriptors"; /* a large reply */
    header.token = (char *)(uintptr_t)box->tokens[PTIER_ROLE_ADMIN];
    size_t packed = proxytier__v1__request_header__pack(&header, request + 16);
    request[7] = (uint8_t)(8 + packed);
    ptier_frame_prefix(request + 8, UINT32_C(0x80000001));
    ptier_frame_prefix(request + 12, packed);
    assert_int_equal(nng_stream_dialer_alloc(&dialer, box->tls_url), 0);
    assert_int_equal(nng_stream_dialer_set_ptr(dialer, NNG_OPT_TLS_CONFIG, tls), 0);
    nng_stream_dialer_dial(dialer, aio);
    nng_aio_wait(aio);
    assert_int_equal(nng_aio_result(aio), 0);
    nng_stream *stream = nng_aio_get_output(aio, 0);
    move(stream, aio, nng_stream_send, hello, sizeof hello);
    move(stream, aio, nng_stream_recv, hello, sizeof hello);
    move(stream, aio, nng_stream_send, request, 16 + packed);
    nng_stream_close(stream);
    nng_stream_free(stream);
    nng_stream_dialer_close(dialer);
    nng_stream_dialer_free(dialer);
}

static void
clients_that_close_before_their_reply_leak_nothing(void **state)
{
    const struct timespec pause = {.tv_nsec = 20000000};
    security_box *box = *state;
    nng_aio *aio;
    security_box_start(box, true, (const char *[]){"--core-dumps", "on", NULL});
    nng_tls_config *tls = security_box_tls(box, "ca", "client", SECURITY_BOX_HOST);
    assert_int_equal(nng_aio_alloc(&aio, NULL, NULL), 0);
    nng_aio_set_timeout(aio, TIMEOUT_MS);
    ask_and_go(box, tls, aio); /* opens what stays open */
    process_use before = process_use_settled(box->daemon.pid), now = {0};
    assert_true(before.descriptors > 0);
    for (unsigned i = 0; i < CLIENTS; i++)
        ask_and_go(box, tls, aio);
    for (unsigned waited = 0; waited < PATIENCE_MS; waited += 20) {
        now = process_use_of(box->daemon.pid);
        if (now.descriptors <= before.descriptors)
            break;
        nanosleep(&pause, NULL);
    }
    assert_in_range(now.descriptors, 1, before.descriptors);
    nng_aio_free(aio);
    nng_tls_config_free(tls);
    assert_int_equal(test_daemon_end(&box->daemon, SIGTERM), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(clients_that_close_before_their_reply_leak_nothing,
                                        security_box_set_up, security_box_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
