/* A cache that ProxyWhirl wrote (tests/fixtures/proxywhirl/make.py plays it) moves over without
 * loss: each of its forms is loaded into a real daemon that has its key, and every field compared.
 */
#include "support/cli_box.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PYTHON "/usr/bin/python3"
#define KEY    "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="

static ptier_test_program maker; /* keeps a database in use */
static char written[64];         /* where it wrote */
static bool available;

static int
make_fixtures(void **state)
{
    (void)state;
    if (system(PYTHON " -c 'import cryptography.fernet' 2>/dev/null") != 0)
        return 0; /* no Python, or without that package: every case is skipped */
    available = true;
    strcpy(written, "/tmp/ptier-whirl-XXXXXX");
    assert_non_null(mkdtemp(written));
    ptier_test_program_start(&maker, NULL,
                             (const char *const[]){PYTHON, PTIER_FIXTURES "/proxywhirl/make.py",
                                                   written, KEY, "250", NULL});
    if (!ptier_test_program_says(&maker, PTIER_TEST_OUT, "ready"))
        fail_msg("make.py: %s", maker.texts[PTIER_TEST_ERR]);
    assert_int_equal(setenv("PROXYWHIRL_CACHE_ENCRYPTION_KEY", KEY, 1), 0);
    return 0;
}

static int
remove_fixtures(void **state)
{
    char command[96];
    (void)state;
    ptier_test_program_free(&maker);
    (void)snprintf(command, sizeof command, "rm -r %s", written);
    return available ? system(command) : 0;
}

/* ---- comparing ---- */

static int
by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Takes what stands from `from` to before `to` out of a line. */
static void
cut(char *line, const char *from, const char *to)
{
    char *start = strstr(line, from), *end = start ? strstr(start, to) : NULL;
    if (end)
        memmove(start, end, strlen(end) + 1);
    else
        fail_msg("no %s in %s", from, line);
}

typedef struct lines {
    char *text;
    char *at[400];
    size_t count;
} lines;

/* The lines of an export or of what is expected, sorted, without what a list does not tell. */
static lines
split(char *text, bool of_list, bool exported)
{
    lines all = {.text = text};
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        assert_true(all.count < sizeof all.at / sizeof *all.at);
        if (exported)
            cut(line, ",\"revision\":", "}");
        if (of_list)
            cut(line, ",\"fetch_time\":", ",\"health_status\":");
        all.at[all.count++] = line;
    }
    qsort(all.at, all.count, sizeof *all.at, by_text);
    return all;
}

static void
compare_with_cache(struct fixture *f, const char *name, bool of_list)
{
    char path[128];
    RUN(f, NULL, 0, "export", "--plain");
    (void)snprintf(path, sizeof path, "%s/%s.expected", written, name);
    lines wanted = split(read_file(path), of_list, false);
    lines got = split(strdup(OUT(f)), of_list, true);
    for (size_t i = 0; i < wanted.count && i < got.count; i++)
        assert_string_equal(got.at[i], wanted.at[i]);
    assert_int_equal(got.count, wanted.count);
    assert_true(got.count > 100);
    free(wanted.text);
    free(got.text);
}

static void
load_and_compare(struct fixture *f, const char *command, const char *input, const char *name,
                 bool of_list)
{
    char path[128];
    if (!available)
        skip();
    (void)snprintf(path, sizeof path, "%s/%s.counts", written, name);
    char *counts = read_file(path);
    (void)snprintf(path, sizeof path, "%s/%s", written, input);
    RUN(f, NULL, 0, command, path);
    assert_has(OUT(f), counts);
    free(counts);
    compare_with_cache(f, name, of_list);
}

/* ---- cases ---- */

static void
shards_with_tokens_in_hex_lose_nothing(void **state)
{
    load_and_compare(*state, "warm", "l2", "l2", false);
    struct fixture *f = *state;
    assert_has(OUT(f), "alice");
    assert_false(test_directory_contains(f->daemon.data_dir, "wonderland"));
    test_daemon_restart(&f->daemon, NULL);
    compare_with_cache(f, "l2", false);
}

static void
shards_of_older_versions_lose_nothing(void **state)
{
    load_and_compare(*state, "warm", "l2-old", "l2-old", false);
}

static void
shards_are_restored_as_well_as_warmed(void **state)
{
    load_and_compare(*state, "restore", "l2", "l2", false);
}

static void
the_database_loses_nothing(void **state)
{
    load_and_compare(*state, "warm", "l3/proxywhirl.db", "l3/proxywhirl.db", false);
}

