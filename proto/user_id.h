/* Names of users to numbers, for programs and library alike. May ask the network (NSS).
 * Thread-safe. */
#ifndef PTIER_USER_ID_H
#define PTIER_USER_ID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <proxytier/status.h>

/* What a user's or group's entry may take. */
#define PTIER_ID_BUFFER_FIRST ((size_t)4096)
#define PTIER_ID_BUFFER_MAX   ((size_t)16 * 1024 * 1024) /* groups may have very many members */

/* A whole number that can be the id of a user or group. */
PTIER_MUST_CHECK bool ptier_id_number(const char *text, uint32_t *number);

/* NOT_FOUND: there is no user of this name; one of digits is a name too. */
PTIER_MUST_CHECK ptier_status ptier_user_id(const char *name, uint32_t *uid, ptier_error *error);

#endif
