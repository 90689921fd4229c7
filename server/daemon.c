/* See daemon.h. Order of start: journal, cache, publisher, calls; stop is the reverse. */
#include "daemon.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "listen.h"
#include "publisher.h"
#include "rpc.h"
#include "self_probe.h"
#include "self_probe_tls.h"
#include "tls.h"

#define TIER_EVENTS_PER_TICK                                                                       \
    256 /* promotions and tier evictions between two heartbeats; more are told as a count */

struct ptier_daemon {
    ptier_service service;
    ptier_gate gate;
    ptier_auth *auth;
    ptier_handshakes *handshakes;
    nng_tls_config *tls, *probe_tls;
    ptier_self_probe *probe;
    ptier_journal *journal;
    ptier_cache *cache;
    ptier_publisher *publisher;
    ptier_rpc *rpc;
    int64_t drain_ms;
};

/* Keeps what Health.Check says up to date, and passes the event on. */
static void
on_tier_event(void *context, const ptier_tier_event *event)
{
    ptier_daemon *daemon = context;
    unsigned bit = 1u << event->tier;
    if (event->type == PTIER_EVENT_TIER_DEGRADED)
        atomic_fetch_or(&daemon->service.degraded_tiers, bit);
    else if (event->type == PTIER_EVENT_TIER_RECOVERED)
        atomic_fetch_and(&daemon->service.degraded_tiers, ~bit);
    ptier_journal_on_tier_event(daemon->journal, event);
}

/* The directory itself is the cache's to make; here are the ones above it. */
static ptier_status
make_parents(const char *directory, ptier_error *error)
{
    char *path = strdup(directory);
    if (!path)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    ptier_status status = PTIER_OK;
    for (char *slash = strchr(path + 1, '/'); slash && status == PTIER_OK;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(path, 0755) != 0 && errno != EEXIST)
            status =
                ptier_fail(error, errno == EACCES ? PTIER_PERMISSION_DENIED : PTIER_UNAVAILABLE,
                           "cannot make the directory %s: %s", path, strerror(errno));
        *slash = '/';
    }
    free(path);
    return status;
}

static ptier_status
open_cache(ptier_daemon *daemon, const ptier_config *config, ptier_log *log, ptier_error *error)
{
    ptier_cache_options options;
    ptier_cache_options_init(&options);
    options.data_dir = config->l2_enabled || config->l3_enabled ? config->data_dir : NULL;
    options.l1_enabled = config->l1_enabled;
    options.l2_enabled = config->l2_enabled;
    options.l3_enabled = config->l3_enabled;
    options.l1_entries = config->l1_entries;
    options.l1_bytes = config->l1_bytes;
    options.l1_eviction = config->l1_policy;
    options.l2_entries = config->l2_entries;
    options.l3_entries = config->l3_entries;
    options.log_max_bytes = config->log_max_bytes;
    options.default_ttl_ms = config->default_ttl_ms;
    options.source_ttls = config->source_ttls;
    options.source_ttl_count = config->source_ttl_count;
    options.ttl_jitter = (uint32_t)config->ttl_jitter;
    options.failure_threshold = (uint32_t)config->failure_threshold;
    options.health_quarantine_ms = config->health_quarantine_ms;
    options.durability = config->durability;
    options.encryption_key = config->encryption_key;
    options.previous_keys = (const char *const *)config->previous_keys.items;
    options.previous_key_count = config->previous_keys.count;
    options.on_log = ptier_log_from_cache;
    options.log_context = log;
    options.on_change = ptier_journal_on_change;
    options.change_context = daemon->journal;
    options.on_tier_event = on_tier_event;
    options.tier_event_context = daemon;
    ptier_status status = options.data_dir ? make_parents(options.data_dir, error) : PTIER_OK;
    if (status == PTIER_OK)
        status = ptier_cache_open(&options, &daemon->cache, error);
    /* Options were checked before: what is wrong is in a file. */
    return status == PTIER_INVALID_ARGUMENT ? PTIER_FAILED_PRECONDITION : status;
}

/* Before anything is opened or made, and those for calls first: the other one is mostly derived. */
static ptier_status
prepare_addresses(const ptier_config *config, ptier_error *error)
{
    ptier_status status = PTIER_OK;
    for (size_t i = 0; i < config->listen.count && status == PTIER_OK; i++)
        status = ptier_listen_prepare(config->listen.items[i], config->listen_is_default, error);
    for (size_t i = 0; i < config->events.count && status == PTIER_OK; i++)
        status = ptier_listen_prepare(config->events.items[i], false, error);
    return status;
}

static ptier_status
open_security(ptier_daemon *daemon, const ptier_config *config, ptier_log *log, ptier_error *error)
{
    ptier_auth_options options = {
        .token_file = config->token_file,
        .failed_logins = (uint32_t)config->failed_logins,
        .rotator_users = (const char *const *)config->rotator_users.items,
        .rotator_user_count = config->rotator_users.count,
        .rotator_group = config->rotator_group,
    };
    ptier_status status = ptier_auth_create(&options, log, &daemon->auth, error);
    if (status == PTIER_OK && config->tls_cert)
        status = ptier_tls_server(config->tls_cert, config->tls_key, config->tls_ca, &daemon->tls,
                                  error);
    if (status == PTIER_OK && daemon->tls && config->self_probe_ms != 0)
        status = ptier_self_probe_tls(daemon->tls, config->tls_ca, &daemon->probe_tls, error);
    if (status == PTIER_OK)
        status = ptier_handshakes_create(config->handshake_timeout_ms, &daemon->handshakes, error);
    ptier_gate_init(&daemon->gate, config->max_connections, daemon->auth, daemon->handshakes, log);
    return status == PTIER_NOT_FOUND ? PTIER_INVALID_ARGUMENT : status; /* an option names it */
}

