/* LRU: what was not used for the longest time goes first. The order is one list, in order of use.
 */
#include "l1/l1_policy.h"

static void
lru_insert(void *order, ptier_entry *entry)
{
    ptier_l1_list_push(order, entry);
}

static void
lru_use(void *order, ptier_entry *entry)
{
    ptier_l1_list *list = order;
    if (list->newest == entry)
        return;
    ptier_l1_list_remove(list, entry);
    ptier_l1_list_push(list, entry);
}

static void
lru_replace(void *order, ptier_entry *old, ptier_entry *entry)
{
    ptier_l1_list_replace(order, old, entry);
}

static void
lru_remove(void *order, ptier_entry *entry)
{
    ptier_l1_list_remove(order, entry);
}

static ptier_entry *
lru_victim(void *order)
{
    const ptier_l1_list *list = order;
    return list->oldest;
}

const ptier_l1_policy ptier_l1_lru = {
    .order_bytes = sizeof(ptier_l1_list),
    .use_moves = true,
    .insert = lru_insert,
    .use = lru_use,
    .replace = lru_replace,
    .remove = lru_remove,
    .victim = lru_victim,
};
