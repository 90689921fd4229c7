/*
 * Memory. memory_l1_entry: what the process has grown by, entry by entry, where L1 is the whole
 * cache: records, L1's table and nodes, the index, and what the allocator needs beside them.
 * memory_index_entry: the index alone, by its own count, which is of its allocations.
 * memory_idle: resident memory of the daemon once it serves, empty, with the usual options.
 */
#include <malloc.h>
#include <stdlib.h>
#include <unistd.h>

#include "library.h"
#include "process.h"
#include "result.h"

#define ENTRY_BYTES 400
#define INDEX_BYTES 48
#define IDLE_MB     30

static void
print(const char *name, const char *unit, double bound, const char *note, double value)
{
    bench_print(
        &(bench_row){
            .name = name, .unit = unit, .note = note, .goal = BENCH_VALUE_AT_MOST, .bound = bound},
        &value, 1, NULL);
}

static void
measure_entries(const bench_run *bench)
{
    size_t entries = bench_size(bench, 1000000, 200000);
    const char *note = bench->quick ? "of 200,000 entries" : "of 1,000,000 entries";
    char directory[BENCH_PATH];
    ptier_cache_options options;
    ptier_statistics statistics;
    ptier_cache_options_init(&options);
    options.l1_entries = entries;
    options.l2_enabled = options.l3_enabled = false;
    ptier_cache *cache = bench_library_open_with(bench, &options, directory);
    double before_kb = bench_process_resident_kb(getpid());
    bench_library_fill(cache, entries);
    (void)malloc_trim(0); /* what the benchmark's own records have left */
    double grown_kb = bench_process_resident_kb(getpid()) - before_kb;
    ptier_cache_statistics(cache, &statistics);
    bench_library_close(cache, entries);
    print("memory_l1_entry", "B", ENTRY_BYTES, note, grown_kb * 1024 / (double)entries);
    print("memory_index_entry", "B", INDEX_BYTES, note,
          (double)statistics.index_bytes / (double)entries);
}

static void
measure_idle(const bench_run *bench)
{
    bench_process daemon;
    bench_daemon_start(&daemon, bench, "idle", NULL);
    double mb = bench_process_resident_kb(daemon.pid) / 1024;
    bench_process_stop(&daemon);
    print("memory_idle", "MB", IDLE_MB, NULL, mb);
}

int
main(int argc, char **argv)
{
    bench_run bench;
    if (!bench_init(&bench, argc, argv))
        return 2;
    measure_entries(&bench);
    measure_idle(&bench);
    return EXIT_SUCCESS;
}
