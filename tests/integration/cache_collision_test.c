/*
 * FR-014: proxies whose derived keys are the same, and keys whose hashes are, never share an entry,
 * in any set of tiers, and through all that looks an entry up. The collisions are forced: here
 * every proxy has the same derived key, and every key one of a few hashes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <proxytier/import.h>

#include "support/cache_box.h"

#define SHORT_KEY "00c0111de00c0111"

enum { PROXIES = 6, MANY = 60 };

static ptier_test_box box;
static char keys[PROXIES][PTIER_KEY_MAX + 1]; /* as put said */

static int
tear_down(void **state)
{
    (void)state;
    ptier_test_box_fini(&box);
    return 0;
}

/* ---- collisions ---- */

static void
derive_the_same(const char *url, const char *username, bool full, char key[65])
{
    if (full)
        ptier_key_derive(url, username, true, key);
    else
        strcpy(key, SHORT_KEY);
}

static uint64_t
one_hash(const char *key)
{
    (void)key;
    return UINT64_C(0xc0111de);
}

static void
start(int tiers, bool one)
{
    ptier_test_box_init(&box, tiers);
    box.hooks.derive_key = derive_the_same;
    if (one)
        box.hooks.hash_key = one_hash;
    box.hooks.quick_start_rows = 1;
    box.hooks.probe_period_ms = 20;
    box.options.l1_entries = tiers == BOX_L1 ? 1000 : 2;
    box.options.l2_entries = tiers & BOX_L3 ? 3 : 0;
    ptier_test_box_open(&box);
    memset(keys, 0, sizeof keys);
}

/* ---- proxies that collide; two of them differ by user alone ---- */

static void
name(int proxy, char url[80], char password[16])
{
    (void)snprintf(password, 16, "secret-%d", proxy);
    if (proxy < 2)
        (void)snprintf(url, 80, "http://user-%d@gate.example:8080", proxy);
    else
        (void)snprintf(url, 80, "http://10.0.0.%d:8080", proxy);
}

static ptier_put_outcome
put(int proxy, const char *source, ptier_put_mode mode)
{
    char url[80], password[16];
    const ptier_put_options options = {.mode = mode};
    ptier_record record;
    ptier_record_init(&record);
    name(proxy, url, password);
    record.url = url;
    record.password = password;
    record.source = source;
    ptier_put_result result = ptier_test_box_put_record(&box, &record, &options);
    if (result.outcome <= PTIER_PUT_UPDATED)
        strcpy(keys[proxy], result.key);
    return result.outcome;
}

/* The very entry of this proxy, by its key. */
static void
check(int proxy, const char *source, unsigned failures)
{
    char url[80], password[16];
    ptier_url parsed;
    ptier_record record;
    ptier_label labels[PTIER_LABELS_MAX];
    ptier_entry *entry;
    name(proxy, url, password);
    assert_int_equal(ptier_url_parse(url, "http", &parsed, NULL), PTIER_OK);
    if (ptier_cache_get(box.cache, keys[proxy], &entry, NULL))
        fail_msg("proxy %d (%s) is not there", proxy, keys[proxy]);
    ptier_cache_read(box.cache, entry, &record, labels);
    assert_string_equal(record.key, keys[proxy]);
    assert_string_equal(record.url, parsed.url);
    assert_string_equal(record.username ? record.username : "", parsed.username);
    assert_string_equal(record.password, password);
    assert_string_equal(record.source, source);
    assert_int_equal(record.failure_count, failures);
    ptier_entry_release(entry);
}

static bool
has(int proxy)
{
    ptier_entry *entry;
    if (ptier_cache_get(box.cache, keys[proxy], &entry, NULL))
        return false;
    ptier_entry_release(entry);
    return true;
}

static void
put_all(const char *source, ptier_put_outcome expected)
{
    for (int i = 0; i < PROXIES; i++)
        assert_int_equal(put(i, source, PTIER_PUT_MODE_PUT), expected);
}

static void
check_all(const char *source, unsigned failures)
{
    for (int i = 0; i < PROXIES; i++)
        check(i, source, failures);
    assert_int_equal(ptier_test_box_entries(&box), PROXIES);
}

static void
assert_keys_differ(void)
{
    assert_string_equal(keys[0], SHORT_KEY);
    for (int i = 1; i < PROXIES; i++) {
        assert_int_equal(strlen(keys[i]), 64);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(keys[i], keys[j]);
    }
}

