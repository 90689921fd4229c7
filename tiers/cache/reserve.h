/*
 * Room on the disk for the next start: the file `reserve`. A start has to save `state` and to open
 * the database, and so would fail on a disk that is full by then, although all that the cache has
 * could be read. The file is given up while a cache opens, and taken again once it is open. No
 * threads: at open and close, and by who brings a tier back.
 */
#ifndef PTIER_RESERVE_H
#define PTIER_RESERVE_H

#include <stdint.h>

#include <proxytier/status.h>

enum {
    PTIER_RESERVE_BYTES = 256 << 10,
    PTIER_RESERVE_STATE = 32 << 10, /* of them, what the database must not have */
};

/* Has at least so many bytes of the disk. RESOURCE_EXHAUSTED: they are not there; what there was
 * stays. OK as well where the file system promises no room. */
PTIER_MUST_CHECK ptier_status ptier_reserve_grow(const char *directory, uint64_t bytes,
                                                 ptier_error *error);

/* Gives back all but so many bytes, if it has that many. 0: the file goes. */
void ptier_reserve_shrink(const char *directory, uint64_t bytes);

#endif
