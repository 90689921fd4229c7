/*
 * Sequences of reads, for hit_rate: made from a distribution, or read from a file. Keys are numbers
 * from 0 to `keys` + `others` - 1. Not thread-safe; what fails ends the program (bench_fail).
 */
#ifndef PTIER_BENCH_TRACE_H
#define PTIER_BENCH_TRACE_H

#include <stddef.h>
#include <stdint.h>

typedef struct bench_trace {
    uint32_t *reads; /* owned */
    size_t count, room;
    size_t keys;
    size_t others; /* of scans, and of a list's later days: no part of the key space that sizes
                      count by */
    size_t period; /* reads in three hours; 0: time stands still */
} bench_trace;

/* `count` reads of `keys` keys; that of rank r comes with a probability of 1 / r^alpha. */
void bench_trace_zipf(bench_trace *trace, size_t keys, size_t count, double alpha);

/* Zipf(1.0), and whenever half as many reads as there are keys have been made, a scan of a tenth as
 * many others: keys that nobody else reads, each once in ten scans. 1 read in 6 is a scan's. */
void bench_trace_scans(bench_trace *trace, size_t keys, size_t count);

/* A list of `keys` proxies that is fetched every three hours: a fifth of it is new, as much is
 * gone. Each time all of it is gone through, and then `keys` reads follow, by Zipf(1.0). */
void bench_trace_churn(bench_trace *trace, size_t keys, size_t refreshes);

/* A file: a key a line; or, when its name ends in .csv, the column "key". Fails where no key is
 * read twice: then it is something else, and no hit rate of it means anything. */
void bench_trace_load(bench_trace *trace, const char *path);

void bench_trace_free(bench_trace *trace);

#endif