/* Loads the database whose rows are in its -wal, and sees that both files stay as they are. */
static void
load_with_wal(struct fixture *f)
{
    static const char *const names[] = {"l2_cache.db", "l2_cache.db-wal"};
    char paths[2][128];
    struct stat before[2], after;
    if (!available)
        skip();
    for (int i = 0; i < 2; i++) {
        (void)snprintf(paths[i], sizeof paths[i], "%s/l2-db/%s", written, names[i]);
        assert_int_equal(stat(paths[i], &before[i]), 0);
    }
    assert_true(before[1].st_size > 10000);
    load_and_compare(f, "warm", "l2-db", "l2-db/l2_cache.db", false);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(stat(paths[i], &after), 0);
        assert_int_equal(after.st_size, before[i].st_size);
        assert_int_equal(after.st_mtim.tv_sec, before[i].st_mtim.tv_sec);
        assert_int_equal(after.st_mtim.tv_nsec, before[i].st_mtim.tv_nsec);
    }
}

static void
a_database_in_use_is_read_with_its_wal_and_left_alone(void **state)
{
    load_with_wal(*state);
}

static void
what_a_killed_proxywhirl_left_is_read_and_left_alone(void **state)
{
    if (!available)
        skip();
    ptier_test_program_signal(&maker, SIGKILL);
    (void)ptier_test_program_wait(&maker); /* killed */
    load_with_wal(*state);
}

static void
exports_lose_what_they_mask_and_say_so(void **state)
{
    load_and_compare(*state, "warm", "export.jsonl", "export.jsonl", false);
    struct fixture *f = *state;
    char path[128];
    (void)snprintf(path, sizeof path, "%s/export.jsonl", written);
    RUN(f, NULL, 0, "warm", path);
    assert_has(ERR(f), "credentials are masked");
}

static void
warm_files_are_lists(void **state)
{
    load_and_compare(*state, "warm", "warm/warm.json", "warm/warm.json", true);
    struct fixture *f = *state;
    RUN(f, NULL, 0, "clear", "--yes");
    load_and_compare(f, "warm", "warm/warm.jsonl", "warm/warm.jsonl", true);
    RUN(f, NULL, 0, "clear", "--yes");
    load_and_compare(f, "warm", "warm/warm.csv", "warm/warm.csv", true);
}

static void
the_daemon_warms_from_a_directory_at_its_start(void **state)
{
    struct fixture *f = *state;
    char path[128];
    if (!available)
        skip();
    (void)snprintf(path, sizeof path, "%s/l2", written);
    test_daemon_restart(&f->daemon, (const char *const[]){"--warm", path, NULL});
    for (int tries = 0; tries < 400; tries++) { /* it serves before it has loaded all */
        RUN(f, NULL, 0, "stats", "--json");
        if (strstr(OUT(f), "\"entries\":280,\"hits\""))
            break;
        (void)usleep(50000);
    }
    compare_with_cache(f, "l2", false);
}

static void
without_its_key_entries_with_credentials_are_rejected(void **state)
{
    struct fixture *f = *state;
    char path[128];
    if (!available)
        skip();
    (void)snprintf(path, sizeof path, "%s/l3/proxywhirl.db", written);
    test_daemon other;
    test_daemon_init(&other);
    assert_int_equal(unsetenv("PROXYWHIRL_CACHE_ENCRYPTION_KEY"), 0);
    test_daemon_start(&other, NULL);
    assert_int_equal(setenv("PROXYWHIRL_CACHE_ENCRYPTION_KEY", KEY, 1), 0);
    RUN(f, NULL, 1, "warm", path, "--url", other.url);
    assert_has(OUT(f), "cannot be decrypted");
    RUN(f, NULL, 0, "export", "--plain", "--url", other.url);
    assert_true(count_lines(OUT(f)) > 100);
    assert_lacks(OUT(f), "\"username");
    test_daemon_fini(&other);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        DAEMON_TEST(shards_with_tokens_in_hex_lose_nothing),
        DAEMON_TEST(shards_of_older_versions_lose_nothing),
        DAEMON_TEST(shards_are_restored_as_well_as_warmed),
        DAEMON_TEST(the_database_loses_nothing),
        DAEMON_TEST(a_database_in_use_is_read_with_its_wal_and_left_alone),
        DAEMON_TEST(exports_lose_what_they_mask_and_say_so),
        DAEMON_TEST(warm_files_are_lists),
        DAEMON_TEST(the_daemon_warms_from_a_directory_at_its_start),
        DAEMON_TEST(without_its_key_entries_with_credentials_are_rejected),
        DAEMON_TEST(
            what_a_killed_proxywhirl_left_is_read_and_left_alone), /* the last: it ends it */
    };
    return cmocka_run_group_tests_name("proxywhirl", tests, make_fixtures, remove_fixtures);
}
