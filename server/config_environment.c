/* Variables of the environment that look like options and are none: mistakes that nobody would see.
 */
#include <string.h>
#include <unistd.h>

#include "config_internal.h"

#define PREFIX "PROXYTIER_"

/* The clients' own, and those of keys, which are wiped by now. */
static bool
is_known(const char *name, size_t length)
{
    static const char *const others[] = {PREFIX "URL",
                                         PREFIX "TOKEN",
                                         PREFIX "DAEMON_USER",
                                         PREFIX "TLS_CA_FILE",
                                         PREFIX "TLS_CERT_FILE",
                                         PREFIX "TLS_KEY_FILE",
                                         PREFIX "TLS_SERVER_NAME",
                                         PREFIX "ENCRYPTION_KEY",
                                         PREFIX "KEY_PREVIOUS"};
    char option[64];
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strlen(others[i]) == length && memcmp(others[i], name, length) == 0)
            return true;
    for (size_t i = 0; i < ptier_option_count; i++) {
        ptier_option_environment(&ptier_options[i], option);
        if (strlen(option) == length && memcmp(option, name, length) == 0)
            return true;
    }
    return false;
}

void
ptier_config_tell_strays(ptier_log *log)
{
    for (char **variable = environ; variable && *variable; variable++) {
        size_t length = strcspn(*variable, "=");
        if (strncmp(*variable, PREFIX, sizeof PREFIX - 1) == 0 && !is_known(*variable, length))
            ptier_log_write(log, PTIER_LOG_WARN, "unknown_variable",
                            "%.*s is no option (see --help) and has no effect", (int)length,
                            *variable);
    }
}
