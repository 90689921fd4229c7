/* Cuts chunks into lines. Not thread-safe. Memory: one line, and only when it spans chunks. */
#ifndef PTIER_LINES_H
#define PTIER_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <proxytier/status.h>

/* One line without its line break; borrowed for the call. text NULL: it was too long. Anything but
 * OK stops. */
typedef ptier_status (*ptier_line_fn)(void *context, const char *text, size_t length,
                                      uint64_t number);

typedef struct ptier_lines {
    ptier_line_fn on_line;
    void *context;
    uint64_t number; /* lines that are complete */
    char *partial;   /* start of a line whose end has not come */
    size_t length, room;
    bool too_long;
} ptier_lines;

void ptier_lines_init(ptier_lines *lines, ptier_line_fn on_line, void *context);
void ptier_lines_fini(ptier_lines *lines);
PTIER_MUST_CHECK ptier_status ptier_lines_feed(ptier_lines *lines, const char *data, size_t length);

/* The last line, when no line break ends it. */
PTIER_MUST_CHECK ptier_status ptier_lines_finish(ptier_lines *lines);

#endif
