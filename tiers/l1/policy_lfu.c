/*
 * LFU with dynamic aging (LFU-DA; Arlitt and others, 2000): what has the lowest priority goes
 * first, and among equals what came to it first, which is LRU. The priority of an entry is its
 * number of uses plus the age of the order when it was last used, and the age is the priority of
 * the latest victim: so what was popular once sinks, relative to the rest, and goes in the end.
 *
 * Uses are counted up to USES_MAX. So every priority is within USES_MAX of the age, and a ring of
 * that many lists, one a priority, makes everything O(1): no tree, and nothing to allocate.
 */
#include "l1/l1_policy.h"

enum { USES_MAX = 63, LISTS = USES_MAX + 1 };

typedef struct lfu_node {
    ptier_l1_node node;
    uint8_t uses; /* its insertion is the first one */
    uint8_t list; /* priority % LISTS */
} lfu_node;

typedef struct lfu_order {
    ptier_l1_list lists[LISTS];
    uint64_t filled; /* bit i: lists[i] has nodes */
    unsigned age;    /* modulo LISTS */
    /* What was inserted last waits here for the next insertion, or its first use: the victims that
     * have to make room for it are chosen without it, and count towards its priority. */
    lfu_node *latest;
} lfu_order;

static void
place(lfu_order *lfu, lfu_node *n)
{
    n->list = (uint8_t)((lfu->age + n->uses) % LISTS);
    ptier_l1_list_push(&lfu->lists[n->list], &n->node);
    lfu->filled |= UINT64_C(1) << n->list;
}

static void
take(lfu_order *lfu, lfu_node *n)
{
    if (lfu->latest == n) {
        lfu->latest = NULL;
        return;
    }
    ptier_l1_list_remove(&lfu->lists[n->list], &n->node);
    if (!lfu->lists[n->list].newest)
        lfu->filled &= ~(UINT64_C(1) << n->list);
}

static void
lfu_insert(void *order, ptier_l1_node *node)
{
    lfu_order *lfu = order;
    if (lfu->latest)
        place(lfu, lfu->latest);
    lfu->latest = (lfu_node *)node;
    lfu->latest->uses = 1;
}

static void
lfu_use(void *order, ptier_l1_node *node)
{
    lfu_order *lfu = order;
    lfu_node *n = (lfu_node *)node;
    take(lfu, n);
    if (n->uses < USES_MAX)
        n->uses++;
    place(lfu, n);
}

static void
lfu_remove(void *order, ptier_l1_node *node)
{
    take(order, (lfu_node *)node);
}

static ptier_l1_node *
lfu_victim(void *order)
{
    lfu_order *lfu = order;
    if (!lfu->filled)
        return lfu->latest ? &lfu->latest->node : NULL;
    /* The lists from the age upwards, as bits from 0 upwards. */
    uint64_t upwards = lfu->filled >> lfu->age | lfu->filled << (-lfu->age % LISTS);
    lfu->age = (lfu->age + (unsigned)__builtin_ctzll(upwards)) % LISTS;
    return lfu->lists[lfu->age].oldest;
}

const ptier_l1_policy ptier_l1_lfu = {
    .node_bytes = sizeof(lfu_node),
    .order_bytes = sizeof(lfu_order),
    .use_moves = true,
    .insert = lfu_insert,
    .use = lfu_use,
    .remove = lfu_remove,
    .victim = lfu_victim,
};
