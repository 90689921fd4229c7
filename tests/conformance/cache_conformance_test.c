/*
 * What the public interface of the cache promises, whichever tiers are enabled: one suite for all
 * seven combinations. Only proxytier/cache.h and a clock: how the tiers do it is tested elsewhere.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <proxytier/import.h>

#include "support/cache_box.h"

enum { MANY = 200 };

static ptier_test_box box;
static bool keeps; /* there is a disk tier: a restart changes nothing */

static int
set_up(void **state)
{
    int tiers = *(const int *)*state;
    keeps = tiers != BOX_L1;
    ptier_test_box_init(&box, tiers);
    box.options.l1_entries =
        tiers == BOX_L1 ? 100 * MANY : 20; /* every shard of L1 has its share */
    box.options.l2_entries = tiers & BOX_L3 ? 60 : 0;
    box.hooks.l2_shard_bytes = 16384;
    ptier_test_box_open(&box);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    ptier_test_box_fini(&box);
    return 0;
}

static ptier_entry *
get(const char *key)
{
    ptier_entry *entry;
    ptier_status status = ptier_cache_get(box.cache, key, &entry, NULL);
    assert_int_equal(status, entry ? PTIER_OK : PTIER_NOT_FOUND);
    return entry;
}

/* A view of a live entry until the next call. */
static const ptier_record *
look(const char *key)
{
    static ptier_entry *entry;
    static ptier_record record;
    static ptier_label labels[PTIER_LABELS_MAX];
    ptier_entry_release(entry);
    entry = get(key);
    assert_non_null(entry);
    ptier_cache_read(box.cache, entry, &record, labels);
    return &record;
}

static ptier_put_result
put(const char *key, const char *url, const char *password, const char *source)
{
    ptier_record record;
    ptier_record_init(&record);
    record.key = key;
    record.url = url;
    record.username = password ? "user" : NULL;
    record.password = password;
    record.source = source;
    return ptier_test_box_put_record(&box, &record, NULL);
}

/* ---- put and get ---- */

static void
put_is_read_back_to_the_last_field(void **state)
{
    (void)state;
    const ptier_label labels[] = {{"anonymity", "elite"}, {"country", "DE"}};
    ptier_record record;
    ptier_record_init(&record);
    record.key = "mine";
    record.url = "socks5://192.0.2.1:1080";
    record.username = "somebody";
    record.password = "p\xc3\xa4ss \"word\" \\";
    record.source = "a list";
    record.fetch_time_ms = 1600000000123;
    record.ttl_ms = 60000;
    record.health = PTIER_HEALTH_DEGRADED;
    record.failure_count = 1;
    record.labels = labels;
    record.label_count = 2;
    ptier_put_result result = ptier_test_box_put_record(&box, &record, NULL);
    assert_int_equal(result.outcome, PTIER_PUT_CREATED);
    const ptier_record *r = look("mine");
    assert_string_equal(r->key, "mine");
    assert_string_equal(r->url, record.url);
    assert_string_equal(r->username, record.username);
    assert_string_equal(r->password, record.password);
    assert_string_equal(r->source, record.source);
    assert_int_equal(r->fetch_time_ms, record.fetch_time_ms);
    assert_int_equal(r->ttl_ms, 60000);
    assert_int_equal(r->remaining_ttl_ms, 60000);
    assert_int_equal(r->health, PTIER_HEALTH_DEGRADED);
    assert_int_equal(r->failure_count, 1);
    assert_int_equal(r->label_count, 2);
    assert_string_equal(r->labels[0].name, "anonymity");
    assert_string_equal(r->labels[1].value, "DE");
    assert_int_equal(r->revision, result.revision);
}

static void
put_without_a_key_derives_it_from_address_and_user(void **state)
{
    (void)state;
    char plain[65], with_user[65];
    ptier_key_derive("http://192.0.2.7:8080", NULL, false, plain);
    ptier_key_derive("http://192.0.2.7:8080", "user", false, with_user);
    assert_string_equal(put(NULL, "192.0.2.7:8080", NULL, NULL).key, plain);
    assert_string_equal(put(NULL, "http://user:word@192.0.2.7:8080", NULL, NULL).key, with_user);
    assert_string_not_equal(plain, with_user);
    assert_null(look(plain)->username);
    assert_string_equal(look(with_user)->password, "word");
    assert_string_equal(look(with_user)->url, "http://192.0.2.7:8080");
}

