#include "feed.h"

#include <string.h>

void
ptier_feed_init(ptier_feed *feed, bool changes, bool tiers)
{
    memset(feed, 0, sizeof *feed);
    feed->streams[PROXYTIER__V1__STREAM__STREAM_CHANGES].wanted = changes;
    feed->streams[PROXYTIER__V1__STREAM__STREAM_TIERS].wanted = tiers;
}

uint64_t
ptier_feed_last(const Proxytier__V1__Heartbeat *heartbeat, int stream)
{
    for (size_t i = 0; i < heartbeat->n_streams; i++)
        if ((int)heartbeat->streams[i]->stream == stream)
            return heartbeat->streams[i]->last_sequence;
    return 0;
}

static bool
has_ids(const Proxytier__V1__Heartbeat *heartbeat)
{
    return heartbeat && heartbeat->boot_id.len == PTIER_FEED_ID_BYTES &&
           heartbeat->store_id.len == PTIER_FEED_ID_BYTES;
}

bool
ptier_feed_same_run(const ptier_feed *feed, const Proxytier__V1__Heartbeat *heartbeat)
{
    return has_ids(heartbeat) &&
           memcmp(feed->boot_id, heartbeat->boot_id.data, PTIER_FEED_ID_BYTES) == 0 &&
           memcmp(feed->store_id, heartbeat->store_id.data, PTIER_FEED_ID_BYTES) == 0;
}

void
ptier_feed_want(ptier_feed *feed, int stream, bool wanted)
{
    ptier_feed_stream *s = &feed->streams[stream];
    s->fresh = wanted && !s->wanted ? feed->started : wanted && s->fresh;
    s->wanted = wanted;
    s->owed = 0;
}

/* From this batch on: its own events are still to be told. */
static void
take_position(ptier_feed *feed, int s, const Proxytier__V1__EventBatch *batch)
{
    ptier_feed_stream *stream = &feed->streams[s];
    stream->owed = 0;
    stream->fresh = false;
    if ((int)batch->stream == s && batch->n_events > 0 && batch->events[0]->sequence > 0)
        stream->position = batch->events[0]->sequence - 1;
    else
        stream->position = ptier_feed_last(batch->heartbeat, s);
}

static void
take_positions(ptier_feed *feed, const Proxytier__V1__EventBatch *batch)
{
    const Proxytier__V1__Heartbeat *heartbeat = batch->heartbeat;
    memcpy(feed->boot_id, heartbeat->boot_id.data, PTIER_FEED_ID_BYTES);
    memcpy(feed->store_id, heartbeat->store_id.data, PTIER_FEED_ID_BYTES);
    for (int s = 1; s < PTIER_FEED_STREAMS; s++)
        take_position(feed, s, batch);
}

static void
note_owed(ptier_feed *feed, const Proxytier__V1__Heartbeat *heartbeat, int64_t now)
{
    for (int s = 1; s < PTIER_FEED_STREAMS; s++) {
        ptier_feed_stream *stream = &feed->streams[s];
        uint64_t last = ptier_feed_last(heartbeat, s);
        if (!stream->wanted || stream->owed != 0 || last <= stream->position)
            continue;
        stream->owed = last;
        stream->owed_by = now + PTIER_FEED_GRACE_MS;
    }
}

ptier_feed_verdict
ptier_feed_meet(ptier_feed *feed, const Proxytier__V1__EventBatch *batch, int64_t now)
{
    if (!has_ids(batch->heartbeat))
        return PTIER_FEED_BAD;
    if (feed->started && ptier_feed_same_run(feed, batch->heartbeat)) {
        for (int s = 1; s < PTIER_FEED_STREAMS; s++)
            if (feed->streams[s].fresh)
                take_position(feed, s, batch);
        note_owed(feed, batch->heartbeat, now);
        return PTIER_FEED_SAME;
    }
    ptier_feed_verdict verdict = feed->started ? PTIER_FEED_RESTARTED : PTIER_FEED_STARTED;
    take_positions(feed, batch);
    feed->started = true;
    return verdict;
}

bool
ptier_feed_lost_before(const ptier_feed *feed, int stream, uint64_t sequence)
{
    return sequence > feed->streams[stream].position + 1;
}

static void
settle(ptier_feed_stream *stream)
{
    if (stream->position >= stream->owed)
        stream->owed = 0;
}

bool
ptier_feed_take(ptier_feed *feed, int stream, uint64_t sequence)
{
    ptier_feed_stream *s = &feed->streams[stream];
    if (sequence != s->position + 1)
        return false;
    s->position = sequence;
    settle(s);
    return true;
}

int
ptier_feed_overdue(const ptier_feed *feed, int64_t now)
{
    for (int s = 1; s < PTIER_FEED_STREAMS; s++)
        if (feed->streams[s].owed != 0 && now >= feed->streams[s].owed_by)
            return s;
    return 0;
}

int64_t
ptier_feed_next_check(const ptier_feed *feed)
{
    int64_t next = INT64_MAX;
    for (int s = 1; s < PTIER_FEED_STREAMS; s++)
        if (feed->streams[s].owed != 0 && feed->streams[s].owed_by < next)
            next = feed->streams[s].owed_by;
    return next;
}

void
ptier_feed_skip_to(ptier_feed *feed, int stream, uint64_t position)
{
    ptier_feed_stream *s = &feed->streams[stream];
    if (position > s->position)
        s->position = position;
    settle(s);
}
