/* ReportAccess. */
#include "handle_common.h"

#include <string.h>

#define STEP 64 /* keys between two looks at the deadline */

/* False: the call has failed. */
static bool
convert_accesses(ptier_call *call, const Proxytier__V1__ReportAccessRequest *request,
                 ptier_access *accesses)
{
    for (size_t i = 0; i < request->n_accesses; i++) {
        const Proxytier__V1__Access *in = request->accesses[i];
        if (!*in->key || strnlen(in->key, PTIER_KEY_MAX + 1) > PTIER_KEY_MAX) {
            ptier_call_fail(call, PTIER_INVALID_ARGUMENT,
                            "access %zu has no key, or one over 256 bytes", i + 1);
            return false;
        }
        uint64_t age = in->last_use_ms_ago < INT32_MAX ? in->last_use_ms_ago : INT32_MAX;
        accesses[i] = (ptier_access){.key = in->key, .count = in->count, .age_ms = (int64_t)age};
    }
    return true;
}

PTIER_HANDLER(ProxyCache, report_access, ReportAccessRequest, ReportAccessResponse)
{
    (void)service;
    ptier_call *call = data;
    Proxytier__V1__ReportAccessResponse response = PROXYTIER__V1__REPORT_ACCESS_RESPONSE__INIT;
    size_t count = request->n_accesses;
    call->items = count;
    if (count > PTIER_BATCH_MAX) {
        ptier_call_fail(call, PTIER_INVALID_ARGUMENT, "%zu accesses in one call; at most %d", count,
                        PTIER_BATCH_MAX);
        return;
    }
    ptier_access *accesses = ptier_arena_array(&call->arena, count, sizeof *accesses);
    if (!accesses) {
        ptier_call_no_memory(call);
        return;
    }
    if (!convert_accesses(call, request, accesses))
        return;
    /* What is not counted when the time is over is no loss. */
    for (size_t i = 0; i < count && !ptier_call_expired(call); i += STEP)
        response.found += (uint32_t)ptier_cache_touch(call->service->cache, &accesses[i],
                                                      count - i < STEP ? count - i : STEP);
    closure(&response, call);
}
