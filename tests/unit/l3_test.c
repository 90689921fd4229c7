/* L3 as a tier: what it keeps, changes, evicts, shows. */
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

#include "unit/l3_box.h"

/* ---- records come back ---- */

static void
l3_gives_back_every_field_after_reopening(void **state)
{
    l3_box *f = *state;
    ptier_op op = box_put_op(f, "key-1", UINT64_MAX, 5);
    atomic_store(&op.entry->last_access_ms, 123456);
    atomic_store(&op.entry->access_count, 7);
    atomic_store(&op.entry->latency_us, 12500);
    atomic_store(&op.entry->success_count, 3);
    atomic_store(&op.entry->report_count, 4);
    box_apply_one(f, op);
    box_reopen(f);
    ptier_ref ref = {.hash = UINT64_MAX, .revision = 5, .key = "key-1"};
    ptier_entry *entry;
    assert_int_equal(f->tier->ops->get(f->tier, &ref, &entry), PTIER_OK);
    box_assert_as_put(f, entry, 5);
    assert_int_equal(entry->hash, UINT64_MAX);
    assert_int_equal(entry->expires_wall_ms, f->wall + 60000);
    assert_int_equal(entry->expires_boot_ms, f->boot + 60000);
    assert_int_equal(atomic_load(&entry->last_access_ms), 123456);
    assert_int_equal(atomic_load(&entry->access_count), 7);
    assert_true(atomic_load(&entry->latency_us) == 12500);
    assert_int_equal(atomic_load(&entry->success_count), 3);
    assert_int_equal(atomic_load(&entry->report_count), 4);
    ptier_entry_release(entry);
    assert_int_equal(box_count(f), 1);
    assert_true(f->tier->ops->bytes(f->tier) > 0);
}

static void
l3_keeps_a_record_without_credentials_labels_source_or_expiry(void **state)
{
    l3_box *f = *state;
    ptier_record record;
    ptier_record_init(&record);
    record.key = "bare";
    record.url = "socks5://[::1]:1080";
    record.ttl_ms = 0;
    record.health = PTIER_HEALTH_UNKNOWN;
    record.failure_count = 0;
    record.revision = 1;
    box_apply_one(f, (ptier_op){.kind = PTIER_OP_PUT,
                                .revision = 1,
                                .entry = ptier_entry_create(&record, 9, 0, PTIER_NEVER)});
    f->clock.boot_tag = 78; /* never stays never in another run of the kernel */
    box_reopen(f);
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
    l3_box *f = *state;
    box_apply_one(f, box_put_op(f, "key", 1, 5));
    box_apply_one(f, box_put_op(f, "key", 1, 6));
    assert_int_equal(box_get_status(f, "key", 1, 5), PTIER_NOT_FOUND);
    assert_int_equal(box_get_status(f, "key", 1, 6), PTIER_OK);
    assert_int_equal(box_get_status(f, NULL, 1, 6), PTIER_OK);
    assert_int_equal(box_get_status(f, "key", 1, 0), PTIER_OK);
    assert_int_equal(box_get_status(f, "key", 2, 0), PTIER_NOT_FOUND);
    assert_int_equal(box_count(f), 1);
}

static void
l3_tells_keys_of_one_hash_apart(void **state)
{
    l3_box *f = *state;
    ptier_op ops[] = {box_put_op(f, "a", 1, 1), box_put_op(f, "b", 1, 2), box_put_op(f, "c", 1, 3)};
    box_apply(f, ops, 3);
    assert_int_equal(box_stored(f, "a", 1), 1);
    assert_int_equal(box_stored(f, "b", 1), 2);
    assert_int_equal(box_stored(f, "c", 1), 3);
    box_apply_one(f, box_put_op(f, "b", 1, 4));
    box_apply_one(f, box_remove_op(f, "a", 1, 5));
    assert_int_equal(box_stored(f, "a", 1), 0);
    assert_int_equal(box_stored(f, "b", 1), 4);
    assert_int_equal(box_stored(f, "c", 1), 3);
    assert_int_equal(box_get_status(f, "d", 1, 0), PTIER_NOT_FOUND);
    assert_int_equal(box_count(f), 2);
}

