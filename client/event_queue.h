/*
 * What waits for a subscription's callbacks: events in their wire form, and words on the state in
 * their place among them. Bounded in events and bytes. Not thread-safe: the owner's lock guards it.
 */
#ifndef PTIER_EVENT_QUEUE_H
#define PTIER_EVENT_QUEUE_H

#include <proxytier/client.h>

#include "proxytier/v1/events.pb-c.h"

#define PTIER_QUEUE_EVENT_BYTES 512 /* room an event may take on average */

typedef struct ptier_queued {
    struct ptier_queued *next;
    ptier_subscription_state state; /* 0: an event */
    ptier_position position;        /* where one stands when this has been told */
    size_t length;
    uint8_t bytes[]; /* Event, packed */
} ptier_queued;

typedef struct ptier_event_queue {
    ptier_queued *first, *last;
    size_t events, events_max;
    size_t bytes, bytes_max;
    size_t states;
} ptier_event_queue;

void ptier_event_queue_init(ptier_event_queue *queue, size_t events_max);
void ptier_event_queue_clear(ptier_event_queue *queue);

/* False: no room, or no memory. */
PTIER_MUST_CHECK bool ptier_event_queue_add(ptier_event_queue *queue,
                                            const Proxytier__V1__Event *event,
                                            const ptier_position *position);

/*
 * Always finds room, except when memory is out. Where very many wait, those are merged of which
 * nobody would learn anything: RESYNC takes the place of all that is queued, CONNECTED that of a
 * LOST just before it.
 */
PTIER_MUST_CHECK bool ptier_event_queue_add_state(ptier_event_queue *queue,
                                                  ptier_subscription_state state,
                                                  const ptier_position *position);

/* The first one, owned by the caller (free), or NULL. */
ptier_queued *ptier_event_queue_take(ptier_event_queue *queue);

#endif
