/* The one table of options, and how their values are set. docs and --help are made of it. */
#include "config_internal.h"

#include <stdlib.h>
#include <string.h>

#include "config_value.h"

#define AT(field) offsetof(ptier_config, field)
#define MINUTE    UINT64_C(60000)
#define CENTURY   ((uint64_t)PTIER_TTL_MAX_MS)
#define MEBIBYTE  (UINT64_C(1) << 20)
#define PEBIBYTE  (UINT64_C(1) << 50)

const ptier_option ptier_options[] = {
    {"data-dir", PTIER_OPTION_TEXT, AT(data_dir), 0, 0, NULL, "DIR",
     "where the tiers keep their files (default: /var/lib/proxytier for root, else "
     "$XDG_DATA_HOME/proxytier or ~/.local/share/proxytier)"},
    {"listen", PTIER_OPTION_LIST, AT(listen), 0, 0, NULL, "URL",
     "address for calls, may be repeated: ipc:///path, tls+tcp://host:port (with tls-cert) or "
     "tcp://127.0.0.1:port; all but ipc need token-file (default: "
     "ipc://$XDG_RUNTIME_DIR/proxytier/rpc.sock, else ipc:///tmp/proxytier-UID/rpc.sock)"},
    {"events", PTIER_OPTION_LIST, AT(events), 0, 0, NULL, "URL",
     "address for events, or none; one each of ipc:///path and tls+tcp://host:port (with tls-ca) "
     "(default: events.sock beside rpc.sock, else the call socket's path with .events)"},
    {"token-file", PTIER_OPTION_TEXT, AT(token_file), 0, 0, NULL, "FILE",
     "who may call, with which role: written by `proxytier token`, read anew when it changes"},
    {"failed-logins", PTIER_OPTION_COUNT, AT(failed_logins), 1, 1000000, "10", "N",
     "wrong tokens from one user or address at once; then one a second is looked at and logged"},
    {"rotator-users", PTIER_OPTION_LIST, AT(rotator_users), 0, 0, NULL, "USER",
     "a user (name or number) who has the role rotator over ipc without a token, may be repeated"},
    {"rotator-group", PTIER_OPTION_TEXT, AT(rotator_group), 0, 0, NULL, "GROUP",
     "a group (name or number) whose members have the role rotator over ipc without a token; the "
     "sockets belong to it"},
    {"socket-mode", PTIER_OPTION_TEXT, AT(socket_mode), 0, 0, "660", "MODE",
     "permissions of ipc sockets: 600, 660 or 666; who may do what is decided by user and token"},
    {"tls-cert", PTIER_OPTION_TEXT, AT(tls_cert), 0, 0, NULL, "FILE",
     "certificate (PEM) of tls+tcp addresses; `proxytier tls-init` makes one"},
    {"tls-key", PTIER_OPTION_TEXT, AT(tls_key), 0, 0, NULL, "FILE",
     "its key (PEM), readable by its owner only"},
    {"tls-ca", PTIER_OPTION_TEXT, AT(tls_ca), 0, 0, NULL, "FILE",
     "clients over tls must have a certificate that this CA signed (PEM)"},
    {"insecure-tcp", PTIER_OPTION_SWITCH, AT(insecure_tcp), 0, 0, "off", "on|off",
     "take plain tcp addresses beyond loopback: whoever is on the way reads tokens and passwords"},
    {"log-level", PTIER_OPTION_LEVEL, AT(log_level), 0, 0, "info", "LEVEL",
     "error, warn, info or debug"},
    {"log-file", PTIER_OPTION_TEXT, AT(log_file), 0, 0, NULL, "FILE",
     "append the log to FILE (default: standard error)"},
    {"config", PTIER_OPTION_TEXT, AT(config_file), 0, 0, NULL, "FILE",
     "read options from FILE: `name = value` lines with the names of this list, and a section "
     "[ttl.sources] with "
     "`source = duration` lines"},
    {"key-file", PTIER_OPTION_TEXT, AT(key_file), 0, 0, NULL, "FILE",
     "file with the Fernet key for credentials, readable by its owner only (default: `key` in the "
     "data directory, made on first start). Given here it wins over the systemd credential "
     "proxytier-key, that over PROXYTIER_ENCRYPTION_KEY of the environment, that over a file named "
     "elsewhere"},
    {"l1", PTIER_OPTION_SWITCH, AT(l1_enabled), 0, 0, "on", "on|off", "tier L1 (memory)"},
    {"l1-entries", PTIER_OPTION_COUNT, AT(l1_entries), 0, UINT32_MAX, "1000", "N",
     "bound of L1; 0: only l1-bytes"},
    {"l1-bytes", PTIER_OPTION_SIZE, AT(l1_bytes), MEBIBYTE, PEBIBYTE, "0", "SIZE",
     "bound of L1's memory, such as 64M or 2G, at least 1M; 0: none"},
    {"l1-policy", PTIER_OPTION_EVICTION, AT(l1_policy), 0, 0, "lru", "POLICY",
     "what leaves a full L1 first: lru, lfu, fifo or sieve"},
    {"l2", PTIER_OPTION_SWITCH, AT(l2_enabled), 0, 0, "on", "on|off", "tier L2 (files)"},
    {"l2-entries", PTIER_OPTION_COUNT, AT(l2_entries), 0, UINT32_MAX, "5000", "N",
     "bound of L2; 0: none"},
    {"l3", PTIER_OPTION_SWITCH, AT(l3_enabled), 0, 0, "on", "on|off", "tier L3 (SQLite)"},
    {"l3-entries", PTIER_OPTION_COUNT, AT(l3_entries), 0, UINT32_MAX, "0", "N",
     "bound of L3; 0: none"},
    {"log-max-bytes", PTIER_OPTION_COUNT, AT(log_max_bytes), 1048576, UINT64_MAX, "1073741824", "N",
     "bytes of changes that L3 does not have yet, kept by L2; near it writers are slowed, beyond "
     "it "
     "refused"},
    {"default-ttl", PTIER_OPTION_DURATION, AT(default_ttl_ms), 0, CENTURY, "1h", "DURATION",
     "time to live of entries that state none, such as 500ms, 2s, 15m, 1h, 7d; 0: they never "
     "expire"},
    {"ttl-jitter", PTIER_OPTION_COUNT, AT(ttl_jitter), 0, 50, "0", "PERCENT",
     "shorten times to live that were not stated by a random share, of at most so much"},
    {"failure-threshold", PTIER_OPTION_COUNT, AT(failure_threshold), 0, UINT32_MAX - 1, "3", "N",
     "failures in a row that remove an entry; 0: never"},
    {"health-quarantine", PTIER_OPTION_DURATION, AT(health_quarantine_ms), 0, CENTURY, "15m",
     "DURATION", "how long warming skips a proxy that was removed for its failures"},
    {"durability", PTIER_OPTION_DURABILITY, AT(durability), 0, 0, "logged", "LEVEL",
     "what writes wait for unless they say: memory, logged (survives kill -9) or synced (survives "
     "power loss)"},
    {"warm", PTIER_OPTION_LIST, AT(warm), 0, 0, NULL, "FILE",
     "load FILE at start, may be repeated"},
    {"heartbeat", PTIER_OPTION_DURATION, AT(heartbeat_ms), 10, MINUTE, "250ms", "DURATION",
     "how often subscribers hear that nothing happened"},
    {"journal-events", PTIER_OPTION_COUNT, AT(journal_events), 1, 16777216, "65536", "N",
     "events kept in memory for subscribers that missed some"},
    {"max-connections", PTIER_OPTION_COUNT, AT(max_connections), 1, 1000000, "1024", "N",
     "connections at a time, calls and events together; a client with a subscription has two"},
    {"handshake-timeout", PTIER_OPTION_DURATION, AT(handshake_timeout_ms), 100, MINUTE, "10s",
     "DURATION", "how long a connection over tcp or tls may take for its handshake"},
    {"self-probe", PTIER_OPTION_DURATION, AT(self_probe_ms), 0, 60 * MINUTE, "10s", "DURATION",
     "how often the daemon calls itself over each of its addresses, and opens one anew that three "
     "times did not answer; 0: never"},
    {"drain-timeout", PTIER_OPTION_DURATION, AT(drain_timeout_ms), 0, MINUTE, "5s", "DURATION",
     "how long a daemon that is stopping works on calls that wait; then they are refused"},
    {"core-dumps", PTIER_OPTION_SWITCH, AT(core_dumps), 0, 0, "off", "on|off",
     "let a crash write a core file, and debuggers of the same user attach: credentials and keys "
     "are in memory"},
};
const size_t ptier_option_count = sizeof ptier_options / sizeof *ptier_options;

