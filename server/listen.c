/* See listen.h. */
#include "listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define IPC "ipc://"
#define TCP "tcp://"
#define TLS "tls+tcp://"

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

/* By number, so that no name that merely begins like one is taken for it. */
static bool
is_loopback(const char *host)
{
    char number[INET_ADDRSTRLEN];
    struct in_addr address;
    size_t length = strcspn(host, ":");
    if (strncasecmp(host, "localhost:", 10) == 0 || strncmp(host, "[::1]:", 6) == 0)
        return true;
    if (length >= sizeof number)
        return false;
    memcpy(number, host, length);
    number[length] = '\0';
    return inet_pton(AF_INET, number, &address) == 1 && ntohl(address.s_addr) >> 24 == 127;
}

static ptier_status
check_ipc(const char *url, ptier_error *error)
{
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

/* What follows the last colon, outside the brackets of an IPv6 address. */
static ptier_status
check_port(const char *url, const char *host, ptier_error *error)
{
    const char *colon = strrchr(host, ':'), *bracket = strrchr(host, ']');
    if (!colon || (bracket && bracket > colon) || colon == host)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "%s: the port is missing", url);
    size_t digits = strspn(colon + 1, "0123456789");
    long port =
        digits > 0 && digits <= 5 && colon[1 + digits] == '\0' ? strtol(colon + 1, NULL, 10) : 0;
    if (port < 1 || port > 65535)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "%s: a port is a number from 1 to 65535",
                          url);
    return PTIER_OK;
}

ptier_status
ptier_listen_check(const char *url, const ptier_listen_rules *rules, bool events,
                   ptier_error *error)
{
    if (strncmp(url, IPC, strlen(IPC)) == 0)
        return check_ipc(url, error);
    if (strncmp(url, TLS, strlen(TLS)) == 0) {
        if (!rules->tls)
            return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                              "%s: needs tls-cert and tls-key: `proxytier tls-init` makes them",
                              url);
        if (events && !rules->mutual)
            return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                              "%s: events over tls are for clients with a certificate only: set "
                              "tls-ca",
                              url);
        return check_port(url, url + strlen(TLS), error);
    }
    if (events)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "%s: events go over ipc:///path and tls+tcp://host:port only, or none",
                          url);
    if (strncmp(url, TCP, strlen(TCP)) != 0)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "%s: addresses are ipc:///path, tls+tcp://host:port or "
                          "tcp://127.0.0.1:port",
                          url);
    if (!rules->insecure_tcp && !is_loopback(url + strlen(TCP)))
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "%s: plain tcp is for loopback only (127.0.0.1, [::1] or localhost): "
                          "anybody on the way could read tokens and passwords. Take tls+tcp://, or "
                          "say insecure-tcp = yes",
                          url);
    return check_port(url, url + strlen(TCP), error);
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

/* errno of connecting to the socket; 0: somebody listens there, and *connected is to be closed. */
static int
try_connect(const char *path, int *connected)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, path, strlen(path) + 1); /* ptier_listen_check looked at the length */
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return errno;
    int code = connect(fd, (struct sockaddr *)&address, sizeof address) == 0 ? 0 : errno;
    if (code == 0)
        *connected = fd;
    else
        (void)close(fd); /* nothing was written */
    return code;
}

bool
ptier_listen_is_taken(const char *url)
{
    struct ucred owner = {0};
    socklen_t length = sizeof owner;
    if (strncmp(url, IPC, strlen(IPC)) != 0)
        return false;
    int fd = -1;
    bool taken = try_connect(url + strlen(IPC), &fd) == 0 &&
                 getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &owner, &length) == 0 &&
                 owner.pid != getpid();
    if (fd >= 0)
        (void)close(fd); /* nothing was written */
    return taken;
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
    int fd = -1, code = try_connect(path, &fd);
    if (fd >= 0)
        (void)close(fd); /* nothing was written */
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

/* Members of the group come in by it, so it is set before anybody is told that we listen. */
static ptier_status
give_to_group(const char *url, const ptier_listen_options *options, ptier_error *error)
{
    char path[sizeof((struct sockaddr_un *)0)->sun_path];
    if (options->socket_group == UINT32_MAX)
        return PTIER_OK;
    (void)snprintf(path, sizeof path, "%s", url + strlen(IPC)); /* fits: it was checked */
    if (lchown(path, (uid_t)-1, options->socket_group) != 0)
        return ptier_fail(error, PTIER_PERMISSION_DENIED,
                          "cannot give %s to the group %u (rotator-group): %s", path,
                          (unsigned)options->socket_group, strerror(errno));
    char *slash = strrchr(path, '/');
    if (!options->directory_group || slash == path)
        return PTIER_OK;
    *slash = '\0';
    if (lchown(path, (uid_t)-1, options->socket_group) != 0)
        return ptier_fail(error, PTIER_PERMISSION_DENIED,
                          "cannot give %s to the group %u (rotator-group): %s", path,
                          (unsigned)options->socket_group, strerror(errno));
    return PTIER_OK;
}

