/*
 * growth_*: what an operation costs in a cache of 10,000, 100,000, 1,000,000 (and in a full run
 * 5,000,000) entries, beside the least that has to grow (bare.h) with as many. The figure is the
 * growth from 10,000 to 1,000,000 (in a quick run, of what is on disk, to 100,000). Time is CPU
 * time of the process, all threads: what else the machine does is not in it, nor is waiting for the
 * disk. Instructions: growth_count.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "bare.h"
#include "growth_count.h"
#include "growth_subject.h"
#include "result.h"

#define SIZES_MAX    4
#define ROUNDS_MAX   7
#define SOME         5000  /* entries that are put, or expire */
#define LISTED       10000 /* no more than there are in the smallest */
#define TIME_BOUND   1.5
#define COUNT_BOUND  1.1
#define COUNT_BOUND3 1.5 /* of L3 */

/* A cache, and its peers. */
typedef struct place {
    growth_subject subject;
    bench_table *table;
    bench_rows *rows;
    size_t entries, gets;
    uint64_t seed;
    double bytes, bare_bytes; /* of the files, just filled */
    char directory[4200];
} place;

typedef struct sizes {
    const bench_run *bench;
    place places[SIZES_MAX];
    size_t entries[SIZES_MAX];
    size_t count, rounds;
    size_t top, counted; /* to which growth is told, in time and in instructions */
} sizes;

static void
sizes_init(sizes *s, const bench_run *bench, const char *name, size_t count, size_t gets)
{
    static const size_t entries[SIZES_MAX] = {10000, 100000, 1000000, 5000000};
    s->bench = bench;
    s->count = count;
    s->rounds = bench_size(bench, ROUNDS_MAX, 3);
    s->top = count - 1 < 2 ? count - 1 : 2;
    s->counted = bench_size(bench, s->top, 1);
    for (size_t i = 0; i < count; i++) {
        place *p = &s->places[i];
        s->entries[i] = p->entries = entries[i];
        p->gets = gets;
        p->seed = 1;
        if (snprintf(p->directory, sizeof p->directory, "%s/%s%zu", bench->work, name,
                     entries[i]) >= (int)sizeof p->directory)
            bench_fail("growth: the directory's path is too long");
    }
}

/* ---- time ---- */

typedef void (*step_fn)(place *place);

typedef struct operation {
    step_fn prepare, run, restore; /* `run` is measured; the others may be NULL */
} operation;

static double
cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Nanoseconds of one of `count`. */
static double
cost(place *p, const operation *o, size_t count)
{
    if (o->prepare)
        o->prepare(p);
    double begun = cpu_seconds();
    o->run(p);
    double seconds = cpu_seconds() - begun;
    if (o->restore)
        o->restore(p);
    return seconds / (double)count * 1e9;
}

/* All sizes of ours and of the peer in each round; the first round does not count. */
static void
measure(sizes *s, const bench_row *row, const operation *ours, const operation *peer, size_t count)
{
    double costs[SIZES_MAX][ROUNDS_MAX] = {{0}}, peer_costs[SIZES_MAX][ROUNDS_MAX] = {{0}};
    double growths[ROUNDS_MAX], peer_growths[ROUNDS_MAX];
    double values[SIZES_MAX] = {0}, peer_values[SIZES_MAX] = {0};
    for (size_t round = 0; round <= s->rounds; round++) {
        size_t at = round ? round - 1 : 0; /* written over by the next */
        for (size_t i = 0; i < s->count; i++) {
            costs[i][at] = cost(&s->places[i], ours, count);
            peer_costs[i][at] = cost(&s->places[i], peer, count);
        }
        growths[at] = costs[s->top][at] / costs[0][at];
        peer_growths[at] = peer_costs[s->top][at] / peer_costs[0][at];
    }
    for (size_t i = 0; i < s->count; i++) {
        values[i] = bench_median(costs[i], s->rounds);
        peer_values[i] = bench_median(peer_costs[i], s->rounds);
    }
    const bench_series series = {
        .count = s->count, .entries = s->entries, .values = values, .peer_values = peer_values};
    bench_print_pair(row, growths, peer_growths, s->rounds, &(bench_details){.series = &series});
}

/* ---- instructions, and other figures of each size ---- */

static void
print_growth(const sizes *s, const bench_row *row, const double *values, const double *peer_values,
             size_t count)
{
    const bench_series series = {
        .count = count, .entries = s->entries, .values = values, .peer_values = peer_values};
    double growth = values[count - 1] / values[0];
    bench_print(row, &growth, 1, &(bench_details){.series = &series});
}

