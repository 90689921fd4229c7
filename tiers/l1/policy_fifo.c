/* FIFO: what came first goes first, however much it is used. The order is one list, in order of
 * arrival; a repeated put is no new arrival. */
#include "l1/l1_policy.h"

static void
fifo_insert(void *order, ptier_l1_node *node)
{
    ptier_l1_list_push(order, node);
}

static void
fifo_use(void *order, ptier_l1_node *node)
{
    (void)order;
    (void)node;
}

static void
fifo_remove(void *order, ptier_l1_node *node)
{
    ptier_l1_list_remove(order, node);
}

static ptier_l1_node *
fifo_victim(void *order)
{
    const ptier_l1_list *list = order;
    return list->oldest;
}

const ptier_l1_policy ptier_l1_fifo = {
    .node_bytes = sizeof(ptier_l1_node),
    .order_bytes = sizeof(ptier_l1_list),
    .insert = fifo_insert,
    .use = fifo_use,
    .remove = fifo_remove,
    .victim = fifo_victim,
};
