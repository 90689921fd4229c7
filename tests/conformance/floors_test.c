/*
 * The floors of the success criteria, measured and printed. They are ten to a thousand times above
 * what the cache does, so that only something broken misses them, not a busy machine; under
 * sanitizers times are printed and not compared.
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "support/cache_box.h"
#include "support/sample_entry.h"
#include "support/settings.h"

enum {
    MANY = 10000,
    LOOKUPS = 20000,
    HOUR_MS = 3600000,
    ZIPF_READS = PTIER_TEST_SANITIZED ? 60000 : 200000,
};

static ptier_test_box box;

static int
tear_down(void **state)
{
    (void)state;
    ptier_test_box_fini(&box);
    return 0;
}

static double
now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int
compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Sorts. */
static double
percentile(double *values, size_t count, double percent)
{
    qsort(values, count, sizeof *values, compare_doubles);
    return values[(size_t)((double)(count - 1) * percent / 100)];
}

static void
check_floor(const char *what, double measured, double floor, const char *unit)
{
    print_message("floor: %s: %.3f %s, the floor is %.0f\n", what, measured, unit, floor);
    if (!PTIER_TEST_SANITIZED && measured >= floor)
        fail_msg("%s: %.3f %s, the floor is %.0f", what, measured, unit, floor);
}

/* Records 0 to MANY - 1, with credentials, in large calls. */
static void
fill(void)
{
    enum { BATCH = 500 };
    static ptier_record records[BATCH];
    static char keys[BATCH][16], urls[BATCH][40];
    for (int first = 0; first < MANY; first += BATCH) {
        for (int i = 0; i < BATCH; i++) {
            ptier_test_box_record(&records[i], first + i, keys[i], urls[i]);
            records[i].username = "somebody";
            records[i].password = "a secret word";
            records[i].source = "a list";
        }
        assert_int_equal(ptier_cache_put(box.cache, records, BATCH, NULL, NULL, NULL, &box.error),
                         PTIER_OK);
    }
}

/* Random lookups of what is there; those that `tier` answered count. Microseconds. */
static double
measure_lookups(ptier_tier_id tier, double percent)
{
    double *times = malloc(LOOKUPS * sizeof *times);
    uint64_t seed = 7;
    size_t count = 0;
    assert_non_null(times);
    for (int i = 0; i < LOOKUPS; i++) {
        char key[16];
        ptier_entry *entry;
        ptier_tier_id where;
        if (i % 500 == 0) /* what waits to be written down answers from memory */
            BOX_AWAIT(ptier_test_box_statistics(&box).writeback_queue +
                          ptier_test_box_statistics(&box).usage_queue ==
                      0);
        (void)snprintf(key, sizeof key, "p%d", (int)ptier_test_random(&seed, MANY));
        double start = now_us();
        assert_int_equal(ptier_cache_get(box.cache, key, &entry, &where), PTIER_OK);
        if (where == tier)
            times[count++] = now_us() - start;
        ptier_entry_release(entry);
    }
    assert_true(count > LOOKUPS / 20);
    double result = percentile(times, count, percent);
    free(times);
    return result;
}

/* ---- SC-002, SC-003 ---- */

static void
l1_lookup_takes_less_than_a_millisecond(void **state)
{
    (void)state;
    ptier_test_box_init(&box, BOX_ALL);
    box.options.l1_entries = 2 * MANY;
    box.options.l2_entries = 0;
    ptier_test_box_open(&box);
    fill();
    check_floor("L1 lookup, p99", measure_lookups(PTIER_TIER_L1, 99), 1000, "us");
}

static void
l2_and_l3_lookups_take_less_than_50_milliseconds(void **state)
{
    (void)state;
    ptier_test_box_init(&box, BOX_ALL);
    box.options.l1_entries = 10; /* so that few lookups end there */
    box.options.l2_entries = MANY / 4;
    ptier_test_box_open(&box);
    fill();
    ptier_test_box_reopen(&box);
    BOX_AWAIT(ptier_test_box_statistics(&box).tiers[PTIER_TIER_L2].entries <=
              box.options.l2_entries); /* otherwise nothing may be left for L3 to answer */
    check_floor("L2 lookup, p95", measure_lookups(PTIER_TIER_L2, 95), 50000, "us");
    check_floor("L3 lookup, p95", measure_lookups(PTIER_TIER_L3, 95), 50000, "us");
}

/* ---- SC-004 ---- */

static void
expired_entry_is_removed_within_a_minute(void **state)
{
    (void)state;
    ptier_record record;
    char key[16], url[40];
    ptier_test_box_init(&box, BOX_ALL);
    box.hooks.clock = NULL; /* the machine's */
    ptier_test_box_open(&box);
    ptier_test_box_record(&record, 1, key, url);
    record.ttl_ms = 100;
    double start = now_us();
    (void)ptier_test_box_put_record(&box, &record, NULL);
    BOX_AWAIT(ptier_test_box_changes(&box, PTIER_EVENT_REMOVED, PTIER_REASON_TTL, key) == 1);
    check_floor("removal after the end of a TTL", (now_us() - start) / 1000 - 100, 60000, "ms");
}

/* ---- SC-007, disk ---- */

