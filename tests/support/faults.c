#include "support/faults.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

ptier_test_faults ptier_test_fault;

#pragma GCC visibility push(default)
/* NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): the system header's are __fd
 * and the like. */

int
fdatasync(int fd)
{
    int reason = atomic_load(&ptier_test_fault.fdatasync);
    if (!reason)
        return (int)syscall(SYS_fdatasync, fd);
    errno = reason;
    return -1;
}

int
fallocate(int fd, int mode, off_t offset, off_t length)
{
    int reason = atomic_load(&ptier_test_fault.fallocate);
    if (!reason)
        return (int)syscall(SYS_fallocate, fd, mode, offset, length);
    errno = reason;
    return -1;
}

ssize_t
pread(int fd, void *data, size_t length, off_t offset)
{
    int reason = atomic_load(&ptier_test_fault.pread);
    if (!reason)
        return syscall(SYS_pread64, fd, data, length, offset);
    errno = reason;
    return -1;
}

ssize_t
write(int fd, const void *data, size_t length)
{
    int reason = atomic_load(&ptier_test_fault.write);
    if (!reason)
        return syscall(SYS_write, fd, data, length);
    long left = atomic_load(&ptier_test_fault.write_after);
    if (left > 0) {
        ssize_t written = syscall(SYS_write, fd, data, (long)length < left ? (long)length : left);
        atomic_store(&ptier_test_fault.write_after, left - (written > 0 ? written : 0));
        return written;
    }
    errno = reason;
    return -1;
}

/* NOLINTEND(readability-inconsistent-declaration-parameter-name) */
#pragma GCC visibility pop
