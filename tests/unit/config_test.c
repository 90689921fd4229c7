/* server/config*.c: which source wins, what is refused, what is found out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "config_internal.h"
#include "config_value.h"

static char file_path[64];

static int
set_up(void **state)
{
    (void)state;
    strcpy(file_path, "/tmp/ptier-config-XXXXXX");
    int fd = mkstemp(file_path);
    assert_true(fd >= 0);
    close(fd);
    clearenv();
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    return unlink(file_path);
}

static void
write_config(const char *text)
{
    FILE *file = fopen(file_path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static ptier_config *
load(const char *const *arguments)
{
    const char *argv[16] = {"proxytierd"};
    int argc = 1;
    ptier_config *config = NULL;
    ptier_error error = {0};
    bool done;
    for (; arguments && *arguments; arguments++)
        argv[argc++] = *arguments;
    if (ptier_config_load(argc, argv, &config, &done, &error) != PTIER_OK)
        fail_msg("%s", error.message);
    assert_false(done);
    return config;
}
#define LOAD(...) load((const char *[]){__VA_ARGS__, NULL})

static void
refuse(const char *const *arguments, const char *message)
{
    const char *argv[16] = {"proxytierd"};
    int argc = 1;
    ptier_config *config = NULL;
    ptier_error error = {0};
    bool done;
    for (; arguments && *arguments; arguments++)
        argv[argc++] = *arguments;
    assert_int_equal(ptier_config_load(argc, argv, &config, &done, &error), PTIER_INVALID_ARGUMENT);
    if (!strstr(error.message, message))
        fail_msg("'%s' does not mention '%s'", error.message, message);
}
#define REFUSE(message, ...) refuse((const char *[]){__VA_ARGS__, NULL}, message)

static void
defaults_are_those_of_the_cache(void **state)
{
    (void)state;
    ptier_config *config = load(NULL);
    ptier_cache_options options;
    ptier_cache_options_init(&options);
    assert_int_equal(config->l1_entries, options.l1_entries);
    assert_int_equal(config->l1_bytes, options.l1_bytes);
    assert_int_equal(config->l1_policy, options.l1_eviction);
    assert_int_equal(config->l2_entries, options.l2_entries);
    assert_int_equal(config->l3_entries, options.l3_entries);
    assert_int_equal(config->default_ttl_ms, options.default_ttl_ms);
    assert_int_equal(config->failure_threshold, options.failure_threshold);
    assert_int_equal(config->ttl_jitter, options.ttl_jitter);
    assert_int_equal(config->health_quarantine_ms, options.health_quarantine_ms);
    assert_int_equal(config->durability, options.durability);
    assert_true(config->l1_enabled && config->l2_enabled && config->l3_enabled);
    assert_null(config->encryption_key);
    ptier_config_destroy(config);
}

static void
flags_win_over_environment_over_file(void **state)
{
    (void)state;
    write_config(
        "l1-entries = 11\nl2-entries = 22\nl3-entries = 33\nlisten = ipc:///tmp/file.sock\n"
        "listen = ipc:///tmp/file2.sock\n[ttl.sources]\nlist-a = 2s\nlist b = 0\n");
    setenv("PROXYTIER_L2_ENTRIES", "222", 1);
    setenv("PROXYTIER_L3_ENTRIES", "333", 1);
    setenv("PROXYTIER_L1_ENTRIES", "", 1); /* empty: not set */
    ptier_config *config = LOAD("--config", file_path, "--l3-entries", "3333");
    assert_int_equal(config->l1_entries, 11);
    assert_int_equal(config->l2_entries, 222);
    assert_int_equal(config->l3_entries, 3333);
    assert_int_equal(config->listen.count, 2);
    assert_int_equal(config->source_ttl_count, 2);
    assert_string_equal(config->source_ttls[1].source, "list b");
    assert_int_equal(config->source_ttls[0].ttl_ms, 2000);
    ptier_config_destroy(config);

    setenv("PROXYTIER_CONFIG", file_path, 1);
    setenv("PROXYTIER_LISTEN", "ipc:///tmp/env.sock,tcp://127.0.0.1:7000", 1);
    config = LOAD("--token-file", "/tmp/tokens");
    assert_int_equal(config->listen.count, 2);
    assert_string_equal(config->listen.items[1], "tcp://127.0.0.1:7000");
    ptier_config_destroy(config);
    config = LOAD("--listen=ipc:///tmp/flag.sock");
    assert_int_equal(config->listen.count, 1);
    assert_string_equal(config->listen.items[0], "ipc:///tmp/flag.sock");
    ptier_config_destroy(config);
}

