/*
 * One remote call: header and body into a message, exchange, retries, header and body out of the
 * reply. Thread-safe.
 */
#ifndef PTIER_CALL_H
#define PTIER_CALL_H

#include <stdbool.h>

#include <protobuf-c/protobuf-c.h>

#include "arena.h"
#include "client_internal.h"

/* Unpacked records take 3 to 12 times their packed size; short labels and empty records more. */
#define PTIER_REPLY_BUDGET(packed_length) (((size_t)64 << 10) + (packed_length)*32)

/* X(name, full method, may be done twice, reply holds credentials) */
#define PTIER_METHOD_TABLE(X)                                                                      \
    X(GET, "/proxytier.v1.ProxyCache/Get", true, true)                                             \
    X(GET_MANY, "/proxytier.v1.ProxyCache/GetMany", true, true)                                    \
    X(PUT, "/proxytier.v1.ProxyCache/Put", true, true)                                             \
    X(PUT_MANY, "/proxytier.v1.ProxyCache/PutMany", true, false)                                   \
    X(DELETE, "/proxytier.v1.ProxyCache/Delete", true, false)                                      \
    X(REPORT_HEALTH, "/proxytier.v1.ProxyCache/ReportHealth", false, false)                        \
    X(PICK, "/proxytier.v1.ProxyCache/Pick", true, true)                                           \
    X(LIST, "/proxytier.v1.ProxyCache/List", true, true)                                           \
    X(GET_STATISTICS, "/proxytier.v1.ProxyCache/GetStatistics", true, false)                       \
    X(REPORT_ACCESS, "/proxytier.v1.ProxyCache/ReportAccess", false, false)                        \
    X(REPLAY, "/proxytier.v1.Events/Replay", true, false)                                          \
    X(CLEAR, "/proxytier.v1.Admin/Clear", false, false)                                            \
    X(EXPORT, "/proxytier.v1.Admin/Export", true, true)                                            \
    X(ROTATE_KEYS, "/proxytier.v1.Admin/RotateKeys", true, false)                                  \
    X(SHUTDOWN, "/proxytier.v1.Admin/Shutdown", false, false)                                      \
    X(RESET_STATISTICS, "/proxytier.v1.Admin/ResetStatistics", false, false)                       \
    X(BACKUP, "/proxytier.v1.Admin/Backup", false, false)                                          \
    X(GET_INFO, "/proxytier.v1.ServerInfo/GetInfo", true, false)                                   \
    X(CHECK, "/proxytier.v1.Health/Check", true, false)                                            \
    X(GET_DESCRIPTORS, "/proxytier.v1.Reflection/GetDescriptors", true, false)

typedef enum ptier_method {
#define PTIER_METHOD_ENUM(name, text, twice, secret) PTIER_METHOD_##name,
    PTIER_METHOD_TABLE(PTIER_METHOD_ENUM)
#undef PTIER_METHOD_ENUM
        PTIER_METHOD_COUNT
} ptier_method;

/* Start from { .method = …, .request = &….base }: all else 0. */
typedef struct ptier_call {
    ptier_method method;
    const ProtobufCMessage *request; /* NULL: `raw` is the packed one */
    const void *raw;
    size_t raw_length;
    const ProtobufCMessageDescriptor *reply_type;
    bool once;           /* not to be done twice, although the method usually may */
    uint32_t timeout_ms; /* 0: the client's */
} ptier_call;

/*
 * Performs the call. OK: *reply (as in ptier_attempt_unpack) lives in *arena, which the caller
 * destroys. Otherwise *arena is NULL. A method that may not be done twice gets ABORTED when it is
 * unknown whether the daemon did it.
 */
PTIER_MUST_CHECK ptier_status ptier_call_perform(ptier_client *client, const ptier_call *call,
                                                 ptier_arena **arena, void *reply,
                                                 ptier_error *error);

/* Larger requests are compared with the daemon's limit first. */
#define PTIER_UNASKED_BODY_MAX ((size_t)1 << 20)

/* INVALID_ARGUMENT: the daemon takes no message so large. limit 0: not known, OK. */
PTIER_MUST_CHECK ptier_status ptier_call_check_size(size_t body_length, uint32_t limit,
                                                    ptier_error *error);

/* What the table says of a method. */
struct ptier_attempt;
void ptier_call_describe(ptier_method method, struct ptier_attempt *attempt);

#endif
