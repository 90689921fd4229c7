/*
 * Gets of one client that wait go to the daemon together, as one GetMany. Each stays a call of its
 * own, with its own outcome, deadline and tries. For async_engine.c only, and its thread.
 */
#ifndef PTIER_ASYNC_BATCH_H
#define PTIER_ASYNC_BATCH_H

#include "async_internal.h"

#define PTIER_ASYNC_BATCH_MAX 64

/* What the reply says to one of them. */
typedef enum ptier_async_outcome {
    PTIER_ASYNC_SERVED, /* its result has the record */
    PTIER_ASYNC_ABSENT, /* no entry has its key */
    PTIER_ASYNC_UNSAID, /* it is to be asked for alone */
} ptier_async_outcome;

typedef struct ptier_async_batch {
    struct ptier_async_batch *next, *previous; /* of the engine's */
    struct ptier_async_batch *next_in;         /* in an inbox: the engine's lock */
    ptier_async_engine *engine;
    ptier_attempt attempt; /* of the GetMany, which is tried once */
    ptier_exchange exchange;
    size_t count;
    ptier_async *members[PTIER_ASYNC_BATCH_MAX]; /* NULL: has left */
    ptier_async_outcome outcomes[PTIER_ASYNC_BATCH_MAX];
    uint8_t body[4000];
} ptier_async_batch;

/* Whether a Get of so long a body may go with others. What the daemon may refuse may not, since it
 * would refuse them all. */
bool ptier_async_batch_takes(size_t body_length);

/* An empty one. Free with free(). NULL: out of memory. */
ptier_async_batch *ptier_async_batch_create(ptier_async_engine *engine, ptier_client *client);

/* False: it is full. */
bool ptier_async_batch_add(ptier_async_batch *batch, ptier_async *call);

/* A member that does not wait for the reply any more. */
void ptier_async_batch_leave(ptier_async_batch *batch, const ptier_async *call);

/* The request. NULL: out of memory, or no random numbers. */
nng_msg *ptier_async_batch_pack(ptier_async_batch *batch, int64_t deadline);

/* Fills the outcomes, and the results of those that are served, from attempt.frame. A reply that
 * cannot be understood says nothing to anybody. */
void ptier_async_batch_read(ptier_async_batch *batch);

#endif
