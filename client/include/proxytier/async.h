/*
 * proxytier client SDK: calls that do not wait. Each ptier_async_* function starts a call and
 * returns; the outcome comes to a callback, to a handle, or to both. They are the same calls as
 * those of proxytier/client.h, with the same timeout, retries and status codes, over the same
 * connection.
 *
 * Threads: any number of threads may start calls. All callbacks of a client come on one thread of
 * the library, one at a time; what they wait for holds up every other asynchronous call of the
 * client. So a callback must not block, nor make synchronous calls, wait for a handle or close the
 * client; starting, cancelling and freeing calls is fine. There is no thread for each call.
 *
 * Bounds: at most ptier_client_options.async_calls of a client are under way at once, callbacks not
 * counted; one more is refused with RESOURCE_EXHAUSTED. Up to 48 of them are with the daemon, the
 * others wait for their turn within their timeout.
 *
 * Gets go together: while two requests for single records are with the daemon, those that are
 * started wait for one of them to end, at most 2 ms, and then go in one request, at most 64. A Get
 * never waits for others to come. Outcomes, timeouts and cancelling are those of each, as if it had
 * gone alone. The option separate_gets of the client ends that.
 *
 * Exactly once: a call that was started (PTIER_OK) ends once, by its callback or its handle,
 * whatever happens; closing the client ends all that are left with CANCELLED, before
 * ptier_client_close returns. A call that could not be started calls nobody.
 *
 * Near cache: these calls ask the daemon. Own changes are seen by later reads of the near cache, as
 * those of synchronous calls are, from before the callback runs and the handle says that it ended.
 */
#ifndef PROXYTIER_ASYNC_H
#define PROXYTIER_ASYNC_H

#include <proxytier/client.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What came of a call. Free with ptier_async_result_free. */
typedef struct ptier_async_result {
    ptier_status status;
    ptier_error error;            /* its message; "" when status is OK */
    ptier_records records;        /* get, get_many, pick */
    ptier_put_results puts;       /* put, put_many */
    ptier_delete_result deletion; /* delete */
    ptier_report_results reports; /* report_health */
} ptier_async_result;

/* Empties it. One of all zeros is fine. */
PTIER_API void ptier_async_result_free(ptier_async_result *result);

/*
 * Told once, when the call has ended. *result is the library's, and freed (or left to the handle)
 * when this returns; what is to stay longer is moved out: copy the struct, and zero the original.
 */
typedef void (*ptier_async_fn)(void *context, ptier_async_result *result);

/* A call that was started: owned by who started it, until ptier_async_free. It outlives the client.
 */
typedef struct ptier_async ptier_async;

/*
 * Starts a call. Inputs are borrowed during this function only. `done` NULL: no callback. `call`
 * NULL: no handle; otherwise *call is owned by the caller, or NULL on failure. With both, what the
 * callback leaves in its result can be taken from the handle. Errors of starting: INVALID_ARGUMENT
 * as for the synchronous call; RESOURCE_EXHAUSTED: too many under way, or no memory; CANCELLED: the
 * client is being closed; FAILED_PRECONDITION: it was opened before a fork.
 */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_async_get(ptier_client *client, const char *key,
                                                        ptier_async_fn done, void *context,
                                                        ptier_async **call, ptier_error *error);
PTIER_MUST_CHECK PTIER_API ptier_status ptier_async_get_many(ptier_client *client,
                                                             const char *const *keys, size_t count,
                                                             ptier_async_fn done, void *context,
                                                             ptier_async **call,
                                                             ptier_error *error);
PTIER_MUST_CHECK PTIER_API ptier_status ptier_async_pick(ptier_client *client,
                                                         const ptier_pick_options *options,
                                                         ptier_async_fn done, void *context,
                                                         ptier_async **call, ptier_error *error);
PTIER_MUST_CHECK PTIER_API ptier_status ptier_async_put(ptier_client *client,
                                                        const ptier_record *record,
                                                        const ptier_put_call *put,
                                                        ptier_async_fn done, void *context,
                                                        ptier_async **call, ptier_error *error);
PTIER_MUST_CHECK PTIER_API ptier_status ptier_async_put_many(
    ptier_client *client, const ptier_record *records, size_t count, const ptier_put_call *put,
    ptier_async_fn done, void *context, ptier_async **call, ptier_error *error);
PTIER_MUST_CHECK PTIER_API ptier_status ptier_async_delete(ptier_client *client,
                                                           const char *const *keys, size_t count,
                                                           const ptier_change_call *change,
                                                           ptier_async_fn done, void *context,
                                                           ptier_async **call, ptier_error *error);
PTIER_MUST_CHECK PTIER_API ptier_status
ptier_async_report_health(ptier_client *client, const ptier_report *reports, size_t count,
                          const ptier_change_call *change, ptier_async_fn done, void *context,
                          ptier_async **call, ptier_error *error);

/* Whether it has ended, its callback included. Never blocks. */
PTIER_API bool ptier_async_poll(ptier_async *call);

/* Waits until it has ended, at most timeout_ms (0: as ptier_async_poll). Any number of threads may
 * wait. False: it goes on. */
PTIER_API bool ptier_async_wait(ptier_async *call, uint32_t timeout_ms);

/*
 * The outcome of a call that has ended, moved to the caller (also on failure: free it). The status
 * is the call's; a second take has it too, but no records. FAILED_PRECONDITION: it has not ended.
 */
PTIER_API ptier_status ptier_async_take(ptier_async *call, ptier_async_result *result);

/*
 * Ends it with CANCELLED soon, unless it has ended. What was sent already may be done all the same;
 * what was not is not. Any thread, callbacks too; does not wait.
 */
PTIER_API void ptier_async_cancel(ptier_async *call);

/* Gives the handle up. The call goes on, and its callback comes. NULL is fine. */
PTIER_API void ptier_async_free(ptier_async *call);

#ifdef __cplusplus
}
#endif
#endif
