#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "pool.h"
#include "result.h"

#define READS_PER_S 250 /* far from what one caller can: its own queue is not measured */
#define BATCH       100
#define STALL_MS    100
#define SETTLE_S    60

void
bench_sleep_until(double seconds)
{
    double left = seconds - bench_seconds();
    if (left <= 0)
        return;
    struct timespec pause = {.tv_sec = (time_t)left};
    pause.tv_nsec = (long)((left - (double)pause.tv_sec) * 1e9);
    nanosleep(&pause, NULL); /* a signal would make it shorter: the pace stays */
}

void
bench_settle(ptier_client *client)
{
    ptier_statistics now;
    ptier_error error;
    double until = bench_seconds() + SETTLE_S;
    do {
        bench_sleep_until(bench_seconds() + 0.005);
        if (ptier_get_statistics(client, &now, &error))
            bench_fail("statistics: %s", error.message);
        if (bench_seconds() > until)
            bench_fail("L3 does not catch up within %d s", SETTLE_S);
    } while (now.pending_writes || now.l3_lag);
}

/* ---- the reader ---- */

static void
note_sample(bench_reader *reader, uint64_t begun, uint64_t ended)
{
    if (reader->count == reader->room) {
        reader->room = reader->room ? reader->room * 2 : 4096;
        bench_sample *grown = realloc(reader->samples, reader->room * sizeof *grown);
        if (!grown)
            bench_fail("out of memory");
        reader->samples = grown;
    }
    reader->samples[reader->count++] = (bench_sample){begun, ended - begun};
}

static void *
read_paced(void *context)
{
    bench_reader *reader = context;
    const uint64_t period = UINT64_C(1000000000) / READS_PER_S;
    uint64_t random = 1, due = ptier_now_ns();
    while (!atomic_load(&reader->stopping)) {
        char key[17];
        ptier_records records;
        ptier_error error;
        bench_key(bench_random(&random) % reader->entries, key);
        bool late = ptier_now_ns() > due;
        if (!late)
            bench_sleep_until((double)due / 1e9);
        uint64_t begun = late ? due : ptier_now_ns();
        if (ptier_get(reader->client, key, &records, &error))
            bench_fail("get %s: %s", key, error.message);
        note_sample(reader, begun, ptier_now_ns());
        ptier_records_free(&records);
        due += period;
    }
    return NULL;
}

/* Since the statistics were reset, which it does again. Puts read, too, but only these are timed
 * so.
 */
static double
longest_inside(ptier_client *client)
{
    ptier_statistics now;
    ptier_error error;
    uint64_t most = 0;
    if (ptier_reset_statistics(client, &now, &error))
        bench_fail("statistics: %s", error.message);
    for (int i = PTIER_OPERATION_GET_L1; i <= PTIER_OPERATION_GET_MISS; i++)
        most = now.latency[i].max_ns > most ? now.latency[i].max_ns : most;
    return (double)most / 1e6;
}

void
bench_reader_start(bench_reader *reader, const bench_process *daemon, size_t entries)
{
    *reader = (bench_reader){.client = bench_client(daemon), .entries = entries};
    (void)longest_inside(reader->client); /* of what came before */
    if (pthread_create(&reader->thread, NULL, read_paced, reader) != 0)
        bench_fail("cannot start a thread");
}

void
bench_reader_stop(bench_reader *reader)
{
    atomic_store(&reader->stopping, true);
    (void)pthread_join(reader->thread, NULL); /* it was created */
    reader->inside_ms = longest_inside(reader->client);
    ptier_client_close(reader->client);
}

void
bench_reader_add(const bench_reader *reader, const bench_window *window, ptier_histogram *histogram)
{
    for (size_t i = 0; i < reader->count; i++) {
        const bench_sample *s = &reader->samples[i];
        if (s->begun_ns < window->to_ns && s->begun_ns + s->took_ns >= window->from_ns)
            ptier_histogram_add(histogram, s->took_ns);
    }
}

void
bench_reader_fini(bench_reader *reader)
{
    free(reader->samples);
}

void
bench_print_reads(const char *name, const char *note, double bound_ms, bool stall,
                  const ptier_histogram_sum *busy, const ptier_histogram_sum *quiet)
{
    char stall_name[64];
    double p99 = (double)ptier_histogram_percentile(busy, 0.99) / 1e6,
           most = (double)busy->max / 1e6;
    const bench_details details = {.latency = busy, .peer_latency = quiet};
    if (!busy->count)
        bench_fail("%s: nothing was read meanwhile", name);
    bench_print(&(bench_row){.name = name,
                             .unit = "ms",
                             .note = note,
                             .goal = BENCH_VALUE_AT_MOST,
                             .bound = bound_ms},
                &p99, 1, &details);
    if (!stall)
        return;
    (void)snprintf(stall_name, sizeof stall_name, "%s_stall", name); /* fits */
    bench_print(
        &(bench_row){
            .name = stall_name, .unit = "ms", .goal = BENCH_VALUE_AT_MOST, .bound = STALL_MS},
        &most, 1, NULL);
}

/* ---- the writer ---- */

static void *
write_batches(void *context)
{
    bench_writer *w = context;
    uint64_t random = 2;
    size_t written = 0;
    w->begun = bench_seconds();
    while (!atomic_load(&w->stopping)) {
        ptier_error error;
        if (w->rate > 0)
            bench_sleep_until(w->begun + (double)written / w->rate);
        size_t first = bench_random(&random) % (w->count - BATCH + 1);
        if (ptier_put_many(w->client, w->records + first, BATCH, NULL, NULL, &error))
            bench_fail("put: %s", error.message);
        written += BATCH;
        atomic_store(&w->written, written);
    }
    w->ended = bench_seconds();
    return NULL;
}

void
bench_writer_start(bench_writer *w, const bench_process *daemon, size_t entries, double rate)
{
    *w = (bench_writer){.client = bench_client(daemon),
                        .records = bench_records(0, entries),
                        .count = entries,
                        .rate = rate};
    if (pthread_create(&w->thread, NULL, write_batches, w) != 0)
        bench_fail("cannot start a thread");
}

double
bench_writer_stop(bench_writer *w)
{
    atomic_store(&w->stopping, true);
    (void)pthread_join(w->thread, NULL); /* it was created */
    ptier_client_close(w->client);
    free(w->records);
    return (double)atomic_load(&w->written) / (w->ended - w->begun);
}
