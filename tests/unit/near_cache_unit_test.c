/* The rules of the near cache one by one: fills, events, own writes, bounds, time to live. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "near_cache.h"

#define MS    INT64_C(1000000)
#define START (1000000 * MS)

typedef struct box {
    ptier_near *near;
    int64_t now;
} box;

static ptier_near_beat
beat_of(uint8_t run, uint64_t revision, int64_t now)
{
    return (ptier_near_beat){.boot_id = {run},
                             .store_id = {1},
                             .daemon_ms = now / MS,
                             .revision = revision,
                             .contiguous = true};
}

/* The daemon of this run says that all up to `revision` was told by now. */
static void
hear(box *b, uint8_t run, uint64_t revision)
{
    const uint8_t boot_id[PTIER_NEAR_ID_BYTES] = {run};
    ptier_near_beat beat = beat_of(run, revision, b->now);
    ptier_near_reply(b->near, boot_id, b->now, b->now, b->now / MS);
    ptier_near_heartbeat(b->near, &beat, b->now);
}

static void
open_box(box *b, size_t entries, size_t bytes)
{
    const ptier_near_options options = {.entries = entries,
                                        .bytes = bytes,
                                        .absent_entries = 4,
                                        .absent_ttl = 5000 * MS,
                                        .max_staleness = 1000 * MS};
    b->now = START;
    assert_int_equal(ptier_near_create(&options, &b->near, NULL), PTIER_OK);
}

static int
start(void **state)
{
    box *b = calloc(1, sizeof *b);
    assert_non_null(b);
    open_box(b, 100, 1 << 20);
    hear(b, 1, 10);
    *state = b;
    return 0;
}

static int
stop(void **state)
{
    box *b = *state;
    ptier_near_destroy(b->near);
    free(b);
    return 0;
}

static bool
fill_with(box *b, const ptier_near_ticket *ticket, const char *key, bool absent, uint64_t as_of,
          int64_t expires)
{
    ptier_record record;
    ptier_record_init(&record);
    record.key = key;
    record.url = "http://192.0.2.1:80";
    record.password = "secret";
    record.health = PTIER_HEALTH_HEALTHY;
    record.failure_count = 0;
    record.revision = as_of;
    ptier_near_record *near = ptier_near_record_create(&record, absent, as_of, expires);
    assert_non_null(near);
    bool kept = ptier_near_fill(b->near, ticket, near);
    ptier_near_record_release(near);
    return kept;
}

static bool
fill(box *b, const char *key, uint64_t as_of)
{
    ptier_near_ticket ticket;
    ptier_near_begin(b->near, key, &ticket);
    return fill_with(b, &ticket, key, false, as_of, PTIER_NEAR_FOREVER);
}

static bool
fill_absent(box *b, const char *key, uint64_t as_of)
{
    ptier_near_ticket ticket;
    ptier_near_begin(b->near, key, &ticket);
    return fill_with(b, &ticket, key, true, as_of, b->now + 5000 * MS);
}

static void
tell(box *b, ptier_event_type type, const char *key, uint64_t revision)
{
    ptier_event event = {.type = type, .revision = revision};
    ptier_record_init(&event.record);
    event.record.key = key;
    if (type == PTIER_EVENT_HEALTH) {
        event.record.health = PTIER_HEALTH_DEGRADED;
        event.record.failure_count = 2;
        event.record.needs_revalidation = true;
    }
    ptier_near_event(b->near, &event);
}

/* What a read gives: MISS, or HIT and STALE with `absent` and failure count. */
typedef struct seen {
    ptier_near_outcome outcome;
    bool absent;
    uint32_t failures;
    uint64_t as_of;
    int64_t remaining_ms;
} seen;

static seen
look(box *b, const char *key)
{
    ptier_near_record *record;
    seen s = {.outcome = ptier_near_get(b->near, key, b->now, &record)};
    if (record) {
        ptier_record view;
        ptier_near_record_view(record, b->now, &view);
        assert_string_equal(view.key, key);
        assert_true(record->absent || strcmp(view.password, "secret") == 0);
        s.absent = record->absent;
        s.failures = view.failure_count;
        s.as_of = record->as_of;
        s.remaining_ms = view.remaining_ttl_ms;
    }
    ptier_near_record_release(record);
    return s;
}

#define assert_hit(b, key)  assert_int_equal(look(b, key).outcome, PTIER_NEAR_HIT)
#define assert_miss(b, key) assert_int_equal(look(b, key).outcome, PTIER_NEAR_MISS)

