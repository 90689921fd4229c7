/*
 * What the daemon was told: command line over environment (PROXYTIER_...) over configuration file
 * over defaults. One table in config_options.c names every option. Not thread-safe; read-only once
 * loaded.
 */
#ifndef PTIER_CONFIG_H
#define PTIER_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <proxytier/cache.h>
#include <proxytier/status.h>

#include "log.h"

typedef struct ptier_text_list {
    char **items;
    size_t count;
} ptier_text_list;

typedef struct ptier_config {
    char *data_dir;
    ptier_text_list listen;
    bool listen_is_default; /* nobody named an address: its directory may be made */
    ptier_text_list events; /* at most one for each door; none: events are not offered */
    ptier_log_level log_level;
    char *log_file; /* NULL: standard error */
    char *config_file;
    char *key_file;
    bool l1_enabled, l2_enabled, l3_enabled;
    uint64_t l1_entries, l2_entries, l3_entries, l1_bytes, log_max_bytes;
    ptier_eviction l1_policy;
    int64_t default_ttl_ms;
    ptier_source_ttl *source_ttls; /* owned, names too */
    size_t source_ttl_count;
    uint64_t ttl_jitter; /* percent */
    uint64_t failure_threshold;
    int64_t health_quarantine_ms;
    ptier_durability durability;
    ptier_text_list warm;
    int64_t heartbeat_ms;
    uint64_t journal_events;
    uint64_t max_connections;
    int64_t drain_timeout_ms;
    bool core_dumps;
    char *token_file; /* NULL: there are no tokens */
    ptier_text_list rotator_users;
    char *rotator_group; /* NULL: none */
    char *socket_mode;
    char *tls_cert, *tls_key; /* both or none */
    char *tls_ca;             /* NULL: clients need no certificate */
    bool insecure_tcp;
    uint64_t failed_logins;
    int64_t handshake_timeout_ms;
    int64_t self_probe_ms; /* 0: never */

    /* From a key file, a credential or the environment. NULL: the cache keeps a key file of its
     * own. */
    char *encryption_key;
    ptier_text_list previous_keys;
} ptier_config;

/*
 * Reads everything. *done: --help or --version was answered on standard output; nothing is left to
 * do. INVALID_ARGUMENT: the message names option, file and line. Other codes: a file that cannot be
 * read. On failure nothing is left to free.
 */
PTIER_MUST_CHECK ptier_status ptier_config_load(int argc, const char **argv, ptier_config **config,
                                                bool *done, ptier_error *error);

/* Wipes the keys, when whoever needed them has them. */
void ptier_config_forget_keys(ptier_config *config);

/* Logs the names of variables PROXYTIER_… that no option has. */
void ptier_config_tell_strays(ptier_log *log);

void ptier_config_destroy(ptier_config *config);

#endif
