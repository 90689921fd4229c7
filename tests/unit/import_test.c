/* Reading the lists that people have, from samples in tests/fixtures/import and from memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <proxytier/import.h>

/* Everything that was handed out or skipped, one text line each: easy to compare, easy to read when
 * it differs. */
typedef struct collected {
    char text[16384];
    size_t length;
    size_t stop_after; /* 0: never */
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
    assert_true(length >= 0 && (size_t)length < room);
    c->length += (size_t)length;
}

static void
add_if(collected *c, const char *name, const char *value)
{
    if (value && *value)
        add(c, " %s=%s", name, value);
}

static bool
on_record(void *context, const ptier_import_record *imported)
{
    collected *c = context;
    const ptier_record *r = &imported->record;
    add(c, "%llu %s", (unsigned long long)imported->line, r->url);
    add_if(c, "key", r->key);
    add_if(c, "user", r->username);
    add_if(c, "pass", r->password);
    add_if(c, "user_token", r->username_token);
    add_if(c, "pass_token", r->password_token);
    add_if(c, "source", r->source);
    if (r->fetch_time_ms)
        add(c, " fetched=%lld", (long long)r->fetch_time_ms);
    if (r->ttl_ms != PTIER_TTL_DEFAULT)
        add(c, " ttl=%lld", (long long)r->ttl_ms);
    if (r->health != PTIER_HEALTH_UNSPECIFIED)
        add(c, " health=%s", ptier_health_name(r->health));
    if (r->failure_count != PTIER_FAILURES_UNSTATED)
        add(c, " failures=%u", r->failure_count);
    if (r->latency_ms > 0)
        add(c, " latency=%g", r->latency_ms);
    for (size_t i = 0; i < r->label_count; i++)
        add(c, " %s:%s", r->labels[i].name, r->labels[i].value);
    if (imported->restore)
        add(c, " restore");
    add(c, "\n");
    return c->summary.records != c->stop_after || c->stop_after == 0;
}

static void
on_skip(void *context, uint64_t line, const char *reason)
{
    add(context, "%llu skipped: %s\n", (unsigned long long)line, reason);
}

static void
on_progress(void *context, uint64_t bytes_read, uint64_t bytes_total)
{
    collected *c = context;
    assert_true(bytes_read > c->last_read);
    c->last_read = bytes_read;
    c->last_total = bytes_total;
}

static ptier_import_options
options_for(collected *c)
{
    ptier_import_options options;
    ptier_import_options_init(&options);
    options.on_record = on_record;
    options.on_skip = on_skip;
    options.on_progress = on_progress;
    options.context = c;
    return options;
}

static void
load_with(const char *fixture, const ptier_import_options *options, collected *c)
{
    char path[512];
    (void)snprintf(path, sizeof path, PTIER_FIXTURES "/import/%s", fixture);
    c->status = ptier_import_file(path, options, &c->summary, &c->error);
}

static collected *
load(const char *fixture)
{
    static collected c; /* one at a time */
    memset(&c, 0, sizeof c);
    ptier_import_options options = options_for(&c);
    load_with(fixture, &options, &c);
    return &c;
}

/* From memory, the format told by `name`. The copy has the exact size, so that overreads show under
 * ASan. */
static collected *
load_memory(const char *text, size_t length, const char *name)
{
    static collected c;
    memset(&c, 0, sizeof c);
    ptier_import_options options = options_for(&c);
    char *copy = malloc(length ? length : 1);
    memcpy(copy, text, length);
    c.status = ptier_import_memory(copy, length, name, &options, &c.summary, &c.error);
    free(copy);
    return &c;
}

static void
expect(const collected *c, ptier_import_format format, uint64_t records, uint64_t skipped,
       const char *text)
{
    if (c->status != PTIER_OK)
        fail_msg("status %d: %s", c->status, c->error.message);
    assert_string_equal(c->text, text);
    assert_int_equal(c->summary.format, format);
    assert_int_equal(c->summary.records, records);
    assert_int_equal(c->summary.skipped, skipped);
}

static void
expect_error(const collected *c, ptier_status status, const char *words)
{
    assert_int_equal(c->status, status);
    assert_int_equal(c->error.status, status);
    if (!strstr(c->error.message, words))
        fail_msg("\"%s\" does not say \"%s\"", c->error.message, words);
    assert_null(strchr(c->error.message, '\n'));
}

