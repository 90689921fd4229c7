/* SQLite's result codes in our words, what they say of the file, and L3's log. */
#include "l3/l3_internal.h"

#include <errno.h>
#include <sys/stat.h>

/* A short read that SQLite does not forgive is a write-ahead log that was cut while it was open. A
 * value that is too long is a damaged length: we write none. */
bool
ptier_l3_is_damage(int code)
{
    int primary = code & 0xff;
    return primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB || primary == SQLITE_TOOBIG ||
           code == SQLITE_IOERR_SHORT_READ;
}

ptier_status
ptier_l3_status(int code)
{
    if (code == SQLITE_IOERR_NOMEM)
        return PTIER_RESOURCE_EXHAUSTED;
    if (ptier_l3_is_damage(code))
        return PTIER_DATA_LOSS;
    switch (code & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return PTIER_OK;
    case SQLITE_FULL:
    case SQLITE_NOMEM:
        return PTIER_RESOURCE_EXHAUSTED;
    case SQLITE_IOERR:
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
        return PTIER_UNAVAILABLE;
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return PTIER_PERMISSION_DENIED;
    default:
        return PTIER_INTERNAL;
    }
}

static const char *
cure(ptier_status status)
{
    switch (status) {
    case PTIER_RESOURCE_EXHAUSTED:
        return ": free some space";
    case PTIER_DATA_LOSS:
        return ": the file is damaged";
    case PTIER_PERMISSION_DENIED:
        return ": check owner and mode of the file and its directory";
    default:
        return "";
    }
}

void
ptier_l3_found_damage(ptier_l3 *l3, const char *format, ...)
{
    int before = atomic_exchange(&l3->condition, PTIER_L3_DAMAGED);
    if (before == PTIER_L3_DAMAGED)
        return;
    char text[PTIER_ERROR_MESSAGE_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args); /* cut is fine */
    va_end(args);
    ptier_l3_log(l3, PTIER_LOG_ERROR, "l3_file_damaged", "database %s is damaged: %s", l3->path,
                 text);
}

static void
found_moved(ptier_l3 *l3)
{
    int sound = PTIER_L3_SOUND;
    if (atomic_compare_exchange_strong(&l3->condition, &sound, PTIER_L3_MOVED))
        ptier_l3_log(l3, PTIER_LOG_ERROR, "l3_file_moved",
                     "database %s or its log was deleted or replaced by somebody else", l3->path);
}

void
ptier_l3_note(ptier_l3 *l3, int code)
{
    if (ptier_l3_is_damage(code))
        ptier_l3_found_damage(l3, "%s (SQLite %d)", sqlite3_errstr(code), code);
    else if (code == SQLITE_READONLY_DBMOVED)
        found_moved(l3);
}

/* ENOENT is an answer; what stat cannot tell for another reason changes nothing. */
static void
compare_file(ptier_l3 *l3, const char *path, bool wal, uint64_t *bytes)
{
    struct stat info;
    bool there = stat(path, &info) == 0;
    if (!there && errno != ENOENT)
        return;
    *bytes += there ? (uint64_t)info.st_size : 0;
    uint64_t number = atomic_load(wal ? &l3->wal_number : &l3->file_number);
    if (number == 0)
        return;
    if (!there || (uint64_t)info.st_ino != number ||
        (uint64_t)info.st_dev != atomic_load(&l3->file_device))
        found_moved(l3);
}

void
ptier_l3_measure(ptier_l3 *l3)
{
    uint64_t bytes = 0;
    compare_file(l3, l3->path, false, &bytes);
    compare_file(l3, l3->wal_path, true, &bytes);
    atomic_store(&l3->bytes, bytes);
}

ptier_status
ptier_l3_fail(ptier_l3 *l3, const ptier_l3_conn *conn, int code, const char *what,
              ptier_error *error)
{
    ptier_l3_note(l3, code);
    ptier_status status = ptier_l3_status(code);
    const char *said = conn->db && sqlite3_extended_errcode(conn->db) == code
                           ? sqlite3_errmsg(conn->db)
                           : sqlite3_errstr(code);
    return ptier_fail(error, status, "cannot %s database %s: %s (SQLite %d)%s", what, l3->path,
                      said, code, cure(status));
}

ptier_status
ptier_l3_closed(const ptier_l3 *l3, ptier_error *error)
{
    if (atomic_load(&l3->condition) == PTIER_L3_DAMAGED)
        return ptier_fail(error, PTIER_DATA_LOSS, "database %s is damaged", l3->path);
    return ptier_fail(error, PTIER_UNAVAILABLE, "database %s could not be opened again", l3->path);
}

ptier_status
ptier_l3_writable(const ptier_l3 *l3, ptier_error *error)
{
    int condition = atomic_load(&l3->condition);
    if (condition == PTIER_L3_DAMAGED || !l3->writer.db)
        return ptier_l3_closed(l3, error);
    if (condition == PTIER_L3_MOVED)
        return ptier_fail(error, PTIER_UNAVAILABLE,
                          "database %s was deleted or replaced by somebody else", l3->path);
    return PTIER_OK;
}

void
ptier_l3_log(const ptier_l3 *l3, ptier_log_level level, const char *event, const char *format, ...)
{
    if (!l3->on_log)
        return;
    char text[PTIER_ERROR_MESSAGE_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args); /* cut is fine */
    va_end(args);
    l3->on_log(l3->log_context, level, event, text);
}
