/* Shard files. All steps are checked; the error translator of errno is here. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "l2/l2_internal.h"

enum {
    ALLOCATION_STEP = 1 << 20, /* room is taken from the disk in pieces of this size */
    HAND_OVER_STEP = 1 << 20,
    BLOCK = 4096, /* what a disk loses, it loses in such pieces */
};
#define NUMBER_MAX 4000000000UL

static void
shard_path(char path[PTIER_PATH_MAX], const char *directory, uint32_t number)
{
    (void)snprintf(path, PTIER_PATH_MAX, "%s/shard_%08" PRIu32 ".jsonl", directory, number);
}

/* Sets size and identity. */
static ptier_status
identify(l2_shard *shard, ptier_error *error)
{
    struct stat info;
    if (fstat(shard->fd, &info))
        return ptier_fail_errno(error, errno, "cannot stat shard %" PRIu32, shard->number);
    shard->size = shard->allocated = (uint64_t)info.st_size;
    shard->device = info.st_dev;
    shard->inode = info.st_ino;
    return PTIER_OK;
}

ptier_status
l2_shard_open(const char *directory, uint32_t number, bool create, l2_shard **out,
              ptier_error *error)
{
    char path[PTIER_PATH_MAX];
    shard_path(path, directory, number);
    l2_shard *shard = calloc(1, sizeof *shard);
    if (!shard)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for a shard");
    shard->number = number;
    atomic_init(&shard->refs, 1);
    int flags = O_RDWR | O_CLOEXEC | O_APPEND | (create ? O_CREAT | O_EXCL : 0);
    shard->fd = open(path, flags, 0600);
    if (shard->fd < 0) {
        free(shard);
        return ptier_fail_errno(error, errno, "cannot open %s", path);
    }
    ptier_status status = identify(shard, error);
    if (!status && create)
        status = ptier_sync_directory(directory, error);
    if (!status) {
        *out = shard;
        return PTIER_OK;
    }
    if (create)
        (void)unlink(path); /* else it would stand in the way of the next attempt */
    l2_shard_release(shard);
    return status;
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

/* Before each write, hence statx: a kernel that has told a file's times makes the next write
 * dearer. */
ptier_status
l2_shard_check(l2_shard *shard, ptier_error *error)
{
    struct statx info;
    if (shard->failed)
        return ptier_fail(error, PTIER_UNAVAILABLE, "shard %" PRIu32 " has failed before",
                          shard->number);
    if (statx(shard->fd, "", AT_EMPTY_PATH, STATX_NLINK | STATX_SIZE, &info))
        return ptier_fail_errno(error, errno, "cannot stat shard %" PRIu32, shard->number);
    if (info.stx_nlink && info.stx_size == shard->size)
        return PTIER_OK;
    shard->failed = true;
    if (info.stx_nlink == 0)
        return ptier_fail(error, PTIER_UNAVAILABLE, "shard %" PRIu32 " was deleted by others",
                          shard->number);
    return ptier_fail(error, PTIER_UNAVAILABLE,
                      "shard %" PRIu32 " was changed by others: %" PRIu64
                      " bytes instead of %" PRIu64,
                      shard->number, (uint64_t)info.stx_size, shard->size);
}

bool
l2_shard_in_place(const char *directory, const l2_shard *shard)
{
    char path[PTIER_PATH_MAX];
    struct stat info;
    shard_path(path, directory, shard->number);
    return stat(path, &info) == 0 && info.st_dev == shard->device && info.st_ino == shard->inode;
}

/* 0 or an errno value. */
static int
allocate(int fd, uint64_t from, uint64_t to)
{
    int result;
    do
        result = fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(to - from));
    while (result && errno == EINTR);
    return result ? errno : 0;
}

ptier_status
l2_shard_reserve(l2_shard *shard, uint64_t room, ptier_error *error)
{
    uint64_t least = shard->size + room;
    if (least <= shard->allocated)
        return PTIER_OK;
    uint64_t from = shard->allocated > shard->size ? shard->allocated : shard->size;
    uint64_t to = (least + ALLOCATION_STEP - 1) / ALLOCATION_STEP * ALLOCATION_STEP;
    int reason = allocate(shard->fd, from, to);
    if (reason == ENOSPC || reason == EDQUOT) { /* the last bit of room is smaller than a step */
        to = least;
        reason = allocate(shard->fd, from, to);
    }
    if (reason == EOPNOTSUPP || reason == ENOSYS)
        to = UINT64_MAX; /* nothing can be promised here */
    else if (reason)
        return ptier_fail_errno(error, reason, "no room for more in shard %" PRIu32, shard->number);
    shard->allocated = to;
    return PTIER_OK;
}

void
l2_shard_trim(l2_shard *shard)
{
    struct stat info;
    bool ours =
        !shard->failed && fstat(shard->fd, &info) == 0 && (uint64_t)info.st_size == shard->size;
    if (ours && shard->allocated > shard->size && shard->allocated != UINT64_MAX &&
        ftruncate(shard->fd, (off_t)shard->size) == 0)
        shard->allocated = shard->size;
}

