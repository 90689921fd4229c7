/*
 * One call over all its tries, without what sends and waits: the request made, the reply read, and
 * whether to try again. Synchronous and asynchronous calls are both made of it. Not thread-safe.
 */
#ifndef PTIER_ATTEMPT_H
#define PTIER_ATTEMPT_H

#include <stdbool.h>
#include <stdint.h>

#include <nng/nng.h>
#include <protobuf-c/protobuf-c.h>
#include <proxytier/client.h>

#include "arena.h"
#include "framing.h"
#include "run.h"
#include "transport.h"

#define PTIER_REQUEST_ID_BYTES 16

/* The first group is set by who makes it, all else is 0. */
typedef struct ptier_attempt {
    ptier_client *client;
    const char *method;
    bool twice, secret;              /* as in PTIER_METHOD_TABLE */
    const ProtobufCMessage *request; /* NULL: `raw` is the packed body */
    const void *raw;
    size_t body_length;
    int64_t deadline; /* ptier_monotonic_ms */

    int64_t begun; /* ptier_near_now before the first try */
    uint8_t request_id[PTIER_REQUEST_ID_BYTES];
    uint32_t tries;        /* that failed */
    bool uncertain;        /* a try was sent and nobody said what became of it */
    ptier_run run;         /* of the daemon that may have seen the first try */
    int64_t first_sent;    /* ptier_monotonic_ms */
    int64_t first_sent_ms; /* the same on the daemon's clock, or before */
    bool answered;         /* the last failure is the daemon's own word */
    ptier_fate fate;       /* of the last try, set by who sends it */
    ptier_frame frame;     /* of the reply; borrowed from it */
} ptier_attempt;

/* Before the first try. INTERNAL: no random numbers. */
PTIER_MUST_CHECK ptier_status ptier_attempt_begin(ptier_attempt *a, ptier_error *error);

/* The request of the next try. NULL: out of memory. */
nng_msg *ptier_attempt_pack(ptier_attempt *a);

/* Reads the reply's header. OK: a->frame's body is the method's reply. */
PTIER_MUST_CHECK ptier_status ptier_attempt_read(ptier_attempt *a, const nng_msg *message,
                                                 ptier_error *error);

/* A try failed with `status`. True: wait so long, then try again, if the deadline allows. */
bool ptier_attempt_again(ptier_attempt *a, ptier_status status, int64_t *pause_ms);

/* The last word to the caller, after the last try failed with `status` and `failure`. */
ptier_status ptier_attempt_end(const ptier_attempt *a, ptier_status status,
                               const ptier_error *failure, ptier_error *error);

/* The reply, in an *arena of its own: *reply points to a message of `type`, or to the
 * ptier_record_list that such a message is. */
PTIER_MUST_CHECK ptier_status ptier_attempt_unpack(const ptier_attempt *a,
                                                   const ProtobufCMessageDescriptor *type,
                                                   ptier_arena **arena, void *reply,
                                                   ptier_error *error);

/* Wiped if it may hold credentials. NULL is fine. */
void ptier_attempt_free_reply(const ptier_attempt *a, nng_msg *reply);

#endif
