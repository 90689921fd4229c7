/* Entries that come from files: which of two states wins, what is kept, and that an export is the
 * whole of what it exports. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <proxytier/import.h>

#include "support/cache_box.h"
#include "support/sample_entry.h"

#define URL "http://192.0.2.1:80"

static const ptier_put_options warm = {.mode = PTIER_PUT_MODE_WARM};
static const ptier_put_options restore = {.mode = PTIER_PUT_MODE_WARM, .restore = true};

static ptier_put_outcome
put(ptier_test_box *box, const ptier_record *record, const ptier_put_options *options)
{
    ptier_put_result result = ptier_test_box_put_record(box, record, options);
    if (result.outcome == PTIER_PUT_REJECTED)
        fail_msg("%s", result.message);
    return result.outcome;
}

/* What is cached under the key, which is no use of it. The caller releases. */
static ptier_entry *
look(ptier_test_box *box, const char *key, ptier_record *record)
{
    ptier_entry *entry;
    assert_int_equal(ptier_load_current(box->cache, key, box->cache->hash_key(key), &entry, NULL),
                     PTIER_OK);
    ptier_cache_read(box->cache, entry, record, NULL);
    return entry;
}

static ptier_record
stated(const char *source, int64_t fetched, uint64_t accesses)
{
    ptier_record record;
    ptier_record_init(&record);
    record.key = "k";
    record.url = URL;
    record.source = source;
    record.fetch_time_ms = fetched;
    record.ttl_ms = 3600000;
    record.expires_at_ms = fetched + record.ttl_ms;
    record.access_count = accesses;
    record.last_access_ms = accesses ? fetched + 1 : 0;
    record.health = accesses ? PTIER_HEALTH_HEALTHY : PTIER_HEALTH_DEGRADED;
    return record;
}

/* ---- conflicts ---- */

static void
the_newer_fetch_time_wins_in_either_order(void **state)
{
    (void)state;
    for (int order = 0; order < 4; order++) {
        ptier_test_box box;
        ptier_record seen;
        const ptier_put_options *options = order < 2 ? &warm : &restore;
        ptier_test_box_init(&box, BOX_ALL);
        ptier_test_box_open(&box);
        int64_t now = ptier_clock_wall(&box.cache->clock);
        ptier_record older = stated("older", now - 20000, 0),
                     newer = stated("newer", now - 9000, 0);
        assert_int_equal(put(&box, order % 2 ? &newer : &older, options), PTIER_PUT_CREATED);
        assert_int_equal(put(&box, order % 2 ? &older : &newer, options),
                         order % 2 ? PTIER_PUT_SKIPPED_OLDER : PTIER_PUT_UPDATED);
        ptier_entry *entry = look(&box, "k", &seen);
        assert_string_equal(seen.source, "newer");
        assert_int_equal(seen.fetch_time_ms, newer.fetch_time_ms);
        if (order >= 2)
            assert_int_equal(seen.expires_at_ms, newer.expires_at_ms);
        ptier_entry_release(entry);
        ptier_test_box_fini(&box);
    }
}

static void
statistics_are_kept_and_of_two_the_larger(void **state)
{
    ptier_test_box box;
    ptier_record seen;
    (void)state;
    ptier_test_box_init(&box, BOX_ALL);
    ptier_test_box_open(&box);
    int64_t now = ptier_clock_wall(&box.cache->clock);
    ptier_record first = stated("first", now - 30000, 5), list = stated("list", now - 20000, 0);
    ptier_record fewer = stated("fewer", now - 10000, 3), more = stated("more", now - 5000, 8);
    assert_int_equal(put(&box, &first, &restore), PTIER_PUT_CREATED);
    assert_int_equal(put(&box, &list, &warm), PTIER_PUT_UPDATED);
    ptier_entry_release(look(&box, "k", &seen));
    assert_int_equal(seen.access_count, 5);
    assert_int_equal(seen.last_access_ms, first.last_access_ms);
    assert_int_equal(put(&box, &fewer, &restore), PTIER_PUT_UPDATED);
    ptier_entry *entry = look(&box, "k", &seen);
    assert_string_equal(seen.source, "fewer");
    assert_int_equal(seen.access_count, 5);
    assert_int_equal(seen.last_access_ms, first.last_access_ms);
    ptier_entry_release(entry);
    assert_int_equal(put(&box, &more, &restore), PTIER_PUT_UPDATED);
    ptier_entry_release(look(&box, "k", &seen));
    assert_int_equal(seen.access_count, 8);
    assert_int_equal(seen.last_access_ms, more.last_access_ms);
    ptier_test_box_fini(&box);
}

static void
restoring_an_older_state_of_health_changes_nothing(void **state)
{
    ptier_test_box box;
    ptier_record seen;
    (void)state;
    ptier_test_box_init(&box, BOX_ALL);
    ptier_test_box_open(&box);
    ptier_record record = stated("s", ptier_clock_wall(&box.cache->clock) - 1000, 9);
    assert_int_equal(put(&box, &record, &restore), PTIER_PUT_CREATED);
    (void)ptier_test_box_report(&box, "k", PTIER_REPORT_FAILED, 0);
    assert_int_equal(put(&box, &record, &restore), PTIER_PUT_UPDATED);
    ptier_entry_release(look(&box, "k", &seen));
    assert_int_equal(seen.failure_count, 1);
    assert_true(seen.needs_revalidation);
    assert_int_equal(seen.report_count, 1);
    ptier_test_box_fini(&box);
}

