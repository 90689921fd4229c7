/* Start-up of L2: all shards are read once, oldest first, and the table is made from what their
 * lines say. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "l2/l2_internal.h"

enum { CHUNK = 1 << 20 };

/* Whether the line a node points at has this key: only asked when the chain of revisions is broken.
 */
static bool
node_has_key(l2_tier *l2, const l2_node *n, const char *key)
{
    ptier_l2_line line;
    if (l2_read_line(l2, n->shard, n->offset, n->length, false, &line))
        return false;
    bool same = line.op.entry && strcmp(ptier_entry_key(line.op.entry), key) == 0;
    ptier_l2_line_fini(&line);
    return same;
}

/*
 * Finds the node that the line of `op` supersedes, or is superseded by, where the line named before
 * it is gone. Returns false when a newer line of the key is known already.
 */
static bool
adopt_predecessor(l2_tier *l2, ptier_op *op)
{
    if (!op->entry || l2_find_locked(l2, op->entry->hash, op->revision) ||
        (op->replaces && l2_find_locked(l2, op->entry->hash, op->replaces)))
        return true;
    if (!l2->map.cells)
        return true;
    uint64_t hash = op->entry->hash;
    for (size_t i = hash & l2->map.mask; l2->map.cells[i].value; i = (i + 1) & l2->map.mask) {
        const l2_node *n = l2->map.cells[i].value;
        if (n->hash != hash || !node_has_key(l2, n, ptier_entry_key(op->entry)))
            continue;
        if (n->revision > op->revision)
            return false;
        op->replaces = n->revision;
        return true;
    }
    return true;
}

static ptier_status
take_line(l2_tier *l2, l2_shard *shard, uint64_t offset, const char *text, size_t length,
          ptier_error *error)
{
    ptier_l2_line line;
    const ptier_l2_reader reader = l2_reader(l2, false);
    ptier_status status = ptier_l2_line_parse(text, length, &reader, &line);
    if (status == PTIER_DATA_LOSS) {
        l2->damaged++;
        l2_log(l2, PTIER_LOG_WARN, "l2_damaged",
               "shard %" PRIu32 " offset %" PRIu64 ": %zu bytes are no line of ours; skipped",
               shard->number, offset, length);
        return PTIER_OK;
    }
    if (status)
        return ptier_fail(error, status, "no memory to read L2");
    if (line.op.revision > l2->last_revision)
        l2->last_revision = line.op.revision;
    if (adopt_predecessor(l2, &line.op) && !l2_install_locked(l2, &line.op, shard, offset, length))
        status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for L2's table");
    ptier_l2_line_fini(&line);
    return status;
}

/* Takes all whole lines of the buffer; what is left at its end begins at *offset in the shard. */
static ptier_status
take_lines(l2_tier *l2, l2_shard *shard, ptier_buffer *buffer, uint64_t *offset, ptier_error *error)
{
    size_t at = 0;
    ptier_status status = PTIER_OK;
    while (!status) {
        const char *end = memchr(buffer->data + at, '\n', buffer->length - at);
        if (!end)
            break;
        size_t length = (size_t)(end - (buffer->data + at));
        status = take_line(l2, shard, *offset, buffer->data + at, length, error);
        at += length + 1;
        *offset += length + 1;
    }
    memmove(buffer->data, buffer->data + at, buffer->length - at);
    buffer->length -= at;
    return status;
}

static ptier_status
read_shard(l2_tier *l2, l2_shard *shard, bool newest, ptier_error *error)
{
    ptier_buffer buffer = {0};
    uint64_t position = 0, offset = 0;
    ptier_status status = PTIER_OK;
    while (!status && position < shard->size) {
        size_t want = shard->size - position < CHUNK ? (size_t)(shard->size - position) : CHUNK;
        if (!ptier_buffer_reserve(&buffer, want)) {
            status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory to read L2");
            break;
        }
        status = l2_shard_read(shard, position, buffer.data + buffer.length, want);
        if (status) {
            (void)ptier_fail(error, status, "cannot read shard %" PRIu32, shard->number);
            break;
        }
        position += want;
        buffer.length += want;
        status = take_lines(l2, shard, &buffer, &offset, error);
    }
    if (!status && offset < shard->size) {
        l2_log(l2, PTIER_LOG_WARN, "l2_torn_line",
               "shard %" PRIu32 ": %" PRIu64 " bytes of an unfinished line at its end are dropped",
               shard->number, shard->size - offset);
        l2->damaged += !newest;
        if (newest && ftruncate(shard->fd, (off_t)offset) == 0)
            shard->size = offset;
    }
    l2->total_bytes += shard->size;
    ptier_buffer_fini(&buffer);
    return status;
}

static ptier_status
add_shard(l2_tier *l2, uint32_t number, bool newest, ptier_error *error)
{
    l2_shard *shard;
    ptier_status status = l2_shard_open(l2->options.directory, number, false, &shard, error);
    if (status)
        return status;
    l2->shards[l2->shard_count++] = shard;
    return read_shard(l2, shard, newest, error);
}

ptier_status
l2_recover(l2_tier *l2, ptier_error *error)
{
    uint32_t *numbers = NULL;
    size_t count = 0;
    l2->recovering = true;
    ptier_status status = l2_shard_list(l2->options.directory, &numbers, &count, error);
    if (!status) {
        l2->shard_room = count + 16;
        l2->shards = calloc(l2->shard_room, sizeof(*l2->shards));
        if (!l2->shards)
            status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for shards");
    }
    for (size_t i = 0; !status && i < count; i++)
        status = add_shard(l2, numbers[i], i + 1 == count, error);
    free(numbers);
    if (!status && count) { /* the others were synced before they were followed by this one */
        l2->shards[count - 1]->unsynced = true;
        status = l2_shard_sync(l2->shards[count - 1], error);
    }
    return status;
}

/* ---- after it ---- */

ptier_status
ptier_l2_replay(ptier_tier *tier, uint64_t prefix, ptier_l2_replay_fn fn, void *context,
                ptier_error *error)
{
    l2_tier *l2 = (l2_tier *)tier;
    if (!l2_end_recovery_locked(l2, prefix)) /* nobody else has the tier yet */
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory to replay L2");
    bool go_on = true;
    for (l2_node *n = l2->log_oldest, *next; n && go_on; n = next) {
        ptier_l2_line line;
        next = n->log_newer;
        ptier_status status = l2_read_line(l2, n->shard, n->offset, n->length, true, &line);
        if (status == PTIER_DATA_LOSS) {
            l2->damaged++;
            l2_log(l2, PTIER_LOG_ERROR, "l2_damaged",
                   "revision %" PRIu64 " cannot be read any more; its change is lost", n->revision);
            l2_forget_locked(l2, n);
            continue;
        }
        if (status)
            return ptier_fail(error, status, "cannot read L2 for the replay");
        line.op.replaces = 0; /* what it replaced need not be known any more */
        go_on = fn(context, &line.op);
        ptier_l2_line_fini(&line);
    }
    return PTIER_OK;
}

void
ptier_l2_cull(ptier_tier *tier, ptier_l2_current_fn is_current, void *context)
{
    l2_tier *l2 = (l2_tier *)tier;
    for (l2_node *n = l2->oldest, *next; n; n = next) {
        next = n->newer;
        if (!is_current(context, n->hash, n->revision))
            l2_evict_locked(l2, n);
    }
}
