/* Eight threads at once; then what is cached agrees with what each key's last writer did. Meant for
 * TSan and ASan, too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/cache_box.h"
#include "support/sample_entry.h"

enum { THREADS = 8, KEYS_EACH = 60, SHARED = 20, STEPS = 1500 };

typedef struct worker {
    pthread_t thread;
    int number;
    uint64_t seed;
    uint64_t revisions[KEYS_EACH]; /* of its own keys; 0: not there */
    const char *wrong;             /* what went wrong */
    uint64_t gets;
} worker;

static ptier_test_box box;
static _Atomic bool stop;

static int
tear_down(void **state)
{
    (void)state;
    ptier_test_box_fini(&box);
    return 0;
}

static bool
put(int number, ptier_durability durability, ptier_put_result *result)
{
    const ptier_put_options options = {.durability = durability};
    ptier_record record;
    char key[16], url[40];
    ptier_test_box_record(&record, number, key, url);
    record.password = "hush";
    return ptier_cache_put(box.cache, &record, 1, &options, result, NULL, NULL) == PTIER_OK &&
           result->outcome <= PTIER_PUT_UPDATED;
}

static const char *
check_own(worker *w, int i, int number)
{
    char key[16];
    ptier_entry *entry;
    (void)snprintf(key, sizeof key, "p%d", number);
    ptier_status status = ptier_cache_get(box.cache, key, &entry, NULL);
    w->gets++;
    if (status == PTIER_NOT_FOUND)
        return w->revisions[i] ? "an entry is missing" : NULL;
    if (status)
        return "get failed";
    bool right = entry->revision == w->revisions[i] && strcmp(ptier_entry_key(entry), key) == 0 &&
                 strcmp(ptier_entry_password(entry), "hush") == 0;
    ptier_entry_release(entry);
    return right             ? NULL
           : w->revisions[i] ? "an old state was served"
                             : "a deleted entry was served";
}

static const char *
delete_own(worker *w, int i, int number)
{
    char text[16];
    const char *key = text;
    size_t deleted;
    (void)snprintf(text, sizeof text, "p%d", number);
    if (ptier_cache_delete(box.cache, &key, 1, PTIER_DURABILITY_DEFAULT, &deleted, NULL, NULL))
        return "delete failed";
    if (deleted != (w->revisions[i] != 0))
        return "delete found what it should not, or not what it should";
    w->revisions[i] = 0;
    return NULL;
}

static const char *
report_own(worker *w, int i, int number)
{
    char key[16];
    (void)snprintf(key, sizeof key, "p%d", number);
    const ptier_report report = {.key = key, .outcome = PTIER_REPORT_UNKNOWN, .latency_ms = 5};
    ptier_report_result result;
    if (ptier_cache_report(box.cache, &report, 1, PTIER_DURABILITY_MEMORY, &result, NULL, NULL))
        return "report failed";
    return result.found == (w->revisions[i] != 0) ? NULL : "report disagrees about what is there";
}

static void
look_around(uint64_t *seed)
{
    ptier_entry *entries[20];
    ptier_statistics statistics;
    uint64_t cursor = 0;
    size_t count = 0;
    if (ptier_test_random(seed, 2)) {
        count = ptier_cache_pick(box.cache, 5, NULL, NULL, 0, entries);
    } else if (ptier_cache_list(box.cache, &cursor, NULL, PTIER_TIER_NONE, 20, entries, &count,
                                NULL)) {
        abort();
    }
    for (size_t i = 0; i < count; i++)
        ptier_entry_release(entries[i]);
    ptier_cache_statistics(box.cache, &statistics);
}

/* Keys that all threads fight over: anything may be there, but nothing may break. */
static const char *
fight(worker *w)
{
    int number = 100000 + (int)ptier_test_random(&w->seed, SHARED);
    char text[16];
    const char *key = text;
    ptier_put_result result;
    ptier_entry *entry;
    size_t deleted;
    (void)snprintf(text, sizeof text, "p%d", number);
    const ptier_report report = {.key = key, .outcome = PTIER_REPORT_FAILED};
    switch (ptier_test_random(&w->seed, 4)) {
    case 0:
        return put(number, PTIER_DURABILITY_DEFAULT, &result) ? NULL : "shared put failed";
    case 1:
        return ptier_cache_delete(box.cache, &key, 1, 0, &deleted, NULL, NULL)
                   ? "shared delete failed"
                   : NULL;
    case 2:
        return ptier_cache_report(box.cache, &report, 1, 0, NULL, NULL, NULL)
                   ? "shared report failed"
                   : NULL;
    default:
        w->gets++;
        if (ptier_cache_get(box.cache, key, &entry, NULL) == PTIER_OK)
            ptier_entry_release(entry);
        return NULL;
    }
}

