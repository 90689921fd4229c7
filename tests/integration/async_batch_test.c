/* Asynchronous Gets that go to the daemon together: each has the outcome that it would have had
 * alone, once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <proxytier/async.h>

#include "proxytier/v1/cache.pb-c.h"
#include "support/scripted_peer.h"

#define GETS        40
#define PATIENCE_MS 30000
#define TIMEOUT_MS  20000
#define AS_OF       7

typedef enum script_mode {
    MODE_SERVE,
    MODE_REFUSE,     /* GetMany is INVALID_ARGUMENT: somebody's key is bad */
    MODE_UNREADABLE, /* keys that are missing may be cached */
    MODE_DAMAGED,    /* the reply to GetMany is none */
    MODE_FOREIGN,    /* it is about a key that nobody asked for */
    MODE_SILENT,
} script_mode;

typedef struct script {
    script_mode mode;
    atomic_bool answer; /* until then no call is answered */
    atomic_uint single, many, keys;
} script;

/* "lost…" cannot be read, "absent…" is not cached. */
static bool
is_there(const char *key)
{
    return strncmp(key, "lost", 4) != 0 && strncmp(key, "absent", 6) != 0;
}

static void
fill(Proxytier__V1__Proxy *proxy, char *key)
{
    proxytier__v1__proxy__init(proxy);
    proxy->key = key;
    proxy->url = PEER_TEXT("http://10.0.0.1:8080");
    proxy->remaining_ttl_ms = -1;
}

static void
answer_get(script *s, const peer_request *request, peer_answer *answer)
{
    Proxytier__V1__GetRequest *get =
        proxytier__v1__get_request__unpack(NULL, request->body_length, request->body);
    Proxytier__V1__GetResponse reply = PROXYTIER__V1__GET_RESPONSE__INIT;
    Proxytier__V1__Proxy proxy;
    assert_non_null(get);
    atomic_fetch_add(&s->single, 1);
    if (strncmp(get->key, "lost", 4) == 0)
        answer->code = PTIER_DATA_LOSS;
    else if (!is_there(get->key))
        answer->code = PTIER_NOT_FOUND;
    fill(&proxy, get->key);
    reply.proxy = &proxy;
    reply.as_of = AS_OF;
    reply.tier = PROXYTIER__V1__TIER__TIER_L2;
    if (answer->code == 0)
        peer_answer_with(answer, &reply.base);
    proxytier__v1__get_request__free_unpacked(get, NULL);
}

static void
serve_many(const Proxytier__V1__GetManyRequest *request, script_mode mode, peer_answer *answer)
{
    Proxytier__V1__GetManyResponse reply = PROXYTIER__V1__GET_MANY_RESPONSE__INIT;
    Proxytier__V1__Proxy proxies[64], *list[64];
    Proxytier__V1__Tier tiers[64];
    assert_true(request->with_tiers && request->n_keys <= 64);
    for (size_t i = 0; i < request->n_keys; i++) {
        if (!is_there(request->keys[i]))
            continue;
        fill(&proxies[i], mode == MODE_FOREIGN ? PEER_TEXT("foreign") : request->keys[i]);
        list[reply.n_proxies++] = &proxies[i];
        tiers[reply.n_tiers++] = PROXYTIER__V1__TIER__TIER_L2;
    }
    reply.proxies = list;
    reply.tiers = tiers;
    reply.as_of = AS_OF;
    reply.unreadable = mode == MODE_UNREADABLE;
    peer_answer_with(answer, &reply.base);
}

