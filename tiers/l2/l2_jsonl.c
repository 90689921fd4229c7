/* L2's side of the tier contract, and what needs nothing but the table. */
#include "l2/l2_jsonl.h"

#include <stdlib.h>
#include <string.h>

#include "hash.h"
#include "hold.h"
#include "l2/l2_internal.h"

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

/* ---- the contract ---- */

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
    if (l2->shard_count) {
        if (l2_shard_sync(l2_newest_shard(l2), &error))
            l2_log(l2, PTIER_LOG_ERROR, "l2_close", "%s", error.message);
        l2_shard_trim(l2_newest_shard(l2));
    }
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
    .probe = l2_probe,
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
        status = l2_begin(l2, error);
    if (status) {
        l2_close(&l2->tier);
        return status;
    }
    *tier = &l2->tier;
    return PTIER_OK;
}

void
ptier_l2_found_at_open(const ptier_tier *tier, ptier_l2_found *found)
{
    *found = ((const l2_tier *)tier)->found;
}

void
ptier_l2_position(const ptier_tier *tier, uint32_t *first_shard, uint32_t *last_shard,
                  uint64_t *last_shard_bytes)
{
    const l2_tier *l2 = (const l2_tier *)tier;
    const l2_shard *newest = l2_newest_shard(l2);
    *first_shard = l2->shards[0]->number;
    *last_shard = newest->number;
    *last_shard_bytes = newest->size;
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
    bool more = true;
    for (int holds = 0; more; holds++) {
        if (holds)
            ptier_let_others_in();
        pthread_mutex_lock(&l2->lock);
        more = l2_release_log_locked(l2, synced_prefix, PTIER_HOLD_MAX);
        pthread_mutex_unlock(&l2->lock);
    }
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

/* Readers come in between. */
enum { SHRINK_STEP = 512 };

uint64_t
ptier_l2_shrink(ptier_tier *tier)
{
    l2_tier *l2 = (l2_tier *)tier;
    uint64_t count = 0, step;
    do {
        pthread_mutex_lock(&l2->lock);
        for (step = 0;
             step < SHRINK_STEP && l2->options.capacity && l2->residents > l2->options.capacity;
             step++)
            l2_evict_locked(l2, l2->oldest);
        pthread_mutex_unlock(&l2->lock);
        count += step;
    } while (step == SHRINK_STEP);
    return count;
}

uint64_t
ptier_l2_log_bytes(ptier_tier *tier)
{
    l2_tier *l2 = (l2_tier *)tier;
    pthread_mutex_lock(&l2->lock);
    uint64_t bytes = l2->log_bytes;
    pthread_mutex_unlock(&l2->lock);
    return bytes;
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
