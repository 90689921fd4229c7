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
#include "l1/huge_pages.h"
#include "l1/l1_policy.h"
#include "map.h"

enum {
    MAX_SHARDS = 16,
    ENTRIES_PER_SHARD = 4096, /* below this a further shard does not pay */
    ENTRY_BYTES = 512,        /* about, for guessing entries from bytes */
    CACHE_LINE = 64,
    FETCHED_BYTES = 256, /* of an entry: most are no larger */
    USES = 16,           /* that may wait in a shard */
    SAMPLES = 32,        /* of a shard's cells, for huge pages */
    FORGET_STEPS = 9000, /* about a quarter of an hour */
};

/*
 * A use that moves an entry writes to its neighbours in the order, which are anywhere in memory: so
 * they are only fetched at first, and the uses, in their order, made when they are there. Before
 * anything else looks at the order or changes it, all uses are made.
 */
typedef struct shard {
    _Alignas(CACHE_LINE) pthread_mutex_t lock;
    ptier_map map;         /* of entries, a reference each */
    _Atomic uint64_t hits; /* written under the lock, read without */
    size_t use_count;
    ptier_entry *uses[USES];
    _Alignas(max_align_t) unsigned char order[];
} shard;

/* How full a shard is: of its entries, its table left out. */
typedef struct load {
    _Atomic uint64_t entries, bytes;
} load;

typedef struct l1_tier {
    ptier_tier tier;
    const ptier_l1_policy *policy;
    uint64_t capacity, bytes_max; /* UINT64_MAX: none */
    size_t shard_count;           /* a power of two */
    size_t shard_bytes;           /* of one in `shards` */

    /* Written under the lock of the shard, read without any; apart from the shards, so that whoever
     * looks at all of them does not meet the lines that readers write to. */
    _Alignas(CACHE_LINE) load loads[MAX_SHARDS];
    _Atomic uint64_t entries, bytes; /* of the tier, tables and all */

    /* Of the one thread that gathers. */
    _Alignas(CACHE_LINE) ptier_huge_pages pages;
    uint64_t steps;

    _Alignas(CACHE_LINE) unsigned char shards[];
} l1_tier;

static size_t
number_of(const l1_tier *l1, uint64_t hash)
{
    return (hash >> 48) & (l1->shard_count - 1);
}

static shard *
shard_at(l1_tier *l1, size_t number)
{
    return (shard *)(l1->shards + number * l1->shard_bytes);
}

/* ---- how much there is ---- */

static void
add(_Atomic uint64_t *figure, uint64_t by) /* modulo 2^64: may be a negative number */
{
    atomic_fetch_add_explicit(figure, by, memory_order_relaxed);
}

static uint64_t
read_figure(const _Atomic uint64_t *figure)
{
    return atomic_load_explicit(figure, memory_order_relaxed);
}

