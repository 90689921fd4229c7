/* The SDK's own link over unix sockets, against peers that a test drives byte by byte. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <proxytier/async.h>
#include <proxytier/client.h>

#include "sp_wire.h"
#include "support/monotonic.h"
#include "support/sp_peer.h"

#define GET         "/proxytier.v1.ProxyCache/Get" /* may be sent twice; nothing is asked before */
#define LARGE       900000
#define PATIENCE_MS 20000
#define LATE_MS     3000 /* what a busy machine may add */

static ptier_client *
open_client(const sp_peer *peer, uint32_t timeout_ms)
{
    ptier_client_options options;
    ptier_client *client;
    ptier_client_options_init(&options);
    options.url = peer->url;
    options.timeout_ms = timeout_ms;
    assert_int_equal(ptier_client_open(&options, &client, NULL), PTIER_OK);
    return client;
}

/* The peer answers with what it was sent. NULL, or what is wrong. */
static const char *
echo(ptier_client *client, const void *text, size_t length)
{
    static _Thread_local ptier_error error;
    void *reply;
    size_t reply_length;
    if (ptier_call_raw(client, GET, text, length, &reply, &reply_length, &error) != PTIER_OK)
        return error.message;
    bool same = reply_length == length && memcmp(reply, text, length) == 0;
    free(reply);
    return same ? NULL : "the answer to something else";
}

static void
assert_echo(ptier_client *client, const void *text, size_t length)
{
    const char *wrong = echo(client, text, length);
    if (wrong)
        fail_msg("%s", wrong);
}

static ptier_status
call(ptier_client *client, const void *body, size_t length, ptier_error *error)
{
    void *reply = NULL;
    size_t reply_length;
    ptier_status status = ptier_call_raw(client, GET, body, length, &reply, &reply_length, error);
    free(reply);
    return status;
}

/* ---- peers ---- */

static void
answer(int fd, const sp_request *request, size_t piece)
{
    uint8_t *reply = malloc(request->length + 200);
    assert_non_null(reply);
    uint8_t *end = sp_peer_put_reply(reply, request->id, 0, request->body, request->length);
    sp_peer_say(fd, reply, (size_t)(end - reply), piece);
    free(reply);
}

static void
answer_all(sp_peer *peer, int fd, size_t piece)
{
    sp_request request;
    while (sp_peer_receive(peer, fd, &request))
        answer(fd, &request, piece);
}

static void
answer_well(sp_peer *peer, int fd, unsigned number)
{
    (void)number;
    sp_peer_greet(peer, fd);
    answer_all(peer, fd, SIZE_MAX);
}

static void
answer_byte_by_byte(sp_peer *peer, int fd, unsigned number)
{
    (void)number;
    sp_peer_greet(peer, fd);
    answer_all(peer, fd, 1);
}

/* The requests of one read, backwards, in one write; between them what nobody asked for. */
static void
answer_in_another_order(sp_peer *peer, int fd, unsigned number)
{
    static uint8_t replies[300000];
    sp_request request;
    (void)number;
    sp_peer_greet(peer, fd);
    while (sp_peer_receive(peer, fd, &request)) {
        uint8_t *begin = replies + sizeof replies, scratch[400];
        unsigned count = 0;
        do {
            assert_true(request.length < 200);
            const uint32_t ids[] = {request.id, 0, request.id ^ 0x80000000, request.id + 64,
                                    UINT32_MAX};
            /* Gets of records end with NOT_FOUND: the test makes them asynchronously. */
            bool get = request.length > 1 && request.body[0] == 0x0a;
            for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
                uint8_t *end = sp_peer_put_reply(scratch, ids[i], get ? 5 : 0,
                                                 i == 0 && !get ? request.body : NULL,
                                                 i == 0 && !get ? request.length : 0);
                begin -= end - scratch;
                memcpy(begin, scratch, (size_t)(end - scratch));
            }
        } while (++count < 64 && sp_peer_hears(peer, fd, 1) && sp_peer_receive(peer, fd, &request));
        sp_peer_say(fd, begin, (size_t)(replies + sizeof replies - begin), SIZE_MAX);
    }
}

/* The first time. */
static void
answer_too_long(sp_peer *peer, int fd, unsigned number)
{
    uint8_t head[PTIER_SP_HEAD_BYTES];
    sp_request request;
    sp_peer_greet(peer, fd);
    if (number > 0) {
        answer_all(peer, fd, SIZE_MAX);
    } else if (sp_peer_receive(peer, fd, &request)) {
        ptier_sp_put_head(head, ((uint64_t)64 << 20) + 1);
        sp_peer_say(fd, head, sizeof head, SIZE_MAX);
        assert_true(sp_peer_hears(peer, fd, PATIENCE_MS)); /* the end */
    }
}

