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
static ptier_status
node_has_key(l2_tier *l2, const l2_node *n, const char *key, bool *same)
{
    ptier_l2_line line;
    const l2_place place = l2_place_of(n);
    *same = false;
    const ptier_l2_reader reader = l2_reader(l2, false);
    ptier_status status = l2_read_line(&place, &reader, &line);
    if (status)
        return status == PTIER_DATA_LOSS ? PTIER_OK : status;
    *same = line.op.entry && strcmp(ptier_entry_key(line.op.entry), key) == 0;
    ptier_l2_line_fini(&line);
    return PTIER_OK;
}

/*
 * Finds the node that the line of `op` supersedes, or is superseded by (*newer), where the line
 * named before it is gone.
 */
static ptier_status
adopt_predecessor(l2_tier *l2, ptier_op *op, bool *newer)
{
    *newer = false;
    if (!op->entry || l2_find_locked(l2, op->entry->hash, op->revision) ||
        (op->replaces && l2_find_locked(l2, op->entry->hash, op->replaces)))
        return PTIER_OK;
    if (!l2->map.cells)
        return PTIER_OK;
    uint64_t hash = op->entry->hash;
    for (size_t i = hash & l2->map.mask; l2->map.cells[i].value; i = (i + 1) & l2->map.mask) {
        const l2_node *n = l2->map.cells[i].value;
        bool same = false;
        if (l2->map.cells[i].hash != hash)
            continue;
        ptier_status status = node_has_key(l2, n, ptier_entry_key(op->entry), &same);
        if (status)
            return status;
        if (!same)
            continue;
        *newer = n->revision > op->revision;
        if (!*newer)
            op->replaces = n->revision;
        return PTIER_OK;
    }
    return PTIER_OK;
}

/* ---- what is found ---- */

typedef struct recovery {
    l2_tier *l2;
    l2_shard *shard;      /* that is being read */
    l2_shard *previous;   /* shard number - 1; NULL: there is none */
    uint32_t first;       /* the oldest shard that has to be there, as far as is known; 0: not */
    uint64_t first_bound; /* the first header's: what is missing before it has no higher revision */
    uint64_t lines, sound; /* with line breaks; that one of our keys made */
    uint64_t cleared;      /* the highest clear: older lines are dead, wherever they are */
    bool unbounded;        /* there was damage, and no header since */
} recovery;

static void
note_damage(recovery *r)
{
    r->l2->found.damaged++;
    r->unbounded = true;
}

static void
note_missing(recovery *r, uint32_t from, uint32_t to)
{
    l2_log(r->l2, PTIER_LOG_WARN, "l2_damaged",
           "%" PRIu32 " shards before shard %" PRIu32 " are missing", to - from, to);
    r->l2->found.damaged += to - from;
}

static void
raise_bound(recovery *r, uint64_t bound)
{
    if (bound > r->l2->found.damaged_to)
        r->l2->found.damaged_to = bound;
}

static void
check_previous(recovery *r, const ptier_l2_header *header)
{
    if (!r->previous || r->previous->size == header->after)
        return;
    l2_log(r->l2, PTIER_LOG_WARN, "l2_damaged",
           "shard %" PRIu32 " has %" PRIu64 " bytes, and had %" PRIu64 " when it was complete",
           r->previous->number, r->previous->size, header->after);
    note_damage(r);
}

/* The line at the head of a shard says what must be before it. */
static void
take_head(recovery *r, const ptier_l2_header *header, size_t length)
{
    r->shard->start = (uint32_t)length + 1;
    if (header->number != r->shard->number) {
        l2_log(r->l2, PTIER_LOG_WARN, "l2_damaged",
               "shard %" PRIu32 " is in the place of shard %" PRIu32, header->number,
               r->shard->number);
        note_damage(r);
        return;
    }
    r->shard->after = header->after;
    check_previous(r, header);
    if (header->highest == UINT64_MAX)
        return;
    if (r->unbounded)
        raise_bound(r, header->highest);
    r->unbounded = false;
    if (r->first_bound == UINT64_MAX)
        r->first_bound = header->highest;
}

