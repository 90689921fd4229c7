/* Gets that are tried on the thread that received them: what L1 has is answered there, the rest is
 * put off, and nothing is looked up or counted twice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "framing.h"
#include "methods.h"
#include "proxytier/v1/rpc.pb-c.h"
#include "support/temp_dir.h"

#define ENTRIES 4
#define IN_L1   2

typedef struct fixture {
    char directory[PTIER_TEST_PATH];
    ptier_cache *cache;
    ptier_service service;
    ptier_call call;
    uint8_t message[16384];
} fixture;

static void
put(ptier_cache *cache, unsigned number)
{
    ptier_record record;
    ptier_put_result result;
    char key[16], url[40];
    ptier_record_init(&record);
    (void)snprintf(key, sizeof key, "p%u", number);
    (void)snprintf(url, sizeof url, "http://10.0.0.%u:8080", number);
    record.key = key;
    record.url = url;
    assert_int_equal(ptier_cache_put(cache, &record, 1, NULL, &result, NULL, NULL), PTIER_OK);
    assert_int_equal(result.outcome, PTIER_PUT_CREATED);
}

static int
open_cache(void **state)
{
    static fixture f;
    memset(&f, 0, sizeof f);
    ptier_cache_options options;
    ptier_test_dir_make(f.directory);
    ptier_cache_options_init(&options);
    options.data_dir = f.directory;
    options.l1_entries = IN_L1;
    options.l3_enabled = false;
    assert_int_equal(ptier_cache_open(&options, &f.cache, NULL), PTIER_OK);
    for (unsigned i = 0; i < ENTRIES; i++) /* the last ones stay in L1 */
        put(f.cache, i);
    f.service.cache = f.cache;
    ptier_call_init(&f.call, &f.service);
    *state = &f;
    return 0;
}

static int
close_cache(void **state)
{
    fixture *f = *state;
    ptier_call_fini(&f->call);
    assert_int_equal(ptier_cache_close(f->cache), PTIER_OK);
    ptier_test_dir_remove(f->directory);
    return 0;
}

static void
begin(fixture *f, const char *method, const ProtobufCMessage *body)
{
    Proxytier__V1__RequestHeader header = PROXYTIER__V1__REQUEST_HEADER__INIT;
    header.method = (char *)(uintptr_t)method;
    uint8_t *out = f->message + PTIER_FRAME_PREFIX;
    size_t length = proxytier__v1__request_header__pack(&header, out);
    ptier_frame_prefix(f->message, length);
    length += protobuf_c_message_pack(body, out + length);
    const ptier_peer peer = {.role = PTIER_ROLE_ADMIN};
    assert_int_equal(ptier_call_begin(&f->call, &peer, ptier_monotonic_ms(), f->message,
                                      PTIER_FRAME_PREFIX + length),
                     PTIER_OK);
    assert_true(f->call.method->tried);
}

static void
begin_get(fixture *f, const char *key)
{
    Proxytier__V1__GetRequest request = PROXYTIER__V1__GET_REQUEST__INIT;
    request.key = (char *)(uintptr_t)key;
    begin(f, "/proxytier.v1.ProxyCache/Get", &request.base);
}

static void
begin_many(fixture *f, const char *const *keys, size_t count)
{
    Proxytier__V1__GetManyRequest request = PROXYTIER__V1__GET_MANY_REQUEST__INIT;
    request.keys = (char **)(uintptr_t)keys;
    request.n_keys = count;
    request.with_tiers = true;
    begin(f, "/proxytier.v1.ProxyCache/GetMany", &request.base);
}

static void
finish(fixture *f)
{
    ptier_bytes out = {0};
    assert_int_equal(ptier_call_finish(&f->call, &out), PTIER_OK);
    ptier_bytes_fini(&out);
}

static void
assert_hits(fixture *f, uint64_t l1, uint64_t l2)
{
    ptier_statistics now;
    ptier_cache_statistics(f->cache, &now);
    assert_int_equal(now.tiers[PTIER_TIER_L1].hits, l1);
    assert_int_equal(now.tiers[PTIER_TIER_L2].hits, l2);
}

