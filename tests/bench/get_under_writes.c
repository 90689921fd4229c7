/*
 * get_under_writes: single Gets over a unix socket, 250 a second from random keys of 100,000
 * (L1 and L2 as they are by default, so that most come from L3), while another client puts
 * batches of 100 at 70 % of what it can at most (get_under_writes), and as fast as it can
 * (get_under_writes_saturated).
 */
#include <stdio.h>
#include <stdlib.h>

#include "load.h"
#include "pool.h"
#include "result.h"

#define ENTRIES 100000
#define SHARE   0.7

/* What a reader sees meanwhile. `rate` below 0: nobody writes; 0: as fast as it can. Returns what
 * was written. */
static double
measure(const bench_process *daemon, double seconds, double rate, ptier_histogram_sum *sum,
        double *inside_ms)
{
    static ptier_histogram histogram;
    bench_reader reader;
    bench_writer writer;
    double written = 0;
    if (rate >= 0)
        bench_writer_start(&writer, daemon, ENTRIES, rate);
    bench_reader_start(&reader, daemon, ENTRIES);
    const bench_window all = {0, UINT64_MAX};
    bench_sleep_until(bench_seconds() + seconds);
    bench_reader_stop(&reader);
    if (rate >= 0)
        written = bench_writer_stop(&writer);
    bench_reader_add(&reader, &all, &histogram);
    ptier_histogram_collect(&histogram, true, sum);
    bench_reader_fini(&reader);
    *inside_ms = reader.inside_ms;
    return written;
}

static double
writer_maximum(const bench_process *daemon, double seconds)
{
    bench_writer writer;
    bench_writer_start(&writer, daemon, ENTRIES, 0);
    bench_sleep_until(bench_seconds() + seconds);
    return bench_writer_stop(&writer);
}

int
main(int argc, char **argv)
{
    bench_run bench;
    bench_process daemon;
    ptier_histogram_sum quiet = {0}, busy = {0}, saturated = {0};
    double inside, busy_inside;
    char note[200];
    if (!bench_init(&bench, argc, argv))
        return 2;
    double seconds = (double)bench_size(&bench, 10, 3);
    bench_daemon_start(&daemon, &bench, "get", NULL);
    ptier_client *client = bench_client(&daemon);
    bench_pool_load(client, 0, ENTRIES);
    bench_settle(client);
    ptier_client_close(client);
    (void)measure(&daemon, seconds, -1, &quiet, &inside);
    double most = writer_maximum(&daemon, seconds / 2);
    double paced = measure(&daemon, seconds, SHARE * most, &busy, &busy_inside);
    double fast = measure(&daemon, seconds, 0, &saturated, &inside);
    double quiet_p99 = (double)ptier_histogram_percentile(&quiet, 0.99) / 1e6;
    (void)snprintf(note, sizeof note,
                   "the writer put %.0f records/s of at most %.0f; at most %.1f ms in the cache; "
                   "peer: nobody writes",
                   paced, most, busy_inside); /* fits */
    bench_print_reads("get_under_writes", note, 5 * quiet_p99 > 5 ? 5 * quiet_p99 : 5, false, &busy,
                      &quiet);
    (void)snprintf(
        note, sizeof note,
        "the writer put %.0f records/s; at most %.1f ms in the cache; peer: nobody writes", fast,
        inside); /* fits */
    bench_print_reads("get_under_writes_saturated", note, 20, true, &saturated, &quiet);
    bench_process_stop(&daemon);
    return EXIT_SUCCESS;
}