static void
l3_tells_many_sources_apart(void **state)
{
    l3_box *f = *state;
    enum { many = 3 * PTIER_L3_SOURCES };
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < many; i++) {
            ptier_op op = box_put_op(f, "key", i, 1 + i + round * many);
            char name[PTIER_SOURCE_MAX + 1];
            (void)snprintf(name, sizeof name, "source %u", i);
            ptier_record record;
            ptier_label labels[PTIER_LABELS_MAX];
            ptier_entry_view(op.entry, 0, &record, labels);
            record.source = name;
            ptier_entry *entry = ptier_entry_create(&record, i, f->wall + 1, f->boot + 1);
            ptier_entry_release(op.entry);
            op.entry = entry;
            box_apply_one(f, op);
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
    l3_box *f = *state;
    for (int round = 0; round < 3; round++) {
        ptier_op ops[] = {box_put_op(f, "a", 1, 1), box_put_op(f, "b", 2, 2),
                          box_put_op(f, "a", 1, 3), box_remove_op(f, "b", 2, 4),
                          box_put_op(f, "c", 3, 5)};
        box_apply(f, ops, 5);
        assert_int_equal(box_stored(f, "a", 1), 3);
        assert_int_equal(box_stored(f, "b", 2), 0);
        assert_int_equal(box_stored(f, "c", 3), 5);
        assert_int_equal(box_count(f), 2);
        assert_int_equal(ptier_l3_prefix(f->tier), 5);
    }
}

static void
l3_never_goes_back_to_an_older_revision(void **state)
{
    l3_box *f = *state;
    box_apply_one(f, box_put_op(f, "a", 1, 8));
    box_apply_one(f, box_put_op(f, "a", 1, 7));
    box_apply_one(f, box_remove_op(f, "a", 1, 6));
    assert_int_equal(box_stored(f, "a", 1), 8);
    assert_int_equal(ptier_l3_prefix(f->tier), 8);
}

/* What is said to be new, and is not, shows whether its row was looked for. */
static void
l3_looks_for_no_row_of_new_keys_while_the_caller_knows_all(void **state)
{
    l3_box *f = *state;
    ptier_op twice[2];
    box_apply_one(f, box_put_op(f, "key-1", 9, 1));
    box_apply_one(f, box_put_op(f, "key-1", 9, 2));
    assert_int_equal(box_count(f), 1);
    ptier_l3_rows_known(f->tier, 3);
    box_apply_one(f, box_put_op(f, "key-1", 9, 3)); /* not beyond it */
    assert_int_equal(box_count(f), 1);
    twice[0] = box_remove_op(f, "key-1", 9, 4);
    twice[1] = box_put_op(f, "key-1", 9, 5);
    box_apply(f, twice, 2);
    assert_int_equal(box_count(f), 1);
    ptier_op update = box_put_op(f, "key-1", 9, 6);
    update.replaces = 5;
    box_apply_one(f, update);
    assert_int_equal(box_count(f), 1);
    box_apply_one(f, box_put_op(f, "key-1", 9, 7));
    assert_int_equal(box_count(f), 2);
}

/* As after a checkpoint that failed behind the commit: the caller tries the same batch again. */
static void
l3_has_no_second_row_of_new_keys_that_come_twice(void **state)
{
    enum { count = PTIER_L3_ROWS + 1 };
    l3_box *f = *state;
    ptier_l3_rows_known(f->tier, 0);
    for (int attempt = 0; attempt < 2; attempt++) {
        ptier_op ops[count];
        for (unsigned i = 0; i < count; i++) {
            char key[24];
            (void)snprintf(key, sizeof key, "key-%u", i + 1);
            ops[i] = box_put_op(f, key, box_hash(i + 1), i + 1);
        }
        box_apply(f, ops, count);
    }
    assert_int_equal(box_count(f), count);
    assert_int_equal(box_scan(f).rows, count);
}

