/* Online backup: one file with everything that was acknowledged before it, which restores. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <proxytier/import.h>

#include "support/cache_box.h"

enum { ENTRIES = 3000 };

static char path[PTIER_TEST_PATH + 32];

static void
open_box(ptier_test_box *box, int tiers)
{
    ptier_test_box_init(box, tiers);
    box->options.failure_threshold = 0;
    ptier_test_box_open(box);
    (void)snprintf(path, sizeof path, "%s/backup.sqlite", box->directory);
}

static uint64_t
back_up(ptier_test_box *box)
{
    uint64_t entries;
    if (ptier_cache_backup(box->cache, path, &entries, &box->error) != PTIER_OK)
        fail_msg("%s", box->error.message);
    return entries;
}

/* ---- reading it back ---- */

typedef struct reading {
    ptier_test_box *box; /* NULL: only looked at */
    bool seen[2 * ENTRIES];
    uint64_t records;
} reading;

static bool
take(void *context, const ptier_import_record *imported)
{
    reading *r = context;
    int number;
    assert_true(imported->restore);
    if (sscanf(imported->record.key, "p%d", &number) == 1 && number < 2 * ENTRIES)
        r->seen[number] = true;
    r->records++;
    if (!r->box)
        return true;
    const ptier_put_options options = {.mode = PTIER_PUT_MODE_WARM, .restore = true};
    ptier_put_result result = ptier_test_box_put_record(r->box, &imported->record, &options);
    if (result.outcome != PTIER_PUT_CREATED)
        fail_msg("%s %s", ptier_put_outcome_name(result.outcome), result.message);
    return true;
}

static void
complain(void *context, uint64_t row, const char *reason)
{
    (void)context;
    fail_msg("row %d: %s", (int)row, reason);
}

static reading *
read_back(ptier_test_box *box)
{
    static reading r;
    ptier_import_options options;
    ptier_import_summary summary;
    ptier_error error;
    memset(&r, 0, sizeof r);
    r.box = box;
    ptier_import_options_init(&options);
    options.on_record = take;
    options.on_skip = complain;
    options.context = &r;
    if (ptier_import_file(path, &options, &summary, &error) != PTIER_OK)
        fail_msg("%s", error.message);
    assert_int_equal(summary.format, PTIER_IMPORT_SQLITE);
    return &r;
}

/* All entries as one text, without what is the cache's own. */
static char *
contents(ptier_test_box *box)
{
    enum { LINE = 4096, PAGE = 64 };
    ptier_entry *entries[PAGE];
    uint64_t cursor = 0;
    size_t length = 0, lines = 0;
    char *text = malloc((size_t)16 * LINE);
    assert_non_null(text);
    do {
        size_t count;
        assert_int_equal(ptier_cache_list(box->cache, &cursor, NULL, PTIER_TIER_NONE, PAGE, entries,
                                          &count, &box->error),
                         PTIER_OK);
        for (size_t i = 0; i < count; i++) {
            assert_true(++lines <= 16);
            length += ptier_cache_export_line(box->cache, entries[i], true, text + length, LINE);
            ptier_entry_release(entries[i]);
            text[length] = '\0';
            char *mark = strstr(text + length - 60, ",\"revision\":");
            assert_non_null(mark);
            length = (size_t)(mark - text);
            text[length] = '\0';
        }
    } while (cursor);
    return text;
}

/* ---- cases ---- */

static void
everything_acknowledged_before_it_is_in_it(void **state)
{
    ptier_test_box box;
    (void)state;
    open_box(&box, BOX_ALL);
    for (int i = 0; i < ENTRIES; i++)
        (void)ptier_test_box_put(&box, i);
    for (int i = 0; i < ENTRIES; i += 3)
        assert_true(ptier_test_box_delete(&box, i));
    assert_int_equal(back_up(&box), ENTRIES - ENTRIES / 3);
    const reading *r = read_back(NULL);
    for (int i = 0; i < ENTRIES; i++)
        assert_int_equal(r->seen[i], i % 3 != 0);
    assert_int_equal(r->records, ENTRIES - ENTRIES / 3);
    ptier_test_box_fini(&box);
}