static void
get_of_what_l1_has_is_over_at_once(void **state)
{
    fixture *f = *state;
    begin_get(f, "p3");
    assert_true(ptier_call_try(&f->call));
    assert_int_equal(f->call.status, PTIER_OK);
    assert_hits(f, 1, 0);
    finish(f);
    begin_get(f, ""); /* what is wrong needs no disk */
    assert_true(ptier_call_try(&f->call));
    assert_int_equal(f->call.status, PTIER_INVALID_ARGUMENT);
    finish(f);
}

static void
get_of_what_is_below_is_put_off(void **state)
{
    fixture *f = *state;
    begin_get(f, "p0");
    assert_false(ptier_call_try(&f->call));
    assert_hits(f, 0, 0);
    ptier_call_run(&f->call);
    assert_int_equal(f->call.status, PTIER_OK);
    assert_hits(f, 0, 1);
    finish(f);
    begin_get(f, "p9");
    assert_false(ptier_call_try(&f->call));
    ptier_call_run(&f->call);
    assert_int_equal(f->call.status, PTIER_NOT_FOUND);
    finish(f);
}

static void
many_go_on_where_they_were_put_off(void **state)
{
    fixture *f = *state;
    const char *const keys[] = {"p3", "p9", "p0", "p2"};
    uint64_t before = ptier_cache_revision(f->cache);
    begin_many(f, keys, 4);
    assert_false(ptier_call_try(&f->call));
    assert_hits(f, 2, 0); /* also what comes behind one that is missing */
    size_t deleted;       /* it was found already */
    assert_int_equal(
        ptier_cache_delete(f->cache, keys, 1, PTIER_DURABILITY_DEFAULT, &deleted, NULL, NULL),
        PTIER_OK);
    ptier_call_run(&f->call);
    assert_int_equal(f->call.status, PTIER_OK);
    assert_hits(f, 2, 1); /* nothing is looked up twice */
    Proxytier__V1__GetManyResponse *reply =
        proxytier__v1__get_many_response__unpack(NULL, f->call.reply.length, f->call.reply.data);
    assert_non_null(reply);
    assert_int_equal(reply->n_proxies, 3);
    assert_string_equal(reply->proxies[0]->key, "p3");
    assert_string_equal(reply->proxies[1]->key, "p0");
    assert_string_equal(reply->proxies[2]->key, "p2");
    assert_int_equal(reply->as_of, before); /* the first look-up */
    assert_int_equal(reply->n_tiers, 3);
    assert_int_equal(reply->tiers[0], PTIER_TIER_L1);
    assert_int_equal(reply->tiers[1], PTIER_TIER_L2);
    proxytier__v1__get_many_response__free_unpacked(reply, NULL);
    finish(f);
}

/* As when no worker has room for it: what was found so far is let go. */
static void
call_that_was_put_off_may_end_unfinished(void **state)
{
    fixture *f = *state;
    const char *const keys[] = {"p3", "p0"};
    begin_many(f, keys, 2);
    assert_false(ptier_call_try(&f->call));
    assert_int_equal(f->call.found.count, 2);
    assert_non_null(f->call.found.entries[0]);
    assert_null(f->call.found.entries[1]);
    ptier_call_fail(&f->call, PTIER_RESOURCE_EXHAUSTED, "no room");
    finish(f);
    assert_int_equal(f->call.found.count, 0);
}

static void
large_requests_are_not_tried(void **state)
{
    fixture *f = *state;
    const char *keys[1200];
    for (size_t i = 0; i < 1200; i++)
        keys[i] = "p3";
    begin_many(f, keys, 1200);
    assert_false(ptier_call_try(&f->call));
    assert_hits(f, 0, 0);
    ptier_call_run(&f->call);
    assert_int_equal(f->call.status, PTIER_OK);
    finish(f);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_cache, close_cache)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(get_of_what_l1_has_is_over_at_once), TEST(get_of_what_is_below_is_put_off),
        TEST(many_go_on_where_they_were_put_off), TEST(call_that_was_put_off_may_end_unfinished),
        TEST(large_requests_are_not_tried),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
