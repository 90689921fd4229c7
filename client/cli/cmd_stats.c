/* proxytier stats: the rows of proxytier/statistics.h for people. */
#include "cli.h"

#include <inttypes.h>
#include <string.h>

#include "json_call.h"
#include "proxytier/v1/admin.pb-c.h"
#include "proxytier/v1/cache.pb-c.h"

enum { NAME_WIDTH = 20, VALUE_WIDTH = 12 };

/* A name of a row as people write it. Values have their units with them. */
static void
print_name(const char *name)
{
    int written = 0;
    for (; *name; name++, written++) {
        if (strncmp(name, "_ms", 3) == 0 && (name[3] == '_' || name[3] == '\0'))
            name += 3;
        if (*name == '\0')
            break;
        (void)putchar(*name == '_' ? ' ' : *name); /* told by ferror at the end */
    }
    printf("%*s", written < NAME_WIDTH ? NAME_WIDTH - written : 1, "");
}

static void
print_value(const ptier_metric *metric, const void *statistics)
{
    char text[32];
    double value = metric->value(statistics);
    switch (metric->unit) {
    case PTIER_UNIT_NUMBER:
        (void)snprintf(text, sizeof text, "%.0f", value);
        break;
    case PTIER_UNIT_LIMIT:
        (void)snprintf(text, sizeof text, value != 0 ? "%.0f" : "unlimited", value);
        break;
    case PTIER_UNIT_BYTES:
        (void)ptier_cli_size((uint64_t)value, text);
        break;
    case PTIER_UNIT_MS:
        (void)ptier_cli_span((int64_t)value, text);
        break;
    case PTIER_UNIT_RATIO:
        (void)snprintf(text, sizeof text, "%.1f%%", value * 100);
        break;
    case PTIER_UNIT_FLAG:
        (void)snprintf(text, sizeof text, "%s", value != 0 ? "yes" : "no");
        break;
    }
    printf("%*s", VALUE_WIDTH, text);
}

static void
print_help(const char *help)
{
    printf("%s%s\n", *help ? "   " : "", help);
}

/* A heading before the first row of a group. */
static void
print_group(const char **last, const char *group)
{
    if (!*last || strcmp(*last, group) != 0)
        printf("\n%s\n", group);
    *last = group;
}

/* ---- tiers ---- */

static const char *
state_of(const ptier_tier_statistics *tier)
{
    return !tier->enabled   ? "off"
           : tier->degraded ? "DEGRADED"
           : !tier->healthy ? "UNHEALTHY"
                            : "ok";
}

static void
print_tier_row(const ptier_metric *metric, const ptier_statistics *s)
{
    print_name(metric->name);
    for (int id = PTIER_TIER_L1; id < PTIER_TIER_COUNT; id++) {
        if (s->tiers[id].enabled)
            print_value(metric, &s->tiers[id]);
        else
            printf("%*s", VALUE_WIDTH, "-");
    }
    print_help(metric->help);
}

static void
print_tiers(const ptier_statistics *s)
{
    print_name("tier");
    for (int id = PTIER_TIER_L1; id < PTIER_TIER_COUNT; id++)
        printf("%*s", VALUE_WIDTH, ptier_tier_name((ptier_tier_id)id));
    printf("\n");
    print_name("state");
    for (int id = PTIER_TIER_L1; id < PTIER_TIER_COUNT; id++)
        printf("%*s", VALUE_WIDTH, state_of(&s->tiers[id]));
    printf("\n");
    for (const ptier_metric *metric = ptier_tier_metrics; metric->name; metric++)
        if (metric->unit != PTIER_UNIT_FLAG) /* those make up the state */
            print_tier_row(metric, s);
}

/* ---- the cache ---- */

static void
print_removals(const ptier_statistics *s)
{
    printf("\nremovals\n");
    for (int reason = 1; reason < PTIER_REASON_COUNT; reason++) {
        print_name(ptier_reason_name((ptier_reason)reason));
        printf("%*" PRIu64 "\n", VALUE_WIDTH, s->removals[reason]);
    }
}

static void
print_cache(const ptier_statistics *s)
{
    const char *group = NULL;
    for (const ptier_metric *metric = ptier_cache_metrics; metric->name; metric++) {
        print_group(&group, metric->group);
        print_name(metric->name);
        print_value(metric, s);
        print_help(metric->help);
    }
    print_removals(s);
}

/* ---- latencies ---- */

static void
print_ns(uint64_t ns)
{
    static const char *const units[] = {"ns", "us", "ms", "s"};
    char text[32];
    double value = (double)ns;
    int unit = 0;
    for (; value >= 1000 && unit < 3; unit++)
        value /= 1000;
    (void)snprintf(text, sizeof text, value < 10 && unit ? "%.1f %s" : "%.0f %s", value,
                   units[unit]);
    printf("%*s", VALUE_WIDTH, text);
}

static void
print_latencies(const ptier_statistics *s)
{
    printf("\nlatency             %*s%*s%*s%*s%*s\n", VALUE_WIDTH, "timed", VALUE_WIDTH, "p50",
           VALUE_WIDTH, "p99", VALUE_WIDTH, "p99.9", VALUE_WIDTH, "max");
    for (int i = 1; i < PTIER_OPERATION_COUNT; i++) {
        const ptier_latency *latency = &s->latency[i];
        if (latency->count == 0)
            continue;
        print_name(ptier_operation_name((ptier_operation)i));
        printf("%*" PRIu64, VALUE_WIDTH, latency->count);
        print_ns(latency->p50_ns);
        print_ns(latency->p99_ns);
        print_ns(latency->p999_ns);
        print_ns(latency->max_ns);
        print_help(ptier_operation_help((ptier_operation)i));
    }
}

/* ---- the command ---- */

static ptier_cli_exit
as_json(ptier_cli *cli, bool reset)
{
    Proxytier__V1__GetStatisticsRequest get = PROXYTIER__V1__GET_STATISTICS_REQUEST__INIT;
    Proxytier__V1__ResetStatisticsRequest again = PROXYTIER__V1__RESET_STATISTICS_REQUEST__INIT;
    return ptier_json_call(
        cli,
        reset ? "/proxytier.v1.Admin/ResetStatistics" : "/proxytier.v1.ProxyCache/GetStatistics",
        reset ? &again.base : &get.base, &proxytier__v1__get_statistics_response__descriptor);
}

ptier_cli_exit
ptier_cmd_stats(ptier_cli *cli)
{
    bool reset = false;
    const ptier_cli_option options[] = {
        {"reset", 0, PTIER_CLI_FLAG, &reset, NULL,
         "let counters and latencies start again at zero after they were shown", NULL},
        {NULL, 0, PTIER_CLI_FLAG, NULL, NULL, NULL, NULL},
    };
    ptier_error error = {0};
    ptier_statistics s;
    ptier_cli_exit code;

    if (!ptier_cli_parse(cli, options, 0, 0, &code))
        return code;
    code = ptier_cli_connect(cli);
    if (code != PTIER_CLI_OK)
        return code;
    if (cli->json)
        return as_json(cli, reset);
    ptier_status status = reset ? ptier_reset_statistics(cli->client, &s, &error)
                                : ptier_get_statistics(cli->client, &s, &error);
    if (status != PTIER_OK)
        return ptier_cli_status(cli, status, &error);
    print_tiers(&s);
    print_cache(&s);
    print_latencies(&s);
    if (reset)
        printf("\ncounters and latencies start again at zero\n");
    return PTIER_CLI_OK;
}
