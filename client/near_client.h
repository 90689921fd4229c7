/*
 * The near cache of a client: near_cache.h joined to the client's calls and its event link, with a
 * thread that reports hits and keeps the clocks compared. For the sources of the SDK. Thread-safe,
 * except open and close. Every `near` may be NULL: the client has none, and nothing happens.
 */
#ifndef PTIER_NEAR_CLIENT_H
#define PTIER_NEAR_CLIENT_H

#include "arena.h"
#include "near_cache.h"
#include "proxytier/v1/cache.pb-c.h"

typedef struct ptier_near_client ptier_near_client;

/* Borrows the client until close. INVALID_ARGUMENT: options. */
PTIER_MUST_CHECK ptier_status ptier_near_client_open(ptier_client *client,
                                                     const ptier_near_cache_options *options,
                                                     ptier_near_client **near, ptier_error *error);

/* The client is closing: no call of it can succeed any more, and none runs. */
void ptier_near_client_close(ptier_near_client *near);

/* See ptier_near_wait_for_readers. */
void ptier_near_client_wait_for_readers(ptier_near_client *near);

/* The local clock of near caches, ns. */
int64_t ptier_near_now(void);

/* A reply of the daemon to a call whose first try was sent at `sent` (ptier_near_now). */
void ptier_near_client_told(ptier_near_client *near, const ProtobufCBinaryData *boot_id,
                            int64_t sent, int64_t daemon_ms);

/* See ptier_get and ptier_get_many. */
PTIER_MUST_CHECK ptier_status ptier_near_client_get(ptier_near_client *near, const char *key,
                                                    ptier_records *result, ptier_error *error);
PTIER_MUST_CHECK ptier_status ptier_near_client_get_many(ptier_near_client *near,
                                                         const char *const *keys, size_t count,
                                                         ptier_records *result, ptier_error *error);

/* Own writes that succeeded, before the caller is told. key NULL or revision 0: nothing. */
void ptier_near_client_wrote(ptier_near_client *near, const char *key, uint64_t revision);
/* Own writes that failed, but may have been done. */
void ptier_near_client_forget(ptier_near_client *near, const char *key);
/* revision 0: not told. */
void ptier_near_client_cleared(ptier_near_client *near, uint64_t revision);

/* Taken before a write is sent whose reply may bring the record as it then is; that is filled. */
typedef struct ptier_near_start {
    ptier_near_ticket ticket;
    int64_t sent;
} ptier_near_start;
ptier_near_start ptier_near_client_start(ptier_near_client *near);
void ptier_near_client_learn(ptier_near_client *near, const ptier_near_start *start,
                             const Proxytier__V1__Proxy *proxy, uint64_t revision);

void ptier_near_client_statistics(ptier_near_client *near, ptier_near_statistics *statistics);

#endif