static void
text_headings_set_the_scheme(void **state)
{
    (void)state;
    expect(load("mixed.txt"), PTIER_IMPORT_TEXT, 10, 0,
           "3 http://192.0.2.1:8080\n"
           "4 http://192.0.2.2:3128\n"
           "5 http://192.0.2.3:8000\n"
           "8 socks5://198.51.100.1:1080\n"
           "9 https://198.51.100.2:8443\n"
           "12 socks4://198.51.100.3:1080\n"
           "14 socks5h://gw.example.net:1080 user=user-1 pass=pa:ss\n"
           "16 https://203.0.113.1:443 user=user-2 pass=secret\n"
           "17 https://[2001:db8::1]:443\n"
           "19 https://203.0.113.2:443\n");
}

static void
text_scheme_comes_from_heading_then_file_name_then_option_then_http(void **state)
{
    (void)state;
    static const char list[] = "192.0.2.1:80\n# SOCKS5\n192.0.2.2:80";
    collected c;
    ptier_import_options options = options_for(&c);
    options.scheme = "https";
    memset(&c, 0, sizeof c);
    load_with("socks4-sample.txt", &options, &c);
    expect(&c, PTIER_IMPORT_TEXT, 2, 0, "1 socks4://192.0.2.1:1080\n2 http://192.0.2.2:8080\n");
    memset(&c, 0, sizeof c);
    c.status = ptier_import_memory(list, sizeof list - 1, "/some/http/list.txt", &options,
                                   &c.summary, &c.error);
    expect(&c, PTIER_IMPORT_TEXT, 2, 0, "1 https://192.0.2.1:80\n3 socks5://192.0.2.2:80\n");
    expect(load_memory(list, sizeof list - 1, NULL), PTIER_IMPORT_TEXT, 2, 0,
           "1 http://192.0.2.1:80\n3 socks5://192.0.2.2:80\n");
}

static void
text_skips_broken_lines_without_showing_them(void **state)
{
    (void)state;
    const collected *c = load("broken.txt");
    expect(c, PTIER_IMPORT_TEXT, 2, 3,
           "2 http://192.0.2.1:8080\n"
           "3 skipped: no port: write host:port\n"
           "4 skipped: the port is not a number from 1 to 65535\n"
           "5 skipped: the port is not a number from 1 to 65535\n"
           "6 http://192.0.2.4:8080\n");
}

static void
csv_columns_may_come_in_any_order(void **state)
{
    (void)state;
    expect(load("columns.csv"), PTIER_IMPORT_CSV, 4, 1,
           "2 http://192.0.2.1:8080 user=alice pass=s3,cr\"et fetched=1767323045000 latency=120.5 "
           "country:DE\n"
           "3 socks4://192.0.2.2:1080 country:Korea, Republic of\n"
           "3 socks5://192.0.2.2:1080 country:Korea, Republic of\n"
           "5 http://[2001:db8::1]:8080\n"
           "7 skipped: the port is not a number from 1 to 65535\n");
}

static void
csv_delimiter_is_found_out_and_long_rows_are_skipped(void **state)
{
    (void)state;
    expect(load("semicolon.csv"), PTIER_IMPORT_CSV, 2, 1,
           "3 socks5://192.0.2.1:1080 user=bob pass=pw source=list-a anonymity:elite\n"
           "4 skipped: the line has more cells than the header\n"
           "5 http://192.0.2.3:8080\n");
}

static void
csv_quote_that_is_never_closed_costs_one_line(void **state)
{
    (void)state;
    expect(load("open-quote.csv"), PTIER_IMPORT_CSV, 3, 1,
           "2 http://192.0.2.1:80 note:fine\n"
           "3 skipped: a quote is never closed\n"
           "4 http://192.0.2.3:80 note:after\n"
           "5 http://192.0.2.4:80 note:end\n");
}

static void
csv_without_an_address_column_is_refused(void **state)
{
    (void)state;
    static const char list[] = "192.0.2.1,80,http\n192.0.2.2,80,http\n";
    expect_error(load_memory(list, sizeof list - 1, "a.csv"), PTIER_INVALID_ARGUMENT, "columns");
}

