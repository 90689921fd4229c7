/* The arithmetic of a subscriber's position: what is next, what was lost, what a heartbeat owes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "feed.h"

#define CHANGES PROXYTIER__V1__STREAM__STREAM_CHANGES
#define TIERS   PROXYTIER__V1__STREAM__STREAM_TIERS

/* A batch with `count` events of stream CHANGES, the last of them `last`. */
typedef struct made_batch {
    Proxytier__V1__EventBatch batch;
    Proxytier__V1__Heartbeat heartbeat;
    Proxytier__V1__StreamState states[2], *state_list[2];
    Proxytier__V1__Event events[8], *event_list[8];
    uint8_t boot_id[16], store_id[16];
} made_batch;

static const Proxytier__V1__EventBatch *
make_batch(made_batch *m, unsigned count, uint64_t last, uint64_t tiers_last)
{
    memset(m->boot_id, 1, sizeof m->boot_id);
    memset(m->store_id, 2, sizeof m->store_id);
    proxytier__v1__event_batch__init(&m->batch);
    proxytier__v1__heartbeat__init(&m->heartbeat);
    m->heartbeat.boot_id = (ProtobufCBinaryData){16, m->boot_id};
    m->heartbeat.store_id = (ProtobufCBinaryData){16, m->store_id};
    for (int i = 0; i < 2; i++) {
        proxytier__v1__stream_state__init(&m->states[i]);
        m->states[i].stream = (Proxytier__V1__Stream)(i + 1);
        m->states[i].last_sequence = i ? tiers_last : last;
        m->state_list[i] = &m->states[i];
    }
    m->heartbeat.streams = m->state_list;
    m->heartbeat.n_streams = 2;
    for (unsigned i = 0; i < count; i++) {
        proxytier__v1__event__init(&m->events[i]);
        m->events[i].sequence = last - count + 1 + i;
        m->event_list[i] = &m->events[i];
    }
    m->batch.heartbeat = &m->heartbeat;
    m->batch.stream = CHANGES;
    m->batch.events = m->event_list;
    m->batch.n_events = count;
    return &m->batch;
}

static void
following_starts_with_the_first_batch_that_is_heard(void **state)
{
    (void)state;
    ptier_feed feed;
    made_batch batch;
    ptier_feed_init(&feed, true, true);
    assert_int_equal(ptier_feed_meet(&feed, make_batch(&batch, 3, 12, 40), 0), PTIER_FEED_STARTED);
    assert_false(ptier_feed_lost_before(&feed, CHANGES, 10));
    assert_false(ptier_feed_take(&feed, CHANGES, 9));
    assert_true(ptier_feed_take(&feed, CHANGES, 10));
    assert_false(ptier_feed_take(&feed, CHANGES, 10)); /* once */
    assert_true(ptier_feed_take(&feed, TIERS, 41));
    assert_int_equal(ptier_feed_next_check(&feed), INT64_MAX);
}

static void
gap_is_seen_at_the_next_event(void **state)
{
    (void)state;
    ptier_feed feed;
    made_batch batch;
    ptier_feed_init(&feed, true, false);
    assert_int_equal(ptier_feed_meet(&feed, make_batch(&batch, 0, 5, 0), 0), PTIER_FEED_STARTED);
    assert_false(ptier_feed_lost_before(&feed, CHANGES, 6));
    assert_true(ptier_feed_lost_before(&feed, CHANGES, 7));
    assert_false(ptier_feed_take(&feed, CHANGES, 7));
    ptier_feed_skip_to(&feed, CHANGES, 6);
    assert_true(ptier_feed_take(&feed, CHANGES, 7));
    ptier_feed_skip_to(&feed, CHANGES, 3); /* never back */
    assert_true(ptier_feed_take(&feed, CHANGES, 8));
}

static void
heartbeat_ahead_is_overdue_only_after_the_grace(void **state)
{
    (void)state;
    ptier_feed feed;
    made_batch batch;
    ptier_feed_init(&feed, true, false);
    assert_int_equal(ptier_feed_meet(&feed, make_batch(&batch, 0, 5, 0), 1000), PTIER_FEED_STARTED);
    assert_int_equal(ptier_feed_meet(&feed, make_batch(&batch, 0, 7, 0), 1000), PTIER_FEED_SAME);
    assert_int_equal(ptier_feed_overdue(&feed, 1000), 0);
    assert_int_equal(ptier_feed_next_check(&feed), 1000 + PTIER_FEED_GRACE_MS);
    /* A later heartbeat does not put it off. */
    assert_int_equal(ptier_feed_meet(&feed, make_batch(&batch, 0, 9, 0), 1010), PTIER_FEED_SAME);
    assert_int_equal(ptier_feed_overdue(&feed, 1000 + PTIER_FEED_GRACE_MS), CHANGES);
    assert_true(ptier_feed_take(&feed, CHANGES, 6));
    assert_true(ptier_feed_take(&feed, CHANGES, 7));
    assert_int_equal(ptier_feed_overdue(&feed, INT64_MAX), 0);
}

static void
unwanted_stream_owes_nothing(void **state)
{
    (void)state;
    ptier_feed feed;
    made_batch batch;
    ptier_feed_init(&feed, true, false);
    assert_int_equal(ptier_feed_meet(&feed, make_batch(&batch, 0, 5, 5), 0), PTIER_FEED_STARTED);
    assert_int_equal(ptier_feed_meet(&feed, make_batch(&batch, 0, 5, 99), 0), PTIER_FEED_SAME);
    assert_int_equal(ptier_feed_next_check(&feed), INT64_MAX);
}

static void
other_run_or_store_starts_anew(void **state)
{
    (void)state;
    ptier_feed feed;
    made_batch batch;
    ptier_feed_init(&feed, true, false);
    assert_int_equal(ptier_feed_meet(&feed, make_batch(&batch, 0, 50, 0), 0), PTIER_FEED_STARTED);
    make_batch(&batch, 2, 2, 0);
    batch.boot_id[15] ^= 1;
    assert_false(ptier_feed_same_run(&feed, &batch.heartbeat));
    assert_int_equal(ptier_feed_meet(&feed, &batch.batch, 0), PTIER_FEED_RESTARTED);
    assert_true(ptier_feed_take(&feed, CHANGES, 1));
    batch.store_id[0] ^= 1;
    assert_int_equal(ptier_feed_meet(&feed, &batch.batch, 0), PTIER_FEED_RESTARTED);
    assert_true(ptier_feed_same_run(&feed, &batch.heartbeat));
}

static void
batch_without_proper_ids_is_refused(void **state)
{
    (void)state;
    ptier_feed feed;
    made_batch batch;
    ptier_feed_init(&feed, true, false);
    make_batch(&batch, 0, 5, 0);
    batch.heartbeat.boot_id.len = 15;
    assert_int_equal(ptier_feed_meet(&feed, &batch.batch, 0), PTIER_FEED_BAD);
    batch.batch.heartbeat = NULL;
    assert_int_equal(ptier_feed_meet(&feed, &batch.batch, 0), PTIER_FEED_BAD);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(following_starts_with_the_first_batch_that_is_heard),
        cmocka_unit_test(gap_is_seen_at_the_next_event),
        cmocka_unit_test(heartbeat_ahead_is_overdue_only_after_the_grace),
        cmocka_unit_test(unwanted_stream_owes_nothing),
        cmocka_unit_test(other_run_or_store_starts_anew),
        cmocka_unit_test(batch_without_proper_ids_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