static void
addresses_follow_the_environment(void **state)
{
    (void)state;
    char expected[80];
    (void)snprintf(expected, sizeof expected, "ipc:///tmp/proxytier-%u/rpc.sock",
                   (unsigned)geteuid());
    ptier_config *config = load(NULL);
    assert_string_equal(config->listen.items[0], expected);
    ptier_config_destroy(config);
    setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
    config = load(NULL);
    assert_string_equal(config->listen.items[0], "ipc:///run/user/7/proxytier/rpc.sock");
    assert_string_equal(config->events.items[0], "ipc:///run/user/7/proxytier/events.sock");
    ptier_config_destroy(config);
    config = LOAD("--listen", "ipc:///tmp/x/a.sock");
    assert_string_equal(config->events.items[0], "ipc:///tmp/x/a.sock.events");
    ptier_config_destroy(config);
    config = LOAD("--listen", "tcp://127.0.0.1:7000", "--token-file", "/tmp/tokens");
    assert_int_equal(config->events.count, 0);
    ptier_config_destroy(config);
    config = LOAD("--events", "none");
    assert_int_equal(config->events.count, 0);
    ptier_config_destroy(config);
}

static void
mistakes_name_option_file_and_line(void **state)
{
    (void)state;
    REFUSE("--bogus", "--bogus");
    REFUSE("unexpected argument 'word'", "word");
    REFUSE("--l1: 'maybe'", "--l1", "maybe");
    REFUSE("--durability: 'fast'", "--durability", "fast");
    REFUSE("--l1-policy: 'arc' is none of lru, lfu, fifo, sieve", "--l1-policy", "arc");
    REFUSE("--l1-bytes: 'much' is not a size", "--l1-bytes", "much");
    REFUSE("--l1-bytes: '1025T' is out of range: 1048576 to 1125899906842624 bytes, or 0",
           "--l1-bytes", "1025T");
    REFUSE("--l1-bytes: '1023K' is out of range", "--l1-bytes", "1023K");
    REFUSE("--l1-entries and --l1-bytes are both 0", "--l1-entries", "0");
    REFUSE("--l1-entries 1000 is more than --l2-entries 10 ", "--l2-entries", "10");
    REFUSE("--l2-entries 5000 is more than --l3-entries 10 ", "--l3-entries", "10");
    REFUSE("--l1-entries 1000 is more than --l3-entries 10 ", "--l2", "off", "--l3-entries", "10");
    REFUSE("--l2-entries 0 is more than --l3-entries 9000 ", "--l2-entries", "0", "--l3-entries",
           "9000");
    REFUSE("--events: ipc:///tmp/a.sock is an address for calls", "--listen", "ipc:///tmp/a.sock",
           "--events", "ipc:///tmp/a.sock");
    REFUSE("--heartbeat: '1ms' is out of range", "--heartbeat", "1ms");
    REFUSE("--ttl-jitter: '51' is out of range", "--ttl-jitter", "51");
    REFUSE("--data-dir: the value is empty", "--data-dir", "");
    REFUSE("--listen: http://x", "--listen", "http://x");
    REFUSE("--listen: ipc://relative", "--listen", "ipc://relative");
    REFUSE("--events: tcp://127.0.0.1:1: events go over ipc:///path and tls", "--events",
           "tcp://127.0.0.1:1");
    REFUSE("--listen: tcp://8.8.8.8:99: plain tcp is for loopback only", "--listen",
           "tcp://8.8.8.8:99");
    setenv("PROXYTIER_HEARTBEAT", "x", 1);
    refuse(NULL, "PROXYTIER_HEARTBEAT: 'x'");
    unsetenv("PROXYTIER_HEARTBEAT");
    char expected[128];
    (void)snprintf(expected, sizeof expected, "%s:2: l1-entries: 'many'", file_path);
    write_config("l2 = off\nl1-entries = many\n");
    REFUSE(expected, "--config", file_path);
    (void)snprintf(expected, sizeof expected, "%s:4: list: '1 year'", file_path);
    write_config("# comment\n\n[ttl.sources]\nlist = 1 year\n");
    REFUSE(expected, "--config", file_path);
    write_config("[other]\nx = 1\n");
    REFUSE("unknown section [other]", "--config", file_path);
    write_config("just words\n");
    REFUSE("not a `name = value` line", "--config", file_path);
}

