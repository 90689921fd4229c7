/* KEY arguments: a key, or a proxy's address, of which the key is derived. */
#include "cli.h"

#include <ctype.h>
#include <string.h>

#include <proxytier/import.h>

/* `host:port` and `user:password@host:port`: an address without its scheme. */
static bool
looks_like_address(const char *text)
{
    const char *colon = strrchr(text, ':');

    if (strstr(text, "://"))
        return true;
    return colon && colon != text && colon[1] && colon[1 + strspn(colon + 1, "0123456789")] == '\0';
}

static bool
key_of(ptier_cli *cli, const char *argument, const ptier_cli_naming *naming, const char **key,
       ptier_cli_exit *code)
{
    ptier_url url;
    ptier_error error = {0};
    char derived[65];

    *key = argument;
    if (*argument == '\0' || strlen(argument) > PTIER_KEY_MAX) {
        bool address = *argument && !naming->exact && looks_like_address(argument);
        if (!address) {
            *code = ptier_cli_usage(cli, "a KEY has 1 to %d bytes", PTIER_KEY_MAX);
            return false;
        }
    }
    if (naming->exact || !looks_like_address(argument))
        return true;
    if (ptier_url_parse(argument, "http", &url, &error) != PTIER_OK) {
        *code = ptier_cli_usage(cli, "%s", error.message);
        ptier_url_wipe(&url);
        return false;
    }
    ptier_key_derive(url.url, url.has_username ? url.username : naming->user, false, derived);
    ptier_url_wipe(&url);
    *key = ptier_cli_keep(cli, derived);
    if (!*key) {
        *code = ptier_cli_fail(cli, PTIER_CLI_FAILED, "out of memory");
        return false;
    }
    return true;
}

bool
ptier_cli_keys(ptier_cli *cli, size_t count, const ptier_cli_naming *naming,
               const char *const **keys, ptier_cli_exit *code)
{
    if (count > PTIER_BATCH_MAX) {
        *code = ptier_cli_usage(cli, "at most %d keys at once", PTIER_BATCH_MAX);
        return false;
    }
    for (size_t i = 0; i < count; i++)
        if (!key_of(cli, cli->arguments[i], naming, &cli->arguments[i], code))
            return false;
    *keys = cli->arguments;
    return true;
}
