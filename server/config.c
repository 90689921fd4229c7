/* See config.h: where options come from, in which order, and what is found out when they are
 * silent. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <popt.h>

#include "config_internal.h"
#include "listen.h"

#define HELP_FLAG    1000
#define VERSION_FLAG 1001

/* ---- command line ---- */

typedef struct flag_table {
    struct poptOption *rows; /* one for each option, --help, --version, the end */
    char **help;
} flag_table;

static void
flag_table_fini(flag_table *table)
{
    for (size_t i = 0; table->help && i < ptier_option_count; i++)
        free(table->help[i]);
    free(table->help);
    free(table->rows);
}

static ptier_status
flag_table_init(flag_table *table, ptier_error *error)
{
    static const struct poptOption tail[] = {
        {"help", 'h', POPT_ARG_NONE, NULL, HELP_FLAG, "show this and end", NULL},
        {"version", 'V', POPT_ARG_NONE, NULL, VERSION_FLAG, "show the version and end", NULL},
        POPT_TABLEEND,
    };
    table->rows = calloc(ptier_option_count + 3, sizeof *table->rows);
    table->help = calloc(ptier_option_count, sizeof *table->help);
    if (!table->rows || !table->help)
        goto no_memory;
    for (size_t i = 0; i < ptier_option_count; i++) {
        const ptier_option *option = &ptier_options[i];
        const char *before = option->preset ? " (default: " : "",
                   *after = option->preset ? ")" : "";
        if (asprintf(&table->help[i], "%s%s%s%s", option->help, before,
                     option->preset ? option->preset : "", after) < 0) {
            table->help[i] = NULL;
            goto no_memory;
        }
        table->rows[i] = (struct poptOption){option->name, '\0',           POPT_ARG_STRING, NULL,
                                             (int)i + 1,   table->help[i], option->argument};
    }
    memcpy(table->rows + ptier_option_count, tail, sizeof tail);
    return PTIER_OK;
no_memory:
    flag_table_fini(table);
    return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
}

/* One value of the command line, kept until the weaker sources have been read. */
typedef struct flag_value {
    const ptier_option *option;
    char *value;
} flag_value;

typedef struct flags {
    flag_value *values;
    size_t count;
    bool done;
} flags;

static void
flags_fini(flags *given)
{
    for (size_t i = 0; i < given->count; i++)
        free(given->values[i].value);
    free(given->values);
}

static ptier_status
keep_flag(flags *given, const ptier_option *option, char *value, ptier_error *error)
{
    flag_value *values = realloc(given->values, (given->count + 1) * sizeof *values);
    if (!values) {
        free(value);
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    }
    given->values = values;
    values[given->count++] = (flag_value){option, value};
    return PTIER_OK;
}

static ptier_status
walk_flags(poptContext context, flags *given, ptier_error *error)
{
    int number;
    while ((number = poptGetNextOpt(context)) > 0) {
        if (number == HELP_FLAG) {
            poptPrintHelp(context, stdout, 0);
            (void)puts(
                "\nEvery option can be set as PROXYTIER_NAME in the environment (--l1-entries: "
                "PROXYTIER_L1_ENTRIES).");
            given->done = true;
        } else if (number == VERSION_FLAG) {
            (void)puts("proxytierd " PTIER_VERSION);
            given->done = true;
        } else {
            ptier_status status =
                keep_flag(given, &ptier_options[number - 1], poptGetOptArg(context), error);
            if (status != PTIER_OK)
                return status;
        }
        if (given->done)
            return PTIER_OK;
    }
    if (number < -1)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "%.100s: %s (see --help)",
                          poptBadOption(context, 0), poptStrerror(number));
    const char *extra = poptGetArg(context);
    if (extra)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "unexpected argument '%.100s' (see --help)", extra);
    return PTIER_OK;
}

