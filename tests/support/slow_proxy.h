/*
 * Stands between a client and a daemon on unix sockets and passes bytes on, later than they came,
 * or not at all. One thread of its own; the functions may be called from any.
 */
#ifndef PTIER_TEST_SLOW_PROXY_H
#define PTIER_TEST_SLOW_PROXY_H

typedef struct slow_proxy slow_proxy;

/* Listens at `path`, connects to `target`. Both are ipc:// URLs. Fails the test when it cannot. */
slow_proxy *slow_proxy_start(const char *path, const char *target);

/* What comes from now on leaves so much later, in both directions and in order. */
void slow_proxy_delay(slow_proxy *proxy, int ms);

/* Closes all connections: what was under way is lost. New ones may come. */
void slow_proxy_cut(slow_proxy *proxy);

void slow_proxy_stop(slow_proxy *proxy); /* NULL is fine */

#endif