static void
check_sockets(const ptier_daemon *daemon, const ptier_config *config)
{
    const ptier_text_list *lists[] = {&config->listen, &config->events};
    for (size_t l = 0; l < 2; l++)
        for (size_t i = 0; i < lists[l]->count; i++)
            if (ptier_door_of(lists[l]->items[i]) == PTIER_DOOR_IPC)
                ptier_auth_check_socket(daemon->auth, lists[l]->items[i]);
}

/* Events first: whoever asks by a call where they are finds them. */
static ptier_status
open_doors(ptier_daemon *daemon, const ptier_config *config, ptier_error *error)
{
    ptier_service *service = &daemon->service;
    ptier_listen_options options = {
        .tls = daemon->tls,
        .socket_mode = (unsigned)strtoul(config->socket_mode, NULL, 8),
        .socket_group = ptier_auth_socket_group(daemon->auth),
        .directory_group = config->listen_is_default,
    };
    ptier_self_probe_options probe = {
        .interval_ms = config->self_probe_ms, .listen = &options, .tls = daemon->probe_tls};
    ptier_status status = ptier_self_probe_create(service, &probe, &daemon->probe, error);
    service->self_probe = daemon->probe;
    for (size_t i = 0; i < config->events.count; i++)
        service->event_urls[ptier_door_of(config->events.items[i])] = config->events.items[i];
    if (status == PTIER_OK && config->events.count)
        status = ptier_publisher_start(service, (const char *const *)config->events.items,
                                       config->events.count, &options, &daemon->publisher, error);
    if (status == PTIER_OK)
        status = ptier_rpc_start(service, (const char *const *)config->listen.items,
                                 config->listen.count, &options, &daemon->rpc, error);
    if (status == PTIER_OK)
        status = ptier_self_probe_start(daemon->probe, error);
    if (status == PTIER_OK)
        check_sockets(daemon, config);
    return status;
}

ptier_status
ptier_daemon_start(const ptier_config *config, ptier_log *log, void (*on_shutdown)(void *context),
                   void *shutdown_context, ptier_daemon **daemon, ptier_error *error)
{
    ptier_daemon *made = calloc(1, sizeof *made);
    if (!made)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    made->drain_ms = config->drain_timeout_ms;
    ptier_status status = open_security(made, config, log, error); /* also makes the gate */
    if (status == PTIER_OK)
        status = prepare_addresses(config, error);
    if (status == PTIER_OK)
        status = ptier_journal_create((size_t)config->journal_events, TIER_EVENTS_PER_TICK,
                                      &made->journal, error);
    if (status == PTIER_OK)
        status = open_cache(made, config, log, error);
    if (status == PTIER_OK) {
        ptier_service *service = &made->service;
        service->cache = made->cache;
        service->journal = made->journal;
        service->log = log;
        service->gate = &made->gate;
        service->auth = made->auth;
        service->enabled_tiers = (config->l1_enabled ? 1u << PTIER_TIER_L1 : 0) |
                                 (config->l2_enabled ? 1u << PTIER_TIER_L2 : 0) |
                                 (config->l3_enabled ? 1u << PTIER_TIER_L3 : 0);
        ptier_cache_boot_id(made->cache, service->boot_id);
        service->heartbeat_ms = (uint32_t)config->heartbeat_ms;
        service->failure_threshold = (uint32_t)config->failure_threshold;
        service->default_ttl_ms = config->default_ttl_ms;
        service->on_shutdown = on_shutdown;
        service->shutdown_context = shutdown_context;
        *daemon = made;
        status = open_doors(made, config, error);
    }
    if (status != PTIER_OK) {
        (void)ptier_daemon_stop(made); /* the first failure is the one to tell */
        *daemon = NULL;
    }
    return status;
}

ptier_status
ptier_daemon_stop(ptier_daemon *daemon)
{
    if (!daemon)
        return PTIER_OK;
    ptier_self_probe_stop(daemon->probe);
    ptier_rpc_stop(daemon->rpc, daemon->drain_ms);
    ptier_publisher_stop(daemon->publisher);
    ptier_status status = ptier_cache_close(daemon->cache);
    ptier_journal_destroy(daemon->journal);
    ptier_self_probe_destroy(daemon->probe);
    if (daemon->tls)
        nng_tls_config_free(daemon->tls);
    if (daemon->probe_tls)
        nng_tls_config_free(daemon->probe_tls);
    ptier_gate_fini(&daemon->gate);
    ptier_handshakes_destroy(daemon->handshakes);
    ptier_auth_destroy(daemon->auth);
    free(daemon);
    return status;
}

void
ptier_daemon_tend(ptier_daemon *daemon, bool reload)
{
    ptier_auth_reload(daemon->auth, reload);
    unsigned cut = ptier_handshakes_reap(daemon->handshakes, ptier_monotonic_ms());
    if (cut)
        ptier_log_write(daemon->service.log, PTIER_LOG_WARN, "handshakes_cut",
                        "%u connections took too long for their handshake, or were too many", cut);
}

void
ptier_daemon_accepted(ptier_daemon *daemon, int fd)
{
    ptier_handshakes_begin(daemon->handshakes, fd, ptier_monotonic_ms());
}

ptier_cache *
ptier_daemon_cache(ptier_daemon *daemon)
{
    return daemon->cache;
}
