/* See gate.h. nng tells the end of every pipe whose beginning it told, of refused ones too. */
#include "gate.h"

#include <stdlib.h>

#include "listen.h"

#define LOG_PAUSE_MS 1000 /* a flood of refusals must not become a flood of lines */

void
ptier_gate_init(ptier_gate *gate, uint64_t limit, const ptier_auth *auth,
                ptier_handshakes *handshakes, ptier_log *log)
{
    gate->log = log;
    gate->auth = auth;
    gate->handshakes = handshakes;
    gate->calls = (ptier_gate_side){gate, false};
    gate->events = (ptier_gate_side){gate, true};
    gate->limit = limit;
    atomic_init(&gate->count, 0);
    atomic_init(&gate->unlogged, 0);
    atomic_init(&gate->logged_ms, 0);
    pthread_mutex_init(&gate->lock, NULL);
    gate->strangers = NULL;
    gate->stranger_count = gate->stranger_room = 0;
}

void
ptier_gate_fini(ptier_gate *gate)
{
    free(gate->strangers);
    pthread_mutex_destroy(&gate->lock);
}

/* `stranger` NULL: there are too many. */
static void
tell_refusal(ptier_gate *gate, const ptier_peer *stranger)
{
    char who[PTIER_PEER_TEXT];
    atomic_fetch_add(&gate->unlogged, 1);
    int64_t now = ptier_monotonic_ms();
    int64_t last = atomic_load(&gate->logged_ms);
    if ((last != 0 && now - last < LOG_PAUSE_MS) ||
        !atomic_compare_exchange_strong(&gate->logged_ms, &last, now))
        return;
    unsigned long long count = atomic_exchange(&gate->unlogged, 0);
    if (stranger) {
        ptier_peer_text(stranger, who);
        ptier_log_write(gate->log, PTIER_LOG_WARN, "peer_refused",
                        "%s may not connect; %llu refused since the last such line", who, count);
    } else {
        ptier_log_write(gate->log, PTIER_LOG_WARN, "peer_refused",
                        "max-connections is reached (%llu); %llu refused since the last such line",
                        (unsigned long long)gate->limit, count);
    }
}

/* Calls may bring a token, where there are any. Listeners for events over tls want a certificate of
 * each client. */
static bool
may_connect(const ptier_gate_side *side, const ptier_peer *peer)
{
    if (peer->role >= PTIER_ROLE_READER)
        return true;
    return side->events ? peer->door == PTIER_DOOR_TLS : ptier_auth_has_tokens(side->gate->auth);
}

/* Notes a stranger. False: there are too many. */
static bool
let_stranger_in(ptier_gate *gate, uint32_t id)
{
    bool room = false;
    pthread_mutex_lock(&gate->lock);
    if (gate->stranger_count == gate->stranger_room) {
        size_t wanted = gate->stranger_room ? gate->stranger_room * 2 : 64;
        uint32_t *grown = realloc(gate->strangers, wanted * sizeof *grown);
        if (grown) {
            gate->strangers = grown;
            gate->stranger_room = wanted;
        }
    }
    if (gate->stranger_count < gate->stranger_room &&
        gate->stranger_count < gate->limit - gate->limit / 4) {
        gate->strangers[gate->stranger_count++] = id;
        room = true;
    }
    pthread_mutex_unlock(&gate->lock);
    return room;
}

static void
forget_stranger(ptier_gate *gate, uint32_t id)
{
    pthread_mutex_lock(&gate->lock);
    for (size_t i = 0; i < gate->stranger_count; i++)
        if (gate->strangers[i] == id) {
            gate->strangers[i] = gate->strangers[--gate->stranger_count];
            break;
        }
    pthread_mutex_unlock(&gate->lock);
}

/* Counts it, also when it is refused. */
static bool
enter(const ptier_gate_side *side, const ptier_peer *peer, uint32_t id)
{
    ptier_gate *gate = side->gate;
    uint64_t before = atomic_fetch_add(&gate->count, 1);
    if (!may_connect(side, peer))
        tell_refusal(gate, peer);
    else if (before >= gate->limit ||
             (peer->role < PTIER_ROLE_READER && !let_stranger_in(gate, id)))
        tell_refusal(gate, NULL);
    else
        return true;
    return false;
}

bool
ptier_gate_enter(ptier_gate *gate, const ptier_peer *peer, uint32_t id)
{
    bool entered = enter(&gate->calls, peer, id);
    if (!entered)
        atomic_fetch_sub(&gate->count, 1);
    return entered;
}

void
ptier_gate_leave(ptier_gate *gate, uint32_t id)
{
    forget_stranger(gate, id);
    atomic_fetch_sub(&gate->count, 1);
}

static void
on_pipe(nng_pipe pipe, nng_pipe_ev event, void *argument)
{
    const ptier_gate_side *side = argument;
    uint32_t id = (uint32_t)nng_pipe_id(pipe);
    if (event == NNG_PIPE_EV_REM_POST) {
        ptier_gate_leave(side->gate, id);
        return;
    }
    ptier_peer peer = ptier_auth_peer(side->gate->auth, pipe);
    if (peer.door != PTIER_DOOR_IPC)
        ptier_handshakes_done(side->gate->handshakes, pipe);
    if (!enter(side, &peer, id))
        (void)nng_pipe_close(pipe); /* in ADD_PRE this refuses it */
}

ptier_status
ptier_gate_guard(ptier_gate *gate, nng_socket socket, bool events, ptier_error *error)
{
    ptier_gate_side *side = events ? &gate->events : &gate->calls;
    int rv = nng_pipe_notify(socket, NNG_PIPE_EV_ADD_PRE, on_pipe, side);
    if (rv == 0)
        rv = nng_pipe_notify(socket, NNG_PIPE_EV_REM_POST, on_pipe, side);
    if (rv != 0)
        return ptier_fail(error, ptier_status_from_nng(rv), "cannot watch connections: %s",
                          nng_strerror(rv));
    return PTIER_OK;
}

bool
ptier_gate_is_crowded(const ptier_gate *gate)
{
    return atomic_load(&gate->count) >= gate->limit - gate->limit / 4;
}