/* Several a statement, and what is left over. */
static void
l3_new_rows_are_all_there_with_their_usage(void **state)
{
    enum { count = 3 * PTIER_L3_ROWS + 3 };
    l3_box *f = *state;
    ptier_op ops[count];
    ptier_l3_rows_known(f->tier, 0);
    for (unsigned i = 0; i < count; i++) {
        char key[24];
        (void)snprintf(key, sizeof key, "key-%u", i + 1);
        ops[i] = box_put_op(f, key, box_hash(i + 1), i + 1);
        atomic_store(&ops[i].entry->access_count, i);
    }
    box_apply(f, ops, count);
    box_reopen(f);
    assert_int_equal(box_count(f), count);
    assert_int_equal(box_scan(f).rows, count);
    assert_int_equal(box_condition(f), PTIER_L3_SOUND);
    for (unsigned i = 0; i < count; i++) {
        ptier_ref ref = {.hash = box_hash(i + 1), .revision = i + 1};
        ptier_entry *entry;
        assert_int_equal(f->tier->ops->get(f->tier, &ref, &entry), PTIER_OK);
        box_assert_as_put(f, entry, i + 1);
        assert_int_equal(atomic_load(&entry->access_count), i);
        ptier_entry_release(entry);
    }
}

static void
l3_looks_for_rows_again_after_a_failure_or_in_another_file(void **state)
{
    l3_box *f = *state;
    ptier_op failing = box_too_long_op(f, "key-2", 10, 2);
    box_apply_one(f, box_put_op(f, "key-1", 9, 1));
    ptier_l3_rows_known(f->tier, 1);
    assert_int_not_equal(box_try_apply(f, &failing, 1, false), PTIER_OK);
    box_apply_one(f, box_put_op(f, "key-1", 9, 3));
    assert_int_equal(box_count(f), 1);
    ptier_l3_rows_known(f->tier, 3);
    assert_int_equal(ptier_l3_reopen(f->tier, &f->error), PTIER_OK);
    box_apply_one(f, box_put_op(f, "key-1", 9, 4));
    assert_int_equal(box_count(f), 1);
}

static void
l3_clear_takes_what_is_older_and_nothing_else(void **state)
{
    l3_box *f = *state;
    ptier_op ops[] = {box_put_op(f, "a", 1, 1), box_put_op(f, "b", 2, 2), box_clear_op(3),
                      box_put_op(f, "b", 2, 4), box_put_op(f, "c", 3, 5)};
    box_apply_one(f, box_put_op(f, "z", 26, 1));
    box_apply(f, ops, 5);
    assert_int_equal(box_count(f), 2);
    assert_int_equal(box_stored(f, "z", 26), 0);
    assert_int_equal(box_stored(f, "b", 2), 4);
    box_apply_one(f, box_clear_op(3)); /* once more, late */
    assert_int_equal(box_count(f), 2);
    box_apply_one(f, box_clear_op(5));
    assert_int_equal(box_count(f), 1);
    assert_int_equal(box_stored(f, "c", 3), 5);
    box_apply_one(f, box_clear_op(6));
    assert_int_equal(box_count(f), 0);
    box_reopen(f);
    assert_int_equal(box_count(f), 0);
    assert_int_equal(ptier_l3_prefix(f->tier), 6);
}

static void
l3_prefix_is_there_after_reopening_and_synced_only_when_it_is(void **state)
{
    l3_box *f = *state;
    box_apply_one(f, box_put_op(f, "a", 1, 10));
    assert_int_equal(ptier_l3_prefix(f->tier), 10);
    assert_int_equal(ptier_l3_synced_prefix(f->tier), 0);
    ptier_op op = box_put_op(f, "b", 2, 11);
    assert_int_equal(box_try_apply(f, &op, 1, true), PTIER_OK);
    assert_int_equal(ptier_l3_synced_prefix(f->tier), 11);
    box_apply_one(f, box_put_op(f, "c", 3, 12));
    assert_int_equal(ptier_l3_synced_prefix(f->tier), 11);
    assert_int_equal(box_try_apply(f, NULL, 0, true), PTIER_OK);
    assert_int_equal(ptier_l3_synced_prefix(f->tier), 12);
    box_apply_one(f, box_put_op(f, "d", 4, 13));
    assert_int_equal(ptier_l3_checkpoint(f->tier, false, &f->error), PTIER_OK); /* small: no work */
    assert_int_equal(ptier_l3_synced_prefix(f->tier), 12);
    assert_int_equal(ptier_l3_checkpoint(f->tier, true, &f->error), PTIER_OK);
    assert_int_equal(ptier_l3_synced_prefix(f->tier), 13);
    box_reopen(f);
    assert_int_equal(ptier_l3_prefix(f->tier), 13);
    assert_int_equal(box_count(f), 4);
}

