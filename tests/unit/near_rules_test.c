/* What the near cache takes in and lets go: fills, events, runs, own writes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "near_box.h"

static void
nothing_is_filled_before_the_stream_is_followed(void **state)
{
    near_box *b = *state;
    ptier_near_destroy(b->near);
    near_box_open(b, 100, 1 << 20);
    ptier_near_ticket early;
    ptier_near_begin(b->near, "a", &early);
    assert_false(near_fill(b, "a", 10));
    ptier_near_beat beat = near_beat_of(1, 10, b->now);
    beat.contiguous = false;
    ptier_near_heartbeat(b->near, &beat, b->now);
    assert_false(near_fill(b, "a", 10));
    ptier_near_ticket between;
    ptier_near_begin(b->near, "a", &between);
    near_hear(b, 1, 10);
    assert_false(near_fill_with(b, &between, "a", false, 11, PTIER_NEAR_FOREVER));
    assert_false(near_fill(b, "a", 9)); /* what happened up to 10 was not told */
    assert_false(
        near_fill_with(b, &early, "a", false, 11, PTIER_NEAR_FOREVER)); /* asked for before */
    assert_miss(b, "a");
    assert_true(near_fill(b, "a", 10));
    assert_hit(b, "a");
}

static void
fill_older_than_an_event_of_its_key_is_refused(void **state)
{
    near_box *b = *state;
    ptier_near_ticket ticket;
    ptier_near_begin(b->near, "a", &ticket);
    near_tell(b, PTIER_EVENT_UPDATED, "a", 12);
    assert_false(near_fill_with(b, &ticket, "a", false, 11, PTIER_NEAR_FOREVER));
    assert_miss(b, "a");
    assert_true(near_fill_with(b, &ticket, "a", false, 12, PTIER_NEAR_FOREVER));
    assert_hit(b, "a");
    near_tell(b, PTIER_EVENT_UPDATED, "a", 12); /* is in it */
    assert_hit(b, "a");
    near_tell(b, PTIER_EVENT_UPDATED, "a", 13); /* credentials may have changed, and are not told */
    assert_miss(b, "a");
    assert_false(near_fill_absent(b, "a", 12));
}

static void
older_fill_does_not_replace_a_newer_one(void **state)
{
    near_box *b = *state;
    assert_true(near_fill(b, "a", 20));
    assert_true(near_fill(b, "a", 15));
    assert_int_equal(near_look(b, "a").as_of, 20);
    assert_true(near_fill_absent(b, "a", 25));
    assert_true(near_look(b, "a").absent);
    assert_true(near_fill(b, "a", 26));
    assert_false(near_look(b, "a").absent);
}

static void
health_is_patched_in_place(void **state)
{
    near_box *b = *state;
    assert_true(near_fill(b, "a", 10));
    near_tell(b, PTIER_EVENT_HEALTH, "a", 11);
    assert_int_equal(near_look(b, "a").failures, 2);
    assert_int_equal(near_look(b, "a").as_of, 11);
    near_tell(b, PTIER_EVENT_HEALTH, "a", 11); /* once more changes nothing */
    assert_int_equal(near_look(b, "a").as_of, 11);
    assert_hit(b, "a");
}

/* A newer daemon may have more types of changes. */
static void
change_of_an_unknown_type_takes_what_it_may_have_changed(void **state)
{
    near_box *b = *state;
    const ptier_event_type unknown = (ptier_event_type)(PTIER_EVENT_CLEARED + 1);
    assert_true(near_fill(b, "a", 10));
    assert_true(near_fill(b, "b", 10));
    near_tell(b, unknown, "a", 11);
    assert_miss(b, "a");
    assert_hit(b, "b");
    assert_false(near_fill(b, "a", 10));
    near_tell(b, PTIER_EVENT_PROMOTED, "b", 12); /* changes nothing */
    assert_hit(b, "b");
    near_tell(b, unknown, "", 13);
    assert_miss(b, "b");
}

static void
patch_revives_nothing_that_may_have_missed_events(void **state)
{
    near_box *b = *state;
    assert_true(near_fill(b, "a", 10));
    ptier_near_resync(b->near, 20);
    near_hear(b, 1, 20);
    near_tell(b, PTIER_EVENT_HEALTH, "a", 21);
    assert_miss(b, "a");
    assert_true(near_fill(b, "b", 25));
    near_tell(b, PTIER_EVENT_CLEARED, NULL, 30);
    near_tell(b, PTIER_EVENT_HEALTH, "b", 31);
    assert_miss(b, "b");
}

