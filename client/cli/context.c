/* The context of one run: connection, errors, exit codes, clean-up. */
#include "cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void
ptier_cli_init(ptier_cli *cli, const ptier_cli_command *commands)
{
    memset(cli, 0, sizeof *cli);
    cli->commands = commands;
    cli->timeout_ms = -1;
}

ptier_cli_exit
ptier_cli_fini(ptier_cli *cli, ptier_cli_exit code)
{
    ptier_client_close(cli->client);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        if (code == PTIER_CLI_OK && errno != EPIPE)
            code = ptier_cli_fail(cli, PTIER_CLI_FAILED, "cannot write the output: %s",
                                  strerror(errno));
        else if (code == PTIER_CLI_OK)
            code = PTIER_CLI_FAILED;
    }
    for (size_t i = 0; i < cli->string_count; i++) {
        explicit_bzero(cli->strings[i], strlen(cli->strings[i]));
        free(cli->strings[i]);
    }
    free(cli->strings);
    free(cli->argument_list);
    free(cli->keys);
    explicit_bzero(cli, sizeof *cli);
    return code;
}

char *
ptier_cli_keep(ptier_cli *cli, const char *text)
{
    char **grown = realloc(cli->strings, (cli->string_count + 1) * sizeof *grown);
    if (!grown)
        return NULL;
    cli->strings = grown;
    char *copy = strdup(text);
    if (copy)
        cli->strings[cli->string_count++] = copy;
    return copy;
}

ptier_cli_exit
ptier_cli_connect(ptier_cli *cli)
{
    ptier_client_options options;
    ptier_error error = {0};

    ptier_client_options_init(&options);
    options.url = cli->url;
    options.daemon_user = cli->daemon_user;
    options.tls_ca_file = cli->tls_ca;
    options.tls_cert_file = cli->tls_cert;
    options.tls_key_file = cli->tls_key;
    options.tls_server_name = cli->tls_name;
    if (cli->timeout_ms >= 0)
        options.timeout_ms = (uint32_t)cli->timeout_ms;
    if (cli->token_file) {
        ptier_status status =
            ptier_cli_read_line(cli->token_file, true, cli->token, sizeof cli->token, &error);
        if (status != PTIER_OK)
            return ptier_cli_fail(cli, PTIER_CLI_FAILED, "--token-file: %s", error.message);
        options.token = cli->token;
    }
    ptier_status status = ptier_client_open(&options, &cli->client, &error);
    explicit_bzero(cli->token, sizeof cli->token);
    if (status == PTIER_OK)
        return PTIER_CLI_OK;
    /* Nobody was asked yet: it is a mistake in an address, or a file. */
    (void)ptier_cli_status(cli, status, &error); /* its line; the code would be a daemon's */
    return status == PTIER_INVALID_ARGUMENT ? PTIER_CLI_USAGE : PTIER_CLI_FAILED;
}

static ptier_cli_exit
exit_of(ptier_status status)
{
    switch (status) {
    case PTIER_OK:
        return PTIER_CLI_OK;
    case PTIER_INVALID_ARGUMENT:
        return PTIER_CLI_USAGE;
    case PTIER_NOT_FOUND:
        return PTIER_CLI_NOT_FOUND;
    case PTIER_UNAVAILABLE:
        return PTIER_CLI_UNREACHABLE;
    case PTIER_DEADLINE_EXCEEDED:
        return PTIER_CLI_DEADLINE;
    case PTIER_PERMISSION_DENIED:
    case PTIER_UNAUTHENTICATED:
        return PTIER_CLI_PERMISSION;
    default:
        return PTIER_CLI_FAILED;
    }
}

/* One write a line, so that lines of several threads and processes do not mix. */
static void
write_line(const ptier_cli *cli, const char *message, const char *hint)
{
    char line[1024];
    int length = snprintf(line, sizeof line, "proxytier%s%s: %s%s\n", cli->command ? " " : "",
                          cli->command ? cli->command->name : "", message, hint);
    if (length < 0)
        return;
    if ((size_t)length >= sizeof line) {
        length = (int)sizeof line - 1;
        line[length - 1] = '\n';
    }
    for (int i = 0; i < length - 1; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = ' ';
    (void)fwrite(line, 1, (size_t)length, stderr); /* nowhere left to complain */
}

/* The library names its options as programs do; here they are called otherwise. */
static const struct {
    const char *field, *option;
} own_names[] = {
    {"tls_ca_file", "--tls-ca"},      {"tls_cert_file", "--tls-cert"},
    {"tls_key_file", "--tls-key"},    {"tls_server_name", "--tls-server-name"},
    {"daemon_user", "--daemon-user"},
};

/* The option that `text` begins with, as a whole word; NULL: none. */
static const char *
own_name(const char *text, size_t *length)
{
    for (size_t i = 0; i < sizeof own_names / sizeof *own_names; i++) {
        *length = strlen(own_names[i].field);
        if (strncmp(text, own_names[i].field, *length) == 0 &&
            (text[*length] == ')' || text[*length] == ','))
            return own_names[i].option;
    }
    return NULL;
}

/* Names stand in brackets: `(tls_cert_file, tls_key_file)`. */
static void
name_options(const char *message, char *out, size_t room)
{
    size_t used = 0, length;
    bool inside = false;

    while (*message && used + 1 < room) {
        const char *option = inside && (message[-1] == '(' || message[-1] == ' ')
                                 ? own_name(message, &length)
                                 : NULL;
        if (option) {
            used += (size_t)snprintf(out + used, room - used, "%s", option);
            message += length;
        } else {
            inside = *message == '(' || (inside && *message != ')');
            out[used++] = *message++;
        }
    }
    out[used < room ? used : room - 1] = '\0';
}

ptier_cli_exit
ptier_cli_status(const ptier_cli *cli, ptier_status status, const ptier_error *error)
{
    const char *message = error && error->message[0] ? error->message : ptier_status_text(status);
    char named[PTIER_ERROR_MESSAGE_MAX + 64];

    name_options(message, named, sizeof named);
    write_line(cli, named, "");
    return exit_of(status);
}

ptier_cli_exit
ptier_cli_fail(const ptier_cli *cli, ptier_cli_exit code, const char *format, ...)
{
    char message[768];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(message, sizeof message, format, args); /* cut is fine */
    va_end(args);
    write_line(cli, message, "");
    return code;
}

ptier_cli_exit
ptier_cli_not_durable(const ptier_cli *cli, const char *done, ptier_durability asked,
                      ptier_durability reached)
{
    return ptier_cli_fail(cli, PTIER_CLI_FAILED,
                          "%s, but not %s: only %s was reached; `proxytier stats` and the "
                          "daemon's log tell which tier fails",
                          done, ptier_durability_name(asked), ptier_durability_name(reached));
}

ptier_cli_exit
ptier_cli_memory_only(const ptier_cli *cli, ptier_durability reached, ptier_cli_exit code)
{
    if (reached != PTIER_DURABILITY_MEMORY)
        return code;
    return ptier_cli_fail(cli, code,
                          "stored in memory only: it is lost when the daemon ends before a disk "
                          "tier takes it");
}

ptier_cli_exit
ptier_cli_usage(const ptier_cli *cli, const char *format, ...)
{
    char message[512], hint[80];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(message, sizeof message, format, args); /* cut is fine */
    va_end(args);
    (void)snprintf(hint, sizeof hint, "; see 'proxytier%s%s --help'", cli->command ? " " : "",
                   cli->command ? cli->command->name : "");
    write_line(cli, message, hint);
    return PTIER_CLI_USAGE;
}
