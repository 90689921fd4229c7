/*
 * A proxy rotator that lives from proxytier: worker threads send each request through another proxy
 * of a small pool, report how it went, and forget a proxy when the daemon's event says that it was
 * evicted. Before each request the proxy's record is looked up in the SDK's near cache, so that
 * changed credentials are used from then on; that takes no call.
 *
 * Threads: main refills the pool and prints; `--threads` workers make requests; the SDK's
 * subscription thread calls on_event and on_state. They share the pool (it has a lock) and atomic
 * counters.
 */
#include "http.h"
#include "pool.h"

#include <inttypes.h>
#include <proxytier/client.h>

#include <popt.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#define THREADS_MAX 64

typedef struct rotator {
    /* options */
    char *url, *target, *source;
    int seconds, threads, proxies, pause_ms, timeout_ms, allow_remote;
    /* state */
    ptier_client *client;
    proxy_pool pool;
    atomic_bool stop, following, refill_now;
    atomic_ulong requests, failed, evictions, report_errors;
} rotator;

static volatile sig_atomic_t interrupted;

static void
on_signal(int signal)
{
    (void)signal;
    interrupted = 1;
}

static void
sleep_ms(long ms)
{
    struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
    (void)nanosleep(&pause, NULL); /* woken early by a signal: that is the point of short pauses */
}

/* ---- events ---- */

static void
on_removed(rotator *r, const ptier_event *event)
{
    /* The cache serves others too: what is not in our pool concerns nobody here. */
    if (!pool_drop(&r->pool, event->record.key, event->reason))
        return;
    atomic_fetch_add(&r->evictions, 1);
    atomic_store(&r->refill_now, true);
    printf("event: REMOVED/%s %s (revision %llu): dropped, %zu proxies left\n",
           ptier_reason_name(event->reason), event->record.url, (unsigned long long)event->revision,
           pool_size(&r->pool));
}

static void
on_event(void *context, const ptier_event *event)
{
    rotator *r = context;
    switch (event->type) {
    case PTIER_EVENT_REMOVED:
        on_removed(r, event);
        break;
    case PTIER_EVENT_CLEARED:
        printf("event: CLEARED: %zu proxies dropped\n",
               pool_drop(&r->pool, NULL, PTIER_REASON_CLEARED));
        break;
    case PTIER_EVENT_CREATED:
        atomic_store(&r->refill_now, true);
        break;
    default:
        break; /* changes of a record that we need not know */
    }
}

static void
on_state(void *context, ptier_subscription_state state)
{
    rotator *r = context;
    if (state == PTIER_SUBSCRIPTION_LOST) {
        printf("events: lost touch with the daemon; going on with the %zu proxies at hand\n",
               pool_size(&r->pool));
        return;
    }
    if (state == PTIER_SUBSCRIPTION_RESYNC) /* removals may have been missed: start anew */
        printf("events: resync: %zu proxies dropped\n",
               pool_drop(&r->pool, NULL, PTIER_REASON_NONE));
    atomic_store(&r->following, true);
    atomic_store(&r->refill_now, true);
}

/* ---- requests ---- */

static void
report(rotator *r, const pool_proxy *proxy, bool ok, const http_result *http)
{
    ptier_report report = {.key = proxy->key,
                           .outcome = ok ? PTIER_REPORT_OK : PTIER_REPORT_FAILED,
                           .latency_ms = ok ? http->latency_ms : 0,
                           .error = ok ? NULL : http->error};
    ptier_report_results results;
    ptier_error error;
    if (ptier_report_health(r->client, &report, 1, NULL, &results, &error) != PTIER_OK) {
        if (atomic_fetch_add(&r->report_errors, 1) == 0)
            printf("report: %s\n", error.message);
        return;
    }
    /* result->removed would tell us now. We wait for the event, as every other rotator of this
     * daemon has to. */
    const ptier_report_result *result = results.items;
    if (!ok && result->found)
        printf("failure %u of %s: %s%s\n", result->failure_count, proxy->url, http->error,
               result->removed ? "; evicted" : "");
    ptier_report_results_free(&results);
}

