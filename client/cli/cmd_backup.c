/* proxytier backup: the whole cache as one SQLite file, which the daemon writes. */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "json.h"
#include "proxytier/v1/admin.pb-c.h"

/* The daemon has a directory of its own: names are made absolute here. */
static ptier_cli_exit
absolute(const ptier_cli *cli, const char *path, char out[PATH_MAX])
{
    char here[PATH_MAX] = "";

    if (path[0] != '/' && !getcwd(here, sizeof here))
        return ptier_cli_fail(cli, PTIER_CLI_FAILED, "cannot tell the current directory: %s",
                              strerror(errno));
    int length = snprintf(out, PATH_MAX, "%s%s%s", here, *here ? "/" : "", path);
    if (length < 0 || length >= PATH_MAX)
        return ptier_cli_fail(cli, PTIER_CLI_FAILED, "the file's name is too long");
    return PTIER_CLI_OK;
}

static void
print_result(const ptier_cli *cli, const char *path, const ptier_backup_result *result)
{
    Proxytier__V1__BackupResponse message = PROXYTIER__V1__BACKUP_RESPONSE__INIT;

    message.entries = result->entries;
    message.bytes = result->bytes;
    message.as_of = result->as_of;
    if (cli->json)
        (void)ptier_json_line(stdout, &message.base, false); /* told by ferror at the end */
    else
        printf("backed up %" PRIu64 " proxies to %s, %" PRIu64 " bytes\n", result->entries, path,
               result->bytes);
}

ptier_cli_exit
ptier_cmd_backup(ptier_cli *cli)
{
    const ptier_cli_option options[] = {{NULL, 0, PTIER_CLI_FLAG, NULL, NULL, NULL, NULL}};
    char path[PATH_MAX];
    ptier_backup_result result;
    ptier_error error = {0};
    ptier_cli_exit code;

    if (!ptier_cli_parse(cli, options, 1, 1, &code))
        return code;
    code = absolute(cli, cli->arguments[0], path);
    if (code == PTIER_CLI_OK)
        code = ptier_cli_connect(cli);
    if (code != PTIER_CLI_OK)
        return code;
    uint32_t timeout_ms = cli->timeout_ms > 0 ? (uint32_t)cli->timeout_ms : 0;
    ptier_status status = ptier_backup(cli->client, path, timeout_ms, &result, &error);
    if (status == PTIER_OK)
        print_result(cli, path, &result);
    return status == PTIER_OK ? PTIER_CLI_OK : ptier_cli_status(cli, status, &error);
}
