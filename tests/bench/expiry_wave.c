/*
 * expiry_wave: 1,000,000 entries in all three tiers, of which half expires at the same moment, on a
 * clock that is moved there. Measured is how long it takes until the last of them has been removed
 * and told, and what that costs a reader of the other half.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "cache/cache_internal.h"
#include "harness.h"
#include "result.h"
#include "support/virtual_clock.h"

#define BATCH       1000
#define HOUR_MS     INT64_C(3600000)
#define TICK_MS     128 /* what is due is looked for in steps of less */
#define QUIET_S     2
#define LIMIT_S     600 /* of any phase */
#define SAMPLES_MAX ((size_t)1 << 22)
#define GOAL_RATE   30000.0
#define GOAL_P99_MS 5.0 /* or five times what it is without the wave, if that is more */

typedef struct wave {
    ptier_cache *cache;
    ptier_test_clock clock;
    size_t entries;    /* the first half stays */
    ptier_error error; /* what went wrong */

    /* The reader; read by others once it has ended. */
    _Atomic bool reading;
    double *samples; /* ms */
    size_t sample_count;
    size_t misses;
} wave;

/* ---- loading ---- */

static bool
put_batch(wave *w, ptier_record *records, size_t first)
{
    char keys[BATCH][24], urls[BATCH][40];
    for (size_t i = 0; i < BATCH; i++) {
        size_t n = first + i;
        (void)snprintf(keys[i], sizeof keys[i], "k%zu", n); /* both fit */
        (void)snprintf(urls[i], sizeof urls[i], "http://10.%zu.%zu.%zu:8080", n >> 16 & 255,
                       n >> 8 & 255, n & 255);
        records[i].key = keys[i];
        records[i].url = urls[i];
        records[i].ttl_ms = n < w->entries / 2 ? 0 : HOUR_MS;
    }
    return ptier_cache_put(w->cache, records, BATCH, NULL, NULL, NULL, &w->error) == PTIER_OK;
}

static bool
load(wave *w)
{
    ptier_statistics now;
    ptier_record *records = bench_records(0, BATCH);
    bool ok = records != NULL;
    for (size_t first = 0; ok && first < w->entries; first += BATCH)
        ok = put_batch(w, records, first);
    free(records);
    double deadline = bench_seconds() + LIMIT_S;
    do { /* L3 has it all: the wave is measured for itself */
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        ptier_cache_statistics(w->cache, &now);
    } while (ok && now.pending_writes && bench_seconds() < deadline);
    if (ok && (now.entries != w->entries || now.pending_writes)) {
        (void)ptier_fail(&w->error, PTIER_INTERNAL, "not all entries were loaded"); /* by false */
        ok = false;
    }
    return ok;
}

/* ---- reading ---- */

static void *
read_live_ones(void *context)
{
    wave *w = context;
    uint64_t random = 1;
    w->sample_count = w->misses = 0;
    while (w->reading) {
        char key[24];
        ptier_entry *entry;
        (void)snprintf(key, sizeof key, "k%llu",
                       (unsigned long long)(bench_random(&random) % (w->entries / 2))); /* fits */
        double start = bench_seconds();
        if (ptier_cache_get(w->cache, key, &entry, NULL) == PTIER_OK)
            ptier_entry_release(entry);
        else
            w->misses++;
        w->samples[w->sample_count++ % SAMPLES_MAX] = (bench_seconds() - start) * 1000;
    }
    return NULL;
}

static int
compare(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double
p99(wave *w)
{
    size_t count = w->sample_count < SAMPLES_MAX ? w->sample_count : SAMPLES_MAX;
    qsort(w->samples, count, sizeof *w->samples, compare);
    return count ? w->samples[count * 99 / 100] : 0;
}

/* ---- the wave ---- */

static bool
await_end(wave *w)
{
    ptier_statistics now;
    double deadline = bench_seconds() + LIMIT_S;
    do {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        ptier_cache_statistics(w->cache, &now);
    } while (now.removals[PTIER_REASON_TTL] < w->entries / 2 && bench_seconds() < deadline);
    if (now.entries == w->entries / 2 && now.removals[PTIER_REASON_TTL] == w->entries / 2)
        return true;
    (void)ptier_fail(&w->error, PTIER_INTERNAL, "%llu entries are left",
                     (unsigned long long)now.entries); /* told by false */
    return false;
}

/* Runs `during` with a reader beside it; *p99_ms is what the reader saw. */
static bool
beside_reader(wave *w, bool (*during)(wave *w), double *seconds, double *p99_ms)
{
    pthread_t reader;
    w->reading = true;
    if (pthread_create(&reader, NULL, read_live_ones, w) != 0)
        return false;
    double start = bench_seconds();
    bool ok = during(w);
    *seconds = bench_seconds() - start;
    w->reading = false;
    (void)pthread_join(reader, NULL); /* it was created */
    *p99_ms = p99(w);
    if (ok && w->misses) {
        (void)ptier_fail(&w->error, PTIER_INTERNAL, "%zu live entries were missed",
                         w->misses); /* told by false */
        ok = false;
    }
    return ok;
}

static bool
wait_quietly(wave *w)
{
    (void)w; /* nothing is asked of the cache */
    nanosleep(&(struct timespec){.tv_sec = QUIET_S}, NULL);
    return true;
}

static bool
expire_half(wave *w)
{
    ptier_test_clock_advance(&w->clock, HOUR_MS + TICK_MS);
    return await_end(w);
}

static bool
measure(wave *w)
{
    double quiet_ms, wave_ms, seconds;
    if (!load(w) || !beside_reader(w, wait_quietly, &seconds, &quiet_ms) ||
        !beside_reader(w, expire_half, &seconds, &wave_ms))
        return false;
    double rate = (double)w->entries / 2 / seconds;
    double bound = 5 * quiet_ms > GOAL_P99_MS ? 5 * quiet_ms : GOAL_P99_MS;
    bench_print(&(bench_row){.name = "expiry_wave",
                             .unit = "entries/s",
                             .goal = BENCH_VALUE_AT_LEAST,
                             .bound = GOAL_RATE},
                &rate, 1, NULL);
    bench_print(&(bench_row){.name = "expiry_wave_get_p99",
                             .unit = "ms",
                             .goal = BENCH_VALUE_AT_MOST,
                             .bound = bound},
                &wave_ms, 1, NULL);
    return true;
}

int
main(int argc, char **argv)
{
    bench_run bench;
    static wave w = {.error = {.message = "out of memory"}};
    ptier_cache_options options;
    const ptier_cache_hooks hooks = {.clock = &w.clock.clock};
    if (!bench_init(&bench, argc, argv))
        return 2;
    w.entries = bench.quick ? 200000 : 1000000;
    w.samples = malloc(SAMPLES_MAX * sizeof *w.samples);
    ptier_test_clock_init(&w.clock);
    ptier_cache_options_init(&options);
    options.data_dir = bench.work;
    bool ok = w.samples &&
              ptier_cache_open_with(&options, &hooks, &w.cache, &w.error) == PTIER_OK &&
              measure(&w);
    ptier_cache_close(w.cache);
    free(w.samples);
    if (!ok)
        fprintf(stderr, "expiry_wave: %s\n", w.error.message);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
