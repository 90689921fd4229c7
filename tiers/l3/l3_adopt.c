/*
 * One database takes the place of another. A database is up to three files, and no rename takes
 * several at once; a WAL that meets another database than its own ruins that. So:
 *  1. the new file gets the name `<path>.adopt`, durably: from now on it is the database;
 *  2. all connections close, so that none of them writes or deletes by the old names later;
 *  3. the old files move away, the database last: `<path>` never stands beside another's WAL;
 *  4. the new one moves in, durably.
 * An open that finds `<path>.adopt` goes on at 3.
 */
#include "l3/l3_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file.h"

#define DAMAGED_MAX 10000

static const char *const companions[] = {"-wal", "-journal", "-shm"};
#define COMPANIONS (sizeof companions / sizeof *companions)

static ptier_status
name(char out[PTIER_PATH_MAX], const char *path, const char *suffix, ptier_error *error)
{
    if ((size_t)snprintf(out, PTIER_PATH_MAX, "%s%s", path, suffix) >= PTIER_PATH_MAX)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "path too long: %.200s", path);
    return PTIER_OK;
}

static ptier_status
move(const char *from, const char *to, ptier_error *error)
{
    if (rename(from, to) == 0 || errno == ENOENT)
        return PTIER_OK;
    return ptier_fail_errno(error, errno, "cannot rename %s to %s", from, to);
}

static ptier_status
take_away(const char *path, ptier_error *error)
{
    if (unlink(path) == 0 || errno == ENOENT)
        return PTIER_OK;
    return ptier_fail_errno(error, errno, "cannot delete %s", path);
}

void
ptier_l3_remove_companions(const char *path)
{
    char file[PTIER_PATH_MAX];
    for (size_t i = 0; i < COMPANIONS; i++)
        if (name(file, path, companions[i], NULL) == PTIER_OK)
            (void)unlink(file); /* usually there is none */
}

ptier_status
ptier_l3_sync_directory_of(const char *path, ptier_error *error)
{
    char directory[PTIER_PATH_MAX];
    ptier_status status = name(directory, path, "", error);
    if (status != PTIER_OK)
        return status;
    char *slash = strrchr(directory, '/');
    if (!slash)
        return ptier_sync_directory(".", error);
    slash[slash == directory] = '\0';
    return ptier_sync_directory(directory, error);
}

/* The first name that is free: neither the database nor its log is overwritten. */
static ptier_status
free_name(const char *path, char kept[PTIER_PATH_MAX], ptier_error *error)
{
    for (int n = 1; n <= DAMAGED_MAX; n++) {
        char suffix[32], log[PTIER_PATH_MAX];
        (void)snprintf(suffix, sizeof suffix, ".damaged-%d", n);
        ptier_status status = name(kept, path, suffix, error);
        if (status == PTIER_OK)
            status = name(log, kept, "-wal", error);
        if (status != PTIER_OK)
            return status;
        if (access(kept, F_OK) && access(log, F_OK))
            return PTIER_OK;
    }
    return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED,
                      "there are %d damaged copies of %s: delete some", DAMAGED_MAX, path);
}

/* Its index of the WAL is of no use: SQLite makes it anew. */
static ptier_status
set_aside(const char *path, ptier_error *error)
{
    char kept[PTIER_PATH_MAX], from[PTIER_PATH_MAX], to[PTIER_PATH_MAX];
    ptier_status status = free_name(path, kept, error);
    for (size_t i = 0; status == PTIER_OK && i < COMPANIONS; i++) {
        status = name(from, path, companions[i], error);
        if (status == PTIER_OK)
            status = name(to, kept, companions[i], error);
        if (status == PTIER_OK)
            status =
                strcmp(companions[i], "-shm") == 0 ? take_away(from, error) : move(from, to, error);
    }
    return status == PTIER_OK ? move(path, kept, error) : status;
}

static ptier_status
delete_old(const char *path, ptier_error *error)
{
    char file[PTIER_PATH_MAX];
    ptier_status status = PTIER_OK;
    for (size_t i = 0; status == PTIER_OK && i < COMPANIONS; i++) {
        status = name(file, path, companions[i], error);
        if (status == PTIER_OK)
            status = take_away(file, error);
    }
    return status == PTIER_OK ? take_away(path, error) : status;
}

ptier_status
ptier_l3_finish_adoption(const ptier_l3 *l3, bool keep_old, ptier_error *error)
{
    char adopted[PTIER_PATH_MAX];
    ptier_status status = name(adopted, l3->path, ".adopt", error);
    if (status != PTIER_OK || access(adopted, F_OK))
        return status;
    status = keep_old ? set_aside(l3->path, error) : delete_old(l3->path, error);
    if (status == PTIER_OK)
        status = ptier_l3_sync_directory_of(l3->path, error);
    if (status == PTIER_OK)
        status = move(adopted, l3->path, error);
    return status == PTIER_OK ? ptier_l3_sync_directory_of(l3->path, error) : status;
}

/* The point of no return. */
static ptier_status
announce(const ptier_l3 *l3, const char *new_path, ptier_error *error)
{
    char adopted[PTIER_PATH_MAX];
    ptier_status status = name(adopted, l3->path, ".adopt", error);
    if (status != PTIER_OK)
        return status;
    if (rename(new_path, adopted))
        return ptier_fail_errno(error, errno, "cannot rename %s to %s", new_path, adopted);
    return ptier_l3_sync_directory_of(l3->path, error);
}

/* What is deleted while it is open takes no time: a large file's blocks are freed at its end. */
static int
keep_open(const char *path, const char *suffix)
{
    char file[PTIER_PATH_MAX];
    return name(file, path, suffix, NULL) ? -1 : open(file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
}

static void
close_file(int file)
{
    if (file >= 0)
        (void)close(file); /* nothing was written by it */
}

ptier_status
ptier_l3_adopt(ptier_tier *tier, const char *new_path, bool keep_old, ptier_error *error)
{
    ptier_l3 *l3 = ptier_l3_of(tier);
    ptier_status status = announce(l3, new_path, error);
    if (status != PTIER_OK)
        return status;
    pthread_mutex_lock(&l3->audit_mutex);
    ptier_l3_readers_lock(l3);
    ptier_l3_leave(l3); /* into a file that goes, nothing needs to be checkpointed */
    /* Only now: closing it would release the locks that connections have on the same file. */
    int old = keep_open(l3->path, ""), old_wal = keep_open(l3->path, "-wal");
    status = ptier_l3_finish_adoption(l3, keep_old, error);
    if (status == PTIER_OK)
        status = ptier_l3_connect(l3, error);
    ptier_l3_readers_unlock(l3);
    pthread_mutex_unlock(&l3->audit_mutex);
    close_file(old);
    close_file(old_wal);
    return status;
}
