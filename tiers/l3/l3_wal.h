/* For l3_vfs.c: the WAL's file. Not thread-safe but for different files. */
#ifndef PTIER_L3_WAL_H
#define PTIER_L3_WAL_H

#include <stdbool.h>

#include <sqlite3.h>

/* What a file's struct has to have beyond that of the real VFS. */
int ptier_l3_wal_bytes(void);

/* Gathers what is written to a WAL that the real VFS, whose structs have `real_bytes`, has just
 * opened. One thread at a time. False: it is of another kind than the first one, nothing was done.
 */
bool ptier_l3_wal_take_over(sqlite3_file *file, int real_bytes);

#endif
