/* Small questions about bytes from outside. Thread-safe, no state. */
#ifndef PTIER_TEXT_UTIL_H
#define PTIER_TEXT_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Well-formed UTF-8 (no overlong forms, no surrogates) without NUL. */
bool ptier_text_valid(const char *text, size_t length);

bool ptier_text_has_control(const char *text, size_t length);

/* Narrows [*text, *text + *length) by the spaces and tabs at its ends. */
void ptier_text_trim(const char **text, size_t *length);

/*
 * Times as people write them: ISO 8601 ("2026-08-22T18:26:26.792Z", with a space, without a zone =
 * UTC, date only) or digits: seconds, or milliseconds from 10^11 on. False when it is none, or
 * before 1970 or after 9999.
 */
bool ptier_time_parse(const char *text, size_t length, int64_t *ms);

/* "2026-08-22T18:26:26.792Z" with NUL. False outside 1970..9999. */
#define PTIER_TIME_TEXT 25
bool ptier_time_format(int64_t ms, char text[PTIER_TIME_TEXT]);

/* malloc family for buffers that may hold credentials: what is given back is wiped first. */
void *ptier_wiping_realloc(void *old, size_t size);
void ptier_wiping_free(void *memory);

#endif
