/* See users.h. */
#include "users.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

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
    return ptier_fail(error, PTIER_NOT_FOUND, "rotator-group: there is no group '%.60s'", name);
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
        if (status == PTIER_NOT_FOUND)
            status = ptier_fail(error, PTIER_NOT_FOUND, "rotator-users: there is no user '%.60s'",
                                users[i]);
        if (status == PTIER_OK)
            status = add(list, uid, error);
    }
    if (status == PTIER_OK && group)
        status = find_group(group, list, error);
    if (status != PTIER_OK)
        ptier_user_list_fini(list);
    return status;
}

/* ---- sockets ---- */

enum { GROUPS_MAX = 256 };

typedef struct account {
    uint32_t uid;
    gid_t groups[GROUPS_MAX];
    int group_count;
} account;

/* A number without a name has no groups. */
static void
find_account(account *who)
{
    struct passwd user, *found = NULL;
    char *buffer = malloc(PTIER_ID_BUFFER_FIRST * 4);
    who->group_count = 0;
    if (buffer && getpwuid_r(who->uid, &user, buffer, PTIER_ID_BUFFER_FIRST * 4, &found) == 0 &&
        found) {
        who->group_count = GROUPS_MAX;
        if (getgrouplist(user.pw_name, user.pw_gid, who->groups, &who->group_count) < 0)
            who->group_count = GROUPS_MAX; /* so many were filled in */
    }
    free(buffer);
}

/* bit: S_IXOTH or S_IWOTH. */
static bool
may(const account *who, const char *path, mode_t bit)
{
    struct stat about;
    if (who->uid == 0 || stat(path, &about) != 0)
        return true;
    if (about.st_uid == who->uid)
        return about.st_mode & bit << 6;
    for (int i = 0; i < who->group_count; i++)
        if (who->groups[i] == about.st_gid)
            return about.st_mode & bit << 3;
    return about.st_mode & bit;
}

bool
ptier_user_reaches(uint32_t uid, const char *path)
{
    char directory[PATH_MAX];
    const char *slash = strrchr(path, '/');
    account who = {.uid = uid};
    if (!slash || (size_t)(slash - path) >= sizeof directory)
        return true;
    memcpy(directory, path, (size_t)(slash - path));
    directory[slash - path] = '\0';
    find_account(&who);
    return may(&who, slash == path ? "/" : directory, S_IXOTH) && may(&who, path, S_IWOTH);
}
