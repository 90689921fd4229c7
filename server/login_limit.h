/*
 * How often a peer may fail to log in: a burst, then one a second. A bounded table of the peers
 * that failed lately; a peer that it had to forget starts with a full burst. Thread-safe.
 *
 * What it limits is noise: the log, and what a confused or hostile client learns. It never stands
 * in the way of a right token, so that nobody can lock others out who come from the same address;
 * tokens have 256 random bits, so that guesses need no limit.
 */
#ifndef PTIER_LOGIN_LIMIT_H
#define PTIER_LOGIN_LIMIT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <proxytier/status.h>

#include "peer.h"

#define PTIER_LOGIN_PAUSE_MS 1000
#define PTIER_LOGIN_LINES    50 /* in a burst, in the log, whoever fails */

typedef struct ptier_login_bucket {
    uint64_t peer; /* 0: free */
    int64_t full_at_ms;
    uint32_t unlogged; /* failures since the last line about this peer */
} ptier_login_bucket;

#define PTIER_LOGIN_SETS 128
#define PTIER_LOGIN_WAYS 8

typedef struct ptier_login_limit {
    pthread_mutex_t lock;
    uint32_t burst;
    uint64_t seed; /* so that nobody can aim at a set of the table */
    ptier_login_bucket buckets[PTIER_LOGIN_SETS][PTIER_LOGIN_WAYS];
    ptier_login_bucket log;
} ptier_login_limit;

PTIER_MUST_CHECK ptier_status ptier_login_limit_init(ptier_login_limit *limit, uint32_t burst,
                                                     ptier_error *error);
void ptier_login_limit_fini(ptier_login_limit *limit);

typedef struct ptier_login_verdict {
    bool limited;      /* too many */
    bool log;          /* write a line */
    uint32_t unlogged; /* failures of this peer that got none since its last line */
} ptier_login_verdict;

/* A peer failed. An IPv6 peer is its network of 64 bits. */
ptier_login_verdict ptier_login_failed(ptier_login_limit *limit, const ptier_peer *peer,
                                       int64_t now_ms);

#endif
