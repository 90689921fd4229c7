/* Pick and list. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/cache_box.h"

enum { ENTRIES = 500 };

static ptier_test_box box;

static int
tear_down(void **state)
{
    (void)state;
    ptier_test_box_fini(&box);
    return 0;
}

/* Number n: source s<n % 5>, country c<n % 7>, socks5 when n % 3 == 0, unhealthy when n % 10 == 9.
 */
static void
put_number(int number)
{
    ptier_record record;
    char key[16], url[40], source[8], country[8];
    const ptier_label label = {"country", country};
    (void)snprintf(source, sizeof source, "s%d", number % 5);
    (void)snprintf(country, sizeof country, "c%d", number % 7);
    ptier_test_box_record(&record, number, key, url);
    if (number % 3 == 0)
        (void)snprintf(url, sizeof url, "socks5://10.0.%d.%d:1080", number >> 8, number & 255);
    record.source = source;
    record.labels = &label;
    record.label_count = 1;
    record.health = number % 10 == 9 ? PTIER_HEALTH_UNHEALTHY : PTIER_HEALTH_HEALTHY;
    assert_int_equal(ptier_test_box_put_record(&box, &record, NULL).outcome, PTIER_PUT_CREATED);
}

static void
open_filled(int tiers)
{
    ptier_test_box_init(&box, tiers);
    box.options.l1_entries = tiers == BOX_L1 ? 1000 : 100;
    ptier_test_box_open(&box);
    for (int i = 0; i < ENTRIES; i++)
        put_number(i);
}

static int
number_of(const ptier_entry *entry)
{
    return atoi(ptier_entry_key(entry) + 1);
}

/* Lists everything in pages; counts how often each number came. Returns the total. */
static size_t
list_all(const ptier_filter *filter, ptier_tier_id tier, size_t page, int seen[ENTRIES])
{
    static ptier_entry *entries[1000];
    uint64_t cursor = 0;
    size_t total = 0;
    memset(seen, 0, ENTRIES * sizeof *seen);
    do {
        size_t count;
        assert_int_equal(
            ptier_cache_list(box.cache, &cursor, filter, tier, page, entries, &count, &box.error),
            PTIER_OK);
        assert_true(count <= page);
        for (size_t i = 0; i < count; i++) {
            seen[number_of(entries[i])]++;
            ptier_entry_release(entries[i]);
        }
        total += count;
        assert_true(total <= ENTRIES);
    } while (cursor);
    return total;
}

static void
list_sees_everything_exactly_once_in_every_set_of_tiers(void **state)
{
    (void)state;
    int seen[ENTRIES];
    for (int tiers = 1; tiers <= BOX_ALL; tiers++) {
        open_filled(tiers);
        static const size_t pages[] = {1, 7, ENTRIES / 2, ENTRIES, 1000};
        for (size_t p = 0; p < 5; p++) {
            assert_int_equal(list_all(NULL, PTIER_TIER_NONE, pages[p], seen), ENTRIES);
            for (int i = 0; i < ENTRIES; i++)
                assert_int_equal(seen[i], 1);
        }
        if (tiers != BOX_ALL)
            ptier_test_box_fini(&box);
    }
}

