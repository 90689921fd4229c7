/* A hundred restarts in a row, for every set of tiers that has a disk: the content stays the same
 * to the last field, usage figures included. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/cache_box.h"
#include "support/sample_entry.h"
#include "support/settings.h"

enum { KEYS = 300, STEPS = 1200, PAGE = 64, RESTARTS = PTIER_TEST_SANITIZED ? 20 : 100 };

/* Every entry as its export line, in order. */
typedef struct picture {
    char *lines[KEYS + 1];
    size_t count;
} picture;

static ptier_test_box box;

static int
tear_down(void **state)
{
    (void)state;
    ptier_test_box_fini(&box);
    return 0;
}

static int
by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void
add_to_picture(picture *p, const ptier_entry *entry)
{
    static char line[PTIER_EXPORT_LINE_MAX + 32];
    ptier_record record;
    size_t length = ptier_cache_export_line(box.cache, entry, true, line, PTIER_EXPORT_LINE_MAX);
    ptier_cache_read(box.cache, entry, &record, NULL);
    (void)snprintf(line + length, 32, "%lld", (long long)record.remaining_ttl_ms);
    assert_true(p->count <= KEYS);
    p->lines[p->count] = strdup(line);
    assert_non_null(p->lines[p->count]);
    p->count++;
}

static void
take_picture(picture *p)
{
    ptier_entry *entries[PAGE];
    uint64_t cursor = 0;
    size_t count;
    p->count = 0;
    do {
        assert_int_equal(ptier_cache_list(box.cache, &cursor, NULL, PTIER_TIER_NONE, PAGE, entries,
                                          &count, &box.error),
                         PTIER_OK);
        for (size_t i = 0; i < count; i++) {
            add_to_picture(p, entries[i]);
            ptier_entry_release(entries[i]);
        }
    } while (cursor);
    qsort(p->lines, p->count, sizeof *p->lines, by_text);
}

static void
free_picture(picture *p)
{
    for (size_t i = 0; i < p->count; i++)
        free(p->lines[i]);
}

static void
compare_pictures(const picture *before, const picture *after, int restart)
{
    for (size_t i = 0; i < before->count && i < after->count; i++)
        if (strcmp(before->lines[i], after->lines[i]) != 0)
            fail_msg("restart %d:\n%s\nwas\n%s", restart, after->lines[i], before->lines[i]);
    assert_int_equal(before->count, after->count);
}

static void
put_any(uint64_t *seed)
{
    static const char *const sources[] = {NULL, "list a", "list b"};
    const ptier_label labels[] = {{"country", "DE"}, {"note", "a \"quoted\" \\ value"}};
    char key[16], url[40], password[32];
    ptier_record record;
    int number = (int)ptier_test_random(seed, KEYS);
    ptier_test_box_record(&record, number, key, url);
    (void)snprintf(password, sizeof password, "secret-%d", number);
    if (ptier_test_random(seed, 2)) {
        record.username = "user-plain";
        record.password = password;
    }
    record.source = sources[ptier_test_random(seed, 3)];
    record.labels = labels;
    record.label_count = ptier_test_random(seed, 3);
    record.ttl_ms =
        ptier_test_random(seed, 3) ? (int64_t)ptier_test_random(seed, 9000000) + 60000 : 0;
    assert_true(ptier_test_box_put_record(&box, &record, NULL).outcome <= PTIER_PUT_UPDATED);
}

static void
use_cache(uint64_t seed)
{
    for (int i = 0; i < STEPS; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "p%d", (int)ptier_test_random(&seed, KEYS));
        put_any(&seed);
        (void)ptier_test_box_has(&box, (int)ptier_test_random(&seed, KEYS));
        if (i % 3 == 0)
            ptier_test_box_delete(&box, (int)ptier_test_random(&seed, KEYS));
        else
            ptier_test_box_report(&box, key, 1 + (ptier_outcome)ptier_test_random(&seed, 3), 7.5);
        ptier_test_clock_advance(&box.clock, 10);
    }
}