static void
answer_many(script *s, const peer_request *request, peer_answer *answer)
{
    static const uint8_t garbage[] = {0x0a, 0x7f, 1, 2, 3};
    Proxytier__V1__GetManyRequest *many =
        proxytier__v1__get_many_request__unpack(NULL, request->body_length, request->body);
    assert_non_null(many);
    atomic_fetch_add(&s->many, 1);
    atomic_fetch_add(&s->keys, (unsigned)many->n_keys);
    if (s->mode == MODE_REFUSE) {
        answer->code = PTIER_INVALID_ARGUMENT;
    } else if (s->mode == MODE_DAMAGED) {
        answer->body = malloc(sizeof garbage);
        assert_non_null(answer->body);
        memcpy(answer->body, garbage, sizeof garbage);
        answer->body_length = sizeof garbage;
    } else {
        serve_many(many, s->mode, answer);
    }
    proxytier__v1__get_many_request__free_unpacked(many, NULL);
}

static void
answer_calls(void *context, const peer_request *request, peer_answer *answer)
{
    script *s = context;
    while (!atomic_load(&s->answer))
        test_pause();
    answer->silent = s->mode == MODE_SILENT;
    if (answer->silent)
        return;
    if (strcmp(request->method, "GetMany") == 0)
        answer_many(s, request, answer);
    else
        answer_get(s, request, answer);
}

typedef struct fixture {
    scripted_peer peer;
    script script;
    ptier_client *client;
    char keys[GETS][32];
    ptier_async *calls[GETS];
    atomic_uint told[GETS];
} fixture;

static void
on_done(void *context, ptier_async_result *result)
{
    (void)result;
    atomic_fetch_add((atomic_uint *)context, 1);
}

/* The first two go alone; behind them the others gather. */
static void
start(fixture *f, script_mode mode, bool separate, uint32_t timeout_ms)
{
    ptier_client_options options;
    memset(f, 0, sizeof *f);
    f->script.mode = mode;
    peer_init(&f->peer);
    f->peer.handler = answer_calls;
    f->peer.context = &f->script;
    peer_start(&f->peer);
    ptier_client_options_init(&options);
    options.url = f->peer.rpc_url;
    options.timeout_ms = timeout_ms;
    options.separate_gets = separate;
    assert_int_equal(ptier_client_open(&options, &f->client, NULL), PTIER_OK);
    for (unsigned i = 0; i < GETS; i++) {
        static const char *const kinds[] = {"absent", "lost", "same", "key"};
        const char *kind = kinds[i % 4];
        (void)snprintf(f->keys[i], sizeof f->keys[i], "%s%u", kind, *kind == 's' ? 0 : i);
        assert_int_equal(
            ptier_async_get(f->client, f->keys[i], on_done, &f->told[i], &f->calls[i], NULL),
            PTIER_OK);
    }
}

static void
stop(fixture *f)
{
    ptier_client_close(f->client);
    peer_stop(&f->peer);
    peer_fini(&f->peer);
}

static void
take(fixture *f, unsigned i, ptier_async_result *result)
{
    assert_true(ptier_async_wait(f->calls[i], PATIENCE_MS));
    (void)ptier_async_take(f->calls[i], result); /* the result has the status */
    ptier_async_free(f->calls[i]);
    assert_int_equal(atomic_load(&f->told[i]), 1);
}

static void
assert_own_outcome(fixture *f, unsigned i, ptier_status lost)
{
    ptier_async_result result;
    take(f, i, &result);
    if (strncmp(f->keys[i], "lost", 4) == 0) {
        assert_true(result.status == lost || result.status == PTIER_DATA_LOSS); /* it went alone */
    } else if (!is_there(f->keys[i])) {
        assert_int_equal(result.status, PTIER_NOT_FOUND);
    } else {
        assert_int_equal(result.status, PTIER_OK);
        assert_int_equal(result.records.count, 1);
        assert_string_equal(result.records.records[0].key, f->keys[i]);
        assert_int_equal(result.records.as_of, AS_OF);
        assert_int_equal(result.records.tier, PTIER_TIER_L2);
    }
    ptier_async_result_free(&result);
}

