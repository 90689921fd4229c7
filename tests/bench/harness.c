#include "harness.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <proxytier/import.h>

bool
bench_init(bench_run *bench, int argc, char **argv)
{
    memset(bench, 0, sizeof *bench);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0)
            bench->quick = true;
        else if (strcmp(argv[i], "--trace") == 0 && i + 1 < argc)
            bench->trace = argv[++i];
        else
            bench->work = argv[i];
    }
    if (!bench->work)
        fprintf(stderr, "usage: %s [--quick] [--trace FILE] WORK_DIR\n", argv[0]);
    return bench->work != NULL;
}

double
bench_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

void
bench_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    va_end(arguments);
    exit(EXIT_FAILURE);
}

size_t
bench_size(const bench_run *bench, size_t full, size_t quick)
{
    return bench->quick ? quick : full;
}

#define URL_ROOM 40
#define USERNAME "customer"

/* 10.0.0.0/8: 16 million addresses that belong to nobody in particular. */
static void
make_url(size_t i, char url[URL_ROOM])
{
    (void)snprintf(url, URL_ROOM, "http://10.%zu.%zu.%zu:8080", i >> 16 & 255, i >> 8 & 255,
                   i & 255); /* fits: at most 26 */
}

ptier_record *
bench_records(size_t first, size_t count)
{
    static const ptier_label labels[] = {{"country", "DE"}, {"anonymity", "elite"}};
    ptier_record *records = calloc(1, count * (sizeof *records + URL_ROOM));
    if (!records)
        bench_fail("out of memory");
    char *urls = (char *)(records + count);
    for (size_t i = 0; i < count; i++) {
        char *url = urls + i * URL_ROOM;
        make_url(first + i, url);
        ptier_record_init(&records[i]);
        records[i].url = url;
        records[i].username = USERNAME;
        records[i].password = "made-up-password";
        records[i].source = "bench";
        records[i].health = PTIER_HEALTH_HEALTHY;
        records[i].labels = labels;
        records[i].label_count = sizeof labels / sizeof *labels;
    }
    return records;
}

void
bench_key(size_t i, char key[17])
{
    char url[URL_ROOM], derived[65];
    make_url(i, url);
    ptier_key_derive(url, USERNAME, false, derived);
    memcpy(key, derived, 17);
}

char (*bench_keys(size_t count))[17]
{
    char(*keys)[17] = calloc(count, sizeof *keys);
    if (!keys)
        bench_fail("out of memory");
    for (size_t i = 0; i < count; i++)
        bench_key(i, keys[i]);
    return keys;
}

uint64_t
bench_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}
