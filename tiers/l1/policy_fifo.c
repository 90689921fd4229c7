/* FIFO: what came first goes first, however much it is used. The order is one list, in order of
 * arrival; a repeated put is no new arrival. */
#include "l1/l1_policy.h"

static void
fifo_insert(void *order, ptier_entry *entry)
{
    ptier_l1_list_push(order, entry);
}

static void
fifo_use(void *order, ptier_entry *entry)
{
    (void)order;
    (void)entry;
}

static void
fifo_replace(void *order, ptier_entry *old, ptier_entry *entry)
{
    ptier_l1_list_replace(order, old, entry);
}

static void
fifo_remove(void *order, ptier_entry *entry)
{
    ptier_l1_list_remove(order, entry);
}

static ptier_entry *
fifo_victim(void *order)
{
    const ptier_l1_list *list = order;
    return list->oldest;
}

const ptier_l1_policy ptier_l1_fifo = {
    .order_bytes = sizeof(ptier_l1_list),
    .insert = fifo_insert,
    .use = fifo_use,
    .replace = fifo_replace,
    .remove = fifo_remove,
    .victim = fifo_victim,
};
