/* What the near cache serves of what it keeps: absence, freshness, time to live, bounds, uses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "near_box.h"

static void
absence_is_known_until_the_key_is_made(void **state)
{
    near_box *b = *state;
    assert_true(near_fill_absent(b, "a", 10));
    assert_true(near_look(b, "a").absent);
    near_tell(b, PTIER_EVENT_REMOVED, "a", 11); /* still absent */
    assert_hit(b, "a");
    near_tell(b, PTIER_EVENT_CREATED, "a", 12);
    assert_miss(b, "a");
    assert_true(near_fill_absent(b, "b", 12));
    b->now += 5000 * MS;
    near_hear(b, 1, 12);
    assert_miss(b, "b");
    for (int i = 0; i < 20; i++) {
        char key[16];
        snprintf(key, sizeof key, "n%d", i);
        assert_true(near_fill_absent(b, key, 12));
    }
    ptier_near_statistics s;
    ptier_near_read_statistics(b->near, b->now, &s);
    assert_int_equal(s.absent_entries, 4);
    assert_true(s.evictions > 0);
}

static void
hits_are_served_while_contact_is_fresh(void **state)
{
    near_box *b = *state;
    assert_true(near_fill(b, "a", 10));
    b->now += 998 * MS; /* stamps are rounded to 1 ms, and clocks drift */
    assert_hit(b, "a");
    b->now += 2 * MS;
    assert_int_equal(near_look(b, "a").outcome, PTIER_NEAR_STALE);
    near_hear(b, 1, 10);
    assert_hit(b, "a");
    /* A heartbeat that took 900 ms is that old, however recently it arrived. */
    b->now += 950 * MS;
    ptier_near_beat late = near_beat_of(1, 11, b->now - 900 * MS);
    ptier_near_heartbeat(b->near, &late, b->now);
    b->now += 150 * MS;
    assert_int_equal(near_look(b, "a").outcome, PTIER_NEAR_STALE);
    ptier_near_statistics s;
    ptier_near_read_statistics(b->near, b->now, &s);
    assert_int_equal(s.declined, 2);
    assert_int_equal(s.hits, 2);
    assert_true(s.age_ms >= 1050 && s.age_ms < 1060);
}

static void
record_is_over_when_its_time_is(void **state)
{
    near_box *b = *state;
    ptier_near_ticket ticket;
    ptier_near_begin(b->near, "a", &ticket);
    int64_t expires = ptier_near_expiry(b->now, 500);
    assert_true(expires <= b->now + 500 * MS && expires > b->now + 498 * MS);
    assert_true(near_fill_with(b, &ticket, "a", false, 10, expires));
    b->now += 400 * MS;
    near_seen s = near_look(b, "a");
    assert_int_equal(s.outcome, PTIER_NEAR_HIT);
    assert_true(s.remaining_ms <= 100 && s.remaining_ms >= 98);
    b->now += 100 * MS;
    assert_miss(b, "a");
    assert_int_equal(ptier_near_expiry(b->now, -1), PTIER_NEAR_FOREVER);
}

static void
bounds_of_entries_and_bytes_hold(void **state)
{
    near_box *b = *state;
    size_t bounds[][2] = {{50, 1 << 20}, {100000, 20000}};
    for (int round = 0; round < 2; round++) {
        ptier_near_destroy(b->near);
        near_box_open(b, bounds[round][0], bounds[round][1]);
        near_hear(b, 1, 10);
        ptier_near_statistics s;
        for (int i = 0; i < 1000; i++) {
            char key[16];
            snprintf(key, sizeof key, "key-%d", i);
            assert_true(near_fill(b, key, 10));
            assert_hit(b, round == 0 ? "key-0" : key); /* what is used stays */
            ptier_near_read_statistics(b->near, b->now, &s);
            assert_true(s.entries <= bounds[round][0] && s.bytes <= bounds[round][1]);
        }
        assert_true(s.entries > 20);
        assert_int_equal(s.evictions + s.entries, 1000);
    }
}

/* What is found is no older than what was known when it was looked for: not, by a heartbeat that
 * came later, as new as that says. */
static void
look_up_is_judged_by_what_was_known_when_it_began(void **state)
{
    near_box *b = *state;
    ptier_near_look look;
    assert_true(near_fill(b, "a", 10));
    ptier_near_look_up(b->near, "a", &look);
    near_hear(b, 1, 20);
    assert_int_equal(ptier_near_take(b->near, &look, b->now), PTIER_NEAR_HIT);
    assert_int_equal(look.revision, 10);
    ptier_near_leave(&look);
    ptier_near_record_release(look.record);

    ptier_near_look_up(b->near, "a", &look);
    b->now += 1000 * MS;
    near_hear(b, 1, 20);
    assert_int_equal(ptier_near_take(b->near, &look, b->now), PTIER_NEAR_STALE);
    ptier_near_leave(&look);
    ptier_near_record_release(look.record);
    assert_hit(b, "a");
}

