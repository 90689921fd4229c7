/* See owner.h. */
#include "owner.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "user_id.h"

ptier_status
ptier_owner_init(ptier_owner *owner, const char *user, ptier_error *error)
{
    ptier_error problem = {.message = ""};
    *owner = (ptier_owner){.self = geteuid()};
    if (!user || !*user)
        user = getenv("PROXYTIER_DAEMON_USER");
    if (!user || !*user)
        return PTIER_OK;
    owner->named = true;
    if (ptier_id_number(user, &owner->uid))
        return PTIER_OK;
    ptier_status status = ptier_user_id(user, &owner->uid, &problem);
    if (status != PTIER_NOT_FOUND)
        return status == PTIER_OK ? PTIER_OK : ptier_fail(error, status, "%s", problem.message);
    return ptier_fail(error, PTIER_INVALID_ARGUMENT, "%s (daemon_user, PROXYTIER_DAEMON_USER)",
                      problem.message);
}

bool
ptier_owner_is_trusted(const ptier_owner *owner, uint64_t uid)
{
    return uid == 0 || uid == owner->self || (owner->named && uid == owner->uid);
}

bool
ptier_owner_matters(const char *url)
{
    return strncmp(url, "ipc://", strlen("ipc://")) == 0;
}