static void
count_instructions(const sizes *s, const char *name, growth_kind kind, double bound)
{
    double values[2];
    const size_t which[2] = {0, s->counted}, entries[2] = {s->entries[0], s->entries[s->counted]};
    if (!growth_can_count())
        return;
    for (size_t i = 0; i < 2; i++)
        values[i] = growth_count(s->bench, kind, entries[i], s->places[which[i]].directory);
    const bench_series series = {.count = 2, .entries = entries, .values = values};
    double growth = values[1] / values[0];
    bench_print(
        &(bench_row){
            .name = name, .unit = "x instructions", .goal = BENCH_VALUE_AT_MOST, .bound = bound},
        &growth, 1, &(bench_details){.series = &series});
}

/* Told with the time of the same operation. */
static const char *
note_of_count(void)
{
    return growth_can_count() ? "ns of CPU time"
                              : "ns of CPU time; instructions: not measured, no valgrind here";
}

static bench_row
time_row(const char *name, const char *peer)
{
    return (bench_row){.name = name,
                       .unit = "x time",
                       .peer = peer,
                       .note = note_of_count(),
                       .goal = BENCH_RATIO_AT_MOST,
                       .bound = TIME_BOUND};
}

/* ---- in memory ---- */

static void
get_ours(place *p)
{
    growth_get(&p->subject, p->gets);
}

static void
get_table(place *p)
{
    for (size_t i = 0; i < p->gets; i++)
        bench_table_get(p->table, bench_random(&p->seed) % p->entries);
}

static void
list_ours(place *p)
{
    growth_list(&p->subject, LISTED);
}

static void
get_as_many_from_table(place *p)
{
    for (size_t i = 0; i < LISTED; i++)
        bench_table_get(p->table, bench_random(&p->seed) % p->entries);
}

static void
put_mortals(place *p)
{
    growth_put(&p->subject, p->entries, SOME, GROWTH_TTL_MS);
}

static void
expire_ours(place *p)
{
    growth_expire(&p->subject);
}

static void
put_in_table(place *p)
{
    for (size_t i = 0; i < SOME; i++)
        bench_table_put(p->table, p->entries + i);
}

static void
remove_from_table(place *p)
{
    for (size_t i = 0; i < SOME; i++)
        bench_table_remove(p->table, p->entries + i);
}

static void
print_memory(const sizes *s)
{
    double values[SIZES_MAX] = {0};
    for (size_t i = 0; i < s->count; i++) {
        ptier_statistics now;
        ptier_cache_statistics(s->places[i].subject.cache, &now);
        values[i] = (double)(now.tiers[PTIER_TIER_L1].bytes + now.index_bytes) /
                    (double)s->places[i].entries;
    }
    print_growth(
        s,
        &(bench_row){.name = "growth_memory",
                     .unit = "x bytes an entry",
                     .note = "L1 and the index; tables double, so that it goes up and down",
                     .goal = BENCH_VALUE_AT_MOST,
                     .bound = COUNT_BOUND},
        values, NULL, s->top + 1);
}

static void
in_memory(const bench_run *bench)
{
    static sizes s;
    const char *peer = "a bare hash table with an LRU list";
    sizes_init(&s, bench, "memory", bench_size(bench, 4, 3), bench_size(bench, 300000, 60000));
    for (size_t i = 0; i < s.count; i++) {
        place *p = &s.places[i];
        (void)growth_open(&p->subject, GROWTH_MEMORY, p->entries, NULL);
        growth_put(&p->subject, 0, p->entries, 0);
        p->table = bench_table_create(p->entries);
    }
    bench_row row = time_row("growth_l1", peer);
    measure(&s, &row, &(operation){.run = get_ours}, &(operation){.run = get_table},
            s.places[0].gets);
    row = time_row("growth_expiry", peer);
    measure(&s, &row, &(operation){.prepare = put_mortals, .run = expire_ours},
            &(operation){.prepare = put_in_table, .run = remove_from_table}, SOME);
    row = time_row("growth_list", peer);
    row.note = "ns of CPU time an entry, in pages of 1,000; the peer gets as many, one by one";
    measure(&s, &row, &(operation){.run = list_ours}, &(operation){.run = get_as_many_from_table},
            LISTED);
    print_memory(&s);
    for (size_t i = 0; i < s.count; i++) {
        growth_close(&s.places[i].subject);
        bench_table_destroy(s.places[i].table);
    }
    count_instructions(&s, "growth_l1_instructions", GROWTH_KIND_L1, COUNT_BOUND);
    count_instructions(&s, "growth_expiry_instructions", GROWTH_KIND_EXPIRY, COUNT_BOUND);
}

