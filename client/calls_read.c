/* Typed calls that read records: Get, GetMany, Pick, List. */
#include <string.h>

#include "call.h"
#include "calls_internal.h"
#include "near_client.h"

#define UNCONST PTIER_UNCONST

ptier_status
ptier_check_keys(const char *const *keys, size_t count, ptier_error *error)
{
    if (count > PTIER_BATCH_MAX)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "%zu keys in one call, at most %d are allowed", count, PTIER_BATCH_MAX);
    for (size_t i = 0; i < count; i++)
        if (!keys[i])
            return ptier_fail(error, PTIER_INVALID_ARGUMENT, "key %zu is missing", i);
    return PTIER_OK;
}

/* Whether reads go through a near cache. */
static bool
has_near(const ptier_client *client)
{
    return client && client->near;
}

ptier_status
ptier_get_near_statistics(ptier_client *client, ptier_near_statistics *statistics,
                          ptier_error *error)
{
    memset(statistics, 0, sizeof *statistics);
    if (!has_near(client))
        return ptier_fail(error, PTIER_FAILED_PRECONDITION,
                          "this client was opened without a near cache");
    ptier_status status = ptier_client_enter_read(client, error);
    if (status != PTIER_OK)
        return status;
    ptier_near_client_statistics(client->near, statistics);
    ptier_client_leave_read(client);
    return PTIER_OK;
}

ptier_status
ptier_read_get(ptier_arena *arena, const ptier_record_list *reply, ptier_records *result,
               ptier_error *error)
{
    if (reply->count == 0) {
        ptier_arena_destroy(arena);
        return ptier_fail(error, PTIER_INTERNAL, "the reply to Get holds no record");
    }
    ptier_status status = ptier_records_fill(result, arena, reply, error);
    if (status == PTIER_OK)
        result->tier = reply->tier;
    return status;
}

static ptier_status
get_from_daemon(ptier_client *client, const char *key, ptier_records *result, ptier_error *error)
{
    Proxytier__V1__GetRequest request = PROXYTIER__V1__GET_REQUEST__INIT;
    const ptier_record_list *reply;
    ptier_arena *arena;
    request.key = UNCONST(char *, key);
    ptier_call call = {.method = PTIER_METHOD_GET,
                       .request = &request.base,
                       .reply_type = &proxytier__v1__get_response__descriptor};
    ptier_status status = ptier_call_perform(client, &call, &arena, &reply, error);
    if (status != PTIER_OK)
        return status;
    return ptier_read_get(arena, reply, result, error);
}

ptier_status
ptier_get(ptier_client *client, const char *key, ptier_records *result, ptier_error *error)
{
    ptier_records_clear(result);
    if (!key)
        return ptier_check_keys(&(const char *){NULL}, 1, error);
    if (has_near(client))
        return ptier_near_client_get(client->near, key, result, error);
    return get_from_daemon(client, key, result, error);
}

static ptier_status
get_many_near(ptier_client *client, const char *const *keys, size_t count, ptier_records *result,
              ptier_error *error)
{
    ptier_status status = ptier_client_enter_read(client, error);
    if (status != PTIER_OK)
        return status;
    status = ptier_near_client_get_many(client->near, keys, count, result, error);
    ptier_client_leave_read(client);
    return status;
}

ptier_status
ptier_get_many(ptier_client *client, const char *const *keys, size_t count, ptier_records *result,
               ptier_error *error)
{
    Proxytier__V1__GetManyRequest request = PROXYTIER__V1__GET_MANY_REQUEST__INIT;
    const ptier_record_list *reply;
    ptier_arena *arena;

    memset(result, 0, sizeof *result);
    ptier_status status = ptier_check_keys(keys, count, error);
    if (status != PTIER_OK)
        return status;
    if (has_near(client))
        return get_many_near(client, keys, count, result, error);
    request.keys = UNCONST(char **, keys);
    request.n_keys = count;
    ptier_call call = {.method = PTIER_METHOD_GET_MANY,
                       .request = &request.base,
                       .reply_type = &proxytier__v1__get_many_response__descriptor};
    status = ptier_call_perform(client, &call, &arena, &reply, error);
    if (status != PTIER_OK)
        return status;
    return ptier_records_fill(result, arena, reply, error);
}

typedef struct ptier_filter_message filter_message;

