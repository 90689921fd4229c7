/* How many calls a daemon takes at a time: of one connection, and beside it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "framing.h"
#include "proxytier/v1/cache.pb-c.h"
#include "support/daemon.h"
#include "support/raw_client.h"

#include <nng/protocol/reqrep0/req.h>

#define CALLS            110
#define CONNECTION_LIMIT 64
#define KEYS             10000

typedef struct slow_call {
    nng_ctx ctx;
    nng_aio *aio;
} slow_call;

static int
set_up(void **state)
{
    test_daemon_set_up(state);
    test_daemon_start(*state, NULL);
    return 0;
}

/* GetMany of as many keys as there may be, none of which is there: some milliseconds of work. */
static nng_msg *
slow_message(void)
{
    Proxytier__V1__RequestHeader header = PROXYTIER__V1__REQUEST_HEADER__INIT;
    uint8_t head[200];
    nng_msg *message;
    header.method = (char *)(uintptr_t) "/proxytier.v1.ProxyCache/GetMany";
    header.timeout_ms = 60000;
    size_t length = proxytier__v1__request_header__pack(&header, head + PTIER_FRAME_PREFIX);
    ptier_frame_prefix(head, length);
    assert_int_equal(nng_msg_alloc(&message, 0), 0);
    assert_int_equal(nng_msg_append(message, head, PTIER_FRAME_PREFIX + length), 0);
    for (unsigned i = 0; i < KEYS; i++) {
        uint8_t key[] = {0x0a, 4, '0', '0', '0', '0'};
        for (unsigned digit = 0, rest = i; digit < 4; digit++, rest /= 10)
            key[2 + digit] = (uint8_t)('0' + rest % 10);
        assert_int_equal(nng_msg_append(message, key, sizeof key), 0);
    }
    return message;
}

/* All but the sending, so that the calls come close together. */
static void
prepare(slow_call *call, nng_socket socket)
{
    assert_int_equal(nng_ctx_open(&call->ctx, socket), 0);
    assert_int_equal(nng_ctx_set_ms(call->ctx, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE), 0);
    assert_int_equal(nng_aio_alloc(&call->aio, NULL, NULL), 0);
    nng_aio_set_timeout(call->aio, 60000);
    nng_aio_set_msg(call->aio, slow_message());
}

static ptier_status
end(slow_call *call, char message[300])
{
    ptier_frame frame;
    nng_aio_wait(call->aio);
    assert_int_equal(nng_aio_result(call->aio), 0);
    nng_ctx_recv(call->ctx, call->aio);
    nng_aio_wait(call->aio);
    assert_int_equal(nng_aio_result(call->aio), 0);
    nng_msg *reply = nng_aio_get_msg(call->aio);
    assert_int_equal(ptier_frame_split(nng_msg_body(reply), nng_msg_len(reply), &frame, NULL),
                     PTIER_OK);
    Proxytier__V1__ResponseHeader *header =
        proxytier__v1__response_header__unpack(NULL, frame.header_length, frame.header);
    assert_non_null(header);
    ptier_status status = (ptier_status)header->code;
    (void)snprintf(message, 300, "%s", header->message);
    proxytier__v1__response_header__free_unpacked(header, NULL);
    nng_msg_free(reply);
    nng_aio_free(call->aio);
    (void)nng_ctx_close(call->ctx); /* fails only for a bad handle */
    return status;
}

static void
expect_answer(raw_client *client)
{
    Proxytier__V1__GetManyRequest few = PROXYTIER__V1__GET_MANY_REQUEST__INIT;
    raw_reply reply = raw_client_call(client, "/proxytier.v1.ProxyCache/GetMany", &few.base,
                                      &proxytier__v1__get_many_response__descriptor);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    raw_reply_free(&reply);
}

/* All calls at once over one connection, and one over another meanwhile. Returns how many were
 * refused. */
static unsigned
crowd(raw_client *greedy, raw_client *other)
{
    static slow_call calls[CALLS];
    unsigned refused = 0;
    for (unsigned i = 0; i < CALLS; i++)
        prepare(&calls[i], greedy->socket);
    for (unsigned i = 0; i < CALLS; i++)
        nng_ctx_send(calls[i].ctx, calls[i].aio);
    expect_answer(other);
    for (unsigned i = 0; i < CALLS; i++) {
        char message[300];
        ptier_status status = end(&calls[i], message);
        if (status == PTIER_OK)
            continue;
        assert_int_equal(status, PTIER_RESOURCE_EXHAUSTED);
        assert_non_null(strstr(message, "on one connection"));
        refused++;
    }
    return refused;
}

static void
one_connection_has_a_bound_and_leaves_room_for_others(void **state)
{
    test_daemon *daemon = *state;
    raw_client greedy, other;
    unsigned refused = 0;
    raw_client_open(&greedy, daemon->url);
    raw_client_open(&other, daemon->url);
    expect_answer(&greedy);
    expect_answer(&other);
    /* Once is enough, but the workers may be quicker than the calls come. */
    for (unsigned i = 0; i < 20 && refused == 0; i++)
        refused = crowd(&greedy, &other);
    assert_in_range(refused, 1, CALLS - CONNECTION_LIMIT);
    raw_client_close(&greedy);
    raw_client_close(&other);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_connection_has_a_bound_and_leaves_room_for_others,
                                        set_up, test_daemon_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
