/*
 * hit_rate: what share of reads the cache answers, with each eviction policy of L1, beside exact
 * caches of the same policy (policy_model.h) on the same reads: Zipf, Zipf with scans, and a proxy
 * list of which a fifth is new every three hours. A miss is put, as after a fetch. Of all reads the
 * second half counts. `--trace FILE` replays a file instead.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cache_internal.h"
#include "harness.h"
#include "policy_model.h"
#include "result.h"
#include "support/virtual_clock.h"
#include "trace.h"

#define POLICIES    4
#define SIZES       3
#define LOADS_MAX   5
#define HOUR_MS     INT64_C(3600000)
#define TTL_PERIODS 8    /* 24 hours */
#define TICK_MS     1000 /* at least one of the index */
#define NOTE_ROOM   600

static const char *const policy_names[POLICIES] = {
    [PTIER_EVICTION_LRU] = "lru",
    [PTIER_EVICTION_LFU] = "lfu",
    [PTIER_EVICTION_FIFO] = "fifo",
    [PTIER_EVICTION_SIEVE] = "sieve",
};
static const size_t percents[SIZES] = {1, 10, 50}; /* of the key space, that L1 has room for */

typedef struct rate {
    double ours, exact; /* per cent */
} rate;

typedef struct load {
    const char *name;
    bench_trace trace;
    rate rates[POLICIES][SIZES];
} load;

/* ---- one cache, one sequence of reads ---- */

typedef struct subject {
    ptier_cache *cache;
    ptier_test_clock clock;
} subject;

static void
open_cache(subject *s, const ptier_cache_options *options)
{
    const ptier_cache_hooks hooks = {.clock = &s->clock.clock};
    ptier_error error;
    ptier_test_clock_init(&s->clock);
    if (ptier_cache_open_with(options, &hooks, &s->cache, &error) != PTIER_OK)
        bench_fail("hit_rate: %s", error.message);
}

/* True: a hit. */
static bool
read_ours(const subject *s, uint32_t number)
{
    char key[16], url[40];
    ptier_entry *entry;
    ptier_record record;
    ptier_error error;
    (void)snprintf(key, sizeof key, "k%u", number); /* both fit */
    if (ptier_cache_get(s->cache, key, &entry, NULL) == PTIER_OK) {
        ptier_entry_release(entry);
        return true;
    }
    (void)snprintf(url, sizeof url, "http://10.%u.%u.%u:8080", number >> 16 & 255,
                   number >> 8 & 255, number & 255);
    ptier_record_init(&record);
    record.key = key;
    record.url = url;
    if (ptier_cache_put(s->cache, &record, 1, NULL, NULL, NULL, &error) != PTIER_OK)
        bench_fail("hit_rate: put: %s", error.message);
    return false;
}

/*
 * Three hours on; what has expired is gone. And a little more than that: at the very moment of its
 * expiry an entry is not served any more, but goes a tick later, which for the exact cache is the
 * same.
 */
static void
pass_time(subject *s)
{
    ptier_statistics now;
    ptier_test_clock_advance(&s->clock, 3 * HOUR_MS + TICK_MS);
    double deadline = bench_seconds() + 20;
    do {
        while (ptier_expire(s->cache)) {
        }
        ptier_cache_statistics(s->cache, &now);
    } while (now.expired_undrained && bench_seconds() < deadline);
}

/* Per cent of the second half that hit. */
static double
replay(subject *s, const bench_trace *trace)
{
    size_t hits = 0, first = trace->count / 2;
    for (size_t i = 0; i < trace->count; i++) {
        if (trace->period && i && i % trace->period == 0)
            pass_time(s);
        hits += read_ours(s, trace->reads[i]) && i >= first;
    }
    return 100.0 * (double)hits / (double)(trace->count - first);
}

/* The same of an exact cache. `put_at`: room for a period for each key. */
static double
replay_exact(ptier_eviction policy, size_t capacity, const bench_trace *trace, uint32_t *put_at)
{
    size_t hits = 0, first = trace->count / 2, keys = trace->keys + trace->others;
    bench_model *model = bench_model_create(policy, keys, capacity);
    uint32_t now = TTL_PERIODS; /* so that 0 is expired, or never put */
    memset(put_at, 0, keys * sizeof *put_at);
    for (size_t i = 0; i < trace->count; i++) {
        uint32_t key = trace->reads[i];
        if (trace->period && i && i % trace->period == 0) {
            now++;
            for (uint32_t k = 0; k < keys; k++)
                if (put_at[k] + TTL_PERIODS == now)
                    bench_model_remove(model, k);
        }
        bool hit = bench_model_read(model, key);
        if (!hit)
            put_at[key] = now;
        hits += hit && i >= first;
    }
    bench_model_destroy(model);
    return 100.0 * (double)hits / (double)(trace->count - first);
}

