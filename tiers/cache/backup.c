/*
 * Online backup: the cache as one SQLite file of L3's form. Entries are taken page by page like any
 * listing, so that writers go on meanwhile.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache/cache_internal.h"
#include "file.h"

enum { PAGE = 256 };

static ptier_status
check_path(const ptier_cache *cache, const char *path, ptier_error *error)
{
    struct stat about;
    if (!cache->keyring)
        return ptier_fail(error, PTIER_FAILED_PRECONDITION,
                          "the cache is in memory only and has no key to make a backup with: give "
                          "it a data directory or a key");
    if (path[0] != '/' || strlen(path) >= PTIER_PATH_MAX - 32)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "a backup needs an absolute path of up to %d bytes", PTIER_PATH_MAX - 33);
    if (lstat(path, &about) == 0)
        return ptier_fail(error, PTIER_ALREADY_EXISTS,
                          "%s exists and is not overwritten: name another file, or move it away",
                          path);
    return errno == ENOENT ? PTIER_OK : ptier_fail_errno(error, errno, "cannot use %s", path);
}

/* A name beside the file: nobody takes it for a backup before it is one. */
static ptier_status
name_temporary(const char *path, char temporary[PTIER_PATH_MAX], ptier_error *error)
{
    uint64_t random;
    if (getrandom(&random, sizeof random, 0) != sizeof random)
        return ptier_fail(error, PTIER_INTERNAL, "no random numbers from the kernel");
    (void)snprintf(temporary, PTIER_PATH_MAX, "%s.tmp-%016" PRIx64, path, random); /* it fits */
    return PTIER_OK;
}

static ptier_status
add_page(ptier_cache *cache, ptier_l3_builder *builder, ptier_entry *const *entries, size_t count,
         ptier_error *error)
{
    ptier_op ops[PAGE];
    ptier_status status = PTIER_OK;
    size_t sealed = 0;
    for (; !status && sealed < count; sealed++) {
        ops[sealed] = (ptier_op){
            .kind = PTIER_OP_PUT, .revision = entries[sealed]->revision, .entry = entries[sealed]};
        status = ptier_sealed_create(cache->keyring, entries[sealed], &ops[sealed].sealed);
        if (status)
            (void)ptier_fail(error, status, "credentials cannot be encrypted");
    }
    if (!status)
        status = ptier_l3_builder_add(builder, ops, count, error);
    for (size_t i = 0; i < sealed; i++)
        ptier_sealed_release(ops[i].sealed);
    return status;
}

static ptier_status
add_all(ptier_cache *cache, ptier_l3_builder *builder, uint64_t *added, ptier_error *error)
{
    ptier_entry *entries[PAGE];
    uint64_t cursor = 0;
    ptier_status status;
    *added = 0;
    do {
        size_t count;
        status =
            ptier_cache_list(cache, &cursor, NULL, PTIER_TIER_NONE, PAGE, entries, &count, error);
        if (status)
            break;
        status = add_page(cache, builder, entries, count, error);
        for (size_t i = 0; i < count; i++)
            ptier_entry_release(entries[i]);
        *added += count;
    } while (!status && cursor);
    return status;
}

/* A file system that cannot do it at once does it in two steps. */
static int
rename_to_new(const char *from, const char *to)
{
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -1;
    if (link(from, to) != 0) /* fails when it exists */
        return -1;
    return unlink(from);
}

static ptier_status
publish(const char *temporary, const char *path, ptier_error *error)
{
    char copy[PTIER_PATH_MAX];
    if (rename_to_new(temporary, path) != 0)
        return ptier_fail_errno(error, errno, "cannot name the backup %s", path);
    strcpy(copy, path); /* check_path knows its length */
    return ptier_sync_directory(dirname(copy), error);
}

ptier_status
ptier_cache_backup(ptier_cache *cache, const char *path, uint64_t *entries, ptier_error *error)
{
    char temporary[PTIER_PATH_MAX];
    ptier_l3_builder *builder;
    *entries = 0;
    ptier_status status = check_path(cache, path, error);
    if (!status)
        status = name_temporary(path, temporary, error);
    if (status)
        return status;
    const ptier_l3_options options = {
        .path = temporary,
        .keyring = cache->keyring,
        .clock = &cache->clock,
        .on_log = cache->options.on_log,
        .log_context = cache->options.log_context,
    };
    uint64_t as_of = ptier_cache_revision(cache);
    status = ptier_l3_builder_create(temporary, &options, &builder, error);
    if (status)
        return status;
    status = add_all(cache, builder, entries, error);
    if (status) {
        ptier_l3_builder_abort(builder);
        return status;
    }
    status = ptier_l3_builder_finish(builder, as_of, error);
    if (!status)
        status = publish(temporary, path, error);
    if (status)
        (void)unlink(temporary); /* gone already, or of no use */
    return status;
}
