/* See front.h. */
#include "front.h"

#include <errno.h>
#include <time.h>

void
ptier_front_init(ptier_front *front, ptier_service *service)
{
    front->service = service;
    front->dispatch = NULL;
    atomic_init(&front->busy, 0);
    atomic_init(&front->last_sent_ms, 0);
    front->drained = false;
    pthread_mutex_init(&front->idle_lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&front->idle, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

void
ptier_front_fini(ptier_front *front)
{
    pthread_cond_destroy(&front->idle);
    pthread_mutex_destroy(&front->idle_lock);
}

void
ptier_front_enter(ptier_front *front)
{
    atomic_fetch_add(&front->busy, 1);
}

void
ptier_front_leave(ptier_front *front)
{
    if (atomic_fetch_sub(&front->busy, 1) != 1 || !atomic_load(&front->service->stopping))
        return;
    pthread_mutex_lock(&front->idle_lock);
    front->drained = true; /* whatever comes now is refused: no need to see a quiet moment again */
    pthread_cond_signal(&front->idle);
    pthread_mutex_unlock(&front->idle_lock);
}

bool
ptier_front_is_crowded(const ptier_front *front, unsigned own)
{
    return own > PTIER_CONNECTION_LIMIT ||
           (own > PTIER_CONNECTION_LIMIT_CROWDED && atomic_load(&front->busy) > PTIER_BUSY_CROWDED);
}

void
ptier_front_wait_idle(ptier_front *front, int64_t patience_ms)
{
    struct timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += patience_ms / 1000;
    deadline.tv_nsec += patience_ms % 1000 * 1000000;
    if (deadline.tv_nsec >= 1000000000) {
        deadline.tv_sec++;
        deadline.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&front->idle_lock);
    while (!front->drained && atomic_load(&front->busy) > 0)
        if (pthread_cond_timedwait(&front->idle, &front->idle_lock, &deadline) == ETIMEDOUT)
            break;
    pthread_mutex_unlock(&front->idle_lock);
}
