/* The command line without a daemon: help, mistakes, exit codes, keys. */
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

#include "support/program.h"

#define PROXYTIER PTIER_BIN_DIR "/proxytier"
#define RUN(input, code, ...)                                                                      \
    run_cli((input), (code), (const char *const[]){PROXYTIER, __VA_ARGS__, NULL})

static ptier_test_program last;

/* Runs to the end; what it wrote stays in `last` until the next run. */
static void
run_cli(const char *input, int code, const char *const *argv)
{
    ptier_test_program_free(&last);
    ptier_test_program_start(&last, input, argv);
    int got = ptier_test_program_wait(&last);
    if (got != code)
        print_error("%s %s: exit code %d: %s\n", argv[0], argv[1], got, last.texts[1]);
    assert_int_equal(got, code);
}

/* Mistakes get one line on stderr, and nothing on stdout. */
static void
assert_one_line(const char *part)
{
    const char *err = last.texts[PTIER_TEST_ERR];
    const char *end = strchr(err, '\n');

    if (!strstr(err, part))
        print_error("no '%s' in: %s\n", part, err);
    assert_non_null(strstr(err, part));
    assert_true(strncmp(err, "proxytier", 9) == 0);
    assert_non_null(end);
    assert_string_equal(end, "\n");
    assert_string_equal(last.texts[PTIER_TEST_OUT], "");
}

static void
help_lists_every_command_and_exit_code(void **state)
{
    static const char *const words[] = {"put",
                                        "get",
                                        "delete",
                                        "pick",
                                        "list",
                                        "report",
                                        "warm",
                                        "export",
                                        "clear",
                                        "stats",
                                        "watch",
                                        "info",
                                        "keygen",
                                        "shutdown",
                                        "Exit codes",
                                        "PROXYTIER_URL",
                                        "--token-file",
                                        "restore",
                                        "backup",
                                        "rotate-keys",
                                        "PROXYTIER_TLS_CA_FILE",
                                        "PROXYTIER_DAEMON_USER"};

    (void)state;
    RUN(NULL, 0, "--help");
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        assert_non_null(strstr(last.texts[0], words[i]));
    assert_string_equal(last.texts[1], "");
    assert_null(strstr(last.texts[0], "not used"));
    assert_non_null(strstr(last.texts[0], "a wrong token or certificate"));
    assert_non_null(strstr(last.texts[0], "  put         URL                       Cache"));
    assert_non_null(strstr(last.texts[0], "  rotate-keys                           Encrypt"));
    char *help = strdup(last.texts[0]);
    assert_non_null(help);
    RUN(NULL, 0, "help");
    assert_string_equal(last.texts[0], help);
    free(help);
}

static void
every_command_has_help_of_its_own(void **state)
{
    static const char *const names[] = {"put",    "get",        "delete", "pick",     "list",
                                        "report", "warm",       "export", "clear",    "stats",
                                        "watch",  "info",       "keygen", "shutdown", "restore",
                                        "backup", "rotate-keys"};
    char usage[64];

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        RUN(NULL, 0, names[i], "--help");
        (void)snprintf(usage, sizeof usage, "Usage: proxytier %s", names[i]);
        assert_non_null(strstr(last.texts[0], usage));
        RUN(NULL, 0, "help", names[i]);
        assert_non_null(strstr(last.texts[0], usage));
    }
}

static void
version_is_told(void **state)
{
    (void)state;
    RUN(NULL, 0, "--version");
    assert_true(strncmp(last.texts[0], "proxytier ", 10) == 0);
}

