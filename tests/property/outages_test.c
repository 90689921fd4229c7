/*
 * Seeded random changes while tiers fail and heal, are cleared, switched on and off between runs,
 * and keys are rotated: the running cache has what it was given, the change feed tells all of it,
 * and what a kill would leave has what was acknowledged as LOGGED, or start-up says that something
 * is lost. Writes to the files of a tier fail when told to. PTIER_OUTAGE_SEED repeats a run,
 * PTIER_OUTAGE_STEPS says how long it is.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/cache_box.h"
#include "support/sample_entry.h"
#include "support/settings.h"

enum { KEYS = 12, ALLOWED = 64, STEPS = PTIER_TEST_SANITIZED ? 250 : 500 };

/* ---- tiers that fail ---- */

static _Atomic int l2_errno, l3_errno;
static atomic_bool l2_blind, l3_blind; /* reads fail, too */
static _Thread_local bool copying;

static int
failing(int fd)
{
    char link[64], path[512];
    if ((!atomic_load(&l2_errno) && !atomic_load(&l3_errno)) || copying)
        return 0;
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length > 0 ? length : 0] = '\0';
    if (strstr(path, "/l2/"))
        return atomic_load(&l2_errno);
    return strstr(path, "/l3.sqlite") ? atomic_load(&l3_errno) : 0;
}

/* Held while the files are copied: nothing changes then, as after a kill. */
static pthread_rwlock_t gate = PTHREAD_RWLOCK_INITIALIZER;

static void
enter(void)
{
    if (!copying)
        (void)pthread_rwlock_rdlock(&gate);
}

static long
leave(long result)
{
    int reason = errno;
    if (!copying)
        (void)pthread_rwlock_unlock(&gate);
    errno = reason;
    return result;
}

#define TAKEN_OVER         __attribute__((visibility("default")))
#define THROUGH_GATE(call) (enter(), leave(call))

static long
write_to(int fd, const void *buf, size_t n, off_t at, bool positioned)
{
    int reason = failing(fd);
    if (!reason)
        return positioned ? THROUGH_GATE(syscall(SYS_pwrite64, fd, buf, n, at))
                          : THROUGH_GATE(syscall(SYS_write, fd, buf, n));
    errno = reason;
    return -1;
}

TAKEN_OVER ssize_t
write(int fd, const void *buf, size_t n)
{
    return write_to(fd, buf, n, 0, false);
}

TAKEN_OVER ssize_t
pwrite64(int fd, const void *buf, size_t n, off_t offset)
{
    return write_to(fd, buf, n, offset, true);
}

TAKEN_OVER ssize_t
pwrite(int fd, const void *buf, size_t n, off_t offset)
{
    return write_to(fd, buf, n, offset, true);
}

static long
read_from(int fd, void *buf, size_t n, off_t at)
{
    int l2 = atomic_load(&l2_blind), l3 = atomic_load(&l3_blind);
    char link[64], path[512];
    if ((l2 || l3) && !copying) {
        (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, path, sizeof path - 1);
        path[length > 0 ? length : 0] = '\0';
        if ((l2 && strstr(path, "/l2/")) || (l3 && strstr(path, "/l3.sqlite"))) {
            errno = EIO;
            return -1;
        }
    }
    return syscall(SYS_pread64, fd, buf, n, at);
}

TAKEN_OVER ssize_t
pread(int fd, void *buf, size_t nbytes, off_t offset)
{
    return read_from(fd, buf, nbytes, offset);
}

TAKEN_OVER ssize_t
pread64(int fd, void *buf, size_t nbytes, off_t offset)
{
    return read_from(fd, buf, nbytes, offset);
}

TAKEN_OVER int
ftruncate(int fd, off_t length)
{
    return (int)THROUGH_GATE(syscall(SYS_ftruncate, fd, length));
}

TAKEN_OVER int
ftruncate64(int fd, off_t length)
{
    return (int)THROUGH_GATE(syscall(SYS_ftruncate, fd, length));
}

TAKEN_OVER int
rename(const char *old, const char *new)
{
    return (int)THROUGH_GATE(syscall(SYS_rename, old, new));
}

TAKEN_OVER int
unlink(const char *name)
{
    return (int)THROUGH_GATE(syscall(SYS_unlink, name));
}

/* ---- what is to be there ---- */

/* A version of an entry is its port; 0: there is none. */
typedef struct expectation {
    int version;          /* now */
    int allowed[ALLOWED]; /* after a kill; the first one was acknowledged as LOGGED */
    size_t count;
} expectation;

