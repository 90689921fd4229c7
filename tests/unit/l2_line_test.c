/* Lines of L2 that are written and read: which members they have. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "hash.h"
#include "l2/l2_line.h"
#include "support/sample_entry.h"

#define ZEROS                                                                                      \
    ",\"failures\":0,\"revalidate\":0,\"latency_us\":0,\"successes\":0,\"reports\":0,"             \
    "\"accesses\":0,\"last_access\":0"
#define CHECK ",\"check\":\""

static ptier_clock clock_now;
static ptier_keyring *keyring;

static int
set_up(void **state)
{
    const char *key = "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=";
    ptier_error error;
    (void)state;
    ptier_clock_system(&clock_now);
    return ptier_keyring_create(&key, 1, &keyring, &error) == PTIER_OK ? 0 : -1;
}

static int
tear_down(void **state)
{
    (void)state;
    ptier_keyring_destroy(keyring);
    return 0;
}

static void
write_line(ptier_buffer *line, ptier_entry *entry)
{
    const ptier_op op = {
        .kind = PTIER_OP_PUT, .revision = entry->revision, .replaces = 3, .entry = entry};
    assert_int_equal(ptier_l2_line_write(line, &op, &clock_now, keyring), PTIER_OK);
    line->data[line->length] = '\0'; /* room for the longest line was reserved */
}

static void
read_line(const char *text, size_t length, ptier_l2_line *line)
{
    const ptier_l2_reader reader = {
        .clock = &clock_now, .keyring = keyring, .hash_key = ptier_hash_key};
    assert_int_equal(ptier_l2_line_parse(text, length, &reader, line), PTIER_OK);
    assert_int_equal(line->op.kind, PTIER_OP_PUT);
    assert_int_equal(line->op.revision, 7);
    assert_int_equal(line->op.replaces, 3);
}

static void
assert_unused(ptier_entry *entry)
{
    assert_int_equal(entry->failure_count, 0);
    assert_false(entry->needs_revalidation);
    assert_int_equal(atomic_load(&entry->latency_us), 0);
    assert_int_equal(atomic_load(&entry->success_count), 0);
    assert_int_equal(atomic_load(&entry->report_count), 0);
    assert_int_equal(atomic_load(&entry->access_count), 0);
    assert_int_equal(atomic_load(&entry->last_access_ms), 0);
}

static void
figures_that_are_0_are_left_out(void **state)
{
    (void)state;
    ptier_buffer text = {0};
    ptier_l2_line line;
    ptier_entry *entry = ptier_test_entry("a \"key\"\\\x7f\n", 1, 7);
    write_line(&text, entry);
    assert_non_null(strstr(text.data, "\"key\":\"a \\\"key\\\"\\\\\\u007f\\u000a\","));
    assert_null(strstr(text.data, "failures"));
    assert_null(strstr(text.data, "access"));
    read_line(text.data, text.length - 1, &line);
    assert_unused(line.op.entry);
    assert_string_equal(ptier_entry_key(line.op.entry), ptier_entry_key(entry));
    assert_string_equal(ptier_entry_url(line.op.entry), ptier_entry_url(entry));
    ptier_l2_line_fini(&line);
    ptier_entry_release(entry);
    ptier_buffer_fini(&text);
}

static void
other_figures_come_back(void **state)
{
    (void)state;
    ptier_buffer text = {0};
    ptier_l2_line line;
    ptier_entry *entry = ptier_test_entry("key-1", 1, 7);
    entry->failure_count = UINT32_MAX;
    entry->needs_revalidation = true;
    atomic_store(&entry->latency_us, 9);
    atomic_store(&entry->success_count, 10);
    atomic_store(&entry->report_count, 99);
    atomic_store(&entry->access_count, 100);
    atomic_store(&entry->last_access_ms, 1234567890123);
    write_line(&text, entry);
    read_line(text.data, text.length - 1, &line);
    assert_true(line.op.entry->failure_count == UINT32_MAX);
    assert_true(line.op.entry->needs_revalidation);
    assert_int_equal(atomic_load(&line.op.entry->latency_us), 9);
    assert_int_equal(atomic_load(&line.op.entry->success_count), 10);
    assert_int_equal(atomic_load(&line.op.entry->report_count), 99);
    assert_int_equal(atomic_load(&line.op.entry->access_count), 100);
    assert_int_equal(atomic_load(&line.op.entry->last_access_ms), 1234567890123);
    ptier_l2_line_fini(&line);
    ptier_entry_release(entry);
    ptier_buffer_fini(&text);
}

/* As lines were written before these could be left out. */
static void
figures_that_are_there_may_be_0(void **state)
{
    (void)state;
    ptier_buffer text = {0};
    ptier_l2_line line;
    char older[1024];
    uint8_t check[PTIER_CHECK_BYTES];
    ptier_entry *entry = ptier_test_entry("key-1", 1, 7);
    write_line(&text, entry);
    const char *labels = strstr(text.data, ",\"labels\":"), *end = strstr(text.data, CHECK);
    assert_true(labels && end);
    int length = snprintf(older, sizeof older, "%.*s" ZEROS "%.*s", (int)(labels - text.data),
                          text.data, (int)(end - labels), labels);
    assert_int_equal(ptier_keyring_check(keyring, older, (size_t)length, check), PTIER_OK);
    length += snprintf(older + length, sizeof older - (size_t)length, CHECK);
    for (size_t i = 0; i < sizeof check; i++)
        length += snprintf(older + length, sizeof older - (size_t)length, "%02x", check[i]);
    length += snprintf(older + length, sizeof older - (size_t)length, "\"}");
    read_line(older, (size_t)length, &line);
    assert_unused(line.op.entry);
    ptier_l2_line_fini(&line);
    ptier_entry_release(entry);
    ptier_buffer_fini(&text);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_that_are_0_are_left_out),
        cmocka_unit_test(other_figures_come_back),
        cmocka_unit_test(figures_that_are_there_may_be_0),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
