/* See users.h. */
#include "users.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BUFFER_FIRST ((size_t)4096)
#define BUFFER_MAX   ((size_t)16 * 1024 * 1024) /* groups may have very many members */

void
ptier_user_list_fini(ptier_user_list *list)
{
    free(list->uids);
    *list = (ptier_user_list){0};
}

static bool
is_number(const char *text, uint32_t *number)
{
    char *end;
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || value >= UINT32_MAX) /* -1 is nobody */
        return false;
    *number = (uint32_t)value;
    return true;
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

/* NOT_FOUND without a message: there is no such user. */
static ptier_status
find_user(const char *name, uint32_t *uid, ptier_error *error)
{
    ptier_status status = PTIER_RESOURCE_EXHAUSTED;
    for (size_t room = BUFFER_FIRST; room <= BUFFER_MAX; room *= 4) {
        struct passwd user, *found = NULL;
        char *buffer = malloc(room);
        int problem = buffer ? getpwnam_r(name, &user, buffer, room, &found) : ENOMEM;
        if (found) {
            *uid = user.pw_uid;
            status = PTIER_OK;
        } else {
            status = PTIER_NOT_FOUND;
        }
        free(buffer);
        if (problem != ERANGE)
            return problem == ENOMEM ? ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory")
                                     : status;
    }
    return status;
}

static ptier_status
add_members(const struct group *group, ptier_user_list *list, ptier_error *error)
{
    ptier_status status = PTIER_OK;
    for (char *const *member = group->gr_mem; *member && status == PTIER_OK; member++) {
        uint32_t uid;
        status = find_user(*member, &uid, error);
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
    bool by_number = is_number(name, &list->gid);
    for (size_t room = BUFFER_FIRST; room <= BUFFER_MAX; room *= 4) {
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
        status = is_number(users[i], &uid) ? PTIER_OK : find_user(users[i], &uid, error);
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
    char *buffer = malloc(BUFFER_FIRST * 4);
    who->group_count = 0;
    if (buffer && getpwuid_r(who->uid, &user, buffer, BUFFER_FIRST * 4, &found) == 0 && found) {
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
