/* Statistics on their way through the wire, and the rows that name them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "convert_statistics.h"

/* Every field gets a value of its own. */
#define FILL(type, name, kind, unit, group, help)                                                  \
    out->name = PTIER_UNIT_##unit == PTIER_UNIT_FLAG ? (type)(++*n % 2) : (type)++ * n;

static void
fill_tier(ptier_tier_statistics *out, int *n)
{
    PTIER_TIER_METRICS(FILL)
}

static void
fill(ptier_statistics *out)
{
    int number = 1, *n = &number;
    memset(out, 0, sizeof *out);
    PTIER_CACHE_METRICS(FILL)
    for (int reason = 1; reason < PTIER_REASON_COUNT; reason++)
        out->removals[reason] = (uint64_t)++ * n;
    for (int tier = 1; tier < PTIER_TIER_COUNT; tier++)
        fill_tier(&out->tiers[tier], n);
    for (int operation = 1; operation < PTIER_OPERATION_COUNT; operation++) {
        ptier_latency *latency = &out->latency[operation];
        for (size_t i = 0; i < sizeof *latency / sizeof(uint64_t); i++)
            ((uint64_t *)latency)[i] = (uint64_t)++ * n;
    }
}

static void
assert_rows_equal(const ptier_metric *rows, const void *got, const void *expected)
{
    for (; rows->name; rows++)
        if (rows->value(got) != rows->value(expected))
            fail_msg("%s: %f instead of %f", rows->name, rows->value(got), rows->value(expected));
}

static void
statistics_come_through_the_wire_unchanged(void **state)
{
    (void)state;
    static ptier_statistics sent, got;
    static ptier_statistics_message room;
    fill(&sent);
    ptier_statistics_to_message(&sent, &room);
    size_t length = protobuf_c_message_get_packed_size(&room.message.base);
    uint8_t *packed = malloc(length);
    assert_non_null(packed);
    protobuf_c_message_pack(&room.message.base, packed);
    Proxytier__V1__GetStatisticsResponse *message =
        proxytier__v1__get_statistics_response__unpack(NULL, length, packed);
    free(packed);
    assert_non_null(message);
    ptier_statistics_from_message(message, &got);
    proxytier__v1__get_statistics_response__free_unpacked(message, NULL);
    assert_rows_equal(ptier_cache_metrics, &got, &sent);
    for (int tier = 1; tier < PTIER_TIER_COUNT; tier++)
        assert_rows_equal(ptier_tier_metrics, &got.tiers[tier], &sent.tiers[tier]);
    assert_memory_equal(got.removals, sent.removals, sizeof sent.removals);
    assert_memory_equal(got.latency, sent.latency, sizeof sent.latency);
}

static void
what_a_newer_daemon_adds_is_left_out(void **state)
{
    (void)state;
    static ptier_statistics sent, got;
    static ptier_statistics_message room;
    fill(&sent);
    ptier_statistics_to_message(&sent, &room);
    room.tiers[0].tier = (Proxytier__V1__Tier)PTIER_TIER_COUNT;
    room.removals[0].reason = (Proxytier__V1__RemovalReason)PTIER_REASON_COUNT;
    room.latencies[0].operation = (Proxytier__V1__Operation)-1;
    ptier_statistics_from_message(&room.message, &got);
    assert_int_equal(got.tiers[1].hits, 0);
    assert_int_equal(got.removals[1], 0);
    assert_int_equal(got.latency[1].count, 0);
    assert_int_equal(got.latency[2].count, sent.latency[2].count);
}

/* The other way round the compiler looks: a row without a field does not compile. */
static void
assert_has_rows(const ProtobufCMessageDescriptor *type, const ptier_metric *rows,
                const char *const *others)
{
    for (unsigned i = 0; i < type->n_fields; i++) {
        const char *name = type->fields[i].name;
        bool found = false;
        for (const ptier_metric *row = rows; row->name; row++)
            found |= strcmp(row->name, name) == 0;
        for (const char *const *other = others; *other; other++)
            found |= strcmp(*other, name) == 0;
        if (!found)
            fail_msg("%s of the .proto has no row in statistics.h", name);
    }
}

static void
every_field_of_the_messages_has_a_row(void **state)
{
    (void)state;
    assert_has_rows(&proxytier__v1__get_statistics_response__descriptor, ptier_cache_metrics,
                    (const char *const[]){"tiers", "removals", "latencies", NULL});
    assert_has_rows(&proxytier__v1__tier_statistics__descriptor, ptier_tier_metrics,
                    (const char *const[]){"tier", NULL});
}

static void
operations_have_the_names_of_the_proto(void **state)
{
    (void)state;
    const ProtobufCEnumDescriptor *type = &proxytier__v1__operation__descriptor;
    assert_int_equal(type->n_values, PTIER_OPERATION_COUNT); /* with UNSPECIFIED */
    for (int i = 1; i < PTIER_OPERATION_COUNT; i++) {
        char name[64] = "";
        const char *wire = type->values[i].name + strlen("OPERATION_");
        assert_int_equal(type->values[i].value, i);
        for (size_t c = 0; wire[c]; c++)
            name[c] = (char)(wire[c] >= 'A' && wire[c] <= 'Z' ? wire[c] - 'A' + 'a' : wire[c]);
        assert_string_equal(ptier_operation_name((ptier_operation)i), name);
        assert_true(strlen(ptier_operation_help((ptier_operation)i)) > 0);
    }
    assert_string_equal(ptier_operation_name((ptier_operation)PTIER_OPERATION_COUNT), "unknown");
    assert_string_equal(ptier_operation_help((ptier_operation)0), "");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statistics_come_through_the_wire_unchanged),
        cmocka_unit_test(what_a_newer_daemon_adds_is_left_out),
        cmocka_unit_test(every_field_of_the_messages_has_a_row),
        cmocka_unit_test(operations_have_the_names_of_the_proto),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
