/*
 * SIEVE (Zhang and others, NSDI 2024): a list in order of arrival, and a hand that goes through it
 * from the oldest to the newest, over and over. What was used since the hand last came by stays,
 * and is to be used again before it comes back; the first that was not used goes. A hit sets one
 * flag and moves nothing. A step of the hand takes back a flag that a hit has set, so a victim
 * costs O(1) on average; one right after a long time without can cost a whole round.
 */
#include "l1/l1_policy.h"

/* Of an entry: l1_uses, whether it was used since the hand last came by. */

typedef struct sieve_order {
    ptier_l1_list list;
    ptier_entry *hand; /* NULL: before the oldest */
} sieve_order;

static void
sieve_insert(void *order, ptier_entry *entry)
{
    sieve_order *sieve = order;
    entry->l1_uses = false;
    ptier_l1_list_push(&sieve->list, entry);
}

static void
sieve_use(void *order, ptier_entry *entry)
{
    (void)order;
    entry->l1_uses = true;
}

static void
sieve_replace(void *order, ptier_entry *old, ptier_entry *entry)
{
    sieve_order *sieve = order;
    entry->l1_uses = old->l1_uses;
    if (sieve->hand == old)
        sieve->hand = entry;
    ptier_l1_list_replace(&sieve->list, old, entry);
}

static void
sieve_remove(void *order, ptier_entry *entry)
{
    sieve_order *sieve = order;
    /* The newest was not there when this one was chosen: the round ends. */
    if (sieve->hand == entry)
        sieve->hand = entry->l1_newer == sieve->list.newest ? NULL : entry->l1_newer;
    ptier_l1_list_remove(&sieve->list, entry);
}

static ptier_entry *
sieve_victim(void *order)
{
    sieve_order *sieve = order;
    ptier_entry *n = sieve->hand ? sieve->hand : sieve->list.oldest;
    while (n && (n->l1_uses || (n == sieve->list.newest && n->l1_older))) {
        n->l1_uses = false;
        n = n->l1_newer ? n->l1_newer : sieve->list.oldest;
    }
    sieve->hand = n;
    return n;
}

const ptier_l1_policy ptier_l1_sieve = {
    .order_bytes = sizeof(sieve_order),
    .insert = sieve_insert,
    .use = sieve_use,
    .replace = sieve_replace,
    .remove = sieve_remove,
    .victim = sieve_victim,
};
