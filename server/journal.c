/*
 * See journal.h. Locks: one per ring, and wake_lock, which is only ever taken alone. Appending
 * signals the waiter only when the count it asked for is reached, so that a stream of writes does
 * not become a stream of wake-ups.
 */
#include "journal.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NOBODY_WAITS UINT64_MAX

typedef struct ring {
    pthread_mutex_t lock;
    ptier_journal_item *items; /* item of sequence s at s % capacity */
    size_t capacity;
    uint64_t last;
    uint64_t oldest;
} ring;

struct ptier_journal {
    ring rings[PTIER_STREAM_COUNT];

    /* Tier events beyond the allowance of this tick; under the lock of ring TIERS. */
    uint32_t allowance_per_tick;
    uint32_t allowance;
    uint32_t held_promoted[PTIER_TIER_COUNT];
    uint32_t held_evicted[PTIER_TIER_COUNT];

    _Atomic uint64_t appended; /* in both streams */
    _Atomic uint64_t wake_at;  /* value of `appended` that the waiter waits for */
    pthread_mutex_t wake_lock;
    pthread_cond_t wake;
    bool woken;  /* under wake_lock */
    bool nudged; /* ptier_journal_wake; under wake_lock */
};

static ptier_journal_bounds
bounds_locked(const ring *r)
{
    return (ptier_journal_bounds){
        .last = r->last, .oldest = r->oldest, .revision = r->items[r->last % r->capacity].revision};
}

static ring *
ring_of(ptier_journal *journal, ptier_stream stream)
{
    return &journal
                ->rings[stream == PTIER_STREAM_TIERS ? PTIER_STREAM_TIERS : PTIER_STREAM_CHANGES];
}

ptier_status
ptier_journal_create(size_t events, uint32_t tier_events_per_tick, ptier_journal **journal,
                     ptier_error *error)
{
    ptier_journal *made = calloc(1, sizeof *made);
    if (!made)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory for the event journal");
    for (int i = PTIER_STREAM_CHANGES; i < PTIER_STREAM_COUNT; i++) {
        made->rings[i].items = calloc(events, sizeof(ptier_journal_item));
        made->rings[i].capacity = events;
        made->rings[i].oldest = 1;
    }
    if (!made->rings[PTIER_STREAM_CHANGES].items || !made->rings[PTIER_STREAM_TIERS].items) {
        free(made->rings[PTIER_STREAM_CHANGES].items);
        free(made->rings[PTIER_STREAM_TIERS].items);
        free(made);
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED,
                          "out of memory for an event journal of %zu events", events);
    }
    for (int i = PTIER_STREAM_CHANGES; i < PTIER_STREAM_COUNT; i++)
        pthread_mutex_init(&made->rings[i].lock, NULL);
    pthread_mutex_init(&made->wake_lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&made->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    atomic_init(&made->wake_at, NOBODY_WAITS);
    made->allowance_per_tick = made->allowance = tier_events_per_tick;
    *journal = made;
    return PTIER_OK;
}

void
ptier_journal_destroy(ptier_journal *journal)
{
    if (!journal)
        return;
    for (int i = PTIER_STREAM_CHANGES; i < PTIER_STREAM_COUNT; i++) {
        ring *r = &journal->rings[i];
        for (size_t k = 0; k < r->capacity; k++)
            ptier_entry_release(r->items[k].entry);
        free(r->items);
        pthread_mutex_destroy(&r->lock);
    }
    pthread_cond_destroy(&journal->wake);
    pthread_mutex_destroy(&journal->wake_lock);
    free(journal);
}

/* Puts an item in; returns the reference that fell out of the ring, for the caller to release
 * without the lock. */
static ptier_entry *
append_locked(ring *r, const ptier_journal_item *item)
{
    ptier_journal_item *slot = &r->items[(r->last + 1) % r->capacity];
    /* In the first round only written: see make_cells in tiers/map.c. */
    ptier_entry *fallen = r->last >= r->capacity ? slot->entry : NULL;
    *slot = *item;
    slot->sequence = ++r->last;
    if (slot->entry)
        (void)ptier_entry_retain(slot->entry); /* the same pointer */
    if (r->last - r->oldest >= r->capacity)
        r->oldest = r->last - r->capacity + 1;
    return fallen;
}

static void
tell_waiter(ptier_journal *journal, uint64_t count)
{
    uint64_t total = atomic_fetch_add(&journal->appended, count) + count;
    if (total < atomic_load(&journal->wake_at))
        return;
    if (atomic_exchange(&journal->wake_at, NOBODY_WAITS) == NOBODY_WAITS)
        return;
    pthread_mutex_lock(&journal->wake_lock);
    journal->woken = true;
    pthread_cond_signal(&journal->wake);
    pthread_mutex_unlock(&journal->wake_lock);
}

void
ptier_journal_on_change(void *context, const ptier_change *change)
{
    ptier_journal *journal = context;
    ring *r = ring_of(journal, PTIER_STREAM_CHANGES);
    const ptier_journal_item item = {
        .revision = change->revision,
        .entry = change->entry,
        .type = (uint8_t)change->type,
        .reason = (uint8_t)change->reason,
    };
    pthread_mutex_lock(&r->lock);
    ptier_entry *fallen = append_locked(r, &item);
    pthread_mutex_unlock(&r->lock);
    ptier_entry_release(fallen);
    tell_waiter(journal, 1);
}

/* Counts the event away when this tick has had enough of its kind. DEGRADED and RECOVERED always
 * pass. */
