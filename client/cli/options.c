/* Options by popt: our table of options becomes popt's, and every mistake one line that says what
 * to do. */
#include "cli.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <popt.h>

#include "wire_check.h"

#define GLOBAL_COUNT   11
#define MAX_TIMEOUT_MS (INT64_C(24) * 3600 * 1000)

static void
global_options(ptier_cli *cli, ptier_cli_option options[GLOBAL_COUNT + 1])
{
    const ptier_cli_option table[GLOBAL_COUNT + 1] = {
        {"url", 0, PTIER_CLI_STRING, &cli->url, "URL",
         "the daemon: ipc:///path, tls+tcp://host:port or tcp://127.0.0.1:port (default: "
         "PROXYTIER_URL, then the "
         "per-user socket)",
         NULL},
        {"token-file", 0, PTIER_CLI_FILE, &cli->token_file, "FILE",
         "file with the access token (default: PROXYTIER_TOKEN, then none)", NULL},
        {"daemon-user", 0, PTIER_CLI_STRING, &cli->daemon_user, "USER",
         "whose daemon an ipc address may lead to, besides this user's and root's (default: "
         "PROXYTIER_DAEMON_USER)",
         NULL},
        {"tls-ca", 0, PTIER_CLI_FILE, &cli->tls_ca, "FILE",
         "CA of the daemon's certificate (default: PROXYTIER_TLS_CA_FILE)", NULL},
        {"tls-cert", 0, PTIER_CLI_FILE, &cli->tls_cert, "FILE",
         "our certificate, where the daemon wants one (default: PROXYTIER_TLS_CERT_FILE)", NULL},
        {"tls-key", 0, PTIER_CLI_FILE, &cli->tls_key, "FILE",
         "its key (default: PROXYTIER_TLS_KEY_FILE)", NULL},
        {"tls-server-name", 0, PTIER_CLI_STRING, &cli->tls_name, "NAME",
         "name in the daemon's certificate (default: PROXYTIER_TLS_SERVER_NAME, then the URL's "
         "host)",
         NULL},
        {"timeout", 0, PTIER_CLI_TIMEOUT, &cli->timeout_ms, "DURATION",
         "longest time for one call (default: 5s)", NULL},
        {"json", 0, PTIER_CLI_FLAG, &cli->json, NULL,
         "print one JSON object a line, with the fields of the .proto files", NULL},
        {"help", 'h', PTIER_CLI_FLAG, &cli->help, NULL, "show this help", NULL},
        {"version", 'V', PTIER_CLI_FLAG, &cli->version, NULL, "show the version", NULL},
        {NULL, 0, PTIER_CLI_FLAG, NULL, NULL, NULL, NULL},
    };
    memcpy(options, table, sizeof table);
}

/* All options known in one parse; popt's `val` is an index into `all`, plus one. */
struct option_set {
    ptier_cli_option all[PTIER_CLI_OPTIONS_MAX + GLOBAL_COUNT + 1];
    struct poptOption own[PTIER_CLI_OPTIONS_MAX + 1];
    struct poptOption global[GLOBAL_COUNT + 1];
    struct poptOption top[3];
    size_t count;
};

static void
add_options(struct option_set *set, struct poptOption *popt, const ptier_cli_option *options)
{
    const struct poptOption end = POPT_TABLEEND;

    for (; options && options->name; options++, popt++) {
        set->all[set->count++] = *options;
        *popt = (struct poptOption){
            .longName = options->name,
            .shortName = options->letter,
            .argInfo = options->kind == PTIER_CLI_FLAG ? POPT_ARG_NONE : POPT_ARG_STRING,
            .val = (int)set->count,
            .descrip = options->help,
            .argDescrip = options->value_name,
        };
    }
    *popt = end;
}

static void
make_option_set(ptier_cli *cli, const ptier_cli_option *options, struct option_set *set)
{
    const struct poptOption end = POPT_TABLEEND;
    ptier_cli_option global[GLOBAL_COUNT + 1];
    struct poptOption *top = set->top;

    global_options(cli, global);
    add_options(set, set->own, options);
    add_options(set, set->global, global);
    if (set->own[0].longName)
        *top++ = (struct poptOption){
            .argInfo = POPT_ARG_INCLUDE_TABLE, .arg = set->own, .descrip = "Options:"};
    *top++ = (struct poptOption){
        .argInfo = POPT_ARG_INCLUDE_TABLE, .arg = set->global, .descrip = "Global options:"};
    *top = end;
}

