/*
 * What every benchmark program shares: options, a clock, medians, one line of result. Exits only
 * through its main. Not thread-safe.
 */
#ifndef PTIER_BENCH_HARNESS_H
#define PTIER_BENCH_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <proxytier/cache.h>

typedef struct bench_run {
    bool quick;       /* fewer and shorter rounds */
    const char *work; /* an empty directory for the run's files; the caller removes it */
} bench_run;

/* Reads `[--quick] WORK_DIR`. False: said on stderr what is wrong. */
bool bench_init(bench_run *bench, int argc, char **argv);

double bench_seconds(void); /* monotonic */

/* Sorts. */
double bench_median(double *values, size_t count);

/*
 * Prints the result as one JSON object:
 * {"name","value","unit","peer","peer_value","ratio","goal","met"}, and the spread of the rounds.
 * The goal is an upper bound. There are no peers yet: their fields are null.
 */
void bench_result(const char *name, double *rounds, size_t count, const char *unit, double goal);

/* The same for a rate: the goal is a lower bound. */
void bench_result_at_least(const char *name, double *rounds, size_t count, const char *unit,
                           double goal);

/* `count` different records (owned; free with free()), with the fields that a fetched list has. */
ptier_record *bench_records(size_t count);

/* SplitMix64. */
uint64_t bench_random(uint64_t *state);

#endif
