#include "near_lock.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LOOKS = 40 }; /* before sleeping: about as long as a sleeper takes to fall asleep */

/* The same word is a plain 32-bit one to the kernel. */
static void
futex(ptier_near_lock *lock, int operation, uint32_t value)
{
    /* Any result will do: who sleeps looks again, and nobody may sleep any more. */
    (void)syscall(SYS_futex, &lock->word, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

static void
relax(void)
{
#ifdef __x86_64__
    __builtin_ia32_pause();
#endif
}

/* `seen`: the word, not held. Who has slept was woken for others that may sleep, too. */
static bool
take(ptier_near_lock *lock, uint32_t seen, bool slept)
{
    uint32_t taken = seen | PTIER_NEAR_LOCK_HELD;
    if (slept && seen / PTIER_NEAR_LOCK_ONE_HERE > 1)
        taken |= PTIER_NEAR_LOCK_SLEEPERS;
    return atomic_compare_exchange_strong_explicit(&lock->word, &seen, taken, memory_order_acquire,
                                                   memory_order_relaxed);
}

static void
sleep_while_held(ptier_near_lock *lock, uint32_t seen)
{
    uint32_t marked = seen | PTIER_NEAR_LOCK_SLEEPERS;
    if (seen == marked ||
        atomic_compare_exchange_strong_explicit(&lock->word, &seen, marked, memory_order_relaxed,
                                                memory_order_relaxed))
        futex(lock, FUTEX_WAIT, marked);
}

void
ptier_near_lock_wait(ptier_near_lock *lock)
{
    bool slept = false;
    int looks = 0;
    atomic_fetch_add(&lock->word, PTIER_NEAR_LOCK_ONE_HERE);
    for (;;) {
        uint32_t seen = atomic_load_explicit(&lock->word, memory_order_relaxed);
        if (!(seen & PTIER_NEAR_LOCK_HELD)) {
            if (take(lock, seen, slept))
                return;
        } else if (looks++ < LOOKS) {
            relax();
        } else {
            sleep_while_held(lock, seen);
            slept = true;
        }
    }
}

void
ptier_near_lock_hand_on(ptier_near_lock *lock)
{
    uint32_t seen = atomic_load_explicit(&lock->word, memory_order_relaxed), left;
    do
        left = (seen - PTIER_NEAR_LOCK_ALONE) & ~(uint32_t)PTIER_NEAR_LOCK_SLEEPERS;
    while (!atomic_compare_exchange_weak_explicit(&lock->word, &seen, left, memory_order_release,
                                                  memory_order_relaxed));
    /* By now the memory may be another's: then a stranger who sleeps there looks again for nothing,
     * as may happen to any who wait like this. */
    if (seen & PTIER_NEAR_LOCK_SLEEPERS)
        futex(lock, FUTEX_WAKE, 1);
}