/* Keys as this file knows them are no real ones: nobody looks inside before the cache is opened. */
static void
keys_of_the_environment_are_found_and_wiped(void **state)
{
    (void)state;
    setenv("PROXYWHIRL_CACHE_ENCRYPTION_KEY", "old-name", 1);
    setenv("PROXYWHIRL_CACHE_KEY_PREVIOUS", "one,two", 1);
    ptier_config *config = load(NULL);
    assert_string_equal(config->encryption_key, "old-name");
    assert_int_equal(config->previous_keys.count, 2);
    assert_string_equal(config->previous_keys.items[1], "two");
    ptier_config_destroy(config);
    setenv("PROXYWHIRL_CACHE_ENCRYPTION_KEY", "old-name", 1);
    setenv("PROXYWHIRL_CACHE_KEY_PREVIOUS", "one,two", 1);
    setenv("PROXYTIER_ENCRYPTION_KEY", "new-name", 1);
    setenv("PROXYTIER_KEY_PREVIOUS", "three", 1);
    const char *value = getenv("PROXYTIER_ENCRYPTION_KEY");
    config = load(NULL);
    assert_string_equal(config->encryption_key, "new-name");
    assert_int_equal(config->previous_keys.count, 1);
    for (size_t i = 0; i < sizeof "new-name"; i++)
        assert_int_equal(value[i], 0);
    assert_null(getenv("PROXYTIER_ENCRYPTION_KEY"));
    assert_null(getenv("PROXYTIER_KEY_PREVIOUS"));
    assert_null(getenv("PROXYWHIRL_CACHE_ENCRYPTION_KEY"));
    assert_null(getenv("PROXYWHIRL_CACHE_KEY_PREVIOUS"));
    ptier_config_destroy(config);
}

#define KEY_A "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="
#define KEY_B "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
#define KEY_C "HxwdHhsYGRoXFBUWExAREg8MDQ4LCAkKBwQFBgMAAQI="

static char credentials[64], credential[96], previous[96];

static int
set_up_credentials(void **state)
{
    strcpy(credentials, "/tmp/ptier-credentials-XXXXXX");
    if (set_up(state) || !mkdtemp(credentials))
        return -1;
    (void)snprintf(credential, sizeof credential, "%s/proxytier-key", credentials);
    (void)snprintf(previous, sizeof previous, "%s/proxytier-key-previous", credentials);
    return setenv("CREDENTIALS_DIRECTORY", credentials, 1);
}

static int
tear_down_credentials(void **state)
{
    (void)unlink(credential); /* not every test makes both */
    (void)unlink(previous);
    return rmdir(credentials) || tear_down(state);
}

