#include <inttypes.h>
#include <signal.h>
#include <pthread.h>
#include <setjmp.h>
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

#include "l3/l3_internal.h"

#define KEY       "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="
#define OTHER_KEY "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

/* ---- one database and a clock that stands still ---- */

typedef struct fixture {
    char directory[64], path[96];
    int64_t wall, boot;
    ptier_clock clock;
    ptier_keyring *keyring;
    uint64_t capacity;
    ptier_tier *tier;
    ptier_error error;
} fixture;

static int64_t
wall_ms(void *context)
{
    return ((fixture *)context)->wall;
}

static int64_t
boot_ms(void *context)
{
    return ((fixture *)context)->boot;
}

static ptier_status
try_open(fixture *f)
{
    ptier_l3_options options = {
        .path = f->path, .capacity = f->capacity, .keyring = f->keyring, .clock = &f->clock};
    return ptier_l3_open(&options, &f->tier, &f->error);
}

static void
open_l3(fixture *f)
{
    if (try_open(f) != PTIER_OK)
        fail_msg("%s", f->error.message);
}

static void
close_l3(fixture *f)
{
    if (f->tier)
        f->tier->ops->close(f->tier);
    f->tier = NULL;
}

static void
reopen(fixture *f)
{
    close_l3(f);
    open_l3(f);
}

static void
use_keys(fixture *f, const char *first, const char *second)
{
    const char *keys[] = {first, second};
    ptier_keyring_destroy(f->keyring);
    assert_int_equal(ptier_keyring_create(keys, second ? 2 : 1, &f->keyring, &f->error), PTIER_OK);
}

static int
setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    strcpy(f->directory, "/tmp/ptier-l3-XXXXXX");
    assert_non_null(mkdtemp(f->directory));
    (void)snprintf(f->path, sizeof f->path, "%s/cache.db", f->directory);
    f->wall = 1700000000000;
    f->boot = 5000000;
    f->clock = (ptier_clock){.wall_ms = wall_ms, .boot_ms = boot_ms, .boot_tag = 77, .context = f};
    use_keys(f, KEY, NULL);
    open_l3(f);
    *state = f;
    return 0;
}

static int
teardown(void **state)
{
    fixture *f = *state;
    close_l3(f);
    ptier_keyring_destroy(f->keyring);
    char name[128];
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    for (int i = 0; i < 3; i++) {
        (void)snprintf(name, sizeof name, "%s%s", f->path, suffixes[i]);
        (void)unlink(name); /* may not exist */
    }
    int result = rmdir(f->directory); /* fails when anything else was left behind */
    free(f);
    return result;
}

/* ---- records ---- */

static ptier_sealed *
seal(fixture *f, const char *username, const char *password)
{
    size_t u = username ? PTIER_TOKEN_LENGTH(strlen(username)) : 0;
    size_t p = password ? PTIER_TOKEN_LENGTH(strlen(password)) : 0;
    ptier_sealed *sealed = calloc(1, sizeof *sealed + u + p + 2);
    sealed->username_bytes = (uint32_t)u;
    sealed->password_bytes = (uint32_t)p;
    if (username)
        assert_int_equal(ptier_keyring_seal(f->keyring, username, strlen(username), sealed->tokens),
                         PTIER_OK);
    if (password)
        assert_int_equal(ptier_keyring_seal(f->keyring, password, strlen(password),
                                            sealed->tokens + (u ? u + 1 : 0)),
                         PTIER_OK);
    return sealed;
}

static ptier_op
put_op(fixture *f, const char *key, uint64_t hash, uint64_t revision)
{
    static const ptier_label labels[] = {{"anonymity", "elite"}, {"country", ""}};
    char url[64];
    (void)snprintf(url, sizeof url, "http://10.0.0.1:%u", (unsigned)(revision % 60000 + 1));
    ptier_record record;
    ptier_record_init(&record);
    record.key = key;
    record.url = url;
    record.username = "user";
    record.password = "pass word";
    record.source = "list-a";
    record.fetch_time_ms = 1699999999123;
    record.ttl_ms = 60000;
    record.health = PTIER_HEALTH_DEGRADED;
    record.failure_count = 2;
    record.needs_revalidation = true;
    record.labels = labels;
    record.label_count = 2;
    record.revision = revision;
    return (ptier_op){
        .kind = PTIER_OP_PUT,
        .revision = revision,
        .entry = ptier_entry_create(&record, hash, f->wall + 60000, f->boot + 60000),
        .sealed = seal(f, record.username, record.password),
    };
}

static ptier_op
remove_op(fixture *f, const char *key, uint64_t hash, uint64_t revision)
{
    ptier_op op = put_op(f, key, hash, revision);
    op.kind = PTIER_OP_REMOVE;
    return op;
}

