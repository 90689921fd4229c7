/* proxytier get, pick, list: show cached proxies. */
#include "cli.h"

#include <string.h>

#define END_OF_OPTIONS                                                                             \
    {                                                                                              \
        NULL, 0, PTIER_CLI_FLAG, NULL, NULL, NULL, NULL                                            \
    }
#define SHOW_OPTION(target)                                                                        \
    {                                                                                              \
        "show-credentials", 0, PTIER_CLI_FLAG, (target), NULL,                                     \
            "show user name and password, if this role may see them", NULL                         \
    }

/* Otherwise a `-` would look as if there were none. */
static void
tell_unseen(const ptier_cli *cli, bool credentials)
{
    ptier_server_info info;

    if (!credentials || ptier_get_info(cli->client, &info, NULL) != PTIER_OK)
        return; /* the next call tells what is wrong */
    if (strcmp(info.role, "reader") == 0)
        (void)ptier_cli_fail(cli, PTIER_CLI_OK, "your role, reader, sees no credentials");
}

/* ---- get ---- */

static ptier_cli_exit
get_one(ptier_cli *cli, const char *key, bool credentials)
{
    ptier_error error = {0};
    ptier_records found = {0};
    ptier_cli_exit code = PTIER_CLI_OK;

    ptier_status status = ptier_get(cli->client, key, &found, &error);
    if (status == PTIER_NOT_FOUND)
        code = PTIER_CLI_NOT_FOUND; /* told by the caller, who knows what was typed */
    else if (status != PTIER_OK)
        code = ptier_cli_status(cli, status, &error);
    else if (found.count > 0)
        ptier_cli_record_full(cli, &found.records[0], found.tier, credentials);
    ptier_records_free(&found);
    return code;
}

ptier_cli_exit
ptier_cmd_get(ptier_cli *cli)
{
    bool credentials = false;
    ptier_cli_naming naming = {0};
    const ptier_cli_option options[] = {
        SHOW_OPTION(&credentials),
        PTIER_CLI_NAMING_OPTIONS(&naming),
        END_OF_OPTIONS,
    };
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
    tell_unseen(cli, credentials);
    for (size_t i = 0; i < count; i++) {
        if (i > missing && !cli->json)
            putchar('\n');
        code = get_one(cli, keys[i], credentials);
        if (code == PTIER_CLI_NOT_FOUND)
            ptier_cli_missing(cli, i, &naming, &missing);
        else if (code != PTIER_CLI_OK)
            return code;
    }
    return ptier_cli_missing_end(cli, missing, count);
}

/* ---- pick, list ---- */

struct filter_options {
    const char *source, *scheme;
    int health;
    ptier_cli_labels labels;
};

#define FILTER_OPTIONS(o)                                                                          \
    {"source", 's', PTIER_CLI_SOURCE, &(o)->source, "NAME", "only of this source", NULL},          \
        {"scheme",         0,      PTIER_CLI_NAME,                                                 \
         &(o)->scheme,     "WORD", "only with this scheme: http, https, socks4, socks5, ...",      \
         ptier_cli_schemes},                                                                       \
        {"label",      'l',          PTIER_CLI_LABEL,                                              \
         &(o)->labels, "NAME=VALUE", "only with this label; may be repeated",                      \
         NULL},                                                                                    \
    {                                                                                              \
        "health", 0, PTIER_CLI_WORD, &(o)->health, "WORD", "only with this health",                \
            ptier_cli_healths                                                                      \
    }

static ptier_filter
filter_of(const struct filter_options *o)
{
    return (ptier_filter){
        .source = o->source,
        .scheme = o->scheme,
        .labels = o->labels.items,
        .label_count = o->labels.count,
        .health = (ptier_health)o->health,
    };
}

ptier_cli_exit
ptier_cmd_pick(ptier_cli *cli)
{
    struct filter_options o = {0};
    uint64_t count = 1;
    bool credentials = false;
    const ptier_cli_option options[] = {
        {"count", 'n', PTIER_CLI_COUNT, &count, "N", "how many (default: 1)", NULL},
        FILTER_OPTIONS(&o),
        SHOW_OPTION(&credentials),
        END_OF_OPTIONS,
    };
    ptier_error error = {0};
    ptier_records picked = {0};
    ptier_cli_exit code;

    if (!ptier_cli_parse(cli, options, 0, 0, &code))
        return code;
    if (count > PTIER_BATCH_MAX)
        return ptier_cli_usage(cli, "--count takes 1 to %d", PTIER_BATCH_MAX);
    code = ptier_cli_connect(cli);
    if (code != PTIER_CLI_OK)
        return code;
    tell_unseen(cli, credentials);
    ptier_filter filter = filter_of(&o);
    ptier_pick_options pick = {.count = (size_t)count, .filter = &filter};
    ptier_status status = ptier_pick(cli->client, &pick, &picked, &error);
    if (status == PTIER_NOT_FOUND)
        code = ptier_cli_fail(cli, PTIER_CLI_NOT_FOUND, "no usable proxy matches");
    else if (status != PTIER_OK)
        code = ptier_cli_status(cli, status, &error);
    else
        ptier_cli_record_header(cli, credentials);
    for (size_t i = 0; i < picked.count; i++)
        ptier_cli_record_line(cli, &picked.records[i], credentials);
    ptier_records_free(&picked);
    return code;
}

/* Prints page after page; *left counts down. */
static ptier_cli_exit
list_pages(ptier_cli *cli, const ptier_filter *filter, uint64_t left, bool credentials)
{
    char token[sizeof((ptier_records *)NULL)->next_page_token] = "";
    ptier_error error = {0};
    bool first = true;

    do {
        ptier_records page = {0};
        uint32_t size = left < 1000 ? (uint32_t)left : 0;
        ptier_status status = ptier_list(cli->client, filter, size, token, &page, &error);
        if (status != PTIER_OK) {
            ptier_records_free(&page);
            return ptier_cli_status(cli, status, &error);
        }
        if (first)
            ptier_cli_record_header(cli, credentials);
        first = false;
        for (size_t i = 0; i < page.count && left > 0; i++, left--)
            ptier_cli_record_line(cli, &page.records[i], credentials);
        memcpy(token, page.next_page_token, sizeof token);
        ptier_records_free(&page);
    } while (*token && left > 0 && !ferror(stdout));
    return PTIER_CLI_OK;
}

ptier_cli_exit
ptier_cmd_list(ptier_cli *cli)
{
    struct filter_options o = {0};
    uint64_t limit = UINT64_MAX;
    bool credentials = false;
    const ptier_cli_option options[] = {
        FILTER_OPTIONS(&o),
        {"limit", 'n', PTIER_CLI_COUNT, &limit, "N", "at most so many (default: all)", NULL},
        SHOW_OPTION(&credentials),
        END_OF_OPTIONS,
    };
    ptier_cli_exit code;

    if (!ptier_cli_parse(cli, options, 0, 0, &code))
        return code;
    code = ptier_cli_connect(cli);
    if (code != PTIER_CLI_OK)
        return code;
    tell_unseen(cli, credentials);
    ptier_filter filter = filter_of(&o);
    return list_pages(cli, &filter, limit, credentials);
}
