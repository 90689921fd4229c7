/*
 * Clients that are closed while an attempt to connect is just being made: at each point of it where
 * its thread takes a lock, from nng's start of a dialer or our own connect() on, that thread is
 * held up, as on a busy machine.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <dlfcn.h>
#include <nng/nng.h>
#include <proxytier/client.h>
#include <pthread.h>
#include <stdatomic.h>

#define POINTS  16
#define HELD_MS 200
#define ALARM_S 30 /* a client that does not close ends the program */

static int point; /* where to be held; 0: before the start */
static atomic_bool held;
static _Thread_local int locks_left;

static void
pause_ms(int64_t ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static void
hold(void)
{
    atomic_store(&held, true);
    pause_ms(HELD_MS);
}

/* Before nng's own, and the C library's, in the order in which the process looks symbols up. */
__attribute__((visibility("default"))) int
pthread_mutex_lock(pthread_mutex_t *mutex)
{
    typedef int (*lock_fn)(pthread_mutex_t * mutex);
    static _Atomic(lock_fn) real;
    if (!real)
        real = (lock_fn)(uintptr_t)dlsym(RTLD_NEXT, "pthread_mutex_lock");
    if (locks_left && --locks_left == 0)
        hold();
    return real(mutex);
}

/* Of unix sockets: what follows is part of the attempt, too. */
__attribute__((visibility("default"))) int
/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): the system's is __fd */
connect(int fd, const struct sockaddr *address, socklen_t length)
{
    int (*real)(int, const struct sockaddr *, socklen_t) =
        (int (*)(int, const struct sockaddr *, socklen_t))(uintptr_t)dlsym(RTLD_NEXT, "connect");
    assert_non_null(real);
    if (address->sa_family != AF_UNIX || locks_left || atomic_load(&held))
        return real(fd, address, length);
    if (point == 0)
        hold();
    locks_left = point;
    return real(fd, address, length);
}

__attribute__((visibility("default"))) int
nng_dialer_start(nng_dialer dialer, int flags)
{
    int (*real)(nng_dialer dialer, int flags) =
        (int (*)(nng_dialer, int))(uintptr_t)dlsym(RTLD_NEXT, "nng_dialer_start");
    assert_non_null(real);
    if (point == 0)
        hold();
    locks_left = point;
    int rv = real(dialer, flags);
    locks_left = 0;
    atomic_store(&held, true); /* it took fewer locks */
    return rv;
}

static void
close_amid_start(const char *url)
{
    for (point = 0; point < POINTS; point++) {
        ptier_client_options options;
        ptier_client *client;
        ptier_error error;
        (void)alarm(ALARM_S);
        atomic_store(&held, false);
        ptier_client_options_init(&options);
        options.url = url;
        if (ptier_client_open(&options, &client, &error))
            fail_msg("%s", error.message);
        while (!atomic_load(&held))
            pause_ms(1);
        ptier_client_close(client);
        (void)alarm(0);
    }
}

static void
client_closes_amid_the_start_of_its_ipc_dialer(void **state)
{
    (void)state;
    close_amid_start("ipc:///nowhere/rpc.sock");
}

static void
client_closes_amid_the_start_of_its_tcp_dialer(void **state)
{
    (void)state;
    close_amid_start("tcp://127.0.0.1:1");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(client_closes_amid_the_start_of_its_ipc_dialer),
        cmocka_unit_test(client_closes_amid_the_start_of_its_tcp_dialer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
