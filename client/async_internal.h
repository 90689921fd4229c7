/* For async*.c and calls_async.c only: asynchronous calls, and the engine that runs them. */
#ifndef PTIER_ASYNC_INTERNAL_H
#define PTIER_ASYNC_INTERNAL_H

#include <proxytier/async.h>

#include "async_engine.h"
#include "attempt.h"
#include "call.h"

/*
 * Fills the result from a reply (*reply lives in the arena, which is moved), or, without an arena,
 * does what is left to do of a call that failed.
 */
typedef ptier_status (*ptier_async_read_fn)(ptier_async *call, ptier_arena *arena,
                                            const void *reply, ptier_error *error);

typedef enum ptier_async_state {
    PTIER_ASYNC_STARTED,  /* on its way to the engine's thread */
    PTIER_ASYNC_STRANGE,  /* needs to know the daemon first */
    PTIER_ASYNC_WAITING,  /* for connection and room */
    PTIER_ASYNC_GATHERED, /* the same, with others that may go together */
    PTIER_ASYNC_FLYING,   /* with nng */
    PTIER_ASYNC_RIDING,   /* with nng, in a batch */
    PTIER_ASYNC_PAUSED,   /* before another try */
    PTIER_ASYNC_ENDED,
} ptier_async_state;

struct ptier_async {
    /* Constant after the start. */
    ptier_async_fn done;
    void *context;
    ptier_async_read_fn read;
    const ProtobufCMessageDescriptor *reply_type;
    uint8_t *body; /* packed request */
    char **keys;   /* for the near cache, of changes: NULL without one */
    size_t key_count;
    size_t count; /* of results that the reply must have */
    bool one;     /* put, not put_many */
    bool social;  /* a Get that may go with others */

    /* The engine's thread. */
    ptier_async_state state;
    ptier_async *next, *previous; /* in the list of its state */
    ptier_async *next_in;         /* in an inbox: the engine's lock */
    ptier_attempt attempt;
    ptier_exchange exchange;
    int64_t resume;                  /* PAUSED: until then */
    int64_t gathered;                /* GATHERED: since then */
    struct ptier_async_batch *batch; /* RIDING: in it */
    bool alone;                      /* not together with others any more */
    ptier_error failure;             /* of the last try */

    atomic_bool cancelled;
    atomic_uint references; /* the engine's, the handle's */

    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t changed;
    ptier_async_engine *engine; /* NULL: ended */
    bool ended;
    ptier_async_result result; /* of the engine's thread until `ended` */
};

/* What is not 0 of a call to be started; `request` is borrowed during the start. */
typedef struct ptier_async_start {
    ptier_method method;
    bool once;                       /* as in ptier_call */
    const ProtobufCMessage *request; /* NULL: `raw` is the packed one, borrowed as well */
    const void *raw;
    size_t raw_length;
    const ProtobufCMessageDescriptor *reply_type;
    ptier_async_read_fn read;
    const char *const *keys; /* that it changes; entries may be NULL */
    size_t count;            /* of keys, and of results to come */
    bool one;
    bool social;
    ptier_async_fn done;
    void *context;
} ptier_async_start;

/* Thread-safe. See proxytier/async.h. */
PTIER_MUST_CHECK ptier_status ptier_async_begin(ptier_client *client,
                                                const ptier_async_start *start, ptier_async **call,
                                                ptier_error *error);

/* async.c, for the engine. */
PTIER_MUST_CHECK ptier_async *ptier_async_create(ptier_client *client,
                                                 const ptier_async_start *start,
                                                 unsigned references, ptier_error *error);
void ptier_async_release(ptier_async *call);
/* Calls back and says that it ended. */
void ptier_async_deliver(ptier_async *call);

/* Takes a call (its reference moved on success). RESOURCE_EXHAUSTED: too many are under way. */
PTIER_MUST_CHECK ptier_status ptier_async_submit(ptier_async_engine *engine, ptier_async *call,
                                                 ptier_error *error);
/* Somebody set a `cancelled`. */
void ptier_async_engine_note_cancel(ptier_async_engine *engine);

#endif
