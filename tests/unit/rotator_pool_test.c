/* examples/rotator/pool.c against a daemon that this file plays: ptier_pick and ptier_records_free
 * are its own. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "pool.h"

/* What the next pick answers with, and what happens before its reply arrives. */
static struct {
    ptier_record records[4];
    size_t count;
    size_t asked, excluded;
    const char *source;
    void (*meanwhile)(proxy_pool *pool);
    proxy_pool *pool;
} daemon_;

ptier_status
ptier_pick(ptier_client *client, const ptier_pick_options *options, ptier_records *result,
           ptier_error *error)
{
    (void)client;
    daemon_.asked = options->count;
    daemon_.excluded = options->exclude_count;
    daemon_.source = options->filter->source;
    if (daemon_.count == 0)
        return ptier_fail(error, PTIER_NOT_FOUND, "none matches");
    result->records = daemon_.records;
    result->count = daemon_.count;
    if (daemon_.meanwhile)
        daemon_.meanwhile(daemon_.pool);
    return PTIER_OK;
}

void
ptier_records_free(ptier_records *records)
{
    records->count = 0;
}

static void
offer(size_t index, const char *key, const char *url)
{
    ptier_record_init(&daemon_.records[index]);
    daemon_.records[index].key = key;
    daemon_.records[index].url = url;
    daemon_.count = index + 1;
}

static int
set_up(void **state)
{
    static proxy_pool pool;
    memset(&daemon_, 0, sizeof daemon_);
    pool_init(&pool, 2, "local", false);
    daemon_.pool = &pool;
    *state = &pool;
    offer(0, "a", "http://127.0.0.1:1001");
    offer(1, "b", "http://127.0.0.1:1002");
    return 0;
}

static int
tear_down(void **state)
{
    pool_fini(*state);
    return 0;
}

static void
pool_fills_up_from_its_source(void **state)
{
    proxy_pool *pool = *state;
    pool_proxy first, second;
    assert_int_equal(pool_refill(pool, NULL, NULL), PTIER_OK);
    assert_int_equal(daemon_.asked, 2);
    assert_string_equal(daemon_.source, "local");
    assert_int_equal(pool_size(pool), 2);
    assert_true(pool_next(pool, &first));
    assert_true(pool_next(pool, &second));
    assert_string_not_equal(first.key, second.key);
}

static void
pool_drops_a_proxy_by_its_event_only(void **state)
{
    proxy_pool *pool = *state;
    pool_proxy proxy;
    assert_int_equal(pool_refill(pool, NULL, NULL), PTIER_OK);
    daemon_.count = 0; /* the daemon has none any more, but has not said so */
    for (int i = 0; i < 9; i++)
        pool_count_use(pool, "a", false);
    assert_int_equal(pool_refill(pool, NULL, NULL), PTIER_OK);
    assert_int_equal(pool_size(pool), 2);
    assert_int_equal(pool_drop(pool, "a", PTIER_REASON_HEALTH), 1);
    assert_int_equal(pool_drop(pool, "a", PTIER_REASON_HEALTH), 0);
    for (int i = 0; i < 4; i++) {
        assert_true(pool_next(pool, &proxy));
        assert_string_equal(proxy.key, "b");
    }
}

static void
remove_a(proxy_pool *pool)
{
    assert_int_equal(pool_drop(pool, "a", PTIER_REASON_HEALTH), 0); /* not in the pool yet */
}

static void
pool_discards_a_reply_that_an_event_overtook(void **state)
{
    proxy_pool *pool = *state;
    daemon_.meanwhile = remove_a;
    assert_int_equal(pool_refill(pool, NULL, NULL), PTIER_OK);
    assert_int_equal(pool_size(pool), 0);
    daemon_.meanwhile = NULL;
    offer(0, "b", "http://127.0.0.1:1002");
    assert_int_equal(pool_refill(pool, NULL, NULL), PTIER_OK);
    assert_int_equal(pool_size(pool), 1);
    assert_int_equal(pool->came_back, 0);
}

static void
pool_never_hands_out_a_remote_proxy_unless_allowed(void **state)
{
    proxy_pool *pool = *state;
    pool_proxy proxy;
    offer(0, "far", "http://192.0.2.1:8080");
    assert_int_equal(pool_refill(pool, NULL, NULL), PTIER_OK);
    assert_false(pool_next(pool, &proxy));
    offer(0, "near", "http://[::1]:8080");
    assert_int_equal(pool_refill(pool, NULL, NULL), PTIER_OK);
    assert_int_equal(daemon_.excluded, 1); /* the refused one is not asked for again */
    assert_true(pool_next(pool, &proxy));
    assert_string_equal(proxy.key, "near");
    pool->allow_remote = true;
    assert_int_equal(pool_drop(pool, NULL, PTIER_REASON_CLEARED), 1);
    offer(0, "far", "http://192.0.2.1:8080");
    assert_int_equal(pool_refill(pool, NULL, NULL), PTIER_OK);
    assert_true(pool_next(pool, &proxy));
    assert_string_equal(proxy.key, "far");
}

static void
pool_notices_what_comes_back_after_its_eviction(void **state)
{
    proxy_pool *pool = *state;
    assert_int_equal(pool_refill(pool, NULL, NULL), PTIER_OK);
    assert_int_equal(pool_drop(pool, "b", PTIER_REASON_HEALTH), 1);
    assert_int_equal(pool_refill(pool, NULL, NULL), PTIER_OK);
    assert_int_equal(pool_size(pool), 2);
    assert_int_equal(pool->came_back, 1);
}

static void
pool_tells_when_nothing_matches(void **state)
{
    ptier_error error;
    daemon_.count = 0;
    assert_int_equal(pool_refill(*state, NULL, &error), PTIER_NOT_FOUND);
    assert_int_equal(pool_size(*state), 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(pool_fills_up_from_its_source),
        CASE(pool_drops_a_proxy_by_its_event_only),
        CASE(pool_discards_a_reply_that_an_event_overtook),
        CASE(pool_never_hands_out_a_remote_proxy_unless_allowed),
        CASE(pool_notices_what_comes_back_after_its_eviction),
        CASE(pool_tells_when_nothing_matches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
