/* How the tiers of a cache box fare: their events counted, waits for them to fail and to be healed.
 * Failures fail the running cmocka test. */
#ifndef PTIER_TEST_TIER_WATCH_H
#define PTIER_TEST_TIER_WATCH_H

#include <stdatomic.h>

#include "load.h"
#include "support/cache_box.h"

typedef struct ptier_tier_watch {
    atomic_int degraded[PTIER_TIER_COUNT], recovered[PTIER_TIER_COUNT]; /* events */
    atomic_int last[PTIER_TIER_COUNT]; /* of them; a cache may be closed before it recovers */
} ptier_tier_watch;

/* Before the box is opened. Probes come often. */
void ptier_tier_watch_init(ptier_tier_watch *watch, ptier_test_box *box);

/* The disk tiers of the box that are switched on, of those in the set. */
#define EACH_DISK_TIER(id, box, set)                                                               \
    for (ptier_tier_id id = PTIER_TIER_L2; id <= PTIER_TIER_L3; id++)                              \
        if (((set) & (1 << (id - 1))) && (box)->cache->tiers[id])

bool ptier_tier_degraded(ptier_test_box *box, ptier_tier_id tier);

/* Waits, putting (what the load may forget about), until the tiers of the set (BOX_...) are
 * degraded, and checks that it was said. */
void ptier_tier_await_degraded(ptier_tier_watch *watch, ptier_test_box *box, int tiers);

/* Waits until all tiers work, nothing waits to be written and every present entry of the load is in
 * every disk tier; checks that what was degraded was said to have recovered. */
void ptier_tier_await_healed(ptier_tier_watch *watch, ptier_test_box *box, const ptier_load *load);

#endif
