/* Typed calls about the daemon as a whole: Clear, Export, RotateKeys, Backup, Shutdown, statistics,
 * GetInfo. */
#include <stdlib.h>
#include <string.h>

#include "call.h"
#include "calls_internal.h"
#include "near_client.h"
#include "convert_statistics.h"
#include "info_call.h"
#include "proxytier/v1/admin.pb-c.h"
#include "proxytier/v1/cache.pb-c.h"
#include "proxytier/v1/info.pb-c.h"

static ptier_status
clear(ptier_client *client, ptier_tier_id tier, const ptier_change_call *change,
      ptier_clear_result *result, ptier_error *error)
{
    Proxytier__V1__ClearRequest request = PROXYTIER__V1__CLEAR_REQUEST__INIT;
    Proxytier__V1__ClearResponse *reply;
    ptier_arena *arena;

    request.tier = (Proxytier__V1__Tier)tier;
    request.durability = ptier_change_durability(change);
    ptier_call call = {.method = PTIER_METHOD_CLEAR,
                       .request = &request.base,
                       .reply_type = &proxytier__v1__clear_response__descriptor};
    ptier_status status = ptier_call_perform(client, &call, &arena, &reply, error);
    if (status != PTIER_OK)
        return status;
    if (tier == PTIER_TIER_NONE)
        ptier_near_client_cleared(client->near, reply->revision);
    if (result)
        *result = (ptier_clear_result){.cleared = reply->cleared,
                                       .revision = reply->revision,
                                       .durability = (ptier_durability)reply->durability};
    ptier_arena_destroy(arena);
    return PTIER_OK;
}

ptier_status
ptier_clear(ptier_client *client, ptier_tier_id tier, const ptier_change_call *change,
            ptier_clear_result *result, ptier_error *error)
{
    if (result)
        memset(result, 0, sizeof *result);
    ptier_status status = ptier_client_enter(client, error);
    if (status != PTIER_OK)
        return status;
    status = clear(client, tier, change, result, error); /* with the near cache, after its call */
    ptier_client_leave(client);
    return status;
}

/* One page. *token is freed and replaced; NULL after the last page. */
static ptier_status
export_page(ptier_client *client, Proxytier__V1__ExportRequest *request, char **token,
            ptier_export_fn write, void *context, ptier_error *error)
{
    Proxytier__V1__ExportResponse *reply;
    ptier_arena *arena;
    ptier_call call = {.method = PTIER_METHOD_EXPORT,
                       .request = &request->base,
                       .reply_type = &proxytier__v1__export_response__descriptor};
    if (*token)
        request->page_token = *token;
    ptier_status status = ptier_call_perform(client, &call, &arena, &reply, error);
    if (status != PTIER_OK)
        return status;
    if (reply->jsonl.len > 0 &&
        !write(context, (const char *)reply->jsonl.data, reply->jsonl.len, reply->entries))
        status = ptier_fail(error, PTIER_CANCELLED, "the receiver stopped the export");
    free(*token);
    *token = NULL;
    if (status == PTIER_OK && reply->next_page_token[0] &&
        !(*token = strdup(reply->next_page_token)))
        status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    ptier_arena_destroy(arena);
    return status;
}

ptier_status
ptier_export(ptier_client *client, ptier_tier_id tier, bool plain_credentials,
             ptier_export_fn write, void *context, ptier_error *error)
{
    Proxytier__V1__ExportRequest request = PROXYTIER__V1__EXPORT_REQUEST__INIT;
    char *token = NULL;
    ptier_status status = ptier_client_enter(client, error);
    if (status != PTIER_OK)
        return status;
    request.tier = (Proxytier__V1__Tier)tier;
    request.plain_credentials = plain_credentials;
    do
        status = export_page(client, &request, &token, write, context, error);
    while (status == PTIER_OK && token);
    free(token);
    ptier_client_leave(client);
    return status;
}

