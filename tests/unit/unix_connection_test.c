/*
 * server/unix_connection.c at one end of a pair of sockets, the test at the other: who gets in,
 * what is answered, who is cut off and when. Time is the caller's, so that nobody waits for it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "framing.h"
#include "proxytier/v1/info.pb-c.h"
#include "proxytier/v1/rpc.pb-c.h"
#include "unix_connection.h"

#define SCRATCH  65536
#define SECOND   ((int64_t)1000)
#define FIRST_ID 0x80000001u

typedef struct fixture {
    ptier_service service;
    ptier_gate gate;
    ptier_front front;
    ptier_unix_requests requests;
    ptier_unix_connection *connection; /* NULL: closed */
    int epoll, peer;
    uint8_t scratch[SCRATCH];
    uint8_t frame[1024]; /* a call of Health.Check, without id */
    size_t frame_length;
} fixture;

static void
make_frame(fixture *f)
{
    Proxytier__V1__RequestHeader header = PROXYTIER__V1__REQUEST_HEADER__INIT;
    header.method = (char *)(uintptr_t) "/proxytier.v1.Health/Check";
    uint8_t *message = f->frame + PTIER_SP_HEAD_BYTES + PTIER_SP_ID_BYTES;
    size_t length = proxytier__v1__request_header__pack(&header, message + PTIER_FRAME_PREFIX);
    ptier_frame_prefix(message, length);
    length += PTIER_FRAME_PREFIX + PTIER_SP_ID_BYTES;
    ptier_sp_put_head(f->frame, length);
    f->frame_length = PTIER_SP_HEAD_BYTES + length;
}