static void
note_bad_line(recovery *r, uint64_t offset, size_t length)
{
    note_damage(r);
    l2_log(r->l2, PTIER_LOG_WARN, "l2_damaged",
           "shard %" PRIu32 " offset %" PRIu64 ": %zu bytes are no line of ours; skipped",
           r->shard->number, offset, length);
}

static void
take_header(recovery *r, uint64_t offset, const char *text, size_t length)
{
    l2_tier *l2 = r->l2;
    ptier_l2_header header;
    if (ptier_l2_header_parse(text, length, l2->options.keyring, &header)) {
        note_bad_line(r, offset, length);
        return;
    }
    r->sound++;
    if (offset == 0)
        take_head(r, &header, length);
    if (header.first > r->first)
        r->first = header.first;
    if (header.highest != UINT64_MAX && header.highest > l2->last_revision)
        l2->last_revision = header.highest;
}

/* ---- lines ---- */

static ptier_status
install(recovery *r, ptier_op *op, uint64_t offset, size_t length, ptier_error *error)
{
    l2_tier *l2 = r->l2;
    if (op->revision > l2->last_revision)
        l2->last_revision = op->revision;
    if (op->revision < r->cleared)
        return PTIER_OK;
    if (op->kind == PTIER_OP_CLEAR)
        r->cleared = op->revision;
    bool newer;
    ptier_status status = adopt_predecessor(l2, op, &newer);
    if (status)
        return ptier_fail(error, status, "cannot read L2's shards");
    if (!newer && !l2_install_locked(l2, op, r->shard, offset, length))
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for L2's table");
    return PTIER_OK;
}

static ptier_status
take_line(recovery *r, uint64_t offset, const char *text, size_t length, ptier_error *error)
{
    ptier_l2_line line;
    const ptier_l2_reader reader = l2_reader(r->l2, false);
    r->lines++;
    if (ptier_l2_is_header(text, length)) {
        take_header(r, offset, text, length);
        return PTIER_OK;
    }
    ptier_status status = ptier_l2_line_parse(text, length, &reader, &line);
    if (status == PTIER_DATA_LOSS) {
        note_bad_line(r, offset, length);
        return PTIER_OK;
    }
    if (status)
        return ptier_fail(error, status, "no memory to read L2");
    r->sound++;
    status = install(r, &line.op, offset, length, error);
    ptier_l2_line_fini(&line);
    return status;
}

/* Takes all whole lines of the buffer; what is left at its end begins at *offset in the shard. */
static ptier_status
take_lines(recovery *r, ptier_buffer *buffer, uint64_t *offset, ptier_error *error)
{
    size_t at = 0;
    ptier_status status = PTIER_OK;
    while (!status) {
        const char *end = memchr(buffer->data + at, '\n', buffer->length - at);
        if (!end)
            break;
        size_t length = (size_t)(end - (buffer->data + at));
        status = take_line(r, *offset, buffer->data + at, length, error);
        at += length + 1;
        *offset += length + 1;
    }
    memmove(buffer->data, buffer->data + at, buffer->length - at);
    buffer->length -= at;
    return status;
}

/* ---- shards ---- */

/* *whole: the length of its whole lines. */
static ptier_status
read_shard(recovery *r, uint64_t *whole, ptier_error *error)
{
    const l2_shard *shard = r->shard;
    ptier_buffer buffer = {0};
    uint64_t position = 0;
    ptier_status status = PTIER_OK;
    *whole = 0;
    while (!status && position < shard->size) {
        size_t want = shard->size - position < CHUNK ? (size_t)(shard->size - position) : CHUNK;
        if (!ptier_buffer_reserve(&buffer, want)) {
            status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory to read L2");
            break;
        }
        /* A disk that does not read now may do so later: that costs a start, not what is there. */
        status = l2_shard_read(shard, position, buffer.data + buffer.length, want);
        if (status) {
            (void)ptier_fail(error, status,
                             "cannot read shard_%08" PRIu32 ".jsonl of L2 at offset %" PRIu64
                             ": try again; if it stays so, move the file away",
                             shard->number, position);
            break;
        }
        position += want;
        buffer.length += want;
        status = take_lines(r, &buffer, whole, error);
    }
    ptier_buffer_fini(&buffer);
    return status;
}

