#include <stdio.h>

#include "start_report.h"

#ifdef PTIER_HAS_START_REPORT

bool
ptier_test_start_report(ptier_cache *cache, int64_t patience_ms, ptier_test_report *report)
{
    ptier_start_report said;
    bool through = ptier_cache_wait_started(cache, patience_ms) == PTIER_OK;
    ptier_cache_start_report(cache, &said);
    *report = (ptier_test_report){
        .machine_went_down = said.unclean_machine_stop,
        .changes_lost = said.changes_lost,
        .new_store = said.new_store,
        .damaged = said.damaged,
    };
    (void)snprintf(report->text, sizeof report->text, "%s", said.text);
    return through;
}

#else

bool
ptier_test_start_report(ptier_cache *cache, int64_t patience_ms, ptier_test_report *report)
{
    (void)cache;
    (void)patience_ms;
    (void)report;
    return false;
}

#endif
