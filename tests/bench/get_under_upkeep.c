/*
 * get_under_…: what single Gets over a unix socket take (250 a second, random keys) while the
 * daemon is at work of its own: compaction of L2, a checkpoint of L3, an export, an expiry wave,
 * the rotation of keys. Only Gets that were under way meanwhile count, and each work proves itself
 * by what it moved.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crypto/keyring.h"
#include "load.h"
#include "pool.h"
#include "result.h"

#define WINDOWS_MAX 1000
#define POLL_S      0.005
#define LIMIT_S     120
#define RATE        20000 /* records a second, where a writer keeps the work going */
#define BOUND_MS    20
#define BATCH       500
#define SHARDS      3 /* of L2, compacted at least */

typedef struct fixture {
    const bench_run *bench;
    bench_process daemon;
    ptier_client *client;
    size_t entries;
    double load_rate; /* records a second */
    double seconds;   /* of what ends only when it is told to */
    bench_window windows[WINDOWS_MAX];
    size_t window_count;
} fixture;

static void
open_daemon(fixture *f, const char *name, const char *const *options)
{
    bench_daemon_start(&f->daemon, f->bench, name, options);
    f->client = bench_client(&f->daemon);
}

static void
close_daemon(fixture *f)
{
    ptier_client_close(f->client);
    bench_process_stop(&f->daemon);
}

static void
get_statistics(const fixture *f, ptier_statistics *now)
{
    ptier_error error;
    if (ptier_get_statistics(f->client, now, &error))
        bench_fail("statistics: %s", error.message);
}

static void
add_window(fixture *f, uint64_t from, uint64_t to)
{
    if (f->window_count < WINDOWS_MAX)
        f->windows[f->window_count++] = (bench_window){from, to};
}

/* Reads beside `work`, which adds the windows in which it was under way, and says in `note` how
 * that is known. */
static void
measure(fixture *f, const char *name, void (*work)(fixture *f, char note[200]))
{
    static ptier_histogram histogram;
    ptier_histogram_sum sum = {0};
    bench_reader reader;
    char note[200];
    f->window_count = 0;
    bench_reader_start(&reader, &f->daemon, f->entries);
    work(f, note);
    bench_reader_stop(&reader);
    size_t said = strlen(note);
    (void)snprintf(note + said, sizeof note - said, "; at most %.1f ms of it in the cache",
                   reader.inside_ms); /* fits */
    for (size_t i = 0; i < f->window_count; i++)
        bench_reader_add(&reader, &f->windows[i], &histogram);
    bench_reader_fini(&reader);
    ptier_histogram_collect(&histogram, true, &sum);
    bench_print_reads(name, note, BOUND_MS, true, &sum, NULL);
}

/* ---- compaction: L2's oldest shard goes when its living lines are copied ---- */

static unsigned long
oldest_shard(const fixture *f)
{
    char path[256];
    unsigned long oldest = 0;
    (void)snprintf(path, sizeof path, "%s/compaction/l2", f->bench->work); /* fits: process.h */
    DIR *directory = opendir(path);
    if (!directory)
        bench_fail("cannot look into %s", path);
    for (struct dirent *entry; (entry = readdir(directory));) {
        unsigned long number =
            strncmp(entry->d_name, "shard_", 6) == 0 ? strtoul(entry->d_name + 6, NULL, 10) : 0;
        if (number && (!oldest || number < oldest))
            oldest = number;
    }
    closedir(directory);
    return oldest;
}

/* Waits until that one is the oldest, or a later one, which it returns. */
static unsigned long
await_shard(const fixture *f, unsigned long number, double until)
{
    unsigned long oldest;
    while ((oldest = oldest_shard(f)) < number) {
        if (bench_seconds() > until)
            bench_fail("shard %lu is not compacted", oldest);
        bench_sleep_until(bench_seconds() + POLL_S);
    }
    return oldest;
}

static void
compaction(fixture *f, char note[200])
{
    bench_writer writer;
    bench_writer_start(&writer, &f->daemon, f->entries, RATE);
    double until = bench_seconds() + LIMIT_S;
    unsigned long first = await_shard(f, oldest_shard(f) + 1, until);
    uint64_t from = ptier_now_ns();
    bench_sleep_until(bench_seconds() + f->seconds);
    unsigned long gone = await_shard(f, first + SHARDS, until) - first;
    add_window(f, from, ptier_now_ns());
    double rate = bench_writer_stop(&writer);
    (void)snprintf(note, 200, "%lu shards of L2 were compacted, beside %.0f puts/s", gone,
                   rate); /* fits */
}

/* ---- a checkpoint of L3: the statistics say how many, and how long they took ---- */

static void
checkpoint(fixture *f, char note[200])
{
    bench_writer writer;
    ptier_statistics now;
    get_statistics(f, &now);
    ptier_latency before = now.latency[PTIER_OPERATION_L3_CHECKPOINT];
    uint64_t looked_at = ptier_now_ns(), took = 0, count = 0;
    bench_writer_start(&writer, &f->daemon, f->entries, RATE);
    for (double until = bench_seconds() + 2 * f->seconds; bench_seconds() < until;) {
        bench_sleep_until(bench_seconds() + POLL_S);
        get_statistics(f, &now);
        const ptier_latency *latency = &now.latency[PTIER_OPERATION_L3_CHECKPOINT];
        uint64_t ns = latency->total_ns - before.total_ns;
        if (ns) /* it ended since we looked last */
            add_window(f, looked_at - ns, ptier_now_ns());
        took += ns;
        count += latency->count - before.count;
        before = *latency;
        looked_at = ptier_now_ns();
    }
    double rate = bench_writer_stop(&writer);
    if (count == 0)
        bench_fail("there was no checkpoint");
    (void)snprintf(note, 200, "%llu checkpoints of L3, %.0f ms each, beside %.0f puts/s",
                   (unsigned long long)count, (double)took / 1e6 / (double)count, rate); /* fits */
}