/* ---- policies of L1, beside exact ones ---- */

static void
measure_load(load *l)
{
    uint32_t *put_at = calloc(l->trace.keys + l->trace.others, sizeof *put_at);
    if (!put_at)
        bench_fail("out of memory");
    for (size_t size = 0; size < SIZES; size++) {
        size_t capacity = l->trace.keys * percents[size] / 100;
        for (size_t policy = 0; policy < POLICIES; policy++) {
            subject s;
            ptier_cache_options options;
            ptier_cache_options_init(&options);
            options.l1_entries = capacity ? capacity : 1;
            options.l1_eviction = (ptier_eviction)policy;
            options.default_ttl_ms = l->trace.period ? 3 * TTL_PERIODS * HOUR_MS : 0;
            open_cache(&s, &options);
            l->rates[policy][size] =
                (rate){.ours = replay(&s, &l->trace),
                       .exact = replay_exact((ptier_eviction)policy, options.l1_entries, &l->trace,
                                             put_at)};
            (void)ptier_cache_close(s.cache); /* memory only: nothing to lose */
        }
    }
    free(put_at);
}

/* Where it differs most, and "zipf 0.8 12.3 23.4 45.6, ..." */
static void
describe(const load *loads, size_t count, size_t policy, rate worst, char note[NOTE_ROOM])
{
    int at = 0;
    if (worst.ours != worst.exact)
        at = snprintf(note, NOTE_ROOM, "%.1f instead of %.1f at most; ", worst.ours, worst.exact);
    at += snprintf(note + at, NOTE_ROOM - (size_t)at, "%% of reads at 1, 10, 50 %% of the keys:");
    for (size_t i = 0; i < count; i++) {
        const rate *r = loads[i].rates[policy];
        at += snprintf(note + at, NOTE_ROOM - (size_t)at, " %s %.1f %.1f %.1f%s", loads[i].name,
                       r[0].ours, r[1].ours, r[2].ours, i + 1 < count ? "," : ""); /* 5 loads fit */
    }
}

/* In points. L1's LFU counts to 63, the exact one on and on: where that helps it, which is where
 * what was popular once is asked for no more, nothing is wrong. */
static double
gap(size_t policy, const rate *r)
{
    return policy == PTIER_EVICTION_LFU ? fmax(r->exact - r->ours, 0) : fabs(r->ours - r->exact);
}

static void
print_exactness(const load *loads, size_t count)
{
    for (size_t policy = 0; policy < POLICIES; policy++) {
        char name[40], note[NOTE_ROOM];
        rate worst = {0};
        for (size_t i = 0; i < count; i++)
            for (size_t size = 0; size < SIZES; size++) {
                const rate *r = &loads[i].rates[policy][size];
                if (gap(policy, r) > gap(policy, &worst))
                    worst = *r;
            }
        double points = gap(policy, &worst);
        (void)snprintf(name, sizeof name, "hit_rate_%s_exact", policy_names[policy]); /* fits */
        describe(loads, count, policy, worst, note);
        bench_print(
            &(bench_row){.name = name,
                         .unit = policy == PTIER_EVICTION_LFU ? "points below" : "points apart",
                         .note = note,
                         .goal = BENCH_VALUE_AT_MOST,
                         .bound = 1},
            &points, 1, NULL);
    }
}

/* Where sieve does worst beside lru, of loads[first] and the `count` - 1 next. */
static void
print_sieve(const char *name, const load *loads, size_t count)
{
    double worst = INFINITY, sieve = 0, lru = 0;
    char note[80] = "";
    for (size_t i = 0; i < count; i++)
        for (size_t size = 0; size < SIZES; size++) {
            double ours = loads[i].rates[PTIER_EVICTION_SIEVE][size].ours;
            double theirs = loads[i].rates[PTIER_EVICTION_LRU][size].ours;
            if (ours / theirs >= worst)
                continue;
            worst = ours / theirs;
            sieve = ours;
            lru = theirs;
            (void)snprintf(note, sizeof note, "where it is least: %s, L1 of %zu %% of the keys",
                           loads[i].name, percents[size]); /* fits */
        }
    bench_print_pair(&(bench_row){.name = name,
                                  .unit = "% of reads",
                                  .peer = "lru",
                                  .note = note,
                                  .goal = BENCH_RATIO_AT_LEAST,
                                  .bound = 1},
                     &sieve, &lru, 1, NULL);
}

