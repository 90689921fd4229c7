/*
 * A real proxytierd as a child of the test: own temporary directory, own ipc addresses. Everything
 * ends within a deadline; the daemon ends with the test, however that ends. Not thread-safe.
 */
#ifndef PTIER_TEST_DAEMON_H
#define PTIER_TEST_DAEMON_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

typedef struct test_daemon {
    pid_t pid;          /* 0: not running */
    char directory[64]; /* temporary; data/ and the sockets are in it */
    char data_dir[96];
    char url[96];        /* ipc:// for calls */
    char events_url[96]; /* ipc:// for events */
    char log_path[96];   /* its standard error */
} test_daemon;

/* Makes the directory; nothing runs yet. */
void test_daemon_init(test_daemon *daemon);

/*
 * Starts it with the usual options and `extra` ones (NULL-terminated; NULL: none) and waits until
 * it answers calls. Fails the test, with the daemon's log, when it does not within 20 s.
 */
void test_daemon_start(test_daemon *daemon, const char *const *extra);

/* Starts it and waits for nothing. */
void test_daemon_spawn(test_daemon *daemon, const char *const *extra);

/* Starts it and waits for its end (20 s): exit code, or 128 + signal. For what must not come up. */
int test_daemon_run(test_daemon *daemon, const char *const *extra);

/* Sends a signal and waits for the end (20 s, then fails). Returns the exit code, or 128 + signal.
 */
int test_daemon_end(test_daemon *daemon, int signal);

/* SIGTERM, which must give exit code 0, and start again. */
void test_daemon_restart(test_daemon *daemon, const char *const *extra);

/* Its log so far, to be freed. What has an effect outside may be logged a moment after that. */
char *test_daemon_log(const test_daemon *daemon);

/* How often `part` is in the log so far; waits until it is there so often (40 s, then fails). */
size_t test_daemon_log_count(const test_daemon *daemon, const char *part);
void test_daemon_await_log(const test_daemon *daemon, const char *part, size_t count);

/* Kills it if it runs and removes the directory. */
void test_daemon_fini(test_daemon *daemon);

/* The same as set-up and tear-down of a case: *state is the daemon, which does not run yet. */
int test_daemon_set_up(void **state);
int test_daemon_tear_down(void **state);

/* Whether any file below the directory `path` contains the bytes of `text`. */
bool test_directory_contains(const char *path, const char *text);

#endif
