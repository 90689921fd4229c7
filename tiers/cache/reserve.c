#include "cache/reserve.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "file.h"

static void
path_in(const char *directory, char path[PTIER_PATH_MAX])
{
    (void)snprintf(path, PTIER_PATH_MAX, "%s/reserve", directory); /* as long as `state` */
}

ptier_status
ptier_reserve_grow(const char *directory, uint64_t bytes, ptier_error *error)
{
    char path[PTIER_PATH_MAX];
    path_in(directory, path);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return ptier_fail_errno(error, errno, "cannot make %s", path);
    int result;
    do
        result = fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)bytes);
    while (result && errno == EINTR);
    int reason = result ? errno : 0;
    close(fd); /* nothing was written */
    if (reason == 0 || reason == EOPNOTSUPP || reason == ENOSYS)
        return PTIER_OK;
    return ptier_fail_errno(error, reason, "no %llu KB are free for %s",
                            (unsigned long long)bytes >> 10, path);
}

void
ptier_reserve_shrink(const char *directory, uint64_t bytes)
{
    char path[PTIER_PATH_MAX];
    ptier_error ignored;
    path_in(directory, path);
    if (unlink(path) == 0 && bytes)
        PTIER_IGNORE(ptier_reserve_grow(directory, bytes, &ignored)); /* there was less */
}