/* One step. *token is freed and replaced; NULL after the last one. */
static ptier_status
rotate_step(ptier_client *client, char **token, ptier_rotate_fn progress, void *context,
            uint64_t *rewritten, ptier_error *error)
{
    Proxytier__V1__RotateKeysRequest request = PROXYTIER__V1__ROTATE_KEYS_REQUEST__INIT;
    Proxytier__V1__RotateKeysResponse *reply;
    ptier_arena *arena;
    ptier_call call = {.method = PTIER_METHOD_ROTATE_KEYS,
                       .request = &request.base,
                       .reply_type = &proxytier__v1__rotate_keys_response__descriptor};
    if (*token)
        request.page_token = *token;
    ptier_status status = ptier_call_perform(client, &call, &arena, &reply, error);
    if (status != PTIER_OK)
        return status;
    if (rewritten)
        *rewritten = reply->rewritten;
    if (progress && !progress(context, reply->done, reply->total))
        status = ptier_fail(error, PTIER_CANCELLED, "the rotation was stopped");
    free(*token);
    *token = NULL;
    if (status == PTIER_OK && reply->next_page_token[0] &&
        !(*token = strdup(reply->next_page_token)))
        status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    ptier_arena_destroy(arena);
    return status;
}

ptier_status
ptier_rotate_keys(ptier_client *client, ptier_rotate_fn progress, void *context,
                  uint64_t *rewritten, ptier_error *error)
{
    char *token = NULL;
    ptier_status status = ptier_client_enter(client, error);
    if (status != PTIER_OK)
        return status;
    do
        status = rotate_step(client, &token, progress, context, rewritten, error);
    while (status == PTIER_OK && token);
    free(token);
    ptier_client_leave(client);
    return status;
}

#define BACKUP_TIMEOUT_MS 600000 /* the longest that a daemon takes */

ptier_status
ptier_backup(ptier_client *client, const char *path, uint32_t timeout_ms,
             ptier_backup_result *result, ptier_error *error)
{
    Proxytier__V1__BackupRequest request = PROXYTIER__V1__BACKUP_REQUEST__INIT;
    Proxytier__V1__BackupResponse *reply;
    ptier_arena *arena;

    *result = (ptier_backup_result){0};
    request.path = (char *)path;
    ptier_call call = {.method = PTIER_METHOD_BACKUP,
                       .request = &request.base,
                       .reply_type = &proxytier__v1__backup_response__descriptor,
                       .timeout_ms = timeout_ms ? timeout_ms : BACKUP_TIMEOUT_MS};
    ptier_status status = ptier_call_perform(client, &call, &arena, &reply, error);
    if (status != PTIER_OK)
        return status;
    *result = (ptier_backup_result){reply->entries, reply->bytes, reply->as_of};
    ptier_arena_destroy(arena);
    return PTIER_OK;
}

ptier_status
ptier_shutdown(ptier_client *client, ptier_error *error)
{
    Proxytier__V1__ShutdownRequest request = PROXYTIER__V1__SHUTDOWN_REQUEST__INIT;
    Proxytier__V1__ShutdownResponse *reply;
    ptier_arena *arena;
    ptier_call call = {.method = PTIER_METHOD_SHUTDOWN,
                       .request = &request.base,
                       .reply_type = &proxytier__v1__shutdown_response__descriptor};
    ptier_status status = ptier_call_perform(client, &call, &arena, &reply, error);
    ptier_arena_destroy(arena);
    return status;
}

/* Both calls answer with the same message. `statistics` NULL: not wanted. */
static ptier_status
statistics_call(ptier_client *client, ptier_method method, const ProtobufCMessage *request,
                ptier_statistics *statistics, ptier_error *error)
{
    Proxytier__V1__GetStatisticsResponse *reply;
    ptier_arena *arena;

    if (statistics)
        memset(statistics, 0, sizeof *statistics);
    ptier_call call = {.method = method,
                       .request = request,
                       .reply_type = &proxytier__v1__get_statistics_response__descriptor};
    ptier_status status = ptier_call_perform(client, &call, &arena, &reply, error);
    if (status != PTIER_OK)
        return status;
    if (statistics)
        ptier_statistics_from_message(reply, statistics);
    ptier_arena_destroy(arena);
    return PTIER_OK;
}

ptier_status
ptier_get_statistics(ptier_client *client, ptier_statistics *statistics, ptier_error *error)
{
    Proxytier__V1__GetStatisticsRequest request = PROXYTIER__V1__GET_STATISTICS_REQUEST__INIT;
    return statistics_call(client, PTIER_METHOD_GET_STATISTICS, &request.base, statistics, error);
}

