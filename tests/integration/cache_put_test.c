/* Put: what is created, updated, kept, rejected; keys; the change feed. */
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
#include "support/sample_entry.h"

static ptier_test_box box;

static int
set_up(void **state)
{
    (void)state;
    ptier_test_box_init(&box, BOX_ALL);
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

/* The record of a key; release the entry afterwards. */
static ptier_entry *
read_key(const char *key, ptier_record *record, ptier_label labels[PTIER_LABELS_MAX])
{
    ptier_entry *entry;
    if (ptier_cache_get(box.cache, key, &entry, NULL))
        fail_msg("%s is not there", key);
    ptier_cache_read(box.cache, entry, record, labels);
    return entry;
}

static ptier_put_result
put_url(const char *url, const char *key)
{
    ptier_record record;
    ptier_record_init(&record);
    record.url = url;
    record.key = key;
    return ptier_test_box_put_record(&box, &record, NULL);
}

static void
put_creates_then_updates(void **state)
{
    (void)state;
    ptier_put_result first = put_url("http://10.0.0.1:8080", "k");
    ptier_put_result second = put_url("http://10.0.0.1:8080", "k");
    assert_int_equal(first.outcome, PTIER_PUT_CREATED);
    assert_int_equal(second.outcome, PTIER_PUT_UPDATED);
    assert_string_equal(second.key, "k");
    assert_true(second.revision > first.revision);
    assert_int_equal(ptier_cache_revision(box.cache), second.revision);
    assert_int_equal(ptier_test_box_changes(&box, PTIER_EVENT_CREATED, 0, "k"), 1);
    assert_int_equal(ptier_test_box_changes(&box, PTIER_EVENT_UPDATED, 0, "k"), 1);
    ptier_statistics s = ptier_test_box_statistics(&box);
    assert_int_equal(s.puts, 2);
    assert_int_equal(s.updates, 1);
    assert_int_equal(s.entries, 1);
}

static void
put_gives_back_every_field(void **state)
{
    (void)state;
    const ptier_label in[] = {{"zone", "b"}, {"country", "DE"}};
    ptier_label labels[PTIER_LABELS_MAX];
    ptier_record record, out;
    ptier_record_init(&record);
    record.key = "k";
    record.url = "socks5://user:pass@10.0.0.1:1080";
    record.source = "list";
    record.fetch_time_ms = 1699999000000;
    record.ttl_ms = 5000;
    record.health = PTIER_HEALTH_HEALTHY;
    record.failure_count = 2;
    record.labels = in;
    record.label_count = 2;
    ptier_put_result result = ptier_test_box_put_record(&box, &record, NULL);
    for (int i = 0; i < 2; i++) { /* from memory, then from disk */
        ptier_entry *entry = read_key("k", &out, labels);
        assert_string_equal(out.url, "socks5://10.0.0.1:1080");
        assert_string_equal(out.username, "user");
        assert_string_equal(out.password, "pass");
        assert_string_equal(out.source, "list");
        assert_int_equal(out.fetch_time_ms, 1699999000000);
        assert_int_equal(out.ttl_ms, 5000);
        assert_int_equal(out.remaining_ttl_ms, 5000);
        assert_int_equal(out.expires_at_ms, atomic_load(&box.clock.wall_ms) + 5000);
        assert_int_equal(out.health, PTIER_HEALTH_HEALTHY);
        assert_int_equal(out.failure_count, 2);
        assert_int_equal(out.revision, result.revision);
        assert_int_equal(out.label_count, 2);
        assert_string_equal(out.labels[0].name, "country"); /* in name order */
        assert_string_equal(out.labels[1].value, "b");
        ptier_entry_release(entry);
        ptier_test_box_reopen(&box);
    }
    assert_false(ptier_test_dir_contains(box.directory, "pass\""));
}

static void
put_derives_the_key_from_the_url_without_the_password(void **state)
{
    (void)state;
    char key[65], with_user[65];
    ptier_key_derive("http://10.0.0.1:8080", "", false, key);
    ptier_key_derive("http://10.0.0.1:8080", "u", false, with_user);
    assert_string_equal(put_url("http://10.0.0.1:8080", NULL).key, key);
    assert_string_equal(put_url("http://u:p@10.0.0.1:8080", NULL).key, with_user);
    ptier_put_result again = put_url("http://u:other@10.0.0.1:8080", "");
    assert_string_equal(again.key, with_user);
    assert_int_equal(again.outcome, PTIER_PUT_UPDATED);
    assert_int_equal(ptier_test_box_entries(&box), 2);
}

static void
put_takes_the_long_key_when_another_proxy_has_the_short_one(void **state)
{
    (void)state;
    char shorter[65], full[65];
    ptier_key_derive("http://10.0.0.1:8080", "", false, shorter);
    ptier_key_derive("http://10.0.0.1:8080", "", true, full);
    assert_int_equal(put_url("http://10.9.9.9:1", shorter).outcome, PTIER_PUT_CREATED);
    for (int i = 0; i < 3; i++) {
        ptier_put_result result = put_url("http://10.0.0.1:8080", NULL);
        assert_string_equal(result.key, full);
        assert_int_equal(result.outcome, i ? PTIER_PUT_UPDATED : PTIER_PUT_CREATED);
    }
    assert_int_equal(ptier_test_box_entries(&box), 2);
}

static uint64_t
one_hash(const char *key)
{
    (void)key;
    return 12345;
}

/* More keys than any small table of candidates would hold. */
static void
keys_with_the_same_hash_stay_apart(void **state)
{
    (void)state;
    for (int tiers = 1; tiers <= BOX_ALL; tiers++) {
        ptier_test_box_fini(&box);
        ptier_test_box_init(&box, tiers);
        box.hooks.hash_key = one_hash;
        box.options.l1_entries = tiers == BOX_L1 ? 1000 : 5;
        ptier_test_box_open(&box);
        for (int round = 0; round < 2; round++) {
            for (int i = 0; i < 40; i++)
                ptier_test_box_put(&box, i);
            assert_int_equal(ptier_test_box_entries(&box), 40);
        }
        for (int i = 0; i < 40; i++)
            assert_true(ptier_test_box_has(&box, i));
        assert_false(ptier_test_box_has(&box, 40));
        for (int i = 0; i < 40; i += 2)
            assert_true(ptier_test_box_delete(&box, i));
        if (tiers != BOX_L1)
            ptier_test_box_reopen(&box);
        for (int i = 0; i < 40; i++)
            assert_int_equal(ptier_test_box_has(&box, i), i % 2);
        assert_int_equal(ptier_test_box_entries(&box), 20);
    }
}

/* ---- repeated puts ---- */

static void
put_again_keeps_usage_health_and_failures_and_renews_the_ttl(void **state)
{
    (void)state;
    ptier_record out;
    ptier_test_box_put(&box, 1);
    for (int i = 0; i < 3; i++)
        assert_true(ptier_test_box_has(&box, 1));
    ptier_test_box_report(&box, "p1", PTIER_REPORT_OK, 100);
    ptier_test_box_report(&box, "p1", PTIER_REPORT_FAILED, 0);
    ptier_test_box_advance(&box, 1000000);
    ptier_test_box_put(&box, 1);
    for (int i = 0; i < 2; i++) {
        ptier_entry *entry = read_key("p1", &out, NULL);
        assert_int_equal(out.access_count, 4 + i);
        assert_int_equal(out.failure_count, 1);
        assert_int_equal(out.health, PTIER_HEALTH_DEGRADED);
        assert_int_equal(out.report_count, 2);
        assert_int_equal(out.success_count, 1);
        assert_true(out.latency_ms > 99 && out.latency_ms < 101);
        assert_true(out.needs_revalidation);
        assert_int_equal(out.remaining_ttl_ms, 3600000);
        ptier_entry_release(entry);
        ptier_test_box_reopen(&box);
    }
}

static void
put_again_states_health_only_with_a_newer_fetch_time(void **state)
{
    (void)state;
    ptier_record record, out;
    char key[16], url[40];
    ptier_test_box_record(&record, 1, key, url);
    record.fetch_time_ms = 1000;
    record.health = PTIER_HEALTH_HEALTHY;
    record.failure_count = 1;
    ptier_test_box_put_record(&box, &record, NULL);
    record.fetch_time_ms = 500;
    record.health = PTIER_HEALTH_DEAD;
    record.failure_count = 9;
    ptier_test_box_put_record(&box, &record, NULL);
    ptier_entry *entry = read_key(key, &out, NULL);
    assert_int_equal(out.health, PTIER_HEALTH_HEALTHY);
    assert_int_equal(out.failure_count, 1);
    ptier_entry_release(entry);
    record.fetch_time_ms = 2000;
    ptier_test_box_put_record(&box, &record, NULL);
    entry = read_key(key, &out, NULL);
    assert_int_equal(out.health, PTIER_HEALTH_DEAD);
    assert_int_equal(out.failure_count, 9);
    ptier_entry_release(entry);
}

/* A key that is given to another proxy does not hand the first one's password to it. */
static void
put_of_another_proxy_under_a_key_takes_no_credentials_over(void **state)
{
    (void)state;
    ptier_record out;
    put_url("http://user:secret@10.0.0.1:8080", "k");
    put_url("http://10.0.0.1:8080", "k");
    ptier_entry *entry = read_key("k", &out, NULL);
    assert_string_equal(out.password, "secret"); /* the same proxy: not stated, so it stays */
    ptier_entry_release(entry);
    put_url("http://10.6.6.6:8080", "k");
    entry = read_key("k", &out, NULL);
    assert_null(out.username);
    assert_null(out.password);
    ptier_entry_release(entry);
    put_url("http://user:secret@10.0.0.1:8080", "k2");
    put_url("http://somebody-else@10.0.0.1:8080", "k2");
    entry = read_key("k2", &out, NULL);
    assert_string_equal(out.username, "somebody-else");
    assert_null(out.password);
    ptier_entry_release(entry);
}

/* ---- warm and restore ---- */

static ptier_put_outcome
warm(int number, int64_t fetch_time)
{
    static const ptier_put_options options = {.mode = PTIER_PUT_MODE_WARM};
    ptier_record record;
    char key[16], url[40];
    ptier_test_box_record(&record, number, key, url);
    record.fetch_time_ms = fetch_time;
    return ptier_test_box_put_record(&box, &record, &options).outcome;
}

static void
warming_skips_what_is_older(void **state)
{
    (void)state;
    assert_int_equal(warm(1, 1000), PTIER_PUT_CREATED);
    assert_int_equal(warm(1, 999), PTIER_PUT_SKIPPED_OLDER);
    assert_int_equal(warm(1, 1000), PTIER_PUT_UPDATED);
    ptier_test_clock_advance(&box.clock, 3600000); /* what has expired is nobody's elder */
    assert_int_equal(warm(1, 500), PTIER_PUT_CREATED);
}

static void
warming_skips_the_quarantined_and_a_put_lifts_it(void **state)
{
    (void)state;
    ptier_test_box_put(&box, 1);
    ptier_test_box_put(&box, 2);
    for (int i = 0; i < 3; i++) {
        ptier_test_box_report(&box, "p1", PTIER_REPORT_FAILED, 0);
        ptier_test_box_report(&box, "p2", PTIER_REPORT_FAILED, 0);
    }
    assert_int_equal(warm(1, 0), PTIER_PUT_SKIPPED_QUARANTINED);
    ptier_test_box_put(&box, 1);
    assert_int_equal(warm(1, 0), PTIER_PUT_UPDATED);
    ptier_test_box_advance(&box, 899999);
    assert_int_equal(warm(2, 0), PTIER_PUT_SKIPPED_QUARANTINED);
    ptier_test_box_advance(&box, 1);
    assert_int_equal(warm(2, 0), PTIER_PUT_CREATED);
}

static void
restore_keeps_the_remaining_ttl_and_usage(void **state)
{
    (void)state;
    static const ptier_put_options options = {.restore = true};
    ptier_record record, out;
    char key[16], url[40];
    ptier_test_box_record(&record, 1, key, url);
    record.ttl_ms = 60000;
    record.expires_at_ms = atomic_load(&box.clock.wall_ms) + 20000;
    record.access_count = 77;
    record.last_access_ms = 1699990000000;
    record.report_count = 10;
    record.success_count = 9;
    record.latency_ms = 12.5;
    assert_int_equal(ptier_test_box_put_record(&box, &record, &options).outcome, PTIER_PUT_CREATED);
    ptier_entry *entry = read_key(key, &out, NULL);
    assert_int_equal(out.remaining_ttl_ms, 20000);
    assert_int_equal(out.ttl_ms, 60000);
    assert_int_equal(out.access_count, 78);
    assert_int_equal(out.report_count, 10);
    assert_true(out.latency_ms > 12.4 && out.latency_ms < 12.6);
    ptier_entry_release(entry);
    record.expires_at_ms = atomic_load(&box.clock.wall_ms) - 1;
    assert_int_equal(ptier_test_box_put_record(&box, &record, &options).outcome,
                     PTIER_PUT_SKIPPED_EXPIRED);
    ptier_test_box_advance(&box, 20000);
    assert_false(ptier_test_box_has(&box, 1));
}

/* ---- rejected ---- */

static void
put_rejects_what_is_wrong_and_says_why(void **state)
{
    (void)state;
    static char long_key[PTIER_KEY_MAX + 2], long_source[PTIER_SOURCE_MAX + 2],
        long_user[PTIER_CREDENTIAL_MAX + 2];
    static ptier_label many[PTIER_LABELS_MAX + 1];
    static const ptier_label twice[] = {{"a", "1"}, {"a", "2"}}, unnamed[] = {{"", "1"}},
                             control[] = {{"a", "\x01"}};
    memset(long_key, 'k', sizeof long_key - 1);
    memset(long_source, 's', sizeof long_source - 1);
    memset(long_user, 'u', sizeof long_user - 1);
    for (size_t i = 0; i <= PTIER_LABELS_MAX; i++)
        many[i] = (ptier_label){"n", "v"};
    ptier_record base, bad[20];
    ptier_record_init(&base);
    base.url = "http://10.0.0.1:8080";
    for (size_t i = 0; i < 20; i++)
        bad[i] = base;
    size_t n = 0;
    bad[n++].url = NULL;
    bad[n++].url = "no url at all";
    bad[n++].url = "http://10.0.0.1:99999";
    bad[n++].key = long_key;
    bad[n++].key = "line\nbreak";
    bad[n++].source = long_source;
    bad[n++].source = "\x7f";
    bad[n++].username = long_user;
    bad[n++].password = "tab\t";
    bad[n++].username_token = "not a token";
    bad[n++].ttl_ms = -2;
    bad[n++].ttl_ms = PTIER_TTL_MAX_MS + 1;
    bad[n++].health = (ptier_health)17;
    bad[n].labels = many, bad[n++].label_count = PTIER_LABELS_MAX + 1;
    bad[n].labels = twice, bad[n++].label_count = 2;
    bad[n].labels = unnamed, bad[n++].label_count = 1;
    bad[n].labels = control, bad[n++].label_count = 1;
    bad[n++].fetch_time_ms = INT64_MIN;
    bad[n++].expires_at_ms = INT64_MIN;
    bad[n++] = base; /* the last one is fine */
    ptier_put_result results[20];
    const ptier_put_options restore = {.restore = true};
    assert_int_equal(n, 20);
    assert_int_equal(ptier_cache_put(box.cache, bad, n, &restore, results, NULL, &box.error),
                     PTIER_OK);
    for (size_t i = 0; i + 1 < n; i++) {
        if (results[i].outcome != PTIER_PUT_REJECTED)
            fail_msg("record %zu was accepted", i);
        assert_true(strlen(results[i].message) > 10);
        assert_int_equal(results[i].revision, 0);
        assert_null(strchr(results[i].message, '\n'));
    }
    assert_int_equal(results[n - 1].outcome, PTIER_PUT_CREATED);
    assert_int_equal(ptier_test_box_entries(&box), 1);
}

static void
put_takes_the_longest_record_through_every_tier(void **state)
{
    (void)state;
    static char key[PTIER_KEY_MAX + 1], user[PTIER_CREDENTIAL_MAX + 1],
        source[PTIER_SOURCE_MAX + 1];
    static char names[PTIER_LABELS_MAX][PTIER_LABEL_NAME_MAX + 1], value[PTIER_LABEL_VALUE_MAX + 1];
    ptier_label labels[PTIER_LABELS_MAX], out_labels[PTIER_LABELS_MAX];
    ptier_record record, out;
    memset(key, '"', PTIER_KEY_MAX); /* as long as it gets when escaped, too */
    memset(user, '\\', PTIER_CREDENTIAL_MAX);
    memset(source, '"', PTIER_SOURCE_MAX);
    memset(value, '\\', PTIER_LABEL_VALUE_MAX);
    for (size_t i = 0; i < PTIER_LABELS_MAX; i++) {
        memset(names[i], '"', PTIER_LABEL_NAME_MAX);
        names[i][0] = (char)('A' + i);
        labels[i] = (ptier_label){names[i], value};
    }
    ptier_record_init(&record);
    record.key = key;
    record.url = "http://10.0.0.1:8080";
    record.username = record.password = user;
    record.source = source;
    record.labels = labels;
    record.label_count = PTIER_LABELS_MAX;
    assert_int_equal(ptier_test_box_put_record(&box, &record, NULL).outcome, PTIER_PUT_CREATED);
    ptier_test_box_reopen(&box);
    ptier_entry *entry = read_key(key, &out, out_labels);
    assert_string_equal(out.password, user);
    assert_string_equal(out.labels[31].name, names[31]);
    assert_string_equal(out.labels[31].value, value);
    static char line[PTIER_EXPORT_LINE_MAX];
    assert_true(ptier_cache_export_line(box.cache, entry, true, line, sizeof line) <= sizeof line);
    ptier_entry_release(entry);
    char path[PTIER_TEST_PATH + 16];
    ptier_test_box_close(&box); /* and without L3: from L2's line */
    (void)snprintf(path, sizeof path, "%s/l3.sqlite", box.directory);
    box.options.l3_enabled = false;
    ptier_test_box_open(&box);
    entry = read_key(key, &out, out_labels);
    assert_string_equal(out.labels[31].value, value);
    ptier_entry_release(entry);
}

static void
put_of_one_key_many_times_in_a_batch_ends_with_the_last(void **state)
{
    (void)state;
    static ptier_record records[500];
    static ptier_put_result results[500];
    static char urls[500][40];
    for (int i = 0; i < 500; i++) {
        ptier_record_init(&records[i]);
        (void)snprintf(urls[i], sizeof urls[i], "http://10.1.1.1:%d", 1000 + i);
        records[i].key = i % 2 ? "odd" : "even";
        records[i].url = urls[i];
    }
    assert_int_equal(ptier_cache_put(box.cache, records, 500, NULL, results, NULL, &box.error),
                     PTIER_OK);
    ptier_record out;
    ptier_entry *entry = read_key("odd", &out, NULL);
    assert_string_equal(out.url, "http://10.1.1.1:1499");
    ptier_entry_release(entry);
    entry = read_key("even", &out, NULL);
    assert_string_equal(out.url, "http://10.1.1.1:1498");
    ptier_entry_release(entry);
    assert_int_equal(ptier_test_box_entries(&box), 2);
}

/* Nobody asks for durability: the queue has to be written all the same, or it is full at some time.
 */
static void
put_to_memory_never_fills_the_queue_for_good(void **state)
{
    (void)state;
    enum { BATCH = 1000, COUNT = 300000 };
    static ptier_record records[BATCH];
    static char urls[BATCH][40], keys[BATCH][16];
    static const ptier_put_options options = {.durability = PTIER_DURABILITY_MEMORY};
    for (int at = 0; at < COUNT; at += BATCH) {
        for (int i = 0; i < BATCH; i++)
            ptier_test_box_record(&records[i], (at + i) % 5000, keys[i], urls[i]);
        if (ptier_cache_put(box.cache, records, BATCH, &options, NULL, NULL, &box.error))
            fail_msg("after %d: %s", at, box.error.message);
    }
    assert_int_equal(ptier_test_box_entries(&box), 5000);
}

static void
feed_is_in_revision_order_and_tells_one_life_after_the_other(void **state)
{
    (void)state;
    box.options.failure_threshold = 2;
    box.options.l1_entries = 20;
    ptier_test_box_reopen(&box);
    uint64_t seed = 3;
    for (int i = 0; i < 2000; i++) {
        int number = (int)ptier_test_random(&seed, 50);
        uint64_t what = ptier_test_random(&seed, 5);
        char key[16];
        (void)snprintf(key, sizeof key, "p%d", number);
        if (what == 0)
            ptier_test_box_delete(&box, number);
        else if (what == 1)
            ptier_test_box_report(&box, key, PTIER_REPORT_FAILED, 0);
        else
            ptier_test_box_put(&box, number);
        if (i % 100 == 99)
            ptier_test_box_advance(&box, 3600000);
    }
    ptier_test_box_advance(&box, 128); /* what has just expired is told, too */
    bool alive[50] = {false};
    for (size_t i = 0; i < box.change_count; i++) {
        const ptier_test_change *c = &box.changes[i];
        int number = atoi(c->key + 1);
        if (i)
            assert_true(c->revision > box.changes[i - 1].revision);
        assert_int_equal(alive[number], c->type != PTIER_EVENT_CREATED);
        alive[number] = c->type != PTIER_EVENT_REMOVED;
        assert_int_equal(c->reason != PTIER_REASON_NONE, c->type == PTIER_EVENT_REMOVED);
    }
    assert_true(ptier_test_box_changes(&box, PTIER_EVENT_REMOVED, PTIER_REASON_TTL, NULL) > 0);
    assert_true(ptier_test_box_changes(&box, PTIER_EVENT_REMOVED, PTIER_REASON_HEALTH, NULL) > 0);
    assert_true(ptier_test_box_changes(&box, PTIER_EVENT_HEALTH, 0, NULL) > 0);
    for (int i = 0; i < 50; i++)
        assert_int_equal(ptier_test_box_has(&box, i), alive[i]);
}

#define WITH_CACHE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_CACHE(put_creates_then_updates),
        WITH_CACHE(put_gives_back_every_field),
        WITH_CACHE(put_derives_the_key_from_the_url_without_the_password),
        WITH_CACHE(put_takes_the_long_key_when_another_proxy_has_the_short_one),
        WITH_CACHE(keys_with_the_same_hash_stay_apart),
        WITH_CACHE(put_again_keeps_usage_health_and_failures_and_renews_the_ttl),
        WITH_CACHE(put_again_states_health_only_with_a_newer_fetch_time),
        WITH_CACHE(put_of_another_proxy_under_a_key_takes_no_credentials_over),
        WITH_CACHE(warming_skips_what_is_older),
        WITH_CACHE(warming_skips_the_quarantined_and_a_put_lifts_it),
        WITH_CACHE(restore_keeps_the_remaining_ttl_and_usage),
        WITH_CACHE(put_rejects_what_is_wrong_and_says_why),
        WITH_CACHE(put_takes_the_longest_record_through_every_tier),
        WITH_CACHE(put_of_one_key_many_times_in_a_batch_ends_with_the_last),
        WITH_CACHE(put_to_memory_never_fills_the_queue_for_good),
        WITH_CACHE(feed_is_in_revision_order_and_tells_one_life_after_the_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
