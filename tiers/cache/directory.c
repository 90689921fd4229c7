/*
 * The data directory of a cache: locking it, what is known of earlier runs, the keys, and room on
 * its disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cache/open_internal.h"
#include "cache/reserve.h"
#include "file.h"

enum {
    START_ROOM_MB = 2, /* what a start writes, the files of an empty database, and the reserve */
};

static bool
exists_in(const char *directory, const char *name)
{
    char path[PTIER_PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/%s", directory, name);
    return access(path, F_OK) == 0;
}

/* Whether there is anything of an earlier run. */
static bool
has_data(const char *directory)
{
    return exists_in(directory, "state") || exists_in(directory, "l2") ||
           exists_in(directory, "l3.sqlite");
}

/* The file tells people; the directory itself is locked as well, because a file that looks stale is
 * deleted sooner or later. Some file systems lock no directories. */
static ptier_status
lock_directory(ptier_cache *cache, ptier_error *error)
{
    char path[PTIER_PATH_MAX];
    ptier_status status = ptier_make_directories(cache->data_dir, error);
    if (status)
        return status;
    (void)snprintf(path, sizeof path, "%s/lock", cache->data_dir);
    cache->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (cache->lock_fd < 0)
        return ptier_fail_errno(error, errno, "cannot open %s", path);
    cache->directory_fd = open(cache->data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (cache->directory_fd < 0)
        return ptier_fail_errno(error, errno, "cannot open %s", cache->data_dir);
    bool free = flock(cache->directory_fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
    if (free && flock(cache->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return PTIER_OK;
    if (errno != EWOULDBLOCK)
        return ptier_fail_errno(error, errno, "cannot lock %s", path);
    return ptier_fail(error, PTIER_FAILED_PRECONDITION,
                      "data directory %s is in use by another process: stop that one, or choose "
                      "another directory",
                      cache->data_dir);
}

static ptier_status
open_keyring(ptier_cache *cache, const ptier_cache_options *o, bool has_data, ptier_error *error)
{
    char path[PTIER_PATH_MAX], key[PTIER_KEY_TEXT + 1];
    const char *first = o->encryption_key;
    ptier_status status = PTIER_OK;
    if (!first && !cache->data_dir)
        return PTIER_OK; /* memory only: nothing to encrypt */
    if (!first) {
        (void)snprintf(path, sizeof path, "%s/key", cache->data_dir);
        bool missing = access(path, F_OK) != 0;
        status = ptier_key_file(path, !has_data, key, error);
        if (status == PTIER_NOT_FOUND)
            (void)ptier_fail(error, status,
                             "%s is missing, but the directory has data: put the key back, or give "
                             "it as it was given before",
                             path);
        cache->key_in_directory = !status;
        if (!status && missing)
            ptier_cache_log(cache, PTIER_LOG_INFO, "key_made",
                            "%s: back it up, apart from the data, which nobody can read without it",
                            path);
        first = key;
    }
    const char **keys = calloc(o->previous_key_count + 1, sizeof *keys);
    if (!status && !keys)
        status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for the keys");
    if (!status) {
        keys[0] = first;
        for (size_t i = 0; i < o->previous_key_count; i++)
            keys[i + 1] = o->previous_keys[i];
        status = ptier_keyring_create(keys, o->previous_key_count + 1, &cache->keyring, error);
    }
    free(keys);
    explicit_bzero(key, sizeof key);
    return status;
}

void
ptier_tell_missing_key(const ptier_cache *cache)
{
    if (cache->key_in_directory && !exists_in(cache->data_dir, "key"))
        ptier_cache_log(cache, PTIER_LOG_ERROR, "key_missing",
                        "%s/key is gone: put it back before the next start, which is refused "
                        "without it",
                        cache->data_dir);
}

/* ---- room on the disk ---- */

void
ptier_reserve_give_up(ptier_cache *cache, uint64_t but)
{
    ptier_reserve_shrink(cache->data_dir, but);
    cache->reserve_missing = true;
}

void
ptier_reserve_take(ptier_cache *cache)
{
    ptier_error ignored; /* of a full disk others will tell */
    if (cache->reserve_missing)
        cache->reserve_missing =
            ptier_reserve_grow(cache->data_dir, PTIER_RESERVE_BYTES, &ignored) != PTIER_OK;
}

/* Why it did not open, said as what can be done about it, where that is making room. */
ptier_status
ptier_explain_full_disk(const ptier_cache *cache, ptier_status status, ptier_error *error)
{
    struct statvfs disk;
    ptier_error why;
    if ((status != PTIER_RESOURCE_EXHAUSTED && status != PTIER_UNAVAILABLE) || !error ||
        !cache->data_dir || statvfs(cache->data_dir, &disk))
        return status;
    uint64_t free_kb = (uint64_t)disk.f_bavail * disk.f_frsize >> 10;
    if (free_kb >= START_ROOM_MB << 10)
        return status;
    why = *error;
    return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED,
                      "the disk of %s has %" PRIu64 " KB free: make room for %d MB (%s)",
                      cache->data_dir, free_kb, START_ROOM_MB, why.message);
}

/* ---- all of it ---- */

/* The lock, what is known of earlier runs, and the keys. */
ptier_status
ptier_directory_open(ptier_cache *cache, const ptier_cache_options *o, ptier_findings *f,
                     ptier_error *error)
{
    ptier_state_condition condition = PTIER_STATE_MISSING;
    if (!cache->data_dir)
        return open_keyring(cache, o, false, error);
    ptier_status status = lock_directory(cache, error);
    f->has_data = !status && has_data(cache->data_dir);
    if (!status)
        status = ptier_state_load(cache->data_dir, &cache->state, &condition, error);
    f->state_known = condition == PTIER_STATE_SOUND;
    if (!status)
        status = open_keyring(cache, o, f->has_data, error);
    if (!status)
        status = ptier_state_check_keys(&cache->state, cache->keyring, cache->data_dir, error);
    bool found = false, changed;
    if (!status)
        status = ptier_progress_open(&cache->progress_file, cache->data_dir, &found, error);
    f->progress_known = found && f->state_known && cache->state.tiers &&
                        (cache->state.clean || cache->state.boot_tag == cache->clock.boot_tag);
    if (!status)
        status = ptier_state_add_key(&cache->state, cache->keyring, &changed, error);
    /* Before anything is written with the key. In an empty directory, too: should the start fail,
     * or end in between, the next one knows that there was nothing to lose. */
    if (!status && changed && (f->state_known || !f->has_data))
        status = ptier_state_save(cache->data_dir, &cache->state, error);
    return status;
}

/* Without `state`, the records themselves have to tell whether the key is theirs. */
ptier_status
ptier_confirm_key(ptier_cache *cache, const ptier_findings *f, ptier_error *error)
{
    ptier_l2_found found;
    if (f->state_known || !f->has_data || !cache->tiers[PTIER_TIER_L2])
        return PTIER_OK; /* L3 looks for itself */
    ptier_l2_found_at_open(cache->tiers[PTIER_TIER_L2], &found);
    if (!found.unverified)
        return PTIER_OK;
    return ptier_fail(error, PTIER_FAILED_PRECONDITION,
                      "%s has no state file, and not one line in it was written with this key: put "
                      "the state file or the key back, or use another directory",
                      cache->data_dir);
}