static void
repeated_put_updates_in_place_and_keeps_what_it_does_not_state(void **state)
{
    (void)state;
    const ptier_put_result first = put("k", "http://192.0.2.1:80", "word", "list a");
    ptier_test_box_report(&box, "k", PTIER_REPORT_FAILED, 20);
    ptier_test_clock_advance(&box.clock, 1000);
    const ptier_put_result second = put("k", "http://192.0.2.1:80", NULL, NULL);
    assert_int_equal(second.outcome, PTIER_PUT_UPDATED);
    assert_true(second.revision > first.revision);
    const ptier_record *r = look("k");
    assert_string_equal(r->password, "word");
    assert_string_equal(r->source, "list a");
    assert_int_equal(r->failure_count, 1);
    assert_true(r->needs_revalidation);
    assert_int_equal(r->remaining_ttl_ms, 3600000); /* begun anew */
    assert_int_equal(ptier_test_box_entries(&box), 1);
    assert_string_equal((put("k", "http://192.0.2.2:80", NULL, "list b"), look("k"))->url,
                        "http://192.0.2.2:80");
    assert_string_equal(look("k")->source, "list b");
    assert_null(look("k")->password); /* it was for another proxy */
}

static void
bad_records_are_rejected_one_by_one(void **state)
{
    (void)state;
    ptier_record records[3];
    ptier_put_result results[3];
    for (int i = 0; i < 3; i++) {
        ptier_record_init(&records[i]);
        records[i].url = i == 1 ? "http://no-port-can-be:123456" : "http://192.0.2.1:80";
    }
    records[2].url = "http://192.0.2.2:80";
    assert_int_equal(ptier_cache_put(box.cache, records, 3, NULL, results, NULL, &box.error),
                     PTIER_OK);
    assert_int_equal(results[0].outcome, PTIER_PUT_CREATED);
    assert_int_equal(results[1].outcome, PTIER_PUT_REJECTED);
    assert_true(results[1].message[0]);
    assert_int_equal(results[2].outcome, PTIER_PUT_CREATED);
    assert_int_equal(ptier_test_box_entries(&box), 2);
}

static void
many_entries_are_all_found_wherever_they_went(void **state)
{
    (void)state;
    char texts[MANY][16];
    const char *keys[MANY];
    ptier_entry *entries[MANY];
    for (int i = 0; i < MANY; i++)
        ptier_test_box_put(&box, i);
    for (int i = 0; i < MANY; i++) {
        (void)snprintf(texts[i], sizeof texts[i], "p%d", i);
        keys[i] = texts[i];
    }
    for (int round = 0; round < 2; round++) {
        assert_int_equal(ptier_cache_get_many(box.cache, keys, MANY, entries, NULL), MANY);
        for (int i = 0; i < MANY; i++)
            ptier_entry_release(entries[i]);
    }
    ptier_statistics s = ptier_test_box_statistics(&box);
    assert_int_equal(s.entries, MANY);
    assert_int_equal(s.hits, 2 * MANY);
    assert_int_equal(s.puts, MANY);
    assert_null(get("nobody"));
    assert_int_equal(ptier_test_box_statistics(&box).misses, 1);
}

static void
write_is_read_at_once_whatever_its_durability(void **state)
{
    (void)state;
    for (int i = 0; i < 60; i++) {
        const ptier_put_options options = {.durability = 1 + (ptier_durability)(i % 3)};
        char key[16], url[40];
        ptier_record record;
        ptier_written written;
        ptier_put_result result;
        ptier_test_box_record(&record, i % 7, key, url);
        assert_int_equal(
            ptier_cache_put(box.cache, &record, 1, &options, &result, &written, &box.error),
            PTIER_OK);
        assert_int_equal(look(key)->revision, result.revision);
        assert_true(written.durability >= (keeps ? options.durability : PTIER_DURABILITY_MEMORY));
        if (i % 5 == 0) {
            assert_true(ptier_test_box_delete(&box, i % 7));
            assert_null(get(key));
        }
    }
}

