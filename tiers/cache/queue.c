/*
 * Changes on their way to the disk tiers: lists of them in revision order, and how many may wait.
 * Every function that ends in _locked needs the change lock; none does I/O.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cache_internal.h"

enum {
    SLOW_MS = 20,        /* a writer waits so long where the log is nearly full */
    SQUEEZE_FROM = 1024, /* dead changes in a list, before they are taken out */
};

/* ---- lists ---- */

static bool
make_room(ptier_op_list *list, size_t more)
{
    if (list->room - list->count >= more)
        return true;
    size_t room = list->room ? list->room : 256;
    while (room - list->count < more)
        room *= 2;
    ptier_op *grown = realloc(list->ops, room * sizeof *grown);
    if (!grown)
        return false;
    list->ops = grown;
    list->room = room;
    return true;
}

static void
push_in_room(ptier_op_list *list, const ptier_op *op)
{
    ptier_op *copy = &list->ops[list->count++];
    *copy = *op;
    if (copy->entry)
        ptier_entry_retain(copy->entry);
    ptier_sealed_retain(copy->sealed);
}

bool
ptier_op_list_push(ptier_op_list *list, const ptier_op *op)
{
    if (!make_room(list, 1))
        return false;
    push_in_room(list, op);
    return true;
}

static void
release_op(ptier_op *op)
{
    ptier_entry_release(op->entry);
    ptier_sealed_release(op->sealed);
    op->entry = NULL;
    op->sealed = NULL;
}

void
ptier_op_list_release(ptier_op_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        release_op(&list->ops[i]);
    list->count = list->dead = 0;
}

void
ptier_op_list_fini(ptier_op_list *list)
{
    ptier_op_list_release(list);
    free(list->ops);
    *list = (ptier_op_list){0};
}

void
ptier_op_list_squeeze(ptier_op_list *list)
{
    size_t kept = 0;
    for (size_t i = 0; list->dead && i < list->count; i++)
        if (list->ops[i].kind != PTIER_OP_NONE)
            list->ops[kept++] = list->ops[i];
    if (list->dead)
        list->count = kept;
    list->dead = 0;
}

bool
ptier_op_list_prepend(ptier_op_list *list, ptier_op_list *before)
{
    if (!make_room(before, list->count))
        return false;
    if (list->count) /* else there may be no array to copy from, or to */
        memcpy(before->ops + before->count, list->ops, list->count * sizeof *list->ops);
    before->count += list->count;
    before->dead += list->dead;
    free(list->ops);
    *list = *before;
    *before = (ptier_op_list){0};
    return true;
}

bool
ptier_op_list_append(ptier_op_list *list, ptier_op_list *more)
{
    if (!make_room(list, more->count))
        return false;
    if (more->count)
        memcpy(list->ops + list->count, more->ops, more->count * sizeof *more->ops);
    list->count += more->count;
    list->dead += more->dead;
    more->count = more->dead = 0;
    return true;
}

bool
ptier_op_list_cut(ptier_op_list *list, size_t count, ptier_op_list *rest)
{
    *rest = (ptier_op_list){0};
    if (list->count <= count)
        return true;
    size_t left = list->count - count;
    if (!make_room(rest, left))
        return false;
    memcpy(rest->ops, list->ops + count, left * sizeof *list->ops);
    rest->count = left;
    list->count = count;
    return true;
}

/* ---- without any disk tier ---- */

static ptier_op *
find_revision(const ptier_op_list *list, uint64_t revision)
{
    size_t low = 0, high = list->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (list->ops[middle].revision < revision)
            low = middle + 1;
        else
            high = middle;
    }
    return low < list->count && list->ops[low].revision == revision ? &list->ops[low] : NULL;
}

typedef struct removal_of {
    const ptier_op_list *list;
    const char *key;
} removal_of;

/* The map has revisions in the place of pointers. */
static bool
removes_key(const void *value, const void *context)
{
    const removal_of *wanted = context;
    const ptier_op *op = find_revision(wanted->list, (uintptr_t)value);
    return op && op->kind == PTIER_OP_REMOVE &&
           strcmp(ptier_entry_key(op->entry), wanted->key) == 0;
}

/* The change of the same key that waits; NULL: none. What was put after a removal replaces nothing,
 * hence the map. */
static ptier_op *
find_older_locked(const ptier_cache *cache, const ptier_op *op)
{
    const ptier_op_list *list = &cache->l3_queue;
    uint64_t revision = op->replaces;
    if (!revision) {
        const removal_of wanted = {.list = list, .key = ptier_entry_key(op->entry)};
        revision = (uintptr_t)ptier_map_find(&cache->removals_waiting, op->entry->hash, removes_key,
                                             &wanted);
    }
    ptier_op *old = revision ? find_revision(list, revision) : NULL;
    return old && old->kind != PTIER_OP_NONE ? old : NULL;
}

static void
bury_locked(ptier_cache *cache, ptier_op *old)
{
    ptier_op_list *list = &cache->l3_queue;
    if (old->kind == PTIER_OP_REMOVE)
        ptier_map_remove(&cache->removals_waiting, old->entry->hash,
                         (void *)(uintptr_t)old->revision);
    release_op(old);
    old->kind = PTIER_OP_NONE;
    list->dead++;
    if (list->dead > SQUEEZE_FROM && list->dead > list->count / 2)
        ptier_op_list_squeeze(list);
}

/*
 * Nothing takes changes off the list, so that of each key only the newest stays: an outage of any
 * length needs memory for the keys that changed, not for every change. What the disk has of the key
 * is then replaced by this one; that may be the older change itself, if L2 is just coming back.
 */
