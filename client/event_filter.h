/* Which events a subscription wants, and what they look like to its application. Thread-safe (no
 * state). */
#ifndef PTIER_EVENT_FILTER_H
#define PTIER_EVENT_FILTER_H

#include <proxytier/client.h>

#include "proxytier/v1/events.pb-c.h"

/* False also for types that this library does not know. */
bool ptier_event_wanted(const ptier_subscription_options *options,
                        const Proxytier__V1__Event *event);

/* Fills *event; strings are borrowed from `wire`, `labels` is the caller's room. */
void ptier_event_from_wire(ptier_event *event, ptier_label labels[PTIER_LABELS_MAX],
                           const Proxytier__V1__Event *wire);

#endif
