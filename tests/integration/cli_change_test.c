/* The command's changes, and what it says of the daemon's state: durability, filters of watch, the
 * features of a daemon, one that is full. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/cli_box.h"

static void
set_memory_only(struct fixture *f)
{
    assert_int_equal(test_daemon_end(&f->daemon, SIGTERM), 0);
    test_daemon_start(&f->daemon, (const char *const[]){"--l2", "off", "--l3", "off", NULL});
}

/* ---- durability ---- */

static void
changes_tell_what_they_reached(void **state)
{
    struct fixture *f = *state;

    RUN(f, NULL, 0, "put", "10.0.0.1:80", "--key", "k");
    RUN(f, NULL, 0, "report", "k", "failed", "--durability", "synced");
    assert_string_equal(OUT(f), "k degraded, 1 failures in a row (synced)\n");
    RUN(f, NULL, 0, "delete", "k", "--durability", "synced");
    assert_string_equal(OUT(f), "deleted 1 of 1 (synced)\n");
    RUN(f, NULL, 3, "delete", "k", "--durability", "synced", "--json");
    assert_has(OUT(f), "\"deleted\":0,\"not_found\":1,\"durability\":\"DURABILITY_SYNCED\"");
    RUN(f, NULL, 0, "put", "10.0.0.1:80");
    RUN(f, NULL, 0, "clear", "--yes", "--durability", "synced");
    assert_string_equal(OUT(f), "cleared 1 proxies (synced)\n");
    RUN(f, NULL, 0, "clear", "--yes", "--durability", "synced", "--json");
    assert_has(OUT(f), "{\"cleared\":0,\"revision\":");
    assert_has(OUT(f), "\"durability\":\"DURABILITY_SYNCED\"");
    RUN(f, NULL, 0, "clear", "--yes", "--tier", "L1");
    assert_string_equal(OUT(f), "emptied L1 of 0 proxies\n");
}

static void
changes_that_reach_less_than_asked_for_are_code_1(void **state)
{
    struct fixture *f = *state;

    set_memory_only(f);
    RUN(f, NULL, 0, "put", "10.0.0.1:80", "--key", "k");
    RUN(f, NULL, 1, "report", "k", "failed", "--durability", "logged");
    assert_string_equal(OUT(f), "k degraded, 1 failures in a row (memory)\n");
    assert_has(ERR(f), "reported, but not logged: only memory was reached");
    RUN(f, NULL, 1, "delete", "k", "--durability", "synced");
    assert_string_equal(OUT(f), "deleted 1 of 1 (memory)\n");
    assert_has(ERR(f), "deleted, but not synced: only memory was reached");
    RUN(f, NULL, 1, "clear", "--yes", "--durability", "logged");
    assert_string_equal(OUT(f), "cleared 0 proxies (memory)\n");
    assert_has(ERR(f), "cleared, but not logged: only memory was reached");

    RUN(f, NULL, 0, "put", "10.0.0.1:80", "--key", "k");
    RUN(f, NULL, 0, "report", "k", "failed");
    RUN(f, NULL, 0, "delete", "k", "--durability", "memory");
    RUN(f, NULL, 0, "clear", "--yes");
}

/* ---- watch ---- */

/* Puts, reports away and deletes proxies of two sources; ends with a CLEARED, which passes every
 * filter. */
static void
make_changes(struct fixture *f)
{
    RUN(f, NULL, 0, "put", "10.0.0.1:80", "--key", "a-1", "--source", "one");
    RUN(f, NULL, 0, "put", "10.0.0.2:80", "--key", "a-2", "--source", "two");
    RUN(f, NULL, 0, "put", "10.0.0.3:80", "--key", "b-3", "--source", "two");
    for (int i = 0; i < 3; i++)
        RUN(f, NULL, 0, "report", "a-2", "failed");
    RUN(f, NULL, 0, "delete", "a-1");
    RUN(f, NULL, 0, "clear", "--yes");
}

#define WATCH_MAX 12

/* What `watch` with these options shows of the changes above, up to the CLEARED. Freed by the
 * caller. */
