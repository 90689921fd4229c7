/*
 * The dispatch table. protobuf-c's service descriptors give names, messages and handlers; the rules
 * below say who may call what and where it runs. They follow the order of the .proto files: a test
 * compares the names.
 */
#include "methods.h"

#include <string.h>

static const Proxytier__V1__ProxyCache_Service cache_service =
    PROXYTIER__V1__PROXY_CACHE__INIT(ptier_handle_);
static const Proxytier__V1__Events_Service events_service =
    PROXYTIER__V1__EVENTS__INIT(ptier_handle_);
static const Proxytier__V1__Admin_Service admin_service = PROXYTIER__V1__ADMIN__INIT(ptier_handle_);
static const Proxytier__V1__ServerInfo_Service info_service =
    PROXYTIER__V1__SERVER_INFO__INIT(ptier_handle_);
static const Proxytier__V1__Health_Service health_service =
    PROXYTIER__V1__HEALTH__INIT(ptier_handle_);

/* X(service table, index, name, least role, lane, also while stopping) */
#define METHOD_RULES(X)                                                                            \
    X(cache_service, 0, "Get", READER, READ, false)                                                \
    X(cache_service, 1, "GetMany", READER, READ, false)                                            \
    X(cache_service, 2, "Put", ROTATOR, WRITE, false)                                              \
    X(cache_service, 3, "PutMany", ROTATOR, WRITE, false)                                          \
    X(cache_service, 4, "Delete", ROTATOR, WRITE, false)                                           \
    X(cache_service, 5, "ReportHealth", ROTATOR, WRITE, false)                                     \
    X(cache_service, 6, "Pick", READER, READ, false)                                               \
    X(cache_service, 7, "List", READER, READ, false)                                               \
    X(cache_service, 8, "GetStatistics", READER, READ, false)                                      \
    X(cache_service, 9, "ReportAccess", READER, READ, false)                                       \
    X(events_service, 0, "Replay", READER, INLINE, false)                                          \
    X(admin_service, 0, "Clear", ADMIN, WRITE, false)                                              \
    X(admin_service, 1, "Export", ADMIN, READ, false)                                              \
    X(admin_service, 2, "RotateKeys", ADMIN, WRITE, false)                                         \
    X(admin_service, 3, "Shutdown", ADMIN, INLINE, true)                                           \
    X(admin_service, 4, "ResetStatistics", ADMIN, READ, false)                                     \
    X(admin_service, 5, "Backup", ADMIN, READ, false)                                              \
    X(info_service, 0, "GetInfo", READER, INLINE, false)                                           \
    X(health_service, 0, "Check", NONE, INLINE, true)

#define METHOD_ROW(table, number, text, least, where, stopping)                                    \
    {                                                                                              \
        .service = &(table).base,                                                                  \
        .index = (number),                                                                         \
        .name = (text),                                                                            \
        .role = PTIER_ROLE_##least,                                                                \
        .lane = PTIER_LANE_##where,                                                                \
        .while_stopping = (stopping),                                                              \
    },
static const ptier_method methods[] = {METHOD_RULES(METHOD_ROW)};

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
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        const char *name = methods[i].service->descriptor->name;
        if (strcmp(methods[i].name, slash + 1) == 0 && strncmp(name, service, length) == 0 &&
            name[length] == '\0')
            return &methods[i];
    }
    return NULL;
}
