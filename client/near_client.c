/* See near_client.h: life cycle, what the daemon says, and the thread. Reads: near_reads.c. */
#include "near_client_internal.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "call.h"
#include "monotonic.h"
#include "proxytier/v1/info.pb-c.h"
#include "transport.h"

#define REPORT_MS    1000 /* between two reports of hits */
#define REPORT_KEYS  1000 /* so many are reported in one call, and earlier, ... */
#define PAUSE_MS     250  /* ... but not at once: reports take time from those who hit */
#define CALL_MS      1000 /* of the thread's own calls */
#define ENTRIES      10000
#define BYTES        ((size_t)64 << 20)
#define ABSENT       10000
#define ABSENT_MS    5000
#define STALENESS_MS 1000

void
ptier_near_cache_options_init(ptier_near_cache_options *options)
{
    *options = (ptier_near_cache_options){.size = sizeof *options,
                                          .entries = ENTRIES,
                                          .bytes = BYTES,
                                          .negative_entries = ABSENT,
                                          .negative_ttl_ms = ABSENT_MS,
                                          .max_staleness_ms = STALENESS_MS,
                                          .on_stale = PTIER_ON_STALE_ASK};
}

/* It goes on while the machine sleeps, as the daemon's does, and nobody sets it. */
int64_t
ptier_near_now(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_BOOTTIME, &now); /* cannot fail for this clock */
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* ---- what the daemon says ---- */

static void
on_event(void *context, int stream, const Proxytier__V1__Event *wire)
{
    ptier_near_client *near = context;
    ptier_event event = {.type = (ptier_event_type)wire->type, .revision = wire->revision};
    if (stream != PROXYTIER__V1__STREAM__STREAM_CHANGES)
        return;
    ptier_record_init(&event.record);
    event.record.key = wire->key;
    const Proxytier__V1__Proxy *proxy = wire->proxy;
    if (proxy && (int)proxy->health > 0 && (int)proxy->health <= PTIER_HEALTH_UNKNOWN &&
        proxy->failures_case == PROXYTIER__V1__PROXY__FAILURES_FAILURE_COUNT) {
        event.record.health = (ptier_health)proxy->health;
        event.record.failure_count = proxy->failure_count;
        event.record.needs_revalidation = proxy->needs_revalidation;
    }
    ptier_near_event(near->cache, &event);
}

/* After the events of its batch; ids were checked by the feed. */
static void
on_batch(void *context, const Proxytier__V1__Heartbeat *heartbeat, int64_t received_ns,
         bool contiguous)
{
    ptier_near_client *near = context;
    ptier_near_beat beat = {.daemon_ms = heartbeat->boottime_ms,
                            .revision = heartbeat->revision,
                            .contiguous = contiguous};
    (void)received_ns; /* how old it is does not follow from when it came */
    memcpy(beat.boot_id, heartbeat->boot_id.data, sizeof beat.boot_id);
    memcpy(beat.store_id, heartbeat->store_id.data, sizeof beat.store_id);
    ptier_near_heartbeat(near->cache, &beat, ptier_near_now());
}

static void
on_resync(void *context, const ptier_link_view *view)
{
    ptier_near_client *near = context;
    ptier_near_resync(near->cache, view->revision);
}

/* The heartbeat behind it, if we may have that, begins anew: what fills from then on was asked for
 * under the new rights. */
static void
on_rights(void *context)
{
    ptier_near_client *near = context;
    ptier_near_resync(near->cache, 0);
}

void
ptier_near_client_told(ptier_near_client *near, const ProtobufCBinaryData *boot_id, int64_t sent,
                       int64_t daemon_ms)
{
    if (near && boot_id->len == PTIER_NEAR_ID_BYTES && daemon_ms > 0)
        ptier_near_reply(near->cache, boot_id->data, sent, ptier_near_now(), daemon_ms);
}

/* ---- own writes ---- */

void
ptier_near_client_wrote(ptier_near_client *near, const char *key, uint64_t revision)
{
    if (near && key && revision)
        ptier_near_wrote(near->cache, key, revision);
}

void
ptier_near_client_forget(ptier_near_client *near, const char *key)
{
    if (near && key)
        ptier_near_forget(near->cache, key);
}