ptier_status
ptier_reset_statistics(ptier_client *client, ptier_statistics *last, ptier_error *error)
{
    Proxytier__V1__ResetStatisticsRequest request = PROXYTIER__V1__RESET_STATISTICS_REQUEST__INIT;
    return statistics_call(client, PTIER_METHOD_RESET_STATISTICS, &request.base, last, error);
}

static void
copy_id(uint8_t id[PTIER_BOOT_ID_BYTES], const ProtobufCBinaryData *bytes)
{
    if (bytes->len == PTIER_BOOT_ID_BYTES)
        memcpy(id, bytes->data, PTIER_BOOT_ID_BYTES);
}

static void
copy_limits(ptier_server_limits *limits, const Proxytier__V1__Limits *reply)
{
    *limits = (ptier_server_limits){
        .message_bytes = reply->message_bytes,
        .batch_items = reply->batch_items,
        .page_items = reply->page_items,
        .key_bytes = reply->key_bytes,
        .url_bytes = reply->url_bytes,
        .credential_bytes = reply->credential_bytes,
        .source_bytes = reply->source_bytes,
        .labels = reply->labels,
        .label_name_bytes = reply->label_name_bytes,
        .label_value_bytes = reply->label_value_bytes,
    };
}

/* The protocol's bounds: a name that keeps to none of them is of no feature that we could know. */
static void
copy_features(ptier_server_info *info, const Proxytier__V1__GetInfoResponse *reply)
{
    for (size_t i = 0; i < reply->n_features && info->feature_count < PTIER_FEATURES_MAX; i++) {
        size_t length = strlen(reply->features[i]);
        if (length > 0 && length <= PTIER_FEATURE_NAME_MAX)
            memcpy(info->features[info->feature_count++], reply->features[i], length + 1);
    }
}

static ptier_status
copy_info(ptier_server_info *info, const Proxytier__V1__GetInfoResponse *reply, ptier_error *error)
{
    /* Version words may be cut, an address may not. */
    (void)snprintf(info->version, sizeof info->version, "%s", reply->version);
    (void)snprintf(info->protocol, sizeof info->protocol, "%s", reply->protocol);
    (void)snprintf(info->role, sizeof info->role, "%s", reply->role);
    if (reply->n_event_urls > 0 && (size_t)snprintf(info->event_url, sizeof info->event_url, "%s",
                                                    reply->event_urls[0]) >= sizeof info->event_url)
        return ptier_fail(error, PTIER_INTERNAL,
                          "the daemon's event address is longer than %d bytes", PTIER_URL_MAX);
    copy_features(info, reply);
    copy_id(info->boot_id, &reply->boot_id);
    copy_id(info->store_id, &reply->store_id);
    info->revision = reply->revision;
    info->heartbeat_ms = reply->heartbeat_ms;
    info->failure_threshold = reply->failure_threshold;
    info->default_ttl_ms = reply->default_ttl_ms;
    if (reply->limits)
        copy_limits(&info->limits, reply->limits);
    return PTIER_OK;
}

ptier_status
ptier_get_info_within(ptier_client *client, uint32_t timeout_ms, ptier_server_info *info,
                      ptier_error *error)
{
    Proxytier__V1__GetInfoRequest request = PROXYTIER__V1__GET_INFO_REQUEST__INIT;
    Proxytier__V1__GetInfoResponse *reply;
    ptier_arena *arena;

    memset(info, 0, sizeof *info);
    ptier_call call = {.method = PTIER_METHOD_GET_INFO,
                       .request = &request.base,
                       .reply_type = &proxytier__v1__get_info_response__descriptor,
                       .timeout_ms = timeout_ms};
    ptier_status status = ptier_call_perform(client, &call, &arena, &reply, error);
    if (status != PTIER_OK)
        return status;
    status = copy_info(info, reply, error);
    if (reply->limits)
        atomic_store(&client->message_limit, reply->limits->message_bytes);
    ptier_arena_destroy(arena);
    return status;
}

ptier_status
ptier_get_info(ptier_client *client, ptier_server_info *info, ptier_error *error)
{
    return ptier_get_info_within(client, 0, info, error);
}