static void
name_words(const ptier_cli_word *words, char *text, size_t room)
{
    size_t used = 0;
    for (; words->word; words++) {
        int n = snprintf(text + used, room - used, "%s%s",
                         used == 0       ? ""
                         : words[1].word ? ", "
                                         : " or ",
                         words->word);
        if (n < 0 || (size_t)n >= room - used)
            return;
        used += (size_t)n;
    }
}

static bool
read_count(const char *text, uint64_t *count)
{
    char *end;

    if (text[0] < '0' || text[0] > '9')
        return false;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    *count = value;
    return errno == 0 && *end == '\0' && value > 0;
}

static bool
read_real(const char *text, double *real)
{
    char *end;

    if (*text == '\0' || text[strspn(text, "0123456789.")] != '\0')
        return false;
    *real = strtod(text, &end);
    return *end == '\0';
}

/* Each kind of span has a range of its own, which the message names. */
static ptier_cli_exit
set_duration(ptier_cli *cli, const ptier_cli_option *option, const char *value)
{
    int64_t *target = option->target, ms = 0;
    bool ok = ptier_cli_duration(value, &ms);

    if (option->kind == PTIER_CLI_TIMEOUT && (!ok || ms < 1 || ms > MAX_TIMEOUT_MS))
        return ptier_cli_usage(
            cli, "--%s takes a duration such as 500ms, 2s or 10m, from 1ms to 24h", option->name);
    if (!ok)
        return ptier_cli_usage(
            cli, "--%s takes a duration such as 500ms, 2s, 10m, 24h or 7d, up to %dd%s",
            option->name, (int)(PTIER_TTL_MAX_MS / 86400000),
            option->kind == PTIER_CLI_TTL ? ", or 0 for never" : "");
    *target = ms;
    return PTIER_CLI_OK;
}

static ptier_cli_exit
set_text(const ptier_cli *cli, const ptier_cli_option *option, const char *value)
{
    if (option->kind == PTIER_CLI_FILE && !*value)
        return ptier_cli_usage(cli, "--%s takes the name of a file", option->name);
    if (option->kind == PTIER_CLI_TEXT && !ptier_utf8_valid(value))
        return ptier_cli_usage(cli, "--%s takes UTF-8 text", option->name);
    if (option->kind == PTIER_CLI_SOURCE &&
        (!ptier_utf8_valid(value) || strlen(value) > PTIER_SOURCE_MAX))
        return ptier_cli_usage(cli, "--%s takes UTF-8 text of up to %d bytes", option->name,
                               PTIER_SOURCE_MAX);
    *(const char **)option->target = value;
    return PTIER_CLI_OK;
}

static ptier_cli_exit
set_word(const ptier_cli *cli, const ptier_cli_option *option, const char *value)
{
    char words[128];
    int number;

    if (!ptier_cli_word_value(option->words, value, &number)) {
        name_words(option->words, words, sizeof words);
        return ptier_cli_usage(cli, "--%s takes %s", option->name, words);
    }
    if (option->kind == PTIER_CLI_NAME)
        *(const char **)option->target = ptier_cli_word_name(option->words, value);
    else if (option->kind == PTIER_CLI_WORD_SET)
        *(uint32_t *)option->target |= UINT32_C(1) << number;
    else
        *(int *)option->target = number;
    return PTIER_CLI_OK;
}

/* Stores one value; the message never repeats it, for it may be a secret put in the wrong place. */
static ptier_cli_exit
set_option(ptier_cli *cli, const ptier_cli_option *option, char *value)
{
    assert(option->target);
    if (option->kind == PTIER_CLI_FLAG) {
        *(bool *)option->target = true;
        return PTIER_CLI_OK;
    }
    if (!value) /* popt has seen to it */
        return ptier_cli_usage(cli, "option --%s needs a value", option->name);
    switch (option->kind) {
    case PTIER_CLI_FLAG:
        break; /* above */
    case PTIER_CLI_STRING:
    case PTIER_CLI_FILE:
    case PTIER_CLI_TEXT:
    case PTIER_CLI_SOURCE:
        return set_text(cli, option, value);
    case PTIER_CLI_DURATION:
    case PTIER_CLI_TTL:
    case PTIER_CLI_TIMEOUT:
        return set_duration(cli, option, value);
    case PTIER_CLI_COUNT:
        if (read_count(value, option->target))
            return PTIER_CLI_OK;
        return ptier_cli_usage(cli, "--%s takes a whole number from 1 on", option->name);
    case PTIER_CLI_REAL:
        if (read_real(value, option->target))
            return PTIER_CLI_OK;
        return ptier_cli_usage(cli, "--%s takes a number from 0 on", option->name);
    case PTIER_CLI_WORD:
    case PTIER_CLI_WORD_SET:
    case PTIER_CLI_NAME:
        return set_word(cli, option, value);
    case PTIER_CLI_LABEL:
        if (ptier_cli_label(option->target, value))
            return PTIER_CLI_OK;
        return ptier_cli_usage(cli,
                               "--%s takes name=value in UTF-8 (name up to %d bytes, value up to "
                               "%d, %d labels at most)",
                               option->name, PTIER_LABEL_NAME_MAX, PTIER_LABEL_VALUE_MAX,
                               PTIER_LABELS_MAX);
    }
    return PTIER_CLI_USAGE;
}