static void
check_restart(const picture *before, const uint8_t store_id[PTIER_ID_BYTES], int restart)
{
    uint8_t id[PTIER_ID_BYTES], boot[PTIER_ID_BYTES], last_boot[PTIER_ID_BYTES];
    picture after;
    uint64_t revision = ptier_cache_revision(box.cache);
    ptier_cache_boot_id(box.cache, last_boot);
    ptier_test_box_reopen(&box);
    ptier_cache_store_id(box.cache, id);
    ptier_cache_boot_id(box.cache, boot);
    assert_memory_equal(id, store_id, PTIER_ID_BYTES);
    assert_memory_not_equal(boot, last_boot, PTIER_ID_BYTES);
    assert_true(ptier_cache_revision(box.cache) >= revision);
    take_picture(&after);
    compare_pictures(before, &after, restart);
    assert_int_equal(ptier_test_box_entries(&box), after.count);
    free_picture(&after);
}

static void
restart_often(int tiers)
{
    uint8_t id[PTIER_ID_BYTES];
    picture before;
    ptier_test_box_init(&box, tiers);
    box.options.l1_entries = 30;
    box.options.l2_entries = tiers & BOX_L3 ? 100 : 0;
    box.hooks.l2_shard_bytes = 32768;
    ptier_test_box_open(&box);
    ptier_cache_store_id(box.cache, id);
    use_cache((uint64_t)tiers);
    take_picture(&before);
    assert_true(before.count > KEYS / 3);
    for (int restart = 1; restart <= RESTARTS; restart++) {
        check_restart(&before, id, restart);
        if (restart % 10 == 0) { /* there is something to write, and nothing of it stays */
            ptier_test_box_put(&box, KEYS);
            assert_true(ptier_test_box_delete(&box, KEYS));
        }
    }
    free_picture(&before);
    assert_false(ptier_test_dir_contains(box.directory, "secret-"));
    assert_false(ptier_test_dir_contains(box.directory, "user-plain"));
}

static void
hundred_restarts_change_nothing_in_l2(void **state)
{
    (void)state;
    restart_often(BOX_L2);
}

static void
hundred_restarts_change_nothing_in_l1_and_l2(void **state)
{
    (void)state;
    restart_often(BOX_L1 | BOX_L2);
}

static void
hundred_restarts_change_nothing_in_l3(void **state)
{
    (void)state;
    restart_often(BOX_L3);
}

static void
hundred_restarts_change_nothing_in_l1_and_l3(void **state)
{
    (void)state;
    restart_often(BOX_L1 | BOX_L3);
}

static void
hundred_restarts_change_nothing_in_l2_and_l3(void **state)
{
    (void)state;
    restart_often(BOX_L2 | BOX_L3);
}

static void
hundred_restarts_change_nothing_in_all_tiers(void **state)
{
    (void)state;
    restart_often(BOX_ALL);
}

/* What was read and reported up to the end of a run is known to the next one. */
static void
usage_figures_survive_a_restart(void **state)
{
    (void)state;
    ptier_test_box_init(&box, BOX_ALL);
    box.options.l1_entries = 5;
    ptier_test_box_open(&box);
    for (int i = 0; i < 20; i++)
        ptier_test_box_put(&box, i);
    for (int i = 0; i < 20; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "p%d", i);
        ptier_test_box_report(&box, key, PTIER_REPORT_OK, 8);
        for (int n = 0; n <= i; n++)
            assert_true(ptier_test_box_has(&box, i));
    }
    ptier_test_box_reopen(&box);
    for (int i = 0; i < 20; i++) {
        char key[16];
        ptier_entry *entry;
        ptier_record record;
        (void)snprintf(key, sizeof key, "p%d", i);
        assert_int_equal(ptier_cache_get(box.cache, key, &entry, NULL), PTIER_OK);
        ptier_cache_read(box.cache, entry, &record, NULL);
        ptier_entry_release(entry);
        assert_int_equal(record.access_count, i + 2);
        assert_int_equal(record.report_count, 1);
        assert_int_equal(record.success_count, 1);
        assert_true(record.latency_ms > 7.9 && record.latency_ms < 8.1);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(hundred_restarts_change_nothing_in_l2, tear_down),
        cmocka_unit_test_teardown(hundred_restarts_change_nothing_in_l1_and_l2, tear_down),
        cmocka_unit_test_teardown(hundred_restarts_change_nothing_in_l3, tear_down),
        cmocka_unit_test_teardown(hundred_restarts_change_nothing_in_l1_and_l3, tear_down),
        cmocka_unit_test_teardown(hundred_restarts_change_nothing_in_l2_and_l3, tear_down),
        cmocka_unit_test_teardown(hundred_restarts_change_nothing_in_all_tiers, tear_down),
        cmocka_unit_test_teardown(usage_figures_survive_a_restart, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
