/* See cli_box.h. */
#include "support/cli_box.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int
run_to_end(struct fixture *f, const char *input, const char *const *argv)
{
    ptier_test_program_free(&f->last);
    ptier_test_program_start(&f->last, input, argv);
    return ptier_test_program_wait(&f->last);
}

void
run_cli(struct fixture *f, const char *input, int code, const char *const *argv)
{
    int got = run_to_end(f, input, argv);
    if (got != code)
        print_error("proxytier %s: exit code %d: %s\n", argv[1], got, ERR(f));
    assert_int_equal(got, code);
}

void
assert_part(const char *text, const char *part, bool expected)
{
    if ((strstr(text, part) != NULL) != expected)
        print_error("'%s' is %s in: %s\n", part, expected ? "not" : "", text);
    assert_int_equal(strstr(text, part) != NULL, expected);
}

int
set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    *state = f;
    test_daemon_init(&f->daemon);
    f->dir = f->daemon.directory;
    assert_int_equal(setenv("PROXYTIER_URL", f->daemon.url, 1), 0);
    test_daemon_start(&f->daemon, NULL);
    return 0;
}

int
tear_down(void **state)
{
    struct fixture *f = *state;

    ptier_test_program_free(&f->last);
    test_daemon_fini(&f->daemon);
    free(f);
    return 0;
}

void
write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

char *
read_file(const char *path)
{
    char *text = NULL;
    size_t size = 0;
    FILE *file = fopen(path, "r");

    assert_non_null(file);
    if (getdelim(&text, &size, '\0', file) < 0) {
        free(text);
        text = strdup("");
    }
    assert_int_equal(fclose(file), 0);
    assert_non_null(text);
    return text;
}

size_t
count_lines(const char *text)
{
    size_t lines = 0;
    for (; *text; text++)
        lines += *text == '\n';
    return lines;
}