/* The end of a write that was never acknowledged; with a wrong key, though, nothing is touched. */
static void
cut_torn_line(recovery *r, uint64_t whole)
{
    l2_shard *shard = r->shard;
    l2_log(r->l2, PTIER_LOG_WARN, "l2_torn_line",
           "shard %" PRIu32 ": %" PRIu64 " bytes of an unfinished line at its end are dropped",
           shard->number, shard->size - whole);
    if (!r->l2->found.unverified && ftruncate(shard->fd, (off_t)whole) == 0)
        shard->size = shard->allocated = whole;
    else
        shard->closed = true;
}

static ptier_status
add_shard(recovery *r, uint32_t number, bool newest, ptier_error *error)
{
    l2_tier *l2 = r->l2;
    uint64_t whole;
    uint32_t before = l2->shard_count ? l2_newest_shard(l2)->number : number - 1;
    r->previous = l2->shard_count && before + 1 == number ? l2_newest_shard(l2) : NULL;
    if (before + 1 != number) {
        note_missing(r, before + 1, number);
        r->unbounded = true;
    }
    ptier_status status = l2_shard_open(l2->options.directory, number, false, &r->shard, error);
    if (status)
        return status;
    l2->shards[l2->shard_count++] = r->shard;
    status = read_shard(r, &whole, error);
    if (status)
        return status;
    l2->found.last_shard = number;
    l2->found.last_shard_bytes = whole;
    l2->found.unverified = r->lines && !r->sound;
    if (whole < r->shard->size && newest)
        cut_torn_line(r, whole);
    else if (whole < r->shard->size)
        note_damage(r);
    l2->total_bytes += r->shard->size;
    return PTIER_OK;
}

/*
 * After damage every shard is written anew, so that it is reported until then and not for ever.
 * What no key of ours made is left alone: a better key may come.
 */
static void
conclude(recovery *r)
{
    l2_tier *l2 = r->l2;
    ptier_l2_found *found = &l2->found;
    if (l2->shard_count == 0)
        return;
    found->first_shard = l2->shards[0]->number;
    found->last_revision = l2->last_revision;
    if (r->first && found->first_shard > r->first) {
        note_missing(r, r->first, found->first_shard);
        raise_bound(r, r->first_bound);
    }
    if (r->unbounded)
        raise_bound(r, UINT64_MAX);
    l2->bound = r->unbounded ? UINT64_MAX : l2->last_revision;
    if (found->unverified)
        l2_newest_shard(l2)->closed = true;
    else if (found->damaged)
        l2->copy_to = found->last_shard;
}

ptier_status
l2_recover(l2_tier *l2, ptier_error *error)
{
    uint32_t *numbers = NULL;
    size_t count = 0;
    recovery r = {.l2 = l2, .first_bound = UINT64_MAX};
    l2->recovering = true;
    ptier_status status = l2_shard_list(l2->options.directory, &numbers, &count, error);
    if (!status) {
        l2->shard_room = count + 16;
        l2->shards = calloc(l2->shard_room, sizeof(*l2->shards));
        if (!l2->shards)
            status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for shards");
    }
    for (size_t i = 0; !status && i < count; i++)
        status = add_shard(&r, numbers[i], i + 1 == count, error);
    free(numbers);
    if (status || count == 0)
        return status;
    conclude(&r);
    l2_newest_shard(l2)->unsynced = true; /* the others were, before they were followed by it */
    return l2_shard_sync(l2_newest_shard(l2), error);
}
