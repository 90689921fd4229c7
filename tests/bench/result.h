/*
 * Figures of rounds, compared with a peer's in alternating rounds, and the goal: one JSON object a
 * line on stdout, as `./dev bench` reads it. Not thread-safe.
 */
#ifndef PTIER_BENCH_RESULT_H
#define PTIER_BENCH_RESULT_H

#include <stdbool.h>
#include <stddef.h>

#include "histogram.h"

#define BENCH_ROUNDS_MAX 64

typedef enum bench_goal {
    BENCH_VALUE_AT_MOST,
    BENCH_VALUE_AT_LEAST,
    BENCH_RATIO_AT_MOST,
    BENCH_RATIO_AT_LEAST,
} bench_goal;

typedef struct bench_row {
    const char *name, *unit;
    const char *peer; /* who it is compared with, and how it is used; NULL: nobody */
    const char *note; /* what is not equal, and what else has to be known; NULL: nothing */
    bench_goal goal;
    double bound;
    /* How many times as good as the peer: ours/peer, or with `less_is_better` peer/ours. */
    bool less_is_better;
} bench_row;

/* How a figure changes with the number of entries. */
typedef struct bench_series {
    size_t count;
    const size_t *entries;
    const double *values, *peer_values; /* peer_values NULL: nobody */
} bench_series;

/* What is told beside the figure; zeroes and NULLs are left out. */
typedef struct bench_details {
    const ptier_histogram_sum *latency, *peer_latency; /* nanoseconds of single operations */
    double server_cpu, client_cpu, peer_cpu;           /* seconds, for all rounds together */
    double server_peak_kb, peer_peak_kb;
    const bench_series *series;
} bench_details;

/* Measures one round; ends the program when it cannot. */
typedef double (*bench_round_fn)(void *context);

/* The median. Sorts. */
double bench_median(double *values, size_t count);

/* A row without a peer. Sorts. `details` may be NULL. */
void bench_print(const bench_row *row, double *rounds, size_t count, const bench_details *details);

/*
 * The same with a peer: rounds[i] and peer_rounds[i] were measured one after the other, and the
 * ratio is the median of theirs. Sorts.
 */
void bench_print_pair(const bench_row *row, double *rounds, double *peer_rounds, size_t count,
                      const bench_details *details);

/* One round of each that does not count, then `count` pairs, in changing order; fills both arrays.
 */
void bench_alternate(bench_round_fn ours, void *context, bench_round_fn peer, void *peer_context,
                     size_t count, double *rounds, double *peer_rounds);

#endif