static void
an_entry_comes_back_as_it_was(void **state)
{
    static const ptier_label labels[] = {{"country", "DE"}, {"note", ""}};
    ptier_test_box box;
    ptier_record record;
    uint64_t cleared, revision;
    (void)state;
    open_box(&box, BOX_ALL);
    ptier_record_init(&record);
    record.url = "socks5://h.example:1080";
    record.username = "us3r";
    record.password = "pa55 \"wörd\"";
    record.source = "liste ä";
    record.labels = labels;
    record.label_count = 2;
    record.ttl_ms = 7200000;
    record.fetch_time_ms = ptier_clock_wall(&box.cache->clock) - 5000;
    ptier_put_result result = ptier_test_box_put_record(&box, &record, NULL);
    (void)ptier_test_box_report(&box, result.key, PTIER_REPORT_OK, 12.5);
    (void)ptier_test_box_report(&box, result.key, PTIER_REPORT_FAILED, 0);
    ptier_entry *entry;
    assert_int_equal(ptier_cache_get(box.cache, result.key, &entry, NULL), PTIER_OK);
    ptier_entry_release(entry);
    (void)ptier_test_box_put(&box, 1);
    char *before = contents(&box);
    assert_non_null(strstr(before, "pa55"));
    assert_int_equal(back_up(&box), 2);
    size_t length;
    char *file = ptier_test_file_read(path, &length);
    assert_null(memmem(file, length, "pa55", 4));
    assert_null(memmem(file, length, "us3r", 4));
    free(file);
    assert_int_equal(ptier_cache_clear(box.cache, PTIER_TIER_NONE, PTIER_DURABILITY_DEFAULT,
                                       &cleared, &revision, NULL, &box.error),
                     PTIER_OK);
    ptier_test_box_advance(&box, 1000);
    assert_int_equal(read_back(&box)->records, 2);
    char *after = contents(&box);
    assert_string_equal(after, before);
    free(before);
    free(after);
    ptier_test_box_fini(&box);
}

static void
a_latency_that_only_a_list_told_is_kept(void **state)
{
    ptier_test_box box;
    ptier_record record;
    char key[16], url[40];
    uint64_t cleared, revision;
    (void)state;
    open_box(&box, BOX_L1 | BOX_L3);
    ptier_test_box_record(&record, 1, key, url);
    record.latency_ms = 120.25;
    (void)ptier_test_box_put_record(&box, &record, NULL);
    char *before = contents(&box);
    assert_non_null(strstr(before, "\"latency_ms\":120.25,"));
    (void)back_up(&box);
    ptier_test_box_reopen(&box);
    char *reopened = contents(&box);
    assert_string_equal(reopened, before);
    assert_int_equal(ptier_cache_clear(box.cache, PTIER_TIER_NONE, PTIER_DURABILITY_DEFAULT,
                                       &cleared, &revision, NULL, &box.error),
                     PTIER_OK);
    (void)read_back(&box);
    char *restored = contents(&box);
    assert_string_equal(restored, before);
    free(before);
    free(reopened);
    free(restored);
    ptier_test_box_fini(&box);
}

static size_t
files_in(const char *directory)
{
    size_t count = 0;
    DIR *dir = opendir(directory);
    assert_non_null(dir);
    while (readdir(dir))
        count++;
    assert_int_equal(closedir(dir), 0);
    return count;
}

static void
it_is_one_private_file_and_nothing_else(void **state)
{
    ptier_test_box box;
    struct stat about;
    (void)state;
    open_box(&box, BOX_ALL);
    (void)ptier_test_box_put(&box, 1);
    size_t before = files_in(box.directory);
    (void)back_up(&box);
    assert_int_equal(files_in(box.directory), before + 1);
    assert_int_equal(stat(path, &about), 0);
    assert_int_equal(about.st_mode & 07777, 0600);
    assert_int_equal(read_back(NULL)->records, 1);
    assert_int_equal(files_in(box.directory), before + 1); /* reading leaves none behind, too */
    ptier_test_box_fini(&box);
}

