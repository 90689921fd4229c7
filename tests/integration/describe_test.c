/* proxytier describe: the protocol as a daemon tells it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/cli_box.h"

static void
describe_shows_services_and_calls(void **state)
{
    struct fixture *f = *state;
    RUN(f, NULL, 0, "describe");
    assert_has(OUT(f), "proxytier.v1.ProxyCache\n  Get(GetRequest) returns GetResponse\n");
    assert_has(OUT(f), "proxytier.v1.Health\n  Check(CheckRequest) returns CheckResponse\n");
    assert_has(OUT(f), "proxytier.v1.Reflection\n");
    assert_has(OUT(f), "  ResetStatistics(ResetStatisticsRequest) returns GetStatisticsResponse\n");
}

static void
describe_writes_what_protoc_would(void **state)
{
    struct fixture *f = *state;
    char path[128];
    (void)snprintf(path, sizeof path, "%s/set.pb", f->dir);
    RUN(f, NULL, 0, "describe", path);
    char *set = read_file(path);
    assert_memory_equal(set, "\x0a", 1); /* FileDescriptorSet.file */
    free(set);
    RUN(f, NULL, 1, "describe", "/proxytier-is-not-here/set.pb");
    assert_has(ERR(f), "cannot write /proxytier-is-not-here/set.pb");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        DAEMON_TEST(describe_shows_services_and_calls),
        DAEMON_TEST(describe_writes_what_protoc_would),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
