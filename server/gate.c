/* See gate.h. nng tells the end of every pipe whose beginning it told, of refused ones too. */
#include "gate.h"

#include <stdbool.h>

#include "listen.h"

#define LOG_PAUSE_MS 1000 /* a flood of refusals must not become a flood of lines */

void
ptier_gate_init(ptier_gate *gate, uint64_t limit, ptier_log *log)
{
    gate->log = log;
    gate->limit = limit;
    atomic_init(&gate->count, 0);
    atomic_init(&gate->unlogged, 0);
    atomic_init(&gate->logged_ms, 0);
}

static void
refuse(ptier_gate *gate, nng_pipe pipe, bool stranger)
{
    (void)nng_pipe_close(pipe); /* in ADD_PRE this refuses it */
    atomic_fetch_add(&gate->unlogged, 1);
    int64_t now = ptier_monotonic_ms();
    int64_t last = atomic_load(&gate->logged_ms);
    if ((last != 0 && now - last < LOG_PAUSE_MS) ||
        !atomic_compare_exchange_strong(&gate->logged_ms, &last, now))
        return;
    unsigned long long count = atomic_exchange(&gate->unlogged, 0);
    if (stranger)
        ptier_log_write(gate->log, PTIER_LOG_WARN, "peer_refused",
                        "a client of another user; %llu refused since the last such line", count);
    else
        ptier_log_write(gate->log, PTIER_LOG_WARN, "peer_refused",
                        "max-connections is reached (%llu); %llu refused since the last such line",
                        (unsigned long long)gate->limit, count);
}

static void
on_pipe(nng_pipe pipe, nng_pipe_ev event, void *argument)
{
    ptier_gate *gate = argument;
    if (event == NNG_PIPE_EV_REM_POST) {
        atomic_fetch_sub(&gate->count, 1);
        return;
    }
    uint64_t before = atomic_fetch_add(&gate->count, 1);
    if (ptier_peer_role(pipe) < PTIER_ROLE_READER)
        refuse(gate, pipe, true);
    else if (before >= gate->limit)
        refuse(gate, pipe, false);
}

ptier_status
ptier_gate_guard(ptier_gate *gate, nng_socket socket, ptier_error *error)
{
    int rv = nng_pipe_notify(socket, NNG_PIPE_EV_ADD_PRE, on_pipe, gate);
    if (rv == 0)
        rv = nng_pipe_notify(socket, NNG_PIPE_EV_REM_POST, on_pipe, gate);
    if (rv != 0)
        return ptier_fail(error, ptier_status_from_nng(rv), "cannot watch connections: %s",
                          nng_strerror(rv));
    return PTIER_OK;
}
