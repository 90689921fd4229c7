/* For recover.c and open.c: what start-up makes of what it finds. */
#ifndef PTIER_INSPECT_H
#define PTIER_INSPECT_H

#include "cache/cache_internal.h"

/* What is known of the run before, and what was found of it. */
typedef struct ptier_findings {
    bool state_known;           /* the state file was there and sound */
    bool has_data;              /* something of an earlier run is there */
    bool progress_known;        /* and holds: the kernel still runs, or the run ended in order */
    uint32_t last_tiers, tiers; /* masks: then, and now */
    uint64_t l3_prefix;
    bool l2_stale; /* L2 was off in the last run: what it has counts for nothing */
    bool l3_stale; /* the same of L3 */
} ptier_findings;

/* Start-up: the index, and what is wrong with the tiers. */
PTIER_MUST_CHECK ptier_status ptier_recover(ptier_cache *cache, ptier_findings *f,
                                            ptier_error *error);

/* Fills in all but state_known, has_data and progress_known; the tiers are open. */
void ptier_inspect_tiers(ptier_cache *cache, ptier_findings *f);

/* Compares what was found with what should be there. What is missing or damaged goes into the
 * start-up report of the cache, and to its log. */
void ptier_inspect(ptier_cache *cache, const ptier_findings *f);

/* Adds to the start-up report. `lost`: acknowledged changes are gone, or may be. */
PTIER_PRINTF(3, 4)
void ptier_report_start(ptier_cache *cache, bool lost, const char *format, ...);

#endif
