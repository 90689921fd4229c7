/* CSV as people have it: quotes, line breaks inside of them, byte order mark, separators; and a
 * million lines in bounded memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include <proxytier/import.h>

#include "support/temp_dir.h"

/* ---- small samples ---- */

static char text[4096];

static bool
add_record(void *context, const ptier_import_record *imported)
{
    const ptier_record *r = &imported->record;
    size_t length = strlen(text);
    (void)context;
    length += (size_t)snprintf(text + length, sizeof text - length, "%d %s|%s|%s|%s",
                               (int)imported->line, r->url, r->username ? r->username : "",
                               r->password ? r->password : "", r->source);
    for (size_t i = 0; i < r->label_count; i++)
        length += (size_t)snprintf(text + length, sizeof text - length, "|%s=%s", r->labels[i].name,
                                   r->labels[i].value);
    (void)snprintf(text + length, sizeof text - length, "\n");
    return true;
}

static void
add_skip(void *context, uint64_t line, const char *reason)
{
    size_t length = strlen(text);
    (void)context;
    (void)snprintf(text + length, sizeof text - length, "%d skipped: %s\n", (int)line, reason);
}

static void
expect(const char *csv, const char *expected)
{
    ptier_import_options options;
    ptier_import_summary summary;
    ptier_error error = {0};
    ptier_import_options_init(&options);
    options.on_record = add_record;
    options.on_skip = add_skip;
    text[0] = '\0';
    if (ptier_import_memory(csv, strlen(csv), "a.csv", &options, &summary, &error) != PTIER_OK)
        fail_msg("%s", error.message);
    assert_int_equal(summary.format, PTIER_IMPORT_CSV);
    assert_string_equal(text, expected);
}

static void
quotes_hold_separators_quotes_and_spaces(void **state)
{
    (void)state;
    expect("url,username,password,source,note\n"
           "http://h:1,\"a,b\",\"say \"\"hi\"\"\", s ,\"\"\n"
           "http://h:2,\" u \",\";|\",\"two words\",plain \"inner\" quote\n",
           "2 http://h:1|a,b|say \"hi\"|s\n"
           "3 http://h:2| u |;||two words|note=plain \"inner\" quote\n");
}

static void
line_breaks_inside_of_quotes_belong_to_the_cell(void **state)
{
    (void)state;
    expect("url,note,source\nhttp://h:1,\"first\nsecond\",s\nhttp://h:2,x,s\n",
           "2 http://h:1|||s|note=first second\n"
           "4 http://h:2|||s|note=x\n");
    expect("url,note,source\r\nhttp://h:1,\"first\r\n\r\nthird\",s\r\nhttp://h:2,x,s\r\n",
           "2 http://h:1|||s|note=first  third\n"
           "5 http://h:2|||s|note=x\n");
}

static void
byte_order_mark_and_crlf_are_no_text(void **state)
{
    (void)state;
    expect("\xef\xbb\xbfurl,source\r\nhttp://h:1,s\r\n\r\nhttp://h:2,s", /* no break at the end */
           "2 http://h:1|||s\n4 http://h:2|||s\n");
    expect("\xef\xbb\xbf\"ip\";\"port\"\r\n\"192.0.2.1\";\"80\"\r\n", "2 http://192.0.2.1:80|||\n");
}

static void
semicolons_tabs_and_bars_separate_as_well(void **state)
{
    (void)state;
    expect("port;ip;source\n80;192.0.2.1;\"a;b\"\n", "2 http://192.0.2.1:80|||a;b\n");
    expect("port\tip\tsource\n80\t192.0.2.1\ta,b\n", "2 http://192.0.2.1:80|||a,b\n");
    expect("port|ip|source\n80|192.0.2.1|a,b\n", "2 http://192.0.2.1:80|||a,b\n");
    expect("sep=;\nport;ip\n80;192.0.2.1\n", "3 http://192.0.2.1:80|||\n");
}

static void
bad_lines_are_told_by_their_number(void **state)
{
    (void)state;
    expect("url,port\n\nhttp://h:1,\n,80\nhttp://h:99999,\nhttp://h:2,,more\n# a comment\n"
           "\"never closed,\nhttp://h:3,\n",
           "3 http://h:1|||\n"
           "4 skipped: no address: a url, or ip (host) and port\n"
           "5 skipped: the port is not a number from 1 to 65535\n"
           "6 skipped: the line has more cells than the header\n"
           "8 skipped: a quote is never closed\n"
           "9 http://h:3|||\n");
}

/* ---- a million lines ---- */

