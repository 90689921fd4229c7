/* proxytier delete, report, clear: change what is cached. */
#include "cli.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json.h"
#include "json_call.h"
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

static ptier_cli_exit
delete_keys(ptier_cli *cli, const char *const *keys, size_t count, const ptier_cli_naming *naming,
            size_t *missing)
{
    size_t at_once = count > NAMED_MAX ? count : 1;
    ptier_error error = {0};

    for (size_t i = 0; i < count; i += at_once) {
        size_t deleted = 0;
        ptier_status status = ptier_delete(cli->client, keys + i, at_once, &deleted, &error);
        if (status != PTIER_OK)
            return ptier_cli_status(cli, status, &error);
        if (at_once == 1 && deleted == 0)
            ptier_cli_missing(cli, i, naming, missing);
        else
            *missing += at_once - deleted;
    }
    return PTIER_CLI_OK;
}

ptier_cli_exit
ptier_cmd_delete(ptier_cli *cli)
{
    ptier_cli_naming naming = {0};
    const ptier_cli_option options[] = {PTIER_CLI_NAMING_OPTIONS(&naming), END_OF_OPTIONS};
    Proxytier__V1__DeleteResponse response = PROXYTIER__V1__DELETE_RESPONSE__INIT;
    const char *const *keys;
    size_t missing = 0;
    ptier_cli_exit code;

    if (!ptier_cli_parse(cli, options, 1, PTIER_BATCH_MAX, &code))
        return code;
    size_t count = cli->argument_count;
    if (!ptier_cli_keys(cli, count, &naming, &keys, &code))
        return code;
    code = ptier_cli_connect(cli);
    if (code != PTIER_CLI_OK)
        return code;
    code = delete_keys(cli, keys, count, &naming, &missing);
    if (code != PTIER_CLI_OK)
        return code;
    response.deleted = (uint32_t)(count - missing);
    response.not_found = (uint32_t)missing;
    if (cli->json)
        (void)ptier_json_line(stdout, &response.base, false); /* told by ferror at the end */
    else
        printf("deleted %zu of %zu\n", count - missing, count);
    if (count > NAMED_MAX && missing > 0)
        return ptier_cli_fail(cli, PTIER_CLI_NOT_FOUND, "%zu of %zu keys were not cached", missing,
                              count);
    return ptier_cli_missing_end(cli, missing, count);
}

/* ---- report ---- */

static void
print_report(const ptier_cli *cli, const char *key, const ptier_report_result *result)
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
        printf(" removed after %" PRIu32 " failures in a row\n", result->failure_count);
    else
        printf(" %s, %" PRIu32 " failures in a row\n", ptier_health_name(result->health),
               result->failure_count);
}

static ptier_cli_exit
send_reports(ptier_cli *cli, const char *const *keys, size_t count, const ptier_cli_naming *naming,
             const ptier_report *outcome)
{
    ptier_report *reports = calloc(count, sizeof *reports);
    ptier_report_result *results = calloc(count, sizeof *results);
    ptier_error error = {0};
    size_t missing = 0;
    ptier_cli_exit code = PTIER_CLI_OK;

    if (!reports || !results) {
        code = ptier_cli_fail(cli, PTIER_CLI_FAILED, "out of memory");
        goto out;
    }
    for (size_t i = 0; i < count; i++) {
        reports[i] = *outcome;
        reports[i].key = keys[i];
    }
    ptier_status status = ptier_report_health(cli->client, reports, count, results, &error);
    if (status != PTIER_OK) {
        code = ptier_cli_status(cli, status, &error);
        goto out;
    }
    for (size_t i = 0; i < count; i++) {
        print_report(cli, keys[i], &results[i]);
        if (!results[i].found)
            ptier_cli_missing(cli, i, naming, &missing);
    }
    code = ptier_cli_missing_end(cli, missing, count);
out:
    free(reports);
    free(results);
    return code;
}

ptier_cli_exit
ptier_cmd_report(ptier_cli *cli)
{
    ptier_report report = {0};
    ptier_cli_naming naming = {0};
    const ptier_cli_option options[] = {
        {"latency", 0, PTIER_CLI_REAL, &report.latency_ms, "MS", "how long it took, in ms", NULL},
        {"error", 0, PTIER_CLI_STRING, &report.error, "TEXT",
         "what went wrong, for the daemon's log (no credentials)", NULL},
        PTIER_CLI_NAMING_OPTIONS(&naming),
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
    return code == PTIER_CLI_OK ? send_reports(cli, keys, count, &naming, &report) : code;
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

static ptier_cli_exit
clear_as_json(ptier_cli *cli, ptier_tier_id tier)
{
    Proxytier__V1__ClearRequest request = PROXYTIER__V1__CLEAR_REQUEST__INIT;

    request.tier = (Proxytier__V1__Tier)tier;
    return ptier_json_call(cli, "/proxytier.v1.Admin/Clear", &request.base,
                           &proxytier__v1__clear_response__descriptor);
}

ptier_cli_exit
ptier_cmd_clear(ptier_cli *cli)
{
    int tier = PTIER_TIER_NONE;
    bool yes = false;
    const ptier_cli_option options[] = {
        {"tier", 0, PTIER_CLI_WORD, &tier, "TIER",
         "only this one: L1 or L2; nothing is lost that only it has", ptier_cli_upper_tiers},
        {"yes", 'y', PTIER_CLI_FLAG, &yes, NULL, "do not ask", NULL},
        END_OF_OPTIONS,
    };
    ptier_error error = {0};
    uint64_t cleared = 0;
    ptier_cli_exit code;

    if (!ptier_cli_parse(cli, options, 0, 0, &code))
        return code;
    if (!yes && !isatty(STDIN_FILENO))
        return ptier_cli_usage(cli, "add --yes to clear without being asked");
    if (!yes && !confirmed((ptier_tier_id)tier))
        return ptier_cli_fail(cli, PTIER_CLI_FAILED, "nothing was cleared");
    code = ptier_cli_connect(cli);
    if (code != PTIER_CLI_OK)
        return code;
    if (cli->json)
        return clear_as_json(cli, (ptier_tier_id)tier);
    ptier_status status = ptier_clear(cli->client, (ptier_tier_id)tier, &cleared, &error);
    if (status != PTIER_OK)
        return ptier_cli_status(cli, status, &error);
    if (tier == PTIER_TIER_NONE)
        printf("cleared %" PRIu64 " proxies\n", cleared);
    else
        printf("emptied %s of %" PRIu64 " proxies\n", ptier_tier_name((ptier_tier_id)tier),
               cleared);
    return PTIER_CLI_OK;
}
