/* Export lines: valid JSON that the importer turns back into the same record. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <proxytier/import.h>

#include "export_line.h"

#define ROOM 65536

typedef struct expected {
    const ptier_record *record;
    const char *username_token, *password_token;
    size_t seen;
} expected;

static void
assert_same_text(const char *got, const char *wanted)
{
    assert_string_equal(got ? got : "(none)", wanted ? wanted : "(none)");
}

static bool
compare(void *context, const ptier_import_record *imported)
{
    expected *e = context;
    const ptier_record *got = &imported->record, *wanted = e->record;
    e->seen++;
    assert_true(imported->restore);
    assert_same_text(got->key, wanted->key);
    assert_same_text(got->url, wanted->url);
    assert_same_text(got->username, e->username_token ? NULL : wanted->username);
    assert_same_text(got->password, e->password_token ? NULL : wanted->password);
    assert_same_text(got->username_token, e->username_token);
    assert_same_text(got->password_token, e->password_token);
    assert_same_text(got->source, wanted->source);
    assert_int_equal(got->fetch_time_ms, wanted->fetch_time_ms);
    assert_int_equal(got->ttl_ms, wanted->ttl_ms);
    assert_int_equal(got->expires_at_ms, wanted->expires_at_ms);
    assert_int_equal(got->health, wanted->health);
    assert_int_equal(got->failure_count, wanted->failure_count);
    assert_int_equal(got->needs_revalidation, wanted->needs_revalidation);
    assert_int_equal(got->last_access_ms, wanted->last_access_ms);
    assert_int_equal(got->access_count, wanted->access_count);
    assert_true(got->latency_ms == wanted->latency_ms);
    assert_int_equal(got->success_count, wanted->success_count);
    assert_int_equal(got->report_count, wanted->report_count);
    assert_int_equal(got->revision, wanted->revision);
    assert_int_equal(got->label_count, wanted->label_count);
    for (size_t i = 0; i < got->label_count; i++) {
        assert_string_equal(got->labels[i].name, wanted->labels[i].name);
        assert_string_equal(got->labels[i].value, wanted->labels[i].value);
    }
    return true;
}

static void
round_trip(const ptier_record *record, const char *username_token, const char *password_token)
{
    char *line = malloc(ROOM);
    size_t length = ptier_export_line(record, username_token, password_token, line, ROOM);
    assert_true(length > 0 && length <= ROOM);
    assert_ptr_equal(memchr(line, '\n', length), line + length - 1);
    expected e = {record, username_token, password_token, 0};
    ptier_import_options options;
    ptier_import_summary summary;
    ptier_error error = {0};
    ptier_import_options_init(&options);
    options.on_record = compare;
    options.context = &e;
    options.source = "not for restored entries";
    if (ptier_import_memory(line, length, "a.jsonl", &options, &summary, &error) != PTIER_OK)
        fail_msg("%s", error.message);
    assert_int_equal(e.seen, 1);
    free(line);
}

static ptier_record
sample(void)
{
    static const ptier_label labels[] = {{"anonymity", "elite"}, {"country", "DE"}};
    ptier_record record;
    ptier_record_init(&record);
    record.key = "0123456789abcdef";
    record.url = "http://192.0.2.1:8080";
    record.username = "alice";
    record.password = "wonderland";
    record.source = "list-a";
    record.fetch_time_ms = 1767323045678;
    record.ttl_ms = 3600000;
    record.health = PTIER_HEALTH_DEGRADED;
    record.failure_count = 2;
    record.labels = labels;
    record.label_count = 2;
    record.needs_revalidation = true;
    record.revision = UINT64_MAX;
    record.expires_at_ms = 1767326645678;
    record.last_access_ms = 1767323050001;
    record.access_count = 12;
    record.latency_ms = 123.456;
    record.success_count = 7;
    record.report_count = 9;
    return record;
}

static void
export_line_has_the_documented_form(void **state)
{
    (void)state;
    static const char wanted[] =
        "{\"proxytier_export\":1,\"key\":\"0123456789abcdef\",\"proxy_url\":\"http://"
        "192.0.2.1:8080\","
        "\"username\":\"alice\",\"password\":\"wonderland\",\"source\":\"list-a\","
        "\"fetch_time\":\"2026-01-02T03:04:05.678Z\",\"ttl_ms\":3600000,"
        "\"expires_at\":\"2026-01-02T04:04:05.678Z\",\"health_status\":\"degraded\","
        "\"failure_count\":2,\"needs_revalidation\":true,"
        "\"labels\":{\"anonymity\":\"elite\",\"country\":\"DE\"},"
        "\"last_accessed\":\"2026-01-02T03:04:10.001Z\",\"access_count\":12,"
        "\"latency_ms\":123.456,\"success_count\":7,\"report_count\":9,"
        "\"revision\":18446744073709551615}\n";
    ptier_record record = sample();
    char line[1024];
    size_t length = ptier_export_line(&record, NULL, NULL, line, sizeof line);
    assert_true(length < sizeof line);
    line[length] = '\0';
    assert_string_equal(line, wanted);
}

static void
export_import_gives_the_same_record(void **state)
{
    (void)state;
    ptier_record record = sample();
    round_trip(&record, NULL, NULL);
    record.username = NULL;
    round_trip(&record, NULL, NULL);
    record.password = NULL;
    record.label_count = 0;
    record.expires_at_ms = 0;
    record.ttl_ms = 0;
    record.last_access_ms = 0;
    record.latency_ms = 0;
    record.needs_revalidation = false;
    record.source = "";
    record.url = "socks5h://[2001:db8::1]:1080";
    round_trip(&record, NULL, NULL);
    record.fetch_time_ms = 253402300799999;
    record.latency_ms = 0.1 + 0.2;
    record.ttl_ms = PTIER_TTL_MAX_MS;
    for (int health = PTIER_HEALTH_HEALTHY; health <= PTIER_HEALTH_UNKNOWN; health++) {
        record.health = (ptier_health)health;
        round_trip(&record, NULL, NULL);
    }
}

static void
awkward_text_survives_the_round_trip(void **state)
{
    (void)state;
    static const ptier_label labels[] = {
        {"a \"quoted\" \\ name", "\\u0041/'%s%n"}, /* control characters are never cached in them */
        {" spaced ", " \xf0\x9f\x98\x80 z\xc3\xbcrich "},
        {"empty", ""},
        {"url", "http://203.0.113.1:80"},
    };
    ptier_record record = sample();
    record.key = " key / with \"all\" sorts ";
    record.username = " user\t\"x\" ";
    record.password = "\\u0041\b\f\r\n/'%s%n";
    record.source = " a source ";
    record.labels = labels;
    record.label_count = 4;
    round_trip(&record, NULL, NULL);
}

