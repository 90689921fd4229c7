/*
 * A hash table and an eviction order (l1_policy.h), in shards with a mutex each. Small caches have
 * one shard and so keep to the policy exactly; larger ones trade that for less contention: the
 * bounds are those of the whole tier, and over them the fullest shard gives up what is next in its
 * own order.
 */
#include "l1/l1_memory.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "hash.h"
#include "l1/l1_internal.h"

enum {
    ENTRIES_PER_SHARD = 4096, /* below this a further shard does not pay */
    ENTRY_BYTES = 512,        /* about, for guessing entries from bytes */
    SAMPLES = 32,             /* of a shard's cells, for huge pages */
    FORGET_STEPS = 9000,      /* about a quarter of an hour */
};

/* ---- how much there is ---- */

static void
add(_Atomic uint64_t *figure, uint64_t by) /* modulo 2^64: may be a negative number */
{
    atomic_fetch_add_explicit(figure, by, memory_order_relaxed);
}

/* For one writer at a time, who holds a lock: no costly addition in memory. */
static void
add_alone(_Atomic uint64_t *figure, uint64_t by)
{
    atomic_store_explicit(figure, ptier_l1_figure(figure) + by, memory_order_relaxed);
}

static void
count_locked(ptier_l1 *l1, size_t number, uint64_t entries, uint64_t bytes)
{
    add_alone(&l1->loads[number].entries, entries);
    add_alone(&l1->loads[number].bytes, bytes);
    if (entries)
        add(&l1->entries, entries);
    add(&l1->bytes, bytes);
}

/* ---- one shard ---- */

static bool
entry_matches(const void *value, const void *key)
{
    const ptier_entry *entry = value;
    const ptier_ref *ref = key; /* its hash is what led here */
    if (!ref->key)
        return ref->revision == 0 || ref->revision == entry->revision;
    __builtin_prefetch(&entry->refs, 1); /* another line than the key's, mostly */
    return strcmp(ref->key, ptier_entry_key(entry)) == 0 &&
           (ref->revision == 0 || ref->revision == entry->revision);
}

static ptier_entry *
find_locked(const ptier_l1_shard *s, const ptier_ref *ref)
{
    return ptier_map_find(&s->map, ref->hash, entry_matches, ref);
}

void
ptier_l1_make_uses_locked(const ptier_l1 *l1, ptier_l1_shard *s)
{
    for (size_t i = 0; i < s->use_count; i++)
        l1->policy->use(s->order, s->uses[i]);
    s->use_count = 0;
}

static ptier_status
insert_locked(ptier_l1 *l1, ptier_l1_shard *s, size_t number, ptier_entry *entry)
{
    size_t table = ptier_map_bytes(&s->map);
    if (!ptier_map_insert(&s->map, entry->hash, entry))
        return PTIER_RESOURCE_EXHAUSTED;
    ptier_l1_make_uses_locked(l1, s);
    l1->policy->insert(s->order, ptier_entry_retain(entry));
    add(&l1->bytes, ptier_map_bytes(&s->map) - table);
    count_locked(l1, number, 1, ptier_entry_bytes(entry));
    return PTIER_OK;
}

static void
replace_locked(ptier_l1 *l1, ptier_l1_shard *s, size_t number, ptier_entry *old, ptier_entry *entry)
{
    ptier_l1_make_uses_locked(l1, s);
    (void)ptier_map_replace(&s->map, old->hash, old, entry); /* it was found there */
    l1->policy->replace(s->order, old, ptier_entry_retain(entry));
    count_locked(l1, number, 0, ptier_entry_bytes(entry) - ptier_entry_bytes(old));
    ptier_entry_release(old);
}

static ptier_status
put_locked(ptier_l1 *l1, ptier_l1_shard *s, size_t number, ptier_entry *entry)
{
    const ptier_ref ref = {.hash = entry->hash, .key = ptier_entry_key(entry)};
    ptier_entry *old = find_locked(s, &ref);
    if (!old)
        return insert_locked(l1, s, number, entry);
    if (old->revision > entry->revision)
        return PTIER_OK; /* a late promotion */
    if (old != entry)
        replace_locked(l1, s, number, old, entry);
    ptier_l1_use_locked(l1, s, entry);
    return PTIER_OK;
}

