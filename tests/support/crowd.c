/* See crowd.h. A child only uses what it was given before the fork, sockets, and no heap. */
#include "support/crowd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "framing.h"
#include "proxytier/v1/rpc.pb-c.h"

#define SIZE_MAX_EACH 300
#define LIMIT_S       30
#define TICK_MS       20
#define BEFORE        9 /* a byte 01, and the length */
#define EXHAUSTED     8

typedef struct member {
    const char *path;
    uint8_t request[512];
    size_t request_length;
    int fds[SIZE_MAX_EACH];
    size_t size, served;
    unsigned rate;
    int tell;
} member;

static volatile sig_atomic_t ended;

static void
on_term(int signal)
{
    (void)signal;
    ended = 1;
}

void
crowd_raise_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit); /* connecting fails otherwise, which is told */
}

static void
fill_request(member *m, const char *key)
{
    Proxytier__V1__RequestHeader header = PROXYTIER__V1__REQUEST_HEADER__INIT;
    uint8_t *at = m->request + BEFORE;
    size_t key_length = strlen(key);
    header.method = (char *)(uintptr_t) "/proxytier.v1.ProxyCache/Get";
    header.timeout_ms = LIMIT_S * 1000;
    ptier_frame_prefix(at, UINT32_C(0x80000001));
    size_t packed = proxytier__v1__request_header__pack(&header, at + 8);
    ptier_frame_prefix(at + 4, packed);
    at += 8 + packed;
    *at++ = 1 << 3 | 2; /* GetRequest.key */
    *at++ = (uint8_t)key_length;
    memcpy(at, key, key_length);
    m->request_length = (size_t)(at + key_length - m->request);
    memset(m->request, 0, BEFORE);
    m->request[0] = 1;
    m->request[7] = (uint8_t)((m->request_length - BEFORE) >> 8);
    m->request[8] = (uint8_t)(m->request_length - BEFORE);
}

static void
give_up(const char *why)
{
    ssize_t written = write(STDERR_FILENO, why, strlen(why));
    (void)written;
    _exit(1);
}

static int
dial(const member *m)
{
    const struct timeval limit = {.tv_sec = LIMIT_S};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, m->path);
    for (int tries = 0; tries < LIMIT_S * 1000; tries++) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
            give_up("crowd: no descriptors\n");
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
            return fd;
        close(fd);
        (void)poll(NULL, 0, 1);
    }
    give_up("crowd: cannot connect\n");
    return -1;
}

static int
join(const member *m)
{
    static const uint8_t hello[8] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
    uint8_t theirs[8];
    int fd = dial(m);
    if (send(fd, hello, sizeof hello, MSG_NOSIGNAL) != sizeof hello ||
        recv(fd, theirs, sizeof theirs, MSG_WAITALL) != sizeof theirs || theirs[5] != 0x31)
        give_up("crowd: no SP greeting\n");
    return fd;
}

static void
ask(const member *m, int fd)
{
    if (send(fd, m->request, m->request_length, MSG_NOSIGNAL) != (ssize_t)m->request_length)
        give_up("crowd: cannot send\n");
}

/* Reads a reply: its code, the second field that matters being the first of ResponseHeader. */
static int
read_code(int fd)
{
    uint8_t reply[8192];
    if (recv(fd, reply, BEFORE, MSG_WAITALL) != BEFORE)
        give_up("crowd: no reply\n");
    size_t length = (size_t)reply[7] << 8 | reply[8];
    if (length < 8 || length > sizeof reply ||
        recv(fd, reply, length, MSG_WAITALL) != (ssize_t)length)
        give_up("crowd: half a reply\n");
    /* OK is proto3's zero: left out. Then comes another field. */
    return reply[7] > 0 && reply[8] == (1 << 3 | 0) ? reply[9] : 0;
}

static void
have_all_served(member *m)
{
    static bool done[SIZE_MAX_EACH];
    while (m->served < m->size) {
        for (size_t i = 0; i < m->size; i++)
            if (!done[i])
                ask(m, m->fds[i]);
        for (size_t i = 0; i < m->size; i++) {
            int code = done[i] ? EXHAUSTED : read_code(m->fds[i]);
            if (code != 0 && code != EXHAUSTED)
                give_up("crowd: a call failed\n");
            if (code == 0) {
                done[i] = true;
                m->served++;
            }
        }
        (void)poll(NULL, 0, 5); /* a full daemon says so at once: after a pause */
    }
}

