/* Clear, Export, RotateKeys, Backup, Shutdown, ResetStatistics. */
#include "convert_statistics.h"
#include "handle_common.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#define EXPORT_STEP  64                    /* entries asked of the cache at once */
#define EXPORT_BYTES ((size_t)1024 * 1024) /* a page ends when it has grown past this */

PTIER_HANDLER(Admin, clear, ClearRequest, ClearResponse)
{
    (void)service;
    ptier_call *call = data;
    ptier_error error = {0};
    ptier_written written;
    Proxytier__V1__ClearResponse response = PROXYTIER__V1__CLEAR_RESPONSE__INIT;
    ptier_status status = ptier_cache_clear(
        call->service->cache, (ptier_tier_id)request->tier, (ptier_durability)request->durability,
        &response.cleared, &response.revision, &written, &error);
    if (status != PTIER_OK) {
        ptier_call_fail_as(call, status, &error);
        return;
    }
    ptier_log_write(call->service->log, PTIER_LOG_INFO, "cleared", "%s: %llu entries",
                    ptier_tier_name((ptier_tier_id)request->tier),
                    (unsigned long long)response.cleared);
    response.durability = (Proxytier__V1__Durability)written.durability;
    call->items = response.cleared;
    closure(&response, call);
}

static ptier_status
append_lines(ptier_call *call, ptier_bytes *lines, ptier_entry *const *entries, size_t count,
             bool plain)
{
    for (size_t i = 0; i < count; i++) {
        uint8_t *line = ptier_bytes_reserve(lines, PTIER_EXPORT_LINE_MAX);
        if (!line)
            return PTIER_RESOURCE_EXHAUSTED;
        size_t length = ptier_cache_export_line(call->service->cache, entries[i], plain,
                                                (char *)line, PTIER_EXPORT_LINE_MAX);
        if (length > PTIER_EXPORT_LINE_MAX)
            return PTIER_INTERNAL;
        lines->length += length;
    }
    return PTIER_OK;
}

/* One step of an export. False: the call has failed. */
static bool
export_step(ptier_call *call, const Proxytier__V1__ExportRequest *request, ptier_page *page,
            size_t limit, ptier_bytes *lines, size_t *exported)
{
    ptier_entry *entries[EXPORT_STEP];
    ptier_filter everything = {0};
    size_t count = 0;
    ptier_error error = {0};
    if (ptier_call_expired(call)) {
        ptier_call_fail(call, PTIER_DEADLINE_EXCEEDED,
                        "the export took longer than the call's timeout");
        return false;
    }
    ptier_status status = ptier_cache_list(
        call->service->cache, &page->cursor, &everything, (ptier_tier_id)request->tier,
        limit < EXPORT_STEP ? limit : EXPORT_STEP, entries, &count, &error);
    if (status != PTIER_OK) {
        ptier_call_fail_as(call, status, &error);
        return false;
    }
    status = append_lines(call, lines, entries, count, request->plain_credentials);
    for (size_t i = 0; i < count; i++)
        ptier_entry_release(entries[i]);
    *exported += count;
    call->items += count;
    if (status != PTIER_OK)
        ptier_call_fail(call, status, "an entry cannot be written as a line");
    return status == PTIER_OK;
}

PTIER_HANDLER(Admin, export, ExportRequest, ExportResponse)
{
    (void)service;
    ptier_call *call = data;
    Proxytier__V1__ExportResponse response = PROXYTIER__V1__EXPORT_RESPONSE__INIT;
    ptier_bytes lines = {0};
    ptier_page page;
    char token[PTIER_PAGE_TOKEN];
    size_t exported = 0, wanted = ptier_page_size(request->page_size);
    if (!ptier_page_read(call, request->page_token, &page))
        return;
    do {
        if (!export_step(call, request, &page, wanted - exported, &lines, &exported))
            goto out;
    } while (page.cursor && exported < wanted && lines.length < EXPORT_BYTES);
    ptier_page_write(call, &page, token);
    response.jsonl.data = lines.data;
    response.jsonl.len = lines.length;
    response.entries = (uint32_t)exported;
    response.next_page_token = token;
    response.as_of = page.as_of;
    closure(&response, call);
out:
    ptier_bytes_fini(&lines);
}

/* ---- rotation of keys: the token is the state of the rotation ---- */

#define ROTATION_TOKEN 128
#define ROTATION_STEPS 16 /* in one call */

static bool
read_rotation(ptier_call *call, const char *token, ptier_rotation *rotation)
{
    *rotation = (ptier_rotation){0};
    if (!*token)
        return true;
    /* NOLINTNEXTLINE(cert-err34-c): any numbers will do, the cache checks them */
    if (sscanf(token, "%" SCNx32 ".%" SCNx64 ".%" SCNx64 ".%" SCNx64 ".%" SCNx64, &rotation->phase,
               &rotation->cursor, &rotation->done, &rotation->total, &rotation->rewritten) == 5)
        return true;
    ptier_call_fail(call, PTIER_INVALID_ARGUMENT, "page_token is not one of RotateKeys");
    return false;
}