/* L1's reference becomes the caller's. */
static void
take_out_locked(ptier_l1 *l1, ptier_l1_shard *s, size_t number, ptier_entry *entry)
{
    ptier_l1_make_uses_locked(l1, s);
    (void)ptier_map_remove(&s->map, entry->hash, entry); /* it was found there */
    l1->policy->remove(s->order, entry);
    count_locked(l1, number, -UINT64_C(1), -ptier_entry_bytes(entry));
}

static void
remove_locked(ptier_l1 *l1, ptier_l1_shard *s, size_t number, ptier_entry *entry)
{
    take_out_locked(l1, s, number, entry);
    ptier_entry_release(entry);
}

static void
clear_locked(ptier_l1 *l1, ptier_l1_shard *s, size_t number)
{
    const ptier_l1_load *l = &l1->loads[number];
    for (size_t i = 0; s->map.cells && i <= s->map.mask; i++)
        ptier_entry_release(s->map.cells[i].value);
    add(&l1->bytes, -(uint64_t)ptier_map_bytes(&s->map));
    count_locked(l1, number, -ptier_l1_figure(&l->entries), -ptier_l1_figure(&l->bytes));
    ptier_map_fini(&s->map);
    s->use_count = 0;
    memset(s->order, 0, l1->policy->order_bytes);
}

static void
clear_all(ptier_l1 *l1)
{
    for (size_t i = 0; i < l1->shard_count; i++) {
        ptier_l1_shard *s = ptier_l1_shard_at(l1, i);
        pthread_mutex_lock(&s->lock);
        clear_locked(l1, s, i);
        pthread_mutex_unlock(&s->lock);
    }
}

/* ---- huge pages ---- */

/* Where cells, and the entries that they lead to, lie. Nothing there is looked at. */
static size_t
sample(ptier_l1_shard *s, uint64_t random, uintptr_t addresses[2 * SAMPLES])
{
    size_t count = 0;
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; s->map.cells && i < SAMPLES; i++) {
        const ptier_map_cell *cell = &s->map.cells[(random + i * i * i) & s->map.mask];
        addresses[count++] = (uintptr_t)cell;
        if (cell->value)
            addresses[count++] = (uintptr_t)cell->value;
    }
    pthread_mutex_unlock(&s->lock);
    return count;
}

void
ptier_l1_gather(ptier_tier *tier)
{
    ptier_l1 *l1 = (ptier_l1 *)tier;
    uintptr_t addresses[2 * SAMPLES];
    if (ptier_l1_figure(&l1->bytes) < PTIER_L1_HUGE_FROM || !ptier_huge_pages_wanted(&l1->pages))
        return;
    if (++l1->steps % FORGET_STEPS == 0)
        ptier_huge_pages_forget(&l1->pages);
    uint64_t random = ptier_hash_pair(l1->steps, 0);
    ptier_l1_shard *s = ptier_l1_shard_at(l1, l1->steps & (l1->shard_count - 1));
    size_t count = sample(s, random, addresses);
    for (size_t i = 0; i < count; i++)
        if (ptier_huge_pages_gather(&l1->pages, addresses[i]))
            return;
}

/* ---- the contract ---- */

static ptier_status
l1_get(ptier_tier *tier, const ptier_ref *ref, ptier_entry **entry)
{
    ptier_l1 *l1 = (ptier_l1 *)tier;
    ptier_l1_shard *s = ptier_l1_shard_at(l1, ptier_l1_number_of(l1, ref->hash));
    ptier_status status = PTIER_NOT_FOUND;
    pthread_mutex_lock(&s->lock);
    ptier_entry *found = find_locked(s, ref);
    if (found) {
        if (!ref->quiet)
            ptier_l1_use_locked(l1, s, found);
        *entry = ptier_entry_retain(found);
        status = PTIER_OK;
    }
    pthread_mutex_unlock(&s->lock);
    return status;
}

/* ---- changes ---- */

