/* GetInfo, Health.Check. */
#include "handle_common.h"

static const char *const features[] = {"events", "replay", "export"};
#define FEATURE_COUNT (sizeof features / sizeof *features)

static char *
words(const char *constant)
{
    return (char *)(uintptr_t)constant; /* protobuf-c wants char *; packing only reads */
}

static void
fill_limits(Proxytier__V1__Limits *limits)
{
    proxytier__v1__limits__init(limits);
    limits->message_bytes = PTIER_MESSAGE_MAX;
    limits->batch_items = PTIER_BATCH_MAX;
    limits->page_items = PTIER_PAGE_MAX;
    limits->key_bytes = PTIER_KEY_MAX;
    limits->url_bytes = PTIER_URL_MAX;
    limits->credential_bytes = PTIER_CREDENTIAL_MAX;
    limits->source_bytes = PTIER_SOURCE_MAX;
    limits->labels = PTIER_LABELS_MAX;
    limits->label_name_bytes = PTIER_LABEL_NAME_MAX;
    limits->label_value_bytes = PTIER_LABEL_VALUE_MAX;
}

/*
 * The one by the door that the caller came through, if it may use that: over ipc the user decides,
 * whatever the token says, since the event socket sees the user only. NULL: none.
 */
static const char *
event_url(const ptier_call *call)
{
    if (call->peer.door == PTIER_DOOR_IPC && call->peer.role < PTIER_ROLE_READER)
        return NULL;
    return call->service->event_urls[call->peer.door];
}

PTIER_HANDLER(ServerInfo, get_info, GetInfoRequest, GetInfoResponse)
{
    (void)service;
    (void)request;
    ptier_call *call = data;
    ptier_service *our = call->service;
    Proxytier__V1__GetInfoResponse response = PROXYTIER__V1__GET_INFO_RESPONSE__INIT;
    Proxytier__V1__Limits limits;
    char *feature_list[FEATURE_COUNT];
    char *urls[1] = {words(event_url(call))};
    uint8_t store_id[PTIER_ID_BYTES];
    for (size_t i = 0; i < FEATURE_COUNT; i++)
        feature_list[i] = words(features[i]);
    fill_limits(&limits);
    ptier_cache_store_id(our->cache, store_id);
    response.version = words(PTIER_VERSION);
    response.protocol = words("proxytier.v1");
    response.features = feature_list;
    response.n_features = FEATURE_COUNT;
    response.limits = &limits;
    response.n_event_urls = urls[0] ? 1 : 0;
    response.event_urls = urls;
    response.boot_id.data = our->boot_id;
    response.boot_id.len = PTIER_ID_BYTES;
    response.store_id.data = store_id;
    response.store_id.len = PTIER_ID_BYTES;
    response.revision = ptier_cache_revision(our->cache);
    response.boottime_ms = ptier_boottime_ms();
    response.heartbeat_ms = our->heartbeat_ms;
    response.failure_threshold = our->failure_threshold;
    response.default_ttl_ms = our->default_ttl_ms;
    response.role = words(ptier_role_name(call->role));
    closure(&response, call);
}

PTIER_HANDLER(Health, check, CheckRequest, CheckResponse)
{
    (void)service;
    (void)request;
    ptier_call *call = data;
    Proxytier__V1__CheckResponse response = PROXYTIER__V1__CHECK_RESPONSE__INIT;
    ptier_service *our = call->service;
    if (atomic_load(&our->stopping))
        response.status = PROXYTIER__V1__SERVING_STATUS__SERVING_STATUS_STOPPING;
    else if (atomic_load(&our->degraded_tiers))
        response.status = PROXYTIER__V1__SERVING_STATUS__SERVING_STATUS_DEGRADED;
    else
        response.status = PROXYTIER__V1__SERVING_STATUS__SERVING_STATUS_SERVING;
    closure(&response, call);
}
