/* Typed calls that change records: Put, PutMany, Delete, ReportHealth. */
#include <stdlib.h>
#include <string.h>

#include "call.h"
#include "calls_internal.h"
#include "client_internal.h"
#include "near_client.h"

static const ptier_put_call put_defaults = {0};

static ptier_near_client *
near_of(const ptier_client *client)
{
    return client ? client->near : NULL;
}

/*
 * Changes touch the near cache after their call: the client, which may be closed meanwhile, must
 * not go before. Each is between these two.
 */
static ptier_status
leave_with(ptier_client *client, ptier_status status)
{
    ptier_client_leave(client);
    return status;
}

static void
forget_keys(const ptier_client *client, const char *const *keys, size_t count)
{
    for (size_t i = 0; near_of(client) && i < count; i++)
        ptier_near_client_forget(client->near, keys[i]);
}

ptier_status
ptier_read_puts(ptier_arena *arena, Proxytier__V1__PutResult *const *items, size_t count,
                ptier_put_results *results, ptier_error *error)
{
    ptier_put_item_result *out = ptier_arena_array(arena, count, sizeof *out);
    if (!out)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory for the reply");
    for (size_t i = 0; i < count; i++)
        out[i] = (ptier_put_item_result){.key = items[i]->key,
                                         .revision = items[i]->revision,
                                         .outcome = (ptier_put_outcome)items[i]->outcome,
                                         .message = items[i]->message};
    results->items = out;
    results->count = count;
    results->internal = arena;
    return PTIER_OK;
}

uint32_t
ptier_tier_bits(const Proxytier__V1__Tier *tiers, size_t count)
{
    uint32_t bits = 0;
    for (size_t i = 0; i < count; i++)
        if ((int)tiers[i] > 0 && (int)tiers[i] < PTIER_TIER_COUNT) /* enums are unsigned here */
            bits |= UINT32_C(1) << tiers[i];
    return bits;
}

static ptier_status
put_one(ptier_client *client, const ptier_record *record, const ptier_put_call *put,
        ptier_put_results *results, ptier_error *error)
{
    Proxytier__V1__PutRequest request = PROXYTIER__V1__PUT_REQUEST__INIT;
    Proxytier__V1__PutResponse *reply;
    ptier_proxy_message message;
    ptier_arena *arena;

    ptier_status status = ptier_record_checked(record, 0, error);
    if (status != PTIER_OK)
        return status;
    ptier_proxy_from_record(&message, record, true);
    request.proxy = &message.proxy;
    request.durability = (Proxytier__V1__Durability)put->durability;
    ptier_near_client *near = near_of(client);
    const ptier_near_start start = ptier_near_client_start(near);
    request.return_proxy = near != NULL;
    ptier_call call = {.method = PTIER_METHOD_PUT,
                       .request = &request.base,
                       .reply_type = &proxytier__v1__put_response__descriptor};
    status = ptier_call_perform(client, &call, &arena, &reply, error);
    if (status != PTIER_OK) {
        ptier_near_client_forget(near, record->key);
        return status;
    }
    if (!reply->result)
        status = ptier_fail(error, PTIER_INTERNAL, "the reply to Put holds no result");
    else
        status = ptier_read_puts(arena, &reply->result, 1, results, error);
    if (status != PTIER_OK) {
        ptier_arena_destroy(arena);
        return status;
    }
    ptier_near_client_wrote(near, reply->result->key, reply->result->revision);
    ptier_near_client_learn(near, &start, reply->proxy, reply->as_of);
    results->durability = (ptier_durability)reply->durability;
    results->tiers = ptier_tier_bits(reply->tiers, reply->n_tiers);
    return PTIER_OK;
}

ptier_status
ptier_put(ptier_client *client, const ptier_record *record, const ptier_put_call *put,
          ptier_put_results *result, ptier_error *error)
{
    ptier_put_results results = {0};
    ptier_status status;
    if (result)
        memset(result, 0, sizeof *result);
    if (!put)
        put = &put_defaults;
    if (put->mode != PTIER_PUT_MODE_PUT || put->restore)
        status = ptier_put_many(client, record, 1, put, &results, error);
    else if ((status = ptier_client_enter(client, error)) == PTIER_OK)
        status = leave_with(client, put_one(client, record, put, &results, error));
    if (status == PTIER_OK && results.items[0].outcome == PTIER_PUT_REJECTED)
        status = ptier_fail(error, PTIER_INVALID_ARGUMENT, "%s", results.items[0].message);
    if (status == PTIER_OK && result)
        *result = results;
    else
        ptier_put_results_free(&results);
    return status;
}

