/* Typed asynchronous calls: proxytier/async.h. */
#include <stdlib.h>
#include <string.h>

#include "async_internal.h"
#include "calls_internal.h"
#include "near_client.h"

/* ---- replies: on the engine's thread ---- */

static ptier_near_client *
near_of(const ptier_async *call)
{
    return call->attempt.client->near;
}

/* The near cache hears of a change that failed, and may have been done all the same. */
static void
forget(const ptier_async *call)
{
    for (size_t i = 0; i < call->key_count; i++)
        ptier_near_client_forget(near_of(call), call->keys[i]);
}

static ptier_status
read_get(ptier_async *call, ptier_arena *arena, const void *reply, ptier_error *error)
{
    return arena ? ptier_read_get(arena, reply, &call->result.records, error) : PTIER_OK;
}

static ptier_status
read_get_many(ptier_async *call, ptier_arena *arena, const void *message, ptier_error *error)
{
    return arena ? ptier_records_fill(&call->result.records, arena, message, error) : PTIER_OK;
}

static ptier_status
read_pick(ptier_async *call, ptier_arena *arena, const void *message, ptier_error *error)
{
    return arena ? ptier_records_fill(&call->result.records, arena, message, error) : PTIER_OK;
}

static ptier_status
read_puts(ptier_async *call, ptier_arena *arena, const void *message, ptier_error *error)
{
    const Proxytier__V1__PutManyResponse *reply = message;
    ptier_put_results *puts = &call->result.puts;
    if (!arena) {
        forget(call);
        return PTIER_OK;
    }
    for (size_t i = 0; i < reply->n_results; i++)
        ptier_near_client_wrote(near_of(call), reply->results[i]->key, reply->results[i]->revision);
    ptier_status status;
    if (reply->n_results != call->count)
        status = ptier_fail(error, PTIER_INTERNAL, "the reply has %zu results for %zu records",
                            reply->n_results, call->count);
    else
        status = ptier_read_puts(arena, reply->results, reply->n_results, puts, error);
    if (status != PTIER_OK) {
        ptier_arena_destroy(arena);
        return status;
    }
    puts->durability = (ptier_durability)reply->durability;
    puts->tiers = ptier_tier_bits(reply->tiers, reply->n_tiers);
    if (call->one && puts->items[0].outcome == PTIER_PUT_REJECTED) {
        status = ptier_fail(error, PTIER_INVALID_ARGUMENT, "%s", puts->items[0].message);
        ptier_put_results_free(puts);
    }
    return status;
}

static ptier_status
read_delete(ptier_async *call, ptier_arena *arena, const void *message, ptier_error *error)
{
    const Proxytier__V1__DeleteResponse *reply = message;
    (void)error;
    if (!arena) {
        forget(call);
        return PTIER_OK;
    }
    for (size_t i = 0; i < call->key_count; i++)
        ptier_near_client_wrote(near_of(call), call->keys[i], reply->revision);
    if (reply->revision == 0) /* an older daemon, which does not tell */
        ptier_near_client_cleared(near_of(call), 0);
    ptier_read_delete(reply, &call->result.deletion);
    ptier_arena_destroy(arena);
    return PTIER_OK;
}

static ptier_status
read_reports(ptier_async *call, ptier_arena *arena, const void *message, ptier_error *error)
{
    ptier_report_results *reports = &call->result.reports;
    if (!arena) {
        forget(call);
        return PTIER_OK;
    }
    ptier_status status = ptier_read_reports(arena, message, call->count, reports, error);
    if (status != PTIER_OK) {
        forget(call);
        ptier_arena_destroy(arena);
        return status;
    }
    for (size_t i = 0; i < call->key_count; i++)
        ptier_near_client_wrote(near_of(call), call->keys[i], reports->items[i].revision);
    return PTIER_OK;
}

/* ---- starts ---- */

/* A start that fails has no handle. */
static ptier_status
refuse(ptier_async **call, ptier_status status)
{
    if (call)
        *call = NULL;
    return status;
}

ptier_status
ptier_async_get(ptier_client *client, const char *key, ptier_async_fn done, void *context,
                ptier_async **call, ptier_error *error)
{
    Proxytier__V1__GetRequest request = PROXYTIER__V1__GET_REQUEST__INIT;
    ptier_status status = ptier_check_keys(&key, 1, error);
    if (status != PTIER_OK)
        return refuse(call, status);
    request.key = PTIER_UNCONST(char *, key);
    const ptier_async_start start = {.method = PTIER_METHOD_GET,
                                     .request = &request.base,
                                     .reply_type = &proxytier__v1__get_response__descriptor,
                                     .read = read_get,
                                     .social = !client || !client->separate_gets,
                                     .done = done,
                                     .context = context};
    return ptier_async_begin(client, &start, call, error);
}