static char *
watch_changes(struct fixture *f, const char *const *options)
{
    const char *argv[WATCH_MAX + 3] = {PROXYTIER, "watch"};
    ptier_test_program watch;

    for (size_t i = 0; options[i]; i++) {
        assert_true(i < WATCH_MAX);
        argv[i + 2] = options[i];
    }
    ptier_test_program_start(&watch, NULL, argv);
    assert_true(ptier_test_program_says(&watch, PTIER_TEST_ERR, "connected"));
    make_changes(f);
    assert_true(ptier_test_program_says(&watch, PTIER_TEST_OUT, "CLEARED"));
    ptier_test_program_signal(&watch, SIGINT);
    assert_int_equal(ptier_test_program_wait(&watch), 0);
    char *events = strdup(watch.texts[PTIER_TEST_OUT]);
    assert_non_null(events);
    ptier_test_program_free(&watch);
    return events;
}

#define WATCH(f, ...) watch_changes((f), (const char *const[]){__VA_ARGS__, NULL})

static void
watch_shows_removals_of_the_reasons_asked_for(void **state)
{
    char *events = WATCH(*state, "--reason", "health");
    assert_int_equal(count_lines(events), 2);
    assert_has(events, "REMOVED         HEALTH");
    assert_has(events, "a-2");
    free(events);

    events = WATCH(*state, "--reason", "Deleted", "--reason", "health");
    assert_int_equal(count_lines(events), 3);
    assert_has(events, "REMOVED         HEALTH");
    assert_has(events, "REMOVED         DELETED");
    free(events);
}

static void
watch_shows_a_source_or_keys_that_begin_alike(void **state)
{
    char *events = WATCH(*state, "--source", "one");
    assert_int_equal(count_lines(events), 3); /* CREATED, REMOVED, CLEARED */
    assert_has(events, "a-1");
    assert_lacks(events, "a-2");
    free(events);

    events = WATCH(*state, "--key-prefix", "b-");
    assert_int_equal(count_lines(events), 2);
    assert_has(events, "b-3");
    free(events);

    events = WATCH(*state, "--key-prefix", "a-", "--source", "two", "--reason", "health");
    assert_int_equal(count_lines(events), 2);
    assert_has(events, "a-2");
    free(events);
}

/* ---- the daemon ---- */

static void
info_shows_the_features(void **state)
{
    struct fixture *f = *state;

    RUN(f, NULL, 0, "info");
    assert_has(OUT(f), "features           events, replay, export, ");
    RUN(f, NULL, 0, "info", "--json");
    assert_has(OUT(f), "\"features\":[\"events\",\"replay\"");
}

static void
a_daemon_that_is_full_is_told_from_one_that_is_lost(void **state)
{
    struct fixture *f = *state;
    ptier_test_program watch;

    assert_int_equal(test_daemon_end(&f->daemon, SIGTERM), 0);
    test_daemon_start(&f->daemon, (const char *const[]){"--max-connections", "2", NULL});
    ptier_test_program_start(&watch, NULL, (const char *const[]){PROXYTIER, "watch", NULL});
    assert_true(ptier_test_program_says(&watch, PTIER_TEST_ERR, "connected")); /* takes both */
    RUN(f, NULL, 4, "--timeout", "2s", "stats");
    assert_has(ERR(f), "max-connections");
    assert_int_equal(count_lines(ERR(f)), 1);
    RUN(f, NULL, 4, "--timeout", "2s", "report", "k", "failed"); /* for sure not done */
    assert_has(ERR(f), "max-connections");
    ptier_test_program_free(&watch);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        DAEMON_TEST(changes_tell_what_they_reached),
        DAEMON_TEST(changes_that_reach_less_than_asked_for_are_code_1),
        DAEMON_TEST(watch_shows_removals_of_the_reasons_asked_for),
        DAEMON_TEST(watch_shows_a_source_or_keys_that_begin_alike),
        DAEMON_TEST(info_shows_the_features),
        DAEMON_TEST(a_daemon_that_is_full_is_told_from_one_that_is_lost),
    };
    return cmocka_run_group_tests_name("cli_change", tests, NULL, NULL);
}
