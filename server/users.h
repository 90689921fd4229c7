/* Names of users and groups to numbers. May ask the network (NSS): at start only. Thread-safe. */
#ifndef PTIER_USERS_H
#define PTIER_USERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <proxytier/status.h>

typedef struct ptier_user_list {
    uint32_t *uids; /* owned: the named ones, and the members of the group */
    size_t count;
    uint32_t gid; /* of the group, if there is one */
} ptier_user_list;

void ptier_user_list_fini(ptier_user_list *list);

/*
 * `group` may be NULL. Members that are users no more are passed over. NOT_FOUND: a user or the
 * group. On failure *list is empty.
 */
PTIER_MUST_CHECK ptier_status ptier_users_find(const char *const *users, size_t count,
                                               const char *group, ptier_user_list *list,
                                               ptier_error *error);

/* Whether the user may connect to the socket at `path`, by the modes of it and of its directory.
 * What cannot be found out counts as yes. */
bool ptier_user_reaches(uint32_t uid, const char *path);

#endif
