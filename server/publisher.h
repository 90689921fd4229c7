/*
 * Publishes the journal over nng pub/sub: one thread, batches, heartbeats. Nothing ever waits for
 * it: subscribers that are too slow lose messages and see the gap; a publisher that is too slow
 * leaves a gap as well.
 */
#ifndef PTIER_PUBLISHER_H
#define PTIER_PUBLISHER_H

#include "call.h"

typedef struct ptier_publisher ptier_publisher;

/* Listens on service->event_url and starts. `service` is borrowed until stop. */
PTIER_MUST_CHECK ptier_status ptier_publisher_start(ptier_service *service,
                                                    ptier_publisher **publisher,
                                                    ptier_error *error);

/* Publishes what is left, closes, frees. NULL is fine. */
void ptier_publisher_stop(ptier_publisher *publisher);

#endif
