/* proto/convert.c: records to wire messages and back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "convert.h"

static const ptier_label some_labels[] = {{"anonymity", "elite"}, {"country", "DE"}};

static ptier_record
full_record(void)
{
    ptier_record record;
    ptier_record_init(&record);
    record.key = "0123456789abcdef";
    record.url = "http://10.0.0.1:8080";
    record.username = "user";
    record.password = "secret";
    record.source = "list-a";
    record.fetch_time_ms = 1700000000123;
    record.ttl_ms = 3600000;
    record.health = PTIER_HEALTH_DEGRADED;
    record.failure_count = 2;
    record.needs_revalidation = true;
    record.labels = some_labels;
    record.label_count = 2;
    record.revision = 42;
    record.expires_at_ms = 1700003600123;
    record.remaining_ttl_ms = 1234;
    record.last_access_ms = 1700000001000;
    record.access_count = 7;
    record.latency_ms = 12.5;
    record.success_count = 5;
    record.report_count = 6;
    return record;
}

/* Through real bytes, as on the wire. */
static Proxytier__V1__Proxy *
pack_and_unpack(const ptier_record *record, bool credentials)
{
    ptier_proxy_message message;
    ptier_proxy_from_record(&message, record, credentials);
    size_t size = proxytier__v1__proxy__get_packed_size(&message.proxy);
    uint8_t *bytes = malloc(size);
    assert_non_null(bytes);
    assert_int_equal(proxytier__v1__proxy__pack(&message.proxy, bytes), size);
    Proxytier__V1__Proxy *proxy = proxytier__v1__proxy__unpack(NULL, size, bytes);
    free(bytes);
    assert_non_null(proxy);
    return proxy;
}

static void
record_survives_the_wire_in_every_field(void **state)
{
    (void)state;
    ptier_record in = full_record();
    Proxytier__V1__Proxy *proxy = pack_and_unpack(&in, true);
    ptier_record out;
    ptier_label labels[PTIER_LABELS_MAX];
    assert_int_equal(ptier_record_from_proxy(&out, labels, proxy, NULL), PTIER_OK);
    assert_string_equal(out.key, in.key);
    assert_string_equal(out.url, in.url);
    assert_string_equal(out.username, in.username);
    assert_string_equal(out.password, in.password);
    assert_string_equal(out.source, in.source);
    assert_int_equal(out.fetch_time_ms, in.fetch_time_ms);
    assert_int_equal(out.ttl_ms, in.ttl_ms);
    assert_int_equal(out.health, in.health);
    assert_int_equal(out.failure_count, in.failure_count);
    assert_true(out.needs_revalidation);
    assert_int_equal(out.label_count, 2);
    assert_string_equal(out.labels[0].name, "anonymity");
    assert_string_equal(out.labels[1].value, "DE");
    assert_int_equal(out.revision, in.revision);
    assert_int_equal(out.expires_at_ms, in.expires_at_ms);
    assert_int_equal(out.remaining_ttl_ms, in.remaining_ttl_ms);
    assert_int_equal(out.last_access_ms, in.last_access_ms);
    assert_int_equal(out.access_count, in.access_count);
    assert_true(out.latency_ms == in.latency_ms);
    assert_int_equal(out.success_count, in.success_count);
    assert_int_equal(out.report_count, in.report_count);
    proxytier__v1__proxy__free_unpacked(proxy, NULL);
}

static void
unstated_fields_stay_unstated(void **state)
{
    (void)state;
    ptier_record in;
    ptier_record_init(&in);
    in.url = "http://10.0.0.1:8080";
    Proxytier__V1__Proxy *proxy = pack_and_unpack(&in, true);
    ptier_record out;
    ptier_label labels[PTIER_LABELS_MAX];
    assert_int_equal(ptier_record_from_proxy(&out, labels, proxy, NULL), PTIER_OK);
    assert_null(out.key);
    assert_null(out.username);
    assert_null(out.password);
    assert_null(out.username_token);
    assert_int_equal(out.ttl_ms, PTIER_TTL_DEFAULT);
    assert_int_equal(out.failure_count, PTIER_FAILURES_UNSTATED);
    assert_int_equal(out.health, PTIER_HEALTH_UNSPECIFIED);
    proxytier__v1__proxy__free_unpacked(proxy, NULL);
}

static void
ttl_zero_is_never_and_not_unstated(void **state)
{
    (void)state;
    ptier_record in = full_record();
    in.ttl_ms = 0;
    in.failure_count = 0;
    Proxytier__V1__Proxy *proxy = pack_and_unpack(&in, true);
    ptier_record out;
    ptier_label labels[PTIER_LABELS_MAX];
    assert_int_equal(ptier_record_from_proxy(&out, labels, proxy, NULL), PTIER_OK);
    assert_int_equal(out.ttl_ms, 0);
    assert_int_equal(out.failure_count, 0);
    proxytier__v1__proxy__free_unpacked(proxy, NULL);
}

