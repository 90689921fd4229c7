/*
 * A hash table and an LRU list, in shards with a mutex each. Small caches have one shard and so are
 * exactly LRU; larger ones trade that for less contention.
 */
#include "l1/l1_memory.h"

#include <pthread.h>
#include <stdlib.h>

#include "map.h"

enum {
    MAX_SHARDS = 16,
    ENTRIES_PER_SHARD = 4096, /* below this a further shard does not pay */
};

typedef struct node {
    ptier_entry *entry;
    struct node *newer, *older;
} node;

typedef struct shard {
    _Alignas(64) pthread_mutex_t lock;
    ptier_map map;
    node *newest, *oldest;
    uint64_t capacity;
    uint64_t bytes;
} shard;

typedef struct l1_tier {
    ptier_tier tier;
    size_t shard_count; /* a power of two */
    shard shards[MAX_SHARDS];
} l1_tier;

static shard *
shard_of(ptier_tier *tier, uint64_t hash)
{
    l1_tier *l1 = (l1_tier *)tier;
    return &l1->shards[(hash >> 48) & (l1->shard_count - 1)];
}

/* ---- the list ---- */

static void
list_remove(shard *s, node *n)
{
    *(n->newer ? &n->newer->older : &s->newest) = n->older;
    *(n->older ? &n->older->newer : &s->oldest) = n->newer;
}

static void
list_push(shard *s, node *n)
{
    n->newer = NULL;
    n->older = s->newest;
    *(s->newest ? &s->newest->newer : &s->oldest) = n;
    s->newest = n;
}

static bool
node_matches(const void *value, const void *key)
{
    const node *n = value;
    return ptier_ref_matches(key, n->entry->hash, n->entry->revision, ptier_entry_key(n->entry));
}

static node *
find_locked(shard *s, const ptier_ref *ref)
{
    return ptier_map_find(&s->map, ref->hash, node_matches, ref);
}

static void
remove_locked(shard *s, node *n)
{
    ptier_map_remove(&s->map, n->entry->hash, n);
    list_remove(s, n);
    s->bytes -= ptier_entry_bytes(n->entry);
    ptier_entry_release(n->entry);
    free(n);
}

static void
clear_locked(shard *s)
{
    while (s->oldest)
        remove_locked(s, s->oldest);
}

/* ---- the contract ---- */

static ptier_status
l1_get(ptier_tier *tier, const ptier_ref *ref, ptier_entry **entry)
{
    shard *s = shard_of(tier, ref->hash);
    ptier_status status = PTIER_NOT_FOUND;
    pthread_mutex_lock(&s->lock);
    node *n = find_locked(s, ref);
    if (n) {
        if (!ref->quiet && s->newest != n) {
            list_remove(s, n);
            list_push(s, n);
        }
        *entry = ptier_entry_retain(n->entry);
        status = PTIER_OK;
    }
    pthread_mutex_unlock(&s->lock);
    return status;
}

static ptier_status
put_locked(shard *s, ptier_entry *entry)
{
    const ptier_ref ref = {.hash = entry->hash, .key = ptier_entry_key(entry)};
    node *n = find_locked(s, &ref);
    if (n && n->entry->revision > entry->revision)
        return PTIER_OK; /* a late promotion */
    if (n) {
        s->bytes -= ptier_entry_bytes(n->entry);
        ptier_entry_release(n->entry);
        list_remove(s, n);
    } else {
        n = malloc(sizeof *n);
        if (!n || !ptier_map_insert(&s->map, entry->hash, n)) {
            free(n);
            return PTIER_RESOURCE_EXHAUSTED;
        }
    }
    n->entry = ptier_entry_retain(entry);
    s->bytes += ptier_entry_bytes(entry);
    list_push(s, n);
    return PTIER_OK;
}

static ptier_status
apply_one(ptier_tier *tier, const ptier_op *op)
{
    if (op->kind == PTIER_OP_CLEAR) {
        l1_tier *l1 = (l1_tier *)tier;
        for (size_t i = 0; i < l1->shard_count; i++) {
            pthread_mutex_lock(&l1->shards[i].lock);
            clear_locked(&l1->shards[i]);
            pthread_mutex_unlock(&l1->shards[i].lock);
        }
        return PTIER_OK;
    }
    shard *s = shard_of(tier, op->entry->hash);
    ptier_status status = PTIER_OK;
    pthread_mutex_lock(&s->lock);
    if (op->kind == PTIER_OP_PUT) {
        status = put_locked(s, op->entry);
    } else {
        const ptier_ref ref = {.hash = op->entry->hash, .key = ptier_entry_key(op->entry)};
        node *n = find_locked(s, &ref);
        if (n && n->entry->revision < op->revision)
            remove_locked(s, n);
    }
    pthread_mutex_unlock(&s->lock);
    return status;
}

static ptier_status
l1_apply(ptier_tier *tier, const ptier_op *ops, size_t count, bool sync, ptier_error *error)
{
    (void)sync; /* memory is as stable as it gets */
    for (size_t i = 0; i < count; i++) {
        ptier_status status = apply_one(tier, &ops[i]);
        if (status)
            return ptier_fail(error, status, "L1 is out of memory");
    }
    return PTIER_OK;
}

static ptier_status
l1_write_usage(ptier_tier *tier, const ptier_usage *usage, size_t count, ptier_error *error)
{
    (void)tier; /* entries in memory carry their own usage */
    (void)usage;
    (void)count;
    (void)error;
    return PTIER_OK;
}

