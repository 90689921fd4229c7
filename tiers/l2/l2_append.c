/* L2's writing side: which shard is appended to, room on the disk, groups of lines. Writer only. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "hold.h"
#include "l2/l2_internal.h"

enum {
    GROUP_BYTES = 4 << 20, /* lines gathered for one write */
    AHEAD = 8, /* lines that are installed while the table's memory comes for a later one */
    STRETCH = 64 << 10, /* a shard that cannot be followed grows by this before the next try */
};

/* ---- shards that follow each other ---- */

static ptier_status
make_room_in_list(l2_tier *l2, ptier_error *error)
{
    if (l2->shard_count < l2->shard_room)
        return PTIER_OK;
    size_t room = l2->shard_room ? l2->shard_room * 2 : 16;
    l2_shard **grown = realloc(l2->shards, room * sizeof(*grown));
    if (!grown)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for a further shard");
    l2->shards = grown;
    l2->shard_room = room;
    return PTIER_OK;
}

ptier_status
l2_header_text(const l2_tier *l2, const l2_shard *shard, uint32_t first,
               char text[PTIER_L2_HEADER_MAX], size_t *length)
{
    const ptier_l2_header header = {
        .number = shard->number, .first = first, .after = shard->after, .highest = l2->bound};
    return ptier_l2_header_write(text, length, &header, l2->options.keyring);
}

static ptier_status
write_header(l2_tier *l2, l2_shard *shard, uint32_t first, size_t more, ptier_error *error)
{
    char text[PTIER_L2_HEADER_MAX];
    size_t length;
    ptier_status status = l2_header_text(l2, shard, first, text, &length);
    if (status)
        return ptier_fail(error, status, "cannot encode the header of shard %" PRIu32,
                          shard->number);
    status = l2_shard_reserve(shard, length + more + l2->options.removal_reserve, error);
    if (!status)
        status = l2_shard_append(shard, text, length, error);
    shard->start = (uint32_t)shard->size;
    return status;
}

static ptier_status
create_shard(l2_tier *l2, uint32_t number, l2_shard **shard, ptier_error *error)
{
    const char *directory = l2->options.directory;
    ptier_status status = l2_shard_open(directory, number, true, shard, error);
    if (status != PTIER_ALREADY_EXISTS)
        return status;
    l2_log(l2, PTIER_LOG_WARN, "l2_aside", "a file that is not ours is in the place of shard %u",
           number);
    status = l2_shard_set_aside(directory, number, error);
    return status ? status : l2_shard_open(directory, number, true, shard, error);
}

ptier_status
l2_follow(l2_tier *l2, bool alone, size_t more, ptier_error *error)
{
    l2_shard *last = l2->shard_count ? l2_newest_shard(l2) : NULL, *shard;
    ptier_error ignored;
    ptier_status status = make_room_in_list(l2, error);
    if (!status)
        status = create_shard(l2, last ? last->number + 1 : 1, &shard, error);
    if (status)
        return status;
    shard->after = last ? last->size : 0;
    status = write_header(l2, shard, alone || !last ? shard->number : l2->shards[0]->number, more,
                          error);
    if (status) {
        PTIER_IGNORE(l2_shard_unlink(l2->options.directory, shard,
                                     &ignored)); /* else it is set aside next time */
        l2_shard_release(shard);
        return status;
    }
    if (last)
        l2_shard_trim(last);
    l2->shards[l2->shard_count++] = shard;
    pthread_mutex_lock(&l2->lock);
    l2->total_bytes += shard->size;
    pthread_mutex_unlock(&l2->lock);
    return PTIER_OK;
}

ptier_status
l2_check_newest(l2_tier *l2, ptier_error *error)
{
    l2_shard *newest = l2_newest_shard(l2);
    ptier_status status = l2_shard_check(newest, error);
    if (status || l2_shard_in_place(l2->options.directory, newest))
        return status;
    newest->failed = true;
    return ptier_fail(error, PTIER_UNAVAILABLE, "shard %" PRIu32 " is no longer in %s",
                      newest->number, l2->options.directory);
}

ptier_status
l2_roll(l2_tier *l2, size_t more, ptier_error *error)
{
    ptier_status status = l2_shard_check(l2_newest_shard(l2), error);
    if (!status)
        status = l2_shard_sync(l2_newest_shard(l2), error);
    return status ? status : l2_follow(l2, false, more, error);
}

/* A full disk is no reason not to open: what has no room is refused when it comes. */
ptier_status
l2_begin(l2_tier *l2, ptier_error *error)
{
    ptier_error ignored;
    if (l2->shard_count == 0)
        return l2_follow(l2, true, 0, error);
    l2_shard *newest = l2_newest_shard(l2);
    if (newest->closed)
        return PTIER_OK;
    if (newest->size) {
        if (l2->options.removal_reserve)
            PTIER_IGNORE(l2_shard_reserve(newest, l2->options.removal_reserve, &ignored));
        return PTIER_OK;
    }
    newest->after = l2->shard_count > 1 ? l2->shards[l2->shard_count - 2]->size : 0;
    ptier_status status = write_header(l2, newest, l2->shards[0]->number, 0, error);
    l2->total_bytes += newest->size;
    return status == PTIER_RESOURCE_EXHAUSTED ? PTIER_OK : status;
}