static void
write_secret(const char *path, const char *text, mode_t mode)
{
    (void)unlink(path); /* a read-only one of before */
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static void
expect_key(const char *const *arguments, const char *key)
{
    ptier_config *config = load(arguments);
    if (key)
        assert_string_equal(config->encryption_key, key);
    else
        assert_null(config->encryption_key);
    ptier_config_destroy(config);
}
#define EXPECT_KEY(key, ...) expect_key((const char *[]){__VA_ARGS__, NULL}, key)

static void
key_is_that_of_the_nearest_source(void **state)
{
    (void)state;
    write_secret(file_path, KEY_C "\n", 0600);
    expect_key(NULL, NULL); /* a directory without our credentials */
    setenv("PROXYTIER_KEY_FILE", file_path, 1);
    expect_key(NULL, KEY_C);
    setenv("PROXYTIER_ENCRYPTION_KEY", KEY_B, 1);
    expect_key(NULL, KEY_B);
    write_secret(credential, KEY_A "\n", 0440);
    setenv("PROXYTIER_ENCRYPTION_KEY", KEY_B, 1);
    expect_key(NULL, KEY_A);
    EXPECT_KEY(KEY_C, "--key-file", file_path);
}

static void
previous_keys_are_those_of_credential_and_environment(void **state)
{
    (void)state;
    write_secret(previous, KEY_A "\r\n\n" KEY_B ", " KEY_C "\n", 0400);
    setenv("PROXYTIER_KEY_PREVIOUS", "four,,five", 1);
    ptier_config *config = load(NULL);
    static const char *const expected[] = {KEY_A, KEY_B, KEY_C, "four", "five"};
    assert_int_equal(config->previous_keys.count, 5);
    for (size_t i = 0; i < 5; i++)
        assert_string_equal(config->previous_keys.items[i], expected[i]);
    ptier_config_forget_keys(config);
    assert_int_equal(config->previous_keys.count, 0);
    assert_null(config->encryption_key);
    ptier_config_destroy(config);
}

static void
refuse_credential(const char *text, mode_t mode, ptier_status code, const char *message)
{
    const char *argv[] = {"proxytierd"};
    ptier_config *config = NULL;
    ptier_error error = {0};
    bool done;
    write_secret(credential, text, mode);
    setenv("PROXYTIER_ENCRYPTION_KEY", KEY_B, 1);
    assert_int_equal(ptier_config_load(1, argv, &config, &done, &error), code);
    assert_null(config);
    assert_null(getenv("PROXYTIER_ENCRYPTION_KEY")); /* also then */
    if (!strstr(error.message, message))
        fail_msg("'%s' does not mention '%s'", error.message, message);
    assert_null(strstr(error.message, "RpI"));
}

static void
credential_that_is_open_or_no_key_ends_the_start(void **state)
{
    (void)state;
    refuse_credential(KEY_A "\n", 0444, PTIER_PERMISSION_DENIED, "open to other users (mode 444)");
    refuse_credential(KEY_A "\n", 0660, PTIER_PERMISSION_DENIED, "open to other users");
    refuse_credential("\n", 0400, PTIER_FAILED_PRECONDITION, credential);
    refuse_credential("RpI-hunter2\n", 0400, PTIER_FAILED_PRECONDITION, credential);
    refuse_credential(KEY_A "\n" KEY_B "\n", 0400, PTIER_FAILED_PRECONDITION, "more than one key");
    char many[17 * sizeof KEY_A + 1] = "";
    for (int i = 0; i < 17; i++)
        strcat(many, KEY_A "\n");
    refuse_credential(many, 0400, PTIER_FAILED_PRECONDITION, "at most 16");
    if (geteuid() == 0) {
        write_secret(credential, KEY_A "\n", 0440);
        assert_int_equal(chown(credential, 12345, 0), 0);
        const char *argv[] = {"proxytierd"};
        ptier_config *config;
        bool done;
        assert_int_equal(ptier_config_load(1, argv, &config, &done, NULL), PTIER_PERMISSION_DENIED);
    }
}

static void
durations_have_units(void **state)
{
    (void)state;
    int64_t ms = -7;
    const struct {
        const char *text;
        int64_t ms;
    } good[] = {{"0", 0},        {"500ms", 500},    {"2s", 2000}, {"15m", 900000},
                {"1h", 3600000}, {"7d", 604800000}, {"0s", 0},    {"36500d", PTIER_TTL_MAX_MS}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(ptier_parse_duration(good[i].text, &ms));
        assert_int_equal(ms, good[i].ms);
    }
    const char *const bad[] = {
        "", "5", "-1s", "s", "1 s", "1y", "36501d", "99999999999999999999s", "1.5h", "+1s"};
    ms = -7;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(ptier_parse_duration(bad[i], &ms));
    assert_int_equal(ms, -7);
}

static void
sizes_may_have_units(void **state)
{
    (void)state;
    uint64_t bytes = 7;
    const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"0", 0},           {"1", 1},        {"65536", 65536},
                {"64K", 65536},     {"3M", 3 << 20}, {"2G", UINT64_C(2) << 30},
                {"1T", 1ULL << 40}, {"0G", 0},       {"18446744073709551615", UINT64_MAX}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(ptier_parse_size(good[i].text, &bytes));
        assert_int_equal(bytes, good[i].bytes);
    }
    const char *const bad[] = {"",
                               "K",
                               "1 K",
                               "1k",
                               "1KB",
                               "-1",
                               "+1M",
                               "1.5G",
                               "1P",
                               "16777216T",
                               "18446744073709551616"};
    bytes = 7;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(ptier_parse_size(bad[i], &bytes));
    assert_int_equal(bytes, 7);
}