static void
end_amid_the_answer(sp_peer *peer, int fd, unsigned number)
{
    sp_request request;
    sp_peer_greet(peer, fd);
    if (number > 20) {
        answer_all(peer, fd, SIZE_MAX);
    } else if (sp_peer_receive(peer, fd, &request)) {
        uint8_t reply[400];
        uint8_t *end = sp_peer_put_reply(reply, request.id, 0, request.body, request.length);
        size_t part = number * 2 < (size_t)(end - reply) ? number * 2 : (size_t)(end - reply) - 1;
        sp_peer_say(fd, reply, part, SIZE_MAX);
    }
}

static void
answer_and_end(sp_peer *peer, int fd, unsigned number)
{
    sp_request request;
    (void)number;
    sp_peer_greet(peer, fd);
    if (sp_peer_receive(peer, fd, &request))
        answer(fd, &request, SIZE_MAX);
}

static void
greet_as_publisher(sp_peer *peer, int fd, unsigned number)
{
    uint8_t heard[64];
    size_t got = 0;
    (void)number;
    sp_peer_say(fd, (const uint8_t *)"\0SP\0\0\x20\0\0", PTIER_SP_GREETING_BYTES, SIZE_MAX);
    while (sp_peer_hears(peer, fd, PATIENCE_MS)) {
        ssize_t more = recv(fd, heard, sizeof heard, 0);
        if (more <= 0)
            break;
        got += (size_t)more;
    }
    assert_true(got <= PTIER_SP_GREETING_BYTES); /* nothing but the greeting */
    atomic_fetch_add(&peer->requests, 1);
}

/* Does not read until the test says so, or the other end is gone. */
static void
read_nothing(sp_peer *peer, int fd, unsigned number)
{
    (void)number;
    struct pollfd end = {.fd = fd, .events = POLLRDHUP};
    sp_peer_greet(peer, fd);
    while (!atomic_load(&peer->go) && !atomic_load(&peer->stopping))
        if (poll(&end, 1, 5) > 0)
            return;
    answer_all(peer, fd, SIZE_MAX);
}

/* Two requests, before it answers the second one. */
static void
answer_the_second(sp_peer *peer, int fd, unsigned number)
{
    sp_request first, second;
    uint8_t replies[400];
    (void)number;
    sp_peer_greet(peer, fd);
    if (!sp_peer_receive(peer, fd, &first) || !sp_peer_receive(peer, fd, &second))
        return;
    while (!atomic_load(&peer->go) && !atomic_load(&peer->stopping))
        (void)poll(NULL, 0, 2);
    uint8_t *end = sp_peer_put_reply(replies, first.id, 5, NULL, 0); /* nobody waits for it */
    end = sp_peer_put_reply(end, second.id, 5, NULL, 0);
    sp_peer_say(fd, replies, (size_t)(end - replies), SIZE_MAX);
    answer_all(peer, fd, SIZE_MAX);
}

/* Much that nobody asked for, after the first answer. */
static void
answer_and_flood(sp_peer *peer, int fd, unsigned number)
{
    static uint8_t flood[50000], junk[49000];
    sp_request request;
    (void)number;
    sp_peer_greet(peer, fd);
    if (!sp_peer_receive(peer, fd, &request))
        return;
    uint8_t *end = sp_peer_put_reply(flood, request.id, 5, NULL, 0);
    sp_peer_say(fd, flood, (size_t)(end - flood), SIZE_MAX);
    for (int i = 0; i < 60; i++) {
        end = sp_peer_put_reply(flood, request.id, 0, junk, sizeof junk);
        sp_peer_say(fd, flood, (size_t)(end - flood), SIZE_MAX);
    }
    atomic_store(&peer->go, true);
    answer_all(peer, fd, SIZE_MAX);
}

static void
hang_up_when_idle(sp_peer *peer, int fd, unsigned number)
{
    sp_peer_greet(peer, fd);
    if (number >= 2)
        answer_all(peer, fd, SIZE_MAX);
}

/* ---- cases ---- */

static void
replies_in_pieces_of_a_byte_are_whole(void **state)
{
    static uint8_t body[3000];
    sp_peer peer;
    (void)state;
    sp_peer_start(&peer, answer_byte_by_byte);
    ptier_client *client = open_client(&peer, 20000);
    for (size_t length = 0; length < sizeof body; length = length * 3 + 1) {
        memset(body, (int)length + 1, sizeof body);
        assert_echo(client, body, length);
    }
    ptier_client_close(client);
    sp_peer_stop(&peer);
}