static int
start_listener(nng_socket socket, const char *url, const ptier_listen_options *options,
               nng_listener *listener)
{
    ptier_door door = ptier_door_of(url);
    int rv = nng_listener_create(listener, socket, url);
    if (rv != 0)
        return rv;
    rv = nng_listener_set_size(*listener, NNG_OPT_RECVMAXSZ, PTIER_MESSAGE_MAX);
    if (rv == 0 && door == PTIER_DOOR_IPC)
        rv = nng_listener_set_int(*listener, NNG_OPT_IPC_PERMISSIONS, (int)options->socket_mode);
    if (rv == 0 && door == PTIER_DOOR_TLS)
        rv = options->tls ? nng_listener_set_ptr(*listener, NNG_OPT_TLS_CONFIG, options->tls)
                          : NNG_EINVAL;
    if (rv == 0)
        rv = nng_listener_start(*listener, 0);
    if (rv != 0)
        (void)nng_listener_close(*listener); /* it never listened */
    return rv;
}

ptier_status
ptier_listen(nng_socket socket, const char *url, const ptier_listen_options *options,
             nng_listener *listener, ptier_error *error)
{
    ptier_status status = ptier_listen_prepare(url, false, error);
    if (status != PTIER_OK)
        return status;
    int rv = start_listener(socket, url, options, listener);
    if (rv == NNG_EADDRINUSE)
        return in_use(url, error);
    if (rv != 0)
        return ptier_fail(error, ptier_status_from_nng(rv), "cannot listen on %s: %s", url,
                          nng_strerror(rv));
    if (ptier_door_of(url) != PTIER_DOOR_IPC)
        return PTIER_OK;
    status = give_to_group(url, options, error);
    if (status != PTIER_OK)
        (void)nng_listener_close(*listener); /* nobody was told of it */
    return status;
}

/* Nobody can connect before it listens, so that its mode and group count from the beginning. */
static ptier_status
bind_path(int fd, const char *url, const ptier_listen_options *options, ptier_error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = url + strlen(IPC);
    memcpy(address.sun_path, path, strlen(path) + 1); /* ptier_listen_check looked at the length */
    if (unlink(path) != 0 && errno != ENOENT)         /* a dead daemon's: check_path looked */
        return ptier_fail(error, PTIER_PERMISSION_DENIED, "cannot replace %s: %s", path,
                          strerror(errno));
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0)
        return errno == EADDRINUSE
                   ? in_use(url, error)
                   : ptier_fail(error,
                                errno == EACCES ? PTIER_PERMISSION_DENIED : PTIER_UNAVAILABLE,
                                "cannot listen on %s: %s", url, strerror(errno));
    if (chmod(path, (mode_t)options->socket_mode) != 0)
        return ptier_fail(error, PTIER_UNAVAILABLE, "cannot set the mode of %s: %s", path,
                          strerror(errno));
    return give_to_group(url, options, error);
}

ptier_status
ptier_listen_unix(const char *url, const ptier_listen_options *options,
                  ptier_listen_socket *listening, ptier_error *error)
{
    struct stat there;
    *listening = (ptier_listen_socket){.fd = -1};
    ptier_status status = ptier_listen_prepare(url, false, error);
    if (status != PTIER_OK)
        return status;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "cannot open a socket: %s",
                          strerror(errno));
    status = bind_path(fd, url, options, error);
    if (status == PTIER_OK && (lstat(url + strlen(IPC), &there) != 0 || listen(fd, SOMAXCONN) != 0))
        status =
            ptier_fail(error, PTIER_UNAVAILABLE, "cannot listen on %s: %s", url, strerror(errno));
    if (status != PTIER_OK) {
        (void)close(fd); /* nobody was told of it */
        return status;
    }
    *listening = (ptier_listen_socket){.fd = fd, .device = there.st_dev, .inode = there.st_ino};
    return PTIER_OK;
}

void
ptier_listen_unix_close(ptier_listen_socket *listening, const char *url)
{
    struct stat there;
    const char *path = url + strlen(IPC);
    if (listening->fd < 0)
        return;
    if (lstat(path, &there) == 0 && there.st_dev == listening->device &&
        there.st_ino == listening->inode)
        (void)unlink(path);     /* whoever comes next replaces it, too */
    (void)close(listening->fd); /* nothing was written */
    listening->fd = -1;
}