/* `_` for `-` is as good. */
static bool
is_same_name(const char *option, const char *name)
{
    for (; *option && (*option == *name || (*option == '-' && *name == '_')); option++)
        name++;
    return *option == *name;
}

const ptier_option *
ptier_option_find(const char *name)
{
    for (size_t i = 0; i < ptier_option_count; i++)
        if (is_same_name(ptier_options[i].name, name))
            return &ptier_options[i];
    return NULL;
}

void
ptier_option_environment(const ptier_option *option, char name[64])
{
    (void)snprintf(name, 64, "PROXYTIER_%s", option->name); /* names are short */
    for (char *c = name; *c; c++) {
        if (*c == '-')
            *c = '_';
        else if (*c >= 'a' && *c <= 'z')
            *c = (char)(*c - 'a' + 'A');
    }
}

ptier_status
ptier_text_list_add(ptier_text_list *list, const char *text, size_t length)
{
    char **items = realloc(list->items, (list->count + 1) * sizeof *items);
    if (!items)
        return PTIER_RESOURCE_EXHAUSTED;
    list->items = items;
    items[list->count] = strndup(text, length);
    if (!items[list->count])
        return PTIER_RESOURCE_EXHAUSTED;
    list->count++;
    return PTIER_OK;
}

void
ptier_text_list_clear(ptier_text_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        explicit_bzero(list->items[i], strlen(list->items[i])); /* lists may hold keys */
        free(list->items[i]);
    }
    free(list->items);
    list->items = NULL;
    list->count = 0;
}