static void
count_locked(l1_tier *l1, size_t number, uint64_t entries, uint64_t bytes)
{
    add(&l1->loads[number].entries, entries);
    add(&l1->loads[number].bytes, bytes);
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
find_locked(const shard *s, const ptier_ref *ref)
{
    return ptier_map_find(&s->map, ref->hash, entry_matches, ref);
}

static void __attribute__((noinline)) /* in use_locked, which does it now and then */
make_uses_locked(const l1_tier *l1, shard *s)
{
    for (size_t i = 0; i < s->use_count; i++)
        l1->policy->use(s->order, s->uses[i]);
    s->use_count = 0;
}

static inline void
use_locked(const l1_tier *l1, shard *s, ptier_entry *entry)
{
    if (!l1->policy->use_moves) {
        l1->policy->use(s->order, entry);
        return;
    }
    if (entry->l1_newer)
        __builtin_prefetch(&entry->l1_newer->l1_newer, 1);
    if (entry->l1_older)
        __builtin_prefetch(&entry->l1_older->l1_newer, 1);
    s->uses[s->use_count++] = entry;
    if (s->use_count == USES)
        make_uses_locked(l1, s);
}

static ptier_status
insert_locked(l1_tier *l1, shard *s, size_t number, ptier_entry *entry)
{
    size_t table = ptier_map_bytes(&s->map);
    if (!ptier_map_insert(&s->map, entry->hash, entry))
        return PTIER_RESOURCE_EXHAUSTED;
    make_uses_locked(l1, s);
    l1->policy->insert(s->order, ptier_entry_retain(entry));
    add(&l1->bytes, ptier_map_bytes(&s->map) - table);
    count_locked(l1, number, 1, ptier_entry_bytes(entry));
    return PTIER_OK;
}

static void
replace_locked(l1_tier *l1, shard *s, size_t number, ptier_entry *old, ptier_entry *entry)
{
    make_uses_locked(l1, s);
    (void)ptier_map_replace(&s->map, old->hash, old, entry); /* it was found there */
    l1->policy->replace(s->order, old, ptier_entry_retain(entry));
    count_locked(l1, number, 0, ptier_entry_bytes(entry) - ptier_entry_bytes(old));
    ptier_entry_release(old);
}

static ptier_status
put_locked(l1_tier *l1, shard *s, size_t number, ptier_entry *entry)
{
    const ptier_ref ref = {.hash = entry->hash, .key = ptier_entry_key(entry)};
    ptier_entry *old = find_locked(s, &ref);
    if (!old)
        return insert_locked(l1, s, number, entry);
    if (old->revision > entry->revision)
        return PTIER_OK; /* a late promotion */
    if (old != entry)
        replace_locked(l1, s, number, old, entry);
    use_locked(l1, s, entry);
    return PTIER_OK;
}

static void
remove_locked(l1_tier *l1, shard *s, size_t number, ptier_entry *entry)
{
    make_uses_locked(l1, s);
    (void)ptier_map_remove(&s->map, entry->hash, entry); /* it was found there */
    l1->policy->remove(s->order, entry);
    count_locked(l1, number, -UINT64_C(1), -ptier_entry_bytes(entry));
    ptier_entry_release(entry);
}

static void
clear_locked(l1_tier *l1, shard *s, size_t number)
{
    const load *l = &l1->loads[number];
    for (size_t i = 0; s->map.cells && i <= s->map.mask; i++)
        ptier_entry_release(s->map.cells[i].value);
    add(&l1->bytes, -(uint64_t)ptier_map_bytes(&s->map));
    count_locked(l1, number, -read_figure(&l->entries), -read_figure(&l->bytes));
    ptier_map_fini(&s->map);
    s->use_count = 0;
    memset(s->order, 0, l1->policy->order_bytes);
}

static void
clear_all(l1_tier *l1)
{
    for (size_t i = 0; i < l1->shard_count; i++) {
        shard *s = shard_at(l1, i);
        pthread_mutex_lock(&s->lock);
        clear_locked(l1, s, i);
        pthread_mutex_unlock(&s->lock);
    }
}

/* ---- huge pages ---- */

/* Where cells, and the entries that they lead to, lie. Nothing there is looked at. */
static size_t
sample(shard *s, uint64_t random, uintptr_t addresses[2 * SAMPLES])
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
    l1_tier *l1 = (l1_tier *)tier;
    uintptr_t addresses[2 * SAMPLES];
    if (read_figure(&l1->bytes) < PTIER_L1_HUGE_FROM || !ptier_huge_pages_wanted(&l1->pages))
        return;
    if (++l1->steps % FORGET_STEPS == 0)
        ptier_huge_pages_forget(&l1->pages);
    uint64_t random = ptier_hash_pair(l1->steps, 0);
    shard *s = shard_at(l1, l1->steps & (l1->shard_count - 1));
    size_t count = sample(s, random, addresses);
    for (size_t i = 0; i < count; i++)
        if (ptier_huge_pages_gather(&l1->pages, addresses[i]))
            return;
}

/* ---- the contract ---- */

static ptier_status
l1_get(ptier_tier *tier, const ptier_ref *ref, ptier_entry **entry)
{
    l1_tier *l1 = (l1_tier *)tier;
    shard *s = shard_at(l1, number_of(l1, ref->hash));
    ptier_status status = PTIER_NOT_FOUND;
    pthread_mutex_lock(&s->lock);
    ptier_entry *found = find_locked(s, ref);
    if (found) {
        if (!ref->quiet)
            use_locked(l1, s, found);
        *entry = ptier_entry_retain(found);
        status = PTIER_OK;
    }
    pthread_mutex_unlock(&s->lock);
    return status;
}

/* ---- reads of the cache ---- */