static void
nothing_is_filled_before_the_stream_is_followed(void **state)
{
    box *b = *state;
    ptier_near_destroy(b->near);
    open_box(b, 100, 1 << 20);
    ptier_near_ticket early;
    ptier_near_begin(b->near, "a", &early);
    assert_false(fill(b, "a", 10));
    ptier_near_beat beat = beat_of(1, 10, b->now);
    beat.contiguous = false;
    ptier_near_heartbeat(b->near, &beat, b->now);
    assert_false(fill(b, "a", 10));
    ptier_near_ticket between;
    ptier_near_begin(b->near, "a", &between);
    hear(b, 1, 10);
    assert_false(fill_with(b, &between, "a", false, 11, PTIER_NEAR_FOREVER));
    assert_false(fill(b, "a", 9)); /* what happened up to 10 was not told */
    assert_false(fill_with(b, &early, "a", false, 11, PTIER_NEAR_FOREVER)); /* asked for before */
    assert_miss(b, "a");
    assert_true(fill(b, "a", 10));
    assert_hit(b, "a");
}

static void
fill_older_than_an_event_of_its_key_is_refused(void **state)
{
    box *b = *state;
    ptier_near_ticket ticket;
    ptier_near_begin(b->near, "a", &ticket);
    tell(b, PTIER_EVENT_UPDATED, "a", 12);
    assert_false(fill_with(b, &ticket, "a", false, 11, PTIER_NEAR_FOREVER));
    assert_miss(b, "a");
    assert_true(fill_with(b, &ticket, "a", false, 12, PTIER_NEAR_FOREVER));
    assert_hit(b, "a");
    tell(b, PTIER_EVENT_UPDATED, "a", 12); /* is in it */
    assert_hit(b, "a");
    tell(b, PTIER_EVENT_UPDATED, "a", 13); /* credentials may have changed, and are not told */
    assert_miss(b, "a");
    assert_false(fill_absent(b, "a", 12));
}

static void
older_fill_does_not_replace_a_newer_one(void **state)
{
    box *b = *state;
    assert_true(fill(b, "a", 20));
    assert_true(fill(b, "a", 15));
    assert_int_equal(look(b, "a").as_of, 20);
    assert_true(fill_absent(b, "a", 25));
    assert_true(look(b, "a").absent);
    assert_true(fill(b, "a", 26));
    assert_false(look(b, "a").absent);
}

static void
health_is_patched_in_place(void **state)
{
    box *b = *state;
    assert_true(fill(b, "a", 10));
    tell(b, PTIER_EVENT_HEALTH, "a", 11);
    assert_int_equal(look(b, "a").failures, 2);
    assert_int_equal(look(b, "a").as_of, 11);
    tell(b, PTIER_EVENT_HEALTH, "a", 11); /* once more changes nothing */
    assert_int_equal(look(b, "a").as_of, 11);
    assert_hit(b, "a");
}

static void
patch_revives_nothing_that_may_have_missed_events(void **state)
{
    box *b = *state;
    assert_true(fill(b, "a", 10));
    ptier_near_resync(b->near, 20);
    hear(b, 1, 20);
    tell(b, PTIER_EVENT_HEALTH, "a", 21);
    assert_miss(b, "a");
    assert_true(fill(b, "b", 25));
    tell(b, PTIER_EVENT_CLEARED, NULL, 30);
    tell(b, PTIER_EVENT_HEALTH, "b", 31);
    assert_miss(b, "b");
}

static void
what_raises_the_watermark_covers_entries_and_fills_under_way(void **state)
{
    static const ptier_event_type types[] = {PTIER_EVENT_CLEARED, PTIER_EVENT_REMOVED};
    box *b = *state;
    for (uint64_t i = 0; i < 2; i++) { /* a removal without a key may be of any */
        ptier_near_ticket ticket;
        uint64_t at = 20 + 10 * i;
        assert_true(fill(b, "old", at - 1));
        assert_true(fill(b, "new", at));
        ptier_near_begin(b->near, "a", &ticket);
        tell(b, types[i], i ? "" : NULL, at);
        assert_miss(b, "old");
        assert_hit(b, "new");
        assert_false(fill_with(b, &ticket, "a", false, at - 1, PTIER_NEAR_FOREVER));
        assert_true(fill_with(b, &ticket, "a", false, at, PTIER_NEAR_FOREVER));
    }
    ptier_near_ticket ticket;
    ptier_near_begin(b->near, "a", &ticket);
    ptier_near_resync(b->near, 50);
    assert_false(fill_with(b, &ticket, "a", false, 60, PTIER_NEAR_FOREVER)); /* not followed */
    hear(b, 1, 55);
    assert_miss(b, "new");
    assert_false(fill_with(b, &ticket, "a", false, 60, PTIER_NEAR_FOREVER)); /* asked for before */
    assert_false(fill(b, "a", 54)); /* up to where events may have been missed */
    assert_true(fill(b, "a", 55));
}

