/* The rows of statistics.h as data. */
#include <proxytier/statistics.h>

#define TIER_VALUE(type, name, kind, unit, group, help)                                            \
    static double tier_##name(const void *statistics)                                              \
    {                                                                                              \
        return (double)((const ptier_tier_statistics *)statistics)->name;                          \
    }
PTIER_TIER_METRICS(TIER_VALUE)

#define CACHE_VALUE(type, name, kind, unit, group, help)                                           \
    static double cache_##name(const void *statistics)                                             \
    {                                                                                              \
        return (double)((const ptier_statistics *)statistics)->name;                               \
    }
PTIER_CACHE_METRICS(CACHE_VALUE)

#define TIER_ROW(type, name, kind, unit, group, help)                                              \
    {#name, PTIER_METRIC_##kind, PTIER_UNIT_##unit, group, help, tier_##name},
const ptier_metric ptier_tier_metrics[] = {
    PTIER_TIER_METRICS(TIER_ROW){.name = NULL},
};

#define CACHE_ROW(type, name, kind, unit, group, help)                                             \
    {#name, PTIER_METRIC_##kind, PTIER_UNIT_##unit, group, help, cache_##name},
const ptier_metric ptier_cache_metrics[] = {
    PTIER_CACHE_METRICS(CACHE_ROW){.name = NULL},
};

static const struct {
    const char *name, *help;
} operations[PTIER_OPERATION_COUNT] = {
#define OPERATION_ROW(NAME, value, name, help) [value] = {name, help},
    PTIER_OPERATIONS(OPERATION_ROW)};

static bool
is_operation(ptier_operation operation)
{
    return operation > 0 && (int)operation < PTIER_OPERATION_COUNT;
}

const char *
ptier_operation_name(ptier_operation operation)
{
    return is_operation(operation) ? operations[operation].name : "unknown";
}

const char *
ptier_operation_help(ptier_operation operation)
{
    return is_operation(operation) ? operations[operation].help : "";
}