/* As ptier_map_find does it, but all of it in line. */
static inline ptier_entry *
find_key_locked(const shard *s, const ptier_l1_key *key)
{
    const ptier_map *map = &s->map;
    if (map->count == 0)
        return NULL;
    for (size_t i = key->hash & map->mask; map->cells[i].value; i = (i + 1) & map->mask) {
        ptier_entry *entry = map->cells[i].value;
        if (map->cells[i].hash != key->hash)
            continue;
        __builtin_prefetch(&entry->refs, 1); /* another line than the key's, mostly */
        if (ptier_entry_has_key(entry, key->text, key->length))
            return entry;
    }
    return NULL;
}

/* What is found is used, and so counts as that in L1's order, also where it may have expired. The
 * locked instruction comes last: what follows it waits for it. */
static inline __attribute__((always_inline)) ptier_l1_found
read_locked(const l1_tier *l1, shard *s, ptier_look look, const ptier_l1_key *key)
{
    ptier_l1_found found = {.entry = find_key_locked(s, key)};
    if (!found.entry)
        return found;
    use_locked(l1, s, found.entry);
    found.hit = found.entry->expires_boot_ms > look.live_after_ms;
    if (found.hit)
        ptier_entry_count_uses(found.entry, 1, look.wall_ms);
    (void)ptier_entry_share(found.entry);
    return found;
}

/* The lock keeps other writers away. */
static inline void
count_hits_locked(shard *s, size_t hits)
{
    atomic_store_explicit(&s->hits, read_figure(&s->hits) + hits, memory_order_relaxed);
}

ptier_l1_found
ptier_l1_read(ptier_tier *tier, ptier_look look, const ptier_l1_key *key)
{
    l1_tier *l1 = (l1_tier *)tier;
    shard *s = shard_at(l1, number_of(l1, key->hash));
    pthread_mutex_lock(&s->lock);
    ptier_l1_found found = read_locked(l1, s, look, key);
    count_hits_locked(s, found.hit);
    pthread_mutex_unlock(&s->lock);
    return found;
}

/* Where the search for each key begins; then the entry there. */
static void
fetch_locked(const shard *s, const ptier_l1_key *keys, const uint8_t *which, size_t count)
{
    const ptier_map *map = &s->map;
    for (size_t i = 0; i < count; i++)
        __builtin_prefetch(&map->cells[keys[which[i]].hash & map->mask]);
    for (size_t i = 0; i < count; i++) {
        const char *entry = map->cells[keys[which[i]].hash & map->mask].value;
        for (size_t at = 0; entry && at < FETCHED_BYTES; at += CACHE_LINE)
            __builtin_prefetch(entry + at, 1);
    }
}

static void
read_group(l1_tier *l1, shard *s, ptier_look look, const ptier_l1_key *keys, const uint8_t *which,
           size_t count, ptier_l1_found *found)
{
    size_t hits = 0;
    pthread_mutex_lock(&s->lock);
    if (s->map.cells && count > 1)
        fetch_locked(s, keys, which, count);
    for (size_t i = 0; i < count; i++) {
        found[which[i]] = read_locked(l1, s, look, &keys[which[i]]);
        hits += found[which[i]].hit;
    }
    count_hits_locked(s, hits);
    pthread_mutex_unlock(&s->lock);
}

void
ptier_l1_read_many(ptier_tier *tier, ptier_look look, const ptier_l1_key *keys, size_t count,
                   ptier_l1_found *found)
{
    l1_tier *l1 = (l1_tier *)tier;
    uint8_t which[PTIER_L1_BATCH] = {0}; /* the keys, by shard */
    size_t ends[MAX_SHARDS + 1] = {0};
    for (size_t i = 0; i < count; i++)
        ends[number_of(l1, keys[i].hash) + 1]++;
    for (size_t number = 1; number <= l1->shard_count; number++)
        ends[number] += ends[number - 1];
    for (size_t i = 0; i < count; i++)
        which[ends[number_of(l1, keys[i].hash)]++] = (uint8_t)i;
    for (size_t number = 0, first = 0; number < l1->shard_count; first = ends[number++])
        if (ends[number] > first)
            read_group(l1, shard_at(l1, number), look, keys, which + first, ends[number] - first,
                       found);
}

void
ptier_l1_count_uses(ptier_tier *tier, ptier_entry *entry, uint32_t count, int64_t last_ms)
{
    l1_tier *l1 = (l1_tier *)tier;
    shard *s = shard_at(l1, number_of(l1, entry->hash));
    pthread_mutex_lock(&s->lock);
    ptier_entry_count_uses(entry, count, last_ms);
    pthread_mutex_unlock(&s->lock);
}

