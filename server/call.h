/*
 * One request on its way through the daemon, whatever door it came in by: header checked, method
 * found, role compared, body unpacked, handler run, reply packed. Knows no sockets. Threads: a call
 * belongs to one thread at a time; the service it points to is shared and read-only but for its
 * atomics.
 */
#ifndef PTIER_CALL_H
#define PTIER_CALL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <proxytier/cache.h>

#include "arena.h"
#include "auth.h"
#include "bytes.h"
#include "gate.h"
#include "journal.h"
#include "log.h"

#define PTIER_MESSAGE_MAX        ((size_t)16 * 1024 * 1024) /* one request or reply, framing included */
#define PTIER_PAGE_MAX           1000
#define PTIER_TIMEOUT_DEFAULT_MS 5000

/* Where a method may run. */
typedef enum ptier_lane {
    PTIER_LANE_INLINE = 0, /* never blocks: on the thread that received it */
    PTIER_LANE_READ = 1,   /* may read the disk */
    PTIER_LANE_WRITE = 2,  /* may wait for the disk */
    PTIER_LANE_PICK = 3,   /* may look at every entry to find one, but seldom does */
    PTIER_LANE_SCAN = 4,   /* walks over all entries */
    PTIER_LANE_COUNT = 5,
} ptier_lane;

/* Kinds of addresses of which one does not answer: what self_probe.c found. */
#define PTIER_FAILING_CALLS  1u
#define PTIER_FAILING_EVENTS 2u

/* What handlers work with. All pointers are borrowed and outlive every call. */
typedef struct ptier_service {
    ptier_cache *cache;
    ptier_journal *journal;
    ptier_log *log;
    ptier_gate *gate;
    ptier_auth *auth;
    const char *event_urls[PTIER_DOOR_COUNT]; /* NULL: events are not offered there */
    uint8_t boot_id[PTIER_ID_BYTES];
    uint32_t heartbeat_ms;
    uint32_t failure_threshold;
    int64_t default_ttl_ms;
    void (*on_shutdown)(void *context); /* the Shutdown call; any thread; must not block */
    void *shutdown_context;
    unsigned enabled_tiers;        /* bit (1 << ptier_tier_id) each */
    atomic_uint degraded_tiers;    /* the same */
    atomic_uint failing_endpoints; /* PTIER_FAILING_* */
    struct ptier_self_probe
        *self_probe;        /* who is told of addresses that are opened; NULL: nobody */
    atomic_bool stopping;   /* refuse everything but Health.Check */
    atomic_bool hurrying;   /* the time to finish is over: what waits is refused */
    atomic_bool backing_up; /* one at a time: it keeps a worker busy for long */
} ptier_service;

/* What a second execution of the same call would do. */
typedef enum ptier_effect {
    PTIER_EFFECT_NONE = 0,  /* reads */
    PTIER_EFFECT_AGAIN = 1, /* changes, and ends in the same state */
    PTIER_EFFECT_ONCE = 2,  /* counts twice: not to be done when it may have been done */
} ptier_effect;

typedef struct ptier_method {
    const ProtobufCService *service;
    unsigned index; /* in service->descriptor->methods */
    const char *name;
    ptier_role role; /* at least */
    ptier_lane lane;
    ptier_effect effect;
    bool while_stopping;
    bool tried; /* small ones are tried where they came in, see ptier_call_try */
} ptier_method;

/* What a handler that was put off has found so far, and goes on with. The entries are released with
 * the call. */
typedef struct ptier_found {
    ptier_entry **entries; /* in the arena; NULL: it did not begin */
    ptier_tier_id *tiers;  /* where each was found */
    size_t count;          /* of entries; NULL ones included */
    uint64_t as_of;
} ptier_found;