static void
it_refuses_what_it_must_not_write_to(void **state)
{
    ptier_test_box box;
    uint64_t entries;
    (void)state;
    open_box(&box, BOX_ALL);
    (void)ptier_test_box_put(&box, 1);
    size_t before = files_in(box.directory);
    ptier_test_file_write(path, "mine", 4);
    assert_int_equal(ptier_cache_backup(box.cache, path, &entries, &box.error),
                     PTIER_ALREADY_EXISTS);
    size_t length;
    char *text = ptier_test_file_read(path, &length);
    assert_int_equal(length, 4);
    free(text);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("nowhere", path), 0);
    assert_int_equal(ptier_cache_backup(box.cache, path, &entries, &box.error),
                     PTIER_ALREADY_EXISTS);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(ptier_cache_backup(box.cache, "backup.sqlite", &entries, &box.error),
                     PTIER_INVALID_ARGUMENT);
    (void)snprintf(path, sizeof path, "%s/no/backup.sqlite", box.directory);
    assert_int_not_equal(ptier_cache_backup(box.cache, path, &entries, &box.error), PTIER_OK);
    assert_int_equal(files_in(box.directory), before);
    ptier_test_box_fini(&box);
}

static void
every_set_of_tiers_can_be_backed_up(void **state)
{
    (void)state;
    for (int tiers = 1; tiers <= BOX_ALL; tiers++) {
        ptier_test_box box;
        ptier_test_box_init(&box, tiers);
        box.options.encryption_key = "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=";
        ptier_test_box_open(&box);
        (void)snprintf(path, sizeof path, "%s/backup.sqlite", box.directory);
        for (int i = 0; i < 50; i++)
            (void)ptier_test_box_put(&box, i);
        assert_int_equal(back_up(&box), 50);
        assert_int_equal(read_back(NULL)->records, 50);
        ptier_test_box_fini(&box);
    }
}

static void
a_cache_in_memory_needs_a_key(void **state)
{
    ptier_test_box box;
    uint64_t entries;
    (void)state;
    open_box(&box, BOX_L1);
    assert_int_equal(ptier_cache_backup(box.cache, path, &entries, &box.error),
                     PTIER_FAILED_PRECONDITION);
    ptier_test_box_fini(&box);
}

/* ---- while writers go on ---- */

typedef struct writer {
    ptier_test_box *box;
    atomic_int written; /* p0 … are acknowledged */
    atomic_bool stop;
} writer;

static void *
write_on(void *context)
{
    writer *w = context;
    for (int i = 0; i < 2 * ENTRIES && !atomic_load(&w->stop); i++) {
        (void)ptier_test_box_put(w->box, i);
        atomic_store(&w->written, i + 1);
    }
    return NULL;
}

static void
writers_go_on_and_what_they_had_acknowledged_is_in_it(void **state)
{
    ptier_test_box box;
    writer w = {.box = &box};
    pthread_t thread;
    (void)state;
    open_box(&box, BOX_ALL);
    assert_int_equal(pthread_create(&thread, NULL, write_on, &w), 0);
    for (int round = 0; round < 3; round++) {
        BOX_AWAIT(atomic_load(&w.written) >= (round + 1) * 300);
        int acknowledged = atomic_load(&w.written);
        (void)back_up(&box);
        const reading *r = read_back(NULL);
        for (int i = 0; i < acknowledged; i++)
            assert_true(r->seen[i]);
        assert_int_equal(unlink(path), 0);
    }
    atomic_store(&w.stop, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    ptier_test_box_fini(&box);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_acknowledged_before_it_is_in_it),
        cmocka_unit_test(an_entry_comes_back_as_it_was),
        cmocka_unit_test(a_latency_that_only_a_list_told_is_kept),
        cmocka_unit_test(it_is_one_private_file_and_nothing_else),
        cmocka_unit_test(it_refuses_what_it_must_not_write_to),
        cmocka_unit_test(every_set_of_tiers_can_be_backed_up),
        cmocka_unit_test(a_cache_in_memory_needs_a_key),
        cmocka_unit_test(writers_go_on_and_what_they_had_acknowledged_is_in_it),
    };
    return cmocka_run_group_tests_name("cache_backup", tests, NULL, NULL);
}