static void
tokens_stand_in_for_plain_credentials(void **state)
{
    (void)state;
    ptier_record record = sample();
    char line[1024];
    size_t length = ptier_export_line(&record, "gAAAAABuser==", "gAAAAABpass==", line, sizeof line);
    assert_true(length < sizeof line);
    line[length] = '\0';
    assert_null(strstr(line, "alice"));
    assert_null(strstr(line, "wonderland"));
    round_trip(&record, "gAAAAABuser==", "gAAAAABpass==");
    round_trip(&record, "gAAAAABuser==", NULL);
}

static void
nothing_is_written_when_the_line_does_not_fit(void **state)
{
    (void)state;
    ptier_record record = sample();
    char line[1024], untouched[1024];
    memset(untouched, '#', sizeof untouched);
    size_t needed = ptier_export_line(&record, NULL, NULL, NULL, 0);
    for (size_t room = 0; room < needed; room++) {
        memset(line, '#', sizeof line);
        assert_int_equal(ptier_export_line(&record, NULL, NULL, line, room), needed);
        assert_memory_equal(line, untouched, sizeof line);
    }
    assert_int_equal(ptier_export_line(&record, NULL, NULL, line, needed), needed);
    assert_memory_equal(line + needed, untouched, sizeof line - needed);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(export_line_has_the_documented_form),
        cmocka_unit_test(export_import_gives_the_same_record),
        cmocka_unit_test(awkward_text_survives_the_round_trip),
        cmocka_unit_test(tokens_stand_in_for_plain_credentials),
        cmocka_unit_test(nothing_is_written_when_the_line_does_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
