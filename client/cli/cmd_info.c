/* proxytier info, shutdown: the daemon itself. */
#include "cli.h"

#include <inttypes.h>
#include <string.h>

#include "json_call.h"
#include "proxytier/v1/admin.pb-c.h"
#include "proxytier/v1/info.pb-c.h"

static bool
start(ptier_cli *cli, ptier_cli_exit *code)
{
    const ptier_cli_option none[] = {{NULL, 0, PTIER_CLI_FLAG, NULL, NULL, NULL, NULL}};

    if (!ptier_cli_parse(cli, none, 0, 0, code))
        return false;
    *code = ptier_cli_connect(cli);
    return *code == PTIER_CLI_OK;
}

/* ---- info ---- */

static void
print_id(const char *name, const uint8_t id[16])
{
    printf("%-18s ", name);
    for (int i = 0; i < 16; i++)
        printf("%02x", id[i]);
    putchar('\n');
}

static void
print_word(const char *name, const char *word)
{
    printf("%-18s ", name);
    ptier_cli_text(stdout, *word ? word : "-", 0);
    putchar('\n');
}

static void
print_features(const ptier_server_info *info)
{
    printf("%-18s ", "features");
    for (size_t i = 0; i < info->feature_count; i++) {
        printf("%s", i > 0 ? ", " : "");
        ptier_cli_text(stdout, info->features[i], 0);
    }
    printf("%s\n", info->feature_count == 0 ? "-" : "");
}

static void
print_limits(const ptier_server_limits *limits)
{
    char size[PTIER_CLI_SIZE_MAX];

    if (limits->message_bytes == 0)
        return; /* not told */
    printf("%-18s message %s, %" PRIu32 " records a call, %" PRIu32 " records a page\n", "limits",
           ptier_cli_size(limits->message_bytes, size), limits->batch_items, limits->page_items);
    printf("%-18s key %" PRIu32 ", URL %" PRIu32 ", user and password %" PRIu32
           " each, source %" PRIu32 " bytes\n",
           "", limits->key_bytes, limits->url_bytes, limits->credential_bytes,
           limits->source_bytes);
    printf("%-18s %" PRIu32 " labels, name %" PRIu32 " and value %" PRIu32 " bytes\n", "",
           limits->labels, limits->label_name_bytes, limits->label_value_bytes);
}

ptier_cli_exit
ptier_cmd_info(ptier_cli *cli)
{
    Proxytier__V1__GetInfoRequest request = PROXYTIER__V1__GET_INFO_REQUEST__INIT;
    ptier_error error = {0};
    ptier_server_info info;
    char span[PTIER_CLI_SPAN_MAX], url[PTIER_URL_MAX + 1];
    ptier_cli_exit code;

    if (!start(cli, &code))
        return code;
    if (cli->json)
        return ptier_json_call(cli, "/proxytier.v1.ServerInfo/GetInfo", &request.base,
                               &proxytier__v1__get_info_response__descriptor);
    memset(&info, 0, sizeof info);
    ptier_status status = ptier_get_info(cli->client, &info, &error);
    if (status != PTIER_OK)
        return ptier_cli_status(cli, status, &error);
    print_word("version", info.version);
    print_word("protocol", info.protocol);
    print_features(&info);
    print_word("your role", info.role);
    (void)ptier_default_url(url, sizeof url); /* fits: the client was opened with it */
    print_word("calls", cli->url && *cli->url ? cli->url : url);
    print_word("events", *info.event_url ? info.event_url : "not offered to you");
    printf("%-18s %" PRIu32 " ms\n", "heartbeat", info.heartbeat_ms);
    printf("%-18s %s\n", "default TTL",
           info.default_ttl_ms ? ptier_cli_span(info.default_ttl_ms, span) : "never expires");
    if (info.failure_threshold)
        printf("%-18s %" PRIu32 "\n", "failure threshold", info.failure_threshold);
    else
        printf("%-18s off\n", "failure threshold");
    printf("%-18s %" PRIu64 "\n", "revision", info.revision);
    print_limits(&info.limits);
    print_id("boot id", info.boot_id);
    print_id("store id", info.store_id);
    return PTIER_CLI_OK;
}

/* ---- shutdown ---- */

ptier_cli_exit
ptier_cmd_shutdown(ptier_cli *cli)
{
    Proxytier__V1__ShutdownRequest request = PROXYTIER__V1__SHUTDOWN_REQUEST__INIT;
    ptier_error error = {0};
    ptier_cli_exit code;

    if (!start(cli, &code))
        return code;
    if (cli->json)
        return ptier_json_call(cli, "/proxytier.v1.Admin/Shutdown", &request.base,
                               &proxytier__v1__shutdown_response__descriptor);
    ptier_status status = ptier_shutdown(cli->client, &error);
    if (status != PTIER_OK)
        return ptier_cli_status(cli, status, &error);
    printf("the daemon is stopping\n");
    return PTIER_CLI_OK;
}