static void
mistakes_get_one_line_and_code_2(void **state)
{
    (void)state;
    run_cli(NULL, 2, (const char *const[]){PROXYTIER, NULL});
    assert_one_line("no command");
    RUN(NULL, 2, "nope");
    assert_one_line("unknown command 'nope'");
    RUN(NULL, 2, "--nope", "stats");
    assert_one_line("unknown option --nope");
    RUN(NULL, 2, "stats", "--nope");
    assert_one_line("unknown option --nope");
    RUN(NULL, 2, "put");
    assert_one_line("missing argument");
    RUN(NULL, 2, "put", "http://h:1", "http://h:2");
    assert_one_line("too many arguments");
    RUN(NULL, 2, "stats", "now");
    assert_one_line("takes no argument");
    RUN(NULL, 2, "put", "http://h:1", "--ttl");
    assert_one_line("--ttl needs a value");
    RUN(NULL, 2, "put", "http://h:1", "--ttl", "soon");
    assert_one_line("--ttl takes a duration");
    RUN(NULL, 2, "put", "http://h:1", "--label", "x");
    assert_one_line("--label takes name=value");
    RUN(NULL, 2, "put", "http://h:1", "--ttl", "40000d");
    assert_one_line("up to 36500d, or 0 for never");
    RUN(NULL, 2, "put", "http://h:1", "--ttl", "-5");
    assert_one_line("up to 36500d, or 0 for never");
    RUN(NULL, 2, "warm", "--scheme", "gopher", "/dev/null");
    assert_one_line("--scheme takes http, https, socks4, socks4a, socks5 or socks5h");
    RUN(NULL, 2, "list", "--scheme", "gopher");
    assert_one_line("--scheme takes http");
    RUN(NULL, 2, "pick", "--scheme", "gopher");
    assert_one_line("--scheme takes http");
    RUN(NULL, 2, "clear", "--yes", "--tier", "L9");
    assert_one_line("--tier takes L1 or L2;");
    RUN(NULL, 2, "pick", "-n", "0");
    assert_one_line("--count takes a whole number");
    RUN(NULL, 2, "pick", "--health", "fine");
    assert_one_line("--health takes healthy");
    RUN(NULL, 2, "report", "k", "broken");
    assert_one_line("ok, failed or unknown");
    RUN(NULL, 2, "clear");
    assert_one_line("--yes");
    RUN(NULL, 2, "stats", "--timeout", "0");
    assert_one_line("from 1ms to 24h");
    RUN(NULL, 2, "stats", "--timeout", "x");
    assert_one_line("from 1ms to 24h");
    assert_null(strstr(last.texts[1], "or 0"));
    RUN(NULL, 2, "stats", "--url", "nowhere");
    assert_one_line("nowhere");
}

#define TEXT_200                                                                                   \
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890"  \
    "1234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901"  \
    "234567890123456789"

/* No daemon is needed to tell them, nor are they taken for a failure of one, or of a file. */
static void
mistakes_in_values_name_their_option_and_are_code_2(void **state)
{
    (void)state;
    RUN(NULL, 2, "put", "http://h:1", "--label", "a=\xff");
    assert_one_line("--label takes name=value in UTF-8");
    RUN(NULL, 2, "pick", "--label", "\xff=a");
    assert_one_line("--label takes name=value in UTF-8");
    RUN(NULL, 2, "put", "http://h:1", "--user", "\xff");
    assert_one_line("--user takes UTF-8 text");
    RUN(NULL, 2, "get", "http://h:1", "--user", "\xff");
    assert_one_line("--user takes UTF-8 text");
    RUN(NULL, 2, "put", "http://h:1", "--key", "\xff");
    assert_one_line("--key takes UTF-8 text");
    RUN(NULL, 2, "report", "k", "ok", "--error", "\xff");
    assert_one_line("--error takes UTF-8 text");
    RUN(NULL, 2, "warm", "/dev/null", "--source", "\xff");
    assert_one_line("--source takes UTF-8 text of up to 128 bytes");
    RUN(NULL, 2, "warm", "/dev/null", "--source", TEXT_200);
    assert_one_line("--source takes UTF-8 text of up to 128 bytes");
    RUN(NULL, 2, "list", "--source", TEXT_200);
    assert_one_line("--source takes UTF-8 text of up to 128 bytes");
    RUN(NULL, 2, "warm", "/dev/null", "--ack", "");
    assert_one_line("--ack takes the name of a file");
    RUN(NULL, 2, "put", "http://h:1", "--password-file", "");
    assert_one_line("--password-file takes the name of a file");
    RUN(NULL, 2, "stats", "--token-file", "");
    assert_one_line("--token-file takes the name of a file");
    RUN(NULL, 2, "delete", "k", "--durability", "disk");
    assert_one_line("--durability takes memory, logged or synced");
    RUN(NULL, 2, "report", "k", "ok", "--durability", "disk");
    assert_one_line("--durability takes memory, logged or synced");
    RUN(NULL, 2, "clear", "--yes", "--durability", "disk");
    assert_one_line("--durability takes memory, logged or synced");
    RUN(NULL, 2, "clear", "--yes", "--tier", "L1", "--durability", "synced");
    assert_one_line("--durability goes without --tier");
}

static void
mistakes_in_addresses_are_code_2(void **state)
{
    static const char *const urls[] = {
        "nowhere",           "ipc://relative",   "tcp://127.0.0.1",       "tcp://127.0.0.1:0",
        "tcp://127.0.0.1:x", "tcp://:80",        "tcp://127.0.0.1:99999", "tcp://127.0.0.1:80/path",
        "tcp://h:80?q",      "tls+tcp://h:99999"};

    (void)state;
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        RUN(NULL, 2, "stats", "--url", urls[i]);
        assert_one_line(urls[i]);
    }
}

