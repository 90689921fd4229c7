/* See users.h. */
#include "users.h"

#include <errno.h>
#include <grp.h>
#include <stdbool.h>
#include <stdlib.h>

#include "user_id.h"

void
ptier_user_list_fini(ptier_user_list *list)
{
    free(list->uids);
    *list = (ptier_user_list){0};
}

static ptier_status
add(ptier_user_list *list, uint32_t uid, ptier_error *error)
{
    uint32_t *grown = realloc(list->uids, (list->count + 1) * sizeof *grown);
    if (!grown)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    list->uids = grown;
    grown[list->count++] = uid;
    return PTIER_OK;
}

static ptier_status
add_members(const struct group *group, ptier_user_list *list, ptier_error *error)
{
    ptier_status status = PTIER_OK;
    for (char *const *member = group->gr_mem; *member && status == PTIER_OK; member++) {
        uint32_t uid;
        status = ptier_user_id(*member, &uid, error);
        if (status == PTIER_OK)
            status = add(list, uid, error);
        else if (status == PTIER_NOT_FOUND)
            status = PTIER_OK;
    }
    return status;
}

static ptier_status
find_group(const char *name, ptier_user_list *list, ptier_error *error)
{
    bool by_number = ptier_id_number(name, &list->gid);
    for (size_t room = PTIER_ID_BUFFER_FIRST; room <= PTIER_ID_BUFFER_MAX; room *= 4) {
        struct group group, *found = NULL;
        ptier_status status = PTIER_OK;
        char *buffer = malloc(room);
        int problem = !buffer     ? ENOMEM
                      : by_number ? getgrgid_r(list->gid, &group, buffer, room, &found)
                                  : getgrnam_r(name, &group, buffer, room, &found);
        if (found) {
            list->gid = group.gr_gid;
            status = add_members(&group, list, error);
        }
        free(buffer);
        if (found || (by_number && problem != ERANGE && problem != ENOMEM))
            return status; /* a number needs no name */
        if (problem == ENOMEM)
            return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
        if (problem != ERANGE)
            break;
    }
    return ptier_fail(error, PTIER_NOT_FOUND, "there is no group '%.60s'", name);
}

ptier_status
ptier_users_find(const char *const *users, size_t count, const char *group, ptier_user_list *list,
                 ptier_error *error)
{
    ptier_status status = PTIER_OK;
    *list = (ptier_user_list){0};
    for (size_t i = 0; i < count && status == PTIER_OK; i++) {
        uint32_t uid;
        status = ptier_id_number(users[i], &uid) ? PTIER_OK : ptier_user_id(users[i], &uid, error);
        if (status == PTIER_OK)
            status = add(list, uid, error);
    }
    if (status == PTIER_OK && group)
        status = find_group(group, list, error);
    if (status != PTIER_OK)
        ptier_user_list_fini(list);
    return status;
}
