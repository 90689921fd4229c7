/*
 * Load beside which something is measured: a clock to pace by, a reader that makes single Gets and
 * notes how long each takes, and a writer of batches. Each has a client of its own. A failed call
 * ends the program (bench_fail).
 */
#ifndef PTIER_BENCH_LOAD_H
#define PTIER_BENCH_LOAD_H

#include <stdatomic.h>

#include <pthread.h>
#include <proxytier/client.h>

#include "histogram.h"
#include "process.h"

/* Returns at once when that is past. */
void bench_sleep_until(double seconds);

/* Waits until L3 has all: what is measured next is not measured beside that. */
void bench_settle(ptier_client *client);

/* ---- a reader ---- */

typedef struct bench_sample {
    uint64_t begun_ns, took_ns;
} bench_sample;

/* Part of the reader's time, ptier_now_ns(). */
typedef struct bench_window {
    uint64_t from_ns, to_ns;
} bench_window;

typedef struct bench_reader {
    ptier_client *client;
    size_t entries; /* of bench_records, from the first one on; each is there all the time */
    pthread_t thread;
    atomic_bool stopping;
    bench_sample *samples;
    size_t count, room;
    double inside_ms; /* the longest that a Get took in the cache, without sockets and threads */
} bench_reader;

/*
 * Resets the daemon's statistics (see inside_ms). Gets of random keys, `rate` a second, in a
 * thread. A Get that cannot be sent in time, because the one before has not been answered, counts
 * from when it should have been: what users wait for.
 */
void bench_reader_start(bench_reader *reader, const bench_process *daemon, size_t entries);

/* Adds those that were under way in the window; after bench_reader_stop. */
void bench_reader_add(const bench_reader *reader, const bench_window *window,
                      ptier_histogram *histogram);
void bench_reader_stop(bench_reader *reader);
void bench_reader_fini(bench_reader *reader);

/*
 * Two rows: NAME, p99 in ms, of at most `bound_ms`, and with `stall` NAME_stall, the longest, of at
 * most 100 ms. `quiet` (NULL: not measured) shows as the peer's latency.
 */
void bench_print_reads(const char *name, const char *note, double bound_ms, bool stall,
                       const ptier_histogram_sum *busy, const ptier_histogram_sum *quiet);

/* ---- a writer ---- */

typedef struct bench_writer {
    ptier_client *client;
    ptier_record *records;
    size_t count;
    double rate; /* records a second; 0: as fast as it can */
    pthread_t thread;
    atomic_bool stopping;
    atomic_size_t written;
    double begun, ended;
} bench_writer;

/* Puts batches of 100, LOGGED, one at a time: random ones of the first `entries` of bench_records.
 */
void bench_writer_start(bench_writer *writer, const bench_process *daemon, size_t entries,
                        double rate);

/* Records a second that it did write. */
double bench_writer_stop(bench_writer *writer);

#endif
