/* What a caller gets of a hit, by the public calls, on a client made by hand that asks nobody. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "client_internal.h"
#include "near_client_internal.h"

#define MS INT64_C(1000000)

typedef struct box {
    ptier_client client;
    ptier_near_client near;
} box;

static ptier_error error;

static void
fill(box *b, const char *key)
{
    ptier_near_ticket ticket;
    ptier_record record;
    ptier_record_init(&record);
    record.key = key;
    record.url = "http://192.0.2.1:80";
    record.password = "secret";
    record.health = PTIER_HEALTH_HEALTHY;
    ptier_near_begin(b->near.cache, key, &ticket);
    ptier_near_record *made =
        ptier_near_record_create(&record, false, 10, ptier_near_now() + 3600000 * MS);
    assert_non_null(made);
    assert_true(ptier_near_fill(b->near.cache, &ticket, made));
    ptier_near_record_release(made);
}

static int
start(void **state)
{
    const ptier_near_options options = {
        .entries = 100, .bytes = 1 << 20, .max_staleness = 50000 * MS};
    const int64_t now = ptier_near_now();
    const ptier_near_beat beat = {.daemon_ms = now / MS, .revision = 10, .contiguous = true};
    box *b = calloc(1, sizeof *b);
    assert_non_null(b);
    b->client.near = &b->near;
    b->near.client = &b->client;
    assert_int_equal(ptier_near_create(&options, &b->near.cache, NULL), PTIER_OK);
    ptier_near_reply(b->near.cache, beat.boot_id, now, now, beat.daemon_ms);
    ptier_near_heartbeat(b->near.cache, &beat, now);
    fill(b, "a");
    *state = b;
    return 0;
}

static int
stop(void **state)
{
    box *b = *state;
    ptier_near_destroy(b->near.cache);
    free(b);
    return 0;
}

static ptier_records
get(box *b, const char *key)
{
    ptier_records found;
    memset(&found, 0xff, sizeof found); /* what was there does not matter */
    assert_int_equal(ptier_get(&b->client, key, &found, &error), PTIER_OK);
    assert_int_equal(found.count, 1);
    assert_int_equal(found.near_count, 1);
    assert_int_equal(found.as_of, 10);
    assert_int_equal(found.tier, PTIER_TIER_NONE);
    assert_false(found.stale);
    assert_string_equal(found.next_page_token, "");
    assert_string_equal(found.records[0].key, key);
    assert_string_equal(found.records[0].password, "secret");
    return found;
}

/* The record itself is the result, for one at a time: what others see of it stays as it is. */
static void
results_of_one_key_have_each_their_own_time_left(void **state)
{
    ptier_records first = get(*state, "a");
    int64_t left = first.records[0].remaining_ttl_ms;
    assert_true(left > 3590000 && left <= 3600000);
    nanosleep(&(struct timespec){.tv_nsec = 5 * MS}, NULL);
    ptier_records second = get(*state, "a"), third = get(*state, "a");
    assert_int_equal(first.records[0].remaining_ttl_ms, left);
    assert_true(second.records[0].remaining_ttl_ms < left);
    assert_true(third.records[0].remaining_ttl_ms < left);
    ptier_records_free(&first);
    assert_null(first.records);
    assert_null(first.internal);
    assert_int_equal(first.count, 0);
    ptier_records_free(&first); /* an empty set */
    ptier_records fourth = get(*state, "a");
    assert_true(fourth.records[0].remaining_ttl_ms < left);
    assert_string_equal(second.records[0].password, "secret");
    ptier_records_free(&third);
    ptier_records_free(&fourth);
    ptier_records_free(&second);
}

static void
result_outlives_record_and_client(void **state)
{
    box *b = *state;
    ptier_records lent = get(b, "a"), copy = get(b, "a");
    ptier_near_forget(b->near.cache, "a");
    fill(b, "a");
    ptier_records later = get(b, "a");
    assert_ptr_not_equal(later.records, lent.records);
    assert_string_equal(lent.records[0].password, "secret");
    stop(state);
    start(state);
    assert_string_equal(lent.records[0].password, "secret");
    assert_string_equal(copy.records[0].password, "secret");
    assert_string_equal(later.records[0].password, "secret");
    ptier_records_free(&lent);
    ptier_records_free(&copy);
    ptier_records_free(&later);
}

static void
closed_client_answers_nothing(void **state)
{
    box *b = *state;
    ptier_records found;
    atomic_store(&b->client.closed, true);
    assert_int_equal(ptier_get(&b->client, "a", &found, &error), PTIER_CANCELLED);
    assert_int_equal(found.count, 0);
    assert_int_equal(ptier_get(&b->client, NULL, &found, &error), PTIER_INVALID_ARGUMENT);
    ptier_near_wait_for_readers(b->near.cache); /* nobody is left in it */
}

static void *
close_the_cache(void *context)
{
    box *b = context;
    ptier_near_wait_for_readers(b->near.cache);
    return NULL;
}

static void
close_waits_for_who_is_reading(void **state)
{
    box *b = *state;
    ptier_near_look look;
    pthread_t closer;
    ptier_near_look_up(b->near.cache, "a", &look);
    assert_int_equal(pthread_create(&closer, NULL, close_the_cache, b), 0);
    nanosleep(&(struct timespec){.tv_nsec = 20 * MS}, NULL);
    assert_int_equal(ptier_near_take(b->near.cache, &look, ptier_near_now()), PTIER_NEAR_HIT);
    assert_int_not_equal(pthread_tryjoin_np(closer, NULL), 0);
    ptier_near_leave(&look);
    assert_int_equal(pthread_join(closer, NULL), 0);
    ptier_near_record_release(look.record);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, start, stop)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(results_of_one_key_have_each_their_own_time_left),
        CASE(result_outlives_record_and_client),
        CASE(closed_client_answers_nothing),
        CASE(close_waits_for_who_is_reading),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
