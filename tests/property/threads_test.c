/*
 * Sixteen threads at once over all tiers, for ThreadSanitizer above all: each reads its own writes
 * and nothing else under its keys, whatever the others do (clear upper tiers, pick, list, ask for
 * statistics, fight over shared keys). PTIER_THREAD_OPS: how many operations in all;
 * PTIER_THREAD_SEED.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <proxytier/status.h>

#include "support/cache_box.h"
#include "support/sample_entry.h"
#include "support/settings.h"

enum {
    THREADS = 16,
    KEYS = 40, /* of each thread */
    SHARED = 25,
    FIRST_SHARED = 100000,
    SHORT = PTIER_TEST_SANITIZED ? 30000 : 100000,
};

typedef struct own_key {
    uint64_t revision; /* 0: not there */
    uint32_t failures;
    uint32_t version;
} own_key;

typedef struct worker {
    pthread_t thread;
    int number;
    uint64_t random, steps;
    own_key keys[KEYS];
    uint32_t version;
    uint64_t reads;
    char wrong[160]; /* "": nothing */
} worker;

static ptier_test_box box;
static worker workers[THREADS];

static int
tear_down(void **state)
{
    (void)state;
    ptier_test_box_fini(&box);
    return 0;
}

PTIER_PRINTF(2, 3)
static void
wrong(worker *w, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(w->wrong, sizeof w->wrong, format, arguments);
    va_end(arguments);
}

static uint64_t
below(worker *w, uint64_t limit)
{
    return ptier_test_random(&w->random, limit);
}

static void
key_text(int number, char text[16])
{
    (void)snprintf(text, 16, "p%d", number);
}

static int
number_of(const worker *w, int i)
{
    return w->number * 1000 + i;
}

/* ---- own keys: everything is known ---- */

static bool
put_record(int number, uint32_t version, ptier_durability durability, ptier_put_result *result)
{
    const ptier_put_options options = {.durability = durability};
    char key[16], url[40], password[24];
    ptier_record record;
    ptier_test_box_record(&record, number, key, url);
    (void)snprintf(password, sizeof password, "%d-%u", number, version);
    record.username = "user";
    record.password = password;
    return ptier_cache_put(box.cache, &record, 1, &options, result, NULL, NULL) == PTIER_OK &&
           result->outcome <= PTIER_PUT_UPDATED;
}

static void
put_own(worker *w, int i)
{
    own_key *own = &w->keys[i];
    ptier_put_result result;
    ptier_durability durability =
        below(w, 50) ? 1 + (ptier_durability)below(w, 2) : PTIER_DURABILITY_SYNCED;
    if (!put_record(number_of(w, i), ++w->version, durability, &result))
        wrong(w, "key %d cannot be put: %s", i, result.message);
    else if ((result.outcome == PTIER_PUT_UPDATED) != (own->revision != 0))
        wrong(w, "key %d: put says %s", i, ptier_put_outcome_name(result.outcome));
    else if (result.revision <= own->revision)
        wrong(w, "key %d: revision %llu after %llu", i, (unsigned long long)result.revision,
              (unsigned long long)own->revision);
    *own = (own_key){.revision = result.revision,
                     .failures = own->revision ? own->failures : 0,
                     .version = w->version};
}

/* Its revision may be newer than the put's: reports are changes, too. */
static void
check_entry(worker *w, int i, const ptier_entry *entry)
{
    const own_key *own = &w->keys[i];
    ptier_record record;
    char key[16], password[24];
    key_text(number_of(w, i), key);
    (void)snprintf(password, sizeof password, "%d-%u", number_of(w, i), own->version);
    ptier_cache_read(box.cache, entry, &record, NULL);
    if (!own->revision)
        wrong(w, "key %d was removed and is served", i);
    else if (strcmp(record.key, key) != 0 || !record.password ||
             strcmp(record.password, password) != 0)
        wrong(w, "key %d is served with another value: %s", i, record.key);
    else if (record.revision < own->revision || record.failure_count != own->failures)
        wrong(w, "key %d is served in an older state", i);
}

