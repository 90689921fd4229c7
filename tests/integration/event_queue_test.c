/* Callbacks that block, filters, and what is promised of them: over a real daemon. */
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "support/mirrors.h"

#define PATIENCE_MS 20000

typedef struct heard {
    atomic_size_t count, connected, resyncs, disorder;
    atomic_size_t by_type[PTIER_EVENT_TIER_RECOVERED + 1];
    atomic_bool blocked; /* the next callback waits until this is false */
    atomic_bool waits;   /* one does */
    uint64_t last;       /* the callback's */
} heard;

static void
on_event(void *context, const ptier_event *event)
{
    heard *h = context;
    while (atomic_load(&h->blocked)) {
        const struct timespec pause = {.tv_nsec = 1000000};
        atomic_store(&h->waits, true);
        nanosleep(&pause, NULL);
    }
    if (h->last != 0 && event->sequence <= h->last)
        h->disorder++;
    h->last = event->sequence;
    h->by_type[event->type]++;
    h->count++;
}

static void
on_state(void *context, ptier_subscription_state state)
{
    heard *h = context;
    h->connected += state == PTIER_SUBSCRIPTION_CONNECTED;
    h->resyncs += state == PTIER_SUBSCRIPTION_RESYNC;
}

static void
wait_for(const atomic_size_t *counter, size_t value)
{
    for (int waited = 0; waited < PATIENCE_MS && atomic_load(counter) < value; waited += 2) {
        const struct timespec pause = {.tv_nsec = 2000000};
        nanosleep(&pause, NULL);
    }
    if (atomic_load(counter) < value)
        fail_msg("%zu of %zu came", atomic_load(counter), value);
}

static void
wait_until_blocked(heard *h)
{
    for (int waited = 0; waited < PATIENCE_MS && !atomic_load(&h->waits); waited++) {
        const struct timespec pause = {.tv_nsec = 1000000};
        nanosleep(&pause, NULL);
    }
    assert_true(atomic_load(&h->waits));
}

static ptier_subscription *
subscribe(event_box *b, heard *h, ptier_subscription_options *options)
{
    ptier_subscription *subscription;
    options->on_event = on_event;
    options->on_state = on_state;
    options->context = h;
    assert_int_equal(ptier_subscribe(b->client, options, &subscription, NULL), PTIER_OK);
    wait_for(&h->connected, 1);
    return subscription;
}

/* One subscription blocks in its callback, with a queue of 100, while `changes` happen; the other
 * does not. */
static void
run_blocked(const char *journal_events, unsigned changes, heard *slow, heard *quick)
{
    ptier_subscription_options options;
    event_box b;
    event_box_open(&b, journal_events);
    ptier_subscription_options_init(&options);
    ptier_subscription *second = subscribe(&b, quick, &options);
    options.queue_events = 100;
    atomic_store(&slow->blocked, true);
    ptier_subscription *first = subscribe(&b, slow, &options);
    test_put_range(b.client, 0, 10, "one");
    wait_until_blocked(slow);
    size_t before = mallinfo2().uordblks;         /* 0 where a sanitizer allocates */
    for (unsigned i = 0; i < changes; i += 100) { /* the publisher keeps up */
        test_put_range(b.client, i, 100, "two");
        wait_for(&quick->count, i + 110); /* not disturbed by the other */
    }
    size_t after = mallinfo2().uordblks;
    assert_int_equal(slow->count, 0);
    assert_true(after < before + (1 << 20));
    atomic_store(&slow->blocked, false);
    if (strtoul(journal_events, NULL, 10) < changes)
        wait_for(&slow->resyncs, 1);
    else
        wait_for(&slow->count, changes + 10);
    size_t reached = slow->count;
    test_put_range(b.client, 0, 50, "three");
    wait_for(&slow->count, reached + 50);
    wait_for(&quick->count, changes + 60);
    ptier_subscription_close(first);
    ptier_subscription_close(second);
    assert_int_equal(quick->count, changes + 60);
    assert_int_equal(quick->resyncs + quick->disorder + slow->disorder, 0);
    event_box_close(&b);
}

static void
callback_that_blocks_loses_nothing_that_the_journal_has(void **state)
{
    (void)state;
    heard slow = {0}, quick = {0};
    run_blocked("65536", 5000, &slow, &quick);
    assert_int_equal(slow.resyncs, 0);
    assert_int_equal(slow.count, 5060);
}

