/*
 * Compaction, in small steps: the oldest shard's living lines are copied to the newest, then it is
 * deleted. Working from the oldest end is what makes tombstones safe: when one is reached, no older
 * line of its key exists any more. Rotation of keys is the same, with lines made anew. Writer only.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "l2/l2_internal.h"
#include "sealed.h"

enum {
    STEP = 256 << 10,
    UNREADABLE_MAX = 100, /* tries */
};

/* ---- copying ---- */

typedef struct copied_line {
    l2_place from;
    uint32_t to, length; /* in `out` */
} copied_line;

/* The living lines of one step, on their way. */
typedef struct copying {
    l2_tier *l2;
    l2_shard *shard;
    ptier_buffer out;
    copied_line *lines;
    size_t count, room;
} copying;

/* Appends the line with fresh tokens and a fresh check. */
static ptier_status
reseal(copying *c, const char *text, size_t length)
{
    ptier_l2_line line;
    ptier_sealed *sealed = NULL;
    const ptier_l2_reader reader = l2_reader(c->l2, true);
    ptier_keyring *keyring = c->l2->options.keyring;
    ptier_status status = ptier_l2_line_parse(text, length, &reader, &line);
    if (status)
        return status;
    ptier_op op = line.op;
    if (op.kind == PTIER_OP_PUT)
        status = ptier_sealed_create(keyring, op.entry, &sealed);
    op.sealed = sealed;
    if (!status)
        status = ptier_l2_line_write(&c->out, &op, c->l2->options.clock, keyring);
    ptier_sealed_release(sealed);
    ptier_l2_line_fini(&line);
    return status;
}

static ptier_status
append_copy(copying *c, const char *text, size_t length)
{
    if (c->shard->number <= c->l2->reseal_to)
        return reseal(c, text, length);
    if (!ptier_buffer_reserve(&c->out, length + 1))
        return PTIER_RESOURCE_EXHAUSTED;
    memcpy(c->out.data + c->out.length, text, length);
    c->out.data[c->out.length + length] = '\n';
    c->out.length += length + 1;
    return PTIER_OK;
}

static bool
make_room(copying *c)
{
    if (c->count < c->room)
        return true;
    size_t room = c->room ? c->room * 2 : 512;
    copied_line *grown = realloc(c->lines, room * sizeof *grown);
    if (!grown)
        return false;
    c->lines = grown;
    c->room = room;
    return true;
}

/* The node that points at a place; NULL: none does any more. */
static l2_node *
node_at_locked(l2_tier *l2, const l2_place *place)
{
    l2_node *n = l2_find_locked(l2, place->hash, place->revision);
    return n && n->shard == place->shard && n->offset == place->offset ? n : NULL;
}

/* Takes one line if a node points at it. */
static ptier_status
take_line(copying *c, uint64_t offset, const char *text, size_t length)
{
    ptier_l2_line line;
    const ptier_l2_reader reader = l2_reader(c->l2, false);
    ptier_status status = ptier_l2_line_parse(text, length, &reader, &line);
    if (status == PTIER_DATA_LOSS)
        return PTIER_OK; /* a node that points at it is dropped at the end of the shard */
    if (status)
        return status;
    const l2_place from = {line.op.entry ? line.op.entry->hash : 0, line.op.revision, c->shard,
                           (uint32_t)offset, (uint32_t)length};
    ptier_l2_line_fini(&line);
    pthread_mutex_lock(&c->l2->lock);
    bool alive = node_at_locked(c->l2, &from) != NULL;
    pthread_mutex_unlock(&c->l2->lock);
    if (!alive)
        return PTIER_OK;
    uint32_t to = (uint32_t)c->out.length;
    status = make_room(c) ? append_copy(c, text, length) : PTIER_RESOURCE_EXHAUSTED;
    if (status)
        return status == PTIER_DATA_LOSS ? PTIER_OK : status;
    c->lines[c->count++] = (copied_line){from, to, (uint32_t)c->out.length - to - 1};
    return PTIER_OK;
}

static uint64_t
live_bytes(l2_tier *l2, const l2_shard *shard)
{
    pthread_mutex_lock(&l2->lock);
    uint64_t live = shard->live;
    pthread_mutex_unlock(&l2->lock);
    return live;
}

/*
 * Writes what was taken, and lets the nodes that still point at it follow. What is nearly dead may
 * use half of the room kept for removals: it gives back more than it takes.
 */
static ptier_status
write_copies(copying *c, ptier_error *error)
{
    l2_tier *l2 = c->l2;
    uint64_t base;
    if (c->count == 0)
        return PTIER_OK;
    bool reserved = live_bytes(l2, c->shard) <= l2->options.removal_reserve / 2;
    ptier_status status = l2_append(l2, c->out.data, c->out.length, reserved, &base, error);
    for (size_t i = 0; !status && i < c->count; i++) {
        const copied_line *line = &c->lines[i];
        pthread_mutex_lock(&l2->lock);
        l2_node *n = node_at_locked(l2, &line->from);
        if (n)
            l2_move_locked(l2, n, l2_newest_shard(l2), base + line->to, line->length);
        pthread_mutex_unlock(&l2->lock);
    }
    return status;
}

/*
 * Reads the next part. A file that has become shorter is read as damaged lines; one that cannot be
 * read is tried again, and given up only if it has to go (after a failure of the tier) and stays
 * so.
 */
