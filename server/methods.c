/*
 * The dispatch table. protobuf-c's service descriptors give names, messages and handlers; the rules
 * below say who may call what and where it runs. They follow the order of the .proto files: a test
 * compares the names.
 */
#include "methods.h"

#include <string.h>

#include "wire_check.h"

static const Proxytier__V1__ProxyCache_Service cache_service =
    PROXYTIER__V1__PROXY_CACHE__INIT(ptier_handle_);
static const Proxytier__V1__Events_Service events_service =
    PROXYTIER__V1__EVENTS__INIT(ptier_handle_);
static const Proxytier__V1__Admin_Service admin_service = PROXYTIER__V1__ADMIN__INIT(ptier_handle_);
static const Proxytier__V1__ServerInfo_Service info_service =
    PROXYTIER__V1__SERVER_INFO__INIT(ptier_handle_);
static const Proxytier__V1__Health_Service health_service =
    PROXYTIER__V1__HEALTH__INIT(ptier_handle_);
static const Proxytier__V1__Reflection_Service reflection_service =
    PROXYTIER__V1__REFLECTION__INIT(ptier_handle_);

/* X(service table, index, name, least role, lane, effect, also while stopping, tried first) */
#define METHOD_RULES(X)                                                                            \
    X(cache_service, 0, "Get", READER, READ, NONE, false, true)                                    \
    X(cache_service, 1, "GetMany", READER, READ, NONE, false, true)                                \
    X(cache_service, 2, "Put", ROTATOR, WRITE, AGAIN, false, false)                                \
    X(cache_service, 3, "PutMany", ROTATOR, WRITE, AGAIN, false, false)                            \
    X(cache_service, 4, "Delete", ROTATOR, WRITE, AGAIN, false, false)                             \
    X(cache_service, 5, "ReportHealth", ROTATOR, WRITE, ONCE, false, false)                        \
    X(cache_service, 6, "Pick", READER, PICK, NONE, false, false)                                  \
    X(cache_service, 7, "List", READER, SCAN, NONE, false, false)                                  \
    X(cache_service, 8, "GetStatistics", READER, READ, NONE, false, false)                         \
    X(cache_service, 9, "ReportAccess", READER, READ, ONCE, false, false)                          \
    X(events_service, 0, "Replay", READER, INLINE, NONE, false, false)                             \
    X(admin_service, 0, "Clear", ADMIN, WRITE, ONCE, false, false)                                 \
    X(admin_service, 1, "Export", ADMIN, SCAN, NONE, false, false)                                 \
    X(admin_service, 2, "RotateKeys", ADMIN, WRITE, AGAIN, false, false)                           \
    X(admin_service, 3, "Shutdown", ADMIN, INLINE, ONCE, true, false)                              \
    X(admin_service, 4, "ResetStatistics", ADMIN, READ, ONCE, false, false)                        \
    X(admin_service, 5, "Backup", ADMIN, SCAN, ONCE, false, false)                                 \
    X(info_service, 0, "GetInfo", READER, INLINE, NONE, false, false)                              \
    X(health_service, 0, "Check", NONE, INLINE, NONE, true, false)                                 \
    X(reflection_service, 0, "GetDescriptors", READER, INLINE, NONE, false, false)

#define PUT_MANY_RESTORE 4 /* the field */

#define METHOD_ROW(table, number, text, least, where, what, stopping, first)                       \
    {                                                                                              \
        .service = &(table).base,                                                                  \
        .index = (number),                                                                         \
        .name = (text),                                                                            \
        .role = PTIER_ROLE_##least,                                                                \
        .lane = PTIER_LANE_##where,                                                                \
        .effect = PTIER_EFFECT_##what,                                                             \
        .while_stopping = (stopping),                                                              \
        .tried = (first),                                                                          \
    },
const ptier_method ptier_methods[] = {METHOD_RULES(METHOD_ROW)};
const size_t ptier_method_count = sizeof ptier_methods / sizeof *ptier_methods;

const ptier_method *
ptier_method_find(const char *full_name)
{
    if (*full_name != '/')
        return NULL;
    const char *service = full_name + 1;
    const char *slash = strchr(service, '/');
    if (!slash)
        return NULL;
    size_t length = (size_t)(slash - service);
    for (size_t i = 0; i < ptier_method_count; i++) {
        const char *name = ptier_methods[i].service->descriptor->name;
        if (strcmp(ptier_methods[i].name, slash + 1) == 0 && strncmp(name, service, length) == 0 &&
            name[length] == '\0')
            return &ptier_methods[i];
    }
    return NULL;
}

/* A restoring put takes expiry and statistics over: what happened since is lost by a second one. */
ptier_effect
ptier_call_effect(const ptier_call *call)
{
    const ptier_method *method = call->method;
    if (method->service == &cache_service.base && strcmp(method->name, "PutMany") == 0 &&
        ptier_wire_number(call->body, call->body_length, PUT_MANY_RESTORE) != 0)
        return PTIER_EFFECT_ONCE;
    return method->effect;
}
