/* See auth.h. The list of tokens is replaced as a whole, under a lock that calls share. */
#include "auth.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <openssl/crypto.h>

#include "hash.h"
#include "login_limit.h"
#include "token_file.h"
#include "users.h"

#define IDENTITY_TOKEN ((uint64_t)1 << 63)

struct ptier_auth {
    ptier_log *log;
    char *token_file;
    ptier_user_list users;
    ptier_peer_rules rules;
    ptier_login_limit limit;
    struct stat seen; /* the file as it was looked at last */
    size_t expired;   /* of its tokens, at the last look */
    _Atomic uint64_t version;

    pthread_rwlock_t lock; /* guards tokens */
    ptier_token_list tokens;
};

static int64_t
monotonic_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- the file ---- */

/* Whether the file is another one than at the last look. A missing one is all zero. */
static bool
look(ptier_auth *auth)
{
    struct stat now;
    if (stat(auth->token_file, &now) != 0)
        memset(&now, 0, sizeof now);
    const struct stat *seen = &auth->seen;
    bool same = now.st_ino == seen->st_ino && now.st_dev == seen->st_dev &&
                now.st_size == seen->st_size && now.st_mode == seen->st_mode &&
                now.st_uid == seen->st_uid && now.st_mtim.tv_sec == seen->st_mtim.tv_sec &&
                now.st_mtim.tv_nsec == seen->st_mtim.tv_nsec &&
                now.st_ctim.tv_sec == seen->st_ctim.tv_sec &&
                now.st_ctim.tv_nsec == seen->st_ctim.tv_nsec;
    auth->seen = now;
    return !same;
}

static ptier_status
load(ptier_auth *auth, ptier_error *error)
{
    ptier_token_list fresh;
    ptier_status status = ptier_token_file_read(auth->token_file, &fresh, error);
    if (status != PTIER_OK)
        return status;
    pthread_rwlock_wrlock(&auth->lock);
    ptier_token_list old = auth->tokens;
    auth->tokens = fresh;
    atomic_fetch_add(&auth->version, 1);
    pthread_rwlock_unlock(&auth->lock);
    ptier_token_list_fini(&old);
    return PTIER_OK;
}

static bool
has_expired(const ptier_token_entry *entry)
{
    return entry->expires_s && time(NULL) >= entry->expires_s;
}

/* The list is this thread's to change, so it needs no lock to look at it. */
static void
note_expiry(ptier_auth *auth)
{
    size_t expired = 0;
    for (size_t i = 0; i < auth->tokens.count; i++)
        expired += has_expired(&auth->tokens.entries[i]);
    if (expired != auth->expired)
        atomic_fetch_add(&auth->version, 1);
    auth->expired = expired;
}

static void
reload_file(ptier_auth *auth)
{
    ptier_error error = {0};
    if (load(auth, &error) == PTIER_OK)
        ptier_log_write(auth->log, PTIER_LOG_INFO, "tokens_loaded", "%zu tokens of %s",
                        auth->tokens.count, auth->token_file);
    else
        ptier_log_write(auth->log, PTIER_LOG_ERROR, "tokens_kept",
                        "%s; the tokens known so far stay good", error.message);
}

void
ptier_auth_reload(ptier_auth *auth, bool always)
{
    if (!auth->token_file)
        return;
    if (look(auth) || always)
        reload_file(auth);
    note_expiry(auth);
}

/* ---- life ---- */

