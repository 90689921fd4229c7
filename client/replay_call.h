/* One page of Events.Replay. Thread-safe. */
#ifndef PTIER_REPLAY_CALL_H
#define PTIER_REPLAY_CALL_H

#include "call.h"

#include "proxytier/v1/events.pb-c.h"

/* Of a call that a thread makes which somebody may wait for to end. */
#define PTIER_EVENT_CALL_MS 1000

/* What came after a position. OK: *reply lives in *arena, which the caller destroys. */
PTIER_MUST_CHECK ptier_status ptier_replay(ptier_client *client, const uint8_t *boot_id, int stream,
                                           uint64_t after, ptier_arena **arena,
                                           Proxytier__V1__ReplayResponse **reply);

#endif
