/* Records for people and as JSON. */
#include "cli.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "convert.h"
#include "json.h"

static const char *
ttl_of(const ptier_record *record, char out[PTIER_CLI_SPAN_MAX])
{
    return record->remaining_ttl_ms < 0 ? "never" : ptier_cli_span(record->remaining_ttl_ms, out);
}

static void
record_json(const ptier_record *record, bool credentials)
{
    ptier_proxy_message message;

    ptier_proxy_from_record(&message, record, credentials);
    (void)ptier_json_line(stdout, &message.proxy.base, false); /* told by ferror at the end */
}

void
ptier_cli_record_header(const ptier_cli *cli, bool credentials)
{
    if (!cli->json)
        printf("%-16s  %-30s  %-9s  %-8s  %-12s  %s%s\n", "KEY", "URL", "HEALTH", "EXPIRES",
               "SOURCE", credentials ? "USER:PASSWORD  " : "", "LABELS");
}

void
ptier_cli_record_line(const ptier_cli *cli, const ptier_record *record, bool credentials)
{
    char span[PTIER_CLI_SPAN_MAX];

    if (cli->json) {
        record_json(record, credentials);
        return;
    }
    ptier_cli_text(stdout, record->key ? record->key : "", 16);
    printf("  ");
    ptier_cli_text(stdout, record->url ? record->url : "", 30);
    printf("  %-9s  %-8s  ", ptier_health_name(record->health), ttl_of(record, span));
    ptier_cli_text(stdout, record->source && *record->source ? record->source : "-", 12);
    if (credentials && !record->username && !record->password) {
        printf("  -");
    } else if (credentials) {
        printf("  ");
        ptier_cli_text(stdout, record->username ? record->username : "", 0);
        putchar(':');
        ptier_cli_text(stdout, record->password ? record->password : "", 0);
    }
    for (size_t i = 0; i < record->label_count; i++) {
        printf("%s", i == 0 ? "  " : " ");
        ptier_cli_text(stdout, record->labels[i].name, 0);
        putchar('=');
        ptier_cli_text(stdout, record->labels[i].value, 0);
    }
    putchar('\n');
}

static void
field(const char *name, const char *value)
{
    if (!value || !*value)
        return;
    printf("%-10s ", name);
    ptier_cli_text(stdout, value, 0);
    putchar('\n');
}

static void
time_field(const char *name, int64_t ms)
{
    char text[40];
    struct tm parts;
    time_t seconds = (time_t)(ms / 1000);

    if (ms <= 0 || !gmtime_r(&seconds, &parts))
        return;
    if (strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &parts) > 0)
        field(name, text);
}

static void
health_fields(const ptier_record *record)
{
    char text[80];

    (void)snprintf(text, sizeof text, "%s%s", ptier_health_name(record->health),
                   record->needs_revalidation ? " (needs re-validation)" : "");
    field("health", text);
    (void)snprintf(text, sizeof text, "%" PRIu32 " in a row", record->failure_count);
    field("failures", text);
    if (record->report_count > 0) {
        (void)snprintf(text, sizeof text, "%.1f %% of %" PRIu64 " reports",
                       100.0 * (double)record->success_count / (double)record->report_count,
                       record->report_count);
        field("success", text);
    }
    if (record->latency_ms > 0) {
        (void)snprintf(text, sizeof text, "%.1f ms", record->latency_ms);
        field("latency", text);
    }
}

void
ptier_cli_record_full(const ptier_cli *cli, const ptier_record *record, ptier_tier_id tier,
                      bool credentials)
{
    char text[80], span[PTIER_CLI_SPAN_MAX];

    if (cli->json) {
        record_json(record, credentials);
        return;
    }
    field("key", record->key);
    field("url", record->url);
    if (credentials) {
        field("user", record->username);
        field("password", record->password);
    } else if (record->username || record->password) {
        field("user", "set (--show-credentials shows it)");
    }
    field("source", record->source);
    health_fields(record);
    field("expires in", ttl_of(record, span));
    time_field("fetched", record->fetch_time_ms);
    time_field("last read", record->last_access_ms);
    (void)snprintf(text, sizeof text, "%" PRIu64, record->access_count);
    field("reads", text);
    for (size_t i = 0; i < record->label_count; i++) {
        printf("label      ");
        ptier_cli_text(stdout, record->labels[i].name, 0);
        putchar('=');
        ptier_cli_text(stdout, record->labels[i].value, 0);
        putchar('\n');
    }
    (void)snprintf(text, sizeof text, "%" PRIu64, record->revision);
    field("revision", text);
    if (tier != PTIER_TIER_NONE)
        field("found in", ptier_tier_name(tier));
}
