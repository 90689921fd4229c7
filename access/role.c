/* See role.h. */
#include "role.h"

#include <string.h>

const char *
ptier_role_name(ptier_role role)
{
    switch (role) {
    case PTIER_ROLE_ADMIN:
        return "admin";
    case PTIER_ROLE_ROTATOR:
        return "rotator";
    case PTIER_ROLE_READER:
        return "reader";
    case PTIER_ROLE_NONE:
        break;
    }
    return "none";
}

bool
ptier_role_parse(const char *name, ptier_role *role)
{
    for (ptier_role known = PTIER_ROLE_READER; known <= PTIER_ROLE_ADMIN; known++)
        if (strcmp(name, ptier_role_name(known)) == 0) {
            *role = known;
            return true;
        }
    return false;
}
