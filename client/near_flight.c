#include "near_flight.h"

#include <stdlib.h>
#include <string.h>

#include "monotonic.h"

bool
ptier_flights_init(ptier_flights *flights)
{
    memset(flights, 0, sizeof *flights);
    return pthread_mutex_init(&flights->lock, NULL) == 0;
}

void
ptier_flights_fini(ptier_flights *flights)
{
    pthread_mutex_destroy(&flights->lock);
}

static ptier_flight **
bucket_of(ptier_flights *flights, uint64_t hash)
{
    return &flights->buckets[hash % PTIER_FLIGHT_BUCKETS];
}

static ptier_flight *
find_locked(ptier_flights *flights, uint64_t hash, const char *key, int64_t since)
{
    ptier_flight *flight = *bucket_of(flights, hash);
    while (flight &&
           (flight->hash != hash || flight->begun < since || strcmp(flight->key, key) != 0))
        flight = flight->next;
    return flight;
}

static ptier_flight *
create(uint64_t hash, const char *key, const ptier_near_ticket *ticket, int64_t now)
{
    size_t length = strlen(key) + 1;
    ptier_flight *flight = calloc(1, sizeof *flight + length);
    if (!flight || ptier_monotonic_cond_init(&flight->landing) != 0) {
        free(flight);
        return NULL;
    }
    flight->hash = hash;
    flight->begun = now;
    flight->ticket = *ticket;
    memcpy(flight->key, key, length);
    return flight;
}

ptier_flight *
ptier_flight_board(ptier_flights *flights, const char *key, const ptier_near_ticket *ticket,
                   int64_t now, int64_t patience, bool *lead)
{
    ptier_near_key asked;
    ptier_near_key_of(&asked, key);
    const uint64_t hash = asked.hash;
    pthread_mutex_lock(&flights->lock);
    ptier_flight *flight = find_locked(flights, hash, key, now - patience);
    *lead = !flight;
    if (!flight && (flight = create(hash, key, ticket, now))) {
        ptier_flight **bucket = bucket_of(flights, hash);
        flight->next = *bucket;
        *bucket = flight;
    }
    if (flight)
        flight->refs++;
    pthread_mutex_unlock(&flights->lock);
    return flight;
}

void
ptier_flight_land(ptier_flights *flights, ptier_flight *flight, ptier_status status,
                  const ptier_error *error, ptier_near_record *record)
{
    pthread_mutex_lock(&flights->lock);
    ptier_flight **link = bucket_of(flights, flight->hash);
    while (*link != flight)
        link = &(*link)->next;
    *link = flight->next;
    flight->status = status;
    if (status == PTIER_OK)
        flight->record = ptier_near_record_retain(record);
    else
        flight->error = *error;
    flight->landed = true;
    pthread_cond_broadcast(&flight->landing);
    pthread_mutex_unlock(&flights->lock);
}

bool
ptier_flight_wait(ptier_flights *flights, ptier_flight *flight, int64_t deadline)
{
    pthread_mutex_lock(&flights->lock);
    while (!flight->landed && ptier_monotonic_ms() < deadline)
        ptier_monotonic_wait(&flight->landing, &flights->lock, deadline);
    bool landed = flight->landed;
    flights->joined += landed;
    pthread_mutex_unlock(&flights->lock);
    return landed;
}

bool
ptier_flight_serves(const ptier_flight *flight, const ptier_near_ticket *ticket, int64_t begun)
{
    const ptier_near_record *record = flight->record; /* NULL: the call failed, for all alike */
    return flight->ticket.generation == ticket->generation &&
           (!record || (record->as_of >= ticket->known && record->expires > begun));
}

void
ptier_flight_leave(ptier_flights *flights, ptier_flight *flight)
{
    pthread_mutex_lock(&flights->lock);
    bool last = --flight->refs == 0;
    pthread_mutex_unlock(&flights->lock);
    if (!last)
        return;
    ptier_near_record_release(flight->record);
    pthread_cond_destroy(&flight->landing);
    free(flight);
}

uint64_t
ptier_flights_joined(ptier_flights *flights)
{
    pthread_mutex_lock(&flights->lock);
    uint64_t joined = flights->joined;
    pthread_mutex_unlock(&flights->lock);
    return joined;
}
