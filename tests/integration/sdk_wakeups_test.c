/*
 * The SDK's link over unix sockets without its nets: the linker puts this file's functions in place
 * of some that the link calls, so that what would only be late by a guard's time never comes, and
 * that what is freed can be looked at.
 */
#include <errno.h>
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
#include <nng/nng.h>
#include <proxytier/async.h>
#include <proxytier/client.h>

#include "support/monotonic.h"
#include "support/sp_peer.h"

#define GET         "/proxytier.v1.ProxyCache/Get" /* may be sent twice; nothing is asked before */
#define NEEDLE      "wipe-me-"
#define TIMEOUT_MS  8000 /* of calls: what is never told ends with it */
#define PATIENCE_MS 20000
#define NOT_FOUND   5
#define MANY        3000
#define CALLERS     100
#define ROUNDS      8

static _Thread_local bool supervises;
static atomic_bool holding, held; /* the supervisor's next read; it is held */
static atomic_bool breaking;      /* the next send finds the connection's end */
static atomic_bool pausing;       /* for long */
static atomic_bool watching;
static atomic_uint guards, dozes, refusals, leaks, longest; /* pause for a place to connect */

static void
await(const atomic_bool *flag)
{
    for (int64_t end = ptier_test_now() + PATIENCE_MS;
         !atomic_load(flag) && ptier_test_now() < end;)
        (void)poll(NULL, 0, 1);
}

/* ---- in place of others ---- */

int __real_poll(struct pollfd *fds, nfds_t count, int timeout);
ssize_t __real_recvmsg(int fd, struct msghdr *message, int flags);
ssize_t __real_sendmsg(int fd, const struct msghdr *message, int flags);
int64_t __real_ptier_pause_jittered(int64_t pause_ms);
void __real_nng_msg_free(nng_msg *message);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout);
ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags);
int64_t __wrap_ptier_pause_jittered(int64_t pause_ms);
void __wrap_nng_msg_free(nng_msg *message);

/* The supervisor's guard and the sleep of the engine of asynchronous calls do not end by time. */
int
__wrap_poll(struct pollfd *fds, nfds_t count, int timeout)
{
    supervises = supervises || (count == 1 && fds[0].events & POLLRDHUP);
    bool guard = count == 1 && fds[0].events == POLLRDHUP;
    if (guard)
        atomic_fetch_add(&guards, 1);
    if (count == 2 && timeout > 0) /* it sleeps, or reads */
        atomic_fetch_add(&dozes, 1);
    if (guard || (count == 2 && fds[1].fd < 0 && timeout > 0))
        timeout = -1;
    if (count == 2 && fds[0].fd < 0 && timeout > (int)atomic_load(&longest))
        atomic_store(&longest, (unsigned)timeout);
    return __real_poll(fds, count, timeout);
}

ssize_t
__wrap_recvmsg(int fd, struct msghdr *message, int flags)
{
    if (supervises && atomic_load(&holding)) {
        atomic_store(&held, true);
        for (int64_t end = ptier_test_now() + PATIENCE_MS;
             atomic_load(&holding) && ptier_test_now() < end;)
            (void)poll(NULL, 0, 1);
    }
    return __real_recvmsg(fd, message, flags);
}

ssize_t
__wrap_sendmsg(int fd, const struct msghdr *message, int flags)
{
    if (atomic_exchange(&breaking, false)) {
        errno = EPIPE;
        return -1;
    }
    ssize_t sent = __real_sendmsg(fd, message, flags);
    if (sent < 0 && errno == EAGAIN)
        atomic_fetch_add(&refusals, 1);
    return sent;
}

int64_t
__wrap_ptier_pause_jittered(int64_t pause_ms)
{
    return atomic_load(&pausing) ? 4 * PATIENCE_MS : __real_ptier_pause_jittered(pause_ms);
}

