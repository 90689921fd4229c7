/* Option values of the command line: durations, words, labels. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cli.h"

static void
durations_take_a_unit_or_are_seconds(void **state)
{
    static const struct {
        const char *text;
        int64_t ms;
    } good[] = {{"0", 0},        {"2s", 2000},
                {"500ms", 500},  {"10m", 600000},
                {"1h", 3600000}, {"7d", 604800000},
                {"60", 60000},   {"1.5s", 1500},
                {"0h", 0},       {"36500d", PTIER_TTL_MAX_MS}};
    int64_t ms;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        ms = -7;
        assert_true(ptier_cli_duration(good[i].text, &ms));
        assert_true(ms == good[i].ms);
    }
}

static void
malformed_durations_are_refused(void **state)
{
    static const char *const bad[] = {"",     "s",   "2x",     "-1s", "2 s",      "1h30m", "0x10",
                                      "1e3s", "inf", "36501d", "nan", "0.0001ms", "1..5s"};
    int64_t ms = -7;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(ptier_cli_duration(bad[i], &ms));
}

static void
words_are_found_in_any_case(void **state)
{
    int value = 0;

    (void)state;
    assert_true(ptier_cli_word_value(ptier_cli_tiers, "l2", &value));
    assert_int_equal(value, PTIER_TIER_L2);
    assert_false(ptier_cli_word_value(ptier_cli_tiers, "L4", &value));
    assert_false(ptier_cli_word_value(ptier_cli_tiers, "", &value));
}

static void
names_are_spelled_as_in_their_table(void **state)
{
    (void)state;
    assert_string_equal(ptier_cli_word_name(ptier_cli_schemes, "SOCKS5h"), "socks5h");
    assert_null(ptier_cli_word_name(ptier_cli_schemes, "gopher"));
    assert_null(ptier_cli_word_name(ptier_cli_upper_tiers, "L3"));
}

static void
labels_are_split_at_the_first_equals_sign(void **state)
{
    ptier_cli_labels labels = {0};
    char text[] = "note=a=b", empty[] = "note=", bare[] = "note", nameless[] = "=x";
    char latin1[] = "town=K\xf6ln", cut[] = "town=K\xc3";

    (void)state;
    assert_true(ptier_cli_label(&labels, text));
    assert_true(ptier_cli_label(&labels, empty));
    assert_false(ptier_cli_label(&labels, bare));
    assert_false(ptier_cli_label(&labels, nameless));
    assert_false(ptier_cli_label(&labels, latin1));
    assert_false(ptier_cli_label(&labels, cut));
    assert_int_equal(labels.count, 2);
    assert_string_equal(labels.items[0].name, "note");
    assert_string_equal(labels.items[0].value, "a=b");
    assert_string_equal(labels.items[1].value, "");
}

static void
more_labels_than_a_record_takes_are_refused(void **state)
{
    ptier_cli_labels labels = {0};
    char texts[PTIER_LABELS_MAX + 1][8];

    (void)state;
    for (int i = 0; i < PTIER_LABELS_MAX; i++) {
        strcpy(texts[i], "a=b");
        assert_true(ptier_cli_label(&labels, texts[i]));
    }
    strcpy(texts[PTIER_LABELS_MAX], "a=b");
    assert_false(ptier_cli_label(&labels, texts[PTIER_LABELS_MAX]));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations_take_a_unit_or_are_seconds),
        cmocka_unit_test(malformed_durations_are_refused),
        cmocka_unit_test(words_are_found_in_any_case),
        cmocka_unit_test(names_are_spelled_as_in_their_table),
        cmocka_unit_test(labels_are_split_at_the_first_equals_sign),
        cmocka_unit_test(more_labels_than_a_record_takes_are_refused),
    };
    return cmocka_run_group_tests_name("cli_values", tests, NULL, NULL);
}