static void
l3_applied_changes_survive_a_kill(void **state)
{
    l3_box *f = *state;
    box_close(f);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        box_open(f);
        ptier_op ops[] = {box_put_op(f, "a", 1, 1), box_put_op(f, "b", 2, 2)};
        box_apply(f, ops, 2);
        (void)kill(getpid(), SIGKILL); /* cannot fail */
    }
    int result;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFSIGNALED(result));
    box_open(f);
    assert_int_equal(ptier_l3_prefix(f->tier), 2);
    assert_int_equal(box_stored(f, "a", 1), 1);
    assert_int_equal(box_stored(f, "b", 2), 2);
}

static void
l3_full_disk_undoes_the_whole_batch(void **state)
{
    l3_box *f = *state;
    ptier_op first = box_put_op(f, "first", 999999, 1);
    strcpy(first.entry->text + first.entry->source_at, "list"); /* "list-a" is new to the batch */
    box_apply_one(f, first);
    sqlite3 *writer = ptier_l3_of(f->tier)->writer.db;
    assert_int_equal(sqlite3_exec(writer, "PRAGMA max_page_count=30", NULL, NULL, NULL), SQLITE_OK);
    enum { many = 2000 };
    ptier_op *ops = calloc(many, sizeof *ops);
    for (unsigned i = 0; i < many; i++)
        ops[i] = box_put_op(f, "key", i, 2 + i);
    assert_int_equal(box_try_apply(f, ops, many, false), PTIER_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(f->error.message, f->path));
    assert_int_equal(box_count(f), 1);
    assert_int_equal(ptier_l3_prefix(f->tier), 1);
    assert_int_equal(box_get_status(f, "key", 0, 0), PTIER_NOT_FOUND);
    assert_int_equal(sqlite3_exec(writer, "PRAGMA max_page_count=100000", NULL, NULL, NULL),
                     SQLITE_OK);
    box_apply_one(
        f, box_put_op(f, "key", 0, 2)); /* and goes on, sources included, when there is room */
    assert_int_equal(box_stored(f, "key", 0), 2);
    assert_int_equal(box_count(f), 2);
    free(ops);
}

/* ---- usage, eviction, scan ---- */

static void
l3_usage_is_written_back_and_follows_the_record(void **state)
{
    l3_box *f = *state;
    box_apply_one(f, box_put_op(f, "a", 1, 1));
    box_apply_one(f, box_remove_op(f, "a", 1, 2));
    box_apply_one(f, box_put_op(f, "a", 1, 3));
    ptier_usage usage[] = {
        {.hash = 1, .revision = 3, .last_access_ms = 5, .access_count = 6, .latency_us = 1500},
        {.hash = 1, .revision = 1, .last_access_ms = 7}, /* of the life before */
        {.hash = 2, .revision = 3, .last_access_ms = 7},
    };
    assert_int_equal(f->tier->ops->write_usage(f->tier, usage, 3, &f->error), PTIER_OK);
    ptier_ref ref = {.hash = 1, .key = "a"};
    ptier_entry *entry;
    assert_int_equal(f->tier->ops->get(f->tier, &ref, &entry), PTIER_OK);
    assert_int_equal(atomic_load(&entry->last_access_ms), 5);
    assert_int_equal(atomic_load(&entry->access_count), 6);
    ptier_entry_release(entry);
    assert_int_equal(box_count(f), 1);

    /* A row that is removed and made again starts from nothing, though it may get the same rowid.
     */
    box_apply_one(f, box_remove_op(f, "a", 1, 4));
    box_apply_one(f, box_put_op(f, "a", 1, 5));
    assert_int_equal(f->tier->ops->get(f->tier, &ref, &entry), PTIER_OK);
    assert_int_equal(atomic_load(&entry->last_access_ms), 0);
    ptier_entry_release(entry);
}