/* ---- restoring ---- */

static void
without_a_known_end_the_time_to_live_counts_from_arrival(void **state)
{
    ptier_test_box box;
    ptier_record record, seen;
    (void)state;
    ptier_test_box_init(&box, BOX_ALL);
    box.options.default_ttl_ms = 777000;
    ptier_test_box_open(&box);
    int64_t now = ptier_clock_wall(&box.cache->clock);
    ptier_record_init(&record);
    record.key = "k";
    record.url = URL;
    record.access_count = 4;
    assert_int_equal(put(&box, &record, &restore), PTIER_PUT_CREATED);
    ptier_entry_release(look(&box, "k", &seen));
    assert_int_equal(seen.ttl_ms, 777000);
    assert_int_equal(seen.expires_at_ms, now + 777000);
    assert_int_equal(seen.access_count, 4);
    record.ttl_ms = 0;
    assert_int_equal(put(&box, &record, &restore), PTIER_PUT_UPDATED);
    ptier_entry_release(look(&box, "k", &seen));
    assert_int_equal(seen.expires_at_ms, 0);
    assert_int_equal(seen.remaining_ttl_ms, -1);
    ptier_test_box_fini(&box);
}

static void
what_has_expired_is_not_restored(void **state)
{
    ptier_test_box box;
    (void)state;
    ptier_test_box_init(&box, BOX_ALL);
    ptier_test_box_open(&box);
    ptier_record record = stated("s", ptier_clock_wall(&box.cache->clock) - 3600001, 1);
    assert_int_equal(put(&box, &record, &restore), PTIER_PUT_SKIPPED_EXPIRED);
    assert_int_equal(ptier_test_box_entries(&box), 0);
    ptier_test_box_fini(&box);
}

static void
a_last_use_in_the_future_was_now(void **state)
{
    ptier_test_box box;
    ptier_record seen;
    (void)state;
    ptier_test_box_init(&box, BOX_ALL);
    ptier_test_box_open(&box);
    int64_t now = ptier_clock_wall(&box.cache->clock);
    ptier_record record = stated("s", now - 1000, 1);
    record.last_access_ms = now + 86400000;
    assert_int_equal(put(&box, &record, &restore), PTIER_PUT_CREATED);
    ptier_entry_release(look(&box, "k", &seen));
    assert_int_equal(seen.last_access_ms, now);
    ptier_test_box_fini(&box);
}

/* ---- an export is the whole ---- */

enum { ENTRIES = 400, LINE = 4096 };

typedef struct exported {
    char *lines[ENTRIES];
    size_t count;
} exported;

static int
by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void
export_all(ptier_test_box *box, bool plain, exported *out)
{
    ptier_entry *entries[64];
    uint64_t cursor = 0;
    out->count = 0;
    do {
        size_t count;
        assert_int_equal(ptier_cache_list(box->cache, &cursor, NULL, PTIER_TIER_NONE, 64, entries,
                                          &count, &box->error),
                         PTIER_OK);
        for (size_t i = 0; i < count; i++) {
            char line[LINE];
            size_t length =
                ptier_cache_export_line(box->cache, entries[i], plain, line, sizeof line - 1);
            assert_true(length < sizeof line && out->count < ENTRIES);
            line[length] = '\0';
            out->lines[out->count] = strdup(line);
            assert_non_null(out->lines[out->count++]);
            ptier_entry_release(entries[i]);
        }
    } while (cursor);
    qsort(out->lines, out->count, sizeof *out->lines, by_text);
}

static void
forget(exported *e)
{
    for (size_t i = 0; i < e->count; i++)
        free(e->lines[i]);
    e->count = 0;
}

static bool
restore_record(void *context, const ptier_import_record *imported)
{
    assert_true(imported->restore);
    assert_int_equal(put(context, &imported->record, &restore), PTIER_PUT_CREATED);
    return true;
}

static void
import_all(ptier_test_box *box, const exported *e)
{
    ptier_import_options options;
    ptier_import_summary summary;
    ptier_import_options_init(&options);
    options.on_record = restore_record;
    options.context = box;
    for (size_t i = 0; i < e->count; i++)
        if (ptier_import_memory(e->lines[i], strlen(e->lines[i]), "a.jsonl", &options, &summary,
                                &box->error) != PTIER_OK)
            fail_msg("%s: %s", box->error.message, e->lines[i]);
}