static void
mistakes_in_filters_of_watch_are_code_2(void **state)
{
    char prefix[256 + 2]; /* a key has 256 at most */

    (void)state;
    RUN(NULL, 2, "watch", "--reason", "boredom");
    assert_one_line("--reason takes capacity, ttl, health, corruption or deleted");
    RUN(NULL, 2, "watch", "--reason", "ttl", "--tiers");
    assert_one_line("--reason is about removals");
    RUN(NULL, 2, "watch", "--source", TEXT_200);
    assert_one_line("--source takes UTF-8 text of up to 128 bytes");
    RUN(NULL, 2, "watch", "--key-prefix", "\xff");
    assert_one_line("--key-prefix takes UTF-8 text");
    memset(prefix, 'k', sizeof prefix - 1);
    prefix[sizeof prefix - 1] = '\0';
    RUN(NULL, 2, "watch", "--key-prefix", prefix);
    assert_one_line("--key-prefix takes up to 256 bytes");
}

static void
empty_arguments_are_code_2(void **state)
{
    static const char *const commands[] = {"put",    "get",      "delete", "warm",    "export",
                                           "backup", "describe", "keygen", "restore", "tls-init"};

    (void)state;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        RUN(NULL, 2, commands[i], "");
        assert_one_line("argument 1 is empty");
    }
    RUN(NULL, 2, "report", "", "ok");
    assert_one_line("argument 1 is empty");
    RUN(NULL, 2, "stats", "");
    assert_one_line("takes no argument");
}

static void
malformed_urls_get_one_line_and_code_2(void **state)
{
    static const char *const urls[] = {"http://h:99999", "ftp://h:1",   "http://", "://", "h", "",
                                       "http://h:0",     "http://u@h:x"};

    (void)state;
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        RUN(NULL, 2, "put", urls[i]);
        assert_one_line("proxytier put: ");
    }
    RUN(NULL, 2, "get", "http://h:99999");
    assert_one_line("port");
}

static void
passwords_as_arguments_are_refused_and_not_repeated(void **state)
{
    (void)state;
    RUN(NULL, 2, "put", "http://h:1", "--password", "s3cret");
    assert_one_line("--password -");
    assert_null(strstr(last.texts[1], "s3cret"));
    RUN(NULL, 2, "put", "http://u:s3cret@h:1");
    assert_one_line("--password -");
    assert_null(strstr(last.texts[1], "s3cret"));
    RUN(NULL, 2, "put", "h:1:u:s3cret");
    assert_one_line("--password -");
    assert_null(strstr(last.texts[1], "s3cret"));
    RUN(NULL, 2, "put", "http://u:s3cret@h:99999");
    assert_null(strstr(last.texts[1], "s3cret"));
    RUN(NULL, 2, "put", "http://h:1", "--pasword=s3cret");
    assert_one_line("unknown option --pasword");
    assert_null(strstr(last.texts[1], "s3cret"));
    RUN(NULL, 2, "http://u:s3cret@h:1");
    assert_null(strstr(last.texts[1], "s3cret"));
    RUN("s3cret\n", 2, "put", "http://h:1", "--password", "-", "--password-file", "/dev/null");
    assert_one_line("only one of");
}

static void
passwords_in_a_key_argument_are_refused_and_not_repeated(void **state)
{
    static const char *const keys[] = {"http://u:s3cret@h:1", "u:s3cret@h:1", "h:1:u:s3cret"};
    static const char *const malformed[] = {"http://u:s3cret@h:x", "u:s3cret@h:x", "u:s3cret@h",
                                            "h:99999:u:s3cret"};

    (void)state;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        RUN(NULL, 2, "get", keys[i]);
        assert_one_line("leave it out");
        assert_null(strstr(last.texts[1], "s3cret"));
        RUN(NULL, 2, "delete", "k", keys[i]);
        assert_one_line("leave it out");
        RUN(NULL, 2, "report", keys[i], "ok");
        assert_one_line("leave it out");
    }
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
        RUN(NULL, 2, "get", malformed[i]);
        assert_one_line("proxytier get: ");
        assert_null(strstr(last.texts[1], "s3cret"));
    }
    RUN(NULL, 4, "--url=ipc:///nonexistent/rpc.sock", "get", "--exact", "a:b@c");
}

