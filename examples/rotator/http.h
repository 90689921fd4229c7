/*
 * One HTTP GET through an HTTP proxy, by plain sockets. Blocking, with a deadline. Thread-safe: no
 * state. Has nothing to do with proxytier: it is what a rotator does with the proxies that it got.
 */
#ifndef ROTATOR_HTTP_H
#define ROTATOR_HTTP_H

#include <stdbool.h>

typedef struct http_result {
    int status;        /* the target's answer; 0 when there was none */
    double latency_ms; /* from the connect to the last byte */
    char error[128];   /* why there was no good answer, without credentials; "" otherwise */
} http_result;

/*
 * Fetches `target` (http://host:port/path) through `proxy_url` (http://address:port, the address
 * numeric). username and password may be NULL. True when the answer was a 2xx within timeout_ms.
 */
bool http_get_via(const char *proxy_url, const char *username, const char *password,
                  const char *target, int timeout_ms, http_result *result);

/* Whether a proxy URL names a loopback address in numbers. */
bool http_proxy_is_loopback(const char *proxy_url);

#endif