static void
record_is_lent_to_one_at_a_time(void **state)
{
    (void)state;
    ptier_record record, view;
    ptier_record_init(&record);
    record.key = "a";
    record.report_count = 7;
    ptier_near_record *near = ptier_near_record_create(&record, false, 10, START + 500 * MS);
    assert_non_null(near);
    assert_true(ptier_near_record_lend(near, START));
    assert_int_equal(near->record.remaining_ttl_ms, 500);
    assert_false(ptier_near_record_lend(near, START + 100 * MS));
    assert_int_equal(near->record.remaining_ttl_ms, 500);
    ptier_near_record_view(near, START + 100 * MS, &view);
    assert_int_equal(view.remaining_ttl_ms, 400);
    assert_string_equal(view.key, "a");
    assert_int_equal(view.report_count, 7);
    ptier_near_record_take_back(ptier_near_record_retain(near));
    assert_true(ptier_near_record_lend(near, START + 900 * MS));
    assert_int_equal(near->record.remaining_ttl_ms, 0);
    ptier_near_record_take_back(near);
}

/* Hits give references that are only counted when the table drops the record. */
static void
references_of_hits_keep_what_is_removed(void **state)
{
    enum { HITS = 5 };
    near_box *b = *state;
    ptier_near_record *held[HITS];
    assert_true(near_fill(b, "a", 10));
    for (int i = 0; i < 1000; i++)
        assert_hit(b, "a"); /* given back at once */
    for (int i = 0; i < HITS; i++)
        assert_int_equal(ptier_near_get(b->near, "a", b->now, &held[i]), PTIER_NEAR_HIT);
    ptier_near_record_release(held[0]);
    near_tell(b, PTIER_EVENT_REMOVED, "a", 11);
    assert_miss(b, "a");
    for (int i = 1; i < HITS; i++) {
        assert_string_equal(held[i]->record.password, "secret");
        ptier_near_record_release(held[i]);
    }
}

/* Removals shift others back in the table: none of these may get lost, and none come back. */
static void
removals_leave_all_others(void **state)
{
    enum { KEYS = 2000 };
    near_box *b = *state;
    bool here[KEYS] = {false};
    unsigned random = 1;
    ptier_near_destroy(b->near);
    near_box_open(b, KEYS, 1 << 24);
    near_hear(b, 1, 10);
    for (int i = 0; i < 20 * KEYS; i++) {
        char key[16];
        random = random * 1103515245 + 12345;
        unsigned number = random / 65536 % KEYS;
        snprintf(key, sizeof key, "key-%u", number);
        if (here[number])
            ptier_near_forget(b->near, key);
        else
            assert_true(near_fill(b, key, 10));
        here[number] = !here[number];
        if (i % KEYS)
            continue;
        for (unsigned k = 0; k < KEYS; k++) {
            snprintf(key, sizeof key, "key-%u", k);
            assert_int_equal(near_look(b, key).outcome, here[k] ? PTIER_NEAR_HIT : PTIER_NEAR_MISS);
        }
    }
}

/* The daemon's clock reads whole milliseconds: of what it says is left, up to one may be over. */
static void
record_is_over_no_later_than_at_the_daemon(void **state)
{
    (void)state;
    const int64_t now = START + 900000, end = START + 40 * MS; /* 39.1 ms are left, 40 are said */
    assert_true(ptier_near_expiry(now, 40) <= end);
    assert_true(ptier_near_expiry(now, 40) > end - 2 * MS);
    assert_true(ptier_near_expiry(now, 0) <= now);
    assert_int_equal(ptier_near_expiry(now, -1), PTIER_NEAR_FOREVER);
}

static void
bounds_may_be_as_large_as_is_said(void **state)
{
    (void)state;
    ptier_near_options options = {.entries = PTIER_NEAR_ENTRIES_MAX,
                                  .bytes = 1 << 20,
                                  .absent_entries = PTIER_NEAR_ENTRIES_MAX,
                                  .max_staleness = 1000 * MS};
    ptier_near *near;
    assert_int_equal(ptier_near_create(&options, &near, NULL), PTIER_OK);
    ptier_near_destroy(near);
    options.entries++;
    assert_int_equal(ptier_near_create(&options, &near, NULL), PTIER_INVALID_ARGUMENT);
}