static void
json_objects_are_read_and_bad_ones_skipped(void **state)
{
    (void)state;
    expect(load("objects.json"), PTIER_IMPORT_JSON, 6, 6,
           "6 http://192.0.2.1:80 source=user fetched=1767323045678 health=healthy latency=12.5 "
           "country:Germany country_code:DE success_rate:100.0 https:true\n"
           "10 socks5://192.0.2.2:1080 user=alice pass=wonderland fetched=1767323045000 tier:gold\n"
           "12 http://192.0.2.3:3128 user=bob pass=builder fetched=1767323045123 ttl=60000 "
           "type:elite\n"
           "13 skipped: no port: write host:port\n"
           "14 skipped: the protocol is not one of http, https, socks4, socks4a, socks5, socks5h\n"
           "15 skipped: no address: a url, or ip (host) and port\n"
           "16 socks4://192.0.2.6:1080\n"
           "17 skipped: a number or a boolean is no proxy\n"
           "18 skipped: an array is no proxy\n"
           "20 http://192.0.2.8:80\n"
           "20 socks4://192.0.2.8:80\n"
           "21 skipped: the source is not UTF-8 text\n");
}

static void
json_lists_by_protocol_set_the_scheme(void **state)
{
    (void)state;
    expect(load("by-protocol.json"), PTIER_IMPORT_JSON, 4, 0,
           "2 http://192.0.2.1:80\n"
           "2 http://192.0.2.2:80\n"
           "3 socks5://192.0.2.1:1080\n"
           "3 socks5://192.0.2.3:1080\n");
    expect(load("top-level.json"), PTIER_IMPORT_JSON, 2, 0,
           "1 http://192.0.2.1:80\n1 socks4://192.0.2.2:1080\n");
    expect(load("strings.json"), PTIER_IMPORT_JSON, 2, 0,
           "1 http://192.0.2.1:80\n1 socks5://192.0.2.2:1080\n");
}

static void
json_hands_out_what_comes_before_an_error(void **state)
{
    (void)state;
    const collected *c = load("cut.json");
    expect_error(c, PTIER_INVALID_ARGUMENT, "cut off");
    assert_string_equal(c->text, "1 http://192.0.2.1:80\n2 http://192.0.2.2:80\n");
    assert_int_equal(c->summary.records, 2);
    c = load("no-comma.json");
    expect_error(c, PTIER_INVALID_ARGUMENT, "line 3: not valid JSON");
    assert_int_equal(c->summary.records, 2);
}

static void
json_without_a_list_is_refused_and_an_empty_list_is_fine(void **state)
{
    (void)state;
    expect_error(load_memory("{\"a\": 1}", 8, "a.json"), PTIER_INVALID_ARGUMENT, "without a list");
    expect_error(load_memory("17", 2, "a.json"), PTIER_INVALID_ARGUMENT, "without a list");
    expect(load_memory("[]", 2, "a.json"), PTIER_IMPORT_JSON, 0, 0, "");
    expect(load_memory("{\"proxies\": []}", 15, NULL), PTIER_IMPORT_JSON, 0, 0, "");
}

static void
json_depth_and_value_length_are_capped(void **state)
{
    (void)state;
    size_t size = 4u << 20;
    char *text = malloc(size);
    memset(text, '[', size);
    expect_error(load_memory(text, size, "a.json"), PTIER_INVALID_ARGUMENT, "nested");
    memset(text, 'x', size);
    text[0] = '[';
    text[1] = '"';
    expect_error(load_memory(text, size, "a.json"), PTIER_INVALID_ARGUMENT, "1 MiB");
    text[0] = '"';
    text[2u << 20] = '\n';
    expect_error(load_memory(text, size, "a.jsonl"), PTIER_INVALID_ARGUMENT, "1 MiB");
    free(text);
}

static void
jsonl_broken_lines_cost_only_themselves(void **state)
{
    (void)state;
    expect(load("lines.jsonl"), PTIER_IMPORT_JSONL, 6, 4,
           "1 http://192.0.2.1:80 country:DE\n"
           "2 socks5://192.0.2.2:1080\n"
           "4 skipped: the JSON does not end on its line\n"
           "5 http://192.0.2.4:80\n"
           "6 skipped: no address: a url, or ip (host) and port\n"
           "7 skipped: not valid JSON\n"
           "8 http://192.0.2.5:80\n"
           "8 http://192.0.2.6:80\n"
           "9 skipped: not valid JSON\n"
           "10 http://192.0.2.8:80\n");
}

static void
proxywhirl_exports_are_read(void **state)
{
    (void)state;
    expect(load("proxywhirl.jsonl"), PTIER_IMPORT_JSONL, 3, 1,
           "1 http://192.0.2.1:8080 key=0123456789abcdef user_token=gAAAAABm "
           "pass_token=gAAAAABmZm9v-_== source=list-a fetched=1767323045500 ttl=3600000 "
           "health=degraded failures=2 restore\n"
           "2 http://192.0.2.2:8080 user=carol pass=pw source=list-b fetched=1767323045000 "
           "health=healthy\n"
           "3 http://192.0.2.3:8080\n"
           "4 skipped: the encrypted user name is not a Fernet token\n");
}