static ptier_status
read_part(l2_tier *l2, const l2_shard *shard, uint64_t at, size_t want, ptier_error *error)
{
    l2->buffer.length = 0;
    if (!ptier_buffer_reserve(&l2->buffer, want))
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory to compact L2");
    ptier_status status = l2_shard_read(shard, at, l2->buffer.data, want);
    bool has_to_go = status && shard->number <= l2->copy_to && ++l2->unreadable > UNREADABLE_MAX;
    if (!status)
        l2->unreadable = 0;
    if (status == PTIER_DATA_LOSS || has_to_go) {
        (void)l2_shard_read_sound(shard, at, l2->buffer.data, want);
        return PTIER_OK;
    }
    return status ? ptier_fail(error, status, "cannot read shard %" PRIu32, shard->number)
                  : PTIER_OK;
}

ptier_status
l2_copy_part(l2_tier *l2, l2_shard *shard, uint64_t *at, ptier_error *error)
{
    uint64_t left = shard->size - *at;
    size_t want = left < STEP + PTIER_L2_LINE_MAX ? (size_t)left : STEP + PTIER_L2_LINE_MAX;
    ptier_status status = read_part(l2, shard, *at, want, error);
    if (status)
        return status;
    copying c = {.l2 = l2, .shard = shard};
    const char *text = l2->buffer.data;
    size_t taken = 0;
    while (!status && taken < want && taken < STEP) {
        const char *end = memchr(text + taken, '\n', want - taken);
        size_t length = end ? (size_t)(end - (text + taken)) : want - taken;
        if (end)
            status = take_line(&c, *at + taken, text + taken, length);
        taken += length + (end != NULL);
    }
    if (status)
        (void)ptier_fail(error, status, "cannot copy the lines of shard %" PRIu32, shard->number);
    else
        status = write_copies(&c, error);
    if (!status)
        *at += taken;
    ptier_buffer_fini(&c.out);
    free(c.lines);
    return status;
}

/* ---- the end of a shard ---- */

/* One node that still points into a shard, looked for around the table from cell *at on. */
static bool
find_rest(l2_tier *l2, const l2_shard *shard, size_t *at, l2_place *place)
{
    bool found = false;
    pthread_mutex_lock(&l2->lock);
    for (size_t i = 0; shard->live && !found && i <= l2->map.mask; i++) {
        const l2_node *n = l2->map.cells[*at & l2->map.mask].value;
        found = n && n->shard == shard;
        if (found)
            *place = l2_place_of(n);
        else
            ++*at;
    }
    pthread_mutex_unlock(&l2->lock);
    return found;
}

void
l2_drop_rest(l2_tier *l2, const l2_shard *shard)
{
    size_t at = 0;
    for (l2_place place; find_rest(l2, shard, &at, &place);)
        (void)l2_drop_damaged(l2, &place); /* false: a reader was faster */
}

/* Says in the newest shard that the oldest is not missed from now on. */
static ptier_status
note_first(l2_tier *l2, uint32_t first, ptier_error *error)
{
    char text[PTIER_L2_HEADER_MAX];
    size_t length;
    uint64_t base;
    ptier_status status = l2_header_text(l2, l2_newest_shard(l2), first, text, &length);
    if (status)
        return ptier_fail(error, status, "cannot encode a line for L2");
    return l2_append(l2, text, length, true, &base, error);
}

static ptier_status
finish(l2_tier *l2, ptier_error *error)
{
    l2_shard *oldest = l2->shards[0];
    l2_drop_rest(l2, oldest);
    ptier_status status = note_first(l2, l2->shards[1]->number, error);
    if (!status)
        status = l2_shard_sync(l2_newest_shard(l2), error);
    if (!status)
        status = l2_shard_unlink(l2->options.directory, oldest, error);
    if (status)
        return status;
    pthread_mutex_lock(&l2->lock);
    l2->total_bytes -= oldest->size;
    pthread_mutex_unlock(&l2->lock);
    memmove(l2->shards, l2->shards + 1, --l2->shard_count * sizeof(*l2->shards));
    l2->compact_at = 0;
    l2_shard_release(oldest);
    return PTIER_OK;
}

/* ---- when ---- */

static ptier_status
step(l2_tier *l2, ptier_error *error)
{
    if (l2->shard_count == 1 || l2_newest_shard(l2)->number <= l2->copy_to) {
        ptier_status status = l2_roll(l2, STEP, error);
        if (status)
            return status;
    }
    l2_shard *oldest = l2->shards[0];
    if (live_bytes(l2, oldest) && l2->compact_at < oldest->size)
        return l2_copy_part(l2, oldest, &l2->compact_at, error);
    return finish(l2, error);
}

/* What is of no key of ours is not taken for dead. */
static bool
worth_it(l2_tier *l2)
{
    uint32_t oldest = l2->shards[0]->number;
    if (l2->found.unverified && oldest <= l2->found.last_shard)
        return false;
    pthread_mutex_lock(&l2->lock);
    bool worth = l2->compact_at > 0 || oldest <= l2->copy_to ||
                 l2->total_bytes > 2 * l2->live_bytes + l2->options.shard_bytes;
    pthread_mutex_unlock(&l2->lock);
    return worth;
}

ptier_status
ptier_l2_compact(ptier_tier *tier, bool *worked, ptier_error *error)
{
    l2_tier *l2 = (l2_tier *)tier;
    *worked = worth_it(l2);
    return *worked ? step(l2, error) : PTIER_OK;
}

ptier_status
ptier_l2_reencrypt(ptier_tier *tier, bool begin, bool *done, ptier_error *error)
{
    l2_tier *l2 = (l2_tier *)tier;
    ptier_status status = PTIER_OK;
    *done = false;
    if (begin) {
        uint32_t last = l2_newest_shard(l2)->number;
        status = l2_roll(l2, 0, error);
        if (!status)
            l2->copy_to = l2->reseal_to = last;
    }
    if (!status && l2->shards[0]->number <= l2->reseal_to)
        status = step(l2, error);
    *done = !status && l2->shards[0]->number > l2->reseal_to;
    return status;
}
