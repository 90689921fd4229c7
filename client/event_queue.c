#include "event_queue.h"

#include <stdlib.h>
#include <string.h>

#define STATES_MAX 64

void
ptier_event_queue_init(ptier_event_queue *queue, size_t events_max)
{
    memset(queue, 0, sizeof *queue);
    queue->events_max = events_max;
    queue->bytes_max = events_max * PTIER_QUEUE_EVENT_BYTES;
}

ptier_queued *
ptier_event_queue_take(ptier_event_queue *queue)
{
    ptier_queued *item = queue->first;
    if (!item)
        return NULL;
    queue->first = item->next;
    if (!queue->first)
        queue->last = NULL;
    queue->bytes -= sizeof *item + item->length;
    if (item->state != 0)
        queue->states--;
    else
        queue->events--;
    return item;
}

void
ptier_event_queue_clear(ptier_event_queue *queue)
{
    ptier_queued *item;
    while ((item = ptier_event_queue_take(queue)))
        free(item);
}

static ptier_queued *
append(ptier_event_queue *queue, size_t length, const ptier_position *position)
{
    ptier_queued *item = malloc(sizeof *item + length);
    if (!item)
        return NULL;
    item->next = NULL;
    item->state = (ptier_subscription_state)0;
    item->position = *position;
    item->length = length;
    if (queue->last)
        queue->last->next = item;
    else
        queue->first = item;
    queue->last = item;
    queue->bytes += sizeof *item + length;
    return item;
}

bool
ptier_event_queue_add(ptier_event_queue *queue, const Proxytier__V1__Event *event,
                      const ptier_position *position)
{
    size_t length = proxytier__v1__event__get_packed_size(event);
    bool full = queue->events >= queue->events_max ||
                queue->bytes + sizeof(ptier_queued) + length > queue->bytes_max;
    if (full && queue->events > 0)
        return false;
    ptier_queued *item = append(queue, length, position);
    if (!item)
        return false;
    (void)proxytier__v1__event__pack(event, item->bytes); /* its length, which is known */
    queue->events++;
    return true;
}

static bool
append_state(ptier_event_queue *queue, ptier_subscription_state state,
             const ptier_position *position)
{
    ptier_queued *item = append(queue, 0, position);
    if (!item)
        return false;
    item->state = state;
    queue->states++;
    return true;
}

/* A RESYNC stands for all that is queued, but not for the last word on the connection. */
static bool
begin_anew(ptier_event_queue *queue, const ptier_position *position)
{
    ptier_subscription_state word = PTIER_SUBSCRIPTION_RESYNC;
    for (const ptier_queued *item = queue->first; item; item = item->next)
        if (item->state != 0 && item->state != PTIER_SUBSCRIPTION_RESYNC)
            word = item->state;
    ptier_event_queue_clear(queue);
    return word == PTIER_SUBSCRIPTION_RESYNC || append_state(queue, word, position);
}

bool
ptier_event_queue_add_state(ptier_event_queue *queue, ptier_subscription_state state,
                            const ptier_position *position)
{
    if (queue->states >= STATES_MAX && state == PTIER_SUBSCRIPTION_RESYNC) {
        if (!begin_anew(queue, position))
            return false;
    } else if (queue->states >= STATES_MAX && queue->last->state != 0 &&
               queue->last->state != PTIER_SUBSCRIPTION_RESYNC) {
        queue->last->state = state;
        queue->last->position = *position;
        return true;
    }
    return append_state(queue, state, position);
}