static ptier_test_box box;
static expectation expected[KEYS];
static uint64_t seed, random_state;
static bool there_at_start[KEYS]; /* of the feed */
static int next_version, tiers;
static char now_doing[128];
static struct {
    unsigned kills, said, memory, refused;
} tally;

static uint64_t
below(uint64_t limit)
{
    return ptier_test_random(&random_state, limit);
}

static void
key_of(int i, char key[16])
{
    (void)snprintf(key, 16, "k%d", i);
}

static void
complain(int i, int found, const char *when)
{
    fprintf(stderr, "seed %" PRIu64 ": %s, after %s: key %d has version %d, expected %d of", seed,
            when, now_doing, i, found, expected[i].version);
    for (size_t a = 0; a < expected[i].count; a++)
        fprintf(stderr, " %d", expected[i].allowed[a]);
    fprintf(stderr, "\n");
    fail();
}

static int
version_in(ptier_cache *cache, int i)
{
    char key[16];
    ptier_entry *entry;
    ptier_record record;
    int version = 0, host;
    key_of(i, key);
    ptier_status status = ptier_cache_get(cache, key, &entry, NULL);
    if (status == PTIER_NOT_FOUND)
        return 0;
    if (status)
        return -1; /* a disk hides it now */
    ptier_cache_read(cache, entry, &record, NULL);
    assert_int_equal(sscanf(record.url, "http://10.0.0.%d:%d", &host, &version), 2);
    assert_int_equal(host, i);
    ptier_entry_release(entry);
    return version;
}

static void
note(int i, int version, ptier_durability durability)
{
    expectation *e = &expected[i];
    e->version = version;
    if (durability >= PTIER_DURABILITY_LOGGED)
        e->count = 0;
    else
        tally.memory++;
    assert_true(e->count < ALLOWED);
    e->allowed[e->count++] = version;
}

/* ---- steps ---- */

static void
put_one(int i)
{
    char key[16], url[40];
    ptier_record record;
    ptier_written written = {0};
    ptier_put_result result;
    int version = ++next_version;
    key_of(i, key);
    (void)snprintf(url, sizeof url, "http://10.0.0.%d:%d", i, version);
    ptier_record_init(&record);
    record.key = key;
    record.url = url;
    if (ptier_cache_put(box.cache, &record, 1, NULL, &result, &written, &box.error) ||
        result.outcome > PTIER_PUT_UPDATED)
        tally.refused++;
    else
        note(i, version, written.durability);
}

static void
delete_one(int i)
{
    char key[16];
    const char *keys[] = {key};
    size_t deleted;
    ptier_written written = {0};
    key_of(i, key);
    if (ptier_cache_delete(box.cache, keys, 1, PTIER_DURABILITY_DEFAULT, &deleted, &written,
                           &box.error))
        tally.refused++;
    else if (deleted)
        note(i, 0, written.durability);
}

static void
clear_all(void)
{
    uint64_t cleared, revision;
    if (ptier_cache_clear(box.cache, PTIER_TIER_NONE, PTIER_DURABILITY_DEFAULT, &cleared, &revision,
                          NULL, &box.error))
        return;
    for (int i = 0; i < KEYS; i++)
        if (expected[i].version)
            note(i, 0, PTIER_DURABILITY_MEMORY); /* it does not say how durable it became */
}

static void
clear_tier(ptier_tier_id tier)
{
    uint64_t cleared, revision;
    PTIER_IGNORE(ptier_cache_clear(box.cache, tier, PTIER_DURABILITY_DEFAULT, &cleared, &revision,
                                   NULL, &box.error));
}

static void
rotate(void)
{
    ptier_rotation rotation = {0};
    for (int i = 0; i < 50 && !rotation.finished; i++)
        if (ptier_cache_rotate_step(box.cache, &rotation, &box.error))
            break;
}

static void
check_now(void)
{
    for (int i = 0; i < KEYS; i++) {
        int version = version_in(box.cache, i);
        if (version != expected[i].version && version != -1)
            complain(i, version, "running");
    }
}

