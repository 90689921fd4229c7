/*
 * The file of the WAL, as SQLite's VFS has it, but that its frames are written many at a time.
 * SQLite writes each in two pieces, 24 bytes and a page, that lie across the pages of the system's
 * cache: two calls, and three pages touched, for one. Frames that are appended are gathered here up
 * to the one that commits, which its header says: with it they are written, before SQLite tells
 * anybody of them. What else is written, over older frames, is never kept back.
 */
#include "l3/l3_wal.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define GATHER_BYTES  ((size_t)128 * 1024)
#define WAL_HEADER    32
#define FRAME_HEADER  24
#define PAGE_SIZE_AT  8 /* in the WAL's header; */
#define COMMIT_AT     4 /* ... in a frame's: pages of the database, if it commits, or else 0 */
#define PAGE_SIZE_MAX 65536

typedef struct wal_state {
    const sqlite3_io_methods *theirs;
    uint8_t *bytes; /* owned; NULL: nothing was gathered yet */
    size_t length;
    sqlite3_int64 from;      /* where they belong */
    sqlite3_int64 end;       /* of what was written last; gathered bytes included */
    sqlite3_int64 commit_to; /* end of a frame that commits */
    uint32_t page;           /* bytes; 0: not known yet */
    bool lost;               /* gathered frames could not be written: what follows them may not */
} wal_state;

/* Filled once, constant afterwards: all WALs have the same methods. */
static const sqlite3_io_methods *real_methods;
static sqlite3_io_methods methods;
static int state_at; /* bytes from the start of a file's struct */

int
ptier_l3_wal_bytes(void)
{
    return (int)sizeof(wal_state);
}

static wal_state *
state_of(sqlite3_file *file)
{
    return (wal_state *)(void *)((char *)file + state_at);
}

static int
write_gathered(sqlite3_file *file)
{
    wal_state *w = state_of(file);
    size_t length = w->length;
    if (length == 0)
        return SQLITE_OK;
    w->length = 0;
    int code = w->theirs->xWrite(file, w->bytes, (int)length, w->from);
    w->lost = code != SQLITE_OK;
    return code;
}

static uint32_t
big_endian(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void
learn_page_size(wal_state *w, const uint8_t header[WAL_HEADER])
{
    uint32_t page = big_endian(header + PAGE_SIZE_AT);
    w->page = page >= 512 && page <= PAGE_SIZE_MAX ? page : 0;
}

/* Notes a frame that commits. False: nothing is known of frames. */
static bool
look_at(sqlite3_file *file, const uint8_t *data, int amount, sqlite3_int64 offset)
{
    wal_state *w = state_of(file);
    uint8_t header[WAL_HEADER];
    if (offset == 0 && amount == WAL_HEADER)
        learn_page_size(w, data);
    else if (!w->page && w->theirs->xRead(file, header, WAL_HEADER, 0) == SQLITE_OK)
        learn_page_size(w, header);
    if (!w->page)
        return false;
    if (amount == FRAME_HEADER && (offset - WAL_HEADER) % (FRAME_HEADER + w->page) == 0 &&
        big_endian(data + COMMIT_AT) != 0)
        w->commit_to = offset + FRAME_HEADER + w->page;
    return true;
}

static int
write_wal(sqlite3_file *file, const void *data, int amount, sqlite3_int64 offset)
{
    wal_state *w = state_of(file);
    size_t size = (size_t)amount;
    bool appended = offset == w->end && offset != 0;
    bool known = look_at(file, data, amount, offset);
    if (!appended)
        w->lost = false; /* SQLite has gone back */
    else if (w->lost)
        return SQLITE_IOERR_WRITE;
    if (!w->bytes)
        w->bytes = malloc(GATHER_BYTES);
    int code = SQLITE_OK;
    if (!appended || w->length + size > GATHER_BYTES)
        code = write_gathered(file);
    if (code != SQLITE_OK)
        return code;
    w->end = offset + amount;
    if (!appended || !known || !w->bytes || size > GATHER_BYTES)
        return w->theirs->xWrite(file, data, amount, offset);
    if (w->length == 0)
        w->from = offset;
    memcpy(w->bytes + w->length, data, size);
    w->length += size;
    return w->end == w->commit_to ? write_gathered(file) : SQLITE_OK;
}

/* ---- all else finds the file as SQLite left it ---- */

static int
read_wal(sqlite3_file *file, void *data, int amount, sqlite3_int64 offset)
{
    int code = write_gathered(file);
    if (code == SQLITE_OK)
        code = state_of(file)->theirs->xRead(file, data, amount, offset);
    return code == SQLITE_IOERR_CORRUPTFS ? SQLITE_IOERR_READ : code; /* as in l3_vfs.c */
}

static int
truncate_wal(sqlite3_file *file, sqlite3_int64 size)
{
    int code = write_gathered(file);
    return code == SQLITE_OK ? state_of(file)->theirs->xTruncate(file, size) : code;
}

static int
sync_wal(sqlite3_file *file, int flags)
{
    int code = write_gathered(file);
    return code == SQLITE_OK ? state_of(file)->theirs->xSync(file, flags) : code;
}

static int
measure_wal(sqlite3_file *file, sqlite3_int64 *size)
{
    int code = write_gathered(file);
    return code == SQLITE_OK ? state_of(file)->theirs->xFileSize(file, size) : code;
}

/* What is gathered here is of no transaction that was committed. */
static int
close_wal(sqlite3_file *file)
{
    wal_state *w = state_of(file);
    free(w->bytes);
    w->bytes = NULL;
    w->length = 0;
    return w->theirs->xClose(file);
}

bool
ptier_l3_wal_take_over(sqlite3_file *file, int real_bytes)
{
    if (!real_methods) {
        methods = *file->pMethods;
        methods.xRead = read_wal;
        methods.xWrite = write_wal;
        methods.xTruncate = truncate_wal;
        methods.xSync = sync_wal;
        methods.xFileSize = measure_wal;
        methods.xClose = close_wal;
        state_at = real_bytes;
        real_methods = file->pMethods;
    }
    if (file->pMethods != real_methods)
        return false;
    *state_of(file) = (wal_state){.theirs = real_methods};
    file->pMethods = &methods;
    return true;
}
