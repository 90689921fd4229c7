#include "http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define REQUEST_MAX 4096
#define ANSWER_MAX  (256 * 1024) /* more of a body is not waited for */

static double
now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

__attribute__((format(printf, 2, 3))) static bool
failed(http_result *result, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(result->error, sizeof result->error, format, args); /* cut is fine */
    va_end(args);
    return false;
}

/* http://1.2.3.4:8080 or http://[::1]:8080 */
static bool
parse_address(const char *proxy_url, struct sockaddr_storage *address, socklen_t *length)
{
    char host[INET6_ADDRSTRLEN], *end;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;
    struct sockaddr_in *v4 = (struct sockaddr_in *)address;
    int used = 0;
    bool six = sscanf(proxy_url, "http://[%45[0-9a-fA-F:.]]:%n", host, &used) == 1 && used;
    if (!six && (sscanf(proxy_url, "http://%45[0-9.]:%n", host, &used) != 1 || !used))
        return false;
    unsigned long port = strtoul(proxy_url + used, &end, 10);
    if (end == proxy_url + used || (*end && *end != '/') || port < 1 || port > 65535)
        return false;
    memset(address, 0, sizeof *address);
    address->ss_family = six ? AF_INET6 : AF_INET;
    *length = six ? sizeof *v6 : sizeof *v4;
    *(six ? &v6->sin6_port : &v4->sin_port) = htons((uint16_t)port);
    return inet_pton(address->ss_family, host,
                     six ? (void *)&v6->sin6_addr : (void *)&v4->sin_addr) == 1;
}

bool
http_proxy_is_loopback(const char *proxy_url)
{
    struct sockaddr_storage address;
    socklen_t length;
    if (!parse_address(proxy_url, &address, &length))
        return false;
    if (address.ss_family == AF_INET)
        return ntohl(((struct sockaddr_in *)&address)->sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&((struct sockaddr_in6 *)&address)->sin6_addr);
}

static void
base64(const char *text, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t length = strlen(text);
    for (size_t i = 0; i < length; i += 3) {
        uint32_t bits = (uint32_t)(unsigned char)text[i] << 16;
        if (i + 1 < length)
            bits |= (uint32_t)(unsigned char)text[i + 1] << 8;
        if (i + 2 < length)
            bits |= (unsigned char)text[i + 2];
        *out++ = digits[bits >> 18];
        *out++ = digits[bits >> 12 & 63];
        *out++ = i + 1 < length ? digits[bits >> 6 & 63] : '=';
        *out++ = i + 2 < length ? digits[bits & 63] : '=';
    }
    *out = '\0';
}

/* Returns the length, or 0 when it does not fit. */
static size_t
write_request(char *request, const char *target, const char *username, const char *password)
{
    const char *host = strncmp(target, "http://", 7) == 0 ? target + 7 : target;
    int host_length = (int)strcspn(host, "/");
    char authorization[2048] = "";
    if (username) {
        char plain[1100], encoded[1500];
        int n = snprintf(plain, sizeof plain, "%s:%s", username, password ? password : "");
        if (n < 0 || (size_t)n >= sizeof plain)
            return 0;
        base64(plain, encoded);
        (void)snprintf(authorization, sizeof authorization, "Proxy-Authorization: Basic %s\r\n",
                       encoded); /* fits: 1,500 + 29 */
    }
    int n = snprintf(request, REQUEST_MAX,
                     "GET %s HTTP/1.1\r\nHost: %.*s\r\n%sUser-Agent: proxytier-rotator\r\n"
                     "Connection: close\r\n\r\n",
                     target, host_length, host, authorization);
    return n > 0 && n < REQUEST_MAX ? (size_t)n : 0;
}

/* Waits until the socket is ready; sets errno to ETIMEDOUT when the deadline comes first. */
static bool
wait_for(int fd, short events, double deadline)
{
    for (;;) {
        double left = deadline - now_ms();
        struct pollfd poll_fd = {.fd = fd, .events = events};
        int ready = left > 0 ? poll(&poll_fd, 1, (int)left + 1) : 0;
        if (ready > 0)
            return true;
        if (ready == 0)
            errno = ETIMEDOUT;
        if (errno != EINTR)
            return false;
    }
}

static bool
connect_by(int fd, const struct sockaddr_storage *address, socklen_t length, double deadline)
{
    int error = 0;
    socklen_t size = sizeof error;
    if (connect(fd, (const struct sockaddr *)address, length) == 0)
        return true;
    if (errno != EINPROGRESS || !wait_for(fd, POLLOUT, deadline))
        return false;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
        return false;
    errno = error;
    return error == 0;
}

static bool
send_by(int fd, const char *data, size_t length, double deadline)
{
    while (length) {
        ssize_t n = send(fd, data, length, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return false;
        if (n < 0 && !wait_for(fd, POLLOUT, deadline))
            return false;
        if (n > 0) {
            data += n;
            length -= (size_t)n;
        }
    }
    return true;
}

/* Reads to the end of the answer (we asked for Connection: close) and keeps its first line in
 * `line`. */
static bool
receive_by(int fd, char *line, size_t room, double deadline)
{
    char chunk[4096];
    size_t total = 0;
    while (total < ANSWER_MAX) {
        ssize_t n = recv(fd, chunk, sizeof chunk, 0);
        if (n == 0)
            break;
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return false;
        if (n < 0 && !wait_for(fd, POLLIN, deadline))
            return false;
        for (ssize_t i = 0; i < n; i++, total++)
            if (total + 1 < room)
                line[total] = chunk[i];
    }
    line[total < room ? total : room - 1] = '\0';
    line[strcspn(line, "\r\n")] = '\0';
    return true;
}

static bool
exchange(int fd, const struct sockaddr_storage *address, socklen_t length, const char *request,
         size_t request_length, double deadline, http_result *result)
{
    char line[128];
    if (!connect_by(fd, address, length, deadline))
        return failed(result, "connect: %s", strerror(errno));
    if (!send_by(fd, request, request_length, deadline))
        return failed(result, "send: %s", strerror(errno));
    if (!receive_by(fd, line, sizeof line, deadline))
        return failed(result, "receive: %s", strerror(errno));
    if (strncmp(line, "HTTP/1.", 7) != 0 || strlen(line) < 12)
        return failed(result, "the proxy closed the connection without an HTTP answer");
    result->status = (int)strtol(line + 9, NULL, 10);
    if (result->status < 200 || result->status > 299)
        return failed(result, "answer %d", result->status);
    return true;
}

bool
http_get_via(const char *proxy_url, const char *username, const char *password, const char *target,
             int timeout_ms, http_result *result)
{
    struct sockaddr_storage address;
    socklen_t length;
    char request[REQUEST_MAX];
    double start = now_ms();
    memset(result, 0, sizeof *result);
    if (!parse_address(proxy_url, &address, &length))
        return failed(result, "not an http proxy with a numeric address: %s", proxy_url);
    size_t request_length = write_request(request, target, username, password);
    if (!request_length)
        return failed(result, "the request is too long");
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return failed(result, "socket: %s", strerror(errno));
    bool ok = exchange(fd, &address, length, request, request_length, start + timeout_ms, result);
    close(fd);
    result->latency_ms = now_ms() - start;
    return ok;
}
