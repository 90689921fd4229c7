/* See listen.h. */
#include "listen.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define IPC "ipc://"
#define TCP "tcp://"

ptier_status
ptier_status_from_nng(int code)
{
    switch (code) {
    case 0:
        return PTIER_OK;
    case NNG_ENOMEM:
    case NNG_ENOSPC:
    case NNG_ENOFILES:
        return PTIER_RESOURCE_EXHAUSTED;
    case NNG_EINVAL:
    case NNG_EADDRINVAL:
    case NNG_EMSGSIZE:
        return PTIER_INVALID_ARGUMENT;
    case NNG_ETIMEDOUT:
        return PTIER_DEADLINE_EXCEEDED;
    case NNG_EADDRINUSE:
        return PTIER_ALREADY_EXISTS;
    case NNG_EPERM:
        return PTIER_PERMISSION_DENIED;
    case NNG_ENOENT:
        return PTIER_NOT_FOUND;
    case NNG_ECANCELED:
        return PTIER_CANCELLED;
    case NNG_ENOTSUP:
        return PTIER_UNIMPLEMENTED;
    case NNG_EINTERNAL:
        return PTIER_INTERNAL;
    default:
        return PTIER_UNAVAILABLE;
    }
}

static bool
is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strncasecmp(host, "localhost:", 10) == 0 ||
           strncmp(host, "[::1]:", 6) == 0;
}

ptier_status
ptier_listen_check(const char *url, bool allow_tcp, ptier_error *error)
{
    if (strncmp(url, IPC, strlen(IPC)) == 0) {
        const char *path = url + strlen(IPC);
        if (*path != '/')
            return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                              "%s: an ipc address needs an absolute path", url);
        if (strlen(path) >= sizeof((struct sockaddr_un *)0)->sun_path)
            return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                              "%s: the path of a socket has at most %zu bytes", url,
                              sizeof((struct sockaddr_un *)0)->sun_path - 1);
        return PTIER_OK;
    }
    if (!allow_tcp)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "%s: events go over ipc:///path only, or none", url);
    if (strncmp(url, TCP, strlen(TCP)) != 0)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "%s: addresses are ipc:///path or tcp://127.0.0.1:port", url);
    if (!is_loopback(url + strlen(TCP)))
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "%s: plain tcp is for loopback only: 127.0.0.1, [::1] or localhost", url);
    if (!strrchr(url + strlen(TCP), ':'))
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "%s: the port is missing", url);
    return PTIER_OK;
}

/* The socket's directory: ours or root's, or else somebody could put another socket in our place.
 */
static ptier_status
check_directory(const char *url, bool make, ptier_error *error)
{
    char directory[sizeof((struct sockaddr_un *)0)->sun_path];
    struct stat link, target;
    const char *path = url + strlen(IPC);
    size_t length = (size_t)(strrchr(path, '/') - path);
    if (length == 0)
        return PTIER_OK;
    memcpy(directory, path, length);
    directory[length] = '\0';
    if (make && mkdir(directory, 0750) != 0 && errno != EEXIST)
        return ptier_fail(error, errno == EACCES ? PTIER_PERMISSION_DENIED : PTIER_UNAVAILABLE,
                          "cannot make the directory %s: %s", directory, strerror(errno));
    if (lstat(directory, &link) != 0 || stat(directory, &target) != 0) {
        if (errno == ENOENT)
            return ptier_fail(error, PTIER_NOT_FOUND, "%s: there is no directory %s: make it first",
                              url, directory);
        return ptier_fail(error, PTIER_UNAVAILABLE, "cannot look at %s: %s", directory,
                          strerror(errno));
    }
    if (!S_ISDIR(target.st_mode))
        return ptier_fail(error, PTIER_FAILED_PRECONDITION, "%s is not a directory", directory);
    uid_t us = geteuid();
    if ((link.st_uid != us && link.st_uid != 0) || (target.st_uid != us && target.st_uid != 0))
        return ptier_fail(error, PTIER_PERMISSION_DENIED,
                          "%s belongs to another user: choose another address with --listen",
                          directory);
    return PTIER_OK;
}

