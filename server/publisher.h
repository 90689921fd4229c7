/*
 * Publishes the journal over nng pub/sub: one thread, batches, heartbeats. Nothing ever waits for
 * it: subscribers that are too slow lose messages and see the gap; a publisher that is too slow
 * leaves a gap as well.
 */
#ifndef PTIER_PUBLISHER_H
#define PTIER_PUBLISHER_H

#include "call.h"
#include "listen.h"

typedef struct ptier_publisher ptier_publisher;

/* Listens on every URL and starts. `service` and `urls` are borrowed until stop, the rest for the
 * call. */
PTIER_MUST_CHECK ptier_status ptier_publisher_start(ptier_service *service, const char *const *urls,
                                                    size_t url_count,
                                                    const ptier_listen_options *options,
                                                    ptier_publisher **publisher,
                                                    ptier_error *error);

/* Publishes what is left, closes, frees. NULL is fine. */
void ptier_publisher_stop(ptier_publisher *publisher);

#endif
