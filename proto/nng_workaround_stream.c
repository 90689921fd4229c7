/*
 * nng 1.5 does not complete an operation on a stream whose aio was already stopped: it sets
 * NNG_ECANCELED and forgets it. Its only reap thread then waits for ever (a peer that vanishes with
 * messages unread: no connection of the process ends any more, and none is replaced), and over TLS
 * a pipe leaks. Completing it with ECONNRESET lets the pipe end. (Not ECLOSED: that would stop the
 * listener.) A dialer that is closed while it is being started hangs for the same reason, but where
 * nothing can be replaced: so the closer has to know that the start is past that.
 * Weak, since a program may have them from the SDK and from itself.
 */
#include "nng_workaround_stream.h"

#include <dlfcn.h>
#include <stdlib.h>

#include <nng/nng.h>

/* What nng itself would find by that name is not nng's. */
static bool
is_replaced(const char *name)
{
    Dl_info found, nng;
    void *symbol = dlsym(RTLD_DEFAULT, name), *own = dlsym(RTLD_DEFAULT, "nng_close");
    return symbol && own && dladdr(symbol, &found) && dladdr(own, &nng) &&
           found.dli_fbase != nng.dli_fbase;
}

bool
ptier_nng_workaround_stream_acts(void)
{
    return is_replaced("nng_stream_send") && is_replaced("nng_stream_recv");
}

static _Thread_local atomic_bool *dial_begun;

void
ptier_nng_workaround_stream_mark_dials(atomic_bool *begun)
{
    dial_begun = begun;
}

typedef void (*stream_fn)(nng_stream *stream, nng_aio *aio);
typedef void (*dial_fn)(nng_stream_dialer *dialer, nng_aio *aio);

void
ptier_nng_workaround_stream(void)
{
}

static uintptr_t
real_function(const char *name)
{
    void *symbol = dlsym(RTLD_NEXT, name);
    if (!symbol)
        abort(); /* linked against no nng at all: a build fault */
    return (uintptr_t)symbol;
}

static void
complete_if_forgotten(nng_aio *aio)
{
    if (nng_aio_result(aio) == NNG_ECANCELED)
        nng_aio_finish(aio, NNG_ECONNRESET);
}

__attribute__((weak, visibility("default"))) void
nng_stream_send(nng_stream *stream, nng_aio *aio)
{
    static _Atomic(stream_fn) real; /* the same for the whole process: found once */
    stream_fn call = real;
    if (!call)
        real = call = (stream_fn)real_function("nng_stream_send");
    call(stream, aio);
    complete_if_forgotten(aio);
}

__attribute__((weak, visibility("default"))) void
nng_stream_recv(nng_stream *stream, nng_aio *aio)
{
    static _Atomic(stream_fn) real; /* the same for the whole process: found once */
    stream_fn call = real;
    if (!call)
        real = call = (stream_fn)real_function("nng_stream_recv");
    call(stream, aio);
    complete_if_forgotten(aio);
}

/* What nng_dialer_start calls last, in its own thread. */
__attribute__((weak, visibility("default"))) void
nng_stream_dialer_dial(nng_stream_dialer *dialer, nng_aio *aio)
{
    static _Atomic(dial_fn) real; /* the same for the whole process: found once */
    dial_fn call = real;
    if (!call)
        real = call = (dial_fn)real_function("nng_stream_dialer_dial");
    if (dial_begun)
        atomic_store(dial_begun, true);
    call(dialer, aio);
}
