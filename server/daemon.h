/*
 * One daemon, put together: journal, cache, event publisher, calls. No globals: several may run in
 * one process. Start and stop from one thread.
 */
#ifndef PTIER_DAEMON_H
#define PTIER_DAEMON_H

#include "config.h"
#include "log.h"

typedef struct ptier_daemon ptier_daemon;

/*
 * Opens the cache and listens. `on_shutdown` is called on any thread when a client asks to stop (it
 * must not block or stop the daemon itself). `config` and log are borrowed until stop. On failure
 * nothing is left behind, and *daemon is NULL; else it is set before anybody can connect.
 * INVALID_ARGUMENT: an option, or what it names.
 */
PTIER_MUST_CHECK ptier_status ptier_daemon_start(const ptier_config *config, ptier_log *log,
                                                 void (*on_shutdown)(void *context),
                                                 void *shutdown_context, ptier_daemon **daemon,
                                                 ptier_error *error);

/* Refuse, drain, flush, close. NULL is fine. The status is that of ptier_cache_close. */
ptier_status ptier_daemon_stop(ptier_daemon *daemon);

/* To be called about twice a second: reads the token file anew if it changed, or `reload`; cuts
 * connections that stall in their handshake. */
void ptier_daemon_tend(ptier_daemon *daemon, bool reload);

/* A connection that was accepted, for the latter. Any thread. */
void ptier_daemon_accepted(ptier_daemon *daemon, int fd);

/* Borrowed until stop. */
ptier_cache *ptier_daemon_cache(ptier_daemon *daemon);

#endif
