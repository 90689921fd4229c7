/* contention_16_threads: gets of uniformly random keys of 10,000 entries in L1, all threads
 * together, by 16 threads and by 2. */
#include <pthread.h>
#include <stdlib.h>

#include "library.h"
#include "result.h"

#define ENTRIES 10000
#define ROUNDS  9
#define MANY    16
#define FEW     2

typedef struct fixture {
    ptier_cache *cache;
    size_t gets; /* of all threads together, a round */
    char keys[ENTRIES][17];
} fixture;

typedef struct reader {
    const fixture *f;
    pthread_barrier_t *start;
    size_t gets;
    uint64_t seed;
    size_t missed;
} reader;

static void *
read_some(void *context)
{
    reader *r = context;
    uint64_t seed = r->seed;
    size_t missed = 0;
    (void)pthread_barrier_wait(r->start);
    for (size_t i = 0; i < r->gets; i++) {
        ptier_entry *entry;
        const char *key = r->f->keys[bench_random(&seed) % ENTRIES];
        if (ptier_cache_get(r->f->cache, key, &entry, NULL) == PTIER_OK)
            ptier_entry_release(entry);
        else
            missed++;
    }
    r->missed = missed;
    return NULL;
}

static double
rate(fixture *f, size_t count)
{
    pthread_t threads[MANY];
    reader readers[MANY];
    pthread_barrier_t start;
    (void)pthread_barrier_init(&start, NULL, (unsigned)count + 1);
    for (size_t i = 0; i < count; i++) {
        readers[i] = (reader){.f = f, .start = &start, .gets = f->gets / count, .seed = i};
        if (pthread_create(&threads[i], NULL, read_some, &readers[i]))
            bench_fail("contention: cannot start a thread");
    }
    (void)pthread_barrier_wait(&start);
    double begun = bench_seconds();
    for (size_t i = 0; i < count; i++) {
        (void)pthread_join(threads[i], NULL);
        if (readers[i].missed)
            bench_fail("contention: %zu entries are missing", readers[i].missed);
    }
    double seconds = bench_seconds() - begun;
    (void)pthread_barrier_destroy(&start);
    return (double)f->gets / seconds;
}

static double
of_many(void *context)
{
    return rate(context, MANY);
}

static double
of_few(void *context)
{
    return rate(context, FEW);
}

int
main(int argc, char **argv)
{
    static fixture f;
    bench_run bench;
    double rounds[ROUNDS], peer_rounds[ROUNDS];
    char directory[BENCH_PATH];
    ptier_cache_options options;
    if (!bench_init(&bench, argc, argv))
        return 2;
    ptier_cache_options_init(&options);
    options.l1_entries = ENTRIES;
    options.l2_enabled = options.l3_enabled = false;
    f.cache = bench_library_open_with(&bench, &options, directory);
    f.gets = bench_size(&bench, 8000000, 1600000);
    bench_library_fill(f.cache, ENTRIES);
    for (size_t i = 0; i < ENTRIES; i++)
        bench_key(i, f.keys[i]);
    bench_alternate(of_many, &f, of_few, &f, ROUNDS, rounds, peer_rounds);
    bench_library_close(f.cache, ENTRIES);
    bench_print_pair(&(bench_row){.name = "contention_16_threads",
                                  .unit = "gets/s",
                                  .peer = "2 threads",
                                  .goal = BENCH_RATIO_AT_LEAST,
                                  .bound = 0.8},
                     rounds, peer_rounds, ROUNDS, NULL);
    return EXIT_SUCCESS;
}