static void
get_own(worker *w, int i)
{
    char key[16];
    ptier_entry *entry;
    key_text(number_of(w, i), key);
    ptier_status status = ptier_cache_get(box.cache, key, &entry, NULL);
    w->reads++;
    if (status == PTIER_OK) {
        check_entry(w, i, entry);
        ptier_entry_release(entry);
    } else if (status != PTIER_NOT_FOUND || w->keys[i].revision) {
        wrong(w, "key %d cannot be read: %s", i, ptier_status_text(status));
    }
}

static void
delete_own(worker *w, int i)
{
    char text[16];
    const char *key = text;
    size_t deleted;
    key_text(number_of(w, i), text);
    if (ptier_cache_delete(box.cache, &key, 1, 0, &deleted, NULL, NULL))
        wrong(w, "key %d cannot be deleted", i);
    else if (deleted != (w->keys[i].revision != 0))
        wrong(w, "key %d: delete found %zu", i, deleted);
    w->keys[i] = (own_key){0};
}

static void
report_own(worker *w, int i)
{
    own_key *own = &w->keys[i];
    char key[16];
    key_text(number_of(w, i), key);
    const ptier_report report = {
        .key = key, .outcome = 1 + (ptier_outcome)below(w, 3), .latency_ms = 5};
    ptier_report_result result;
    if (ptier_cache_report(box.cache, &report, 1, PTIER_DURABILITY_MEMORY, &result, NULL, NULL)) {
        wrong(w, "key %d cannot be reported", i);
        return;
    }
    bool there = own->revision != 0;
    if (report.outcome == PTIER_REPORT_OK)
        own->failures = 0;
    else if (there && report.outcome == PTIER_REPORT_FAILED)
        own->failures++;
    bool removed = own->failures == 3;
    if (result.found != there || result.removed != removed)
        wrong(w, "key %d: report says found %d, removed %d", i, result.found, result.removed);
    if (removed)
        *own = (own_key){0};
}

/* ---- what all do ---- */

static void
fight(worker *w)
{
    int number = FIRST_SHARED + (int)below(w, SHARED);
    char text[16];
    const char *key = text;
    ptier_put_result result;
    ptier_entry *entry;
    key_text(number, text);
    const ptier_report report = {.key = key, .outcome = PTIER_REPORT_FAILED};
    switch (below(w, 4)) {
    case 0:
        if (!put_record(number, ++w->version, 0, &result))
            wrong(w, "shared key %d cannot be put: %s", number, result.message);
        break;
    case 1:
        if (ptier_cache_delete(box.cache, &key, 1, 0, NULL, NULL, NULL))
            wrong(w, "shared key %d cannot be deleted", number);
        break;
    case 2:
        if (ptier_cache_report(box.cache, &report, 1, 0, NULL, NULL, NULL))
            wrong(w, "shared key %d cannot be reported", number);
        break;
    default:
        w->reads++;
        if (ptier_cache_get(box.cache, key, &entry, NULL) == PTIER_OK)
            ptier_entry_release(entry);
    }
}

static void
pick_some(worker *w)
{
    ptier_entry *entries[8];
    size_t count = ptier_cache_pick(box.cache, 8, NULL, NULL, 0, entries);
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < i; k++)
            if (strcmp(ptier_entry_key(entries[i]), ptier_entry_key(entries[k])) == 0)
                wrong(w, "%s was picked twice", ptier_entry_key(entries[i]));
    for (size_t i = 0; i < count; i++)
        ptier_entry_release(entries[i]);
}

