/*
 * Single flight: of many threads that miss one key at a time, one makes the call and the others
 * wait for its answer. An answer serves a waiter only if it is as new as what the waiter must see
 * (its own writes, events it may have been told), and of a record whose time was not over when it
 * began: see ptier_flight_serves. Thread-safe.
 */
#ifndef PTIER_NEAR_FLIGHT_H
#define PTIER_NEAR_FLIGHT_H

#include <pthread.h>

#include "near_cache.h"

enum { PTIER_FLIGHT_BUCKETS = 64 };

typedef struct ptier_flight {
    struct ptier_flight *next;
    uint64_t hash;
    int64_t begun;
    ptier_near_ticket ticket;
    unsigned refs; /* under the lock, as the rest */
    bool landed;
    pthread_cond_t landing;
    /* Once landed: */
    ptier_status status;
    ptier_error error;         /* status is not OK */
    ptier_near_record *record; /* owned; else */
    char key[];
} ptier_flight;

typedef struct ptier_flights {
    pthread_mutex_t lock;
    ptier_flight *buckets[PTIER_FLIGHT_BUCKETS];
    uint64_t joined;
} ptier_flights;

PTIER_MUST_CHECK bool ptier_flights_init(ptier_flights *flights);
void ptier_flights_fini(ptier_flights *flights); /* nobody is on board */

/*
 * Joins the flight of a key that was begun within the last `patience` (ns), or begins one: then
 * *lead, and the caller must land it. Both leave it. NULL: out of memory.
 */
ptier_flight *ptier_flight_board(ptier_flights *flights, const char *key,
                                 const ptier_near_ticket *ticket, int64_t now, int64_t patience,
                                 bool *lead);

/* The answer, for all on board: `error` when the status is not OK, `record` (gets a reference more)
 * when it is. */
void ptier_flight_land(ptier_flights *flights, ptier_flight *flight, ptier_status status,
                       const ptier_error *error, ptier_near_record *record);

/* Until it has landed, or `deadline` (ptier_monotonic_ms). False: it has not. */
bool ptier_flight_wait(ptier_flights *flights, ptier_flight *flight, int64_t deadline);

/* Whether the answer may be given to whoever came on board with this ticket, for a read that was
 * begun then. */
bool ptier_flight_serves(const ptier_flight *flight, const ptier_near_ticket *ticket,
                         int64_t begun);

void ptier_flight_leave(ptier_flights *flights, ptier_flight *flight);

uint64_t ptier_flights_joined(ptier_flights *flights);

#endif
