#include "support/l2_box.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "hash.h"
#include "sealed.h"
#include "support/sample_entry.h"

static void
note_warning(void *context, ptier_log_level level, const char *event, const char *text)
{
    (void)event;
    (void)text;
    ((ptier_test_l2 *)context)->warnings += level <= PTIER_LOG_WARN;
}

void
ptier_box_use_keys(ptier_test_l2 *box, const char *first, const char *second)
{
    const char *const keys[] = {first, second};
    ptier_keyring_destroy(box->keyring);
    assert_int_equal(ptier_keyring_create(keys, second ? 2 : 1, &box->keyring, &box->error),
                     PTIER_OK);
    box->options.keyring = box->keyring;
}

void
ptier_box_open(ptier_test_l2 *box)
{
    if (ptier_l2_open(&box->options, &box->l2, &box->error))
        fail_msg("%s", box->error.message);
    ptier_l2_found_at_open(box->l2, &box->found);
}

void
ptier_box_close(ptier_test_l2 *box)
{
    if (box->l2)
        box->l2->ops->close(box->l2);
    box->l2 = NULL;
}

static bool
ignore_op(void *context, const ptier_op *op)
{
    (void)context;
    (void)op;
    return true;
}

void
ptier_box_reopen_above(ptier_test_l2 *box, uint64_t prefix)
{
    ptier_box_close(box);
    ptier_box_open(box);
    assert_int_equal(ptier_l2_replay(box->l2, prefix, ignore_op, NULL, &box->error), PTIER_OK);
}

void
ptier_box_reopen(ptier_test_l2 *box)
{
    ptier_box_reopen_above(box, UINT64_MAX);
}

int
ptier_box_set_up(void **state)
{
    static ptier_test_l2 box;
    memset(&box, 0, sizeof box);
    ptier_test_dir_make(box.directory);
    ptier_test_clock_init(&box.clock);
    box.options = (ptier_l2_options){
        .directory = box.directory,
        .shard_bytes = 1 << 20,
        .clock = &box.clock.clock,
        .on_log = note_warning,
        .log_context = &box,
    };
    ptier_box_use_keys(&box, BOX_KEY, NULL);
    ptier_box_reopen(&box);
    *state = &box;
    return 0;
}

int
ptier_box_tear_down(void **state)
{
    ptier_test_l2 *box = *state;
    ptier_box_close(box);
    ptier_keyring_destroy(box->keyring);
    ptier_test_dir_remove(box->directory);
    return 0;
}

uint64_t
ptier_box_hash(const ptier_test_l2 *box, const char *key)
{
    return box->options.hash_key ? box->options.hash_key(key) : ptier_hash_key(key);
}

/* ---- changes ---- */

ptier_status
ptier_box_try(ptier_test_l2 *box, ptier_op_kind kind, const char *key, uint64_t revision,
              uint64_t replaces, bool sync)
{
    ptier_op op = {.kind = kind, .revision = revision, .replaces = replaces};
    if (kind != PTIER_OP_CLEAR)
        op.entry = ptier_test_entry_with(key, ptier_box_hash(box, key),
                                         kind == PTIER_OP_PUT ? revision : replaces, "user-plain",
                                         "secret-plain");
    if (kind == PTIER_OP_PUT)
        assert_int_equal(ptier_sealed_create(box->keyring, op.entry, &op.sealed), PTIER_OK);
    ptier_status status = box->l2->ops->apply(box->l2, &op, 1, sync, &box->error);
    ptier_entry_release(op.entry);
    ptier_sealed_release(op.sealed);
    return status;
}

void
ptier_box_apply(ptier_test_l2 *box, ptier_op_kind kind, const char *key, uint64_t revision,
                uint64_t replaces)
{
    if (ptier_box_try(box, kind, key, revision, replaces, false))
        fail_msg("%s", box->error.message);
}

void
ptier_box_put(ptier_test_l2 *box, const char *key, uint64_t revision, uint64_t replaces)
{
    ptier_box_apply(box, PTIER_OP_PUT, key, revision, replaces);
}

void
ptier_box_expect_put(ptier_test_l2 *box, uint64_t revision, bool sync, ptier_status expected,
                     const char *why)
{
    char key[32];
    (void)snprintf(key, sizeof key, "k%llu", (unsigned long long)revision);
    box->error.message[0] = 0;
    assert_int_equal(ptier_box_try(box, PTIER_OP_PUT, key, revision, 0, sync), expected);
    if (!strstr(box->error.message, why))
        fail_msg("\"%s\" does not say \"%s\"", box->error.message, why);
}

void
ptier_box_put_many(ptier_test_l2 *box, uint64_t from, uint64_t to)
{
    for (uint64_t revision = from; revision <= to; revision++) {
        char key[32];
        (void)snprintf(key, sizeof key, "k%llu", (unsigned long long)revision);
        ptier_box_put(box, key, revision, 0);
    }
}

