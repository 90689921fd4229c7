/* See self_probe.h. */
#include "self_probe.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "self_probe_wire.h"
#include "unix_door.h"

#define FAILURES_MAX    3    /* in a row: then it is told, and the address opened anew */
#define PATIENCE_MIN_MS 2000 /* of one try: the interval, within these bounds; */
#define PATIENCE_MAX_MS 5000 /* for events a heartbeat's interval more */
#define CANCEL_AGAIN_MS 5
#define REOPEN_TRIES    20 /* nng lets go of a port a moment after it closed the listener */
#define REOPEN_PAUSE_MS 50

typedef struct endpoint {
    ptier_probed it;
    bool open;         /* nng's listener is */
    char *target;      /* owned: what to dial */
    unsigned failures; /* in a row */
} endpoint;

struct ptier_self_probe {
    ptier_service *service;
    ptier_listen_options listen;
    nng_tls_config *tls;
    int64_t interval_ms;
    endpoint *endpoints;
    size_t count;
    ptier_probe_wire wire;
    pthread_t thread;
    bool started;

    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t changed;
    bool stopping, ended;
};

static struct timespec
time_in(int64_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    return until;
}

/* False: it is to stop. */
static bool
wait_for(ptier_self_probe *probe, int64_t ms)
{
    struct timespec until = time_in(ms);
    pthread_mutex_lock(&probe->lock);
    while (!probe->stopping)
        if (pthread_cond_timedwait(&probe->changed, &probe->lock, &until) == ETIMEDOUT)
            break;
    bool go_on = !probe->stopping;
    pthread_mutex_unlock(&probe->lock);
    return go_on;
}

/* ---- opening anew ---- */

/* Who is connected through an old one of nng's loses the connection: there is no other way to end
 * it. */
static ptier_status
reopen(ptier_self_probe *probe, endpoint *one, ptier_error *error)
{
    if (ptier_listen_is_taken(one->it.url))
        return ptier_fail(error, PTIER_ALREADY_EXISTS, "another process listens there now");
    if (one->it.unix_door)
        return ptier_unix_door_reopen(one->it.unix_door, one->it.url, &probe->listen, error);
    if (one->open)
        (void)nng_listener_close(one->it.listener); /* may have ended by itself */
    one->open = false;
    for (int i = 0;; i++) {
        ptier_status status =
            ptier_listen(one->it.socket, one->it.url, &probe->listen, &one->it.listener, error);
        one->open = status == PTIER_OK;
        if (status != PTIER_ALREADY_EXISTS || i == REOPEN_TRIES ||
            !wait_for(probe, REOPEN_PAUSE_MS))
            return status;
    }
}

static void
heal(ptier_self_probe *probe, endpoint *one)
{
    ptier_error error;
    if (reopen(probe, one, &error) == PTIER_OK)
        ptier_log_write(probe->service->log, PTIER_LOG_WARN, "endpoint_reopened",
                        "%s was closed and opened anew", one->it.url);
    else
        ptier_log_write(probe->service->log, PTIER_LOG_ERROR, "endpoint_lost",
                        "%s cannot be opened anew: %s", one->it.url, error.message);
}

/* ---- trying ---- */

static const char *
kind_of(const endpoint *one)
{
    return one->it.events ? "events" : "calls";
}

/* Whether a try that came so far says that the address is well. Where nobody is let in, or all
 * connections are taken, SP's handshake is all that there is to see. */
static bool
is_well(const ptier_self_probe *probe, const endpoint *one, ptier_probe_stage stage)
{
    if (stage == PTIER_PROBE_DONE)
        return true;
    return stage == PTIER_PROBE_SHAKEN && (ptier_gate_is_crowded(probe->service->gate) ||
                                           (ptier_door_of(one->it.url) != PTIER_DOOR_IPC &&
                                            !ptier_auth_has_tokens(probe->service->auth)));
}

static void
note(ptier_self_probe *probe, endpoint *one, ptier_probe_stage stage, const char *why)
{
    ptier_log *log = probe->service->log;
    if (is_well(probe, one, stage)) {
        if (one->failures >= FAILURES_MAX)
            ptier_log_write(log, PTIER_LOG_WARN, "endpoint_recovered", "%s (%s) answers again",
                            one->it.url, kind_of(one));
        one->failures = 0;
        return;
    }
    one->failures++;
    ptier_log_write(log, PTIER_LOG_DEBUG, "self_probe", "%s (%s): %s", one->it.url, kind_of(one),
                    why);
    if (one->failures % FAILURES_MAX != 0)
        return;
    ptier_log_write(log, PTIER_LOG_ERROR, "endpoint_dead",
                    "%s (%s) did not answer the daemon's own calls, %u in a row: %s", one->it.url,
                    kind_of(one), one->failures, why);
    heal(probe, one);
}

