/*
 * For tiers/l1/ only: the order in which L1 gives entries up. Each policy is one file with the same
 * functions in the same order; l1_memory.c alone calls them, always under the lock of the shard
 * whose order it is. A policy allocates nothing: nodes and orders are the tier's, and all a policy
 * keeps is inside them.
 */
#ifndef PTIER_L1_POLICY_H
#define PTIER_L1_POLICY_H

#include "entry_internal.h"

/* An entry in L1. A policy's own node begins with this one. */
typedef struct ptier_l1_node {
    ptier_entry *entry; /* the tier's: no policy looks at it */
    struct ptier_l1_node *newer, *older;
} ptier_l1_node;

typedef struct ptier_l1_policy {
    size_t node_bytes;  /* of its nodes */
    size_t order_bytes; /* of its order of one shard; all zeros is the empty one */
    bool use_moves;     /* `use` writes to the node's neighbours in the order */

    /* The node, new and uninitialised but for `entry`, enters the order. */
    void (*insert)(void *order, ptier_l1_node *node);

    /* It was read, or its entry was replaced. On the hit path: O(1). */
    void (*use)(void *order, ptier_l1_node *node);

    /* It leaves: as a victim, or because its entry is no longer cached. */
    void (*remove)(void *order, ptier_l1_node *node);

    /*
     * The next to go; asked again with nothing in between, the same. The tier inserts first and
     * evicts afterwards, while the literature evicts first: so what was inserted last is no victim
     * unless it is alone. NULL: the order is empty.
     */
    ptier_l1_node *(*victim)(void *order);
} ptier_l1_policy;

extern const ptier_l1_policy ptier_l1_lru, ptier_l1_lfu, ptier_l1_fifo, ptier_l1_sieve;

/* ---- lists of nodes, for the policies ---- */

typedef struct ptier_l1_list {
    ptier_l1_node *newest, *oldest; /* NULL: empty */
} ptier_l1_list;

static inline void
ptier_l1_list_push(ptier_l1_list *list, ptier_l1_node *node)
{
    node->newer = NULL;
    node->older = list->newest;
    *(list->newest ? &list->newest->newer : &list->oldest) = node;
    list->newest = node;
}

static inline void
ptier_l1_list_remove(ptier_l1_list *list, ptier_l1_node *node)
{
    *(node->newer ? &node->newer->older : &list->newest) = node->older;
    *(node->older ? &node->older->newer : &list->oldest) = node->newer;
}

#endif