/* ---- delete and clear ---- */

static void
deleted_entry_is_gone_and_is_told_once(void **state)
{
    (void)state;
    ptier_test_box_put(&box, 1);
    assert_true(ptier_test_box_delete(&box, 1));
    assert_false(ptier_test_box_delete(&box, 1));
    assert_false(ptier_test_box_has(&box, 1));
    assert_int_equal(ptier_test_box_changes(&box, PTIER_EVENT_REMOVED, PTIER_REASON_DELETED, "p1"),
                     1);
    assert_int_equal(ptier_test_box_statistics(&box).deletes, 1);
    ptier_test_box_reopen(&box);
    assert_false(ptier_test_box_has(&box, 1));
}

static void
clear_empties_the_cache_for_good(void **state)
{
    (void)state;
    uint64_t cleared, revision;
    for (int i = 0; i < MANY; i++)
        ptier_test_box_put(&box, i);
    assert_int_equal(
        ptier_cache_clear(box.cache, PTIER_TIER_NONE, 0, &cleared, &revision, NULL, &box.error),
        PTIER_OK);
    assert_int_equal(cleared, MANY);
    assert_int_equal(revision, ptier_cache_revision(box.cache));
    assert_int_equal(ptier_test_box_entries(&box), 0);
    assert_int_equal(ptier_test_box_changes(&box, PTIER_EVENT_CLEARED, 0, NULL), 1);
    ptier_test_box_put(&box, 1);
    ptier_test_box_reopen(&box);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(ptier_test_box_has(&box, i), keeps && i == 1);
}

static void
clearing_an_upper_tier_loses_nothing_and_the_lowest_cannot_be_cleared_alone(void **state)
{
    (void)state;
    uint64_t cleared;
    int allowed = 0, enabled = 0;
    for (int i = 0; i < MANY; i++)
        ptier_test_box_put(&box, i);
    for (int tier = PTIER_TIER_L1; tier <= PTIER_TIER_L3; tier++) {
        enabled += ptier_test_box_statistics(&box).tiers[tier].enabled;
        ptier_status status =
            ptier_cache_clear(box.cache, (ptier_tier_id)tier, 0, &cleared, NULL, NULL, &box.error);
        assert_true(status == PTIER_OK || status == PTIER_FAILED_PRECONDITION);
        allowed += status == PTIER_OK;
    }
    assert_int_equal(allowed, enabled - 1);
    for (int i = 0; i < MANY; i++)
        assert_true(ptier_test_box_has(&box, i));
    assert_int_equal(ptier_test_box_changes(&box, PTIER_EVENT_REMOVED, 0, NULL), 0);
}

/* ---- time to live ---- */

static void
expired_entry_is_not_served_and_is_removed(void **state)
{
    (void)state;
    ptier_record record;
    char key[16], url[40];
    ptier_test_box_record(&record, 1, key, url);
    record.ttl_ms = 500;
    (void)ptier_test_box_put_record(&box, &record, NULL);
    record.key = "forever";
    record.ttl_ms = 0;
    (void)ptier_test_box_put_record(&box, &record, NULL);
    ptier_test_clock_advance(&box.clock, 499);
    assert_int_equal(look("p1")->remaining_ttl_ms, 1);
    ptier_test_clock_advance(&box.clock, 1);
    assert_null(get("p1"));
    ptier_test_box_advance(&box, 1000);
    assert_int_equal(ptier_test_box_changes(&box, PTIER_EVENT_REMOVED, PTIER_REASON_TTL, "p1"), 1);
    assert_int_equal(look("forever")->remaining_ttl_ms, -1);
    ptier_test_box_advance(&box, INT64_C(10) * 86400 * 1000);
    assert_non_null(look("forever"));
}

/* ---- health ---- */