void
__wrap_nng_msg_free(nng_msg *message)
{
    if (message && atomic_load(&watching) &&
        memmem(nng_msg_body(message), nng_msg_len(message), NEEDLE, strlen(NEEDLE)))
        atomic_fetch_add(&leaks, 1);
    __real_nng_msg_free(message);
}

/* ---- calls ---- */

static ptier_client *
open_client(const sp_peer *peer)
{
    ptier_client_options options;
    ptier_client *client;
    ptier_client_options_init(&options);
    options.url = peer->url;
    options.timeout_ms = TIMEOUT_MS;
    options.retries = 0;
    options.separate_gets = true;
    assert_int_equal(ptier_client_open(&options, &client, NULL), PTIER_OK);
    return client;
}

static ptier_status
call(ptier_client *client, const char *body)
{
    void *reply = NULL;
    size_t length;
    ptier_status status = ptier_call_raw(client, GET, body, strlen(body), &reply, &length, NULL);
    free(reply);
    return status;
}

static ptier_async *
begin(ptier_client *client, const char *key, ptier_async_fn done, void *context)
{
    ptier_async *handle;
    assert_int_equal(ptier_async_get(client, key, done, context, &handle, NULL), PTIER_OK);
    return handle;
}

static void
reply(int fd, uint32_t id, const char *body)
{
    uint8_t bytes[300];
    uint8_t *end = sp_peer_put_reply(bytes, id, NOT_FOUND, body, strlen(body));
    sp_peer_say(fd, bytes, (size_t)(end - bytes), SIZE_MAX);
}

static void
reply_to_all(sp_peer *peer, int fd)
{
    sp_request request;
    while (sp_peer_receive(peer, fd, &request))
        reply(fd, request.id, "");
}

/* ---- peers ---- */

static void
reply_well(sp_peer *peer, int fd, unsigned number)
{
    (void)number;
    sp_peer_greet(peer, fd);
    reply_to_all(peer, fd);
}

/* The first reply comes when nobody waits for it, the second when nobody reads. */
static void
reply_late(sp_peer *peer, int fd, unsigned number)
{
    sp_request request;
    (void)number;
    sp_peer_greet(peer, fd);
    if (!sp_peer_receive(peer, fd, &request))
        return;
    await(&peer->go);
    atomic_store(&holding, true);
    reply(fd, request.id, NEEDLE);
    if (!sp_peer_receive(peer, fd, &request))
        return;
    (void)poll(NULL, 0, 30); /* until its caller waits */
    unsigned before = atomic_load(&guards);
    atomic_store(&holding, false);
    sp_peer_wait(&guards, before + 1);
    reply(fd, request.id, "");
    reply_to_all(peer, fd);
}

static atomic_bool called, called_back, first_ended;
static atomic_uint begun, served;

/* Of three calls, while a fourth one's request is not taken. */
static void
reply_without_reading(sp_peer *peer, int fd, unsigned number)
{
    sp_request requests[3];
    (void)number;
    sp_peer_greet(peer, fd);
    for (size_t i = 0; i < 3; i++)
        if (!sp_peer_receive(peer, fd, &requests[i]))
            return;
    await(&peer->go);
    reply(fd, requests[2].id, "");
    await(&called);
    reply(fd, requests[0].id, "");
    await(&first_ended);
    reply(fd, requests[1].id, "");
    reply_to_all(peer, fd);
}

/* Of so many that come, one reply whenever the next request may come; which then is the test's own
 * asynchronous one. */
static void
reply_one_by_one(sp_peer *peer, int fd, unsigned number)
{
    enum { UNDER_WAY = 64 };
    uint32_t ids[UNDER_WAY];
    sp_request request;
    (void)number;
    sp_peer_greet(peer, fd);
    for (size_t i = 0; i < UNDER_WAY; i++) {
        if (!sp_peer_receive(peer, fd, &request))
            return;
        ids[i] = request.id;
    }
    for (size_t i = 0; i < ROUNDS; i++) {
        sp_peer_wait(&begun, (unsigned)i + 1);
        reply(fd, ids[i], "");
        if (!sp_peer_receive(peer, fd, &request))
            return;
        if (request.length > 0 && request.body[0] == 0x0a) /* a GetRequest */
            atomic_fetch_add(&served, 1);
        else
            break;
        ids[i] = request.id;
    }
    atomic_store(&peer->go, true);
    for (size_t i = 0; i < UNDER_WAY; i++)
        reply(fd, ids[i], ""); /* some a second time */
    reply_to_all(peer, fd);
}

