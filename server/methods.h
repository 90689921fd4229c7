/* For server/ only: the handlers, one per rpc of the .proto files, as protobuf-c's service tables
 * want them. */
#ifndef PTIER_METHODS_H
#define PTIER_METHODS_H

#include "proxytier/v1/admin.pb-c.h"
#include "proxytier/v1/cache.pb-c.h"
#include "proxytier/v1/events.pb-c.h"
#include "proxytier/v1/info.pb-c.h"

#include "call.h"

/* Each handler answers through `closure` exactly once, or fails the call. `data` is the ptier_call.
 */
#define PTIER_HANDLER(service_name, handler, Request, Response)                                    \
    void ptier_handle_##handler(Proxytier__V1__##service_name##_Service *service,                  \
                                const Proxytier__V1__##Request *request,                           \
                                Proxytier__V1__##Response##_Closure closure, void *data)

PTIER_HANDLER(ProxyCache, get, GetRequest, GetResponse);
PTIER_HANDLER(ProxyCache, get_many, GetManyRequest, GetManyResponse);
PTIER_HANDLER(ProxyCache, put, PutRequest, PutResponse);
PTIER_HANDLER(ProxyCache, put_many, PutManyRequest, PutManyResponse);
PTIER_HANDLER(ProxyCache, delete, DeleteRequest, DeleteResponse);
PTIER_HANDLER(ProxyCache, report_health, ReportHealthRequest, ReportHealthResponse);
PTIER_HANDLER(ProxyCache, pick, PickRequest, PickResponse);
PTIER_HANDLER(ProxyCache, list, ListRequest, ListResponse);
PTIER_HANDLER(ProxyCache, get_statistics, GetStatisticsRequest, GetStatisticsResponse);
PTIER_HANDLER(ProxyCache, report_access, ReportAccessRequest, ReportAccessResponse);
PTIER_HANDLER(Events, replay, ReplayRequest, ReplayResponse);
PTIER_HANDLER(Admin, clear, ClearRequest, ClearResponse);
PTIER_HANDLER(Admin, export, ExportRequest, ExportResponse);
PTIER_HANDLER(Admin, rotate_keys, RotateKeysRequest, RotateKeysResponse);
PTIER_HANDLER(Admin, shutdown, ShutdownRequest, ShutdownResponse);
PTIER_HANDLER(Admin, reset_statistics, ResetStatisticsRequest, GetStatisticsResponse);
PTIER_HANDLER(Admin, backup, BackupRequest, BackupResponse);
PTIER_HANDLER(ServerInfo, get_info, GetInfoRequest, GetInfoResponse);
PTIER_HANDLER(Health, check, CheckRequest, CheckResponse);
PTIER_HANDLER(Reflection, get_descriptors, GetDescriptorsRequest, GetDescriptorsResponse);

#endif
