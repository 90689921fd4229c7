/*
 * The command line against a real daemon, in a temporary directory: what a person or a script does
 * with both, from outside. One thread. Failures fail the running cmocka test.
 */
#ifndef PTIER_TEST_CLI_BOX_H
#define PTIER_TEST_CLI_BOX_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/daemon.h"
#include "support/program.h"

#define PROXYTIER PTIER_BIN_DIR "/proxytier"

struct fixture {
    test_daemon daemon;
    const char *dir;         /* temporary, the daemon's */
    ptier_test_program last; /* the last command run */
};

/* Runs the command with this standard input (NULL: empty) and expects this exit code. */
#define RUN(f, input, code, ...)                                                                   \
    run_cli((f), (input), (code), (const char *const[]){PROXYTIER, __VA_ARGS__, NULL})
#define OUT(f) ((f)->last.texts[PTIER_TEST_OUT])
#define ERR(f) ((f)->last.texts[PTIER_TEST_ERR])

int run_to_end(struct fixture *f, const char *input, const char *const *argv);
void run_cli(struct fixture *f, const char *input, int code, const char *const *argv);

#define assert_has(text, part)   assert_part((text), (part), true)
#define assert_lacks(text, part) assert_part((text), (part), false)
void assert_part(const char *text, const char *part, bool expected);

/* The set-up and tear-down of a case: a daemon that runs with its usual options. */
int set_up(void **state);
int tear_down(void **state);
#define DAEMON_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

void write_file(const char *path, const char *text);
char *read_file(const char *path); /* the whole file; freed by the caller */
size_t count_lines(const char *text);

#endif
