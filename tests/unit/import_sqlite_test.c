/* Databases as inputs: ProxyWhirl's and our own, sound and damaged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <proxytier/import.h>

#include "support/sample_database.h"
#include "support/temp_dir.h"

#define ROWS 2000

/* What came out of an import: records as text while there are few, and counts. */
typedef struct collected {
    char text[8192];
    size_t length;
    uint64_t last_line, restored, skipped_lines[8];
    char reason[200]; /* of the last one skipped */
    bool seen[ROWS + 1];
    uint64_t last_read, last_total;
    ptier_import_summary summary;
    ptier_error error;
    ptier_status status;
} collected;

PTIER_PRINTF(2, 3)
static void
add(collected *c, const char *format, ...)
{
    va_list args;
    size_t room = sizeof c->text - c->length;
    va_start(args, format);
    int length = vsnprintf(c->text + c->length, room, format, args);
    va_end(args);
    c->length += length > 0 && (size_t)length < room ? (size_t)length : 0; /* many: only counted */
}

static bool
on_record(void *context, const ptier_import_record *imported)
{
    collected *c = context;
    const ptier_record *r = &imported->record;
    add(c, "%llu %s", (unsigned long long)imported->line, r->url);
    add(c, " key=%s token=%s/%s source=%s", r->key ? r->key : "-",
        r->username_token ? r->username_token : "-", r->password_token ? r->password_token : "-",
        r->source);
    add(c, " fetched=%lld ttl=%lld expires=%lld", (long long)r->fetch_time_ms, (long long)r->ttl_ms,
        (long long)r->expires_at_ms);
    add(c, " health=%s/%d%s", r->health ? ptier_health_name(r->health) : "unspecified",
        (int)r->failure_count, r->needs_revalidation ? "/revalidate" : "");
    add(c, " used=%lld/%llu latency=%g reports=%llu/%llu", (long long)r->last_access_ms,
        (unsigned long long)r->access_count, r->latency_ms, (unsigned long long)r->success_count,
        (unsigned long long)r->report_count);
    for (size_t i = 0; i < r->label_count; i++)
        add(c, " %s:%s", r->labels[i].name, r->labels[i].value);
    add(c, "\n");
    c->restored += imported->restore;
    if (imported->line <= ROWS)
        c->seen[imported->line] = true;
    return true;
}

static void
on_skip(void *context, uint64_t line, const char *reason)
{
    collected *c = context;
    add(c, "%llu skipped: %s\n", (unsigned long long)line, reason);
    if (c->summary.skipped <= 8 && c->summary.skipped > 0)
        c->skipped_lines[c->summary.skipped - 1] = line;
    (void)snprintf(c->reason, sizeof c->reason, "%s", reason);
}

static void
on_progress(void *context, uint64_t bytes_read, uint64_t bytes_total)
{
    collected *c = context;
    assert_true(bytes_read > c->last_read);
    assert_true(bytes_read <= bytes_total);
    c->last_read = bytes_read;
    c->last_total = bytes_total;
}

static collected *
load(const char *path)
{
    static collected c; /* one at a time */
    memset(&c, 0, sizeof c);
    ptier_import_options options;
    ptier_import_options_init(&options);
    options.on_record = on_record;
    options.on_skip = on_skip;
    options.on_progress = on_progress;
    options.context = &c;
    c.status = ptier_import_file(path, &options, &c.summary, &c.error);
    return &c;
}

static void
expect(const collected *c, uint64_t records, uint64_t skipped, const char *text)
{
    if (c->status != PTIER_OK)
        fail_msg("%s", c->error.message);
    assert_int_equal(c->summary.format, PTIER_IMPORT_SQLITE);
    assert_string_equal(c->text, text);
    assert_int_equal(c->summary.records, records);
    assert_int_equal(c->restored, records);
    assert_int_equal(c->summary.skipped, skipped);
}

/* ---- fixture: a directory, and the path of a database in it ---- */

static char directory[PTIER_TEST_PATH], path[PTIER_TEST_PATH + 32];

