/* proxytier token: the file that tells a daemon who may call. Talks to no daemon: it sees the
 * change by itself. */
#include "cli.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "token_file.h"

typedef struct token_options {
    const char *file, *role, *name, *expires;
} token_options;

static const ptier_cli_word roles[] = {
    {"reader", PTIER_ROLE_READER},
    {"rotator", PTIER_ROLE_ROTATOR},
    {"admin", PTIER_ROLE_ADMIN},
    {NULL, 0},
};

static void
print_entry(const ptier_cli *cli, const ptier_token_entry *entry, const char *token)
{
    char expiry[PTIER_TOKEN_TIME_TEXT] = "never";
    if (entry->expires_s)
        ptier_token_time_text(entry->expires_s, expiry);
    if (cli->json) /* names and tokens need no escaping */
        printf("{\"role\":\"%s\",\"name\":\"%s\",\"expires\":\"%s\"%s%s%s}\n",
               ptier_role_name(entry->role), entry->name, expiry, token ? ",\"token\":\"" : "",
               token ? token : "", token ? "\"" : "");
    else if (token)
        printf("%s\n", token);
    else
        printf("%-8s %-24s %s%s\n", ptier_role_name(entry->role), entry->name, expiry,
               entry->expires_s && entry->expires_s <= time(NULL) ? " (expired)" : "");
}

/* A day, an instant, or a span from now on. */
static bool
read_expiry(const char *text, int64_t *expires_s)
{
    int64_t ms;
    if (ptier_token_time_parse(text, expires_s))
        return true;
    if (!ptier_cli_duration(text, &ms) || ms < 1000)
        return false;
    *expires_s = time(NULL) + ms / 1000;
    return true;
}

static ptier_cli_exit
add(ptier_cli *cli, const token_options *options)
{
    ptier_error error = {0};
    ptier_token_entry entry = {0};
    char token[PTIER_TOKEN_TEXT + 1];
    if (!options->role || !options->name)
        return ptier_cli_usage(cli, "add needs --role and --name");
    if (!ptier_role_parse(options->role, &entry.role))
        return ptier_cli_usage(cli, "--role takes reader, rotator or admin");
    if (!ptier_token_name_valid(options->name))
        return ptier_cli_usage(cli, "--name takes 1 to %d letters, digits, '.', '-' and '_'",
                               PTIER_TOKEN_NAME_MAX);
    if (options->expires && !read_expiry(options->expires, &entry.expires_s))
        return ptier_cli_usage(cli, "--expires takes a day (2027-01-31), an instant "
                                    "(2027-01-31T12:00:00Z) or a duration (90d)");
    if (options->expires && entry.expires_s <= time(NULL))
        return ptier_cli_usage(cli, "--expires: %s is over: nobody could use such a token",
                               options->expires);
    (void)snprintf(entry.name, sizeof entry.name, "%s", options->name); /* was looked at */
    ptier_status status = ptier_token_make(token, &error);
    if (status == PTIER_OK && !ptier_token_hash(token, entry.hash))
        status = ptier_fail(&error, PTIER_INTERNAL, "the crypto library makes no hash");
    if (status == PTIER_OK)
        status = ptier_token_file_add(options->file, &entry, &error);
    if (status == PTIER_OK)
        print_entry(cli, &entry, token);
    explicit_bzero(token, sizeof token);
    return status == PTIER_OK ? PTIER_CLI_OK
                              : ptier_cli_fail(cli, PTIER_CLI_FAILED, "%s", error.message);
}

static ptier_cli_exit
list(ptier_cli *cli, const token_options *options)
{
    ptier_error error = {0};
    ptier_token_list tokens;
    if (ptier_token_file_read(options->file, &tokens, &error) != PTIER_OK)
        return ptier_cli_fail(cli, PTIER_CLI_FAILED, "%s", error.message);
    for (size_t i = 0; i < tokens.count; i++)
        print_entry(cli, &tokens.entries[i], NULL);
    ptier_token_list_fini(&tokens);
    return PTIER_CLI_OK;
}

static ptier_cli_exit
remove_token(ptier_cli *cli, const token_options *options)
{
    ptier_error error = {0};
    if (!options->name)
        return ptier_cli_usage(cli, "remove needs --name");
    ptier_status status = ptier_token_file_remove(options->file, options->name, &error);
    if (status == PTIER_OK)
        return PTIER_CLI_OK;
    return ptier_cli_fail(cli, status == PTIER_NOT_FOUND ? PTIER_CLI_NOT_FOUND : PTIER_CLI_FAILED,
                          "%s", error.message);
}

ptier_cli_exit
ptier_cmd_token(ptier_cli *cli)
{
    token_options options = {.file = getenv("PROXYTIER_TOKEN_FILE")};
    const ptier_cli_option table[] = {
        {"file", 0, PTIER_CLI_FILE, &options.file, "FILE",
         "the daemon's token-file (default: PROXYTIER_TOKEN_FILE)", NULL},
        {"role", 0, PTIER_CLI_NAME, &options.role, "ROLE",
         "add: reader (no credentials), rotator (credentials, puts, reports) or admin", roles},
        {"name", 0, PTIER_CLI_STRING, &options.name, "NAME", "whose it is, or was", NULL},
        {"expires", 0, PTIER_CLI_STRING, &options.expires, "WHEN",
         "add: 2027-01-31, 2027-01-31T12:00:00Z or a duration such as 90d (default: never)", NULL},
        {NULL, 0, PTIER_CLI_FLAG, NULL, NULL, NULL, NULL}};
    ptier_cli_exit code;

    if (!ptier_cli_parse(cli, table, 1, 1, &code))
        return code;
    if (!options.file || !*options.file)
        return ptier_cli_usage(cli, "name the daemon's token file with --file");
    if (strcmp(cli->arguments[0], "add") == 0)
        return add(cli, &options);
    if (strcmp(cli->arguments[0], "list") == 0)
        return list(cli, &options);
    if (strcmp(cli->arguments[0], "remove") == 0)
        return remove_token(cli, &options);
    return ptier_cli_usage(cli, "there are add, list and remove");
}
