/* Protobuf messages as JSON lines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "json.h"
#include "proxytier/v1/cache.pb-c.h"
#include "proxytier/v1/events.pb-c.h"
#include "proxytier/v1/info.pb-c.h"

static void
assert_line(const void *message, bool sparse, const char *expected)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    assert_non_null(out);
    assert_true(ptier_json_line(out, message, sparse));
    assert_int_equal(fclose(out), 0);
    assert_string_equal(text, expected);
    free(text);
}

static void
events_show_only_what_applies(void **state)
{
    Proxytier__V1__Event event = PROXYTIER__V1__EVENT__INIT;
    Proxytier__V1__Proxy proxy = PROXYTIER__V1__PROXY__INIT;

    (void)state;
    event.sequence = 7;
    event.type = PROXYTIER__V1__EVENT_TYPE__EVENT_TYPE_REMOVED;
    event.key = (char *)"k\"1";
    event.revision = UINT64_MAX;
    event.reason = PROXYTIER__V1__REMOVAL_REASON__REMOVAL_REASON_TTL;
    proxy.url = (char *)"http://10.0.0.1:8080";
    event.proxy = &proxy;
    assert_line(&event, true,
                "{\"sequence\":7,\"type\":\"EVENT_TYPE_REMOVED\",\"key\":\"k\\\"1\","
                "\"revision\":18446744073709551615,\"reason\":\"REMOVAL_REASON_TTL\","
                "\"proxy\":{\"url\":\"http://10.0.0.1:8080\"}}\n");
}

static void
oneofs_are_printed_when_set_also_at_zero(void **state)
{
    Proxytier__V1__Proxy proxy = PROXYTIER__V1__PROXY__INIT;

    (void)state;
    proxy.ttl_case = PROXYTIER__V1__PROXY__TTL_TTL_MS;
    proxy.ttl_ms = 0;
    assert_line(&proxy, true, "{\"ttl_ms\":0}\n");
    proxy.ttl_case = PROXYTIER__V1__PROXY__TTL__NOT_SET;
    assert_line(&proxy, true, "{}\n");
}

static void
zero_numbers_and_empty_lists_are_printed_unless_sparse(void **state)
{
    Proxytier__V1__DeleteResponse deleted = PROXYTIER__V1__DELETE_RESPONSE__INIT;
    Proxytier__V1__GetManyResponse many = PROXYTIER__V1__GET_MANY_RESPONSE__INIT;

    (void)state;
    assert_line(&deleted, false, "{\"deleted\":0,\"not_found\":0,\"revision\":0}\n");
    assert_line(&many, false, "{\"proxies\":[],\"as_of\":0,\"unreadable\":0,\"tiers\":[]}\n");
    assert_line(&many, true, "{}\n");
}

static void
lists_bools_doubles_and_bytes_are_json(void **state)
{
    Proxytier__V1__TierStatistics tier = PROXYTIER__V1__TIER_STATISTICS__INIT;
    Proxytier__V1__Heartbeat beat = PROXYTIER__V1__HEARTBEAT__INIT;
    Proxytier__V1__PutResponse put = PROXYTIER__V1__PUT_RESPONSE__INIT;
    Proxytier__V1__Tier tiers[] = {PROXYTIER__V1__TIER__TIER_L1, (Proxytier__V1__Tier)9};
    uint8_t id[] = {0x00, 0xab, 0xff};

    (void)state;
    tier.enabled = 1;
    tier.hit_rate = 0.1;
    assert_line(&tier, true, "{\"enabled\":true,\"hit_rate\":0.1}\n");
    beat.boot_id = (ProtobufCBinaryData){sizeof id, id};
    beat.boottime_ms = INT64_MIN;
    assert_line(&beat, true, "{\"boot_id\":\"00abff\",\"boottime_ms\":-9223372036854775808}\n");
    put.n_tiers = 2;
    put.tiers = tiers;
    assert_line(&put, true, "{\"tiers\":[\"TIER_L1\",9]}\n");
}

static void
pairs_are_escaped(void **state)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);

    (void)state;
    assert_non_null(out);
    assert_true(ptier_json_pair(out, "file", "a\"b"));
    assert_int_equal(fclose(out), 0);
    assert_string_equal(text, "{\"file\":\"a\\\"b\"}\n");
    free(text);
}

static void
a_stream_that_fails_is_told(void **state)
{
    Proxytier__V1__Proxy proxy = PROXYTIER__V1__PROXY__INIT;
    FILE *full = fopen("/dev/full", "w");

    (void)state;
    assert_non_null(full);
    assert_int_equal(setvbuf(full, NULL, _IONBF, 0), 0);
    assert_false(ptier_json_line(full, &proxy.base, true));
    (void)fclose(full);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_show_only_what_applies),
        cmocka_unit_test(oneofs_are_printed_when_set_also_at_zero),
        cmocka_unit_test(zero_numbers_and_empty_lists_are_printed_unless_sparse),
        cmocka_unit_test(lists_bools_doubles_and_bytes_are_json),
        cmocka_unit_test(pairs_are_escaped),
        cmocka_unit_test(a_stream_that_fails_is_told),
    };
    return cmocka_run_group_tests_name("cli_json", tests, NULL, NULL);
}
