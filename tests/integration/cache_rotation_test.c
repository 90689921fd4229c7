/*
 * Rotation of keys, end to end: afterwards the new key alone opens everything, and nothing that the
 * old one can read is left in any file; cut short at any moment it costs nothing.
 */
#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/cache_box.h"
#include "support/sample_entry.h"

#define KEY_A "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="
#define KEY_B "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
#define KEY_C "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="

enum {
    RECORDS = 400, /* every fourth is deleted again */
    MANY = 6000,   /* L3's rows take several steps */
    SHARD_BYTES = 16384,
    MAX_STEPS = 100000,
    PIECE_AT = 40, /* of a token: cipher text, whatever became of its ends */
    PIECE = 32,
};

static ptier_test_box box;
static const char *previous[2];

/* ---- the store ---- */

static void
use_keys(const char *first, const char *older)
{
    previous[0] = older;
    box.options.encryption_key = first;
    box.options.previous_keys = previous;
    box.options.previous_key_count = older != NULL;
}

static void
init(int tiers)
{
    ptier_test_box_init(&box, tiers);
    box.options.l1_entries = 10;
    box.options.l2_entries = tiers & BOX_L3 ? 50 : 0;
    box.hooks.l2_shard_bytes = SHARD_BYTES;
    use_keys(KEY_A, NULL);
}

/* No cmocka: also for threads and children. */
static bool
put(int number)
{
    char key[16], url[40], username[16], password[16];
    ptier_record record;
    ptier_put_result result;
    ptier_test_box_record(&record, number, key, url);
    (void)snprintf(username, sizeof username, "user-%d", number);
    (void)snprintf(password, sizeof password, "secret-%d", number);
    record.username = username;
    record.password = password;
    return ptier_cache_put(box.cache, &record, 1, NULL, &result, NULL, NULL) == PTIER_OK &&
           result.outcome <= PTIER_PUT_UPDATED;
}

/* Whether a record is there; with its own password, or it counts as wrong. */
static bool
read_back(int number, bool *wrong)
{
    char key[16], password[16];
    ptier_entry *entry;
    (void)snprintf(key, sizeof key, "p%d", number);
    (void)snprintf(password, sizeof password, "secret-%d", number);
    ptier_status status = ptier_cache_get(box.cache, key, &entry, NULL);
    if (status) {
        *wrong |= status != PTIER_NOT_FOUND;
        return false;
    }
    const char *found = ptier_entry_password(entry);
    *wrong |= !found || strcmp(found, password) != 0;
    ptier_entry_release(entry);
    return true;
}

static bool
stays(int number)
{
    return number % 4 != 3;
}

/* Also updates, and removals all over the files. */
static void
fill(int records)
{
    for (int i = 0; i < records; i++)
        assert_true(put(i));
    for (int i = 0; i < records; i += 7)
        assert_true(put(i));
    for (int i = 0; i < records; i++)
        if (!stays(i))
            assert_true(ptier_test_box_delete(&box, i));
}

static void
check_records(int records)
{
    bool wrong = false;
    for (int i = 0; i < records; i++)
        if (read_back(i, &wrong) != stays(i))
            fail_msg("record %d is %s", i, stays(i) ? "lost" : "back");
    assert_false(wrong);
}

static void
check(int records)
{
    check_records(records);
    assert_int_equal(ptier_test_box_entries(&box), records * 3 / 4);
}

/* Under key A, closed. */
static void
make_store(int tiers, int records)
{
    init(tiers);
    ptier_test_box_open(&box);
    fill(records);
    ptier_test_box_close(&box);
}

static void
open_with(const char *first, const char *older)
{
    use_keys(first, older);
    ptier_test_box_open(&box);
}

static void
check_and_close(const char *first, const char *older, int records)
{
    open_with(first, older);
    check(records);
    ptier_start_report report;
    ptier_cache_start_report(box.cache, &report);
    assert_false(report.new_store || report.changes_lost || report.damaged);
    ptier_test_box_close(&box);
}

/* ---- what is in the files ---- */

typedef void (*file_fn)(const char *name, const char *data, size_t length, void *context);

