/*
 * Log lines about health reports: each one at DEBUG with its error text, each removal at INFO.
 * Costs a comparison when the level is off. Thread-safe (no state).
 */
#ifndef PTIER_REPORT_LOG_H
#define PTIER_REPORT_LOG_H

#include "call.h"

/* Where the change feed was before the reports were applied: the removals are looked up after it.
 */
uint64_t ptier_report_log_begin(const ptier_service *service);

/* Logs `count` applied reports. */
void ptier_report_log(const ptier_service *service, uint64_t begin, const ptier_report *reports,
                      const ptier_report_result *results, size_t count);

/*
 * The error text of a report, fit for a log: what looks like a credential (user:password@,
 * host:port:user:password, the word after Basic or Bearer) is starred out. Control characters are
 * the log's business.
 */
#define PTIER_MASKED_MAX 300
void ptier_mask_credentials(const char *text, char masked[PTIER_MASKED_MAX]);

#endif
