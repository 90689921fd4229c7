/* See program.h. Output goes to memory files, so that no pipe can fill up and no reader is needed.
 */
#ifndef _GNU_SOURCE
#endif
#include "support/program.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define WAIT_MS 30000
#define SAY_MS  20000
#define STEP_NS 2000000

static int64_t
now_ms(void)
{
    struct timespec now;
    assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &now), 0);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void
step(void)
{
    const struct timespec pause = {0, STEP_NS};
    (void)nanosleep(&pause, NULL); /* one poll of a condition; waking early is fine */
}

static int
memory_file(const char *text)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    assert_true(fd >= 0);
    if (text) {
        assert_int_equal(write(fd, text, strlen(text)), strlen(text));
        assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    }
    return fd;
}

void
ptier_test_program_start(ptier_test_program *program, const char *input, const char *const *argv)
{
    memset(program, 0, sizeof *program);
    int in = memory_file(input);
    program->files[0] = memory_file(NULL);
    program->files[1] = memory_file(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        sigset_t none;
        (void)sigemptyset(&none);
        (void)sigprocmask(SIG_SETMASK, &none, NULL);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failed test leaves nothing running */
        if (dup2(in, 0) == 0 && dup2(program->files[0], 1) == 1 && dup2(program->files[1], 2) == 2)
            (void)execv(argv[0], (char *const *)argv);
        _exit(127);
    }
    (void)close(in);
    program->pid = pid;
}

/* Takes over the whole of one output as it is now. */
static void
refresh(ptier_test_program *program, int stream)
{
    struct stat about;
    assert_int_equal(fstat(program->files[stream], &about), 0);
    size_t size = (size_t)about.st_size;
    char *text = realloc(program->texts[stream], size + 1);
    assert_non_null(text);
    program->texts[stream] = text;
    ssize_t got = pread(program->files[stream], text, size, 0);
    assert_true(got >= 0);
    text[got] = '\0';
}

bool
ptier_test_program_ended(ptier_test_program *program)
{
    int status;

    if (program->pid == 0)
        return true;
    pid_t got = waitpid(program->pid, &status, WNOHANG);
    assert_true(got == 0 || got == program->pid);
    if (got == 0)
        return false;
    program->code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    program->pid = 0;
    return true;
}

static void
kill_it(ptier_test_program *program)
{
    if (program->pid == 0)
        return;
    (void)kill(program->pid, SIGKILL);
    (void)waitpid(program->pid, NULL, 0);
    program->pid = 0;
    program->code = -1;
}

int
ptier_test_program_wait(ptier_test_program *program)
{
    int64_t deadline = now_ms() + WAIT_MS;

    while (!ptier_test_program_ended(program) && now_ms() < deadline)
        step();
    kill_it(program);
    refresh(program, PTIER_TEST_OUT);
    refresh(program, PTIER_TEST_ERR);
    return program->code;
}

bool
ptier_test_program_says(ptier_test_program *program, int stream, const char *text)
{
    int64_t deadline = now_ms() + SAY_MS;

    for (;;) {
        bool last = ptier_test_program_ended(program);
        refresh(program, stream);
        if (strstr(program->texts[stream], text))
            return true;
        if (last || now_ms() >= deadline)
            return false;
        step();
    }
}

void
ptier_test_program_signal(const ptier_test_program *program, int signal)
{
    assert_true(program->pid > 0);
    assert_int_equal(kill(program->pid, signal), 0);
}

void
ptier_test_program_free(ptier_test_program *program)
{
    kill_it(program);
    for (int i = 0; i < 2; i++) {
        if (program->files[i] > 0)
            (void)close(program->files[i]);
        free(program->texts[i]);
    }
    memset(program, 0, sizeof *program);
}
