#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

bool
bench_init(bench_run *bench, int argc, char **argv)
{
    memset(bench, 0, sizeof *bench);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0)
            bench->quick = true;
        else
            bench->work = argv[i];
    }
    if (!bench->work)
        fprintf(stderr, "usage: %s [--quick] WORK_DIR\n", argv[0]);
    return bench->work != NULL;
}

double
bench_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

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

static void
print_result(const char *name, double *rounds, size_t count, const char *unit, double goal,
             bool at_least)
{
    double median = bench_median(rounds, count);
    bool met = at_least ? median >= goal : median <= goal;
    printf(
        "{\"name\":\"%s\",\"value\":%.6g,\"unit\":\"%s\",\"peer\":null,\"peer_value\":null,"
        "\"ratio\":null,\"goal\":\"%s %g\",\"met\":%s,\"min\":%.6g,\"max\":%.6g,\"rounds\":%zu}\n",
        name, median, unit, at_least ? ">=" : "<=", goal, met ? "true" : "false", rounds[0],
        rounds[count - 1], count);
}

void
bench_result(const char *name, double *rounds, size_t count, const char *unit, double goal)
{
    print_result(name, rounds, count, unit, goal, false);
}

void
bench_result_at_least(const char *name, double *rounds, size_t count, const char *unit, double goal)
{
    print_result(name, rounds, count, unit, goal, true);
}

#define URL_ROOM 40

ptier_record *
bench_records(size_t count)
{
    static const ptier_label labels[] = {{"country", "DE"}, {"anonymity", "elite"}};
    ptier_record *records = calloc(1, count * (sizeof *records + URL_ROOM));
    if (!records)
        return NULL;
    char *urls = (char *)(records + count);
    for (size_t i = 0; i < count; i++) {
        char *url = urls + i * URL_ROOM;
        /* 10.0.0.0/8: 16 million addresses that belong to nobody in particular */
        (void)snprintf(url, URL_ROOM, "http://10.%zu.%zu.%zu:8080", i >> 16 & 255, i >> 8 & 255,
                       i & 255); /* fits: at most 26 */
        ptier_record_init(&records[i]);
        records[i].url = url;
        records[i].username = "customer";
        records[i].password = "made-up-password";
        records[i].source = "bench";
        records[i].health = PTIER_HEALTH_HEALTHY;
        records[i].labels = labels;
        records[i].label_count = sizeof labels / sizeof *labels;
    }
    return records;
}

uint64_t
bench_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}