static void
the_bounds_and_the_policy_of_l1_can_be_chosen(void **state)
{
    (void)state;
    static const char *const policies[] = {"lru", "lfu", "fifo", "sieve"};
    static const ptier_eviction evictions[] = {PTIER_EVICTION_LRU, PTIER_EVICTION_LFU,
                                               PTIER_EVICTION_FIFO, PTIER_EVICTION_SIEVE};
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++) {
        ptier_config *config = LOAD("--l1-policy", policies[i], "--l1-bytes", "64M", "--l1-entries",
                                    "0", "--l2-entries", "0");
        assert_int_equal(config->l1_policy, evictions[i]);
        assert_int_equal(config->l1_bytes, 64 << 20);
        assert_int_equal(config->l1_entries, 0);
        ptier_config_destroy(config);
    }
}

static void
no_tier_at_all_is_a_mistake(void **state)
{
    (void)state;
    REFUSE("at least one tier must be on", "--l1", "off", "--l2", "off", "--l3", "off");
    ptier_config *config = LOAD("--l1", "off", "--l2", "off", "--l1-entries", "0");
    assert_true(config->l3_enabled);
    ptier_config_destroy(config);
}

static void
only_an_address_that_nobody_named_is_the_default(void **state)
{
    (void)state;
    ptier_config *config = load(NULL);
    assert_true(config->listen_is_default);
    ptier_config_destroy(config);
    setenv("PROXYTIER_LISTEN", "ipc:///tmp/env.sock", 1);
    config = load(NULL);
    assert_false(config->listen_is_default);
    ptier_config_destroy(config);
}

static char *
read_page(const char *path)
{
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    char *text = calloc(1, 1 << 17);
    assert_non_null(text);
    assert_true(fread(text, 1, (1 << 17) - 1, file) > 0);
    assert_int_equal(fclose(file), 0);
    return text;
}

/* "| `--l1 on\|off` | on | ": the row that the page must have. */
static void
make_row(const ptier_option *option, char row[256])
{
    size_t length = (size_t)snprintf(row, 256, "| `--%s ", option->name);
    for (const char *c = option->argument; *c; c++) {
        if (*c == '|')
            row[length++] = '\\';
        row[length++] = *c;
    }
    (void)snprintf(row + length, 256 - length, "` | %s%s", option->preset ? option->preset : "",
                   option->preset ? " | " : "");
}

static void
daemon_page_has_every_option_with_its_default(void **state)
{
    (void)state;
    char *page = read_page(PTIER_FIXTURES "/../../docs/DAEMON.md"), row[256];
    for (size_t i = 0; i < ptier_option_count; i++) {
        make_row(&ptier_options[i], row);
        if (!strstr(page, row))
            fail_msg("docs/DAEMON.md has no row '%s'", row);
    }
    size_t rows = 0;
    for (const char *at = page; (at = strstr(at, "| `--")) != NULL; at++)
        rows++;
    assert_int_equal(rows, ptier_option_count);
    free(page);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define WITH_CREDENTIALS(name)                                                                     \
    cmocka_unit_test_setup_teardown(name, set_up_credentials, tear_down_credentials)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(defaults_are_those_of_the_cache),
        TEST(flags_win_over_environment_over_file),
        TEST(addresses_follow_the_environment),
        TEST(mistakes_name_option_file_and_line),
        TEST(keys_of_the_environment_are_found_and_wiped),
        WITH_CREDENTIALS(key_is_that_of_the_nearest_source),
        WITH_CREDENTIALS(previous_keys_are_those_of_credential_and_environment),
        WITH_CREDENTIALS(credential_that_is_open_or_no_key_ends_the_start),
        TEST(durations_have_units),
        TEST(sizes_may_have_units),
        TEST(the_bounds_and_the_policy_of_l1_can_be_chosen),
        TEST(no_tier_at_all_is_a_mistake),
        TEST(only_an_address_that_nobody_named_is_the_default),
        TEST(daemon_page_has_every_option_with_its_default),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
