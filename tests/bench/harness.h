/*
 * What every benchmark program shares: options, a clock, records, random numbers. Not thread-safe,
 * where nothing else is said.
 */
#ifndef PTIER_BENCH_HARNESS_H
#define PTIER_BENCH_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <proxytier/types.h>

typedef struct bench_run {
    bool quick;        /* fewer and shorter rounds, at most 15 s a program */
    const char *work;  /* an empty directory for the run's files; the caller removes it */
    const char *trace; /* a file of keys for those that read one; NULL: none */
} bench_run;

/* Reads `[--quick] [--trace FILE] WORK_DIR`. False: said on stderr what is wrong. */
bool bench_init(bench_run *bench, int argc, char **argv);

/* `full`, or `quick` in a quick run. */
size_t bench_size(const bench_run *bench, size_t full, size_t quick);

double bench_seconds(void); /* monotonic; any thread */

/* Says on stderr what is wrong, and ends the program: there is no half of a result. Children that
 * process.h started end with it. */
__attribute__((noreturn, format(printf, 1, 2))) void bench_fail(const char *format, ...);

/* `count` different records (owned; free with free()), with the fields that a fetched list has:
 * credentials, source, health, two labels. Those from `first` on, of the same endless list. */
ptier_record *bench_records(size_t first, size_t count);

/* The key that is derived for number `i` of that list. */
void bench_key(size_t i, char key[17]);

/* Those of the first `count` (owned; free with free()). */
char (*bench_keys(size_t count))[17];

/* SplitMix64. */
uint64_t bench_random(uint64_t *state);

#endif