/* And the next connection hangs. */
static void
take_and_hang(sp_peer *peer, int fd, unsigned number)
{
    sp_request request;
    if (number > 0) {
        await(&peer->stopping);
        return;
    }
    sp_peer_greet(peer, fd);
    while (sp_peer_receive(peer, fd, &request))
        continue;
}

/* ---- cases ---- */

/* A late reply is read by the supervisor; who begins to wait meanwhile must read afterwards. */
static void
whoever_reads_for_nobody_hands_on(void **state)
{
    sp_peer peer;
    ptier_async_result result;
    (void)state;
    atomic_store(&watching, true);
    sp_peer_start(&peer, reply_late);
    ptier_client *client = open_client(&peer);
    ptier_async *handle = begin(client, "late", NULL, NULL);
    sp_peer_wait(&peer.requests, 1);
    ptier_async_cancel(handle);
    assert_true(ptier_async_wait(handle, PATIENCE_MS));
    assert_int_equal(ptier_async_take(handle, &result), PTIER_CANCELLED);
    ptier_async_free(handle);
    atomic_store(&peer.go, true);
    await(&held);
    assert_int_equal(call(client, NEEDLE), PTIER_NOT_FOUND);
    ptier_client_close(client);
    sp_peer_stop(&peer);
    atomic_store(&watching, false);
}

/* Requests and replies hold credentials and tokens. */
static void
messages_are_wiped(void **state)
{
    (void)state;
    assert_int_equal(atomic_load(&leaks), 0); /* in the case before */
}

static void
wait_in_callback(void *context, ptier_async_result *result)
{
    (void)context;
    (void)result;
    atomic_store(&called, true);
    await(&called_back);
}

static void *
call_first(void *client)
{
    ptier_status status = call(client, "first");
    atomic_store(&first_ended, true);
    return (void *)(uintptr_t)status;
}

static void *
call_second(void *client)
{
    return (void *)(uintptr_t)call(client, "second");
}

static void
assert_found_nothing(pthread_t thread)
{
    void *status;
    pthread_join(thread, &status);
    assert_int_equal((uintptr_t)status, PTIER_NOT_FOUND);
}

/* What asynchronous calls cannot send is no reason to leave reading to them. */
static void
a_slow_callback_holds_up_nobody_who_waits(void **state)
{
    static const char *keys[MANY];
    static char key[PTIER_KEY_MAX];
    sp_peer peer;
    pthread_t threads[2];
    (void)state;
    memset(key, 'k', sizeof key - 1);
    for (size_t i = 0; i < MANY; i++)
        keys[i] = key;
    sp_peer_start(&peer, reply_without_reading);
    ptier_client *client = open_client(&peer);
    assert_int_equal(pthread_create(&threads[0], NULL, call_first, client), 0);
    sp_peer_wait(&peer.requests, 1);
    assert_int_equal(pthread_create(&threads[1], NULL, call_second, client), 0);
    sp_peer_wait(&peer.requests, 2);
    ptier_async_free(begin(client, "slow", wait_in_callback, NULL));
    sp_peer_wait(&peer.requests, 3);
    unsigned before = atomic_load(&refusals);
    assert_int_equal(ptier_async_get_many(client, keys, MANY, NULL, NULL, NULL, NULL), PTIER_OK);
    sp_peer_wait(&refusals, before + 1);
    atomic_store(&peer.go, true);
    assert_found_nothing(threads[0]);
    assert_found_nothing(threads[1]);
    atomic_store(&called_back, true);
    ptier_client_close(client);
    sp_peer_stop(&peer);
}