static void
files_that_cannot_be_read_are_code_1(void **state)
{
    (void)state;
    RUN(NULL, 1, "warm", "/nonexistent/list.txt");
    assert_one_line("/nonexistent/list.txt");
    RUN(NULL, 1, "put", "http://h:1", "--password", "-");
    assert_one_line("gave none");
    RUN(NULL, 1, "stats", "--url", "tls+tcp://h:1", "--tls-ca", "/nonexistent/ca.pem");
    assert_one_line("/nonexistent/ca.pem");
    RUN(NULL, 1, "put", "http://h:1", "--password-file", "/nonexistent/password");
    assert_one_line("/nonexistent/password");
    RUN(NULL, 1, "stats", "--token-file", "/nonexistent/token");
    assert_one_line("/nonexistent/token");
}

static void
a_daemon_that_is_not_there_is_code_4(void **state)
{
    static const char url[] = "--url=ipc:///nonexistent/rpc.sock";

    (void)state;
    RUN(NULL, 4, url, "stats");
    assert_one_line("/nonexistent/rpc.sock");
    RUN(NULL, 4, "get", "0123456789abcdef", url);
    assert_one_line("proxytier get: ");
    RUN(NULL, 4, url, "list");
    assert_one_line("proxytier list: ");
    RUN("s3cret\n", 4, url, "put", "http://h:1", "--user", "u", "--password", "-");
    assert_one_line("proxytier put: ");
    assert_null(strstr(last.texts[1], "s3cret"));
    RUN(NULL, 4, url, "warm", "/dev/null");
    assert_one_line("proxytier warm: ");
    RUN(NULL, 4, url, "watch", "--for", "10s");
    assert_one_line("proxytier watch: ");
    RUN(NULL, 4, url, "export");
    assert_one_line("proxytier export: ");
}

static void
a_failed_export_leaves_no_file(void **state)
{
    char dir[] = "/tmp/ptier_cli_XXXXXX", path[64];

    (void)state;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof path, "%s/out.jsonl", dir);
    RUN(NULL, 4, "--url=ipc:///nonexistent/rpc.sock", "export", path);
    assert_int_equal(rmdir(dir), 0); /* empty */
}

static void
keygen_makes_a_private_key_and_never_overwrites(void **state)
{
    char dir[] = "/tmp/ptier_cli_XXXXXX", path[64], key[64] = "", again[64] = "";
    struct stat about;

    (void)state;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof path, "%s/key", dir);
    RUN(NULL, 0, "keygen", path);
    assert_int_equal(stat(path, &about), 0);
    assert_int_equal(about.st_mode & 07777, 0600);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_non_null(fgets(key, sizeof key, file));
    assert_int_equal(fclose(file), 0);
    assert_int_equal(strlen(key), 45);
    assert_int_equal(
        strspn(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"), 43);
    assert_string_equal(key + 43, "=\n");
    RUN(NULL, 1, "keygen", path);
    assert_one_line("never overwritten");
    file = fopen(path, "r");
    assert_non_null(file);
    assert_non_null(fgets(again, sizeof again, file));
    assert_int_equal(fclose(file), 0);
    assert_string_equal(key, again);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
    RUN(NULL, 0, "keygen");
    assert_int_equal(strlen(last.texts[0]), 45);
    assert_string_not_equal(last.texts[0], key);
    RUN(NULL, 0, "keygen", "--json");
    assert_int_equal(strlen(last.texts[0]), strlen("{\"key\":\"\"}\n") + 44);
    assert_true(strncmp(last.texts[0], "{\"key\":\"", 8) == 0);
}

static int
clean_up(void **state)
{
    (void)state;
    ptier_test_program_free(&last);
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(help_lists_every_command_and_exit_code),
        cmocka_unit_test(every_command_has_help_of_its_own),
        cmocka_unit_test(version_is_told),
        cmocka_unit_test(mistakes_get_one_line_and_code_2),
        cmocka_unit_test(mistakes_in_values_name_their_option_and_are_code_2),
        cmocka_unit_test(mistakes_in_addresses_are_code_2),
        cmocka_unit_test(mistakes_in_filters_of_watch_are_code_2),
        cmocka_unit_test(empty_arguments_are_code_2),
        cmocka_unit_test(malformed_urls_get_one_line_and_code_2),
        cmocka_unit_test(passwords_as_arguments_are_refused_and_not_repeated),
        cmocka_unit_test(passwords_in_a_key_argument_are_refused_and_not_repeated),
        cmocka_unit_test(files_that_cannot_be_read_are_code_1),
        cmocka_unit_test(a_daemon_that_is_not_there_is_code_4),
        cmocka_unit_test(a_failed_export_leaves_no_file),
        cmocka_unit_test(keygen_makes_a_private_key_and_never_overwrites),
    };
    return cmocka_run_group_tests_name("cli_usage", tests, NULL, clean_up);
}
