/* What `./dev bench hit_rate --trace FILE` takes for a trace, and what it refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/temp_dir.h"
#include "trace.h"

static char directory[PTIER_TEST_PATH];

static void
make_file(const char *name, const char *text, size_t length, char path[PTIER_TEST_PATH + 32])
{
    (void)snprintf(path, PTIER_TEST_PATH + 32, "%s/%s", directory, name); /* fits */
    ptier_test_file_write(path, text, length);
}

static void
assert_reads(const char *name, const char *text)
{
    static const uint32_t expected[] = {0, 1, 0};
    char path[PTIER_TEST_PATH + 32];
    bench_trace trace;
    make_file(name, text, strlen(text), path);
    bench_trace_load(&trace, path);
    assert_int_equal(trace.count, 3);
    assert_int_equal(trace.keys, 2);
    assert_memory_equal(trace.reads, expected, sizeof expected);
    bench_trace_free(&trace);
}

/* In a child, since what fails ends the program. */
static void
assert_refused(const char *name, const char *text, size_t length, const char *why)
{
    char path[PTIER_TEST_PATH + 32], said[512] = "";
    int ends[2], status;
    make_file(name, text, length, path);
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        bench_trace trace;
        if (dup2(ends[1], STDERR_FILENO) < 0)
            _exit(99);
        bench_trace_load(&trace, path);
        _exit(0); /* taken */
    }
    close(ends[1]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(read(ends[0], said, sizeof said - 1) >= 0);
    close(ends[0]);
    assert_true(WIFEXITED(status));
    assert_int_not_equal(WEXITSTATUS(status), 0);
    assert_non_null(strstr(said, path));
    assert_non_null(strstr(said, why));
}

static void
lines_and_csv_are_the_same_reads(void **state)
{
    (void)state;
    assert_reads("lines", "a\nb\na\n");
    assert_reads("no_end", "a\r\n\r\nb\r\na");
    assert_reads("t.csv", "time,key\n1,a\n2,b\n3,a\n");
    assert_reads("T.CSV", "key,time\n\"a\",1\nb,2\na,3\n");
    assert_reads("mark.csv", "\xef\xbb\xbfkey\na\nb\na\n");
    assert_reads("mark", "\xef\xbb\xbf"
                         "a\nb\na\n");
}

static void
what_is_no_trace_is_refused_by_its_name(void **state)
{
    static const char zeros[] = "a\0b\na\0b\n", escapes[] = "key\na\033b\na\033b\n";
    (void)state;
    assert_refused("empty", "", 0, "no keys");
    assert_refused("zeros", zeros, sizeof zeros - 1, "control characters");
    assert_refused("escapes.csv", escapes, sizeof escapes - 1, "control characters");
    assert_refused("other.csv", "time,name\n1,a\n", 14, "no column \"key\"");
    assert_refused("csv", "time,key\n1,a\n2,a\n", 17, "no key twice");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_and_csv_are_the_same_reads),
        cmocka_unit_test(what_is_no_trace_is_refused_by_its_name),
    };
    ptier_test_dir_make(directory);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ptier_test_dir_remove(directory);
    return failed;
}
