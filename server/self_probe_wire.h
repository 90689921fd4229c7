/*
 * One try of the self-probe: SP spoken over a byte stream of nng, as a client that shares nothing
 * with the sockets that it looks at. One thread, except cancel. For self_probe.c.
 */
#ifndef PTIER_SELF_PROBE_WIRE_H
#define PTIER_SELF_PROBE_WIRE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <nng/nng.h>
#include <nng/supplemental/tls/tls.h>

#include "call.h"

typedef struct ptier_probe_wire {
    nng_aio *aio; /* others may only cancel it */
    atomic_bool cancelled;
    nng_stream *stream;
    bool ipc;
    int64_t deadline_ms;
    uint8_t *buffer;
} ptier_probe_wire;

/* How far a try came. */
typedef enum ptier_probe_stage {
    PTIER_PROBE_NOTHING = 0, /* no connection, or no SP handshake */
    PTIER_PROBE_SHAKEN = 1,  /* the other end speaks SP, and then nothing of use came */
    PTIER_PROBE_OTHER = 2,   /* an answer, of another run of a daemon than ours */
    PTIER_PROBE_DONE = 3,    /* our own answer, or heartbeat */
} ptier_probe_stage;

/* False: out of memory, and nothing to release. */
bool ptier_probe_wire_init(ptier_probe_wire *wire);
void ptier_probe_wire_fini(ptier_probe_wire *wire);

/* A Health.Check, or with `events` a wait for a heartbeat; ends within `patience_ms`. `why` is
 * a text without end of life that says what failed. */
ptier_probe_stage ptier_probe_wire_try(ptier_probe_wire *wire, const char *url, nng_tls_config *tls,
                                       bool events, const uint8_t boot_id[PTIER_ID_BYTES],
                                       int64_t patience_ms, const char **why);

/* Ends what is under way and refuses what is to come. To be repeated: no effect on what is just
 * about to begin. Any thread. */
void ptier_probe_wire_cancel(ptier_probe_wire *wire);

#endif