/* What is cut off was never acknowledged. */
static void
cut_back(l2_shard *shard, size_t written)
{
    shard->allocated = shard->size;
    if (written == 0 || ftruncate(shard->fd, (off_t)shard->size) == 0)
        return;
    shard->size += written;
    shard->failed = true; /* the next line would be glued to a torn one */
}

/* The kernel begins to write what is complete, so that the sync which every shard ends with, while
 * writers wait, finds little left to do. Nothing depends on it. */
static void
hand_over(const l2_shard *shard, size_t appended)
{
    uint64_t from = (shard->size - appended) / HAND_OVER_STEP * HAND_OVER_STEP;
    uint64_t to = shard->size / HAND_OVER_STEP * HAND_OVER_STEP;
    if (to > from)
        (void)sync_file_range(shard->fd, (off_t)from, (off_t)(to - from), SYNC_FILE_RANGE_WRITE);
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
            cut_back(shard, length - left);
            return ptier_fail_errno(error, reason, "cannot write to shard %" PRIu32, shard->number);
        }
        at += written;
        left -= (size_t)written;
    }
    shard->size += length;
    shard->unsynced = true;
    hand_over(shard, length);
    return PTIER_OK;
}

ptier_status
l2_shard_sync(l2_shard *shard, ptier_error *error)
{
    if (shard->failed)
        return ptier_fail(error, PTIER_UNAVAILABLE, "shard %" PRIu32 " has failed before",
                          shard->number);
    if (!shard->unsynced || fdatasync(shard->fd) == 0) {
        shard->unsynced = false;
        return PTIER_OK;
    }
    /* The kernel forgets what it could not write: a second attempt would succeed without it. */
    shard->failed = true;
    return ptier_fail_errno(error, errno, "cannot sync shard %" PRIu32, shard->number);
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

bool
l2_shard_read_sound(const l2_shard *shard, uint64_t offset, char *data, size_t length)
{
    if (l2_shard_read(shard, offset, data, length) == PTIER_OK)
        return true;
    for (size_t at = 0; at < length; at += BLOCK) {
        size_t part = length - at < BLOCK ? length - at : BLOCK;
        memset(data + at, 0, part);
        PTIER_IGNORE(l2_shard_read(shard, offset + at, data + at, part)); /* what there is of it */
    }
    return false;
}

ptier_status
l2_shard_unlink(const char *directory, const l2_shard *shard, ptier_error *error)
{
    char path[PTIER_PATH_MAX];
    shard_path(path, directory, shard->number);
    if (!l2_shard_in_place(directory, shard))
        return PTIER_OK;
    if (unlink(path) && errno != ENOENT)
        return ptier_fail_errno(error, errno, "cannot delete %s", path);
    return ptier_sync_directory(directory, error);
}

ptier_status
l2_shard_set_aside(const char *directory, uint32_t number, ptier_error *error)
{
    char path[PTIER_PATH_MAX], aside[PTIER_PATH_MAX + 8];
    shard_path(path, directory, number);
    (void)snprintf(aside, sizeof aside, "%s.aside", path);
    if (rename(path, aside) && errno != ENOENT)
        return ptier_fail_errno(error, errno, "cannot rename %s", path);
    return ptier_sync_directory(directory, error);
}

static int
compare_numbers(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* "shard_00000012.jsonl" gives 12; anything that is not spelled exactly so, or that leaves no
 * numbers for those that follow, 0. */
static uint32_t
number_of(const char *name)
{
    char again[32];
    if (strncmp(name, "shard_", 6) != 0)
        return 0;
    unsigned long number = strtoul(name + 6, NULL, 10);
    (void)snprintf(again, sizeof again, "shard_%08lu.jsonl", number);
    return number <= NUMBER_MAX && strcmp(name, again) == 0 ? (uint32_t)number : 0;
}

ptier_status
l2_make_directory(const char *directory, ptier_error *error)
{
    char parent[PTIER_PATH_MAX];
    struct stat info;
    if (stat(directory, &info) == 0 && S_ISDIR(info.st_mode))
        return PTIER_OK;
    ptier_status status = ptier_make_directories(directory, error);
    if (status)
        return status;
    (void)snprintf(parent, sizeof parent, "%s", directory);
    return ptier_sync_directory(dirname(parent), error);
}

ptier_status
l2_shard_list(const char *directory, uint32_t **numbers, size_t *count, ptier_error *error)
{
    *numbers = NULL;
    *count = 0;
    ptier_status status = l2_make_directory(directory, error);
    if (status)
        return status;
    DIR *dir = opendir(directory);
    if (!dir)
        return ptier_fail_errno(error, errno, "cannot read %s", directory);
    for (struct dirent *item; !status && (item = readdir(dir));) {
        uint32_t number = number_of(item->d_name);
        struct stat info;
        if (number == 0 || fstatat(dirfd(dir), item->d_name, &info, 0) || !S_ISREG(info.st_mode))
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
