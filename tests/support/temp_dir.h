/* Directories that tests make and remove, and the files in them. Failures end the test program. */
#ifndef PTIER_TEST_TEMP_DIR_H
#define PTIER_TEST_TEMP_DIR_H

#include <stdbool.h>
#include <stddef.h>

#define PTIER_TEST_PATH 256

/* Makes a new directory under /tmp (or TMPDIR). */
void ptier_test_dir_make(char path[PTIER_TEST_PATH]);

/* Removes it with all that is in it. */
void ptier_test_dir_remove(const char *path);

/* Whether any file below the directory contains these bytes. */
bool ptier_test_dir_contains(const char *path, const char *text);

/* The whole file, malloc'ed and NUL-terminated. */
char *ptier_test_file_read(const char *path, size_t *length);
void ptier_test_file_write(const char *path, const void *data, size_t length);

/* Copies the files of one directory into another one (made if missing), one level of directories
 * deep. */
void ptier_test_dir_copy(const char *from, const char *to);

#endif