static void
l1_touch(ptier_tier *tier, const ptier_ref *ref)
{
    ptier_entry *entry;
    if (l1_get(tier, ref, &entry) == PTIER_OK)
        ptier_entry_release(entry);
}

static ptier_status
l1_victim(ptier_tier *tier, uint64_t *hash, uint64_t *revision)
{
    l1_tier *l1 = (l1_tier *)tier;
    ptier_status status = PTIER_NOT_FOUND;
    for (size_t i = 0; i < l1->shard_count && status; i++) {
        shard *s = &l1->shards[i];
        pthread_mutex_lock(&s->lock);
        if (s->map.count > s->capacity) {
            *hash = s->oldest->entry->hash;
            *revision = s->oldest->entry->revision;
            status = PTIER_OK;
        }
        pthread_mutex_unlock(&s->lock);
    }
    return status;
}

static void
l1_drop(ptier_tier *tier, uint64_t hash, uint64_t revision)
{
    const ptier_ref ref = {.hash = hash, .revision = revision};
    shard *s = shard_of(tier, hash);
    pthread_mutex_lock(&s->lock);
    node *n = find_locked(s, &ref);
    if (n)
        remove_locked(s, n);
    pthread_mutex_unlock(&s->lock);
}

static bool
scan_shard_locked(shard *s, ptier_scan_fn fn, void *context)
{
    for (node *n = s->newest; n; n = n->older) {
        const ptier_scan_item item = {
            .hash = n->entry->hash,
            .revision = n->entry->revision,
            .expires_boot_ms = n->entry->expires_boot_ms,
            .health = n->entry->health,
            .key = ptier_entry_key(n->entry),
            .url = ptier_entry_url(n->entry),
            .source = ptier_entry_source(n->entry),
        };
        if (!fn(context, &item))
            return false;
    }
    return true;
}

static ptier_status
l1_scan(ptier_tier *tier, ptier_scan_fn fn, void *context, ptier_error *error)
{
    (void)error; /* cannot fail */
    l1_tier *l1 = (l1_tier *)tier;
    bool go_on = true;
    for (size_t i = 0; i < l1->shard_count && go_on; i++) {
        pthread_mutex_lock(&l1->shards[i].lock);
        go_on = scan_shard_locked(&l1->shards[i], fn, context);
        pthread_mutex_unlock(&l1->shards[i].lock);
    }
    return PTIER_OK;
}

static ptier_status
l1_probe(ptier_tier *tier, ptier_error *error)
{
    (void)tier; /* memory works, or nothing does */
    (void)error;
    return PTIER_OK;
}

static uint64_t
l1_count(ptier_tier *tier)
{
    l1_tier *l1 = (l1_tier *)tier;
    uint64_t count = 0;
    for (size_t i = 0; i < l1->shard_count; i++) {
        pthread_mutex_lock(&l1->shards[i].lock);
        count += l1->shards[i].map.count;
        pthread_mutex_unlock(&l1->shards[i].lock);
    }
    return count;
}

static uint64_t
l1_bytes(ptier_tier *tier)
{
    l1_tier *l1 = (l1_tier *)tier;
    uint64_t bytes = sizeof *l1;
    for (size_t i = 0; i < l1->shard_count; i++) {
        shard *s = &l1->shards[i];
        pthread_mutex_lock(&s->lock);
        bytes +=
            s->bytes + ptier_map_bytes(&s->map) + s->map.count * (sizeof(node) + sizeof(size_t));
        pthread_mutex_unlock(&s->lock);
    }
    return bytes;
}

static void
l1_close(ptier_tier *tier)
{
    l1_tier *l1 = (l1_tier *)tier;
    for (size_t i = 0; i < l1->shard_count; i++) {
        clear_locked(&l1->shards[i]);
        ptier_map_fini(&l1->shards[i].map);
        pthread_mutex_destroy(&l1->shards[i].lock);
    }
    free(l1);
}

static const ptier_tier_ops l1_ops = {
    .name = "L1",
    .get = l1_get,
    .apply = l1_apply,
    .write_usage = l1_write_usage,
    .touch = l1_touch,
    .victim = l1_victim,
    .drop = l1_drop,
    .scan = l1_scan,
    .probe = l1_probe,
    .count = l1_count,
    .bytes = l1_bytes,
    .close = l1_close,
};

ptier_status
ptier_l1_open(const ptier_l1_options *options, ptier_tier **tier, ptier_error *error)
{
    if (options->capacity == 0)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "L1 needs room for at least 1 entry");
    l1_tier *l1 = aligned_alloc(64, (sizeof *l1 + 63) & ~(size_t)63);
    if (!l1)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for L1");
    l1->tier.ops = &l1_ops;
    l1->shard_count = 1;
    while (l1->shard_count < MAX_SHARDS &&
           options->capacity / (l1->shard_count * 2) >= ENTRIES_PER_SHARD)
        l1->shard_count *= 2;
    for (size_t i = 0; i < l1->shard_count; i++) {
        shard *s = &l1->shards[i];
        pthread_mutex_init(&s->lock, NULL);
        ptier_map_init(&s->map);
        s->newest = s->oldest = NULL;
        s->capacity = options->capacity / l1->shard_count;
        s->bytes = 0;
    }
    *tier = &l1->tier;
    return PTIER_OK;
}