uint64_t
ptier_l1_hits(ptier_tier *tier)
{
    l1_tier *l1 = (l1_tier *)tier;
    uint64_t hits = 0;
    for (size_t i = 0; i < l1->shard_count; i++)
        hits += read_figure(&shard_at(l1, i)->hits);
    return hits;
}

/* ---- changes ---- */

static ptier_status
apply_one(l1_tier *l1, const ptier_op *op)
{
    if (op->kind == PTIER_OP_CLEAR) {
        clear_all(l1);
        return PTIER_OK;
    }
    size_t number = number_of(l1, op->entry->hash);
    shard *s = shard_at(l1, number);
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
        ptier_status status = apply_one((l1_tier *)tier, &ops[i]);
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
    l1_tier *l1 = (l1_tier *)tier;
    shard *s = shard_at(l1, number_of(l1, ref->hash));
    pthread_mutex_lock(&s->lock);
    ptier_entry *found = find_locked(s, ref);
    if (found)
        use_locked(l1, s, found);
    pthread_mutex_unlock(&s->lock);
}

static size_t
fullest(const l1_tier *l1, bool by_entries)
{
    size_t number = 0;
    uint64_t most = 0;
    for (size_t i = 0; i < l1->shard_count; i++) {
        uint64_t full = read_figure(by_entries ? &l1->loads[i].entries : &l1->loads[i].bytes);
        if (full > most) {
            most = full;
            number = i;
        }
    }
    return number;
}

static ptier_status
l1_victim(ptier_tier *tier, uint64_t *hash, uint64_t *revision)
{
    l1_tier *l1 = (l1_tier *)tier;
    bool crowded = read_figure(&l1->entries) > l1->capacity;
    if (!crowded && read_figure(&l1->bytes) <= l1->bytes_max)
        return PTIER_NOT_FOUND;
    shard *s = shard_at(l1, fullest(l1, crowded));
    pthread_mutex_lock(&s->lock);
    make_uses_locked(l1, s);
    const ptier_entry *next = l1->policy->victim(s->order);
    if (next) {
        *hash = next->hash;
        *revision = next->revision;
    }
    pthread_mutex_unlock(&s->lock);
    return next ? PTIER_OK : PTIER_NOT_FOUND;
}

static void
l1_drop(ptier_tier *tier, uint64_t hash, uint64_t revision)
{
    const ptier_ref ref = {.hash = hash, .revision = revision};
    l1_tier *l1 = (l1_tier *)tier;
    size_t number = number_of(l1, hash);
    shard *s = shard_at(l1, number);
    pthread_mutex_lock(&s->lock);
    ptier_entry *found = find_locked(s, &ref);
    if (found)
        remove_locked(l1, s, number, found);
    pthread_mutex_unlock(&s->lock);
}

static bool
scan_shard_locked(const shard *s, ptier_scan_fn fn, void *context)
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
    l1_tier *l1 = (l1_tier *)tier;
    bool go_on = true;
    for (size_t i = 0; i < l1->shard_count && go_on; i++) {
        shard *s = shard_at(l1, i);
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
    return read_figure(&((const l1_tier *)tier)->entries);
}

static uint64_t
l1_bytes(ptier_tier *tier)
{
    return read_figure(&((const l1_tier *)tier)->bytes);
}

static void
l1_close(ptier_tier *tier)
{
    l1_tier *l1 = (l1_tier *)tier;
    clear_all(l1);
    ptier_huge_pages_fini(&l1->pages);
    for (size_t i = 0; i < l1->shard_count; i++)
        pthread_mutex_destroy(&shard_at(l1, i)->lock);
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
    while (count < MAX_SHARDS && entries / (count * 2) >= ENTRIES_PER_SHARD)
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
    size_t shard_bytes =
        (sizeof(shard) + policy->order_bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    size_t size = sizeof(l1_tier) + count * shard_bytes; /* a multiple of CACHE_LINE */
    l1_tier *l1 = aligned_alloc(CACHE_LINE, size);
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
        pthread_mutex_init(&shard_at(l1, i)->lock, NULL);
        ptier_map_init(&shard_at(l1, i)->map);
    }
    *tier = &l1->tier;
    return PTIER_OK;
}