static ptier_status
put_many(ptier_client *client, const ptier_record *records, size_t count, const ptier_put_call *put,
         ptier_put_results *results, ptier_error *error)
{
    Proxytier__V1__PutManyResponse *reply;
    ptier_put_results filled = {0};
    ptier_packed packed;
    ptier_arena *arena;

    ptier_status status = ptier_puts_pack(&packed, records, count, put, error);
    if (status != PTIER_OK)
        return status;
    ptier_call call = {.method = PTIER_METHOD_PUT_MANY,
                       .raw = packed.bytes,
                       .raw_length = packed.length,
                       .reply_type = &proxytier__v1__put_many_response__descriptor,
                       .once = put->restore};
    status = ptier_call_perform(client, &call, &arena, &reply, error);
    ptier_packed_fini(&packed);
    for (size_t i = 0; status != PTIER_OK && i < count; i++)
        ptier_near_client_forget(near_of(client), records[i].key);
    if (status != PTIER_OK)
        return status;
    for (size_t i = 0; i < reply->n_results; i++)
        ptier_near_client_wrote(near_of(client), reply->results[i]->key,
                                reply->results[i]->revision);
    if (reply->n_results != count)
        status = ptier_fail(error, PTIER_INTERNAL, "the reply has %zu results for %zu records",
                            reply->n_results, count);
    else
        status = ptier_read_puts(arena, reply->results, reply->n_results, &filled, error);
    if (status != PTIER_OK) {
        ptier_arena_destroy(arena);
        return status;
    }
    filled.durability = (ptier_durability)reply->durability;
    filled.tiers = ptier_tier_bits(reply->tiers, reply->n_tiers);
    if (results)
        *results = filled;
    else
        ptier_put_results_free(&filled);
    return PTIER_OK;
}

ptier_status
ptier_put_many(ptier_client *client, const ptier_record *records, size_t count,
               const ptier_put_call *put, ptier_put_results *results, ptier_error *error)
{
    if (results)
        memset(results, 0, sizeof *results);
    ptier_status status = ptier_client_enter(client, error);
    if (status != PTIER_OK)
        return status;
    return leave_with(client,
                      put_many(client, records, count, put ? put : &put_defaults, results, error));
}

Proxytier__V1__Durability
ptier_change_durability(const ptier_change_call *call)
{
    return (Proxytier__V1__Durability)(call ? call->durability : PTIER_DURABILITY_DEFAULT);
}

void
ptier_read_delete(const Proxytier__V1__DeleteResponse *reply, ptier_delete_result *result)
{
    *result = (ptier_delete_result){.deleted = reply->deleted,
                                    .revision = reply->revision,
                                    .durability = (ptier_durability)reply->durability};
}

static ptier_status
delete_keys(ptier_client *client, const char *const *keys, size_t count,
            const ptier_change_call *change, ptier_delete_result *result, ptier_error *error)
{
    Proxytier__V1__DeleteRequest request = PROXYTIER__V1__DELETE_REQUEST__INIT;
    Proxytier__V1__DeleteResponse *reply;
    ptier_arena *arena;

    ptier_status status = ptier_check_keys(keys, count, error);
    if (status != PTIER_OK)
        return status;
    request.keys = (char **)(uintptr_t)keys; /* only read, by packing */
    request.n_keys = count;
    request.durability = ptier_change_durability(change);
    ptier_call call = {.method = PTIER_METHOD_DELETE,
                       .request = &request.base,
                       .reply_type = &proxytier__v1__delete_response__descriptor};
    status = ptier_call_perform(client, &call, &arena, &reply, error);
    if (status != PTIER_OK) {
        forget_keys(client, keys, count);
        return status;
    }
    for (size_t i = 0; i < count; i++)
        ptier_near_client_wrote(near_of(client), keys[i], reply->revision);
    if (reply->revision == 0) /* an older daemon, which does not tell */
        ptier_near_client_cleared(near_of(client), 0);
    if (result)
        ptier_read_delete(reply, result);
    ptier_arena_destroy(arena);
    return PTIER_OK;
}

ptier_status
ptier_delete(ptier_client *client, const char *const *keys, size_t count,
             const ptier_change_call *change, ptier_delete_result *result, ptier_error *error)
{
    if (result)
        memset(result, 0, sizeof *result);
    ptier_status status = ptier_client_enter(client, error);
    if (status != PTIER_OK)
        return status;
    return leave_with(client, delete_keys(client, keys, count, change, result, error));
}

