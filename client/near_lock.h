/*
 * The lock of a near cache's shard. It also counts who has come, holders and waiters: so a hit
 * needs no second counter by which its client's close waits for it, and that costs as much as a
 * lock. Held for moments only: who comes meanwhile looks again a few times before sleeping.
 * Thread-safe, not recursive; zero bytes are a free one, and there is nothing to destroy.
 */
#ifndef PTIER_NEAR_LOCK_H
#define PTIER_NEAR_LOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* HELD, SLEEPERS (who leaves wakes one), and ONE_HERE for each who has come and not left. */
typedef struct ptier_near_lock {
    _Atomic uint32_t word;
} ptier_near_lock;

enum {
    PTIER_NEAR_LOCK_HELD = 1,
    PTIER_NEAR_LOCK_SLEEPERS = 2,
    PTIER_NEAR_LOCK_ONE_HERE = 4,
    PTIER_NEAR_LOCK_ALONE = PTIER_NEAR_LOCK_HELD + PTIER_NEAR_LOCK_ONE_HERE,
};

void ptier_near_lock_wait(ptier_near_lock *lock);    /* enter found it held */
void ptier_near_lock_hand_on(ptier_near_lock *lock); /* leave found others */

/* Sequentially consistent: either ptier_near_lock_idle after a store sees who came, or who came
 * sees what was stored before. */
static inline void
ptier_near_lock_enter(ptier_near_lock *lock)
{
    uint32_t free = 0;
    if (!atomic_compare_exchange_strong(&lock->word, &free, PTIER_NEAR_LOCK_ALONE))
        ptier_near_lock_wait(lock);
}

/* Whoever waits for idle may free the lock from here on: nothing of it is touched after. */
static inline void
ptier_near_lock_leave(ptier_near_lock *lock)
{
    uint32_t alone = PTIER_NEAR_LOCK_ALONE;
    if (!atomic_compare_exchange_strong_explicit(&lock->word, &alone, 0, memory_order_release,
                                                 memory_order_relaxed))
        ptier_near_lock_hand_on(lock);
}

/* Nobody holds it, or waits for it. */
static inline bool
ptier_near_lock_idle(ptier_near_lock *lock)
{
    return atomic_load(&lock->word) == 0;
}

#endif