/* The credentials as they are now. False: it is gone, and the event is on its way. */
static bool
refresh(rotator *r, pool_proxy *proxy)
{
    ptier_records found;
    ptier_status status = ptier_get(r->client, proxy->key, &found, NULL);
    if (status != PTIER_OK)
        return status != PTIER_NOT_FOUND; /* no daemon: go on with what is at hand */
    const ptier_record *record = found.records;
    (void)snprintf(proxy->username, sizeof proxy->username, "%s",
                   record->username ? record->username : "");
    (void)snprintf(proxy->password, sizeof proxy->password, "%s",
                   record->password ? record->password : "");
    ptier_records_free(&found);
    return true;
}

static void *
work(void *context)
{
    rotator *r = context;
    pool_proxy proxy;
    http_result http;
    while (!atomic_load(&r->stop)) {
        if (!pool_next(&r->pool, &proxy) || !refresh(r, &proxy)) {
            sleep_ms(20);
            continue;
        }
        bool ok = http_get_via(proxy.url, proxy.username[0] ? proxy.username : NULL, proxy.password,
                               r->target, r->timeout_ms, &http);
        atomic_fetch_add(&r->requests, 1);
        atomic_fetch_add(&r->failed, !ok);
        pool_count_use(&r->pool, proxy.key, ok);
        report(r, &proxy, ok, &http);
        sleep_ms(r->pause_ms);
    }
    explicit_bzero(&proxy, sizeof proxy);
    return NULL;
}

/* ---- main ---- */

static void
refill(rotator *r)
{
    ptier_error error;
    ptier_status status = pool_refill(&r->pool, r->client, &error);
    if (status != PTIER_OK && status != PTIER_NOT_FOUND)
        printf("pick: %s\n", error.message);
}

/* One line a second until told to stop. The pool is refilled when an event says that it may help,
 * and every 5 s. */
static void
supervise(rotator *r)
{
    unsigned long before = 0;
    for (long tick = 0; !interrupted && (r->seconds == 0 || tick < r->seconds * 20L); tick++) {
        bool due = atomic_exchange(&r->refill_now, false) || tick % 100 == 0;
        if (due && atomic_load(&r->following))
            refill(r);
        sleep_ms(50);
        if (tick % 20 != 19)
            continue;
        unsigned long requests = atomic_load(&r->requests);
        printf("%3ld s  requests %5lu (+%lu)  failed %lu  proxies %zu  picks %lu  evictions "
               "received %lu\n",
               (tick + 1) / 20, requests, requests - before, atomic_load(&r->failed),
               pool_size(&r->pool), r->pool.picks, atomic_load(&r->evictions));
        before = requests;
    }
}

static void
print_summary(rotator *r)
{
    printf("rotator: %lu requests, %lu failed, %lu evictions received, %lu proxies came back "
           "after their eviction\n",
           atomic_load(&r->requests), atomic_load(&r->failed), atomic_load(&r->evictions),
           r->pool.came_back);
    ptier_near_statistics near;
    if (ptier_get_near_statistics(r->client, &near, NULL) == PTIER_OK)
        printf("near cache: %" PRIu64 " look-ups without a call, %" PRIu64 " with one\n",
               near.hits + near.absent_hits, near.misses + near.declined);
    for (size_t i = 0; i < POOL_SLOTS; i++) {
        const pool_slot *slot = &r->pool.slots[i];
        if (slot->state == POOL_LIVE || slot->state == POOL_GONE)
            printf("  %-28s %6lu requests %5lu failed  %s\n", slot->proxy.url, slot->used,
                   slot->failed,
                   slot->state == POOL_LIVE ? "in use" : ptier_reason_name(slot->reason));
        if (slot->state == POOL_REFUSED)
            printf("  %-28s never contacted: not on this machine (--allow-remote)\n",
                   slot->proxy.url);
    }
}

