/* The proxytier command: its table of contents. Each command is a file, or one of a group, named
 * cmd_*.c. */
#include <ctype.h>
#include <string.h>
#include <sys/prctl.h>

#include "cli.h"

static const ptier_cli_command commands[] = {
    {"put", "URL", "Cache one proxy, or update it", ptier_cmd_put},
    {"get", "KEY...", "Show cached proxies", ptier_cmd_get},
    {"delete", "KEY...", "Remove proxies", ptier_cmd_delete},
    {"pick", "", "Choose random usable proxies", ptier_cmd_pick},
    {"list", "", "Show all proxies that match", ptier_cmd_list},
    {"report", "KEY... ok|failed|unknown", "Tell the outcome of using proxies", ptier_cmd_report},
    {"warm", "FILE...", "Load proxy lists (text, CSV, JSON, JSON lines; - is stdin)",
     ptier_cmd_warm},
    {"restore", "FILE...", "Load backups and exports, as they were", ptier_cmd_restore},
    {"export", "[FILE]", "Write all proxies as JSON lines (default: to stdout)", ptier_cmd_export},
    {"backup", "FILE", "Write the whole cache to one SQLite file", ptier_cmd_backup},
    {"clear", "", "Empty the cache, or one upper tier", ptier_cmd_clear},
    {"stats", "", "Show statistics per tier", ptier_cmd_stats},
    {"watch", "", "Follow changes as they happen", ptier_cmd_watch},
    {"info", "", "Show what the daemon says of itself", ptier_cmd_info},
    {"describe", "[FILE]", "Show the daemon's protocol (FILE: as a FileDescriptorSet)",
     ptier_cmd_describe},
    {"keygen", "[FILE]", "Make a new encryption key (default: to stdout)", ptier_cmd_keygen},
    {"token", "add|list|remove", "Say who may call a daemon, with which role", ptier_cmd_token},
    {"tls-init", "DIR", "Make certificates for a daemon and its clients", ptier_cmd_tls_init},
    {"rotate-keys", "", "Encrypt everything at rest anew with the daemon's present key",
     ptier_cmd_rotate},
    {"shutdown", "", "Ask the daemon to stop", ptier_cmd_shutdown},
    {NULL, NULL, NULL, NULL},
};

static const ptier_cli_command *
find_command(const char *name)
{
    for (const ptier_cli_command *command = commands; command->name; command++)
        if (strcmp(command->name, name) == 0)
            return command;
    return NULL;
}

/* What stands where a command is expected is shown only when it looks like a word: it may be a URL
 * with a password. */
static bool
is_word(const char *text)
{
    size_t length = strlen(text);
    for (size_t i = 0; i < length; i++)
        if (!isalnum((unsigned char)text[i]) && text[i] != '-' && text[i] != '_')
            return false;
    return length > 0 && length <= 24;
}

static ptier_cli_exit
run(ptier_cli *cli, int argc, const char *const *argv)
{
    ptier_cli_exit code;

    if (!ptier_cli_parse_global(cli, argc, argv, &code))
        return code;
    if (cli->argument_count == 1 && strcmp(cli->arguments[0], "help") == 0) {
        const char *const help[] = {"proxytier", "--help", NULL};
        PTIER_IGNORE(ptier_cli_parse_global(cli, 2, help, &code)); /* shows it, and says to stop */
        return code;
    }
    if (cli->argument_count > 1 && strcmp(cli->arguments[0], "help") == 0) {
        cli->help = true;
        cli->arguments++;
        cli->argument_count = 1;
    }
    if (cli->argument_count == 0)
        return ptier_cli_usage(cli, "no command given");
    cli->command = find_command(cli->arguments[0]);
    if (!cli->command && is_word(cli->arguments[0]))
        return ptier_cli_usage(cli, "unknown command '%s'", cli->arguments[0]);
    if (!cli->command)
        return ptier_cli_usage(cli, "the first argument must be a command");
    cli->arguments++;
    cli->argument_count--;
    return cli->command->run(cli);
}

int
main(int argc, char **argv)
{
    ptier_cli cli;

    (void)prctl(PR_SET_DUMPABLE, 0); /* no core file with credentials; cannot fail */
    ptier_cli_init(&cli, commands);
    ptier_cli_exit code = run(&cli, argc, (const char *const *)argv);
    return ptier_cli_fini(&cli, code);
}