static ptier_status
read_flags(int argc, const char **argv, flags *given, ptier_error *error)
{
    flag_table table = {0};
    ptier_status status = flag_table_init(&table, error);
    if (status != PTIER_OK)
        return status;
    poptContext context = poptGetContext("proxytierd", argc, argv, table.rows, 0);
    if (context) {
        poptSetOtherOptionHelp(context, "[OPTION...]");
        status = walk_flags(context, given, error);
        (void)poptFreeContext(context); /* always NULL */
    } else {
        status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    }
    flag_table_fini(&table);
    return status;
}

/* ---- the weaker sources ---- */

static ptier_status
set_presets(ptier_config_loader *loader, ptier_error *error)
{
    for (size_t i = 0; i < ptier_option_count; i++) {
        const ptier_option *option = &ptier_options[i];
        ptier_status status = PTIER_OK;
        if (option->preset)
            status = ptier_option_set(loader, option, PTIER_LAYER_PRESET, option->preset,
                                      option->name, error);
        if (status != PTIER_OK)
            return status;
    }
    return PTIER_OK;
}

static ptier_status
set_from_environment(ptier_config_loader *loader, const ptier_option *option, ptier_error *error)
{
    char name[64];
    ptier_option_environment(option, name);
    const char *value = ptier_environment(name);
    if (!value)
        return PTIER_OK;
    if (option->type != PTIER_OPTION_LIST)
        return ptier_option_set(loader, option, PTIER_LAYER_ENVIRONMENT, value, name, error);
    for (const char *at = value;; at++) {
        size_t length = strcspn(at, ",");
        char *part = strndup(at, length);
        if (!part)
            return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
        ptier_status status =
            ptier_option_set(loader, option, PTIER_LAYER_ENVIRONMENT, part, name, error);
        free(part);
        at += length;
        if (status != PTIER_OK || !*at)
            return status;
    }
}

static ptier_status
set_flags(ptier_config_loader *loader, const flags *given, ptier_error *error)
{
    for (size_t i = 0; i < given->count; i++) {
        char where[64];
        (void)snprintf(where, sizeof where, "--%s",
                       given->values[i].option->name); /* names are short */
        ptier_status status = ptier_option_set(loader, given->values[i].option, PTIER_LAYER_FLAG,
                                               given->values[i].value, where, error);
        if (status != PTIER_OK)
            return status;
    }
    return PTIER_OK;
}

/* The configuration file's name, from the stronger sources only. */
static const char *
config_path(const flags *given)
{
    const char *path = ptier_environment("PROXYTIER_CONFIG");
    for (size_t i = 0; i < given->count; i++)
        if (strcmp(given->values[i].option->name, "config") == 0)
            path = given->values[i].value;
    return path;
}

static ptier_status
apply_sources(ptier_config_loader *loader, const flags *given, ptier_error *error)
{
    ptier_status status = set_presets(loader, error);
    const char *path = config_path(given);
    if (status == PTIER_OK && path)
        status = ptier_config_read_file(loader, path, error);
    for (size_t i = 0; i < ptier_option_count && status == PTIER_OK; i++)
        status = set_from_environment(loader, &ptier_options[i], error);
    if (status == PTIER_OK)
        status = set_flags(loader, given, error);
    return status;
}

/* ---- what nobody said ---- */

PTIER_PRINTF(1, 2)
static char *
text_of(const char *format, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, format);
    if (vasprintf(&text, format, args) < 0)
        text = NULL;
    va_end(args);
    return text;
}

static char *
default_data_dir(void)
{
    const char *base = ptier_environment("XDG_DATA_HOME"), *home = ptier_environment("HOME");
    if (geteuid() == 0)
        return text_of("/var/lib/proxytier");
    if (base)
        return text_of("%s/proxytier", base);
    return text_of("%s/.local/share/proxytier", home ? home : "");
}

static char *
default_listen(void)
{
    const char *runtime = ptier_environment("XDG_RUNTIME_DIR");
    if (runtime)
        return text_of("ipc://%s/proxytier/rpc.sock", runtime);
    return text_of("ipc:///tmp/proxytier-%u/rpc.sock", (unsigned)geteuid());
}

