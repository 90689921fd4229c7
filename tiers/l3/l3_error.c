/* SQLite's result codes in our words, and L3's log. */
#include "l3/l3_internal.h"

ptier_status
ptier_l3_status(int code)
{
    if (code == SQLITE_IOERR_NOMEM)
        return PTIER_RESOURCE_EXHAUSTED;
    if (code == SQLITE_IOERR_CORRUPTFS)
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
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return PTIER_DATA_LOSS;
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return PTIER_PERMISSION_DENIED;
    case SQLITE_TOOBIG:
        return PTIER_OUT_OF_RANGE;
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
        return ": the file is damaged; move it away to start with an empty one";
    case PTIER_PERMISSION_DENIED:
        return ": check owner and mode of the file and its directory";
    default:
        return "";
    }
}

ptier_status
ptier_l3_fail(const ptier_l3 *l3, const ptier_l3_conn *conn, int code, const char *what,
              ptier_error *error)
{
    ptier_status status = ptier_l3_status(code);
    const char *said = conn->db && sqlite3_extended_errcode(conn->db) == code
                           ? sqlite3_errmsg(conn->db)
                           : sqlite3_errstr(code);
    return ptier_fail(error, status, "cannot %s database %s: %s (SQLite %d)%s", what, l3->path,
                      said, code, cure(status));
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
