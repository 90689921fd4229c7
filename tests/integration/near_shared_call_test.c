/* What a read of the near cache gets that waits for another thread's call, whose answer then does
 * not serve: one of its own, within the client's timeout. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>
#include <proxytier/client.h>

#include "proxytier/v1/cache.pb-c.h"
#include "support/scripted_peer.h"

#define TIMEOUT_MS 3000
#define FIRST_MS   1500 /* that the second read waits for the first one's answer */
#define SECOND_MS  2200 /* that its own call would take: both together are over the timeout */

#define TTL_MS 200

typedef struct script {
    atomic_uint asked; /* GetMany calls that came */
    atomic_bool answer;
    int64_t slow_ms; /* what all answers but the first take */
    int64_t ttl_ms;  /* of the record in the first answer; later ones have none. 0: all have it */
} script;

static void
pause_ms(int64_t ms)
{
    for (int64_t until = ptier_test_now() + ms; ptier_test_now() < until;)
        test_pause();
}

/* The first answer comes when the test says so. */
static void
answer_slowly(void *context, const peer_request *request, peer_answer *answer)
{
    script *s = context;
    if (strcmp(request->method, "GetMany") != 0)
        return;
    bool first = atomic_fetch_add(&s->asked, 1) == 0;
    if (!first)
        pause_ms(s->slow_ms);
    while (!atomic_load(&s->answer))
        test_pause();
    Proxytier__V1__GetManyResponse reply = PROXYTIER__V1__GET_MANY_RESPONSE__INIT;
    Proxytier__V1__Proxy proxy = PROXYTIER__V1__PROXY__INIT, *proxies[] = {&proxy};
    proxy.key = PEER_TEXT("k");
    proxy.url = PEER_TEXT("http://10.0.0.1:8080");
    proxy.remaining_ttl_ms = s->ttl_ms ? s->ttl_ms : -1;
    reply.proxies = proxies;
    reply.n_proxies = first || s->ttl_ms == 0;
    peer_answer_with(answer, &reply.base);
}

typedef struct read_call {
    ptier_client *client;
    ptier_status status;
    pthread_t thread;
} read_call;

static void *
read_key(void *argument)
{
    read_call *call = argument;
    ptier_records found;
    call->status = ptier_get(call->client, "k", &found, NULL);
    ptier_records_free(&found);
    return NULL;
}

static void
start_read(read_call *call, ptier_client *client)
{
    call->client = client;
    assert_int_equal(pthread_create(&call->thread, NULL, read_key, call), 0);
}

/* The call under way is then from before the stream was followed: its answer serves nobody who
 * comes later. */
static void
follow(scripted_peer *peer, ptier_client *client)
{
    ptier_near_statistics s;
    int64_t until = ptier_test_now() + TIMEOUT_MS;
    do {
        assert_true(ptier_test_now() < until);
        peer_heartbeat(peer);
        test_pause();
        assert_int_equal(ptier_get_near_statistics(client, &s, NULL), PTIER_OK);
    } while (!s.following);
}

static ptier_client *
open_client(const scripted_peer *peer)
{
    ptier_near_cache_options near;
    ptier_client_options options;
    ptier_client *client;
    ptier_near_cache_options_init(&near);
    near.max_staleness_ms = 10 * TIMEOUT_MS; /* so old may the call be that a read joins */
    ptier_client_options_init(&options);
    options.url = peer->rpc_url;
    options.timeout_ms = TIMEOUT_MS;
    options.near_cache = &near;
    assert_int_equal(ptier_client_open(&options, &client, NULL), PTIER_OK);
    return client;
}

static void
start_peer(scripted_peer *peer, script *s)
{
    peer_init(peer);
    peer->handler = answer_slowly;
    peer->context = s;
    peer_start(peer);
}

static void
read_that_waited_for_another_ends_within_the_timeout(void **state)
{
    (void)state;
    scripted_peer peer;
    script s = {.slow_ms = SECOND_MS};
    read_call first, second;
    start_peer(&peer, &s);
    ptier_client *client = open_client(&peer);
    while (peer_count(&peer, &peer.infos) == 0)
        test_pause();
    start_read(&first, client);
    while (atomic_load(&s.asked) == 0)
        test_pause();
    follow(&peer, client);
    start_read(&second, client);
    pause_ms(FIRST_MS);
    atomic_store(&s.answer, true);
    pthread_join(first.thread, NULL);
    pthread_join(second.thread, NULL);
    assert_int_equal(first.status, PTIER_OK);
    assert_int_equal(second.status, PTIER_DEADLINE_EXCEEDED);
    ptier_client_close(client);
    peer_fini(&peer);
}

static void
record_whose_time_is_over_is_not_shared(void **state)
{
    (void)state;
    scripted_peer peer;
    script s = {.ttl_ms = TTL_MS};
    read_call first, second;
    start_peer(&peer, &s);
    ptier_client *client = open_client(&peer);
    start_read(&first, client);
    while (atomic_load(&s.asked) == 0)
        test_pause();
    pause_ms(TTL_MS);
    start_read(&second, client);
    pause_ms(TTL_MS);
    atomic_store(&s.answer, true);
    pthread_join(first.thread, NULL);
    pthread_join(second.thread, NULL);
    assert_int_equal(first.status, PTIER_OK);
    assert_int_equal(second.status, PTIER_NOT_FOUND);
    assert_int_equal(atomic_load(&s.asked), 2);
    ptier_client_close(client);
    peer_fini(&peer);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(read_that_waited_for_another_ends_within_the_timeout),
        cmocka_unit_test(record_whose_time_is_over_is_not_shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