static int
make_directory(void **state)
{
    (void)state;
    ptier_test_dir_make(directory);
    (void)snprintf(path, sizeof path, "%s/a.db", directory);
    return 0;
}

static int
remove_directory(void **state)
{
    (void)state;
    ptier_test_dir_remove(directory);
    return 0;
}

static void
make(const char *tables, const char *rows)
{
    ptier_test_database(path, tables);
    ptier_test_database(path, rows);
}

/* ---- what rows say ---- */

static void
own_rows_come_back_with_all_they_have(void **state)
{
    (void)state;
    make(
        ptier_test_own_tables,
        "INSERT INTO sources VALUES(1, ''), (2, 'list – ä');"
        "INSERT INTO entries VALUES(5, 1, 9, 4000000000123, 7, 8, 2, 1, 3, 2, 1767323045678, 60000,"
        " x'00', 'k1', 'http://192.0.2.1:80', 'gAAAAABmZm9v', 'gAAAAABmYmFy',"
        " CAST('a' || char(0) || '1' || char(0) || 'b' || char(0) || char(0) AS BLOB));"
        "INSERT INTO entries VALUES(9, 1, 9, 0, 7, 8, 5, 0, 0, 1, 1000, 0,"
        " x'00', ' k2 ', 'socks5://[2001:db8::1]:1080', NULL, NULL, NULL);"
        "INSERT INTO usage VALUES(5, 1767323050001, 12, 12500, 3, 4, x'00');");
    expect(load(path), 2, 0,
           "5 http://192.0.2.1:80 key=k1 token=gAAAAABmZm9v/gAAAAABmYmFy source=list – ä "
           "fetched=1767323045678 ttl=60000 expires=4000000000123 health=degraded/3/revalidate "
           "used=1767323050001/12 latency=12.5 reports=3/4 a:1 b:\n"
           "9 socks5://[2001:db8::1]:1080 key= k2  token=-/- source= fetched=1000 ttl=0 expires=0 "
           "health=unknown/0 used=0/0 latency=0 reports=0/0\n");
}

static void
proxywhirl_rows_keep_what_is_left_of_their_time_to_live(void **state)
{
    (void)state;
    make(ptier_test_proxywhirl_tables,
         "INSERT INTO cache_entries VALUES('k1', 'http://192.0.2.1:80/', "
         "x'674141414141426d5a6d3976',"
         " 'gAAAAABmYmFy', 'ä', 1767323045.123999, 1767323046, 4, 3600, 1767326645.123999,"
         " 'Unhealthy', 2, 1, 'my note');"
         "INSERT INTO cache_entries(key, proxy_url, fetch_time, ttl_seconds) VALUES"
         " ('k2', 'http://192.0.2.2:80', 1767323045, 60.0);"
         "INSERT INTO cache_entries(key, proxy_url, fetch_time, expires_at, failure_count) VALUES"
         " ('k3', 'http://192.0.2.3:80', 1767323045, 1767323105, '1');"
         "INSERT INTO cache_entries(key, proxy_url) VALUES('k4', 'http://192.0.2.4:80');"
         "INSERT INTO cache_entries(key, proxy_url, expires_at) VALUES"
         " ('k5', 'http://192.0.2.5:80', 9e999);");
    expect(load(path), 5, 0,
           "1 http://192.0.2.1:80 key=k1 token=gAAAAABmZm9v/gAAAAABmYmFy source=ä "
           "fetched=1767323045123 ttl=3600000 expires=1767326645123 health=unhealthy/2 "
           "used=1767323046000/4 latency=0 reports=0/0 note:my note\n"
           "2 http://192.0.2.2:80 key=k2 token=-/- source= fetched=1767323045000 ttl=60000 "
           "expires=1767323105000 health=unspecified/-1 used=0/0 latency=0 reports=0/0\n"
           "3 http://192.0.2.3:80 key=k3 token=-/- source= fetched=1767323045000 ttl=60000 "
           "expires=1767323105000 health=unspecified/1 used=0/0 latency=0 reports=0/0\n"
           "4 http://192.0.2.4:80 key=k4 token=-/- source= fetched=0 ttl=-1 expires=0 "
           "health=unspecified/-1 used=0/0 latency=0 reports=0/0\n"
           "5 http://192.0.2.5:80 key=k5 token=-/- source= fetched=0 ttl=-1 expires=0 "
           "health=unspecified/-1 used=0/0 latency=0 reports=0/0 expires_at:Inf\n");
}

