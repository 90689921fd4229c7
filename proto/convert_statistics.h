/*
 * Between ptier_statistics and its message. Thread-safe (no state).
 */
#ifndef PTIER_CONVERT_STATISTICS_H
#define PTIER_CONVERT_STATISTICS_H

#include <proxytier/statistics.h>

#include "proxytier/v1/cache.pb-c.h"

/* The message with room for what it points to: not to be copied. */
typedef struct ptier_statistics_message {
    Proxytier__V1__GetStatisticsResponse message;
    Proxytier__V1__TierStatistics tiers[PTIER_TIER_COUNT - 1];
    Proxytier__V1__TierStatistics *tier_list[PTIER_TIER_COUNT - 1];
    Proxytier__V1__RemovalCount removals[PTIER_REASON_COUNT - 1];
    Proxytier__V1__RemovalCount *removal_list[PTIER_REASON_COUNT - 1];
    Proxytier__V1__LatencyStatistics latencies[PTIER_OPERATION_COUNT - 1];
    Proxytier__V1__LatencyStatistics *latency_list[PTIER_OPERATION_COUNT - 1];
} ptier_statistics_message;

/* Fills room->message for packing. */
void ptier_statistics_to_message(const ptier_statistics *in, ptier_statistics_message *room);

/* Tiers, reasons and operations that we do not know (of a newer daemon) are left out. */
void ptier_statistics_from_message(const Proxytier__V1__GetStatisticsResponse *in,
                                   ptier_statistics *out);

#endif