/* No other run's, so that nobody takes the rights of one for those of another. */
static uint64_t
first_version(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

ptier_status
ptier_auth_create(const ptier_auth_options *options, ptier_log *log, ptier_auth **auth,
                  ptier_error *error)
{
    ptier_auth *made = calloc(1, sizeof *made);
    if (!made)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    ptier_status status = ptier_login_limit_init(&made->limit, options->failed_logins, error);
    if (status != PTIER_OK) {
        free(made);
        return status;
    }
    pthread_rwlock_init(&made->lock, NULL);
    made->log = log;
    atomic_init(&made->version, first_version());
    status = ptier_users_find(options->rotator_users, options->rotator_user_count,
                              options->rotator_group, &made->users, error);
    made->rules = (ptier_peer_rules){.rotator_uids = made->users.uids,
                                     .rotator_uid_count = made->users.count,
                                     .has_gid = options->rotator_group != NULL,
                                     .rotator_gid = made->users.gid};
    if (status == PTIER_OK && options->token_file) {
        made->token_file = strdup(options->token_file);
        if (made->token_file) {
            (void)look(made);
            status = load(made, error);
            if (status == PTIER_NOT_FOUND)
                status = ptier_fail(error, status,
                                    "token-file: there is no %.200s: `proxytier token add --file "
                                    "%.200s` makes it",
                                    made->token_file, made->token_file);
        } else {
            status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
        }
    }
    if (status != PTIER_OK) {
        ptier_auth_destroy(made);
        return status;
    }
    *auth = made;
    return PTIER_OK;
}

void
ptier_auth_destroy(ptier_auth *auth)
{
    if (!auth)
        return;
    ptier_token_list_fini(&auth->tokens);
    ptier_user_list_fini(&auth->users);
    pthread_rwlock_destroy(&auth->lock);
    ptier_login_limit_fini(&auth->limit);
    free(auth->token_file);
    free(auth);
}

/* ---- asking ---- */

bool
ptier_auth_has_tokens(const ptier_auth *auth)
{
    return auth && auth->token_file;
}

uint64_t
ptier_auth_version(const ptier_auth *auth)
{
    return ptier_auth_has_tokens(auth) ? atomic_load(&auth->version) : 0;
}

ptier_peer
ptier_auth_peer(const ptier_auth *auth, nng_pipe pipe)
{
    return ptier_peer_of(auth ? &auth->rules : NULL, pipe);
}

ptier_peer
ptier_auth_peer_of_user(const ptier_auth *auth, uint32_t uid, uint32_t gid)
{
    return ptier_peer_of_user(auth ? &auth->rules : NULL, uid, gid);
}

uint32_t
ptier_auth_socket_group(const ptier_auth *auth)
{
    return auth && auth->rules.has_gid ? auth->rules.rotator_gid : UINT32_MAX;
}

void
ptier_auth_check_socket(const ptier_auth *auth, const char *url)
{
    const char *path = url + strlen("ipc://");
    for (size_t i = 0; auth && i < auth->users.count; i++)
        if (!ptier_user_reaches(auth->users.uids[i], path))
            ptier_log_write(auth->log, PTIER_LOG_WARN, "rotator_shut_out",
                            "user %u may be rotator, but not open %s: take rotator-group, or "
                            "socket-mode 666 and a directory that others may enter",
                            (unsigned)auth->users.uids[i], path);
}

typedef enum login_outcome { LOGIN_OK, LOGIN_WRONG, LOGIN_EXPIRED } login_outcome;

/* All of the list is compared, each entry in constant time: how long it takes says nothing. */
static login_outcome
find_token(ptier_auth *auth, const char *token, ptier_token_entry *found)
{
    uint8_t hash[PTIER_TOKEN_HASH];
    bool known = false;
    if (!ptier_token_hash(token, hash))
        return LOGIN_WRONG;
    pthread_rwlock_rdlock(&auth->lock);
    for (size_t i = 0; i < auth->tokens.count; i++)
        if (CRYPTO_memcmp(auth->tokens.entries[i].hash, hash, sizeof hash) == 0) {
            *found = auth->tokens.entries[i];
            known = true;
        }
    pthread_rwlock_unlock(&auth->lock);
    if (!known)
        return LOGIN_WRONG;
    return has_expired(found) ? LOGIN_EXPIRED : LOGIN_OK;
}

static void
log_failure(ptier_auth *auth, const ptier_peer *peer, const ptier_login_verdict *verdict,
            const char *expired)
{
    char who[PTIER_PEER_TEXT], more[64] = "";
    ptier_peer_text(peer, who);
    if (verdict->unlogged)
        (void)snprintf(more, sizeof more, "; %u more since its last line",
                       (unsigned)verdict->unlogged);
    if (expired)
        ptier_log_write(auth->log, PTIER_LOG_WARN, "login_failed", "%s: the token %s has expired%s",
                        who, expired, more);
    else
        ptier_log_write(auth->log, PTIER_LOG_WARN, "login_failed", "%s: a wrong token%s", who,
                        more);
}

ptier_status
ptier_auth_login(ptier_auth *auth, const ptier_peer *peer, const char *token, ptier_role *role,
                 uint64_t *identity, ptier_error *error)
{
    ptier_token_entry entry;
    *role = PTIER_ROLE_NONE;
    if (!ptier_auth_has_tokens(auth))
        return ptier_fail(error, PTIER_UNAUTHENTICATED,
                          "this daemon knows no tokens (its option token-file): leave the token "
                          "out, or set that up");
    login_outcome outcome = find_token(auth, token, &entry);
    if (outcome == LOGIN_OK) {
        *role = entry.role;
        *identity = IDENTITY_TOKEN | ptier_hash_key(entry.name);
        return PTIER_OK;
    }
    ptier_login_verdict verdict = ptier_login_failed(&auth->limit, peer, monotonic_ms());
    if (verdict.log)
        log_failure(auth, peer, &verdict, outcome == LOGIN_EXPIRED ? entry.name : NULL);
    if (verdict.limited) /* not a matter of waiting: the same token fails again */
        return ptier_fail(error, PTIER_UNAUTHENTICATED,
                          "the token is wrong or expired; too many failed logins to say which: ask "
                          "whoever runs the daemon for a new one");
    return ptier_fail(error, PTIER_UNAUTHENTICATED,
                      outcome == LOGIN_EXPIRED
                          ? "the token has expired: ask whoever runs the daemon for a new one"
                          : "the token is wrong");
}