static void
replies_of_many_sizes_are_whole(void **state)
{
    static uint8_t body[LARGE];
    sp_peer peer;
    (void)state;
    for (size_t i = 0; i < sizeof body; i++)
        body[i] = (uint8_t)(i * 7 + i / 256);
    sp_peer_start(&peer, answer_well);
    ptier_client *client = open_client(&peer, 20000);
    for (size_t length = 1; length < sizeof body; length += length / 3 + 1)
        assert_echo(client, body, length);
    assert_int_equal(atomic_load(&peer.accepted), 1);
    ptier_client_close(client);
    sp_peer_stop(&peer);
}

#define THREADS 16
#define CALLS   200

static void *
echo_often(void *argument)
{
    ptier_client *client = argument;
    for (int i = 0; i < CALLS; i++) {
        char text[64];
        snprintf(text, sizeof text, "%lu-%d", (unsigned long)pthread_self(), i);
        const char *wrong = echo(client, text, strlen(text));
        if (wrong)
            return (void *)(uintptr_t)wrong;
    }
    return NULL;
}

static void
start_echoing(ptier_client *client, pthread_t threads[THREADS])
{
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, echo_often, client), 0);
}

static void
join_echoing(pthread_t threads[THREADS])
{
    for (int i = 0; i < THREADS; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        if (wrong)
            fail_msg("%s", (const char *)wrong);
    }
}

static void
threads_get_their_own_replies_whatever_the_order(void **state)
{
    sp_peer peer;
    pthread_t threads[THREADS];
    (void)state;
    sp_peer_start(&peer, answer_in_another_order);
    ptier_client *client = open_client(&peer, 30000);
    start_echoing(client, threads);
    join_echoing(threads);
    assert_int_equal(atomic_load(&peer.requests), THREADS * CALLS);
    assert_int_equal(atomic_load(&peer.accepted), 1);
    ptier_client_close(client);
    sp_peer_stop(&peer);
}

static void
on_absent(void *context, ptier_async_result *result)
{
    atomic_uint *ended = context;
    if (result->status == PTIER_NOT_FOUND)
        atomic_fetch_add(ended, 1);
}

/* Both kinds read for each other. */
static void
asynchronous_calls_go_beside_those_that_wait(void **state)
{
    sp_peer peer;
    pthread_t threads[THREADS];
    atomic_uint ended = 0;
    (void)state;
    sp_peer_start(&peer, answer_in_another_order);
    ptier_client_options options;
    ptier_client *client;
    ptier_client_options_init(&options);
    options.url = peer.url;
    options.timeout_ms = 30000;
    options.separate_gets = true;
    assert_int_equal(ptier_client_open(&options, &client, NULL), PTIER_OK);
    start_echoing(client, threads);
    for (unsigned i = 1; i <= 2000; i++) {
        assert_int_equal(ptier_async_get(client, "absent", on_absent, &ended, NULL, NULL),
                         PTIER_OK);
        if (i % 100 == 0)
            sp_peer_wait(&ended, i - 50);
    }
    sp_peer_wait(&ended, 2000);
    join_echoing(threads);
    assert_int_equal(atomic_load(&peer.accepted), 1);
    ptier_client_close(client);
    sp_peer_stop(&peer);
}

static void
a_reply_that_is_too_long_costs_the_connection(void **state)
{
    sp_peer peer;
    (void)state;
    sp_peer_start(&peer, answer_too_long);
    ptier_client *client = open_client(&peer, 20000);
    assert_echo(client, "x", 1); /* at the second try */
    assert_int_equal(atomic_load(&peer.accepted), 2);
    ptier_client_close(client);
    sp_peer_stop(&peer);
}

static void
a_reply_that_ends_amid_is_none(void **state)
{
    sp_peer peer;
    (void)state;
    sp_peer_start(&peer, end_amid_the_answer);
    ptier_client *client = open_client(&peer, 20000);
    ptier_error error;
    while (call(client, "abc", 3, &error) != PTIER_OK) /* after its tries */
        assert_int_equal(error.status, PTIER_UNAVAILABLE);
    assert_true(atomic_load(&peer.accepted) > 21);
    assert_echo(client, "abc", 3);
    ptier_client_close(client);
    sp_peer_stop(&peer);
}

/* Each request was seen once: no reply was lost with its connection. */
static void
a_reply_before_the_end_of_the_connection_counts(void **state)
{
    enum { ROUNDS = 30 };
    sp_peer peer;
    (void)state;
    sp_peer_start(&peer, answer_and_end);
    ptier_client *client = open_client(&peer, 20000);
    for (int i = 0; i < ROUNDS; i++)
        assert_echo(client, &i, sizeof i);
    assert_int_equal(atomic_load(&peer.requests), ROUNDS);
    ptier_client_close(client);
    sp_peer_stop(&peer);
}

