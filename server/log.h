/*
 * The daemon's log: one line a record, `2026-01-31T12:00:00.123Z INFO  event_name  text`, written
 * with one write(), so that lines of several threads never mix. Thread-safe. Not for signal
 * handlers. No credential may ever get here.
 */
#ifndef PTIER_LOG_H
#define PTIER_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <proxytier/cache.h>
#include <proxytier/status.h>

typedef struct ptier_log ptier_log;

/* path NULL: standard error. PERMISSION_DENIED, NOT_FOUND, UNAVAILABLE: the file. */
PTIER_MUST_CHECK ptier_status ptier_log_open(const char *path, ptier_log_level level,
                                             ptier_log **log, ptier_error *error);
void ptier_log_close(ptier_log *log);

/* Whether a line of this level would be written: for what costs something to put together. */
bool ptier_log_enabled(const ptier_log *log, ptier_log_level level);

/* `event` is a stable name; `text` becomes one line: control characters are replaced, the end is
 * cut at 2 KiB. */
PTIER_PRINTF(4, 5)
void ptier_log_write(ptier_log *log, ptier_log_level level, const char *event, const char *format,
                     ...);

/* A flood of the same thing must not become a flood of lines. Start from zero bytes. Thread-safe.
 */
typedef struct ptier_log_pace {
    _Atomic uint64_t untold; /* since the last line */
    _Atomic int64_t told_ms; /* CLOCK_MONOTONIC; 0: never */
} ptier_log_pace;

/* Counts one. How many there were since the last line, if another one may be written now; else 0.
 */
uint64_t ptier_log_count(ptier_log_pace *pace, int64_t now_ms);

/* For ptier_cache_options.on_log: the context is the ptier_log. */
void ptier_log_from_cache(void *context, ptier_log_level level, const char *event,
                          const char *text);

#endif
