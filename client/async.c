/* Asynchronous calls as their owners see them: made, waited for, cancelled, freed. */
#include <stdlib.h>
#include <string.h>

#include "async_internal.h"
#include "client_internal.h"
#include "monotonic.h"

void
ptier_async_result_free(ptier_async_result *result)
{
    if (!result)
        return;
    ptier_records_free(&result->records);
    ptier_put_results_free(&result->puts);
    ptier_report_results_free(&result->reports);
    memset(result, 0, sizeof *result);
}

static void
free_keys(ptier_async *call)
{
    for (size_t i = 0; call->keys && i < call->key_count; i++)
        free(call->keys[i]);
    free(call->keys);
}

static bool
copy_keys(ptier_async *call, const char *const *keys, size_t count)
{
    call->keys = calloc(count + 1, sizeof *call->keys);
    if (!call->keys)
        return false;
    for (call->key_count = 0; call->key_count < count; call->key_count++) {
        const char *key = keys[call->key_count];
        if (key && !(call->keys[call->key_count] = strdup(key)))
            return false;
    }
    return true;
}

static void
free_call(ptier_async *call)
{
    if (call->body) {
        explicit_bzero(call->body, call->attempt.body_length); /* puts hold credentials */
        free(call->body);
    }
    free_keys(call);
    ptier_async_result_free(&call->result);
    pthread_cond_destroy(&call->changed);
    pthread_mutex_destroy(&call->lock);
    free(call);
}

void
ptier_async_release(ptier_async *call)
{
    if (atomic_fetch_sub(&call->references, 1) == 1)
        free_call(call);
}

ptier_async *
ptier_async_create(ptier_client *client, const ptier_async_start *start, unsigned references,
                   ptier_error *error)
{
    ptier_async *call = calloc(1, sizeof *call);
    if (!call || pthread_mutex_init(&call->lock, NULL) != 0 ||
        ptier_monotonic_cond_init(&call->changed) != 0) {
        free(call);
        (void)ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory"); /* NULL says it */
        return NULL;
    }
    atomic_init(&call->references, references);
    call->done = start->done;
    call->context = start->context;
    call->read = start->read;
    call->reply_type = start->reply_type;
    call->count = start->count;
    call->one = start->one;
    call->social = start->social;
    ptier_call_describe(start->method, &call->attempt);
    call->attempt.client = client;
    call->attempt.twice = call->attempt.twice && !start->once;
    call->attempt.deadline = ptier_monotonic_ms() + client->timeout_ms;
    call->attempt.body_length =
        start->request ? protobuf_c_message_get_packed_size(start->request) : start->raw_length;
    call->body = malloc(call->attempt.body_length + 1);
    if (!call->body ||
        (client->near && start->keys && !copy_keys(call, start->keys, start->count))) {
        free_call(call);
        (void)ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory"); /* NULL says it */
        return NULL;
    }
    if (start->request)
        (void)protobuf_c_message_pack(start->request, call->body); /* its size is known */
    else
        memcpy(call->body, start->raw, start->raw_length);
    call->attempt.raw = call->body;
    return call;
}

ptier_status
ptier_async_begin(ptier_client *client, const ptier_async_start *start, ptier_async **handle,
                  ptier_error *error)
{
    if (handle)
        *handle = NULL;
    ptier_status status = ptier_client_enter(client, error);
    if (status != PTIER_OK)
        return status;
    ptier_error failure = {.status = PTIER_OK};
    ptier_async *call = ptier_async_create(client, start, handle ? 2 : 1, &failure);
    if (call) {
        status = ptier_async_submit(client->engine, call, error);
        if (status == PTIER_OK && handle)
            *handle = call;
        else if (status != PTIER_OK)
            free_call(call);
    } else {
        status = ptier_fail(error, failure.status, "%s", failure.message);
    }
    ptier_client_leave(client);
    return status;
}

void
ptier_async_deliver(ptier_async *call)
{
    if (call->done)
        call->done(call->context, &call->result);
    pthread_mutex_lock(&call->lock);
    call->engine = NULL;
    call->ended = true;
    pthread_cond_broadcast(&call->changed);
    pthread_mutex_unlock(&call->lock);
    ptier_async_release(call);
}

bool
ptier_async_poll(ptier_async *call)
{
    pthread_mutex_lock(&call->lock);
    bool ended = call->ended;
    pthread_mutex_unlock(&call->lock);
    return ended;
}

bool
ptier_async_wait(ptier_async *call, uint32_t timeout_ms)
{
    int64_t until = ptier_monotonic_ms() + timeout_ms;
    pthread_mutex_lock(&call->lock);
    while (!call->ended && ptier_monotonic_ms() < until)
        ptier_monotonic_wait(&call->changed, &call->lock, until);
    bool ended = call->ended;
    pthread_mutex_unlock(&call->lock);
    return ended;
}

ptier_status
ptier_async_take(ptier_async *call, ptier_async_result *result)
{
    pthread_mutex_lock(&call->lock);
    if (call->ended) {
        *result = call->result;
        memset(&call->result, 0, sizeof call->result);
        call->result.status = result->status;
        call->result.error = result->error;
    } else {
        memset(result, 0, sizeof *result);
        result->status =
            ptier_fail(&result->error, PTIER_FAILED_PRECONDITION, "the call has not ended");
    }
    pthread_mutex_unlock(&call->lock);
    return result->status;
}

void
ptier_async_cancel(ptier_async *call)
{
    pthread_mutex_lock(&call->lock);
    if (call->engine) {
        atomic_store(&call->cancelled, true);
        ptier_async_engine_note_cancel(call->engine);
    }
    pthread_mutex_unlock(&call->lock);
}

void
ptier_async_free(ptier_async *call)
{
    if (call)
        ptier_async_release(call);
}