static void
another_run_or_store_drops_everything(void **state)
{
    box *b = *state;
    ptier_near_ticket ticket;
    assert_true(fill(b, "a", 1000));
    ptier_near_begin(b->near, "a", &ticket);
    hear(b, 2, 3); /* a new store: its revisions begin anew */
    assert_miss(b, "a");
    assert_false(fill_with(b, &ticket, "a", false, 1001, PTIER_NEAR_FOREVER));
    assert_true(fill(b, "a", 3));
    assert_hit(b, "a");
    ptier_near_beat beat = beat_of(2, 4, b->now);
    beat.store_id[0] = 9;
    ptier_near_heartbeat(b->near, &beat, b->now);
    assert_miss(b, "a");
}

static void
reply_of_another_run_ends_serving_at_once(void **state)
{
    box *b = *state;
    const uint8_t other[PTIER_NEAR_ID_BYTES] = {2};
    assert_true(fill(b, "a", 1000));
    ptier_near_reply(b->near, other, b->now, b->now, 5);
    assert_int_equal(look(b, "a").outcome, PTIER_NEAR_STALE);
}

static void
own_write_is_never_missed(void **state)
{
    box *b = *state;
    ptier_near_ticket ticket;
    assert_true(fill(b, "a", 10));
    assert_true(fill_absent(b, "b", 10));
    ptier_near_begin(b->near, "a", &ticket);
    ptier_near_wrote(b->near, "a", 15);
    ptier_near_wrote(b->near, "b", 16);
    assert_miss(b, "a");
    assert_miss(b, "b");
    assert_false(fill_with(b, &ticket, "a", false, 14, PTIER_NEAR_FOREVER));
    assert_true(fill_with(b, &ticket, "a", false, 15, PTIER_NEAR_FOREVER));
    tell(b, PTIER_EVENT_UPDATED, "a", 14); /* older than the own one: changes nothing */
    assert_hit(b, "a");
    ptier_near_begin(b->near, "a", &ticket);
    assert_int_equal(ticket.known, 15); /* a shared answer may not be older */
    ptier_near_cleared(b->near, 20);
    assert_miss(b, "a");
    ptier_near_begin(b->near, "c", &ticket);
    assert_int_equal(ticket.known, 20);
    assert_true(fill(b, "a", 21));
    ptier_near_forget(b->near, "a");
    assert_miss(b, "a");
}

static void
absence_is_known_until_the_key_is_made(void **state)
{
    box *b = *state;
    assert_true(fill_absent(b, "a", 10));
    assert_true(look(b, "a").absent);
    tell(b, PTIER_EVENT_REMOVED, "a", 11); /* still absent */
    assert_hit(b, "a");
    tell(b, PTIER_EVENT_CREATED, "a", 12);
    assert_miss(b, "a");
    assert_true(fill_absent(b, "b", 12));
    b->now += 5000 * MS;
    hear(b, 1, 12);
    assert_miss(b, "b");
    for (int i = 0; i < 20; i++) {
        char key[16];
        snprintf(key, sizeof key, "n%d", i);
        assert_true(fill_absent(b, key, 12));
    }
    ptier_near_statistics s;
    ptier_near_read_statistics(b->near, b->now, &s);
    assert_int_equal(s.absent_entries, 4);
    assert_true(s.evictions > 0);
}