/* When nothing fails: L3 has a row of each entry, and no other. */
static void
check_rows(ptier_cache *cache)
{
    ptier_statistics s;
    int64_t deadline = ptier_test_now() + 20000;
    for (;;) {
        ptier_cache_statistics(cache, &s);
        if (!cache->tiers[PTIER_TIER_L3] ||
            (s.l3_lag == 0 && s.tiers[PTIER_TIER_L3].entries == s.entries))
            return;
        if (ptier_test_now() >= deadline)
            fail_msg("seed %" PRIu64 ": after %s L3 has %" PRIu64 " rows of %" PRIu64 " entries",
                     seed, now_doing, s.tiers[PTIER_TIER_L3].entries, s.entries);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

/* Rows that the start has left out would show now. */
static void
put_all_into(ptier_cache *cache)
{
    for (int i = 0; i < KEYS; i++) {
        char key[16];
        ptier_record record;
        key_of(i, key);
        ptier_record_init(&record);
        record.key = key;
        record.url = "http://10.0.0.0:1";
        assert_int_equal(ptier_cache_put(cache, &record, 1, NULL, NULL, NULL, &box.error),
                         PTIER_OK);
    }
}

/* What a kill would leave now; `go_on`: with that. */
static void
check_kill(bool go_on)
{
    char copy[PTIER_TEST_PATH];
    ptier_cache_options options = box.options;
    ptier_cache *cache;
    ptier_start_report report;
    int l2 = atomic_exchange(&l2_errno, 0), l3 = atomic_exchange(&l3_errno, 0);
    bool b2 = atomic_exchange(&l2_blind, false);
    atomic_store(&l3_blind, false);
    ptier_test_dir_make(copy);
    (void)pthread_rwlock_wrlock(&gate);
    copying = true;
    ptier_test_dir_copy(box.directory, copy);
    copying = false;
    (void)pthread_rwlock_unlock(&gate);
    options.data_dir = copy;
    options.on_change = NULL;
    ptier_cache_hooks hooks = box.hooks;
    if (ptier_cache_open_with(&options, &hooks, &cache, &box.error))
        fail_msg("seed %" PRIu64 ": %s", seed, box.error.message);
    ptier_cache_start_report(cache, &report);
    tally.kills++;
    tally.said += report.new_store;
    for (int i = 0; i < KEYS; i++) {
        int version = version_in(cache, i);
        bool right = report.new_store;
        for (size_t a = 0; a < expected[i].count; a++)
            right |= expected[i].allowed[a] == version;
        if (!right)
            complain(i, version, "killed");
        if (go_on) {
            expected[i] = (expectation){.version = version, .allowed = {version}, .count = 1};
            there_at_start[i] = version != 0;
        }
    }
    if (!go_on && below(2)) {
        assert_int_equal(ptier_cache_wait_started(cache, 20000), PTIER_OK);
        put_all_into(cache);
        check_rows(cache);
    }
    ptier_cache_close(cache);
    if (go_on) {
        ptier_test_box_close(&box);
        ptier_test_dir_remove(box.directory);
        (void)snprintf(box.directory, sizeof box.directory, "%s", copy);
        box.change_count = 0;
        ptier_test_box_open(&box);
    } else {
        ptier_test_dir_remove(copy);
    }
    atomic_store(&l2_errno, l2);
    atomic_store(&l3_errno, l3);
    atomic_store(&l2_blind, b2);
}

/* Tells and content agree: one who replays the feed has what the cache has. */
static void
check_feed(void)
{
    bool there[KEYS];
    uint64_t last = 0;
    memcpy(there, there_at_start, sizeof there);
    pthread_mutex_lock(&box.lock);
    for (size_t c = 0; c < box.change_count; c++) {
        const ptier_test_change *change = &box.changes[c];
        assert_true(change->revision > last);
        last = change->revision;
        int i = *change->key ? atoi(change->key + 1) : 0;
        if (change->type == PTIER_EVENT_CLEARED)
            memset(there, 0, sizeof there);
        else if (change->type == PTIER_EVENT_CREATED && there[i])
            fail_msg("seed %" PRIu64 ": key %d was created twice", seed, i);
        else if (change->type != PTIER_EVENT_CREATED && !there[i])
            fail_msg("seed %" PRIu64 ": key %d changed and was not there", seed, i);
        else
            there[i] = change->type != PTIER_EVENT_REMOVED;
    }
    pthread_mutex_unlock(&box.lock);
    uint64_t count = 0;
    for (int i = 0; i < KEYS; i++) {
        count += there[i];
        if (there[i] != (expected[i].version != 0))
            complain(i, there[i], "told");
    }
    ptier_wait_indexed(box.cache); /* until then it is a guess */
    assert_int_equal(ptier_test_box_entries(&box), count);
}

static void
heal(void)
{
    atomic_store(&l2_blind, false);
    atomic_store(&l3_blind, false);
    atomic_store(&l2_errno, 0);
    atomic_store(&l3_errno, 0);
    for (ptier_tier_id id = PTIER_TIER_L2; id <= PTIER_TIER_L3; id++)
        if (box.cache->tiers[id])
            BOX_AWAIT(!ptier_test_box_statistics(&box).tiers[id].degraded);
    assert_int_equal(ptier_cache_wait_started(box.cache, 20000), PTIER_OK);
    BOX_AWAIT(ptier_test_box_statistics(&box).pending_writes == 0);
    check_rows(box.cache);
}

/* In order, with all that works: nothing is open any more. */
static void
restart(void)
{
    heal();
    check_now();
    ptier_test_box_close(&box);
    if (tiers & BOX_L3) { /* which has everything */
        box.options.l1_enabled = below(2);
        box.options.l2_enabled = below(2);
    }
    ptier_test_box_open(&box);
    ptier_start_report report;
    ptier_cache_start_report(box.cache, &report);
    if (report.new_store && next_version)
        fail_msg("seed %" PRIu64 ": %s", seed, report.text);
    for (int i = 0; i < KEYS; i++) {
        expected[i].allowed[0] = expected[i].version;
        expected[i].count = 1;
    }
}

static void
step(void)
{
    static const int reasons[] = {EIO, ENOSPC};
    uint64_t what = below(100);
    int i = (int)below(KEYS);
    (void)snprintf(now_doing, sizeof now_doing, "step %d (key %d), errors %d and %d", (int)what, i,
                   atomic_load(&l2_errno), atomic_load(&l3_errno));
    if (expected[i].count > ALLOWED - 2) {
        heal();
        put_one(i);
    }
    if (what < 45)
        put_one(i);
    else if (what < 65)
        delete_one(i);
    else if (what < 67)
        clear_all();
    else if (what < 69)
        clear_tier(PTIER_TIER_L1);
    else if (what < 71)
        clear_tier(PTIER_TIER_L2);
    else if (what < 75)
        atomic_store(&l2_errno, reasons[below(2)]);
    else if (what < 79)
        atomic_store(&l3_errno, reasons[below(2)]);
    else if (what < 83)
        atomic_store(&l2_errno, 0);
    else if (what < 87)
        atomic_store(&l3_errno, 0);
    else if (what < 91)
        nanosleep(&(struct timespec){.tv_nsec = (long)below(60) * 1000000}, NULL);
    else if (what < 92)
        rotate();
    else if (what < 93)
        atomic_store(below(2) ? &l2_blind : &l3_blind, true);
    else if (what < 94)
        heal();
    else if (what < 96)
        restart();
    else
        check_kill(below(3) == 0);
    check_now();
    if (below(5) == 0)
        atomic_store(&l2_blind, false);
    if (below(3) == 0)
        atomic_store(&l3_blind, false);
    if (what % 4 == 0)
        check_feed();
}

static void
run(int set)
{
    tiers = set;
    memset(expected, 0, sizeof expected);
    for (int i = 0; i < KEYS; i++)
        expected[i].count = 1;
    memset(there_at_start, 0, sizeof there_at_start);
    memset(&tally, 0, sizeof tally);
    next_version = 0;
    seed = ptier_test_setting("PTIER_OUTAGE_SEED", (uint64_t)time(NULL));
    random_state = seed * 31 + (uint64_t)set;
    ptier_test_box_init(&box, set);
    box.options.l1_entries = 3;
    box.options.l2_entries = set & BOX_L3 ? 5 : 0;
    box.options.default_ttl_ms = 0;
    box.hooks.l2_shard_bytes = 4096;
    box.hooks.probe_period_ms = 10;
    box.hooks.quick_start_rows = 1;
    ptier_test_box_open(&box);
    uint64_t steps = ptier_test_setting("PTIER_OUTAGE_STEPS", STEPS);
    for (uint64_t n = 0; n < steps; n++)
        step();
    heal();
    check_now();
    check_feed();
    fprintf(stderr,
            "outages: tiers %d, seed %" PRIu64
            ": %u kills (%u said so), %u in memory only, %u refused\n",
            set, seed, tally.kills, tally.said, tally.memory, tally.refused);
}

static int
tear_down(void **state)
{
    (void)state;
    atomic_store(&l2_blind, false);
    atomic_store(&l3_blind, false);
    atomic_store(&l2_errno, 0);
    atomic_store(&l3_errno, 0);
    ptier_test_box_fini(&box);
    return 0;
}

static void
outages_of_all_tiers(void **state)
{
    (void)state;
    run(BOX_ALL);
}

static void
outages_without_l1(void **state)
{
    (void)state;
    run(BOX_L2 | BOX_L3);
}

static void
outages_without_l2(void **state)
{
    (void)state;
    run(BOX_L1 | BOX_L3);
}

static void
outages_without_l3(void **state)
{
    (void)state;
    run(BOX_L1 | BOX_L2);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(outages_of_all_tiers, tear_down),
        cmocka_unit_test_teardown(outages_without_l1, tear_down),
        cmocka_unit_test_teardown(outages_without_l2, tear_down),
        cmocka_unit_test_teardown(outages_without_l3, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
