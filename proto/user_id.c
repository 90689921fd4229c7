/* See user_id.h. */
#include "user_id.h"

#include <errno.h>
#include <pwd.h>
#include <stdlib.h>

bool
ptier_id_number(const char *text, uint32_t *number)
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

ptier_status
ptier_user_id(const char *name, uint32_t *uid, ptier_error *error)
{
    for (size_t room = PTIER_ID_BUFFER_FIRST; room <= PTIER_ID_BUFFER_MAX; room *= 4) {
        struct passwd user, *found = NULL;
        char *buffer = malloc(room);
        int problem = buffer ? getpwnam_r(name, &user, buffer, room, &found) : ENOMEM;
        if (found)
            *uid = user.pw_uid;
        free(buffer);
        if (found)
            return PTIER_OK;
        if (problem == ENOMEM)
            return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
        if (problem != ERANGE)
            break;
    }
    return ptier_fail(error, PTIER_NOT_FOUND, "there is no user '%.60s'", name);
}