static void
callback_that_blocks_too_long_is_told_resync(void **state)
{
    (void)state;
    heard slow = {0}, quick = {0};
    run_blocked("1000", 5000, &slow, &quick);
    assert_int_equal(slow.resyncs, 1);
    assert_true(slow.count >= 100 + 50 && slow.count < 5000);
}

static void
blocked_queue_takes_bounded_memory(void **state)
{
    (void)state;
    heard slow = {0}, quick = {0};
    run_blocked("65536", 40000, &slow, &quick);
}

static void
filters_let_pass_what_was_asked_for(void **state)
{
    (void)state;
    heard source = {0}, prefix = {0}, reason = {0}, types = {0};
    ptier_subscription_options options;
    ptier_subscription *all[4];
    char key[24], start[2] = {0};
    event_box b;
    event_box_open(&b, "65536");
    ptier_subscription_options_init(&options);
    options.source = "b";
    all[0] = subscribe(&b, &source, &options);
    ptier_subscription_options_init(&options);
    test_key(3, key);
    start[0] = key[0];
    options.key_prefix = start;
    all[1] = subscribe(&b, &prefix, &options);
    ptier_subscription_options_init(&options);
    options.types = 1u << PTIER_EVENT_REMOVED;
    options.reasons = 1u << PTIER_REASON_HEALTH;
    all[2] = subscribe(&b, &reason, &options);
    ptier_subscription_options_init(&options);
    options.types = 1u << PTIER_EVENT_UPDATED | 1u << PTIER_EVENT_HEALTH;
    all[3] = subscribe(&b, &types, &options);

    size_t with_prefix = 0;
    for (unsigned i = 0; i < 200; i++) {
        test_key(i, key);
        with_prefix += key[0] == start[0];
    }
    test_put_range(b.client, 0, 100, "a");
    test_put_range(b.client, 100, 100, "b");
    test_key(150, key);
    ptier_report report = {.key = key, .outcome = PTIER_REPORT_FAILED};
    for (int i = 0; i < 3; i++)
        assert_int_equal(ptier_report_health(b.client, &report, 1, NULL, NULL, NULL), PTIER_OK);
    bool marked = key[0] == start[0];
    assert_int_equal(test_delete_range(b.client, 90, 20), 20);
    test_put_range(b.client, 0, 5, "a");
    assert_int_equal(ptier_clear(b.client, PTIER_TIER_NONE, NULL, NULL, NULL), PTIER_OK);
    heard *const hear[] = {&source, &prefix, &reason, &types};
    for (int i = 0; i < 4; i++) {
        wait_for(&hear[i]->by_type[PTIER_EVENT_CLEARED], 1); /* passes each */
        ptier_subscription_close(all[i]);
        assert_int_equal(hear[i]->disorder + hear[i]->resyncs, 0);
    }
    assert_int_equal(source.by_type[PTIER_EVENT_CREATED], 100);
    assert_int_equal(source.by_type[PTIER_EVENT_REMOVED], 10 + 1);
    assert_int_equal(source.by_type[PTIER_EVENT_UPDATED], 0);
    assert_true(source.by_type[PTIER_EVENT_HEALTH] >= 1); /* its source is told as well */
    assert_int_equal(prefix.by_type[PTIER_EVENT_CREATED], with_prefix);
    assert_true(marked || prefix.by_type[PTIER_EVENT_HEALTH] == 0);
    assert_int_equal(reason.by_type[PTIER_EVENT_REMOVED], 1);
    assert_int_equal(reason.count, 2);
    assert_int_equal(types.by_type[PTIER_EVENT_UPDATED], 5);
    assert_int_equal(types.by_type[PTIER_EVENT_HEALTH], source.by_type[PTIER_EVENT_HEALTH]);
    assert_int_equal(types.by_type[PTIER_EVENT_CREATED] + types.by_type[PTIER_EVENT_REMOVED], 0);
    event_box_close(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(callback_that_blocks_loses_nothing_that_the_journal_has),
        cmocka_unit_test(callback_that_blocks_too_long_is_told_resync),
        cmocka_unit_test(blocked_queue_takes_bounded_memory),
        cmocka_unit_test(filters_let_pass_what_was_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
