/* Replay: what a subscriber missed, page by page, out of the journal. */
#include "handle_common.h"

#include <string.h>

#include "event_pack.h"

#define REPLAY_DEFAULT 256
#define REPLAY_BYTES   ((size_t)1024 * 1024) /* a page ends when it has grown past this */
#define EVENTS_FIELD   2                     /* ReplayResponse.events */

/* Appends the events of one page. False: the call has failed. */
static bool
append_page(ptier_call *call, ptier_stream stream, uint64_t *after, size_t wanted,
            ptier_journal_bounds *bounds)
{
    ptier_journal_item items[PTIER_JOURNAL_READ_MAX];
    while (wanted > 0 && call->reply.length < REPLAY_BYTES) {
        size_t count =
            ptier_journal_read(call->service->journal, stream, *after, items, wanted, bounds);
        if (count == 0)
            return true;
        /* The ring moved past the position since the first look: a gap may not be hidden. */
        bool gap = items[0].sequence != *after + 1;
        ptier_status status = PTIER_OK;
        for (size_t i = 0; i < count && !gap && status == PTIER_OK; i++)
            status =
                ptier_event_append(&call->reply, EVENTS_FIELD, call->service->cache, &items[i]);
        *after = items[count - 1].sequence;
        wanted -= count;
        call->items += count;
        ptier_journal_release(items, count);
        if (status != PTIER_OK)
            ptier_call_no_memory(call);
        else if (gap)
            ptier_call_fail(call, PTIER_ABORTED, "the journal moved on during the call: ask again");
        if (status != PTIER_OK || gap)
            return false;
    }
    return true;
}

static bool
known_position(const ptier_call *call, const Proxytier__V1__ReplayRequest *request,
               const ptier_journal_bounds *bounds)
{
    return memcmp(request->boot_id.data, call->service->boot_id, PTIER_ID_BYTES) == 0 &&
           request->after_sequence <= bounds->last && request->after_sequence + 1 >= bounds->oldest;
}

PTIER_HANDLER(Events, replay, ReplayRequest, ReplayResponse)
{
    (void)service;
    ptier_call *call = data;
    Proxytier__V1__ReplayResponse response = PROXYTIER__V1__REPLAY_RESPONSE__INIT;
    if (request->boot_id.len != PTIER_ID_BYTES) {
        ptier_call_fail(call, PTIER_INVALID_ARGUMENT, "boot_id must have %d bytes", PTIER_ID_BYTES);
        return;
    }
    if (request->stream == PROXYTIER__V1__STREAM__STREAM_UNSPECIFIED) {
        ptier_call_fail(call, PTIER_INVALID_ARGUMENT, "the request names no stream");
        return;
    }
    /* Clock and revision before the events: the heartbeat promises no more than the page can keep.
     */
    ptier_heartbeat heartbeat;
    int64_t now = ptier_boottime_ms();
    uint64_t revision = ptier_cache_revision(call->service->cache);
    ptier_journal *journal = call->service->journal;
    ptier_stream stream = (ptier_stream)request->stream;
    ptier_journal_bounds bounds[PTIER_STREAM_COUNT];
    for (int i = PTIER_STREAM_CHANGES; i < PTIER_STREAM_COUNT; i++)
        bounds[i] = ptier_journal_get_bounds(journal, (ptier_stream)i);

    uint64_t after = request->after_sequence;
    response.truncated = !known_position(call, request, &bounds[stream]);
    if (!response.truncated) {
        size_t wanted = request->page_size ? request->page_size : REPLAY_DEFAULT;
        wanted = wanted < PTIER_PAGE_MAX ? wanted : PTIER_PAGE_MAX;
        if (!append_page(call, stream, &after, wanted, &bounds[stream]))
            return;
        response.more = after < bounds[stream].last;
    }
    /* What is skipped then must not have a higher one: the subscriber reads anew as of that. */
    if (response.truncated && revision < bounds[PTIER_STREAM_CHANGES].revision)
        revision = bounds[PTIER_STREAM_CHANGES].revision;
    ptier_heartbeat_fill(&heartbeat, call->service->cache, now, revision, bounds);
    heartbeat.message.access = ptier_auth_version(call->service->auth);
    response.heartbeat = &heartbeat.message;
    closure(&response, call);
}
