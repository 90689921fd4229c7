/* See event_pack.h. */
#include "event_pack.h"

#include "convert.h"

void
ptier_heartbeat_fill(ptier_heartbeat *heartbeat, const ptier_cache *cache, int64_t boottime_ms,
                     uint64_t revision, const ptier_journal_bounds bounds[PTIER_STREAM_COUNT])
{
    proxytier__v1__heartbeat__init(&heartbeat->message);
    ptier_cache_boot_id(cache, heartbeat->boot_id);
    ptier_cache_store_id(cache, heartbeat->store_id);
    heartbeat->message.boot_id.data = heartbeat->boot_id;
    heartbeat->message.boot_id.len = PTIER_ID_BYTES;
    heartbeat->message.store_id.data = heartbeat->store_id;
    heartbeat->message.store_id.len = PTIER_ID_BYTES;
    heartbeat->message.boottime_ms = boottime_ms;
    heartbeat->message.revision = revision;
    for (int stream = PTIER_STREAM_CHANGES; stream < PTIER_STREAM_COUNT; stream++) {
        Proxytier__V1__StreamState *state = &heartbeat->states[stream - 1];
        proxytier__v1__stream_state__init(state);
        state->stream = (Proxytier__V1__Stream)stream;
        state->last_sequence = bounds[stream].last;
        state->oldest_sequence = bounds[stream].oldest;
        heartbeat->state_list[stream - 1] = state;
    }
    heartbeat->message.n_streams = 2;
    heartbeat->message.streams = heartbeat->state_list;
}

/* Only what the event's type promises. */
static void
reduce(ptier_record *record, ptier_event_type type)
{
    ptier_record full = *record;
    if (type == PTIER_EVENT_CREATED || type == PTIER_EVENT_UPDATED)
        return;
    ptier_record_init(record);
    record->key = full.key;
    record->source = full.source;
    if (type == PTIER_EVENT_HEALTH) {
        record->health = full.health;
        record->failure_count = full.failure_count;
        record->needs_revalidation = full.needs_revalidation;
    } else {
        record->url = full.url;
    }
}

ptier_status
ptier_event_append(ptier_bytes *out, unsigned number, const ptier_cache *cache,
                   const ptier_journal_item *item)
{
    Proxytier__V1__Event event = PROXYTIER__V1__EVENT__INIT;
    ptier_proxy_message proxy;
    ptier_record record;
    ptier_label labels[PTIER_LABELS_MAX];
    event.sequence = item->sequence;
    event.type = (Proxytier__V1__EventType)item->type;
    event.revision = item->revision;
    event.reason = (Proxytier__V1__RemovalReason)item->reason;
    event.tier = (Proxytier__V1__Tier)item->tier;
    event.count = item->count;
    if (item->entry) {
        ptier_cache_read(cache, item->entry, &record, labels);
        reduce(&record, (ptier_event_type)item->type);
        ptier_proxy_from_record(&proxy, &record, false);
        event.key = proxy.proxy.key;
        event.proxy = &proxy.proxy;
    }
    return ptier_bytes_append_field(out, number, &event.base);
}
