/* l1_get: one thread reads uniformly random keys of 10,000 entries that are all in L1. Time of one
 * get and release. */
#include <proxytier/cache.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "result.h"

#define ENTRIES 10000
#define ROUNDS  9
#define GOAL_NS 1000

/* Packed, so that the benchmark's own array costs the measured cache as little memory traffic as
 * can be. */
typedef char packed_key[17];

static double
round_ns(ptier_cache *cache, const packed_key *keys, size_t gets, uint64_t *seed)
{
    size_t missed = 0;
    double start = bench_seconds();
    for (size_t i = 0; i < gets; i++) {
        ptier_entry *entry;
        if (ptier_cache_get(cache, keys[bench_random(seed) % ENTRIES], &entry, NULL) == PTIER_OK)
            ptier_entry_release(entry);
        else
            missed++;
    }
    double seconds = bench_seconds() - start;
    return missed ? -1 : seconds / (double)gets * 1e9;
}

/* Puts the records and notes their keys (derived ones: 16 characters). */
static bool
fill(ptier_cache *cache, packed_key *keys)
{
    ptier_error error = {.message = "out of memory"};
    ptier_record *records = bench_records(0, ENTRIES);
    ptier_put_result *results = calloc(ENTRIES, sizeof *results);
    bool ok = records && results &&
              ptier_cache_put(cache, records, ENTRIES, NULL, results, NULL, &error) == PTIER_OK;
    for (size_t i = 0; ok && i < ENTRIES; i++) {
        ok = strlen(results[i].key) < sizeof *keys;
        if (ok)
            memcpy(keys[i], results[i].key, strlen(results[i].key) + 1);
        else
            (void)ptier_fail(&error, PTIER_INTERNAL, "a longer key than expected"); /* told by ok */
    }
    if (!ok)
        fprintf(stderr, "l1_get: put: %s\n", error.message);
    free(results);
    free(records);
    return ok;
}

static int
measure(ptier_cache *cache, const bench_run *bench)
{
    static packed_key keys[ENTRIES];
    double rounds[ROUNDS];
    uint64_t seed = 1;
    size_t gets = bench->quick ? 500000 : 3000000;
    if (!fill(cache, keys))
        return EXIT_FAILURE;
    if (round_ns(cache, keys, gets / 4, &seed) < 0) { /* warms up; a miss would spoil the figure */
        fprintf(stderr, "l1_get: an entry is missing\n");
        return EXIT_FAILURE;
    }
    for (size_t i = 0; i < ROUNDS; i++)
        rounds[i] = round_ns(cache, keys, gets, &seed);
    bench_print(
        &(bench_row){.name = "l1_get", .unit = "ns", .goal = BENCH_VALUE_AT_MOST, .bound = GOAL_NS},
        rounds, ROUNDS, NULL);
    return EXIT_SUCCESS;
}

int
main(int argc, char **argv)
{
    bench_run bench;
    ptier_cache_options options;
    ptier_cache *cache;
    ptier_error error;
    if (!bench_init(&bench, argc, argv))
        return 2;
    ptier_cache_options_init(&options);
    options.l1_entries = ENTRIES;
    if (ptier_cache_open(&options, &cache, &error) != PTIER_OK) {
        fprintf(stderr, "l1_get: %s\n", error.message);
        return EXIT_FAILURE;
    }
    int code = measure(cache, &bench);
    ptier_cache_close(cache);
    return code;
}
