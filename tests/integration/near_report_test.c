/* How a near cache tells the daemon of its hits, told by a daemon that the test plays: every hit
 * once, and however many there are, not all the time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <proxytier/client.h>

#include "proxytier/v1/cache.pb-c.h"
#include "support/scripted_peer.h"

enum {
    KEYS = 1500, /* more than one call reports, and enough to report before its time */
    HIT_MS = 1000,
    CALLS_MAX = 20, /* in that time: two each 250 ms, and some more where it took longer */
    PATIENCE_MS = 20000,
    AS_OF = 1000000, /* newer than anything that is told */
};

typedef struct script {
    atomic_uint reports;
    atomic_ulong hits; /* told */
} script;

static char keys[KEYS][16];
static const char *key_list[KEYS];

/* Every key is cached. */
static void
answer_keys(const peer_request *request, peer_answer *answer)
{
    static Proxytier__V1__Proxy proxies[KEYS], *list[KEYS];
    Proxytier__V1__GetManyResponse reply = PROXYTIER__V1__GET_MANY_RESPONSE__INIT;
    Proxytier__V1__GetManyRequest *asked =
        proxytier__v1__get_many_request__unpack(NULL, request->body_length, request->body);
    assert_non_null(asked);
    for (size_t i = 0; i < asked->n_keys; i++) {
        proxytier__v1__proxy__init(&proxies[i]);
        proxies[i].key = asked->keys[i];
        proxies[i].url = PEER_TEXT("http://10.0.0.1:8080");
        proxies[i].remaining_ttl_ms = -1;
        list[i] = &proxies[i];
    }
    reply.proxies = list;
    reply.n_proxies = asked->n_keys;
    reply.as_of = AS_OF;
    peer_answer_with(answer, &reply.base);
    proxytier__v1__get_many_request__free_unpacked(asked, NULL);
}

static void
take_report(script *s, const peer_request *request)
{
    Proxytier__V1__ReportAccessRequest *told =
        proxytier__v1__report_access_request__unpack(NULL, request->body_length, request->body);
    assert_non_null(told);
    for (size_t i = 0; i < told->n_accesses; i++)
        atomic_fetch_add(&s->hits, told->accesses[i]->count);
    atomic_fetch_add(&s->reports, 1);
    proxytier__v1__report_access_request__free_unpacked(told, NULL);
}

static void
answer(void *context, const peer_request *request, peer_answer *answer)
{
    if (strcmp(request->method, "GetMany") == 0)
        answer_keys(request, answer);
    else if (strcmp(request->method, "ReportAccess") == 0)
        take_report(context, request);
}

static ptier_client *
open_client(const scripted_peer *peer)
{
    ptier_near_cache_options near;
    ptier_client_options options;
    ptier_client *client;
    ptier_near_cache_options_init(&near);
    near.max_staleness_ms = 30000; /* one heartbeat lasts for the test */
    ptier_client_options_init(&options);
    options.url = peer->rpc_url;
    options.near_cache = &near;
    assert_int_equal(ptier_client_open(&options, &client, NULL), PTIER_OK);
    return client;
}

static size_t
read_all(ptier_client *client)
{
    ptier_records found;
    assert_int_equal(ptier_get_many(client, key_list, KEYS, &found, NULL), PTIER_OK);
    const size_t near_count = found.near_count;
    assert_int_equal(found.count, KEYS);
    ptier_records_free(&found);
    return near_count;
}

static void
fill(scripted_peer *peer, ptier_client *client)
{
    int64_t until = ptier_test_now() + PATIENCE_MS;
    while (peer_count(peer, &peer->infos) == 0)
        test_pause();
    while (read_all(client) < KEYS) {
        assert_true(ptier_test_now() < until);
        peer_heartbeat(peer);
        test_pause();
    }
}

static void
hits_are_told_once_each_and_not_all_the_time(void **state)
{
    (void)state;
    scripted_peer peer;
    script s = {0};
    ptier_near_statistics seen;
    for (size_t i = 0; i < KEYS; i++) {
        (void)snprintf(keys[i], sizeof keys[i], "key-%zu", i); /* fits */
        key_list[i] = keys[i];
    }
    peer_init(&peer);
    peer.handler = answer;
    peer.context = &s;
    peer.tells_time = true;
    peer_start(&peer);
    ptier_client *client = open_client(&peer);
    fill(&peer, client);

    unsigned before = atomic_load(&s.reports);
    int64_t begun = ptier_test_now();
    while (ptier_test_now() < begun + HIT_MS)
        assert_int_equal(read_all(client), KEYS);
    unsigned reports = atomic_load(&s.reports) - before;
    int64_t took = ptier_test_now() - begun;
    assert_true(reports > 0);
    assert_true(reports <= CALLS_MAX * took / HIT_MS);

    int64_t until = ptier_test_now() + PATIENCE_MS;
    do {
        assert_true(ptier_test_now() < until);
        test_pause();
        assert_int_equal(ptier_get_near_statistics(client, &seen, NULL), PTIER_OK);
    } while (atomic_load(&s.hits) < seen.hits);
    assert_int_equal(atomic_load(&s.hits), seen.hits);
    assert_int_equal(seen.unreported_hits, 0);
    ptier_client_close(client);
    peer_fini(&peer);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hits_are_told_once_each_and_not_all_the_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