/* ---- on disk ---- */

static void
put_ours(place *p)
{
    growth_put(&p->subject, p->entries, SOME, 0);
    growth_settle(&p->subject);
}

static void
remove_ours(place *p)
{
    growth_remove(&p->subject, SOME);
    growth_settle(&p->subject);
}

static void
put_rows(place *p)
{
    bench_rows_put(p->rows, p->entries, SOME);
}

static void
remove_rows(place *p)
{
    bench_rows_remove(p->rows, p->entries, SOME);
}

static void
get_rows(place *p)
{
    for (size_t i = 0; i < p->gets; i++)
        bench_rows_get(p->rows, bench_random(&p->seed) % p->entries);
}

static void
print_files(const sizes *s)
{
    double values[SIZES_MAX] = {0}, peer_values[SIZES_MAX] = {0};
    for (size_t i = 0; i < s->count; i++) {
        const place *p = &s->places[i];
        values[i] = p->bytes / (double)p->entries;
        peer_values[i] = p->bare_bytes / (double)p->entries;
    }
    print_growth(s,
                 &(bench_row){.name = "growth_file",
                              .unit = "x bytes an entry",
                              .note = "L3, just filled",
                              .goal = BENCH_VALUE_AT_MOST,
                              .bound = COUNT_BOUND},
                 values, peer_values, s->top + 1);
}

static void
print_starts(sizes *s)
{
    double values[SIZES_MAX] = {0};
    for (size_t i = 0; i < s->count; i++) {
        place *p = &s->places[i];
        values[i] = growth_open(&p->subject, GROWTH_ALL, p->entries, p->directory);
        growth_close(&p->subject);
    }
    double top = values[s->top];
    const bench_series series = {.count = s->count, .entries = s->entries, .values = values};
    bench_print(&(bench_row){.name = "growth_start",
                             .unit = "s",
                             .note = "until it serves, of the largest but 5,000,000",
                             .goal = BENCH_VALUE_AT_MOST,
                             .bound = 1},
                &top, 1, &(bench_details){.series = &series});
}

static void
make_files(sizes *s)
{
    for (size_t i = 0; i < s->count; i++) {
        place *p = &s->places[i];
        char path[4224];
        ptier_statistics now;
        (void)growth_open(&p->subject, GROWTH_ALL, p->entries, p->directory);
        growth_put(&p->subject, 0, p->entries, 0);
        growth_close(&p->subject);
        (void)growth_open(&p->subject, GROWTH_ALL, p->entries, p->directory);
        ptier_cache_statistics(p->subject.cache, &now);
        p->bytes = (double)now.tiers[PTIER_TIER_L3].bytes;
        (void)snprintf(path, sizeof path, "%s.bare", p->directory); /* fits */
        p->rows = bench_rows_create(path, p->entries);
        p->bare_bytes = bench_rows_bytes(p->rows);
    }
}

static void
close_all(sizes *s)
{
    for (size_t i = 0; i < s->count; i++)
        growth_close(&s->places[i].subject);
}

static void
on_disk(const bench_run *bench)
{
    static sizes s;
    const char *peer = "a bare SQLite table";
    sizes_init(&s, bench, "disk", bench_size(bench, 4, 2), bench_size(bench, 20000, 5000));
    make_files(&s);
    print_files(&s);
    bench_row row = time_row("growth_put", peer);
    measure(&s, &row, &(operation){.run = put_ours, .restore = remove_ours},
            &(operation){.run = put_rows, .restore = remove_rows}, SOME);
    close_all(&s);
    print_starts(&s);
    count_instructions(&s, "growth_put_instructions", GROWTH_KIND_PUT, COUNT_BOUND3);
    for (size_t i = 0; i < s.count; i++)
        (void)growth_open(&s.places[i].subject, GROWTH_L3, s.places[i].entries,
                          s.places[i].directory);
    row = time_row("growth_get", peer);
    measure(&s, &row, &(operation){.run = get_ours}, &(operation){.run = get_rows},
            s.places[0].gets);
    close_all(&s);
    count_instructions(&s, "growth_get_instructions", GROWTH_KIND_GET, COUNT_BOUND3);
    for (size_t i = 0; i < s.count; i++)
        bench_rows_destroy(s.places[i].rows);
}

int
main(int argc, char **argv)
{
    bench_run bench;
    if (growth_is_counted(argc, argv))
        return EXIT_SUCCESS;
    if (!bench_init(&bench, argc, argv))
        return 2;
    in_memory(&bench);
    on_disk(&bench);
    return EXIT_SUCCESS;
}
