/*
 * Runs a client's asynchronous calls on one thread, which is started with the first. For the
 * sources of the SDK. Thread-safe, except create and destroy.
 */
#ifndef PTIER_ASYNC_ENGINE_H
#define PTIER_ASYNC_ENGINE_H

#include <stddef.h>

#include <proxytier/client.h>

typedef struct ptier_async_engine ptier_async_engine;

/* Borrows the client until destroy; `limit` calls at most are under way. */
PTIER_MUST_CHECK ptier_status ptier_async_engine_create(ptier_client *client, size_t limit,
                                                        ptier_async_engine **engine,
                                                        ptier_error *error);

/* All calls end with CANCELLED first. The client's transport was cancelled and no public call of it
 * runs. NULL is fine. */
void ptier_async_engine_destroy(ptier_async_engine *engine);

#endif
