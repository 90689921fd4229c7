/* See login_limit.h. A bucket holds when it will be full again; each failure puts that off. */
#include "login_limit.h"

#include <string.h>
#include <sys/random.h>

#include "hash.h"

ptier_status
ptier_login_limit_init(ptier_login_limit *limit, uint32_t burst, ptier_error *error)
{
    memset(limit, 0, sizeof *limit);
    limit->burst = burst;
    if (getrandom(&limit->seed, sizeof limit->seed, 0) != sizeof limit->seed)
        return ptier_fail(error, PTIER_INTERNAL, "the system gives no random bytes");
    if (pthread_mutex_init(&limit->lock, NULL) != 0)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "cannot make a lock");
    return PTIER_OK;
}

void
ptier_login_limit_fini(ptier_login_limit *limit)
{
    pthread_mutex_destroy(&limit->lock);
}

static uint64_t
name_of(const ptier_login_limit *limit, const ptier_peer *peer)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    uint64_t high, low;
    memcpy(&high, peer->address, 8);
    memcpy(&low, peer->address + 8, 8);
    if (memcmp(peer->address, mapped, sizeof mapped) != 0)
        low = 0;
    uint64_t who = peer->door == PTIER_DOOR_IPC ? ptier_hash_pair(1, peer->uid)
                                                : ptier_hash_pair(ptier_hash_pair(2, high), low);
    who = ptier_hash_pair(limit->seed, who);
    return who ? who : 1;
}

/* The peer's, else the one that fills up first. */
static ptier_login_bucket *
bucket_of(ptier_login_limit *limit, uint64_t peer)
{
    ptier_login_bucket *set = limit->buckets[peer % PTIER_LOGIN_SETS], *oldest = set;
    for (size_t i = 0; i < PTIER_LOGIN_WAYS; i++) {
        if (set[i].peer == peer)
            return &set[i];
        if (set[i].full_at_ms < oldest->full_at_ms)
            oldest = &set[i];
    }
    *oldest = (ptier_login_bucket){.peer = peer};
    return oldest;
}

/* Takes one out. False: it is empty. */
static bool
take(ptier_login_bucket *bucket, int64_t size, int64_t now_ms)
{
    if (bucket->full_at_ms < now_ms)
        bucket->full_at_ms = now_ms;
    if (bucket->full_at_ms - now_ms > (size - 1) * PTIER_LOGIN_PAUSE_MS)
        return false;
    bucket->full_at_ms += PTIER_LOGIN_PAUSE_MS;
    return true;
}

ptier_login_verdict
ptier_login_failed(ptier_login_limit *limit, const ptier_peer *peer, int64_t now_ms)
{
    ptier_login_verdict verdict = {0};
    pthread_mutex_lock(&limit->lock);
    ptier_login_bucket *bucket = bucket_of(limit, name_of(limit, peer));
    verdict.limited = !take(bucket, limit->burst, now_ms);
    verdict.log = !verdict.limited && take(&limit->log, PTIER_LOGIN_LINES, now_ms);
    if (verdict.log) {
        verdict.unlogged = bucket->unlogged;
        bucket->unlogged = 0;
    } else if (bucket->unlogged < UINT32_MAX) {
        bucket->unlogged++;
    }
    pthread_mutex_unlock(&limit->lock);
    return verdict;
}