static void
columns_are_found_by_name_and_may_be_missing(void **state)
{
    (void)state;
    ptier_test_database(path,
                        "PRAGMA application_id=1347703122; PRAGMA user_version=2;"
                        "CREATE TABLE sources(name TEXT, id INTEGER PRIMARY KEY);"
                        "CREATE TABLE usage(more BLOB, id INTEGER PRIMARY KEY, Accesses);"
                        "CREATE TABLE entries(more BLOB, url TEXT, KEY TEXT, source INTEGER,"
                        " id INTEGER PRIMARY KEY);"
                        "INSERT INTO sources VALUES('s', 1);"
                        "INSERT INTO usage VALUES(NULL, 3, 5);"
                        "INSERT INTO entries VALUES(x'01', 'http://192.0.2.1:80', 'k', 1, 3);");
    expect(load(path), 1, 0,
           "3 http://192.0.2.1:80 key=k token=-/- source=s fetched=0 ttl=-1 expires=0 "
           "health=unknown/0 used=0/5 latency=0 reports=0/0\n");
}

static void
unreadable_rows_are_skipped_with_their_rowid(void **state)
{
    (void)state;
    make(ptier_test_own_tables,
         "INSERT INTO sources VALUES(1, 's');"
         "CREATE TEMP TABLE t AS SELECT 1 AS source, 5 AS health, 'k' AS key,"
         " 'http://192.0.2.1:80' AS url, NULL AS username, NULL AS labels, 1000 AS fetch_time,"
         " 0 AS failures;"
         "INSERT INTO entries(id, key64, source, health, key, url, username, labels, fetch_time,"
         " failures) SELECT 1, 0, * FROM t;"
         "INSERT INTO entries(id, key64, source, health, key, url, username, labels, fetch_time,"
         " failures) SELECT 2, 0, 99, 5, key, url, NULL, NULL, 0, 0 FROM t UNION ALL"
         " SELECT 3, 0, 1, 6, key, url, NULL, NULL, 0, 0 FROM t UNION ALL"
         " SELECT 4, 0, 1, 5, key, 'no proxy', NULL, NULL, 0, 0 FROM t UNION ALL"
         " SELECT 5, 0, 1, 5, key, url, 'no token', NULL, 0, 0 FROM t UNION ALL"
         " SELECT 6, 0, 1, 5, key, url, NULL, x'616200', 0, 0 FROM t UNION ALL"
         " SELECT 7, 0, 1, 5, key, url, NULL, NULL, -5, 0 FROM t UNION ALL"
         " SELECT 8, 0, 1, 5, key, url, NULL, NULL, 'x', 0 FROM t UNION ALL"
         " SELECT 9, 0, 1, 5, CAST(x'ff' AS TEXT), url, NULL, NULL, 0, 0 FROM t UNION ALL"
         " SELECT 10, 0, 1, 5, key, NULL, NULL, NULL, 0, 0 FROM t UNION ALL"
         " SELECT 11, 0, 1, 5, key, url, NULL, NULL, 0, 4294967295 FROM t;");
    const collected *c = load(path);
    assert_int_equal(c->status, PTIER_OK);
    assert_int_equal(c->summary.records, 1);
    assert_int_equal(c->summary.skipped, 10);
    static const char *const reasons[] = {
        "\n2 skipped: the name of its source cannot be read\n",
        "\n3 skipped: a number in the row is out of range\n",
        "\n4 skipped: ",
        "\n5 skipped: the encrypted user name is not a Fernet token\n",
        "\n6 skipped: the labels are damaged\n",
        "\n7 skipped: a number in the row is out of range\n",
        "\n8 skipped: a number in the row is out of range\n",
        "\n9 skipped: the key is not UTF-8 text\n",
        "\n10 skipped: no address",
        "\n11 skipped: a number in the row is out of range\n",
    };
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (!strstr(c->text, reasons[i]))
            fail_msg("no '%s' in %s", reasons[i], c->text);
}

