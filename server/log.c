/* See log.h. */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 2048
#define PAUSE_MS       1000 /* of what may come as a flood */

struct ptier_log {
    int fd;
    ptier_log_level level;
};

static const char *const level_names[] = {"ERROR", "WARN ", "INFO ", "DEBUG"};

static ptier_status
open_failed(const char *path, ptier_error *error)
{
    int code = errno;
    ptier_status status = PTIER_UNAVAILABLE;
    if (code == EACCES || code == EPERM || code == EROFS)
        status = PTIER_PERMISSION_DENIED;
    else if (code == ENOENT || code == ENOTDIR)
        status = PTIER_NOT_FOUND;
    return ptier_fail(error, status, "cannot open the log file %s: %s", path, strerror(code));
}

ptier_status
ptier_log_open(const char *path, ptier_log_level level, ptier_log **log, ptier_error *error)
{
    ptier_log *made = malloc(sizeof *made);
    if (!made)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    made->level = level;
    made->fd = STDERR_FILENO;
    if (path)
        made->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (made->fd < 0) {
        free(made);
        return open_failed(path, error);
    }
    *log = made;
    return PTIER_OK;
}

void
ptier_log_close(ptier_log *log)
{
    if (!log)
        return;
    if (log->fd != STDERR_FILENO)
        (void)close(log->fd); /* nothing left to do about a failure */
    free(log);
}

static size_t
write_prefix(char *line, size_t room, ptier_log_level level, const char *event)
{
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t length = strftime(line, room, "%Y-%m-%dT%H:%M:%S", &utc);
    int more = snprintf(line + length, room - length, ".%03ldZ %s %s  ", now.tv_nsec / 1000000,
                        level_names[level], event);
    if (more < 0)
        return length;
    length += (size_t)more;
    return length < room ? length : room - 1;
}

/* The second byte of U+0080 to U+009F in UTF-8: control characters that terminals obey, too. */
static bool
is_c1(char byte)
{
    return (unsigned char)byte >= 0x80 && (unsigned char)byte <= 0x9f;
}

/* One line out, whatever the text is. */
static void
write_line(ptier_log *log, char line[LINE_MAX_BYTES], size_t length)
{
    if (length > LINE_MAX_BYTES - 2)
        length = LINE_MAX_BYTES - 2;
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = ' ';
        else if ((unsigned char)line[i] == 0xc2 && i + 1 < length && is_c1(line[i + 1]))
            line[i] = line[i + 1] = ' ';
    line[length++] = '\n';
    ssize_t written;
    do
        written = write(log->fd, line, length);
    while (written < 0 && errno == EINTR);
    /* A log that cannot be written must not stop the service. */
}

bool
ptier_log_enabled(const ptier_log *log, ptier_log_level level)
{
    return log && level <= log->level && level >= PTIER_LOG_ERROR;
}

void
ptier_log_write(ptier_log *log, ptier_log_level level, const char *event, const char *format, ...)
{
    if (!ptier_log_enabled(log, level))
        return;
    char line[LINE_MAX_BYTES];
    size_t length = write_prefix(line, sizeof line, level, event);
    va_list args;
    va_start(args, format);
    int more = vsnprintf(line + length, sizeof line - length, format, args);
    va_end(args);
    write_line(log, line, length + (more > 0 ? (size_t)more : 0));
}

uint64_t
ptier_log_count(ptier_log_pace *pace, int64_t now_ms)
{
    atomic_fetch_add(&pace->untold, 1);
    int64_t last = atomic_load(&pace->told_ms);
    if ((last != 0 && now_ms - last < PAUSE_MS) ||
        !atomic_compare_exchange_strong(&pace->told_ms, &last, now_ms))
        return 0;
    return atomic_exchange(&pace->untold, 0);
}

void
ptier_log_from_cache(void *context, ptier_log_level level, const char *event, const char *text)
{
    ptier_log_write(context, level, event, "%s", text);
}
