/*
 * Running a program from a test: arguments and standard input in, both outputs and the exit code
 * out. Everything ends within a deadline. Not thread-safe: one program, one thread.
 */
#ifndef PTIER_TEST_PROGRAM_H
#define PTIER_TEST_PROGRAM_H

#include <stdbool.h>
#include <sys/types.h>

typedef struct ptier_test_program {
    pid_t pid; /* 0: not running */
    int code;  /* exit code; 128 + signal; -1: killed at the deadline */
    int files[2];
    char *texts[2]; /* what was read of out and err, NUL-terminated */
} ptier_test_program;

enum { PTIER_TEST_OUT = 0, PTIER_TEST_ERR = 1 };

/* Starts argv[0], a path. `input` (NULL: empty) is its standard input. Fails the test when that is
 * impossible. */
void ptier_test_program_start(ptier_test_program *program, const char *input,
                              const char *const *argv);

/* Waits for its end (30 s, then it is killed) and returns the code; texts are complete then. */
int ptier_test_program_wait(ptier_test_program *program);

/* Waits (20 s) until the output so far holds `text`; false when it ended or went on without it. */
bool ptier_test_program_says(ptier_test_program *program, int stream, const char *text);

/* Whether it has ended, now. */
bool ptier_test_program_ended(ptier_test_program *program);

void ptier_test_program_signal(const ptier_test_program *program, int signal);

/* Kills it if need be, and frees. */
void ptier_test_program_free(ptier_test_program *program);

#endif