static void
third_failure_in_a_row_removes_an_entry(void **state)
{
    (void)state;
    ptier_test_box_put(&box, 1);
    assert_int_equal(ptier_test_box_report(&box, "p1", PTIER_REPORT_FAILED, 0).failure_count, 1);
    assert_int_equal(look("p1")->health, PTIER_HEALTH_DEGRADED);
    assert_true(look("p1")->needs_revalidation);
    assert_int_equal(ptier_test_box_report(&box, "p1", PTIER_REPORT_OK, 10).failure_count, 0);
    assert_int_equal(look("p1")->health, PTIER_HEALTH_HEALTHY);
    for (int i = 1; i <= 3; i++)
        assert_int_equal(ptier_test_box_report(&box, "p1", PTIER_REPORT_FAILED, 0).removed, i == 3);
    assert_false(ptier_test_box_has(&box, 1));
    assert_false(ptier_test_box_report(&box, "p1", PTIER_REPORT_FAILED, 0).found);
    assert_int_equal(ptier_test_box_changes(&box, PTIER_EVENT_REMOVED, PTIER_REASON_HEALTH, "p1"),
                     1);
    ptier_test_box_reopen(&box);
    assert_false(ptier_test_box_has(&box, 1));
}

/* ---- choosing ---- */

static void
fill_with_sources(void)
{
    for (int i = 0; i < MANY; i++) {
        char key[16], url[40];
        ptier_record record;
        ptier_test_box_record(&record, i, key, url);
        record.source = i % 4 ? "common" : "rare";
        record.health = i % 8 ? PTIER_HEALTH_HEALTHY : PTIER_HEALTH_UNHEALTHY;
        (void)ptier_test_box_put_record(&box, &record, NULL);
    }
}

static size_t
list(const ptier_filter *filter, size_t limit)
{
    ptier_entry *entries[MANY];
    bool seen[MANY] = {false};
    uint64_t cursor = 0;
    size_t count, total = 0;
    do {
        assert_int_equal(ptier_cache_list(box.cache, &cursor, filter, PTIER_TIER_NONE, limit,
                                          entries, &count, &box.error),
                         PTIER_OK);
        assert_true(count <= limit);
        for (size_t i = 0; i < count; i++) {
            ptier_record r;
            ptier_cache_read(box.cache, entries[i], &r, NULL);
            int number = atoi(r.key + 1);
            assert_false(seen[number]);
            seen[number] = true;
            ptier_entry_release(entries[i]);
        }
        total += count;
    } while (cursor);
    return total;
}

static void
list_has_every_entry_that_matches_once(void **state)
{
    (void)state;
    const ptier_filter rare = {.source = "rare"}, socks = {.scheme = "socks5"},
                       unhealthy = {.health = PTIER_HEALTH_UNHEALTHY};
    fill_with_sources();
    for (size_t limit = 1; limit <= MANY; limit *= 7) {
        assert_int_equal(list(NULL, limit), MANY);
        assert_int_equal(list(&rare, limit), MANY / 4);
        assert_int_equal(list(&unhealthy, limit), MANY / 8);
        assert_int_equal(list(&socks, limit), 0);
    }
}

static void
pick_gives_distinct_usable_entries_that_match(void **state)
{
    (void)state;
    const ptier_filter rare = {.source = "rare"};
    const char *const exclude[] = {"p4", "p12"};
    ptier_entry *entries[MANY];
    bool seen[MANY] = {false};
    fill_with_sources();
    size_t count = ptier_cache_pick(box.cache, MANY, &rare, exclude, 2, entries);
    assert_int_equal(count, MANY / 8 - 2); /* half of the rare ones are unhealthy */
    for (size_t i = 0; i < count; i++) {
        ptier_record r;
        ptier_cache_read(box.cache, entries[i], &r, NULL);
        int number = atoi(r.key + 1);
        assert_false(seen[number] || number == 4 || number == 12 || number % 8 == 0);
        assert_string_equal(r.source, "rare");
        seen[number] = true;
        ptier_entry_release(entries[i]);
    }
    assert_int_equal(ptier_cache_pick(box.cache, 3, NULL, NULL, 0, entries), 3);
    for (int i = 0; i < 3; i++)
        ptier_entry_release(entries[i]);
}