static void
whoever_greets_as_another_gets_nothing(void **state)
{
    sp_peer peer;
    ptier_error error;
    (void)state;
    sp_peer_start(&peer, greet_as_publisher);
    ptier_client *client = open_client(&peer, 10000);
    assert_int_equal(call(client, "x", 1, &error), PTIER_UNAVAILABLE);
    assert_non_null(strstr(error.message, "cannot connect"));
    sp_peer_wait(&peer.requests, 3); /* it goes on trying */
    ptier_client_close(client);
    sp_peer_stop(&peer);
}

static void
deadlines_hold_while_the_peer_reads_nothing(void **state)
{
    static uint8_t body[LARGE];
    sp_peer peer;
    ptier_error error;
    (void)state;
    sp_peer_start(&peer, read_nothing);
    ptier_client *client = open_client(&peer, 300);
    int64_t end = ptier_test_now() + PATIENCE_MS;
    while (atomic_load(&peer.accepted) < 2 && ptier_test_now() < end) {
        int64_t begun = ptier_test_now();
        ptier_status status = call(client, body, sizeof body, &error);
        assert_true(status == PTIER_DEADLINE_EXCEEDED || status == PTIER_UNAVAILABLE);
        assert_true(ptier_test_now() - begun < 300 + LATE_MS);
    }
    assert_true(atomic_load(&peer.accepted) >= 2); /* such a connection is given up */
    atomic_store(&peer.go, true);
    ptier_client *patient = open_client(&peer, 20000);
    ptier_client_close(client);
    assert_echo(patient, body, sizeof body);
    ptier_client_close(patient);
    sp_peer_stop(&peer);
}

/* The caller is gone, but its frame is half there. */
static void
a_request_that_has_begun_is_completed(void **state)
{
    static uint8_t body[LARGE];
    sp_peer peer;
    ptier_error error;
    (void)state;
    sp_peer_start(&peer, read_nothing);
    ptier_client *client = open_client(&peer, 100);
    assert_int_equal(call(client, body, sizeof body, &error), PTIER_DEADLINE_EXCEEDED);
    atomic_store(&peer.go, true);
    int64_t end = ptier_test_now() + PATIENCE_MS;
    while (echo(client, "next", 4) && ptier_test_now() < end)
        continue;
    assert_echo(client, "last", 4);
    assert_int_equal(atomic_load(&peer.accepted), 1);
    ptier_client_close(client);
    sp_peer_stop(&peer);
}

static void *
echo_large(void *argument)
{
    uint8_t *body = malloc(LARGE);
    assert_non_null(body);
    memset(body, 'x', LARGE);
    const char *wrong = NULL;
    for (int i = 0; i < 10 && !wrong; i++)
        wrong = echo(argument, body, LARGE);
    free(body);
    return (void *)(uintptr_t)wrong;
}

static void
large_requests_of_many_threads_are_whole(void **state)
{
    sp_peer peer;
    pthread_t threads[4];
    (void)state;
    sp_peer_start(&peer, answer_well);
    ptier_client *client = open_client(&peer, 30000);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, echo_large, client), 0);
    for (int i = 0; i < 4; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        if (wrong)
            fail_msg("%s", (const char *)wrong);
    }
    assert_int_equal(atomic_load(&peer.accepted), 1);
    ptier_client_close(client);
    sp_peer_stop(&peer);
}

static void
a_cancelled_call_ends_while_others_wait(void **state)
{
    sp_peer peer;
    ptier_async *calls[2];
    ptier_async_result result;
    ptier_client_options options;
    ptier_client *client;
    (void)state;
    sp_peer_start(&peer, answer_the_second);
    ptier_client_options_init(&options);
    options.url = peer.url;
    options.timeout_ms = 30000;
    options.separate_gets = true;
    assert_int_equal(ptier_client_open(&options, &client, NULL), PTIER_OK);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(ptier_async_get(client, "k", NULL, NULL, &calls[i], NULL), PTIER_OK);
        sp_peer_wait(&peer.requests, i + 1);
    }
    ptier_async_cancel(calls[0]);
    assert_true(ptier_async_wait(calls[0], PATIENCE_MS));
    assert_int_equal(ptier_async_take(calls[0], &result), PTIER_CANCELLED);
    assert_false(ptier_async_poll(calls[1]));
    atomic_store(&peer.go, true);
    assert_true(ptier_async_wait(calls[1], PATIENCE_MS));
    assert_int_equal(ptier_async_take(calls[1], &result), PTIER_NOT_FOUND);
    for (int i = 0; i < 2; i++)
        ptier_async_free(calls[i]);
    assert_echo(client, "x", 1);
    assert_int_equal(atomic_load(&peer.accepted), 1);
    ptier_client_close(client);
    sp_peer_stop(&peer);
}

