/* The queue before a subscription's callbacks: order, bounds, and what very many words on the state
 * become. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "event_filter.h"
#include "event_queue.h"

#define CONNECTED PTIER_SUBSCRIPTION_CONNECTED
#define LOST      PTIER_SUBSCRIPTION_LOST
#define RESYNC    PTIER_SUBSCRIPTION_RESYNC

static bool
add(ptier_event_queue *queue, uint64_t sequence, size_t key_bytes)
{
    static char key[20001];
    const ptier_position position = {.changes = sequence};
    Proxytier__V1__Event event = PROXYTIER__V1__EVENT__INIT;
    memset(key, 'k', key_bytes);
    key[key_bytes] = '\0';
    event.sequence = sequence;
    event.key = key;
    return ptier_event_queue_add(queue, &event, &position);
}

static bool
add_state(ptier_event_queue *queue, ptier_subscription_state state, uint64_t sequence)
{
    const ptier_position position = {.changes = sequence};
    return ptier_event_queue_add_state(queue, state, &position);
}

/* Takes one; state 0: an event. */
static void
expect(ptier_event_queue *queue, int state, uint64_t sequence)
{
    ptier_queued *item = ptier_event_queue_take(queue);
    assert_non_null(item);
    assert_int_equal(item->state, state);
    assert_int_equal(item->position.changes, sequence);
    if (state == 0) {
        Proxytier__V1__Event *event = proxytier__v1__event__unpack(NULL, item->length, item->bytes);
        assert_non_null(event);
        assert_int_equal(event->sequence, sequence);
        proxytier__v1__event__free_unpacked(event, NULL);
    }
    free(item);
}

static void
events_and_states_keep_their_order(void **state)
{
    (void)state;
    ptier_event_queue queue;
    ptier_event_queue_init(&queue, 10);
    assert_true(add_state(&queue, CONNECTED, 0));
    assert_true(add(&queue, 1, 16));
    assert_true(add(&queue, 2, 16));
    assert_true(add_state(&queue, LOST, 2));
    assert_true(add_state(&queue, RESYNC, 7));
    assert_true(add_state(&queue, CONNECTED, 7));
    assert_true(add(&queue, 8, 16));
    expect(&queue, CONNECTED, 0);
    expect(&queue, 0, 1);
    expect(&queue, 0, 2);
    expect(&queue, LOST, 2);
    expect(&queue, RESYNC, 7);
    expect(&queue, CONNECTED, 7);
    expect(&queue, 0, 8);
    assert_null(ptier_event_queue_take(&queue));
    assert_int_equal(queue.bytes + queue.events + queue.states, 0);
}

static void
full_queue_takes_no_event_but_states(void **state)
{
    (void)state;
    ptier_event_queue queue;
    ptier_event_queue_init(&queue, 3);
    for (uint64_t i = 1; i <= 3; i++)
        assert_true(add(&queue, i, 16));
    assert_false(add(&queue, 4, 16));
    assert_true(add_state(&queue, LOST, 3));
    expect(&queue, 0, 1);
    assert_true(add(&queue, 4, 16));
    assert_false(add(&queue, 5, 16));
    ptier_event_queue_clear(&queue);
    assert_true(add(&queue, 6, 16));
    ptier_event_queue_clear(&queue);
}

static void
large_events_are_bounded_in_bytes_and_one_always_fits(void **state)
{
    (void)state;
    ptier_event_queue queue;
    ptier_event_queue_init(&queue, 10);
    assert_true(add(&queue, 1, 20000)); /* alone */
    assert_false(add(&queue, 2, 16));
    expect(&queue, 0, 1);
    unsigned taken = 0;
    while (add(&queue, ++taken, 2000))
        assert_true(taken < 10);
    assert_int_equal(taken - 1, 10 * PTIER_QUEUE_EVENT_BYTES / 2000);
    assert_true(queue.bytes <= 10 * PTIER_QUEUE_EVENT_BYTES);
    ptier_event_queue_clear(&queue);
}

/* An application that was told LOST and is slow: it must hear of CONNECTED, whatever came behind.
 */
