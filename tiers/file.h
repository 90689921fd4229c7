/* Files: errno's translator, durable replacement, paths. Thread-safe (no state). */
#ifndef PTIER_FILE_H
#define PTIER_FILE_H

#include <stddef.h>
#include <sys/types.h>

#include <proxytier/status.h>

#define PTIER_PATH_MAX 4096

/* The status of an errno value. */
ptier_status ptier_status_of_errno(int number);

/* ptier_fail with the system's reason appended. */
PTIER_PRINTF(3, 4)
ptier_status ptier_fail_errno(ptier_error *error, int number, const char *format, ...);

/* Up to `room` bytes of an open file, for what is small: how many, or -1 and errno. By read(), so
 * that no buffer of stdio keeps a secret. */
PTIER_MUST_CHECK ssize_t ptier_read_all(int file, void *bytes, size_t room);

PTIER_MUST_CHECK ptier_status ptier_sync_directory(const char *path, ptier_error *error);

/* Replaces `directory`/`name` with these bytes: temporary file, fsync, rename, fsync of the
 * directory. 0600. */
PTIER_MUST_CHECK ptier_status ptier_replace_file(const char *directory, const char *name,
                                                 const void *data, size_t length,
                                                 ptier_error *error);

/* mkdir -p with mode 0700 for what is made. */
PTIER_MUST_CHECK ptier_status ptier_make_directories(const char *path, ptier_error *error);

#endif