static void
what_raises_the_watermark_covers_entries_and_fills_under_way(void **state)
{
    static const ptier_event_type types[] = {PTIER_EVENT_CLEARED, PTIER_EVENT_REMOVED};
    near_box *b = *state;
    for (uint64_t i = 0; i < 2; i++) { /* a removal without a key may be of any */
        ptier_near_ticket ticket;
        uint64_t at = 20 + 10 * i;
        assert_true(near_fill(b, "old", at - 1));
        assert_true(near_fill(b, "new", at));
        ptier_near_begin(b->near, "a", &ticket);
        near_tell(b, types[i], i ? "" : NULL, at);
        assert_miss(b, "old");
        assert_hit(b, "new");
        assert_false(near_fill_with(b, &ticket, "a", false, at - 1, PTIER_NEAR_FOREVER));
        assert_true(near_fill_with(b, &ticket, "a", false, at, PTIER_NEAR_FOREVER));
    }
    ptier_near_ticket ticket;
    ptier_near_begin(b->near, "a", &ticket);
    ptier_near_resync(b->near, 50);
    assert_false(near_fill_with(b, &ticket, "a", false, 60, PTIER_NEAR_FOREVER)); /* not followed */
    near_hear(b, 1, 55);
    assert_miss(b, "new");
    assert_false(
        near_fill_with(b, &ticket, "a", false, 60, PTIER_NEAR_FOREVER)); /* asked for before */
    assert_false(near_fill(b, "a", 54)); /* up to where events may have been missed */
    assert_true(near_fill(b, "a", 55));
}

static void
another_run_or_store_drops_everything(void **state)
{
    near_box *b = *state;
    ptier_near_ticket ticket;
    assert_true(near_fill(b, "a", 1000));
    ptier_near_begin(b->near, "a", &ticket);
    near_hear(b, 2, 3); /* a new store: its revisions begin anew */
    assert_miss(b, "a");
    assert_false(near_fill_with(b, &ticket, "a", false, 1001, PTIER_NEAR_FOREVER));
    assert_true(near_fill(b, "a", 3));
    assert_hit(b, "a");
    ptier_near_beat beat = near_beat_of(2, 4, b->now);
    beat.store_id[0] = 9;
    ptier_near_heartbeat(b->near, &beat, b->now);
    assert_miss(b, "a");
}

static void
reply_of_another_run_ends_serving_at_once(void **state)
{
    near_box *b = *state;
    const uint8_t other[PTIER_NEAR_ID_BYTES] = {2};
    assert_true(near_fill(b, "a", 1000));
    ptier_near_reply(b->near, other, b->now, b->now, 5);
    assert_int_equal(near_look(b, "a").outcome, PTIER_NEAR_STALE);
}

static void
own_write_is_never_missed(void **state)
{
    near_box *b = *state;
    ptier_near_ticket ticket;
    assert_true(near_fill(b, "a", 10));
    assert_true(near_fill_absent(b, "b", 10));
    ptier_near_begin(b->near, "a", &ticket);
    ptier_near_wrote(b->near, "a", 15);
    ptier_near_wrote(b->near, "b", 16);
    assert_miss(b, "a");
    assert_miss(b, "b");
    assert_false(near_fill_with(b, &ticket, "a", false, 14, PTIER_NEAR_FOREVER));
    assert_true(near_fill_with(b, &ticket, "a", false, 15, PTIER_NEAR_FOREVER));
    near_tell(b, PTIER_EVENT_UPDATED, "a", 14); /* older than the own one: changes nothing */
    assert_hit(b, "a");
    ptier_near_begin(b->near, "a", &ticket);
    assert_int_equal(ticket.known, 15); /* a shared answer may not be older */
    ptier_near_cleared(b->near, 20);
    assert_miss(b, "a");
    ptier_near_begin(b->near, "c", &ticket);
    assert_int_equal(ticket.known, 20);
    assert_true(near_fill(b, "a", 21));
    ptier_near_forget(b->near, "a");
    assert_miss(b, "a");
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, near_box_start, near_box_stop)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(nothing_is_filled_before_the_stream_is_followed),
        CASE(fill_older_than_an_event_of_its_key_is_refused),
        CASE(older_fill_does_not_replace_a_newer_one),
        CASE(health_is_patched_in_place),
        CASE(change_of_an_unknown_type_takes_what_it_may_have_changed),
        CASE(patch_revives_nothing_that_may_have_missed_events),
        CASE(what_raises_the_watermark_covers_entries_and_fills_under_way),
        CASE(another_run_or_store_drops_everything),
        CASE(reply_of_another_run_ends_serving_at_once),
        CASE(own_write_is_never_missed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
