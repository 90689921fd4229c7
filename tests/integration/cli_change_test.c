/* The command's changes, and what it says of the daemon's state: durability, filters of watch, the
 * features of a daemon. */
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

int
main(void)
{
    const struct CMUnitTest tests[] = {
        DAEMON_TEST(changes_tell_what_they_reached),
        DAEMON_TEST(changes_that_reach_less_than_asked_for_are_code_1),
        DAEMON_TEST(info_shows_the_features),
    };
    return cmocka_run_group_tests_name("cli_change", tests, NULL, NULL);
}
