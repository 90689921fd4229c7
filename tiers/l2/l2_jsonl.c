/* L2's side of the tier contract: appending groups of lines, reading one, residency. */
#include "l2/l2_jsonl.h"

#include <stdlib.h>
#include <string.h>

#include "hash.h"
#include "l2/l2_internal.h"

enum {
    GROUP_BYTES = 4 << 20, /* lines gathered for one write */
    SMALL_LINE = 4096,
};

void
l2_log(const l2_tier *l2, ptier_log_level level, const char *event, const char *format, ...)
{
    if (!l2->options.on_log)
        return;
    char text[512];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args); /* cut is fine */
    va_end(args);
    l2->options.on_log(l2->options.log_context, level, event, text);
}

static l2_shard *
newest_shard(const l2_tier *l2)
{
    return l2->shards[l2->shard_count - 1];
}

ptier_status
l2_roll(l2_tier *l2, size_t more, bool force, ptier_error *error)
{
    l2_shard *last = l2->shard_count ? newest_shard(l2) : NULL;
    if (last && !force && (last->size == 0 || last->size + more <= l2->options.shard_bytes))
        return PTIER_OK;
    ptier_status status = last ? l2_shard_sync(last, error) : PTIER_OK;
    if (status)
        return status;
    l2_shard *shard;
    status = l2_shard_open(l2->options.directory, last ? last->number + 1 : 1, true, &shard, error);
    if (status)
        return status;
    pthread_mutex_lock(&l2->lock);
    if (l2->shard_count == l2->shard_room) {
        size_t room = l2->shard_room ? l2->shard_room * 2 : 16;
        l2_shard **grown = realloc(l2->shards, room * sizeof(*grown));
        if (!grown) {
            pthread_mutex_unlock(&l2->lock);
            l2_shard_release(shard);
            return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for a further shard");
        }
        l2->shards = grown;
        l2->shard_room = room;
    }
    l2->shards[l2->shard_count++] = shard;
    pthread_mutex_unlock(&l2->lock);
    return PTIER_OK;
}

ptier_status
l2_read_line(const l2_tier *l2, const l2_shard *shard, uint64_t offset, size_t length, bool decrypt,
             ptier_l2_line *line)
{
    char small[SMALL_LINE];
    char *text = length <= sizeof small ? small : malloc(length);
    if (!text)
        return PTIER_RESOURCE_EXHAUSTED;
    ptier_status status = l2_shard_read(shard, offset, text, length);
    const ptier_l2_reader reader = l2_reader(l2, decrypt);
    if (!status)
        status = ptier_l2_line_parse(text, length, &reader, line);
    if (text != small)
        free(text);
    return status;
}

/* ---- the contract ---- */

static void
drop_damaged(l2_tier *l2, const ptier_ref *ref, const l2_shard *shard, uint32_t offset)
{
    pthread_mutex_lock(&l2->lock);
    l2_node *n = l2_find_locked(l2, ref->hash, ref->revision);
    if (n && n->shard == shard && n->offset == offset)
        l2_forget_locked(l2, n);
    l2->damaged++;
    pthread_mutex_unlock(&l2->lock);
    l2_log(l2, PTIER_LOG_WARN, "l2_damaged",
           "shard %u offset %u: line is damaged; the record was dropped from L2", shard->number,
           offset);
}

static ptier_status
l2_get(ptier_tier *tier, const ptier_ref *ref, ptier_entry **entry)
{
    l2_tier *l2 = (l2_tier *)tier;
    pthread_mutex_lock(&l2->lock);
    l2_node *n = l2_find_locked(l2, ref->hash, ref->revision);
    if (!n || !n->resident) { /* a line that is only logged is L3's to serve */
        pthread_mutex_unlock(&l2->lock);
        return PTIER_NOT_FOUND;
    }
    if (!ref->quiet)
        l2_use_locked(l2, n);
    l2_shard *shard = l2_shard_retain(n->shard);
    uint32_t offset = n->offset, length = n->length;
    pthread_mutex_unlock(&l2->lock);

    ptier_l2_line line;
    ptier_status status = l2_read_line(l2, shard, offset, length, true, &line);
    if (!status) {
        if (line.op.kind == PTIER_OP_PUT &&
            ptier_ref_matches(ref, line.op.entry->hash, line.op.revision,
                              ptier_entry_key(line.op.entry)))
            *entry = ptier_entry_retain(line.op.entry);
        else
            status = ref->key ? PTIER_NOT_FOUND : PTIER_DATA_LOSS;
        ptier_l2_line_fini(&line);
    }
    if (status == PTIER_DATA_LOSS)
        drop_damaged(l2, ref, shard, offset);
    l2_shard_release(shard);
    return status;
}