static uint64_t
directory_bytes(const char *path)
{
    uint64_t bytes = 0;
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *item; (item = readdir(dir));) {
        char name[2 * PTIER_TEST_PATH];
        struct stat info;
        (void)snprintf(name, sizeof name, "%s/%.200s", path, item->d_name);
        if (item->d_name[0] == '.' || stat(name, &info))
            continue;
        bytes += S_ISDIR(info.st_mode) ? directory_bytes(name) : (uint64_t)info.st_size;
    }
    (void)closedir(dir);
    return bytes;
}

static void
ten_thousand_records_take_less_than_5_seconds_and_100_megabytes(void **state)
{
    (void)state;
    ptier_test_box_init(&box, BOX_ALL);
    ptier_test_box_open(&box);
    double start = now_us();
    fill();
    check_floor("10,000 records into all tiers", (now_us() - start) / 1000, 5000, "ms");
    BOX_AWAIT(ptier_test_box_statistics(&box).pending_writes == 0);
    double bytes = (double)directory_bytes(box.directory);
    print_message("floor: 10,000 records on disk: %.1f MB, the floor is 100\n", bytes / 1e6);
    assert_true(bytes < 100e6);
}

/* ---- SC-009 ---- */

static void
eviction_costs_less_than_10_milliseconds(void **state)
{
    (void)state;
    double *times = malloc(MANY * sizeof *times);
    assert_non_null(times);
    ptier_test_box_init(&box, BOX_ALL);
    box.options.l1_entries = 100;
    box.options.l2_entries = 500;
    box.options.l3_entries = 2000;
    ptier_test_box_open(&box);
    for (int i = 0; i < MANY; i++) {
        double start = now_us();
        (void)ptier_test_box_put(&box, i);
        times[i] = now_us() - start;
    }
    BOX_AWAIT(ptier_test_box_entries(&box) <= 2000);
    assert_true(ptier_test_box_changes(&box, PTIER_EVENT_REMOVED, PTIER_REASON_CAPACITY, NULL) >=
                MANY - 2000);
    check_floor("put into full tiers, p99", percentile(times, MANY, 99), 10000, "us");
    free(times);
}

/* ---- SC-011 ---- */

/* Zipf(1.0) over MANY keys: the inverse of the distribution, by bisection. */
static int
zipf(const double *cumulative, uint64_t *seed)
{
    double at = (double)ptier_test_random(seed, 1U << 30) / (1U << 30) * cumulative[MANY - 1];
    int low = 0, high = MANY - 1;
    while (low < high) {
        int middle = (low + high) / 2;
        if (cumulative[middle] < at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void
typical_load_hits_more_than_80_percent(void **state)
{
    (void)state;
    static double cumulative[MANY];
    uint64_t seed = 11, reads = 0, hits = 0;
    for (int i = 0; i < MANY; i++)
        cumulative[i] = (i ? cumulative[i - 1] : 0) + 1.0 / (i + 1);
    ptier_test_box_init(&box, BOX_L1 | BOX_L2); /* 1,000 and 5,000 */
    box.options.default_ttl_ms = 0;
    ptier_test_box_open(&box);
    for (int i = 0; i < ZIPF_READS; i++) {
        int number = zipf(cumulative, &seed);
        bool hit = ptier_test_box_has(&box, number);
        if (!hit)
            (void)ptier_test_box_put(&box, number);
        if (i >= ZIPF_READS / 2) {
            reads++;
            hits += hit;
        }
    }
    double rate = 100.0 * (double)hits / (double)reads;
    print_message("floor: hit rate: %.1f %%, the floor is 80\n", rate);
    assert_true(rate > 80);
}

/* A list of 1,000 is fetched every 3 h, a fifth of it new each time; what is cached need not be
 * fetched. */
static void
refreshed_list_needs_60_percent_fewer_fetches(void **state)
{
    (void)state;
    enum { LIST = 1000, REFRESHES = 24 };
    uint64_t fetches = 0, without = 0;
    ptier_test_box_init(&box, BOX_ALL);
    box.options.default_ttl_ms = INT64_C(24) * HOUR_MS;
    ptier_test_box_open(&box);
    for (int refresh = 0; refresh < REFRESHES; refresh++) {
        for (int i = 0; i < LIST; i++) {
            int number = refresh * LIST / 5 + i;
            without++;
            if (ptier_test_box_has(&box, number))
                continue;
            fetches++;
            (void)ptier_test_box_put(&box, number);
        }
        ptier_test_box_advance(&box, INT64_C(3) * HOUR_MS);
    }
    double saved = 100.0 * (1.0 - (double)fetches / (double)without);
    print_message("floor: fetches saved: %.1f %%, the floor is 60\n", saved);
    assert_true(saved >= 60);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(l1_lookup_takes_less_than_a_millisecond, tear_down),
        cmocka_unit_test_teardown(l2_and_l3_lookups_take_less_than_50_milliseconds, tear_down),
        cmocka_unit_test_teardown(expired_entry_is_removed_within_a_minute, tear_down),
        cmocka_unit_test_teardown(ten_thousand_records_take_less_than_5_seconds_and_100_megabytes,
                                  tear_down),
        cmocka_unit_test_teardown(eviction_costs_less_than_10_milliseconds, tear_down),
        cmocka_unit_test_teardown(typical_load_hits_more_than_80_percent, tear_down),
        cmocka_unit_test_teardown(refreshed_list_needs_60_percent_fewer_fetches, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
