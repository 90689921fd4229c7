/*
 * See dispatch.h. A call that changes something, and has an id, is looked up before anything else:
 * a refusal of a retry must mean that the call was never done.
 */
#include "dispatch.h"

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#define OUTCOME_KEEP ((size_t)64 * 1024)

struct ptier_dispatch {
    ptier_service *service;
    ptier_workers *workers;
    size_t limit;
    atomic_size_t in_flight;
    pthread_mutex_t lock; /* of dedup; a leaf, but for memory it waits for nothing */
    ptier_dedup *dedup;
};

ptier_status
ptier_dispatch_start(ptier_service *service, const ptier_dispatch_limits *limits,
                     ptier_dispatch **dispatch, ptier_error *error)
{
    ptier_dispatch *made = calloc(1, sizeof *made);
    if (!made)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    made->service = service;
    made->limit = limits->in_flight;
    pthread_mutex_init(&made->lock, NULL);
    made->dedup = ptier_dedup_create(&limits->dedup);
    ptier_status status =
        made->dedup ? ptier_workers_start(limits->lane, &made->workers, error)
                    : ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory for call ids");
    if (status != PTIER_OK) {
        ptier_dispatch_destroy(made);
        return status;
    }
    *dispatch = made;
    return PTIER_OK;
}

void
ptier_dispatch_drain(ptier_dispatch *dispatch)
{
    ptier_workers_stop(dispatch->workers);
    dispatch->workers = NULL;
}

void
ptier_dispatch_destroy(ptier_dispatch *dispatch)
{
    if (!dispatch)
        return;
    ptier_workers_stop(dispatch->workers);
    ptier_dedup_destroy(dispatch->dedup);
    pthread_mutex_destroy(&dispatch->lock);
    free(dispatch);
}

/* ---- the end of a call ---- */

static void
repeat(ptier_request *request, const uint8_t *outcome, size_t length)
{
    ptier_call_restore(&request->call, outcome, length);
    request->answer(request);
}

/* They get the same outcome; if nothing was done, one of them goes on in its place. */
static void
release(ptier_dispatch *dispatch, ptier_dedup_waiter *waiters, bool executed,
        const ptier_bytes *outcome)
{
    for (ptier_dedup_waiter *waiter = waiters, *next; waiter; waiter = next) {
        ptier_request *request =
            (ptier_request *)((char *)waiter - offsetof(ptier_request, waiter));
        next = waiter->next;
        if (executed)
            repeat(request, outcome->data, outcome->length);
        else
            ptier_dispatch_run(dispatch, request, request->crowded);
    }
}

static void
complete(ptier_request *request)
{
    ptier_dispatch *dispatch = request->dispatch;
    ptier_dedup_entry *entry = request->entry;
    if (!entry) {
        request->answer(request);
        return;
    }
    ptier_bytes outcome = {0};
    bool executed = request->call.executed;
    request->entry = NULL;
    if (executed && ptier_call_save(&request->call, &outcome) != PTIER_OK)
        ptier_bytes_fini(&outcome); /* empty: waiters are told that there was no memory */
    pthread_mutex_lock(&dispatch->lock);
    ptier_dedup_waiter *waiters = ptier_dedup_finish(dispatch->dedup, entry, ptier_boottime_ms(),
                                                     executed, outcome.data, outcome.length);
    pthread_mutex_unlock(&dispatch->lock);
    request->answer(request);
    release(dispatch, waiters, executed, &outcome);
    ptier_bytes_fini(&outcome);
}

/* ---- its beginning ---- */

static void
identify(const ptier_call *call, ptier_dedup_call *key)
{
    const ptier_method *method = call->method;
    const char *service = method->service->descriptor->name;
    uint64_t seed = XXH3_64bits_withSeed(method->name, strlen(method->name),
                                         XXH3_64bits(service, strlen(service)));
    XXH128_hash_t digest = XXH3_128bits_withSeed(call->body, call->body_length, seed);
    *key = (ptier_dedup_call){.identity = call->identity,
                              .digest = {digest.low64, digest.high64},
                              .retry = call->retry && !call->other_run,
                              .first_sent_ms = call->first_sent_ms};
    memcpy(key->id, call->id, sizeof key->id);
}

static void
fail_unsure(ptier_call *call)
{
    ptier_call_fail(call, PTIER_ABORTED, "outcome unknown: %s; it may have been done, or not",
                    call->other_run ? "the daemon was restarted since the first try"
                                    : "what became of the first try is not remembered any more");
}