void
ptier_near_client_cleared(ptier_near_client *near, uint64_t revision)
{
    if (near)
        ptier_near_cleared(near->cache, revision);
}

/* ---- the thread: reports of hits, and a call now and then ---- */

/* Moves references to the request's messages, for at most as long as `uses` is not released. */
static bool
send_report(ptier_near_client *near, const ptier_near_use *uses, size_t count)
{
    Proxytier__V1__ReportAccessRequest request = PROXYTIER__V1__REPORT_ACCESS_REQUEST__INIT;
    Proxytier__V1__Access messages[REPORT_KEYS], *list[REPORT_KEYS];
    Proxytier__V1__ReportAccessResponse *reply;
    ptier_arena *arena;
    int64_t now = ptier_near_now();
    for (size_t i = 0; i < count; i++) {
        proxytier__v1__access__init(&messages[i]);
        messages[i].key = (char *)(uintptr_t)uses[i].record->record.key;
        messages[i].count = uses[i].hits;
        messages[i].last_use_ms_ago = (uint64_t)((now - uses[i].last_hit) / PTIER_NEAR_MS);
        list[i] = &messages[i];
    }
    request.accesses = list;
    request.n_accesses = count;
    ptier_call call = {.method = PTIER_METHOD_REPORT_ACCESS,
                       .request = &request.base,
                       .reply_type = &proxytier__v1__report_access_response__descriptor,
                       .timeout_ms = CALL_MS};
    if (ptier_call_perform(near->client, &call, &arena, &reply, NULL) != PTIER_OK)
        return false;
    ptier_arena_destroy(arena);
    return true;
}

static void
report_hits(ptier_near_client *near)
{
    ptier_near_use uses[REPORT_KEYS];
    size_t count, left = ptier_near_uncollected(near->cache); /* what is hit meanwhile waits */
    for (; left > 0; left -= count) {
        count = ptier_near_collect(near->cache, uses, left < REPORT_KEYS ? left : REPORT_KEYS);
        if (count == 0)
            return;
        bool sent = send_report(near, uses, count);
        for (size_t i = 0; i < count; i++) {
            if (!sent)
                atomic_fetch_add_explicit(&near->unreported, uses[i].hits, memory_order_relaxed);
            ptier_near_record_release(uses[i].record);
        }
    }
}

/* Any call does: its reply tells the daemon's clock. */
static void
compare_clocks(ptier_near_client *near)
{
    Proxytier__V1__CheckRequest request = PROXYTIER__V1__CHECK_REQUEST__INIT;
    Proxytier__V1__CheckResponse *reply;
    ptier_arena *arena;
    ptier_call call = {.method = PTIER_METHOD_CHECK,
                       .request = &request.base,
                       .reply_type = &proxytier__v1__check_response__descriptor,
                       .timeout_ms = CALL_MS};
    if (ptier_call_perform(near->client, &call, &arena, &reply, NULL) == PTIER_OK)
        ptier_arena_destroy(arena);
}

static int64_t
wait_until(ptier_near_client *near, int64_t begun)
{
    return begun + (atomic_load(&near->nudged) ? PAUSE_MS : REPORT_MS);
}

/* False: stop. */
static bool
wait_for_work(ptier_near_client *near)
{
    const int64_t begun = ptier_monotonic_ms();
    pthread_mutex_lock(&near->lock);
    while (!near->stopping && ptier_monotonic_ms() < wait_until(near, begun))
        ptier_monotonic_wait(&near->changed, &near->lock, wait_until(near, begun));
    bool stopping = near->stopping;
    pthread_mutex_unlock(&near->lock);
    atomic_store(&near->nudged, false);
    return !stopping;
}

static void *
run(void *argument)
{
    ptier_near_client *near = argument;
    do {
        report_hits(near);
        if (ptier_near_now() >= ptier_near_call_due(near->cache))
            compare_clocks(near);
    } while (wait_for_work(near));
    return NULL;
}

void
ptier_near_client_used(ptier_near_client *near)
{
    if (ptier_near_uncollected(near->cache) < REPORT_KEYS || atomic_load(&near->nudged) ||
        atomic_exchange(&near->nudged, true))
        return;
    pthread_mutex_lock(&near->lock);
    pthread_cond_signal(&near->changed);
    pthread_mutex_unlock(&near->lock);
}