static ptier_op
clear_op(uint64_t revision)
{
    return (ptier_op){.kind = PTIER_OP_CLEAR, .revision = revision};
}

/* Applies and frees. */
static ptier_status
try_apply(fixture *f, ptier_op *ops, size_t count, bool sync)
{
    ptier_status status = f->tier->ops->apply(f->tier, ops, count, sync, &f->error);
    for (size_t i = 0; i < count; i++) {
        ptier_entry_release(ops[i].entry);
        free(ops[i].sealed);
    }
    return status;
}

static void
apply(fixture *f, ptier_op *ops, size_t count)
{
    if (try_apply(f, ops, count, false) != PTIER_OK)
        fail_msg("%s", f->error.message);
}

static void
apply_one(fixture *f, ptier_op op)
{
    apply(f, &op, 1);
}

/* The revision that is stored under the key; 0: none. */
static uint64_t
stored(fixture *f, const char *key, uint64_t hash)
{
    ptier_ref ref = {.hash = hash, .key = key};
    ptier_entry *entry;
    ptier_status status = f->tier->ops->get(f->tier, &ref, &entry);
    if (status == PTIER_NOT_FOUND)
        return 0;
    assert_int_equal(status, PTIER_OK);
    uint64_t revision = entry->revision;
    assert_string_equal(ptier_entry_key(entry), key);
    ptier_entry_release(entry);
    return revision;
}

static ptier_status
get_status(fixture *f, const char *key, uint64_t hash, uint64_t revision)
{
    ptier_ref ref = {.hash = hash, .revision = revision, .key = key};
    ptier_entry *entry;
    ptier_status status = f->tier->ops->get(f->tier, &ref, &entry);
    ptier_entry_release(entry);
    return status;
}

static uint64_t
count(fixture *f)
{
    return f->tier->ops->count(f->tier);
}

/* Changes the file behind L3's back. */
static void
meddle(fixture *f, const char *sql)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
    (void)sqlite3_busy_timeout(db, 5000);
    char *message = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s: %s", sql, message);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* ---- records come back ---- */

static void
assert_as_put(fixture *f, const ptier_entry *entry, uint64_t revision)
{
    ptier_record record;
    ptier_label labels[PTIER_LABELS_MAX];
    char url[64];
    (void)snprintf(url, sizeof url, "http://10.0.0.1:%u", (unsigned)(revision % 60000 + 1));
    ptier_entry_view(entry, f->boot, &record, labels);
    assert_string_equal(record.url, url);
    assert_string_equal(record.username, "user");
    assert_string_equal(record.password, "pass word");
    assert_string_equal(record.source, "list-a");
    assert_int_equal(record.revision, revision);
    assert_int_equal(record.fetch_time_ms, 1699999999123);
    assert_int_equal(record.ttl_ms, 60000);
    assert_int_equal(record.health, PTIER_HEALTH_DEGRADED);
    assert_int_equal(record.failure_count, 2);
    assert_true(record.needs_revalidation);
    assert_int_equal(record.label_count, 2);
    assert_string_equal(labels[0].name, "anonymity");
    assert_string_equal(labels[0].value, "elite");
    assert_string_equal(labels[1].name, "country");
    assert_string_equal(labels[1].value, "");
}

static void
l3_gives_back_every_field_after_reopening(void **state)
{
    fixture *f = *state;
    ptier_op op = put_op(f, "key-1", UINT64_MAX, 5);
    atomic_store(&op.entry->last_access_ms, 123456);
    atomic_store(&op.entry->access_count, 7);
    atomic_store(&op.entry->latency_us, 12500);
    atomic_store(&op.entry->success_count, 3);
    atomic_store(&op.entry->report_count, 4);
    apply_one(f, op);
    reopen(f);
    ptier_ref ref = {.hash = UINT64_MAX, .revision = 5, .key = "key-1"};
    ptier_entry *entry;
    assert_int_equal(f->tier->ops->get(f->tier, &ref, &entry), PTIER_OK);
    assert_as_put(f, entry, 5);
    assert_int_equal(entry->hash, UINT64_MAX);
    assert_int_equal(entry->expires_wall_ms, f->wall + 60000);
    assert_int_equal(entry->expires_boot_ms, f->boot + 60000);
    assert_int_equal(atomic_load(&entry->last_access_ms), 123456);
    assert_int_equal(atomic_load(&entry->access_count), 7);
    assert_true(atomic_load(&entry->latency_us) == 12500);
    assert_int_equal(atomic_load(&entry->success_count), 3);
    assert_int_equal(atomic_load(&entry->report_count), 4);
    ptier_entry_release(entry);
    assert_int_equal(count(f), 1);
    assert_true(f->tier->ops->bytes(f->tier) > 0);
}