/* Beside the first ipc address for calls; NULL with *found false when there is none. */
static char *
default_events(const ptier_config *config, bool *found)
{
    static const char usual[] = "/rpc.sock";
    for (size_t i = 0; i < config->listen.count; i++) {
        const char *url = config->listen.items[i];
        size_t length = strlen(url), stem = length - (sizeof usual - 1);
        if (strncmp(url, "ipc://", 6) != 0)
            continue;
        *found = true;
        if (length > sizeof usual && strcmp(url + stem, usual) == 0)
            return text_of("%.*s/events.sock", (int)stem, url);
        return text_of("%s.events", url);
    }
    *found = false;
    return NULL;
}

static ptier_status
fill_gaps(ptier_config *config, ptier_error *error)
{
    bool wanted = true;
    if (!config->data_dir && !(config->data_dir = default_data_dir()))
        goto no_memory;
    if (config->listen.count == 0) {
        config->listen_is_default = true;
        char *url = default_listen();
        ptier_status status =
            url ? ptier_text_list_add(&config->listen, url, strlen(url)) : PTIER_RESOURCE_EXHAUSTED;
        free(url);
        if (status != PTIER_OK)
            goto no_memory;
    }
    if (config->events.count == 0) {
        char *url = default_events(config, &wanted);
        ptier_status status = !wanted ? PTIER_OK
                              : url   ? ptier_text_list_add(&config->events, url, strlen(url))
                                      : PTIER_RESOURCE_EXHAUSTED;
        free(url);
        if (status != PTIER_OK)
            goto no_memory;
    } else if (config->events.count == 1 && strcmp(config->events.items[0], "none") == 0) {
        ptier_text_list_clear(&config->events);
    }
    return PTIER_OK;
no_memory:
    return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
}

/* One for each door: GetInfo names the one that fits. */
static ptier_status
check_events(const ptier_config *config, const ptier_listen_rules *rules, ptier_error *error)
{
    ptier_error wrong;
    bool taken[PTIER_DOOR_COUNT] = {false};
    for (size_t i = 0; i < config->events.count; i++) {
        const char *url = config->events.items[i];
        if (ptier_listen_check(url, rules, true, &wrong) != PTIER_OK)
            return ptier_fail(error, PTIER_INVALID_ARGUMENT, "--events: %.300s", wrong.message);
        if (taken[ptier_door_of(url)])
            return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                              "--events: %.200s: there is one of this kind already", url);
        taken[ptier_door_of(url)] = true;
        for (size_t c = 0; c < config->listen.count; c++)
            if (strcmp(url, config->listen.items[c]) == 0)
                return ptier_fail(
                    error, PTIER_INVALID_ARGUMENT,
                    "--events: %.200s is an address for calls (--listen): name another", url);
    }
    return PTIER_OK;
}

static ptier_status
check_addresses(const ptier_config *config, ptier_error *error)
{
    ptier_error wrong;
    ptier_listen_rules rules = {.tls = config->tls_cert != NULL,
                                .mutual = config->tls_ca != NULL,
                                .insecure_tcp = config->insecure_tcp};
    for (size_t i = 0; i < config->listen.count; i++) {
        const char *url = config->listen.items[i];
        if (ptier_listen_check(url, &rules, false, &wrong) != PTIER_OK)
            return ptier_fail(error, PTIER_INVALID_ARGUMENT, "--listen: %.300s", wrong.message);
        if (ptier_door_of(url) != PTIER_DOOR_IPC && !config->token_file)
            return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                              "--listen: %.200s: nobody could call there without --token-file: "
                              "`proxytier token add` makes it",
                              url);
    }
    return check_events(config, &rules, error);
}

