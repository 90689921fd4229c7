/* Events and heartbeats in their wire form, for the publisher and for Replay. Thread-safe (no
 * state). */
#ifndef PTIER_EVENT_PACK_H
#define PTIER_EVENT_PACK_H

#include "bytes.h"
#include "journal.h"

#include "proxytier/v1/events.pb-c.h"

/* A heartbeat message with the room it points to. */
typedef struct ptier_heartbeat {
    Proxytier__V1__Heartbeat message;
    Proxytier__V1__StreamState states[2];
    Proxytier__V1__StreamState *state_list[2];
    uint8_t boot_id[PTIER_ID_BYTES];
    uint8_t store_id[PTIER_ID_BYTES];
} ptier_heartbeat;

/* Fills in place: *heartbeat must not be moved afterwards. bounds is indexed by ptier_stream. */
void ptier_heartbeat_fill(ptier_heartbeat *heartbeat, const ptier_cache *cache, int64_t boottime_ms,
                          uint64_t revision, const ptier_journal_bounds bounds[PTIER_STREAM_COUNT]);

/* Appends one event, without credentials, as field `number`. */
PTIER_MUST_CHECK ptier_status ptier_event_append(ptier_bytes *out, unsigned number,
                                                 const ptier_cache *cache,
                                                 const ptier_journal_item *item);

#endif