/* popt's complaint in our words. What follows a `=` is not repeated: it may be a secret. */
static ptier_cli_exit
explain(const ptier_cli *cli, poptContext popt, int problem)
{
    const char *option = poptBadOption(popt, POPT_BADOPTION_NOALIAS);
    int length = option ? (int)strcspn(option, "=") : 0;

    if (length > 40)
        length = 40;
    switch (problem) {
    case POPT_ERROR_BADOPT:
        return ptier_cli_usage(cli, "unknown option %.*s", length, option);
    case POPT_ERROR_NOARG:
        return ptier_cli_usage(cli, "option %.*s needs a value", length, option);
    case POPT_ERROR_UNWANTEDARG:
        return ptier_cli_usage(cli, "option %.*s takes no value", length, option);
    default:
        return ptier_cli_usage(cli, "option %.*s: %s", length, option ? option : "",
                               poptStrerror(problem));
    }
}

static ptier_cli_exit
read_options(ptier_cli *cli, poptContext popt, const struct option_set *set)
{
    int found;

    while ((found = poptGetNextOpt(popt)) > 0) {
        char *raw = poptGetOptArg(popt);
        char *value = NULL;
        if (raw) {
            value = ptier_cli_keep(cli, raw);
            explicit_bzero(raw, strlen(raw));
            free(raw);
            if (!value)
                return ptier_cli_fail(cli, PTIER_CLI_FAILED, "out of memory");
        }
        ptier_cli_exit code = set_option(cli, &set->all[found - 1], value);
        if (code != PTIER_CLI_OK)
            return code;
    }
    return found == -1 ? PTIER_CLI_OK : explain(cli, popt, found);
}

/* Moves what is left into the context; it must outlive popt's copies. */
static ptier_cli_exit
take_arguments(ptier_cli *cli, poptContext popt)
{
    const char **left = poptGetArgs(popt);
    size_t count = 0;

    while (left && left[count])
        count++;
    const char **arguments = calloc(count + 1, sizeof *arguments);
    if (!arguments)
        return ptier_cli_fail(cli, PTIER_CLI_FAILED, "out of memory");
    for (size_t i = 0; i < count; i++) {
        arguments[i] = ptier_cli_keep(cli, left[i]);
        if (!arguments[i]) {
            free(arguments);
            return ptier_cli_fail(cli, PTIER_CLI_FAILED, "out of memory");
        }
    }
    free(cli->argument_list);
    cli->argument_list = arguments;
    cli->arguments = arguments;
    cli->argument_count = count;
    return PTIER_CLI_OK;
}

static void
print_general_help(const ptier_cli *cli, poptContext popt)
{
    printf("Talks to proxytierd, the cache service for proxy-server records.\n\n");
    poptPrintHelp(popt, stdout, 0);
    printf("\nCommands ('proxytier COMMAND --help' says more):\n");
    for (const ptier_cli_command *command = cli->commands; command->name; command++)
        printf("  %-11s %-25s %s\n", command->name, command->arguments, command->summary);
    printf(
        "\nKEY is an entry's key, or the proxy's address (scheme://[user@]host:port, host:port).\n"
        "DURATION is a number with ms, s, m, h or d; a plain number is seconds.\n"
        "\nExit codes:\n");
#define PTIER_CLI_EXIT_LINE(name, value, text) printf("  %d  %s\n", value, text);
    PTIER_CLI_EXIT_TABLE(PTIER_CLI_EXIT_LINE)
#undef PTIER_CLI_EXIT_LINE
    printf(
        "\nEnvironment, where the option is not given: PROXYTIER_URL, PROXYTIER_TOKEN (the token "
        "itself),\nPROXYTIER_DAEMON_USER, PROXYTIER_TLS_CA_FILE, PROXYTIER_TLS_CERT_FILE, "
        "PROXYTIER_TLS_KEY_FILE,\nPROXYTIER_TLS_SERVER_NAME; and PROXYTIER_TOKEN_FILE, the "
        "daemon's, for `token`.\n");
}

