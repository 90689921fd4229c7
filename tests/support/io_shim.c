#include "support/io_shim.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "support/io_journal.h"
#include "support/temp_dir.h"

/* Exported, so that shared libraries find these instead of libc's. */
#define TAKEN_OVER __attribute__((visibility("default")))

enum { FILES = 1024, SYNC_NS = 20000 };

typedef struct open_file {
    bool watched;
    bool appends;
    int node; /* -1: opened before recording */
    char path[PTIER_TEST_PATH];
} open_file;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool watching;
static _Thread_local bool inside; /* this thread's calls are the shim's own */
static struct {
    char directory[PTIER_TEST_PATH];
    size_t length;
    bool recording;
    open_file files[FILES];
    ptier_io_fault fault;
    uint64_t calls, failed;
} io;

_Noreturn static void
refuse(const char *what, const char *path)
{
    (void)fprintf(stderr, "io shim: %s: %s\n", what, path);
    abort();
}

/* ---- who is concerned ---- */

/* The path below the watched directory, with the lock held; NULL: elsewhere. */
static const char *
enter_path(const char *path)
{
    if (!atomic_load(&watching) || inside)
        return NULL;
    pthread_mutex_lock(&lock);
    if (strncmp(path, io.directory, io.length) == 0) {
        const char *below = path + io.length;
        while (*below == '/')
            below++;
        if (*below == '\0')
            return ".";
        if (below != path + io.length)
            return below;
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

/* The file, with the lock held; NULL: another one. */
static open_file *
enter_file(int fd)
{
    if (!atomic_load(&watching) || inside || fd < 0 || fd >= FILES)
        return NULL;
    pthread_mutex_lock(&lock);
    if (io.files[fd].watched)
        return &io.files[fd];
    pthread_mutex_unlock(&lock);
    return NULL;
}

static long
leave(long result)
{
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

/* Whether this call is to fail; errno says with what. */
static bool
fails(unsigned kinds, const char *path)
{
    const ptier_io_fault *f = &io.fault;
    if (!(f->kinds & kinds) || fnmatch(f->pattern, path, 0) != 0)
        return false;
    io.calls++;
    if (f->nth == 0 || io.calls < f->nth || (io.calls > f->nth && !f->lasting))
        return false;
    io.failed++;
    errno = f->error;
    return true;
}

static void
note_open(int fd, const char *path, int flags)
{
    if (fd >= FILES || strlen(path) >= PTIER_TEST_PATH)
        refuse("cannot follow", path);
    open_file *file = &io.files[fd];
    file->watched = true;
    file->appends = flags & O_APPEND;
    file->node = -1;
    strcpy(file->path, path);
    if (!io.recording)
        return;
    file->node = ptier_journal_find(path);
    if (file->node < 0)
        file->node = ptier_journal_create(path, false);
    else if (flags & O_TRUNC)
        ptier_journal_resize(file->node, 0);
}

static int
recorded_node(const open_file *file)
{
    if (file->node < 0)
        refuse("was open before recording", file->path);
    return file->node;
}

/* ---- open, close ---- */

TAKEN_OVER int
open(const char *file, int oflag, ...)
{
    va_list args;
    va_start(args, oflag);
    mode_t mode = oflag & (O_CREAT | __O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    const char *below = enter_path(file);
    if (!below)
        return (int)syscall(SYS_openat, AT_FDCWD, file, oflag, mode);
    if (fails(PTIER_IO_OPEN | ((oflag & O_ACCMODE) == O_RDONLY ? 0 : PTIER_IO_OPEN_WRITE), below))
        return (int)leave(-1);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, file, oflag, mode);
    if (fd >= 0)
        note_open(fd, below, oflag);
    return (int)leave(fd);
}
TAKEN_OVER int open64(const char *file, int oflag, ...) __attribute__((alias("open")));

TAKEN_OVER int
mkostemp(char *template, int flags)
{
    static atomic_uint last;
    char *end = template + strlen(template) - 6;
    for (;;) {
        (void)snprintf(end, 7, "%06x", atomic_fetch_add(&last, 1) & 0xffffff);
        int fd = open(template, O_RDWR | O_CREAT | O_EXCL | flags, 0600);
        if (fd >= 0 || errno != EEXIST)
            return fd;
    }
}

TAKEN_OVER int
close(int fd)
{
    open_file *file = enter_file(fd);
    if (!file)
        return (int)syscall(SYS_close, fd);
    file->watched = false;
    return (int)leave(syscall(SYS_close, fd));
}

/* ---- reading ---- */

TAKEN_OVER ssize_t
read(int fd, void *buf, size_t nbytes)
{
    open_file *file = enter_file(fd);
    if (!file)
        return syscall(SYS_read, fd, buf, nbytes);
    return leave(fails(PTIER_IO_READ, file->path) ? -1 : syscall(SYS_read, fd, buf, nbytes));
}

TAKEN_OVER ssize_t
pread(int fd, void *buf, size_t nbytes, off_t offset)
{
    open_file *file = enter_file(fd);
    if (!file)
        return syscall(SYS_pread64, fd, buf, nbytes, offset);
    return leave(fails(PTIER_IO_READ, file->path) ? -1
                                                  : syscall(SYS_pread64, fd, buf, nbytes, offset));
}
TAKEN_OVER ssize_t pread64(int fd, void *buf, size_t nbytes, off64_t offset)
    __attribute__((alias("pread")));

/* ---- writing ---- */

/* offset -1: where the file stands. */
static ssize_t
write_watched(const open_file *file, int fd, const void *buf, size_t n, off_t offset)
{
    if (fails(PTIER_IO_WRITE, file->path)) {
        if (!io.fault.torn || io.calls > io.fault.nth || n < 2)
            return -1;
        n /= 2;
    }
    ssize_t done =
        offset < 0 ? syscall(SYS_write, fd, buf, n) : syscall(SYS_pwrite64, fd, buf, n, offset);
    if (done <= 0 || !io.recording)
        return done;
    if (offset < 0)
        offset = lseek(fd, 0, SEEK_CUR) - done;
    else if (file->appends)
        refuse("is written to at an offset, although open for appending", file->path);
    ptier_journal_write(recorded_node(file), (uint64_t)offset, buf, (size_t)done);
    return done;
}

TAKEN_OVER ssize_t
write(int fd, const void *buf, size_t n)
{
    open_file *file = enter_file(fd);
    if (!file)
        return syscall(SYS_write, fd, buf, n);
    return leave(write_watched(file, fd, buf, n, -1));
}

TAKEN_OVER ssize_t
pwrite(int fd, const void *buf, size_t n, off_t offset)
{
    open_file *file = enter_file(fd);
    if (!file)
        return syscall(SYS_pwrite64, fd, buf, n, offset);
    return leave(write_watched(file, fd, buf, n, offset));
}
TAKEN_OVER ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t offset)
    __attribute__((alias("pwrite")));

TAKEN_OVER ssize_t
writev(int fd, const struct iovec *iovec, int count)
{
    open_file *file = enter_file(fd);
    if (!file)
        return syscall(SYS_writev, fd, iovec, count);
    size_t length = 0;
    for (int i = 0; i < count; i++)
        length += iovec[i].iov_len;
    char *all = malloc(length ? length : 1), *at = all;
    if (!all)
        refuse("out of memory", file->path);
    for (int i = 0; i < count; at += iovec[i++].iov_len)
        memcpy(at, iovec[i].iov_base, iovec[i].iov_len);
    ssize_t done = write_watched(file, fd, all, length, -1);
    free(all);
    return leave(done);
}

TAKEN_OVER int
ftruncate(int fd, off_t length)
{
    open_file *file = enter_file(fd);
    if (!file)
        return (int)syscall(SYS_ftruncate, fd, length);
    int result =
        fails(PTIER_IO_TRUNCATE, file->path) ? -1 : (int)syscall(SYS_ftruncate, fd, length);
    if (result == 0 && io.recording)
        ptier_journal_resize(recorded_node(file), (uint64_t)length);
    return (int)leave(result);
}
TAKEN_OVER int ftruncate64(int fd, off64_t length) __attribute__((alias("ftruncate")));

TAKEN_OVER int
fallocate(int fd, int mode, off_t offset, off_t len)
{
    open_file *file = enter_file(fd);
    if (!file)
        return (int)syscall(SYS_fallocate, fd, mode, offset, len);
    if (mode & ~FALLOC_FL_KEEP_SIZE)
        refuse("fallocate beyond what the shim knows", file->path);
    int result = fails(PTIER_IO_ALLOCATE, file->path)
                     ? -1
                     : (int)syscall(SYS_fallocate, fd, mode, offset, len);
    if (result == 0 && mode == 0 && io.recording) {
        int node = recorded_node(file);
        if ((uint64_t)(offset + len) > ptier_journal_size(node))
            ptier_journal_resize(node, (uint64_t)(offset + len));
    }
    return (int)leave(result);
}
TAKEN_OVER int fallocate64(int fd, int mode, off64_t offset, off64_t len)
    __attribute__((alias("fallocate")));

TAKEN_OVER int
posix_fallocate(int fd, off_t offset, off_t len)
{
    int before = errno;
    int result = fallocate(fd, 0, offset, len) ? errno : 0;
    errno = before;
    return result;
}
TAKEN_OVER int posix_fallocate64(int fd, off64_t offset, off64_t len)
    __attribute__((alias("posix_fallocate")));

/* It takes a while, in which others write. */
static int
sync_watched(const open_file *file)
{
    int node = file->node;
    size_t covers = ptier_journal_position();
    if (fails(PTIER_IO_SYNC, file->path)) {
        if (io.recording)
            ptier_journal_sync_failed(recorded_node(file));
        return -1;
    }
    if (!io.recording)
        return 0;
    (void)recorded_node(file);
    pthread_mutex_unlock(&lock);
    nanosleep(&(struct timespec){.tv_nsec = SYNC_NS}, NULL);
    pthread_mutex_lock(&lock);
    if (io.recording)
        ptier_journal_sync(node, covers);
    return 0;
}

TAKEN_OVER int
fsync(int fd)
{
    open_file *file = enter_file(fd);
    return file ? (int)leave(sync_watched(file)) : (int)syscall(SYS_fsync, fd);
}

TAKEN_OVER int
fdatasync(int fildes)
{
    open_file *file = enter_file(fildes);
    return file ? (int)leave(sync_watched(file)) : (int)syscall(SYS_fdatasync, fildes);
}

/* ---- names ---- */

TAKEN_OVER int
mkdir(const char *path, mode_t mode)
{
    const char *below = enter_path(path);
    if (!below)
        return (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    int result =
        fails(PTIER_IO_MKDIR, below) ? -1 : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    if (result == 0 && io.recording)
        (void)ptier_journal_create(below, true);
    return (int)leave(result);
}

static int
unlink_watched(const char *path, const char *below, int flags)
{
    int result =
        fails(PTIER_IO_UNLINK, below) ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, flags);
    if (result == 0 && io.recording)
        ptier_journal_unlink(below);
    return (int)leave(result);
}

TAKEN_OVER int
unlink(const char *name)
{
    const char *below = enter_path(name);
    return below ? unlink_watched(name, below, 0) : (int)syscall(SYS_unlinkat, AT_FDCWD, name, 0);
}

TAKEN_OVER int
rmdir(const char *path)
{
    const char *below = enter_path(path);
    return below ? unlink_watched(path, below, AT_REMOVEDIR)
                 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
}

TAKEN_OVER int
remove(const char *filename)
{
    return unlink(filename) == 0 || (errno == EISDIR && rmdir(filename) == 0) ? 0 : -1;
}

/* From or to elsewhere is nothing that the cache does. */
static int
move(long number, const char *from, const char *to,
     void (*record)(const char *below_from, const char *below_to))
{
    const char *below_from = enter_path(from);
    if (!below_from)
        return (int)syscall(number, from, to);
    const char *below_to = to + io.length + 1;
    if (strncmp(to, io.directory, io.length) != 0 || to[io.length] != '/')
        refuse("moves out of the directory", from);
    int result = fails(PTIER_IO_RENAME, below_to) ? -1 : (int)syscall(number, from, to);
    if (result == 0 && io.recording)
        record(below_from, below_to);
    return (int)leave(result);
}

TAKEN_OVER int
rename(const char *old, const char *new)
{
    return move(SYS_rename, old, new, ptier_journal_rename);
}

TAKEN_OVER int
link(const char *from, const char *to)
{
    return move(SYS_link, from, to, ptier_journal_link);
}

/* ---- for tests ---- */

static void
begin_own_calls(void)
{
    pthread_mutex_lock(&lock);
    inside = true;
}

static void
end_own_calls(void)
{
    inside = false;
    pthread_mutex_unlock(&lock);
}

static void
check_nothing_is_open(void)
{
    for (int i = 0; i < FILES; i++)
        if (io.files[i].watched)
            refuse("is still open", io.files[i].path);
}

void
ptier_io_watch(const char *directory)
{
    begin_own_calls();
    check_nothing_is_open();
    ptier_journal_start(NULL);
    memset(&io, 0, sizeof io);
    (void)snprintf(io.directory, sizeof io.directory, "%s", directory);
    io.length = strlen(io.directory);
    atomic_store(&watching, true);
    end_own_calls();
}

void
ptier_io_unwatch(void)
{
    begin_own_calls();
    atomic_store(&watching, false);
    memset(&io, 0, sizeof io);
    ptier_journal_start(NULL);
    end_own_calls();
}

void
ptier_io_record(void)
{
    begin_own_calls();
    check_nothing_is_open();
    ptier_journal_start(io.directory);
    io.recording = true;
    end_own_calls();
}

/* By another process: whoever closes a file of a database gives up all locks that its process has
 * on it. */
void
ptier_io_copy(const char *to)
{
    char command[3 * PTIER_TEST_PATH];
    begin_own_calls();
    (void)snprintf(command, sizeof command, "cp -rp '%s' '%s' && rm -f '%s'/*-shm", io.directory,
                   to, to);
    if (system(command))
        refuse("cannot be copied", io.directory);
    end_own_calls();
}

void
ptier_io_fail(const ptier_io_fault *fault)
{
    pthread_mutex_lock(&lock);
    io.fault = *fault;
    io.calls = io.failed = 0;
    pthread_mutex_unlock(&lock);
}

void
ptier_io_heal(void)
{
    pthread_mutex_lock(&lock);
    io.fault.kinds = 0; /* the counters go on telling what was */
    pthread_mutex_unlock(&lock);
}

static uint64_t
value_of(const uint64_t *counter)
{
    pthread_mutex_lock(&lock);
    uint64_t value = *counter;
    pthread_mutex_unlock(&lock);
    return value;
}

uint64_t
ptier_io_calls(void)
{
    return value_of(&io.calls);
}

uint64_t
ptier_io_failed(void)
{
    return value_of(&io.failed);
}

size_t
ptier_io_position(void)
{
    pthread_mutex_lock(&lock);
    size_t position = ptier_journal_position();
    pthread_mutex_unlock(&lock);
    return position;
}

void
ptier_io_image(size_t cut, uint64_t seed, const char *to)
{
    begin_own_calls();
    ptier_journal_image(cut, seed, to);
    end_own_calls();
}

bool
ptier_io_faithful(void)
{
    begin_own_calls();
    bool same = ptier_journal_same_as(io.directory);
    end_own_calls();
    return same;
}
