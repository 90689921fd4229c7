#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

ptier_status
ptier_status_of_errno(int number)
{
    switch (number) {
    case ENOENT:
    case ENOTDIR:
        return PTIER_NOT_FOUND;
    case EACCES:
    case EPERM:
    case EROFS:
        return PTIER_PERMISSION_DENIED;
    case ENOSPC:
    case EDQUOT:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
        return PTIER_RESOURCE_EXHAUSTED;
    case EEXIST:
        return PTIER_ALREADY_EXISTS;
    case EINVAL:
    case ENAMETOOLONG:
        return PTIER_INVALID_ARGUMENT;
    default:
        return PTIER_UNAVAILABLE;
    }
}

ptier_status
ptier_fail_errno(ptier_error *error, int number, const char *format, ...)
{
    char text[PTIER_ERROR_MESSAGE_MAX], reason[96];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args); /* cut is fine */
    va_end(args);
    return ptier_fail(error, ptier_status_of_errno(number), "%s: %s", text,
                      strerror_r(number, reason, sizeof reason));
}

ssize_t
ptier_read_all(int file, void *bytes, size_t room)
{
    size_t length = 0;
    while (length < room) {
        ssize_t got = read(file, (char *)bytes + length, room - length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        length += (size_t)got;
    }
    return (ssize_t)length;
}

ptier_status
ptier_sync_directory(const char *path, ptier_error *error)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return ptier_fail_errno(error, errno, "cannot open directory %s", path);
    ptier_status status = PTIER_OK;
    if (fsync(fd))
        status = ptier_fail_errno(error, errno, "cannot sync directory %s", path);
    close(fd);
    return status;
}

static ptier_status
write_and_sync(int fd, const char *path, const char *data, size_t length, ptier_error *error)
{
    while (length) {
        ssize_t written = write(fd, data, length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return ptier_fail_errno(error, written < 0 ? errno : ENOSPC, "cannot write %s", path);
        data += written;
        length -= (size_t)written;
    }
    if (fsync(fd))
        return ptier_fail_errno(error, errno, "cannot sync %s", path);
    return PTIER_OK;
}

ptier_status
ptier_replace_file(const char *directory, const char *name, const void *data, size_t length,
                   ptier_error *error)
{
    char path[PTIER_PATH_MAX], temporary[PTIER_PATH_MAX];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", directory, name) >= sizeof path - 5)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "path too long: %.200s", directory);
    (void)snprintf(temporary, sizeof temporary, "%.*s.tmp", (int)sizeof temporary - 5, path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return ptier_fail_errno(error, errno, "cannot make %s", temporary);
    ptier_status status = write_and_sync(fd, temporary, data, length, error);
    if (close(fd) && !status)
        status = ptier_fail_errno(error, errno, "cannot close %s", temporary);
    if (!status && rename(temporary, path))
        status = ptier_fail_errno(error, errno, "cannot rename %s", temporary);
    if (!status)
        return ptier_sync_directory(directory, error);
    (void)unlink(temporary); /* best effort: it is overwritten next time */
    return status;
}

ptier_status
ptier_make_directories(const char *path, ptier_error *error)
{
    char part[PTIER_PATH_MAX];
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof part)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "not a directory name: '%.200s'", path);
    memcpy(part, path, length + 1);
    for (size_t i = 1; i <= length; i++) {
        if (part[i] != '/' && part[i])
            continue;
        part[i] = 0;
        if (mkdir(part, 0700) && errno != EEXIST)
            return ptier_fail_errno(error, errno, "cannot make directory %s", part);
        if (i < length)
            part[i] = '/';
    }
    struct stat info;
    if (stat(path, &info))
        return ptier_fail_errno(error, errno, "cannot use %s", path);
    if (!S_ISDIR(info.st_mode))
        return ptier_fail(error, PTIER_FAILED_PRECONDITION, "%s is not a directory", path);
    return PTIER_OK;
}
