/* See daemon.h. */
#include "support/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "proxytier/v1/info.pb-c.h"
#include "support/raw_client.h"
#include "support/monotonic.h"

#define LIMIT_MS      20000
#define LOG_MS        40000
#define ARGUMENTS_MAX 40
#define SANITIZER     99 /* exit code: see run_tests.py */

void
test_daemon_init(test_daemon *daemon)
{
    memset(daemon, 0, sizeof *daemon);
    strcpy(daemon->directory, "/tmp/ptier-test-XXXXXX");
    assert_non_null(mkdtemp(daemon->directory));
    (void)snprintf(daemon->data_dir, sizeof daemon->data_dir, "%s/data", daemon->directory);
    (void)snprintf(daemon->url, sizeof daemon->url, "ipc://%s/rpc.sock", daemon->directory);
    (void)snprintf(daemon->events_url, sizeof daemon->events_url, "ipc://%s/events.sock",
                   daemon->directory);
    (void)snprintf(daemon->log_path, sizeof daemon->log_path, "%s/log", daemon->directory);
}

/* In the child. Only what is safe after fork in a program with threads. */
static void
become_daemon(const test_daemon *daemon, char *const *arguments, pid_t parent)
{
    sigset_t none;
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(126);
    int log = open(daemon->log_path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (log < 0 || dup2(log, STDERR_FILENO) < 0 || dup2(log, STDOUT_FILENO) < 0)
        _exit(126);
    for (int fd = 3; fd < 256; fd++)
        (void)close(fd); /* most are not open */
    execv(arguments[0], arguments);
    _exit(127);
}

void
test_daemon_spawn(test_daemon *daemon, const char *const *extra)
{
    const char *usual[] = {PTIER_BIN_DIR "/proxytierd",
                           "--data-dir",
                           daemon->data_dir,
                           "--listen",
                           daemon->url,
                           "--events",
                           daemon->events_url};
    const char *arguments[ARGUMENTS_MAX];
    size_t count = sizeof usual / sizeof *usual;
    memcpy(arguments, usual, sizeof usual);
    for (; extra && *extra; extra++) {
        assert_true(count < ARGUMENTS_MAX - 1);
        arguments[count++] = *extra;
    }
    arguments[count] = NULL;
    pid_t parent = getpid();
    daemon->pid = fork();
    assert_true(daemon->pid >= 0);
    if (daemon->pid == 0)
        become_daemon(daemon, (char *const *)(uintptr_t)arguments, parent);
}

/* -1: still running. */
static int
exit_code(test_daemon *daemon, bool block)
{
    int status;
    pid_t ended = waitpid(daemon->pid, &status, block ? 0 : WNOHANG);
    if (ended == 0)
        return -1;
    assert_int_equal(ended, daemon->pid);
    daemon->pid = 0;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

char *
test_daemon_log(const test_daemon *daemon)
{
    FILE *file = fopen(daemon->log_path, "r");
    char *text = calloc(1, 1 << 20);
    assert_non_null(text);
    if (file) {
        size_t length = fread(text, 1, (1 << 20) - 1, file);
        text[length] = '\0';
        fclose(file);
    }
    return text;
}

size_t
test_daemon_log_count(const test_daemon *daemon, const char *part)
{
    size_t count = 0;
    char *log = test_daemon_log(daemon);
    for (const char *at = log; (at = strstr(at, part)) != NULL; at++)
        count++;
    free(log);
    return count;
}

static void
fail_with_log(const test_daemon *daemon, const char *what)
{
    char *log = test_daemon_log(daemon);
    print_error("%s; its log:\n%s\n", what, log);
    free(log);
    fail_msg("%s", what);
}

void
test_daemon_await_log(const test_daemon *daemon, const char *part, size_t count)
{
    int64_t deadline = ptier_test_now() + LOG_MS;
    while (test_daemon_log_count(daemon, part) < count) {
        if (ptier_test_now() > deadline)
            fail_with_log(daemon, part);
        (void)usleep(10000); /* between two looks */
    }
}

static bool
answers(raw_client *client)
{
    Proxytier__V1__CheckRequest check = PROXYTIER__V1__CHECK_REQUEST__INIT;
    raw_reply reply = raw_client_call(client, "/proxytier.v1.Health/Check", &check.base,
                                      &proxytier__v1__check_response__descriptor);
    bool answered = reply.header != NULL;
    raw_reply_free(&reply);
    return answered;
}

void
test_daemon_start(test_daemon *daemon, const char *const *extra)
{
    raw_client client;
    int64_t deadline = ptier_test_now() + LIMIT_MS;
    test_daemon_spawn(daemon, extra);
    raw_client_open(&client, daemon->url);
    client.timeout_ms = 200;
    while (!answers(&client)) {
        if (exit_code(daemon, false) >= 0)
            fail_with_log(daemon, "the daemon ended");
        if (ptier_test_now() > deadline)
            fail_with_log(daemon, "the daemon does not answer");
    }
    raw_client_close(&client);
}

static int
wait_for_end(test_daemon *daemon)
{
    int64_t deadline = ptier_test_now() + LIMIT_MS;
    for (;;) {
        int code = exit_code(daemon, false);
        if (code == SANITIZER)
            fail_with_log(daemon, "a sanitizer found something in the daemon");
        if (code >= 0)
            return code;
        if (ptier_test_now() > deadline)
            fail_with_log(daemon, "the daemon does not end");
        (void)usleep(2000); /* between two looks */
    }
}

int
test_daemon_run(test_daemon *daemon, const char *const *extra)
{
    test_daemon_spawn(daemon, extra);
    return wait_for_end(daemon);
}

int
test_daemon_end(test_daemon *daemon, int signal)
{
    assert_true(daemon->pid > 0);
    assert_int_equal(kill(daemon->pid, signal), 0);
    return wait_for_end(daemon);
}

void
test_daemon_restart(test_daemon *daemon, const char *const *extra)
{
    if (test_daemon_end(daemon, SIGTERM) != 0)
        fail_with_log(daemon, "the daemon did not end well");
    test_daemon_start(daemon, extra);
}

static int
remove_item(const char *path, const struct stat *status, int kind, struct FTW *place)
{
    (void)status;
    (void)kind;
    (void)place;
    return remove(path);
}

void
test_daemon_fini(test_daemon *daemon)
{
    if (daemon->pid > 0) {
        (void)kill(daemon->pid, SIGKILL); /* it may be gone */
        (void)exit_code(daemon, true);
    }
    (void)nftw(daemon->directory, remove_item, 16,
               FTW_DEPTH | FTW_PHYS); /* left over files harm nobody */
}

int
test_daemon_set_up(void **state)
{
    test_daemon *daemon = calloc(1, sizeof *daemon);
    assert_non_null(daemon);
    test_daemon_init(daemon);
    *state = daemon;
    return 0;
}

int
test_daemon_tear_down(void **state)
{
    test_daemon_fini(*state);
    free(*state);
    return 0;
}

/* nftw takes no context; tests have one thread here. */
static const char *wanted;

static int
search_item(const char *path, const struct stat *status, int kind, struct FTW *place)
{
    (void)place;
    if (kind != FTW_F || !S_ISREG(status->st_mode))
        return 0;
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    char *bytes = malloc((size_t)status->st_size + 1);
    assert_non_null(bytes);
    size_t length = fread(bytes, 1, (size_t)status->st_size, file);
    fclose(file);
    int found = memmem(bytes, length, wanted, strlen(wanted)) != NULL;
    free(bytes);
    return found;
}

bool
test_directory_contains(const char *path, const char *text)
{
    wanted = text;
    return nftw(path, search_item, 16, FTW_PHYS) == 1;
}
