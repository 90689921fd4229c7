/* See workers.h. */
#include "workers.h"

#include <pthread.h>
#include <stdlib.h>

#define THREADS_PER_LANE 2

typedef struct lane {
    pthread_mutex_t lock;
    pthread_cond_t work;
    ptier_job *first;
    ptier_job **end;
    size_t waiting;
    size_t limit;
    bool stopping;
    pthread_t threads[THREADS_PER_LANE];
    size_t thread_count;
} lane;

struct ptier_workers {
    lane lanes[PTIER_LANE_COUNT]; /* [INLINE] is unused */
};

static void *
lane_main(void *argument)
{
    lane *l = argument;
    pthread_mutex_lock(&l->lock);
    for (;;) {
        while (!l->first && !l->stopping)
            pthread_cond_wait(&l->work, &l->lock);
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
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    for (size_t i = 0; i < l->thread_count; i++)
        pthread_join(l->threads[i], NULL);
    l->thread_count = 0;
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
        pthread_cond_init(&l->work, NULL);
        l->end = &l->first;
        l->limit = limits[i];
    }
    for (int i = PTIER_LANE_READ; i < PTIER_LANE_COUNT; i++) {
        lane *l = &made->lanes[i];
        for (; l->thread_count < THREADS_PER_LANE; l->thread_count++)
            if (pthread_create(&l->threads[l->thread_count], NULL, lane_main, l) != 0) {
                ptier_workers_stop(made);
                return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "cannot start worker threads");
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
        pthread_cond_signal(&l->work);
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
        pthread_cond_destroy(&workers->lanes[i].work);
        pthread_mutex_destroy(&workers->lanes[i].lock);
    }
    free(workers);
}