static void
credentials_are_left_out_on_request(void **state)
{
    (void)state;
    ptier_record in = full_record();
    in.username_token = "token-u";
    in.password_token = "token-p";
    Proxytier__V1__Proxy *proxy = pack_and_unpack(&in, false);
    assert_string_equal(proxy->username, "");
    assert_string_equal(proxy->password, "");
    assert_string_equal(proxy->username_encrypted, "");
    assert_string_equal(proxy->password_encrypted, "");
    proxytier__v1__proxy__free_unpacked(proxy, NULL);
}

static void
expect_refused(const Proxytier__V1__Proxy *proxy, const char *part)
{
    ptier_record out;
    ptier_label labels[PTIER_LABELS_MAX];
    ptier_error error;
    assert_int_equal(ptier_record_from_proxy(&out, labels, proxy, &error), PTIER_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, part));
}

static char *
filled(char *buffer, size_t length)
{
    memset(buffer, 'a', length);
    buffer[length] = '\0';
    return buffer;
}

static void
over_long_strings_are_refused_by_name(void **state)
{
    (void)state;
    char long_text[8192];
    Proxytier__V1__Proxy proxy = PROXYTIER__V1__PROXY__INIT;
    proxy.key = filled(long_text, PTIER_KEY_MAX + 1);
    expect_refused(&proxy, "key");
    proxytier__v1__proxy__init(&proxy);
    proxy.url = filled(long_text, PTIER_URL_MAX + 1);
    expect_refused(&proxy, "url");
    proxytier__v1__proxy__init(&proxy);
    proxy.password = filled(long_text, PTIER_CREDENTIAL_MAX + 1);
    expect_refused(&proxy, "password");
    proxytier__v1__proxy__init(&proxy);
    proxy.source = filled(long_text, PTIER_SOURCE_MAX + 1);
    expect_refused(&proxy, "source");
    proxytier__v1__proxy__init(&proxy);
    proxy.source = filled(long_text, PTIER_SOURCE_MAX);
    ptier_record out;
    ptier_label labels[PTIER_LABELS_MAX];
    assert_int_equal(ptier_record_from_proxy(&out, labels, &proxy, NULL), PTIER_OK);
}

static void
bad_labels_are_refused(void **state)
{
    (void)state;
    char long_text[PTIER_LABEL_VALUE_MAX + 2];
    char empty[] = "", name[] = "name";
    Proxytier__V1__Label label = PROXYTIER__V1__LABEL__INIT;
    Proxytier__V1__Label *list[PTIER_LABELS_MAX + 1];
    for (size_t i = 0; i <= PTIER_LABELS_MAX; i++)
        list[i] = &label;
    Proxytier__V1__Proxy proxy = PROXYTIER__V1__PROXY__INIT;
    proxy.labels = list;
    label.name = name;
    proxy.n_labels = PTIER_LABELS_MAX + 1;
    expect_refused(&proxy, "33 labels");
    proxy.n_labels = 1;
    label.name = empty;
    expect_refused(&proxy, "no name");
    label.name = filled(long_text, PTIER_LABEL_NAME_MAX + 1);
    expect_refused(&proxy, "name of a label");
    label.name = name;
    label.value = filled(long_text, PTIER_LABEL_VALUE_MAX + 1);
    expect_refused(&proxy, "value of a label");
}

static void
values_out_of_range_are_refused(void **state)
{
    (void)state;
    Proxytier__V1__Proxy proxy = PROXYTIER__V1__PROXY__INIT;
    proxy.health = (Proxytier__V1__HealthStatus)6;
    expect_refused(&proxy, "health");
    proxytier__v1__proxy__init(&proxy);
    proxy.latency_ms = NAN;
    expect_refused(&proxy, "latency_ms");
    proxytier__v1__proxy__init(&proxy);
    proxy.ttl_case = PROXYTIER__V1__PROXY__TTL_TTL_MS;
    proxy.ttl_ms = -1;
    expect_refused(&proxy, "ttl_ms");
    proxy.ttl_ms = PTIER_TTL_MAX_MS + 1;
    expect_refused(&proxy, "ttl_ms");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(record_survives_the_wire_in_every_field),
        cmocka_unit_test(unstated_fields_stay_unstated),
        cmocka_unit_test(ttl_zero_is_never_and_not_unstated),
        cmocka_unit_test(credentials_are_left_out_on_request),
        cmocka_unit_test(over_long_strings_are_refused_by_name),
        cmocka_unit_test(bad_labels_are_refused),
        cmocka_unit_test(values_out_of_range_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
