/* proxytier put: cache one proxy. */
#include "cli.h"

#include <string.h>

#include <proxytier/import.h>

#include "json.h"
#include "proxytier/v1/cache.pb-c.h"

struct put_options {
    const char *user, *password, *password_file, *source, *key;
    int64_t ttl_ms;
    int durability, health;
    ptier_cli_labels labels;
};

static bool
parse_options(ptier_cli *cli, struct put_options *o, ptier_cli_exit *code)
{
    const ptier_cli_option options[] = {
        {"user", 'u', PTIER_CLI_TEXT, &o->user, "NAME", "user name for the proxy", NULL},
        {"password", 'p', PTIER_CLI_STRING, &o->password, "-",
         "read the password from standard input (without echo on a terminal)", NULL},
        {"password-file", 0, PTIER_CLI_FILE, &o->password_file, "FILE",
         "read the password from the first line of FILE", NULL},
        {"ttl", 't', PTIER_CLI_TTL, &o->ttl_ms, "DURATION",
         "time to live; 0 never expires (default: the daemon's)", NULL},
        {"source", 's', PTIER_CLI_SOURCE, &o->source, "NAME", "where the record comes from", NULL},
        {"label", 'l', PTIER_CLI_LABEL, &o->labels, "NAME=VALUE", "a free label; may be repeated",
         NULL},
        {"health", 0, PTIER_CLI_WORD, &o->health, "WORD",
         "healthy, degraded, unhealthy, dead or unknown (default: what is known)",
         ptier_cli_healths},
        {"key", 'k', PTIER_CLI_TEXT, &o->key, "KEY", "a key of your own (default: derived)", NULL},
        PTIER_CLI_DURABILITY_OPTION(&o->durability),
        {NULL, 0, PTIER_CLI_FLAG, NULL, NULL, NULL, NULL},
    };
    return ptier_cli_parse(cli, options, 1, 1, code);
}

/* What popt and the daemon cannot say as well as we can here. */
static ptier_cli_exit
check(const ptier_cli *cli, const struct put_options *o, const ptier_url *url)
{
    if (url->has_password)
        return ptier_cli_usage(cli, "a password in the URL is open to others: leave it out and use "
                                    "'--password -' (standard input) or --password-file FILE");
    if (url->has_username && o->user && strcmp(url->username, o->user) != 0)
        return ptier_cli_usage(cli, "the URL and --user name different users; give one");
    if (o->user && (*o->user == '\0' || strlen(o->user) > PTIER_CREDENTIAL_MAX))
        return ptier_cli_usage(cli, "--user takes 1 to %d bytes", PTIER_CREDENTIAL_MAX);
    if (o->key && (*o->key == '\0' || strlen(o->key) > PTIER_KEY_MAX))
        return ptier_cli_usage(cli, "--key takes 1 to %d bytes", PTIER_KEY_MAX);
    return PTIER_CLI_OK;
}

static void
print_json(const ptier_put_results *results)
{
    Proxytier__V1__PutResult result = PROXYTIER__V1__PUT_RESULT__INIT;
    Proxytier__V1__PutResponse response = PROXYTIER__V1__PUT_RESPONSE__INIT;
    Proxytier__V1__Tier tiers[PTIER_TIER_COUNT];

    if (results->count > 0) {
        result.key = (char *)results->items[0].key;
        result.revision = results->items[0].revision;
        result.outcome = (Proxytier__V1__PutOutcome)results->items[0].outcome;
    }
    for (int tier = PTIER_TIER_L1; tier < PTIER_TIER_COUNT; tier++)
        if (results->tiers & (1U << tier))
            tiers[response.n_tiers++] = (Proxytier__V1__Tier)tier;
    response.tiers = tiers;
    response.result = &result;
    response.durability = (Proxytier__V1__Durability)results->durability;
    (void)ptier_json_line(stdout, &response.base, false); /* told by ferror at the end */
}

static void
print_text(const ptier_put_results *results)
{
    if (results->count == 0)
        return;
    ptier_cli_text(stdout, results->items[0].key, 0);
    printf(" %s (%s)\n", ptier_put_outcome_name(results->items[0].outcome),
           ptier_durability_name(results->durability));
}

static ptier_cli_exit
send(ptier_cli *cli, const struct put_options *o, const ptier_url *url,
     const ptier_cli_secret *password)
{
    ptier_error error = {0};
    ptier_put_results results = {0};
    ptier_put_call call = {.durability = (ptier_durability)o->durability};
    ptier_record record;

    ptier_record_init(&record);
    record.key = o->key;
    record.url = url->url;
    record.username = o->user ? o->user : url->has_username ? url->username : NULL;
    record.password = password->set ? password->text : NULL;
    record.source = o->source;
    record.ttl_ms = o->ttl_ms;
    record.health = (ptier_health)o->health;
    record.labels = o->labels.items;
    record.label_count = o->labels.count;

    ptier_cli_exit code = ptier_cli_connect(cli);
    if (code != PTIER_CLI_OK)
        return code;
    ptier_status status = ptier_put(cli->client, &record, &call, &results, &error);
    if (status != PTIER_OK)
        code = ptier_cli_status(cli, status, &error);
    else if (cli->json)
        print_json(&results);
    else
        print_text(&results);
    if (status == PTIER_OK && results.durability < call.durability)
        code = ptier_cli_not_durable(cli, "stored", call.durability, results.durability);
    else if (status == PTIER_OK && call.durability == PTIER_DURABILITY_DEFAULT)
        code = ptier_cli_memory_only(cli, results.durability, code);
    ptier_put_results_free(&results);
    return code;
}

ptier_cli_exit
ptier_cmd_put(ptier_cli *cli)
{
    struct put_options o = {.ttl_ms = PTIER_TTL_DEFAULT};
    ptier_cli_secret password = {0};
    ptier_url url = {0};
    ptier_error error = {0};
    ptier_cli_exit code;

    if (!parse_options(cli, &o, &code))
        return code;
    if (ptier_url_parse(cli->arguments[0], "http", &url, &error) != PTIER_OK)
        code = ptier_cli_usage(cli, "%s", error.message);
    if (code == PTIER_CLI_OK)
        code = check(cli, &o, &url);
    if (code == PTIER_CLI_OK)
        code = ptier_cli_read_password(cli, o.password, o.password_file, &password);
    if (code == PTIER_CLI_OK)
        code = send(cli, &o, &url, &password);
    explicit_bzero(&password, sizeof password);
    ptier_url_wipe(&url);
    return code;
}
