#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define START_S       20
#define STOP_S        30
#define ARGUMENTS_MAX 48

static void
pause_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

static bool
accepts(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path); /* fits: process.h */
    bool there = connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
    close(fd);
    return there;
}

/* False: it ended before. */
static bool
await(bench_process *process, const char *name)
{
    double deadline = bench_seconds() + START_S;
    while (!accepts(process->socket)) {
        if (waitpid(process->pid, NULL, WNOHANG) == process->pid)
            return false;
        if (bench_seconds() > deadline)
            bench_fail("%s does not answer within %d s", name, START_S);
        pause_ms(2);
    }
    return true;
}

__attribute__((noreturn)) static void
fail_with_log(const char *program, const char *log_path)
{
    char text[2000] = "";
    FILE *file = fopen(log_path, "r");
    if (file) {
        text[fread(text, 1, sizeof text - 1, file)] = '\0';
        fclose(file);
    }
    bench_fail("%s ended: %s", program, text);
}

/* What it says goes to `log_path`. */
static void
start(bench_process *process, const char *const *arguments, const char *log_path)
{
    process->pid = fork();
    if (process->pid < 0)
        bench_fail("cannot fork: %s", strerror(errno));
    if (process->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        int log = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (log < 0 || dup2(log, STDOUT_FILENO) < 0 || dup2(log, STDERR_FILENO) < 0)
            _exit(126);
        execvp(arguments[0], (char *const *)(uintptr_t)arguments);
        (void)dprintf(STDERR_FILENO, "cannot run it: %s: install it, or name its folder in PATH",
                      strerror(errno));
        _exit(127);
    }
    if (!await(process, arguments[0]))
        fail_with_log(arguments[0], log_path);
}

static void
set_socket(bench_process *process, const char *directory, const char *name)
{
    int length = snprintf(process->socket, sizeof process->socket, "%s/%s.sock", directory, name);
    if (length >= (int)sizeof process->socket)
        bench_fail("the directory's path is too long for a unix socket: %s", directory);
    (void)snprintf(process->url, sizeof process->url, "ipc://%s", process->socket); /* fits */
}

void
bench_daemon_start(bench_process *process, const bench_run *bench, const char *name,
                   const char *const *extra)
{
    char data[256], events[256], log[256];
    set_socket(process, bench->work, name);
    (void)snprintf(data, sizeof data, "%s/%s", bench->work, name); /* shorter than the socket */
    (void)snprintf(events, sizeof events, "ipc://%s/%s.events", bench->work, name);
    (void)snprintf(log, sizeof log, "%s/%s.log", bench->work, name);
    const char *arguments[ARGUMENTS_MAX] = {PTIER_BIN_DIR "/proxytierd",
                                            "--data-dir",
                                            data,
                                            "--listen",
                                            process->url,
                                            "--events",
                                            events};
    size_t count = 7;
    for (; extra && *extra && count < ARGUMENTS_MAX - 1; extra++)
        arguments[count++] = *extra;
    start(process, arguments, log);
}

void
bench_redis_start(bench_process *process, const bench_run *bench, bool append_only)
{
    char directory[256], log[256];
    const char *name = append_only ? "redis-aof" : "redis";
    set_socket(process, bench->work, name);
    (void)snprintf(directory, sizeof directory, "%s/%s", bench->work, name);
    (void)snprintf(log, sizeof log, "%s/%s.log", bench->work, name);
    if (mkdir(directory, 0700) && errno != EEXIST)
        bench_fail("cannot make %s: %s", directory, strerror(errno));
    const char *const arguments[] = {"redis-server",
                                     "--port",
                                     "0",
                                     "--unixsocket",
                                     process->socket,
                                     "--dir",
                                     directory,
                                     "--save",
                                     "",
                                     "--appendonly",
                                     append_only ? "yes" : "no",
                                     "--appendfsync",
                                     "everysec",
                                     NULL};
    start(process, arguments, log);
}

void
bench_memcached_start(bench_process *process, const bench_run *bench)
{
    char log[256];
    set_socket(process, bench->work, "memcached");
    (void)snprintf(log, sizeof log, "%s/memcached.log", bench->work);
    const char *const arguments[] = {"memcached", "-s", process->socket, "-m",
                                     "2048",      "-u", "root",          NULL};
    start(process, arguments, log);
}

void
bench_process_stop(bench_process *process)
{
    double deadline = bench_seconds() + STOP_S;
    (void)kill(process->pid, SIGTERM); /* it may have ended */
    while (waitpid(process->pid, NULL, WNOHANG) == 0) {
        if (bench_seconds() > deadline)
            (void)kill(process->pid, SIGKILL);
        pause_ms(2);
    }
    process->pid = 0;
}

double
bench_process_cpu(pid_t pid)
{
    char path[64], text[1024];
    unsigned long user = 0, system = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = '\0';
    const char *behind_name = strrchr(text, ')');
    /* NOLINTNEXTLINE(cert-err34-c): the kernel's own numbers */
    if (!behind_name || sscanf(behind_name, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
                               &user, &system) != 2)
        return 0;
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static double
status_kb(pid_t pid, const char *name)
{
    char path[64], line[256];
    double kb = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, name, strlen(name)) == 0)
            kb = strtod(line + strlen(name), NULL);
    if (file)
        fclose(file);
    return kb;
}

double
bench_process_peak_kb(pid_t pid)
{
    return status_kb(pid, "VmHWM:");
}

double
bench_process_resident_kb(pid_t pid)
{
    return status_kb(pid, "VmRSS:");
}