/* ---- which databases ---- */

static void
expect_refused(const char *part)
{
    const collected *c = load(path);
    if (c->status == PTIER_OK || !strstr(c->error.message, part))
        fail_msg("no '%s' in '%s'", part, c->error.message);
    assert_int_equal(c->summary.records, 0);
}

static void
other_databases_are_refused(void **state)
{
    (void)state;
    ptier_test_database(path, "CREATE TABLE proxies(url TEXT)");
    expect_refused("neither a backup");
    assert_int_equal(unlink(path), 0);
    ptier_test_database(path, "PRAGMA application_id=1347703122; CREATE TABLE t(a)");
    expect_refused("neither a backup");
    assert_int_equal(unlink(path), 0);
    ptier_test_database(path, "CREATE TABLE cache_entries(a)");
    expect_refused("neither a backup");
    assert_int_equal(unlink(path), 0);
    ptier_test_database(path,
                        "CREATE TABLE cache_entries(proxy_url, key PRIMARY KEY) WITHOUT ROWID");
    expect_refused("neither a backup");
}

static void
views_are_no_tables(void **state)
{
    (void)state;
    ptier_test_database(path, "CREATE VIEW cache_entries AS WITH RECURSIVE n(i) AS (SELECT 1 UNION"
                              " ALL SELECT i FROM n) SELECT i AS rowid, 'http://h:1' AS proxy_url"
                              " FROM n");
    expect_refused("neither a backup");
}

static void
a_database_is_read_from_its_file_only(void **state)
{
    (void)state;
    ptier_import_options options;
    ptier_import_summary summary;
    ptier_error error;
    collected c = {.length = 0};
    ptier_import_options_init(&options);
    options.on_record = on_record;
    options.context = &c;
    assert_int_equal(
        ptier_import_memory("SQLite format 3\0more", 20, "a.jsonl", &options, &summary, &error),
        PTIER_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, "SQLite database"));
    ptier_test_own_database(path, 1);
    options.format = PTIER_IMPORT_CSV;
    assert_int_equal(ptier_import_file(path, &options, &summary, &error), PTIER_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, "SQLite database"));
    options.format = PTIER_IMPORT_SQLITE;
    assert_int_equal(ptier_import_file(path, &options, &summary, &error), PTIER_INVALID_ARGUMENT);
}

static void
reading_changes_nothing(void **state)
{
    struct stat before, after;
    (void)state;
    ptier_test_own_database(path, 50);
    assert_int_equal(stat(path, &before), 0);
    assert_int_equal(load(path)->summary.records, 50);
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
    assert_int_equal(after.st_size, before.st_size);
    assert_int_equal(chmod(path, 0400), 0);
    assert_int_equal(load(path)->summary.records, 50);
}

/* ---- damage ---- */

static long
page_size(FILE *file)
{
    uint8_t header[2];
    assert_int_equal(fseek(file, 16, SEEK_SET), 0);
    assert_int_equal(fread(header, 1, 2, file), 2);
    return header[0] << 8 | header[1];
}

/* Overwrites the n-th page that begins with `kind` and holds `text`. */
static void
damage_page(uint8_t kind, const char *text, int n, long from, uint8_t with)
{
    uint8_t page[65536];
    FILE *file = fopen(path, "r+");
    assert_non_null(file);
    long size = page_size(file);
    for (long at = 0;; at += size) {
        assert_int_equal(fseek(file, at, SEEK_SET), 0);
        assert_int_equal(fread(page, 1, (size_t)size, file), size);
        if (page[0] != kind || !memmem(page, (size_t)size, text, strlen(text)) || n-- > 0)
            continue;
        memset(page + from, with, (size_t)(size - from));
        assert_int_equal(fseek(file, at, SEEK_SET), 0);
        assert_int_equal(fwrite(page, 1, (size_t)size, file), size);
        break;
    }
    assert_int_equal(fclose(file), 0);
}

