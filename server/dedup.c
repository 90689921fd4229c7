/* See dedup.h. A chained hash table; ended calls are in a list by the time of their end. */
#include "dedup.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#define BUCKETS ((size_t)1 << 14)

struct ptier_dedup_entry {
    ptier_dedup_entry *chain;
    ptier_dedup_entry *next, *previous; /* ended ones, the oldest first */
    uint64_t identity;
    uint64_t digest[2];
    int64_t begun_ms, ended_ms;
    uint8_t *outcome;
    size_t length;
    unsigned waiting; /* waiters of it */
    bool ended;
    uint8_t id[PTIER_REQUEST_ID_BYTES];
};

struct ptier_dedup {
    ptier_dedup_limits limits;
    size_t count;
    size_t bytes;
    uint64_t early;
    int64_t horizon_ms; /* no call that began later was forgotten */
    ptier_dedup_entry *oldest, *newest;
    ptier_dedup_waiter *waiters;
    size_t waiter_count;
    ptier_dedup_entry *buckets[BUCKETS];
};

ptier_dedup *
ptier_dedup_create(const ptier_dedup_limits *limits)
{
    ptier_dedup *dedup = calloc(1, sizeof *dedup);
    if (dedup) {
        dedup->limits = *limits;
        dedup->horizon_ms = INT64_MIN;
    }
    return dedup;
}

static ptier_dedup_entry **
bucket_of(ptier_dedup *dedup, uint64_t identity, const uint8_t id[PTIER_REQUEST_ID_BYTES])
{
    uint64_t hash = XXH3_64bits_withSeed(id, PTIER_REQUEST_ID_BYTES, dedup->limits.seed ^ identity);
    return &dedup->buckets[hash % BUCKETS];
}

static ptier_dedup_entry *
find(ptier_dedup *dedup, const ptier_dedup_call *call)
{
    ptier_dedup_entry *entry = *bucket_of(dedup, call->identity, call->id);
    while (entry && (entry->identity != call->identity ||
                     memcmp(entry->id, call->id, PTIER_REQUEST_ID_BYTES) != 0))
        entry = entry->chain;
    return entry;
}

/* Takes it out of the table; an ended one is out of its list already. Outcomes may hold
 * credentials: those of a Put that returns its record. */
static void
drop(ptier_dedup *dedup, ptier_dedup_entry *entry)
{
    ptier_dedup_entry **link = bucket_of(dedup, entry->identity, entry->id);
    while (*link != entry)
        link = &(*link)->chain;
    *link = entry->chain;
    dedup->count--;
    dedup->bytes -= entry->length;
    if (entry->outcome)
        explicit_bzero(entry->outcome, entry->length);
    free(entry->outcome);
    free(entry);
}

static void
forget_oldest(ptier_dedup *dedup)
{
    ptier_dedup_entry *entry = dedup->oldest;
    dedup->oldest = entry->next;
    if (dedup->oldest)
        dedup->oldest->previous = NULL;
    else
        dedup->newest = NULL;
    if (entry->begun_ms > dedup->horizon_ms)
        dedup->horizon_ms = entry->begun_ms;
    drop(dedup, entry);
}

void
ptier_dedup_expire(ptier_dedup *dedup, int64_t now_ms)
{
    while (dedup->oldest && now_ms - dedup->oldest->ended_ms >= dedup->limits.window_ms)
        forget_oldest(dedup);
}

static void
forget_early(ptier_dedup *dedup)
{
    dedup->early++;
    forget_oldest(dedup);
}

void
ptier_dedup_destroy(ptier_dedup *dedup)
{
    if (!dedup)
        return;
    for (size_t i = 0; i < BUCKETS; i++)
        while (dedup->buckets[i])
            drop(dedup, dedup->buckets[i]);
    free(dedup);
}

static void
add_waiter(ptier_dedup *dedup, ptier_dedup_entry *entry, ptier_dedup_waiter *waiter)
{
    waiter->entry = entry;
    waiter->previous = NULL;
    waiter->next = dedup->waiters;
    if (waiter->next)
        waiter->next->previous = waiter;
    dedup->waiters = waiter;
    dedup->waiter_count++;
    entry->waiting++;
}

static ptier_dedup_verdict
meet(ptier_dedup *dedup, ptier_dedup_entry *entry, const ptier_dedup_call *call,
     ptier_dedup_waiter *waiter)
{
    if (memcmp(entry->digest, call->digest, sizeof entry->digest) != 0)
        return PTIER_DEDUP_OTHER;
    if (entry->ended)
        return PTIER_DEDUP_DONE;
    add_waiter(dedup, entry, waiter);
    return PTIER_DEDUP_RUNNING;
}

