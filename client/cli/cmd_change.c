/* proxytier delete, report, clear: change what is cached. */
#include "cli.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json.h"
#include "proxytier/v1/admin.pb-c.h"
#include "proxytier/v1/cache.pb-c.h"

#define END_OF_OPTIONS                                                                             \
    {                                                                                              \
        NULL, 0, PTIER_CLI_FLAG, NULL, NULL, NULL, NULL                                            \
    }

/* ---- delete ---- */

/* A reply says how many keys were there, not which: up to so many get a call each, so that those
 * that were not can be named. */
#define NAMED_MAX 1000

/* What became of all of them. */
struct deletion {
    size_t missing;
    ptier_durability reached; /* by each call */
};

static ptier_cli_exit
delete_keys(ptier_cli *cli, const char *const *keys, size_t count, const ptier_cli_naming *naming,
            ptier_durability durability, struct deletion *done)
{
    const ptier_change_call call = {.durability = durability};
    size_t at_once = count > NAMED_MAX ? count : 1;
    ptier_error error = {0};

    for (size_t i = 0; i < count; i += at_once) {
        ptier_delete_result result;
        ptier_status status = ptier_delete(cli->client, keys + i, at_once, &call, &result, &error);
        if (status != PTIER_OK)
            return ptier_cli_status(cli, status, &error);
        if (at_once == 1 && result.deleted == 0)
            ptier_cli_missing(cli, i, naming, &done->missing);
        else
            done->missing += at_once - result.deleted;
        if (i == 0 || result.durability < done->reached)
            done->reached = result.durability;
    }
    return PTIER_CLI_OK;
}

static void
print_deletion(const ptier_cli *cli, size_t count, const struct deletion *done)
{
    Proxytier__V1__DeleteResponse response = PROXYTIER__V1__DELETE_RESPONSE__INIT;

    response.deleted = (uint32_t)(count - done->missing);
    response.not_found = (uint32_t)done->missing;
    response.durability = (Proxytier__V1__Durability)done->reached;
    if (cli->json)
        (void)ptier_json_line(stdout, &response.base, false); /* told by ferror at the end */
    else
        printf("deleted %zu of %zu (%s)\n", count - done->missing, count,
               ptier_durability_name(done->reached));
}

ptier_cli_exit
ptier_cmd_delete(ptier_cli *cli)
{
    ptier_cli_naming naming = {0};
    int durability = PTIER_DURABILITY_DEFAULT;
    const ptier_cli_option options[] = {PTIER_CLI_NAMING_OPTIONS(&naming),
                                        PTIER_CLI_DURABILITY_OPTION(&durability), END_OF_OPTIONS};
    const char *const *keys;
    struct deletion done = {0};
    ptier_cli_exit code;

    if (!ptier_cli_parse(cli, options, 1, PTIER_BATCH_MAX, &code))
        return code;
    size_t count = cli->argument_count;
    if (!ptier_cli_keys(cli, count, &naming, &keys, &code))
        return code;
    code = ptier_cli_connect(cli);
    if (code != PTIER_CLI_OK)
        return code;
    code = delete_keys(cli, keys, count, &naming, (ptier_durability)durability, &done);
    if (code != PTIER_CLI_OK)
        return code;
    print_deletion(cli, count, &done);
    if ((int)done.reached < durability)
        return ptier_cli_not_durable(cli, "deleted", (ptier_durability)durability, done.reached);
    if (count > NAMED_MAX && done.missing > 0)
        return ptier_cli_fail(cli, PTIER_CLI_NOT_FOUND, "%zu of %zu keys were not cached",
                              done.missing, count);
    return ptier_cli_missing_end(cli, done.missing, count);
}

/* ---- report ---- */

static void
print_report(const ptier_cli *cli, const char *key, const ptier_report_result *result,
             ptier_durability reached)
{
    Proxytier__V1__ReportResult message = PROXYTIER__V1__REPORT_RESULT__INIT;

    if (cli->json) {
        message.key = (char *)key;
        message.found = result->found;
        message.removed = result->removed;
        message.failure_count = result->failure_count;
        message.health = (Proxytier__V1__HealthStatus)result->health;
        (void)ptier_json_line(stdout, &message.base, false); /* told by ferror at the end */
        return;
    }
    if (!result->found)
        return; /* told on stderr */
    ptier_cli_text(stdout, key, 0);
    if (result->removed)
        printf(" removed after %" PRIu32 " failures in a row (%s)\n", result->failure_count,
               ptier_durability_name(reached));
    else
        printf(" %s, %" PRIu32 " failures in a row (%s)\n", ptier_health_name(result->health),
               result->failure_count, ptier_durability_name(reached));
}

static ptier_cli_exit
send_reports(ptier_cli *cli, const char *const *keys, size_t count, const ptier_cli_naming *naming,
             const ptier_report *outcome, ptier_durability durability)
{
    const ptier_change_call call = {.durability = durability};
    ptier_report *reports = calloc(count, sizeof *reports);
    ptier_report_results results = {0};
    ptier_error error = {0};
    size_t missing = 0;

    if (!reports)
        return ptier_cli_fail(cli, PTIER_CLI_FAILED, "out of memory");
    for (size_t i = 0; i < count; i++) {
        reports[i] = *outcome;
        reports[i].key = keys[i];
    }
    ptier_status status = ptier_report_health(cli->client, reports, count, &call, &results, &error);
    free(reports);
    if (status != PTIER_OK)
        return ptier_cli_status(cli, status, &error);
    for (size_t i = 0; i < count; i++) {
        print_report(cli, keys[i], &results.items[i], results.durability);
        if (!results.items[i].found)
            ptier_cli_missing(cli, i, naming, &missing);
    }
    ptier_cli_exit code = ptier_cli_missing_end(cli, missing, count);
    if (results.durability < durability)
        code = ptier_cli_not_durable(cli, "reported", durability, results.durability);
    ptier_report_results_free(&results);
    return code;
}