/* --help and --version end the run. */
static bool
show_and_stop(const ptier_cli *cli, poptContext popt)
{
    if (cli->help && cli->command) {
        printf("%s.\n\n", cli->command->summary);
        poptPrintHelp(popt, stdout, 0);
    } else if (cli->help) {
        print_general_help(cli, popt);
    } else if (cli->version) {
        printf("proxytier %s\n", PTIER_CLI_VERSION);
    }
    return cli->help || cli->version;
}

/* args[0] is the name that help shows. */
static ptier_cli_exit
parse(ptier_cli *cli, const ptier_cli_option *options, int argc, const char **args, unsigned flags,
      bool *stop)
{
    struct option_set set = {.count = 0};
    char usage[80];
    ptier_cli_exit code;

    make_option_set(cli, options, &set);
    poptContext popt = poptGetContext(NULL, argc, args, set.top, flags);
    if (!popt)
        return ptier_cli_fail(cli, PTIER_CLI_FAILED, "out of memory");
    const char *arguments = cli->command ? cli->command->arguments : "COMMAND [ARGUMENT...]";
    (void)snprintf(usage, sizeof usage, "[OPTION...]%s%s", *arguments ? " " : "",
                   arguments); /* our own short words: fits */
    poptSetOtherOptionHelp(popt, usage);
    code = read_options(cli, popt, &set);
    if (code == PTIER_CLI_OK)
        *stop = show_and_stop(cli, popt);
    if (code == PTIER_CLI_OK && !*stop)
        code = take_arguments(cli, popt);
    poptFreeContext(popt);
    return code;
}

bool
ptier_cli_parse_global(ptier_cli *cli, int argc, const char *const *argv, ptier_cli_exit *code)
{
    bool stop = false;
    const char **args = calloc((size_t)argc + 2, sizeof *args);

    if (!args) {
        *code = ptier_cli_fail(cli, PTIER_CLI_FAILED, "out of memory");
        return false;
    }
    args[0] = "proxytier";
    for (int i = 1; i < argc; i++)
        args[i] = argv[i];
    *code = parse(cli, NULL, argc > 0 ? argc : 1, args, POPT_CONTEXT_POSIXMEHARDER, &stop);
    free(args);
    return *code == PTIER_CLI_OK && !stop;
}

bool
ptier_cli_parse(ptier_cli *cli, const ptier_cli_option *options, size_t min_arguments,
                size_t max_arguments, ptier_cli_exit *code)
{
    char name[48];
    bool stop = false;
    const char **args = calloc(cli->argument_count + 2, sizeof *args);

    if (!args) {
        *code = ptier_cli_fail(cli, PTIER_CLI_FAILED, "out of memory");
        return false;
    }
    (void)snprintf(name, sizeof name, "proxytier %s", cli->command->name); /* names are short */
    args[0] = name;
    for (size_t i = 0; i < cli->argument_count; i++)
        args[i + 1] = cli->arguments[i];
    *code = parse(cli, options, (int)cli->argument_count + 1, args, 0, &stop);
    free(args);
    if (*code != PTIER_CLI_OK || stop)
        return false;
    if (cli->argument_count < min_arguments)
        *code = ptier_cli_usage(cli, "missing argument: needs %s", cli->command->arguments);
    else if (cli->argument_count > max_arguments && max_arguments == 0)
        *code = ptier_cli_usage(cli, "takes no argument, only options");
    else if (cli->argument_count > max_arguments)
        *code = ptier_cli_usage(cli, "too many arguments: takes only %s", cli->command->arguments);
    for (size_t i = 0; *code == PTIER_CLI_OK && i < cli->argument_count; i++)
        if (!*cli->arguments[i])
            *code = ptier_cli_usage(cli, "argument %zu is empty: needs %s", i + 1,
                                    cli->command->arguments);
    return *code == PTIER_CLI_OK;
}