static void
resync_in_the_place_of_many_words_keeps_the_last_one_on_the_connection(void **state)
{
    (void)state;
    ptier_event_queue queue;
    ptier_event_queue_init(&queue, 10);
    assert_true(add_state(&queue, CONNECTED, 1));
    for (unsigned i = 2; i <= 65; i++)
        assert_true(add_state(&queue, RESYNC, i)); /* the last one takes the place of all */
    expect(&queue, CONNECTED, 65);
    expect(&queue, RESYNC, 65);
    assert_null(ptier_event_queue_take(&queue));
}

static void
very_many_states_are_merged(void **state)
{
    (void)state;
    ptier_event_queue queue;
    ptier_event_queue_init(&queue, 10);
    assert_true(add(&queue, 1, 16));
    for (unsigned i = 0; i < 1000; i++)
        assert_true(add_state(&queue, i % 2 ? CONNECTED : LOST, 1));
    assert_in_range(queue.states, 2, 64);
    assert_int_equal(queue.last->state, CONNECTED);
    expect(&queue, 0, 1); /* which cost no event */
    for (unsigned i = 0; i < 1000; i++) {
        assert_true(add_state(&queue, RESYNC, i));
        assert_true(add_state(&queue, CONNECTED, i));
        assert_in_range(queue.states, 1, 65);
    }
    ptier_queued *item;
    uint64_t resync_at = 0;
    while ((item = ptier_event_queue_take(&queue))) {
        resync_at = item->state == RESYNC ? item->position.changes : resync_at;
        free(item);
    }
    assert_int_equal(resync_at, 999); /* the last one is told */
}

static void
what_a_filter_cannot_know_passes(void **state)
{
    (void)state;
    Proxytier__V1__Proxy proxy = PROXYTIER__V1__PROXY__INIT;
    Proxytier__V1__Event event = PROXYTIER__V1__EVENT__INIT;
    char key[] = "abc", source[] = "list";
    ptier_subscription_options options;
    ptier_subscription_options_init(&options);
    options.source = "other";
    options.key_prefix = "x";
    options.types = 1u << PTIER_EVENT_REMOVED | 1u << PTIER_EVENT_PROMOTED;
    event.type =
        PROXYTIER__V1__EVENT_TYPE__EVENT_TYPE_PROMOTED; /* many as one: no key, no record */
    assert_true(ptier_event_wanted(&options, &event));
    event.type = PROXYTIER__V1__EVENT_TYPE__EVENT_TYPE_CLEARED;
    assert_true(ptier_event_wanted(&options, &event));
    event.type = PROXYTIER__V1__EVENT_TYPE__EVENT_TYPE_REMOVED;
    event.reason = PROXYTIER__V1__REMOVAL_REASON__REMOVAL_REASON_CORRUPTION;
    event.key = key;
    event.proxy = &proxy;
    assert_false(ptier_event_wanted(&options, &event)); /* another key */
    options.key_prefix = "ab";
    assert_true(ptier_event_wanted(&options, &event)); /* of a source that damage took */
    event.reason = PROXYTIER__V1__REMOVAL_REASON__REMOVAL_REASON_TTL;
    assert_false(ptier_event_wanted(&options, &event)); /* of none */
    proxy.source = source;
    options.source = "list";
    assert_true(ptier_event_wanted(&options, &event));
    options.reasons = 1u << PTIER_REASON_HEALTH;
    assert_false(ptier_event_wanted(&options, &event));
    options.reasons |= 1u << PTIER_REASON_TTL;
    assert_true(ptier_event_wanted(&options, &event));
    event.type = PROXYTIER__V1__EVENT_TYPE__EVENT_TYPE_UPDATED;
    assert_false(ptier_event_wanted(&options, &event));
    event.type = (Proxytier__V1__EventType)15; /* of a later version */
    options.types = 0;
    assert_false(ptier_event_wanted(&options, &event));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_and_states_keep_their_order),
        cmocka_unit_test(full_queue_takes_no_event_but_states),
        cmocka_unit_test(large_events_are_bounded_in_bytes_and_one_always_fits),
        cmocka_unit_test(very_many_states_are_merged),
        cmocka_unit_test(resync_in_the_place_of_many_words_keeps_the_last_one_on_the_connection),
        cmocka_unit_test(what_a_filter_cannot_know_passes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