/* ---- for every set of tiers, with hashes that differ and that do not ---- */

#define FOR_ALL_TIERS(from)                                                                        \
    for (int tiers_ = (from), one_ = 0; tiers_ <= BOX_ALL; one_ ? tiers_++ : 0, one_ = !one_)

static void
start_over(int tiers, bool one)
{
    if (box.directory[0])
        ptier_test_box_fini(&box);
    start(tiers, one);
}

static int
set_up(void **state)
{
    (void)state;
    memset(&box, 0, sizeof box);
    return 0;
}

static void
proxies_with_one_derived_key_have_entries_of_their_own(void **state)
{
    (void)state;
    FOR_ALL_TIERS(1)
    {
        start_over(tiers_, one_);
        put_all("first", PTIER_PUT_CREATED);
        assert_keys_differ();
        check_all("first", 0);
        for (int i = PROXIES - 1; i >= 0; i--) { /* each finds its own again, in another order */
            char before[PTIER_KEY_MAX + 1];
            strcpy(before, keys[i]);
            assert_int_equal(put(i, "second", PTIER_PUT_MODE_PUT), PTIER_PUT_UPDATED);
            assert_string_equal(keys[i], before);
        }
        check_all("second", 0);
    }
}

static void
reports_and_removals_reach_only_the_proxy_that_they_are_for(void **state)
{
    (void)state;
    FOR_ALL_TIERS(1)
    {
        start_over(tiers_, one_);
        put_all("s", PTIER_PUT_CREATED);
        for (int i = 0; i < 2; i++)
            assert_int_equal(
                ptier_test_box_report(&box, keys[1], PTIER_REPORT_FAILED, 0).failure_count, i + 1);
        for (int i = 0; i < PROXIES; i++)
            check(i, "s", i == 1 ? 2 : 0);
        assert_true(ptier_test_box_report(&box, keys[1], PTIER_REPORT_FAILED, 0).removed);
        assert_false(has(1));
        assert_int_equal(ptier_test_box_entries(&box), PROXIES - 1);
        for (int i = 0; i < PROXIES; i++)
            if (i != 1)
                check(i, "s", 0);
        assert_int_equal(put(1, "s", PTIER_PUT_MODE_WARM), PTIER_PUT_SKIPPED_QUARANTINED);
        for (int i = 2; i < PROXIES; i++) /* the others are not quarantined with it */
            assert_int_equal(put(i, "s", PTIER_PUT_MODE_WARM), PTIER_PUT_UPDATED);
        const char *gone[] = {keys[3]};
        size_t deleted;
        assert_int_equal(ptier_cache_delete(box.cache, gone, 1, PTIER_DURABILITY_DEFAULT, &deleted,
                                            NULL, &box.error),
                         PTIER_OK);
        assert_int_equal(deleted, 1);
        assert_false(has(3));
        for (int i = 0; i < PROXIES; i++)
            if (i != 1 && i != 3)
                check(i, "s", 0);
        assert_int_equal(put(3, "again", PTIER_PUT_MODE_PUT), PTIER_PUT_CREATED);
        check(3, "again", 0);
    }
}

/* Once all at once, once with the index read meanwhile: the box starts quickly from one row on. */
static void
restarts_keep_them_apart(void **state)
{
    (void)state;
    FOR_ALL_TIERS(2)
    {
        start_over(tiers_, one_);
        put_all("first", PTIER_PUT_CREATED);
        ptier_test_box_report(&box, keys[2], PTIER_REPORT_FAILED, 0);
        for (int round = 0; round < 2; round++) {
            box.hooks.quick_start_rows = round ? 1 : UINT64_MAX;
            ptier_test_box_reopen(&box);
            for (int i = 0; i < PROXIES; i++)
                check(i, "first", i == 2);
            ptier_test_box_reopen(&box);
            put_all("first", PTIER_PUT_UPDATED); /* nothing was looked up before */
            ptier_test_box_reopen(&box);
            assert_int_equal(
                ptier_test_box_report(&box, keys[3], PTIER_REPORT_FAILED, 0).failure_count, 1);
            ptier_test_box_report(&box, keys[3], PTIER_REPORT_OK, 1);
            ptier_test_box_reopen(&box);
            assert_true(put(PROXIES - 1, "other", PTIER_PUT_MODE_PUT) == PTIER_PUT_UPDATED);
            assert_true(put(PROXIES - 1, "first", PTIER_PUT_MODE_PUT) == PTIER_PUT_UPDATED);
            assert_int_equal(ptier_cache_wait_started(box.cache, 20000), PTIER_OK);
            assert_int_equal(ptier_test_box_entries(&box), PROXIES);
            assert_keys_differ();
        }
        check(2, "first", 1);
        check(0, "first", 0);
    }
}