static void
l3_keeps_a_record_without_credentials_labels_source_or_expiry(void **state)
{
    fixture *f = *state;
    ptier_record record;
    ptier_record_init(&record);
    record.key = "bare";
    record.url = "socks5://[::1]:1080";
    record.ttl_ms = 0;
    record.health = PTIER_HEALTH_UNKNOWN;
    record.failure_count = 0;
    record.revision = 1;
    apply_one(f, (ptier_op){.kind = PTIER_OP_PUT,
                            .revision = 1,
                            .entry = ptier_entry_create(&record, 9, 0, PTIER_NEVER)});
    f->clock.boot_tag = 78; /* never stays never in another run of the kernel */
    reopen(f);
    ptier_ref ref = {.hash = 9};
    ptier_entry *entry;
    assert_int_equal(f->tier->ops->get(f->tier, &ref, &entry), PTIER_OK);
    assert_null(ptier_entry_username(entry));
    assert_null(ptier_entry_password(entry));
    assert_string_equal(ptier_entry_source(entry), "");
    assert_int_equal(entry->label_count, 0);
    assert_true(entry->expires_boot_ms == PTIER_NEVER);
    ptier_entry_release(entry);
}

static void
l3_get_ignores_stale_revision(void **state)
{
    fixture *f = *state;
    apply_one(f, put_op(f, "key", 1, 5));
    apply_one(f, put_op(f, "key", 1, 6));
    assert_int_equal(get_status(f, "key", 1, 5), PTIER_NOT_FOUND);
    assert_int_equal(get_status(f, "key", 1, 6), PTIER_OK);
    assert_int_equal(get_status(f, NULL, 1, 6), PTIER_OK);
    assert_int_equal(get_status(f, "key", 1, 0), PTIER_OK);
    assert_int_equal(get_status(f, "key", 2, 0), PTIER_NOT_FOUND);
    assert_int_equal(count(f), 1);
}

static void
l3_tells_keys_of_one_hash_apart(void **state)
{
    fixture *f = *state;
    ptier_op ops[] = {put_op(f, "a", 1, 1), put_op(f, "b", 1, 2), put_op(f, "c", 1, 3)};
    apply(f, ops, 3);
    assert_int_equal(stored(f, "a", 1), 1);
    assert_int_equal(stored(f, "b", 1), 2);
    assert_int_equal(stored(f, "c", 1), 3);
    apply_one(f, put_op(f, "b", 1, 4));
    apply_one(f, remove_op(f, "a", 1, 5));
    assert_int_equal(stored(f, "a", 1), 0);
    assert_int_equal(stored(f, "b", 1), 4);
    assert_int_equal(stored(f, "c", 1), 3);
    assert_int_equal(get_status(f, "d", 1, 0), PTIER_NOT_FOUND);
    assert_int_equal(count(f), 2);
}

static void
l3_tells_many_sources_apart(void **state)
{
    fixture *f = *state;
    enum { many = 3 * PTIER_L3_SOURCES };
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < many; i++) {
            ptier_op op = put_op(f, "key", i, 1 + i + round * many);
            char name[PTIER_SOURCE_MAX + 1];
            (void)snprintf(name, sizeof name, "source %u", i);
            ptier_record record;
            ptier_label labels[PTIER_LABELS_MAX];
            ptier_entry_view(op.entry, 0, &record, labels);
            record.source = name;
            ptier_entry *entry = ptier_entry_create(&record, i, f->wall + 1, f->boot + 1);
            ptier_entry_release(op.entry);
            op.entry = entry;
            apply_one(f, op);
        }
    }
    for (unsigned i = 0; i < many; i++) {
        ptier_ref ref = {.hash = i};
        ptier_entry *entry;
        char name[PTIER_SOURCE_MAX + 1];
        (void)snprintf(name, sizeof name, "source %u", i);
        assert_int_equal(f->tier->ops->get(f->tier, &ref, &entry), PTIER_OK);
        assert_string_equal(ptier_entry_source(entry), name);
        ptier_entry_release(entry);
    }
}

/* ---- changes ---- */

static void
l3_applying_the_same_changes_again_changes_nothing(void **state)
{
    fixture *f = *state;
    for (int round = 0; round < 3; round++) {
        ptier_op ops[] = {put_op(f, "a", 1, 1), put_op(f, "b", 2, 2), put_op(f, "a", 1, 3),
                          remove_op(f, "b", 2, 4), put_op(f, "c", 3, 5)};
        apply(f, ops, 5);
        assert_int_equal(stored(f, "a", 1), 3);
        assert_int_equal(stored(f, "b", 2), 0);
        assert_int_equal(stored(f, "c", 3), 5);
        assert_int_equal(count(f), 2);
        assert_int_equal(ptier_l3_prefix(f->tier), 5);
    }
}