static void
l3_evicts_one_of_the_least_recently_used_down_to_its_bound(void **state)
{
    l3_box *f = *state;
    box_close(f);
    f->capacity = 20;
    box_open(f);
    uint64_t hash, revision;
    for (unsigned i = 1; i <= 20; i++)
        box_apply_one(f, box_put_op(f, "key", i, i));
    assert_int_equal(f->tier->ops->victim(f->tier, &hash, &revision), PTIER_NOT_FOUND);
    ptier_usage used[24];
    for (unsigned i = 0; i < 24; i++) /* 21 to 24 were never used */
        used[i] =
            (ptier_usage){.hash = i + 1, .revision = i + 1, .last_access_ms = f->wall + 1000 + i};
    for (unsigned i = 21; i <= 24; i++)
        box_apply_one(f, box_put_op(f, "key", i, i));
    assert_int_equal(f->tier->ops->write_usage(f->tier, used, 20, &f->error), PTIER_OK);
    for (unsigned left = 24; left > 20; left--) {
        uint64_t again, again_revision;
        assert_int_equal(f->tier->ops->victim(f->tier, &hash, &revision), PTIER_OK);
        assert_int_equal(f->tier->ops->victim(f->tier, &again, &again_revision), PTIER_OK);
        assert_int_equal(hash, again);
        assert_int_equal(revision, again_revision);
        f->tier->ops->drop(f->tier, hash, revision);
        assert_int_equal(box_count(f), left - 1);
        assert_int_equal(box_get_status(f, "key", hash, revision), PTIER_NOT_FOUND);
    }
    assert_int_equal(f->tier->ops->victim(f->tier, &hash, &revision), PTIER_NOT_FOUND);
    /* Of 20 used ones the newest five are never the oldest of 16 samples, or nearly so. */
    for (unsigned i = 16; i <= 20; i++)
        assert_int_equal(box_stored(f, "key", i), i);
}

static void
l3_victim_that_is_touched_is_spared(void **state)
{
    l3_box *f = *state;
    box_close(f);
    f->capacity = 1;
    box_open(f);
    box_apply_one(f, box_put_op(f, "a", 1, 1));
    box_apply_one(f, box_put_op(f, "b", 2, 2));
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
    l3_box *f = *state;
    for (unsigned i = 1; i <= 50; i++)
        box_apply_one(f, box_put_op(f, "key", i, 100 + i));
    seen all = {0}, some = {.stop_after = 10};
    assert_int_equal(f->tier->ops->scan(f->tier, on_item, &all, &f->error), PTIER_OK);
    assert_int_equal(all.count, 50);
    assert_int_equal(all.hashes, 50 * 51 / 2);
    assert_int_equal(all.revisions, 5000 + 50 * 51 / 2);
    assert_int_equal(all.expires, f->boot + 60000);
    assert_int_equal(f->tier->ops->scan(f->tier, on_item, &some, &f->error), PTIER_OK);
    assert_int_equal(some.count, 10);
    box_meddle(f, "UPDATE entries SET health = 99 WHERE key64 = 3");
    all = (seen){0};
    assert_int_equal(f->tier->ops->scan(f->tier, on_item, &all, &f->error), PTIER_OK);
    assert_int_equal(all.count, 49);
    assert_int_equal(ptier_l3_damaged(f->tier), 1);
}

/* ---- clocks ---- */

static int64_t
expiry(l3_box *f)
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
    l3_box *f = *state;
    int64_t expires = f->boot + 60000;
    box_apply_one(f, box_put_op(f, "a", 1, 1));
    f->wall += 3600000; /* stepped; 10 s went by */
    f->boot += 10000;
    box_reopen(f);
    assert_int_equal(expiry(f), expires);
    f->wall -= 3600000 - 20000; /* right again, 20 s after the put */
    f->boot = 3000;             /* and rebooted */
    f->clock.boot_tag = 78;
    box_reopen(f);
    assert_int_equal(expiry(f), 3000 + 40000);
}

/* ---- records that are damaged ---- */

static void
l3_any_changed_field_is_data_loss_and_never_a_wrong_value(void **state)
{
    l3_box *f = *state;
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
    box_meddle(f, "INSERT INTO sources(name) VALUES('list-b')");
    for (unsigned i = 0; i < sizeof changes / sizeof *changes; i++) {
        char sql[256];
        box_apply_one(f, box_put_op(f, "key", 1, 2 * i + 1));
        assert_int_equal(box_get_status(f, "key", 1, 2 * i + 1), PTIER_OK);
        uint64_t damaged = ptier_l3_damaged(f->tier);
        (void)snprintf(sql, sizeof sql, "UPDATE entries SET %s", changes[i]);
        box_meddle(f, sql);
        uint64_t hash = strncmp(changes[i], "key64", 5) == 0 ? 2 : 1;
        assert_int_equal(box_get_status(f, "key", hash, 2 * i + 1), PTIER_DATA_LOSS);
        assert_int_equal(ptier_l3_damaged(f->tier), damaged + 1);
        box_meddle(f, "DELETE FROM entries");
    }
}

