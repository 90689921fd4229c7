/*
 * SIEVE (Zhang and others, NSDI 2024): a list in order of arrival, and a hand that goes through it
 * from the oldest to the newest, over and over. What was used since the hand last came by stays,
 * and is to be used again before it comes back; the first that was not used goes. A hit sets one
 * flag and moves nothing. A step of the hand takes back a flag that a hit has set, so a victim
 * costs O(1) on average; one right after a long time without can cost a whole round.
 */
#include "l1/l1_policy.h"

typedef struct sieve_node {
    ptier_l1_node node;
    bool used; /* since the hand last came by */
} sieve_node;

typedef struct sieve_order {
    ptier_l1_list list;
    ptier_l1_node *hand; /* NULL: before the oldest */
} sieve_order;

static void
sieve_insert(void *order, ptier_l1_node *node)
{
    sieve_order *sieve = order;
    ((sieve_node *)node)->used = false;
    ptier_l1_list_push(&sieve->list, node);
}

static void
sieve_use(void *order, ptier_l1_node *node)
{
    (void)order;
    ((sieve_node *)node)->used = true;
}

static void
sieve_remove(void *order, ptier_l1_node *node)
{
    sieve_order *sieve = order;
    if (sieve->hand == node) /* the newest was not there when this one was chosen: the round ends */
        sieve->hand = node->newer == sieve->list.newest ? NULL : node->newer;
    ptier_l1_list_remove(&sieve->list, node);
}

static ptier_l1_node *
sieve_victim(void *order)
{
    sieve_order *sieve = order;
    ptier_l1_node *n = sieve->hand ? sieve->hand : sieve->list.oldest;
    while (n && (((sieve_node *)n)->used || (n == sieve->list.newest && n->older))) {
        ((sieve_node *)n)->used = false;
        n = n->newer ? n->newer : sieve->list.oldest;
    }
    sieve->hand = n;
    return n;
}

const ptier_l1_policy ptier_l1_sieve = {
    .node_bytes = sizeof(sieve_node),
    .order_bytes = sizeof(sieve_order),
    .insert = sieve_insert,
    .use = sieve_use,
    .remove = sieve_remove,
    .victim = sieve_victim,
};
