/*
 * One entry as one line of JSON: the form of exports and backups, which the importer reads back
 * (docs/FORMATS.md). Thread-safe, no state.
 */
#ifndef PTIER_EXPORT_LINE_H
#define PTIER_EXPORT_LINE_H

#include <proxytier/types.h>

#define PTIER_EXPORT_VERSION 1

/*
 * Writes the line with its line break and without a NUL. A token (NULL: none) stands in for the
 * plain text of the record. Returns the length it takes; nothing is written when that is over
 * `room`. Everything is borrowed.
 */
size_t ptier_export_line(const ptier_record *record, const char *username_token,
                         const char *password_token, char *line, size_t room);

#endif
