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

/* Of an entry: l1_uses, of which its insertion is the first one, and l1_list, its priority % LISTS.
 */

typedef struct lfu_order {
    ptier_l1_list lists[LISTS];
    uint64_t filled; /* bit i: lists[i] has entries */
    unsigned age;    /* modulo LISTS */
    /* What was inserted last waits here for the next insertion, or its first use: the victims that
     * have to make room for it are chosen without it, and count towards its priority. */
    ptier_entry *latest;
} lfu_order;

static void
place(lfu_order *lfu, ptier_entry *entry)
{
    entry->l1_list = (uint8_t)((lfu->age + entry->l1_uses) % LISTS);
    ptier_l1_list_push(&lfu->lists[entry->l1_list], entry);
    lfu->filled |= UINT64_C(1) << entry->l1_list;
}

static void
take(lfu_order *lfu, ptier_entry *entry)
{
    if (lfu->latest == entry) {
        lfu->latest = NULL;
        return;
    }
    ptier_l1_list_remove(&lfu->lists[entry->l1_list], entry);
    if (!lfu->lists[entry->l1_list].newest)
        lfu->filled &= ~(UINT64_C(1) << entry->l1_list);
}

static void
lfu_insert(void *order, ptier_entry *entry)
{
    lfu_order *lfu = order;
    if (lfu->latest)
        place(lfu, lfu->latest);
    lfu->latest = entry;
    entry->l1_uses = 1;
}

static void
lfu_use(void *order, ptier_entry *entry)
{
    lfu_order *lfu = order;
    take(lfu, entry);
    if (entry->l1_uses < USES_MAX)
        entry->l1_uses++;
    place(lfu, entry);
}

static void
lfu_replace(void *order, ptier_entry *old, ptier_entry *entry)
{
    lfu_order *lfu = order;
    entry->l1_uses = old->l1_uses;
    entry->l1_list = old->l1_list;
    if (lfu->latest == old)
        lfu->latest = entry;
    else
        ptier_l1_list_replace(&lfu->lists[old->l1_list], old, entry);
}

static void
lfu_remove(void *order, ptier_entry *entry)
{
    take(order, entry);
}

static ptier_entry *
lfu_victim(void *order)
{
    lfu_order *lfu = order;
    if (!lfu->filled)
        return lfu->latest ? lfu->latest : NULL;
    /* The lists from the age upwards, as bits from 0 upwards. */
    uint64_t upwards = lfu->filled >> lfu->age | lfu->filled << (-lfu->age % LISTS);
    lfu->age = (lfu->age + (unsigned)__builtin_ctzll(upwards)) % LISTS;
    return lfu->lists[lfu->age].oldest;
}

const ptier_l1_policy ptier_l1_lfu = {
    .order_bytes = sizeof(lfu_order),
    .use_moves = true,
    .insert = lfu_insert,
    .use = lfu_use,
    .replace = lfu_replace,
    .remove = lfu_remove,
    .victim = lfu_victim,
};
