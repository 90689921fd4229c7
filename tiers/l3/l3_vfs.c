/*
 * SQLite's own VFS, but for two things. The WAL is written in larger pieces (l3_wal.c). And it
 * calls a read that fails with EIO a corrupt file system, and that becomes SQLITE_CORRUPT on its
 * way up. For us a disk that fails to read is one that may work again, and nothing is given up for
 * it: such a read is SQLITE_IOERR_READ.
 */
#include "l3/l3_internal.h"
#include "l3/l3_wal.h"

#define VFS_NAME "proxytier"

/* Made once, constant afterwards: SQLite's list of VFSs is the process's. */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static sqlite3_vfs vfs;
static sqlite3_vfs *real;

/* The methods of files as the real VFS gives them, and ours of the same kind: files that are locked
 * have others than those that are not. Entries are written once. */
enum { KINDS = 4 };
static const sqlite3_io_methods *real_methods[KINDS];
static sqlite3_io_methods methods[KINDS];
static pthread_mutex_t methods_mutex = PTHREAD_MUTEX_INITIALIZER;

static int
read_file(sqlite3_file *file, void *data, int length, sqlite3_int64 offset)
{
    const sqlite3_io_methods *theirs = real_methods[file->pMethods - methods];
    int code = theirs->xRead(file, data, length, offset);
    return code == SQLITE_IOERR_CORRUPTFS ? SQLITE_IOERR_READ : code;
}

/* A file of yet another kind keeps what it has. */
static void
take_over(sqlite3_file *file, int flags)
{
    pthread_mutex_lock(&methods_mutex);
    bool done = (flags & SQLITE_OPEN_WAL) && ptier_l3_wal_take_over(file, real->szOsFile);
    for (int i = 0; i < KINDS && !done; i++) {
        if (!real_methods[i]) {
            methods[i] = *file->pMethods;
            methods[i].xRead = read_file;
            real_methods[i] = file->pMethods;
        }
        if (file->pMethods == real_methods[i]) {
            file->pMethods = &methods[i];
            break;
        }
    }
    pthread_mutex_unlock(&methods_mutex);
}

static int
open_file(sqlite3_vfs *self, sqlite3_filename name, sqlite3_file *file, int flags, int *out_flags)
{
    (void)self;
    int code = real->xOpen(real, name, file, flags, out_flags);
    if (code == SQLITE_OK && file->pMethods)
        take_over(file, flags);
    return code;
}

static void
make(void)
{
    real = sqlite3_vfs_find(NULL);
    if (!real)
        return;
    vfs = *real; /* its functions find what they need in pAppData, which is copied, too */
    vfs.pNext = NULL;
    vfs.zName = VFS_NAME;
    vfs.xOpen = open_file;
    vfs.szOsFile += ptier_l3_wal_bytes();
    if (sqlite3_vfs_register(&vfs, 0) != SQLITE_OK)
        real = NULL;
}

const char *
ptier_l3_vfs(void)
{
    pthread_once(&once, make);
    return real ? VFS_NAME : NULL; /* NULL is SQLite's default */
}