static void
serve_all(script_mode mode, bool separate, ptier_status lost)
{
    fixture f;
    start(&f, mode, separate, TIMEOUT_MS);
    atomic_store(&f.script.answer, true);
    for (unsigned i = 0; i < GETS; i++)
        assert_own_outcome(&f, i, lost);
    if (separate)
        assert_int_equal(atomic_load(&f.script.many), 0);
    else
        assert_true(atomic_load(&f.script.keys) > atomic_load(&f.script.many));
    stop(&f);
}

/* ---- cases ---- */

static void
each_of_those_that_went_together_gets_its_own_record(void **state)
{
    (void)state;
    serve_all(MODE_SERVE, false, PTIER_NOT_FOUND); /* the peer says so of what it leaves out */
}

static void
whoever_was_refused_for_another_is_asked_for_alone(void **state)
{
    (void)state;
    serve_all(MODE_REFUSE, false, PTIER_DATA_LOSS);
}

static void
keys_that_may_be_cached_are_asked_for_alone(void **state)
{
    (void)state;
    serve_all(MODE_UNREADABLE, false, PTIER_DATA_LOSS);
}

static void
reply_that_cannot_be_read_is_asked_for_alone(void **state)
{
    (void)state;
    serve_all(MODE_DAMAGED, false, PTIER_DATA_LOSS);
    serve_all(MODE_FOREIGN, false, PTIER_DATA_LOSS);
}

static void
separate_gets_go_one_by_one(void **state)
{
    (void)state;
    serve_all(MODE_SERVE, true, PTIER_DATA_LOSS);
}

static void
cancelled_one_ends_and_the_others_are_served(void **state)
{
    (void)state;
    fixture f;
    ptier_async_result result;
    start(&f, MODE_SERVE, false, TIMEOUT_MS);
    for (unsigned i = 3; i < GETS; i += 4)
        ptier_async_cancel(f.calls[i]);
    for (unsigned i = 3; i < GETS; i += 4) { /* before anything is answered */
        take(&f, i, &result);
        assert_int_equal(result.status, PTIER_CANCELLED);
        ptier_async_result_free(&result);
    }
    atomic_store(&f.script.answer, true);
    for (unsigned i = 0; i < GETS; i++)
        if (i % 4 != 3)
            assert_own_outcome(&f, i, PTIER_NOT_FOUND);
    stop(&f);
}

static void
without_an_answer_each_ends_at_its_deadline(void **state)
{
    (void)state;
    fixture f;
    ptier_async_result result;
    start(&f, MODE_SILENT, false, 300);
    atomic_store(&f.script.answer, true);
    for (unsigned i = 0; i < GETS; i++) {
        take(&f, i, &result);
        assert_int_equal(result.status, PTIER_DEADLINE_EXCEEDED);
        ptier_async_result_free(&result);
    }
    stop(&f);
}

static void
closing_ends_all_of_them(void **state)
{
    (void)state;
    fixture f;
    ptier_async_result result;
    start(&f, MODE_SERVE, false, TIMEOUT_MS);
    ptier_client_close(f.client);
    for (unsigned i = 0; i < GETS; i++) {
        take(&f, i, &result);
        assert_int_equal(result.status, PTIER_CANCELLED);
        ptier_async_result_free(&result);
    }
    atomic_store(&f.script.answer, true);
    peer_stop(&f.peer);
    peer_fini(&f.peer);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_of_those_that_went_together_gets_its_own_record),
        cmocka_unit_test(whoever_was_refused_for_another_is_asked_for_alone),
        cmocka_unit_test(keys_that_may_be_cached_are_asked_for_alone),
        cmocka_unit_test(reply_that_cannot_be_read_is_asked_for_alone),
        cmocka_unit_test(separate_gets_go_one_by_one),
        cmocka_unit_test(cancelled_one_ends_and_the_others_are_served),
        cmocka_unit_test(without_an_answer_each_ends_at_its_deadline),
        cmocka_unit_test(closing_ends_all_of_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