static void
l3_changed_usage_counts_as_none_and_keeps_the_record(void **state)
{
    l3_box *f = *state;
    box_apply_one(f, box_put_op(f, "a", 1, 1));
    ptier_usage usage = {.hash = 1, .revision = 1, .last_access_ms = 5, .access_count = 6};
    assert_int_equal(f->tier->ops->write_usage(f->tier, &usage, 1, &f->error), PTIER_OK);
    box_meddle(f, "UPDATE usage SET accesses = 1000000");
    ptier_ref ref = {.hash = 1};
    ptier_entry *entry;
    assert_int_equal(f->tier->ops->get(f->tier, &ref, &entry), PTIER_OK);
    assert_int_equal(atomic_load(&entry->access_count), 0);
    assert_int_equal(ptier_l3_damaged(f->tier), 1);
    ptier_entry_release(entry);
}

static void
l3_files_are_private(void **state)
{
    l3_box *f = *state;
    box_close(f);
    assert_int_equal(unlink(f->path), 0);
    mode_t before = umask(0);
    box_open(f);
    box_apply_one(f, box_put_op(f, "a", 1, 1));
    umask(before);
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    for (int i = 0; i < 3; i++) {
        char name[PTIER_TEST_PATH + 128];
        struct stat info;
        (void)snprintf(name, sizeof name, "%s%s", f->path, suffixes[i]);
        assert_int_equal(stat(name, &info), 0);
        assert_int_equal(info.st_mode & 0777, 0600);
    }
}

/* ---- threads ---- */

typedef struct reading {
    l3_box *f;
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
    l3_box *f = *state;
    reading r = {.f = f};
    ptier_op ops[50];
    for (unsigned i = 0; i < 50; i++)
        ops[i] = box_put_op(f, "key", i + 1, 50 + i);
    box_apply(f, ops, 50);
    pthread_t threads[6]; /* more than there are connections */
    for (int i = 0; i < 6; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_all, &r), 0);
    for (unsigned round = 2; round < 60; round++) {
        for (unsigned i = 0; i < 50; i++)
            ops[i] = box_put_op(f, "key", i + 1, 50 * round + i);
        box_apply(f, ops, 50);
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

int
main(void)
{
    const struct CMUnitTest tests[] = {
        BOX_FACT(l3_gives_back_every_field_after_reopening),
        BOX_FACT(l3_keeps_a_record_without_credentials_labels_source_or_expiry),
        BOX_FACT(l3_get_ignores_stale_revision),
        BOX_FACT(l3_tells_keys_of_one_hash_apart),
        BOX_FACT(l3_tells_many_sources_apart),
        BOX_FACT(l3_applying_the_same_changes_again_changes_nothing),
        BOX_FACT(l3_never_goes_back_to_an_older_revision),
        BOX_FACT(l3_looks_for_no_row_of_new_keys_while_the_caller_knows_all),
        BOX_FACT(l3_has_no_second_row_of_new_keys_that_come_twice),
        BOX_FACT(l3_new_rows_are_all_there_with_their_usage),
        BOX_FACT(l3_looks_for_rows_again_after_a_failure_or_in_another_file),
        BOX_FACT(l3_clear_takes_what_is_older_and_nothing_else),
        BOX_FACT(l3_prefix_is_there_after_reopening_and_synced_only_when_it_is),
        BOX_FACT(l3_applied_changes_survive_a_kill),
        BOX_FACT(l3_full_disk_undoes_the_whole_batch),
        BOX_FACT(l3_usage_is_written_back_and_follows_the_record),
        BOX_FACT(l3_evicts_one_of_the_least_recently_used_down_to_its_bound),
        BOX_FACT(l3_victim_that_is_touched_is_spared),
        BOX_FACT(l3_scan_shows_every_record_once_and_stops_when_told),
        BOX_FACT(l3_expiry_ignores_steps_of_the_wall_clock_until_a_reboot),
        BOX_FACT(l3_any_changed_field_is_data_loss_and_never_a_wrong_value),
        BOX_FACT(l3_changed_usage_counts_as_none_and_keeps_the_record),
        BOX_FACT(l3_files_are_private),
        BOX_FACT(l3_readers_see_whole_records_while_they_are_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