/* ---- life cycle ---- */

static ptier_status
read_options(const ptier_near_cache_options *given, ptier_near_cache_options *options,
             ptier_error *error)
{
    ptier_near_cache_options_init(options);
    if (given->size == 0)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "start the options from ptier_near_cache_options_init");
    memcpy(options, given, given->size < sizeof *options ? given->size : sizeof *options);
    if (options->entries == 0 || options->entries > PTIER_NEAR_ENTRIES_MAX ||
        options->negative_entries > PTIER_NEAR_ENTRIES_MAX || options->bytes == 0)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "near cache: entries from 1 to 2^30, negative entries up to 2^30, and "
                          "bytes for them");
    if (options->max_staleness_ms == 0 || (int)options->on_stale < PTIER_ON_STALE_ASK ||
        options->on_stale > PTIER_ON_STALE_FAIL)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "near cache: max_staleness_ms of at least 1, on_stale of ptier_on_stale");
    return PTIER_OK;
}

static void
free_near(ptier_near_client *near)
{
    ptier_near_destroy(near->cache);
    ptier_flights_fini(&near->flights);
    pthread_cond_destroy(&near->changed);
    pthread_mutex_destroy(&near->lock);
    free(near);
}

static ptier_status
create(ptier_client *client, const ptier_near_cache_options *options, ptier_near_client **result,
       ptier_error *error)
{
    const ptier_near_options cache = {.entries = options->entries,
                                      .bytes = options->bytes,
                                      .absent_entries = options->negative_entries,
                                      .absent_ttl = options->negative_ttl_ms * PTIER_NEAR_MS,
                                      .max_staleness = options->max_staleness_ms * PTIER_NEAR_MS};
    ptier_near_client *near = calloc(1, sizeof *near);
    if (!near)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    if (!ptier_flights_init(&near->flights) || pthread_mutex_init(&near->lock, NULL) != 0 ||
        ptier_monotonic_cond_init(&near->changed) != 0) {
        free(near);
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "cannot make a lock");
    }
    near->client = client;
    near->options = *options;
    near->listener = (ptier_listener){.context = near,
                                      .on_event = on_event,
                                      .on_batch = on_batch,
                                      .on_resync = on_resync,
                                      .on_rights = on_rights};
    ptier_status status = ptier_near_create(&cache, &near->cache, error);
    if (status != PTIER_OK) {
        free_near(near);
        return status;
    }
    *result = near;
    return PTIER_OK;
}

ptier_status
ptier_near_client_open(ptier_client *client, const ptier_near_cache_options *given,
                       ptier_near_client **result, ptier_error *error)
{
    ptier_near_cache_options options;
    ptier_near_client *near = NULL;
    *result = NULL;
    ptier_status status = read_options(given, &options, error);
    if (status == PTIER_OK)
        status = create(client, &options, &near, error);
    if (status != PTIER_OK)
        return status;
    *result = client->near = near; /* before any call of the threads below */
    status = ptier_event_link_join(client->link, &near->listener, error);
    if (status == PTIER_OK && ptier_thread_start(&near->thread, run, near) != 0) {
        ptier_event_link_leave(client->link, &near->listener);
        status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "cannot start a thread");
    }
    if (status != PTIER_OK) {
        *result = client->near = NULL;
        free_near(near);
    }
    return status;
}

void
ptier_near_client_wait_for_readers(ptier_near_client *near)
{
    if (near)
        ptier_near_wait_for_readers(near->cache);
}

void
ptier_near_client_close(ptier_near_client *near)
{
    if (!near)
        return;
    pthread_mutex_lock(&near->lock);
    near->stopping = true;
    pthread_cond_signal(&near->changed);
    pthread_mutex_unlock(&near->lock);
    pthread_join(near->thread, NULL);
    ptier_event_link_leave(near->client->link, &near->listener);
    free_near(near);
}

void
ptier_near_client_statistics(ptier_near_client *near, ptier_near_statistics *statistics)
{
    ptier_near_read_statistics(near->cache, ptier_near_now(), statistics);
    statistics->joined = ptier_flights_joined(&near->flights);
    statistics->unreported_hits += atomic_load_explicit(&near->unreported, memory_order_relaxed);
}