static void
uses_are_collected_once(void **state)
{
    near_box *b = *state;
    ptier_near_use uses[8];
    assert_true(near_fill(b, "a", 10));
    assert_true(near_fill(b, "b", 10));
    for (int i = 0; i < 7; i++)
        assert_hit(b, "a");
    assert_hit(b, "b");
    assert_int_equal(ptier_near_uncollected(b->near), 2);
    near_tell(b, PTIER_EVENT_REMOVED, "a", 11); /* was used all the same */
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

/* More keys than the lists of what is to be collected have room for. */
enum { MANY = 6000, COLLECTED = 600 };

static void
fill_many(near_box *b)
{
    ptier_near_destroy(b->near);
    near_box_open(b, 2 * MANY, 1 << 26);
    near_hear(b, 1, 10);
    for (int i = 0; i < MANY; i++) {
        char key[16];
        snprintf(key, sizeof key, "key-%d", i);
        assert_true(near_fill(b, key, 10));
    }
}

static void
hit_many(near_box *b)
{
    for (int i = 0; i < MANY; i++) {
        char key[16];
        snprintf(key, sizeof key, "key-%d", i);
        assert_hit(b, key);
    }
}

/* One step of collecting; returns its hits. `seen`: the keys that were among them. */
static uint64_t
collect(near_box *b, bool seen[MANY])
{
    ptier_near_use uses[COLLECTED];
    uint64_t hits = 0;
    size_t count = ptier_near_collect(b->near, uses, COLLECTED);
    for (size_t i = 0; i < count; i++) {
        hits += uses[i].hits;
        seen[strtoul(uses[i].record->record.key + strlen("key-"), NULL, 10)] = true;
        ptier_near_record_release(uses[i].record);
    }
    return hits;
}

static void
uses_without_room_wait_for_the_next_one(void **state)
{
    near_box *b = *state;
    bool seen[MANY] = {false};
    uint64_t told = 0, step;
    ptier_near_statistics s;
    fill_many(b);
    hit_many(b);
    hit_many(b);
    assert_true(ptier_near_uncollected(b->near) < MANY);
    while ((step = collect(b, seen)) > 0)
        told += step;
    assert_int_equal(ptier_near_uncollected(b->near), 0);
    assert_true(told < 2 * MANY);
    hit_many(b); /* in the same order: the others find room when the first have been collected */
    while ((step = collect(b, seen)) > 0)
        told += step;
    for (int i = MANY - 1; i >= 0; i--) {
        char key[16];
        snprintf(key, sizeof key, "key-%d", i);
        assert_hit(b, key);
    }
    while ((step = collect(b, seen)) > 0)
        told += step;
    ptier_near_read_statistics(b->near, b->now, &s);
    assert_int_equal(s.unreported_hits, 0);
    assert_true(told <= s.hits);
    /* Those that are gone before will not be told any more, and are counted. */
    for (int i = 0; i < MANY; i++) {
        char key[16];
        snprintf(key, sizeof key, "key-%d", i);
        near_tell(b, PTIER_EVENT_REMOVED, key, 11);
    }
    ptier_near_read_statistics(b->near, b->now, &s);
    assert_int_equal(told + s.unreported_hits, s.hits);
    assert_true(s.unreported_hits > 0);
}

/* While all are hit again between two steps. */
static void
uses_of_all_keys_have_their_turn(void **state)
{
    near_box *b = *state;
    bool seen[MANY] = {false};
    size_t keys = 0;
    fill_many(b);
    for (int round = 0; round < 64; round++) {
        (void)collect(b, seen); /* how many does not matter here */
        hit_many(b);
    }
    for (int i = 0; i < MANY; i++)
        keys += seen[i];
    assert_true(keys >= 4096); /* as many as there is room for */
}

static void
hits_that_wait_stay_with_a_record_that_is_patched(void **state)
{
    near_box *b = *state;
    bool seen[MANY];
    ptier_near_use use;
    char last[16];
    fill_many(b);
    hit_many(b); /* there was no room any more for the last one */
    snprintf(last, sizeof last, "key-%d", MANY - 1);
    near_tell(b, PTIER_EVENT_HEALTH, last, 11);
    while (collect(b, seen) > 0)
        continue;
    assert_hit(b, last);
    assert_int_equal(ptier_near_collect(b->near, &use, 1), 1);
    assert_string_equal(use.record->record.key, last);
    assert_int_equal(use.hits, 2);
    ptier_near_record_release(use.record);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, near_box_start, near_box_stop)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(absence_is_known_until_the_key_is_made),
        CASE(hits_are_served_while_contact_is_fresh),
        CASE(record_is_over_when_its_time_is),
        CASE(bounds_of_entries_and_bytes_hold),
        CASE(look_up_is_judged_by_what_was_known_when_it_began),
        CASE(record_is_lent_to_one_at_a_time),
        CASE(references_of_hits_keep_what_is_removed),
        CASE(removals_leave_all_others),
        CASE(record_is_over_no_later_than_at_the_daemon),
        CASE(bounds_may_be_as_large_as_is_said),
        CASE(uses_are_collected_once),
        CASE(uses_without_room_wait_for_the_next_one),
        CASE(uses_of_all_keys_have_their_turn),
        CASE(hits_that_wait_stay_with_a_record_that_is_patched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