/* The cache checks this as well, but knows neither the names nor the exit code of a mistake. */
static ptier_status
check_bounds(const ptier_config *config, ptier_error *error)
{
    const struct {
        const char *name;
        bool on;
        uint64_t bound;
    } tiers[] = {{"--l1-entries", config->l1_enabled, config->l1_entries},
                 {"--l2-entries", config->l2_enabled, config->l2_entries},
                 {"--l3-entries", config->l3_enabled, config->l3_entries}};
    int above = -1;
    for (int i = 0; i < 3; i++) {
        if (!tiers[i].on)
            continue;
        /* 0 is no bound: minus 1 it is the largest */
        if (above >= 0 && tiers[above].bound - 1 > tiers[i].bound - 1)
            return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                              "%s %" PRIu64 " is more than %s %" PRIu64 " (0: no bound): a lower "
                              "tier needs room for what the upper ones hold",
                              tiers[above].name, tiers[above].bound, tiers[i].name, tiers[i].bound);
        above = i;
    }
    return PTIER_OK;
}

static ptier_status
check_security(const ptier_config *config, ptier_error *error)
{
    const char *mode = config->socket_mode + (config->socket_mode[0] == '0');
    if (strcmp(mode, "600") != 0 && strcmp(mode, "660") != 0 && strcmp(mode, "666") != 0)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "--socket-mode: '%.20s' is none of 600, "
                          "660, 666",
                          config->socket_mode);
    if (!config->tls_cert != !config->tls_key)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "--tls-cert and --tls-key: one is useless without the other");
    if (config->tls_ca && !config->tls_cert)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "--tls-ca needs --tls-cert and --tls-key");
    return PTIER_OK;
}

static ptier_status
check_tiers(const ptier_config *config, ptier_error *error)
{
    if (!config->l1_enabled && !config->l2_enabled && !config->l3_enabled)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "--l1, --l2 and --l3 are all off: at least one tier must be on");
    if (config->l1_enabled && config->l1_entries == 0 && config->l1_bytes == 0)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "--l1-entries and --l1-bytes are both 0: L1 needs a bound");
    return check_bounds(config, error);
}

/* ---- all together ---- */

static ptier_status
load(ptier_config *config, const flags *given, ptier_error *error)
{
    ptier_config_layer *layers = calloc(ptier_option_count, sizeof *layers);
    if (!layers)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    ptier_config_loader loader = {.config = config, .layers = layers};
    ptier_status status = apply_sources(&loader, given, error);
    bool key_file_is_flag =
        layers[ptier_option_find("key-file") - ptier_options] == PTIER_LAYER_FLAG;
    free(layers);
    if (status == PTIER_OK)
        status = check_tiers(config, error);
    if (status == PTIER_OK)
        status = fill_gaps(config, error);
    if (status == PTIER_OK)
        status = check_security(config, error);
    if (status == PTIER_OK)
        status = check_addresses(config, error);
    if (status == PTIER_OK)
        status = ptier_config_find_keys(config, key_file_is_flag, error);
    return status;
}

ptier_status
ptier_config_load(int argc, const char **argv, ptier_config **config, bool *done,
                  ptier_error *error)
{
    flags given = {0};
    *done = false;
    ptier_config *made = calloc(1, sizeof *made);
    ptier_status status = made ? read_flags(argc, argv, &given, error)
                               : ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    *done = given.done;
    if (status == PTIER_OK && !given.done)
        status = load(made, &given, error);
    flags_fini(&given);
    if (status != PTIER_OK || *done) {
        ptier_config_destroy(made);
        return status;
    }
    *config = made;
    return PTIER_OK;
}

void
ptier_config_destroy(ptier_config *config)
{
    if (!config)
        return;
    free(config->data_dir);
    ptier_text_list_clear(&config->listen);
    ptier_text_list_clear(&config->events);
    free(config->token_file);
    ptier_text_list_clear(&config->rotator_users);
    free(config->rotator_group);
    free(config->socket_mode);
    free(config->tls_cert);
    free(config->tls_key);
    free(config->tls_ca);
    free(config->log_file);
    free(config->config_file);
    free(config->key_file);
    for (size_t i = 0; i < config->source_ttl_count; i++)
        free((char *)(uintptr_t)config->source_ttls[i].source);
    free(config->source_ttls);
    ptier_text_list_clear(&config->warm);
    ptier_config_forget_keys(config);
    free(config);
}