static void
list_filters_by_source_scheme_label_health_and_tier(void **state)
{
    (void)state;
    int seen[ENTRIES];
    open_filled(BOX_ALL);
    const ptier_label label = {"country", "c3"}, nowhere = {"country", "c9"},
                      unnamed = {"city", "c3"};
    const ptier_filter source = {.source = "s2"}, scheme = {.scheme = "SOCKS5"},
                       health = {.health = PTIER_HEALTH_UNHEALTHY};
    const ptier_filter labels = {.labels = &label, .label_count = 1},
                       none = {.labels = &nowhere, .label_count = 1};
    const ptier_filter other = {.labels = &unnamed, .label_count = 1},
                       strange = {.source = "nobody"}, ftp = {.scheme = "ftp"};
    const ptier_filter all = {.source = "s2", .scheme = "http", .labels = &label, .label_count = 1};
    assert_int_equal(list_all(&source, PTIER_TIER_NONE, 30, seen), 100);
    assert_int_equal(seen[2] + seen[7], 2);
    assert_int_equal(list_all(&scheme, PTIER_TIER_NONE, 30, seen), 167);
    assert_int_equal(list_all(&health, PTIER_TIER_NONE, 30, seen), 50);
    assert_int_equal(list_all(&labels, PTIER_TIER_NONE, 30, seen), 71);
    assert_int_equal(list_all(&none, PTIER_TIER_NONE, 30, seen), 0);
    assert_int_equal(list_all(&other, PTIER_TIER_NONE, 30, seen), 0);
    assert_int_equal(list_all(&strange, PTIER_TIER_NONE, 30, seen), 0);
    assert_int_equal(list_all(&ftp, PTIER_TIER_NONE, 30, seen), 0);
    size_t wanted = 0;
    for (int i = 0; i < ENTRIES; i++)
        wanted += i % 5 == 2 && i % 3 != 0 && i % 7 == 3;
    assert_int_equal(list_all(&all, PTIER_TIER_NONE, 30, seen), wanted);
    assert_int_equal(list_all(NULL, PTIER_TIER_L1, 30, seen), 100);
    assert_int_equal(list_all(NULL, PTIER_TIER_L2, 30, seen), ENTRIES);
    assert_int_equal(list_all(NULL, PTIER_TIER_L3, 30, seen), ENTRIES);
}

static void
list_leaves_out_what_has_expired_or_left(void **state)
{
    (void)state;
    int seen[ENTRIES];
    open_filled(BOX_ALL);
    ptier_record record;
    char key[16], url[40];
    ptier_test_box_record(&record, 3, key, url);
    record.ttl_ms = 10;
    ptier_test_box_put_record(&box, &record, NULL);
    ptier_test_clock_advance(&box.clock, 10);
    ptier_test_box_delete(&box, 4);
    assert_int_equal(list_all(NULL, PTIER_TIER_NONE, 100, seen), ENTRIES - 2);
    assert_int_equal(seen[3] + seen[4], 0);
}

/* While others change and go, what lives all the time is seen. */
static void
list_sees_what_lives_through_it(void **state)
{
    (void)state;
    ptier_entry *entries[10];
    int seen[ENTRIES] = {0};
    uint64_t cursor = 0;
    size_t count;
    int round = 0;
    open_filled(BOX_ALL);
    do {
        assert_int_equal(
            ptier_cache_list(box.cache, &cursor, NULL, PTIER_TIER_NONE, 10, entries, &count, NULL),
            PTIER_OK);
        for (size_t i = 0; i < count; i++) {
            if (number_of(entries[i]) < ENTRIES)
                seen[number_of(entries[i])]++;
            ptier_entry_release(entries[i]);
        }
        for (int i = 0; i < 10; i++) { /* odd ones change, every tenth goes and comes */
            ptier_test_box_put(&box, (round * 20 + 2 * i + 1) % ENTRIES);
            ptier_test_box_delete(&box, (round + i) * 10 % ENTRIES);
            if (round < 20)
                ptier_test_box_put(&box, ENTRIES + round * 10 + i);
        }
    } while (cursor && ++round < 10000);
    assert_int_equal(cursor, 0);
    for (int i = 0; i < ENTRIES; i++)
        if (i % 10)
            assert_int_equal(seen[i], 1);
}

static void
list_of_a_tier_that_is_off_is_refused(void **state)
{
    (void)state;
    uint64_t cursor = 0;
    size_t count = 9;
    ptier_entry *entries[1];
    open_filled(BOX_L1 | BOX_L3);
    assert_int_equal(
        ptier_cache_list(box.cache, &cursor, NULL, PTIER_TIER_L2, 1, entries, &count, &box.error),
        PTIER_FAILED_PRECONDITION);
    assert_int_equal(count, 0);
}

/* ---- pick ---- */

static size_t
pick(size_t wanted, const ptier_filter *filter, const char *const *exclude, size_t exclude_count,
     int seen[ENTRIES])
{
    static ptier_entry *entries[2000];
    size_t count = ptier_cache_pick(box.cache, wanted, filter, exclude, exclude_count, entries);
    int now[ENTRIES] = {0};
    assert_true(count <= wanted);
    for (size_t i = 0; i < count; i++) {
        int number = number_of(entries[i]);
        assert_int_equal(now[number]++, 0); /* distinct */
        seen[number]++;
        ptier_entry_release(entries[i]);
    }
    return count;
}