static int
run(rotator *r)
{
    pthread_t threads[THREADS_MAX];
    int started = 0;
    ptier_subscription *subscription = NULL;
    ptier_subscription_options events;
    ptier_error error;
    ptier_subscription_options_init(&events);
    events.on_event = on_event;
    events.on_state = on_state;
    events.context = r;
    /* Events first, picks after CONNECTED: otherwise a removal between the two would never reach
     * us. */
    if (ptier_subscribe(r->client, &events, &subscription, &error) != PTIER_OK) {
        fprintf(stderr, "rotator: %s\n", error.message);
        return EXIT_FAILURE;
    }
    while (started < r->threads && pthread_create(&threads[started], NULL, work, r) == 0)
        started++;
    supervise(r);
    atomic_store(&r->stop, true);
    for (int i = 0; i < started; i++)
        (void)pthread_join(threads[i], NULL); /* cannot fail: each was started and is joined once */
    ptier_subscription_close(subscription);
    print_summary(r);
    unsigned long good = atomic_load(&r->requests) - atomic_load(&r->failed);
    return good > 0 && atomic_load(&r->report_errors) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static bool
parse_options(rotator *r, int argc, const char **argv)
{
    struct poptOption table[] = {
        {"url", 0, POPT_ARG_STRING, &r->url, 0, "the daemon (PROXYTIER_URL)", "URL"},
        {"target", 0, POPT_ARG_STRING, &r->target, 0, "what to fetch, http:// only", "URL"},
        {"source", 0, POPT_ARG_STRING, &r->source, 0, "use proxies of this source only", "NAME"},
        {"seconds", 0, POPT_ARG_INT, &r->seconds, 0, "end by itself; 0: at SIGINT", "N"},
        {"threads", 0, POPT_ARG_INT, &r->threads, 0, "requests at once (4)", "N"},
        {"proxies", 0, POPT_ARG_INT, &r->proxies, 0, "proxies to hold (4)", "N"},
        {"pause", 0, POPT_ARG_INT, &r->pause_ms, 0, "pause between requests (50)", "MS"},
        {"timeout", 0, POPT_ARG_INT, &r->timeout_ms, 0, "of a request (3,000)", "MS"},
        {"allow-remote", 0, POPT_ARG_NONE, &r->allow_remote, 0,
         "also use proxies that are not on this machine", NULL},
        POPT_AUTOHELP POPT_TABLEEND};
    poptContext context = poptGetContext("rotator", argc, argv, table, 0);
    int code = poptGetNextOpt(context);
    const char *rest = poptGetArg(context);
    bool ok = code == -1 && !rest && r->target && r->threads > 0 && r->threads <= THREADS_MAX &&
              r->proxies > 0 && r->seconds >= 0 && r->pause_ms >= 0 && r->timeout_ms > 0;
    if (code < -1)
        fprintf(stderr, "rotator: %s: %s\n", poptBadOption(context, 0), poptStrerror(code));
    else if (rest)
        fprintf(stderr, "rotator: unexpected argument %s; see --help\n", rest);
    else if (!ok)
        fprintf(stderr, "rotator: --target URL is needed, and numbers in range; see --help\n");
    poptFreeContext(context);
    return ok;
}

int
main(int argc, const char **argv)
{
    static rotator r = {.threads = 4, .proxies = 4, .pause_ms = 50, .timeout_ms = 3000};
    struct sigaction action = {.sa_handler = on_signal};
    ptier_client_options options;
    ptier_near_cache_options near;
    ptier_error error;
    int code = EXIT_FAILURE;
    setvbuf(stdout, NULL, _IOLBF, 0);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (!parse_options(&r, argc, argv))
        return 2;
    pool_init(&r.pool, (size_t)r.proxies, r.source, r.allow_remote);
    ptier_client_options_init(&options);
    options.url = r.url;
    ptier_near_cache_options_init(&near);
    near.on_stale = PTIER_ON_STALE_SERVE; /* a rotator rather goes on */
    options.near_cache = &near;
    if (ptier_client_open(&options, &r.client, &error) == PTIER_OK) {
        code = run(&r);
        ptier_client_close(r.client);
    } else {
        fprintf(stderr, "rotator: %s\n", error.message);
    }
    pool_fini(&r.pool);
    free(r.url);
    free(r.target);
    free(r.source);
    return code;
}
