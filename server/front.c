/* See front.h. */
#include "front.h"

#include <errno.h>
#include <poll.h>
#include <time.h>

#define LOOK_MS      5
#define SENT_WAIT_MS (2 * PTIER_SEND_PATIENCE_MS)

void
ptier_front_init(ptier_front *front, ptier_service *service)
{
    front->service = service;
    front->dispatch = NULL;
    atomic_init(&front->busy, 0);
    atomic_init(&front->unsent, 0);
    atomic_init(&front->last_sent_ms, 0);
    front->cut_off = (ptier_log_pace){0};
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
    bool stopping = atomic_load(&front->service->stopping);
    if (atomic_fetch_sub(&front->busy, 1) != 1 || !atomic_load(&front->service->stopping))
        return;
    pthread_mutex_lock(&front->idle_lock);
    if (stopping) /* whatever has come since is refused: no need to see a quiet moment again */
        front->drained = true;
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
ptier_front_tell_cut_off(ptier_front *front, const char *why)
{
    unsigned long long count = ptier_log_count(&front->cut_off, ptier_monotonic_ms());
    if (count)
        ptier_log_write(front->service->log, PTIER_LOG_WARN, "peer_cut_off",
                        "%s; %llu cut off since the last such line", why, count);
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

void
ptier_front_wait_sent(const ptier_front *front)
{
    int64_t deadline = ptier_monotonic_ms() + SENT_WAIT_MS;
    while (atomic_load(&front->unsent) > 0 && ptier_monotonic_ms() < deadline)
        (void)poll(NULL, 0, LOOK_MS); /* only to pass the time */
}
