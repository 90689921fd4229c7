/*
 * Compaction, in small steps: the oldest shard's living lines are copied to the newest, then it is
 * deleted. Working from the oldest end is what makes tombstones safe: when one is reached, no older
 * line of its key exists any more.
 */
#include <inttypes.h>
#include <string.h>

#include "l2/l2_internal.h"

enum { STEP = 256 << 10 };

static bool
worth_it(l2_tier *l2)
{
    pthread_mutex_lock(&l2->lock);
    bool worth =
        l2->compact_at > 0 || l2->total_bytes > 2 * l2->live_bytes + l2->options.shard_bytes;
    pthread_mutex_unlock(&l2->lock);
    return worth;
}

/* Copies one line if a node points at it. */
static ptier_status
copy_line(l2_tier *l2, l2_shard *oldest, uint64_t offset, const char *text, size_t length,
          ptier_error *error)
{
    ptier_l2_line line;
    const ptier_l2_reader reader = l2_reader(l2, false);
    if (ptier_l2_line_parse(text, length, &reader, &line))
        return PTIER_OK; /* damaged: its node, if any, goes when it is read */
    uint64_t hash = line.op.entry ? line.op.entry->hash : 0;
    uint64_t revision = line.op.revision;
    ptier_l2_line_fini(&line);

    pthread_mutex_lock(&l2->lock);
    l2_node *n = l2_find_locked(l2, hash, revision);
    bool alive = n && n->shard == oldest && n->offset == offset;
    pthread_mutex_unlock(&l2->lock);
    if (!alive)
        return PTIER_OK;

    l2_shard *newest = l2->shards[l2->shard_count - 1];
    uint64_t base = newest->size;
    ptier_status status = l2_shard_append(newest, text, length + 1, error);
    if (status)
        return status;
    pthread_mutex_lock(&l2->lock);
    l2->total_bytes += length + 1;
    n = l2_find_locked(l2, hash, revision); /* a reader may have dropped it meanwhile */
    if (n && n->shard == oldest && n->offset == offset) {
        n->shard = newest;
        n->offset = (uint32_t)base;
    }
    pthread_mutex_unlock(&l2->lock);
    return PTIER_OK;
}

static ptier_status
copy_step(l2_tier *l2, l2_shard *oldest, ptier_error *error)
{
    size_t want = oldest->size - l2->compact_at < STEP + PTIER_L2_LINE_MAX
                      ? (size_t)(oldest->size - l2->compact_at)
                      : STEP + PTIER_L2_LINE_MAX;
    l2->buffer.length = 0;
    if (!ptier_buffer_reserve(&l2->buffer, want))
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory to compact L2");
    ptier_status status = l2_shard_read(oldest, l2->compact_at, l2->buffer.data, want);
    if (status)
        return ptier_fail(error, status, "cannot read shard %" PRIu32, oldest->number);
    size_t at = 0;
    while (!status && at < want && at < STEP) {
        const char *end = memchr(l2->buffer.data + at, '\n', want - at);
        size_t length = end ? (size_t)(end - (l2->buffer.data + at)) : want - at;
        if (end)
            status =
                copy_line(l2, oldest, l2->compact_at + at, l2->buffer.data + at, length, error);
        at += length + 1;
    }
    if (!status)
        l2->compact_at += at;
    return status;
}

/* Any node that still points into the shard has a line that could not be copied: it is damaged. */
static void
forget_nodes_of(l2_tier *l2, const l2_shard *shard)
{
    for (size_t i = 0; l2->map.cells && i <= l2->map.mask;) {
        l2_node *n = l2->map.cells[i].value;
        if (n && n->shard == shard) {
            l2->damaged++;
            l2_forget_locked(l2, n); /* may shift another node into this cell: look again */
        } else {
            i++;
        }
    }
}

static ptier_status
finish(l2_tier *l2, ptier_error *error)
{
    l2_shard *oldest = l2->shards[0];
    ptier_status status = l2_shard_sync(l2->shards[l2->shard_count - 1], error);
    if (!status)
        status = l2_shard_unlink(l2->options.directory, oldest, error);
    if (status)
        return status;
    pthread_mutex_lock(&l2->lock);
    forget_nodes_of(l2, oldest);
    memmove(l2->shards, l2->shards + 1, --l2->shard_count * sizeof(*l2->shards));
    l2->total_bytes -= oldest->size;
    pthread_mutex_unlock(&l2->lock);
    l2->compact_at = 0;
    l2_shard_release(oldest);
    return PTIER_OK;
}

ptier_status
ptier_l2_compact(ptier_tier *tier, bool *worked, ptier_error *error)
{
    l2_tier *l2 = (l2_tier *)tier;
    *worked = worth_it(l2);
    if (!*worked)
        return PTIER_OK;
    ptier_status status = l2->shard_count == 1 ? l2_roll(l2, 0, true, error) : PTIER_OK;
    if (!status)
        status = l2_roll(l2, STEP, false, error);
    if (status)
        return status;
    l2_shard *oldest = l2->shards[0];
    if (l2->compact_at < oldest->size)
        return copy_step(l2, oldest, error);
    return finish(l2, error);
}