static int
no_dots(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static void
each_file(const char *directory, file_fn fn, void *context)
{
    struct dirent **names;
    int count = scandir(directory, &names, no_dots, alphasort);
    assert_true(count >= 0);
    for (int i = 0; i < count; i++) {
        char path[PTIER_TEST_PATH + 300];
        struct stat about;
        size_t length;
        (void)snprintf(path, sizeof path, "%s/%s", directory, names[i]->d_name);
        free(names[i]);
        assert_int_equal(stat(path, &about), 0);
        if (S_ISDIR(about.st_mode)) {
            each_file(path, fn, context);
            continue;
        }
        char *data = ptier_test_file_read(path, &length);
        fn(path, data, length, context);
        free(data);
    }
    free(names);
}

static void
add_file(const char *name, const char *data, size_t length, void *context)
{
    ptier_buffer *all = context;
    assert_true(ptier_buffer_reserve(all, strlen(name) + 1 + sizeof length + length));
    memcpy(all->data + all->length, name, strlen(name) + 1);
    all->length += strlen(name) + 1;
    memcpy(all->data + all->length, &length, sizeof length);
    memcpy(all->data + all->length + sizeof length, data, length);
    all->length += sizeof length + length;
}

/* A start that is refused leaves every byte of every file as it was. */
static void
assert_refused(const char *key)
{
    ptier_buffer before = {0}, after = {0};
    each_file(box.directory, add_file, &before);
    use_keys(key, NULL);
    assert_int_equal(ptier_cache_open_with(&box.options, &box.hooks, &box.cache, &box.error),
                     PTIER_FAILED_PRECONDITION);
    box.cache = NULL;
    each_file(box.directory, add_file, &after);
    assert_int_equal(before.length, after.length);
    assert_memory_equal(before.data, after.data, before.length);
    ptier_buffer_fini(&before);
    ptier_buffer_fini(&after);
}

/* Tokens in the files that this key opens; all user names and passwords here are short. */
typedef struct tokens {
    ptier_keyring *keyring;
    size_t count;
    ptier_buffer pieces; /* of the tokens, PIECE bytes each */
} tokens;

static void
find_tokens(const char *name, const char *data, size_t length, void *context)
{
    tokens *t = context;
    const size_t size = PTIER_TOKEN_LENGTH(1);
    const char *end = data + length;
    char plain[PTIER_CREDENTIAL_MAX + 1];
    (void)name;
    for (const char *at = data; (at = memmem(at, (size_t)(end - at), "gAAAAA", 6)) != NULL; at++) {
        if ((size_t)(end - at) < size || ptier_sealed_open(t->keyring, at, size, plain))
            continue;
        t->count++;
        assert_true(ptier_buffer_reserve(&t->pieces, PIECE));
        memcpy(t->pieces.data + t->pieces.length, at + PIECE_AT, PIECE);
        t->pieces.length += PIECE;
    }
}

static tokens
tokens_of(const char *key)
{
    tokens t = {0};
    assert_int_equal(ptier_keyring_create(&key, 1, &t.keyring, NULL), PTIER_OK);
    each_file(box.directory, find_tokens, &t);
    ptier_keyring_destroy(t.keyring);
    t.keyring = NULL;
    return t;
}

static void
find_pieces(const char *name, const char *data, size_t length, void *context)
{
    const tokens *old = context;
    for (size_t i = 0; i < old->count; i++)
        if (memmem(data, length, old->pieces.data + i * PIECE, PIECE))
            fail_msg("%s has a piece of an old token", name);
}

/* Not even a part of one of those that were there before. */
static void
assert_nothing_left(const char *key, tokens *old)
{
    tokens t = tokens_of(key);
    ptier_buffer_fini(&t.pieces);
    assert_int_equal(t.count, 0);
    each_file(box.directory, find_pieces, old);
    assert_false(ptier_test_dir_contains(box.directory, "secret-"));
    assert_false(ptier_test_dir_contains(box.directory, "user-"));
}

/* ---- rotation ---- */

static void
step(ptier_rotation *r)
{
    ptier_rotation before = *r;
    if (ptier_cache_rotate_step(box.cache, r, &box.error))
        fail_msg("%s", box.error.message);
    assert_true(r->done >= before.done && r->rewritten >= before.rewritten);
    assert_true(r->done <= r->total);
}

static ptier_rotation
rotate(void)
{
    ptier_rotation r = {0};
    int64_t deadline = ptier_test_now() + 60000;
    while (!r.finished && ptier_test_now() < deadline)
        step(&r);
    assert_true(r.finished);
    assert_int_equal(r.done, r.total);
    return r;
}

static const int tier_sets[] = {BOX_ALL,         BOX_L2,          BOX_L3,
                                BOX_L1 | BOX_L2, BOX_L1 | BOX_L3, BOX_L2 | BOX_L3};
enum { TIER_SETS = sizeof tier_sets / sizeof *tier_sets };

#define FOR_ALL_TIERS(tiers)                                                                       \
    for (int set_ = 0, tiers; set_ < TIER_SETS && (tiers = tier_sets[set_], true);                 \
         ptier_test_box_fini(&box), set_++)

/* Every case leaves an open or closed box to tear_down. */
static void
leave_a_box(void)
{
    init(BOX_L1);
}

/* ---- the whole way ---- */

static void
after_a_rotation_the_new_key_alone_is_enough_and_the_old_one_reads_nothing(void **state)
{
    (void)state;
    FOR_ALL_TIERS(tiers)
    {
        make_store(tiers, RECORDS);
        tokens of_a = tokens_of(KEY_A);
        assert_true(of_a.count >= 2 * (uint64_t)RECORDS * 3 / 4);
        assert_refused(KEY_B);
        open_with(KEY_B, KEY_A);
        ptier_rotation r = rotate();
        assert_true(r.total >= (uint64_t)RECORDS * 3 / 4);
        assert_int_equal(r.rewritten, tiers & BOX_L3 ? RECORDS * 3 / 4 : 0);
        assert_nothing_left(KEY_A, &of_a); /* while it serves */
        check(RECORDS);
        ptier_test_box_close(&box);
        assert_nothing_left(KEY_A, &of_a);
        assert_refused(KEY_A);
        check_and_close(KEY_B, NULL, RECORDS);
        tokens of_b = tokens_of(KEY_B);
        open_with(KEY_C, KEY_B); /* and once more */
        rotate();
        ptier_test_box_close(&box);
        assert_nothing_left(KEY_B, &of_b);
        assert_nothing_left(KEY_A, &of_a);
        assert_refused(KEY_B);
        check_and_close(KEY_C, NULL, RECORDS);
        ptier_buffer_fini(&of_a.pieces);
        ptier_buffer_fini(&of_b.pieces);
    }
    leave_a_box();
}

static void
many_rows_are_rotated_in_steps_that_show_how_far_they_are(void **state)
{
    (void)state;
    make_store(BOX_ALL, MANY);
    tokens of_a = tokens_of(KEY_A);
    open_with(KEY_B, KEY_A);
    ptier_rotation r = {0};
    uint64_t last = UINT64_MAX;
    int advances = 0;
    for (int i = 0; i < MAX_STEPS && !r.finished; i++) {
        step(&r);
        advances += r.done != last;
        last = r.done;
    }
    assert_true(r.finished);
    assert_true(advances >= 3);
    assert_int_equal(r.rewritten, MANY * 3 / 4);
    ptier_test_box_close(&box);
    assert_nothing_left(KEY_A, &of_a);
    ptier_buffer_fini(&of_a.pieces);
    check_and_close(KEY_B, NULL, MANY);
    open_with(KEY_B, NULL); /* again, with nothing to do */
    r = rotate();
    assert_int_equal(r.rewritten, 0);
    check(MANY);
}

/* What was not synced when the machine lost its power is gone: SQLite's log is not. */
static void
once_finished_it_survives_the_loss_of_power(void **state)
{
    (void)state;
    FOR_ALL_TIERS(tiers)
    {
        char copy[PTIER_TEST_PATH], kept[PTIER_TEST_PATH], path[PTIER_TEST_PATH + 20];
        make_store(tiers, RECORDS);
        open_with(KEY_B, KEY_A);
        rotate();
        ptier_test_dir_make(copy);
        ptier_test_dir_copy(box.directory, copy);
        ptier_test_box_close(&box);
        for (int i = 0; i < 2; i++) {
            (void)snprintf(path, sizeof path, "%s/l3.sqlite-%s", copy, i ? "shm" : "wal");
            (void)unlink(path);
        }
        strcpy(kept, box.directory);
        strcpy(box.directory, copy);
        open_with(KEY_B, NULL);
        check(RECORDS);
        ptier_test_box_close(&box);
        ptier_test_dir_remove(copy);
        strcpy(box.directory, kept);
    }
    leave_a_box();
}

/* ---- cut short ---- */

static void
a_rotation_may_end_with_the_cache_after_any_step(void **state)
{
    (void)state;
    FOR_ALL_TIERS(tiers)
    {
        bool finished = false;
        make_store(tiers, RECORDS);
        tokens of_a = tokens_of(KEY_A);
        for (int steps = 0; !finished && steps < 50; steps++) {
            ptier_rotation r = {0};
            open_with(KEY_B, KEY_A);
            for (int i = 0; i < steps && !r.finished; i++)
                step(&r);
            finished = r.finished;
            check(RECORDS);
            ptier_test_box_close(&box);
            if (!finished)
                assert_refused(KEY_B);
        }
        assert_true(finished);
        assert_nothing_left(KEY_A, &of_a);
        check_and_close(KEY_B, NULL, RECORDS);
        ptier_buffer_fini(&of_a.pieces);
    }
    leave_a_box();
}

/* The caller's state may come from before a restart: the next page of a client, say. By now there
 * is one key more. */
static void
a_rotation_that_goes_on_after_a_restart_leaves_nothing_out(void **state)
{
    (void)state;
    FOR_ALL_TIERS(tiers)
    {
        bool finished = false;
        for (int steps = 1; !finished && steps < 50; steps++) {
            ptier_rotation r = {0};
            if (steps > 1)
                ptier_test_box_fini(&box);
            make_store(tiers, RECORDS);
            open_with(KEY_B, KEY_A);
            for (int i = 0; i < steps && !r.finished; i++)
                step(&r);
            finished = r.finished;
            ptier_test_box_close(&box);
            use_keys(KEY_C, KEY_B);
            previous[1] = KEY_A;
            box.options.previous_key_count = 2;
            ptier_test_box_open(&box);
            r.finished = false;
            for (int i = 0; i < MAX_STEPS && !r.finished; i++)
                assert_int_equal(ptier_cache_rotate_step(box.cache, &r, &box.error), PTIER_OK);
            ptier_test_box_close(&box);
            check_and_close(KEY_C, NULL, RECORDS);
        }
        assert_true(finished);
    }
    leave_a_box();
}

/* The child says each number that was acknowledged, and is killed. */
static void
rotate_and_put(int pipe, int first)
{
    ptier_rotation r = {0};
    use_keys(KEY_B, KEY_A);
    if (ptier_cache_open_with(&box.options, &box.hooks, &box.cache, &box.error))
        _exit(3);
    if (write(pipe, &first, sizeof first) != sizeof first)
        _exit(4);
    for (int number = first;; number += 4) { /* all of them stay */
        if (!put(number) || write(pipe, &number, sizeof number) != sizeof number)
            _exit(5);
        if (!r.finished && ptier_cache_rotate_step(box.cache, &r, &box.error))
            _exit(6);
    }
}

/* Returns the last number that was acknowledged. */
static int
run_and_kill(int first, int64_t ms)
{
    int ends[2], said, last = first - 4, status;
    int64_t end = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)close(ends[0]);
        rotate_and_put(ends[1], first);
    }
    (void)close(ends[1]);
    bool opened = false;
    while (read(ends[0], &said, sizeof said) == (ssize_t)sizeof said) {
        if (opened)
            last = said;
        else
            end = ptier_test_now() + ms;
        opened = true;
        if (ptier_test_now() >= end)
            (void)kill(pid, SIGKILL);
    }
    (void)close(ends[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    return last;
}

/* Opens it as the next start would. All below `next` was acknowledged; what is from there on may
 * be there or not, and is there afterwards. */
static void
check_after_kill(int first, int next)
{
    bool wrong = false;
    check_records(RECORDS);
    for (int i = first; i < next; i += 4)
        assert_true(read_back(i, &wrong));
    assert_false(wrong);
    assert_true(put(next));
}

static void
a_rotation_may_be_killed_at_any_moment(void **state)
{
    (void)state;
    const int first = 4000;
    uint64_t seed = 88172645463325252;
    FOR_ALL_TIERS(tiers)
    {
        int next = first;
        make_store(tiers, RECORDS);
        tokens of_a = tokens_of(KEY_A);
        for (int round = 0; round < 6; round++) {
            next = run_and_kill(next, (int64_t)ptier_test_random(&seed, 25)) + 4;
            open_with(KEY_B, KEY_A);
            check_after_kill(first, next);
            next += 4;
            ptier_test_box_close(&box);
        }
        open_with(KEY_B, KEY_A);
        rotate();
        ptier_test_box_close(&box);
        assert_nothing_left(KEY_A, &of_a);
        open_with(KEY_B, NULL);
        check_after_kill(first, next);
        ptier_buffer_fini(&of_a.pieces);
    }
    leave_a_box();
}

/* The process died: what it had written under the old key is still on its way to L3. */
static void
what_l3_lacks_of_the_log_is_rotated_on_its_way(void **state)
{
    (void)state;
    init(BOX_ALL);
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (ptier_cache_open_with(&box.options, &box.hooks, &box.cache, &box.error))
            _exit(3);
        for (int i = 0; i < MANY; i++)
            if (stays(i) && !put(i))
                _exit(4);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    tokens of_a = tokens_of(KEY_A);
    open_with(KEY_B, KEY_A);
    rotate();
    ptier_test_box_close(&box);
    assert_nothing_left(KEY_A, &of_a);
    ptier_buffer_fini(&of_a.pieces);
    check_and_close(KEY_B, NULL, MANY);
}

static atomic_bool held, release;

static void
hold_l3(ptier_cache *cache, void *context)
{
    (void)cache;
    (void)context;
    int64_t deadline = ptier_test_now() + 20000;
    atomic_store(&held, true);
    while (!atomic_load(&release) && ptier_test_now() < deadline)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static void *
ask_l3_to_hold(void *context)
{
    PTIER_IGNORE(ptier_on_l3_thread(box.cache, hold_l3, NULL, NULL)); /* `held` says it */
    return context;
}

/* What is on its way to L3 might have been sealed with the old key. */
static void
rows_wait_for_the_log(void **state)
{
    (void)state;
    pthread_t thread;
    ptier_rotation r = {0};
    make_store(BOX_ALL, RECORDS);
    open_with(KEY_B, KEY_A);
    atomic_store(&held, false);
    atomic_store(&release, false);
    assert_int_equal(pthread_create(&thread, NULL, ask_l3_to_hold, NULL), 0);
    int64_t deadline = ptier_test_now() + 20000;
    while (!atomic_load(&held) && ptier_test_now() < deadline)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    bool ok = put(0);
    uint64_t before = 0;
    for (int i = 0; ok && i < 10; i++)
        ok = ptier_cache_rotate_step(box.cache, &r, NULL) == PTIER_OK;
    before = r.rewritten;
    bool early = r.finished;
    atomic_store(&release, true);
    (void)pthread_join(thread, NULL);
    assert_true(ok);
    assert_false(early);
    assert_int_equal(before, 0);
    for (int i = 0; i < MAX_STEPS && !r.finished; i++)
        step(&r);
    assert_true(r.finished);
    ptier_test_box_close(&box);
    check_and_close(KEY_B, NULL, RECORDS);
}

/* ---- while it serves ---- */

typedef struct worker {
    int first, count;
    bool there[200];
    uint64_t seed;
    const char *wrong;
} worker;

enum { WORKERS = 3 };
static worker workers[WORKERS];
static pthread_t threads[WORKERS];
static int working;
static atomic_bool stop;

static const char *
work_once(worker *w)
{
    int i = (int)ptier_test_random(&w->seed, (uint64_t)w->count), number = w->first + i;
    char key[16];
    const char *keys[] = {key};
    ptier_report report = {.key = key, .outcome = PTIER_REPORT_OK, .latency_ms = 5};
    ptier_report_result result;
    bool wrong = false;
    size_t deleted;
    (void)snprintf(key, sizeof key, "p%d", number);
    switch (ptier_test_random(&w->seed, 5)) {
    case 0:
    case 1:
        w->there[i] = true;
        return put(number) ? NULL : "a put failed";
    case 2:
        if (ptier_cache_delete(box.cache, keys, 1, PTIER_DURABILITY_DEFAULT, &deleted, NULL, NULL))
            return "a delete failed";
        if ((deleted == 1) != w->there[i])
            return "a delete found something else than was put";
        w->there[i] = false;
        return NULL;
    case 3:
        report.outcome = ptier_test_random(&w->seed, 2) ? PTIER_REPORT_FAILED : PTIER_REPORT_OK;
        if (ptier_cache_report(box.cache, &report, 1, PTIER_DURABILITY_DEFAULT, &result, NULL,
                               NULL))
            return "a report failed";
        if (result.found != w->there[i])
            return "a report found something else than was put";
        w->there[i] &= !result.removed;
        return NULL;
    default:
        if (read_back(number, &wrong) != w->there[i])
            return "a get found something else than was put";
        return wrong ? "a get gave something wrong" : NULL;
    }
}

static void *
work(void *context)
{
    worker *w = context;
    while (!atomic_load(&stop) && !w->wrong)
        w->wrong = work_once(w);
    return NULL;
}

static void
start_workers(void)
{
    memset(workers, 0, sizeof workers);
    atomic_store(&stop, false);
    for (working = 0; working < WORKERS; working++) {
        worker *w = &workers[working];
        w->first = RECORDS + 1000 * working;
        w->count = 200;
        w->seed = (uint64_t)working + 7;
        assert_int_equal(pthread_create(&threads[working], NULL, work, w), 0);
    }
}

static void
stop_workers(void)
{
    atomic_store(&stop, true);
    while (working > 0)
        (void)pthread_join(threads[--working], NULL);
}

static void
check_workers(void)
{
    bool wrong = false;
    for (int t = 0; t < WORKERS; t++)
        for (int i = 0; i < workers[t].count; i++)
            assert_int_equal(read_back(workers[t].first + i, &wrong), workers[t].there[i]);
    assert_false(wrong);
}

static void
callers_notice_nothing_of_a_rotation(void **state)
{
    (void)state;
    FOR_ALL_TIERS(tiers)
    {
        make_store(tiers, RECORDS);
        tokens of_a = tokens_of(KEY_A);
        open_with(KEY_B, KEY_A);
        start_workers();
        rotate();
        rotate(); /* and a second one at once */
        stop_workers();
        for (int t = 0; t < WORKERS; t++)
            if (workers[t].wrong)
                fail_msg("%s", workers[t].wrong);
        check_workers();
        ptier_test_box_close(&box);
        assert_nothing_left(KEY_A, &of_a);
        open_with(KEY_B, NULL);
        check_workers();
        check_records(RECORDS);
        ptier_buffer_fini(&of_a.pieces);
    }
    leave_a_box();
}

/* ---- the quarantine ---- */

static ptier_put_outcome
warm(int number)
{
    static const ptier_put_options options = {.mode = PTIER_PUT_MODE_WARM};
    ptier_record record;
    char key[16], url[40];
    ptier_test_box_record(&record, number, key, url);
    return ptier_test_box_put_record(&box, &record, &options).outcome;
}

/* The file cannot be replaced while something stands where its new version is written. */
static void
the_quarantine_is_rotated_before_the_old_key_is_forgotten(void **state)
{
    (void)state;
    char block[PTIER_TEST_PATH + 20];
    init(BOX_ALL);
    box.options.failure_threshold = 1;
    ptier_test_box_open(&box);
    for (int i = 0; i < 20; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "p%d", i);
        assert_true(put(i));
        assert_true(ptier_test_box_report(&box, key, PTIER_REPORT_FAILED, 0).removed);
    }
    ptier_test_box_close(&box);
    (void)snprintf(block, sizeof block, "%s/quarantine.tmp", box.directory);
    assert_int_equal(mkdir(block, 0700), 0);
    open_with(KEY_B, KEY_A);
    ptier_rotation r = {0};
    ptier_status status = PTIER_OK;
    for (int i = 0; i < MAX_STEPS && !status && !r.finished; i++)
        status = ptier_cache_rotate_step(box.cache, &r, &box.error);
    assert_int_equal(status, PTIER_UNAVAILABLE);
    ptier_test_box_close(&box);
    assert_refused(KEY_B);
    open_with(KEY_B, KEY_A);
    assert_int_equal(rmdir(block), 0);
    rotate();
    ptier_test_box_close(&box);
    open_with(KEY_B, NULL);
    for (int i = 0; i < 20; i++)
        assert_int_equal(warm(i), PTIER_PUT_SKIPPED_QUARANTINED);
    assert_int_equal(warm(20), PTIER_PUT_CREATED);
}

static int
tear_down(void **state)
{
    (void)state;
    stop_workers();
    ptier_test_box_fini(&box);
    return 0;
}

#define FACT(function) cmocka_unit_test_teardown(function, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        FACT(after_a_rotation_the_new_key_alone_is_enough_and_the_old_one_reads_nothing),
        FACT(many_rows_are_rotated_in_steps_that_show_how_far_they_are),
        FACT(once_finished_it_survives_the_loss_of_power),
        FACT(a_rotation_may_end_with_the_cache_after_any_step),
        FACT(a_rotation_that_goes_on_after_a_restart_leaves_nothing_out),
        FACT(a_rotation_may_be_killed_at_any_moment),
        FACT(what_l3_lacks_of_the_log_is_rotated_on_its_way),
        FACT(rows_wait_for_the_log),
        FACT(callers_notice_nothing_of_a_rotation),
        FACT(the_quarantine_is_rotated_before_the_old_key_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