static void
exports_of_a_newer_format_are_refused_line_by_line(void **state)
{
    (void)state;
    expect(load("future-export.jsonl"), PTIER_IMPORT_JSONL, 1, 1,
           "1 http://192.0.2.1:80 restore\n"
           "2 skipped: the export is of a newer format than this version reads\n");
}

static void
format_is_found_out_from_name_and_content(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text;
        ptier_import_format format;
    } cases[] = {
        {NULL, "192.0.2.1:80\n", PTIER_IMPORT_TEXT},
        {NULL, "[socks5]\n192.0.2.1:80\n", PTIER_IMPORT_TEXT},
        {NULL, "[2001:db8::1]:80\n", PTIER_IMPORT_TEXT},
        {NULL, "\xef\xbb\xbf [\"192.0.2.1:80\"]", PTIER_IMPORT_JSON},
        {NULL, "{\"http\": [\"192.0.2.1:80\"]}", PTIER_IMPORT_JSON},
        {NULL, "{\"url\":\"192.0.2.1:80\"}\n{\"url\":\"192.0.2.1:80\"}\n", PTIER_IMPORT_JSONL},
        {"x.json", "{\"url\":\"192.0.2.1:80\"}\n{\"url\":\"192.0.2.1:80\"}\n", PTIER_IMPORT_JSONL},
        {"x.txt", "[\"192.0.2.1:80\"]", PTIER_IMPORT_JSON},
        {NULL, "# c\nip,port\n192.0.2.1,80\n", PTIER_IMPORT_CSV},
        {NULL, "\"port\"\t\"ip\"\n80\t192.0.2.1\n", PTIER_IMPORT_CSV},
        {"x.CSV", "url\n192.0.2.1:80\n", PTIER_IMPORT_CSV},
        {"x.ndjson", "\"192.0.2.1:80\"", PTIER_IMPORT_JSONL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const collected *c = load_memory(cases[i].text, strlen(cases[i].text), cases[i].name);
        if (c->status != PTIER_OK || c->summary.format != cases[i].format || c->summary.records < 1)
            fail_msg("case %zu: status %d, format %d: %s", i, c->status, c->summary.format,
                     c->error.message);
    }
}

static void
times_are_read_in_the_forms_people_write(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        long long ms; /* -1: kept as a label */
    } cases[] = {
        {"\"2026-01-02T03:04:05.678901\"", 1767323045678},
        {"\"2026-01-02T03:04:05Z\"", 1767323045000},
        {"\"2026-01-02 03:04:05\"", 1767323045000},
        {"\"2026-01-02 03:04:05 UTC\"", 1767323045000},
        {"\"2026-01-02T05:04:05+02:00\"", 1767323045000},
        {"\"2026-01-01T21:34:05-0530\"", 1767323045000},
        {"\"2026-01-02T03:04\"", 1767323040000},
        {"\"2026-01-02\"", 1767312000000},
        {"\"2024-02-29\"", 1709164800000},
        {"1767323045", 1767323045000},
        {"1767323045.25", 1767323045250},
        {"1767323045123", 1767323045123},
        {"\"1767323045\"", 1767323045000},
        {"\"2025-02-29\"", -1},
        {"\"5 minutes ago\"", -1},
        {"\"2026-13-01\"", -1},
        {"\"2026-01-02T25:00:00\"", -1},
        {"-5", -1},
        {"1e300", -1},
        {"99999999999999999999", -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char line[256], wanted[64];
        (void)snprintf(line, sizeof line, "{\"url\":\"192.0.2.1:80\",\"last_checked\":%s}",
                       cases[i].text);
        (void)snprintf(wanted, sizeof wanted,
                       cases[i].ms < 0 ? " last_checked:" : " fetched=%lld\n", cases[i].ms);
        const collected *c = load_memory(line, strlen(line), "a.jsonl");
        if (c->summary.records != 1 || !strstr(c->text, wanted))
            fail_msg("%s gave %s", cases[i].text, c->text);
    }
}

static const collected *
load_filled(const char *before, int count, const char *after)
{
    char line[1024], filler[700];
    memset(filler, 'x', sizeof filler);
    (void)snprintf(line, sizeof line, "{\"url\":\"192.0.2.1:80\",%s%.*s%s}", before, count, filler,
                   after);
    return load_memory(line, strlen(line), "a.jsonl");
}