ptier_dedup_verdict
ptier_dedup_begin(ptier_dedup *dedup, const ptier_dedup_call *call, int64_t now_ms,
                  ptier_dedup_waiter *waiter, ptier_dedup_entry **result)
{
    ptier_dedup_expire(dedup, now_ms);
    ptier_dedup_entry *entry = find(dedup, call);
    *result = entry;
    if (entry)
        return meet(dedup, entry, call, waiter);
    if (dedup->count >= dedup->limits.entries && dedup->oldest)
        forget_early(dedup);
    if (dedup->count >= dedup->limits.entries || !(entry = calloc(1, sizeof *entry)))
        return PTIER_DEDUP_FULL;
    ptier_dedup_entry **bucket = bucket_of(dedup, call->identity, call->id);
    entry->identity = call->identity;
    memcpy(entry->id, call->id, sizeof entry->id);
    memcpy(entry->digest, call->digest, sizeof entry->digest);
    entry->begun_ms = now_ms;
    entry->chain = *bucket;
    *bucket = entry;
    dedup->count++;
    *result = entry;
    if (!call->retry)
        return PTIER_DEDUP_NEW;
    int64_t youngest = now_ms - dedup->limits.window_ms + 1; /* of which all was forgotten */
    int64_t first = call->first_sent_ms ? call->first_sent_ms : youngest;
    return first > dedup->horizon_ms ? PTIER_DEDUP_NEW : PTIER_DEDUP_UNSURE;
}

const uint8_t *
ptier_dedup_outcome(const ptier_dedup_entry *entry, size_t *length)
{
    *length = entry->length;
    return entry->outcome;
}

static void
remove_waiter(ptier_dedup *dedup, ptier_dedup_waiter *waiter)
{
    if (waiter->previous)
        waiter->previous->next = waiter->next;
    else
        dedup->waiters = waiter->next;
    if (waiter->next)
        waiter->next->previous = waiter->previous;
    waiter->entry->waiting--;
    dedup->waiter_count--;
}

/* Those of one entry, or (entry NULL) those whose time is over. There are at most as many waiters
 * as the daemon takes calls at a time. */
static ptier_dedup_waiter *
take_waiters(ptier_dedup *dedup, const ptier_dedup_entry *entry, int64_t now_ms)
{
    ptier_dedup_waiter *taken = NULL;
    for (ptier_dedup_waiter *waiter = dedup->waiters, *next; waiter; waiter = next) {
        next = waiter->next;
        if (entry ? waiter->entry != entry : waiter->deadline_ms > now_ms)
            continue;
        remove_waiter(dedup, waiter);
        waiter->entry = NULL;
        waiter->next = taken;
        taken = waiter;
    }
    return taken;
}

static void
end(ptier_dedup *dedup, ptier_dedup_entry *entry, int64_t now_ms)
{
    entry->ended = true;
    entry->ended_ms = now_ms;
    entry->previous = dedup->newest;
    if (dedup->newest)
        dedup->newest->next = entry;
    else
        dedup->oldest = entry;
    dedup->newest = entry;
}

ptier_dedup_waiter *
ptier_dedup_finish(ptier_dedup *dedup, ptier_dedup_entry *entry, int64_t now_ms, bool executed,
                   const uint8_t *outcome, size_t length)
{
    ptier_dedup_waiter *waiters = entry->waiting ? take_waiters(dedup, entry, 0) : NULL;
    if (!executed) {
        drop(dedup, entry);
        return waiters;
    }
    uint8_t *copy = length <= dedup->limits.outcome_bytes / 4 ? malloc(length ? length : 1) : NULL;
    if (!copy) { /* as if it had been forgotten at once */
        if (entry->begun_ms > dedup->horizon_ms)
            dedup->horizon_ms = entry->begun_ms;
        dedup->early++;
        drop(dedup, entry);
        return waiters;
    }
    if (length)
        memcpy(copy, outcome, length);
    entry->outcome = copy;
    entry->length = length;
    dedup->bytes += length;
    end(dedup, entry, now_ms);
    while (dedup->bytes > dedup->limits.outcome_bytes && dedup->oldest != entry)
        forget_early(dedup);
    return waiters;
}

ptier_dedup_waiter *
ptier_dedup_overdue(ptier_dedup *dedup, int64_t now_ms)
{
    return take_waiters(dedup, NULL, now_ms);
}

ptier_dedup_figures
ptier_dedup_figure(const ptier_dedup *dedup)
{
    return (ptier_dedup_figures){.entries = dedup->count,
                                 .outcome_bytes = dedup->bytes,
                                 .waiters = dedup->waiter_count,
                                 .early = dedup->early};
}