static ptier_status
in_use(const char *url, ptier_error *error)
{
    return ptier_fail(error, PTIER_ALREADY_EXISTS,
                      "%s is in use: stop the other daemon or choose another address", url);
}

/* errno of connecting to the socket; 0: somebody listens there. */
static int
try_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, path, strlen(path) + 1); /* ptier_listen_check looked at the length */
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return errno;
    int code = connect(fd, (struct sockaddr *)&address, sizeof address) == 0 ? 0 : errno;
    (void)close(fd); /* nothing was written */
    return code;
}

/* nng removes whatever has the path and takes no connections, so that is looked at before. */
static ptier_status
check_path(const char *url, ptier_error *error)
{
    const char *path = url + strlen(IPC);
    struct stat there;
    if (lstat(path, &there) != 0)
        return errno == ENOENT ? PTIER_OK
                               : ptier_fail(error, PTIER_UNAVAILABLE, "cannot look at %s: %s", path,
                                            strerror(errno));
    if (!S_ISSOCK(there.st_mode))
        return ptier_fail(error, PTIER_FAILED_PRECONDITION,
                          "%s: there is something that is not a socket: choose another address",
                          url);
    int code = try_connect(path);
    if (code == ECONNREFUSED || code == ENOENT)
        return PTIER_OK; /* a dead daemon's: nng replaces it */
    if (code == EACCES || code == EPERM)
        return ptier_fail(error, PTIER_PERMISSION_DENIED,
                          "%s belongs to another user: choose another address", url);
    return in_use(url, error);
}

ptier_status
ptier_listen_prepare(const char *url, bool make_directory, ptier_error *error)
{
    if (strncmp(url, IPC, strlen(IPC)) != 0)
        return PTIER_OK;
    ptier_status status = check_directory(url, make_directory, error);
    return status == PTIER_OK ? check_path(url, error) : status;
}

ptier_status
ptier_listen(nng_socket socket, const char *url, nng_listener *listener, ptier_error *error)
{
    bool ipc = strncmp(url, IPC, strlen(IPC)) == 0;
    ptier_status status = ptier_listen_prepare(url, false, error);
    if (status != PTIER_OK)
        return status;
    int rv = nng_listener_create(listener, socket, url);
    if (rv == 0) {
        rv = nng_listener_set_size(*listener, NNG_OPT_RECVMAXSZ, PTIER_MESSAGE_MAX);
        if (rv == 0 && ipc)
            rv = nng_listener_set_int(*listener, NNG_OPT_IPC_PERMISSIONS, 0660);
        if (rv == 0)
            rv = nng_listener_start(*listener, 0);
        if (rv != 0)
            (void)nng_listener_close(*listener); /* it never listened */
    }
    if (rv == NNG_EADDRINUSE)
        return in_use(url, error);
    if (rv != 0)
        return ptier_fail(error, ptier_status_from_nng(rv), "cannot listen on %s: %s", url,
                          nng_strerror(rv));
    return PTIER_OK;
}

ptier_role
ptier_peer_role(nng_pipe pipe)
{
    uint64_t uid;
    int rv = nng_pipe_get_uint64(pipe, NNG_OPT_IPC_PEER_UID, &uid);
    if (rv == 0)
        return uid == 0 || uid == geteuid() ? PTIER_ROLE_ADMIN : PTIER_ROLE_NONE;
    if (rv == NNG_ENOTSUP)
        return PTIER_ROLE_ROTATOR; /* loopback tcp, which the configuration asked for */
    return PTIER_ROLE_NONE;
}

/* Any numbers will do that keep the two kinds apart. */
#define IDENTITY_UID ((uint64_t)1 << 32)
#define IDENTITY_TCP ((uint64_t)2 << 32)

ptier_peer
ptier_peer_of(nng_pipe pipe)
{
    ptier_peer peer = {.role = ptier_peer_role(pipe), .identity = IDENTITY_TCP};
    uint64_t uid;
    if (nng_pipe_get_uint64(pipe, NNG_OPT_IPC_PEER_UID, &uid) == 0)
        peer.identity = IDENTITY_UID | (uint32_t)uid;
    return peer;
}