static ptier_status
encode_group(l2_tier *l2, const ptier_op *ops, size_t count, size_t *taken, uint32_t *ends,
             ptier_error *error)
{
    l2->buffer.length = 0;
    size_t i = 0;
    for (; i < count && l2->buffer.length < GROUP_BYTES; i++) {
        ptier_status status =
            ptier_l2_line_write(&l2->buffer, &ops[i], l2->options.clock, l2->options.keyring);
        if (status)
            return ptier_fail(error, status, "cannot encode a line for L2");
        ends[i] = (uint32_t)l2->buffer.length;
    }
    *taken = i;
    return PTIER_OK;
}

static ptier_status
install_group(l2_tier *l2, const ptier_op *ops, size_t count, const uint32_t *ends, uint64_t base,
              ptier_error *error)
{
    l2_shard *shard = newest_shard(l2);
    bool fits = true;
    pthread_mutex_lock(&l2->lock);
    for (size_t i = 0; i < count && fits; i++) {
        uint32_t start = i ? ends[i - 1] : 0;
        fits = l2_install_locked(l2, &ops[i], shard, base + start, ends[i] - start - 1);
        if (ops[i].revision > l2->last_revision)
            l2->last_revision = ops[i].revision;
    }
    l2->total_bytes += l2->buffer.length;
    pthread_mutex_unlock(&l2->lock);
    return fits ? PTIER_OK
                : ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for L2's table");
}

/* Writes one group of lines; *taken says how many of the ops were in it. */
static ptier_status
append_group(l2_tier *l2, const ptier_op *ops, size_t count, uint32_t *ends, size_t *taken,
             ptier_error *error)
{
    ptier_status status = encode_group(l2, ops, count, taken, ends, error);
    if (!status)
        status = l2_roll(l2, l2->buffer.length, false, error);
    if (status)
        return status;
    uint64_t base = newest_shard(l2)->size;
    status = l2_shard_append(newest_shard(l2), l2->buffer.data, l2->buffer.length, error);
    if (!status)
        status = install_group(l2, ops, *taken, ends, base, error);
    return status;
}

static ptier_status
l2_apply(ptier_tier *tier, const ptier_op *ops, size_t count, bool sync, ptier_error *error)
{
    l2_tier *l2 = (l2_tier *)tier;
    uint32_t *ends = malloc((count ? count : 1) * sizeof *ends);
    if (!ends)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for L2's write group");
    ptier_status status = PTIER_OK;
    while (count && !status) {
        size_t taken = 0;
        status = append_group(l2, ops, count, ends, &taken, error);
        ops += taken;
        count -= taken;
    }
    free(ends);
    if (!status && sync)
        status = l2_shard_sync(newest_shard(l2), error);
    return status;
}

static ptier_status
l2_write_usage(ptier_tier *tier, const ptier_usage *usage, size_t count, ptier_error *error)
{
    (void)tier; /* usage comes with the entry: ptier_l2_admit writes it anew */
    (void)usage;
    (void)count;
    (void)error;
    return PTIER_OK;
}

static void
l2_touch(ptier_tier *tier, const ptier_ref *ref)
{
    l2_tier *l2 = (l2_tier *)tier;
    pthread_mutex_lock(&l2->lock);
    l2_node *n = l2_find_locked(l2, ref->hash, ref->revision);
    if (n)
        l2_use_locked(l2, n);
    pthread_mutex_unlock(&l2->lock);
}

static ptier_status
l2_victim(ptier_tier *tier, uint64_t *hash, uint64_t *revision)
{
    l2_tier *l2 = (l2_tier *)tier;
    ptier_status status = PTIER_NOT_FOUND;
    pthread_mutex_lock(&l2->lock);
    if (l2->options.capacity && l2->residents > l2->options.capacity) {
        *hash = l2->oldest->hash;
        *revision = l2->oldest->revision;
        status = PTIER_OK;
    }
    pthread_mutex_unlock(&l2->lock);
    return status;
}

static void
l2_drop(ptier_tier *tier, uint64_t hash, uint64_t revision)
{
    l2_tier *l2 = (l2_tier *)tier;
    pthread_mutex_lock(&l2->lock);
    l2_node *n = l2_find_locked(l2, hash, revision);
    if (n)
        l2_evict_locked(l2, n);
    pthread_mutex_unlock(&l2->lock);
}

/* Writer only, so that nodes do not move; readers may still reorder them, hence the copy of what is
 * to be read. */