static const char *
random_text(uint64_t *random, char *room, size_t most)
{
    static const char *const pieces[] = {"a",    "Z9", "\"", "\\", "/", "ä", "源",
                                         "🦊", " ",  ",",  ":",  "{", "'", "\x7e"};
    size_t length = 0;
    room[0] = '\0';
    for (uint64_t n = ptier_test_random(random, 12); n > 0; n--) {
        const char *piece = pieces[ptier_test_random(random, sizeof pieces / sizeof *pieces)];
        if (length + strlen(piece) > most)
            break;
        strcpy(room + length, piece);
        length += strlen(piece);
    }
    return room;
}

static void
put_random(ptier_test_box *box, uint64_t *random, int number)
{
    static const char *const schemes[] = {"http", "https", "socks4", "socks5"};
    char key[80], url[80], texts[7][64];
    ptier_label labels[2] = {{"one", texts[0]}, {texts[1], texts[2]}};
    ptier_record record;
    ptier_record_init(&record);
    (void)snprintf(key, sizeof key, "%d %s", number, random_text(random, texts[6], 40));
    (void)snprintf(url, sizeof url, "%s://h%d.example:%d",
                   schemes[ptier_test_random(random, sizeof schemes / sizeof *schemes)], number,
                   1 + number);
    for (int i = 0; i < 6; i++)
        (void)random_text(random, texts[i], 60);
    record.key = number % 3 ? key : NULL;
    record.url = url;
    record.username = number % 2 ? texts[3] : NULL;
    record.password = number % 4 ? texts[4] : NULL;
    record.source = texts[5];
    record.labels = labels;
    record.label_count =
        ptier_test_random(random, *texts[1] && strcmp(texts[1], "one") != 0 ? 3 : 2);
    record.ttl_ms = number % 5 ? (int64_t)(1 + ptier_test_random(random, 1000)) * 3600000 : 0;
    record.health = (ptier_health)ptier_test_random(random, PTIER_HEALTH_UNKNOWN + 1);
    record.fetch_time_ms =
        ptier_clock_wall(&box->cache->clock) - (int64_t)ptier_test_random(random, 1000000);
    ptier_put_result result = ptier_test_box_put_record(box, &record, NULL);
    assert_int_equal(result.outcome, PTIER_PUT_CREATED);
    for (uint64_t n = ptier_test_random(random, 3); n > 0; n--) {
        ptier_entry *entry;
        ptier_test_box_advance(box, 1 + (int64_t)ptier_test_random(random, 50));
        assert_int_equal(ptier_cache_get(box->cache, result.key, &entry, NULL), PTIER_OK);
        ptier_entry_release(entry);
        (void)ptier_test_box_report(box, result.key, (ptier_outcome)(1 + n % 3),
                                    (double)ptier_test_random(random, 1000000) / 997);
    }
}

/* All but the revision, which is the cache's own. */
static void
assert_same(const exported *a, const exported *b)
{
    assert_int_equal(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        const char *mark = ",\"revision\":";
        char *of_a = strstr(a->lines[i], mark), *of_b = strstr(b->lines[i], mark);
        assert_non_null(of_a);
        assert_non_null(of_b);
        *of_a = *of_b = '\0';
        assert_string_equal(b->lines[i], a->lines[i]);
        *of_a = *of_b = *mark;
    }
}

static void
clear(ptier_test_box *box)
{
    uint64_t cleared, revision;
    assert_int_equal(ptier_cache_clear(box->cache, PTIER_TIER_NONE, PTIER_DURABILITY_DEFAULT,
                                       &cleared, &revision, NULL, &box->error),
                     PTIER_OK);
}

static void
export_clear_import_export_gives_the_same(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        ptier_test_box box;
        exported before, encrypted, after;
        uint64_t random = seed * UINT64_C(0x9e3779b97f4a7c15);
        ptier_test_box_init(&box, seed == 2 ? BOX_L1 | BOX_L3 : BOX_ALL);
        box.options.l1_entries = 50;
        box.options.failure_threshold = 0;
        ptier_test_box_open(&box);
        for (int i = 0; i < ENTRIES; i++)
            put_random(&box, &random, i);
        export_all(&box, true, &before);
        export_all(&box, false, &encrypted);
        assert_int_equal(before.count, ENTRIES);
        clear(&box);
        ptier_test_box_advance(&box, 1800000); /* no time to live ends so soon */
        import_all(&box, &before);
        export_all(&box, true, &after);
        assert_same(&before, &after);
        forget(&after);
        clear(&box);
        import_all(&box, &encrypted);
        ptier_test_box_reopen(&box);
        export_all(&box, true, &after);
        assert_same(&before, &after);
        forget(&before);
        forget(&encrypted);
        forget(&after);
        ptier_test_box_fini(&box);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_newer_fetch_time_wins_in_either_order),
        cmocka_unit_test(statistics_are_kept_and_of_two_the_larger),
        cmocka_unit_test(restoring_an_older_state_of_health_changes_nothing),
        cmocka_unit_test(without_a_known_end_the_time_to_live_counts_from_arrival),
        cmocka_unit_test(what_has_expired_is_not_restored),
        cmocka_unit_test(a_last_use_in_the_future_was_now),
        cmocka_unit_test(export_clear_import_export_gives_the_same),
    };
    return cmocka_run_group_tests_name("cache_import", tests, NULL, NULL);
}