static int
set_up(void **state)
{
    const ptier_dispatch_limits limits = {
        .in_flight = 100,
        .lane = {[PTIER_LANE_READ] = 10, [PTIER_LANE_WRITE] = 10},
        .dedup = {.entries = 100, .outcome_bytes = 100000, .window_ms = 60000}};
    int pair[2];
    fixture *f = calloc(1, sizeof *f);
    ptier_cache_options options;
    assert_non_null(f);
    ptier_cache_options_init(&options);
    options.l2_enabled = options.l3_enabled = false;
    assert_int_equal(ptier_cache_open(&options, &f->service.cache, NULL), PTIER_OK);
    assert_int_equal(ptier_log_open("/dev/null", PTIER_LOG_ERROR, &f->service.log, NULL), PTIER_OK);
    ptier_gate_init(&f->gate, 10, NULL, NULL, f->service.log);
    f->service.gate = &f->gate;
    ptier_front_init(&f->front, &f->service);
    assert_int_equal(ptier_dispatch_start(&f->service, &limits, &f->front.dispatch, NULL),
                     PTIER_OK);
    ptier_unix_requests_init(&f->requests);
    make_frame(f);
    f->epoll = epoll_create1(EPOLL_CLOEXEC);
    assert_true(f->epoll >= 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    f->peer = pair[1];
    f->connection =
        ptier_unix_connection_create(&f->front, &f->requests, f->epoll, pair[0], FIRST_ID);
    assert_non_null(f->connection);
    *state = f;
    return 0;
}

static int
tear_down(void **state)
{
    fixture *f = *state;
    ptier_dispatch_drain(f->front.dispatch);
    if (f->connection)
        ptier_unix_connection_close(f->connection);
    assert_int_equal(atomic_load(&f->front.busy), 0);
    assert_int_equal(atomic_load(&f->gate.count), 0);
    close(f->peer);
    close(f->epoll);
    ptier_dispatch_destroy(f->front.dispatch);
    ptier_unix_requests_fini(&f->requests);
    ptier_front_fini(&f->front);
    ptier_gate_fini(&f->gate);
    ptier_log_close(f->service.log);
    ptier_cache_close(f->service.cache);
    free(f);
    return 0;
}

static bool
read_once(fixture *f)
{
    return ptier_unix_connection_read(f->connection, f->scratch, sizeof f->scratch);
}

static void
send_bytes(fixture *f, const void *bytes, size_t count)
{
    assert_int_equal(send(f->peer, bytes, count, MSG_NOSIGNAL), count);
}

static void
greet(fixture *f, uint8_t protocol)
{
    uint8_t ours[PTIER_SP_GREETING_BYTES], theirs[PTIER_SP_GREETING_BYTES];
    assert_int_equal(recv(f->peer, theirs, sizeof theirs, 0), sizeof theirs);
    assert_true(ptier_sp_greets(theirs, PTIER_SP_REP));
    ptier_sp_greeting(ours, protocol);
    send_bytes(f, ours, sizeof ours);
}

static void
set_id(fixture *f, uint32_t id)
{
    for (int i = 0; i < 4; i++)
        f->frame[PTIER_SP_HEAD_BYTES + i] = (uint8_t)(id >> (24 - 8 * i));
}

/* Reads one reply to a call of that id. */
static void
assert_answered(fixture *f, const uint8_t *trace, size_t trace_length)
{
    uint8_t head[PTIER_SP_HEAD_BYTES], body[2048];
    uint64_t length;
    assert_int_equal(recv(f->peer, head, sizeof head, 0), sizeof head);
    assert_true(ptier_sp_get_head(head, &length));
    assert_true(length > trace_length && length <= sizeof body);
    assert_int_equal(recv(f->peer, body, length, 0), length);
    assert_memory_equal(body, trace, trace_length);
    ptier_frame frame;
    assert_int_equal(ptier_frame_split(body + trace_length, length - trace_length, &frame, NULL),
                     PTIER_OK);
    Proxytier__V1__ResponseHeader *header =
        proxytier__v1__response_header__unpack(NULL, frame.header_length, frame.header);
    assert_non_null(header);
    assert_int_equal(header->code, PROXYTIER__V1__STATUS_CODE__STATUS_CODE_OK);
    proxytier__v1__response_header__free_unpacked(header, NULL);
}

static void
assert_nothing_comes(fixture *f)
{
    uint8_t byte;
    assert_int_equal(recv(f->peer, &byte, 1, 0), -1);
    assert_int_equal(errno, EAGAIN);
}

static void
calls_are_answered_with_their_ids(void **state)
{
    fixture *f = *state;
    greet(f, PTIER_SP_REQ);
    for (uint32_t id = FIRST_ID; id < FIRST_ID + 3; id++) {
        set_id(f, id);
        send_bytes(f, f->frame, f->frame_length);
    }
    assert_true(read_once(f));
    for (uint32_t id = FIRST_ID; id < FIRST_ID + 3; id++) {
        set_id(f, id);
        assert_answered(f, f->frame + PTIER_SP_HEAD_BYTES, PTIER_SP_ID_BYTES);
    }
    assert_nothing_comes(f);
}

static void
devices_on_the_way_get_their_ids_back(void **state)
{
    fixture *f = *state;
    const uint8_t trace[] = {0, 0, 0, 7, 0, 0, 0, 9, 0x80, 0, 0, 1};
    const uint8_t *message = f->frame + PTIER_SP_HEAD_BYTES + PTIER_SP_ID_BYTES;
    size_t length = f->frame_length - PTIER_SP_HEAD_BYTES - PTIER_SP_ID_BYTES;
    uint8_t head[PTIER_SP_HEAD_BYTES];
    greet(f, PTIER_SP_REQ);
    ptier_sp_put_head(head, sizeof trace + length);
    send_bytes(f, head, sizeof head);
    send_bytes(f, trace, sizeof trace);
    send_bytes(f, message, length);
    assert_true(read_once(f));
    assert_answered(f, trace, sizeof trace);
}

static void
a_message_without_an_id_is_dropped(void **state)
{
    fixture *f = *state;
    greet(f, PTIER_SP_REQ);
    memset(f->frame + PTIER_SP_HEAD_BYTES, 0, f->frame_length - PTIER_SP_HEAD_BYTES);
    send_bytes(f, f->frame, f->frame_length);
    assert_true(read_once(f));
    assert_nothing_comes(f);
}

static void
another_protocol_is_shown_the_door(void **state)
{
    fixture *f = *state;
    greet(f, 0x21); /* SUB */
    assert_false(read_once(f));
}

static void
beyond_the_limit_nobody_is_let_in(void **state)
{
    fixture *f = *state;
    const ptier_peer peer = {.role = PTIER_ROLE_ADMIN};
    for (uint32_t i = 0; i < 10; i++)
        assert_true(ptier_gate_enter(&f->gate, &peer, FIRST_ID + 1 + i));
    greet(f, PTIER_SP_REQ);
    assert_false(read_once(f));
    for (uint32_t i = 0; i < 10; i++)
        ptier_gate_leave(&f->gate, FIRST_ID + 1 + i);
}

static void
a_greeting_is_waited_for_only_so_long(void **state)
{
    fixture *f = *state;
    int64_t now = ptier_monotonic_ms();
    send_bytes(f, "\0SP", 3);
    assert_true(read_once(f));
    assert_false(ptier_unix_connection_is_overdue(f->connection, now + 9 * SECOND));
    assert_true(ptier_unix_connection_is_overdue(f->connection, now + 11 * SECOND));
}

static void
the_rest_of_a_message_is_waited_for_only_so_long(void **state)
{
    fixture *f = *state;
    greet(f, PTIER_SP_REQ);
    set_id(f, FIRST_ID);
    send_bytes(f, f->frame, f->frame_length);
    assert_true(read_once(f));
    int64_t now = ptier_monotonic_ms();
    assert_false(ptier_unix_connection_is_overdue(f->connection, now + 3600 * SECOND)); /* idle */
    send_bytes(f, f->frame, f->frame_length - 1);
    assert_true(read_once(f));
    now = ptier_monotonic_ms();
    assert_false(ptier_unix_connection_is_overdue(f->connection, now + 29 * SECOND));
    assert_true(ptier_unix_connection_is_overdue(f->connection, now + 31 * SECOND));
}

/* Each whole message begins the time anew: a busy connection always owes something. */
static void
a_busy_connection_is_never_overdue(void **state)
{
    fixture *f = *state;
    uint8_t reply[4096];
    greet(f, PTIER_SP_REQ);
    set_id(f, FIRST_ID);
    send_bytes(f, f->frame, 5);
    assert_true(read_once(f));
    f->connection->owing_since_ms = 1; /* long ago */
    send_bytes(f, f->frame + 5, f->frame_length - 5);
    send_bytes(f, f->frame, 5);
    assert_true(read_once(f));
    assert_true(recv(f->peer, reply, sizeof reply, 0) > 0);
    assert_false(ptier_unix_connection_is_overdue(f->connection, ptier_monotonic_ms()));
}

static void
replies_that_are_not_taken_end_it(void **state)
{
    fixture *f = *state;
    greet(f, PTIER_SP_REQ);
    set_id(f, FIRST_ID);
    size_t sent = 0;
    while (f->connection->stuck_since_ms == 0 && sent++ < 100000) {
        send_bytes(f, f->frame, f->frame_length);
        assert_true(read_once(f));
    }
    int64_t now = ptier_monotonic_ms();
    assert_true(sent < 100000);
    assert_false(ptier_unix_connection_is_overdue(f->connection, now));
    assert_true(ptier_unix_connection_is_overdue(f->connection, now + SECOND));
}

/* What was stuck goes on when it is taken, in order and whole. */
static void
replies_that_were_stuck_go_out_later(void **state)
{
    fixture *f = *state;
    greet(f, PTIER_SP_REQ);
    uint32_t id = FIRST_ID, answered = FIRST_ID;
    for (int more = 3000; more > 0; more -= f->connection->stuck_since_ms != 0) {
        set_id(f, id++);
        send_bytes(f, f->frame, f->frame_length);
        assert_true(read_once(f));
    }
    assert_true(f->connection->out.length > 100000); /* more than goes out at once */
    for (; answered < id; answered++) {
        set_id(f, answered);
        assert_answered(f, f->frame + PTIER_SP_HEAD_BYTES, PTIER_SP_ID_BYTES);
        if (f->connection->stuck_since_ms != 0)
            assert_true(ptier_unix_connection_write(f->connection));
    }
    assert_int_equal(f->connection->stuck_since_ms, 0);
    assert_nothing_comes(f);
}

static void
the_end_of_the_peer_ends_it(void **state)
{
    fixture *f = *state;
    greet(f, PTIER_SP_REQ);
    assert_true(read_once(f));
    assert_true(read_once(f)); /* nothing there is no end */
    assert_int_equal(shutdown(f->peer, SHUT_RDWR), 0);
    assert_false(read_once(f));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(calls_are_answered_with_their_ids, set_up, tear_down),
        cmocka_unit_test_setup_teardown(devices_on_the_way_get_their_ids_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_message_without_an_id_is_dropped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(another_protocol_is_shown_the_door, set_up, tear_down),
        cmocka_unit_test_setup_teardown(beyond_the_limit_nobody_is_let_in, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_greeting_is_waited_for_only_so_long, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_rest_of_a_message_is_waited_for_only_so_long, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_busy_connection_is_never_overdue, set_up, tear_down),
        cmocka_unit_test_setup_teardown(replies_that_are_not_taken_end_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(replies_that_were_stuck_go_out_later, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_end_of_the_peer_ends_it, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
