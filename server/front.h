/*
 * What the front doors for calls have in common: where their calls go, how many are under way, and
 * when they were last busy. Thread-safe, but for init and fini.
 */
#ifndef PTIER_FRONT_H
#define PTIER_FRONT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "call.h"
#include "dispatch.h"

/* Of one connection; less when many calls are under way, so that one leaves room for the others. */
#define PTIER_CONNECTION_LIMIT         64 /* what one client of the SDK has at most */
#define PTIER_CONNECTION_LIMIT_CROWDED 16
#define PTIER_BUSY_CROWDED             80

/* How long a reply may wait to be taken. */
#define PTIER_SEND_PATIENCE_MS 500

typedef struct ptier_front {
    ptier_service *service;   /* borrowed */
    ptier_dispatch *dispatch; /* borrowed */
    atomic_uint busy;         /* calls that came in and are not answered */
    _Atomic int64_t last_sent_ms;
    pthread_mutex_t idle_lock;
    pthread_cond_t idle;
    bool drained; /* under idle_lock */
} ptier_front;

void ptier_front_init(ptier_front *front, ptier_service *service);
void ptier_front_fini(ptier_front *front);

/* Around each call. */
void ptier_front_enter(ptier_front *front);
void ptier_front_leave(ptier_front *front);

/* Whether a connection that has `own` calls under way may not have another one. */
bool ptier_front_is_crowded(const ptier_front *front, unsigned own);

/* Waits until no call is under way, once the service is stopping. */
void ptier_front_wait_idle(ptier_front *front, int64_t patience_ms);

#endif
