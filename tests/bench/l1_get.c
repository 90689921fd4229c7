/*
 * l1_get and l1_get_1m: one thread reads uniformly random keys of 10,000 and of 1,000,000 entries
 * (--quick: 200,000) that are all in L1. Time of one get and release; the keys of the next ones are
 * fetched before the clock runs, so that the benchmark's own array is no part of it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "library.h"
#include "result.h"

#define ROUNDS 9

#define BATCH 256
#define PAUSE 2 /* s: longer than the cache takes for one step */

typedef char packed_key[17];

typedef struct fixture {
    ptier_cache *cache;
    packed_key *keys;
    size_t entries, gets;
    uint64_t seed;
} fixture;

/* Seconds of a batch of gets. */
static double
batch(fixture *f, size_t *missed)
{
    packed_key keys[BATCH];
    for (size_t i = 0; i < BATCH; i++)
        memcpy(keys[i], f->keys[bench_random(&f->seed) % f->entries], sizeof keys[i]);
    double start = bench_seconds();
    for (size_t i = 0; i < BATCH; i++) {
        ptier_entry *entry;
        if (ptier_cache_get(f->cache, keys[i], &entry, NULL) == PTIER_OK)
            ptier_entry_release(entry);
        else
            ++*missed;
    }
    return bench_seconds() - start;
}

static double
round_ns(fixture *f)
{
    size_t missed = 0, batches = f->gets / BATCH;
    double seconds = 0;
    for (size_t i = 0; i < batches; i++)
        seconds += batch(f, &missed);
    if (missed)
        bench_fail("l1_get: %zu entries are missing", missed);
    return seconds / (double)(batches * BATCH) * 1e9;
}

/* In kB, of this process. */
static size_t
huge_memory(void)
{
    char line[200];
    size_t kb = 0;
    FILE *file = fopen("/proc/self/smaps_rollup", "re");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "AnonHugePages: %zu", &kb) == 1)
            break;
    if (file)
        (void)fclose(file); /* only read from */
    return kb;
}

/* A large cache moves its memory to huge pages by and by: until no more come. */
static void
await_huge_pages(void)
{
    size_t before, now = huge_memory();
    do {
        before = now;
        nanosleep(&(struct timespec){.tv_sec = PAUSE}, NULL);
        now = huge_memory();
    } while (now > before);
}

static void
measure(const char *name, size_t entries, size_t gets, double goal_ns, const char *note)
{
    fixture f = {.entries = entries, .gets = gets, .seed = 1};
    double rounds[ROUNDS];
    ptier_cache_options options;
    ptier_error error;
    ptier_cache_options_init(&options);
    options.l1_entries = entries;
    f.keys = calloc(entries, sizeof *f.keys);
    if (!f.keys)
        bench_fail("out of memory");
    if (ptier_cache_open(&options, &f.cache, &error) != PTIER_OK)
        bench_fail("l1_get: %s", error.message);
    bench_library_fill(f.cache, entries);
    for (size_t i = 0; i < entries; i++)
        bench_key(i, f.keys[i]);
    await_huge_pages();
    (void)round_ns(&f); /* warms up */
    for (size_t i = 0; i < ROUNDS; i++)
        rounds[i] = round_ns(&f);
    ptier_cache_close(f.cache);
    free(f.keys);
    bench_print(&(bench_row){.name = name,
                             .unit = "ns",
                             .goal = BENCH_VALUE_AT_MOST,
                             .bound = goal_ns,
                             .note = note},
                rounds, ROUNDS, NULL);
}

int
main(int argc, char **argv)
{
    bench_run bench;
    if (!bench_init(&bench, argc, argv))
        return 2;
    measure("l1_get", 10000, bench_size(&bench, 3000000, 500000), 100, NULL);
    measure("l1_get_1m", bench_size(&bench, 1000000, 200000), bench_size(&bench, 2000000, 500000),
            250, bench.quick ? "of 200,000 entries" : NULL);
    return EXIT_SUCCESS;
}