/* ---- an export ---- */

static bool
drop_page(void *context, const char *jsonl, size_t length, uint32_t entries)
{
    size_t *exported = context;
    (void)jsonl;
    (void)length;
    *exported += entries;
    return true;
}

static void export(fixture *f, char note[200])
{
    size_t exported = 0, rounds = 0;
    uint64_t from = ptier_now_ns();
    for (double until = bench_seconds() + f->seconds; bench_seconds() < until; rounds++) {
        ptier_error error;
        if (ptier_export(f->client, PTIER_TIER_NONE, false, drop_page, &exported, &error))
            bench_fail("export: %s", error.message);
    }
    add_window(f, from, ptier_now_ns());
    if (exported < f->entries * rounds)
        bench_fail("%zu entries were exported: too few", exported);
    (void)snprintf(note, 200, "%zu entries were exported", exported); /* fits */
}

/* ---- an expiry wave ---- */

/* Puts `count` records that all end at the moment it returns, which is after the last is in. */
static double
load_wave(const fixture *f, size_t count)
{
    ptier_record *records = bench_records(f->entries, count);
    double end = bench_seconds() + 1 + 2 * (double)count / f->load_rate;
    for (size_t i = 0; i < count; i += BATCH) {
        ptier_error error;
        double left = end - bench_seconds();
        if (left < 0)
            bench_fail("the wave took longer to load than the entries before it");
        for (size_t k = i; k < i + BATCH; k++)
            records[k].ttl_ms = (int64_t)(left * 1e3) + 1;
        if (ptier_put_many(f->client, records + i, BATCH, NULL, NULL, &error))
            bench_fail("put: %s", error.message);
    }
    free(records);
    return end;
}

static void
expiry(fixture *f, char note[200])
{
    ptier_statistics now;
    size_t count = bench_size(f->bench, 500000, 100000);
    get_statistics(f, &now);
    uint64_t before = now.removals[PTIER_REASON_TTL], expired = 0;
    bench_sleep_until(load_wave(f, count));
    uint64_t from = ptier_now_ns();
    for (double until = bench_seconds() + LIMIT_S; expired < count && bench_seconds() < until;) {
        bench_sleep_until(bench_seconds() + POLL_S);
        get_statistics(f, &now);
        expired = now.removals[PTIER_REASON_TTL] - before;
    }
    uint64_t to = ptier_now_ns();
    add_window(f, from, to);
    if (expired != count)
        bench_fail("%llu entries expired", (unsigned long long)expired);
    (void)snprintf(note, 200, "%llu entries expired in %.2f s", (unsigned long long)expired,
                   (double)(to - from) / 1e9); /* fits */
}

/* ---- rotation of keys ---- */

/* Starts the daemon again with a new key, and the old one as its previous. */
static void
give_new_key(fixture *f, const char *name)
{
    char path[256], key[PTIER_KEY_TEXT + 1], old[PTIER_KEY_TEXT + 1];
    ptier_error error;
    (void)snprintf(path, sizeof path, "%s/%s/key", f->bench->work, name); /* fits: process.h */
    close_daemon(f);
    FILE *file = NULL;
    if (ptier_key_file(path, false, old, &error) || ptier_key_generate(key) ||
        !(file = fopen(path, "w")) || fprintf(file, "%s\n", key) < 0 || fclose(file) ||
        setenv("PROXYTIER_KEY_PREVIOUS", old, true))
        bench_fail("no new key");
    open_daemon(f, name, NULL);
    (void)unsetenv("PROXYTIER_KEY_PREVIOUS"); /* its name is valid */
}

static void
rotation(fixture *f, char note[200])
{
    uint64_t rewritten = 0, from = ptier_now_ns();
    ptier_error error;
    if (ptier_rotate_keys(f->client, NULL, NULL, &rewritten, &error))
        bench_fail("rotate: %s", error.message);
    uint64_t to = ptier_now_ns();
    add_window(f, from, to);
    if (rewritten < f->entries)
        bench_fail("%llu entries were encrypted anew: too few", (unsigned long long)rewritten);
    (void)snprintf(note, 200, "%llu entries were encrypted anew in %.2f s",
                   (unsigned long long)rewritten, (double)(to - from) / 1e9); /* fits */
}

static void
load(fixture *f)
{
    double begun = bench_seconds();
    bench_pool_load(f->client, 0, f->entries);
    f->load_rate = (double)f->entries / (bench_seconds() - begun);
}

int
main(int argc, char **argv)
{
    static fixture f;
    bench_run bench;
    if (!bench_init(&bench, argc, argv))
        return 2;
    f.bench = &bench;
    f.entries = bench_size(&bench, 100000, 40000);
    f.seconds = (double)bench_size(&bench, 10, 1);
    /* All of it lives in L2: there is something to copy. */
    open_daemon(&f, "compaction", (const char *[]){"--l2-entries", "200000", NULL});
    for (int i = 0; i < 2; i++)
        load(&f);
    bench_settle(f.client);
    measure(&f, "get_under_compaction", compaction);
    close_daemon(&f);
    open_daemon(&f, "upkeep", NULL);
    load(&f);
    measure(&f, "get_under_checkpoint", checkpoint);
    bench_settle(f.client);
    measure(&f, "get_under_export", export);
    give_new_key(&f, "upkeep");
    measure(&f, "get_under_rotation", rotation);
    measure(&f, "get_under_expiry", expiry);
    close_daemon(&f);
    return EXIT_SUCCESS;
}
