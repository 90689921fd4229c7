/*
 * Who may do what: roles of tokens and of local users. Any thread may ask; create, reload and
 * destroy belong to one.
 *
 * A token that is given always counts, also for those who would need none: a wrong or expired one
 * is refused even to root, and a reader's makes a reader of root. So a caller never gets other
 * rights than those of the token it was set up with, and notices when that is no longer good.
 */
#ifndef PTIER_AUTH_H
#define PTIER_AUTH_H

#include <proxytier/status.h>

#include "log.h"
#include "peer.h"

typedef struct ptier_auth ptier_auth;

typedef struct ptier_auth_options {
    const char *token_file;           /* NULL: there are no tokens */
    uint32_t failed_logins;           /* at once, of one peer */
    const char *const *rotator_users; /* names or numbers */
    size_t rotator_user_count;
    const char *rotator_group; /* name or number; NULL: none */
} ptier_auth_options;

/* Reads the token file and looks users up. `log` is borrowed until destroy, `options` for the call.
 * NOT_FOUND: a user or the file; else as ptier_token_file_read. */
PTIER_MUST_CHECK ptier_status ptier_auth_create(const ptier_auth_options *options, ptier_log *log,
                                                ptier_auth **auth, ptier_error *error);
void ptier_auth_destroy(ptier_auth *auth);

/*
 * Reads the token file anew if it changed, or `always`; connected callers have their new rights
 * from their next call on. A file that cannot be read, or is wrong, changes nothing but is told in
 * the log.
 */
void ptier_auth_reload(ptier_auth *auth, bool always);

/* Another number after each change of who may do what: of the tokens, and of what time made of them
 * (both as of the last reload). 0: there are no tokens, and nothing changes. NULL is fine. */
uint64_t ptier_auth_version(const ptier_auth *auth);

/* NULL is fine: of an auth with neither tokens nor users. */
bool ptier_auth_has_tokens(const ptier_auth *auth);
ptier_peer ptier_auth_peer(const ptier_auth *auth, nng_pipe pipe);
ptier_peer ptier_auth_peer_of_user(const ptier_auth *auth, uint32_t uid, uint32_t gid);

/* The group of the ipc sockets, or UINT32_MAX: the daemon's. */
uint32_t ptier_auth_socket_group(const ptier_auth *auth);

/* A warning in the log where the modes of the ipc socket `url`, or of its directory, shut out a
 * user who has a role by --rotator-users. */
void ptier_auth_check_socket(const ptier_auth *auth, const char *url);

/*
 * Role and identity of a token that is not empty; NONE and nothing on failure. UNAUTHENTICATED: it
 * is wrong or expired; RESOURCE_EXHAUSTED: the same, too often. Both are counted, and logged
 * without the token.
 */
PTIER_MUST_CHECK ptier_status ptier_auth_login(ptier_auth *auth, const ptier_peer *peer,
                                               const char *token, ptier_role *role,
                                               uint64_t *identity, ptier_error *error);

#endif
