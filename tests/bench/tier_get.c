/*
 * l2_get and l3_get: one thread reads uniformly random keys, in the library, from a cache whose
 * only tiers are that one and, for L2, the log's L3 below it. With no L1 above nothing is promoted;
 * usage figures are written back meanwhile, as ever. L3 beside a prepared select by the same hash,
 * of all columns, on the very same file, by a connection with as large a page cache: no check, no
 * decryption, no record made.
 */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

#include "hash.h"
#include "library.h"
#include "result.h"

#define ROUNDS     9
#define L2_GOAL_US 5
#define L3_GOAL    0.5 /* of the peer's speed */

typedef struct fixture {
    ptier_cache *cache;
    ptier_tier_id tier; /* where they must be found */
    sqlite3 *database;
    sqlite3_stmt *select;
    size_t entries, gets;
    uint64_t seed;
    char (*keys)[17];
} fixture;

static double
us_a_get(void *context)
{
    fixture *f = context;
    double begun = bench_seconds();
    for (size_t i = 0; i < f->gets; i++) {
        ptier_entry *entry;
        ptier_tier_id tier;
        const char *key = f->keys[bench_random(&f->seed) % f->entries];
        if (ptier_cache_get(f->cache, key, &entry, &tier) || tier != f->tier)
            bench_fail("tier_get: an entry is not where it should be");
        ptier_entry_release(entry);
    }
    return (bench_seconds() - begun) / (double)f->gets * 1e6;
}

static double
us_a_select(void *context)
{
    fixture *f = context;
    double begun = bench_seconds();
    for (size_t i = 0; i < f->gets; i++) {
        const char *key = f->keys[bench_random(&f->seed) % f->entries];
        (void)sqlite3_bind_int64(f->select, 1, (int64_t)ptier_hash_key(key));
        if (sqlite3_step(f->select) != SQLITE_ROW)
            bench_fail("tier_get: select: %s", sqlite3_errmsg(f->database));
        for (int column = 0; column < sqlite3_column_count(f->select); column++)
            if (sqlite3_column_type(f->select, column) == SQLITE_INTEGER)
                (void)sqlite3_column_int64(f->select, column);
            else
                (void)sqlite3_column_blob(f->select, column);
        (void)sqlite3_reset(f->select);
    }
    return (bench_seconds() - begun) / (double)f->gets * 1e6;
}

static void
begin(fixture *f, const bench_run *bench, char directory[BENCH_PATH])
{
    ptier_cache_options options;
    ptier_cache_options_init(&options);
    options.l1_enabled = false;
    options.l2_enabled = f->tier == PTIER_TIER_L2;
    options.l2_entries = options.l3_entries = 0; /* all of them */
    f->entries = bench_size(bench, 100000, 50000);
    f->gets = bench_size(bench, 200000, 40000);
    f->cache = bench_library_open_with(bench, &options, directory);
    f->keys = calloc(f->entries, sizeof *f->keys);
    if (!f->keys)
        bench_fail("out of memory");
    bench_library_fill(f->cache, f->entries);
    bench_library_await_l3(f->cache);
    for (size_t i = 0; i < f->entries; i++)
        bench_key(i, f->keys[i]);
}

static void
end(fixture *f)
{
    bench_library_close(f->cache, f->entries);
    free(f->keys);
}

static void
measure_l2(const bench_run *bench)
{
    fixture f = {.tier = PTIER_TIER_L2, .seed = 1};
    char directory[BENCH_PATH];
    double rounds[ROUNDS];
    begin(&f, bench, directory);
    (void)us_a_get(&f);
    for (size_t i = 0; i < ROUNDS; i++)
        rounds[i] = us_a_get(&f);
    end(&f);
    bench_print(
        &(bench_row){
            .name = "l2_get", .unit = "us", .goal = BENCH_VALUE_AT_MOST, .bound = L2_GOAL_US},
        rounds, ROUNDS, NULL);
}

static void
open_select(fixture *f, const char *directory)
{
    char path[BENCH_PATH + 16];
    (void)snprintf(path, sizeof path, "%s/l3.sqlite", directory); /* fits */
    if (sqlite3_open_v2(path, &f->database, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL) ||
        sqlite3_exec(f->database, "PRAGMA cache_size=-4096", NULL, NULL, NULL) ||
        sqlite3_prepare_v3(f->database, "SELECT * FROM entries WHERE key64 = ?1", -1,
                           SQLITE_PREPARE_PERSISTENT, &f->select, NULL))
        bench_fail("tier_get: %s: %s", path, sqlite3_errmsg(f->database));
}

static void
measure_l3(const bench_run *bench)
{
    fixture f = {.tier = PTIER_TIER_L3, .seed = 1};
    char directory[BENCH_PATH];
    double rounds[ROUNDS], peer_rounds[ROUNDS];
    begin(&f, bench, directory);
    open_select(&f, directory);
    bench_alternate(us_a_get, &f, us_a_select, &f, ROUNDS, rounds, peer_rounds);
    (void)sqlite3_finalize(f.select);
    (void)sqlite3_close(f.database);
    end(&f);
    bench_print_pair(
        &(bench_row){.name = "l3_get",
                     .unit = "us",
                     .peer = "a bare prepared select on the same table",
                     .note = "the peer checks, decrypts and keeps nothing, and counts no uses",
                     .goal = BENCH_RATIO_AT_LEAST,
                     .bound = L3_GOAL,
                     .less_is_better = true},
        rounds, peer_rounds, ROUNDS, NULL);
}

int
main(int argc, char **argv)
{
    bench_run bench;
    if (!bench_init(&bench, argc, argv))
        return 2;
    measure_l2(&bench);
    measure_l3(&bench);
    return EXIT_SUCCESS;
}