/* True: the call is to be run. Otherwise it is over (*over), or waits for its double. */
static bool
look_up(ptier_dispatch *dispatch, ptier_request *request, bool *over)
{
    ptier_call *call = &request->call;
    ptier_dedup_call key;
    identify(call, &key);
    request->waiter.deadline_ms = call->deadline_ms;
    *over = true;
    pthread_mutex_lock(&dispatch->lock);
    ptier_dedup_entry *entry = NULL;
    ptier_dedup_verdict verdict =
        ptier_dedup_begin(dispatch->dedup, &key, ptier_boottime_ms(), &request->waiter, &entry);
    if (verdict == PTIER_DEDUP_DONE) {
        size_t length;
        const uint8_t *outcome = ptier_dedup_outcome(entry, &length);
        ptier_call_restore(call, outcome, length);
    }
    pthread_mutex_unlock(&dispatch->lock);
    switch (verdict) {
    case PTIER_DEDUP_NEW:
    case PTIER_DEDUP_UNSURE:
        request->entry = entry;
        if ((verdict == PTIER_DEDUP_NEW && !call->other_run) ||
            ptier_call_effect(call) != PTIER_EFFECT_ONCE)
            return true;
        fail_unsure(call);
        break;
    case PTIER_DEDUP_RUNNING:
        *over = false;
        break;
    case PTIER_DEDUP_DONE:
        break;
    case PTIER_DEDUP_OTHER:
        ptier_call_fail(call, PTIER_INVALID_ARGUMENT,
                        "this request_id was used for another call: every call needs its own");
        break;
    case PTIER_DEDUP_FULL:
        ptier_call_fail(call, PTIER_RESOURCE_EXHAUSTED,
                        "the daemon has no room for another request_id: try again in a moment");
        break;
    }
    return false;
}

static void
run_job(ptier_job *job)
{
    ptier_request *request = (ptier_request *)job;
    ptier_call_run(&request->call);
    atomic_fetch_sub(&request->dispatch->in_flight, 1);
    complete(request);
}

/* False: the call has failed. */
static bool
submit(ptier_dispatch *dispatch, ptier_request *request)
{
    ptier_call *call = &request->call;
    if (request->crowded) {
        ptier_call_fail(call, PTIER_RESOURCE_EXHAUSTED,
                        "too many calls under way on one connection: wait for some replies");
        return false;
    }
    request->job.run = run_job;
    if (atomic_fetch_add(&dispatch->in_flight, 1) < dispatch->limit &&
        ptier_workers_submit(dispatch->workers, call->method->lane, &request->job))
        return true;
    atomic_fetch_sub(&dispatch->in_flight, 1);
    ptier_call_fail(call, PTIER_RESOURCE_EXHAUSTED,
                    "the daemon has more calls waiting than it takes: try again in a moment");
    return false;
}

void
ptier_dispatch_run(ptier_dispatch *dispatch, ptier_request *request, bool crowded)
{
    ptier_call *call = &request->call;
    bool over = true;
    request->dispatch = dispatch;
    request->entry = NULL;
    request->crowded = crowded;
    if (call->has_id && call->method->effect != PTIER_EFFECT_NONE) {
        if (!look_up(dispatch, request, &over)) {
            if (over)
                complete(request);
            return;
        }
    } else if (call->other_run && ptier_call_effect(call) == PTIER_EFFECT_ONCE) {
        fail_unsure(call); /* without an id: nothing to look up */
        complete(request);
        return;
    }
    if (!ptier_call_admit(call)) {
        complete(request);
    } else if (call->method->lane == PTIER_LANE_INLINE) {
        ptier_call_run(call);
        complete(request);
    } else if ((call->method->tried && ptier_call_try(call)) || !submit(dispatch, request)) {
        complete(request);
    }
}

void
ptier_dispatch_tick(ptier_dispatch *dispatch)
{
    pthread_mutex_lock(&dispatch->lock);
    ptier_dedup_expire(dispatch->dedup, ptier_boottime_ms());
    ptier_dedup_waiter *waiters = ptier_dedup_overdue(dispatch->dedup, ptier_monotonic_ms());
    pthread_mutex_unlock(&dispatch->lock);
    for (ptier_dedup_waiter *next; waiters; waiters = next) {
        ptier_request *request =
            (ptier_request *)((char *)waiters - offsetof(ptier_request, waiter));
        next = waiters->next;
        ptier_call_fail(&request->call, PTIER_DEADLINE_EXCEEDED,
                        "the call is running still, since an earlier try");
        request->answer(request);
    }
}