static bool
held_back_locked(ptier_journal *journal, const ptier_tier_event *event)
{
    uint32_t *held;
    if (event->type == PTIER_EVENT_PROMOTED)
        held = journal->held_promoted;
    else if (event->type == PTIER_EVENT_TIER_EVICTED)
        held = journal->held_evicted;
    else
        return false;
    if (journal->allowance > 0) {
        journal->allowance--;
        return false;
    }
    if ((unsigned)event->tier < PTIER_TIER_COUNT)
        held[event->tier]++;
    return true;
}

void
ptier_journal_on_tier_event(void *context, const ptier_tier_event *event)
{
    ptier_journal *journal = context;
    ring *r = ring_of(journal, PTIER_STREAM_TIERS);
    const ptier_journal_item item = {
        .entry = event->entry,
        .type = (uint8_t)event->type,
        .tier = (uint8_t)event->tier,
        .count = 1,
    };
    ptier_entry *fallen = NULL;
    pthread_mutex_lock(&r->lock);
    bool held = held_back_locked(journal, event);
    if (!held)
        fallen = append_locked(r, &item);
    pthread_mutex_unlock(&r->lock);
    ptier_entry_release(fallen);
    if (!held)
        tell_waiter(journal, 1);
}

void
ptier_journal_tick(ptier_journal *journal)
{
    ring *r = ring_of(journal, PTIER_STREAM_TIERS);
    ptier_entry *fallen[2 * PTIER_TIER_COUNT];
    size_t count = 0;
    pthread_mutex_lock(&r->lock);
    for (int tier = 0; tier < PTIER_TIER_COUNT; tier++) {
        ptier_journal_item item = {.tier = (uint8_t)tier};
        if ((item.count = journal->held_promoted[tier])) {
            item.type = PTIER_EVENT_PROMOTED;
            fallen[count++] = append_locked(r, &item);
        }
        if ((item.count = journal->held_evicted[tier])) {
            item.type = PTIER_EVENT_TIER_EVICTED;
            fallen[count++] = append_locked(r, &item);
        }
        journal->held_promoted[tier] = journal->held_evicted[tier] = 0;
    }
    journal->allowance = journal->allowance_per_tick;
    pthread_mutex_unlock(&r->lock);
    for (size_t i = 0; i < count; i++)
        ptier_entry_release(fallen[i]);
    if (count)
        tell_waiter(journal, count);
}

size_t
ptier_journal_read(ptier_journal *journal, ptier_stream stream, uint64_t after,
                   ptier_journal_item *items, size_t limit, ptier_journal_bounds *bounds)
{
    ring *r = ring_of(journal, stream);
    size_t count = 0;
    if (limit > PTIER_JOURNAL_READ_MAX)
        limit = PTIER_JOURNAL_READ_MAX; /* bounds the time under the lock */
    pthread_mutex_lock(&r->lock);
    *bounds = bounds_locked(r);
    uint64_t from = after + 1 > r->oldest ? after + 1 : r->oldest;
    for (uint64_t sequence = from; sequence <= r->last && count < limit; sequence++) {
        items[count] = r->items[sequence % r->capacity];
        if (items[count].entry)
            (void)ptier_entry_retain(items[count].entry); /* the same pointer */
        count++;
    }
    pthread_mutex_unlock(&r->lock);
    return count;
}

void
ptier_journal_release(ptier_journal_item *items, size_t count)
{
    for (size_t i = 0; i < count; i++)
        ptier_entry_release(items[i].entry);
}

ptier_journal_bounds
ptier_journal_get_bounds(ptier_journal *journal, ptier_stream stream)
{
    ring *r = ring_of(journal, stream);
    pthread_mutex_lock(&r->lock);
    ptier_journal_bounds bounds = bounds_locked(r);
    pthread_mutex_unlock(&r->lock);
    return bounds;
}

static void
deadline_in(struct timespec *deadline, int64_t ms)
{
    clock_gettime(CLOCK_MONOTONIC, deadline);
    deadline->tv_sec += ms / 1000;
    deadline->tv_nsec += ms % 1000 * 1000000;
    if (deadline->tv_nsec >= 1000000000) {
        deadline->tv_sec++;
        deadline->tv_nsec -= 1000000000;
    }
}

/* True when `count` was reached; false after ms or a nudge. */
static bool
wait_for_locked(ptier_journal *journal, uint64_t count, int64_t ms)
{
    struct timespec deadline;
    deadline_in(&deadline, ms);
    journal->woken = false;
    atomic_store(&journal->wake_at, count);
    /* An append between the caller's look and the line above saw no waiter: look again. */
    while (atomic_load(&journal->appended) < count && !journal->woken && !journal->nudged)
        if (pthread_cond_timedwait(&journal->wake, &journal->wake_lock, &deadline) == ETIMEDOUT)
            break;
    atomic_store(&journal->wake_at, NOBODY_WAITS);
    return atomic_load(&journal->appended) >= count;
}

void
ptier_journal_wait(ptier_journal *journal, const uint64_t after[PTIER_STREAM_COUNT],
                   int64_t wait_ms, int64_t gather_ms)
{
    /* Sequences are contiguous from 1, so their sum counts what was appended. */
    uint64_t seen = after[PTIER_STREAM_CHANGES] + after[PTIER_STREAM_TIERS];
    pthread_mutex_lock(&journal->wake_lock);
    if (wait_for_locked(journal, seen + 1, wait_ms) && gather_ms > 0)
        (void)wait_for_locked(journal, seen + PTIER_JOURNAL_READ_MAX,
                              gather_ms); /* full or not: go */
    journal->nudged = false;
    pthread_mutex_unlock(&journal->wake_lock);
}

void
ptier_journal_wake(ptier_journal *journal)
{
    pthread_mutex_lock(&journal->wake_lock);
    journal->nudged = true;
    pthread_cond_signal(&journal->wake);
    pthread_mutex_unlock(&journal->wake_lock);
}
