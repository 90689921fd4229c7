/* KEY arguments: a key, or a proxy's address, of which the key is derived. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

#include <proxytier/import.h>

/* Whether `colon`, inside a text, is followed by digits up to `end`. */
static bool
port_follows(const char *colon, char end)
{
    size_t digits = strspn(colon + 1, "0123456789");
    return digits > 0 && colon[1 + digits] == end;
}

/*
 * `scheme://…`, `host:port`, `user:password@host`, `host:port:user:password`. Those with a password
 * are found also where the rest of them is malformed, so that they are not taken for a key, which
 * is shown.
 */
static bool
looks_like_address(const char *text)
{
    const char *colon = strchr(text, ':'), *last = strrchr(text, ':');
    const char *at = strrchr(text, '@');

    if (!colon || colon == text)
        return false;
    return strstr(text, "://") || port_follows(last, '\0') || port_follows(colon, ':') ||
           (at && colon < at);
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
    if (url.has_password) {
        ptier_url_wipe(&url);
        *code = ptier_cli_usage(cli, "a password is not part of an entry's name, and open to "
                                     "others here: leave it out (--exact for a key that only looks "
                                     "like an address)");
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
    free(cli->keys);
    cli->keys = calloc(count, sizeof *cli->keys);
    if (!cli->keys) {
        *code = ptier_cli_fail(cli, PTIER_CLI_FAILED, "out of memory");
        return false;
    }
    for (size_t i = 0; i < count; i++)
        if (!key_of(cli, cli->arguments[i], naming, &cli->keys[i], code))
            return false;
    *keys = cli->keys;
    return true;
}

void
ptier_cli_missing(const ptier_cli *cli, size_t i, const ptier_cli_naming *naming, size_t *missing)
{
    const char *typed = cli->arguments[i];
    bool nameless = cli->keys[i] != typed && !naming->user && !strchr(typed, '@');

    if ((*missing)++ >= PTIER_CLI_MISSING_SHOWN)
        return;
    (void)ptier_cli_fail(cli, PTIER_CLI_NOT_FOUND, "%.500s is not cached%s", typed,
                         nameless ? " (an entry with a user name is named by its key, or with "
                                    "--user)"
                                  : ""); /* the end tells the code */
}

ptier_cli_exit
ptier_cli_missing_end(const ptier_cli *cli, size_t missing, size_t count)
{
    if (missing > PTIER_CLI_MISSING_SHOWN)
        return ptier_cli_fail(cli, PTIER_CLI_NOT_FOUND,
                              "%zu more are not cached: %zu of %zu in total",
                              missing - PTIER_CLI_MISSING_SHOWN, missing, count);
    return missing > 0 ? PTIER_CLI_NOT_FOUND : PTIER_CLI_OK;
}
