/*
 * The token file: who may call, with which role. One line each, of words between blanks:
 *
 *     ROLE NAME HASH [EXPIRY]        # from '#' on: a comment
 *
 * ROLE is reader, rotator or admin; NAME has 1 to 64 letters, digits, and `.`, `-`, `_`, and is
 * there once; HASH is the token's SHA-256 in 64 lower-case hex digits; EXPIRY is a day
 * (2027-01-31: from its first second on, UTC) or an instant (2027-01-31T12:00:00Z) from which on
 * the token is refused. Not thread-safe.
 */
#ifndef PTIER_TOKEN_FILE_H
#define PTIER_TOKEN_FILE_H

#include "role.h"
#include "token.h"

#define PTIER_TOKEN_NAME_MAX  64
#define PTIER_TOKENS_MAX      1000
#define PTIER_TOKEN_FILE_MAX  ((size_t)256 * 1024)
#define PTIER_TOKEN_TIME_TEXT 21 /* 2027-01-31T12:00:00Z and NUL */

typedef struct ptier_token_entry {
    ptier_role role;
    char name[PTIER_TOKEN_NAME_MAX + 1];
    uint8_t hash[PTIER_TOKEN_HASH];
    int64_t expires_s; /* Unix time; 0: never */
} ptier_token_entry;

typedef struct ptier_token_list {
    ptier_token_entry *entries; /* owned */
    size_t count;
} ptier_token_list;

void ptier_token_list_fini(ptier_token_list *list);

/*
 * Reads the whole file. NOT_FOUND: there is none. FAILED_PRECONDITION: it belongs to somebody other
 * than root and this process's user, or others than its owner may write to it: whoever can write to
 * it is admin. INVALID_ARGUMENT: names the line. On failure *list is empty.
 */
PTIER_MUST_CHECK ptier_status ptier_token_file_read(const char *path, ptier_token_list *list,
                                                    ptier_error *error);

/*
 * Adds a line, or takes those of `name` away; comments and other lines stay as they are. The file
 * is replaced as a whole (temporary file, fsync, rename), 0600, under a lock beside it, so that two
 * writers at a time both count. add makes a missing file. ALREADY_EXISTS: there is one of this
 * name; NOT_FOUND: none.
 */
PTIER_MUST_CHECK ptier_status ptier_token_file_add(const char *path, const ptier_token_entry *entry,
                                                   ptier_error *error);
PTIER_MUST_CHECK ptier_status ptier_token_file_remove(const char *path, const char *name,
                                                      ptier_error *error);

PTIER_MUST_CHECK bool ptier_token_name_valid(const char *name);

/* A day or an instant as above. False: neither, or not in 1970 to 9999. */
PTIER_MUST_CHECK bool ptier_token_time_parse(const char *text, int64_t *time_s);
void ptier_token_time_text(int64_t time_s, char text[PTIER_TOKEN_TIME_TEXT]);

#endif