static ptier_status
set_number(const ptier_option *option, void *field, const char *value, const char *where,
           ptier_error *error)
{
    const char *wanted = "whole number", *unit = "";
    uint64_t number = 0;
    int64_t ms = 0;
    bool is_one;
    if (option->type == PTIER_OPTION_DURATION) {
        wanted = "duration such as 500ms, 2s, 15m, 1h, 7d or 0";
        unit = " ms";
        is_one = ptier_parse_duration(value, &ms);
        number = (uint64_t)ms;
    } else if (option->type == PTIER_OPTION_SIZE) {
        wanted = "size such as 65536, 64K, 64M or 2G";
        unit = " bytes, or 0";
        is_one = ptier_parse_size(value, &number);
    } else {
        is_one = ptier_parse_count(value, &number);
    }
    if (!is_one)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "%s: '%.60s' is not a %s", where, value,
                          wanted);
    bool none = option->type == PTIER_OPTION_SIZE && number == 0;
    if (!none && (number < option->min || number > option->max))
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "%s: '%.60s' is out of range: %llu to %llu%s", where, value,
                          (unsigned long long)option->min, (unsigned long long)option->max, unit);
    if (option->type == PTIER_OPTION_DURATION)
        *(int64_t *)field = ms;
    else
        *(uint64_t *)field = number;
    return PTIER_OK;
}

static ptier_status
set_word(const ptier_option *option, void *field, const char *value, const char *where,
         ptier_error *error)
{
    const char *words;
    bool known;
    if (option->type == PTIER_OPTION_SWITCH) {
        words = "on, off";
        known = ptier_parse_switch(value, field);
    } else if (option->type == PTIER_OPTION_LEVEL) {
        words = "error, warn, info, debug";
        known = ptier_parse_level(value, field);
    } else if (option->type == PTIER_OPTION_EVICTION) {
        words = "lru, lfu, fifo, sieve";
        known = ptier_parse_eviction(value, field);
    } else {
        words = "memory, logged, synced";
        known = ptier_parse_durability(value, field);
    }
    if (known)
        return PTIER_OK;
    return ptier_fail(error, PTIER_INVALID_ARGUMENT, "%s: '%.60s' is none of %s", where, value,
                      words);
}

static ptier_status
set_text(char **field, const char *value, ptier_error *error)
{
    char *copy = strdup(value);
    if (!copy)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    free(*field);
    *field = copy;
    return PTIER_OK;
}

ptier_status
ptier_option_set(ptier_config_loader *loader, const ptier_option *option, ptier_config_layer layer,
                 const char *value, const char *where, ptier_error *error)
{
    void *field = (char *)loader->config + option->offset;
    ptier_config_layer *last = &loader->layers[option - ptier_options];
    bool first = *last != layer;
    *last = layer;
    switch (option->type) {
    case PTIER_OPTION_COUNT:
    case PTIER_OPTION_SIZE:
    case PTIER_OPTION_DURATION:
        return set_number(option, field, value, where, error);
    case PTIER_OPTION_SWITCH:
    case PTIER_OPTION_LEVEL:
    case PTIER_OPTION_DURABILITY:
    case PTIER_OPTION_EVICTION:
        return set_word(option, field, value, where, error);
    case PTIER_OPTION_TEXT:
    case PTIER_OPTION_LIST:
        break;
    }
    if (!*value)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "%s: the value is empty", where);
    if (option->type == PTIER_OPTION_TEXT)
        return set_text(field, value, error);
    if (first)
        ptier_text_list_clear(field);
    if (ptier_text_list_add(field, value, strlen(value)) != PTIER_OK)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    return PTIER_OK;
}
