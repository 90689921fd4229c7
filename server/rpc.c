/* See rpc.h. */
#include "rpc.h"

#include <stdlib.h>
#include <string.h>

#include <nng/nng.h>
#include <nng/supplemental/util/platform.h>

#include "front.h"
#include "nng_door.h"
#include "unix_door.h"

#define READ_LIMIT      96 /* calls waiting in the read lane */
#define WRITE_LIMIT     80 /* calls waiting in the write lane */
#define PICK_LIMIT      64 /* calls waiting in the pick lane */
#define SCAN_LIMIT      16 /* calls waiting in the scan lane: each may take seconds */
#define IN_FLIGHT_LIMIT 112

#define DEDUP_WINDOW_MS     60000
#define DEDUP_IDS           ((size_t)64 * 1024)
#define DEDUP_OUTCOME_BYTES ((size_t)16 * 1024 * 1024)
#define TICK_MS             200

#define LINGER_MS 100 /* between the last reply and the end of all connections */

struct ptier_rpc {
    ptier_front front;
    ptier_dispatch *dispatch;
    ptier_unix_door *unix_door; /* NULL: no ipc address */
    ptier_nng_door *nng_door;   /* NULL: no other one */
    nng_aio *tick;
};

/* ---- the tick of what waits for a double of its call ---- */

static void
on_tick(void *argument)
{
    ptier_rpc *rpc = argument;
    if (nng_aio_result(rpc->tick) != 0)
        return; /* being stopped */
    ptier_dispatch_tick(rpc->dispatch);
    nng_sleep_aio(TICK_MS, rpc->tick);
}

static ptier_status
start_dispatch(ptier_rpc *rpc, ptier_service *service, ptier_error *error)
{
    ptier_dispatch_limits limits = {.in_flight = IN_FLIGHT_LIMIT,
                                    .lane = {[PTIER_LANE_READ] = READ_LIMIT,
                                             [PTIER_LANE_WRITE] = WRITE_LIMIT,
                                             [PTIER_LANE_PICK] = PICK_LIMIT,
                                             [PTIER_LANE_SCAN] = SCAN_LIMIT},
                                    .dedup = {.entries = DEDUP_IDS,
                                              .outcome_bytes = DEDUP_OUTCOME_BYTES,
                                              .window_ms = DEDUP_WINDOW_MS}};
    memcpy(&limits.dedup.seed, service->boot_id, sizeof limits.dedup.seed);
    ptier_status status = ptier_dispatch_start(service, &limits, &rpc->dispatch, error);
    rpc->front.dispatch = rpc->dispatch;
    if (status == PTIER_OK && nng_aio_alloc(&rpc->tick, on_tick, rpc) != 0)
        status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    return status;
}

static ptier_status
listen_on(ptier_rpc *rpc, const char *url, const ptier_listen_options *options, ptier_error *error)
{
    ptier_status status = PTIER_OK;
    if (ptier_door_of(url) == PTIER_DOOR_IPC) {
        if (!rpc->unix_door)
            status = ptier_unix_door_open(&rpc->front, &rpc->unix_door, error);
        return status == PTIER_OK ? ptier_unix_door_listen(rpc->unix_door, url, options, error)
                                  : status;
    }
    if (!rpc->nng_door)
        status = ptier_nng_door_open(&rpc->front, &rpc->nng_door, error);
    return status == PTIER_OK ? ptier_nng_door_listen(rpc->nng_door, url, options, error) : status;
}

static void
destroy(ptier_rpc *rpc)
{
    if (rpc->tick)
        nng_aio_stop(rpc->tick); /* waits for a running callback, also of a stopped one */
    nng_aio_free(rpc->tick);
    ptier_dispatch_destroy(rpc->dispatch);
    ptier_front_fini(&rpc->front);
    free(rpc);
}

ptier_status
ptier_rpc_start(ptier_service *service, const char *const *urls, size_t url_count,
                const ptier_listen_options *options, ptier_rpc **rpc, ptier_error *error)
{
    ptier_rpc *made = calloc(1, sizeof *made);
    if (!made)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    ptier_front_init(&made->front, service);
    ptier_status status = start_dispatch(made, service, error);
    for (size_t i = 0; i < url_count && status == PTIER_OK; i++)
        status = listen_on(made, urls[i], options, error);
    if (status == PTIER_OK && made->unix_door)
        status = ptier_unix_door_start(made->unix_door, error);
    if (status != PTIER_OK) {
        ptier_unix_door_close(made->unix_door);
        ptier_nng_door_close(made->nng_door);
        destroy(made);
        return status;
    }
    if (made->nng_door)
        ptier_nng_door_start(made->nng_door);
    nng_sleep_aio(TICK_MS, made->tick);
    *rpc = made;
    return PTIER_OK;
}

/* nng's clients drop a reply that they find together with the end of the connection: leave time
 * between the two. */
static void
linger(const ptier_rpc *rpc)
{
    int64_t left = atomic_load(&rpc->front.last_sent_ms) + LINGER_MS - ptier_monotonic_ms();
    if (left > 0)
        nng_msleep((nng_duration)left);
}

void
ptier_rpc_stop(ptier_rpc *rpc, int64_t drain_ms)
{
    if (!rpc)
        return;
    ptier_service *service = rpc->front.service;
    atomic_store(&service->stopping, true);
    ptier_front_wait_idle(&rpc->front, drain_ms);
    atomic_store(&service->hurrying, true);
    nng_aio_stop(rpc->tick); /* waits for a running callback */
    /* Workers before doors: a late job still sends through its own. */
    ptier_dispatch_drain(rpc->dispatch);
    linger(rpc);
    ptier_unix_door_close(rpc->unix_door);
    ptier_nng_door_close(rpc->nng_door);
    destroy(rpc);
}