static void
l3_never_goes_back_to_an_older_revision(void **state)
{
    fixture *f = *state;
    apply_one(f, put_op(f, "a", 1, 8));
    apply_one(f, put_op(f, "a", 1, 7));
    apply_one(f, remove_op(f, "a", 1, 6));
    assert_int_equal(stored(f, "a", 1), 8);
    assert_int_equal(ptier_l3_prefix(f->tier), 8);
}

static void
l3_clear_takes_what_is_older_and_nothing_else(void **state)
{
    fixture *f = *state;
    ptier_op ops[] = {put_op(f, "a", 1, 1), put_op(f, "b", 2, 2), clear_op(3), put_op(f, "b", 2, 4),
                      put_op(f, "c", 3, 5)};
    apply_one(f, put_op(f, "z", 26, 1));
    apply(f, ops, 5);
    assert_int_equal(count(f), 2);
    assert_int_equal(stored(f, "z", 26), 0);
    assert_int_equal(stored(f, "b", 2), 4);
    apply_one(f, clear_op(3)); /* once more, late */
    assert_int_equal(count(f), 2);
    apply_one(f, clear_op(5));
    assert_int_equal(count(f), 1);
    assert_int_equal(stored(f, "c", 3), 5);
    apply_one(f, clear_op(6));
    assert_int_equal(count(f), 0);
    reopen(f);
    assert_int_equal(count(f), 0);
    assert_int_equal(ptier_l3_prefix(f->tier), 6);
}

static void
l3_prefix_is_there_after_reopening_and_synced_only_when_it_is(void **state)
{
    fixture *f = *state;
    apply_one(f, put_op(f, "a", 1, 10));
    assert_int_equal(ptier_l3_prefix(f->tier), 10);
    assert_int_equal(ptier_l3_synced_prefix(f->tier), 0);
    ptier_op op = put_op(f, "b", 2, 11);
    assert_int_equal(try_apply(f, &op, 1, true), PTIER_OK);
    assert_int_equal(ptier_l3_synced_prefix(f->tier), 11);
    apply_one(f, put_op(f, "c", 3, 12));
    assert_int_equal(ptier_l3_synced_prefix(f->tier), 11);
    assert_int_equal(try_apply(f, NULL, 0, true), PTIER_OK);
    assert_int_equal(ptier_l3_synced_prefix(f->tier), 12);
    apply_one(f, put_op(f, "d", 4, 13));
    assert_int_equal(ptier_l3_checkpoint(f->tier, false, &f->error), PTIER_OK); /* small: no work */
    assert_int_equal(ptier_l3_synced_prefix(f->tier), 12);
    assert_int_equal(ptier_l3_checkpoint(f->tier, true, &f->error), PTIER_OK);
    assert_int_equal(ptier_l3_synced_prefix(f->tier), 13);
    reopen(f);
    assert_int_equal(ptier_l3_prefix(f->tier), 13);
    assert_int_equal(count(f), 4);
}

static void
l3_applied_changes_survive_a_kill(void **state)
{
    fixture *f = *state;
    close_l3(f);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        open_l3(f);
        ptier_op ops[] = {put_op(f, "a", 1, 1), put_op(f, "b", 2, 2)};
        apply(f, ops, 2);
        (void)kill(getpid(), SIGKILL); /* cannot fail */
    }
    int result;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFSIGNALED(result));
    open_l3(f);
    assert_int_equal(ptier_l3_prefix(f->tier), 2);
    assert_int_equal(stored(f, "a", 1), 1);
    assert_int_equal(stored(f, "b", 2), 2);
}

static void
l3_full_disk_undoes_the_whole_batch(void **state)
{
    fixture *f = *state;
    ptier_op first = put_op(f, "first", 999999, 1);
    strcpy(first.entry->text + first.entry->source_at, "list"); /* "list-a" is new to the batch */
    apply_one(f, first);
    sqlite3 *writer = ptier_l3_of(f->tier)->writer.db;
    assert_int_equal(sqlite3_exec(writer, "PRAGMA max_page_count=30", NULL, NULL, NULL), SQLITE_OK);
    enum { many = 2000 };
    ptier_op *ops = calloc(many, sizeof *ops);
    for (unsigned i = 0; i < many; i++)
        ops[i] = put_op(f, "key", i, 2 + i);
    assert_int_equal(try_apply(f, ops, many, false), PTIER_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(f->error.message, f->path));
    assert_int_equal(count(f), 1);
    assert_int_equal(ptier_l3_prefix(f->tier), 1);
    assert_int_equal(get_status(f, "key", 0, 0), PTIER_NOT_FOUND);
    assert_int_equal(sqlite3_exec(writer, "PRAGMA max_page_count=100000", NULL, NULL, NULL),
                     SQLITE_OK);
    apply_one(f, put_op(f, "key", 0, 2)); /* and goes on, sources included, when there is room */
    assert_int_equal(stored(f, "key", 0), 2);
    assert_int_equal(count(f), 2);
    free(ops);
}