static void
limits_of_a_record_are_kept(void **state)
{
    (void)state;
    static const struct {
        const char *before, *after, *words;
        int limit;
    } cases[] = {
        {"\"username\":\"", "\"", "user name is longer", PTIER_CREDENTIAL_MAX},
        {"\"password\":\"", "\"", "password is longer", PTIER_CREDENTIAL_MAX},
        {"\"source\":\"", "\"", "source is longer", PTIER_SOURCE_MAX},
        {"\"key\":\"", "\"", "key is longer", PTIER_KEY_MAX},
        {"\"proxytier_export\":1,\"labels\":{\"a\":\"", "\"}", "label", PTIER_LABEL_VALUE_MAX},
        {"\"proxytier_export\":1,\"labels\":{\"", "\":\"a\"}", "label", PTIER_LABEL_NAME_MAX},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const collected *c = load_filled(cases[i].before, cases[i].limit, cases[i].after);
        assert_int_equal(c->status, PTIER_OK);
        c = load_filled(cases[i].before, cases[i].limit + 1, cases[i].after);
        expect_error(c, PTIER_INVALID_ARGUMENT, cases[i].words);
    }
}

static void
what_does_not_fit_a_label_is_left_out(void **state)
{
    static const char list[] = "{\"ip\":\"192.0.2.1\",\"port\":80,\"a\":\"x\\ty\\r\\nz\",\"b\":"
                               "\"x\\u0007\",\"c\\u001b\":\"x\","
                               "\"labels\":{\"d\":\"x\\ny\",\"e\":\"x\\u0007\",\"\":\"x\"}}";
    (void)state;
    expect(load_memory(list, sizeof list - 1, "a.jsonl"), PTIER_IMPORT_JSONL, 1, 0,
           "1 http://192.0.2.1:80 a:x y  z d:x y\n");
    expect(load_filled("\"labels\":{\"a\":\"", PTIER_LABEL_VALUE_MAX + 1, "\"}"),
           PTIER_IMPORT_JSONL, 1, 0, "1 http://192.0.2.1:80\n");
    expect(load_filled("\"story\":\"", PTIER_LABEL_VALUE_MAX + 1, "\""), PTIER_IMPORT_JSONL, 1, 0,
           "1 http://192.0.2.1:80\n");
}

static void
files_that_are_no_lists_get_one_clear_line(void **state)
{
    (void)state;
    expect_error(load("no-such-file.txt"), PTIER_NOT_FOUND, "No such file");
    expect_error(load(""), PTIER_INVALID_ARGUMENT, "directory");
    expect_error(load("empty.txt"), PTIER_INVALID_ARGUMENT, "empty");
    expect_error(load_memory("\x1f\x8b\x08xyz", 6, "a.txt"), PTIER_INVALID_ARGUMENT, "gzip");
    expect_error(load_memory("ab\0cd\n", 6, "a.txt"), PTIER_INVALID_ARGUMENT, "binary");
    expect_error(load_memory("\xff\xfe"
                             "1\0",
                             4, "a.txt"),
                 PTIER_INVALID_ARGUMENT, "UTF-16");
    expect_error(load_memory("what\nis this?\n", 14, "a.txt"), PTIER_INVALID_ARGUMENT,
                 "not one usable record among 2");
    expect(load("no-entries.txt"), PTIER_IMPORT_TEXT, 0, 0, "");
}

static void
unreadable_files_are_refused(void **state)
{
    (void)state;
    char path[] = "/tmp/ptier-import-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(fchmod(fd, 0), 0);
    assert_int_equal(close(fd), 0);
    uid_t self = geteuid();
    assert_int_equal(self == 0 ? seteuid(65534) : 0, 0); /* root reads everything */
    collected c;
    memset(&c, 0, sizeof c);
    ptier_import_options options = options_for(&c);
    c.status = ptier_import_file(path, &options, &c.summary, &c.error);
    assert_int_equal(self == 0 ? seteuid(self) : 0, 0);
    assert_int_equal(unlink(path), 0);
    expect_error(&c, PTIER_PERMISSION_DENIED, "Permission denied");
}

static void
the_receiver_can_stop(void **state)
{
    (void)state;
    static const char *const fixtures[] = {"mixed.txt", "columns.csv", "objects.json",
                                           "lines.jsonl"};
    for (size_t i = 0; i < sizeof fixtures / sizeof *fixtures; i++) {
        collected c;
        memset(&c, 0, sizeof c);
        c.stop_after = 2;
        ptier_import_options options = options_for(&c);
        load_with(fixtures[i], &options, &c);
        expect_error(&c, PTIER_CANCELLED, "stopped");
        assert_int_equal(c.summary.records, 2);
    }
}