/* It sees the end when it sends: then nobody needs to rouse it. */
static void
asynchronous_calls_end_with_their_connection(void **state)
{
    sp_peer peer;
    ptier_async_result result;
    (void)state;
    sp_peer_start(&peer, take_and_hang);
    ptier_client *client = open_client(&peer);
    ptier_async *sent = begin(client, "sent", NULL, NULL);
    sp_peer_wait(&peer.requests, 1);
    atomic_store(&breaking, true);
    ptier_async *unsent = begin(client, "unsent", NULL, NULL);
    assert_true(ptier_async_wait(sent, PATIENCE_MS));
    assert_int_equal(ptier_async_take(sent, &result), PTIER_UNAVAILABLE);
    ptier_async_free(sent);
    ptier_async_free(unsent);
    ptier_client_close(client);
    sp_peer_stop(&peer);
}

/* However long the pause would be that the supervisor makes when nobody calls. */
static void
a_request_that_was_turned_away_asks_for_a_connection(void **state)
{
    sp_peer peer;
    (void)state;
    sp_peer_start(&peer, reply_well);
    ptier_client *client = open_client(&peer);
    assert_int_equal(call(client, "first"), PTIER_NOT_FOUND);
    atomic_store(&pausing, true);
    atomic_store(&breaking, true);
    assert_int_equal(call(client, "second"), PTIER_NOT_FOUND);
    atomic_store(&pausing, false);
    ptier_client_close(client);
    sp_peer_stop(&peer);
}

/* An idle client beside a daemon that hangs does not ask 200 times a second. */
static void
pauses_for_a_place_grow(void **state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    sp_peer peer = {.url = ""};
    (void)state;
    snprintf(address.sun_path, sizeof address.sun_path, "/tmp/ptier-place-%d.sock", (int)getpid());
    snprintf(peer.url, sizeof peer.url, "ipc://%s", address.sun_path);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), waiting = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 0), 0);
    assert_int_equal(connect(waiting, (struct sockaddr *)&address, sizeof address), 0);
    ptier_client *client = open_client(&peer);
    sp_peer_wait(&longest, 40);
    ptier_client_close(client);
    close(waiting);
    close(listener);
    unlink(address.sun_path);
}

/* More callers that wait than there are slots. */
static void
callers_that_wait_leave_room_for_others(void **state)
{
    sp_peer peer;
    pthread_t threads[CALLERS];
    (void)state;
    sp_peer_start(&peer, reply_one_by_one);
    ptier_client *client = open_client(&peer);
    for (size_t i = 0; i < CALLERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, call_second, client), 0);
    sp_peer_wait(&peer.requests, 64);
    for (unsigned i = 0; i < ROUNDS && !atomic_load(&peer.go); i++) {
        unsigned before = atomic_load(&dozes);
        ptier_async_free(begin(client, "k", NULL, NULL));
        sp_peer_wait(&dozes, before + 1); /* it found no room */
        atomic_store(&begun, i + 1);
        for (int64_t end = ptier_test_now() + PATIENCE_MS;
             atomic_load(&served) <= i && !atomic_load(&peer.go) && ptier_test_now() < end;)
            (void)poll(NULL, 0, 1);
    }
    assert_int_equal(atomic_load(&served), ROUNDS);
    for (size_t i = 0; i < CALLERS; i++)
        assert_found_nothing(threads[i]);
    ptier_client_close(client);
    sp_peer_stop(&peer);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whoever_reads_for_nobody_hands_on),
        cmocka_unit_test(messages_are_wiped),
        cmocka_unit_test(a_slow_callback_holds_up_nobody_who_waits),
        cmocka_unit_test(asynchronous_calls_end_with_their_connection),
        cmocka_unit_test(a_request_that_was_turned_away_asks_for_a_connection),
        cmocka_unit_test(pauses_for_a_place_grow),
        cmocka_unit_test(callers_that_wait_leave_room_for_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