/* ---- usage, eviction, scan ---- */

static void
l3_usage_is_written_back_and_follows_the_record(void **state)
{
    fixture *f = *state;
    apply_one(f, put_op(f, "a", 1, 1));
    ptier_usage usage[] = {
        {.hash = 1, .key = "a", .last_access_ms = 5, .access_count = 6, .latency_us = 1500},
        {.hash = 1, .key = "gone", .last_access_ms = 7},
        {.hash = 2, .key = "a", .last_access_ms = 7}};
    assert_int_equal(f->tier->ops->write_usage(f->tier, usage, 3, &f->error), PTIER_OK);
    ptier_ref ref = {.hash = 1, .key = "a"};
    ptier_entry *entry;
    assert_int_equal(f->tier->ops->get(f->tier, &ref, &entry), PTIER_OK);
    assert_int_equal(atomic_load(&entry->last_access_ms), 5);
    assert_int_equal(atomic_load(&entry->access_count), 6);
    ptier_entry_release(entry);
    assert_int_equal(count(f), 1);

    /* A row that is removed and made again starts from nothing, though it may get the same rowid.
     */
    apply_one(f, remove_op(f, "a", 1, 2));
    apply_one(f, put_op(f, "a", 1, 3));
    assert_int_equal(f->tier->ops->get(f->tier, &ref, &entry), PTIER_OK);
    assert_int_equal(atomic_load(&entry->last_access_ms), 0);
    ptier_entry_release(entry);
}

static void
l3_evicts_one_of_the_least_recently_used_down_to_its_bound(void **state)
{
    fixture *f = *state;
    close_l3(f);
    f->capacity = 20;
    open_l3(f);
    uint64_t hash, revision;
    for (unsigned i = 1; i <= 20; i++)
        apply_one(f, put_op(f, "key", i, i));
    assert_int_equal(f->tier->ops->victim(f->tier, &hash, &revision), PTIER_NOT_FOUND);
    ptier_usage used[24];
    for (unsigned i = 0; i < 24; i++) /* 21 to 24 were never used */
        used[i] = (ptier_usage){.hash = i + 1, .key = "key", .last_access_ms = f->wall + 1000 + i};
    for (unsigned i = 21; i <= 24; i++)
        apply_one(f, put_op(f, "key", i, i));
    assert_int_equal(f->tier->ops->write_usage(f->tier, used, 20, &f->error), PTIER_OK);
    for (unsigned left = 24; left > 20; left--) {
        uint64_t again, again_revision;
        assert_int_equal(f->tier->ops->victim(f->tier, &hash, &revision), PTIER_OK);
        assert_int_equal(f->tier->ops->victim(f->tier, &again, &again_revision), PTIER_OK);
        assert_int_equal(hash, again);
        assert_int_equal(revision, again_revision);
        f->tier->ops->drop(f->tier, hash, revision);
        assert_int_equal(count(f), left - 1);
        assert_int_equal(get_status(f, "key", hash, revision), PTIER_NOT_FOUND);
    }
    assert_int_equal(f->tier->ops->victim(f->tier, &hash, &revision), PTIER_NOT_FOUND);
    /* Of 20 used ones the newest five are never the oldest of 16 samples, or nearly so. */
    for (unsigned i = 16; i <= 20; i++)
        assert_int_equal(stored(f, "key", i), i);
}

static void
l3_victim_that_is_touched_is_spared(void **state)
{
    fixture *f = *state;
    close_l3(f);
    f->capacity = 1;
    open_l3(f);
    apply_one(f, put_op(f, "a", 1, 1));
    apply_one(f, put_op(f, "b", 2, 2));
    uint64_t hash, revision, other, other_revision;
    assert_int_equal(f->tier->ops->victim(f->tier, &hash, &revision), PTIER_OK);
    ptier_ref ref = {.hash = hash, .key = hash == 1 ? "a" : "b"};
    f->tier->ops->touch(f->tier, &ref);
    assert_int_equal(f->tier->ops->victim(f->tier, &other, &other_revision), PTIER_OK);
    assert_int_not_equal(hash, other);
}

