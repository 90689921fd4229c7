/* Where the daemon's keys come from: command line, systemd credential, environment, key file. */
#include <stdio.h>
#include <string.h>

#include "config_internal.h"
#include "crypto/keyring.h"

#define CREDENTIAL          "proxytier-key"
#define CREDENTIAL_PREVIOUS "proxytier-key-previous"
#define PATH_ROOM           4096

static const char *const key_variables[] = {"PROXYTIER_ENCRYPTION_KEY",
                                            "PROXYWHIRL_CACHE_ENCRYPTION_KEY"};
static const char *const previous_variables[] = {"PROXYTIER_KEY_PREVIOUS",
                                                 "PROXYWHIRL_CACHE_KEY_PREVIOUS"};

static const char *
either(const char *const names[2])
{
    const char *value = ptier_environment(names[0]);
    return value ? value : ptier_environment(names[1]);
}

/* The value itself too: others can read it in /proc, and it would be handed to every child. */
static void
wipe_variables(const char *const names[2])
{
    for (int i = 0; i < 2; i++) {
        char *value = getenv(names[i]);
        if (value)
            explicit_bzero(value, strlen(value));
        (void)unsetenv(names[i]); /* fails for malformed names only */
    }
}

static ptier_status
keep_key(ptier_config *config, const char *key, ptier_error *error)
{
    config->encryption_key = strdup(key);
    return config->encryption_key ? PTIER_OK
                                  : ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
}

static ptier_status
add_previous(ptier_config *config, const char *keys, ptier_error *error)
{
    while (keys && *keys) {
        size_t length = strcspn(keys, ",");
        if (length && ptier_text_list_add(&config->previous_keys, keys, length) != PTIER_OK)
            return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
        keys += length + (keys[length] == ',');
    }
    return PTIER_OK;
}

/* A file that is wrong is no mistake in usage. */
static ptier_status
of_file(ptier_status status)
{
    return status == PTIER_INVALID_ARGUMENT ? PTIER_FAILED_PRECONDITION : status;
}

static ptier_status
read_key_file(ptier_config *config, ptier_error *error)
{
    char key[PTIER_KEY_TEXT + 1];
    ptier_status status = of_file(ptier_key_file(config->key_file, false, key, error));
    if (status == PTIER_OK)
        status = keep_key(config, key, error);
    explicit_bzero(key, sizeof key);
    return status == PTIER_NOT_FOUND ? PTIER_INVALID_ARGUMENT : status; /* an option names it */
}

/* An absent one is an empty list. */
static ptier_status
read_credential(const char *name, ptier_key_list *list, ptier_error *error)
{
    char path[PATH_ROOM];
    const char *directory = ptier_environment("CREDENTIALS_DIRECTORY");
    list->count = 0;
    if (!directory)
        return PTIER_OK;
    if ((size_t)snprintf(path, sizeof path, "%s/%s", directory, name) >= sizeof path)
        return ptier_fail(error, PTIER_FAILED_PRECONDITION, "CREDENTIALS_DIRECTORY is too long");
    ptier_status status = ptier_key_credential(path, list, error);
    return status == PTIER_NOT_FOUND ? PTIER_OK : of_file(status);
}

static ptier_status
take_credential(ptier_config *config, ptier_error *error)
{
    ptier_key_list list;
    ptier_status status = read_credential(CREDENTIAL, &list, error);
    if (status == PTIER_OK && list.count > 1)
        status = ptier_fail(error, PTIER_FAILED_PRECONDITION,
                            "credential " CREDENTIAL " holds more than one key: older ones go "
                            "into " CREDENTIAL_PREVIOUS);
    if (status == PTIER_OK && list.count)
        status = keep_key(config, list.keys[0], error);
    explicit_bzero(&list, sizeof list);
    return status;
}

static ptier_status
take_previous_credential(ptier_config *config, ptier_error *error)
{
    ptier_key_list list;
    ptier_status status = read_credential(CREDENTIAL_PREVIOUS, &list, error);
    for (size_t i = 0; status == PTIER_OK && i < list.count; i++)
        status = add_previous(config, list.keys[i], error);
    explicit_bzero(&list, sizeof list);
    return status;
}

/* The nearest to this start wins; docs/DAEMON.md has the order. */
static ptier_status
take_key(ptier_config *config, bool key_file_is_flag, ptier_error *error)
{
    if (key_file_is_flag)
        return read_key_file(config, error);
    ptier_status status = take_credential(config, error);
    const char *key = either(key_variables);
    if (status != PTIER_OK || config->encryption_key)
        return status;
    if (key)
        return keep_key(config, key, error);
    return config->key_file ? read_key_file(config, error) : PTIER_OK;
}

ptier_status
ptier_config_find_keys(ptier_config *config, bool key_file_is_flag, ptier_error *error)
{
    ptier_status status = take_key(config, key_file_is_flag, error);
    if (status == PTIER_OK)
        status = take_previous_credential(config, error);
    if (status == PTIER_OK)
        status = add_previous(config, either(previous_variables), error);
    wipe_variables(key_variables);
    wipe_variables(previous_variables);
    return status;
}

void
ptier_config_forget_keys(ptier_config *config)
{
    if (config->encryption_key)
        explicit_bzero(config->encryption_key, strlen(config->encryption_key));
    free(config->encryption_key);
    config->encryption_key = NULL;
    ptier_text_list_clear(&config->previous_keys);
}
