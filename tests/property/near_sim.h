/*
 * A daemon, a link and callers, all simulated on one virtual clock, around a real near cache. The
 * daemon is a map with revisions and a history; the link has two sockets that delay, reorder
 * against each other, stall and drop. Every read that the near cache serves is compared with the
 * history.
 */
#ifndef PTIER_TEST_NEAR_SIM_H
#define PTIER_TEST_NEAR_SIM_H

#include "near_cache.h"

enum { SIM_KEYS = 4000, SIM_HOT = 100 };

typedef struct sim_plan {
    uint64_t seed, reads, changes;
    uint32_t faults; /* of ptier_near_fault */
} sim_plan;

typedef struct sim_verdict {
    uint64_t reads, served, changes;
    uint64_t stale;      /* served, and out of date for longer than the bound */
    uint64_t own_missed; /* served, and older than an own write that was acknowledged */
    uint64_t wrong;      /* served, and never the daemon's state */
    uint64_t resyncs, replays, restarts;
    ptier_near_statistics near;
} sim_verdict;

void sim_run(const sim_plan *plan, sim_verdict *verdict);

#endif