static bool
is_full(const l2_tier *l2, const l2_shard *shard, size_t more)
{
    uint64_t bound =
        shard->stretched > l2->options.shard_bytes ? shard->stretched : l2->options.shard_bytes;
    return shard->closed || (shard->size > shard->start && shard->size + more > bound);
}

/* The shard to append to. */
static ptier_status
find_room(l2_tier *l2, size_t length, bool reserved, l2_shard **shard, ptier_error *error)
{
    ptier_status status = l2_shard_check(l2_newest_shard(l2), error);
    if (!status && is_full(l2, l2_newest_shard(l2), length)) {
        status = l2_roll(l2, length, error);
        if (status == PTIER_RESOURCE_EXHAUSTED && reserved && !l2_newest_shard(l2)->closed) {
            l2_newest_shard(l2)->stretched = l2_newest_shard(l2)->size + length + STRETCH;
            status = PTIER_OK;
        }
    }
    if (status)
        return status;
    *shard = l2_newest_shard(l2);
    if ((*shard)->size + length > UINT32_MAX)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "shard %" PRIu32 " is full",
                          (*shard)->number);
    status = l2_shard_reserve(*shard, length + l2->options.removal_reserve, error);
    return status == PTIER_RESOURCE_EXHAUSTED && reserved ? PTIER_OK : status;
}

ptier_status
l2_append(l2_tier *l2, const char *data, size_t length, bool reserved, uint64_t *base,
          ptier_error *error)
{
    l2_shard *shard;
    ptier_status status = find_room(l2, length, reserved, &shard, error);
    if (status)
        return status;
    *base = shard->size;
    status = l2_shard_append(shard, data, length, error);
    if (status)
        return status;
    pthread_mutex_lock(&l2->lock);
    l2->total_bytes += length;
    pthread_mutex_unlock(&l2->lock);
    return PTIER_OK;
}

/* ---- groups ---- */

typedef struct group {
    const ptier_op *ops;
    size_t count;
    uint32_t *ends; /* of each line in the tier's buffer */
    bool has_put;
} group;

/* Takes as many of the ops as make one write. */
static ptier_status
encode_group(l2_tier *l2, const ptier_op *ops, size_t count, group *g, ptier_error *error)
{
    l2->buffer.length = 0;
    g->ops = ops;
    g->has_put = false;
    size_t i = 0;
    for (; i < count && l2->buffer.length < GROUP_BYTES; i++) {
        ptier_status status =
            ptier_l2_line_write(&l2->buffer, &ops[i], l2->options.clock, l2->options.keyring);
        if (status)
            return ptier_fail(error, status, "cannot encode a line for L2");
        g->ends[i] = (uint32_t)l2->buffer.length;
        g->has_put |= ops[i].kind == PTIER_OP_PUT;
    }
    g->count = i;
    return PTIER_OK;
}

static ptier_status
install_group(l2_tier *l2, const group *g, uint64_t base, ptier_error *error)
{
    l2_shard *shard = l2_newest_shard(l2);
    bool fits = true;
    pthread_mutex_lock(&l2->lock);
    for (size_t i = 0; i < g->count && fits; i++) {
        if (i && i % PTIER_HOLD_MAX == 0) {
            pthread_mutex_unlock(&l2->lock);
            ptier_let_others_in();
            pthread_mutex_lock(&l2->lock);
        }
        if (i + AHEAD < g->count && g->ops[i + AHEAD].entry)
            ptier_map_prefetch(&l2->map, g->ops[i + AHEAD].entry->hash);
        uint32_t start = i ? g->ends[i - 1] : 0;
        fits = l2_install_locked(l2, &g->ops[i], shard, base + start, g->ends[i] - start - 1);
        if (g->ops[i].revision > l2->last_revision)
            l2->last_revision = l2->bound = g->ops[i].revision;
    }
    pthread_mutex_unlock(&l2->lock);
    return fits ? PTIER_OK
                : ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for L2's table");
}

static ptier_status
append_group(l2_tier *l2, const ptier_op *ops, size_t count, group *g, ptier_error *error)
{
    uint64_t base;
    ptier_status status = encode_group(l2, ops, count, g, error);
    if (!status)
        status = l2_append(l2, l2->buffer.data, l2->buffer.length, !g->has_put, &base, error);
    return status ? status : install_group(l2, g, base, error);
}

ptier_status
l2_apply(ptier_tier *tier, const ptier_op *ops, size_t count, bool sync, ptier_error *error)
{
    l2_tier *l2 = (l2_tier *)tier;
    group g = {.ends = malloc((count ? count : 1) * sizeof *g.ends)};
    if (!g.ends)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for L2's write group");
    ptier_status status = PTIER_OK;
    while (count && !status) {
        status = append_group(l2, ops, count, &g, error);
        ops += g.count;
        count -= g.count;
    }
    free(g.ends);
    if (!status && sync)
        status = l2_shard_sync(l2_newest_shard(l2), error);
    if (!status && sync) /* what is synced has to be where it will be looked for */
        status = l2_check_newest(l2, error);
    return status;
}