ptier_cli_exit
ptier_cmd_report(ptier_cli *cli)
{
    ptier_report report = {0};
    ptier_cli_naming naming = {0};
    int durability = PTIER_DURABILITY_DEFAULT;
    const ptier_cli_option options[] = {
        {"latency", 0, PTIER_CLI_REAL, &report.latency_ms, "MS", "how long it took, in ms", NULL},
        {"error", 0, PTIER_CLI_TEXT, &report.error, "TEXT",
         "what went wrong, for the daemon's log (no credentials)", NULL},
        PTIER_CLI_NAMING_OPTIONS(&naming),
        PTIER_CLI_DURABILITY_OPTION(&durability),
        END_OF_OPTIONS,
    };
    const char *const *keys;
    int outcome = 0;
    ptier_cli_exit code;

    if (!ptier_cli_parse(cli, options, 2, PTIER_BATCH_MAX + 1, &code))
        return code;
    size_t count = cli->argument_count - 1;
    if (!ptier_cli_word_value(ptier_cli_outcomes, cli->arguments[count], &outcome))
        return ptier_cli_usage(cli, "the last argument must be ok, failed or unknown");
    report.outcome = (ptier_outcome)outcome;
    if (report.error && strlen(report.error) > 256)
        return ptier_cli_usage(cli, "--error takes up to 256 bytes");
    if (!ptier_cli_keys(cli, count, &naming, &keys, &code))
        return code;
    code = ptier_cli_connect(cli);
    if (code != PTIER_CLI_OK)
        return code;
    return send_reports(cli, keys, count, &naming, &report, (ptier_durability)durability);
}

/* ---- clear ---- */

static bool
confirmed(ptier_tier_id tier)
{
    char answer[16] = "";

    if (tier == PTIER_TIER_NONE)
        (void)fprintf(stderr, "Remove every proxy from the cache? [y/N] ");
    else
        (void)fprintf(stderr, "Empty %s (lower tiers keep everything)? [y/N] ",
                      ptier_tier_name(tier));
    return fgets(answer, sizeof answer, stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

static void
print_clear(const ptier_cli *cli, ptier_tier_id tier, const ptier_clear_result *result)
{
    Proxytier__V1__ClearResponse response = PROXYTIER__V1__CLEAR_RESPONSE__INIT;

    response.cleared = result->cleared;
    response.revision = result->revision;
    response.durability = (Proxytier__V1__Durability)result->durability;
    if (cli->json)
        (void)ptier_json_line(stdout, &response.base, false); /* told by ferror at the end */
    else if (tier == PTIER_TIER_NONE)
        printf("cleared %" PRIu64 " proxies (%s)\n", result->cleared,
               ptier_durability_name(result->durability));
    else
        printf("emptied %s of %" PRIu64 " proxies\n", ptier_tier_name(tier), result->cleared);
}

ptier_cli_exit
ptier_cmd_clear(ptier_cli *cli)
{
    int tier = PTIER_TIER_NONE, durability = PTIER_DURABILITY_DEFAULT;
    bool yes = false;
    const ptier_cli_option options[] = {
        {"tier", 0, PTIER_CLI_WORD, &tier, "TIER",
         "only this one: L1 or L2; nothing is lost that only it has", ptier_cli_upper_tiers},
        PTIER_CLI_DURABILITY_OPTION(&durability),
        {"yes", 'y', PTIER_CLI_FLAG, &yes, NULL, "do not ask", NULL},
        END_OF_OPTIONS,
    };
    ptier_error error = {0};
    ptier_clear_result result;
    ptier_cli_exit code;

    if (!ptier_cli_parse(cli, options, 0, 0, &code))
        return code;
    if (tier != PTIER_TIER_NONE && durability != PTIER_DURABILITY_DEFAULT)
        return ptier_cli_usage(cli,
                               "--durability goes without --tier: lower tiers keep everything");
    if (!yes && !isatty(STDIN_FILENO))
        return ptier_cli_usage(cli, "add --yes to clear without being asked");
    if (!yes && !confirmed((ptier_tier_id)tier))
        return ptier_cli_fail(cli, PTIER_CLI_FAILED, "nothing was cleared");
    code = ptier_cli_connect(cli);
    if (code != PTIER_CLI_OK)
        return code;
    const ptier_change_call call = {.durability = (ptier_durability)durability};
    ptier_status status = ptier_clear(cli->client, (ptier_tier_id)tier, &call, &result, &error);
    if (status != PTIER_OK)
        return ptier_cli_status(cli, status, &error);
    print_clear(cli, (ptier_tier_id)tier, &result);
    if (result.durability < call.durability)
        return ptier_cli_not_durable(cli, "cleared", call.durability, result.durability);
    return PTIER_CLI_OK;
}
