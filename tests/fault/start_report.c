#include <stdio.h>

#include "start_report.h"

#ifdef PTIER_HAS_START_REPORT

bool
ptier_test_start_report(const ptier_cache *cache, ptier_test_report *report)
{
    ptier_start_report said;
    ptier_cache_start_report(cache, &said);
    *report = (ptier_test_report){
        .machine_went_down = said.unclean_machine_stop,
        .changes_lost = said.changes_lost,
        .new_store = said.new_store,
        .damaged = said.damaged,
    };
    (void)snprintf(report->text, sizeof report->text, "%s", said.text);
    return true;
}

#else

bool
ptier_test_start_report(const ptier_cache *cache, ptier_test_report *report)
{
    (void)cache;
    (void)report;
    return false;
}

#endif