static void
hits_are_served_while_contact_is_fresh(void **state)
{
    box *b = *state;
    assert_true(fill(b, "a", 10));
    b->now += 998 * MS; /* stamps are rounded to 1 ms, and clocks drift */
    assert_hit(b, "a");
    b->now += 2 * MS;
    assert_int_equal(look(b, "a").outcome, PTIER_NEAR_STALE);
    hear(b, 1, 10);
    assert_hit(b, "a");
    /* A heartbeat that took 900 ms is that old, however recently it arrived. */
    b->now += 950 * MS;
    ptier_near_beat late = beat_of(1, 11, b->now - 900 * MS);
    ptier_near_heartbeat(b->near, &late, b->now);
    b->now += 150 * MS;
    assert_int_equal(look(b, "a").outcome, PTIER_NEAR_STALE);
    ptier_near_statistics s;
    ptier_near_read_statistics(b->near, b->now, &s);
    assert_int_equal(s.declined, 2);
    assert_int_equal(s.hits, 2);
    assert_true(s.age_ms >= 1050 && s.age_ms < 1060);
}

static void
record_is_over_when_its_time_is(void **state)
{
    box *b = *state;
    ptier_near_ticket ticket;
    ptier_near_begin(b->near, "a", &ticket);
    int64_t expires = ptier_near_expiry(b->now, 500);
    assert_true(expires <= b->now + 500 * MS && expires > b->now + 499 * MS);
    assert_true(fill_with(b, &ticket, "a", false, 10, expires));
    b->now += 400 * MS;
    seen s = look(b, "a");
    assert_int_equal(s.outcome, PTIER_NEAR_HIT);
    assert_true(s.remaining_ms <= 100 && s.remaining_ms >= 98);
    b->now += 100 * MS;
    assert_miss(b, "a");
    assert_int_equal(ptier_near_expiry(b->now, -1), PTIER_NEAR_FOREVER);
}

static void
bounds_of_entries_and_bytes_hold(void **state)
{
    box *b = *state;
    size_t bounds[][2] = {{50, 1 << 20}, {100000, 20000}};
    for (int round = 0; round < 2; round++) {
        ptier_near_destroy(b->near);
        open_box(b, bounds[round][0], bounds[round][1]);
        hear(b, 1, 10);
        ptier_near_statistics s;
        for (int i = 0; i < 1000; i++) {
            char key[16];
            snprintf(key, sizeof key, "key-%d", i);
            assert_true(fill(b, key, 10));
            assert_hit(b, round == 0 ? "key-0" : key); /* what is used stays */
            ptier_near_read_statistics(b->near, b->now, &s);
            assert_true(s.entries <= bounds[round][0] && s.bytes <= bounds[round][1]);
        }
        assert_true(s.entries > 20);
        assert_int_equal(s.evictions + s.entries, 1000);
    }
}

static void
uses_are_collected_once(void **state)
{
    box *b = *state;
    ptier_near_use uses[8];
    assert_true(fill(b, "a", 10));
    assert_true(fill(b, "b", 10));
    for (int i = 0; i < 7; i++)
        assert_hit(b, "a");
    assert_hit(b, "b");
    assert_int_equal(ptier_near_uncollected(b->near), 2);
    tell(b, PTIER_EVENT_REMOVED, "a", 11); /* was used all the same */
    size_t count = ptier_near_collect(b->near, uses, 8), total = 0;
    assert_int_equal(count, 2);
    for (size_t i = 0; i < count; i++) {
        total += uses[i].hits;
        assert_int_equal(uses[i].hits, strcmp(uses[i].record->record.key, "a") == 0 ? 7 : 1);
        assert_int_equal(uses[i].last_hit, b->now);
        ptier_near_record_release(uses[i].record);
    }
    assert_int_equal(total, 8);
    assert_int_equal(ptier_near_collect(b->near, uses, 8), 0);
    assert_hit(b, "b");
    assert_int_equal(ptier_near_collect(b->near, uses, 8), 1);
    assert_int_equal(uses[0].hits, 1);
    ptier_near_record_release(uses[0].record);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, start, stop)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(nothing_is_filled_before_the_stream_is_followed),
        CASE(fill_older_than_an_event_of_its_key_is_refused),
        CASE(older_fill_does_not_replace_a_newer_one),
        CASE(health_is_patched_in_place),
        CASE(patch_revives_nothing_that_may_have_missed_events),
        CASE(what_raises_the_watermark_covers_entries_and_fills_under_way),
        CASE(another_run_or_store_drops_everything),
        CASE(reply_of_another_run_ends_serving_at_once),
        CASE(own_write_is_never_missed),
        CASE(absence_is_known_until_the_key_is_made),
        CASE(hits_are_served_while_contact_is_fresh),
        CASE(record_is_over_when_its_time_is),
        CASE(bounds_of_entries_and_bytes_hold),
        CASE(uses_are_collected_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