static void
write_rotation(const ptier_rotation *rotation, char token[ROTATION_TOKEN])
{
    token[0] = 0;
    if (!rotation->finished)
        (void)snprintf(token, ROTATION_TOKEN,
                       "%" PRIx32 ".%" PRIx64 ".%" PRIx64 ".%" PRIx64 ".%" PRIx64, rotation->phase,
                       rotation->cursor, rotation->done, rotation->total, rotation->rewritten);
}

PTIER_HANDLER(Admin, rotate_keys, RotateKeysRequest, RotateKeysResponse)
{
    (void)service;
    ptier_call *call = data;
    Proxytier__V1__RotateKeysResponse response = PROXYTIER__V1__ROTATE_KEYS_RESPONSE__INIT;
    ptier_rotation rotation;
    ptier_error error = {0};
    char token[ROTATION_TOKEN];
    ptier_status status = PTIER_OK;
    if (!read_rotation(call, request->page_token, &rotation))
        return;
    if (!*request->page_token)
        ptier_log_write(call->service->log, PTIER_LOG_INFO, "rotate_keys", "begun");
    for (int i = 0; i < ROTATION_STEPS && !status && !rotation.finished; i++)
        status = ptier_cache_rotate_step(call->service->cache, &rotation, &error);
    if (status) {
        ptier_call_fail_as(call, status, &error);
        return;
    }
    if (rotation.finished)
        ptier_log_write(call->service->log, PTIER_LOG_INFO, "rotate_keys",
                        "finished: %" PRIu64 " records were encrypted anew in L3",
                        rotation.rewritten);
    write_rotation(&rotation, token);
    response.next_page_token = token;
    response.done = rotation.done;
    response.total = rotation.total;
    response.rewritten = rotation.rewritten;
    closure(&response, call);
}

/* ---- backup ---- */

/* A file that is gone again has no size. */
static uint64_t
size_of(const char *path)
{
    struct stat about;
    return stat(path, &about) == 0 ? (uint64_t)about.st_size : 0;
}

PTIER_HANDLER(Admin, backup, BackupRequest, BackupResponse)
{
    (void)service;
    ptier_call *call = data;
    ptier_error error = {0};
    Proxytier__V1__BackupResponse response = PROXYTIER__V1__BACKUP_RESPONSE__INIT;
    if (atomic_exchange(&call->service->backing_up, true)) {
        ptier_call_fail(call, PTIER_ABORTED, "a backup is being made already: wait for its end");
        return;
    }
    response.as_of = ptier_cache_revision(call->service->cache);
    ptier_status status =
        ptier_cache_backup(call->service->cache, request->path, &response.entries, &error);
    atomic_store(&call->service->backing_up, false);
    if (status == PTIER_NOT_FOUND || status == PTIER_UNAVAILABLE)
        status =
            PTIER_FAILED_PRECONDITION; /* a directory's, not the daemon's: no use in retrying */
    if (status != PTIER_OK) {
        ptier_call_fail_as(call, status, &error);
        return;
    }
    response.bytes = size_of(request->path);
    ptier_log_write(call->service->log, PTIER_LOG_INFO, "backup", "%s: %llu entries, %llu bytes",
                    request->path, (unsigned long long)response.entries,
                    (unsigned long long)response.bytes);
    call->items = response.entries;
    closure(&response, call);
}

PTIER_HANDLER(Admin, shutdown, ShutdownRequest, ShutdownResponse)
{
    (void)service;
    (void)request;
    ptier_call *call = data;
    Proxytier__V1__ShutdownResponse response = PROXYTIER__V1__SHUTDOWN_RESPONSE__INIT;
    ptier_log_write(call->service->log, PTIER_LOG_INFO, "shutdown_asked", "by a Shutdown call");
    if (call->service->on_shutdown)
        call->service->on_shutdown(call->service->shutdown_context);
    closure(&response, call);
}

PTIER_HANDLER(Admin, reset_statistics, ResetStatisticsRequest, GetStatisticsResponse)
{
    (void)service;
    (void)request;
    ptier_call *call = data;
    ptier_statistics last;
    ptier_statistics_message response;
    ptier_cache_statistics_reset(call->service->cache, &last);
    ptier_log_write(call->service->log, PTIER_LOG_INFO, "statistics_reset",
                    "by a ResetStatistics call");
    ptier_statistics_to_message(&last, &response);
    closure(&response.message, call);
}
