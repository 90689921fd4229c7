/* Words for the enumerators of types.h. */
#include <proxytier/types.h>

#include <strings.h>

static const char *const health_names[] = {
    "unspecified", "healthy", "degraded", "unhealthy", "dead", "unknown",
};
static const char *const tier_names[] = {"all", "L1", "L2", "L3"};
static const char *const durability_names[] = {"default", "memory", "logged", "synced"};
static const char *const reason_names[] = {
    "NONE", "CAPACITY", "TTL", "HEALTH", "CORRUPTION", "DELETED", "CLEARED",
};
static const char *const put_outcome_names[] = {
    "unspecified",    "created",          "updated",  "skipped: quarantined",
    "skipped: older", "skipped: expired", "rejected",
};

static const char *
name_of(const char *const *names, size_t count, int value)
{
    return value >= 0 && (size_t)value < count ? names[value] : "unknown";
}
#define NAME_OF(names, value) name_of(names, sizeof(names) / sizeof *(names), (int)(value))

const char *
ptier_health_name(ptier_health health)
{
    return NAME_OF(health_names, health);
}

const char *
ptier_tier_name(ptier_tier_id tier)
{
    return NAME_OF(tier_names, tier);
}

const char *
ptier_durability_name(ptier_durability durability)
{
    return NAME_OF(durability_names, durability);
}

const char *
ptier_reason_name(ptier_reason reason)
{
    return NAME_OF(reason_names, reason);
}

const char *
ptier_put_outcome_name(ptier_put_outcome outcome)
{
    return NAME_OF(put_outcome_names, outcome);
}

const char *
ptier_event_type_name(ptier_event_type type)
{
    switch (type) {
    case PTIER_EVENT_CREATED:
        return "CREATED";
    case PTIER_EVENT_UPDATED:
        return "UPDATED";
    case PTIER_EVENT_HEALTH:
        return "HEALTH";
    case PTIER_EVENT_REMOVED:
        return "REMOVED";
    case PTIER_EVENT_CLEARED:
        return "CLEARED";
    case PTIER_EVENT_PROMOTED:
        return "PROMOTED";
    case PTIER_EVENT_TIER_EVICTED:
        return "TIER_EVICTED";
    case PTIER_EVENT_TIER_DEGRADED:
        return "TIER_DEGRADED";
    case PTIER_EVENT_TIER_RECOVERED:
        return "TIER_RECOVERED";
    }
    return "unknown";
}

bool
ptier_health_parse(const char *word, ptier_health *health)
{
    for (int h = PTIER_HEALTH_HEALTHY; h <= PTIER_HEALTH_UNKNOWN; h++) {
        if (strcasecmp(word, health_names[h]) == 0) {
            *health = (ptier_health)h;
            return true;
        }
    }
    return false;
}