ptier_status
ptier_async_get_many(ptier_client *client, const char *const *keys, size_t count,
                     ptier_async_fn done, void *context, ptier_async **call, ptier_error *error)
{
    Proxytier__V1__GetManyRequest request = PROXYTIER__V1__GET_MANY_REQUEST__INIT;
    ptier_status status = ptier_check_keys(keys, count, error);
    if (status != PTIER_OK)
        return refuse(call, status);
    request.keys = PTIER_UNCONST(char **, keys);
    request.n_keys = count;
    const ptier_async_start start = {.method = PTIER_METHOD_GET_MANY,
                                     .request = &request.base,
                                     .reply_type = &proxytier__v1__get_many_response__descriptor,
                                     .read = read_get_many,
                                     .done = done,
                                     .context = context};
    return ptier_async_begin(client, &start, call, error);
}

ptier_status
ptier_async_pick(ptier_client *client, const ptier_pick_options *options, ptier_async_fn done,
                 void *context, ptier_async **call, ptier_error *error)
{
    ptier_pick_message message;
    ptier_status status = ptier_pack_pick(&message, options, error);
    if (status != PTIER_OK)
        return refuse(call, status);
    const ptier_async_start start = {.method = PTIER_METHOD_PICK,
                                     .request = &message.request.base,
                                     .reply_type = &proxytier__v1__pick_response__descriptor,
                                     .read = read_pick,
                                     .done = done,
                                     .context = context};
    return ptier_async_begin(client, &start, call, error);
}

static ptier_status
start_puts(ptier_client *client, const ptier_record *records, size_t count,
           const ptier_put_call *put, bool one, ptier_async_fn done, void *context,
           ptier_async **call, ptier_error *error)
{
    static const ptier_put_call defaults = {0};
    ptier_packed packed;
    if (!put)
        put = &defaults;
    ptier_status status = ptier_puts_pack(&packed, records, count, put, error);
    if (status != PTIER_OK)
        return refuse(call, status);
    const char **keys = calloc(count + 1, sizeof *keys);
    if (!keys) {
        ptier_packed_fini(&packed);
        return refuse(call, ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory"));
    }
    for (size_t i = 0; i < count; i++)
        keys[i] = records[i].key;
    const ptier_async_start start = {.method = PTIER_METHOD_PUT_MANY,
                                     .once = put->restore,
                                     .raw = packed.bytes,
                                     .raw_length = packed.length,
                                     .reply_type = &proxytier__v1__put_many_response__descriptor,
                                     .read = read_puts,
                                     .keys = keys,
                                     .count = count,
                                     .one = one,
                                     .done = done,
                                     .context = context};
    status = ptier_async_begin(client, &start, call, error);
    ptier_packed_fini(&packed);
    free(keys);
    return status;
}

ptier_status
ptier_async_put(ptier_client *client, const ptier_record *record, const ptier_put_call *put,
                ptier_async_fn done, void *context, ptier_async **call, ptier_error *error)
{
    return start_puts(client, record, 1, put, true, done, context, call, error);
}

ptier_status
ptier_async_put_many(ptier_client *client, const ptier_record *records, size_t count,
                     const ptier_put_call *put, ptier_async_fn done, void *context,
                     ptier_async **call, ptier_error *error)
{
    return start_puts(client, records, count, put, false, done, context, call, error);
}

ptier_status
ptier_async_delete(ptier_client *client, const char *const *keys, size_t count,
                   const ptier_change_call *change, ptier_async_fn done, void *context,
                   ptier_async **call, ptier_error *error)
{
    Proxytier__V1__DeleteRequest request = PROXYTIER__V1__DELETE_REQUEST__INIT;
    ptier_status status = ptier_check_keys(keys, count, error);
    if (status != PTIER_OK)
        return refuse(call, status);
    request.keys = PTIER_UNCONST(char **, keys);
    request.n_keys = count;
    request.durability = ptier_change_durability(change);
    const ptier_async_start start = {.method = PTIER_METHOD_DELETE,
                                     .request = &request.base,
                                     .reply_type = &proxytier__v1__delete_response__descriptor,
                                     .read = read_delete,
                                     .keys = keys,
                                     .count = count,
                                     .done = done,
                                     .context = context};
    return ptier_async_begin(client, &start, call, error);
}

ptier_status
ptier_async_report_health(ptier_client *client, const ptier_report *reports, size_t count,
                          const ptier_change_call *change, ptier_async_fn done, void *context,
                          ptier_async **call, ptier_error *error)
{
    Proxytier__V1__ReportHealthRequest request = PROXYTIER__V1__REPORT_HEALTH_REQUEST__INIT;
    ptier_report_messages packed;
    ptier_status status = ptier_pack_reports(&packed, reports, count, error);
    if (status != PTIER_OK)
        return refuse(call, status);
    const char **keys = calloc(count + 1, sizeof *keys);
    for (size_t i = 0; keys && i < count; i++)
        keys[i] = reports[i].key;
    request.reports = packed.list;
    request.n_reports = count;
    request.durability = ptier_change_durability(change);
    const ptier_async_start start = {.method = PTIER_METHOD_REPORT_HEALTH,
                                     .request = &request.base,
                                     .reply_type =
                                         &proxytier__v1__report_health_response__descriptor,
                                     .read = read_reports,
                                     .keys = keys,
                                     .count = count,
                                     .done = done,
                                     .context = context};
    status = keys ? ptier_async_begin(client, &start, call, error)
                  : refuse(call, ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory"));
    ptier_report_messages_fini(&packed);
    free(keys);
    return status;
}