ptier_status
ptier_pack_reports(ptier_report_messages *packed, const ptier_report *reports, size_t count,
                   ptier_error *error)
{
    packed->messages = NULL;
    packed->list = NULL;
    if (count > PTIER_BATCH_MAX)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "%zu reports in one call, at most %d are allowed", count,
                          PTIER_BATCH_MAX);
    for (size_t i = 0; i < count; i++)
        if (!reports[i].key)
            return ptier_fail(error, PTIER_INVALID_ARGUMENT, "report %zu has no key", i);
    packed->messages = calloc(count + 1, sizeof *packed->messages);
    packed->list = calloc(count + 1, sizeof(*packed->list));
    if (!packed->messages || !packed->list) {
        ptier_report_messages_fini(packed);
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    }
    for (size_t i = 0; i < count; i++) {
        Proxytier__V1__HealthReport *message = &packed->messages[i];
        proxytier__v1__health_report__init(message);
        message->key = PTIER_UNCONST(char *, reports[i].key);
        message->outcome = (Proxytier__V1__ReportOutcome)reports[i].outcome;
        message->latency_ms = reports[i].latency_ms;
        if (reports[i].error)
            message->error = PTIER_UNCONST(char *, reports[i].error);
        packed->list[i] = message;
    }
    return PTIER_OK;
}

void
ptier_report_messages_fini(ptier_report_messages *packed)
{
    free(packed->list);
    free(packed->messages);
}

ptier_status
ptier_read_reports(ptier_arena *arena, const Proxytier__V1__ReportHealthResponse *reply,
                   size_t count, ptier_report_results *results, ptier_error *error)
{
    if (reply->n_results != count)
        return ptier_fail(error, PTIER_INTERNAL, "the reply has %zu results for %zu reports",
                          reply->n_results, count);
    ptier_report_result *items = ptier_arena_array(arena, count, sizeof *items);
    if (!items)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory for the reply");
    for (size_t i = 0; i < count; i++)
        items[i] = (ptier_report_result){.found = reply->results[i]->found,
                                         .removed = reply->results[i]->removed,
                                         .failure_count = reply->results[i]->failure_count,
                                         .health = (ptier_health)reply->results[i]->health,
                                         .revision = reply->results[i]->revision};
    *results = (ptier_report_results){.items = items,
                                      .count = count,
                                      .durability = (ptier_durability)reply->durability,
                                      .internal = arena};
    return PTIER_OK;
}

static ptier_status
perform_reports(ptier_client *client, Proxytier__V1__HealthReport **list, size_t count,
                const ptier_change_call *change, ptier_report_results *results, ptier_error *error)
{
    Proxytier__V1__ReportHealthRequest request = PROXYTIER__V1__REPORT_HEALTH_REQUEST__INIT;
    Proxytier__V1__ReportHealthResponse *reply;
    ptier_arena *arena;

    request.reports = list;
    request.n_reports = count;
    request.durability = ptier_change_durability(change);
    ptier_call call = {.method = PTIER_METHOD_REPORT_HEALTH,
                       .request = &request.base,
                       .reply_type = &proxytier__v1__report_health_response__descriptor};
    ptier_status status = ptier_call_perform(client, &call, &arena, &reply, error);
    if (status == PTIER_OK) {
        status = ptier_read_reports(arena, reply, count, results, error);
        if (status != PTIER_OK)
            ptier_arena_destroy(arena);
    }
    for (size_t i = 0; status != PTIER_OK && i < count; i++)
        ptier_near_client_forget(near_of(client), list[i]->key);
    /* Most change statistics only: what is known here of those keys stays. */
    for (size_t i = 0; status == PTIER_OK && i < count; i++)
        ptier_near_client_wrote(near_of(client), list[i]->key, results->items[i].revision);
    return status;
}

ptier_status
ptier_report_health(ptier_client *client, const ptier_report *reports, size_t count,
                    const ptier_change_call *change, ptier_report_results *results,
                    ptier_error *error)
{
    ptier_report_results filled = {0};
    ptier_report_messages packed;
    if (results)
        memset(results, 0, sizeof *results);
    ptier_status status = ptier_pack_reports(&packed, reports, count, error);
    if (status != PTIER_OK)
        return status;
    status = ptier_client_enter(client, error);
    if (status == PTIER_OK)
        status =
            leave_with(client, perform_reports(client, packed.list, count, change, &filled, error));
    ptier_report_messages_fini(&packed);
    if (results)
        *results = filled;
    else
        ptier_report_results_free(&filled);
    return status;
}