static void
supersede_locked(ptier_cache *cache, ptier_op *op)
{
    if (op->kind == PTIER_OP_CLEAR) {
        ptier_op_list_release(&cache->l3_queue);
        ptier_map_fini(&cache->removals_waiting);
        return;
    }
    ptier_op *old = find_older_locked(cache, op);
    if (old && old->revision > cache->caught_up)
        op->replaces = old->replaces;
    if (old)
        bury_locked(cache, old);
    if (op->kind == PTIER_OP_REMOVE) /* no memory: it is not superseded */
        PTIER_IGNORE(ptier_map_insert(&cache->removals_waiting, op->entry->hash,
                                      (void *)(uintptr_t)op->revision));
}

/* ---- the way in ---- */

void
ptier_note_missed_locked(ptier_cache *cache, const ptier_op *op)
{
    if (op->kind != PTIER_OP_PUT || !cache->tiers[PTIER_TIER_L2] || !cache->tiers[PTIER_TIER_L3])
        return;
    if (!cache->missed)
        cache->missed = malloc(MISSED_MAX * sizeof *cache->missed);
    if (cache->missed) /* without memory for it L2 is a little emptier afterwards */
        cache->missed[cache->missed_count++ % MISSED_MAX] =
            (ptier_ref){.hash = op->entry->hash, .revision = op->revision};
}

bool
ptier_queue_locked(ptier_cache *cache, const ptier_op *op)
{
    if (!cache->data_dir)
        return true; /* memory only: as durable as it gets */
    bool logs = ptier_tier_active(cache, PTIER_TIER_L2);
    ptier_op_list *list = logs ? &cache->log_queue : &cache->l3_queue;
    ptier_op copy = *op;
    if (!make_room(list, 1) || (op->kind == PTIER_OP_PUT &&
                                !ptier_map_insert(&cache->pending, op->entry->hash, op->entry)))
        return false;
    if (!logs && !ptier_tier_active(cache, PTIER_TIER_L3))
        supersede_locked(cache, &copy);
    push_in_room(list, &copy);
    cache->queued = op->revision;
    if (logs)
        return true;
    ptier_note_missed_locked(cache, op);
    ptier_remove_ahead_locked(cache, &copy);
    pthread_cond_signal(&cache->l3_work);
    return true;
}

/* ---- how many may wait ---- */

void
ptier_wait_locked(ptier_cache *cache, pthread_cond_t *condition, int64_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += ms % 1000 * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    (void)pthread_cond_timedwait(condition, &cache->lock, &until); /* whoever waits looks again */
}

uint64_t
ptier_waiting_locked(const ptier_cache *cache)
{
    return cache->log_queue.count + cache->logging + cache->l3_queue.count - cache->l3_queue.dead +
           cache->l3_batch.count;
}

bool
ptier_any_disk_tier(const ptier_cache *cache)
{
    return ptier_tier_active(cache, PTIER_TIER_L2) || ptier_tier_active(cache, PTIER_TIER_L3);
}

/* Bytes of the log that L3 does not have, and the bound on them. */
static bool
log_over(const ptier_cache *cache, uint64_t bound)
{
    return cache->tiers[PTIER_TIER_L3] && ptier_tier_active(cache, PTIER_TIER_L2) &&
           ptier_l2_log_bytes(cache->tiers[PTIER_TIER_L2]) >= bound;
}

static bool
has_revisions_locked(const ptier_cache *cache, size_t count)
{
    return !cache->data_dir || cache->assigned + 1 + count < cache->state.reserved;
}

static bool
has_room_locked(const ptier_cache *cache, size_t count, uint64_t limit)
{
    return ptier_waiting_locked(cache) + count <= limit && has_revisions_locked(cache, count);
}

bool
ptier_room_now_locked(const ptier_cache *cache, size_t count)
{
    return !cache->stopping && has_room_locked(cache, count, PENDING_MAX + PENDING_RESERVE);
}

static ptier_status
refuse_locked(const ptier_cache *cache, size_t count, bool log_full, ptier_error *error)
{
    uint64_t waiting = ptier_waiting_locked(cache);
    if (!has_revisions_locked(cache, count))
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED,
                          "no revisions are left, since the state file in %s cannot be written: "
                          "mend the disk",
                          cache->data_dir);
    if (!ptier_any_disk_tier(cache))
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED,
                          "no disk tier works, and %llu changes in memory are as many as may wait "
                          "for one: mend the disk",
                          (unsigned long long)waiting);
    if (log_full)
        return ptier_fail(
            error, PTIER_RESOURCE_EXHAUSTED,
            "L3 does not keep up, and the log in front of it is full (log_max_bytes): "
            "try again later");
    return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED,
                      "the disk does not keep up: %llu changes wait to be written; try again later",
                      (unsigned long long)waiting);
}

ptier_status
ptier_change_room_locked(ptier_cache *cache, size_t count, bool removals, ptier_error *error)
{
    const uint64_t log_max = cache->options.log_max_bytes;
    int64_t deadline = ptier_monotonic_ms() + cache->room_timeout_ms;
    if (!removals && log_over(cache, log_max - log_max / 8))
        ptier_wait_locked(cache, &cache->progress, SLOW_MS);
    for (;;) {
        if (cache->stopping)
            return ptier_fail(error, PTIER_UNAVAILABLE, "the cache is closing");
        bool log_full = !removals && log_over(cache, log_max);
        if (!log_full && has_room_locked(cache, count, PENDING_MAX))
            return PTIER_OK;
        pthread_cond_signal(&cache->maintenance_work);
        pthread_cond_signal(&cache->l3_work);
        int64_t left = deadline - ptier_monotonic_ms();
        if (left <= 0 || (cache->data_dir && !ptier_any_disk_tier(cache)))
            return refuse_locked(cache, count, log_full, error);
        ptier_wait_locked(cache, &cache->progress, left);
    }
}