static void
compare_policies(const bench_run *bench)
{
    size_t keys = bench_size(bench, 50000, 4000), reads = bench_size(bench, 800000, 80000);
    load loads[LOADS_MAX] = {{.name = "zipf 0.8"},
                             {.name = "zipf 1.0"},
                             {.name = "zipf 1.2"},
                             {.name = "scans"},
                             {.name = "churn"}};
    bench_trace_zipf(&loads[0].trace, keys, reads, 0.8);
    bench_trace_zipf(&loads[1].trace, keys, reads, 1);
    bench_trace_zipf(&loads[2].trace, keys, reads, 1.2);
    bench_trace_scans(&loads[3].trace, keys, reads);
    bench_trace_churn(&loads[4].trace, keys, 16);
    for (size_t i = 0; i < LOADS_MAX; i++)
        measure_load(&loads[i]);
    print_exactness(loads, LOADS_MAX);
    print_sieve("hit_rate_sieve_zipf", loads, 3);
    print_sieve("hit_rate_sieve_scans", &loads[3], 1);
    for (size_t i = 0; i < LOADS_MAX; i++)
        bench_trace_free(&loads[i].trace);
}

static void
compare_on_file(const char *path)
{
    load l = {0};
    char name[80];
    bench_trace_load(&l.trace, path);
    (void)snprintf(name, sizeof name, "the trace (%zu reads of %zu keys)", l.trace.count,
                   l.trace.keys); /* fits */
    l.name = name;
    measure_load(&l);
    print_exactness(&l, 1);
    bench_trace_free(&l.trace);
}

/* ---- two tiers, as people run them ---- */

static void
open_two_tiers(subject *s, const bench_run *bench, const char *name, int64_t ttl_ms)
{
    char directory[4096];
    ptier_cache_options options;
    if (snprintf(directory, sizeof directory, "%s/%s", bench->work, name) >= (int)sizeof directory)
        bench_fail("hit_rate: the directory's path is too long");
    ptier_cache_options_init(&options); /* 1,000 and 5,000 entries */
    options.data_dir = directory;
    options.l3_enabled = false;
    options.default_ttl_ms = ttl_ms;
    open_cache(s, &options);
}

static void
typical_load(const bench_run *bench)
{
    enum { KEYS = 10000, L2_ENTRIES = 5000 };
    subject s;
    bench_trace trace;
    ptier_statistics statistics;
    static uint32_t put_at[KEYS];
    bench_trace_zipf(&trace, KEYS, bench_size(bench, 400000, 100000), 1);
    open_two_tiers(&s, bench, "typical", 0);
    double ours = replay(&s, &trace);
    double exact = replay_exact(PTIER_EVICTION_LRU, L2_ENTRIES, &trace, put_at);
    ptier_cache_statistics(s.cache, &statistics);
    if (statistics.entries > L2_ENTRIES)
        bench_fail("hit_rate: %llu entries where %d may be", (unsigned long long)statistics.entries,
                   L2_ENTRIES);
    (void)ptier_cache_close(s.cache); /* the files go with the run */
    bench_print_pair(&(bench_row){.name = "hit_rate",
                                  .unit = "% of reads",
                                  .peer = "an exact lru of 5,000",
                                  .note = "Zipf(1.0), 10,000 keys, L1 1,000, L2 5,000",
                                  .goal = BENCH_VALUE_AT_LEAST,
                                  .bound = 80},
                     &ours, &exact, 1, NULL);
    bench_trace_free(&trace);
}

/* Every proxy of the list is asked for at each refresh; what is cached need not be fetched. */
static void
refreshed_list(const bench_run *bench)
{
    enum { LIST = 1000, REFRESHES = 24 };
    subject s;
    size_t saved = 0;
    open_two_tiers(&s, bench, "refreshed", 3 * TTL_PERIODS * HOUR_MS);
    for (uint32_t refresh = 0; refresh < REFRESHES; refresh++) {
        for (uint32_t i = 0; i < LIST; i++)
            saved += read_ours(&s, refresh * (LIST / 5) + i);
        pass_time(&s);
    }
    (void)ptier_cache_close(s.cache); /* the files go with the run */
    double share = 100.0 * (double)saved / (LIST * REFRESHES);
    bench_print(&(bench_row){.name = "hit_rate_churn",
                             .unit = "% of fetches saved",
                             .note = "a list of 1,000, a fifth of it new every 3 h for 3 days",
                             .goal = BENCH_VALUE_AT_LEAST,
                             .bound = 60},
                &share, 1, NULL);
}

int
main(int argc, char **argv)
{
    bench_run bench;
    if (!bench_init(&bench, argc, argv))
        return 2;
    if (bench.trace) {
        compare_on_file(bench.trace);
        return EXIT_SUCCESS;
    }
    typical_load(&bench);
    refreshed_list(&bench);
    compare_policies(&bench);
    return EXIT_SUCCESS;
}
