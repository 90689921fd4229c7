/* LRU: what was not used for the longest time goes first. The order is one list, in order of use.
 */
#include "l1/l1_policy.h"

static void
lru_insert(void *order, ptier_l1_node *node)
{
    ptier_l1_list_push(order, node);
}

static void
lru_use(void *order, ptier_l1_node *node)
{
    ptier_l1_list *list = order;
    if (list->newest == node)
        return;
    ptier_l1_list_remove(list, node);
    ptier_l1_list_push(list, node);
}

static void
lru_remove(void *order, ptier_l1_node *node)
{
    ptier_l1_list_remove(order, node);
}

static ptier_l1_node *
lru_victim(void *order)
{
    const ptier_l1_list *list = order;
    return list->oldest;
}

const ptier_l1_policy ptier_l1_lru = {
    .node_bytes = sizeof(ptier_l1_node),
    .order_bytes = sizeof(ptier_l1_list),
    .use_moves = true,
    .insert = lru_insert,
    .use = lru_use,
    .remove = lru_remove,
    .victim = lru_victim,
};
