/* What ptier_cache_start_report says, for the tests of this folder: the one place that knows its
 * form. */
#ifndef PTIER_TEST_START_REPORT_H
#define PTIER_TEST_START_REPORT_H

#include <proxytier/cache.h>

typedef struct ptier_test_report {
    bool machine_went_down;
    bool changes_lost;
    bool new_store;
    uint64_t damaged;
    char text[512];
} ptier_test_report;

/* False: the library has no such report (yet). */
bool ptier_test_start_report(const ptier_cache *cache, ptier_test_report *report);

#endif
