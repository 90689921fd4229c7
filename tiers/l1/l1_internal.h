/* For tiers/l1/ only: the inside of L1, which l1_memory.c keeps and l1_read.c reads. */
#ifndef PTIER_L1_INTERNAL_H
#define PTIER_L1_INTERNAL_H

#include <pthread.h>

#include "l1/huge_pages.h"
#include "l1/l1_memory.h"
#include "l1/l1_policy.h"
#include "map.h"

enum {
    PTIER_L1_SHARDS_MAX = 16,
    PTIER_L1_LINE = 64, /* of the processor's cache */
    PTIER_L1_USES = 16, /* that may wait in a shard */
};

/*
 * A use that moves an entry writes to its neighbours in the order, which are anywhere in memory: so
 * they are only fetched at first, and the uses, in their order, made when they are there. Before
 * anything else looks at the order or changes it, all uses are made.
 */
typedef struct ptier_l1_shard {
    _Alignas(PTIER_L1_LINE) pthread_mutex_t lock;
    ptier_map map;         /* of entries, a reference each */
    _Atomic uint64_t hits; /* written under the lock, read without */
    size_t use_count;
    ptier_entry *uses[PTIER_L1_USES];
    _Alignas(max_align_t) unsigned char order[];
} ptier_l1_shard;

/* How full a shard is: of its entries, its table left out. */
typedef struct ptier_l1_load {
    _Atomic uint64_t entries, bytes;
} ptier_l1_load;

typedef struct ptier_l1 {
    ptier_tier tier;
    const ptier_l1_policy *policy;
    uint64_t capacity, bytes_max; /* UINT64_MAX: none */
    size_t shard_count;           /* a power of two */
    size_t shard_bytes;           /* of one in `shards` */

    /* Written under the lock of the shard, read without any; apart from the shards, so that whoever
     * looks at all of them does not meet the lines that readers write to. */
    _Alignas(PTIER_L1_LINE) ptier_l1_load loads[PTIER_L1_SHARDS_MAX];
    _Atomic uint64_t entries, bytes; /* of the tier, tables and all */

    /* Of the one thread that gathers. */
    _Alignas(PTIER_L1_LINE) ptier_huge_pages pages;
    uint64_t steps;

    _Alignas(PTIER_L1_LINE) unsigned char shards[];
} ptier_l1;

static inline size_t
ptier_l1_number_of(const ptier_l1 *l1, uint64_t hash)
{
    return (hash >> 48) & (l1->shard_count - 1);
}

static inline ptier_l1_shard *
ptier_l1_shard_at(ptier_l1 *l1, size_t number)
{
    return (ptier_l1_shard *)(l1->shards + number * l1->shard_bytes);
}

static inline uint64_t
ptier_l1_figure(const _Atomic uint64_t *figure)
{
    return atomic_load_explicit(figure, memory_order_relaxed);
}

/* Makes the uses that wait. */
void ptier_l1_make_uses_locked(const ptier_l1 *l1, ptier_l1_shard *s);

static inline void
ptier_l1_use_locked(const ptier_l1 *l1, ptier_l1_shard *s, ptier_entry *entry)
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
    if (s->use_count == PTIER_L1_USES)
        ptier_l1_make_uses_locked(l1, s);
}

#endif