ptier_status
ptier_box_get(ptier_test_l2 *box, const char *key, uint64_t revision)
{
    const ptier_ref ref = {.hash = ptier_box_hash(box, key), .revision = revision, .key = key};
    ptier_entry *entry = NULL;
    ptier_status status = box->l2->ops->get(box->l2, &ref, &entry);
    if (status)
        return status;
    assert_string_equal(ptier_entry_key(entry), key);
    assert_int_equal(entry->revision, revision);
    assert_string_equal(ptier_entry_username(entry), "user-plain");
    assert_string_equal(ptier_entry_password(entry), "secret-plain");
    assert_string_equal(ptier_entry_source(entry), "sample");
    ptier_record record;
    ptier_label labels[PTIER_LABELS_MAX];
    ptier_entry_view(entry, 0, &record, labels);
    assert_int_equal(record.label_count, 2);
    assert_string_equal(labels[1].value, "a \"quoted\" \\ value");
    assert_true(entry->expires_boot_ms == PTIER_NEVER);
    ptier_entry_release(entry);
    return PTIER_OK;
}

uint64_t
ptier_box_get_many(ptier_test_l2 *box, uint64_t from, uint64_t to)
{
    uint64_t there = 0;
    for (uint64_t revision = from; revision <= to; revision++) {
        char key[32];
        (void)snprintf(key, sizeof key, "k%llu", (unsigned long long)revision);
        there += ptier_box_get(box, key, revision) == PTIER_OK;
    }
    return there;
}

void
ptier_box_compact(ptier_test_l2 *box)
{
    bool worked = true;
    for (int i = 0; worked && i < 100000; i++)
        if (ptier_l2_compact(box->l2, &worked, &box->error))
            fail_msg("%s", box->error.message);
    assert_false(worked);
}

/* ---- files ---- */

void
ptier_box_shard_path(const ptier_test_l2 *box, unsigned number, char path[PTIER_TEST_SHARD_PATH])
{
    (void)snprintf(path, PTIER_TEST_SHARD_PATH, "%s/shard_%08u.jsonl", box->directory, number);
}

uint32_t
ptier_box_last_shard(const ptier_test_l2 *box)
{
    uint32_t first, last;
    uint64_t bytes;
    ptier_l2_position(box->l2, &first, &last, &bytes);
    return last;
}

off_t
ptier_box_shard_size(const ptier_test_l2 *box, unsigned number)
{
    char path[PTIER_TEST_SHARD_PATH];
    struct stat info;
    ptier_box_shard_path(box, number, path);
    assert_int_equal(stat(path, &info), 0);
    return info.st_size;
}

bool
ptier_box_has_shard(const ptier_test_l2 *box, unsigned number)
{
    char path[PTIER_TEST_SHARD_PATH];
    ptier_box_shard_path(box, number, path);
    return access(path, F_OK) == 0;
}

size_t
ptier_box_shard_files(const ptier_test_l2 *box)
{
    size_t count = 0;
    for (unsigned i = 1; i < 2000; i++)
        count += ptier_box_has_shard(box, i);
    return count;
}

void
ptier_box_line(const ptier_test_l2 *box, unsigned number, unsigned line, size_t *offset,
               size_t *length)
{
    char path[PTIER_TEST_SHARD_PATH];
    size_t size;
    ptier_box_shard_path(box, number, path);
    char *data = ptier_test_file_read(path, &size), *at = data, *end = NULL;
    for (unsigned i = 0; i <= line; i++) {
        at = end ? end + 1 : data;
        end = memchr(at, '\n', size - (size_t)(at - data));
        assert_non_null(end);
    }
    *offset = (size_t)(at - data);
    *length = (size_t)(end - at) + 1;
    free(data);
}

void
ptier_box_flip(const ptier_test_l2 *box, unsigned number, size_t offset)
{
    char path[PTIER_TEST_SHARD_PATH];
    char byte;
    ptier_box_shard_path(box, number, path);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
    byte = (char)(byte ^ 4);
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
    close(fd);
}

void
ptier_box_truncate(const ptier_test_l2 *box, unsigned number, size_t length)
{
    char path[PTIER_TEST_SHARD_PATH];
    ptier_box_shard_path(box, number, path);
    assert_int_equal(truncate(path, (off_t)length), 0);
}

void
ptier_box_copy_shard(const ptier_test_l2 *box, unsigned from, unsigned to)
{
    char source[PTIER_TEST_SHARD_PATH], target[PTIER_TEST_SHARD_PATH];
    size_t length;
    ptier_box_shard_path(box, from, source);
    ptier_box_shard_path(box, to, target);
    char *data = ptier_test_file_read(source, &length);
    ptier_test_file_write(target, data, length);
    free(data);
}

void
ptier_box_remove_shard(const ptier_test_l2 *box, unsigned number)
{
    char path[PTIER_TEST_SHARD_PATH];
    ptier_box_shard_path(box, number, path);
    assert_int_equal(unlink(path), 0);
}

uint64_t
ptier_box_fill_shards(ptier_test_l2 *box, uint64_t last_in[BOX_SHARDS + 1])
{
    uint64_t revision = 0;
    box->options.shard_bytes = 4096;
    ptier_box_reopen(box);
    for (uint32_t first, number = 1; number <= BOX_SHARDS; revision++) {
        uint64_t bytes;
        last_in[number] = revision;
        ptier_box_put_many(box, revision + 1, revision + 1);
        ptier_l2_position(box->l2, &first, &number, &bytes);
    }
    ptier_box_close(box);
    ptier_box_remove_shard(box, BOX_SHARDS + 1); /* has one line, which nobody will miss */
    return last_in[BOX_SHARDS];
}
