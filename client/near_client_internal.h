/* For near_client.c and near_reads.c only. */
#ifndef PTIER_NEAR_CLIENT_INTERNAL_H
#define PTIER_NEAR_CLIENT_INTERNAL_H

#include "event_link.h"
#include "near_client.h"
#include "near_flight.h"

#define PTIER_NEAR_MS INT64_C(1000000)

struct ptier_near_client {
    ptier_client *client; /* borrowed */
    ptier_near *cache;
    ptier_near_cache_options options;
    ptier_flights flights;
    ptier_listener listener;
    _Atomic uint64_t unreported; /* hits whose report failed */

    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stopping;       /* under the lock */
    _Atomic bool nudged; /* the thread was told that there is much to report */
};

/* After hits, also during a look-up. */
void ptier_near_client_used(ptier_near_client *near);

#endif