/* All rows but one stretch of at most `most` were read; it was told. */
static void
expect_one_gap(const collected *c, uint64_t most)
{
    uint64_t missing = 0, runs = 0;
    if (c->status != PTIER_OK)
        fail_msg("%s", c->error.message);
    for (size_t i = 1; i <= ROWS; i++) {
        missing += !c->seen[i];
        runs += !c->seen[i] && (i == 1 || c->seen[i - 1]);
    }
    assert_int_equal(runs, 1);
    assert_true(missing > 0 && missing <= most);
    assert_int_equal(c->summary.records, ROWS - missing);
    assert_true(c->summary.skipped >= 1 && c->summary.skipped <= missing);
    assert_false(c->seen[c->skipped_lines[0]]);
    assert_non_null(strstr(c->reason, "cannot be read"));
    assert_int_equal(c->last_read, c->last_total);
}

#define LEAF 0x0d

static void
a_damaged_page_costs_its_own_rows(void **state)
{
    static const int pages[] = {0, 1, 7, 20};
    (void)state;
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        (void)unlink(path); /* none at first */
        ptier_test_proxywhirl_database(path, ROWS);
        damage_page(LEAF, "http://10.", pages[i], 0, 0xa5);
        expect_one_gap(load(path), 60);
        (void)unlink(path);
        ptier_test_own_database(path, ROWS);
        damage_page(LEAF, "http://10.", pages[i], 0, 0xa5);
        expect_one_gap(load(path), 60);
    }
}

static void
a_damaged_row_costs_itself(void **state)
{
    (void)state;
    ptier_test_proxywhirl_database(path, ROWS);
    ptier_test_database(path, "UPDATE cache_entries SET note = printf('%.*c', 9000, 'Q')"
                              " WHERE rowid = 700;");
    /* The rest of the row is on other pages: the one that follows the first is not there any more.
     */
    damage_page(0, "QQQQ", 0, 0, 0xff);
    const collected *c = load(path);
    expect_one_gap(c, 1);
    assert_int_equal(c->skipped_lines[0], 700);
}

static void
damaged_figures_do_not_cost_their_entries(void **state)
{
    (void)state;
    ptier_test_own_database(path, ROWS);
    ptier_test_database(path, "UPDATE usage SET integrity = CAST('figures' AS BLOB)");
    damage_page(LEAF, "figures", 1, 0, 0xa5);
    const collected *c = load(path);
    assert_int_equal(c->status, PTIER_OK);
    assert_int_equal(c->summary.records, ROWS);
    assert_int_equal(c->summary.skipped, 0);
}

static void
a_file_that_was_cut_off_gives_what_it_has(void **state)
{
    struct stat about;
    (void)state;
    ptier_test_own_database(path, ROWS);
    assert_int_equal(stat(path, &about), 0);
    assert_int_equal(truncate(path, about.st_size / 2), 0);
    const collected *c = load(path);
    if (c->status != PTIER_OK)
        assert_non_null(strstr(c->error.message, "damaged"));
    assert_int_equal(truncate(path, 100), 0);
    expect_refused("damaged");
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, make_directory, remove_directory)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(own_rows_come_back_with_all_they_have),
        CASE(proxywhirl_rows_keep_what_is_left_of_their_time_to_live),
        CASE(columns_are_found_by_name_and_may_be_missing),
        CASE(unreadable_rows_are_skipped_with_their_rowid),
        CASE(other_databases_are_refused),
        CASE(views_are_no_tables),
        CASE(a_database_is_read_from_its_file_only),
        CASE(reading_changes_nothing),
        CASE(a_damaged_page_costs_its_own_rows),
        CASE(a_damaged_row_costs_itself),
        CASE(damaged_figures_do_not_cost_their_entries),
        CASE(a_file_that_was_cut_off_gives_what_it_has),
    };
    return cmocka_run_group_tests_name("import_sqlite", tests, NULL, NULL);
}
