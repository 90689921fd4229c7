/*
 * Daemons beside a benchmark, ours and its peers: real ones, on unix sockets in the run's
 * directory. They end with the program. What cannot be started ends the program (bench_fail).
 */
#ifndef PTIER_BENCH_PROCESS_H
#define PTIER_BENCH_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

#include "harness.h"

typedef struct bench_process {
    pid_t pid;
    char socket[108]; /* path; ours: of calls */
    char url[120];    /* ours: "ipc://" and that */
} bench_process;

/* Our daemon, with the usual options and `extra` ones (NULL-terminated; NULL: none). `name`: of its
 * directory and sockets below the run's. */
void bench_daemon_start(bench_process *process, const bench_run *bench, const char *name,
                        const char *const *extra);

/* redis-server, in memory only, or with an append-only file that is synced each second. */
void bench_redis_start(bench_process *process, const bench_run *bench, bool append_only);

void bench_memcached_start(bench_process *process, const bench_run *bench);

/* SIGTERM, and waits for its end; kills it after 30 s. */
void bench_process_stop(bench_process *process);

double bench_process_cpu(pid_t pid);     /* seconds so far, user and system */
double bench_process_peak_kb(pid_t pid); /* of resident memory */
double bench_process_resident_kb(pid_t pid);

#endif
