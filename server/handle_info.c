/* GetInfo, Health.Check, Reflection. */
#include "handle_common.h"

#include <string.h>

#include "descriptors.h"

static const char *const features[] = {"events", "replay",       "export", "deduplication",
                                       "backup", "key_rotation", "health", "reflection"};
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

/* ---- health ---- */

#define COMPONENTS (PTIER_TIER_COUNT + 1) /* calls, events, and the tiers from L1 on */

static Proxytier__V1__ServingStatus
status_of_tier(const ptier_service *our, int tier)
{
    return atomic_load(&our->degraded_tiers) & (1u << tier)
               ? PROXYTIER__V1__SERVING_STATUS__SERVING_STATUS_DEGRADED
               : PROXYTIER__V1__SERVING_STATUS__SERVING_STATUS_SERVING;
}

static Proxytier__V1__ServingStatus
status_of_doors(const ptier_service *our, unsigned kinds)
{
    if (atomic_load(&our->stopping))
        return PROXYTIER__V1__SERVING_STATUS__SERVING_STATUS_STOPPING;
    return atomic_load(&our->failing_endpoints) & kinds
               ? PROXYTIER__V1__SERVING_STATUS__SERVING_STATUS_DEGRADED
               : PROXYTIER__V1__SERVING_STATUS__SERVING_STATUS_SERVING;
}

static void
add_component(Proxytier__V1__ComponentStatus *list, size_t *count, const char *name,
              Proxytier__V1__ServingStatus status)
{
    proxytier__v1__component_status__init(&list[*count]);
    list[*count].name = words(name);
    list[(*count)++].status = status;
}

static bool
has_events(const ptier_service *our)
{
    for (int door = 0; door < PTIER_DOOR_COUNT; door++)
        if (our->event_urls[door])
            return true;
    return false;
}

static size_t
list_components(const ptier_service *our, Proxytier__V1__ComponentStatus list[COMPONENTS])
{
    static const char *const tiers[PTIER_TIER_COUNT] = {
        [PTIER_TIER_L1] = "l1", [PTIER_TIER_L2] = "l2", [PTIER_TIER_L3] = "l3"};
    size_t count = 0;
    add_component(list, &count, "calls", status_of_doors(our, PTIER_FAILING_CALLS));
    if (has_events(our))
        add_component(list, &count, "events", status_of_doors(our, PTIER_FAILING_EVENTS));
    for (int tier = PTIER_TIER_L1; tier < PTIER_TIER_COUNT; tier++)
        if (our->enabled_tiers & (1u << tier))
            add_component(list, &count, tiers[tier], status_of_tier(our, tier));
    return count;
}

PTIER_HANDLER(Health, check, CheckRequest, CheckResponse)
{
    (void)service;
    ptier_call *call = data;
    const ptier_service *our = call->service;
    Proxytier__V1__CheckResponse response = PROXYTIER__V1__CHECK_RESPONSE__INIT;
    Proxytier__V1__ComponentStatus list[COMPONENTS], *pointers[COMPONENTS];
    size_t count = list_components(our, list);
    for (size_t i = 0; i < count; i++)
        pointers[i] = &list[i];
    if (!*request->component) {
        response.components = pointers;
        response.n_components = count;
        response.status = status_of_doors(our, PTIER_FAILING_CALLS | PTIER_FAILING_EVENTS);
        if (response.status == PROXYTIER__V1__SERVING_STATUS__SERVING_STATUS_SERVING &&
            atomic_load(&our->degraded_tiers))
            response.status = PROXYTIER__V1__SERVING_STATUS__SERVING_STATUS_DEGRADED;
        closure(&response, call);
        return;
    }
    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i].name, request->component) == 0) {
            response.status = list[i].status;
            closure(&response, call);
            return;
        }
    ptier_call_fail(call, PTIER_NOT_FOUND,
                    "no such component, or it is switched off: calls, events, l1, l2 and l3 are "
                    "there at most");
}

/* ---- reflection ---- */

PTIER_HANDLER(Reflection, get_descriptors, GetDescriptorsRequest, GetDescriptorsResponse)
{
    (void)service;
    (void)request;
    Proxytier__V1__GetDescriptorsResponse response = PROXYTIER__V1__GET_DESCRIPTORS_RESPONSE__INIT;
    response.file_descriptor_set.data = (uint8_t *)(uintptr_t)ptier_descriptors; /* only read */
    response.file_descriptor_set.len = ptier_descriptors_length;
    closure(&response, data);
}
