/* L2 after a failure: whether its directory works, going on in a new shard, starting anew. Writer
 * only. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file.h"
#include "l2/l2_internal.h"

/* ---- probe ---- */

static ptier_status
write_and_read_back(int fd, const char *path, ptier_error *error)
{
    static const char text[] = "proxytier writes this to see whether it can\n";
    char back[sizeof text];
    ssize_t written = write(fd, text, sizeof text);
    if (written != sizeof text)
        return ptier_fail_errno(error, written < 0 ? errno : ENOSPC, "cannot write %s", path);
    if (fdatasync(fd))
        return ptier_fail_errno(error, errno, "cannot sync %s", path);
    if (pread(fd, back, sizeof back, 0) != sizeof back)
        return ptier_fail_errno(error, errno ? errno : EIO, "cannot read %s", path);
    if (memcmp(back, text, sizeof text) != 0)
        return ptier_fail(error, PTIER_UNAVAILABLE, "%s does not read as it was written", path);
    return PTIER_OK;
}

static ptier_status
probe_directory(const char *directory, ptier_error *error)
{
    char path[PTIER_PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/probe", directory);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return ptier_fail_errno(error, errno, "cannot make %s", path);
    ptier_status status = write_and_read_back(fd, path, error);
    close(fd);
    if (unlink(path) && !status)
        status = ptier_fail_errno(error, errno, "cannot delete %s", path);
    return status;
}

/* Fails once for a shard that is gone; after that, the question is whether a resume will do. */
ptier_status
l2_probe(ptier_tier *tier, ptier_error *error)
{
    l2_tier *l2 = (l2_tier *)tier;
    l2_shard *newest = l2_newest_shard(l2);
    ptier_status status = PTIER_OK;
    if (newest->failed)
        status = l2_make_directory(l2->options.directory, error);
    else
        status = l2_check_newest(l2, error);
    return status ? status : probe_directory(l2->options.directory, error);
}

/* ---- resume ---- */

static bool
is_ours(const l2_tier *l2, uint32_t number)
{
    for (size_t i = 0; i < l2->shard_count; i++)
        if (l2->shards[i]->number == number)
            return l2_shard_in_place(l2->options.directory, l2->shards[i]);
    return false;
}

/* Shards that somebody else put there would be read at the next start. */
static ptier_status
set_strangers_aside(l2_tier *l2, ptier_error *error)
{
    uint32_t *numbers = NULL;
    size_t count = 0;
    ptier_status status = l2_shard_list(l2->options.directory, &numbers, &count, error);
    for (size_t i = 0; !status && i < count; i++) {
        if (is_ours(l2, numbers[i]))
            continue;
        l2_log(l2, PTIER_LOG_WARN, "l2_aside",
               "shard %" PRIu32 " was put there by others and is set aside", numbers[i]);
        status = l2_shard_set_aside(l2->options.directory, numbers[i], error);
    }
    free(numbers);
    return status;
}

/* What could not be synced has to be written again before a later sync may count for it. */
static ptier_status
rewrite_unsynced(l2_tier *l2, ptier_error *error)
{
    ptier_status status = PTIER_OK;
    for (size_t i = 0; !status && i + 1 < l2->shard_count; i++) {
        l2_shard *shard = l2->shards[i];
        uint64_t at = 0;
        while (!status && shard->unsynced && at < shard->size)
            status = l2_copy_part(l2, shard, &at, error);
        if (!status && shard->unsynced) {
            l2_drop_rest(l2, shard);
            shard->unsynced = false;
        }
    }
    return status;
}

ptier_status
ptier_l2_resume(ptier_tier *tier, ptier_error *error)
{
    l2_tier *l2 = (l2_tier *)tier;
    const l2_shard *last = l2_newest_shard(l2);
    ptier_error ignored;
    ptier_status status = set_strangers_aside(l2, error);
    if (status)
        return status;
    /* A shard that an attempt before this one made will do. */
    bool fresh = last->start && last->size == last->start && !l2_check_newest(l2, &ignored);
    if (!fresh)
        status = l2_follow(l2, false, 0, error);
    if (!status && l2->shard_count > 1) {
        l2->copy_to = l2->shards[l2->shard_count - 2]->number;
        status = rewrite_unsynced(l2, error);
    }
    return status;
}

/* ---- restart ---- */

static void
forget_all(l2_tier *l2)
{
    pthread_mutex_lock(&l2->lock);
    for (size_t i = 0; l2->map.cells && i <= l2->map.mask;) {
        l2_node *n = l2->map.cells[i].value;
        if (n)
            l2_forget_locked(l2, n); /* may shift another node into this cell: look again */
        else
            i++;
    }
    pthread_mutex_unlock(&l2->lock);
}

/* All but the newest. */
static void
release_older_shards(l2_tier *l2)
{
    pthread_mutex_lock(&l2->lock);
    l2->total_bytes = l2_newest_shard(l2)->size;
    pthread_mutex_unlock(&l2->lock);
    for (size_t i = 0; i + 1 < l2->shard_count; i++)
        l2_shard_release(l2->shards[i]);
    l2->shards[0] = l2_newest_shard(l2);
    l2->shard_count = 1;
    l2->compact_at = 0;
}

ptier_status
ptier_l2_restart(ptier_tier *tier, ptier_error *error)
{
    l2_tier *l2 = (l2_tier *)tier;
    ptier_status status = set_strangers_aside(l2, error);
    if (status)
        return status;
    forget_all(l2);
    l2->bound = l2->last_revision;
    for (size_t i = 0; !status && i < l2->shard_count; i++) {
        l2->shards[i]->failed = true;
        status = l2_shard_unlink(l2->options.directory, l2->shards[i], error);
    }
    if (!status)
        status = l2_follow(l2, true, 0, error);
    if (!status)
        release_older_shards(l2);
    return status;
}