/* Own entries that are listed are as they were written: nobody else changes them. */
static void
list_some(worker *w)
{
    ptier_entry *entries[50];
    uint64_t cursor = 0;
    size_t count;
    for (int page = 0; page < 2; page++) {
        if (ptier_cache_list(box.cache, &cursor, NULL, PTIER_TIER_NONE, 50, entries, &count,
                             NULL)) {
            wrong(w, "list failed");
            return;
        }
        for (size_t i = 0; i < count; i++) {
            int number = atoi(ptier_entry_key(entries[i]) + 1);
            if (number / 1000 == w->number)
                check_entry(w, number % 1000, entries[i]);
            ptier_entry_release(entries[i]);
        }
        if (cursor == 0)
            break;
    }
}

static void
look_around(worker *w)
{
    ptier_statistics statistics;
    uint64_t cleared;
    switch (below(w, 4)) {
    case 0:
        pick_some(w);
        break;
    case 1:
        list_some(w);
        break;
    case 2:
        ptier_cache_statistics(box.cache, &statistics);
        if (statistics.entries > (uint64_t)THREADS * KEYS + SHARED)
            wrong(w, "%llu entries", (unsigned long long)statistics.entries);
        break;
    default:
        if (below(w, 10) == 0 &&
            ptier_cache_clear(box.cache, PTIER_TIER_L1 + (ptier_tier_id)below(w, 2), 0, &cleared,
                              NULL, NULL, NULL))
            wrong(w, "an upper tier cannot be cleared");
    }
}

static void *
work(void *context)
{
    worker *w = context;
    for (uint64_t i = 0; i < w->steps && !w->wrong[0]; i++) {
        int key = (int)below(w, KEYS);
        uint64_t what = below(w, 100);
        if (what < 30)
            put_own(w, key);
        else if (what < 60)
            get_own(w, key);
        else if (what < 68)
            delete_own(w, key);
        else if (what < 80)
            report_own(w, key);
        else if (what < 93)
            fight(w);
        else
            look_around(w);
    }
    return NULL;
}

/* ---- the run ---- */

static void
start_workers(uint64_t seed, uint64_t operations)
{
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (worker){
            .number = i, .random = seed * 1000003 + (uint64_t)i + 1, .steps = operations / THREADS};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(workers[i].thread, NULL);
    for (int i = 0; i < THREADS; i++)
        if (workers[i].wrong[0])
            fail_msg("thread %d, seed %llu: %s", i, (unsigned long long)seed, workers[i].wrong);
}

static void
check_all_keys(const char *when)
{
    for (int t = 0; t < THREADS; t++) {
        for (int i = 0; i < KEYS; i++)
            get_own(&workers[t], i);
        if (workers[t].wrong[0])
            fail_msg("thread %d, %s: %s", t, when, workers[t].wrong);
    }
}

static void
check_feed(void)
{
    for (size_t i = 1; i < box.change_count; i++)
        assert_true(box.changes[i].revision > box.changes[i - 1].revision);
}

static void
sixteen_threads_read_what_they_wrote(void **state)
{
    (void)state;
    uint64_t seed = ptier_test_setting("PTIER_THREAD_SEED", (uint64_t)time(NULL));
    uint64_t operations = ptier_test_setting("PTIER_THREAD_OPS", SHORT), reads = 0;
    ptier_test_box_init(&box, BOX_ALL);
    box.options.l1_entries = 100;
    box.options.l2_entries = 300;
    box.hooks.l2_shard_bytes = 65536;
    ptier_test_box_open(&box);
    start_workers(seed, operations);
    check_all_keys("afterwards");
    check_feed();
    for (int i = 0; i < THREADS; i++)
        reads += workers[i].reads;
    ptier_statistics statistics = ptier_test_box_statistics(&box);
    assert_int_equal(statistics.hits + statistics.misses, reads);
    ptier_test_box_reopen(&box);
    check_all_keys("after a restart");
    print_message("threads: %llu operations from %d threads (seed %llu), %llu reads, %zu changes\n",
                  (unsigned long long)operations, THREADS, (unsigned long long)seed,
                  (unsigned long long)reads, box.change_count);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(sixteen_threads_read_what_they_wrote, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
