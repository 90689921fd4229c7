#include "result.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int
compare(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

double
bench_median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, compare);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

static bool
is_met(const bench_row *row, double value, double ratio)
{
    switch (row->goal) {
    case BENCH_VALUE_AT_MOST:
        return value <= row->bound;
    case BENCH_VALUE_AT_LEAST:
        return value >= row->bound;
    case BENCH_RATIO_AT_MOST:
        return ratio <= row->bound;
    default:
        return ratio >= row->bound;
    }
}

static const char *
goal_text(bench_goal goal)
{
    static const char *const texts[] = {
        [BENCH_VALUE_AT_MOST] = "<=",
        [BENCH_VALUE_AT_LEAST] = ">=",
        [BENCH_RATIO_AT_MOST] = "ratio <=",
        [BENCH_RATIO_AT_LEAST] = "ratio >=",
    };
    return texts[goal];
}

static void
print_number(const char *name, double value)
{
    if (value != 0)
        printf(",\"%s\":%.6g", name, value);
}

static void
print_latency(const char *prefix, const ptier_histogram_sum *sum)
{
    if (!sum || !sum->count)
        return;
    printf(",\"%sp50_us\":%.4g,\"%sp99_us\":%.4g,\"%sp999_us\":%.4g,\"%smax_us\":%.4g", prefix,
           (double)ptier_histogram_percentile(sum, 0.5) / 1e3, prefix,
           (double)ptier_histogram_percentile(sum, 0.99) / 1e3, prefix,
           (double)ptier_histogram_percentile(sum, 0.999) / 1e3, prefix, (double)sum->max / 1e3);
}

static void
print_series(const char *name, const bench_series *series, const double *values)
{
    if (!values)
        return;
    printf(",\"%s\":[", name);
    for (size_t i = 0; i < series->count; i++)
        printf("%s[%zu,%.6g]", i ? "," : "", series->entries[i], values[i]);
    putchar(']');
}

static void
print_details(const bench_details *d)
{
    print_latency("", d->latency);
    print_latency("peer_", d->peer_latency);
    print_number("server_cpu_s", d->server_cpu);
    print_number("client_cpu_s", d->client_cpu);
    print_number("peer_cpu_s", d->peer_cpu);
    print_number("server_peak_kb", d->server_peak_kb);
    print_number("peer_peak_kb", d->peer_peak_kb);
    if (d->series) {
        print_series("series", d->series, d->series->values);
        print_series("peer_series", d->series, d->series->peer_values);
    }
}

/* `peer_rounds` NULL: there is none. */
static void
print_row(const bench_row *row, double *rounds, double *peer_rounds, double ratio, size_t count,
          const bench_details *details)
{
    double value = bench_median(rounds, count);
    printf("{\"name\":\"%s\",\"value\":%.6g,\"unit\":\"%s\"", row->name, value, row->unit);
    if (peer_rounds)
        printf(",\"peer\":\"%s\",\"peer_value\":%.6g,\"ratio\":%.4g", row->peer,
               bench_median(peer_rounds, count), ratio);
    else
        printf(",\"peer\":null,\"peer_value\":null,\"ratio\":null");
    printf(",\"goal\":\"%s %g\",\"met\":%s,\"min\":%.6g,\"max\":%.6g,\"rounds\":%zu",
           goal_text(row->goal), row->bound, is_met(row, value, ratio) ? "true" : "false",
           rounds[0], rounds[count - 1], count);
    if (peer_rounds)
        printf(",\"peer_min\":%.6g,\"peer_max\":%.6g", peer_rounds[0], peer_rounds[count - 1]);
    if (details)
        print_details(details);
    if (row->note)
        printf(",\"note\":\"%s\"", row->note);
    puts("}");
    (void)fflush(stdout); /* a failure shows as a missing row */
}

void
bench_print(const bench_row *row, double *rounds, size_t count, const bench_details *details)
{
    print_row(row, rounds, NULL, 0, count, details);
}

void
bench_print_pair(const bench_row *row, double *rounds, double *peer_rounds, size_t count,
                 const bench_details *details)
{
    double ratios[BENCH_ROUNDS_MAX] = {0};
    for (size_t i = 0; i < count; i++)
        ratios[i] = row->less_is_better ? peer_rounds[i] / rounds[i] : rounds[i] / peer_rounds[i];
    print_row(row, rounds, peer_rounds, bench_median(ratios, count), count, details);
}

void
bench_alternate(bench_round_fn ours, void *context, bench_round_fn peer, void *peer_context,
                size_t count, double *rounds, double *peer_rounds)
{
    (void)ours(context);
    (void)peer(peer_context);
    for (size_t i = 0; i < count; i++) {
        if (i % 2 == 0)
            rounds[i] = ours(context);
        peer_rounds[i] = peer(peer_context);
        if (i % 2)
            rounds[i] = ours(context);
    }
}
