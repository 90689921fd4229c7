/*
 * Kill -9: a child writes and says what was acknowledged over a pipe; whatever it said is there
 * when the cache is opened again. What was on its way when it died may be there or not.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/cache_box.h"
#include "support/sample_entry.h"

enum { KEYS = 400, ROUNDS = 12, BATCH = 20 };

/* Version of a key's state; 0: deleted. A key's later versions are larger. */
typedef struct message {
    uint64_t revision; /* highest of the run so far; 0: this only announces what comes */
    uint32_t count;
    struct {
        int key;
        int version;
    } items[BATCH];
} message;

static ptier_test_box box;
static int versions[KEYS]; /* acknowledged */
static int possible[KEYS]; /* announced, perhaps done */
static uint64_t highest;

static int
tear_down(void **state)
{
    (void)state;
    ptier_test_box_fini(&box);
    return 0;
}

/* ---- the child: no cmocka here ---- */

static void
say(int pipe, const message *m)
{
    if (write(pipe, m, sizeof *m) != (ssize_t)sizeof *m)
        _exit(2);
}

static bool
put_batch(message *m, int version, uint64_t *seed)
{
    ptier_record records[BATCH];
    ptier_put_result results[BATCH];
    char keys[BATCH][16], urls[BATCH][40];
    for (uint32_t i = 0; i < m->count; i++) {
        ptier_test_box_record(&records[i], m->items[i].key, keys[i], urls[i]);
        (void)snprintf(urls[i], sizeof urls[i], "http://10.%d.%d.%d:80", version >> 16,
                       version >> 8 & 255, version & 255);
        records[i].password = "hush";
    }
    const ptier_put_options options = {.durability = ptier_test_random(seed, 5)
                                                         ? PTIER_DURABILITY_LOGGED
                                                         : PTIER_DURABILITY_SYNCED};
    if (ptier_cache_put(box.cache, records, m->count, &options, results, NULL, NULL))
        return false;
    for (uint32_t i = 0; i < m->count; i++)
        if (results[i].outcome > PTIER_PUT_UPDATED)
            return false;
    return true;
}

static bool
delete_batch(message *m)
{
    const char *keys[BATCH];
    char texts[BATCH][16];
    for (uint32_t i = 0; i < m->count; i++) {
        (void)snprintf(texts[i], sizeof texts[i], "p%d", m->items[i].key);
        keys[i] = texts[i];
    }
    return ptier_cache_delete(box.cache, keys, m->count, PTIER_DURABILITY_LOGGED, NULL, NULL,
                              NULL) == PTIER_OK;
}

static void
child(int pipe, int version, uint64_t seed)
{
    if (ptier_cache_open_with(&box.options, &box.hooks, &box.cache, &box.error)) {
        (void)fprintf(stderr, "child: %s\n", box.error.message);
        _exit(3);
    }
    for (;; version++) {
        message m = {.count = 1 + (uint32_t)ptier_test_random(&seed, BATCH)};
        bool deletes = ptier_test_random(&seed, 4) == 0;
        int first = (int)ptier_test_random(&seed, KEYS);
        for (uint32_t i = 0; i < m.count; i++) {
            m.items[i].key = (first + (int)i) % KEYS;
            m.items[i].version = deletes ? -version : version;
        }
        say(pipe, &m);
        if (!(deletes ? delete_batch(&m) : put_batch(&m, version, &seed)))
            _exit(4);
        m.revision = ptier_cache_revision(box.cache);
        say(pipe, &m);
    }
}

/* ---- the parent ---- */

static void
take_message(const message *m)
{
    for (uint32_t i = 0; i < m->count; i++) {
        possible[m->items[i].key] = m->items[i].version;
        if (m->revision)
            versions[m->items[i].key] = m->items[i].version;
    }
    if (m->revision) {
        assert_true(m->revision >= highest);
        highest = m->revision;
    }
}

/* Reads until the child is dead; kills it after `ms`. Returns the last version announced. */
static int
watch_child(pid_t pid, int pipe, int64_t ms)
{
    int last = 0, status;
    message m;
    int64_t end = 0; /* counted from the first word: opening takes its time */
    while (read(pipe, &m, sizeof m) == (ssize_t)sizeof m) {
        take_message(&m);
        last = abs(m.items[0].version);
        if (!end)
            end = ptier_test_now() + ms;
        else if (ptier_test_now() >= end)
            (void)kill(pid, SIGKILL);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    return last;
}

/* The version of a key's state; 0: not there. */
static int
read_version(int key)
{
    char text[16];
    int a, b, c;
    ptier_entry *entry;
    (void)snprintf(text, sizeof text, "p%d", key);
    ptier_status status = ptier_cache_get(box.cache, text, &entry, NULL);
    if (status == PTIER_NOT_FOUND)
        return 0;
    assert_int_equal(status, PTIER_OK);
    assert_int_equal(sscanf(ptier_entry_url(entry), "http://10.%d.%d.%d:80", &a, &b, &c), 3);
    assert_string_equal(ptier_entry_password(entry), "hush");
    ptier_entry_release(entry);
    return a << 16 | b << 8 | c;
}

static void
check_after_crash(int round)
{
    ptier_test_box_open(&box);
    assert_true(ptier_test_box_put(&box, KEYS) > highest); /* above all of the runs before */
    for (int i = 0; i < KEYS; i++) {
        int is = read_version(i), acknowledged = versions[i] > 0 ? versions[i] : 0;
        int perhaps = possible[i] > 0 ? possible[i] : 0;
        if (is != acknowledged && is != perhaps)
            fail_msg("round %d: key %d has version %d, acknowledged was %d, announced %d", round, i,
                     is, versions[i], possible[i]);
        versions[i] = possible[i] = is;
    }
    ptier_test_box_close(&box);
}

static void
run_rounds(int tiers, int rounds, uint64_t seed)
{
    int version = 1;
    memset(versions, 0, sizeof versions);
    memset(possible, 0, sizeof possible);
    highest = 0;
    ptier_test_box_init(&box, tiers);
    box.options.l1_entries = 50;
    box.options.l2_entries = tiers & BOX_L3 ? 100 : 0;
    box.hooks.l2_shard_bytes = 65536; /* so that compaction is killed, too */
    for (int round = 0; round < rounds; round++) {
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            close(ends[0]);
            child(ends[1], version, seed + (uint64_t)round);
        }
        close(ends[1]);
        version =
            watch_child(pid, ends[0], (int64_t)ptier_test_random(&seed, round % 3 ? 100 : 600)) + 1;
        close(ends[0]);
        check_after_crash(round);
    }
}

static void
killed_cache_has_everything_it_acknowledged(void **state)
{
    (void)state;
    run_rounds(BOX_ALL, ROUNDS, 1001);
}

static void
killed_cache_without_l3_has_everything_it_acknowledged(void **state)
{
    (void)state;
    run_rounds(BOX_L1 | BOX_L2, ROUNDS / 2, 2002);
}

static void
killed_cache_without_l2_has_everything_it_acknowledged(void **state)
{
    (void)state;
    run_rounds(BOX_L1 | BOX_L3, ROUNDS / 2, 3003);
}

int
main(void)
{
    (void)signal(SIGPIPE, SIG_IGN); /* cannot fail */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(killed_cache_has_everything_it_acknowledged, tear_down),
        cmocka_unit_test_teardown(killed_cache_without_l3_has_everything_it_acknowledged,
                                  tear_down),
        cmocka_unit_test_teardown(killed_cache_without_l2_has_everything_it_acknowledged,
                                  tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