static void
wait_for_the_flood(void *context, ptier_async_result *result)
{
    const sp_peer *peer = context;
    (void)result;
    for (int64_t end = ptier_test_now() + PATIENCE_MS;
         !atomic_load(&peer->go) && ptier_test_now() < end;)
        (void)poll(NULL, 0, 2);
}

/* A daemon ends connections over which it cannot send. */
static void
replies_are_taken_while_a_callback_is_slow(void **state)
{
    sp_peer peer;
    (void)state;
    sp_peer_start(&peer, answer_and_flood);
    ptier_client *client = open_client(&peer, 20000);
    assert_int_equal(ptier_async_get(client, "k", wait_for_the_flood, &peer, NULL, NULL), PTIER_OK);
    wait_for_the_flood(&peer, NULL);
    assert_true(atomic_load(&peer.go));
    assert_echo(client, "x", 1);
    ptier_client_close(client);
    sp_peer_stop(&peer);
}

/* The same between two calls. */
static void
replies_are_taken_while_nobody_waits(void **state)
{
    sp_peer peer;
    ptier_error error;
    (void)state;
    sp_peer_start(&peer, answer_and_flood);
    ptier_client *client = open_client(&peer, 20000);
    assert_int_equal(call(client, "x", 1, &error), PTIER_NOT_FOUND);
    wait_for_the_flood(&peer, NULL);
    assert_true(atomic_load(&peer.go));
    assert_echo(client, "x", 1);
    ptier_client_close(client);
    sp_peer_stop(&peer);
}

static void
a_lost_connection_is_noticed_without_a_call(void **state)
{
    sp_peer peer;
    (void)state;
    sp_peer_start(&peer, hang_up_when_idle);
    ptier_client *client = open_client(&peer, 20000);
    sp_peer_wait(&peer.accepted, 3);
    assert_echo(client, "x", 1);
    ptier_client_close(client);
    sp_peer_stop(&peer);
}

static void
a_full_backlog_is_waited_for(void **state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    sp_peer peer = {.url = ""};
    int fds[8];
    size_t count = 0;
    ptier_error error;
    (void)state;
    snprintf(address.sun_path, sizeof address.sun_path, "/tmp/ptier-full-%d.sock", (int)getpid());
    snprintf(peer.url, sizeof peer.url, "ipc://%s", address.sun_path);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 0), 0);
    for (bool full = false; !full; count++) {
        assert_true(count < 8);
        fds[count] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        full = connect(fds[count], (struct sockaddr *)&address, sizeof address) != 0;
    }
    ptier_client *client = open_client(&peer, 200);
    int64_t begun = ptier_test_now();
    assert_int_equal(call(client, "x", 1, &error), PTIER_DEADLINE_EXCEEDED);
    assert_non_null(strstr(error.message, "no connection to"));
    ptier_client_close(client);
    assert_true(ptier_test_now() - begun < 200 + LATE_MS);
    while (count > 0)
        close(fds[--count]);
    close(listener);
    unlink(address.sun_path);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies_in_pieces_of_a_byte_are_whole),
        cmocka_unit_test(replies_of_many_sizes_are_whole),
        cmocka_unit_test(threads_get_their_own_replies_whatever_the_order),
        cmocka_unit_test(asynchronous_calls_go_beside_those_that_wait),
        cmocka_unit_test(a_reply_that_is_too_long_costs_the_connection),
        cmocka_unit_test(a_reply_that_ends_amid_is_none),
        cmocka_unit_test(a_reply_before_the_end_of_the_connection_counts),
        cmocka_unit_test(whoever_greets_as_another_gets_nothing),
        cmocka_unit_test(deadlines_hold_while_the_peer_reads_nothing),
        cmocka_unit_test(a_request_that_has_begun_is_completed),
        cmocka_unit_test(large_requests_of_many_threads_are_whole),
        cmocka_unit_test(a_cancelled_call_ends_while_others_wait),
        cmocka_unit_test(replies_are_taken_while_a_callback_is_slow),
        cmocka_unit_test(replies_are_taken_while_nobody_waits),
        cmocka_unit_test(a_lost_connection_is_noticed_without_a_call),
        cmocka_unit_test(a_full_backlog_is_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
