/*
 * nng 1.5 takes EPIPE from sendmsg() as "this socket was closed by us" and stops accepting: one
 * connect+close on a listener ends it for good. ECONNRESET says what happened: the peer is gone.
 * Later versions (1.10 is known to) do so by themselves.
 */
#include "nng_workaround.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <nng/nng.h>

#define FIRST_MINOR_WITHOUT 10

/* Of the version that is loaded, which need not be the one that was compiled with. */
static bool
is_needed(void)
{
    static _Atomic int known; /* the same for the whole process: 0 unknown, 1 needed, -1 not */
    if (known == 0) {
        char *dot = NULL;
        long major = strtol(nng_version(), &dot, 10);
        bool old = major < 1 ||
                   (major == 1 && (*dot != '.' || strtol(dot + 1, NULL, 10) < FIRST_MINOR_WITHOUT));
        known = old ? 1 : -1;
    }
    return known > 0;
}

__attribute__((visibility("default"))) ssize_t
sendmsg(int fd, const struct msghdr *message, int flags)
{
    ssize_t sent = syscall(SYS_sendmsg, fd, message, flags);
    if (sent < 0 && errno == EPIPE)
        errno = is_needed() ? ECONNRESET : EPIPE;
    return sent;
}

static bool
is_ours(const char *name)
{
    Dl_info here, found;
    void *symbol = dlsym(RTLD_DEFAULT, name);
    return symbol && dladdr(symbol, &found) &&
           dladdr((void *)(uintptr_t)ptier_nng_workaround_check, &here) &&
           found.dli_fbase == here.dli_fbase;
}

ptier_status
ptier_nng_workaround_check(ptier_error *error)
{
    static const char *const names[] = {"sendmsg", "accept", "accept4", "nng_stream_send",
                                        "nng_stream_recv"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!is_ours(names[i]))
            return ptier_fail(error, PTIER_INTERNAL,
                              "this executable does not export %s: link with -rdynamic", names[i]);
    return PTIER_OK;
}
