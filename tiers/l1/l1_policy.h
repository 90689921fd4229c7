/*
 * For tiers/l1/ only: the order in which L1 gives entries up. Each policy is one file with the same
 * functions in the same order; l1_memory.c alone calls them, always under the lock of the shard
 * whose order it is. A policy allocates nothing: all it keeps is in the entries (l1_*) and
 * in the order, which are the tier's.
 */
#ifndef PTIER_L1_POLICY_H
#define PTIER_L1_POLICY_H

#include "entry_internal.h"

typedef struct ptier_l1_policy {
    size_t order_bytes; /* of its order of one shard; all zeros is the empty one */
    bool use_moves;     /* `use` writes to the entry's neighbours in the order */

    /* The entry enters the order. */
    void (*insert)(void *order, ptier_entry *entry);

    /* It was read, or has replaced another. On the hit path: O(1). */
    void (*use)(void *order, ptier_entry *entry);

    /* A newer entry of the same key takes the place of `old`, and what is known of its use. */
    void (*replace)(void *order, ptier_entry *old, ptier_entry *entry);

    /* It leaves: as a victim, or because it is no longer cached. */
    void (*remove)(void *order, ptier_entry *entry);

    /*
     * The next to go; asked again with nothing in between, the same. The tier inserts first and
     * evicts afterwards, while the literature evicts first: so what was inserted last is no victim
     * unless it is alone. NULL: the order is empty.
     */
    ptier_entry *(*victim)(void *order);
} ptier_l1_policy;

extern const ptier_l1_policy ptier_l1_lru, ptier_l1_lfu, ptier_l1_fifo, ptier_l1_sieve;

/* ---- lists of entries, for the policies ---- */

typedef struct ptier_l1_list {
    ptier_entry *newest, *oldest; /* NULL: empty */
} ptier_l1_list;

static inline void
ptier_l1_list_push(ptier_l1_list *list, ptier_entry *entry)
{
    entry->l1_newer = NULL;
    entry->l1_older = list->newest;
    *(list->newest ? &list->newest->l1_newer : &list->oldest) = entry;
    list->newest = entry;
}

static inline void
ptier_l1_list_remove(ptier_l1_list *list, ptier_entry *entry)
{
    *(entry->l1_newer ? &entry->l1_newer->l1_older : &list->newest) = entry->l1_older;
    *(entry->l1_older ? &entry->l1_older->l1_newer : &list->oldest) = entry->l1_newer;
}

static inline void
ptier_l1_list_replace(ptier_l1_list *list, ptier_entry *old, ptier_entry *entry)
{
    entry->l1_newer = old->l1_newer;
    entry->l1_older = old->l1_older;
    *(entry->l1_newer ? &entry->l1_newer->l1_older : &list->newest) = entry;
    *(entry->l1_older ? &entry->l1_older->l1_newer : &list->oldest) = entry;
}

#endif