static const char *
step(worker *w)
{
    int i = (int)ptier_test_random(&w->seed, KEYS_EACH), number = w->number * 1000 + i;
    uint64_t what = ptier_test_random(&w->seed, 100), cleared;
    ptier_put_result result;
    if (what < 35) {
        ptier_durability durability =
            ptier_test_random(&w->seed, 40) ? PTIER_DURABILITY_DEFAULT : PTIER_DURABILITY_SYNCED;
        if (ptier_test_random(&w->seed, 4) == 0)
            durability = PTIER_DURABILITY_MEMORY;
        bool updates = w->revisions[i] != 0;
        if (!put(number, durability, &result))
            return "put failed";
        w->revisions[i] = result.revision;
        return (result.outcome == PTIER_PUT_UPDATED) == updates
                   ? NULL
                   : "put disagrees about what was there";
    }
    if (what < 50)
        return delete_own(w, i, number);
    if (what < 55)
        return report_own(w, i, number);
    if (what < 70)
        return fight(w);
    if (what < 73)
        look_around(&w->seed);
    else if (what == 73)
        PTIER_IGNORE(
            ptier_cache_clear(box.cache, (ptier_tier_id)(1 + ptier_test_random(&w->seed, 2)), 0,
                              &cleared, NULL, NULL, NULL)); /* upper tiers only: nothing is lost */
    else
        return check_own(w, i, number);
    return NULL;
}

static void *
work(void *context)
{
    worker *w = context;
    for (int i = 0; i < STEPS && !w->wrong; i++)
        w->wrong = step(w);
    return NULL;
}

static void
run_workers(worker workers[THREADS])
{
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (worker){.number = i, .seed = (uint64_t)i + 1};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(workers[i].thread, NULL);
    for (int i = 0; i < THREADS; i++)
        if (workers[i].wrong)
            fail_msg("thread %d: %s", i, workers[i].wrong);
}

static void
check_workers(worker workers[THREADS])
{
    for (int t = 0; t < THREADS; t++) {
        for (int i = 0; i < KEYS_EACH; i++) {
            const char *wrong = check_own(&workers[t], i, t * 1000 + i);
            if (wrong)
                fail_msg("afterwards, key p%d: %s", t * 1000 + i, wrong);
        }
    }
}

static void
check_feed(void)
{
    for (size_t i = 1; i < box.change_count; i++)
        assert_true(box.changes[i].revision > box.changes[i - 1].revision);
}

static void
eight_threads_agree_with_the_last_writer_of_each_key(void **state)
{
    (void)state;
    static worker workers[THREADS];
    static const int subsets[] = {BOX_ALL, BOX_L1 | BOX_L2, BOX_L1 | BOX_L3, BOX_L2 | BOX_L3};
    for (size_t s = 0; s < 4; s++) {
        uint64_t gets = 0;
        if (s)
            ptier_test_box_fini(&box);
        ptier_test_box_init(&box, subsets[s]);
        box.options.l1_entries = 40;
        box.options.l2_entries = subsets[s] & BOX_L3 ? 120 : 0;
        box.hooks.l2_shard_bytes = 65536;
        ptier_test_box_open(&box);
        run_workers(workers);
        ptier_statistics statistics = ptier_test_box_statistics(&box);
        for (int i = 0; i < THREADS; i++)
            gets += workers[i].gets;
        assert_int_equal(statistics.hits + statistics.misses, gets);
        check_workers(workers);
        check_feed();
        ptier_test_box_reopen(&box);
        check_workers(workers);
    }
}

static void *
clear_now_and_then(void *context)
{
    (void)context;
    while (!atomic_load(&stop)) {
        uint64_t cleared;
        if (ptier_cache_clear(box.cache, PTIER_TIER_NONE, PTIER_DURABILITY_DEFAULT, &cleared, NULL,
                              NULL, NULL))
            abort();
        ptier_test_clock_advance(&box.clock, 500);
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    return NULL;
}

static void *
only_fight(void *context)
{
    worker *w = context;
    for (int i = 0; i < STEPS && !w->wrong; i++) {
        w->wrong = fight(w);
        if (i % 50 == 0)
            look_around(&w->seed);
    }
    return NULL;
}

/* Everything goes all the time: the feed must still tell a story that ends with what is there. */
static void
clear_amid_writers_leaves_what_the_feed_says(void **state)
{
    (void)state;
    static worker workers[THREADS];
    pthread_t clearer;
    ptier_test_box_init(&box, BOX_ALL);
    box.options.l1_entries = 5;
    box.options.default_ttl_ms = 3000;
    ptier_test_box_open(&box);
    atomic_store(&stop, false);
    assert_int_equal(pthread_create(&clearer, NULL, clear_now_and_then, NULL), 0);
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (worker){.number = i, .seed = (uint64_t)i + 100};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, only_fight, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(workers[i].thread, NULL);
    atomic_store(&stop, true);
    pthread_join(clearer, NULL);
    for (int i = 0; i < THREADS; i++)
        if (workers[i].wrong)
            fail_msg("thread %d: %s", i, workers[i].wrong);
    ptier_test_box_advance(&box, 64);
    check_feed();
    bool alive[SHARED] = {false};
    for (size_t i = 0; i < box.change_count; i++) {
        const ptier_test_change *c = &box.changes[i];
        if (c->type == PTIER_EVENT_CLEARED) {
            memset(alive, 0, sizeof alive);
            continue;
        }
        bool *it = &alive[atoi(c->key + 1) - 100000];
        assert_int_equal(*it, c->type != PTIER_EVENT_CREATED);
        *it = c->type != PTIER_EVENT_REMOVED;
    }
    for (int reopened = 0; reopened < 2; reopened++) {
        for (int i = 0; i < SHARED; i++)
            assert_int_equal(ptier_test_box_has(&box, 100000 + i), alive[i]);
        ptier_test_box_reopen(&box);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(eight_threads_agree_with_the_last_writer_of_each_key, tear_down),
        cmocka_unit_test_teardown(clear_amid_writers_leaves_what_the_feed_says, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