static ptier_status
apply_one(ptier_l1 *l1, const ptier_op *op)
{
    if (op->kind == PTIER_OP_CLEAR) {
        clear_all(l1);
        return PTIER_OK;
    }
    size_t number = ptier_l1_number_of(l1, op->entry->hash);
    ptier_l1_shard *s = ptier_l1_shard_at(l1, number);
    ptier_status status = PTIER_OK;
    pthread_mutex_lock(&s->lock);
    if (op->kind == PTIER_OP_PUT) {
        status = put_locked(l1, s, number, op->entry);
    } else {
        const ptier_ref ref = {.hash = op->entry->hash, .key = ptier_entry_key(op->entry)};
        ptier_entry *found = find_locked(s, &ref);
        if (found && found->revision < op->revision)
            remove_locked(l1, s, number, found);
    }
    pthread_mutex_unlock(&s->lock);
    return status;
}

static ptier_status
l1_apply(ptier_tier *tier, const ptier_op *ops, size_t count, bool sync, ptier_error *error)
{
    (void)sync; /* memory is as stable as it gets */
    for (size_t i = 0; i < count; i++) {
        ptier_status status = apply_one((ptier_l1 *)tier, &ops[i]);
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
    ptier_l1 *l1 = (ptier_l1 *)tier;
    ptier_l1_shard *s = ptier_l1_shard_at(l1, ptier_l1_number_of(l1, ref->hash));
    pthread_mutex_lock(&s->lock);
    ptier_entry *found = find_locked(s, ref);
    if (found)
        ptier_l1_use_locked(l1, s, found);
    pthread_mutex_unlock(&s->lock);
}

static size_t
fullest(const ptier_l1 *l1, bool by_entries)
{
    size_t number = 0;
    uint64_t most = 0;
    for (size_t i = 0; i < l1->shard_count; i++) {
        uint64_t full = ptier_l1_figure(by_entries ? &l1->loads[i].entries : &l1->loads[i].bytes);
        if (full > most) {
            most = full;
            number = i;
        }
    }
    return number;
}

/* Which shard is to give something up; false: none. */
static bool
over_bound(const ptier_l1 *l1, size_t *number)
{
    bool crowded = ptier_l1_figure(&l1->entries) > l1->capacity;
    if (!crowded && ptier_l1_figure(&l1->bytes) <= l1->bytes_max)
        return false;
    *number = fullest(l1, crowded);
    return true;
}

static ptier_status
l1_victim(ptier_tier *tier, uint64_t *hash, uint64_t *revision)
{
    ptier_l1 *l1 = (ptier_l1 *)tier;
    size_t number;
    if (!over_bound(l1, &number))
        return PTIER_NOT_FOUND;
    ptier_l1_shard *s = ptier_l1_shard_at(l1, number);
    pthread_mutex_lock(&s->lock);
    ptier_l1_make_uses_locked(l1, s);
    const ptier_entry *next = l1->policy->victim(s->order);
    if (next) {
        *hash = next->hash;
        *revision = next->revision;
    }
    pthread_mutex_unlock(&s->lock);
    return next ? PTIER_OK : PTIER_NOT_FOUND;
}

ptier_entry *
ptier_l1_evict(ptier_tier *tier)
{
    ptier_l1 *l1 = (ptier_l1 *)tier;
    size_t number;
    if (!over_bound(l1, &number))
        return NULL;
    ptier_l1_shard *s = ptier_l1_shard_at(l1, number);
    pthread_mutex_lock(&s->lock);
    ptier_l1_make_uses_locked(l1, s);
    ptier_entry *next = l1->policy->victim(s->order);
    if (next)
        take_out_locked(l1, s, number, next);
    pthread_mutex_unlock(&s->lock);
    return next;
}

static void
l1_drop(ptier_tier *tier, uint64_t hash, uint64_t revision)
{
    const ptier_ref ref = {.hash = hash, .revision = revision};
    ptier_l1 *l1 = (ptier_l1 *)tier;
    size_t number = ptier_l1_number_of(l1, hash);
    ptier_l1_shard *s = ptier_l1_shard_at(l1, number);
    pthread_mutex_lock(&s->lock);
    ptier_entry *found = find_locked(s, &ref);
    if (found)
        remove_locked(l1, s, number, found);
    pthread_mutex_unlock(&s->lock);
}

static bool
scan_shard_locked(const ptier_l1_shard *s, ptier_scan_fn fn, void *context)
{
    for (size_t i = 0; s->map.cells && i <= s->map.mask; i++) {
        const ptier_entry *entry = s->map.cells[i].value;
        if (!entry)
            continue;
        const ptier_scan_item item = {
            .hash = entry->hash,
            .revision = entry->revision,
            .expires_boot_ms = entry->expires_boot_ms,
            .health = entry->health,
            .key = ptier_entry_key(entry),
            .url = ptier_entry_url(entry),
            .source = ptier_entry_source(entry),
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
    ptier_l1 *l1 = (ptier_l1 *)tier;
    bool go_on = true;
    for (size_t i = 0; i < l1->shard_count && go_on; i++) {
        ptier_l1_shard *s = ptier_l1_shard_at(l1, i);
        pthread_mutex_lock(&s->lock);
        go_on = scan_shard_locked(s, fn, context);
        pthread_mutex_unlock(&s->lock);
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
    return ptier_l1_figure(&((const ptier_l1 *)tier)->entries);
}

static uint64_t
l1_bytes(ptier_tier *tier)
{
    return ptier_l1_figure(&((const ptier_l1 *)tier)->bytes);
}

static void
l1_close(ptier_tier *tier)
{
    ptier_l1 *l1 = (ptier_l1 *)tier;
    clear_all(l1);
    ptier_huge_pages_fini(&l1->pages);
    for (size_t i = 0; i < l1->shard_count; i++)
        pthread_mutex_destroy(&ptier_l1_shard_at(l1, i)->lock);
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

/* ---- opening it ---- */

static const ptier_l1_policy *const policies[] = {
    [PTIER_EVICTION_LRU] = &ptier_l1_lru,
    [PTIER_EVICTION_LFU] = &ptier_l1_lfu,
    [PTIER_EVICTION_FIFO] = &ptier_l1_fifo,
    [PTIER_EVICTION_SIEVE] = &ptier_l1_sieve,
};

ptier_status
ptier_l1_check(const ptier_l1_options *options, ptier_error *error)
{
    if (options->capacity == 0 && options->bytes == 0)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "L1 needs a bound: room for at least 1 entry, or bytes");
    if (options->bytes > 0 && options->bytes < PTIER_L1_BYTES_MIN)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "L1 needs at least 1 MiB where it is bounded by bytes (0: not bounded)");
    if ((size_t)options->eviction >= sizeof policies / sizeof *policies)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "unknown eviction policy");
    return PTIER_OK;
}

static size_t
shards_for(uint64_t capacity, uint64_t bytes_max)
{
    uint64_t entries = bytes_max / ENTRY_BYTES < capacity ? bytes_max / ENTRY_BYTES : capacity;
    size_t count = 1;
    while (count < PTIER_L1_SHARDS_MAX && entries / (count * 2) >= ENTRIES_PER_SHARD)
        count *= 2;
    return count;
}

ptier_status
ptier_l1_open(const ptier_l1_options *options, ptier_tier **tier, ptier_error *error)
{
    ptier_status status = ptier_l1_check(options, error);
    if (status)
        return status;
    const ptier_l1_policy *policy = policies[options->eviction];
    uint64_t capacity = options->capacity ? options->capacity : UINT64_MAX;
    uint64_t bytes_max = options->bytes ? options->bytes : UINT64_MAX;
    size_t count = shards_for(capacity, bytes_max);
    size_t shard_bytes = (sizeof(ptier_l1_shard) + policy->order_bytes + PTIER_L1_LINE - 1) /
                         PTIER_L1_LINE * PTIER_L1_LINE;
    size_t size = sizeof(ptier_l1) + count * shard_bytes; /* a multiple of PTIER_L1_LINE */
    ptier_l1 *l1 = aligned_alloc(PTIER_L1_LINE, size);
    if (!l1)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for L1");
    memset(l1, 0, size);
    l1->tier.ops = &l1_ops;
    l1->policy = policy;
    l1->capacity = capacity;
    l1->bytes_max = bytes_max;
    l1->shard_count = count;
    l1->shard_bytes = shard_bytes;
    atomic_init(&l1->bytes, size);
    ptier_huge_pages_init(&l1->pages);
    for (size_t i = 0; i < count; i++) {
        pthread_mutex_init(&ptier_l1_shard_at(l1, i)->lock, NULL);
        ptier_map_init(&ptier_l1_shard_at(l1, i)->map);
    }
    *tier = &l1->tier;
    return PTIER_OK;
}