static bool
l3_is_back(void)
{
    char path[PTIER_TEST_PATH + 16];
    (void)snprintf(path, sizeof path, "%s/l3.sqlite", box.directory);
    return access(path, F_OK) == 0 && ptier_cache_wait_started(box.cache, 0) == PTIER_OK &&
           !ptier_test_box_statistics(&box).tiers[PTIER_TIER_L3].degraded;
}

static void
a_database_made_anew_keeps_them_apart(void **state)
{
    (void)state;
    FOR_ALL_TIERS(BOX_L3)
    {
        start_over(tiers_, one_);
        put_all("first", PTIER_PUT_CREATED);
        for (int i = 0; i < MANY; i++) /* far more under one hash than stay in L1 and L2 */
            ptier_test_box_put(&box, i);
        char path[PTIER_TEST_PATH + 16];
        (void)snprintf(path, sizeof path, "%s/l3.sqlite", box.directory);
        assert_int_equal(unlink(path), 0);
        put_all("second", PTIER_PUT_UPDATED);
        BOX_AWAIT(l3_is_back());
        for (int round = 0; round < 2; round++) {
            for (int i = 0; i < PROXIES; i++)
                check(i, "second", 0);
            for (int i = 0; i < MANY; i++)
                assert_true(ptier_test_box_has(&box, i));
            assert_int_equal(ptier_cache_wait_started(box.cache, 20000), PTIER_OK);
            assert_int_equal(ptier_test_box_entries(&box), PROXIES + MANY);
            ptier_test_box_reopen(&box);
        }
    }
}

static void
a_backup_has_each_of_them(void **state)
{
    (void)state;
    FOR_ALL_TIERS(2)
    {
        char path[PTIER_TEST_PATH + 16];
        uint64_t count;
        start_over(tiers_, one_);
        put_all("first", PTIER_PUT_CREATED);
        (void)snprintf(path, sizeof path, "%s/backup", box.directory);
        assert_int_equal(ptier_cache_backup(box.cache, path, &count, &box.error), PTIER_OK);
        assert_int_equal(count, PROXIES);
    }
}

/* ---- a record that is damaged, under the hash of others ---- */

/* Who asks for a third key meets it, and is not told that the third was lost. */
static void
a_damaged_record_is_told_by_its_own_key(void **state)
{
    (void)state;
    for (int tiers = BOX_L2; tiers <= BOX_L3; tiers += BOX_L3 - BOX_L2) {
        start_over(tiers, true);
        for (int i = 1; i <= 3; i++)
            ptier_test_box_put(&box, i);
        ptier_test_box_close(&box);
        ptier_test_box_damage(&box, tiers == BOX_L2 ? "l2/shard_00000001.jsonl" : "l3.sqlite",
                              "http://10.0.0.2");
        box.hooks.quick_start_rows = 1;
        ptier_test_box_open(&box);
        assert_false(ptier_test_box_has(&box, 9));
        assert_false(ptier_test_box_has(&box, 2));
        assert_true(ptier_test_box_has(&box, 1));
        assert_true(ptier_test_box_has(&box, 3));
        /* L2 without L3 has said at its start that something is lost: it has no index of its own.
         */
        size_t told = tiers == BOX_L3;
        assert_int_equal(
            ptier_test_box_changes(&box, PTIER_EVENT_REMOVED, PTIER_REASON_CORRUPTION, "p2"), told);
        assert_int_equal(
            ptier_test_box_changes(&box, PTIER_EVENT_REMOVED, PTIER_REASON_CORRUPTION, NULL), told);
    }
}

#define FACT(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        FACT(proxies_with_one_derived_key_have_entries_of_their_own),
        FACT(reports_and_removals_reach_only_the_proxy_that_they_are_for),
        FACT(restarts_keep_them_apart),
        FACT(a_database_made_anew_keeps_them_apart),
        FACT(a_backup_has_each_of_them),
        FACT(a_damaged_record_is_told_by_its_own_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
