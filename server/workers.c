/* See workers.h. */
#include "workers.h"

#include <pthread.h>
#include <stdlib.h>

#define THREADS_PER_LANE 2

typedef struct lane lane;

typedef struct worker {
    lane *lane;
    pthread_t thread;
    pthread_cond_t work;
    bool idle;
    struct worker *next_idle;
} worker;

/* Whoever became idle last is woken first: the memory that it uses is still near. */
struct lane {
    pthread_mutex_t lock;
    worker *idle;
    ptier_job *first;
    ptier_job **end;
    size_t waiting;
    size_t limit;
    bool stopping;
    worker workers[THREADS_PER_LANE];
    size_t worker_count;
};

struct ptier_workers {
    lane lanes[PTIER_LANE_COUNT]; /* [INLINE] is unused */
};

static void
wait_locked(worker *w)
{
    w->idle = true;
    w->next_idle = w->lane->idle;
    w->lane->idle = w;
    while (w->idle)
        pthread_cond_wait(&w->work, &w->lane->lock);
}

/* False: all are at work. With the lock: as soon as the last job was run, which may be before this
 * returns, all may be stopped and freed. */
static bool
wake_one_locked(lane *l)
{
    worker *w = l->idle;
    if (!w)
        return false;
    l->idle = w->next_idle;
    w->idle = false;
    pthread_cond_signal(&w->work);
    return true;
}

static void *
worker_main(void *argument)
{
    worker *w = argument;
    lane *l = w->lane;
    pthread_mutex_lock(&l->lock);
    for (;;) {
        while (!l->first && !l->stopping)
            wait_locked(w);
        ptier_job *job = l->first;
        if (!job)
            break;
        l->first = job->next;
        if (!l->first)
            l->end = &l->first;
        l->waiting--;
        pthread_mutex_unlock(&l->lock);
        job->run(job);
        pthread_mutex_lock(&l->lock);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static void
lane_stop(lane *l)
{
    pthread_mutex_lock(&l->lock);
    l->stopping = true;
    while (wake_one_locked(l))
        continue;
    pthread_mutex_unlock(&l->lock);
    for (size_t i = 0; i < l->worker_count; i++)
        pthread_join(l->workers[i].thread, NULL);
    l->worker_count = 0;
}

ptier_status
ptier_workers_start(const size_t limits[PTIER_LANE_COUNT], ptier_workers **workers,
                    ptier_error *error)
{
    ptier_workers *made = calloc(1, sizeof *made);
    if (!made)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory for worker threads");
    for (int i = 0; i < PTIER_LANE_COUNT; i++) {
        lane *l = &made->lanes[i];
        pthread_mutex_init(&l->lock, NULL);
        l->end = &l->first;
        l->limit = limits[i];
        for (size_t k = 0; k < THREADS_PER_LANE; k++) {
            l->workers[k].lane = l;
            pthread_cond_init(&l->workers[k].work, NULL);
        }
    }
    for (int i = PTIER_LANE_READ; i < PTIER_LANE_COUNT; i++) {
        lane *l = &made->lanes[i];
        for (; l->worker_count < THREADS_PER_LANE; l->worker_count++) {
            worker *w = &l->workers[l->worker_count];
            if (pthread_create(&w->thread, NULL, worker_main, w) != 0) {
                ptier_workers_stop(made);
                return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "cannot start worker threads");
            }
        }
    }
    *workers = made;
    return PTIER_OK;
}

bool
ptier_workers_submit(ptier_workers *workers, ptier_lane number, ptier_job *job)
{
    lane *l = &workers->lanes[number];
    pthread_mutex_lock(&l->lock);
    bool room = l->waiting < l->limit && !l->stopping;
    if (room) {
        job->next = NULL;
        *l->end = job;
        l->end = &job->next;
        l->waiting++;
        wake_one_locked(l);
    }
    pthread_mutex_unlock(&l->lock);
    return room;
}

void
ptier_workers_stop(ptier_workers *workers)
{
    if (!workers)
        return;
    for (int i = 0; i < PTIER_LANE_COUNT; i++) {
        lane_stop(&workers->lanes[i]);
        for (size_t k = 0; k < THREADS_PER_LANE; k++)
            pthread_cond_destroy(&workers->lanes[i].workers[k].work);
        pthread_mutex_destroy(&workers->lanes[i].lock);
    }
    free(workers);
}