typedef struct seen {
    uint64_t hashes, revisions;
    int count, stop_after;
    int64_t expires;
} seen;

static bool
on_item(void *context, const ptier_scan_item *item)
{
    seen *s = context;
    s->hashes += item->hash;
    s->revisions += item->revision;
    s->expires = item->expires_boot_ms;
    s->count++;
    assert_string_equal(item->source, "list-a");
    assert_memory_equal(item->url, "http://10.0.0.1:", 16);
    assert_int_equal(item->health, PTIER_HEALTH_DEGRADED);
    return s->count != s->stop_after;
}

static void
l3_scan_shows_every_record_once_and_stops_when_told(void **state)
{
    fixture *f = *state;
    for (unsigned i = 1; i <= 50; i++)
        apply_one(f, put_op(f, "key", i, 100 + i));
    seen all = {0}, some = {.stop_after = 10};
    assert_int_equal(f->tier->ops->scan(f->tier, on_item, &all, &f->error), PTIER_OK);
    assert_int_equal(all.count, 50);
    assert_int_equal(all.hashes, 50 * 51 / 2);
    assert_int_equal(all.revisions, 5000 + 50 * 51 / 2);
    assert_int_equal(all.expires, f->boot + 60000);
    assert_int_equal(f->tier->ops->scan(f->tier, on_item, &some, &f->error), PTIER_OK);
    assert_int_equal(some.count, 10);
    meddle(f, "UPDATE entries SET health = 99 WHERE key64 = 3");
    all = (seen){0};
    assert_int_equal(f->tier->ops->scan(f->tier, on_item, &all, &f->error), PTIER_OK);
    assert_int_equal(all.count, 49);
    assert_int_equal(ptier_l3_damaged(f->tier), 1);
}

/* ---- clocks ---- */

static int64_t
expiry(fixture *f)
{
    ptier_ref ref = {.hash = 1};
    ptier_entry *entry;
    assert_int_equal(f->tier->ops->get(f->tier, &ref, &entry), PTIER_OK);
    int64_t boot = entry->expires_boot_ms;
    ptier_entry_release(entry);
    return boot;
}

static void
l3_expiry_ignores_steps_of_the_wall_clock_until_a_reboot(void **state)
{
    fixture *f = *state;
    int64_t expires = f->boot + 60000;
    apply_one(f, put_op(f, "a", 1, 1));
    f->wall += 3600000; /* stepped; 10 s went by */
    f->boot += 10000;
    reopen(f);
    assert_int_equal(expiry(f), expires);
    f->wall -= 3600000 - 20000; /* right again, 20 s after the put */
    f->boot = 3000;             /* and rebooted */
    f->clock.boot_tag = 78;
    reopen(f);
    assert_int_equal(expiry(f), 3000 + 40000);
}

/* ---- damage, keys, strangers ---- */

static void
l3_any_changed_field_is_data_loss_and_never_a_wrong_value(void **state)
{
    fixture *f = *state;
    static const char *const changes[] = {
        "revision = revision + 1",
        "expires_wall = expires_wall + 1",
        "expires_boot = expires_boot + 1",
        "boot_tag = boot_tag + 1",
        "health = 1",
        "revalidate = 0",
        "failures = 0",
        "source = 99",
        "source = (SELECT id FROM sources WHERE name = 'list-b')",
        "fetch_time = 1",
        "ttl = 1",
        "integrity = x'0011223344556677'",
        "integrity = x''",
        "key = 'other'",
        "key64 = 2",
        "url = 'http://10.0.0.1:3'",
        "username = password, password = username",
        "username = NULL",
        "labels = x'6100'",
        "labels = NULL",
    };
    meddle(f, "INSERT INTO sources(name) VALUES('list-b')");
    for (unsigned i = 0; i < sizeof changes / sizeof *changes; i++) {
        char sql[256];
        apply_one(f, put_op(f, "key", 1, 2 * i + 1));
        assert_int_equal(get_status(f, "key", 1, 2 * i + 1), PTIER_OK);
        uint64_t damaged = ptier_l3_damaged(f->tier);
        (void)snprintf(sql, sizeof sql, "UPDATE entries SET %s", changes[i]);
        meddle(f, sql);
        uint64_t hash = strncmp(changes[i], "key64", 5) == 0 ? 2 : 1;
        assert_int_equal(get_status(f, "key", hash, 2 * i + 1), PTIER_DATA_LOSS);
        assert_int_equal(ptier_l3_damaged(f->tier), damaged + 1);
        meddle(f, "DELETE FROM entries");
    }
}