static void
be_hostile(member *m, unsigned turn)
{
    static const uint8_t hello[8] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
    static const uint8_t oversize[] = {1, 255, 255, 255, 255, 255, 255, 255, 216, 1, 2, 3};
    const size_t size = m->size > 0 ? m->size : 1;
    int *fd = &m->fds[turn % size];
    uint8_t garbage[64];
    for (size_t i = 0; i < sizeof garbage; i++)
        garbage[i] = (uint8_t)(turn * 31 + i * 17);
    const void *words = garbage;
    size_t length = sizeof garbage;
    switch (turn / size % 5) {
    case 0: /* breaks off */
        length = 0;
        break;
    case 1:
        break;
    case 2:
        words = oversize;
        length = sizeof oversize;
        break;
    case 3: /* a call whose reply nobody reads */
        words = m->request;
        length = m->request_length;
        break;
    default: /* half a greeting, on a connection of its own */
        close(*fd);
        *fd = dial(m);
        words = hello;
        length = 4;
    }
    ssize_t sent = send(*fd, words, length, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)sent;
    close(*fd);
    *fd = dial(m);
    sent = send(*fd, hello, sizeof hello, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)sent;
    m->served++;
}

static void
run_hostile(member *m)
{
    (void)setpriority(PRIO_PROCESS, 0, 19);
    struct timespec begun, now;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    for (unsigned turn = 0; !ended;) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        int64_t ms = (now.tv_sec - begun.tv_sec) * 1000 + (now.tv_nsec - begun.tv_nsec) / 1000000;
        int64_t due = ms * m->rate / 1000;
        /* What could not be done in time is not made up for. */
        if (due > turn + m->rate)
            begun = now, turn = 0, due = 0;
        while (!ended && (int64_t)turn < due)
            be_hostile(m, turn++);
        (void)poll(NULL, 0, TICK_MS);
    }
}

static void
be_member(member *m, crowd_manner manner, pid_t parent)
{
    const struct sigaction end = {.sa_handler = on_term};
    sigset_t none;
    sigemptyset(&none);
    (void)sigaction(SIGTERM, &end, NULL);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    for (size_t i = 0; i < m->size; i++)
        m->fds[i] = join(m);
    if (manner == CROWD_CALLS)
        have_all_served(m);
    if (write(m->tell, "+", 1) != 1)
        _exit(1);
    if (manner == CROWD_HOSTILE)
        run_hostile(m);
    while (!ended)
        (void)poll(NULL, 0, 100);
    _exit(write(m->tell, &m->served, sizeof m->served) == sizeof m->served ? 0 : 1);
}

void
crowd_start(crowd *made, const char *url, crowd_manner manner, size_t size, const char *key,
            unsigned rate)
{
    static member m;
    pid_t parent = getpid();
    assert_true(size >= CROWD_PROCESSES);
    m = (member){.path = url + strlen("ipc://"), .rate = rate / CROWD_PROCESSES};
    fill_request(&m, key);
    for (size_t i = 0; i < CROWD_PROCESSES; i++) {
        int ends[2];
        m.size = size * (i + 1) / CROWD_PROCESSES - size * i / CROWD_PROCESSES;
        assert_true(m.size <= SIZE_MAX_EACH);
        assert_int_equal(pipe(ends), 0);
        m.tell = ends[1];
        made->pids[i] = fork();
        assert_true(made->pids[i] >= 0);
        if (made->pids[i] == 0)
            be_member(&m, manner, parent);
        close(ends[1]);
        made->told[i] = ends[0];
    }
    for (size_t i = 0; i < CROWD_PROCESSES; i++) {
        char ready;
        struct pollfd fd = {.fd = made->told[i], .events = POLLIN};
        assert_int_equal(poll(&fd, 1, 2 * LIMIT_S * 1000), 1);
        assert_int_equal(read(made->told[i], &ready, 1), 1);
    }
}

size_t
crowd_stop(crowd *made)
{
    size_t all = 0;
    for (size_t i = 0; i < CROWD_PROCESSES; i++)
        (void)kill(made->pids[i], SIGTERM);
    for (size_t i = 0; i < CROWD_PROCESSES; i++) {
        size_t one = 0;
        int status;
        assert_int_equal(read(made->told[i], &one, sizeof one), sizeof one);
        close(made->told[i]);
        assert_int_equal(waitpid(made->pids[i], &status, 0), made->pids[i]);
        assert_int_equal(status, 0);
        all += one;
    }
    return all;
}