static void
pick_gives_distinct_healthy_entries_and_all_there_are(void **state)
{
    (void)state;
    for (int tiers = 1; tiers <= BOX_ALL; tiers++) {
        open_filled(tiers);
        static const size_t counts[] = {0, 1, 5, 100, 450, 2000};
        for (size_t c = 0; c < 6; c++) {
            int seen[ENTRIES] = {0};
            size_t count = pick(counts[c], NULL, NULL, 0, seen);
            assert_int_equal(count, counts[c] < 450 ? counts[c] : 450);
            for (int i = 9; i < ENTRIES; i += 10)
                assert_int_equal(seen[i], 0); /* the unhealthy */
        }
        if (tiers != BOX_ALL)
            ptier_test_box_fini(&box);
    }
}

static void
pick_keeps_to_filter_and_exclude(void **state)
{
    (void)state;
    int seen[ENTRIES] = {0};
    open_filled(BOX_ALL);
    const ptier_label label = {"country", "c3"};
    const ptier_filter filter = {
        .source = "s2", .scheme = "http", .labels = &label, .label_count = 1};
    const ptier_filter dead = {.health = PTIER_HEALTH_UNHEALTHY}, nobody = {.source = "nobody"};
    size_t wanted = 0;
    for (int i = 0; i < ENTRIES; i++)
        wanted += i % 5 == 2 && i % 3 != 0 && i % 7 == 3 && i % 10 != 9;
    assert_int_equal(pick(1000, &filter, NULL, 0, seen), wanted);
    for (int i = 0; i < ENTRIES; i++)
        assert_int_equal(seen[i], i % 5 == 2 && i % 3 != 0 && i % 7 == 3 && i % 10 != 9);
    assert_int_equal(pick(1000, &dead, NULL, 0, seen), 50);
    assert_int_equal(pick(1000, &nobody, NULL, 0, seen), 0);
    const char *const exclude[] = {"p17", "p0", "unknown"};
    memset(seen, 0, sizeof seen);
    assert_int_equal(pick(1000, NULL, exclude, 3, seen), 448);
    assert_int_equal(seen[17] + seen[0], 0);
}

static void
pick_gives_nothing_that_has_expired(void **state)
{
    (void)state;
    int seen[ENTRIES] = {0};
    open_filled(BOX_ALL);
    ptier_test_clock_advance(&box.clock, 3600000);
    assert_int_equal(pick(10, NULL, NULL, 0, seen), 0);
    assert_int_equal(pick(10, NULL, NULL, 0, seen), 0);
}

/* Chi-square over the 450 that may be picked; the bound is about 8 standard deviations over the
 * mean. */
static void
pick_is_uniform(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 10, 300};
    open_filled(BOX_L1);
    for (int i = 0; i < ENTRIES; i += 2) /* holes in the index */
        ptier_test_box_delete(&box, i);
    for (size_t s = 0; s < 3; s++) {
        int seen[ENTRIES] = {0};
        size_t total = 0, classes = 0;
        double chi = 0;
        while (total < 40000)
            total += pick(sizes[s], NULL, NULL, 0, seen);
        for (int i = 1; i < ENTRIES; i += 2)
            classes += i % 10 != 9;
        double expected = (double)total / (double)classes;
        for (int i = 1; i < ENTRIES; i += 2)
            if (i % 10 != 9)
                chi += (seen[i] - expected) * (seen[i] - expected) / expected;
        assert_int_equal(classes, 200);
        assert_true(chi < 199 + 8 * 20);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(list_sees_everything_exactly_once_in_every_set_of_tiers,
                                  tear_down),
        cmocka_unit_test_teardown(list_filters_by_source_scheme_label_health_and_tier, tear_down),
        cmocka_unit_test_teardown(list_leaves_out_what_has_expired_or_left, tear_down),
        cmocka_unit_test_teardown(list_sees_what_lives_through_it, tear_down),
        cmocka_unit_test_teardown(list_of_a_tier_that_is_off_is_refused, tear_down),
        cmocka_unit_test_teardown(pick_gives_distinct_healthy_entries_and_all_there_are, tear_down),
        cmocka_unit_test_teardown(pick_keeps_to_filter_and_exclude, tear_down),
        cmocka_unit_test_teardown(pick_gives_nothing_that_has_expired, tear_down),
        cmocka_unit_test_teardown(pick_is_uniform, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
