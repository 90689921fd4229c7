/* Threads that run jobs: none is left behind, and their end waits for nobody but them. */
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "workers.h"

enum { JOBS = 1000, ROUNDS = 200 };

static const size_t limits[PTIER_LANE_COUNT] = {
    [PTIER_LANE_READ] = JOBS, [PTIER_LANE_WRITE] = JOBS};

typedef struct counted_job {
    ptier_job job;
    sem_t *ran;
} counted_job;

static void
count(ptier_job *job)
{
    sem_post(((counted_job *)job)->ran);
}

static ptier_workers *
start(void)
{
    ptier_workers *workers = NULL;
    ptier_error error;
    assert_int_equal(ptier_workers_start(limits, &workers, &error), PTIER_OK);
    return workers;
}

static void
what_waits_is_run_before_the_threads_end(void **state)
{
    (void)state;
    static counted_job jobs[JOBS];
    sem_t ran;
    int number = 0;
    assert_int_equal(sem_init(&ran, 0, 0), 0);
    for (int round = 0; round < ROUNDS; round++) {
        ptier_workers *workers = start();
        for (int i = 0; i < round; i++) {
            jobs[i] = (counted_job){.job.run = count, .ran = &ran};
            assert_true(ptier_workers_submit(workers, PTIER_LANE_WRITE, &jobs[i].job));
        }
        ptier_workers_stop(workers);
        assert_int_equal(sem_getvalue(&ran, &number), 0);
        assert_int_equal(number, round * (round + 1) / 2);
    }
    sem_destroy(&ran);
}

typedef struct submission {
    ptier_workers *workers;
    counted_job job;
} submission;

static void *
submit(void *context)
{
    submission *s = context;
    return ptier_workers_submit(s->workers, PTIER_LANE_READ, &s->job.job) ? s : NULL;
}

/* A call may be answered, and the last one, before the thread that brought it goes on. */
static void
threads_may_end_as_soon_as_the_last_job_was_run(void **state)
{
    (void)state;
    sem_t ran;
    assert_int_equal(sem_init(&ran, 0, 0), 0);
    for (int round = 0; round < ROUNDS; round++) {
        submission s = {.workers = start(), .job = {.job.run = count, .ran = &ran}};
        pthread_t thread;
        void *taken;
        assert_int_equal(pthread_create(&thread, NULL, submit, &s), 0);
        assert_int_equal(sem_wait(&ran), 0);
        ptier_workers_stop(s.workers);
        assert_int_equal(pthread_join(thread, &taken), 0);
        assert_ptr_equal(taken, &s);
    }
    sem_destroy(&ran);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_waits_is_run_before_the_threads_end),
        cmocka_unit_test(threads_may_end_as_soon_as_the_last_job_was_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
