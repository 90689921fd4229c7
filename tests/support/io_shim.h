/*
 * The system calls on files, taken over in a test program that links io_shim.c and io_journal.c: by
 * symbol interposition, so that those of libsqlite3 come by as well. Only what is below one watched
 * directory is looked at. Calls below it run one at a time; fsync is never passed on to the kernel
 * (images say what it is good for). libc's own calls (stdio, opendir) and mmap do not come by.
 *
 * What a power loss may leave (an image), after ext4 and xfs as far as POSIX lets them:
 *  - what a successful fsync or fdatasync of the file covers is there: data and length. It covers
 *    what was written before the call began;
 *  - of later writes any 512-byte sector is there or not, in any of the states it went through, and
 *    the length is any that the file had; what lies within it and never reached the disk is zeros;
 *  - a truncation may be missing; together with a later, greater length it is not;
 *  - what was dirty when an fsync failed may be lost, though a later fsync succeeds;
 *  - names (create, link, rename, unlink) are there in order, directory by directory, up to some
 *    point at or after the last fsync of that directory; a rename happens in both or in neither;
 *  - files named *-shm are left out: they are mapped, and nobody reads them after a reboot.
 */
#ifndef PTIER_TEST_IO_SHIM_H
#define PTIER_TEST_IO_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A set of bits. */
typedef enum ptier_io_kind {
    PTIER_IO_OPEN = 1,
    PTIER_IO_READ = 2,
    PTIER_IO_WRITE = 4,
    PTIER_IO_SYNC = 8, /* of files and directories */
    PTIER_IO_TRUNCATE = 16,
    PTIER_IO_ALLOCATE = 32,
    PTIER_IO_RENAME = 64, /* and link */
    PTIER_IO_UNLINK = 128,
    PTIER_IO_MKDIR = 256,
    PTIER_IO_OPEN_WRITE = 512, /* an open that is not only for reading; it is an OPEN, too */
    /* What a read-only file system refuses. */
    PTIER_IO_CHANGE = PTIER_IO_WRITE | PTIER_IO_TRUNCATE | PTIER_IO_ALLOCATE | PTIER_IO_RENAME |
                      PTIER_IO_UNLINK | PTIER_IO_MKDIR | PTIER_IO_OPEN_WRITE,
} ptier_io_kind;

/* Begins with nothing recorded and no fault; no file below `directory` may be open. */
void ptier_io_watch(const char *directory);
void ptier_io_unwatch(void);

/* Copies the directory to the new one `to` at one instant, as a kill -9 would leave it. Without
 * *-shm. */
void ptier_io_copy(const char *to);

/* ---- faults ---- */

typedef struct ptier_io_fault {
    unsigned kinds;      /* ptier_io_kind */
    const char *pattern; /* fnmatch (* matches / too) of the path below the directory, which is ".";
                            borrowed until the next fault or heal */
    uint64_t nth;        /* the call that fails, from now on; 1 the next, 0 none: only count */
    bool lasting;        /* and all after it */
    bool torn;           /* the nth, if a write, writes half; those after it fail */
    int error;           /* errno */
} ptier_io_fault;

void ptier_io_fail(const ptier_io_fault *fault);
void ptier_io_heal(void);
uint64_t ptier_io_calls(void);  /* that kinds and pattern matched since ptier_io_fail */
uint64_t ptier_io_failed(void); /* of these */

/* ---- recording ---- */

/* From now on; what is there counts as synced. No file below the directory may be open. */
void ptier_io_record(void);

/* How many changes have been recorded. A change that returned before is below the position. */
size_t ptier_io_position(void);

/* Makes in the new directory `to` one of the states that a power loss may leave after `cut`
 * changes. */
void ptier_io_image(size_t cut, uint64_t seed, const char *to);

/* Whether the recording says of every file what the directory has: nothing went past the shim. Call
 * it when nobody writes. */
bool ptier_io_faithful(void);

#endif