/* ---- restart ---- */

static void
restart_keeps_everything_or_begins_anew(void **state)
{
    (void)state;
    uint8_t before[PTIER_ID_BYTES], after[PTIER_ID_BYTES];
    ptier_cache_store_id(box.cache, before);
    for (int i = 0; i < MANY; i++)
        ptier_test_box_put(&box, i);
    for (int i = 0; i < MANY; i += 3)
        ptier_test_box_delete(&box, i);
    ptier_test_box_report(&box, "p1", PTIER_REPORT_FAILED, 0);
    uint64_t revision = ptier_cache_revision(box.cache);
    ptier_test_box_reopen(&box);
    ptier_cache_store_id(box.cache, after);
    assert_int_equal(memcmp(before, after, sizeof after) == 0, keeps);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(ptier_test_box_has(&box, i), keeps && i % 3 != 0);
    if (keeps) {
        assert_int_equal(look("p1")->failure_count, 1);
        assert_true(ptier_test_box_put(&box, 0) > revision);
    }
}

static void
revisions_grow_with_every_change_and_tell_of_no_other(void **state)
{
    (void)state;
    uint64_t last = ptier_cache_revision(box.cache);
    for (int i = 0; i < 50; i++) {
        uint64_t revision = ptier_test_box_put(&box, i % 10);
        assert_true(revision > last);
        assert_true(ptier_cache_revision(box.cache) >= revision);
        last = ptier_cache_revision(box.cache);
        (void)ptier_test_box_has(&box, i % 10);
        (void)ptier_test_box_has(&box, 1000);
        assert_int_equal(ptier_cache_revision(box.cache), last);
    }
    for (size_t i = 1; i < box.change_count; i++)
        assert_true(box.changes[i].revision > box.changes[i - 1].revision);
}

/* ---- all combinations ---- */

#define SUITE(name, tiers)                                                                         \
    CASE(name, tiers, put_is_read_back_to_the_last_field),                                         \
        CASE(name, tiers, put_without_a_key_derives_it_from_address_and_user),                     \
        CASE(name, tiers, repeated_put_updates_in_place_and_keeps_what_it_does_not_state),         \
        CASE(name, tiers, bad_records_are_rejected_one_by_one),                                    \
        CASE(name, tiers, many_entries_are_all_found_wherever_they_went),                          \
        CASE(name, tiers, write_is_read_at_once_whatever_its_durability),                          \
        CASE(name, tiers, deleted_entry_is_gone_and_is_told_once),                                 \
        CASE(name, tiers, clear_empties_the_cache_for_good),                                       \
        CASE(name, tiers,                                                                          \
             clearing_an_upper_tier_loses_nothing_and_the_lowest_cannot_be_cleared_alone),         \
        CASE(name, tiers, expired_entry_is_not_served_and_is_removed),                             \
        CASE(name, tiers, third_failure_in_a_row_removes_an_entry),                                \
        CASE(name, tiers, list_has_every_entry_that_matches_once),                                 \
        CASE(name, tiers, pick_gives_distinct_usable_entries_that_match),                          \
        CASE(name, tiers, restart_keeps_everything_or_begins_anew),                                \
        CASE(name, tiers, revisions_grow_with_every_change_and_tell_of_no_other)
#define CASE(name, tiers, function)                                                                \
    {                                                                                              \
        name "_" #function, function, set_up, tear_down, &combinations[tiers]                      \
    }

int
main(void)
{
    static int combinations[] = {0, 1, 2, 3, 4, 5, 6, 7};
    const struct CMUnitTest tests[] = {
        SUITE("l1", BOX_L1),
        SUITE("l2", BOX_L2),
        SUITE("l1_l2", BOX_L1 | BOX_L2),
        SUITE("l3", BOX_L3),
        SUITE("l1_l3", BOX_L1 | BOX_L3),
        SUITE("l2_l3", BOX_L2 | BOX_L3),
        SUITE("all", BOX_ALL),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