static void
l3_changed_usage_counts_as_none_and_keeps_the_record(void **state)
{
    fixture *f = *state;
    apply_one(f, put_op(f, "a", 1, 1));
    ptier_usage usage = {.hash = 1, .key = "a", .last_access_ms = 5, .access_count = 6};
    assert_int_equal(f->tier->ops->write_usage(f->tier, &usage, 1, &f->error), PTIER_OK);
    meddle(f, "UPDATE usage SET accesses = 1000000");
    ptier_ref ref = {.hash = 1};
    ptier_entry *entry;
    assert_int_equal(f->tier->ops->get(f->tier, &ref, &entry), PTIER_OK);
    assert_int_equal(atomic_load(&entry->access_count), 0);
    assert_int_equal(ptier_l3_damaged(f->tier), 1);
    ptier_entry_release(entry);
}

static uint64_t
random_below(uint64_t *seed, uint64_t bound)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (*seed >> 33) % bound;
}

static void
flip(const char *path, long at, int bit)
{
    FILE *file = fopen(path, "r+e");
    assert_non_null(file);
    assert_int_equal(fseek(file, at, SEEK_SET), 0);
    int byte = fgetc(file);
    assert_int_equal(fseek(file, at, SEEK_SET), 0);
    assert_int_not_equal(fputc(byte ^ 1 << bit, file), EOF);
    assert_int_equal(fclose(file), 0);
}

static void
l3_flipped_bits_in_the_file_never_give_a_wrong_value(void **state)
{
    fixture *f = *state;
    enum { records = 40 };
    char key[16];
    for (unsigned i = 1; i <= records; i++) {
        (void)snprintf(key, sizeof key, "key-%u", i);
        apply_one(f, put_op(f, key, i * UINT64_C(0x9e3779b97f4a7c15), i));
    }
    close_l3(f);
    struct stat info;
    assert_int_equal(stat(f->path, &info), 0);
    uint64_t seed = 42;
    unsigned lost = 0;
    for (int round = 0; round < 300; round++) {
        long at = (long)random_below(&seed, (uint64_t)info.st_size);
        int bit = (int)random_below(&seed, 8);
        flip(f->path, at, bit);
        if (try_open(f) == PTIER_OK) {
            for (unsigned i = 1; i <= records; i++) {
                (void)snprintf(key, sizeof key, "key-%u", i);
                ptier_ref ref = {
                    .hash = i * UINT64_C(0x9e3779b97f4a7c15), .revision = i, .key = key};
                ptier_entry *entry;
                ptier_status status = f->tier->ops->get(f->tier, &ref, &entry);
                if (status == PTIER_OK)
                    assert_as_put(f, entry, i);
                lost += status != PTIER_OK;
                ptier_entry_release(entry);
            }
            close_l3(f);
        } else {
            lost++;
        }
        flip(f->path, at, bit);
    }
    assert_true(lost > 0); /* it did hit something */
    open_l3(f);
    assert_int_equal(count(f), records);
}

static void
l3_refuses_a_key_that_is_not_the_files(void **state)
{
    fixture *f = *state;
    apply_one(f, put_op(f, "a", 1, 1));
    close_l3(f);
    use_keys(f, OTHER_KEY, NULL);
    assert_int_equal(try_open(f), PTIER_FAILED_PRECONDITION);
    assert_non_null(strstr(f->error.message, "key"));
    f->tier = NULL;
    use_keys(f, OTHER_KEY, KEY); /* rotated: the old one still reads */
    open_l3(f);
    assert_int_equal(stored(f, "a", 1), 1);
    apply_one(f, put_op(f, "b", 2, 2));
    close_l3(f);
    use_keys(f, OTHER_KEY, NULL); /* the old one given up too early: seen record by record */
    open_l3(f);
    assert_int_equal(stored(f, "b", 2), 2);
    assert_int_equal(get_status(f, "a", 1, 1), PTIER_DATA_LOSS);
}

static void
l3_refuses_a_newer_schema_and_leaves_it_alone(void **state)
{
    fixture *f = *state;
    apply_one(f, put_op(f, "a", 1, 1));
    close_l3(f);
    meddle(f, "PRAGMA user_version = 2");
    assert_int_equal(try_open(f), PTIER_FAILED_PRECONDITION);
    assert_non_null(strstr(f->error.message, "newer"));
    meddle(f, "PRAGMA user_version = 1");
    open_l3(f);
    assert_int_equal(stored(f, "a", 1), 1);
}

