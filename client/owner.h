/*
 * Whose daemon a unix socket may lead to: this user's, root's, or that of the one user who was
 * named. Whoever else listens there has taken the address, and would get token and credentials.
 * The kernel says who began to listen, so that nothing can be put in between. Immutable.
 */
#ifndef PTIER_OWNER_H
#define PTIER_OWNER_H

#include <stdbool.h>
#include <stdint.h>

#include <proxytier/status.h>

#define PTIER_OWNER_UNKNOWN UINT64_MAX

typedef struct ptier_owner {
    uint32_t self; /* who we are: the process may change, and its threads may differ */
    bool named;
    uint32_t uid; /* of the named one */
} ptier_owner;

/* `user`: name or number; NULL or "": that of PROXYTIER_DAEMON_USER, then none. INVALID_ARGUMENT:
 * there is no such user. */
PTIER_MUST_CHECK ptier_status ptier_owner_init(ptier_owner *owner, const char *user,
                                               ptier_error *error);

/* `uid` of the peer of a unix socket; PTIER_OWNER_UNKNOWN is nobody's. */
bool ptier_owner_is_trusted(const ptier_owner *owner, uint64_t uid);

bool ptier_owner_matters(const char *url);

#endif
