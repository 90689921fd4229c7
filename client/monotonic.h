/*
 * Deadlines of the SDK: milliseconds of CLOCK_MONOTONIC. Thread-safe (no state).
 */
#ifndef PTIER_MONOTONIC_H
#define PTIER_MONOTONIC_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

static inline int64_t
ptier_monotonic_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static inline int64_t
ptier_monotonic_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* A condition variable whose timed waits are on this clock. 0 or an errno value. */
static inline int
ptier_monotonic_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attributes;
    int rv = pthread_condattr_init(&attributes);
    if (rv != 0)
        return rv;
    rv = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    if (rv == 0)
        rv = pthread_cond_init(cond, &attributes);
    (void)pthread_condattr_destroy(&attributes); /* cannot fail */
    return rv;
}

/* Waits until signalled or `until`; the caller looks at its condition again either way. */
static inline void
ptier_monotonic_wait(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t until)
{
    struct timespec at = {.tv_sec = until / 1000, .tv_nsec = until % 1000 * 1000000};
    (void)pthread_cond_timedwait(cond, lock, &at); /* a time-out is no failure */
}

#endif