static void
l3_refuses_a_file_that_is_not_its_own(void **state)
{
    fixture *f = *state;
    close_l3(f);
    assert_int_equal(unlink(f->path), 0);
    meddle(f, "CREATE TABLE t(x)");
    assert_int_equal(try_open(f), PTIER_FAILED_PRECONDITION);
    assert_int_equal(unlink(f->path), 0);
    FILE *file = fopen(f->path, "we");
    for (int i = 0; i < 5000; i++)
        fputs("not a database ", file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(try_open(f), PTIER_DATA_LOSS);
    assert_non_null(strstr(f->error.message, f->path));
    assert_int_equal(unlink(f->path), 0);
    char path[96];
    strcpy(path, f->path);
    strcpy(f->path, "/nonexistent/cache.db");
    assert_int_not_equal(try_open(f), PTIER_OK);
    assert_non_null(strstr(f->error.message, "/nonexistent"));
    strcpy(f->path, path);
}

static void
l3_files_are_private(void **state)
{
    fixture *f = *state;
    close_l3(f);
    assert_int_equal(unlink(f->path), 0);
    mode_t before = umask(0);
    open_l3(f);
    apply_one(f, put_op(f, "a", 1, 1));
    umask(before);
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    for (int i = 0; i < 3; i++) {
        char name[128];
        struct stat info;
        (void)snprintf(name, sizeof name, "%s%s", f->path, suffixes[i]);
        assert_int_equal(stat(name, &info), 0);
        assert_int_equal(info.st_mode & 0777, 0600);
    }
}

/* ---- threads ---- */

typedef struct reading {
    fixture *f;
    _Atomic bool stop;
} reading;

static void *
read_all(void *context)
{
    reading *r = context;
    uintptr_t wrong = 0;
    for (unsigned i = 0; !atomic_load(&r->stop); i++) {
        ptier_ref ref = {.hash = i % 50 + 1, .key = "key"};
        ptier_entry *entry;
        ptier_status status = r->f->tier->ops->get(r->f->tier, &ref, &entry);
        wrong += status != PTIER_OK || entry->revision % 50 != i % 50;
        ptier_entry_release(entry);
    }
    return (void *)wrong;
}

static void
l3_readers_see_whole_records_while_they_are_written(void **state)
{
    fixture *f = *state;
    reading r = {.f = f};
    ptier_op ops[50];
    for (unsigned i = 0; i < 50; i++)
        ops[i] = put_op(f, "key", i + 1, 50 + i);
    apply(f, ops, 50);
    pthread_t threads[6]; /* more than there are connections */
    for (int i = 0; i < 6; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_all, &r), 0);
    for (unsigned round = 2; round < 60; round++) {
        for (unsigned i = 0; i < 50; i++)
            ops[i] = put_op(f, "key", i + 1, 50 * round + i);
        apply(f, ops, 50);
        if (round % 10 == 0)
            assert_int_equal(ptier_l3_checkpoint(f->tier, true, &f->error), PTIER_OK);
    }
    atomic_store(&r.stop, true);
    for (int i = 0; i < 6; i++) {
        void *wrong;
        assert_int_equal(pthread_join(threads[i], &wrong), 0);
        assert_null(wrong);
    }
}

#define FACT(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        FACT(l3_gives_back_every_field_after_reopening),
        FACT(l3_keeps_a_record_without_credentials_labels_source_or_expiry),
        FACT(l3_get_ignores_stale_revision),
        FACT(l3_tells_keys_of_one_hash_apart),
        FACT(l3_tells_many_sources_apart),
        FACT(l3_applying_the_same_changes_again_changes_nothing),
        FACT(l3_never_goes_back_to_an_older_revision),
        FACT(l3_clear_takes_what_is_older_and_nothing_else),
        FACT(l3_prefix_is_there_after_reopening_and_synced_only_when_it_is),
        FACT(l3_applied_changes_survive_a_kill),
        FACT(l3_full_disk_undoes_the_whole_batch),
        FACT(l3_usage_is_written_back_and_follows_the_record),
        FACT(l3_evicts_one_of_the_least_recently_used_down_to_its_bound),
        FACT(l3_victim_that_is_touched_is_spared),
        FACT(l3_scan_shows_every_record_once_and_stops_when_told),
        FACT(l3_expiry_ignores_steps_of_the_wall_clock_until_a_reboot),
        FACT(l3_any_changed_field_is_data_loss_and_never_a_wrong_value),
        FACT(l3_changed_usage_counts_as_none_and_keeps_the_record),
        FACT(l3_flipped_bits_in_the_file_never_give_a_wrong_value),
        FACT(l3_refuses_a_key_that_is_not_the_files),
        FACT(l3_refuses_a_newer_schema_and_leaves_it_alone),
        FACT(l3_refuses_a_file_that_is_not_its_own),
        FACT(l3_files_are_private),
        FACT(l3_readers_see_whole_records_while_they_are_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