typedef struct port_check {
    uint64_t next_port, first_line;
} port_check;

static bool
on_numbered(void *context, const ptier_import_record *imported)
{
    port_check *check = context;
    char wanted[64];
    (void)snprintf(wanted, sizeof wanted, "http://192.0.2.1:%llu",
                   (unsigned long long)check->next_port);
    assert_string_equal(imported->record.url, wanted);
    assert_int_equal(imported->line, check->first_line + check->next_port - 1);
    check->next_port++;
    return true;
}

/* Records of odd length drift over the borders of the 64 KiB chunks. */
static void
chunk_borders_change_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *name, *start, *before, *after, *end;
        uint64_t first_line;
    } cases[] = {
        {"a.txt", "", "192.0.2.1:", "\n", "", 1},
        {"a.csv", "ip,port,note\n", "\"192.0.2.1\",", ",\"a \"\"b\"\"\"\n", "", 2},
        {"a.json", "[null\n", ",{\"ip\":\"192.0.2.1\",\"port\":", ",\"note\":\"\\u00e4\\n\"}\n",
         "]", 2},
        {"a.jsonl", "", "{\"ip\":\"192.0.2.1\",\"port\":", ",\"note\":\"\\u00e4\\n\"}\n", "", 1},
    };
    size_t room = 2u << 20, count = 20000;
    char *text = malloc(room);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        size_t length = (size_t)snprintf(text, room, "%s", cases[c].start);
        for (size_t i = 1; i <= count; i++)
            length += (size_t)snprintf(text + length, room - length, "%s%zu%s", cases[c].before, i,
                                       cases[c].after);
        length += (size_t)snprintf(text + length, room - length, "%s", cases[c].end);
        assert_true(length < room);
        port_check check = {1, cases[c].first_line};
        ptier_import_options options;
        ptier_import_summary summary;
        ptier_import_options_init(&options);
        options.on_record = on_numbered;
        options.context = &check;
        assert_int_equal(ptier_import_memory(text, length, cases[c].name, &options, &summary, NULL),
                         PTIER_OK);
        assert_int_equal(summary.records, count);
    }
    free(text);
}

static void
progress_ends_at_the_size_of_the_file(void **state)
{
    (void)state;
    const collected *c = load("mixed.txt");
    assert_int_equal(c->status, PTIER_OK);
    assert_true(c->last_total > 0);
    assert_int_equal(c->last_read, c->last_total);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_headings_set_the_scheme),
        cmocka_unit_test(text_scheme_comes_from_heading_then_file_name_then_option_then_http),
        cmocka_unit_test(text_skips_broken_lines_without_showing_them),
        cmocka_unit_test(csv_columns_may_come_in_any_order),
        cmocka_unit_test(csv_delimiter_is_found_out_and_long_rows_are_skipped),
        cmocka_unit_test(csv_quote_that_is_never_closed_costs_one_line),
        cmocka_unit_test(csv_without_an_address_column_is_refused),
        cmocka_unit_test(json_objects_are_read_and_bad_ones_skipped),
        cmocka_unit_test(json_lists_by_protocol_set_the_scheme),
        cmocka_unit_test(json_hands_out_what_comes_before_an_error),
        cmocka_unit_test(json_without_a_list_is_refused_and_an_empty_list_is_fine),
        cmocka_unit_test(json_depth_and_value_length_are_capped),
        cmocka_unit_test(jsonl_broken_lines_cost_only_themselves),
        cmocka_unit_test(proxywhirl_exports_are_read),
        cmocka_unit_test(exports_of_a_newer_format_are_refused_line_by_line),
        cmocka_unit_test(format_is_found_out_from_name_and_content),
        cmocka_unit_test(times_are_read_in_the_forms_people_write),
        cmocka_unit_test(limits_of_a_record_are_kept),
        cmocka_unit_test(what_does_not_fit_a_label_is_left_out),
        cmocka_unit_test(files_that_are_no_lists_get_one_clear_line),
        cmocka_unit_test(unreadable_files_are_refused),
        cmocka_unit_test(the_receiver_can_stop),
        cmocka_unit_test(chunk_borders_change_nothing),
        cmocka_unit_test(progress_ends_at_the_size_of_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
