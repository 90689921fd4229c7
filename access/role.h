/* The roles of callers. Each may do what the ones before it may. Thread-safe (no state). */
#ifndef PTIER_ROLE_H
#define PTIER_ROLE_H

#include <stdbool.h>

#include <proxytier/status.h>

typedef enum ptier_role {
    PTIER_ROLE_NONE = 0,
    PTIER_ROLE_READER = 1,  /* no credentials in replies */
    PTIER_ROLE_ROTATOR = 2, /* credentials, puts, reports */
    PTIER_ROLE_ADMIN = 3,
} ptier_role;

/* "reader"; "none" for NONE. */
const char *ptier_role_name(ptier_role role);

/* The role of a name; NONE has none. False: it is no role. */
PTIER_MUST_CHECK bool ptier_role_parse(const char *name, ptier_role *role);

#endif
