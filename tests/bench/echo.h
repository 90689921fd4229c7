/*
 * A bare nng echo over ipc, in a process of its own: replies of one size to whatever comes, at
 * once, with as many contexts as our daemon has. What any program over nng could reach at best.
 */
#ifndef PTIER_BENCH_ECHO_H
#define PTIER_BENCH_ECHO_H

#include <stddef.h>

#include "process.h"

void bench_echo_start(bench_process *process, const bench_run *bench, size_t reply_bytes);

/* ---- its client: one socket ---- */

typedef struct bench_echo_client bench_echo_client;

/* `in_flight` requests of this size at once, at most 256; 1: plain send and receive. */
bench_echo_client *bench_echo_client_open(const bench_process *echo, size_t request_bytes,
                                          size_t in_flight);

/* Makes so many requests; returns when all are answered. */
void bench_echo_client_run(bench_echo_client *client, size_t requests);
void bench_echo_client_close(bench_echo_client *client);

#endif
