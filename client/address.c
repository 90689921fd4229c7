/* Which addresses this library can dial. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "tls.h"
#include "transport.h"

static ptier_status
check_ipc(const char *url, const char *path, ptier_error *error)
{
    if (path[0] != '/')
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "address %s: the path of a socket must be absolute, as in "
                          "ipc:///run/proxytier/rpc.sock",
                          url);
    if (strlen(path) >= sizeof((struct sockaddr_un *)0)->sun_path)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "address %s: the path of a socket has at most %zu bytes", url,
                          sizeof((struct sockaddr_un *)0)->sun_path - 1);
    return PTIER_OK;
}

static ptier_status
check_network(const char *url, ptier_error *error)
{
    nng_url *parts = NULL;
    ptier_status status = PTIER_OK;
    char *end = NULL;
    int rv = nng_url_parse(&parts, url);
    if (rv == NNG_ENOMEM)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    long port = rv == 0 && parts->u_port ? strtol(parts->u_port, &end, 10) : 0;
    if (rv != 0 || !parts->u_hostname || parts->u_hostname[0] == '\0' || port < 1 || port > 65535 ||
        *end != '\0' || strlen(parts->u_requri) > 1) /* "/" is fine */
        status =
            ptier_fail(error, PTIER_INVALID_ARGUMENT,
                       "address %s: give host and port, as in tls+tcp://cache.example:7443", url);
    if (rv == 0)
        nng_url_free(parts);
    return status;
}

ptier_status
ptier_transport_check_url(const char *url, ptier_error *error)
{
    if (strlen(url) > 512)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "address of the daemon is longer than 512 bytes");
    if (strncmp(url, "ipc://", 6) == 0)
        return check_ipc(url, url + 6, error);
    if (strncmp(url, "tcp://", 6) == 0 || ptier_tls_is_url(url))
        return check_network(url, error);
    return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                      "address %s: use ipc:///path, tls+tcp://host:port or tcp://127.0.0.1:port",
                      url);
}

ptier_status
ptier_event_address(const char *url, const char *offered, char *address, size_t room)
{
    static const char *const wildcards[] = {"0.0.0.0:", "*:", "[::]:"};
    const char *host = strstr(offered, "://"), *ours = strstr(url, "://");
    int length = snprintf(address, room, "%s", offered);
    if (strncmp(offered, "ipc:", 4) != 0 && host && ours)
        for (size_t i = 0; i < sizeof wildcards / sizeof *wildcards; i++)
            if (strncmp(host + 3, wildcards[i], strlen(wildcards[i])) == 0) {
                const char *port = strrchr(ours + 3, ':');
                length = snprintf(address, room, "%.*s%.*s:%s", (int)(host + 3 - offered), offered,
                                  port ? (int)(port - ours - 3) : 0, ours + 3,
                                  host + 3 + strlen(wildcards[i]));
            }
    return length >= 0 && (size_t)length < room ? PTIER_OK : PTIER_INVALID_ARGUMENT;
}
