/*
 * Random damage to the files of a data directory between a stop (proper, or by kill) and a start:
 * it opens, serves no wrong value, no older one without saying so and a new store_id, and works.
 * Each damaged store is opened by a process of its own. PTIER_DAMAGES: how many; PTIER_DAMAGE_SEED:
 * with which seed; PTIER_DAMAGE_ONLY: just that one of them (a failure names both). The stores are
 * made anew each time, and where their shards end depends on when compaction came: repeat it.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <proxytier/status.h>

#include "property/damage.h"
#include "property/damage_store.h"
#include "support/sample_entry.h"
#include "support/settings.h"

enum {
    COMBINATIONS = 6,
    STORES = 2 * COMBINATIONS,
    SHORT = PTIER_TEST_SANITIZED ? 60 : 150,
    ALARM_S = 60,
    WAIT_MS = 30000,
    FAILURES_MAX = 50,
};

typedef struct tally {
    int refused, missing, older, changes_lost, new_ids, untouched;
} tally;

typedef struct round_facts {
    ptier_damage_store store; /* a copy: what is put after the damage is noted here */
    ptier_damage damage;
    char directory[PTIER_TEST_PATH];
    tally *tally;
    int missing, older;
    uint8_t store_id[PTIER_ID_BYTES];
} round_facts;

static ptier_damage_store *stores; /* shared with the processes that write them */
static tally *all;

/* ---- in the process that opens the damaged store ---- */

PTIER_PRINTF(2, 3)
__attribute__((noreturn)) static void
die(const round_facts *r, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)fprintf(stderr, "damage: tiers %d, %s, {%s}: ", r->store.tiers,
                  r->store.killed ? "killed" : "closed", r->damage.text);
    (void)vfprintf(stderr, format, arguments);
    (void)fprintf(stderr, "; logged:\n%s", ptier_damage_log());
    va_end(arguments);
    _exit(1);
}

static void
read_all(round_facts *r, ptier_cache *cache)
{
    r->missing = r->older = 0;
    for (int i = 0; i < PTIER_DAMAGE_KEYS; i++) {
        ptier_status status;
        ptier_damage_verdict verdict = ptier_damage_judge(&r->store, cache, i, &status);
        if (verdict == PTIER_DAMAGE_WRONG)
            die(r, "d%d has a value that was never its own", i);
        if (status && status != PTIER_NOT_FOUND && status != PTIER_DATA_LOSS)
            die(r, "d%d: %s", i, ptier_status_text(status));
        r->missing += verdict == PTIER_DAMAGE_MISSING;
        r->older += verdict == PTIER_DAMAGE_OLDER;
    }
}

/* A record whose expiry was damaged is not served, and found to be damaged when it is removed: at
 * once, but by another thread. */