static ptier_status
pack_filter(filter_message *message, const ptier_filter *filter, ptier_error *error)
{
    proxytier__v1__filter__init(&message->filter);
    if (!filter)
        return PTIER_OK;
    if (filter->label_count > PTIER_LABELS_MAX)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "a filter has at most %d labels",
                          PTIER_LABELS_MAX);
    if (filter->source)
        message->filter.source = UNCONST(char *, filter->source);
    if (filter->scheme)
        message->filter.scheme = UNCONST(char *, filter->scheme);
    message->filter.health = (Proxytier__V1__HealthStatus)filter->health;
    for (size_t i = 0; i < filter->label_count; i++) {
        if (!filter->labels[i].name)
            return ptier_fail(error, PTIER_INVALID_ARGUMENT, "label %zu of the filter has no name",
                              i);
        proxytier__v1__label__init(&message->labels[i]);
        message->labels[i].name = UNCONST(char *, filter->labels[i].name);
        if (filter->labels[i].value)
            message->labels[i].value = UNCONST(char *, filter->labels[i].value);
        message->label_list[i] = &message->labels[i];
    }
    message->filter.labels = message->label_list;
    message->filter.n_labels = filter->label_count;
    return PTIER_OK;
}

ptier_status
ptier_pack_pick(ptier_pick_message *message, const ptier_pick_options *options, ptier_error *error)
{
    static const ptier_pick_options any = {0};
    if (!options)
        options = &any;
    if (options->count > PTIER_BATCH_MAX)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "at most %d records in one call",
                          PTIER_BATCH_MAX);
    ptier_status status = ptier_check_keys(options->exclude, options->exclude_count, error);
    if (status == PTIER_OK)
        status = pack_filter(&message->filter, options->filter, error);
    if (status != PTIER_OK)
        return status;
    proxytier__v1__pick_request__init(&message->request);
    message->request.count = (uint32_t)options->count;
    message->request.filter = &message->filter.filter;
    message->request.exclude = UNCONST(char **, options->exclude);
    message->request.n_exclude = options->exclude_count;
    return PTIER_OK;
}

ptier_status
ptier_pick(ptier_client *client, const ptier_pick_options *options, ptier_records *result,
           ptier_error *error)
{
    const ptier_record_list *reply;
    ptier_pick_message message;
    ptier_arena *arena;

    memset(result, 0, sizeof *result);
    ptier_status status = ptier_pack_pick(&message, options, error);
    if (status != PTIER_OK)
        return status;
    ptier_call call = {.method = PTIER_METHOD_PICK,
                       .request = &message.request.base,
                       .reply_type = &proxytier__v1__pick_response__descriptor};
    status = ptier_call_perform(client, &call, &arena, &reply, error);
    if (status != PTIER_OK)
        return status;
    return ptier_records_fill(result, arena, reply, error);
}

ptier_status
ptier_list(ptier_client *client, const ptier_filter *filter, uint32_t page_size,
           const char *page_token, ptier_records *result, ptier_error *error)
{
    Proxytier__V1__ListRequest request = PROXYTIER__V1__LIST_REQUEST__INIT;
    const ptier_record_list *reply;
    filter_message packed_filter;
    char token[sizeof result->next_page_token]; /* the caller may pass the result's own */
    ptier_arena *arena;

    if (page_token && strlen(page_token) >= sizeof token) {
        memset(result, 0, sizeof *result);
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "no page token of List: longer than %zu bytes", sizeof token - 1);
    }
    (void)snprintf(token, sizeof token, "%s",
                   page_token ? page_token : ""); /* fits: checked above */
    memset(result, 0, sizeof *result);
    ptier_status status = pack_filter(&packed_filter, filter, error);
    if (status != PTIER_OK)
        return status;
    request.filter = &packed_filter.filter;
    request.page_size = page_size;
    request.page_token = token;
    ptier_call call = {.method = PTIER_METHOD_LIST,
                       .request = &request.base,
                       .reply_type = &proxytier__v1__list_response__descriptor};
    status = ptier_call_perform(client, &call, &arena, &reply, error);
    if (status != PTIER_OK)
        return status;
    if (strlen(reply->next_page_token) >= sizeof result->next_page_token) {
        ptier_arena_destroy(arena);
        return ptier_fail(error, PTIER_INTERNAL,
                          "the reply's page token is longer than this library knows");
    }
    status = ptier_records_fill(result, arena, reply, error);
    if (status == PTIER_OK)
        (void)strcpy(result->next_page_token, reply->next_page_token); /* length checked above */
    return status;
}
