/* What ptier_cache_start_report says, for the tests of this folder: the one place that knows its
 * form. */
#ifndef PTIER_TEST_START_REPORT_H
#define PTIER_TEST_START_REPORT_H

#include <proxytier/cache.h>

enum { START_PATIENCE_MS = 20000 };

typedef struct ptier_test_report {
    bool machine_went_down;
    bool changes_lost;
    bool new_store;
    uint64_t damaged;
    char text[512];
} ptier_test_report;

/* Waits for so long that start-up is through with what it does in the background. False: it is not,
 * or the library has no such report (yet). */
bool ptier_test_start_report(ptier_cache *cache, int64_t patience_ms, ptier_test_report *report);

#endif
