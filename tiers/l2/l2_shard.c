/* Shard files. All steps are checked; the error translator of errno is here. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "l2/l2_internal.h"

static void
shard_path(char path[PTIER_PATH_MAX], const char *directory, uint32_t number)
{
    (void)snprintf(path, PTIER_PATH_MAX, "%s/shard_%08" PRIu32 ".jsonl", directory, number);
}

ptier_status
l2_shard_open(const char *directory, uint32_t number, bool create, l2_shard **out,
              ptier_error *error)
{
    char path[PTIER_PATH_MAX];
    struct stat info;
    shard_path(path, directory, number);
    l2_shard *shard = calloc(1, sizeof *shard);
    if (!shard)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for a shard");
    int flags = O_RDWR | O_CLOEXEC | O_APPEND | (create ? O_CREAT | O_EXCL : 0);
    shard->fd = open(path, flags, 0600);
    if (shard->fd < 0) {
        free(shard);
        return ptier_fail_errno(error, errno, "cannot open %s", path);
    }
    ptier_status status = PTIER_OK;
    if (fstat(shard->fd, &info))
        status = ptier_fail_errno(error, errno, "cannot stat %s", path);
    else if (create)
        status = ptier_sync_directory(directory, error);
    if (status) {
        close(shard->fd);
        free(shard);
        return status;
    }
    atomic_init(&shard->refs, 1);
    shard->number = number;
    shard->size = (uint64_t)info.st_size;
    *out = shard;
    return PTIER_OK;
}

l2_shard *
l2_shard_retain(l2_shard *shard)
{
    atomic_fetch_add_explicit(&shard->refs, 1, memory_order_relaxed);
    return shard;
}

void
l2_shard_release(l2_shard *shard)
{
    if (!shard || atomic_fetch_sub_explicit(&shard->refs, 1, memory_order_acq_rel) != 1)
        return;
    close(shard->fd);
    free(shard);
}

ptier_status
l2_shard_append(l2_shard *shard, const void *data, size_t length, ptier_error *error)
{
    const char *at = data;
    size_t left = length;
    while (left) {
        ssize_t written = write(shard->fd, at, left);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0) {
            int reason = written < 0 ? errno : ENOSPC;
            /* What is cut off was never acknowledged. Should even this fail, the torn line's check
             * gives it away. */
            if (ftruncate(shard->fd, (off_t)shard->size))
                shard->size += length - left;
            return ptier_fail_errno(error, reason, "cannot write to shard %" PRIu32, shard->number);
        }
        at += written;
        left -= (size_t)written;
    }
    shard->size += length;
    shard->unsynced = true;
    return PTIER_OK;
}

ptier_status
l2_shard_sync(l2_shard *shard, ptier_error *error)
{
    if (!shard->unsynced)
        return PTIER_OK;
    if (fdatasync(shard->fd))
        return ptier_fail_errno(error, errno, "cannot sync shard %" PRIu32, shard->number);
    shard->unsynced = false;
    return PTIER_OK;
}

ptier_status
l2_shard_read(const l2_shard *shard, uint64_t offset, void *data, size_t length)
{
    char *at = data;
    while (length) {
        ssize_t got = pread(shard->fd, at, length, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return PTIER_UNAVAILABLE;
        if (got == 0)
            return PTIER_DATA_LOSS;
        at += got;
        offset += (uint64_t)got;
        length -= (size_t)got;
    }
    return PTIER_OK;
}

ptier_status
l2_shard_unlink(const char *directory, const l2_shard *shard, ptier_error *error)
{
    char path[PTIER_PATH_MAX];
    shard_path(path, directory, shard->number);
    if (unlink(path) && errno != ENOENT)
        return ptier_fail_errno(error, errno, "cannot delete %s", path);
    return ptier_sync_directory(directory, error);
}

static int
compare_numbers(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* "shard_00000012.jsonl" gives 12; anything that is not spelled exactly so 0. */
static uint32_t
number_of(const char *name)
{
    char again[32];
    if (strncmp(name, "shard_", 6) != 0)
        return 0;
    uint32_t number = (uint32_t)strtoul(name + 6, NULL, 10);
    (void)snprintf(again, sizeof again, "shard_%08" PRIu32 ".jsonl", number);
    return strcmp(name, again) == 0 ? number : 0;
}

ptier_status
l2_shard_list(const char *directory, uint32_t **numbers, size_t *count, ptier_error *error)
{
    *numbers = NULL;
    *count = 0;
    if (mkdir(directory, 0700) && errno != EEXIST)
        return ptier_fail_errno(error, errno, "cannot make %s", directory);
    DIR *dir = opendir(directory);
    if (!dir)
        return ptier_fail_errno(error, errno, "cannot read %s", directory);
    ptier_status status = PTIER_OK;
    for (struct dirent *item; !status && (item = readdir(dir));) {
        uint32_t number = number_of(item->d_name);
        if (number == 0)
            continue;
        uint32_t *grown = realloc(*numbers, (*count + 1) * sizeof *grown);
        if (!grown) {
            status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory to list shards");
            break;
        }
        *numbers = grown;
        grown[(*count)++] = number;
    }
    closedir(dir);
    if (*count)
        qsort(*numbers, *count, sizeof **numbers, compare_numbers);
    return status;
}