static ptier_status
l2_scan(ptier_tier *tier, ptier_scan_fn fn, void *context, ptier_error *error)
{
    l2_tier *l2 = (l2_tier *)tier;
    pthread_mutex_lock(&l2->lock);
    size_t count = 0, room = l2->residents;
    l2_node *copy = malloc((room ? room : 1) * sizeof *copy);
    for (l2_node *n = l2->oldest; copy && n; n = n->newer)
        copy[count++] = *n;
    pthread_mutex_unlock(&l2->lock);
    if (!copy)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory to scan L2");
    bool go_on = true;
    for (size_t i = 0; i < count && go_on; i++) {
        ptier_l2_line line;
        const ptier_ref ref = {.hash = copy[i].hash, .revision = copy[i].revision};
        if (l2_read_line(l2, copy[i].shard, copy[i].offset, copy[i].length, false, &line)) {
            drop_damaged(l2, &ref, copy[i].shard, copy[i].offset);
            continue;
        }
        const ptier_entry *entry = line.op.entry;
        const ptier_scan_item item = {
            .hash = entry->hash,
            .revision = entry->revision,
            .expires_boot_ms = entry->expires_boot_ms,
            .health = entry->health,
            .key = ptier_entry_key(entry),
            .url = ptier_entry_url(entry),
            .source = ptier_entry_source(entry),
        };
        go_on = fn(context, &item);
        ptier_l2_line_fini(&line);
    }
    free(copy);
    return PTIER_OK;
}

static uint64_t
l2_count(ptier_tier *tier)
{
    l2_tier *l2 = (l2_tier *)tier;
    pthread_mutex_lock(&l2->lock);
    uint64_t count = l2->residents;
    pthread_mutex_unlock(&l2->lock);
    return count;
}

static uint64_t
l2_bytes(ptier_tier *tier)
{
    l2_tier *l2 = (l2_tier *)tier;
    pthread_mutex_lock(&l2->lock);
    uint64_t bytes = l2->total_bytes;
    pthread_mutex_unlock(&l2->lock);
    return bytes;
}

static void
l2_close(ptier_tier *tier)
{
    l2_tier *l2 = (l2_tier *)tier;
    ptier_error error;
    if (l2->shard_count && l2_shard_sync(newest_shard(l2), &error))
        l2_log(l2, PTIER_LOG_ERROR, "l2_close", "%s", error.message);
    for (size_t i = 0; l2->map.cells && i <= l2->map.mask; i++)
        free(l2->map.cells[i].value);
    ptier_map_fini(&l2->map);
    for (size_t i = 0; i < l2->shard_count; i++)
        l2_shard_release(l2->shards[i]);
    free(l2->shards);
    ptier_buffer_fini(&l2->buffer);
    free((char *)(uintptr_t)l2->options.directory); /* our copy */
    pthread_mutex_destroy(&l2->lock);
    free(l2);
}

static const ptier_tier_ops l2_ops = {
    .name = "L2",
    .get = l2_get,
    .apply = l2_apply,
    .write_usage = l2_write_usage,
    .touch = l2_touch,
    .victim = l2_victim,
    .drop = l2_drop,
    .scan = l2_scan,
    .count = l2_count,
    .bytes = l2_bytes,
    .close = l2_close,
};

/* ---- beyond the contract ---- */

ptier_status
ptier_l2_open(const ptier_l2_options *options, ptier_tier **tier, ptier_error *error)
{
    l2_tier *l2 = calloc(1, sizeof *l2);
    char *directory = strdup(options->directory);
    if (!l2 || !directory) {
        free(l2);
        free(directory);
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for L2");
    }
    l2->tier.ops = &l2_ops;
    l2->options = *options;
    l2->options.directory = directory;
    if (!l2->options.hash_key)
        l2->options.hash_key = ptier_hash_key;
    pthread_mutex_init(&l2->lock, NULL);
    ptier_map_init(&l2->map);
    ptier_status status = l2_recover(l2, error);
    if (!status)
        status = l2_roll(l2, 0, l2->shard_count == 0, error);
    if (status) {
        l2_close(&l2->tier);
        return status;
    }
    *tier = &l2->tier;
    return PTIER_OK;
}

uint64_t
ptier_l2_last_revision(const ptier_tier *tier)
{
    return ((const l2_tier *)tier)->last_revision;
}

bool
ptier_l2_resident(ptier_tier *tier, uint64_t hash, uint64_t revision)
{
    l2_tier *l2 = (l2_tier *)tier;
    pthread_mutex_lock(&l2->lock);
    const l2_node *n = l2_find_locked(l2, hash, revision);
    bool resident = n && n->resident;
    pthread_mutex_unlock(&l2->lock);
    return resident;
}

ptier_status
ptier_l2_admit(ptier_tier *tier, const ptier_op *op, ptier_error *error)
{
    return l2_apply(tier, op, 1, false, error); /* the same revision: the node only moves */
}

void
ptier_l2_release_log(ptier_tier *tier, uint64_t synced_prefix)
{
    l2_tier *l2 = (l2_tier *)tier;
    pthread_mutex_lock(&l2->lock);
    l2_release_log_locked(l2, synced_prefix);
    pthread_mutex_unlock(&l2->lock);
}

uint64_t
ptier_l2_evict_all(ptier_tier *tier)
{
    l2_tier *l2 = (l2_tier *)tier;
    pthread_mutex_lock(&l2->lock);
    uint64_t count = l2->residents;
    while (l2->oldest)
        l2_evict_locked(l2, l2->oldest);
    pthread_mutex_unlock(&l2->lock);
    return count;
}