typedef struct ptier_call {
    ptier_service *service;
    ptier_role role;   /* of the token, or else of the peer */
    uint64_t identity; /* see ptier_peer */
    ptier_peer peer;
    const ptier_method *method;
    int64_t deadline_ms; /* CLOCK_MONOTONIC */
    bool has_id;
    uint8_t id[PTIER_ID_BYTES];
    bool retry;            /* the header names the run of a first try, */
    bool other_run;        /* which was not this one */
    int64_t first_sent_ms; /* of a retry; boottime_ms of the daemon; 0 not said */
    bool executed;         /* the handler was called */
    const uint8_t *body;   /* borrowed from the message until the reply is written */
    size_t body_length;
    const ProtobufCMessage *request; /* the body unpacked, in the arena; NULL: not yet */
    ptier_record *records;           /* that were taken out of it: PutMany's */
    size_t record_count;             /* of them */
    bool must_not_wait;              /* for a disk: the handler calls ptier_call_put_off instead */
    bool put_off;
    ptier_found found;
    ptier_status status;
    ptier_error error; /* message of a status that is not OK */
    bool answered;
    size_t items;       /* records, keys, reports or events that the call was about */
    int64_t started_us; /* CLOCK_MONOTONIC; 0 when calls are not logged */
    ptier_arena arena;
    ptier_bytes reply; /* the packed response */
} ptier_call;

void ptier_call_init(ptier_call *call, ptier_service *service);
void ptier_call_fini(ptier_call *call);

/*
 * Reads the header of a message that came in at received_ms and finds the method. OK: call->method
 * says where ptier_call_run may be run. Otherwise the call is over: write the reply. The message is
 * borrowed until then.
 */
PTIER_MUST_CHECK ptier_status ptier_call_begin(ptier_call *call, const ptier_peer *peer,
                                               int64_t received_ms, const void *message,
                                               size_t length);

/* Whether the daemon takes new calls still. False: the call has failed. */
bool ptier_call_admit(ptier_call *call);

/* Runs the handler, if there is time left. Blocks as the method's lane says. */
void ptier_call_run(ptier_call *call);

/* The same as far as it goes without waiting for a disk, of a method that is `tried`. False: it is
 * not over, ptier_call_run goes on with it. */
PTIER_MUST_CHECK bool ptier_call_try(ptier_call *call);

/* What became of a call, to be told again: appended to an empty *out, and read back. */
PTIER_MUST_CHECK ptier_status ptier_call_save(const ptier_call *call, ptier_bytes *out);
void ptier_call_restore(ptier_call *call, const uint8_t *saved, size_t length);

/*
 * The framed reply, appended to an empty *out. Fails only for lack of memory. Afterwards the call
 * is ready for the next ptier_call_begin.
 */
PTIER_MUST_CHECK ptier_status ptier_call_finish(ptier_call *call, ptier_bytes *out);

/* ---- for handlers (handle_*.c) ---- */

/* Ends the call with an error. */
PTIER_PRINTF(3, 4)
void ptier_call_fail(ptier_call *call, ptier_status status, const char *format, ...);

/* Ends the call with what a lower layer said (its message may be empty). */
void ptier_call_fail_as(ptier_call *call, ptier_status status, const ptier_error *error);

/* Ends the call: no memory, or over the request's budget. */
void ptier_call_no_memory(ptier_call *call);

/* Ends the handler, not the call: it must not wait here, and would have to. */
void ptier_call_put_off(ptier_call *call);

/* Whether its time is over, or the daemon's. Long handlers look now and then. */
bool ptier_call_expired(const ptier_call *call);

int64_t ptier_monotonic_ms(void);
int64_t ptier_boottime_ms(void);

/* All of them. */
extern const ptier_method ptier_methods[];
extern const size_t ptier_method_count;

/* The method of a full name, "/package.Service/Method". NULL: none. */
const ptier_method *ptier_method_find(const char *full_name);

/* The effect of this call: that of its method, or worse for what its body says. */
ptier_effect ptier_call_effect(const ptier_call *call);

#endif