static int64_t
patience_for(const ptier_self_probe *probe, const endpoint *one)
{
    int64_t patience = probe->interval_ms;
    if (patience < PATIENCE_MIN_MS)
        patience = PATIENCE_MIN_MS;
    if (patience > PATIENCE_MAX_MS)
        patience = PATIENCE_MAX_MS;
    return patience + (one->it.events ? probe->service->heartbeat_ms : 0);
}

static void
tell_health(const ptier_self_probe *probe)
{
    unsigned failing = 0;
    for (size_t i = 0; i < probe->count; i++)
        if (probe->endpoints[i].failures >= FAILURES_MAX)
            failing |= probe->endpoints[i].it.events ? PTIER_FAILING_EVENTS : PTIER_FAILING_CALLS;
    atomic_store(&probe->service->failing_endpoints, failing);
}

static void *
probe_main(void *argument)
{
    ptier_self_probe *probe = argument;
    while (wait_for(probe, probe->interval_ms)) {
        for (size_t i = 0; i < probe->count && !atomic_load(&probe->wire.cancelled); i++) {
            endpoint *one = &probe->endpoints[i];
            const char *why = "";
            ptier_probe_stage stage =
                ptier_probe_wire_try(&probe->wire, one->target, probe->tls, one->it.events,
                                     probe->service->boot_id, patience_for(probe, one), &why);
            if (!atomic_load(&probe->wire.cancelled))
                note(probe, one, stage, why);
            tell_health(probe);
        }
    }
    pthread_mutex_lock(&probe->lock);
    probe->ended = true;
    pthread_cond_broadcast(&probe->changed);
    pthread_mutex_unlock(&probe->lock);
    return NULL;
}

/* ---- life ---- */

ptier_status
ptier_self_probe_create(ptier_service *service, const ptier_self_probe_options *options,
                        ptier_self_probe **made, ptier_error *error)
{
    ptier_self_probe *probe = calloc(1, sizeof *probe);
    if (!probe || !ptier_probe_wire_init(&probe->wire)) {
        free(probe);
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    }
    probe->service = service;
    probe->listen = *options->listen;
    probe->tls = options->tls;
    probe->interval_ms = options->interval_ms;
    pthread_mutex_init(&probe->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&probe->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    *made = probe;
    return PTIER_OK;
}

/* An address that stands for all of them cannot be dialled everywhere: loopback is one of them. */
static char *
target_of(const char *url)
{
    static const char *const all[][2] = {
        {"://*:", "://127.0.0.1:"}, {"://0.0.0.0:", "://127.0.0.1:"}, {"://[::]:", "://[::1]:"}};
    char *target = NULL;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const char *found = strstr(url, all[i][0]);
        if (found && strncmp(url, "ipc:", 4) != 0)
            return asprintf(&target, "%.*s%s%s", (int)(found - url), url, all[i][1],
                            found + strlen(all[i][0])) < 0
                       ? NULL
                       : target;
    }
    return strdup(url);
}

ptier_status
ptier_self_probe_add(ptier_self_probe *probe, const ptier_probed *probed, ptier_error *error)
{
    if (!probe)
        return PTIER_OK;
    endpoint *grown = realloc(probe->endpoints, (probe->count + 1) * sizeof *grown);
    if (grown)
        probe->endpoints = grown;
    char *target = grown ? target_of(probed->url) : NULL;
    if (!target)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    grown[probe->count++] = (endpoint){.it = *probed, .open = true, .target = target};
    return PTIER_OK;
}

ptier_status
ptier_self_probe_start(ptier_self_probe *probe, ptier_error *error)
{
    if (probe->interval_ms == 0)
        return PTIER_OK;
    if (pthread_create(&probe->thread, NULL, probe_main, probe) != 0)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "cannot start the self-probe");
    probe->started = true;
    return PTIER_OK;
}

void
ptier_self_probe_stop(ptier_self_probe *probe)
{
    if (!probe || !probe->started)
        return;
    pthread_mutex_lock(&probe->lock);
    probe->stopping = true;
    pthread_cond_broadcast(&probe->changed);
    while (!probe->ended) {
        struct timespec again = time_in(CANCEL_AGAIN_MS);
        pthread_mutex_unlock(&probe->lock);
        ptier_probe_wire_cancel(&probe->wire);
        pthread_mutex_lock(&probe->lock);
        if (!probe->ended)
            (void)pthread_cond_timedwait(&probe->changed, &probe->lock, &again); /* or again */
    }
    pthread_mutex_unlock(&probe->lock);
    pthread_join(probe->thread, NULL);
    probe->started = false;
}

void
ptier_self_probe_destroy(ptier_self_probe *probe)
{
    if (!probe)
        return;
    for (size_t i = 0; i < probe->count; i++)
        free(probe->endpoints[i].target);
    free(probe->endpoints);
    ptier_probe_wire_fini(&probe->wire);
    pthread_cond_destroy(&probe->changed);
    pthread_mutex_destroy(&probe->lock);
    free(probe);
}
