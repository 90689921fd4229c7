/* Between statistics and their wire form, by the rows of statistics.h. */
#include "convert_statistics.h"

#include <assert.h>
#include <string.h>

#define SAME_OPERATION(NAME, value, name, help)                                                    \
    static_assert((value) == (int)PROXYTIER__V1__OPERATION__OPERATION_##NAME, #NAME);
PTIER_OPERATIONS(SAME_OPERATION)

#define COPY(type, name, kind, unit, group, help) out->name = in->name;

/* ---- to a message ---- */

static void
fill_tier(ptier_tier_id tier, const ptier_tier_statistics *in, Proxytier__V1__TierStatistics *out)
{
    proxytier__v1__tier_statistics__init(out);
    out->tier = (Proxytier__V1__Tier)tier;
    PTIER_TIER_METRICS(COPY)
}

static void
fill_latency(ptier_operation operation, const ptier_latency *in,
             Proxytier__V1__LatencyStatistics *out)
{
    proxytier__v1__latency_statistics__init(out);
    out->operation = (Proxytier__V1__Operation)operation;
    out->count = in->count;
    out->total_ns = in->total_ns;
    out->p50_ns = in->p50_ns;
    out->p99_ns = in->p99_ns;
    out->p999_ns = in->p999_ns;
    out->max_ns = in->max_ns;
}

void
ptier_statistics_to_message(const ptier_statistics *in, ptier_statistics_message *room)
{
    Proxytier__V1__GetStatisticsResponse *out = &room->message;
    proxytier__v1__get_statistics_response__init(out);
    PTIER_CACHE_METRICS(COPY)
    for (int tier = 1; tier < PTIER_TIER_COUNT; tier++) {
        fill_tier((ptier_tier_id)tier, &in->tiers[tier], &room->tiers[tier - 1]);
        room->tier_list[tier - 1] = &room->tiers[tier - 1];
    }
    for (int reason = 1; reason < PTIER_REASON_COUNT; reason++) {
        proxytier__v1__removal_count__init(&room->removals[reason - 1]);
        room->removals[reason - 1].reason = (Proxytier__V1__RemovalReason)reason;
        room->removals[reason - 1].count = in->removals[reason];
        room->removal_list[reason - 1] = &room->removals[reason - 1];
    }
    for (int operation = 1; operation < PTIER_OPERATION_COUNT; operation++) {
        fill_latency((ptier_operation)operation, &in->latency[operation],
                     &room->latencies[operation - 1]);
        room->latency_list[operation - 1] = &room->latencies[operation - 1];
    }
    out->n_tiers = PTIER_TIER_COUNT - 1;
    out->tiers = room->tier_list;
    out->n_removals = PTIER_REASON_COUNT - 1;
    out->removals = room->removal_list;
    out->n_latencies = PTIER_OPERATION_COUNT - 1;
    out->latencies = room->latency_list;
}

/* ---- from a message ---- */

static void
read_tier(const Proxytier__V1__TierStatistics *in, ptier_tier_statistics *out)
{
    PTIER_TIER_METRICS(COPY)
}

static void
read_latency(const Proxytier__V1__LatencyStatistics *in, ptier_latency *out)
{
    *out = (ptier_latency){
        .count = in->count,
        .total_ns = in->total_ns,
        .p50_ns = in->p50_ns,
        .p99_ns = in->p99_ns,
        .p999_ns = in->p999_ns,
        .max_ns = in->max_ns,
    };
}

void
ptier_statistics_from_message(const Proxytier__V1__GetStatisticsResponse *in, ptier_statistics *out)
{
    memset(out, 0, sizeof *out);
    PTIER_CACHE_METRICS(COPY)
    for (size_t i = 0; i < in->n_tiers; i++) {
        int tier = (int)in->tiers[i]->tier;
        if (tier > 0 && tier < PTIER_TIER_COUNT)
            read_tier(in->tiers[i], &out->tiers[tier]);
    }
    for (size_t i = 0; i < in->n_removals; i++) {
        int reason = (int)in->removals[i]->reason;
        if (reason > 0 && reason < PTIER_REASON_COUNT)
            out->removals[reason] = in->removals[i]->count;
    }
    for (size_t i = 0; i < in->n_latencies; i++) {
        int operation = (int)in->latencies[i]->operation;
        if (operation > 0 && operation < PTIER_OPERATION_COUNT)
            read_latency(in->latencies[i], &out->latency[operation]);
    }
}
