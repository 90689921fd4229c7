/*
 * Between the front doors and the handlers: which calls run now, which wait, which are refused, and
 * which were made before. Thread-safe where said.
 */
#ifndef PTIER_DISPATCH_H
#define PTIER_DISPATCH_H

#include "call.h"
#include "dedup.h"
#include "workers.h"

typedef struct ptier_dispatch ptier_dispatch;

/* One call in the storage of its front door, which does not touch it between run and answer. */
typedef struct ptier_request {
    ptier_job job; /* first: the worker hands this back */
    ptier_call call;
    /* The call is over: ptier_call_finish has the reply. On any thread; must not block. Set by the
     * front door. */
    void (*answer)(struct ptier_request *request);
    ptier_dispatch *dispatch;
    ptier_dedup_waiter waiter;
    ptier_dedup_entry *entry; /* NULL: not one to be remembered, or waiting for its double */
    bool crowded;             /* its connection has too many under way already */
} ptier_request;

typedef struct ptier_dispatch_limits {
    size_t in_flight;              /* with a worker or waiting for one */
    size_t lane[PTIER_LANE_COUNT]; /* waiting in one */
    ptier_dedup_limits dedup;
} ptier_dispatch_limits;

PTIER_MUST_CHECK ptier_status ptier_dispatch_start(ptier_service *service,
                                                   const ptier_dispatch_limits *limits,
                                                   ptier_dispatch **dispatch, ptier_error *error);

/*
 * Takes a call that ptier_call_begin let through; `answer` is called exactly once, maybe before
 * this returns. crowded: refuse it, unless its outcome is known. Never blocks. Thread-safe.
 */
void ptier_dispatch_run(ptier_dispatch *dispatch, ptier_request *request, bool crowded);

/* To be called several times a second: answers those who have waited for a double of their call
 * until their deadline, forgets old outcomes. Thread-safe. */
void ptier_dispatch_tick(ptier_dispatch *dispatch);

/* First step of stopping, when the service is: finishes what runs; what waits is refused if the
 * service is hurrying. Calls that never wait may come still. */
void ptier_dispatch_drain(ptier_dispatch *dispatch);

/* Second step: no call may come any more. NULL is fine. */
void ptier_dispatch_destroy(ptier_dispatch *dispatch);

#endif