static bool
corruption_is_told(ptier_cache *cache)
{
    for (int i = 0; i < 1000; i++) {
        ptier_statistics statistics;
        ptier_cache_statistics(cache, &statistics);
        if (statistics.removals[PTIER_REASON_CORRUPTION])
            return true;
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    return false;
}

/* What start-up reports fits what is there. */
static void
check_report(round_facts *r, ptier_cache *cache, int older_before)
{
    ptier_start_report report;
    ptier_cache_start_report(cache, &report);
    ptier_cache_store_id(cache, r->store_id);
    bool new_id = memcmp(r->store_id, r->store.store_id, PTIER_ID_BYTES) != 0;
    int older = r->older > older_before ? r->older : older_before;
    if (new_id != report.new_store)
        die(r, "the store_id is %s, the report says it is %s", new_id ? "new" : "the same",
            report.new_store ? "new" : "not");
    if (older && !report.changes_lost)
        die(r, "%d keys are in an older state, and the report does not say so: \"%s\"", older,
            report.text);
    if (report.changes_lost && !new_id)
        die(r, "changes are lost, and the store_id stayed: \"%s\"", report.text);
    bool reported = report.damaged || report.changes_lost || report.new_store;
    if (r->missing && !reported && !corruption_is_told(cache))
        die(r, "%d keys are missing, and nothing was reported", r->missing);
    if (reported && !report.text[0] && report.changes_lost)
        die(r, "changes are lost, and the report has no text");
    r->tally->missing += r->missing > 0;
    r->tally->older += older > 0;
    r->tally->changes_lost += report.changes_lost;
    r->tally->new_ids += new_id;
    r->tally->untouched += !reported;
}

static ptier_cache *
open_store(round_facts *r)
{
    ptier_cache *cache = NULL;
    ptier_error error = {0};
    char from[PTIER_TEST_PATH + 8], to[PTIER_TEST_PATH + 8];
    ptier_status status = ptier_damage_open(&r->store, r->directory, &cache, &error);
    if (status && r->damage.key) {
        /* Without its key nothing can be done, and nothing may be destroyed. */
        size_t length;
        (void)snprintf(from, sizeof from, "%s/key", r->store.directory);
        (void)snprintf(to, sizeof to, "%s/key", r->directory);
        char *key = ptier_test_file_read(from, &length);
        ptier_test_file_write(to, key, length);
        (void)chmod(to, 0600); /* else it is refused, and the test says so */
        free(key);
        status = ptier_damage_open(&r->store, r->directory, &cache, &error);
    }
    if (!status)
        return cache;
    /* Refused, and rightly: it may be another key's, or nobody's. */
    if (status != PTIER_FAILED_PRECONDITION || !r->damage.state || r->damage.count < 2)
        die(r, "open: %s: %s", ptier_status_text(status), error.message);
    r->tally->refused++;
    _exit(0);
}

static void
wait_started(round_facts *r, ptier_cache *cache)
{
    if (ptier_cache_wait_started(cache, WAIT_MS))
        die(r, "start-up does not come to its end");
}

static void
judge_all(round_facts *r, ptier_cache *cache, const char *when)
{
    for (int i = 0; i < PTIER_DAMAGE_KEYS; i++) {
        ptier_status status;
        if (ptier_damage_judge(&r->store, cache, i, &status) != PTIER_DAMAGE_CURRENT)
            die(r, "d%d is not as it was left: %s, %s", i, when, ptier_status_text(status));
    }
}

/* L2 may have served what is damaged in L3, and let go of it since, or when the store was closed:
 * then that is told. */
static void
adopt_told_losses(round_facts *r, ptier_cache *cache)
{
    for (int i = 0; i < PTIER_DAMAGE_KEYS; i++) {
        ptier_status status;
        if (ptier_damage_judge(&r->store, cache, i, &status) == PTIER_DAMAGE_MISSING &&
            corruption_is_told(cache))
            ptier_damage_adopt(&r->store, cache, i);
    }
}

/* Goes on from what is there: puts over what is damaged, deletes. */
static void
use(round_facts *r, ptier_cache *cache)
{
    bool new_id = memcmp(r->store_id, r->store.store_id, PTIER_ID_BYTES) != 0;
    char text[16];
    const char *name = text;
    ptier_put_result result;
    ptier_durability reached;
    for (int i = 0; i < PTIER_DAMAGE_KEYS; i++) {
        if (i % 4 == 0 && !ptier_damage_put(&r->store, cache, i, &result, &reached))
            die(r, "d%d cannot be put: %s", i, result.message);
        if (i % 4 == 0 && !new_id && result.revision <= r->store.highest)
            die(r, "revision %llu is used again", (unsigned long long)result.revision);
        ptier_damage_key_text(i, text);
        if (i % 4 == 1 && ptier_cache_delete(cache, &name, 1, 0, NULL, NULL, NULL))
            die(r, "d%d cannot be deleted", i);
        ptier_damage_adopt(&r->store, cache, i);
        const ptier_damage_key *known = &r->store.keys[i];
        if (i % 4 == 0 && known->version != r->store.versions - 1)
            die(r, "d%d was put and is not there", i);
        if (i % 4 == 1 && known->exists)
            die(r, "d%d was deleted and is there", i);
    }
    adopt_told_losses(r, cache);
    judge_all(r, cache, "in use");
}

/* A tier that turned out to be damaged takes nothing until it is made anew, and replies say so; in
 * the end all of it is where it survives a restart. */
static void
await_durable(round_facts *r, ptier_cache *cache)
{
    ptier_put_result result;
    ptier_durability reached = PTIER_DURABILITY_MEMORY;
    for (int tries = 0; reached < PTIER_DURABILITY_LOGGED; tries++) {
        if (!ptier_damage_put(&r->store, cache, 0, &result, &reached))
            die(r, "d0 cannot be put: %s", result.message);
        if (tries == WAIT_MS / 50)
            die(r, "no disk tier takes changes again");
        if (reached < PTIER_DURABILITY_LOGGED)
            nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    }
    ptier_damage_adopt(&r->store, cache, 0);
}

/* Damage stays in the files, and every start reports it, until they have been written anew. */
static void
await_mended(round_facts *r, ptier_cache *cache)
{
    for (int tries = 0; !ptier_damage_mended(cache); tries++) {
        if (tries == WAIT_MS / 50)
            die(r, "L2 or L3 is not written anew after damage");
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    }
}

static void
open_again(round_facts *r)
{
    uint8_t id[PTIER_ID_BYTES];
    ptier_start_report report;
    ptier_cache *cache = open_store(r);
    wait_started(r, cache);
    adopt_told_losses(r, cache);
    judge_all(r, cache, "after another start");
    ptier_cache_start_report(cache, &report);
    ptier_cache_store_id(cache, id);
    if (memcmp(id, r->store_id, sizeof id) != 0 || report.changes_lost)
        die(r, "the start after a proper end reports lost changes, too: \"%s\"", report.text);
    ptier_cache_close(cache);
}

__attribute__((noreturn)) static void
run_in_process(round_facts *r)
{
    (void)alarm(ALARM_S);
    ptier_cache *cache = open_store(r);
    read_all(r, cache);
    int older = r->older;
    wait_started(r, cache);
    read_all(r, cache);
    check_report(r, cache, older);
    use(r, cache);
    await_durable(r, cache);
    await_mended(r, cache);
    ptier_cache_close(cache);
    open_again(r);
    _exit(0);
}

/* ---- rounds ---- */

/* False: the process failed. Everything follows from seed and number. */
static bool
run_round(uint64_t seed, uint64_t number)
{
    static round_facts r;
    uint64_t random = (seed * 1000003 + number + 1) * UINT64_C(0x9e3779b97f4a7c15) | 1;
    int status;
    r = (round_facts){.store = stores[ptier_test_random(&random, STORES)], .tally = all};
    ptier_test_dir_make(r.directory);
    ptier_test_dir_copy(r.store.directory, r.directory);
    for (uint64_t count = 1 + ptier_test_random(&random, 2); count && !r.damage.older; count--)
        ptier_damage_something(r.directory, r.store.older, &random, &r.damage);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        run_in_process(&r);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    ptier_test_dir_remove(r.directory);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    print_error("damage %llu of seed %llu: tiers %d, %s, {%s}: status %x\n",
                (unsigned long long)number, (unsigned long long)seed, r.store.tiers,
                r.store.killed ? "killed" : "closed", r.damage.text, (unsigned)status);
    return false;
}

static void
random_damage_serves_nothing_wrong_and_is_reported(void **state)
{
    (void)state;
    uint64_t seed = ptier_test_setting("PTIER_DAMAGE_SEED", (uint64_t)time(NULL));
    uint64_t damages = ptier_test_setting("PTIER_DAMAGES", SHORT), failed = 0;
    uint64_t only = ptier_test_setting("PTIER_DAMAGE_ONLY", UINT64_MAX);
    print_message("damage: %llu, seed %llu\n", (unsigned long long)damages,
                  (unsigned long long)seed);
    for (uint64_t i = 0; i < damages && failed < FAILURES_MAX; i++)
        if (only == UINT64_MAX || only == i)
            failed += !run_round(seed, i);
    print_message(
        "damage: seed %llu: %llu damages, %llu failed; %d reported lost changes, %d had a "
        "new store_id, %d served older states and said so, %d missed records and said "
        "so, %d were refused, %d changed nothing\n",
        (unsigned long long)seed, (unsigned long long)damages, (unsigned long long)failed,
        all->changes_lost, all->new_ids, all->older, all->missing, all->refused, all->untouched);
    assert_int_equal(failed, 0);
}

static int
make_stores(void **state)
{
    (void)state;
    stores = mmap(NULL, STORES * sizeof *stores + sizeof *all, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (stores == MAP_FAILED)
        return -1;
    all = (tally *)(void *)&stores[STORES];
    for (int i = 0; i < STORES; i++)
        if (!ptier_damage_store_make(&stores[i], 2 + i / 2, i % 2, (uint64_t)i + 1))
            return -1;
    return 0;
}

static int
remove_stores(void **state)
{
    (void)state;
    for (int i = 0; i < STORES; i++)
        if (stores[i].directory[0])
            ptier_damage_store_remove(&stores[i]);
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_damage_serves_nothing_wrong_and_is_reported),
    };
    return cmocka_run_group_tests(tests, make_stores, remove_stores);
}
