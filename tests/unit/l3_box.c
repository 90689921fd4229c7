#include "unit/l3_box.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- one database and a clock that stands still ---- */

static int64_t
wall_ms(void *context)
{
    return ((l3_box *)context)->wall;
}

static int64_t
boot_ms(void *context)
{
    return ((l3_box *)context)->boot;
}

ptier_l3_options
box_options(l3_box *f)
{
    return (ptier_l3_options){.path = f->path,
                              .capacity = f->capacity,
                              .busy_timeout_ms = f->busy_timeout_ms,
                              .keyring = f->keyring,
                              .clock = &f->clock,
                              .hash_key = f->hash_key};
}

ptier_status
box_try_open(l3_box *f)
{
    ptier_l3_options options = box_options(f);
    f->tier = NULL;
    return ptier_l3_open(&options, &f->tier, &f->error);
}

void
box_open(l3_box *f)
{
    if (box_try_open(f) != PTIER_OK)
        fail_msg("%s", f->error.message);
}

void
box_close(l3_box *f)
{
    if (f->tier)
        f->tier->ops->close(f->tier);
    f->tier = NULL;
}

void
box_reopen(l3_box *f)
{
    box_close(f);
    box_open(f);
}

void
box_use_keys(l3_box *f, const char *first, const char *second)
{
    const char *keys[] = {first, second};
    ptier_keyring_destroy(f->keyring);
    assert_int_equal(ptier_keyring_create(keys, second ? 2 : 1, &f->keyring, &f->error), PTIER_OK);
}

int
box_setup(void **state)
{
    l3_box *f = calloc(1, sizeof *f);
    ptier_test_dir_make(f->directory);
    (void)snprintf(f->path, sizeof f->path, "%s/cache.db", f->directory);
    f->wall = 1700000000000;
    f->boot = 5000000;
    f->clock = (ptier_clock){.wall_ms = wall_ms, .boot_ms = boot_ms, .boot_tag = 77, .context = f};
    box_use_keys(f, BOX_KEY, NULL);
    box_open(f);
    *state = f;
    return 0;
}

int
box_teardown(void **state)
{
    l3_box *f = *state;
    box_close(f);
    ptier_keyring_destroy(f->keyring);
    ptier_test_dir_remove(f->directory);
    free(f);
    return 0;
}

/* ---- records ---- */

static ptier_sealed *
box_seal(l3_box *f, const char *username, const char *password)
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

ptier_op
box_put_op(l3_box *f, const char *key, uint64_t hash, uint64_t revision)
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
        .sealed = box_seal(f, record.username, record.password),
    };
}

ptier_op
box_too_long_op(l3_box *f, const char *key, uint64_t hash, uint64_t revision)
{
    enum { too_long = 100000 };
    ptier_op op = box_put_op(f, key, hash, revision);
    free(op.sealed);
    op.sealed = calloc(1, sizeof *op.sealed + too_long + 1);
    assert_non_null(op.sealed);
    op.sealed->username_bytes = too_long;
    memset(op.sealed->tokens, 'x', too_long);
    return op;
}

ptier_op
box_remove_op(l3_box *f, const char *key, uint64_t hash, uint64_t revision)
{
    ptier_op op = box_put_op(f, key, hash, revision);
    op.kind = PTIER_OP_REMOVE;
    return op;
}

ptier_op
box_clear_op(uint64_t revision)
{
    return (ptier_op){.kind = PTIER_OP_CLEAR, .revision = revision};
}

/* Applies and frees. */
ptier_status
box_try_apply(l3_box *f, ptier_op *ops, size_t count, bool sync)
{
    ptier_status status = f->tier->ops->apply(f->tier, ops, count, sync, &f->error);
    box_release(ops, count);
    return status;
}

void
box_apply(l3_box *f, ptier_op *ops, size_t count)
{
    if (box_try_apply(f, ops, count, false) != PTIER_OK)
        fail_msg("%s", f->error.message);
}

void
box_apply_one(l3_box *f, ptier_op op)
{
    box_apply(f, &op, 1);
}

/* The revision that is box_stored under the key; 0: none. */
uint64_t
box_stored(l3_box *f, const char *key, uint64_t hash)
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

ptier_status
box_get_status(l3_box *f, const char *key, uint64_t hash, uint64_t revision)
{
    ptier_ref ref = {.hash = hash, .revision = revision, .key = key};
    ptier_entry *entry;
    ptier_status status = f->tier->ops->get(f->tier, &ref, &entry);
    ptier_entry_release(entry);
    return status;
}

uint64_t
box_count(l3_box *f)
{
    return f->tier->ops->count(f->tier);
}

/* Changes the file behind L3's back. */
void
box_meddle(l3_box *f, const char *sql)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
    (void)sqlite3_busy_timeout(db, 5000);
    char *message = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s: %s", sql, message);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

void
box_assert_as_put(l3_box *f, const ptier_entry *entry, uint64_t revision)
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

uint64_t
box_random(uint64_t *seed, uint64_t bound)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (*seed >> 33) % bound;
}

void
box_flip(const char *path, long at, int bit)
{
    FILE *file = fopen(path, "r+e");
    assert_non_null(file);
    assert_int_equal(fseek(file, at, SEEK_SET), 0);
    int byte = fgetc(file);
    assert_int_equal(fseek(file, at, SEEK_SET), 0);
    assert_int_not_equal(fputc(byte ^ 1 << bit, file), EOF);
    assert_int_equal(fclose(file), 0);
}

/* ---- many, and what is there ---- */

void
box_release(ptier_op *ops, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        ptier_entry_release(ops[i].entry);
        free(ops[i].sealed);
    }
}

uint64_t
box_hash(unsigned number)
{
    return number * UINT64_C(0x9e3779b97f4a7c15);
}

void
box_fill(l3_box *f, unsigned count, uint64_t first)
{
    enum { batch = 1000 };
    ptier_op *ops = calloc(batch, sizeof *ops);
    assert_non_null(ops);
    for (unsigned done = 0; done < count;) {
        size_t n = 0;
        for (; n < batch && done < count; n++, done++) {
            char key[24];
            (void)snprintf(key, sizeof key, "key-%u", done + 1);
            ops[n] = box_put_op(f, key, box_hash(done + 1), first + done);
        }
        box_apply(f, ops, n);
    }
    free(ops);
}

bool
box_on_item(void *seen, const ptier_scan_item *item)
{
    box_seen *s = seen;
    s->rows++;
    s->hashes += item->hash;
    s->revisions += item->revision;
    return s->rows != s->stop_after;
}

box_seen
box_scan(l3_box *f)
{
    box_seen seen = {0};
    seen.status = f->tier->ops->scan(f->tier, box_on_item, &seen, &f->error);
    return seen;
}

ptier_l3_condition
box_condition(l3_box *f)
{
    return ptier_l3_condition_of(f->tier);
}