#ifdef __SANITIZE_ADDRESS__
enum { LINES = 100000 };
#else
enum { LINES = 1000000 };
#endif

enum {
    BAD_EVERY = 997,
    LONG_EVERY = 50000, /* a record of two lines */
    MEMORY_KB = 8192,
};

typedef struct counted {
    uint64_t records, bad;
    uint64_t next; /* number of the next record that is in the file */
    uint64_t line; /* where it begins */
} counted;

static bool
is_bad(uint64_t number)
{
    return number % BAD_EVERY == 0;
}

static void
write_many(const char *path)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs("source,Proxy URL,country\r\n", file) >= 0);
    for (uint64_t i = 1; i <= LINES; i++) {
        int written =
            fprintf(file, "\"list, %u\",http://10.%u.%u.%u:%s,%s\r\n", (unsigned)(i % 7),
                    (unsigned)(i >> 16), (unsigned)(i >> 8 & 255), (unsigned)(i & 255),
                    is_bad(i) ? "none" : "8080", i % LONG_EVERY == 0 ? "\"D\r\nE\"" : "DE");
        assert_true(written > 0);
    }
    assert_int_equal(fclose(file), 0);
}

/* The line of the record's beginning, and on to the next one. */
static uint64_t
advance(counted *c)
{
    uint64_t line = c->line;
    c->next++;
    c->line += 1 + (c->next % LONG_EVERY == 0);
    return line;
}

static bool
count_record(void *context, const ptier_import_record *imported)
{
    counted *c = context;
    char url[40];
    uint64_t line = advance(c);
    if (imported->line != line || is_bad(c->next))
        return false; /* the import ends with CANCELLED */
    (void)snprintf(url, sizeof url, "http://10.%u.%u.%u:8080", (unsigned)(c->next >> 16),
                   (unsigned)(c->next >> 8 & 255), (unsigned)(c->next & 255));
    c->records++;
    return strcmp(imported->record.url, url) == 0 &&
           strncmp(imported->record.source, "list, ", 6) == 0;
}

static void
count_bad(void *context, uint64_t line, const char *reason)
{
    counted *c = context;
    c->bad += line == advance(c) && is_bad(c->next) && strstr(reason, "port");
}

static long
peak_memory_kb(void)
{
    char line[256];
    long kb = -1;
    FILE *status = fopen("/proc/self/status", "r");
    assert_non_null(status);
    while (kb < 0 && fgets(line, sizeof line, status))
        if (sscanf(line, "VmHWM: %ld kB", &kb) != 1)
            kb = -1;
    assert_int_equal(fclose(status), 0);
    return kb;
}

static void
a_million_lines_are_read_in_bounded_memory(void **state)
{
    char directory[PTIER_TEST_PATH], path[PTIER_TEST_PATH + 16];
    counted c = {.line = 2}; /* after the header */
    ptier_import_options options;
    ptier_import_summary summary;
    ptier_error error = {0};
    (void)state;
    ptier_test_dir_make(directory);
    (void)snprintf(path, sizeof path, "%s/many.csv", directory);
    write_many(path);
    ptier_import_options_init(&options);
    options.on_record = count_record;
    options.on_skip = count_bad;
    options.context = &c;
    long before = peak_memory_kb();
    ptier_status status = ptier_import_file(path, &options, &summary, &error);
    long after = peak_memory_kb();
    ptier_test_dir_remove(directory);
    if (status != PTIER_OK)
        fail_msg("record %d: %s", (int)c.next, error.message);
    assert_int_equal(c.next, LINES);
    assert_int_equal(summary.records, LINES - LINES / BAD_EVERY);
    assert_int_equal(summary.skipped, LINES / BAD_EVERY);
    assert_int_equal(c.bad, LINES / BAD_EVERY);
#ifndef __SANITIZE_ADDRESS__
    assert_true(before > 0);
    assert_in_range(after - before, 0, MEMORY_KB);
#else
    (void)before;
    (void)after;
#endif
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quotes_hold_separators_quotes_and_spaces),
        cmocka_unit_test(line_breaks_inside_of_quotes_belong_to_the_cell),
        cmocka_unit_test(byte_order_mark_and_crlf_are_no_text),
        cmocka_unit_test(semicolons_tabs_and_bars_separate_as_well),
        cmocka_unit_test(bad_lines_are_told_by_their_number),
        cmocka_unit_test(a_million_lines_are_read_in_bounded_memory),
    };
    return cmocka_run_group_tests_name("import_csv", tests, NULL, NULL);
}
